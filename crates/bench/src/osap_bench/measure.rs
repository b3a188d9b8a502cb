//! One run: a fresh platform, a fleet, every phase once.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use osap::Suite;
use tokio::sync::watch;

use crate::affinity::Cores;
use crate::bare::{self, Bare};
use crate::cpu::Spent;
use crate::device::{self, ATTRIBUTES, Device, Plan};
use crate::fleet::Fleet;
use crate::http::{Ask, Http, Quota};
use crate::memory::Memory;
use crate::server::Server;

/// Devices that authenticate or log in at once.
pub const LANES: usize = 32;
/// Devices that come and go before anything is measured: threads, pools and statements are there then.
pub(super) const WARM_UP: usize = 64;
/// Devices whose last event is read back over HTTP after each measurement.
const READ_BACK: usize = 16;

/// Where a run happens.
#[derive(Debug, Clone, Copy)]
pub struct Bed<'a> {
    /// The platform's binary.
    pub binary: &'a Path,
    /// Where its data directory is made.
    pub dir: &'a Path,
    /// Which core does what.
    pub cores: Option<Cores>,
    /// Size of the fleet.
    pub devices: usize,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Authentications, and refreshes, at least; each device does as many as the others.
    pub authentications: usize,
    /// Logins at least, likewise.
    pub logins: usize,
    /// Events, and attributes reported.
    pub events: u64,
    /// Operations, and desired values.
    pub requests: usize,
    /// Longest time in which new events, attributes or requests are sent.
    pub time: Duration,
    /// How long the idle fleet is watched.
    pub idle: Duration,
}

/// What a phase did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phase {
    /// Units of work.
    pub units: u64,
    /// What they cost, with what was written behind the last answer.
    pub spent: Spent,
    /// From the first request to the last answer.
    pub wall: Duration,
}

/// What the events did.
#[derive(Debug, Clone, Copy)]
pub struct Events {
    /// Unacknowledged events of a device.
    pub window: u64,
    /// The phase.
    pub phase: Phase,
    /// Commits of the journal.
    pub commits: f64,
}

/// What came out of one run.
#[derive(Debug, Clone)]
pub struct Run {
    /// One P-384 exchange in µs, beside the authentications.
    pub exchange_us: f64,
    /// One conversation of as many frames in which nothing is said: the mean of before and after them.
    pub conversation_us: f64,
    /// First authentications.
    pub authentication: Phase,
    /// The CONNECT after each device's last one.
    pub first_connect: Phase,
    /// Plain refreshes.
    pub refresh: Phase,
    /// Logins with both subscriptions.
    pub login: Phase,
    /// Events, for each window.
    pub events: Vec<Events>,
    /// Reported attributes, with the first of the windows.
    pub attribute: Phase,
    /// Operations, from the request over HTTP to its answer.
    pub operation: Phase,
    /// Desired values, likewise.
    pub desired: Phase,
    /// CPU time of the platform while the fleet was connected and silent, for each second.
    pub idle_us_per_second: f64,
    /// With the fleet registered.
    pub registered: Memory,
    /// With the fleet authenticated.
    pub authenticated: Memory,
    /// With the fleet connected and silent.
    pub connected: Memory,
    /// And with every attribute of each device reported once.
    pub described: Memory,
}

/// Runs every phase.
///
/// # Errors
/// When anything does not go as it should.
pub fn run(bed: &Bed<'_>, effort: &Effort, windows: &[u64]) -> anyhow::Result<Run> {
    let server = Server::start(bed.binary, bed.dir, bed.cores)?;
    let measured = phases(&server, bed, effort, windows).with_context(|| server.log_end())?;
    server.stop()?;
    Ok(measured)
}

