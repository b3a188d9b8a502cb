//! The segment that is written to: its file format, its transactions, its end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments as _, ConnectOptions as _, Connection as _, Executor as _};

use super::checksum::Columns;
use super::filter::{self, Filter};
use super::live::Live;
use super::segment::{Bounds, Segment};
use super::segments::SegmentReader;
use crate::directory::sync_entry;
use crate::{DeviceId, DevicePath, OpenError, Record};

/// The format of a segment file, its `user_version`. 0 is a file whose creation was interrupted.
const FORMAT: i64 = 2;

/// `device`, `path`: what many records share, numbered within the segment. A device whose serial changes gets a second row. `mark`: one row, the first position the segment
/// could hold and the next one to be stored. `sealed`: one row once nothing more will be written. `entry` is what is read; `sum` is the
/// [checksum](Columns::sum) of a record.
const SCHEMA: &str = "
BEGIN IMMEDIATE;
CREATE TABLE device (
    number   INTEGER PRIMARY KEY,
    id       BLOB    NOT NULL,
    serial   TEXT    NOT NULL
);
CREATE TABLE path (
    number   INTEGER PRIMARY KEY,
    resource TEXT    NOT NULL,
    idx      TEXT    NOT NULL,
    area     TEXT    NOT NULL,
    name     TEXT    NOT NULL
);
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    device   INTEGER NOT NULL REFERENCES device (number),
    path     INTEGER NOT NULL REFERENCES path (number),
    kind     INTEGER NOT NULL,
    event_id TEXT,
    time     INTEGER NOT NULL,
    received INTEGER NOT NULL,
    flags    INTEGER NOT NULL,
    data     TEXT    NOT NULL,
    sum      INTEGER NOT NULL
);
CREATE VIEW entry AS
    SELECT record.position, record.device AS device_number, device.id AS device, device.serial, record.kind,
           path.resource, path.idx, path.area, path.name, record.event_id, record.time, record.received,
           record.flags, record.data, record.sum
    FROM record
    CROSS JOIN device ON device.number = record.device
    CROSS JOIN path ON path.number = record.path;
CREATE TABLE mark (base INTEGER NOT NULL, next INTEGER NOT NULL);
CREATE TABLE sealed (
    rows     INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    received INTEGER NOT NULL,
    filter   BLOB    NOT NULL
);
PRAGMA user_version = 2;
";

/// What a segment gets when it ends, in one sorted pass over its records.
const INDEXES: &str = "
CREATE INDEX device_id ON device (id);
CREATE INDEX record_device ON record (device, position, time);
CREATE INDEX record_identity ON record (event_id, device) WHERE event_id IS NOT NULL;
";

/// Paths whose numbers are remembered. Beyond, a path may get a second number, which costs nothing but a row.
const PATHS: usize = 65_536;

/// A segment file that was found.
pub(super) enum Opened {
    /// Still to be written to, or to be sealed.
    Active(Active),
    /// Sealed, with the filter over its events and the position to go on from.
    Sealed(Arc<Segment>, Filter, i64),
    /// A file whose creation was interrupted; it holds nothing.
    Unborn,
}

/// The one who writes to a segment.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    connection: SqliteConnection,
    pub(super) bounds: Bounds,
    /// The next position to be stored.
    pub(super) next: i64,
    devices: i64,
    paths: HashMap<Arc<DevicePath>, i64>,
    next_path: i64,
}

impl Active {
    /// Makes a new segment file that begins at `base`.
    pub(super) async fn create(path: PathBuf, day: i64, base: i64) -> Result<Active, sqlx::Error> {
        let mut connection = connect(&path, true).await?;
        connection.execute(SCHEMA).await?;
        sqlx::query("INSERT INTO mark (base, next) VALUES ($1, $1)").bind(base).execute(&mut connection).await?;
        connection.execute("COMMIT").await?;
        sync_entry(&path)?;
        let segment = Segment::new(path, day, base);
        segment.measure();
        *segment.live.write() = Some(Live::default());
        Ok(Active {
            segment: Arc::new(segment),
            connection,
            bounds: Bounds::EMPTY,
            next: base,
            devices: 0,
            paths: HashMap::new(),
            next_path: 1,
        })
    }

