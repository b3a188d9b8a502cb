//! One simulated device: the real SDK, and a program around it that follows a schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use vestibule_device::{
    Anchor, Builder, Child, ChildState, Device, ReportError, StartError, State, StopReason, Storage,
};

use super::diary::{Diary, Entry, Life};
use super::dice::Dice;
use super::event_id::RunId;
use super::latency::Latencies;
use super::orders::Counter;
use super::profile::{Happening, Reading};
use super::record::{Fate, Record};
use super::roll::{Enrolled, Registered};
use super::schedule::{Act, Faults, Rates, Schedule};
use super::state::StateDir;
use super::voice::Voice;
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
    /// `osaps://host:port`, or `host:port` of the legacy suite.
    pub lbs: Arc<str>,
    /// What vouches for the platform at `osaps://`.
    pub anchors: Vec<Anchor>,
    pub run: RunId,
    pub seed: u64,
    /// Rates that somebody chose, in place of those of the profile.
    pub chosen: ChosenRates,
    pub faults: Faults,
    /// Credentials, which outlive a device that reconnects.
    pub storage: Arc<dyn Storage>,
    /// What devices keep beyond the simulation; absent when all is in memory only.
    pub state: Option<StateDir>,
    /// Where it is written what becomes of each event, if somebody wants that.
    pub record: Option<Arc<Record>>,
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

/// The end of a message.
struct Ended {
    /// Which of the members spoke.
    of: usize,
    /// The number of an event; `None` for an attribute.
    event: Option<u32>,
    took: Result<Duration, ReportError>,
}

/// The device itself, or a child of it: each lives by a schedule of its own.
struct Member {
    entry: Arc<Enrolled>,
    schedule: Schedule,
    /// What it says.
    dice: Dice,
}

impl Member {
    fn new(scene: &Scene, entry: &Arc<Enrolled>, faults: Faults) -> Member {
        let rates = scene.chosen.or(&entry.habits.rates);
        Member {
            entry: Arc::clone(entry),
            schedule: Schedule::new(scene.seed, entry.number, &rates, &faults),
            dice: Dice::new(scene.seed, entry.number, WORDS),
        }
    }
}

/// A simulated device, with its children.
pub(crate) struct Actor {
    scene: Arc<Scene>,
    who: Arc<Registered>,
    wire: Option<Wire>,
    members: Vec<Member>,
    under_way: JoinSet<Ended>,
    diary: Diary,
    /// It counts among those that are online.
    online: bool,
}

impl Actor {
    pub(crate) fn new(scene: Arc<Scene>, who: Arc<Registered>) -> Actor {
        let wire = scene.faults.touch_connections().then(|| Wire::new(&scene.lbs));
        let own = Member::new(&scene, &who.own, scene.faults.of_device());
        let children = who.children.iter().map(|child| Member::new(&scene, child, scene.faults.of_child()));
        let members = std::iter::once(own).chain(children).collect();
        let lives = who.entries().map(|entry| Life { serial: entry.serial.clone(), ..Life::default() }).collect();
        let diary = Diary { number: who.own.number, lives, ..Diary::default() };
        Actor { scene, who, wire, members, under_way: JoinSet::new(), diary, online: false }
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
        let Registered { own, profile, .. } = &*self.who;
        let builder = Device::builder(&own.serial, &own.code)
            .lbs(&*self.scene.lbs)
            .storage(Arc::clone(&self.scene.storage))
            .device_type(own.habits.product())
            .firmware(env!("CARGO_PKG_VERSION"))
            .queue(QUEUE.0, QUEUE.1);
        let builder = if self.scene.lbs.starts_with("osaps://") {
            builder.anchors(self.scene.anchors.iter().cloned())
        } else {
            builder.legacy()
        };
        let builder = match &self.wire {
            Some(wire) => builder.dial(wire.clone()),
            None => builder,
        };
        let builder = match &self.scene.state {
            Some(state) => builder.cache(state.cache(&own.serial).map_err(StartError::Cache)?),
            None => builder,
        };
        let builder = (profile.abilities)(builder);
        let Some(kind) = profile.child else { return builder.start() };
        let children = self.members.iter().skip(1).map(|Member { entry, schedule, .. }| {
            let child = Child::builder(&entry.serial, &entry.code)
                .product(entry.habits.product())
                .version(env!("CARGO_PKG_VERSION"))
                .connected(!schedule.is_away());
            (kind.abilities)(child)
        });
        children.fold(builder, Builder::child).start()
    }

