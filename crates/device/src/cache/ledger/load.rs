//! What is left from before: reads the segments at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::{Counts, Ledger, Losses, Options, Place, Record, Scan, Segment, Slot, Trouble};
use crate::cache::record::{FORMAT, MAX_SEQ};
use crate::cache::{CacheError, EventCache};

/// The largest segment.
pub(super) const MAX_SEGMENT: u64 = 256 * 1024;

/// The least bytes a cache may have: four segments with room for the largest event and a note.
pub(crate) const MIN_BYTES: u64 = 256 * 1024;

impl Ledger {
    pub(crate) fn new(serial: &str, options: Options) -> Self {
        Self {
            serial: serial.into(),
            options,
            lanes: BTreeMap::new(),
            count: 0,
            next_seq: 1,
            fresh: BTreeMap::new(),
            fresh_bytes: 0,
            handed: (0, 0),
            blocked: false,
            evicted: Vec::new(),
            watchers: BTreeMap::new(),
            watchers_mark: 64,
            segments: BTreeMap::new(),
            segment_size: (options.bytes / 4).min(MAX_SEGMENT),
            current: None,
            next_segment: 1,
            removing: Vec::new(),
            gone: BTreeSet::new(),
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

    /// Reads what a cache holds.
    ///
    /// # Errors
    /// [`CacheError`]: it cannot be read, or is not for this device and program. Records that are damaged are none: they
    /// are counted and left alone, with what follows them in their segment.
    pub(crate) fn load(serial: &str, options: Options, cache: &mut dyn EventCache) -> Result<Self, CacheError> {
        let mut ledger = Self::new(serial, options);
        for segment in cache.segments()? {
            let bytes = cache.read(segment, 0, MAX_SEGMENT as usize)?;
            let whole = ledger.load_segment(segment, &bytes)?;
            ledger.current = Some(segment).filter(|_| whole);
            ledger.next_segment = segment.saturating_add(1);
        }
        // Half of what can be written is more than a device reports in its life.
        if ledger.next_seq > MAX_SEQ / 2 {
            return Err(CacheError::Numbers);
        }
        ledger.lanes.retain(|_, lane| !lane.events.is_empty());
        for slot in ledger.lanes.values().flat_map(|lane| lane.events.values()) {
            ledger.count += 1;
            if let Place::Medium { segment, .. } = &slot.place
                && let Some(segment) = ledger.segments.get_mut(segment)
            {
                segment.live += 1;
            }
        }
        while ledger.count > options.events && ledger.lose_oldest() {}
        ledger.release_segments();
        if ledger.counts.damaged_bytes > 0 {
            tracing::warn!(serial, bytes = ledger.counts.damaged_bytes, "a part of the event cache is damaged");
        }
        Ok(ledger)
    }

    /// `true` when all of the segment could be read, so that more may be appended to it.
    fn load_segment(&mut self, number: u64, bytes: &[u8]) -> Result<bool, CacheError> {
        let mut scan = Scan::new(bytes);
        let good = match scan.next() {
            Some((_, Record::Begin { format, .. })) if format > FORMAT => return Err(CacheError::Newer(format)),
            Some((_, Record::Begin { serial, .. })) if *serial != *self.serial => {
                return Err(CacheError::Foreign { serial: serial.to_owned() });
            }
            Some((place, begin @ Record::Begin { .. })) => {
                self.load_record(number, place, begin);
                scan.by_ref().for_each(|(place, record)| self.load_record(number, place, record));
                scan.end()
            }
            // Without its begin a segment says nothing.
            _ => 0,
        };
        self.counts.damaged_bytes += (bytes.len() - good) as u64;
        self.segments.insert(number, Segment { len: bytes.len() as u64, live: 0 });
        Ok(good > 0 && good == bytes.len())
    }

    /// A record speaks of those before it only: they are the ones that go before it goes.
    fn load_record(&mut self, number: u64, place: Range<usize>, record: Record<'_>) {
        match record {
            Record::Begin { floor, .. } => {
                self.next_seq = self.next_seq.max(floor);
                self.lanes.values_mut().for_each(|lane| lane.events = lane.events.split_off(&floor));
            }
            Record::Event { seq, at, sub, .. } => {
                // A segment has up to 256 KiB.
                let (offset, len) = (place.start as u32, place.len() as u32);
                let sub = self.lanes.get_key_value(sub).map_or_else(|| sub.into(), |(sub, _)| Arc::clone(sub));
                let slot = Slot { at, handed: None, place: Place::Medium { segment: number, offset, len } };
                // A second one of the same number was written because the first seemed to have failed.
                self.lanes.entry(sub).or_default().events.entry(seq).or_insert(slot);
                self.next_seq = self.next_seq.max(seq + 1);
            }
            Record::Gone(ranges) => {
                for (first, last) in ranges {
                    self.next_seq = self.next_seq.max(last + 1);
                    self.lanes.values_mut().for_each(|lane| lane.forget(first, last));
                }
            }
            Record::Losses(losses) => self.losses = losses,
        }
    }
}

impl super::Lane {
    fn forget(&mut self, first: u64, last: u64) {
        let mut later = self.events.split_off(&first);
        later.retain(|seq, _| *seq > last);
        self.events.append(&mut later);
    }
}
