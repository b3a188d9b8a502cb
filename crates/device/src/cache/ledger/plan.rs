//! What is to be done with the medium next.

use std::time::{Duration, Instant};

use super::{Arc, Fate, Ledger, OpenLane, Place, Record, Scan};
use crate::attribute::Message;
use crate::cache::CacheError;
use crate::cache::record::{FORMAT, Losses, MAX_RANGES};

/// How many numbers of events that are gone wait for a note.
const NOTE_AT: usize = 64;

/// How long they wait when nothing else is written.
const NOTE_AFTER: Duration = Duration::from_secs(10);

/// Events that are read with one call, and the bytes from the first to the last.
const READ: (usize, u32) = (32, 64 * 1024);

/// What is to be done, in this order: a medium that is full has room after the first.
#[derive(Debug, Default)]
pub(crate) struct Job {
    pub remove: Vec<u64>,
    pub write: Option<Batch>,
    pub read: Option<Span>,
}

/// Records to be appended.
#[derive(Debug)]
pub(crate) struct Batch {
    pub segment: u64,
    pub bytes: Vec<u8>,
    events: Vec<Written>,
    gone: Vec<u64>,
    losses: Option<Losses>,
}

/// Records that are no events, and what they say.
struct Notes {
    bytes: Vec<u8>,
    gone: Vec<u64>,
    losses: Option<Losses>,
}

#[derive(Debug)]
struct Written {
    sub: Arc<str>,
    seq: u64,
    offset: u32,
    len: u32,
}

/// A part of a segment with events in it.
#[derive(Debug)]
pub(crate) struct Span {
    pub segment: u64,
    pub offset: u64,
    pub len: usize,
    events: Vec<Written>,
}

/// How a job went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub remove: Vec<(u64, Result<(), CacheError>)>,
    pub write: Option<(Batch, Result<(), CacheError>)>,
    pub read: Option<(Span, Result<Vec<u8>, CacheError>)>,
}

/// An event that was read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReadBack {
    pub sub: Arc<str>,
    pub seq: u64,
    pub message: Message,
}

