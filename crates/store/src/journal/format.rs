//! The format of a segment file.
//!
//! `device`, `path`: what many records share, numbered within the segment. A device whose serial changes gets a second row.
//! Both are kept twice, so that no one page takes the records of other pages with it. `mark`: one row, the first position
//! the segment could hold, the next one to be stored, how many records there are, and how long the journal had run when
//! the last was stored. `entry` is what is read. `sum` is a
//! [checksum](super::checksum) over the other columns of a row and, in a record, what they refer to.
//!
//! The tables are made in this order in a file that is new, and the first page of each follows the one before.

/// The `user_version` of the file. The data directory's `VERSION` rises with it.
pub(super) const FORMAT: u32 = 2;

/// A table, view or index: its kind and name, and the statement as the database keeps it.
pub(super) struct Item {
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// What a new file has. The tables first, in the order of their pages.
pub(super) const TABLES: [Item; 7] = [
    Item {
        kind: "table",
        name: "device",
        sql: "CREATE TABLE device (number INTEGER PRIMARY KEY, id BLOB NOT NULL, serial TEXT NOT NULL, sum INTEGER NOT NULL)",
    },
    Item {
        kind: "table",
        name: "path",
        sql: "CREATE TABLE path (number INTEGER PRIMARY KEY, resource TEXT NOT NULL, idx TEXT NOT NULL, area TEXT NOT NULL, \
              name TEXT NOT NULL, sum INTEGER NOT NULL)",
    },
    Item {
        kind: "table",
        name: "device_copy",
        sql: "CREATE TABLE device_copy (number INTEGER PRIMARY KEY, id BLOB NOT NULL, serial TEXT NOT NULL, \
              sum INTEGER NOT NULL)",
    },
    Item {
        kind: "table",
        name: "path_copy",
        sql: "CREATE TABLE path_copy (number INTEGER PRIMARY KEY, resource TEXT NOT NULL, idx TEXT NOT NULL, \
              area TEXT NOT NULL, name TEXT NOT NULL, sum INTEGER NOT NULL)",
    },
    Item {
        kind: "table",
        name: "record",
        sql: "CREATE TABLE record (position INTEGER PRIMARY KEY, device INTEGER NOT NULL, path INTEGER NOT NULL, \
              kind INTEGER NOT NULL, event_id TEXT, time INTEGER NOT NULL, received INTEGER NOT NULL, \
              flags INTEGER NOT NULL, data TEXT NOT NULL, sum INTEGER NOT NULL)",
    },
    Item {
        kind: "table",
        name: "mark",
        sql: "CREATE TABLE mark (base INTEGER NOT NULL, next INTEGER NOT NULL, rows INTEGER NOT NULL, ran INTEGER NOT NULL, \
              sum INTEGER NOT NULL)",
    },
    Item {
        kind: "view",
        name: "entry",
        sql: "CREATE VIEW entry AS SELECT record.position, record.device AS device_number, device.id AS device, \
              device.serial, record.kind, path.resource, path.idx, path.area, path.name, record.event_id, record.time, \
              record.received, record.flags, record.data, record.sum FROM record \
              CROSS JOIN device ON device.number = record.device CROSS JOIN path ON path.number = record.path",
    },
];

/// What a segment gets when it ends, in one sorted pass over its records.
pub(super) const INDEXES: [&str; 5] = [
    "CREATE INDEX IF NOT EXISTS device_id ON device (id)",
    "CREATE INDEX IF NOT EXISTS record_device ON record (device, position, time)",
    "CREATE INDEX IF NOT EXISTS record_identity ON record (event_id, device) WHERE event_id IS NOT NULL",
    // What an attribute was at a moment of the past; 2 is the kind of attributes.
    "CREATE INDEX IF NOT EXISTS record_report ON record (device, path, position) WHERE kind = 2",
    "CREATE INDEX IF NOT EXISTS path_levels ON path (name, area, resource, idx)",
];

/// The page on which the tree of a table begins.
pub(super) mod root {
    pub(crate) const DEVICE: u32 = 2;
    pub(crate) const PATH: u32 = 3;
    pub(crate) const DEVICE_COPY: u32 = 4;
    pub(crate) const PATH_COPY: u32 = 5;
    pub(crate) const RECORD: u32 = 6;
    pub(crate) const MARK: u32 = 7;
}
