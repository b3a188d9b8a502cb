//! What is to be done with the medium, and how it went.

use std::sync::Arc;

use super::load::Found;
use crate::attribute::Message;
use crate::cache::record::Losses;
use crate::cache::{CacheError, EventCache};

/// What is to be done, in this order: a medium that is full has room after the first.
#[derive(Debug, Default)]
pub(crate) struct Job {
    pub remove: Vec<u64>,
    pub write: Option<Batch>,
    pub(super) read: Option<Span>,
    pub(super) load: Option<Load>,
}

/// Records to be appended.
#[derive(Debug)]
pub(crate) struct Batch {
    pub segment: u64,
    pub bytes: Vec<u8>,
    pub(super) events: Vec<Written>,
    /// How many events there are in the segment with these.
    pub(super) index: u32,
    pub(super) noted: Noted,
}

/// What a batch says of other events.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub gone: Vec<(u64, u64)>,
    /// How many of the ranges that are lost are among them.
    pub lost: usize,
    pub losses: Option<Losses>,
}

/// An event and its place in a segment.
#[derive(Debug)]
pub(super) struct Written {
    pub sub: Arc<str>,
    pub seq: u64,
    pub offset: u32,
    pub len: u16,
}

impl Written {
    pub(super) fn end(&self) -> u32 {
        self.offset + u32::from(self.len)
    }
}

/// A part of a segment with events in it.
#[derive(Debug)]
pub(super) struct Span {
    pub segment: u64,
    pub events: Vec<Written>,
    /// Another event, far from these, and its segment: whether the medium can be read at all.
    pub other: Option<(u64, Written)>,
}

/// All there is, which could not be read so far.
#[derive(Debug)]
pub(super) struct Load {
    pub serial: Box<str>,
    pub now_ms: i64,
    /// It was tried often enough: what cannot be read is lost, if other things can.
    pub last: bool,
}

/// How a job went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub remove: Vec<(u64, Result<(), CacheError>)>,
    pub write: Option<(Batch, Result<(), CacheError>)>,
    pub(super) read: Option<Read>,
    /// With the wall clock when it began.
    pub(super) load: Option<(i64, Result<Found, CacheError>)>,
}

/// What was read of a span.
#[derive(Debug)]
pub(super) struct Read {
    pub events: Vec<(Written, Result<Vec<u8>, CacheError>)>,
    /// The other event could be read.
    pub other: bool,
}

/// An event that was read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReadBack {
    pub sub: Arc<str>,
    pub seq: u64,
    pub message: Message,
}

impl Job {
    /// Does it.
    pub(crate) fn carry_out(self, medium: &mut dyn EventCache) -> Outcome {
        let remove = self.remove.into_iter().map(|segment| (segment, guarded(|| medium.remove(segment)))).collect();
        let write = self.write.map(|batch| {
            let written = guarded(|| medium.append(batch.segment, &batch.bytes));
            (batch, written)
        });
        let read = self.read.map(|span| span.read(medium));
        let load = self.load.map(|load| (load.now_ms, load.read(medium)));
        Outcome { remove, write, read, load }
    }
}

impl Outcome {
    /// Whether what is on the medium is known from now on, and the events in memory get other numbers.
    pub(crate) fn has_loaded(&self) -> bool {
        matches!(self.load, Some((_, Ok(_))))
    }

    /// Whether the medium refused to take something.
    pub(crate) fn has_failed(&self) -> bool {
        self.write.as_ref().is_some_and(|(_, written)| written.is_err())
            || self.remove.iter().any(|(_, removed)| removed.is_err())
    }
}

impl Span {
    /// The events, one by one when they cannot be read together.
    fn read(self, medium: &mut dyn EventCache) -> Read {
        let Self { segment, events, other } = self;
        let mut read = |from: &Written, end: u32| {
            guarded(|| medium.read(segment, from.offset.into(), (end - from.offset) as usize))
        };
        let whole = events.first().zip(events.last()).map(|(first, last)| (first.offset, read(first, last.end())));
        if let Some((start, Ok(bytes))) = whole {
            let part = |event: &Written| {
                let bytes = bytes.get((event.offset - start) as usize..).unwrap_or_default();
                bytes[..bytes.len().min(event.len.into())].to_vec()
            };
            let events = events.into_iter().map(|event| (part(&event), event)).map(|(part, event)| (event, Ok(part)));
            return Read { events: events.collect(), other: true };
        }
        let events = events.into_iter().map(|event| (read(&event, event.end()), event));
        let events = events.map(|(read, event)| (event, read)).collect();
        let other = other.is_some_and(|(segment, event)| {
            guarded(|| medium.read(segment, event.offset.into(), event.len.into())).is_ok()
        });
        Read { events, other }
    }
}

impl Load {
    fn read(self, medium: &mut dyn EventCache) -> Result<Found, CacheError> {
        guarded(|| Found::read(&self.serial, self.last, medium))
    }
}

/// A medium that panics has failed.
fn guarded<T>(call: impl FnOnce() -> Result<T, CacheError>) -> Result<T, CacheError> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    caught.unwrap_or_else(|_| Err(CacheError::Other("it panicked".into())))
}
