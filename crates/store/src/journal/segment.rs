//! One segment file: a SQLite database that is written until it is sealed, and then only read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments as _, ConnectOptions as _, Connection as _, Executor as _};

use super::filter::{self, Filter};
use super::row::COLUMNS;
use crate::db::BUSY;
use crate::{OpenError, Record};

/// The format of a segment file, its `user_version`. 0 is a file whose creation was interrupted.
const FORMAT: i64 = 1;

/// `mark`: one row, the first position the segment could hold and the next one to be stored.
/// `sealed`: one row once nothing more will be written.
const SCHEMA: &str = "
BEGIN IMMEDIATE;
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    device   BLOB    NOT NULL,
    serial   TEXT    NOT NULL,
    kind     INTEGER NOT NULL,
    resource TEXT    NOT NULL,
    idx      TEXT    NOT NULL,
    area     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    event_id TEXT,
    time     INTEGER NOT NULL,
    received INTEGER NOT NULL,
    flags    INTEGER NOT NULL,
    data     TEXT    NOT NULL
);
CREATE UNIQUE INDEX record_identity ON record (device, event_id) WHERE event_id IS NOT NULL;
CREATE INDEX record_device ON record (device, position, time);
CREATE TABLE mark (base INTEGER NOT NULL, next INTEGER NOT NULL);
CREATE TABLE sealed (
    rows     INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    received INTEGER NOT NULL,
    filter   BLOB    NOT NULL
);
PRAGMA user_version = 1;
";

/// What is true of every record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) rows: i64,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    /// The newest time of receipt; `i64::MIN` for a segment without a record.
    pub(super) received: i64,
}

impl Bounds {
    const EMPTY: Bounds =
        Bounds { rows: 0, first: i64::MAX, last: i64::MIN, min_time: i64::MAX, max_time: i64::MIN, received: i64::MIN };

    fn include(&mut self, record: &Record) {
        let position = record.position.get();
        self.rows += 1;
        self.first = self.first.min(position);
        self.last = self.last.max(position);
        self.min_time = self.min_time.min(record.time);
        self.max_time = self.max_time.max(record.time);
        self.received = self.received.max(record.received);
    }
}

/// A segment as readers see it.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The UTC day in its name, counted from 1970.
    pub(super) day: i64,
    /// No record before this position is in it.
    pub(super) base: i64,
    /// Set when it is sealed.
    pub(super) bounds: OnceLock<Bounds>,
    /// What it takes on the volume, as last looked at.
    pub(super) bytes: AtomicU64,
    /// Set before its file goes.
    pub(super) removed: AtomicBool,
}

