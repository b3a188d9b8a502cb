//! `vestibule up`

use std::path::PathBuf;

use crate::config::{self, ConfigFile, Sources};
use crate::{logging, up};

/// Run the platform until it is told to stop
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule up
  vestibule up -c /etc/vestibule.toml --data /var/lib/vestibule
  vestibule up --set http.listen=127.0.0.1:0 --ready-file ready.json

Without -c, ./vestibule.toml is read when it is there; nothing has to be set to start.
The environment overrides the file (VESTIBULE_HTTP__LISTEN=127.0.0.1:9000),
these flags override both.")]
pub(super) struct Args {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Set one key of the configuration; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write addresses and paths as JSON to this file once everything listens
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// With `--json` the log is JSON whatever the configuration says: it is all this command prints.
pub(super) fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let Sources { file, .. } = Sources::default();
    let mut config = config::load(&Sources {
        file: args.config.map_or(file, ConfigFile::Required),
        environment: std::env::vars_os().collect(),
        set: args.set,
        data: args.data,
    })?;
    config.log.json |= json;
    logging::init(&config.log)?;
    up::run(config, args.ready_file)
}