impl Ledger {
    /// What is to be done now.
    pub(crate) fn plan(&mut self, now: Instant, now_ms: i64, online: bool, open: OpenLane<'_>) -> Option<Job> {
        self.expire(now_ms);
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
            job.write = Some(self.batch());
        }
        if !self.closing && self.reading.not_before(now) <= now {
            job.read = self.span(open);
        }
        (job.write.is_some() || !job.remove.is_empty() || job.read.is_some()).then_some(job)
    }

    /// When there is something to do without anything else happening.
    pub(crate) fn deadline(&self, now: Instant, now_ms: i64, online: bool) -> Option<Instant> {
        let expiry = self.expires_in(now_ms).and_then(|left| now.checked_add(left));
        let retry = (!self.removing.is_empty()).then(|| self.writing.not_before(now));
        let read = self.reading.until.filter(|until| *until > now);
        [self.write_at(now, online), expiry, retry, read].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(super) fn has_unnoted(&self) -> bool {
        !self.gone.is_empty()
    }

    fn has_notes(&self) -> bool {
        !self.gone.is_empty() || self.losses_dirty
    }

    /// When something is to be written, if it is not acknowledged before.
    fn write_at(&self, now: Instant, online: bool) -> Option<Instant> {
        let (events, bytes) = self.options.unwritten;
        let crowded = self.fresh.len() > events / 2 || self.fresh_bytes > bytes / 2;
        let grace = if online && !crowded { self.options.grace } else { Duration::ZERO };
        let events = self.fresh.values().next().map(|oldest| oldest.since + grace);
        // A report of losses is sent once it is noted.
        let urgent =
            self.gone.len() >= NOTE_AT || (self.losses_dirty && self.losses.telling.is_some() && !self.losses_handed);
        let notes = if urgent { Some(now) } else { self.note_since.map(|since| since + NOTE_AFTER) };
        let at = [events, notes].into_iter().flatten().min()?;
        Some(self.writing.not_before(at))
    }

    /// Everything that is unwritten, as far as it fits into a segment: what is written now is not written later.
    fn batch(&mut self) -> Batch {
        let notes = self.notes(false);
        let first = self.fresh.iter().next().and_then(|(seq, fresh)| self.record(&fresh.sub, *seq));
        let least = (notes.bytes.len() + first.map_or(0, |record| record.len())) as u64;
        let current = self.current.and_then(|number| Some((number, self.segments.get(&number)?.len)));
        let (segment, start, mut bytes, notes) = match current.filter(|(_, len)| len + least <= self.segment_size) {
            Some((number, len)) => (number, len, Vec::new(), notes),
            None => {
                let (number, begin) = self.begin();
                // What is lost for want of room is among them.
                (number, 0, begin, self.notes(true))
            }
        };
        bytes.extend_from_slice(&notes.bytes);
        let mut events = Vec::new();
        for (&seq, fresh) in &self.fresh {
            let Some(record) = self.record(&fresh.sub, seq) else { continue };
            let offset = start + bytes.len() as u64;
            if offset + record.len() as u64 > self.segment_size && !events.is_empty() {
                break;
            }
            // Both are within a segment.
            let (offset, len) = (offset as u32, record.len() as u32);
            events.push(Written { sub: Arc::clone(&fresh.sub), seq, offset, len });
            bytes.extend_from_slice(&record);
        }
        for event in &events {
            if let Some(fresh) = self.fresh.get_mut(&event.seq) {
                fresh.attempted = true;
            }
        }
        Batch { segment, bytes, events, gone: notes.gone, losses: notes.losses }
    }

    /// What is to be noted. Every segment begins with the losses, because the one that had them may go.
    fn notes(&self, new_segment: bool) -> Notes {
        let gone: Vec<u64> = self.gone.iter().copied().take(MAX_RANGES).collect();
        let losses = (self.losses_dirty || new_segment).then(|| self.losses.clone());
        let mut bytes = Vec::new();
        if !gone.is_empty() {
            Record::Gone(ranges(&gone)).encode(&mut bytes);
        }
        if let Some(losses) = &losses {
            Record::Losses(losses.clone()).encode(&mut bytes);
        }
        Notes { bytes, gone, losses }
    }

    /// An event in memory as a record.
    fn record(&self, sub: &str, seq: u64) -> Option<Vec<u8>> {
        let slot = self.lanes.get(sub)?.events.get(&seq)?;
        let Place::Memory(message) = &slot.place else { return None };
        let mut record = Vec::new();
        Record::Event { seq, at: slot.at, sub, topic: &message.topic, body: &message.body }.encode(&mut record);
        Some(record)
    }

    /// A new segment and its first record. The oldest ones make room for it.
    fn begin(&mut self) -> (u64, Vec<u8>) {
        // For this one, and for the oldest, which goes after this one is written.
        while self.bytes() + 2 * self.segment_size > self.options.bytes {
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
        Record::Begin { format: FORMAT, floor, serial: &self.serial }.encode(&mut bytes);
        (number, bytes)
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
            cost += event.len as usize;
            let follows = *number == segment && event.offset >= end;
            end = event.offset + event.len;
            match event.offset == offset {
                true => follows && self.has_room(cost),
                false => follows && self.handed.1 + cost <= self.options.ahead.1 && end - offset <= READ.1,
            }
        });
        let events: Vec<Written> = together.map(|(_, event)| event).collect();
        let last = events.last()?;
        let len = (last.offset + last.len - offset) as usize;
        Some(Span { segment, offset: offset.into(), len, events })
    }

    /// Takes note of how a job went; what was read is to be sent, in this order.
    pub(crate) fn handle_outcome(&mut self, now: Instant, outcome: Outcome) -> Vec<ReadBack> {
        match outcome.write {
            Some((batch, Ok(()))) => self.handle_written(batch),
            Some((batch, Err(error))) => self.handle_not_written(now, batch, &error),
            None => {}
        }
        for (segment, removed) in outcome.remove {
            if let Err(error) = removed {
                self.removing.push(segment);
                self.handle_trouble(now, &error);
            }
        }
        match outcome.read {
            Some((span, Ok(bytes))) => {
                self.reading.clear();
                self.handle_read(span, &bytes)
            }
            Some((_, Err(error))) => {
                self.counts.failures += 1;
                if self.reading.add(now) {
                    tracing::warn!(serial = &*self.serial, %error, "the event cache cannot be read");
                }
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn handle_written(&mut self, batch: Batch) {
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
        for seq in batch.gone {
            self.gone.remove(&seq);
        }
        if batch.losses.is_some_and(|losses| losses == self.losses) {
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

    fn handle_read(&mut self, span: Span, bytes: &[u8]) -> Vec<ReadBack> {
        let mut events = Vec::new();
        for Written { sub, seq, offset, len } in span.events {
            let start = u64::from(offset).saturating_sub(span.offset) as usize;
            let record = bytes.get(start..).and_then(|rest| Scan::new(rest.get(..len as usize)?).next());
            match record {
                Some((_, Record::Event { seq: found, topic, body, .. })) if found == seq => {
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
        self.events.range(self.cursor..).map_while(move |(&seq, slot)| match slot.place {
            Place::Medium { segment, offset, len } => {
                Some((segment, Written { sub: Arc::clone(sub), seq, offset, len }))
            }
            Place::Memory(_) => None,
        })
    }
}

/// Ascending numbers as ranges.
fn ranges(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}