impl Segment {
    /// Looks at its files and remembers their size.
    pub(super) fn measure(&self) -> u64 {
        let bytes = [&self.path, &wal(&self.path)]
            .into_iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|metadata| metadata.len())
            .sum();
        self.bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Removes its files. Who has them open still reads them.
    pub(super) fn unlink(&self) -> std::io::Result<()> {
        self.removed.store(true, Ordering::Release);
        for path in [&self.path, &wal(&self.path), &with_suffix(&self.path, "-shm")] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// How a reader opens it. A sealed one whose log is empty never changes: no locks, no side files.
    pub(super) fn read_options(&self) -> SqliteConnectOptions {
        let settled = self.bounds.get().is_some()
            && std::fs::metadata(wal(&self.path)).map_or(true, |metadata| metadata.len() == 0);
        SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .immutable(settled)
            .busy_timeout(BUSY)
            .pragma("cache_size", "-4096")
            .disable_statement_logging()
    }
}

fn wal(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A segment that was found or made.
pub(super) enum Opened {
    /// Still to be written to.
    Active(Active),
    /// Sealed, with the filter over its events and the position to go on from.
    Sealed(Arc<Segment>, Filter, i64),
    /// A file whose creation was interrupted; it holds nothing.
    Unborn,
}

/// The segment that is written to.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    connection: SqliteConnection,
    pub(super) bounds: Bounds,
    /// The next position to be stored.
    pub(super) next: i64,
    /// The keys of its events, for the filter.
    keys: Vec<u64>,
}

impl Active {
    /// Makes a new segment file that begins at `base`.
    pub(super) async fn create(path: PathBuf, day: i64, base: i64) -> Result<Active, sqlx::Error> {
        let mut connection = connect(&path, true).await?;
        connection.execute(SCHEMA).await?;
        sqlx::query("INSERT INTO mark (base, next) VALUES ($1, $1)").bind(base).execute(&mut connection).await?;
        connection.execute("COMMIT").await?;
        if let Some(parent) = path.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
        let segment = Segment {
            path,
            day,
            base,
            bounds: OnceLock::new(),
            bytes: AtomicU64::new(0),
            removed: AtomicBool::new(false),
        };
        segment.measure();
        Ok(Active { segment: Arc::new(segment), connection, bounds: Bounds::EMPTY, next: base, keys: Vec::new() })
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
                return Err(OpenError::Newer {
                    what: format!("the journal segment {}", path.display()),
                    found,
                    known: FORMAT,
                });
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
        type Sealed = (i64, i64, i64, i64, i64, i64, Vec<u8>);
        let (base, next): (i64, i64) = sqlx::query_as("SELECT base, next FROM mark").fetch_one(&mut connection).await?;
        let segment = known.unwrap_or_else(|| {
            Arc::new(Segment {
                path: path.to_owned(),
                day,
                base,
                bounds: OnceLock::new(),
                bytes: AtomicU64::new(0),
                removed: AtomicBool::new(false),
            })
        });
        let sealed: Option<Sealed> =
            sqlx::query_as("SELECT rows, first, last, min_time, max_time, received, filter FROM sealed")
                .fetch_optional(&mut connection)
                .await?;
        if let Some((rows, first, last, min_time, max_time, received, filter)) = sealed {
            let filter =
                Filter::from_stored(filter).ok_or_else(|| sqlx::Error::Protocol("the filter is damaged".into()))?;
            // A crash may have come between the seal and the end of the log.
            settle(&mut connection).await?;
            connection.close().await?;
            // Already set when a seal is finished a second time.
            let _ = segment.bounds.set(Bounds { rows, first, last, min_time, max_time, received });
            segment.measure();
            return Ok(Opened::Sealed(segment, filter, next));
        }
        let (rows, first, last, min_time, max_time, received): (
            i64,
            Option<i64>,
            Option<i64>,
            Option<i64>,
            Option<i64>,
            Option<i64>,
        ) = sqlx::query_as(
            "SELECT count(*), min(position), max(position), min(time), max(time), max(received) FROM record",
        )
        .fetch_one(&mut connection)
        .await?;
        let bounds = Bounds {
            rows,
            first: first.unwrap_or(Bounds::EMPTY.first),
            last: last.unwrap_or(Bounds::EMPTY.last),
            min_time: min_time.unwrap_or(Bounds::EMPTY.min_time),
            max_time: max_time.unwrap_or(Bounds::EMPTY.max_time),
            received: received.unwrap_or(Bounds::EMPTY.received),
        };
        let keys = keys(&mut connection).await?;
        segment.measure();
        Ok(Opened::Active(Active { segment, connection, bounds, next, keys }))
    }

    /// Stores records of contiguous positions in one transaction together with the mark beyond the last of `all`, and
    /// returns which of `records` were repetitions. `records` are those of `all` that are not known to be repetitions.
    ///
    /// After an error the value must not be used again: what the file holds is not known before it is opened anew.
    pub(super) async fn store(
        &mut self,
        all: &[Arc<Record>],
        records: &[&Arc<Record>],
    ) -> Result<Vec<i64>, sqlx::Error> {
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            return Ok(Vec::new());
        };
        let next = last.position.get() + 1;
        self.connection.execute("BEGIN IMMEDIATE").await?;
        let mut stored = 0;
        let mut rest = records;
        while !rest.is_empty() {
            let insert = INSERTS.iter().find(|insert| insert.rows <= rest.len()).unwrap_or(&INSERTS[INSERTS.len() - 1]);
            let (now, later) = rest.split_at(insert.rows);
            stored += sqlx::query_with(insert.sql.as_str(), arguments(now))
                .execute(&mut self.connection)
                .await?
                .rows_affected();
            rest = later;
        }
        sqlx::query("UPDATE mark SET next = $1").bind(next).execute(&mut self.connection).await?;
        let mut repetitions = Vec::new();
        if stored < records.len() as u64 {
            let present: Vec<(i64,)> =
                sqlx::query_as("SELECT position FROM record WHERE position BETWEEN $1 AND $2 ORDER BY position")
                    .bind(first.position.get())
                    .bind(last.position.get())
                    .fetch_all(&mut self.connection)
                    .await?;
            repetitions = records
                .iter()
                .map(|record| record.position.get())
                .filter(|position| present.binary_search(&(*position,)).is_err())
                .collect();
        }
        self.connection.execute("COMMIT").await?;
        self.next = next;
        for record in records {
            if repetitions.binary_search(&record.position.get()).is_err() {
                self.bounds.include(record);
                if let Some(id) = &record.id {
                    self.keys.push(filter::key(&record.device, id));
                }
            }
        }
        self.segment.measure();
        Ok(repetitions)
    }

