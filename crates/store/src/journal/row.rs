//! A record as a row of a segment.

use std::sync::Arc;

use sqlx::{QueryBuilder, Sqlite};

use super::checksum::Columns;
use crate::scan::MAX_SCAN;
use crate::{DeviceId, DevicePath, Flags, Order, Position, Record, RecordKind, Scan, StoreError};

/// The columns of a record, in the order of [`Row`].
pub(super) const COLUMNS: &str =
    "position, device, serial, kind, resource, idx, area, name, event_id, time, received, flags, data, sum";

/// What is read from: the view `entry`, and with it the number of the path.
const ENTRY: &str = "(SELECT record.position, record.device AS device_number, record.path AS path_number, device.id AS device, \
                     device.serial, record.kind, path.resource, path.idx, path.area, path.name, record.event_id, record.time, \
                     record.received, record.flags, record.data, record.sum FROM record \
                     CROSS JOIN device ON device.number = record.device CROSS JOIN path ON path.number = record.path)";

/// A record as it is read.
pub(super) type Row =
    (i64, Vec<u8>, String, i16, String, String, String, String, Option<String>, i64, i64, i16, String, i64);

/// What the row says, if it is what was written.
pub(super) fn record(row: Row) -> Result<Arc<Record>, StoreError> {
    let (position, device, serial, kind, resource, index, area, name, id, time, received, flags, data, sum) = row;
    let record = Record {
        position: Position::new(position),
        device: DeviceId::from_stored(&device).ok_or(StoreError::Corrupt("device id"))?,
        serial: serial.into(),
        kind: RecordKind::from_stored(kind).ok_or(StoreError::Corrupt("record kind"))?,
        path: Arc::new(DevicePath {
            resource: resource.into(),
            index: index.into(),
            area: area.into(),
            name: name.into(),
        }),
        id: id.map(String::into_boxed_str),
        time,
        received,
        flags: Flags::from_stored(flags),
        data: data.into(),
    };
    if i64::from(Columns::of(&record).sum()) != sum {
        return Err(StoreError::Corrupt("journal record"));
    }
    Ok(Arc::new(record))
}

/// The query of a scan up to its conditions; [`finish`] ends it. With `indexed` the segment finds a device by itself,
/// otherwise the caller adds where its records are.
pub(super) fn select(scan: &Scan, indexed: bool) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(format!("SELECT {COLUMNS} FROM {ENTRY} WHERE position > "));
    query.push_bind(scan.after.get());
    if let Some(before) = scan.before {
        query.push(" AND position < ").push_bind(before.get());
    }
    if let Some(device) = scan.device.filter(|_| indexed) {
        // By the device's numbers in the segment, which is what the index has.
        query.push(" AND device_number IN (SELECT number FROM device WHERE id = ");
        query.push_bind(device.as_bytes().to_vec()).push(")");
    }
    if let Some(kind) = scan.kind {
        query.push(" AND kind IN (").push_bind(kind.stored());
        if scan.amendments && kind == RecordKind::Event {
            query.push(", ").push_bind(RecordKind::Amendment.stored());
        }
        query.push(")");
    }
    let levels = [("resource", &scan.resource), ("idx", &scan.index), ("area", &scan.area), ("name", &scan.name)];
    if levels.iter().any(|(_, value)| value.is_some()) {
        // Found once, by number, in place of once for each record: a segment has few of them.
        query.push(" AND path_number IN (SELECT number FROM path WHERE TRUE");
        for (column, value) in levels {
            if let Some(value) = value {
                // No stored text has U+0000 (see `Record::make_storable`).
                query.push(format!(" AND {column} = ")).push_bind(value.replace('\0', "\u{fffd}"));
            }
        }
        query.push(")");
    }
    let bounds = [
        (" AND time >= ", scan.time_from),
        (" AND time < ", scan.time_to),
        (" AND received >= ", scan.received_from),
        (" AND received < ", scan.received_to),
    ];
    for (column, bound) in bounds {
        if let Some(bound) = bound {
            query.push(column).push_bind(bound);
        }
    }
    query
}

/// Order and limit of a scan.
pub(super) fn finish(query: &mut QueryBuilder<Sqlite>, scan: &Scan, limit: usize) {
    query.push(match scan.order {
        Order::Oldest => " ORDER BY position ASC LIMIT ",
        Order::Newest => " ORDER BY position DESC LIMIT ",
    });
    query.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
}

/// How many records the scan returns at most.
pub(super) fn limit(scan: &Scan) -> usize {
    scan.limit.min(MAX_SCAN)
}
