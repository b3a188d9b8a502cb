//! The rows of a segment file, told by their columns and believed by their checksums, wherever they were found.

use std::collections::HashMap;
use std::sync::Arc;

use super::checksum::{self, Columns};
use super::tree::{Value, columns};
use crate::{DeviceId, DevicePath, Flags, Position, Record, RecordKind};

/// A row whose own columns are in order.
pub(super) enum Stored<'a> {
    Device {
        number: i64,
        id: DeviceId,
        serial: &'a str,
    },
    Path {
        number: i64,
        levels: [&'a str; 4],
    },
    Mark(Mark),
    /// One whose checksum is still to be compared, with what it refers to.
    Record(StoredRecord<'a>),
}

/// Where a segment begins, where the journal goes on, and how many records are in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) base: i64,
    pub(super) next: i64,
    pub(super) rows: i64,
    /// How long the journal had run when the last of them was stored, in milliseconds.
    pub(super) ran: i64,
}

impl Mark {
    /// The checksum of its row.
    pub(super) fn sum(&self) -> u32 {
        checksum::mark([self.base, self.next, self.rows, self.ran])
    }
}

/// A record as its own row has it.
pub(super) struct StoredRecord<'a> {
    pub(super) position: i64,
    device: i64,
    path: i64,
    pub(super) kind: i16,
    pub(super) id: Option<&'a str>,
    pub(super) time: i64,
    pub(super) received: i64,
    flags: i16,
    data: &'a str,
    sum: i64,
}

impl<'a> Stored<'a> {
    /// Reads a row of any table; None: it is none of ours, or not what was written.
    pub(super) fn read(rowid: i64, row: &'a [u8]) -> Option<Stored<'a>> {
        use Value::{Blob, Integer, Null, Text};
        let (values, count) = columns::<10>(row)?;
        match (&values[..count], rowid) {
            (&[Null, Blob(id), Text(serial), Integer(sum)], number) => {
                let whole = i64::from(checksum::device(number, id, serial)) == sum;
                let id = DeviceId::from_stored(id).filter(|_| whole)?;
                Some(Stored::Device { number, id, serial })
            }
            (&[Null, Text(resource), Text(index), Text(area), Text(name), Integer(sum)], number) => {
                let levels = [resource, index, area, name];
                (i64::from(checksum::path(number, levels)) == sum).then_some(Stored::Path { number, levels })
            }
            (&[Integer(base), Integer(next), Integer(rows), Integer(ran), Integer(sum)], _) => {
                let mark = Mark { base, next, rows, ran };
                (i64::from(mark.sum()) == sum).then_some(Stored::Mark(mark))
            }
            (
                &[
                    Null,
                    Integer(device),
                    Integer(path),
                    Integer(kind),
                    id @ (Null | Text(_)),
                    Integer(time),
                    Integer(received),
                    Integer(flags),
                    Text(data),
                    Integer(sum),
                ],
                position,
            ) => Some(Stored::Record(StoredRecord {
                position,
                device,
                path,
                kind: kind.try_into().ok()?,
                id: if let Text(id) = id { Some(id) } else { None },
                time,
                received,
                flags: flags.try_into().ok()?,
                data,
                sum,
            })),
            _ => None,
        }
    }
}

/// What the records of a segment refer to, by number.
#[derive(Default)]
pub(super) struct Dictionary {
    devices: HashMap<i64, (DeviceId, Arc<str>)>,
    paths: HashMap<i64, Arc<DevicePath>>,
}

impl Dictionary {
    /// Adds a device; false: another one has the number.
    pub(super) fn add_device(&mut self, number: i64, id: DeviceId, serial: &str) -> bool {
        let (known, name) = self.devices.entry(number).or_insert_with(|| (id, serial.into()));
        *known == id && &**name == serial
    }

    /// Adds a path; false: another one has the number.
    pub(super) fn add_path(&mut self, number: i64, levels: [&str; 4]) -> bool {
        let [resource, index, area, name] = levels;
        let made = || {
            Arc::new(DevicePath {
                resource: resource.into(),
                index: index.into(),
                area: area.into(),
                name: name.into(),
            })
        };
        checksum::levels(self.paths.entry(number).or_insert_with(made)) == levels
    }

    /// The devices by number, in the order of their numbers.
    pub(super) fn devices(&self) -> Vec<(i64, DeviceId, Arc<str>)> {
        let devices = self.devices.iter().map(|(number, (id, serial))| (*number, *id, serial.clone()));
        let mut devices: Vec<_> = devices.collect();
        devices.sort_unstable_by_key(|(number, ..)| *number);
        devices
    }

    /// How many devices and paths there are.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.devices.len(), self.paths.len())
    }

    /// The highest number of a device and of a path.
    pub(super) fn last(&self) -> (i64, i64) {
        (self.devices.keys().copied().max().unwrap_or(0), self.paths.keys().copied().max().unwrap_or(0))
    }

    /// The device and the path of a record that is what was written.
    pub(super) fn device_and_path_of(&self, record: &StoredRecord<'_>) -> Option<(&DeviceId, &Arc<DevicePath>)> {
        let (device, _, path) = self.resolve(record)?;
        Some((device, path))
    }

    /// The record, if it is what was written.
    pub(super) fn record(&self, stored: &StoredRecord<'_>) -> Option<Record> {
        let (device, serial, path) = self.resolve(stored)?;
        Some(Record {
            position: Position::new(stored.position),
            device: *device,
            serial: serial.clone(),
            kind: RecordKind::from_stored(stored.kind)?,
            path: path.clone(),
            id: stored.id.map(Box::from),
            time: stored.time,
            received: stored.received,
            flags: Flags::from_stored(stored.flags),
            data: stored.data.into(),
        })
    }

    /// What a record refers to, if its checksum is right.
    fn resolve(&self, stored: &StoredRecord<'_>) -> Option<(&DeviceId, &Arc<str>, &Arc<DevicePath>)> {
        let (device, serial) = self.devices.get(&stored.device)?;
        let path = self.paths.get(&stored.path)?;
        let columns = Columns {
            position: stored.position,
            device: device.as_bytes(),
            serial,
            path: checksum::levels(path),
            kind: stored.kind,
            id: stored.id,
            time: stored.time,
            received: stored.received,
            flags: stored.flags,
            data: stored.data,
        };
        (i64::from(columns.sum()) == stored.sum).then_some((device, serial, path))
    }
}