fn phases(server: &Server, bed: &Bed<'_>, effort: &Effort, windows: &[u64]) -> anyhow::Result<Run> {
    let lbs = server.lbs()?;
    let names: Vec<_> = (0..bed.devices + WARM_UP).map(|n| (device::serial(n), device::CODE)).collect();
    progress("registration and warm-up, not measured");
    server.http().register(&names)?;
    warm_up(lbs, bed.devices)?;
    server.cpu().settle()?;

    let mut fleet = Fleet::new(0..bed.devices)?;
    let registered = server.memory()?;
    let core = bed.cores.map(|cores| cores.server);
    let rounds = |units: usize| units.div_ceil(bed.devices);

    let before = bare::conversation(bed.cores, LANES)?.us;
    let (authentication, exchange) = measured_with_floor(server, "first authentication", core, Suite::Legacy, || {
        let round = |_| fleet.each(LANES, async move |device| device.authenticate(lbs).await);
        (0..rounds(effort.authentications)).map(round).sum()
    })?;
    let after = bare::conversation(bed.cores, LANES)?.us;
    let first_connect =
        measured(server, "first CONNECT", || fleet.each(LANES, async |device| device.first_connect().await))?;
    let refresh = measured(server, "refresh", || {
        let round = |_| fleet.each(LANES, async move |device| device.refresh(lbs).await);
        (0..rounds(effort.authentications)).map(round).sum()
    })?;

    let authenticated = server.memory()?;
    let mut login = log_in(server, &mut fleet)?;
    let connected = server.memory()?;
    let idle_us_per_second = idle(server, effort.idle)?;
    let described = describe(server, &mut fleet)?;
    let events = windows.iter().map(|&window| report(server, &mut fleet, effort, window)).collect::<Result<_, _>>()?;
    let window = windows.first().copied().unwrap_or(1);
    let plan = Plan::new(effort.events, effort.time, window);
    let attribute =
        reported(server, &mut fleet, "attributes", plan, async |device, plan| device.report_attributes(plan).await)?;
    let operation = operate(server, &mut fleet, effort)?;
    let desired = set(server, &mut fleet, effort)?;
    // Further rounds come last: what earlier connections leave in the heap would hide what the first ones take.
    for _ in 1..rounds(effort.logins) {
        leave(server, &mut fleet)?;
        login += log_in(server, &mut fleet)?;
    }
    leave(server, &mut fleet)?;
    Ok(Run {
        exchange_us: exchange.us,
        conversation_us: f64::midpoint(before, after),
        authentication,
        first_connect,
        refresh,
        login,
        events,
        attribute: attribute.phase,
        operation,
        desired,
        idle_us_per_second,
        registered,
        authenticated,
        connected,
        described,
    })
}

/// The whole life of some devices, an event and attributes included, so that everything has happened once.
fn warm_up(lbs: SocketAddr, first: usize) -> anyhow::Result<()> {
    let mut visitors = Fleet::new(first..first + WARM_UP)?;
    let plan = Rc::new(Plan::new(WARM_UP as u64, Duration::from_secs(10), 1));
    visitors.each(LANES, async move |device| {
        device.authenticate(lbs).await?;
        device.first_connect().await?;
        device.refresh(lbs).await?;
        device.log_in().await?;
        device.report(&plan).await?;
        device.report_attributes(&once()).await?;
        device.leave().await
    })?;
    Ok(())
}

/// Every attribute of one device.
fn once() -> Plan {
    Plan::new(ATTRIBUTES.len() as u64, Duration::from_secs(10), ATTRIBUTES.len() as u64)
}

/// Memory once every attribute of each device has been reported.
fn describe(server: &Server, fleet: &mut Fleet) -> anyhow::Result<Memory> {
    progress("attributes of each device, memory only");
    fleet.each(LANES, async |device| device.report_attributes(&once()).await)?;
    server.cpu().settle()?;
    server.memory()
}

pub(super) fn log_in(server: &Server, fleet: &mut Fleet) -> anyhow::Result<Phase> {
    measured(server, "login", || fleet.each(LANES, async |device| device.log_in().await))
}

/// Not measured, but over before anything else is.
pub(super) fn leave(server: &Server, fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.each(LANES, async |device| device.leave().await)?;
    server.cpu().settle()
}

/// All devices at once report events as fast as they are acknowledged.
pub(super) fn report(server: &Server, fleet: &mut Fleet, effort: &Effort, window: u64) -> anyhow::Result<Events> {
    let plan = Plan::new(effort.events, effort.time, window);
    let name = format!("events, window {window}");
    let events = reported(server, fleet, &name, plan, async |device, plan| device.report(plan).await)?;
    for device in fleet.devices().iter().filter(|device| device.last_event().is_some()).take(READ_BACK) {
        let stored = server.http().last_event(device.serial())?;
        if stored.as_deref() != device.last_event() {
            bail!("the last event of {} is {:?}, stored is {stored:?}", device.serial(), device.last_event());
        }
    }
    Ok(events)
}

/// All devices at once send messages of one kind; each one that was acknowledged has to be a record.
fn reported(
    server: &Server,
    fleet: &mut Fleet,
    name: &str,
    plan: Plan,
    work: impl AsyncFn(&mut Device, &Plan) -> anyhow::Result<()> + 'static,
) -> anyhow::Result<Events> {
    let window = plan.window();
    let lanes = fleet.devices().len();
    let (phase, commits) = recorded(server, || {
        measured(server, name, || {
            let plan = Rc::new(plan);
            let shared = Rc::clone(&plan);
            fleet.each(lanes, async move |device| work(device, &shared).await)?;
            Ok(plan.acknowledged())
        })
    })?;
    Ok(Events { window, phase, commits })
}

/// Devices carry out operations; the end of each one has to be a record.
fn operate(server: &Server, fleet: &mut Fleet, effort: &Effort) -> anyhow::Result<Phase> {
    warm_up_calls(server, fleet, effort, Http::invoke)?;
    let work = || measured(server, "operations", || ask(server, fleet, effort.requests, effort, Http::invoke));
    recorded(server, work).map(|(phase, _)| phase)
}