    /// Opens an existing segment file; `known` is its segment when readers have it already.
    pub(super) async fn open(path: PathBuf, day: i64, known: Option<Arc<Segment>>) -> Result<Opened, OpenError> {
        let failed = |error| OpenError::Segment { path: path.clone(), source: Box::new(error) };
        let mut connection = connect(&path, false).await.map_err(failed)?;
        let (format,): (i64,) =
            sqlx::query_as("PRAGMA user_version").fetch_one(&mut connection).await.map_err(failed)?;
        match format {
            0 => return Ok(Opened::Unborn),
            FORMAT => {}
            found => {
                let what = format!("the journal segment {}", path.display());
                return Err(OpenError::Newer { what, found, known: FORMAT });
            }
        }
        Self::load(connection, &path, day, known).await.map_err(failed)
    }

    async fn load(
        mut connection: SqliteConnection,
        path: &Path,
        day: i64,
        known: Option<Arc<Segment>>,
    ) -> Result<Opened, sqlx::Error> {
        if known.is_some() {
            // After an error the log may hold frames that never reached the disk although the file system shows them.
            if !settle(&mut connection).await? {
                return Err(sqlx::Error::Protocol("the log of the segment is in use".into()));
            }
        } else {
            sync_log(path)?;
        }
        let (base, next): (i64, i64) = sqlx::query_as("SELECT base, next FROM mark").fetch_one(&mut connection).await?;
        let segment = known.unwrap_or_else(|| Arc::new(Segment::new(path.to_owned(), day, base)));
        let sealed: Option<(i64, i64, i64, i64, Vec<u8>)> =
            sqlx::query_as("SELECT rows, min_time, max_time, received, filter FROM sealed")
                .fetch_optional(&mut connection)
                .await?;
        if let Some((rows, min_time, max_time, received, filter)) = sealed {
            let filter =
                Filter::from_stored(filter).ok_or_else(|| sqlx::Error::Protocol("the filter is damaged".into()))?;
            // A crash may have come between the seal and the end of the log.
            settle(&mut connection).await?;
            connection.close().await?;
            // Already set when readers know the segment.
            let _ = segment.bounds.set(Bounds { rows, min_time, max_time, received });
            *segment.live.write() = None;
            segment.measure();
            return Ok(Opened::Sealed(segment, filter, next));
        }
        let (rows, min_time, max_time, received): (i64, Option<i64>, Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT count(*), min(time), max(time), max(received) FROM record")
                .fetch_one(&mut connection)
                .await?;
        let bounds = Bounds {
            rows,
            min_time: min_time.unwrap_or(Bounds::EMPTY.min_time),
            max_time: max_time.unwrap_or(Bounds::EMPTY.max_time),
            received: received.unwrap_or(Bounds::EMPTY.received),
        };
        let live = load_live(&mut connection).await?;
        let (next_path,): (i64,) =
            sqlx::query_as("SELECT coalesce(max(number), 0) + 1 FROM path").fetch_one(&mut connection).await?;
        let (devices,): (i64,) =
            sqlx::query_as("SELECT coalesce(max(number), 0) FROM device").fetch_one(&mut connection).await?;
        *segment.live.write() = Some(live);
        segment.measure();
        Ok(Opened::Active(Active { segment, connection, bounds, next, devices, paths: HashMap::new(), next_path }))
    }

    /// Whether the record at this position is the same event of the same device.
    pub(super) async fn holds(&mut self, position: i64, record: &Record) -> Result<bool, sqlx::Error> {
        let found = sqlx::query("SELECT 1 FROM entry WHERE position = $1 AND device = $2 AND event_id = $3")
            .bind(position)
            .bind(record.device.as_bytes().as_slice())
            .bind(record.id.as_deref())
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(found.is_some())
    }

    /// The positions from this one on that have a record.
    pub(super) async fn positions(&mut self, from: i64) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar("SELECT position FROM record WHERE position >= $1 ORDER BY position")
            .bind(from)
            .fetch_all(&mut self.connection)
            .await
    }