    /// Follows the schedules, which begin with the first login: what a device does before is not what is measured.
    /// Gives the device that runs at the end, if one does.
    async fn live(&mut self, mut device: Device, over: &mut watch::Receiver<bool>) -> Option<Device> {
        let started = Instant::now();
        let mut state = device.watch_state();
        // A device that was quick is in already.
        state.mark_changed();
        let mut begun: Option<Instant> = None;
        loop {
            let due = begun.and_then(|begun| {
                let due = |(at, member): (usize, &Member)| Some((begun + member.schedule.due()?, at));
                self.members.iter().enumerate().filter_map(due).min()
            });
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
                of = whose_turn(due) => match self.members.get_mut(of).and_then(|member| member.schedule.take()) {
                    None => {}
                    Some(Act::Reconnect) => {
                        self.diary.faults.reconnect += 1;
                        self.close(&device).await;
                        device = match self.start() {
                            Ok(device) => device,
                            Err(error) => {
                                let serial = &self.who.own.serial;
                                tracing::error!(serial, %error, "a simulated device does not come back");
                                return None;
                            }
                        };
                        state = device.watch_state();
                        state.mark_changed();
                        self.introduce(&device);
                    }
                    Some(act) => self.act(act, of, &device),
                }
            }
        }
    }

    /// The member `of` does something, or suffers it.
    fn act(&mut self, act: Act, of: usize, device: &Device) {
        let Some(Member { entry, schedule, dice }) = self.members.get_mut(of) else { return };
        let (faults, wire) = (&mut self.diary.faults, self.wire.as_ref());
        match act {
            // Nobody would hear of it.
            Act::Event | Act::Report if schedule.is_away() => {}
            Act::Event => {
                let happening = (entry.habits.event)(dice);
                self.event(device, of, happening);
            }
            Act::Report => {
                let reading = (entry.habits.reading)(dice);
                self.report(device, of, reading);
            }
            Act::Operation => {
                if let Some(counter) = &self.scene.counter {
                    counter.ask(&entry.id, (entry.habits.order)(dice));
                }
            }
            Act::Drop => faults.drop += u64::from(wire.is_some_and(Wire::cut)),
            Act::Pause(time) => faults.pause += u64::from(wire.is_some_and(|wire| wire.silence(time))),
            Act::Reconnect => {}
            Act::Away | Act::Back => {
                faults.child += u64::from(act == Act::Away);
                if let Some(child) = device.child(&entry.serial) {
                    child.set_connected(act == Act::Back);
                }
            }
        }
    }

    /// Reports what the device is and what its children are, as after every start of its program.
    fn introduce(&mut self, device: &Device) {
        let who = Arc::clone(&self.who);
        for (of, entry) in who.entries().enumerate() {
            for reading in (entry.habits.first)() {
                self.report(device, of, reading);
            }
        }
    }

    /// Who speaks as the member `of`.
    fn voice(&self, device: &Device, of: usize) -> Option<Voice> {
        match of {
            0 => Some(Voice::Device(device.clone())),
            _ => Some(Voice::Child(device.child(&self.members.get(of)?.entry.serial)?)),
        }
    }

    fn event(&mut self, device: &Device, of: usize, happening: Happening) {
        if self.under_way.len() >= UNDER_WAY {
            self.diary.events.not_sent += 1;
            return;
        }
        let (Some(voice), Some(member)) = (self.voice(device, of), self.members.get(of)) else { return };
        let Some(number) = self.diary.lives.get_mut(of).and_then(|life| life.ledger.make()) else { return };
        let Happening { place, mut data } = happening;
        let id = self.scene.run.event(member.entry.number, number);
        if let Some(data) = data.as_object_mut() {
            data.insert("basic".to_owned(), json!({ "UUID": id }));
        }
        self.diary.events.sent += 1;
        self.scene.gauges.sent.fetch_add(1, Relaxed);
        let record = self.scene.record.clone();
        self.under_way.spawn(async move {
            let note = |fate| record.iter().for_each(|record| record.note(voice.serial(), &id, fate));
            let begun = Instant::now();
            note(Fate::Made);
            let reported = async {
                let receipt = voice.event(place, &data).await?;
                note(Fate::Safe);
                receipt.delivered().await?;
                note(Fate::Acknowledged);
                Ok(begun.elapsed())
            };
            Ended { of, event: Some(number), took: reported.await }
        });
    }

    fn report(&mut self, device: &Device, of: usize, reading: Reading) {
        if self.under_way.len() >= UNDER_WAY {
            self.diary.reports.not_sent += 1;
            return;
        }
        let Some(voice) = self.voice(device, of) else { return };
        self.diary.reports.sent += 1;
        self.under_way.spawn(async move {
            let begun = Instant::now();
            let reported = voice.attribute(&reading).await;
            Ended { of, event: None, took: reported.map(|()| begun.elapsed()) }
        });
    }

    /// `None`: the task of the message failed, which leaves it given up.
    fn note_end(&mut self, ended: Option<Ended>) {
        let Some(Ended { of, event, took }) = ended else { return };
        let Some(life) = self.diary.lives.get_mut(of) else { return };
        let gauges = &self.scene.gauges;
        let (count, latencies) = match event {
            Some(_) => (&mut self.diary.events, &gauges.events),
            None => (&mut self.diary.reports, &gauges.reports),
        };
        match took {
            Ok(took) => {
                count.acknowledged += 1;
                latencies.record(took);
                // Nothing of a child is acknowledged before.
                life.accepted = true;
                if let Some(number) = event {
                    life.ledger.acknowledge(number);
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
                tracing::debug!(serial = %self.who.own.serial, %error, "not sent");
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
        for (life, child) in self.diary.lives.iter_mut().skip(1).zip(&self.who.children) {
            let state = device.child(&child.serial).map(|child| child.state());
            life.accepted |= state == Some(ChildState::Accepted);
        }
        // It may have come in after the actor had last looked.
        self.note_state(&device.state());
        if let Err(error) = device.stop().await {
            tracing::debug!(serial = %self.who.own.serial, %error, "a simulated device did not leave in order");
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

/// Waits until it is somebody's turn, and says whose; for ever without one.
async fn whose_turn(due: Option<(Instant, usize)>) -> usize {
    match due {
        Some((time, of)) => {
            sleep_until(time).await;
            of
        }
        None => std::future::pending().await,
    }
}