    /// Ends the segment: nothing is written to it any more. Safe to repeat after an error, by opening it anew.
    pub(super) async fn seal(mut self) -> Result<(Arc<Segment>, Filter), sqlx::Error> {
        let filter = Filter::over(&self.keys);
        let bounds = self.bounds;
        sqlx::query(
            "INSERT INTO sealed (rows, first, last, min_time, max_time, received, filter) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(bounds.rows)
        .bind(bounds.first)
        .bind(bounds.last)
        .bind(bounds.min_time)
        .bind(bounds.max_time)
        .bind(bounds.received)
        .bind(filter.as_bytes())
        .execute(&mut self.connection)
        .await?;
        settle(&mut self.connection).await?;
        self.connection.close().await?;
        // Set once: a sealed segment is never opened for writing again.
        let _ = self.segment.bounds.set(bounds);
        self.segment.measure();
        Ok((self.segment, filter))
    }

    /// Ends this process's writing; the segment goes on after a restart.
    pub(super) async fn close(mut self) -> Result<(), sqlx::Error> {
        settle(&mut self.connection).await?;
        self.connection.close().await
    }
}

/// Brings the log into the file as far as readers allow.
async fn settle(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.map(drop)
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
        // The upper pages of both indexes stay in memory; a checkpoint every 64 MiB of log writes a page that was
        // touched many times once.
        .pragma("cache_size", "-65536")
        .pragma("wal_autocheckpoint", "16000")
        .disable_statement_logging()
        .connect()
        .await
}

/// The keys of all events of a segment.
async fn keys(connection: &mut SqliteConnection) -> Result<Vec<u64>, sqlx::Error> {
    const PAGE: usize = 10_000;
    let mut keys = Vec::new();
    let mut after = 0_i64;
    loop {
        let rows: Vec<(i64, Vec<u8>, Option<String>)> = sqlx::query_as(
            "SELECT position, device, event_id FROM record WHERE position > $1 ORDER BY position LIMIT $2",
        )
        .bind(after)
        .bind(PAGE as i64)
        .fetch_all(&mut *connection)
        .await?;
        for (_, device, id) in &rows {
            if let (Some(device), Some(id)) = (crate::DeviceId::from_stored(device), id) {
                keys.push(filter::key(&device, id));
            }
        }
        match rows.last() {
            Some((last, ..)) if rows.len() == PAGE => after = *last,
            _ => return Ok(keys),
        }
    }
}

/// A statement that stores a fixed number of rows, so that it is prepared once.
struct Insert {
    rows: usize,
    sql: String,
}

/// Largest first.
static INSERTS: LazyLock<[Insert; 3]> = LazyLock::new(|| {
    [100, 10, 1].map(|rows| {
        let row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        Insert {
            rows,
            sql: format!("INSERT INTO record ({COLUMNS}) VALUES {} ON CONFLICT DO NOTHING", vec![row; rows].join(", ")),
        }
    })
});

const COLUMN_COUNT: usize = 13;

fn arguments(records: &[&Arc<Record>]) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(records.len() * COLUMN_COUNT, 0);
    for record in records {
        let path = &record.path;
        let added = (|| {
            arguments.add(record.position.get())?;
            arguments.add(record.device.as_bytes().as_slice())?;
            arguments.add(&*record.serial)?;
            arguments.add(record.kind.stored())?;
            arguments.add(&*path.resource)?;
            arguments.add(&*path.index)?;
            arguments.add(&*path.area)?;
            arguments.add(&*path.name)?;
            arguments.add(record.id.as_deref())?;
            arguments.add(record.time)?;
            arguments.add(record.received)?;
            arguments.add(record.flags.stored())?;
            arguments.add(&*record.data)
        })();
        added.expect("numbers, text and bytes always encode");
    }
    arguments
}