    /// Stores records in one transaction together with the mark `next`.
    ///
    /// After an error the value must not be used again: what the file holds is not known before it is opened anew.
    pub(super) async fn store(&mut self, records: &[&Arc<Record>], next: i64) -> Result<(), sqlx::Error> {
        self.connection.execute("BEGIN IMMEDIATE").await?;
        let mut fresh = HashMap::new();
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let device = self.device(&mut fresh, record).await?;
            let path = self.path(&record.path).await?;
            rows.push(NumberedRecord { record, device, path });
        }
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let insert = INSERTS.iter().find(|insert| insert.rows <= rest.len()).unwrap_or(&INSERTS[2]);
            let (now, later) = rest.split_at(insert.rows);
            sqlx::query_with(insert.sql.as_str(), arguments(now)).execute(&mut self.connection).await?;
            rest = later;
        }
        sqlx::query("UPDATE mark SET next = $1").bind(next).execute(&mut self.connection).await?;
        self.connection.execute("COMMIT").await?;
        self.next = next;
        records.iter().for_each(|record| self.bounds.include(record));
        self.note(fresh, records);
        self.segment.measure();
        Ok(())
    }

    /// Remembers what was committed.
    fn note(&self, fresh: HashMap<(DeviceId, Arc<str>), i64>, records: &[&Arc<Record>]) {
        let mut live = self.segment.live.write();
        let live = live.get_or_insert_default();
        // In the order of their numbers: the newest serial of a device counts.
        let mut fresh: Vec<_> = fresh.into_iter().collect();
        fresh.sort_unstable_by_key(|(_, number)| *number);
        for ((device, serial), number) in fresh {
            live.add_device(device, serial, number);
        }
        for record in records {
            let key = record.id.as_ref().map(|id| filter::key(&record.device, id));
            live.add(&record.device, record.position.get(), key);
        }
    }

    /// The number of the record's device, given now when it has none.
    async fn device(
        &mut self,
        fresh: &mut HashMap<(DeviceId, Arc<str>), i64>,
        record: &Record,
    ) -> Result<i64, sqlx::Error> {
        let known = self.segment.live.read().as_ref().and_then(|live| live.number(&record.device, &record.serial));
        if let Some(number) = known {
            return Ok(number);
        }
        let key = (record.device, record.serial.clone());
        if let Some(number) = fresh.get(&key) {
            return Ok(*number);
        }
        self.devices += 1;
        sqlx::query("INSERT INTO device (number, id, serial) VALUES ($1, $2, $3)")
            .bind(self.devices)
            .bind(record.device.as_bytes().as_slice())
            .bind(&*record.serial)
            .execute(&mut self.connection)
            .await?;
        fresh.insert(key, self.devices);
        Ok(self.devices)
    }

    /// The number of a path, given now when none is remembered.
    async fn path(&mut self, path: &Arc<DevicePath>) -> Result<i64, sqlx::Error> {
        if let Some(number) = self.paths.get(path) {
            return Ok(*number);
        }
        let number = self.next_path;
        sqlx::query("INSERT INTO path (number, resource, idx, area, name) VALUES ($1, $2, $3, $4, $5)")
            .bind(number)
            .bind(&*path.resource)
            .bind(&*path.index)
            .bind(&*path.area)
            .bind(&*path.name)
            .execute(&mut self.connection)
            .await?;
        self.next_path += 1;
        if self.paths.len() >= PATHS {
            self.paths.clear();
        }
        self.paths.insert(path.clone(), number);
        Ok(number)
    }

    /// Seals the segment: indexes and filter in one transaction, then the log into the file. Safe to repeat after an error,
    /// by opening it anew.
    pub(super) async fn seal(mut self, reader: SegmentReader) -> Result<(Arc<Segment>, Filter), sqlx::Error> {
        let keys = self.segment.live.read().as_ref().map(Live::keys).unwrap_or_default();
        let filter = Filter::over(&keys);
        drop(keys);
        let bounds = self.bounds;
        self.connection.execute("BEGIN IMMEDIATE").await?;
        self.connection.execute(INDEXES).await?;
        sqlx::query("INSERT INTO sealed (rows, min_time, max_time, received, filter) VALUES ($1, $2, $3, $4, $5)")
            .bind(bounds.rows)
            .bind(bounds.min_time)
            .bind(bounds.max_time)
            .bind(bounds.received)
            .bind(filter.as_bytes())
            .execute(&mut self.connection)
            .await?;
        self.connection.execute("COMMIT").await?;
        settle(&mut self.connection).await?;
        self.segment.measure();
        *self.segment.live.write() = None;
        // The last one to close takes the log away.
        reader.reopen(&self.segment).await;
        self.connection.close().await?;
        self.segment.measure();
        Ok((self.segment, filter))
    }

    /// Ends this process's writing; the segment goes on after a restart.
    pub(super) async fn close(mut self) -> Result<(), sqlx::Error> {
        settle(&mut self.connection).await?;
        self.connection.close().await
    }
}

