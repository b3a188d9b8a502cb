//! What a webhook is being told: records between what it was told for good and what was read of the journal.
//!
//! Several deliveries are under way at once, never two of one device, so that a receiver hears of a device in the order in
//! which the platform did. While the receiver fails, one delivery is tried at a time, the earliest first. No clock, no IO.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use vestibule_platform::{Position, Record, WebhookPlace};

/// Records of one webhook in memory at most.
pub(crate) const SIZE: usize = 32;
/// Deliveries of one webhook under way at most.
pub(crate) const PARALLEL: usize = 8;

/// Which delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// Of what the journal has come to.
    Journal(Position),
    /// Of a dead letter, once more.
    Letter(Position),
}

impl Key {
    pub(crate) fn position(self) -> Position {
        match self {
            Key::Journal(position) | Key::Letter(position) => position,
        }
    }
}

/// A delivery to be begun.
pub(crate) struct Start {
    pub(crate) key: Key,
    pub(crate) record: Arc<Record>,
    /// The round it is part of; to be told with its failure.
    pub(crate) round: u64,
}

/// How a delivery stands that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Since when, in the milliseconds of the caller.
    pub(crate) since: i64,
    /// How often it was tried in this process.
    pub(crate) attempts: u32,
}

struct Entry {
    key: Key,
    record: Arc<Record>,
    state: State,
    since: Option<i64>,
    attempts: u32,
}

#[derive(PartialEq)]
enum State {
    Waiting,
    Underway,
    Done,
}

/// The receiver does not take what it is told.
struct Failing {
    /// Rounds in a row that failed.
    count: u32,
    /// Until when it is left alone.
    until: i64,
}

pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// Up to where the journal was looked at: what is wanted of it is, or was, in the window.
    reached: Position,
    failing: Option<Failing>,
    round: u64,
    /// What could not be delivered when the last process ended.
    stuck: Option<(Position, i64)>,
}

impl Window {
    /// Begins where the webhook was told up to.
    pub(crate) fn new(place: WebhookPlace) -> Window {
        Window { entries: VecDeque::new(), reached: place.position, failing: None, round: 0, stuck: place.stuck }
    }

    /// Whether another record may be put in.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < SIZE
    }

    /// Whether a dead letter is in the window.
    pub(crate) fn has_letters(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.key, Key::Letter(_)))
    }

    /// Puts in the next record of the journal.
    pub(crate) fn push(&mut self, record: Arc<Record>) {
        let position = record.position;
        self.reached = position;
        let since = self.stuck.take_if(|(stuck, _)| *stuck <= position);
        let since = since.filter(|(stuck, _)| *stuck == position).map(|(_, since)| since);
        self.enter(Key::Journal(position), record, since);
    }

    /// Puts in a dead letter, to be delivered once more.
    pub(crate) fn push_letter(&mut self, record: Arc<Record>) {
        self.enter(Key::Letter(record.position), record, None);
    }

    fn enter(&mut self, key: Key, record: Arc<Record>, since: Option<i64>) {
        self.entries.push_back(Entry { key, record, state: State::Waiting, since, attempts: 0 });
    }

    /// The journal was looked at up to here, and had nothing for the webhook.
    pub(crate) fn reach(&mut self, position: Position) {
        self.reached = position;
    }

    /// The next delivery to be begun now, if any.
    pub(crate) fn start(&mut self, now: i64) -> Option<Start> {
        let underway = self.entries.iter().filter(|entry| entry.state == State::Underway).count();
        let most = match &self.failing {
            Some(failing) if now < failing.until => 0,
            Some(_) => 1,
            None => PARALLEL,
        };
        if underway >= most {
            return None;
        }
        let free = |at: usize, entry: &Entry| {
            entry.state == State::Waiting
                && !self
                    .entries
                    .range(..at)
                    .any(|earlier| earlier.state != State::Done && earlier.record.device == entry.record.device)
        };
        let at = self.entries.iter().enumerate().position(|(at, entry)| free(at, entry))?;
        let entry = &mut self.entries[at];
        entry.state = State::Underway;
        entry.attempts = entry.attempts.saturating_add(1);
        Some(Start { key: entry.key, record: Arc::clone(&entry.record), round: self.round })
    }

    /// When to look for a delivery again without anything having happened.
    pub(crate) fn wake(&self) -> Option<i64> {
        let waiting = self.entries.iter().any(|entry| entry.state == State::Waiting);
        let underway = self.entries.iter().any(|entry| entry.state == State::Underway);
        self.failing.as_ref().filter(|_| waiting && !underway).map(|failing| failing.until)
    }

    /// A delivery needs nothing more: the receiver has it, or has refused it. Either shows that it is there.
    pub(crate) fn done(&mut self, key: Key) {
        self.failing = None;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) else { return };
        entry.state = State::Done;
        match key {
            Key::Letter(_) => self.entries.retain(|entry| entry.key != key),
            Key::Journal(_) => {
                while self.entries.front().is_some_and(|entry| entry.state == State::Done) {
                    self.entries.pop_front();
                }
            }
        }
    }

    /// A delivery has failed and is to be tried again. However many deliveries of a round fail, the receiver has failed
    /// once; `wait` says for how long it is left alone after so many failures in a row.
    pub(crate) fn failed(&mut self, start: (Key, u64), now: i64, wait: impl FnOnce(u32) -> Duration) -> Failed {
        let (key, round) = start;
        if round == self.round {
            self.round += 1;
            let count = self.failing.as_ref().map_or(0, |failing| failing.count).saturating_add(1);
            let wait = i64::try_from(wait(count).as_millis()).unwrap_or(i64::MAX);
            self.failing = Some(Failing { count, until: now.saturating_add(wait) });
        }
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) else {
            return Failed { since: now, attempts: 0 };
        };
        entry.state = State::Waiting;
        Failed { since: *entry.since.get_or_insert(now), attempts: entry.attempts }
    }

    /// Up to where the journal was looked at.
    pub(crate) fn reached(&self) -> Position {
        self.reached
    }

    /// The record of a delivery.
    pub(crate) fn record(&self, key: Key) -> Option<&Arc<Record>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.record)
    }

    /// How often a delivery was tried in this process.
    pub(crate) fn attempts(&self, key: Key) -> u32 {
        self.entries.iter().find(|entry| entry.key == key).map_or(0, |entry| entry.attempts)
    }

    /// Rounds in a row that have failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failing.as_ref().map_or(0, |failing| failing.count)
    }

    /// Up to where the webhook was told for good.
    pub(crate) fn place(&self) -> WebhookPlace {
        let mut journal = self.entries.iter().filter(|entry| matches!(entry.key, Key::Journal(_)));
        let first = journal.find(|entry| entry.state != State::Done);
        match first {
            Some(entry) => WebhookPlace {
                position: Position::new(entry.key.position().get() - 1),
                stuck: entry.since.map(|since| (entry.key.position(), since)),
            },
            // A stuck one that was not read yet is still ahead.
            None => WebhookPlace { position: self.reached, stuck: self.stuck },
        }
    }

    /// The earliest record that was not told yet.
    pub(crate) fn oldest(&self) -> Option<&Record> {
        self.entries.iter().find(|entry| entry.state != State::Done).map(|entry| &*entry.record)
    }
}

#[cfg(test)]
mod tests;
