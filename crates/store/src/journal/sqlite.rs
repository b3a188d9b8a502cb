//! The writing side of the journal: which segment a record goes to, when one ends and when one goes.

mod repair;
mod sealing;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::active::{Active, Opened};
use super::age::Age;
use super::damage::{Damages, is_suspected};
use super::filter::{self, Filter};
use super::forward::Forwarded;
use super::name::{day, file_name, parse_name};
use super::segment::{Bounds, Segment, remove_files};
use super::segments::{Doubt, SegmentReader};
use super::start::Start;
use super::watermark::{State, Watermark};
use super::writer::{CommitError, Committed};
use crate::config::Clock;
use crate::directory::create_dir;
use crate::{OpenError, Position, ReadAt, Record, StoreConfig};
use repair::{Repair, Suspect};
use sealing::Sealed;

/// Memory for the filters of sealed segments. 256 MiB recognise repetitions among the newest 134 million events; the
/// filters of older segments are dropped.
const FILTER_BYTES: usize = 256 << 20;

/// After this a seal that failed is tried again.
const SEAL_AGAIN: Duration = Duration::from_secs(60);

/// Writes segment files in one directory.
pub(super) struct SegmentWriter {
    dir: PathBuf,
    segment_rows: i64,
    max_bytes: u64,
    retention_ms: i64,
    /// Where PostgreSQL has everything up to; what lies beyond is not removed.
    forwarded: Option<Forwarded>,
    reader: SegmentReader,
    /// Where readers say that a segment may be damaged, until it is taken.
    doubts: Option<mpsc::Receiver<Doubt>>,
    damages: Damages,
    watermark: Watermark,
    age: Age,
    now: Clock,
    read_at: ReadAt,
    /// The filters over sealed segments, oldest first.
    filters: Vec<(Arc<Segment>, Filter)>,
    /// Segments that have ended and are not sealed yet, oldest first.
    ended: Vec<Arc<Segment>>,
    /// When one was last begun to be sealed.
    tried: Instant,
    /// One of them that is being sealed.
    sealing: Option<(Arc<Segment>, JoinHandle<Sealed>)>,
    /// Segments that are to be looked at, and the one that is.
    suspects: VecDeque<Suspect>,
    repair: Option<Repair>,
    /// The segment to write to; None before the first record and after an error.
    active: Option<Box<Active>>,
    /// The segment that is or was written to, to open again after an error.
    newest: Option<Arc<Segment>>,
    /// The day and number of the segment made last: a name is not used twice.
    named: (i64, u64),
    /// The next position to be stored.
    next: i64,
}