/// Brings the log into the file as far as readers allow, synced; true: all of it.
async fn settle(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let (busy, ..): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await?;
    Ok(busy == 0)
}

/// Makes durable what a process that was killed had written to the log and not synced yet: it is read, so it must stay.
fn sync_log(path: &Path) -> std::io::Result<()> {
    let [_, log, _] = Segment::files(path);
    match std::fs::File::open(log) {
        Ok(log) => log.sync_data(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

async fn connect(path: &Path, create: bool) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .page_size(4_096)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // Only a long scan can be in the way, of a checkpoint, and that one may come later.
        .busy_timeout(Duration::from_millis(250))
        // Numbers are given by the one writer, there is nothing to check.
        .foreign_keys(false)
        .pragma("cache_size", "-16384")
        .pragma("wal_autocheckpoint", "4000")
        // Sorting for the indexes must not depend on a writable directory elsewhere.
        .pragma("temp_store", "memory")
        .disable_statement_logging()
        .connect()
        .await
}

/// Makes the index in memory from the file.
async fn load_live(connection: &mut SqliteConnection) -> Result<Live, sqlx::Error> {
    const PAGE: i64 = 10_000;
    let mut live = Live::default();
    let mut ids = HashMap::new();
    let rows: Vec<(i64, Vec<u8>, String)> =
        sqlx::query_as("SELECT number, id, serial FROM device ORDER BY number").fetch_all(&mut *connection).await?;
    for (number, id, serial) in rows {
        let id = DeviceId::from_stored(&id).ok_or_else(|| sqlx::Error::Protocol("a device id is damaged".into()))?;
        live.add_device(id, serial.into(), number);
        ids.insert(number, id);
    }
    let mut after = 0;
    loop {
        let rows: Vec<(i64, i64, Option<String>)> = sqlx::query_as(
            "SELECT position, device, event_id FROM record WHERE position > $1 ORDER BY position LIMIT $2",
        )
        .bind(after)
        .bind(PAGE)
        .fetch_all(&mut *connection)
        .await?;
        for (position, device, event) in &rows {
            if let Some(device) = ids.get(device) {
                live.add(device, *position, event.as_ref().map(|event| filter::key(device, event)));
            }
        }
        match rows.last() {
            Some((last, ..)) if rows.len() as i64 == PAGE => after = *last,
            _ => return Ok(live),
        }
    }
}

/// A record with what the segment calls its device and path.
struct NumberedRecord<'a> {
    record: &'a Record,
    device: i64,
    path: i64,
}

/// A statement that stores a fixed number of rows, so that it is prepared once.
struct Insert {
    rows: usize,
    sql: String,
}

/// Largest first.
static INSERTS: LazyLock<[Insert; 3]> = LazyLock::new(|| {
    [100, 10, 1].map(|rows| {
        let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; rows].join(", ");
        let sql = format!(
            "INSERT INTO record (position, device, path, kind, event_id, time, received, flags, data, sum) \
             VALUES {values}"
        );
        Insert { rows, sql }
    })
});

fn arguments(rows: &[NumberedRecord<'_>]) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(rows.len() * 10, 0);
    for NumberedRecord { record, device, path } in rows {
        let added = (|| {
            arguments.add(record.position.get())?;
            arguments.add(*device)?;
            arguments.add(*path)?;
            arguments.add(record.kind.stored())?;
            arguments.add(record.id.as_deref())?;
            arguments.add(record.time)?;
            arguments.add(record.received)?;
            arguments.add(record.flags.stored())?;
            arguments.add(&*record.data)?;
            arguments.add(i64::from(Columns::of(record).sum()))
        })();
        added.expect("numbers and text always encode");
    }
    arguments
}
