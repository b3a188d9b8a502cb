//! The writing side of the journal on SQLite: which segment a record goes to, when one ends and when one goes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use metrics::gauge;
use tokio::task::JoinHandle;

use super::active::{Active, Opened};
use super::filter::{self, Filter};
use super::segment::{Segment, remove_files};
use super::segments::SegmentReader;
use super::writer::{CommitError, Committed};
use crate::directory::create_dir;
use crate::{OpenError, Position, Record, StoreConfig};

/// Memory for the filters of sealed segments. 256 MiB recognise repetitions among the newest 134 million events; the
/// filters of older segments are dropped.
const FILTER_BYTES: usize = 256 << 20;
const DAY_MS: i64 = 86_400_000;

/// What sealing a segment gives.
type SealResult = Result<(Arc<Segment>, Filter), sqlx::Error>;

/// Writes segment files in one directory.
pub(super) struct SegmentWriter {
    dir: PathBuf,
    segment_rows: i64,
    max_bytes: u64,
    retention_ms: i64,
    reader: SegmentReader,
    /// The filters over sealed segments, oldest first.
    filters: Vec<(Arc<Segment>, Filter)>,
    /// Segments that have ended and are not sealed yet, oldest first.
    ended: Vec<Arc<Segment>>,
    /// Seals one of them.
    sealing: Option<JoinHandle<SealResult>>,
    /// The segment to write to; None before the first record and after an error.
    active: Option<Active>,
    /// The segment that is or was written to, to open again after an error.
    newest: Option<Arc<Segment>>,
    /// The day and number of the segment made last: a name is not used twice.
    named: (i64, u64),
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
        let mut filters = Vec::new();
        let mut next = 1;
        for (path, day) in segment_files(&dir)? {
            match Active::open(path.clone(), day, None).await? {
                Opened::Active(active) => {
                    next = next.max(active.next);
                    actives.push(active);
                }
                Opened::Sealed(segment, filter, after) => {
                    next = next.max(after);
                    filters.push((segment, filter));
                }
                Opened::Unborn => {
                    remove_files(&path).map_err(|source| OpenError::Io { action: "remove", path, source })?;
                }
            }
        }
        let sealed = filters.iter().map(|(segment, _)| segment);
        let segments = sealed.chain(actives.iter().map(|active| &active.segment)).cloned().collect();
        let mut writer = SegmentWriter {
            dir,
            segment_rows: i64::try_from(config.segment_rows.max(1)).unwrap_or(i64::MAX),
            max_bytes,
            retention_ms: i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX),
            reader: SegmentReader::new(segments),
            filters,
            ended: Vec::new(),
            sealing: None,
            active: None,
            newest: None,
            named: (0, 0),
            next,
        };
        writer.trim_filters();
        // All but the newest have ended, unless that one is sealed: then a crash came before the next was made.
        let last = writer.reader.list().last().map(|segment| segment.base);
        for active in actives {
            if Some(active.segment.base) == last {
                writer.newest = Some(active.segment.clone());
                writer.active = Some(active);
            } else {
                writer.end(active).await;
            }
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
        if self.collect_seal(false).await {
            self.seal_again().await;
        }
        let mut active = self.active_for(first, now).await?;
        let room = usize::try_from(self.segment_rows - active.bounds.rows).unwrap_or(0).max(1);
        let count = batch
            .iter()
            .take(room)
            .take_while(|record| day(record.received) <= active.segment.day || record.position == first.position)
            .count();
        let batch = &batch[..count];
        let (fresh, dropped) = self.separate(&mut active, batch).await?;
        let next = first.position.get() + count as i64;
        // On an error the active segment is not put back: it is opened anew, which shows what the file holds.
        active.store(&fresh, next).await?;
        self.next = next;
        self.active = Some(active);
        self.report();
        Ok(Committed { count, dropped })
    }

    /// Tells what is new from what is a repetition, of another record of the batch or of one that is journalled.
    async fn separate<'a>(
        &self,
        active: &mut Active,
        batch: &'a [Arc<Record>],
    ) -> Result<(Vec<&'a Arc<Record>>, Vec<Position>), sqlx::Error> {
        let mut fresh = Vec::with_capacity(batch.len());
        let mut dropped = Vec::new();
        let mut seen: HashMap<u64, &Record> = HashMap::with_capacity(batch.len());
        for record in batch {
            let Some(id) = &record.id else {
                fresh.push(record);
                continue;
            };
            let key = filter::key(&record.device, id);
            let twin = seen.get(&key).is_some_and(|other| other.device == record.device && other.id == record.id);
            if twin || self.was_journalled(active, key, record).await? {
                dropped.push(record.position);
            } else {
                seen.insert(key, record);
                fresh.push(record);
            }
        }
        Ok((fresh, dropped))
    }

    /// Whether the event was stored before this record.
    async fn was_journalled(&self, active: &mut Active, key: u64, record: &Record) -> Result<bool, sqlx::Error> {
        let own = record.position.get();
        let place = |segment: &Segment| segment.live.read().as_ref().and_then(|live| live.event(key));
        // At its own position it is the record itself, from a commit whose outcome was not known.
        if let Some(position) = place(&active.segment)
            && position != own
            && active.holds(position, record).await?
        {
            return Ok(true);
        }
        let ended = self.ended.iter().filter(|segment| place(segment).is_some());
        let sealed = self.filters.iter().filter(|(_, filter)| filter.may_contain(key)).map(|(segment, _)| segment);
        for segment in ended.chain(sealed.rev()) {
            match self.reader.contains(segment, key, record).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // One damaged old file must not stop the journal: at worst the event is there twice.
                Err(error) => {
                    tracing::warn!(segment = %segment.path.display(), %error, "a journal segment cannot be probed");
                }
            }
        }
        Ok(false)
    }

    /// Removes what is older than the retention.
    pub(super) async fn retain(&mut self, now: i64) -> Result<(), CommitError> {
        self.collect_seal(false).await;
        self.seal_again().await;
        let limit = now.saturating_sub(self.retention_ms);
        if let Some(active) = self.active.take_if(|active| active.bounds.rows > 0 && active.bounds.received < limit) {
            let day = active.segment.day.max(day(now));
            self.roll(active, day).await?;
        }
        self.remove_expired(limit).await?;
        self.report();
        Ok(())
    }

    /// Ends writing; what is stored is in the files without their logs.
    pub(super) async fn close(mut self) {
        self.collect_seal(true).await;
        self.reader.close().await;
        if let Some(active) = self.active.take()
            && let Err(error) = active.close().await
        {
            // The log is read at the next start instead.
            tracing::warn!(%error, "the journal's log could not be brought into its file");
        }
    }

    /// The segment this record goes to: the current one, the same opened again after an error, or a new one.
    async fn active_for(&mut self, record: &Record, now: i64) -> Result<Active, CommitError> {
        if self.active.is_none()
            && let Some(segment) = self.newest.clone()
        {
            match Active::open(segment.path.clone(), segment.day, Some(segment)).await? {
                Opened::Active(active) => self.active = Some(active),
                // Nothing seals the newest segment, and its creation was complete.
                _ => return Err(CommitError::failed("the journal segment was changed by somebody else")),
            }
        }
        let day = day(record.received);
        match self.active.take() {
            Some(active) if active.bounds.rows < self.segment_rows && day <= active.segment.day => return Ok(active),
            Some(active) => {
                let day = day.max(active.segment.day);
                self.roll(active, day).await?;
                self.remove_expired(now.saturating_sub(self.retention_ms)).await?;
            }
            None => self.begin(day).await?,
        }
        self.active.take().ok_or_else(|| CommitError::failed("no journal segment could be begun"))
    }

    /// Begins the next segment and ends this one.
    async fn roll(&mut self, active: Active, day: i64) -> Result<(), CommitError> {
        self.begin(day).await?;
        self.end(active).await;
        Ok(())
    }

    /// Begins a new segment.
    async fn begin(&mut self, day: i64) -> Result<(), CommitError> {
        let names = self.reader.list().into_iter().filter_map(|segment| parse_name(&segment.path));
        let number = names.chain([self.named]).filter(|(other, _)| *other == day).map(|(_, number)| number).max();
        let number = number.map_or(1, |last| last + 1);
        let path = self.dir.join(file_name(day, number));
        if path.exists() {
            // Left over from an attempt that failed, so it holds nothing.
            match Active::open(path.clone(), day, None).await? {
                Opened::Unborn => {}
                Opened::Active(active) if active.bounds.rows == 0 => active.close().await?,
                _ => return Err(CommitError::failed("a strange file has the name of the next journal segment")),
            }
            remove_files(&path)?;
        }
        let active = Active::create(path, day, self.next).await?;
        tracing::info!(segment = %active.segment.path.display(), base = self.next, "the journal begins a segment");
        self.named = (day, number);
        self.reader.add(active.segment.clone());
        self.newest = Some(active.segment.clone());
        self.active = Some(active);
        Ok(())
    }

    /// Has a segment sealed beside the writing, after the one before it.
    async fn end(&mut self, active: Active) {
        self.collect_seal(true).await;
        // Already set when sealing is tried again.
        let _ = active.segment.bounds.set(active.bounds);
        self.ended.push(active.segment.clone());
        self.sealing = Some(tokio::spawn(active.seal(self.reader.clone())));
    }

    /// Takes the result of a seal, when there is one or, if told to, once there is; true: one more segment is sealed.
    async fn collect_seal(&mut self, wait: bool) -> bool {
        let Some(task) = self.sealing.take_if(|task| wait || task.is_finished()) else { return false };
        match task.await {
            Ok(Ok((segment, filter))) => {
                self.ended.retain(|other| !Arc::ptr_eq(other, &segment));
                if !segment.removed.load(Ordering::Acquire) {
                    self.filters.push((segment, filter));
                    self.trim_filters();
                }
                return true;
            }
            // It stays readable and is tried again.
            Ok(Err(error)) => tracing::warn!(%error, "a journal segment could not be sealed"),
            Err(error) => tracing::error!(%error, "sealing a journal segment ended badly"),
        }
        false
    }

    /// Tries a seal that failed once more.
    async fn seal_again(&mut self) {
        if self.sealing.is_some() || self.ended.is_empty() {
            return;
        }
        let segment = self.ended.remove(0);
        match Active::open(segment.path.clone(), segment.day, Some(segment.clone())).await {
            Ok(Opened::Active(active)) => self.end(active).await,
            Ok(Opened::Sealed(segment, filter, _)) => {
                self.filters.push((segment, filter));
                self.trim_filters();
            }
            Ok(Opened::Unborn) => {
                tracing::error!(segment = %segment.path.display(), "a journal segment lost its content")
            }
            Err(error) => {
                tracing::warn!(%error, "a journal segment could not be opened to be sealed");
                self.ended.push(segment);
            }
        }
    }

    /// Unlinks segments that have ended and whose newest record was received before `limit`. The newest segment stays: it
    /// holds the mark from which positions go on.
    async fn remove_expired(&mut self, limit: i64) -> Result<(), CommitError> {
        let mut list = self.reader.list();
        list.pop();
        list.retain(|segment| segment.bounds.get().is_some_and(|bounds| bounds.received < limit));
        if list.iter().any(|segment| self.ended.iter().any(|ended| Arc::ptr_eq(ended, segment))) {
            // Its files go when nobody writes to them any more.
            self.collect_seal(true).await;
        }
        for segment in list {
            segment.unlink()?;
            self.reader.remove(&segment);
            self.ended.retain(|other| !Arc::ptr_eq(other, &segment));
            self.filters.retain(|(other, _)| !Arc::ptr_eq(other, &segment));
            tracing::info!(segment = %segment.path.display(), "the journal removed a segment after its retention");
        }
        Ok(())
    }

    /// Keeps the filters in order and within their memory.
    fn trim_filters(&mut self) {
        self.filters.sort_by_key(|(segment, _)| segment.base);
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
