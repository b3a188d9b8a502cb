//! The records of the cache as bytes.
//!
//! A record is a payload and its CRC-32C, little-endian, in which no byte is zero (consistent overhead byte stuffing: each
//! group of up to 254 bytes has its length before it, and stands for these and a zero), and then a zero. So each record
//! can be found without the one before it, no byte is looked at twice, and nothing that an event says looks like a record.
//!
//! The CRC begins with the format and the serial, so that a record of another device is none, also where the begin of its
//! segment cannot be read. That of a begin itself does not: it says whose it is. The first byte of a payload says what it
//! is; numbers are little-endian, texts have their length before them.
//!
//! | first byte | what | fields |
//! | --- | --- | --- |
//! | 1 | begin of a segment | format u8, floor u64, the segment before it u64 and its events u32, serial (u8 length) |
//! | 2 | event | index u32, seq u64, time i64 ms, age clock u32 s, sub-device or `global` (u8 length), topic (u16 length), body |
//! | 3 | note | index u32, time i64 ms, age clock u32 s, losses, and pairs of u64: the first and the last seq of a range that is gone |
//!
//! The index is how many events there are in the segment before the record: what lies between two records that can be
//! read is known exactly. Losses are the id of the report under way (u8 length, 0: none), and for it and for what is not
//! told yet: count u64, first and last time i64 ms.

use std::ops::Range;

use crc::{CRC_32_ISCSI, Crc};

/// The format that is written, and the newest that is read.
pub(crate) const FORMAT: u8 = 1;

/// The most bytes of a payload. An event has up to 15 KiB, its topic less than one.
pub(crate) const MAX_PAYLOAD: usize = 20 * 1024;

/// The highest number of an event: one that nobody reaches, and that can be counted on from.
pub(crate) const MAX_SEQ: u64 = 1 << 62;

/// The most events in a segment, by far.
pub(crate) const MAX_INDEX: u32 = 1 << 18;

/// The most ranges in one record.
pub(crate) const MAX_RANGES: usize = 1024;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The first byte of a begin.
const BEGIN: u8 = 1;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// The first of a segment. No event with a number below `floor` counts any more.
    Begin { format: u8, floor: u64, before: Before, serial: &'a str },
    /// An event that the program reported.
    Event { index: u32, seq: u64, at: i64, ran: u32, sub: &'a str, topic: &'a str, body: &'a [u8] },
    /// What was acknowledged or dropped, and what the platform is told of that; one record, because half of it would be
    /// wrong.
    Note { index: u32, at: i64, ran: u32, losses: Losses, gone: Vec<(u64, u64)> },
}

/// What was there when a segment was begun: the last segment before it and how many events were written to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Before {
    pub segment: u64,
    pub events: u32,
}

/// Events that were dropped because the cache was full, or their record damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Loss {
    pub count: u64,
    /// When the first and the last of them were reported, in milliseconds since 1970.
    pub from: i64,
    pub to: i64,
}

/// Losses the platform has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Losses {
    /// The report that is under way and its event id, which stays the same until it is acknowledged.
    pub telling: Option<(Box<str>, Loss)>,
    /// What comes into the next report.
    pub untold: Loss,
}

impl Loss {
    /// Another event is lost.
    pub(crate) fn add(&mut self, at: i64) {
        self.merge(Self { count: 1, from: at, to: at });
    }

    /// Others are lost as well.
    pub(crate) fn merge(&mut self, other: Self) {
        *self = match (self.count, other.count) {
            (_, 0) => *self,
            (0, _) => other,
            (count, more) => {
                Self { count: count.saturating_add(more), from: self.from.min(other.from), to: self.to.max(other.to) }
            }
        };
    }
}

