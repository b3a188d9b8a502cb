//! `vestibule demo`: the platform with a small simulated site.

mod check;
pub mod child;
mod site;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use vestibule_device::Anchor;

use crate::cli::Out;
use crate::config::{Beside, Config, Log};
use crate::running::Running;
use crate::up::{StopSignals, runtime, stop};

/// Usual ports of the demonstration.
const LBS_TLS_PORT: u16 = 8665;
const HTTPS_PORT: u16 = 8443;
const LBS_PORT: u16 = 8666;
const DAS_TLS_PORT: u16 = 8667;
const DAS_PORT: u16 = 8668;

/// What the demonstration is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Drive every flow, report, and end.
    pub check: bool,
    /// Data directory; a temporary one when absent.
    pub data: Option<PathBuf>,
    /// Port of the console on this machine; 0 picks a free one.
    pub port: u16,
}

/// Runs the demonstration and prints what it shows, or has checked, to `out`.
///
/// # Errors
/// When it cannot start, a check fails, or the check is interrupted.
pub fn run(options: Options, out: &mut Out<'_>) -> anyhow::Result<()> {
    let level = if options.check { "error" } else { "warn" };
    crate::logging::init(&Log { level: level.to_owned(), ..Log::default() })?;
    let directory = Directory::take(options.data.clone());
    let runtime = runtime()?;
    let outcome = runtime.block_on(demonstrate(&options, &directory, out));
    // A check that was interrupted may still wait for something on its thread.
    runtime.shutdown_background();
    outcome
}

async fn demonstrate(options: &Options, directory: &Directory, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch()?;
    // Not cut short by a signal, which is heard right after: what is half open could not be removed.
    let running = start(options, directory).await?;
    if options.check {
        let checked = check(&running, directory, &mut signals).await;
        stop(running).await?;
        checked?.print(out)
    } else {
        let shown = show(&running, directory, &mut signals, out).await;
        stop(running).await?;
        shown
    }
}

/// Drives the checks from a thread of their own, so that a signal is heard meanwhile.
async fn check(running: &Running, directory: &Directory, signals: &mut StopSignals) -> anyhow::Result<check::Report> {
    let bench = check::Bench::new(running, &directory.path)?;
    tokio::select! {
        report = tokio::task::spawn_blocking(move || bench.run()) => report.context("the check itself failed"),
        signal = signals.asked() => bail!("{signal} has ended the check"),
    }
}

/// Runs the simulated site until somebody stops it.
async fn show(
    running: &Running,
    directory: &Directory,
    signals: &mut StopSignals,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    let legacy = running.listeners().lbs_legacy.context("the demonstration opens a legacy LBS")?;
    let tls = running.listeners().lbs.context("the demonstration opens an LBS over TLS")?;
    let roots = std::fs::read(running.ca_file()).with_context(|| running.ca_file().display().to_string())?;
    let entrance = site::Entrance { tls, legacy, anchors: Anchor::from_pem(&roots)? };
    let site = site::Site::start(running.platform(), &entrance, &directory.path).await?;
    let end = if directory.temporary { " Its data goes with it; --data DIR keeps it." } else { "" };
    let (devices, children) = site.len();
    let site_line = format!("a platform with {devices} simulated devices and {children} sub-devices");
    let lines = [
        format!("Vestibule {}: {site_line}.\n", env!("CARGO_PKG_VERSION")),
        format!("  live page  {}", running.console_url()),
        format!("  API        {}/v1/openapi.json", running.url()),
        format!("  trust      {} (import it into the browser; curl --cacert)", running.ca_file().display()),
        format!("  plain      http://{} for this machine, without TLS", running.listeners().http),
        format!("  token      {}", running.token_file().display()),
        format!("  LBS        osaps://{tls} for devices of your own"),
        format!("             {legacy} for those of the legacy suites, which are not confidential"),
        format!("\nCtrl-C stops it.{end}"),
    ];
    let mut shown = out.line(lines.join("\n"));
    if shown.is_ok() {
        signals.asked().await;
        shown = out.line("\nStopping.");
    }
    site.stop().await;
    shown
}

/// Starts the platform on the usual ports, or on free ones when somebody has one of them.
async fn start(options: &Options, directory: &Directory) -> anyhow::Result<Running> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut config = Config { data: directory.path.clone(), ..Config::default() };
    config.http.listen = local(options.port);
    config.http.tls_listen = Beside::At(local(if options.port == 0 { 0 } else { HTTPS_PORT }));
    if !options.check {
        (config.lbs.listen, config.das.listen) = (Some(local(LBS_TLS_PORT)), Some(local(DAS_TLS_PORT)));
        config.lbs.legacy_listen = Some(local(LBS_PORT));
        config.das.legacy_listen = Some(local(DAS_PORT));
        match Running::start(&config).await {
            Err(error) if is_taken(&error) => {}
            started => return started,
        }
        config.http.listen = local(0);
        config.http.tls_listen = Beside::At(local(0));
    }
    (config.lbs.listen, config.das.listen) = (Some(local(0)), Some(local(0)));
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
    fn take(named: Option<PathBuf>) -> Directory {
        let temporary = named.is_none();
        let path = named
            .unwrap_or_else(|| std::env::temp_dir().join(format!("vestibule-demo-{}", uuid::Uuid::new_v4().simple())));
        Directory { path, temporary }
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
