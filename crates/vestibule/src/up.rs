//! `vestibule up`: the platform, every role in one process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::running::Running;

/// Threads for HTTP and SQL; devices have a thread for each core of their own.
const WORKERS: usize = 2;
/// Threads for blocking work, which is mostly key agreements.
const BLOCKING_THREADS: usize = 16;

/// Runs the platform until it is told to stop; `ready_file` is written once everything listens.
///
/// # Errors
/// When it cannot start, or does not stop in order.
pub fn run(config: Config, ready_file: Option<PathBuf>) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let mut stop = StopSignals::catch()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), data = %config.data.display(), "Vestibule starts");
        let running = Running::start(&config).await?;
        for line in running.lines() {
            tracing::info!("{line}");
        }
        if let Some(path) = &ready_file {
            write_ready_file(path, &running)?;
        }
        let asked = stop.asked().await;
        tracing::info!(signal = asked, "Vestibule stops");
        if let Some(path) = &ready_file {
            // It says that everything listens, which is not true any more.
            let _ = fs::remove_file(path);
        }
        running.stop().await;
        tracing::info!("Vestibule has stopped");
        Ok(())
    })
}

/// The runtime for HTTP and SQL.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("worker")
        .enable_all()
        .build()
        .context("the runtime cannot be started")
}

/// SIGINT and SIGTERM, caught from the moment this exists: before anything is open that has to be closed in order.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    pub(crate) fn catch() -> anyhow::Result<StopSignals> {
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?,
        })
    }

    /// Waits for either; one that has come already counts.
    pub(crate) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Readers wait for the file to appear, so it appears whole.
fn write_ready_file(path: &Path, running: &Running) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(&running.ready()).context("the ready file cannot be composed")?;
    let part = path.with_extension("part");
    let write = || -> io::Result<()> {
        fs::write(&part, &text)?;
        fs::rename(&part, path)
    };
    write().with_context(|| format!("the ready file {} cannot be written", path.display()))
}
