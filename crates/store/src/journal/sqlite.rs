//! The writing side of the journal: which segment a record goes to, when one ends and when one goes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrics::gauge;
use tokio::task::JoinHandle;

use super::active::{Active, Opened};
use super::filter::{self, Filter};
use super::forward::Forwarded;
use super::name::{day, file_name, parse_name, segment_files};
use super::segment::{Segment, remove_files};
use super::segments::SegmentReader;
use super::writer::{CommitError, Committed};
use crate::directory::create_dir;
use crate::{OpenError, Position, Record, StoreConfig};

/// Memory for the filters of sealed segments. 256 MiB recognise repetitions among the newest 134 million events; the
/// filters of older segments are dropped.
const FILTER_BYTES: usize = 256 << 20;

/// What sealing a segment gives.
type SealResult = Result<(Arc<Segment>, Filter), sqlx::Error>;

/// Writes segment files in one directory.
pub(super) struct SegmentWriter {
    dir: PathBuf,
    segment_rows: i64,
    max_bytes: u64,
    retention_ms: i64,
    /// Where PostgreSQL has everything up to; what lies beyond is not removed.
    forwarded: Option<Forwarded>,
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
    /// Opens the journal in this directory and finishes what a crash interrupted. It gives no position before `floor`, and
    /// with `forwarded` removes nothing beyond that.
    pub(super) async fn open(
        dir: PathBuf,
        config: &StoreConfig,
        floor: i64,
        forwarded: Option<Forwarded>,
    ) -> Result<SegmentWriter, OpenError> {
        create_dir(&dir)?;
        let max_bytes = match config.max_bytes {
            Some(bytes) => bytes,
            None => default_cap(&dir)?,
        };
        let mut actives = Vec::new();
        let mut filters = Vec::new();
        let mut found = Vec::new();
        for (path, day) in segment_files(&dir)? {
            match Active::open(path.clone(), day, None).await? {
                Opened::Active(active) => {
                    found.push((active.segment.clone(), active.next));
                    actives.push(active);
                }
                Opened::Sealed(segment, filter, next) => {
                    found.push((segment.clone(), next));
                    filters.push((segment, filter));
                }
                Opened::Unborn => {
                    remove_files(&path).map_err(|source| OpenError::Io { action: "remove", path, source })?;
                }
            }
        }
        // A segment that ended without a record has the base of the one after it.
        found.sort_by_key(|(segment, next)| (segment.base, *next));
        actives.sort_by_key(|active| (active.segment.base, active.next));
        let next = found.iter().map(|(_, next)| *next).max().unwrap_or(1);
        if next < floor {
            tracing::warn!(
                next,
                floor,
                "PostgreSQL knows of later positions than this journal: it goes on behind them"
            );
        }
        let next = next.max(floor);
        let segments: Vec<Arc<Segment>> = found.into_iter().map(|(segment, _)| segment).collect();
        let last = segments.last().cloned();
        let mut writer = SegmentWriter {
            dir,
            segment_rows: i64::try_from(config.segment_rows.max(1)).unwrap_or(i64::MAX),
            max_bytes,
            retention_ms: i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX),
            forwarded,
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
        for active in actives {
            if last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &active.segment)) {
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
        if let Some(committed) = self.reopen(batch).await? {
            return Ok(committed);
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
        let place = active.segment.live.read().as_ref().and_then(|live| live.event(key));
        if let Some(position) = place
            && active.holds(position, record).await?
        {
            return Ok(true);
        }
        // One without an index in memory was sealed a moment ago, and its filter is still to be collected.
        let may_hold = |segment: &Segment| segment.live.read().as_ref().is_none_or(|live| live.event(key).is_some());
        let ended = self.ended.iter().filter(|segment| may_hold(segment));
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

    /// Opens the newest segment again after an error. Some: the commit that failed went through nevertheless, and this is
    /// what it did with the beginning of the batch.
    async fn reopen(&mut self, batch: &[Arc<Record>]) -> Result<Option<Committed>, CommitError> {
        let (None, Some(segment)) = (&self.active, self.newest.clone()) else { return Ok(None) };
        let Opened::Active(mut active) = Active::open(segment.path.clone(), segment.day, Some(segment)).await? else {
            // Nothing seals the newest segment, and its creation was complete.
            return Err(CommitError::failed("the journal segment was changed by somebody else"));
        };
        let stored = active.positions(self.next).await?;
        self.next = active.next;
        self.active = Some(active);
        // Records and mark are of one transaction: what the mark is beyond was stored or was a repetition.
        let count = batch.iter().take_while(|record| record.position.get() < self.next).count();
        let positions = batch[..count].iter().map(|record| record.position);
        let dropped = positions.filter(|position| stored.binary_search(&position.get()).is_err()).collect();
        Ok((count > 0).then_some(Committed { count, dropped }))
    }

    /// The segment this record goes to: the current one or a new one.
    async fn active_for(&mut self, record: &Record, now: i64) -> Result<Active, CommitError> {
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

    /// Unlinks segments that have ended, whose newest record was received before `limit` and whose records are in
    /// PostgreSQL, if they are to be there. The newest segment stays: it holds the mark from which positions go on.
    async fn remove_expired(&mut self, limit: i64) -> Result<(), CommitError> {
        let forwarded = self.forwarded.as_ref().map_or(i64::MAX, Forwarded::get);
        let all = self.reader.list();
        // Every record of a segment lies before the base of the next one.
        let ended = all.iter().zip(all.iter().skip(1));
        let list: Vec<Arc<Segment>> = ended
            .filter(|(_, next)| next.base.saturating_sub(1) <= forwarded)
            .filter(|(segment, _)| segment.bounds.get().is_some_and(|bounds| bounds.received < limit))
            .map(|(segment, _)| segment.clone())
            .collect();
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
    use crate::{DeviceId, DevicePath, Flags, RecordKind, Scan};

    fn batch(ids: &[Option<&str>]) -> Vec<Arc<Record>> {
        let device = DeviceId::mint();
        let level = || Box::from("x");
        let path = Arc::new(DevicePath { resource: level(), index: level(), area: level(), name: level() });
        let record = |(id, position): (&Option<&str>, i64)| Record {
            position: Position::new(position),
            device,
            serial: "S".into(),
            kind: RecordKind::Event,
            path: path.clone(),
            id: id.map(Box::from),
            time: 0,
            received: 0,
            flags: Flags::NONE,
            data: "1".into(),
        };
        ids.iter().zip(1..).map(record).map(Arc::new).collect()
    }

    async fn writer(dir: &Path, segment_rows: u64) -> SegmentWriter {
        let config = StoreConfig { segment_rows, ..StoreConfig::new(dir) };
        SegmentWriter::open(dir.join("journal"), &config, 1, None).await.unwrap()
    }

    #[tokio::test]
    async fn a_commit_that_went_through_in_spite_of_an_error_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), 2).await;
        let batch = batch(&[Some("a"), None, Some("a"), None, Some("b")]);
        let mut rest = batch.as_slice();
        let mut dropped = Vec::new();
        while let Some(first) = rest.first() {
            let told = writer.commit(rest, 0).await.ok().unwrap();
            // As after an error: nothing is known but what the file says. Segments are full by now.
            (writer.active, writer.next) = (None, first.position.get());
            let again = writer.commit(rest, 0).await.ok().unwrap();
            assert_eq!((told.count, &told.dropped), (again.count, &again.dropped));
            rest = &rest[again.count..];
            dropped.extend(again.dropped);
        }
        assert_eq!(dropped, [Position::new(3)]);
        let scan = Scan { limit: 100, ..Scan::default() };
        let stored = writer.reader().scan(&scan).await.unwrap();
        assert_eq!(stored.iter().map(|record| record.position.get()).collect::<Vec<_>>(), [1, 2, 4, 5]);
        writer.close().await;
    }

    #[tokio::test]
    async fn a_repetition_is_recognised_between_the_seal_and_its_result() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), 1).await;
        let batch = batch(&[Some("a"), Some("b")]);
        for first in 0..2 {
            assert!(writer.commit(&batch[first..], 0).await.is_ok());
        }
        while writer.ended[0].live.read().is_some() {
            tokio::task::yield_now().await;
        }
        let mut active = writer.active.take().unwrap();
        let (fresh, dropped) = writer.separate(&mut active, &batch).await.unwrap();
        assert!(fresh.is_empty() && dropped == [1, 2].map(Position::new));
        writer.active = Some(active);
        writer.close().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_segment_is_probed_while_it_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), 10).await;
        let batch = batch(&[Some("a")]);
        assert!(writer.commit(&batch, 0).await.is_ok());
        let (reader, segment) = (writer.reader(), writer.newest.clone().unwrap());
        let again = {
            let (reader, segment) = (reader.clone(), segment.clone());
            tokio::spawn(async move {
                for _ in 0..300 {
                    reader.reopen(&segment).await;
                }
            })
        };
        let key = filter::key(&batch[0].device, "a");
        while !again.is_finished() {
            assert!(reader.contains(&segment, key, &batch[0]).await.unwrap());
        }
        again.await.unwrap();
        writer.close().await;
    }
}
