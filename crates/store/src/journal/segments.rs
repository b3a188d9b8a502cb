//! The segment files of a journal as readers see them.

mod moment;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

use super::damage::is_suspected;
use super::row::{self, Row};
use super::seal::Seal;
use super::segment::Segment;
use crate::{Looked, Order, Position, ReadAt, Record, Scan, StoreError};
use moment::Last;

/// Segments that stay open for reading.
const OPEN: usize = 8;
/// Connections of one open segment.
const CONNECTIONS: u32 = 2;
/// Positions of a device that one query looks at in a segment without an index, at least.
const PROBED: usize = 500;
/// How often a segment is doubted for one scan.
const DOUBTS: usize = 2;
/// Scans at the same time; more wait.
const SCANS: usize = 8;

/// Reads all segments. Cheap to clone.
#[derive(Clone)]
pub(super) struct SegmentReader(Arc<Segments>);

struct Segments {
    /// In the order of their records.
    list: RwLock<Vec<Arc<Segment>>>,
    /// The open ones, most recently used last.
    open: Mutex<Vec<(Arc<Segment>, SqlitePool)>>,
    scans: Semaphore,
    read_at: ReadAt,
    /// To the writer, which alone sets segments aside.
    doubts: mpsc::Sender<Doubt>,
}

/// What is asked of one segment.
enum Ask<'a> {
    /// The records of a scan, so many at most.
    Scan(&'a Scan, usize),
    /// The last reports of attributes.
    Last(&'a Last<'a>),
}

/// A segment that is perhaps not what was written.
pub(super) struct Doubt {
    pub(super) segment: Arc<Segment>,
    /// Told once it was looked at, and set aside if it had to be; false: that did not work.
    pub(super) settled: oneshot::Sender<bool>,
}

impl SegmentReader {
    /// Over these segments, in their order, with where it says that one may be damaged.
    pub(super) fn new(list: Vec<Arc<Segment>>, read_at: ReadAt) -> (SegmentReader, mpsc::Receiver<Doubt>) {
        let (doubts, receiver) = mpsc::channel(SCANS);
        let reader = SegmentReader(Arc::new(Segments {
            list: RwLock::new(list),
            open: Mutex::new(Vec::new()),
            scans: Semaphore::new(SCANS),
            read_at,
            doubts,
        }));
        (reader, receiver)
    }

    /// All segments, in the order of their records.
    pub(super) fn list(&self) -> Vec<Arc<Segment>> {
        self.0.list.read().clone()
    }

    /// Adds the newest one.
    pub(super) fn add(&self, segment: Arc<Segment>) {
        self.0.list.write().push(segment);
    }

    /// Puts what was salvaged of a segment in its place.
    pub(super) fn replace(&self, segment: &Arc<Segment>, salvaged: Arc<Segment>) {
        let mut list = self.0.list.write();
        if let Some(place) = list.iter_mut().find(|other| Arc::ptr_eq(other, segment)) {
            *place = salvaged;
        }
        drop(list);
        self.0.open.lock().retain(|(other, _)| !Arc::ptr_eq(other, segment));
    }

    /// Takes one out; scans that have it finish with it.
    pub(super) fn remove(&self, segment: &Arc<Segment>) {
        self.0.list.write().retain(|other| !Arc::ptr_eq(other, segment));
        self.0.open.lock().retain(|(other, _)| !Arc::ptr_eq(other, segment));
    }

    /// Closes what is open for reading.
    pub(super) async fn close(&self) {
        self.0.scans.close();
        let open = std::mem::take(&mut *self.0.open.lock());
        for (_, pool) in open {
            pool.close().await;
        }
    }

    /// What all segments take on the volume.
    pub(super) fn bytes(&self) -> u64 {
        let list = self.0.list.read();
        list.iter().map(|segment| segment.bytes.load(Ordering::Relaxed)).sum()
    }

    pub(super) async fn scan(&self, scan: &Scan) -> Result<Vec<Arc<Record>>, StoreError> {
        self.look(scan, u64::MAX).await.map(|looked| looked.records)
    }

    /// The same, until `most` records were looked at.
    pub(super) async fn look(&self, scan: &Scan, most: u64) -> Result<Looked, StoreError> {
        let limit = row::limit(scan);
        let (mut records, mut looked) = (Vec::new(), 0);
        if limit == 0 {
            return Ok(Looked::default());
        }
        let _turn = self.turn().await?;
        let mut list = self.list();
        // Every record of a segment lies before the base of the next one.
        let ends: Vec<i64> = list.iter().skip(1).map(|next| next.base).chain([i64::MAX]).collect();
        let mut walk: Vec<(Arc<Segment>, i64)> = list.drain(..).zip(ends).collect();
        if scan.order == Order::Newest {
            walk.reverse();
        }
        for (segment, end) in walk {
            if !may_match(&segment, end, scan) {
                continue;
            }
            if looked >= most {
                let resume = match scan.order {
                    Order::Oldest => Position::new(segment.base.saturating_sub(1)).max(scan.after),
                    Order::Newest => scan.before.map_or(Position::new(end), |before| before.min(Position::new(end))),
                };
                return Ok(Looked { records, resume: Some(resume) });
            }
            records.extend(self.records(segment.clone(), &Ask::Scan(scan, limit - records.len())).await?);
            if records.len() >= limit {
                break;
            }
            if most < u64::MAX {
                looked += self.weight(&segment, scan).await;
            }
        }
        Ok(Looked { records, resume: None })
    }

