//! `vestibule simulate`: a fleet made with the device SDK, against a running platform.
//!
//! Devices are registered over the HTTP API, started over some time, and live by a schedule that follows from a seed.
//! At the end the ids of their events are compared, as sets, with what the platform has stored.

mod actor;
mod descriptors;
mod diary;
mod dice;
mod event_id;
mod latency;
mod ledger;
mod orders;
mod profile;
mod record;
mod roll;
mod schedule;
mod state;
mod summary;
mod voice;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vestibule_device::{Anchor, MemoryStorage, Storage};

use self::actor::{Actor, Gauges, Scene};
use self::diary::Diary;
use self::event_id::RunId;
use self::orders::{Clerks, Ends};
use self::record::Record;
use self::roll::{Progress, Registered};
use self::state::StateDir;
use self::summary::Findings;
use crate::client::Client;
use crate::up::{StopSignals, runtime};

pub(crate) use dice::Dice;
pub(crate) use profile::{CAMERA, DOOR, HUB, Habits, Happening, Profile};
pub(crate) use voice::Voice;

pub use actor::ChosenRates;
pub use profile::Fleet;
pub use schedule::{Faults, rate_from_text};
pub use summary::Summary;

/// Devices one process simulates at most; their numbers have 24 bits in the ids of their events.
pub const MAX_DEVICES: u32 = 100_000;

/// Children a hub has at most (osap-wire 10.6).
pub const MAX_CHILDREN: u32 = osap::das::hub::MAX_CHILDREN as u32;

/// How often whoever watches is told.
const TICK: Duration = Duration::from_millis(200);

/// What to simulate.
pub struct Options {
    /// How many devices, up to [`MAX_DEVICES`].
    pub devices: u32,
    /// What they are.
    pub fleet: Fleet,
    /// How many children each hub has, up to [`MAX_CHILDREN`].
    pub children: u32,
    /// What their serials begin with.
    pub prefix: String,
    /// The LBS, `osaps://host:port`, or `host:port` of the legacy suite.
    pub lbs: String,
    /// What vouches for LBS and DAS; needed at `osaps://`, and of no use with the legacy suite.
    pub anchors: Vec<Anchor>,
    /// Rates, where those of the profiles shall not be.
    pub rates: ChosenRates,
    /// What goes wrong.
    pub faults: Faults,
    /// How long it goes on once all devices are started; until a signal without.
    pub duration: Option<Duration>,
    /// Over how long the starts are spread.
    pub ramp: Duration,
    /// Where the schedule comes from.
    pub seed: u64,
    /// The devices stay registered.
    pub keep: bool,
    /// The devices keep below this directory what outlives them: codes, credentials and cached events.
    pub state: Option<PathBuf>,
    /// What becomes of each event is appended to this file.
    pub record: Option<PathBuf>,
}

/// Where a simulation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Devices are registered.
    Registering(usize, usize),
    /// Devices are at work.
    Running {
        /// Devices that are online.
        online: u64,
        /// Devices there are.
        devices: u32,
        /// Events that were acknowledged.
        acknowledged: u64,
        /// Events that were sent.
        sent: u64,
        /// Operations that were done.
        operations: u64,
    },
    /// Devices wait for their acknowledgements and leave.
    Leaving(usize, u32),
    /// What is stored is read back.
    Comparing(usize, usize),
    /// Devices are taken out of the registry.
    Removing(usize, usize),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Registering(done, all) => write!(f, "{done} of {all} devices registered"),
            Stage::Running { online, devices, acknowledged, sent, operations } => {
                write!(f, "{online} of {devices} devices online, {acknowledged} of {sent} events acknowledged")?;
                if *operations > 0 { write!(f, ", {operations} operations done") } else { Ok(()) }
            }
            Stage::Leaving(done, all) => write!(f, "{done} of {all} devices have left"),
            Stage::Comparing(done, all) => write!(f, "events of {done} of {all} devices compared"),
            Stage::Removing(done, all) => write!(f, "{done} of {all} devices removed"),
        }
    }
}

/// Simulates to the end and says what came out; `watch` is told now and then where it is. SIGINT and SIGTERM end the
/// simulation in order, a second one ends it at once.
///
/// # Errors
/// When it cannot be begun, or is cut short: then devices may be left in the registry. That something is wrong with
/// the platform is no error but part of the summary.
pub fn run(options: Options, client: Client, watch: &mut dyn FnMut(Stage)) -> anyhow::Result<Summary> {
    descriptors::provide(options.devices, options.faults.touch_connections(), options.state.is_some())?;
    let state = options.state.clone().map(StateDir::open).transpose()?;
    let record = options.record.as_deref().map(Record::open).transpose()?.map(Arc::new);
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let signals = StopSignals::catch()?;
        let client = Arc::new(client);
        Simulation { options, state, record, client, signals, signalled: false, watch }.run().await
    });
    runtime.shutdown_background();
    outcome
}

