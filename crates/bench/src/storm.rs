//! `bench storm`: all devices come back at once.

mod comeback;
mod report;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::builder::TypedValueParser as _;
use osap::Suite;
use rustix::time::{ClockId, clock_gettime};

use crate::affinity::{self, Cores};
use crate::device::{Device, Plan};
use crate::fleet::Fleet;
use crate::osap_bench::{self, MAX_DEVICES};
use crate::server::{self, Server};
use comeback::Comeback;
pub use report::StormFigures;
use report::{Outcome, Platform};

/// Devices that enrol at the same time, before the storm.
const LANES: usize = 32;
/// A storm that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1_800);
const DEVICES: usize = 8_000;
const QUICK_DEVICES: usize = 200;
const ATTEMPTS: u32 = 50;

/// Enrols devices of type 4, kills the platform when all are in, starts it anew on its data, and has all of them come back in
/// the same moment.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench storm
  cargo xtask bench storm --keep-sessions
  cargo xtask bench storm --quick

docs/benchmarks.md tells what it does.")]
pub struct Args {
    /// Devices [default: 8000; of a quick run 200]
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=MAX_DEVICES).map(|n| n as usize))]
    pub devices: Option<usize>,
    /// Few devices: shows that it works
    #[arg(long)]
    pub quick: bool,
    /// The devices were not switched off: they try the DAS first, with the session they have
    #[arg(long)]
    pub keep_sessions: bool,
    /// A device that is not in after so many attempts gives up, and fails the run
    #[arg(long, value_name = "N", default_value_t = ATTEMPTS, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub attempts: u32,
    /// File for the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The platform's binary [default: `vestibule` beside this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Directory in which the platform's data directory is made and removed
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
}

/// How a device came in.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// The last of which succeeded.
    attempts: u32,
    after: Duration,
}

/// Raises a storm, and prints what came out.
///
/// # Errors
/// When the platform does not start, or a device is not let in.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let binary = server::binary(args.binary.as_deref())?;
    let cores = Cores::pick()?;
    osap_bench::raise_descriptor_limit();
    if let Some(cores) = cores {
        affinity::pin(cores.generator)?;
    }
    let devices = args.devices.unwrap_or_else(|| usual_devices(args.quick));
    let storm = Storm { devices, keeps_sessions: args.keep_sessions, attempts: args.attempts };
    let figures = storm.rage(&binary, &args.dir, cores)?;
    print!("{figures}");
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&figures).context("the figures cannot be written as JSON")?;
        std::fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// The storm as it is by default, or a small one.
///
/// # Errors
/// As [`run`].
pub fn with_defaults(binary: &Path, dir: &Path, cores: Option<Cores>, quick: bool) -> anyhow::Result<StormFigures> {
    Storm { devices: usual_devices(quick), keeps_sessions: false, attempts: ATTEMPTS }.rage(binary, dir, cores)
}

fn usual_devices(quick: bool) -> usize {
    if quick { QUICK_DEVICES } else { DEVICES }
}

#[derive(Debug, Clone, Copy)]
struct Storm {
    devices: usize,
    keeps_sessions: bool,
    attempts: u32,
}

impl Storm {
    fn rage(&self, binary: &Path, dir: &Path, cores: Option<Cores>) -> anyhow::Result<StormFigures> {
        eprintln!("storm of {} devices", self.devices);
        let mut server = Server::start(binary, dir, cores)?;
        let figures = self.measured(&mut server).with_context(|| server.log_end())?;
        server.stop()?;
        Ok(figures)
    }

    fn measured(&self, server: &mut Server) -> anyhow::Result<StormFigures> {
        eprintln!("  registration, enrolment and login");
        let lbs = server.lbs_of(Suite::Tls)?;
        let mut fleet = Fleet::made_of(osap_bench::made(server, Suite::Tls, self.devices)?)?;
        fleet.each(LANES, async move |device| {
            device.authenticate(lbs).await?;
            device.log_in().await
        })?;
        server.cpu().settle()?;

        eprintln!("  the platform is killed and started anew");
        server.kill()?;
        let keeps_session = self.keeps_sessions;
        fleet.for_each(|device| device.fall_silent(keeps_session));
        server.start_again()?;
        server.cpu().settle()?;
        let (memory_before, cpu_before) = (server.memory()?, server.cpu().read()?);

        eprintln!("  all devices come back");
        let book = Rc::new(RefCell::new((Vec::new(), report::Troubles::new())));
        let (written, rule) = (Rc::clone(&book), *self);
        let (coming, worked) = (Instant::now(), process_seconds());
        fleet.each_within(PATIENCE, self.devices, async move |device| {
            let mut tell = |trouble| *written.borrow_mut().1.entry(trouble).or_default() += 1;
            let attempts = come_back(device, lbs, rule, &mut tell)
                .await
                .with_context(|| format!("{} gave up", device.serial()))?;
            written.borrow_mut().0.push(Arrival { attempts, after: coming.elapsed() });
            Ok(())
        })?;
        let (wall, worked) = (coming.elapsed(), process_seconds() - worked);
        server.cpu().settle()?;
        let cpu = server.cpu().since(&cpu_before)?.cpu;
        let memory_after = server.memory()?;
        let metrics = server.http().metrics()?;
        prove(server, &mut fleet)?;

        let (arrivals, troubles) = book.take();
        let outcome = Outcome { arrivals, troubles, generator_busy: worked / wall.as_secs_f64() };
        let platform = Platform { metrics, cpu, memory_before, memory_after };
        StormFigures::new(self, outcome, &platform).context("nobody came")
    }
}

/// Comes in as the SDK does; how many attempts it took. Tells each failure.
async fn come_back(
    device: &mut Device,
    lbs: std::net::SocketAddr,
    storm: Storm,
    tell: &mut impl FnMut(String),
) -> anyhow::Result<u32> {
    let mut comeback = Comeback::new(storm.keeps_sessions);
    for attempt in 1..=storm.attempts {
        let failed = loop {
            let tried = if comeback.is_for_lbs() { device.try_lbs(lbs).await } else { device.try_das().await };
            match tried {
                Ok(()) if comeback.handle_success() => return Ok(attempt),
                Ok(()) => {}
                Err(trouble) => break trouble,
            }
        };
        tell(failed.to_string());
        let pause = comeback.handle_failure(failed.is_unknown_session(), &mut osap::SystemRandom);
        tokio::time::sleep(pause).await;
    }
    bail!("{} attempts have led to nothing", storm.attempts)
}

/// Everybody reports an event, and each is stored: they are truly in.
fn prove(server: &Server, fleet: &mut Fleet) -> anyhow::Result<()> {
    let committed = || anyhow::Ok(server.http().metrics()?.sum("vestibule_journal_committed_total"));
    let before = committed()?;
    let devices = fleet.each(LANES, async |device| device.report(&Plan::new(1, PATIENCE, 1)).await)?;
    let stored = committed()? - before;
    ensure!(stored == devices as f64, "{devices} devices have reported an event and {stored} are stored");
    Ok(())
}

/// CPU time of this process so far.
fn process_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
