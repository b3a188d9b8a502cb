//! Begins with what is left from before: at the start, or once the medium answers.

use std::time::Instant;

use super::age::{Age, Stamp};
use super::holes::Missing;
use super::load::Found;
use super::{Ledger, Options, Place, Slot};
use crate::cache::record::MAX_SEQ;
use crate::cache::{CacheError, EventCache};

/// The first number while those on the medium are not known. None of them is given otherwise, so that an acknowledgement
/// that comes late means no other event.
pub(super) const UNNUMBERED: u64 = MAX_SEQ + 1;

impl Ledger {
    /// Reads what a cache holds. A medium that fails is no error: the ledger then is without one for now.
    ///
    /// # Errors
    /// [`CacheError`]: the cache is not for this device and program, or somebody else uses it.
    pub(crate) fn load(
        serial: &str,
        options: Options,
        now: Instant,
        now_ms: i64,
        medium: &mut dyn EventCache,
    ) -> Result<Self, CacheError> {
        let mut ledger = Self::new(serial, options, now);
        match Found::read(serial, false, medium) {
            Ok(found) => ledger.adopt(found, now, now_ms),
            Err(error @ (CacheError::Io { .. } | CacheError::Other(_))) => ledger.handle_not_read(now, &error),
            Err(error) => return Err(error),
        }
        Ok(ledger)
    }

    /// Goes on with what the medium holds, once. What was reported meanwhile comes after it, under other numbers, so the queue
    /// has to forget the events it was handed.
    pub(crate) fn adopt(&mut self, mut found: Found, now: Instant, now_ms: i64) {
        let serial = &*self.serial;
        if found.damaged_bytes > 0 {
            tracing::warn!(serial, bytes = found.damaged_bytes, "a part of the event cache is damaged");
        }
        if self.reading.clear() {
            tracing::info!(serial, "the event cache can be read again");
        }
        self.counts.damaged_bytes += found.damaged_bytes;
        self.segments = found.segments;
        self.current = found.current;
        self.before = found.before;
        self.next_segment = found.before.segment.saturating_add(1);
        let met = std::mem::replace(&mut self.losses, found.losses).untold;
        self.losses.untold.merge(met);
        self.losses_dirty = met.count > 0;
        self.loaded = true;

        let at = if found.stamp == Stamp::default() { now_ms } else { found.stamp.at };
        for Missing { after, before, loss } in found.holes.finish(found.next_seq, at) {
            if loss.count == 0 && before != found.next_seq {
                continue;
            }
            self.losses.untold.merge(loss);
            self.losses_dirty |= loss.count > 0;
            self.counts.dropped = self.counts.dropped.saturating_add(loss.count);
            // They are lost for good, and counted once, even if the medium remembers them one day.
            let known = found.events.range(after + 1..before).map(|(seq, _)| *seq);
            let mut first = after + 1;
            for seq in known.chain([before]) {
                if first < seq {
                    self.lost.push_back((first, seq - 1));
                }
                first = seq + 1;
            }
        }
        while found.events.len() + self.count > self.options.events
            && let Some((seq, (_, slot))) = found.events.pop_first()
        {
            self.losses.untold.add(slot.at);
            self.losses_dirty = true;
            self.counts.dropped += 1;
            self.gone.insert(seq);
        }
        self.renumber(found.next_seq, Age::resumed(found.stamp, now, now_ms), now);
        for (seq, (sub, slot)) in found.events {
            if let Place::Medium { segment, .. } = &slot.place
                && let Some(segment) = self.segments.get_mut(segment)
            {
                segment.live += 1;
            }
            self.insert(sub, seq, slot);
        }
        self.written_at = now;
        self.release_segments();
    }

    /// Gives what is in memory numbers and times behind those that were found.
    fn renumber(&mut self, first: u64, age: Age, now: Instant) {
        let (before, after) = (self.age.seconds(now), age.seconds(now));
        self.age = age;
        let number = |seq: u64| seq - UNNUMBERED + first;
        self.next_seq = number(self.next_seq);
        for lane in self.lanes.values_mut() {
            lane.cursor = 0;
            lane.events = std::mem::take(&mut lane.events)
                .into_iter()
                .map(|(seq, slot)| {
                    let ran = after.saturating_sub(before.saturating_sub(slot.ran));
                    (number(seq), Slot { handed: None, ran, ..slot })
                })
                .collect();
        }
        self.fresh = std::mem::take(&mut self.fresh).into_iter().map(|(seq, fresh)| (number(seq), fresh)).collect();
        self.watchers =
            std::mem::take(&mut self.watchers).into_iter().map(|(seq, watcher)| (number(seq), watcher)).collect();
        self.evicted = Vec::new();
        self.handed = (0, 0);
        self.blocked = false;
    }
}
