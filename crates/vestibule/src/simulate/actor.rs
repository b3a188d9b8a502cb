//! One simulated device: the real SDK, and a program around it that follows a schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use vestibule_device::{Device, MemoryStorage, ReportError, StartError, State, StopReason};

use super::dice::Dice;
use super::event_id::RunId;
use super::latency::Latencies;
use super::ledger::Ledger;
use super::orders::Counter;
use super::profile::{Happening, Place, Reading};
use super::roll::Registered;
use super::schedule::{Act, Faults, Rates, Schedule};
use super::wire::Wire;

/// Messages a device keeps while they cannot be sent, and their bytes; thousands of devices may have to.
const QUEUE: (usize, usize) = (256, 128 * 1024);
/// Messages whose end is waited for: twice what the queue holds, because a refused one is heard of a moment later.
const UNDER_WAY: usize = 512;
/// How long the acknowledgements of what is under way are waited for at the end.
const DRAIN: Duration = Duration::from_secs(20);
/// What a device says at random has dice of its own, as each line of its schedule.
const WORDS: u32 = 0;

/// What all devices of a simulation share.
pub(crate) struct Scene {
    /// `host:port`.
    pub lbs: Arc<str>,
    pub run: RunId,
    pub seed: u64,
    /// Rates that somebody chose, in place of those of the profile.
    pub chosen: ChosenRates,
    pub faults: Faults,
    /// Credentials, which outlive a device that reconnects.
    pub storage: Arc<MemoryStorage>,
    /// Takes operations; absent when none are asked for.
    pub counter: Option<Counter>,
    pub gauges: Arc<Gauges>,
}

/// Rates that were chosen; `None` leaves those of the profile.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChosenRates {
    /// Events of each device in a minute.
    pub events_per_minute: Option<f64>,
    /// Changed attributes of each device in a minute.
    pub reports_per_minute: Option<f64>,
    /// Operations each device is asked for in a minute.
    pub operations_per_minute: Option<f64>,
}

impl ChosenRates {
    /// The rates of a device whose profile has these.
    pub(crate) fn or(&self, usual: &Rates) -> Rates {
        Rates {
            events_per_minute: self.events_per_minute.unwrap_or(usual.events_per_minute),
            reports_per_minute: self.reports_per_minute.unwrap_or(usual.reports_per_minute),
            operations_per_minute: self.operations_per_minute.unwrap_or(usual.operations_per_minute),
        }
    }
}

/// What can be seen while the simulation runs.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub online: AtomicU64,
    pub sent: AtomicU64,
    pub acknowledged: AtomicU64,
    /// From the start of a device to its first login.
    pub entries: Latencies,
    /// From the report of an event to its acknowledgement.
    pub events: Latencies,
    /// From the report of an attribute to its acknowledgement.
    pub reports: Latencies,
}

/// What became of messages of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub sent: u64,
    pub acknowledged: u64,
    /// Given up: the device stopped before an acknowledgement came.
    pub given_up: u64,
    /// Not sent: too many waited already.
    pub not_sent: u64,
}

/// How often something was done to a device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FaultCount {
    pub drop: u64,
    pub pause: u64,
    pub reconnect: u64,
}

/// What a device has lived through.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    pub number: u32,
    pub ledger: Ledger,
    pub events: Count,
    pub reports: Count,
    pub faults: FaultCount,
    pub authentications: u64,
    pub logins: u64,
    pub entry: Entry,
}

/// How a device came in.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Its turn to start had not come.
    #[default]
    NotStarted,
    /// It was on its way.
    UnderWay,
    /// It was kept out, and said why.
    Refused(String),
    /// It came in.
    In,
}

/// The end of a message.
struct Ended {
    /// The number of an event; `None` for an attribute.
    event: Option<u32>,
    took: Result<Duration, ReportError>,
}

/// A simulated device.
pub(crate) struct Actor {
    scene: Arc<Scene>,
    who: Arc<Registered>,
    wire: Option<Wire>,
    dice: Dice,
    under_way: JoinSet<Ended>,
    diary: Diary,
    /// It counts among those that are online.
    online: bool,
}

