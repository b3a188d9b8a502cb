//! One function for each decoder of this crate that meets bytes from outside: from a medium that forgets, or that
//! somebody else wrote to.
//!
//! Fuzz targets call them, and ordinary tests replay inputs through them. Each checks what has to hold for any input at
//! all; a violation panics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use osap::das::topic::GLOBAL;

use crate::attribute::Message;
use crate::cache::{CacheError, EventCache, Ledger, MIN_BYTES, Next, Options, Record, Scan, Scanned, Seal, frame};

/// A function that takes any bytes and panics only where a rule is broken.
pub type Target = fn(&[u8]);

/// Every target by the name of its fuzz target.
pub const TARGETS: &[(&str, Target)] = &[("device_cache", cache)];

/// The device whose cache it is.
const SERIAL: &str = "SN0000001";

/// 2026-11-20T21:31:22.110Z.
const TODAY: i64 = 1_795_210_282_110;

/// More jobs than any input of a few KiB leads to.
const JOBS: usize = 10_000;

const OPTIONS: Options = Options {
    events: 100_000,
    bytes: 64 * MIN_BYTES,
    age: Duration::from_secs(7 * 24 * 3600),
    grace: Duration::ZERO,
    unwritten: (16, 64 * 1024),
    ahead: (8, 32 * 1024),
};

/// A cache after anything has happened to it. What is read can be written again; the events in it come in order, none
/// twice; what is lost is counted once, if the numbers can be true; and what is reported from then on is kept beside them.
///
/// The first byte says whether the rest is one segment as it is (0), or payloads of records (anything else), each with
/// its length in 12 bits before it; the highest of these 16 bits begins another segment.
pub fn cache(data: &[u8]) {
    let mut medium = Medium(segments(data));
    medium.0.values().for_each(|bytes| same_when_written_again(bytes));
    let counts_on = counts_on(&medium);
    let Ok(ledger) = load(&mut medium) else { return };
    let before = drained(ledger, &mut Medium(medium.0.clone()));
    assert!(before.is_sorted_by(|a, b| a.0 < b.0), "out of order, or twice");

    let mut ledger = load(&mut medium).expect("as before");
    let message = Message { topic: "/new".into(), body: (*b"{}").into() };
    let fate = ledger.report(Instant::now(), TODAY, GLOBAL, message).expect("there is room");
    ledger.close();
    while let Some(job) = ledger.plan(Instant::now(), TODAY, false, &|_| None) {
        ledger.handle_outcome(Instant::now(), job.carry_out(&mut medium));
    }
    drop(fate);
    let ledger = match load(&mut medium) {
        // There are no numbers left.
        Err(CacheError::Numbers) => return,
        ledger => ledger.expect("what was written is good"),
    };
    assert!(ledger.counts.dropped == 0 || !counts_on, "counted again");
    let mut after = drained(ledger, &mut medium);
    let new = after.pop().map(|(_, _, topic)| topic);
    assert_eq!((new.as_deref(), after), (Some("/new"), before), "what is new is not beside what was there");
}

/// Whether each number leaves room before it for the events that were written since the one before, so that somebody may
/// have written all that can be read. Where this is a lie, how many are lost depends on what has been let go.
fn counts_on(medium: &Medium) -> bool {
    let (mut next, mut last) = (1, None);
    for (&number, bytes) in &medium.0 {
        // Events that were written to this segment, as far as anything says.
        let mut events = 0;
        for (_, scanned) in Scan::new(Seal::of(SERIAL), &mut bytes.clone()) {
            let Scanned::Record(record) = scanned else { continue };
            if let Record::Event { index, .. } | Record::Note { index, .. } = record {
                next += u64::from(index.saturating_sub(events));
                events = events.max(index);
            }
            match record {
                Record::Begin { before, .. } => {
                    let known = last.filter(|(segment, _)| *segment == before.segment).map(|(_, events)| events);
                    next += known.map_or(0, |known| u64::from(before.events.saturating_sub(known)));
                }
                Record::Event { seq, .. } if seq < next => return false,
                Record::Event { seq, .. } => (next, events) = (seq + 1, events + 1),
                Record::Note { .. } => {}
            }
        }
        last = Some((number, events));
    }
    true
}

fn load(medium: &mut Medium) -> Result<Ledger, CacheError> {
    Ledger::load(SERIAL, OPTIONS, Instant::now(), TODAY, medium)
}

fn segments(data: &[u8]) -> BTreeMap<u64, Vec<u8>> {
    let Some((&kind, mut rest)) = data.split_first() else { return BTreeMap::new() };
    if kind == 0 {
        return BTreeMap::from([(1, rest.to_vec())]);
    }
    let mut segments = BTreeMap::<u64, Vec<u8>>::new();
    let mut number = 1;
    while let Some((head, payload)) = rest.split_first_chunk() {
        let head = u16::from_le_bytes(*head);
        number += u64::from(head >> 15);
        let (payload, next) = payload.split_at_checked((head & 0xfff).into()).unwrap_or((payload, &[]));
        frame(Seal::of(SERIAL), payload, segments.entry(number).or_default());
        rest = next;
    }
    segments
}

fn same_when_written_again(bytes: &[u8]) {
    let seal = Seal::of(SERIAL);
    let mut end = 0;
    for (place, scanned) in Scan::new(seal, &mut bytes.to_vec()) {
        assert_eq!(place.start, end, "something is left out");
        end = place.end;
        if let Scanned::Record(record) = scanned {
            let mut again = Vec::new();
            record.encode(seal, &mut again);
            assert_eq!(Scan::first(seal, &mut again), Some(record), "written otherwise than read");
        }
    }
    assert_eq!(end, bytes.len(), "something is left out");
}

/// Number, sub-device and topic of everything that is sent, which empties the cache.
fn drained(mut ledger: Ledger, medium: &mut Medium) -> Vec<(u64, String, String)> {
    let now = Instant::now();
    let mut sent = Vec::new();
    for _ in 0..JOBS {
        let job = ledger.plan(now, TODAY, true, &|_| Some(0));
        assert!(!matches!(ledger.next(&|_| Some(0)), Some(Next::Memory { .. })), "nothing is in memory");
        let Some(job) = job else {
            assert_eq!(ledger.len(), (0, 0), "something stays");
            return sent;
        };
        for event in ledger.handle_outcome(now, job.carry_out(medium)) {
            let cost = event.message.cost();
            assert!(ledger.is_next(&event.sub, event.seq, cost), "read in vain");
            ledger.handle_handed(&event.sub, event.seq, cost);
            ledger.acknowledge(&event.sub, event.seq);
            sent.push((event.seq, event.sub.to_string(), event.message.topic.into()));
        }
    }
    panic!("it does not come to an end");
}

struct Medium(BTreeMap<u64, Vec<u8>>);

impl EventCache for Medium {
    fn segments(&mut self) -> Result<Vec<u64>, CacheError> {
        Ok(self.0.keys().copied().collect())
    }

    fn read(&mut self, segment: u64, offset: u64, len: usize) -> Result<Vec<u8>, CacheError> {
        let bytes = self.0.get(&segment).into_iter().flatten();
        Ok(bytes.skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(len).copied().collect())
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> Result<(), CacheError> {
        self.0.entry(segment).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> Result<(), CacheError> {
        self.0.remove(&segment);
        Ok(())
    }
}
