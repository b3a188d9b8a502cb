//! Operations asked for in any order, with and without a queue and a key, while devices come and go, answer or do not,
//! the clock moves on, and the platform is killed in between.
//!
//! The order of the steps is seeded; how far the platform gets between two of them is up to its disk. Whatever happens, no
//! operation reaches a device twice or after its time, and each that waited ends once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;
use vestibule_platform::{Answer, Caller, ConnectionId, Device, Invoke, InvokeError, NotSent, OperationQuery, Outcome};

use crate::bed::{Bed, Line, PATIENCE, Sent, connect, path};

const CASES: u64 = 200;
/// Cases that wait for their disks at the same time.
const AT_ONCE: usize = 12;
const STEPS: usize = 60;
const DEVICES: usize = 2;
/// Keys a caller uses over and over.
const KEYS: u64 = 3;

type Asked = Result<(Uuid, Outcome), InvokeError>;

/// A small generator; the seed is the case.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll(end as u64)).expect("a small number")
    }
}

/// A device and its end of the connection.
struct Slot {
    device: Arc<Device>,
    line: Option<(ConnectionId, Arc<Line>)>,
    /// What has reached it and waits for an answer.
    held: Vec<Sent>,
}

impl Slot {
    fn new(device: Arc<Device>) -> Slot {
        Slot { device, line: None, held: Vec::new() }
    }

    fn serial(n: usize) -> String {
        format!("D{n}")
    }
}

/// A request under way; its input is the number of the operation.
struct Call {
    n: u64,
    key: Option<(usize, u64)>,
    task: JoinHandle<Asked>,
}

/// How often things happened that have to happen for the cases to prove something.
#[derive(Debug, Default)]
struct Tally {
    handed: u64,
    crashes: u64,
    repeated: u64,
    under_way: u64,
    ends: BTreeMap<String, u64>,
}

struct World {
    bed: Bed,
    dice: Dice,
    slots: Vec<Slot>,
    calls: Vec<Call>,
    cancels: Vec<(Uuid, JoinHandle<bool>)>,
    next: u64,
    /// What is asked for under each key of each device.
    keys: BTreeMap<(usize, u64), u64>,
    /// The first answer to what was asked under a key.
    answers: BTreeMap<u64, (Uuid, Outcome)>,
    /// What waits or waited, as its caller was told or as it was found after a crash: operation and end of its time.
    queued: BTreeMap<Uuid, (u64, i64)>,
    cancelled: BTreeSet<Uuid>,
    /// What reached a device, and when.
    handed: BTreeMap<u64, i64>,
    /// What a device said it did, to somebody who heard it.
    done: BTreeSet<u64>,
    /// What its caller was told was not sent.
    not_sent: BTreeSet<u64>,
    tally: Tally,
}