/// Somebody did not want to wait for the end in order.
#[derive(Debug, thiserror::Error)]
#[error(
    "a second {0} has cut the simulation short; devices are left in the registry\n  \
     the next simulation with this prefix takes them over"
)]
struct CutShort(&'static str);

struct Simulation<'a> {
    options: Options,
    state: Option<StateDir>,
    record: Option<Arc<Record>>,
    client: Arc<Client>,
    signals: StopSignals,
    /// A signal has come: the simulation is over, what follows is in order.
    signalled: bool,
    watch: &'a mut dyn FnMut(Stage),
}

impl Simulation<'_> {
    async fn run(mut self) -> anyhow::Result<Summary> {
        let (fleet, registered) = self.register().await?;
        let outcome = match registered {
            Ok(()) if self.signalled => Err(anyhow::anyhow!("ended before all devices were registered")),
            Ok(()) => self.simulate(&fleet).await,
            Err(error) => Err(error),
        };
        if outcome.as_ref().map_or_else(|error| error.is::<CutShort>(), |_| self.options.keep) {
            return outcome;
        }
        let removed = self.remove(&fleet).await;
        let mut summary = outcome?;
        if let Err(error) = removed {
            summary.fail(format!("{error:#}"));
        }
        Ok(summary)
    }

    /// The devices that are registered, and why not all are.
    async fn register(&mut self) -> anyhow::Result<(Vec<Arc<Registered>>, anyhow::Result<()>)> {
        let Options { devices, fleet, children, .. } = self.options;
        let wanted = (0..devices).map(|number| (number, serial(&self.options.prefix, number))).collect();
        let (client, state) = (Arc::clone(&self.client), self.state.clone());
        let work = move |(number, serial): (u32, String)| {
            roll::register(&client, number, serial, fleet.profile(number), children, state.as_ref()).map(Arc::new)
        };
        let (mut fleet, end) = self.through(wanted, Stage::Registering, work).await?;
        fleet.sort_unstable_by_key(|device| device.own.number);
        Ok((fleet, end))
    }

    async fn simulate(&mut self, fleet: &[Arc<Registered>]) -> anyhow::Result<Summary> {
        let ends = Arc::<Ends>::default();
        let gauges = Arc::<Gauges>::default();
        let entries = || fleet.iter().flat_map(|device| device.entries());
        let asks = entries().any(|entry| self.options.rates.or(&entry.habits.rates).operations_per_minute > 0.0);
        let clerks = asks.then(|| Clerks::start(&self.client, entries().count(), &ends));
        let clerks = clerks.transpose().context("there can be no thread to ask for operations")?;
        let (counter, clerks) = clerks.unzip();
        let run = RunId::new(uuid::Uuid::new_v4());
        let storage: Arc<dyn Storage> = match &self.state {
            Some(state) => Arc::new(state.storage()?),
            None => Arc::new(MemoryStorage::new()),
        };
        let scene = Arc::new(Scene {
            lbs: self.options.lbs.as_str().into(),
            anchors: self.options.anchors.clone(),
            run,
            seed: self.options.seed,
            chosen: self.options.rates,
            faults: self.options.faults,
            storage,
            state: self.state.clone(),
            record: self.record.clone(),
            counter,
            gauges: Arc::clone(&gauges),
        });
        let begun = Instant::now();
        let (over, is_over) = watch::channel(false);
        let mut actors = JoinSet::new();
        for (index, device) in fleet.iter().enumerate() {
            let from = begun + self.options.ramp.mul_f64(index as f64 / fleet.len() as f64);
            actors.spawn(Actor::new(Arc::clone(&scene), Arc::clone(device)).run(from, is_over.clone()));
        }
        self.wait(begun, &gauges, &ends).await;
        if let Some(clerks) = clerks {
            // While the devices are there: how it ends when one has left is nobody's fault.
            self.beside(move || clerks.finish()).await.context("operations")?;
        }
        over.send_replace(true);
        let mut diaries = self.leave(actors).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let stored = self.compare(run, fleet, &mut diaries).await?;
        let mut summary = Summary::of(Findings {
            seed: self.options.seed,
            seconds,
            interrupted: self.signalled,
            fleet: fleet.iter().map(|device| (device.own.habits.name, device.own.serial.as_str())).collect(),
            diaries: &diaries,
            gauges: &gauges,
            operations: ends.figures(),
            stored: stored.map_err(|error| format!("{error:#}")),
        });
        if let Some(problem) = self.record.as_ref().and_then(|record| record.failure()) {
            summary.fail(problem);
        }
        Ok(summary)
    }

    /// Until the time is over or a signal comes.
    async fn wait(&mut self, begun: Instant, gauges: &Gauges, ends: &Ends) {
        let end = self.options.duration.map(|duration| begun + self.options.ramp + duration);
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = self.signals.asked() => {
                    self.signalled = true;
                    return;
                }
                () = async {
                    match end {
                        Some(end) => tokio::time::sleep_until(end).await,
                        None => std::future::pending().await,
                    }
                } => return,
                _ = ticks.tick() => (self.watch)(Stage::Running {
                    online: gauges.online.load(Relaxed),
                    devices: self.options.devices,
                    acknowledged: gauges.acknowledged.load(Relaxed),
                    sent: gauges.sent.load(Relaxed),
                    operations: ends.done(),
                }),
            }
        }
    }

    /// Until every device has left.
    async fn leave(&mut self, mut actors: JoinSet<Diary>) -> anyhow::Result<Vec<Diary>> {
        let mut diaries = Vec::new();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                joined = actors.join_next() => match joined {
                    Some(diary) => diaries.push(diary.context("a simulated device failed")?),
                    None => break,
                },
                signal = self.signals.asked() => self.hear(signal)?,
                _ = ticks.tick() => (self.watch)(Stage::Leaving(diaries.len(), self.options.devices)),
            }
        }
        diaries.sort_unstable_by_key(|diary| diary.number);
        Ok(diaries)
    }

    /// Enters into the diaries what is stored; the inner error says why the platform could not tell.
    async fn compare(
        &mut self,
        run: RunId,
        fleet: &[Arc<Registered>],
        diaries: &mut Vec<Diary>,
    ) -> anyhow::Result<anyhow::Result<()>> {
        let pairs: Vec<_> = fleet.iter().cloned().zip(std::mem::take(diaries)).collect();
        let client = Arc::clone(&self.client);
        let work = move |(device, mut diary): (Arc<Registered>, Diary)| {
            // The diary stays whatever comes of it: the figures of the devices do not depend on the platform's answer.
            let mut pairs = device.entries().zip(&mut diary.lives);
            let read = pairs.try_for_each(|(entry, life)| roll::read_back(&client, run, entry, &mut life.ledger));
            Ok((diary, read))
        };
        let (compared, _) = self.through(pairs, Stage::Comparing, work).await?;
        let mut end = Ok(());
        for (diary, read) in compared {
            diaries.push(diary);
            end = end.and(read);
        }
        diaries.sort_unstable_by_key(|diary| diary.number);
        Ok(end)
    }

    async fn remove(&mut self, fleet: &[Arc<Registered>]) -> anyhow::Result<()> {
        let client = Arc::clone(&self.client);
        let work = move |device: Arc<Registered>| roll::remove(&client, &device);
        let (_, end) = self.through(fleet.to_vec(), Stage::Removing, work).await?;
        end.context("simulated devices are left in the registry; the next simulation with this prefix takes them over")
    }

    /// Has something done beside the runtime.
    async fn beside<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let mut job = tokio::task::spawn_blocking(work);
        loop {
            tokio::select! {
                done = &mut job => return Ok(done?),
                signal = self.signals.asked() => self.hear(signal)?,
            }
        }
    }

    /// Has something done for every item beside the runtime. The outer error is an interruption.
    async fn through<I: Send + 'static, O: Send + 'static>(
        &mut self,
        items: Vec<I>,
        stage: fn(usize, usize) -> Stage,
        work: impl Fn(I) -> anyhow::Result<O> + Send + Sync + 'static,
    ) -> anyhow::Result<(Vec<O>, anyhow::Result<()>)> {
        let all = items.len();
        let progress = Arc::new(Progress::default());
        let theirs = Arc::clone(&progress);
        let mut job = tokio::task::spawn_blocking(move || roll::each(items, &theirs, work));
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                done = &mut job => return done.context("a request to the platform failed"),
                _ = ticks.tick() => (self.watch)(stage(progress.done.load(Relaxed), all)),
                signal = self.signals.asked() => {
                    let begins = matches!(stage(0, 0), Stage::Registering(..));
                    self.hear(signal)?;
                    if begins {
                        progress.stop.store(true, Relaxed);
                    }
                }
            }
        }
    }

    /// The first signal ends the simulation, the second everything.
    fn hear(&mut self, signal: &'static str) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.signalled, true) { Err(CutShort(signal).into()) } else { Ok(()) }
    }
}

/// `SIM-0001`: as wide as most fleets need.
fn serial(prefix: &str, number: u32) -> String {
    format!("{prefix}{:04}", number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_count_from_one() {
        assert_eq!(serial("SIM-", 0), "SIM-0001");
        assert_eq!(serial("SIM-", 99_999), "SIM-100000");
    }

    #[test]
    fn a_stage_is_told_in_words() {
        let running = Stage::Running { online: 3, devices: 5, acknowledged: 7, sent: 9, operations: 0 };
        assert_eq!(running.to_string(), "3 of 5 devices online, 7 of 9 events acknowledged");
        assert_eq!(Stage::Registering(1, 2).to_string(), "1 of 2 devices registered");
    }
}