impl Actor {
    pub(crate) fn new(scene: Arc<Scene>, who: Arc<Registered>) -> Actor {
        let dice = Dice::new(scene.seed, who.number, WORDS);
        let wire = scene.faults.touch_connections().then(|| Wire::new(&scene.lbs));
        let diary = Diary { number: who.number, ..Diary::default() };
        Actor { scene, who, wire, dice, under_way: JoinSet::new(), diary, online: false }
    }

    /// Starts at `from`, follows the schedule until `over` says so, waits for what is under way, and leaves.
    pub(crate) async fn run(mut self, from: Instant, mut over: watch::Receiver<bool>) -> Diary {
        tokio::select! {
            () = sleep_until(from) => {}
            () = become_true(&mut over) => return self.diary,
        }
        let device = match self.start() {
            Ok(device) => device,
            Err(error) => {
                self.diary.entry = Entry::Refused(error.to_string());
                return self.diary;
            }
        };
        self.diary.entry = Entry::UnderWay;
        let device = self.live(device, &mut over).await;
        self.leave(device).await;
        self.diary
    }

    fn start(&self) -> Result<Device, StartError> {
        let Registered { serial, code, profile, .. } = &*self.who;
        let builder = Device::builder(serial, code)
            .lbs(&*self.scene.lbs)
            .storage(Arc::clone(&self.scene.storage))
            .device_type(profile.product())
            .firmware(env!("CARGO_PKG_VERSION"))
            .queue(QUEUE.0, QUEUE.1);
        let builder = match &self.wire {
            Some(wire) => builder.dial(wire.clone()),
            None => builder,
        };
        (profile.abilities)(builder).start()
    }

    /// Follows the schedule, which begins with the first login: what a device does before is not what is measured.
    /// Gives the device that runs at the end, if one does.
    async fn live(&mut self, mut device: Device, over: &mut watch::Receiver<bool>) -> Option<Device> {
        let started = Instant::now();
        let profile = self.who.profile;
        let rates = self.scene.chosen.or(&profile.rates);
        let mut schedule = Schedule::new(self.scene.seed, self.who.number, &rates, &self.scene.faults);
        let mut state = device.watch_state();
        // A device that was quick is in already.
        state.mark_changed();
        let mut begun: Option<Instant> = None;
        loop {
            let next = begun.zip(schedule.due()).map(|(begun, due)| begun + due);
            tokio::select! {
                () = become_true(over) => return Some(device),
                Ok(()) = state.changed() => {
                    self.note_state(&state.borrow_and_update());
                    if self.online && begun.is_none() {
                        begun = Some(Instant::now());
                        self.scene.gauges.entries.record(started.elapsed());
                        self.introduce(&device);
                    }
                }
                Some(ended) = self.under_way.join_next() => self.note_end(ended.ok()),
                () = at(next) => match schedule.take() {
                    None => {}
                    Some(Act::Reconnect) => {
                        self.diary.faults.reconnect += 1;
                        self.close(&device).await;
                        device = match self.start() {
                            Ok(device) => device,
                            Err(error) => {
                                tracing::error!(serial = %self.who.serial, %error, "a simulated device does not come back");
                                return None;
                            }
                        };
                        state = device.watch_state();
                        state.mark_changed();
                        self.introduce(&device);
                    }
                    Some(act) => self.act(act, &device),
                }
            }
        }
    }

    fn act(&mut self, act: Act, device: &Device) {
        let profile = self.who.profile;
        let (faults, wire) = (&mut self.diary.faults, self.wire.as_ref());
        match act {
            Act::Event => self.event(device),
            Act::Report => {
                let reading = (profile.reading)(&mut self.dice);
                self.report(device, reading);
            }
            Act::Operation => {
                if let Some(counter) = &self.scene.counter {
                    counter.ask(&self.who.id, (profile.order)(&mut self.dice));
                }
            }
            Act::Drop => faults.drop += u64::from(wire.is_some_and(Wire::cut)),
            Act::Pause(time) => faults.pause += u64::from(wire.is_some_and(|wire| wire.silence(time))),
            Act::Reconnect => {}
        }
    }

    /// Reports what the device is, as after every start of its program.
    fn introduce(&mut self, device: &Device) {
        for reading in (self.who.profile.first)() {
            self.report(device, reading);
        }
    }