    /// How many records of a segment a scan has looked at that came to its end. One that is being written does not count.
    async fn weight(&self, segment: &Arc<Segment>, scan: &Scan) -> u64 {
        let Some(bounds) = segment.bounds.get() else { return 0 };
        let rows = u64::try_from(bounds.rows).unwrap_or(0);
        let Some(device) = &scan.device else { return rows };
        // Until it is sealed, memory says where a device's records are.
        if let Some(live) = segment.live.read().as_ref() {
            return live.count(device) as u64;
        }
        let Ok(pool) = self.pool(segment) else { return rows };
        let count = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM record WHERE device IN (SELECT number FROM device WHERE id = $1)",
        );
        // Whatever is the matter with the file, reading it has told.
        let count = count.bind(device.as_bytes().as_slice()).fetch_one(&pool).await;
        count.ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(rows)
    }

    /// One of the places of those who read.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        self.0.scans.acquire().await.map_err(|_| StoreError::Closed)
    }

    pub(super) async fn oldest(&self) -> Result<Option<Position>, StoreError> {
        let scan = Scan { limit: 1, ..Scan::default() };
        Ok(self.scan(&scan).await?.first().map(|record| record.position))
    }

    /// The records of one segment that are asked for. What is damaged is set aside first.
    async fn records(&self, mut segment: Arc<Segment>, ask: &Ask<'_>) -> Result<Vec<Arc<Record>>, StoreError> {
        // A scan follows a segment that is being sealed or set aside, and does not go round for ever.
        for attempt in 0..4 * DOUBTS {
            while let Some(salvaged) = segment.salvaged.get() {
                segment = salvaged.clone();
            }
            if !self.is_as_sealed(&segment).await {
                self.doubt(&segment).await?;
                continue;
            }
            let rows = match ask {
                Ask::Scan(scan, limit) => self.read(&segment, scan, *limit).await,
                Ask::Last(last) => self.read_last(&segment, last).await,
            };
            let read = match rows {
                Ok(rows) => rows.into_iter().map(row::record).collect(),
                Err(error) if is_suspected(&error) => Err(StoreError::Damaged { file: segment.path.clone() }),
                Err(error) => Err(error.into()),
            };
            match read {
                Err(_) if segment.salvaged.get().is_some() => {}
                // Retention came first.
                Err(_) if segment.removed.load(Ordering::Acquire) => return Ok(Vec::new()),
                Err(_) if self.0.scans.is_closed() => return Err(StoreError::Closed),
                Err(StoreError::Damaged { .. } | StoreError::Corrupt(_)) if attempt < DOUBTS => {
                    self.doubt(&segment).await?;
                }
                read => return read,
            }
        }
        Err(StoreError::Damaged { file: segment.path.clone() })
    }

    /// Compares a sealed segment with its seal, once in the life of this process: a page that leaves rows out says nothing
    /// when it is read.
    pub(super) async fn is_as_sealed(&self, segment: &Arc<Segment>) -> bool {
        if segment.checked.load(Ordering::Acquire) || !segment.is_sealed() {
            return true;
        }
        let (path, read_at) = (segment.path.clone(), self.0.read_at.clone());
        match tokio::task::spawn_blocking(move || Seal::check(&path, &read_at)).await {
            Ok(Ok(None)) => {
                segment.checked.store(true, Ordering::Release);
                true
            }
            Ok(Ok(Some(_))) => segment.removed.load(Ordering::Acquire),
            // Reading it tells.
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// Has the writer look at a segment; what is damaged has been set aside when this returns.
    pub(super) async fn doubt(&self, segment: &Arc<Segment>) -> Result<(), StoreError> {
        let (settled, answer) = oneshot::channel();
        let doubt = Doubt { segment: segment.clone(), settled };
        self.0.doubts.send(doubt).await.map_err(|_| StoreError::Closed)?;
        match answer.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Damaged { file: segment.path.clone() }),
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// The rows of one segment that match.
    async fn read(&self, segment: &Arc<Segment>, scan: &Scan, limit: usize) -> Result<Vec<Row>, sqlx::Error> {
        let mut rows: Vec<Row> = Vec::new();
        let mut from = None;
        // As long as the segment has no index, memory says where a device's records are.
        while let Some(device) = &scan.device {
            let max = PROBED.max(limit - rows.len());
            let page = segment.live.read().as_ref().map(|live| live.page(device, scan, from, max));
            let Some(page) = page else {
                // It is sealed, perhaps meanwhile: the rest comes from the index.
                rows.extend(self.select(segment, &beyond(scan, from), None, limit - rows.len()).await?);
                return Ok(rows);
            };
            let Some(last) = page.last() else { return Ok(rows) };
            from = Some(*last);
            rows.extend(self.select(segment, scan, Some(&page), limit - rows.len()).await?);
            if rows.len() >= limit {
                return Ok(rows);
            }
        }
        self.select(segment, scan, None, limit).await
    }

    /// One query: over the whole segment, or only over these positions.
    async fn select(
        &self,
        segment: &Arc<Segment>,
        scan: &Scan,
        positions: Option<&[i64]>,
        limit: usize,
    ) -> Result<Vec<Row>, sqlx::Error> {
        loop {
            let mut query = row::select(scan, positions.is_none());
            if let Some(positions) = positions {
                let list: Vec<String> = positions.iter().map(i64::to_string).collect();
                query.push(" AND position IN (SELECT value FROM json_each(");
                query.push_bind(format!("[{}]", list.join(",")));
                query.push("))");
            }
            row::finish(&mut query, scan, limit);
            match query.build_query_as().fetch_all(&self.pool(segment)?).await {
                // The segment was sealed at this moment; the next look finds another pool.
                Err(sqlx::Error::PoolClosed) => {}
                result => return result,
            }
        }
    }

    /// Whether the segment holds this event, whose key is `key`.
    pub(super) async fn contains(
        &self,
        segment: &Arc<Segment>,
        key: u64,
        record: &Record,
    ) -> Result<bool, sqlx::Error> {
        loop {
            let place = segment.live.read().as_ref().map(|live| live.event(key));
            let query = match place {
                Some(None) => return Ok(false),
                Some(Some(position)) => {
                    sqlx::query("SELECT 1 FROM entry WHERE device = $1 AND event_id = $2 AND position = $3")
                        .bind(record.device.as_bytes().as_slice())
                        .bind(record.id.as_deref())
                        .bind(position)
                }
                None => sqlx::query(
                    "SELECT 1 FROM record WHERE device IN (SELECT number FROM device WHERE id = $1) AND event_id = $2",
                )
                .bind(record.device.as_bytes().as_slice())
                .bind(record.id.as_deref()),
            };
            match query.fetch_optional(&self.pool(segment)?).await {
                // The segment was sealed at this moment; the next look finds another pool.
                Err(sqlx::Error::PoolClosed) => {}
                result => return Ok(result?.is_some()),
            }
        }
    }

    /// Closes what is open of a segment; the next reading opens it anew.
    pub(super) async fn reopen(&self, segment: &Arc<Segment>) {
        let pool = {
            let mut open = self.0.open.lock();
            let at = open.iter().position(|(other, _)| Arc::ptr_eq(other, segment));
            at.map(|at| open.remove(at).1)
        };
        if let Some(pool) = pool {
            pool.close().await;
        }
    }

    /// The connections to a segment, which make it the most recently used one.
    fn pool(&self, segment: &Arc<Segment>) -> Result<SqlitePool, sqlx::Error> {
        let mut open = self.0.open.lock();
        if self.0.scans.is_closed() {
            return Err(sqlx::Error::WorkerCrashed);
        }
        let at = open.iter().position(|(other, _)| Arc::ptr_eq(other, segment));
        let entry = match at {
            Some(at) => open.remove(at),
            None => {
                if open.len() >= OPEN {
                    // Who still uses it holds a clone; the last one closes it.
                    open.remove(0);
                }
                let pool =
                    SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(segment.read_options());
                (segment.clone(), pool)
            }
        };
        let pool = entry.1.clone();
        open.push(entry);
        Ok(pool)
    }
}

/// The scan from this position on, in its order.
fn beyond(scan: &Scan, from: Option<i64>) -> Scan {
    let mut scan = scan.clone();
    match (scan.order, from) {
        (_, None) => {}
        (Order::Oldest, Some(from)) => scan.after = scan.after.max(Position::new(from)),
        (Order::Newest, Some(from)) => {
            let from = Position::new(from);
            scan.before = Some(scan.before.map_or(from, |before| before.min(from)));
        }
    }
    scan
}

/// Whether a record of the segment, which ends before position `end`, can match.
fn may_match(segment: &Segment, end: i64, scan: &Scan) -> bool {
    let beyond = end.saturating_sub(1) <= scan.after.get();
    let before = scan.before.is_some_and(|before| before.get() <= segment.base);
    if beyond || before {
        return false;
    }
    let Some(bounds) = segment.bounds.get() else {
        return true;
    };
    bounds.rows > 0
        && scan.time_from.is_none_or(|from| bounds.max_time >= from)
        && scan.time_to.is_none_or(|to| bounds.min_time < to)
        && scan.received_from.is_none_or(|from| bounds.received >= from)
}
