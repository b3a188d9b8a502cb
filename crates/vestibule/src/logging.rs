//! Log output on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::Log;

/// Starts logging for the whole process; called once, before anything is worth logging.
///
/// # Errors
/// When the filter cannot be read, or logging has been started before.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)?;
    let output = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started =
        if log.json { output.json().try_init() } else { output.with_ansi(io::stderr().is_terminal()).try_init() };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}
