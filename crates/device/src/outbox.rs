//! The queue of events that are not acknowledged yet, and which of them are on the wire.
//!
//! Bounded by count and bytes; beyond them there are a few places for what nobody could say again ([`RESERVED`]). Events go out in the order they came in. At most `window` of them,
//! counted from the oldest unacknowledged one, are on the wire: so a `Seq` that is sent again is
//! never far behind the newest, where a server that keeps a replay window (osap-wire 13.2.6) would
//! take it for an old one.
//!
//! What a hub reports for a child has a lane of its own. The platform drops it until the child is accepted, so a lane
//! that is closed holds it back without being in the way of others: all closed ones together have half of the room.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use osap::das::ota::MAX_MODULES;

/// How long the first PUBACK is waited for (osap-wire 9.5); doubled with each repetition.
pub(crate) const PUBACK_TIMEOUT: Duration = Duration::from_secs(6);

/// The longest pause between two repetitions on one connection. A server that is out of room
/// stops acknowledging for a long time, and is not helped by repetitions.
const MAX_PUBACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Bounds of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub events: usize,
    pub bytes: usize,
    pub window: usize,
}

/// Room beyond the limits for the end of an upgrade: one message for each module there may be, none over 2 KiB.
pub(crate) const RESERVED: (usize, usize) = (MAX_MODULES, 2 * 1024 * MAX_MODULES);

/// For whom an event is: 0 is the device itself, children of a hub have 1 and more.
pub(crate) type Lane = u8;

/// The lane of the device itself, which is always open.
pub(crate) const DEVICE: Lane = 0;

/// The highest lane there is.
pub(crate) const MAX_LANE: Lane = 127;

/// Lanes, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenLanes(u128);

impl OpenLanes {
    pub(crate) fn contains(self, lane: Lane) -> bool {
        self.0 & (1 << (lane & MAX_LANE)) != 0
    }
}

/// The queue; `T` is what the caller wants back with the acknowledgement.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    limits: Limits,
    events: VecDeque<Event<T>>,
    bytes: usize,
    closed: bool,
    /// An acknowledgement may come from anybody: events leave with a receipt of the platform (osap-wire 13.3).
    receipts: bool,
    /// A bit for each lane.
    open: u128,
    next_seq: u64,
    next_packet_id: u16,
}

#[derive(Debug)]
struct Event<T> {
    lane: Lane,
    topic: Box<str>,
    body: Box<[u8]>,
    progress: Progress<T>,
}

/// How far an event is. `Sending` keeps packet id and `Seq`, with which it is repeated.
#[derive(Debug)]
enum Progress<T> {
    Queued(T),
    Sending {
        token: T,
        packet_id: u16,
        seq: u64,
        attempts: u32,
        repeat_at: Option<Instant>,
        /// The number under which it was sealed last, where a receipt is what counts.
        sealed: u64,
        /// It was acknowledged on this connection, and waits for the receipt.
        held: bool,
    },
    /// Acknowledged before an older one; leaves the queue after that.
    Acknowledged,
}

/// An event, or an answer, to put on the wire now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing<'a> {
    pub topic: &'a str,
    pub body: &'a [u8],
    pub packet_id: u16,
    pub seq: u64,
    pub dup: bool,
}

/// Why the queue takes no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushError {
    /// It has no room; the fields are what it holds.
    Full { events: usize, bytes: usize },
    /// The device stopped.
    Closed,
}

