//! What is kept: decides, without medium and clock, what is written, read back, sent and dropped.
//!
//! Every event gets a number. While it is new its message is in memory; after a moment without an acknowledgement it is
//! written, and only its place remains. Events of a lane (the device, or one child) are handed to the queue of the
//! connection in the order of their numbers, a few ahead of what is on the wire. What is acknowledged or dropped is
//! noted now and then, in one record for many: what a crash keeps from being noted is sent again under the same event id.
//!
//! While the medium fails, or has not been read, the ledger is one without a cache: events stay in memory and are sent from
//! there, also those behind others that cannot be read at the moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::age::Age;
use super::record::{Before, Losses, MAX_PAYLOAD, Record, Scan, Seal};
use crate::attribute::Message;
use crate::event::{InvalidEvent, ReportError};

mod adopt;
mod age;
mod holes;
mod job;
mod load;
mod plan;
mod send;

pub(crate) use job::Job;
pub(crate) use load::MIN_BYTES;
pub(crate) use send::{Next, OpenLane};

/// Attempts to read something before it is lost, or what is behind it goes first.
const READS: u32 = 3;

/// The largest topic and body: with a serial and numbers they are a record that can be read.
const MAX_MESSAGE: usize = MAX_PAYLOAD - 512;

/// Bounds, and when to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// Events that are kept.
    pub events: usize,
    /// Bytes on the medium, what is acknowledged and not removed yet included.
    pub bytes: u64,
    pub age: Duration,
    /// How long an event may stay unwritten while there is a connection.
    pub grace: Duration,
    /// Events that are not written yet, and the bytes of their messages.
    pub unwritten: (usize, usize),
    /// Events in the queue of the connection, and the bytes of their messages.
    pub ahead: (usize, usize),
}

/// What has become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// In memory only.
    Pending,
    /// Survives a loss of power.
    Cached,
    /// The platform has it.
    Delivered,
    /// It was the oldest when there was no room, or too old, or its record was damaged.
    Dropped,
    /// Its child was refused or taken away.
    GivenUp,
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub cached: u64,
    pub dropped: u64,
    pub given_up: u64,
    pub failures: u64,
    pub damaged_bytes: u64,
}

/// The events of a device.
#[derive(Debug)]
pub(crate) struct Ledger {
    serial: Box<str>,
    seal: Seal,
    options: Options,
    age: Age,
    /// What is on the medium is known.
    loaded: bool,
    lanes: BTreeMap<Arc<str>, Lane>,
    count: usize,
    next_seq: u64,
    /// Events in memory, by their numbers.
    fresh: BTreeMap<u64, Fresh>,
    fresh_bytes: usize,
    /// Events in the queue of the connection, and their bytes.
    handed: (usize, usize),
    /// The queue took no more.
    blocked: bool,
    /// Dropped while they were in the queue.
    evicted: Vec<u64>,
    watchers: BTreeMap<u64, watch::Sender<Fate>>,
    /// How many watchers there may be before those are looked for that nobody listens to.
    watchers_mark: usize,
    segments: BTreeMap<u64, Segment>,
    segment_size: u64,
    /// The one that is appended to.
    current: Option<u64>,
    /// The last one that was appended to, and how many events were.
    before: Before,
    /// When something was written last.
    written_at: Instant,
    next_segment: u64,
    /// Segments to be taken away.
    removing: Vec<u64>,
    /// Numbers that are on the medium, or may be, and do not count any more.
    gone: BTreeSet<u64>,
    /// So are these: they could not be read. To be noted.
    lost: VecDeque<(u64, u64)>,
    losses: Losses,
    /// The medium has other losses.
    losses_dirty: bool,
    /// The report of losses is in the queue.
    losses_handed: bool,
    /// There is something to note since then.
    note_since: Option<Instant>,
    writing: Trouble,
    reading: Trouble,
    closing: bool,
    pub counts: Counts,
}

/// The events of the device, or of one child.
#[derive(Debug, Default)]
struct Lane {
    events: BTreeMap<u64, Slot>,
    /// What is below was handed to the queue.
    cursor: u64,
}