impl Record<'_> {
    /// Appends the record. What is too long for it was refused where it entered the device.
    pub(crate) fn encode(&self, seal: Seal, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        self.write(&mut payload);
        frame(seal, &payload, out);
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin { format, floor, before, serial } => {
                out.extend_from_slice(&[BEGIN, *format]);
                out.extend_from_slice(&floor.to_le_bytes());
                out.extend_from_slice(&before.segment.to_le_bytes());
                out.extend_from_slice(&before.events.to_le_bytes());
                short(serial, out);
            }
            Self::Event { index, seq, at, ran, sub, topic, body } => {
                out.push(2);
                out.extend_from_slice(&index.to_le_bytes());
                out.extend_from_slice(&seq.to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&ran.to_le_bytes());
                short(sub, out);
                let len = u16::try_from(topic.len()).expect("a topic is shorter than 64 KiB");
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(topic.as_bytes());
                out.extend_from_slice(body);
            }
            Self::Note { index, at, ran, losses: Losses { telling, untold }, gone } => {
                out.push(3);
                out.extend_from_slice(&index.to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&ran.to_le_bytes());
                let (id, loss) = telling.as_ref().map_or(("", Loss::default()), |(id, loss)| (id, *loss));
                short(id, out);
                for Loss { count, from, to } in [loss, *untold] {
                    out.extend_from_slice(&count.to_le_bytes());
                    out.extend_from_slice(&from.to_le_bytes());
                    out.extend_from_slice(&to.to_le_bytes());
                }
                for (first, last) in gone {
                    out.extend_from_slice(&first.to_le_bytes());
                    out.extend_from_slice(&last.to_le_bytes());
                }
            }
        }
    }
}

/// What the records of a device begin their CRC with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal(u32);

impl Seal {
    pub(crate) fn of(serial: &str) -> Self {
        let mut digest = CRC.digest();
        digest.update(&[FORMAT]);
        digest.update(serial.as_bytes());
        Self(digest.finalize())
    }

    fn checksum(self, payload: &[u8]) -> u32 {
        let mut digest = CRC.digest();
        if payload.first() != Some(&BEGIN) {
            digest.update(&self.0.to_le_bytes());
        }
        digest.update(payload);
        digest.finalize()
    }
}

/// Appends a record with this payload.
pub(crate) fn frame(seal: Seal, payload: &[u8], out: &mut Vec<u8>) {
    let crc = seal.checksum(payload).to_le_bytes();
    let mut group = Vec::with_capacity(GROUP);
    let close = |group: &mut Vec<u8>, out: &mut Vec<u8>| {
        out.push(u8::try_from(group.len() + 1).expect("a group has up to 254 bytes"));
        out.append(group);
    };
    for &byte in payload.iter().chain(&crc) {
        if byte != 0 {
            group.push(byte);
        }
        if byte == 0 || group.len() == GROUP {
            close(&mut group, out);
        }
    }
    close(&mut group, out);
    out.push(0);
}

/// The longest group of bytes that are not zero; the next byte need not be one.
const GROUP: usize = 254;

/// What [`frame`] made, in the place of what it made of it.
fn unframe(frame: &mut [u8]) -> Option<&[u8]> {
    let (mut from, mut to) = (0, 0);
    while let Some(&head) = frame.get(from) {
        let len = usize::from(head).checked_sub(1)?;
        let end = from + 1 + len;
        if end > frame.len() {
            return None;
        }
        frame.copy_within(from + 1..end, to);
        (from, to) = (end, to + len);
        if len < GROUP && from < frame.len() {
            // One byte of each group was its length, so this one was read.
            frame[to] = 0;
            to += 1;
        }
    }
    frame.get(..to)
}

/// A text of up to 255 bytes: serials and event ids are shorter.
fn short(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).expect("a serial or an event id has up to 255 bytes"));
    out.extend_from_slice(text.as_bytes());
}

/// Reads the records in some bytes, which it does in their place.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    rest: &'a mut [u8],
    end: usize,
    seal: Seal,
}