impl<T> Outbox<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        let events = VecDeque::new();
        Self { limits, events, bytes: 0, closed: false, receipts: false, open: 1, next_seq: 1, next_packet_id: 1 }
    }

    /// Queues an event.
    pub(crate) fn push(&mut self, lane: Lane, topic: Box<str>, body: Box<[u8]>, token: T) -> Result<(), PushError> {
        self.admit(topic.len() + body.len(), (0, 0))?;
        let cost = topic.len() + body.len();
        if self.open & (1 << (lane & MAX_LANE)) == 0 {
            let held = self.events.iter().filter(|event| !event.is_in(self.open));
            let (events, bytes) =
                held.fold((0, 0), |(events, bytes), event| (events + 1, bytes + event.topic.len() + event.body.len()));
            if events >= self.limits.events / 2 || bytes + cost > self.limits.bytes / 2 {
                return Err(PushError::Full { events, bytes });
            }
        }
        self.enter(lane, topic, body, token);
        Ok(())
    }

    /// Queues a message of the device that must not be lost for want of room: it may take a reserved place.
    pub(crate) fn push_reserved(&mut self, topic: Box<str>, body: Box<[u8]>, token: T) -> Result<(), PushError> {
        self.admit(topic.len() + body.len(), RESERVED)?;
        self.enter(DEVICE, topic, body, token);
        Ok(())
    }

    /// Whether no reserved place is taken.
    pub(crate) fn has_reserve(&self) -> bool {
        self.events.len() <= self.limits.events && self.bytes <= self.limits.bytes
    }

    /// Whether there is room for so many bytes, when so many events and bytes beyond the limits are allowed.
    fn admit(&self, cost: usize, (events, bytes): (usize, usize)) -> Result<(), PushError> {
        match self.events.len() < self.limits.events + events && self.bytes + cost <= self.limits.bytes + bytes {
            _ if self.closed => Err(PushError::Closed),
            true => Ok(()),
            false => Err(PushError::Full { events: self.events.len(), bytes: self.bytes }),
        }
    }

    fn enter(&mut self, lane: Lane, topic: Box<str>, body: Box<[u8]>, token: T) {
        self.bytes += topic.len() + body.len();
        self.events.push_back(Event { lane, topic, body, progress: Progress::Queued(token) });
    }

    /// Takes an acknowledgement; gives the token back unless the id belongs to no event, or a receipt has to follow.
    pub(crate) fn handle_puback(&mut self, id: u16) -> Option<T> {
        let (window, open) = (self.limits.window, self.open);
        let event = self
            .events
            .iter_mut()
            .filter(|event| event.is_in(open))
            .take(window)
            .find(|event| matches!(event.progress, Progress::Sending { packet_id, .. } if packet_id == id))?;
        if let (true, Progress::Sending { held, .. }) = (self.receipts, &mut event.progress) {
            *held = true;
            return None;
        }
        let token = event.acknowledge(&mut self.bytes);
        self.trim();
        token
    }

    /// From now on events leave with receipts, or with acknowledgements again.
    pub(crate) fn set_receipts(&mut self, receipts: bool) {
        self.receipts = receipts;
    }

    /// The message with this id was sealed under this number of the present login.
    pub(crate) fn handle_sealed(&mut self, id: u16, number: u64) {
        let (window, open) = (self.limits.window, self.open);
        for event in self.events.iter_mut().filter(|event| event.is_in(open)).take(window) {
            match &mut event.progress {
                Progress::Sending { packet_id, sealed, .. } if *packet_id == id => *sealed = number,
                _ => {}
            }
        }
    }

    /// The platform has everything up to this number of the present login; the tokens of what left with it.
    pub(crate) fn handle_receipt(&mut self, up: u64) -> Vec<T> {
        let mut tokens = Vec::new();
        for event in &mut self.events {
            if let Progress::Sending { sealed, .. } = event.progress
                && (1..=up).contains(&sealed)
            {
                tokens.extend(event.acknowledge(&mut self.bytes));
            }
        }
        self.trim();
        tokens
    }

    /// What is acknowledged and has nothing older before it leaves the queue.
    fn trim(&mut self) {
        let open = self.open;
        // Those of closed lanes may stand before it.
        while let Some(oldest) = self.events.iter().position(|event| event.is_in(open))
            && matches!(self.events[oldest].progress, Progress::Acknowledged)
        {
            self.events.remove(oldest);
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    /// A connection begins. One that goes on with the session of the last one repeats what was on
    /// the wire as it was; a new session numbers it anew, because neither packet ids nor `Seq`
    /// mean anything there. The event ids in the bodies stay in both cases.
    pub(crate) fn handle_connection(&mut self, same_session: bool) {
        for event in &mut self.events {
            match &mut event.progress {
                Progress::Sending { attempts, repeat_at, sealed, held, .. } if same_session => {
                    *attempts = 0;
                    *repeat_at = None;
                    *sealed = 0;
                    *held = false;
                }
                progress @ Progress::Sending { .. } => progress.queue_again(),
                Progress::Queued(_) | Progress::Acknowledged => {}
            }
        }
        // The platform wants to hear of children first.
        for lane in 1..=MAX_LANE {
            self.close_lane(lane);
        }
    }

    /// The lanes whose events go out.
    pub(crate) fn open_lanes(&self) -> OpenLanes {
        OpenLanes(self.open)
    }

    /// Drops what has one of these tokens.
    pub(crate) fn forget(&mut self, dropped: impl Fn(&T) -> bool) {
        let bytes = &mut self.bytes;
        self.events.retain(|event| {
            let dropped = match &event.progress {
                Progress::Queued(token) | Progress::Sending { token, .. } => dropped(token),
                Progress::Acknowledged => false,
            };
            if dropped {
                *bytes -= event.topic.len() + event.body.len();
            }
            !dropped
        });
        self.trim();
    }

    /// What is in the lane goes out from now on.
    pub(crate) fn open_lane(&mut self, lane: Lane) {
        self.open |= 1 << (lane & MAX_LANE);
    }

    /// What is in the lane stays. It is numbered anew afterwards: other events go on meanwhile, and a `Seq` from before
    /// would be an old one.
    pub(crate) fn close_lane(&mut self, lane: Lane) {
        if lane == DEVICE || self.open & (1 << (lane & MAX_LANE)) == 0 {
            return;
        }
        self.open &= !(1 << (lane & MAX_LANE));
        self.events.retain(|event| event.lane != lane || !matches!(event.progress, Progress::Acknowledged));
        let held = self.events.iter_mut().filter(|event| event.lane == lane);
        held.for_each(|event| event.progress.queue_again());
        self.trim();
    }

    /// Drops what is in the lane, the tokens included, and closes it.
    pub(crate) fn drop_lane(&mut self, lane: Lane) {
        self.close_lane(lane);
        let bytes = &mut self.bytes;
        self.events.retain(|event| {
            let dropped = event.lane == lane && lane != DEVICE;
            if dropped {
                *bytes -= event.topic.len() + event.body.len();
            }
            !dropped
        });
        self.trim();
    }

    /// The next event that is due on the wire.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Outgoing<'_>> {
        let due = |event: &Event<T>| match &event.progress {
            Progress::Queued(_) => true,
            Progress::Sending { repeat_at, held, .. } => !held && repeat_at.is_none_or(|at| at <= now),
            Progress::Acknowledged => false,
        };
        let (index, _) = self.window().find(|(_, event)| due(event))?;
        let fresh = matches!(self.events[index].progress, Progress::Queued(_));
        let (fresh_id, fresh_seq) = if fresh { (self.next_packet_id(), self.next_seq()) } else { (0, 0) };
        let event = &mut self.events[index];
        let progress = std::mem::replace(&mut event.progress, Progress::Acknowledged);
        let (token, packet_id, seq, attempts, dup) = match progress {
            Progress::Queued(token) => (token, fresh_id, fresh_seq, 0, false),
            Progress::Sending { token, packet_id, seq, attempts, .. } => (token, packet_id, seq, attempts, true),
            Progress::Acknowledged => return None,
        };
        let wait = (PUBACK_TIMEOUT * 2u32.pow(attempts.min(8))).min(MAX_PUBACK_TIMEOUT);
        let (attempts, repeat_at) = (attempts + 1, Some(now + wait));
        event.progress = Progress::Sending { token, packet_id, seq, attempts, repeat_at, sealed: 0, held: false };
        Some(Outgoing { topic: &event.topic, body: &event.body, packet_id, seq, dup })
    }

    /// When [`poll`](Self::poll) gives something without anything else happening.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let repeat = |event: &Event<T>| match event.progress {
            Progress::Sending { repeat_at, held: false, .. } => repeat_at,
            Progress::Sending { .. } | Progress::Queued(_) | Progress::Acknowledged => None,
        };
        self.window().filter_map(|(_, event)| repeat(event)).min()
    }

    /// A packet id that is in no use. SUBSCRIBE and UNSUBSCRIBE draw from the same numbers.
    pub(crate) fn next_packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = id.checked_add(1).unwrap_or(1);
            let used = self
                .window()
                .any(|(_, event)| matches!(event.progress, Progress::Sending { packet_id, .. } if packet_id == id));
            if !used {
                return id;
            }
        }
    }

    /// The events that may be on the wire, and where they stand.
    fn window(&self) -> impl Iterator<Item = (usize, &Event<T>)> {
        self.events.iter().enumerate().filter(|(_, event)| event.is_in(self.open)).take(self.limits.window)
    }

    /// The number of the next request; counts on over connections (osap-wire 9.8).
    pub(crate) fn next_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Drops everything, the tokens included, and takes nothing any more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.events = VecDeque::new();
        self.bytes = 0;
    }

    /// Whether the device stopped.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Events that are not acknowledged.
    pub(crate) fn len(&self) -> usize {
        let open = |event: &&Event<T>| !matches!(event.progress, Progress::Acknowledged);
        self.events.iter().filter(open).count()
    }
}

impl<T> Event<T> {
    /// It is stored; its body is free now, not only when the older ones are through.
    fn acknowledge(&mut self, bytes: &mut usize) -> Option<T> {
        *bytes -= self.topic.len() + self.body.len();
        self.topic = Box::default();
        self.body = Box::default();
        match std::mem::replace(&mut self.progress, Progress::Acknowledged) {
            Progress::Sending { token, .. } => Some(token),
            Progress::Queued(_) | Progress::Acknowledged => None,
        }
    }

    fn is_in(&self, open: u128) -> bool {
        open & (1 << (self.lane & MAX_LANE)) != 0
    }
}

impl<T> Progress<T> {
    /// What was on the wire waits again.
    fn queue_again(&mut self) {
        *self = match std::mem::replace(self, Self::Acknowledged) {
            Self::Sending { token, .. } => Self::Queued(token),
            other => other,
        };
    }
}

#[cfg(test)]
mod tests;