/// Devices take values.
fn set(server: &Server, fleet: &mut Fleet, effort: &Effort) -> anyhow::Result<Phase> {
    warm_up_calls(server, fleet, effort, Http::set)?;
    measured(server, "desired values", || ask(server, fleet, effort.requests, effort, Http::set))
}

/// Some requests of a kind that are not measured, so that everything has happened once.
fn warm_up_calls(server: &Server, fleet: &mut Fleet, effort: &Effort, request: Ask) -> anyhow::Result<()> {
    ask(server, fleet, WARM_UP, effort, request)?;
    server.cpu().settle()
}

/// Devices are asked over HTTP, and all of them do what they are asked; how often that was.
fn ask(server: &Server, fleet: &mut Fleet, requests: usize, effort: &Effort, request: Ask) -> anyhow::Result<u64> {
    let serials: Vec<String> = fleet.devices().iter().map(|device| device.serial().to_owned()).collect();
    let quota = Quota::new(requests, effort.time);
    let (over, is_over) = watch::channel(false);
    std::thread::scope(|scope| {
        let callers = scope.spawn(|| {
            let done = server.http().call(&serials, &quota, request);
            over.send_replace(true);
            done
        });
        let served = fleet.each(serials.len(), async move |device| device.serve(is_over.clone()).await);
        // Who asks says better what went wrong than who was asked.
        let done = callers.join().unwrap_or_else(|_| bail!("the thread that asks broke off"))?;
        served.map(|_| done)
    })
}

/// Has work done whose every unit is a record of the journal, and counts the commits.
fn recorded(server: &Server, work: impl FnOnce() -> anyhow::Result<Phase>) -> anyhow::Result<(Phase, f64)> {
    let before = server.http().metrics()?;
    let phase = work()?;
    let after = server.http().metrics()?;
    let grown = |name| after.sum(name) - before.sum(name);
    let committed = grown("vestibule_journal_committed_total");
    if committed != phase.units as f64 {
        bail!("{} messages were acknowledged and {committed} committed", phase.units);
    }
    let dropped = grown("vestibule_das_messages_dropped_total");
    if dropped != 0.0 {
        bail!("{dropped} messages were dropped");
    }
    Ok((phase, grown("vestibule_journal_commit_seconds_count")))
}

/// CPU time in µs for each second in which nobody says anything.
pub(super) fn idle(server: &Server, time: Duration) -> anyhow::Result<f64> {
    progress("idle");
    let (before, begun) = (server.cpu().read()?, Instant::now());
    sleep(time);
    let spent = server.cpu().since(&before)?;
    Ok(spent.cpu.as_secs_f64() * 1e6 / begun.elapsed().as_secs_f64())
}

pub(super) fn measured(
    server: &Server,
    name: &str,
    work: impl FnOnce() -> anyhow::Result<u64>,
) -> anyhow::Result<Phase> {
    progress(name);
    let (before, begun) = (server.cpu().read()?, Instant::now());
    let units = work()?;
    let wall = begun.elapsed();
    server.cpu().settle()?;
    Ok(Phase { units, spent: server.cpu().since(&before)?, wall })
}

/// The same beside the floor of a suite, which counts neither as time of the platform nor as time that passed.
pub(super) fn measured_with_floor(
    server: &Server,
    name: &str,
    core: Option<usize>,
    suite: Suite,
    work: impl FnOnce() -> anyhow::Result<u64>,
) -> anyhow::Result<(Phase, Bare)> {
    let mut floor = None;
    let phase = measured(server, name, || {
        let ((units, wall), bare) = bare::beside(core, suite, || {
            let begun = Instant::now();
            work().map(|units| (units, begun.elapsed()))
        })?;
        floor = Some((bare, wall));
        Ok(units)
    })?;
    let (bare, wall) = floor.context("nothing was measured beside the work")?;
    Ok((Phase { wall, ..phase }, bare))
}

/// A measurement takes minutes; this says where it is.
pub(super) fn progress(what: &str) {
    eprintln!("  {what}");
}

impl Phase {
    /// CPU time of a unit in µs.
    pub fn cpu_us(&self) -> f64 {
        self.spent.cpu.as_secs_f64() * 1e6 / self.units as f64
    }

    /// The same by the other account.
    pub fn ticks_us(&self) -> f64 {
        self.spent.ticks.as_secs_f64() * 1e6 / self.units as f64
    }

    /// Units in a second.
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.wall.as_secs_f64()
    }
}

impl std::ops::AddAssign for Phase {
    fn add_assign(&mut self, more: Phase) {
        self.units += more.units;
        self.spent += more.spent;
        self.wall += more.wall;
    }
}