#[derive(Debug)]
struct Slot {
    /// When it was reported, for people.
    at: i64,
    /// And by the clock of [`Age`].
    ran: u32,
    /// Bytes of its message in the queue of the connection.
    handed: Option<u32>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Box<Message>),
    Medium { segment: u64, offset: u32, len: u16 },
}

#[derive(Debug)]
struct Fresh {
    sub: Arc<str>,
    since: Instant,
    /// It was in a batch, so the medium may have it.
    attempted: bool,
}

#[derive(Debug, Default)]
struct Segment {
    len: u64,
    /// Events in it that count.
    live: usize,
}

/// Failures in a row, and how long to leave the medium alone.
#[derive(Debug, Default)]
struct Trouble {
    row: u32,
    until: Option<Instant>,
}

impl Trouble {
    /// One failure more; `true` for the first.
    fn add(&mut self, now: Instant) -> bool {
        self.until = Some(now + Duration::from_secs(1 << self.row.min(6)).min(Duration::from_secs(60)));
        self.row += 1;
        self.row == 1
    }

    /// It works; `true` when it had not.
    fn clear(&mut self) -> bool {
        std::mem::take(self).row > 0
    }

    /// `at`, or later.
    fn not_before(&self, at: Instant) -> Instant {
        self.until.map_or(at, |until| at.max(until))
    }
}

impl Ledger {
    pub(crate) fn new(serial: &str, options: Options, now: Instant) -> Self {
        Self {
            serial: serial.into(),
            seal: Seal::of(serial),
            options,
            age: Age::new(now),
            loaded: false,
            lanes: BTreeMap::new(),
            count: 0,
            next_seq: adopt::UNNUMBERED,
            fresh: BTreeMap::new(),
            fresh_bytes: 0,
            handed: (0, 0),
            blocked: false,
            evicted: Vec::new(),
            watchers: BTreeMap::new(),
            watchers_mark: 64,
            segments: BTreeMap::new(),
            segment_size: (options.bytes / 4).min(load::MAX_SEGMENT),
            current: None,
            before: Before::default(),
            written_at: now,
            next_segment: 1,
            removing: Vec::new(),
            gone: BTreeSet::new(),
            lost: VecDeque::new(),
            losses: Losses::default(),
            losses_dirty: false,
            losses_handed: false,
            note_since: None,
            writing: Trouble::default(),
            reading: Trouble::default(),
            closing: false,
            counts: Counts::default(),
        }
    }

    /// Whether there is room in memory for an event of this size, or soon will be.
    pub(crate) fn takes(&self, cost: usize) -> Result<bool, ReportError> {
        let (events, bytes) = self.options.unwritten;
        let room = self.fresh.len() < events && self.fresh_bytes + cost <= bytes;
        match room {
            _ if self.closing => Err(ReportError::Stopped),
            // Long before that the body is refused.
            _ if cost > MAX_MESSAGE => Err(InvalidEvent::TooLarge(cost).into()),
            true => Ok(true),
            false if self.writing.row > 0 || !self.loaded => {
                Err(ReportError::Full { events: self.fresh.len(), bytes: self.fresh_bytes })
            }
            false => Ok(false),
        }
    }

