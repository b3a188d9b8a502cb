//! What is left from before: reads the segments.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::age::Stamp;
use super::holes::Holes;
use super::{Losses, Place, Record, Scan, Segment, Slot};
use crate::cache::record::{Before, FORMAT, MAX_INDEX, MAX_SEQ, Scanned, Seal};
use crate::cache::{CacheError, EventCache};

/// The largest segment.
pub(super) const MAX_SEGMENT: u64 = 256 * 1024;

/// The least bytes a cache may have: four segments with room for the largest event and a note.
pub(crate) const MIN_BYTES: u64 = 256 * 1024;

/// What is read at once where a segment cannot be read as a whole: a block of most media.
pub(super) const BLOCK: usize = 4096;

/// So many numbers are not given where the last ones given cannot be read: more than there can be in a segment.
const SKIP: u64 = 1 << 20;

/// What a medium holds.
#[derive(Debug)]
pub(crate) struct Found {
    seal: Seal,
    serial: Box<str>,
    /// By their numbers, each with the sub-device it is of.
    pub(super) events: BTreeMap<u64, (Arc<str>, Slot)>,
    subs: BTreeSet<Arc<str>>,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The segment that may be appended to.
    pub(super) current: Option<u64>,
    /// The last segment.
    pub(super) before: Before,
    pub(super) next_seq: u64,
    pub(super) losses: Losses,
    pub(super) stamp: Stamp,
    pub(super) holes: Holes,
    /// The last segment ends with something else than a record.
    damaged_end: Option<Damage>,
    pub(super) damaged_bytes: u64,
}

/// What is no record, since the last one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Damage {
    /// What a write leaves that a loss of power cuts short: a piece of a record, and perhaps zeros. Nothing of it was safe.
    #[default]
    Torn,
    /// One that ends like a whole record.
    Ended,
    /// The same and a zero, which may have been part of it.
    Padded,
    /// More than that.
    Lost,
}

impl Damage {
    fn and(before: Option<Self>, scanned: &Scanned<'_>) -> Self {
        match (before.unwrap_or_default(), scanned) {
            (Self::Torn, Scanned::Damaged) => Self::Ended,
            (Self::Ended, Scanned::Empty) => Self::Padded,
            (Self::Padded, Scanned::Empty) => Self::Torn,
            (Self::Ended | Self::Padded, _) => Self::Lost,
            (before, _) => before,
        }
    }

    /// Events that are lost, where nothing that follows tells how many: one, for what ends like a whole record. It may have
    /// been a note, and none is lost then; which it was, nobody knows, and one too many is told rather than one too few.
    fn least(self) -> u64 {
        u64::from(self != Self::Torn)
    }
}

impl Found {
    /// Reads what a cache holds. What is damaged is left out and counted, and so are blocks that cannot be read, in the
    /// `last` attempt and if others can.
    ///
    /// # Errors
    /// [`CacheError`]: it cannot be read, or is not for this device and program.
    pub(crate) fn read(serial: &str, last: bool, medium: &mut dyn EventCache) -> Result<Self, CacheError> {
        let mut found = Self::nothing(serial);
        let (mut readable, mut unreadable) = (None, None);
        for segment in medium.segments()? {
            let mut content = content(segment, medium);
            readable = readable.or(content.readable.map(|offset| (segment, offset)));
            if let Some(error) = content.error {
                if !last {
                    return Err(error);
                }
                unreadable = Some(error);
            }
            found.segment(segment, &mut content.bytes)?;
        }
        if let Some(error) = unreadable {
            let Some((segment, offset)) = readable else {
                // With something new in it that can be read it is these segments, and not the medium: the next attempt
                // goes by that.
                medium.append(found.before.segment.saturating_add(1), &[0])?;
                return Err(error);
            };
            // A medium that went away meanwhile has lost nothing.
            medium.read(segment, offset, 1)?;
            tracing::warn!(serial, %error, "a part of the event cache cannot be read");
        }
        if let Some(damage) = found.damaged_end {
            found.holes.add(damage.least());
        }
        found.bounded()
    }

    fn nothing(serial: &str) -> Self {
        Self {
            seal: Seal::of(serial),
            serial: serial.into(),
            events: BTreeMap::new(),
            subs: BTreeSet::new(),
            segments: BTreeMap::new(),
            current: None,
            before: Before::default(),
            next_seq: 1,
            losses: Losses::default(),
            stamp: Stamp::default(),
            holes: Holes::default(),
            damaged_end: None,
            damaged_bytes: 0,
        }
    }

    /// Half of what can be written is more than a device reports in its life.
    fn bounded(mut self) -> Result<Self, CacheError> {
        if let Some(missing) = self.holes.behind() {
            self.next_seq = self.next_seq.saturating_add(missing.max(SKIP));
        }
        if self.next_seq > MAX_SEQ / 2 || self.segments.last_key_value().is_some_and(|(last, _)| *last > MAX_SEQ / 2) {
            return Err(CacheError::Numbers);
        }
        Ok(self)
    }

