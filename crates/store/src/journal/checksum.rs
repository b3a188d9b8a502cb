//! The checksum of a record: what is read is what was written, or is not returned.
//!
//! CRC-32C over every column, those that a row shares with others (device, serial, path) resolved, so that a reference to
//! the wrong one shows as well. Texts carry their length, so that none can lend a byte to the next. It is part of the format
//! of a segment.

use crc::{CRC_32_ISCSI, Crc, Table};

use crate::{DevicePath, Record};

/// CRC-32C, sixteen bytes a step.
pub(super) static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// The columns of a record as they are stored.
pub(super) struct Columns<'a> {
    pub(super) position: i64,
    pub(super) device: &'a [u8],
    pub(super) serial: &'a str,
    /// Resource, index, area, name.
    pub(super) path: [&'a str; 4],
    pub(super) kind: i16,
    pub(super) id: Option<&'a str>,
    pub(super) time: i64,
    pub(super) received: i64,
    pub(super) flags: i16,
    pub(super) data: &'a str,
}

impl<'a> Columns<'a> {
    /// Those of this record.
    pub(super) fn of(record: &'a Record) -> Columns<'a> {
        Columns {
            position: record.position.get(),
            device: record.device.as_bytes(),
            serial: &record.serial,
            path: levels(&record.path),
            kind: record.kind.stored(),
            id: record.id.as_deref(),
            time: record.time,
            received: record.received,
            flags: record.flags.stored(),
            data: &record.data,
        }
    }

    /// Their checksum.
    pub(super) fn sum(&self) -> u32 {
        let mut digest = CRC.digest();
        let mut numbers = [0; 28];
        numbers[..8].copy_from_slice(&self.position.to_le_bytes());
        numbers[8..16].copy_from_slice(&self.time.to_le_bytes());
        numbers[16..24].copy_from_slice(&self.received.to_le_bytes());
        numbers[24..26].copy_from_slice(&self.kind.to_le_bytes());
        numbers[26..].copy_from_slice(&self.flags.to_le_bytes());
        digest.update(&numbers);
        let mut text = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        text(self.device);
        text(self.serial.as_bytes());
        self.path.iter().for_each(|level| text(level.as_bytes()));
        text(self.data.as_bytes());
        // Last: one that is not there and an empty one differ by a length.
        if let Some(id) = self.id {
            text(id.as_bytes());
        }
        digest.finalize()
    }
}

/// The checksum of a device's row.
pub(super) fn device(number: i64, id: &[u8], serial: &str) -> u32 {
    shared(b'd', &[number], &[id, serial.as_bytes()])
}

/// The checksum of a path's row.
pub(super) fn path(number: i64, levels: [&str; 4]) -> u32 {
    shared(b'p', &[number], &levels.map(str::as_bytes))
}

/// The checksum of a mark.
pub(super) fn mark(numbers: [i64; 4]) -> u32 {
    shared(b'm', &numbers, &[])
}

/// Of a row of the kind that `tag` stands for.
fn shared(tag: u8, numbers: &[i64], texts: &[&[u8]]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&[tag]);
    numbers.iter().for_each(|number| digest.update(&number.to_le_bytes()));
    for text in texts {
        digest.update(&(text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    digest.finalize()
}

/// The levels of a path in the order of their columns.
pub(super) fn levels(path: &DevicePath) -> [&str; 4] {
    [&path.resource, &path.index, &path.area, &path.name]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Columns<'static> {
        Columns {
            position: 1,
            device: &[7; 16],
            serial: "S",
            path: ["global", "0", "area", "name"],
            kind: 1,
            id: Some("e"),
            time: 2,
            received: 3,
            flags: 4,
            data: "{}",
        }
    }

    #[test]
    fn every_column_counts() {
        let changed = [
            Columns { position: 2, ..columns() },
            Columns { device: &[8; 16], ..columns() },
            Columns { serial: "T", ..columns() },
            Columns { path: ["globa", "l0", "area", "name"], ..columns() },
            Columns { path: ["global", "0", "name", "area"], ..columns() },
            Columns { kind: 2, ..columns() },
            Columns { id: None, ..columns() },
            Columns { id: Some(""), ..columns() },
            Columns { time: 3, received: 2, ..columns() },
            Columns { received: 4, ..columns() },
            Columns { flags: 5, ..columns() },
            Columns { data: "[]", ..columns() },
        ];
        let mut sums: Vec<u32> = changed.iter().map(Columns::sum).chain([columns().sum()]).collect();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), changed.len() + 1);
    }

    #[test]
    fn the_checksum_is_part_of_the_format() {
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283, "CRC-32C as RFC 3720 has it");
        assert_eq!(columns().sum(), SUM);
    }

    /// Of [`columns`], as segments on disk have it.
    const SUM: u32 = 0xbb90_581d;
}
