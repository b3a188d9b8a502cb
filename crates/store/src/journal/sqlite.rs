//! The writing side of the journal on SQLite: which segment a record goes to, when one ends and when one goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use metrics::gauge;

use super::filter::{self, Filter};
use super::segment::{Active, Opened, Segment};
use super::segments::SegmentReader;
use super::writer::{CommitError, Committed};
use crate::directory::create_dir;
use crate::{OpenError, Position, Record, StoreConfig};

/// Memory for the filters of sealed segments. 256 MiB recognise repetitions among the newest 134 million events; the
/// filters of older segments are dropped.
const FILTER_BYTES: usize = 256 << 20;
const DAY_MS: i64 = 86_400_000;

/// Writes segment files in one directory.
pub(super) struct SegmentWriter {
    dir: PathBuf,
    segment_rows: i64,
    max_bytes: u64,
    retention_ms: i64,
    reader: SegmentReader,
    /// The filters over sealed segments, oldest first.
    filters: Vec<(Arc<Segment>, Filter)>,
    /// The segment to write to; None before the first record and after an error.
    active: Option<Active>,
    /// The newest segment as long as it is not sealed, to open again after an error.
    unsealed: Option<Arc<Segment>>,
    /// The next position to be stored.
    next: i64,
}

impl SegmentWriter {
    /// Opens the journal in this directory and finishes what a crash interrupted.
    pub(super) async fn open(dir: PathBuf, config: &StoreConfig) -> Result<SegmentWriter, OpenError> {
        create_dir(&dir)?;
        let max_bytes = match config.max_bytes {
            Some(bytes) => bytes,
            None => default_cap(&dir)?,
        };
        let mut actives = Vec::new();
        let mut sealed = Vec::new();
        for (path, day) in segment_files(&dir)? {
            match Active::open(path.clone(), day, None).await? {
                Opened::Active(active) => actives.push(active),
                Opened::Sealed(segment, filter, next) => sealed.push((segment, filter, next)),
                Opened::Unborn => {
                    for path in [path.clone(), suffixed(&path, "-wal"), suffixed(&path, "-shm")] {
                        match std::fs::remove_file(&path) {
                            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                                return Err(OpenError::Io { action: "remove", path, source });
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        actives.sort_by_key(|active| active.segment.base);
        let next =
            actives.iter().map(|active| active.next).chain(sealed.iter().map(|(_, _, next)| *next)).max().unwrap_or(1);
        let mut writer = SegmentWriter {
            dir,
            segment_rows: i64::try_from(config.segment_rows.max(1)).unwrap_or(i64::MAX),
            max_bytes,
            retention_ms: i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX),
            reader: SegmentReader::new(
                sealed
                    .iter()
                    .map(|(segment, ..)| segment)
                    .chain(actives.iter().map(|active| &active.segment))
                    .cloned()
                    .collect(),
            ),
            filters: sealed.into_iter().map(|(segment, filter, _)| (segment, filter)).collect(),
            active: None,
            unsealed: None,
            next,
        };
        let newest = actives.pop();
        for active in actives {
            let path = active.segment.path.clone();
            let sealed = active.seal().await.map_err(|error| OpenError::Segment { path, source: Box::new(error) })?;
            writer.filters.push(sealed);
        }
        writer.filters.sort_by_key(|(segment, _)| segment.base);
        writer.trim_filters();
        if let Some(active) = newest {
            writer.unsealed = Some(active.segment.clone());
            writer.active = Some(active);
        }
        Ok(writer)
    }

    /// Who reads what this writes.
    pub(super) fn reader(&self) -> SegmentReader {
        self.reader.clone()
    }

    /// The last position that was ever stored.
    pub(super) fn last(&self) -> Position {
        Position::new(self.next - 1)
    }

    /// Commits the beginning of a batch: as much of it as belongs into one segment.
    pub(super) async fn commit(&mut self, batch: &[Arc<Record>], now: i64) -> Result<Committed, CommitError> {
        let Some(first) = batch.first() else {
            return Ok(Committed::default());
        };
        if self.reader.bytes() >= self.max_bytes {
            self.retain(now).await?;
            let bytes = self.reader.bytes();
            if bytes >= self.max_bytes {
                return Err(CommitError::Full { bytes, max_bytes: self.max_bytes });
            }
        }
        let mut active = self.active_for(first, now).await?;
        let room = usize::try_from(self.segment_rows - active.bounds.rows).unwrap_or(0).max(1);
        let count = batch
            .iter()
            .take(room)
            .take_while(|record| day(record.received) <= active.segment.day || record.position == first.position)
            .count();
        let batch = &batch[..count];
        let mut dropped = Vec::new();
        let mut fresh = Vec::with_capacity(count);
        for record in batch {
            if self.was_journalled(record).await {
                dropped.push(record.position);
            } else {
                fresh.push(record);
            }
        }
        // On an error the active segment is not put back: it is opened anew, which shows what the file holds.
        dropped.extend(active.store(batch, &fresh).await?.into_iter().map(Position::new));
        self.next = active.next;
        self.active = Some(active);
        self.report();
        dropped.sort_unstable();
        Ok(Committed { count, dropped })
    }

    /// Removes what is older than the retention.
    pub(super) async fn retain(&mut self, now: i64) -> Result<(), CommitError> {
        let limit = now.saturating_sub(self.retention_ms);
        if let Some(active) = self.active.take_if(|active| active.bounds.rows > 0 && active.bounds.received < limit) {
            let day = active.segment.day.max(day(now));
            self.roll(active, day).await?;
        }
        self.remove_expired(limit)?;
        self.report();
        Ok(())
    }

    /// Ends writing; what is stored is in the files without their logs.
    pub(super) async fn close(mut self) {
        self.reader.close().await;
        if let Some(active) = self.active.take()
            && let Err(error) = active.close().await
        {
            // The log is read at the next start instead.
            tracing::warn!(error = %error, "the journal's log could not be brought into its file");
        }
    }

    /// The segment this record goes to: the current one, the same opened again after an error, or a new one.
    async fn active_for(&mut self, record: &Record, now: i64) -> Result<Active, CommitError> {
        let day = day(record.received);
        if self.active.is_none()
            && let Some(segment) = self.unsealed.clone()
        {
            match Active::open(segment.path.clone(), segment.day, Some(segment.clone())).await? {
                Opened::Active(active) => self.active = Some(active),
                Opened::Sealed(segment, filter, _) => {
                    self.unsealed = None;
                    self.add_filter(segment, filter);
                }
                // The file was replaced under us.
                Opened::Unborn => return Err(CommitError::failed("the journal segment is empty")),
            }
        }
        match self.active.take() {
            Some(active) if active.bounds.rows < self.segment_rows && day <= active.segment.day => {
                return Ok(active);
            }
            Some(active) => {
                let day = day.max(active.segment.day);
                self.roll(active, day).await?;
                self.remove_expired(now.saturating_sub(self.retention_ms))?;
            }
            None => self.begin(day).await?,
        }
        self.active.take().ok_or_else(|| CommitError::failed("no journal segment could be begun"))
    }

    /// Seals a segment and begins the next one.
    async fn roll(&mut self, active: Active, day: i64) -> Result<(), CommitError> {
        let (segment, filter) = active.seal().await?;
        self.unsealed = None;
        self.add_filter(segment, filter);
        self.begin(day).await
    }

    /// Begins a new segment.
    async fn begin(&mut self, day: i64) -> Result<(), CommitError> {
        let number = self
            .reader
            .list()
            .iter()
            .filter(|segment| segment.day == day)
            .filter_map(|segment| parse_name(&segment.path).map(|(_, number)| number))
            .max()
            .map_or(1, |last| last + 1);
        let path = self.dir.join(file_name(day, number));
        if path.exists() {
            // Left over from an attempt that failed: nothing in the list has this name, so it holds nothing.
            match Active::open(path.clone(), day, None).await? {
                Opened::Unborn => std::fs::remove_file(&path)?,
                Opened::Active(active) if active.bounds.rows == 0 => {
                    active.close().await?;
                    std::fs::remove_file(&path)?;
                }
                _ => return Err(CommitError::failed("an unknown file has the name of the next journal segment")),
            }
        }
        let active = Active::create(path, day, self.next).await?;
        tracing::info!(segment = %active.segment.path.display(), base = self.next, "the journal begins a segment");
        self.reader.add(active.segment.clone());
        self.unsealed = Some(active.segment.clone());
        self.active = Some(active);
        Ok(())
    }

    /// Unlinks sealed segments whose newest record was received before `limit`. The newest segment stays: it holds the
    /// mark from which positions go on.
    fn remove_expired(&mut self, limit: i64) -> Result<(), CommitError> {
        let mut list = self.reader.list();
        list.pop();
        for segment in list {
            if segment.bounds.get().is_some_and(|bounds| bounds.received < limit) {
                segment.unlink()?;
                self.reader.remove(&segment);
                self.filters.retain(|(other, _)| !Arc::ptr_eq(other, &segment));
                tracing::info!(segment = %segment.path.display(), "the journal removed a segment after its retention");
            }
        }
        Ok(())
    }

    /// Whether an earlier segment holds the event already.
    async fn was_journalled(&self, record: &Record) -> bool {
        let Some(id) = &record.id else { return false };
        let key = filter::key(&record.device, id);
        for (segment, filter) in self.filters.iter().rev() {
            if !filter.may_contain(key) {
                continue;
            }
            match self.reader.contains(segment, record).await {
                Ok(true) => return true,
                Ok(false) => {}
                // One damaged old file must not stop the journal: at worst the event is there twice.
                Err(error) => {
                    tracing::warn!(segment = %segment.path.display(), %error, "a journal segment cannot be probed");
                }
            }
        }
        false
    }

    fn add_filter(&mut self, segment: Arc<Segment>, filter: Filter) {
        self.filters.push((segment, filter));
        self.trim_filters();
    }

    fn trim_filters(&mut self) {
        let mut bytes = 0;
        let kept = self
            .filters
            .iter()
            .rev()
            .take_while(|(_, filter)| {
                bytes += filter.as_bytes().len();
                bytes <= FILTER_BYTES
            })
            .count();
        self.filters.drain(..self.filters.len() - kept);
    }

    fn report(&self) {
        gauge!("vestibule_journal_segments").set(self.reader.list().len() as f64);
        gauge!("vestibule_journal_segment_bytes").set(self.reader.bytes() as f64);
    }
}

/// The UTC day of a time, counted from 1970.
fn day(ms: i64) -> i64 {
    ms.div_euclid(DAY_MS)
}

/// `2026-01-31-1.db`.
fn file_name(day: i64, number: u64) -> String {
    let date = Timestamp::from_millisecond(day.saturating_mul(DAY_MS))
        .map(|time| time.strftime("%Y-%m-%d").to_string())
        // A day no calendar has: the device of a test or a broken clock.
        .unwrap_or_else(|_| format!("day{day}"));
    format!("{date}-{number}.db")
}

/// The day and number of a segment file's name; None for any other file.
fn parse_name(path: &Path) -> Option<(i64, u64)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".db")?;
    let (date, number) = stem.rsplit_once('-')?;
    let number = number.parse().ok()?;
    let day = match date.strip_prefix("day") {
        Some(day) => day.parse().ok()?,
        None => {
            let date: jiff::civil::Date = date.parse().ok()?;
            let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
            day(start.as_millisecond())
        }
    };
    Some((day, number))
}

fn segment_files(dir: &Path) -> Result<Vec<(PathBuf, i64)>, OpenError> {
    let list = || -> std::io::Result<Vec<(PathBuf, i64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if let Some((day, _)) = parse_name(&path) {
                files.push((path, day));
            }
        }
        Ok(files)
    };
    list().map_err(|source| OpenError::Io { action: "list", path: dir.to_owned(), source })
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// 80 % of the volume.
fn default_cap(dir: &Path) -> Result<u64, OpenError> {
    let volume = rustix::fs::statvfs(dir).map_err(|error| OpenError::Io {
        action: "measure the volume of",
        path: dir.to_owned(),
        source: error.into(),
    })?;
    Ok((volume.f_blocks.saturating_mul(volume.f_frsize) / 10).saturating_mul(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_day_and_number() {
        assert_eq!(file_name(0, 1), "1970-01-01-1.db");
        for (day, number) in [(0, 1), (20_778, 12), (-1, 3), (i64::MAX / DAY_MS, 1)] {
            assert_eq!(parse_name(Path::new(&file_name(day, number))), Some((day, number)));
        }
        for other in ["control.db", "2026-01-31-1.db-wal", "2026-01-31.db", "2026-13-01-1.db"] {
            assert_eq!(parse_name(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(day(DAY_MS - 1), 0);
        assert_eq!(day(DAY_MS), 1);
        assert_eq!(day(-1), -1);
    }
}