    /// Takes an event. What is the oldest is dropped when there are as many as allowed.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        now_ms: i64,
        sub: &str,
        message: Message,
    ) -> Result<watch::Receiver<Fate>, ReportError> {
        if self.closing {
            return Err(ReportError::Stopped);
        }
        let cost = message.cost();
        while self.count >= self.options.events && self.lose_oldest() {}
        let seq = self.next_seq;
        self.next_seq += 1;
        let sub = match self.lanes.get_key_value(sub) {
            Some((sub, _)) => Arc::clone(sub),
            None => sub.into(),
        };
        let ran = self.age.seconds(now);
        self.fresh_bytes += cost;
        self.fresh.insert(seq, Fresh { sub: Arc::clone(&sub), since: now, attempted: false });
        self.insert(sub, seq, Slot { at: now_ms, ran, handed: None, place: Place::Memory(Box::new(message)) });
        let (sender, receiver) = watch::channel(Fate::Pending);
        self.watch(seq, sender);
        Ok(receiver)
    }

    fn insert(&mut self, sub: Arc<str>, seq: u64, slot: Slot) {
        self.lanes.entry(sub).or_default().events.insert(seq, slot);
        self.count += 1;
    }

    fn watch(&mut self, seq: u64, sender: watch::Sender<Fate>) {
        if self.watchers.len() >= self.watchers_mark {
            self.watchers.retain(|_, sender| !sender.is_closed());
            self.watchers_mark = (2 * self.watchers.len()).max(64);
        }
        self.watchers.insert(seq, sender);
    }

    /// Takes an event out, which is dealt with in this way.
    fn remove(&mut self, sub: &str, seq: u64, fate: Fate) -> Option<i64> {
        let lane = self.lanes.get_mut(sub)?;
        let slot = lane.events.remove(&seq)?;
        if lane.events.is_empty() {
            self.lanes.remove(sub);
        }
        self.count -= 1;
        if let Some(cost) = slot.handed {
            self.handed = (self.handed.0 - 1, self.handed.1 - cost as usize);
            if fate == Fate::Dropped {
                self.evicted.push(seq);
            }
        }
        match slot.place {
            Place::Memory(message) => {
                self.fresh_bytes -= message.cost();
                if self.fresh.remove(&seq).is_some_and(|fresh| fresh.attempted) {
                    self.gone.insert(seq);
                }
            }
            Place::Medium { segment, .. } => {
                // One that is about to be taken away needs no note.
                if let Some(segment) = self.segments.get_mut(&segment) {
                    segment.live -= 1;
                    self.gone.insert(seq);
                }
            }
        }
        if let Some(watcher) = self.watchers.remove(&seq) {
            watcher.send_replace(fate);
        }
        Some(slot.at)
    }

    /// The platform has an event.
    pub(crate) fn acknowledge(&mut self, sub: &str, seq: u64) {
        self.remove(sub, seq, Fate::Delivered);
        self.release_segments();
    }

    /// The platform wants nothing of a child any more, or the program took it away.
    pub(crate) fn give_up(&mut self, sub: &str) {
        let Some(lane) = self.lanes.get(sub) else { return };
        let all: Vec<u64> = lane.events.keys().copied().collect();
        for seq in all {
            self.remove(sub, seq, Fate::GivenUp);
            self.counts.given_up += 1;
        }
        self.release_segments();
    }

    /// An event is lost, and the platform shall know.
    fn lose(&mut self, sub: &str, seq: u64) {
        if let Some(at) = self.remove(sub, seq, Fate::Dropped) {
            self.losses.untold.add(at);
            self.losses_dirty = true;
            self.counts.dropped += 1;
        }
    }

    fn lose_oldest(&mut self) -> bool {
        let Some((sub, seq, _)) = self.oldest() else { return false };
        self.lose(&sub, seq);
        true
    }

    /// Lane, number and time of the oldest event, by the clock of [`Age`].
    fn oldest(&self) -> Option<(Arc<str>, u64, u32)> {
        let firsts = self.lanes.iter().filter_map(|(sub, lane)| Some((sub, lane.events.first_key_value()?)));
        let (sub, (seq, slot)) = firsts.min_by_key(|(_, (seq, _))| **seq)?;
        Some((Arc::clone(sub), *seq, slot.ran))
    }

    /// Drops what is too old.
    fn expire(&mut self, now: Instant) {
        while self.expires_in(now).is_some_and(|left| left.is_zero()) {
            self.lose_oldest();
        }
    }

    /// How long until the oldest event is too old.
    fn expires_in(&self, now: Instant) -> Option<Duration> {
        let (.., ran) = self.oldest()?;
        let age = Duration::from_secs(self.age.seconds(now).saturating_sub(ran).into());
        Some(self.options.age.saturating_sub(age))
    }

    /// No more events are taken; what is unwritten is due.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whoever waits for an event learns that nothing more comes.
    pub(crate) fn abandon(&mut self) {
        self.closing = true;
        self.watchers = BTreeMap::new();
    }

    /// Events that are not acknowledged, and how many of them are in the queue of the connection.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.count, self.handed.0)
    }

    /// Bytes on the medium.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.len).sum()
    }

    /// The medium refuses to be written or read.
    pub(crate) fn is_failing(&self) -> bool {
        !self.loaded || self.writing.row > 0 || self.reading.row > 0
    }
}

#[cfg(test)]
mod tests;
