//! `vestibule up`: the platform, every role in one process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::descriptors::{self, TooFew};
use crate::memory;
use crate::running::Running;

/// Threads for HTTP and SQL; devices have threads of their own, and so has the LBS.
const WORKERS: usize = 2;
/// Threads for blocking work: files, pictures and passwords.
const BLOCKING_THREADS: usize = 16;

/// The longest a stop in order may take: more than all its steps together, unless the disk hangs.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Runs the platform until it is told to stop; `ready_file` is written once everything listens.
///
/// # Errors
/// When it cannot start, or does not stop in order.
pub fn run(config: Config, ready_file: Option<PathBuf>) -> anyhow::Result<()> {
    let needed = descriptors::needed(&config);
    if let Err(TooFew { most }) = descriptors::raise(needed) {
        tracing::warn!(
            needed,
            most,
            "file descriptors are too few for full listeners; `vestibule admin doctor` says how to have more"
        );
    }
    let wanted = memory::wanted(&config);
    if let Some(available) = memory::available().filter(|available| *available < wanted) {
        tracing::warn!(
            wanted,
            available,
            "memory is too little for a full platform: it might be ended in the midst of work"
        );
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(&config, ready_file.as_deref()));
    // After a stop in order nothing is left; after another one it is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: &Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data = %config.data.display(), "Vestibule starts");
    let running = tokio::select! {
        running = Running::start(config) => running?,
        signal = signals.asked() => {
            tracing::info!(signal, "Vestibule stops before it has started");
            return Ok(());
        }
    };
    for line in running.lines() {
        tracing::info!("{line}");
    }
    let served = ready_file.map_or(Ok(()), |path| write_ready_file(path, &running));
    if served.is_ok() {
        let signal = signals.asked().await;
        tracing::info!(signal, "Vestibule stops");
        if let Some(path) = ready_file {
            // It says that everything listens, which is not true any more.
            let _ = fs::remove_file(path);
        }
    }
    stop(running).await?;
    tracing::info!("Vestibule has stopped");
    served
}

/// Stops a platform in order, within a deadline.
pub(crate) async fn stop(running: Running) -> anyhow::Result<()> {
    tokio::time::timeout(STOP_DEADLINE, running.stop()).await.with_context(|| {
        let seconds = STOP_DEADLINE.as_secs();
        format!("the platform did not stop within {seconds} s and is cut off; what it has acknowledged is on the disk")
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
    /// Catches them; to be called on a runtime.
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
