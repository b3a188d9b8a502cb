//! What is to be done with the medium next.

use std::time::{Duration, Instant};

use super::job::{Batch, Job, Load, Noted, Outcome, Read, ReadBack, Span, Written};
use super::load::BLOCK;
use super::{Arc, Fate, Ledger, OpenLane, Place, READS, Record, Scan};
use crate::attribute::Message;
use crate::cache::CacheError;
use crate::cache::record::{Before, FORMAT, MAX_RANGES};

/// How many numbers of events that are gone wait for a note.
const NOTE_AT: usize = 64;

/// How long they wait when nothing else is written.
const NOTE_AFTER: Duration = Duration::from_secs(10);

/// Events that are read with one call, and the bytes from the first to the last.
const READ: (usize, u32) = (32, 64 * 1024);

/// How long there is no note of the clock of [`Age`](super::age::Age) while there are events it is for.
const CLOCK_AFTER: Duration = Duration::from_secs(12 * 60 * 60);

impl Ledger {
    /// What is to be done now.
    pub(crate) fn plan(&mut self, now: Instant, now_ms: i64, online: bool, open: OpenLane<'_>) -> Option<Job> {
        self.expire(now);
        if !self.loaded {
            let due = !self.closing && self.reading.not_before(now) <= now;
            let last = self.reading.row + 1 >= READS;
            let load = due.then(|| Load { serial: self.serial.clone(), now_ms, last });
            return load.map(|load| Job { load: Some(load), ..Job::default() });
        }
        self.release_segments();
        if self.note_since.is_none() && self.has_notes() {
            self.note_since = Some(now);
        }
        let mut job = Job::default();
        // What makes room for the batch goes after it: that events were dropped is in there.
        if self.writing.not_before(now) <= now {
            job.remove = std::mem::take(&mut self.removing);
        }
        if self.closing && (!self.fresh.is_empty() || self.has_notes())
            || self.write_at(now, online).is_some_and(|at| at <= now)
        {
            job.write = Some(self.batch(now, now_ms));
        }
        if !self.closing && self.reading.not_before(now) <= now {
            job.read = self.span(open);
        }
        // If that fails once more: whether it is the place or the medium.
        if job.read.is_some() && job.write.is_none() && self.reading.row + 1 >= READS {
            job.write = (self.writing.not_before(now) <= now).then(|| self.batch(now, now_ms));
        }
        (job.write.is_some() || !job.remove.is_empty() || job.read.is_some()).then_some(job)
    }