    fn event(&mut self, device: &Device) {
        if self.under_way.len() >= UNDER_WAY {
            self.diary.events.not_sent += 1;
            return;
        }
        let Happening { place, mut data } = (self.who.profile.event)(&mut self.dice);
        let Some(number) = self.diary.ledger.make() else { return };
        if let Some(data) = data.as_object_mut() {
            data.insert("basic".to_owned(), json!({ "UUID": self.scene.run.event(self.who.number, number) }));
        }
        self.diary.events.sent += 1;
        self.scene.gauges.sent.fetch_add(1, Relaxed);
        let device = device.clone();
        self.under_way.spawn(async move {
            let Place { resource, index, area, name } = place;
            let begun = Instant::now();
            let reported = device.event(resource, index, area, name).report(&data).await;
            Ended { event: Some(number), took: reported.map(|_| begun.elapsed()) }
        });
    }

    fn report(&mut self, device: &Device, reading: Reading) {
        if self.under_way.len() >= UNDER_WAY {
            self.diary.reports.not_sent += 1;
            return;
        }
        let Reading { place, value } = reading;
        self.diary.reports.sent += 1;
        let device = device.clone();
        self.under_way.spawn(async move {
            let Place { resource, index, area, name } = place;
            let begun = Instant::now();
            let reported = device.attribute(resource, index, area, name).report(&value).await;
            Ended { event: None, took: reported.map(|()| begun.elapsed()) }
        });
    }

    /// `None`: the task of the message failed, which leaves it given up.
    fn note_end(&mut self, ended: Option<Ended>) {
        let Some(Ended { event, took }) = ended else { return };
        let gauges = &self.scene.gauges;
        let (count, latencies) = match event {
            Some(_) => (&mut self.diary.events, &gauges.events),
            None => (&mut self.diary.reports, &gauges.reports),
        };
        match took {
            Ok(took) => {
                count.acknowledged += 1;
                latencies.record(took);
                if let Some(number) = event {
                    self.diary.ledger.acknowledge(number);
                    gauges.acknowledged.fetch_add(1, Relaxed);
                }
            }
            Err(ReportError::Stopped) => {}
            Err(error) => {
                count.not_sent += 1;
                count.sent -= 1;
                if event.is_some() {
                    gauges.sent.fetch_sub(1, Relaxed);
                }
                tracing::debug!(serial = %self.who.serial, %error, "not sent");
            }
        }
    }

    fn note_state(&mut self, state: &State) {
        let online = *state == State::Online;
        if online {
            self.diary.entry = Entry::In;
        } else if self.diary.entry != Entry::In
            // What it is about to do says less than why it waits.
            && matches!(state, State::Waiting { .. } | State::Stopped(StopReason::Blacklisted | StopReason::Crashed))
        {
            self.diary.entry = Entry::Refused(state.to_string());
        }
        if online != self.online {
            self.online = online;
            let gauge = &self.scene.gauges.online;
            if online {
                gauge.fetch_add(1, Relaxed)
            } else {
                gauge.fetch_sub(1, Relaxed)
            };
        }
    }

    /// Waits for the acknowledgements of what is under way, and leaves.
    async fn leave(&mut self, device: Option<Device>) {
        let deadline = Instant::now() + DRAIN;
        while let Ok(Some(ended)) = timeout_at(deadline, self.under_way.join_next()).await {
            self.note_end(ended.ok());
        }
        if let Some(device) = device {
            self.close(&device).await;
        }
        // They hear now that nothing will come.
        while let Some(ended) = self.under_way.join_next().await {
            self.note_end(ended.ok());
        }
        for count in [&mut self.diary.events, &mut self.diary.reports] {
            count.given_up = count.sent - count.acknowledged;
        }
    }

    /// Stops the device, in order where it is online.
    async fn close(&mut self, device: &Device) {
        if let Err(error) = device.stop().await {
            tracing::debug!(serial = %self.who.serial, %error, "a simulated device did not leave in order");
        }
        let counters = device.counters();
        self.diary.authentications += counters.authentications;
        self.diary.logins += counters.logins;
        self.note_state(&device.state());
    }
}

async fn become_true(over: &mut watch::Receiver<bool>) {
    // Without a sender it is over as well.
    let _ = over.wait_for(|over| *over).await;
}

/// Waits until then; for ever without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
