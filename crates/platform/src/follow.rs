//! Following records as they become durable: nothing missed, nothing twice.
//!
//! A follower is a position in the journal, not a queue. It reads what is committed after its position from
//! the journal's ring of recent records, and from the segments when it is further behind, so a slow follower
//! costs no memory and stalls nobody.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use vestibule_store::{Control, DeviceId, Journal, Order, Position, Recent, Record, RecordKind, Scan, StoreError};

use crate::caller::Caller;
use crate::clock::Clock;
use crate::pictures::Pictures;
use crate::platform::Platform;
use crate::registry::Registry;

const BATCH: usize = 256;

/// Kinds of records. A set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// Every kind there is, in the order in which they are named.
    const ORDER: [RecordKind; 4] = [RecordKind::Event, RecordKind::Attribute, RecordKind::Operation, RecordKind::Pass];

    const fn bit(kind: RecordKind) -> u8 {
        match kind {
            // What amends events goes with them.
            RecordKind::Event | RecordKind::Amendment => 1,
            RecordKind::Attribute => 2,
            RecordKind::Operation => 4,
            RecordKind::Pass => 8,
        }
    }

    /// Whether this kind is in the set.
    pub const fn contains(self, kind: RecordKind) -> bool {
        self.0 & Kinds::bit(kind) != 0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds in the set.
    pub fn iter(self) -> impl Iterator<Item = RecordKind> {
        Kinds::ORDER.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<RecordKind> {
        Kinds::ORDER.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The only kind in the set, when it is the only one.
    fn only(self) -> Option<RecordKind> {
        let mut kinds = self.iter();
        kinds.next().filter(|_| kinds.next().is_none())
    }
}

impl From<RecordKind> for Kinds {
    fn from(kind: RecordKind) -> Kinds {
        Kinds(Kinds::bit(kind))
    }
}

impl FromIterator<RecordKind> for Kinds {
    fn from_iter<I: IntoIterator<Item = RecordKind>>(kinds: I) -> Kinds {
        Kinds(kinds.into_iter().fold(0, |set, kind| set | Kinds::bit(kind)))
    }
}

/// Which records a follower wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Only of these kinds.
    pub kinds: Kinds,
    /// Only of this device.
    pub device: Option<DeviceId>,
    /// Only of this area.
    pub area: Option<String>,
    /// Only with this name.
    pub name: Option<String>,
}

impl Filter {
    /// Every record of a kind, or of several.
    pub fn all(kinds: impl Into<Kinds>) -> Filter {
        Filter { kinds: kinds.into(), device: None, area: None, name: None }
    }

    /// Whether a follower with this filter gets the record.
    pub fn wants(&self, record: &Record) -> bool {
        self.kinds.contains(record.kind)
            && self.device.is_none_or(|device| device == record.device)
            && self.area.as_deref().is_none_or(|area| area == &*record.path.area)
            && self.name.as_deref().is_none_or(|name| name == &*record.path.name)
    }

    /// The same as a question to the journal.
    fn scan(&self, after: Position, limit: usize) -> Scan {
        Scan {
            device: self.device,
            kind: self.kinds.only(),
            amendments: true,
            area: self.area.clone(),
            name: self.name.clone(),
            after,
            order: Order::Oldest,
            limit,
            ..Scan::default()
        }
    }
}

/// What a follower gets.
#[derive(Debug, Clone)]
pub enum Followed {
    /// The next record.
    Record(Arc<Record>),
    /// Records after the follower's position are gone (retention), or its position was never reached. It goes on
    /// after `resume`.
    Lagged {
        /// Where it goes on.
        resume: Position,
    },
}

/// One follower of the journal.
pub struct Follow {
    journal: Journal,
    control: Control,
    clock: Arc<dyn Clock>,
    pictures: Arc<Pictures>,
    durable: watch::Receiver<Position>,
    filter: Filter,
    /// Of which devices, for who does not see all.
    sight: Option<(Arc<Registry>, Caller)>,
    position: Position,
    buffered: VecDeque<Arc<Record>>,
    batch: usize,
    batch_bytes: usize,
}

impl Platform {
    /// Follows records of devices that the caller sees, after a position; `None` starts with what becomes durable from now
    /// on.
    pub fn follow(&self, after: Option<Position>, filter: Filter, by: &Caller) -> Follow {
        let journal = self.journal().clone();
        let durable = journal.watch_durable();
        let position = after.unwrap_or_else(|| journal.durable());
        let sight = (!by.subtree().is_root()).then(|| (Arc::clone(self.registry()), by.clone()));
        Follow {
            journal,
            control: self.control().clone(),
            clock: self.clock_handle(),
            pictures: Arc::clone(self.pictures()),
            durable,
            filter,
            sight,
            position,
            buffered: VecDeque::new(),
            batch: BATCH,
            batch_bytes: usize::MAX,
        }
    }
}

impl Follow {
    /// Keeps no more than so many records in memory at a time, and none beyond those that have so many bytes.
    #[must_use]
    pub fn with_batch(self, batch: usize, bytes: usize) -> Follow {
        Follow { batch: batch.clamp(1, BATCH), batch_bytes: bytes.max(1), ..self }
    }

    /// The next record; waits for it. Cancel safe: one not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<Followed, StoreError> {
        loop {
            if let Some(followed) = self.advance().await? {
                return Ok(followed);
            }
        }
    }

    /// The next record, or `None` when [`position`](Self::position) has moved on without one; waits for either. Cancel
    /// safe as [`next`](Self::next) is.
    pub async fn advance(&mut self) -> Result<Option<Followed>, StoreError> {
        loop {
            if let Some(record) = self.buffered.pop_front() {
                // Looked at now: a device may have gone to another place since it was read.
                if self.sight.as_ref().is_some_and(|(registry, by)| !registry.is_seen(record.device, by)) {
                    continue;
                }
                return Ok(Some(Followed::Record(record)));
            }
            // Seen before reading, so that a commit in between wakes us again.
            let durable = *self.durable.borrow_and_update();
            if self.position > self.journal.appended() {
                // Of another journal than this one.
                self.position = durable;
                return Ok(Some(Followed::Lagged { resume: durable }));
            }
            if self.position < durable {
                if let Some(resume) = self.read(durable).await? {
                    self.position = resume;
                    return Ok(Some(Followed::Lagged { resume }));
                }
                if self.buffered.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            if self.durable.changed().await.is_err() {
                // The journal is closed: nothing will ever follow.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Up to where it has looked: everything up to here that it wants was returned.
    pub fn position(&self) -> Position {
        self.buffered.front().map_or(self.position, |next| Position::new(next.position.get() - 1))
    }

    /// Buffers what comes next; at least everything up to `durable` is there. `Some` is where to go on instead,
    /// when part of it is gone.
    async fn read(&mut self, durable: Position) -> Result<Option<Position>, StoreError> {
        match self.journal.recent(self.position, self.batch) {
            Recent::Records(mut records) => {
                self.cut(&mut records);
                // None: only repetitions, which are not stored, lie between.
                let reached = records.last().map_or(durable, |last| last.position);
                self.buffer(records, reached).await?;
            }
            Recent::Gone => {
                let mut records = self.journal.scan(&self.filter.scan(self.position, self.batch)).await?;
                // Looked at after the scan: what retention takes away meanwhile cannot go unnoticed.
                if let Some(resume) = self.lost(durable).await? {
                    return Ok(Some(resume));
                }
                let more = self.cut(&mut records) || records.len() == self.batch;
                let reached = records.last().map_or(Position::START, |last| last.position);
                self.buffer(records, if more { reached } else { reached.max(durable) }).await?;
            }
        }
        Ok(None)
    }

    /// Leaves what is too much for another time; the first one never is. Whether anything was left.
    fn cut(&self, records: &mut Vec<Arc<Record>>) -> bool {
        let mut room = self.batch_bytes;
        let too_much = records.iter().position(|record| {
            let is_full = room == 0;
            room = room.saturating_sub(record.size());
            is_full
        });
        records.truncate(too_much.unwrap_or(records.len()));
        too_much.is_some()
    }

    /// Buffers what is wanted of these records, as it stands now; `reached` is where they end. Nothing of it has happened when
    /// this is dropped.
    async fn buffer(&mut self, records: Vec<Arc<Record>>, reached: Position) -> Result<(), StoreError> {
        let wanted = records.into_iter().filter(|record| self.filter.wants(record)).collect();
        let records = self.pictures.fold(&self.control, self.clock.now_ms(), wanted).await?;
        self.position = reached;
        self.buffered.extend(records);
        Ok(())
    }

    /// Where to go on when retention has taken what follows our position. From the very beginning means from the
    /// oldest that is left.
    async fn lost(&self, durable: Position) -> Result<Option<Position>, StoreError> {
        if self.position == Position::START {
            return Ok(None);
        }
        let oldest = self.journal.oldest().await?;
        let resume = oldest.map_or(durable, |oldest| Position::new(oldest.get() - 1));
        Ok((self.position < resume).then_some(resume))
    }
}