    /// When there is something to do without anything else happening.
    pub(crate) fn deadline(&self, now: Instant, online: bool) -> Option<Instant> {
        let expiry = self.expires_in(now).and_then(|left| now.checked_add(left));
        let retry = (!self.removing.is_empty()).then(|| self.writing.not_before(now));
        let read = self.reading.until.filter(|until| *until > now);
        [self.write_at(now, online), expiry, retry, read].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(super) fn has_unnoted(&self) -> bool {
        !self.gone.is_empty()
    }

    fn has_notes(&self) -> bool {
        !self.gone.is_empty() || !self.lost.is_empty() || self.losses_dirty
    }

    /// When something is to be written, if it is not acknowledged before.
    fn write_at(&self, now: Instant, online: bool) -> Option<Instant> {
        if !self.loaded {
            return None;
        }
        let (events, bytes) = self.options.unwritten;
        let crowded = self.fresh.len() > events / 2 || self.fresh_bytes > bytes / 2;
        let grace = if online && !crowded { self.options.grace } else { Duration::ZERO };
        let events = self.fresh.values().next().map(|oldest| oldest.since + grace);
        // A report of losses is sent once it is noted.
        let urgent =
            self.gone.len() >= NOTE_AT || (self.losses_dirty && self.losses.telling.is_some() && !self.losses_handed);
        let notes = if urgent { Some(now) } else { self.note_since.map(|since| since + NOTE_AFTER) };
        let kept = self.segments.values().any(|segment| segment.live > 0);
        let clock = kept.then(|| self.written_at + CLOCK_AFTER);
        let at = [events, notes, clock].into_iter().flatten().min()?;
        Some(self.writing.not_before(at))
    }

    /// Everything that is unwritten, as far as it fits into a segment: what is written now is not written later.
    fn batch(&mut self, now: Instant, now_ms: i64) -> Batch {
        let note = self.note(now, now_ms, self.before.events);
        let first = self.fresh.iter().next().and_then(|(seq, fresh)| self.record(&fresh.sub, *seq, 0));
        let least = (note.0.len() + first.map_or(0, |record| record.len())) as u64;
        let current = self.current.and_then(|number| Some((number, self.segments.get(&number)?.len)));
        let (segment, start, mut bytes, mut index, note) =
            match current.filter(|(_, len)| len + least <= self.segment_size) {
                Some((number, len)) => (number, len, Vec::new(), self.before.events, note),
                None => {
                    let (number, begin) = self.begin();
                    // What is lost for want of room is in it, and the losses, because the segment that had them may go.
                    (number, 0, begin, 0, self.note(now, now_ms, 0))
                }
            };
        let mut noted = Noted::default();
        if start == 0 || self.has_notes() || self.fresh.is_empty() {
            bytes.extend_from_slice(&note.0);
            noted = note.1;
        }
        let mut events = Vec::new();
        for (&seq, fresh) in &self.fresh {
            let Some(record) = self.record(&fresh.sub, seq, index) else { continue };
            let offset = start + bytes.len() as u64;
            if offset + record.len() as u64 > self.segment_size && !events.is_empty() {
                break;
            }
            // Both are within a segment.
            let (offset, len) = (offset as u32, record.len() as u16);
            events.push(Written { sub: Arc::clone(&fresh.sub), seq, offset, len });
            bytes.extend_from_slice(&record);
            index += 1;
        }
        for event in &events {
            if let Some(fresh) = self.fresh.get_mut(&event.seq) {
                fresh.attempted = true;
            }
        }
        Batch { segment, bytes, events, index, noted }
    }

    /// What is to be noted, as a record after so many events of a segment.
    fn note(&self, now: Instant, at: i64, index: u32) -> (Vec<u8>, Noted) {
        let mut gone: Vec<(u64, u64)> = self.lost.iter().copied().take(MAX_RANGES).collect();
        let lost = gone.len();
        for &seq in &self.gone {
            let full = gone.len() == MAX_RANGES;
            match gone[lost..].last_mut() {
                Some((_, last)) if *last + 1 == seq => *last = seq,
                _ if full => break,
                _ => gone.push((seq, seq)),
            }
        }
        let (ran, losses) = (self.age.seconds(now), self.losses.clone());
        let mut bytes = Vec::new();
        Record::Note { index, at, ran, losses: losses.clone(), gone: gone.clone() }.encode(self.seal, &mut bytes);
        (bytes, Noted { gone, lost, losses: Some(losses) })
    }

    /// An event in memory as a record.
    fn record(&self, sub: &str, seq: u64, index: u32) -> Option<Vec<u8>> {
        let slot = self.lanes.get(sub)?.events.get(&seq)?;
        let Place::Memory(message) = &slot.place else { return None };
        let (at, ran) = (slot.at, slot.ran);
        let mut record = Vec::new();
        let event = Record::Event { index, seq, at, ran, sub, topic: &message.topic, body: &message.body };
        event.encode(self.seal, &mut record);
        Some(record)
    }

    /// A new segment and its first record. The oldest ones make room for it.
    fn begin(&mut self) -> (u64, Vec<u8>) {
        // For this one, and for the oldest, which goes after this one is written.
        while self.footprint() + 2 * self.segment_size > self.options.bytes {
            let Some((oldest, _)) = self.segments.pop_first() else { break };
            self.removing.push(oldest);
            let lost: Vec<(Arc<str>, u64)> =
                self.lanes.iter().flat_map(|(sub, lane)| lane.within(oldest, sub)).collect();
            for (sub, seq) in lost {
                self.lose(&sub, seq);
            }
        }
        let number = self.next_segment;
        self.next_segment = number.saturating_add(1);
        let floor = self.oldest().map_or(self.next_seq, |(_, seq, _)| seq);
        let mut bytes = Vec::new();
        let begin = Record::Begin { format: FORMAT, floor, before: self.before, serial: &self.serial };
        begin.encode(self.seal, &mut bytes);
        (number, bytes)
    }

    /// Bytes that the segments take: short ones are what restarts leave, and a medium gives a block to each.
    fn footprint(&self) -> u64 {
        self.segments.values().map(|segment| segment.len.max(BLOCK as u64)).sum()
    }

    /// Lets go of the oldest segments, as long as nothing in them counts. A later one stays: it may say of events in an
    /// earlier one that they are gone. So does the last one that is known to be whole, without which numbers would begin
    /// anew and mean something else in a segment that comes back.
    pub(super) fn release_segments(&mut self) {
        while let Some(oldest) = self.segments.first_entry()
            && oldest.get().live == 0
            && self.current.is_some_and(|current| *oldest.key() < current)
        {
            self.removing.push(oldest.remove_entry().0);
        }
    }

    /// The next events that have to be read, as far as they lie together.
    fn span(&self, open: OpenLane<'_>) -> Option<Span> {
        if self.blocked {
            return None;
        }
        let room = self.options.ahead.0.saturating_sub(self.handed.0).min(READ.0);
        let waiting = self.lanes.iter().filter(|(sub, _)| open(sub).is_some());
        let mut next: Vec<(u64, Written)> = waiting.flat_map(|(sub, lane)| lane.to_read(sub).take(room)).collect();
        next.sort_unstable_by_key(|(_, event)| event.seq);
        let (segment, offset) = next.first().map(|(segment, event)| (*segment, event.offset))?;
        // What finds no room in the queue would be read again at once.
        let (mut cost, mut end) = (0, offset);
        let together = next.into_iter().take(room).take_while(|(number, event)| {
            cost += usize::from(event.len);
            let follows = *number == segment && event.offset >= end;
            end = event.end();
            match event.offset == offset {
                true => follows && self.has_room(cost),
                false => follows && self.handed.1 + cost <= self.options.ahead.1 && end - offset <= READ.1,
            }
        });
        let events: Vec<Written> = together.map(|(_, event)| event).collect();
        let last = events.last()?.seq;
        let newest = self.lanes.iter().filter_map(|(sub, lane)| lane.newest(sub)).max_by_key(|(_, event)| event.seq);
        Some(Span { segment, events, other: newest.filter(|(_, newest)| newest.seq > last) })
    }

    /// Takes note of how a job went; what was read is to be sent, in this order.
    pub(crate) fn handle_outcome(&mut self, now: Instant, outcome: Outcome) -> Vec<ReadBack> {
        let wrote = matches!(outcome.write, Some((_, Ok(()))));
        match outcome.write {
            Some((batch, Ok(()))) => self.handle_written(now, batch),
            Some((batch, Err(error))) => self.handle_not_written(now, batch, &error),
            None => {}
        }
        match outcome.load {
            Some((now_ms, Ok(found))) => self.adopt(found, now, now_ms),
            Some((_, Err(error))) => self.handle_not_read(now, &error),
            None => {}
        }
        for (segment, removed) in outcome.remove {
            if let Err(error) = removed {
                self.removing.push(segment);
                self.handle_trouble(now, &error);
            }
        }
        outcome.read.map(|read| self.handle_read(now, read, wrote)).unwrap_or_default()
    }

    /// Nothing of the medium could be read.
    pub(super) fn handle_not_read(&mut self, now: Instant, error: &CacheError) {
        self.counts.failures += 1;
        if self.reading.add(now) {
            tracing::warn!(serial = &*self.serial, %error, "the event cache cannot be read; events are kept in memory");
        }
    }

    fn handle_written(&mut self, now: Instant, batch: Batch) {
        if self.writing.clear() {
            tracing::info!(serial = &*self.serial, "the event cache can be written again");
        }
        let segment = self.segments.entry(batch.segment).or_default();
        segment.len += batch.bytes.len() as u64;
        for Written { sub, seq, offset, len } in batch.events {
            self.counts.cached += 1;
            // What was acknowledged or dropped meanwhile waits for its note.
            let slot = self.lanes.get_mut(&sub).and_then(|lane| lane.events.get_mut(&seq));
            let Some(slot) = slot.filter(|slot| matches!(slot.place, Place::Memory(_))) else { continue };
            let place = Place::Medium { segment: batch.segment, offset, len };
            if let Place::Memory(message) = std::mem::replace(&mut slot.place, place) {
                self.fresh_bytes -= message.cost();
            }
            self.fresh.remove(&seq);
            segment.live += 1;
            if let Some(watcher) = self.watchers.get(&seq) {
                watcher.send_replace(Fate::Cached);
            }
        }
        self.current = Some(batch.segment);
        self.before = Before { segment: batch.segment, events: batch.index };
        self.written_at = now;
        let Noted { gone, lost, losses } = batch.noted;
        self.lost.drain(..lost);
        for (first, last) in gone.into_iter().skip(lost) {
            // All numbers of a range were gone when it was written.
            while let Some(&seq) = self.gone.range(first..=last).next() {
                self.gone.remove(&seq);
            }
        }
        if losses.is_some_and(|losses| losses == self.losses) {
            self.losses_dirty = false;
        }
        self.note_since = None;
        self.release_segments();
    }

    /// What is in the segment now is unknown, so nothing more is appended to it. One that was new holds nothing that is not
    /// in memory as well.
    fn handle_not_written(&mut self, now: Instant, batch: Batch, error: &CacheError) {
        self.current = None;
        match self.segments.get_mut(&batch.segment) {
            Some(segment) => segment.len += batch.bytes.len() as u64,
            None => self.removing.push(batch.segment),
        }
        self.next_segment = self.next_segment.max(batch.segment.saturating_add(1));
        self.handle_trouble(now, error);
    }

    fn handle_trouble(&mut self, now: Instant, error: &CacheError) {
        self.counts.failures += 1;
        if self.writing.add(now) {
            tracing::warn!(serial = &*self.serial, %error, "the event cache cannot be written; events are kept in memory");
        }
    }

    /// `works` if the medium has done something else just before.
    fn handle_read(&mut self, now: Instant, read: Read, works: bool) -> Vec<ReadBack> {
        let (mut events, mut unread) = (Vec::new(), Vec::new());
        let mut error = None;
        for (Written { sub, seq, len, .. }, read) in read.events {
            let mut bytes = match read {
                Ok(bytes) => bytes,
                Err(cause) => {
                    error.get_or_insert(cause);
                    unread.push((sub, seq));
                    continue;
                }
            };
            match Scan::first(self.seal, &mut bytes) {
                Some(Record::Event { seq: found, topic, body, .. }) if found == seq => {
                    let message = Message { topic: topic.into(), body: body.into() };
                    events.push(ReadBack { sub, seq, message });
                }
                _ => {
                    self.counts.damaged_bytes += u64::from(len);
                    tracing::warn!(serial = &*self.serial, seq, "an event in the cache is damaged");
                    self.lose(&sub, seq);
                }
            }
        }
        let Some(error) = error else {
            if self.reading.clear() {
                tracing::info!(serial = &*self.serial, "the event cache can be read again");
            }
            return events;
        };
        let works = works || read.other || !events.is_empty();
        self.handle_not_read(now, &error);
        if self.reading.row < READS || !works {
            // They keep their turn.
            events.retain(|event| !unread.iter().any(|(sub, seq)| *sub == event.sub && *seq < event.seq));
            return events;
        }
        // It is these, and not the medium.
        self.reading.clear();
        tracing::warn!(serial = &*self.serial, events = unread.len(), %error, "events in the cache cannot be read");
        unread.iter().for_each(|(sub, seq)| self.lose(sub, *seq));
        events
    }
}

impl super::Lane {
    /// The events in a segment.
    fn within<'a>(&'a self, number: u64, sub: &'a Arc<str>) -> impl Iterator<Item = (Arc<str>, u64)> + 'a {
        let within = move |place: &Place| matches!(place, Place::Medium { segment, .. } if *segment == number);
        let events = self.events.iter().take_while(move |(_, slot)| within(&slot.place));
        events.map(move |(seq, _)| (Arc::clone(sub), *seq))
    }

    /// The next events that are to be sent, as far as they are on the medium, each with its segment.
    fn to_read<'a>(&'a self, sub: &'a Arc<str>) -> impl Iterator<Item = (u64, Written)> + 'a {
        let waiting = self.events.range(self.cursor..).filter(|(_, slot)| slot.handed.is_none());
        waiting.map_while(|(seq, slot)| slot.written(sub, *seq))
    }

    /// The newest event, if it is on the medium.
    fn newest(&self, sub: &Arc<str>) -> Option<(u64, Written)> {
        self.events.last_key_value().and_then(|(seq, slot)| slot.written(sub, *seq))
    }
}

impl super::Slot {
    fn written(&self, sub: &Arc<str>, seq: u64) -> Option<(u64, Written)> {
        match self.place {
            Place::Medium { segment, offset, len } => {
                Some((segment, Written { sub: Arc::clone(sub), seq, offset, len }))
            }
            Place::Memory(_) => None,
        }
    }
}