    fn segment(&mut self, number: u64, bytes: &mut [u8]) -> Result<(), CacheError> {
        let len = bytes.len() as u64;
        let damaged_before = self.damaged_bytes;
        // What is known of the end of the segment before it.
        let (end, mut before) = (self.damaged_end.take(), Some(self.before));
        let (mut damage, mut index) = (None, 0);
        for (place, scanned) in Scan::new(self.seal, bytes) {
            let record = match scanned {
                Scanned::Record(record) if place.start == 0 || !matches!(record, Record::Begin { .. }) => record,
                other => {
                    self.damaged_bytes += place.len() as u64;
                    damage = Some(Damage::and(damage, &other));
                    continue;
                }
            };
            self.check(&record)?;
            if let Some(before) = before.take() {
                self.close(before, end, &record);
            }
            if let Record::Event { index: at, .. } | Record::Note { index: at, .. } = record {
                if damage.take().is_some() && at > index {
                    self.holes.add(u64::from(at - index));
                }
                index = index.max(at);
            }
            index += u32::from(matches!(record, Record::Event { .. }));
            self.record(number, place, record);
        }
        if before.is_some()
            && let Some(end) = end
        {
            // Not even the begin of this one is there to tell.
            self.holes.add(end.least());
        }
        self.segments.insert(number, Segment { len, live: 0 });
        self.damaged_end = damage;
        self.before = Before { segment: number, events: index.min(MAX_INDEX) };
        // One with more events than bytes was made by somebody else.
        let good = len > 0 && self.damaged_bytes == damaged_before && u64::from(index) < len;
        self.current = Some(number).filter(|_| good);
        Ok(())
    }

    fn check(&self, record: &Record<'_>) -> Result<(), CacheError> {
        match record {
            Record::Begin { format, .. } if *format > FORMAT => Err(CacheError::Newer(*format)),
            Record::Begin { serial, .. } if **serial != *self.serial => {
                Err(CacheError::Foreign { serial: (*serial).to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// The first record of a segment says how many events there should be in the one before it.
    fn close(&mut self, before: Before, end: Option<Damage>, first: &Record<'_>) {
        let Some(end) = end else { return };
        let missing = match first {
            Record::Begin { before: said, .. } if said.segment == before.segment => {
                said.events.saturating_sub(before.events).into()
            }
            // A segment that was given up when a write failed.
            Record::Begin { .. } => 0,
            _ => end.least(),
        };
        if missing > 0 {
            self.holes.add(missing);
        }
    }

    /// A record speaks of those before it only: they are the ones that go before it goes.
    fn record(&mut self, number: u64, place: Range<usize>, record: Record<'_>) {
        match record {
            Record::Begin { floor, .. } => {
                self.next_seq = self.next_seq.max(floor);
                self.forget(0, floor - 1);
            }
            Record::Event { seq, at, ran, sub, .. } => {
                self.stamp = self.stamp.max(Stamp { ran, at });
                self.holes.handle_event(seq, at);
                self.next_seq = self.next_seq.max(seq + 1);
                let sub = self.subs.get(sub).map_or_else(|| sub.into(), Arc::clone);
                self.subs.insert(Arc::clone(&sub));
                // A segment has up to 256 KiB, and a record up to 20.
                let place = Place::Medium { segment: number, offset: place.start as u32, len: place.len() as u16 };
                // A second one of the same number was written because the first seemed to have failed.
                self.events.entry(seq).or_insert((sub, Slot { at, ran, handed: None, place }));
            }
            Record::Note { at, ran, losses, gone, .. } => {
                self.stamp = self.stamp.max(Stamp { ran, at });
                self.losses = losses;
                for (first, last) in gone {
                    self.next_seq = self.next_seq.max(last + 1);
                    self.forget(first, last);
                }
            }
        }
    }

    fn forget(&mut self, first: u64, last: u64) {
        self.holes.take(first, last);
        while let Some((&seq, _)) = self.events.range(first..=last).next() {
            self.events.remove(&seq);
        }
    }
}

/// What can be read of a segment.
#[derive(Default)]
struct Content {
    /// Blocks that cannot be read are here as something that is no record.
    bytes: Vec<u8>,
    /// Where something can be read.
    readable: Option<u64>,
    /// Why something cannot.
    error: Option<CacheError>,
}

/// A segment, block by block where it cannot be read as a whole.
fn content(segment: u64, medium: &mut dyn EventCache) -> Content {
    if let Ok(bytes) = medium.read(segment, 0, MAX_SEGMENT as usize) {
        return Content { readable: (!bytes.is_empty()).then_some(0), bytes, error: None };
    }
    let mut content = Content::default();
    // How many bytes there are behind the last one that can be read is not known; one block stands for them.
    let mut known = BLOCK;
    for offset in (0..MAX_SEGMENT).step_by(BLOCK) {
        match medium.read(segment, offset, BLOCK) {
            Ok(block) => {
                if !block.is_empty() {
                    content.readable = Some(offset);
                }
                content.bytes.extend_from_slice(&block);
                known = content.bytes.len() + BLOCK;
                if block.len() < BLOCK {
                    break;
                }
            }
            Err(error) => {
                content.error = Some(error);
                content.bytes.extend_from_slice(&UNREADABLE);
            }
        }
    }
    content.bytes.truncate(known);
    content
}

/// What stands for a block that cannot be read.
const UNREADABLE: [u8; BLOCK] = {
    let mut block = [0xff; BLOCK];
    block[BLOCK - 1] = 0;
    block
};
