//! What a webhook is being told: records between what it was told for good and what was read of the journal.
//!
//! Several deliveries are under way at once, never two of one device, so that a receiver hears of a device in the order in
//! which the platform did. While the receiver fails, one delivery is tried at a time, the earliest first. Dead letters go
//! beside that, one at a time and only while the receiver does not fail: how they end says nothing of the others. No clock,
//! no IO.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use vestibule_platform::{Position, Record, WebhookPlace};

/// Records of one webhook in memory at most, beside its dead letters.
pub(crate) const SIZE: usize = 32;
/// Bytes of them past which no further one is taken.
pub(crate) const BYTES: usize = 256 * 1024;
/// Dead letters of one webhook in memory at most.
pub(crate) const LETTERS: usize = 4;
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

/// A delivery that is under way, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Began {
    pub(crate) key: Key,
    /// The round it is part of: how it ends tells nothing of what was found out since.
    pub(crate) round: u64,
}

/// A delivery to be begun.
pub(crate) struct Start {
    pub(crate) began: Began,
    pub(crate) record: Arc<Record>,
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

/// A dead letter that is told once more.
struct Letter {
    record: Arc<Record>,
    underway: bool,
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
    bytes: usize,
    letters: VecDeque<Letter>,
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
        Window {
            entries: VecDeque::new(),
            bytes: 0,
            letters: VecDeque::new(),
            reached: place.position,
            failing: None,
            round: 0,
            stuck: place.stuck,
        }
    }

    /// Whether another record may be put in.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < SIZE && self.bytes < BYTES
    }

    /// Whether a dead letter is in the window.
    pub(crate) fn has_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    /// Puts in the next record of the journal.
    pub(crate) fn push(&mut self, record: Arc<Record>) {
        let position = record.position;
        self.reached = position;
        let since = self.stuck.take_if(|(stuck, _)| *stuck <= position);
        let since = since.filter(|(stuck, _)| *stuck == position).map(|(_, since)| since);
        self.bytes += record.size();
        self.entries.push_back(Entry { record, state: State::Waiting, since, attempts: 0 });
    }

    /// Puts in a dead letter, to be delivered once more.
    pub(crate) fn push_letter(&mut self, record: Arc<Record>) {
        self.letters.push_back(Letter { record, underway: false });
    }

    /// The journal was looked at up to here, and had nothing for the webhook.
    pub(crate) fn reach(&mut self, position: Position) {
        self.reached = position;
    }

    /// The next delivery to be begun now, if any; `share` is how many of the journal may be under way.
    pub(crate) fn start(&mut self, now: i64, share: usize) -> Option<Start> {
        self.start_letter().or_else(|| self.start_record(now, share))
    }

    fn start_letter(&mut self) -> Option<Start> {
        if self.failing.is_some() || self.letters.iter().any(|letter| letter.underway) {
            return None;
        }
        let letter = self.letters.front_mut()?;
        letter.underway = true;
        let began = Began { key: Key::Letter(letter.record.position), round: self.round };
        Some(Start { began, record: Arc::clone(&letter.record) })
    }

    fn start_record(&mut self, now: i64, share: usize) -> Option<Start> {
        let underway = self.entries.iter().filter(|entry| entry.state == State::Underway).count();
        let most = match &self.failing {
            Some(failing) if now < failing.until => 0,
            Some(_) => 1,
            None => PARALLEL.min(share),
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
        let began = Began { key: Key::Journal(entry.record.position), round: self.round };
        Some(Start { began, record: Arc::clone(&entry.record) })
    }

    /// When to look for a delivery again without anything having happened.
    pub(crate) fn wake(&self) -> Option<i64> {
        let waiting = self.entries.iter().any(|entry| entry.state == State::Waiting);
        let underway = self.entries.iter().any(|entry| entry.state == State::Underway);
        self.failing.as_ref().filter(|_| waiting && !underway).map(|failing| failing.until)
    }

    /// A delivery needs nothing more: the receiver has it, or has refused it. Either shows that it is there, unless it has
    /// failed since that delivery began.
    pub(crate) fn done(&mut self, began: Began) {
        let Key::Journal(position) = began.key else {
            self.letters.retain(|letter| letter.record.position != began.key.position());
            return;
        };
        if began.round == self.round {
            self.failing = None;
        }
        if let Some(entry) = self.entry(position) {
            entry.state = State::Done;
        }
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.state == State::Done) {
            self.bytes -= entry.record.size();
        }
    }

    /// A delivery of the journal has failed and is to be tried again. However many deliveries of a round fail, the receiver
    /// has failed once; `wait` says for how long it is left alone after so many failures in a row, and `asked` what it asks
    /// for itself, whichever delivery it says it to.
    pub(crate) fn failed(
        &mut self,
        began: Began,
        now: i64,
        asked: Option<Duration>,
        wait: impl FnOnce(u32) -> Duration,
    ) -> Failed {
        let after = |wait: Duration| now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let asked = asked.map(after);
        if began.round == self.round {
            self.round += 1;
            let count = self.failing.as_ref().map_or(0, |failing| failing.count).saturating_add(1);
            let until = after(wait(count)).max(asked.unwrap_or(now));
            self.failing = Some(Failing { count, until });
        } else if let (Some(failing), Some(asked)) = (&mut self.failing, asked) {
            failing.until = failing.until.max(asked);
        }
        let Some(entry) = self.entry(began.key.position()) else {
            return Failed { since: now, attempts: 0 };
        };
        entry.state = State::Waiting;
        // A clock that was set back leaves the time that has passed unknown, and not to be waited for twice.
        let since = entry.since.map_or(now, |since| since.min(now));
        entry.since = Some(since);
        Failed { since, attempts: entry.attempts }
    }

    fn entry(&mut self, position: Position) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.record.position == position)
    }

    /// Up to where the journal was looked at.
    pub(crate) fn reached(&self) -> Position {
        self.reached
    }

    /// The record of a delivery.
    pub(crate) fn record(&self, key: Key) -> Option<&Arc<Record>> {
        let is_it = |record: &&Arc<Record>| record.position == key.position();
        match key {
            Key::Journal(_) => self.entries.iter().map(|entry| &entry.record).find(is_it),
            Key::Letter(_) => self.letters.iter().map(|letter| &letter.record).find(is_it),
        }
    }

    /// How often a delivery of the journal was tried in this process.
    pub(crate) fn attempts(&self, position: Position) -> u32 {
        self.entries.iter().find(|entry| entry.record.position == position).map_or(0, |entry| entry.attempts)
    }

    /// Rounds in a row that have failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failing.as_ref().map_or(0, |failing| failing.count)
    }

    /// Up to where the webhook was told for good.
    pub(crate) fn place(&self) -> WebhookPlace {
        match self.entries.iter().find(|entry| entry.state != State::Done) {
            Some(Entry { record, since, .. }) => WebhookPlace {
                position: Position::new(record.position.get() - 1),
                stuck: since.map(|since| (record.position, since)),
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