/// What lies between two zeros.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scanned<'a> {
    Record(Record<'a>),
    /// Not a record of this device.
    Damaged,
    /// Nothing.
    Empty,
    /// No zero ends it.
    Cut,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(seal: Seal, bytes: &'a mut [u8]) -> Self {
        Self { rest: bytes, end: 0, seal }
    }

    /// The record at the beginning of some bytes.
    pub(crate) fn first(seal: Seal, bytes: &'a mut [u8]) -> Option<Record<'a>> {
        match Self::new(seal, bytes).next()? {
            (_, Scanned::Record(record)) => Some(record),
            _ => None,
        }
    }
}

impl<'a> Iterator for Scan<'a> {
    /// Where it is, the zero included, and what it says.
    type Item = (Range<usize>, Scanned<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let start = self.end;
        let Some(len) = rest.iter().position(|byte| *byte == 0) else {
            self.end += rest.len();
            return Some((start..self.end, Scanned::Cut));
        };
        let (frame, rest) = rest.split_at_mut(len + 1);
        self.rest = rest;
        self.end += frame.len();
        let scanned = match frame {
            [_] => Scanned::Empty,
            [frame @ .., _] => read(self.seal, frame).map_or(Scanned::Damaged, Scanned::Record),
            [] => Scanned::Empty,
        };
        Some((start..self.end, scanned))
    }
}

fn read(seal: Seal, frame: &mut [u8]) -> Option<Record<'_>> {
    let (payload, crc) = unframe(frame)?.split_last_chunk::<4>()?;
    let good = payload.len() <= MAX_PAYLOAD && seal.checksum(payload) == u32::from_le_bytes(*crc);
    decode(payload).filter(|_| good)
}

fn decode(payload: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(payload);
    let [kind] = reader.take()?;
    let record = match kind {
        BEGIN => {
            let [format] = reader.take()?;
            let floor = reader.seq()?;
            let before = Before { segment: reader.u64()?, events: reader.index()? };
            Record::Begin { format, floor, before, serial: reader.short()? }
        }
        2 => Record::Event {
            index: reader.index()?,
            seq: reader.seq()?,
            at: reader.i64()?,
            ran: reader.u32()?,
            sub: reader.short()?,
            topic: {
                let len = u16::from_le_bytes(reader.take()?);
                reader.text(len.into())?
            },
            body: reader.rest(),
        },
        3 => {
            let (index, at, ran) = (reader.index()?, reader.i64()?, reader.u32()?);
            let id = reader.short()?;
            let (loss, untold) = (reader.loss()?, reader.loss()?);
            if id.is_empty() && loss != Loss::default() {
                return None;
            }
            let (pairs, []) = reader.rest().as_chunks::<16>() else { return None };
            let gone = pairs.iter().map(|pair| range(pair)).collect::<Option<_>>()?;
            let losses = Losses { telling: (!id.is_empty()).then(|| (id.into(), loss)), untold };
            Record::Note { index, at, ran, losses, gone }
        }
        _ => return None,
    };
    reader.0.is_empty().then_some(record)
}

fn range(pair: &[u8]) -> Option<(u64, u64)> {
    let mut reader = Reader(pair);
    let (first, last) = (reader.seq()?, reader.seq()?);
    (first <= last).then_some((first, last))
}

/// What is left of a payload.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// More than there is room for in a segment would be a lie.
    fn index(&mut self) -> Option<u32> {
        self.u32().filter(|index| *index <= MAX_INDEX)
    }

    fn seq(&mut self) -> Option<u64> {
        self.u64().filter(|seq| (1..=MAX_SEQ).contains(seq))
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn text(&mut self, len: usize) -> Option<&'a str> {
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn short(&mut self) -> Option<&'a str> {
        let [len] = self.take()?;
        self.text(len.into())
    }

    fn loss(&mut self) -> Option<Loss> {
        Some(Loss { count: self.u64()?, from: self.i64()?, to: self.i64()? })
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests;
