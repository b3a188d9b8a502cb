//! The records of the cache as bytes.
//!
//! A record is its length and its CRC-32C, both 32 bits, little-endian, and then the payload. The CRC is over the length
//! and the payload, so that a run of zero bytes is no record. The first byte of the payload says what it is; numbers are
//! little-endian, texts have their length before them.
//!
//! | first byte | what | fields |
//! | --- | --- | --- |
//! | 1 | begin of a segment | format u8, floor u64, serial (u8 length) |
//! | 2 | event | seq u64, time i64 ms, sub-device or `global` (u8 length), topic (u16 length), body |
//! | 3 | gone | pairs of u64: the first and the last seq of a range |
//! | 4 | losses | id of the report under way (u8 length, 0: none), and for it and for what is not told yet: count u64, first and last time i64 ms |

use std::ops::Range;

use crc::{CRC_32_ISCSI, Crc};

/// The format that is written, and the newest that is read.
pub(crate) const FORMAT: u8 = 1;

/// The most bytes of a payload. An event has up to 15 KiB, its topic less than one.
pub(crate) const MAX_PAYLOAD: usize = 20 * 1024;

/// The highest number of an event: one that nobody reaches, and that can be counted on from.
pub(crate) const MAX_SEQ: u64 = 1 << 62;

/// Length and CRC.
const HEAD: usize = 8;

/// The most ranges in one record.
pub(crate) const MAX_RANGES: usize = 1024;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// The first of a segment. No event with a number below `floor` counts any more.
    Begin { format: u8, floor: u64, serial: &'a str },
    /// An event that the program reported.
    Event { seq: u64, at: i64, sub: &'a str, topic: &'a str, body: &'a [u8] },
    /// Events that were acknowledged or dropped.
    Gone(Vec<(u64, u64)>),
    /// What was dropped and not told to the platform; the newest record counts.
    Losses(Losses),
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
        (self.from, self.to) = if self.count == 0 { (at, at) } else { (self.from.min(at), self.to.max(at)) };
        self.count = self.count.saturating_add(1);
    }
}

impl Record<'_> {
    /// Appends the record. What is too long for it was refused where it entered the device.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        self.write(&mut payload);
        frame(&payload, out);
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin { format, floor, serial } => {
                out.extend_from_slice(&[1, *format]);
                out.extend_from_slice(&floor.to_le_bytes());
                short(serial, out);
            }
            Self::Event { seq, at, sub, topic, body } => {
                out.push(2);
                out.extend_from_slice(&seq.to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
                short(sub, out);
                let len = u16::try_from(topic.len()).expect("a topic is shorter than 64 KiB");
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(topic.as_bytes());
                out.extend_from_slice(body);
            }
            Self::Gone(ranges) => {
                out.push(3);
                for (first, last) in ranges {
                    out.extend_from_slice(&first.to_le_bytes());
                    out.extend_from_slice(&last.to_le_bytes());
                }
            }
            Self::Losses(Losses { telling, untold }) => {
                out.push(4);
                let (id, loss) = telling.as_ref().map_or(("", Loss::default()), |(id, loss)| (id, *loss));
                short(id, out);
                for Loss { count, from, to } in [loss, *untold] {
                    out.extend_from_slice(&count.to_le_bytes());
                    out.extend_from_slice(&from.to_le_bytes());
                    out.extend_from_slice(&to.to_le_bytes());
                }
            }
        }
    }
}

/// Appends a record with this payload.
pub(crate) fn frame(payload: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(payload.len()).expect("a record is shorter than 4 GiB").to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(len, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// A text of up to 255 bytes: serials and event ids are shorter.
fn short(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).expect("a serial or an event id has up to 255 bytes"));
    out.extend_from_slice(text.as_bytes());
}

fn checksum(len: [u8; 4], payload: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&len);
    digest.update(payload);
    digest.finalize()
}

/// Reads the records at the beginning of some bytes, up to the first that is none.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    end: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, end: 0 }
    }

    /// Where the last record ended that was read.
    pub(crate) fn end(&self) -> usize {
        self.end
    }
}

impl<'a> Iterator for Scan<'a> {
    /// Where the record is, and what it says.
    type Item = (Range<usize>, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (payload, len) = unframe(self.bytes.get(self.end..)?)?;
        let record = decode(payload)?;
        let start = self.end;
        self.end += len;
        Some((start..self.end, record))
    }
}

/// The payload of the record at the beginning of the bytes, and the length of the whole.
fn unframe(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|&size| size <= MAX_PAYLOAD)?;
    let payload = rest.get(..size)?;
    (checksum(*len, payload) == u32::from_le_bytes(*crc)).then_some((payload, HEAD + size))
}

fn decode(payload: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(payload);
    let [kind] = reader.take()?;
    let record = match kind {
        1 => {
            let [format] = reader.take()?;
            Record::Begin { format, floor: reader.seq()?, serial: reader.short()? }
        }
        2 => Record::Event {
            seq: reader.seq()?,
            at: reader.i64()?,
            sub: reader.short()?,
            topic: {
                let len = u16::from_le_bytes(reader.take()?);
                reader.text(len.into())?
            },
            body: reader.rest(),
        },
        3 => {
            let (pairs, []) = reader.rest().as_chunks::<16>() else { return None };
            Record::Gone(pairs.iter().map(|pair| range(pair)).collect::<Option<_>>()?)
        }
        4 => {
            let id = reader.short()?;
            let (loss, untold) = (reader.loss()?, reader.loss()?);
            if id.is_empty() && loss != Loss::default() {
                return None;
            }
            Record::Losses(Losses { telling: (!id.is_empty()).then(|| (id.into(), loss)), untold })
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