impl World {
    async fn new(seed: u64) -> World {
        let bed = Bed::new().await;
        let mut slots = Vec::new();
        for n in 0..DEVICES {
            slots.push(Slot::new(bed.add(&Slot::serial(n)).await));
        }
        World {
            bed,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            slots,
            calls: Vec::new(),
            cancels: Vec::new(),
            next: 0,
            keys: BTreeMap::new(),
            answers: BTreeMap::new(),
            queued: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            handed: BTreeMap::new(),
            done: BTreeSet::new(),
            not_sent: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn ask(&mut self) {
        let at = self.dice.below(DEVICES);
        let key = (self.dice.roll(3) == 0).then(|| (at, self.dice.roll(KEYS)));
        let fresh = self.fresh();
        // Now and then a key is used for something else.
        let n = match key {
            Some(key) if self.dice.roll(8) > 0 => *self.keys.entry(key).or_insert(fresh),
            _ => fresh,
        };
        // The same under a key each time, or it would not be the same request.
        let queue = (n % 3 > 0).then(|| Duration::from_secs(1 + n * 7 % 40));
        let deadline = Duration::from_millis(if n % 4 == 0 { 100 } else { 60_000 });
        let (platform, caller) = (Arc::clone(&self.bed.platform), self.bed.caller());
        let device = Arc::clone(&self.slots[at].device);
        let task = tokio::spawn(async move {
            let (input, name) = (n.to_string(), key.map(|(_, key)| key.to_string()));
            let invoke = Invoke {
                path: (*path("Open")).clone(),
                input: Some(&input),
                deadline,
                queue,
                idempotency_key: name.as_deref(),
                by: &caller,
            };
            platform.invoke(&device, invoke).await
        });
        self.calls.push(Call { n, key, task });
    }

    fn cancel(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        let at = self.dice.below(self.queued.len());
        let id = *self.queued.keys().nth(at).expect("there are so many");
        for slot in &self.slots {
            let (platform, caller, device) =
                (Arc::clone(&self.bed.platform), self.bed.caller(), Arc::clone(&slot.device));
            let cancel = async move { platform.cancel(&device, id, &caller).await.expect("stored") };
            self.cancels.push((id, tokio::spawn(cancel)));
        }
    }

    fn connect(&mut self, at: usize) {
        self.disconnect(at);
        let slot = &mut self.slots[at];
        slot.line = Some(connect(&self.bed.platform, &slot.device, 1));
    }

    /// What the device had been sent it does not answer any more.
    fn disconnect(&mut self, at: usize) {
        self.harvest();
        let slot = &mut self.slots[at];
        slot.held.clear();
        if let Some((id, _)) = slot.line.take() {
            self.bed.platform.disconnected(&slot.device, id, "disconnect");
        }
    }

    /// A device answers something it has been sent, not always the first.
    fn answer(&mut self, at: usize) {
        self.harvest();
        if self.slots[at].held.is_empty() {
            return;
        }
        let which = self.dice.below(self.slots[at].held.len());
        let Sent { input, reply, .. } = self.slots[at].held.swap_remove(which);
        let is_done = self.dice.roll(4) > 0;
        let answer = if is_done { Answer::Done(None) } else { Answer::Failed { code: 7, message: None } };
        if reply.answer(answer) && is_done {
            self.done.insert(number(input.as_deref()));
        }
    }

    /// Notes what has reached the devices. All of the platform runs on this thread: what is found here was sent since the
    /// clock was moved last.
    fn harvest(&mut self) {
        let now = self.bed.now();
        for slot in &mut self.slots {
            let Some((_, line)) = &slot.line else { continue };
            while let Some(sent) = line.take() {
                let n = number(sent.input.as_deref());
                assert_eq!(self.handed.insert(n, now), None, "operation {n} is handed over twice");
                slot.held.push(sent);
            }
        }
    }

    /// Notes what callers are told by now.
    async fn listen(&mut self) {
        for at in (0..self.calls.len()).rev() {
            if self.calls[at].task.is_finished() {
                let Call { n, key, task } = self.calls.swap_remove(at);
                let told = task.await.expect("no panic");
                self.told(n, key, told);
            }
        }
        for at in (0..self.cancels.len()).rev() {
            if self.cancels[at].1.is_finished() {
                let (id, task) = self.cancels.swap_remove(at);
                if task.await.expect("no panic") {
                    assert!(self.cancelled.insert(id), "{id} is taken back twice");
                }
            }
        }
    }

    fn told(&mut self, n: u64, key: Option<(usize, u64)>, told: Asked) {
        match &told {
            Ok((id, Outcome::Queued { expires })) => {
                self.queued.insert(*id, (n, *expires));
            }
            Ok((_, Outcome::Done { .. })) => assert!(self.done.contains(&n), "{n} is said to be done"),
            Ok((_, Outcome::Expired | Outcome::Cancelled)) => panic!("{n} ended as {told:?} in front of its caller"),
            Ok((_, Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Unknown | Outcome::Offline))
            | Err(InvokeError::Busy) => {}
            Err(InvokeError::KeyUnderWay) if key.is_some() => self.tally.under_way += 1,
            Err(InvokeError::KeyTaken) if key.is_some() => {}
            Err(error) => panic!("{n} is refused: {error}"),
        }
        match told {
            // Nothing was sent. With a key it may be asked for again, and be sent then.
            Ok((_, Outcome::Offline)) | Err(_) => {
                if key.is_none() {
                    self.not_sent.insert(n);
                }
            }
            Ok(answer) if key.is_some() => {
                if let Some(first) = self.answers.insert(n, answer.clone()) {
                    assert_eq!(first, answer, "{n} is answered otherwise the second time");
                    self.tally.repeated += 1;
                }
            }
            Ok(_) => {}
        }
    }

    /// The platform is killed, and started on what is on the disk.
    async fn crash(mut self) -> World {
        self.listen().await;
        self.harvest();
        // What is under way tells nobody any more.
        self.calls.drain(..).for_each(|call| call.task.abort());
        self.cancels.drain(..).for_each(|(_, task)| task.abort());
        self.bed = self.bed.crash().await;
        let known = |n| self.bed.platform.device(&Slot::serial(n), &Caller::program()).expect("known");
        self.slots = (0..DEVICES).map(|n| Slot::new(known(n))).collect();
        for slot in &self.slots {
            for one in self.bed.platform.waiting(&slot.device) {
                self.queued.insert(one.id, (number(one.input.as_deref()), one.expires));
            }
        }
        self.tally.crashes += 1;
        self
    }

    async fn step(mut self) -> World {
        let at = self.dice.below(DEVICES);
        match self.dice.roll(24) {
            0..=6 => self.ask(),
            7..=9 => self.connect(at),
            10..=11 => self.disconnect(at),
            12..=16 => self.answer(at),
            17 => match &self.slots[at].line {
                Some((_, line)) if self.dice.roll(3) == 0 => line.refuse(NotSent::Busy),
                Some((_, line)) => line.accept(),
                None => {}
            },
            18..=19 => {
                self.harvest();
                self.bed.advance(Duration::from_secs(self.dice.roll(20)));
            }
            20..=21 => self.cancel(),
            22 if self.dice.roll(2) == 0 => self = self.crash().await,
            _ => {}
        }
        // Now and then the platform comes to something in between.
        match self.dice.roll(4) {
            0 => tokio::time::sleep(Duration::from_millis(1 + self.dice.roll(6))).await,
            1 => tokio::task::yield_now().await,
            _ => {}
        }
        self.listen().await;
        self
    }

    /// The devices stay and answer until nothing waits and nobody waits.
    async fn come_to_an_end(&mut self) {
        let begun = Instant::now();
        for turn in 0_u64.. {
            for at in 0..DEVICES {
                // Each time one comes its queue is looked at.
                if turn % 64 == 0 && self.slots[at].held.is_empty() {
                    self.connect(at);
                }
                while self.answer_first(at) {}
            }
            self.listen().await;
            let nobody_waits = self.calls.is_empty() && self.cancels.is_empty();
            let nothing_waits = self.slots.iter().all(|slot| self.bed.platform.waiting(&slot.device).is_empty());
            if nobody_waits && nothing_waits && self.unended().await.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "these do not end: {:?}", self.unended().await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn answer_first(&mut self, at: usize) -> bool {
        self.answer(at);
        !self.slots[at].held.is_empty()
    }

    async fn log(&self) -> Vec<Value> {
        self.bed.durable(self.bed.platform.journal().appended()).await;
        let query = OperationQuery { limit: 1_000, ..OperationQuery::default() };
        let records = self.bed.platform.operations(query, &Caller::program()).await.expect("readable").items;
        let entry = |text: &str, id: &str| -> Value {
            let mut entry: Value = serde_json::from_str(text).expect("JSON");
            entry["id"] = id.into();
            entry
        };
        records.iter().map(|record| entry(&record.data, record.id.as_deref().unwrap_or_default())).collect()
    }

    /// What waited and has no end in the operation log.
    async fn unended(&self) -> BTreeSet<String> {
        let log = self.log().await;
        let began = log.iter().filter(|entry| entry["outcome"] == "queued").map(|entry| entry["id"].clone());
        let known = self.queued.keys().map(|id| Value::from(id.to_string()));
        let ended: Vec<&Value> = log.iter().map(|entry| &entry["queued"]).collect();
        began.chain(known).filter(|id| !ended.contains(&id)).map(|id| id.to_string()).collect()
    }

    /// What the operation log says is so, also after a restart.
    async fn judge(mut self) -> Tally {
        self.harvest();
        self.slots.clear();
        self.bed = self.bed.restart().await;
        assert_eq!(self.unended().await, BTreeSet::new());
        let mut ends: BTreeMap<String, String> = BTreeMap::new();
        for entry in self.log().await {
            let (Some(id), Some(outcome)) = (entry["queued"].as_str(), entry["outcome"].as_str()) else { continue };
            let former = ends.insert(id.to_owned(), outcome.to_owned());
            assert_eq!(former, None, "{id} ended twice, at last as {outcome}");
            let n = entry["input"].as_u64().expect("the number of the operation");
            match outcome {
                "done" => assert!(self.done.contains(&n), "{n} is said to be done"),
                "expired" | "cancelled" => assert!(!self.handed.contains_key(&n), "{n} is {outcome} and was sent"),
                "failed" | "timed_out" => assert!(self.handed.contains_key(&n), "{n} is {outcome} and was not sent"),
                _ => assert_eq!(outcome, "unknown"),
            }
            *self.tally.ends.entry(outcome.to_owned()).or_default() += 1;
        }
        for id in &self.cancelled {
            assert_eq!(&*ends[&id.to_string()], "cancelled", "{id} was taken back");
        }
        for (id, (n, expires)) in &self.queued {
            let at = self.handed.get(n);
            assert!(
                at.is_none_or(|at| at < expires),
                "{id} reached the device at {at:?}, its time was over at {expires}"
            );
        }
        for n in &self.not_sent {
            assert!(!self.handed.contains_key(n), "{n} is said not to have been sent");
        }
        self.tally.handed = self.handed.len() as u64;
        self.tally
    }
}

fn number(input: Option<&str>) -> u64 {
    input.and_then(|input| input.parse().ok()).expect("the number of the operation")
}

async fn case(seed: u64) -> Tally {
    let mut world = World::new(seed).await;
    for _ in 0..STEPS {
        world = world.step().await;
    }
    world.come_to_an_end().await;
    world.judge().await
}

#[tokio::test]
async fn in_any_order_no_operation_is_sent_twice_or_late_and_each_that_waited_ends_once() {
    let (mut all, mut running, mut seeds) = (Tally::default(), JoinSet::new(), 1..=CASES);
    loop {
        while running.len() < AT_ONCE
            && let Some(seed) = seeds.next()
        {
            running.spawn(async move { (seed, tokio::spawn(case(seed)).await) });
        }
        let Some(ended) = running.join_next().await else { break };
        let (seed, tally) = ended.expect("it only waits");
        let Tally { handed, crashes, repeated, under_way, ends } = tally.unwrap_or_else(|_| panic!("seed {seed}"));
        all.handed += handed;
        all.crashes += crashes;
        all.repeated += repeated;
        all.under_way += under_way;
        for (outcome, times) in ends {
            *all.ends.entry(outcome).or_default() += times;
        }
    }
    // Each thing happens, or the cases would prove nothing. How often depends on how fast the disk is today.
    assert!(all.handed.min(all.crashes) > CASES / 2, "{all:?}");
    assert!(all.repeated.min(all.under_way) > 0, "{all:?}");
    for outcome in ["done", "failed", "unknown", "expired", "cancelled"] {
        assert!(all.ends.contains_key(outcome), "{outcome}: {all:?}");
    }
}
