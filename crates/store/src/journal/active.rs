//! The segment that is written to: its transactions and its end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use metrics::histogram;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments as _, ConnectOptions as _, Connection as _, Executor as _};

use super::checksum::{self, Columns};
use super::damage::is_suspected;
use super::examine::{Contents, Examined, Place, examine, verify};
use super::filter::{self, Filter};
use super::format;
use super::live::Live;
use super::seal::{self, Found, Seal};
use super::segment::{Bounds, Segment, remove_files};
use super::segments::SegmentReader;
use super::stored::Mark;
use crate::directory::sync_entry;
use crate::{DeviceId, DevicePath, OpenError, ReadAt, Record, RecordKind};

/// How often a log is tried to be brought into its file while others read it.
const SETTLING: usize = 8;
/// Paths whose numbers are remembered. Beyond, a path may get a second number, which costs nothing but a row.
const PATHS: usize = 65_536;

/// A segment file that was found.
pub(super) enum Opened {
    /// Still to be written to, or to be sealed.
    Active(Sound),
    /// Sealed, with the filter over its events and the position to go on from.
    Sealed(Arc<Segment>, Filter, i64),
    /// Not what was written.
    Damaged(Place),
    /// A crash came between its indexes and its seal.
    HalfSealed,
}

/// What became of a segment that was to be sealed.
pub(super) enum Ended {
    /// It is sealed, with the filter over its events.
    Sealed(Arc<Segment>, Filter),
    /// It is not what was written.
    Damaged(Arc<Segment>, Place),
}

/// A segment that is as it was written and not sealed. Its files are as they were found.
pub(super) struct Sound {
    pub(super) segment: Arc<Segment>,
    pub(super) mark: Mark,
    /// Where its log stops being one, or ends.
    pub(super) log_end: u64,
    pub(super) bounds: Bounds,
    last_device: i64,
    last_path: i64,
}

impl Sound {
    /// Whether it has no record.
    pub(super) fn is_empty(&self) -> bool {
        self.bounds.rows == 0
    }

    /// The same under the name that its file has been given.
    pub(super) fn renamed(mut self, path: PathBuf) -> Sound {
        let segment = Segment::new(path, self.segment.day, self.segment.base);
        *segment.live.write() = self.segment.live.write().take();
        segment.measure();
        self.segment = Arc::new(segment);
        self
    }

    /// Opens it for writing.
    pub(super) async fn connect(self) -> Result<Box<Active>, OpenError> {
        let failed = |source| OpenError::Segment { path: self.segment.path.clone(), source: Box::new(source) };
        let connection = connect(&self.segment.path, false).await.map_err(failed)?;
        Ok(Box::new(Active {
            connection,
            bounds: self.bounds,
            next: self.mark.next,
            devices: self.last_device,
            paths: HashMap::new(),
            next_path: self.last_path + 1,
            segment: self.segment,
        }))
    }
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
    /// Makes a new segment file that begins at `base`; under its name it is whole from the beginning.
    pub(super) async fn create(path: PathBuf, day: i64, base: i64) -> Result<Active, sqlx::Error> {
        let mut unborn = path.as_os_str().to_owned();
        unborn.push("-new");
        let unborn = PathBuf::from(unborn);
        remove_files(&unborn)?;
        Active::create_at(unborn.clone(), day, base).await?.close().await?;
        std::fs::rename(&unborn, &path)?;
        sync_entry(&path)?;
        let segment = Segment::new(path, day, base);
        *segment.live.write() = Some(Live::default());
        let connection = connect(&segment.path, false).await?;
        segment.measure();
        Ok(Active::empty(segment, connection))
    }

    /// Makes a new segment file without further care for what a crash leaves of it.
    pub(super) async fn create_at(path: PathBuf, day: i64, base: i64) -> Result<Active, sqlx::Error> {
        let mut connection = connect(&path, true).await?;
        connection.execute("BEGIN IMMEDIATE").await?;
        for table in &format::TABLES {
            connection.execute(table.sql).await?;
        }
        let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", format::FORMAT));
        connection.execute(version).await?;
        let mark = Mark { base, next: base, rows: 0, ran: 0 };
        sqlx::query("INSERT INTO mark (base, next, rows, ran, sum) VALUES ($1, $1, 0, 0, $2)")
            .bind(base)
            .bind(i64::from(mark.sum()))
            .execute(&mut connection)
            .await?;
        connection.execute("COMMIT").await?;
        let segment = Segment::new(path, day, base);
        *segment.live.write() = Some(Live::default());
        Ok(Active::empty(segment, connection))
    }