impl SegmentWriter {
    /// Opens the journal in this directory, finishes what a crash interrupted and salvages what is damaged. It gives no
    /// position before `floor`, and with `forwarded` removes nothing beyond that.
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
        let found = Start::of(&dir, config).await?;
        let Start { damages, age, watermark, next, segments, filters, actives, end_is_lost, .. } = found;
        if next < floor {
            tracing::warn!(
                next,
                floor,
                "PostgreSQL knows of later positions than this journal: it goes on behind them"
            );
        }
        let next = next.max(floor);
        let state = State { next, ran: age.ran(), clock: (config.now)(), ..watermark };
        let watermark = Watermark::open(&dir, state)?;
        let (reader, doubts) = SegmentReader::new(segments, config.read_at.clone());
        let mut writer = SegmentWriter {
            dir,
            segment_rows: i64::try_from(config.segment_rows.max(1)).unwrap_or(i64::MAX),
            max_bytes,
            retention_ms: i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX),
            forwarded,
            reader,
            doubts: Some(doubts),
            damages,
            watermark,
            age,
            now: config.now.clone(),
            read_at: config.read_at.clone(),
            filters,
            ended: Vec::new(),
            tried: Instant::now(),
            sealing: None,
            suspects: VecDeque::new(),
            repair: None,
            active: None,
            newest: None,
            named: (0, 0),
            next,
        };
        writer.trim_filters();
        for (active, has_ended) in actives {
            if has_ended || end_is_lost {
                writer.end(*active).await;
            } else {
                writer.newest = Some(active.segment.clone());
                writer.active = Some(active);
            }
        }
        if end_is_lost {
            // It says where the journal goes on.
            writer.begin(day((writer.now)())).await.map_err(|error| OpenError::Io {
                action: "begin a segment in",
                path: writer.dir.clone(),
                source: std::io::Error::other(error.to_string()),
            })?;
        }
        Ok(writer)
    }

    /// Who reads what this writes.
    pub(super) fn reader(&self) -> SegmentReader {
        self.reader.clone()
    }

    /// Where readers say that a segment may be damaged; to be handed to [`SegmentWriter::look`].
    pub(super) fn doubts(&mut self) -> Option<mpsc::Receiver<Doubt>> {
        self.doubts.take()
    }

    /// What is known to be damaged.
    pub(super) fn damages(&self) -> Damages {
        self.damages.clone()
    }

    /// The position from which on records are kept.
    pub(super) fn kept(&self) -> i64 {
        self.reader.list().first().map_or(1, |segment| segment.base)
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
        if self.bytes() >= self.max_bytes {
            self.retain(now).await?;
            self.make_room();
            let bytes = self.bytes();
            if bytes >= self.max_bytes {
                return Err(CommitError::Full { bytes, max_bytes: self.max_bytes });
            }
        }
        let collected = self.collect_seal(false).await;
        if collected || self.tried.elapsed() > SEAL_AGAIN {
            self.seal_again();
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
        self.watermark.reserve(next)?;
        // On an error the active segment is not put back: it is opened anew, which shows what the file holds.
        let ran = self.age.ran();
        active.store(&fresh, next, ran).await?;
        self.next = next;
        self.watermark.note(next, ran, now);
        self.active = Some(active);
        self.report();
        Ok(Committed { count, dropped })
    }

    /// What counts toward the cap: the segments, and the files of those that were set aside.
    fn bytes(&self) -> u64 {
        self.reader.bytes().saturating_add(self.damages.bytes())
    }

    /// Has files give way that were set aside, oldest first, as long as that brings the journal below its cap: what is
    /// readable of them is in its segments.
    fn make_room(&self) {
        // Somebody may have taken them away.
        self.damages.list();
        while self.reader.bytes() < self.max_bytes && self.bytes() >= self.max_bytes {
            if !self.damages.drop_oldest() {
                return;
            }
        }
    }

    /// Tells what is new from what is a repetition, of another record of the batch or of one that is journalled.
    async fn separate<'a>(
        &mut self,
        active: &mut Active,
        batch: &'a [Arc<Record>],
    ) -> Result<(Vec<&'a Arc<Record>>, Vec<Position>), CommitError> {
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
    async fn was_journalled(&mut self, active: &mut Active, key: u64, record: &Record) -> Result<bool, CommitError> {
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
        let probed: Vec<Arc<Segment>> = ended.chain(sealed.rev()).cloned().collect();
        for segment in probed {
            if self.holds(&segment, key, record).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a segment that has ended holds the event. One that may be damaged is looked at first, and the commit waits for
    /// that: it is the one thing that a commit needs of it.
    async fn holds(&mut self, segment: &Arc<Segment>, key: u64, record: &Record) -> Result<bool, CommitError> {
        let error = match self.reader.contains(segment, key, record).await {
            Err(error) if is_suspected(&error) => error,
            result => return probed(segment, result),
        };
        tracing::debug!(segment = %segment.path.display(), %error, "a journal segment is doubted");
        self.look_now(segment).await;
        let segment = segment.salvaged.get().unwrap_or(segment);
        probed(segment, self.reader.contains(segment, key, record).await)
    }

    /// Removes what is older than the retention.
    pub(super) async fn retain(&mut self, now: i64) -> Result<(), CommitError> {
        self.collect_seal(false).await;
        self.seal_again();
        let limit = now.saturating_sub(self.retention_ms);
        let ran = self.aged();
        let is_old = |bounds: &Bounds| bounds.rows > 0 && bounds.received < limit && bounds.ran <= ran;
        if let Some(active) = self.active.take_if(|active| is_old(&active.bounds)) {
            let day = active.segment.day.max(day(now));
            self.roll(*active, day).await?;
        }
        self.remove_expired(limit).await?;
        self.report();
        Ok(())
    }

    /// Ends writing; what is stored is in the files without their logs.
    pub(super) async fn close(mut self) {
        self.collect_seal(true).await;
        self.stop_looking().await;
        self.reader.close().await;
        if let Some(active) = self.active.take()
            && let Err(error) = active.close().await
        {
            // The log is read at the next start instead.
            tracing::warn!(%error, "the journal's log could not be brought into its file");
        }
        self.watermark.note(self.next, self.age.ran(), (self.now)());
        if let Err(error) = self.watermark.close() {
            tracing::warn!(%error, "how far the journal went could not be synced");
        }
    }

    /// Opens the newest segment again after an error. Some: the commit that failed went through nevertheless, and this is
    /// what it did with the beginning of the batch.
    async fn reopen(&mut self, batch: &[Arc<Record>]) -> Result<Option<Committed>, CommitError> {
        let (None, Some(segment)) = (&self.active, self.newest.clone()) else { return Ok(None) };
        let mut active =
            match Active::open(segment.path.clone(), segment.day, Some(segment.clone()), &self.read_at).await? {
                Opened::Active(sound) => sound.connect().await?,
                // What the failed commit may have stored there counts as not stored.
                Opened::Damaged(place) => {
                    // A disk that takes no other segment has failed as a whole, and may give this one back.
                    self.begin(segment.day.max(day((self.now)()))).await?;
                    // Without bounds.
                    self.ended.push(segment.clone());
                    self.suspect(segment, Some(place), None);
                    return Ok(None);
                }
                // Nothing seals the newest segment.
                Opened::Sealed(..) | Opened::HalfSealed => {
                    return Err(CommitError::failed("the journal segment was changed by somebody else"));
                }
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
    async fn active_for(&mut self, record: &Record, now: i64) -> Result<Box<Active>, CommitError> {
        let day = day(record.received);
        match self.active.take() {
            Some(active) if active.bounds.rows < self.segment_rows && day <= active.segment.day => return Ok(active),
            Some(active) => {
                let day = day.max(active.segment.day);
                self.roll(*active, day).await?;
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
            match Active::open(path.clone(), day, None, &self.read_at).await? {
                Opened::Active(sound) if sound.is_empty() => {}
                _ => return Err(CommitError::failed("a strange file has the name of the next journal segment")),
            }
            remove_files(&path)?;
        }
        let active = Active::create(path, day, self.next).await?;
        tracing::info!(segment = %active.segment.path.display(), base = self.next, "the journal begins a segment");
        self.named = (day, number);
        self.reader.add(active.segment.clone());
        self.newest = Some(active.segment.clone());
        self.active = Some(Box::new(active));
        Ok(())
    }

    /// Unlinks segments that have ended, whose newest record was received before `limit`, since when the journal has run for
    /// as long as records are kept, and whose records are in PostgreSQL, if they are to be there. The newest segment stays: it holds the mark from which positions go on.
    async fn remove_expired(&mut self, limit: i64) -> Result<(), CommitError> {
        let (ran, forwarded) = (self.aged(), self.forwarded.as_ref().map_or(i64::MAX, Forwarded::get));
        let all = self.reader.list();
        // Every record of a segment lies before the base of the next one.
        let ended = all.iter().zip(all.iter().skip(1));
        let list: Vec<Arc<Segment>> = ended
            .filter(|(_, next)| next.base.saturating_sub(1) <= forwarded)
            .filter(|(segment, _)| {
                segment.bounds.get().is_some_and(|bounds| bounds.received < limit && bounds.ran <= ran)
            })
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

    /// How long the journal had run when what is old enough now was stored.
    fn aged(&self) -> i64 {
        self.age.ran().saturating_sub(self.retention_ms)
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

/// What a probe of an old segment means.
fn probed(segment: &Segment, result: Result<bool, sqlx::Error>) -> Result<bool, CommitError> {
    match result {
        Ok(found) => Ok(found),
        // One old file must not stop the journal: at worst the event is there twice.
        Err(error) => {
            tracing::warn!(segment = %segment.path.display(), %error, "a journal segment cannot be probed");
            Ok(false)
        }
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
mod tests;
