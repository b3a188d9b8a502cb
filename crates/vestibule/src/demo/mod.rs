//! `vestibule demo`: the platform with a small simulated site.

mod check;
pub mod child;
mod site;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::{Config, Log};
use crate::running::Running;
use crate::up::{StopSignals, runtime};

/// Usual ports of the demonstration.
const LBS_PORT: u16 = 8666;
const DAS_PORT: u16 = 8668;

/// What the demonstration is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Drive every flow, report, and end.
    pub check: bool,
    /// Say the outcome of the check as one JSON document.
    pub json: bool,
    /// Data directory; a temporary one when absent.
    pub data: Option<PathBuf>,
    /// Port of the console on this machine; 0 picks a free one.
    pub port: u16,
}

/// Runs the demonstration.
///
/// # Errors
/// When it cannot start, or a check fails.
pub fn run(options: Options) -> anyhow::Result<()> {
    let level = if options.check { "error" } else { "warn" };
    crate::logging::init(&Log { level: level.to_owned(), ..Log::default() })?;
    let directory = Directory::take(options.data.clone())?;
    let runtime = runtime()?;
    let mut stop = runtime.block_on(async { StopSignals::catch() })?;
    let running = runtime.block_on(start(&options, &directory))?;
    let outcome = if options.check {
        let outcome = check::run(&running, &directory.path);
        runtime.block_on(running.stop());
        outcome
    } else {
        runtime.block_on(show(running, &directory, &mut stop))
    };
    drop(runtime);
    let report = outcome?;
    match report {
        Some(report) => report.print(options.json),
        None => Ok(()),
    }
}

/// Runs the simulated site until somebody stops it.
async fn show(
    running: Running,
    directory: &Directory,
    stop: &mut StopSignals,
) -> anyhow::Result<Option<check::Report>> {
    let lbs = running.listeners().lbs_legacy.context("the demonstration opens an LBS")?;
    let site = site::Site::start(running.platform(), lbs, &directory.path).await?;
    println!("Vestibule {}: a platform with {} simulated devices.\n", env!("CARGO_PKG_VERSION"), site.len());
    println!("  live page  {}", running.console_url());
    println!("  API        http://{}/v1/openapi.json", running.listeners().http);
    println!("  token      {}", running.token_file().display());
    println!("  LBS        {lbs} for devices of your own (legacy suites, not confidential)");
    println!(
        "\nCtrl-C stops it.{}",
        if directory.temporary { " Its data goes with it; --data DIR keeps it." } else { "" }
    );
    stop.asked().await;
    println!("\nStopping.");
    site.stop().await;
    running.stop().await;
    Ok(None)
}

/// Starts the platform on the usual ports, or on free ones when somebody has one of them.
async fn start(options: &Options, directory: &Directory) -> anyhow::Result<Running> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut config = Config { data: directory.path.clone(), ..Config::default() };
    config.http.listen = local(options.port);
    if !options.check {
        config.lbs.legacy_listen = Some(local(LBS_PORT));
        config.das.legacy_listen = Some(local(DAS_PORT));
        match Running::start(&config).await {
            Err(error) if is_taken(&error) => {}
            started => return started,
        }
        config.http.listen = local(0);
    }
    config.lbs.legacy_listen = Some(local(0));
    config.das.legacy_listen = Some(local(0));
    Running::start(&config).await
}

fn is_taken(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::AddrInUse)
}

/// The data directory; removed at the end when nobody named one.
struct Directory {
    path: PathBuf,
    temporary: bool,
}

impl Directory {
    fn take(named: Option<PathBuf>) -> anyhow::Result<Directory> {
        match named {
            Some(path) => Ok(Directory { path, temporary: false }),
            None => {
                let path = std::env::temp_dir().join(format!("vestibule-demo-{}", uuid::Uuid::new_v4().simple()));
                Ok(Directory { path, temporary: true })
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("vestibule: {} could not be removed: {error}", self.path.display());
        }
    }
}