    fn empty(segment: Segment, connection: SqliteConnection) -> Active {
        let next = segment.base;
        Active {
            segment: Arc::new(segment),
            connection,
            bounds: Bounds::EMPTY,
            next,
            devices: 0,
            paths: HashMap::new(),
            next_path: 1,
        }
    }

    /// Opens an existing segment file; `known` is its segment when readers have it already.
    pub(super) async fn open(
        path: PathBuf,
        day: i64,
        known: Option<Arc<Segment>>,
        read_at: &ReadAt,
    ) -> Result<Opened, OpenError> {
        let failed = |source| OpenError::Segment { path: path.clone(), source: Box::new(source) };
        let unread = |source| OpenError::Io { action: "read", path: path.clone(), source };
        match Seal::read(&path, read_at).map_err(unread)? {
            Found::Seal(seal) => {
                if let Some(place) = seal.check_length(&path).map_err(unread)? {
                    return Ok(Opened::Damaged(place));
                }
                let segment = known.unwrap_or_else(|| Arc::new(Segment::new(path.clone(), day, seal.mark.base)));
                // Already set when readers know the segment.
                let _ = segment.bounds.set(seal.bounds);
                *segment.live.write() = None;
                segment.measure();
                return Ok(Opened::Sealed(segment, seal.filter, seal.mark.next));
            }
            Found::Damaged => return Ok(Opened::Damaged(seal::BROKEN)),
            Found::Nothing => {}
        }
        if known.is_some() {
            // After an error the log may hold frames that never reached the disk although the file system shows them.
            match settle_file(&path).await {
                Ok(true) => {}
                Ok(false) => return Err(failed(sqlx::Error::Protocol("the log of the segment is in use".into()))),
                // What follows tells.
                Err(error) if is_suspected(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        } else {
            sync_log(&path).map_err(unread)?;
        }
        let examined = {
            let (path, read_at) = (path.clone(), read_at.clone());
            let examined = tokio::task::spawn_blocking(move || examine(&path, &read_at)).await;
            examined.map_err(std::io::Error::other).flatten().map_err(unread)?
        };
        let contents = match examined {
            Examined::Sound(contents) => *contents,
            Examined::Damaged(place) => return Ok(Opened::Damaged(place)),
            // In this process its rows are known to be right: it is sealed once more.
            Examined::HalfSealed(_) if known.is_none() => return Ok(Opened::HalfSealed),
            Examined::HalfSealed(contents) => *contents,
        };
        let Contents { mark, bounds, live, last_device, last_path, log_end } = contents;
        let segment = known.unwrap_or_else(|| Arc::new(Segment::new(path.clone(), day, mark.base)));
        *segment.live.write() = Some(live);
        segment.measure();
        Ok(Opened::Active(Sound { segment, mark, log_end, bounds, last_device, last_path }))
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

    /// Stores records in one transaction together with the mark: `next`, and how long the journal has run by now.
    ///
    /// After an error the value must not be used again: what the file holds is not known before it is opened anew.
    pub(super) async fn store(&mut self, records: &[&Arc<Record>], next: i64, ran: i64) -> Result<(), sqlx::Error> {
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
        let mut bounds = self.bounds;
        records.iter().for_each(|record| bounds.include(record.time, record.received));
        bounds.ran = ran;
        let mark = Mark { base: self.segment.base, next, rows: bounds.rows, ran };
        sqlx::query("UPDATE mark SET next = $1, rows = $2, ran = $3, sum = $4")
            .bind(next)
            .bind(mark.rows)
            .bind(ran)
            .bind(i64::from(mark.sum()))
            .execute(&mut self.connection)
            .await?;
        self.connection.execute("COMMIT").await?;
        self.next = next;
        self.bounds = bounds;
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
            if record.kind == RecordKind::Attribute {
                live.add_report(&record.device, &record.path, record.position.get());
            }
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
        let sum = checksum::device(self.devices, record.device.as_bytes(), &record.serial);
        for sql in [
            "INSERT INTO device (number, id, serial, sum) VALUES ($1, $2, $3, $4)",
            "INSERT INTO device_copy (number, id, serial, sum) VALUES ($1, $2, $3, $4)",
        ] {
            sqlx::query(sql)
                .bind(self.devices)
                .bind(record.device.as_bytes().as_slice())
                .bind(&*record.serial)
                .bind(i64::from(sum))
                .execute(&mut self.connection)
                .await?;
        }
        fresh.insert(key, self.devices);
        Ok(self.devices)
    }

    /// The number of a path, given now when none is remembered.
    async fn path(&mut self, path: &Arc<DevicePath>) -> Result<i64, sqlx::Error> {
        if let Some(number) = self.paths.get(path) {
            return Ok(*number);
        }
        let number = self.next_path;
        let sum = checksum::path(number, checksum::levels(path));
        for sql in [
            "INSERT INTO path (number, resource, idx, area, name, sum) VALUES ($1, $2, $3, $4, $5, $6)",
            "INSERT INTO path_copy (number, resource, idx, area, name, sum) VALUES ($1, $2, $3, $4, $5, $6)",
        ] {
            sqlx::query(sql)
                .bind(number)
                .bind(&*path.resource)
                .bind(&*path.index)
                .bind(&*path.area)
                .bind(&*path.name)
                .bind(i64::from(sum))
                .execute(&mut self.connection)
                .await?;
        }
        self.next_path += 1;
        if self.paths.len() >= PATHS {
            self.paths.clear();
        }
        self.paths.insert(path.clone(), number);
        Ok(number)
    }

    /// Seals the segment: indexes, then the log into the file, then a look at every row, then the seal beside it. Safe to
    /// repeat after an error, by opening it anew.
    pub(super) async fn seal(mut self, reader: SegmentReader, read_at: ReadAt) -> Result<Ended, OpenError> {
        let path = self.segment.path.clone();
        let failed = |source| OpenError::Segment { path: path.clone(), source: Box::new(source) };
        self.index().await.map_err(failed)?;
        let (bounds, next) = (self.bounds, self.next);
        let segment = self.segment;
        // The log can go when nobody reads it any more; whoever reads next opens the file anew.
        let mut settled = false;
        for _ in 0..SETTLING {
            reader.reopen(&segment).await;
            settled = settle(&mut self.connection).await.map_err(failed)?;
            if settled {
                break;
            }
        }
        self.connection.close().await.map_err(failed)?;
        if !settled {
            return Err(failed(sqlx::Error::Protocol("the log of the segment is in use".into())));
        }
        let keys = segment.live.read().as_ref().map(Live::keys).unwrap_or_default();
        let mark = Mark { base: segment.base, next, rows: bounds.rows, ran: bounds.ran };
        let sealed = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                let make = |source| OpenError::Io { action: "seal", path: path.clone(), source };
                let begun = Instant::now();
                // Checksums first: they are of nothing but what is found whole afterwards.
                let seal = match Seal::make(&path, mark, bounds, Filter::over(&keys), &read_at).map_err(make)? {
                    Ok(seal) => seal,
                    Err(place) => return Ok(Err(place)),
                };
                if let Err(place) = verify(&path, &read_at).map_err(make)? {
                    return Ok(Err(place));
                }
                histogram!("vestibule_journal_seal_check_seconds").record(begun.elapsed().as_secs_f64());
                seal.write(&path)?;
                Ok(Ok(seal.filter))
            })
        };
        let sealed = sealed
            .await
            .map_err(|error| OpenError::Io { action: "seal", path: path.clone(), source: std::io::Error::other(error) })
            .flatten()?;
        let filter = match sealed {
            Ok(filter) => filter,
            Err(place) => return Ok(Ended::Damaged(segment, place)),
        };
        segment.checked.store(true, Ordering::Release);
        *segment.live.write() = None;
        reader.reopen(&segment).await;
        // Whoever read it in between has made an empty log; from now on nobody looks for one.
        let [_, log, index, _] = Segment::files(&path);
        for file in [log, index] {
            if let Err(error) = std::fs::remove_file(&file)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!(%error, file = %file.display(), "an empty log stays");
            }
        }
        segment.measure();
        Ok(Ended::Sealed(segment, filter))
    }

    /// Makes the indexes of a segment that has ended.
    async fn index(&mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("BEGIN IMMEDIATE").await?;
        for index in format::INDEXES {
            self.connection.execute(index).await?;
        }
        self.connection.execute("COMMIT").await?;
        Ok(())
    }

    /// Ends the writing to a segment that may be damaged, as it is.
    pub(super) async fn abandon(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
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

/// Brings the log of a segment that nobody writes to into its file; true: all of it.
pub(super) async fn settle_file(path: &Path) -> Result<bool, sqlx::Error> {
    let mut connection = connect(path, false).await?;
    let settled = settle(&mut connection).await?;
    connection.close().await?;
    Ok(settled)
}

/// Makes durable what a process that was killed had written to the log and not synced yet: it is read, so it must stay.
fn sync_log(path: &Path) -> std::io::Result<()> {
    let [_, log, ..] = Segment::files(path);
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
