//! The segment files of a journal as readers see them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::sync::Semaphore;

use super::row::{self, Row};
use super::segment::Segment;
use crate::{Order, Position, Record, Scan, StoreError};

/// Segments that stay open for reading.
const OPEN: usize = 8;
/// Connections of one open segment.
const CONNECTIONS: u32 = 2;
/// Scans at the same time; more wait.
const SCANS: usize = 8;

/// Reads all segments. Cheap to clone.
#[derive(Clone)]
pub(super) struct SegmentReader(Arc<Segments>);

struct Segments {
    /// By base.
    list: RwLock<Vec<Arc<Segment>>>,
    /// The open ones, most recently used last.
    open: Mutex<Vec<(Arc<Segment>, SqlitePool)>>,
    scans: Semaphore,
}

impl SegmentReader {
    /// Over these segments.
    pub(super) fn new(mut list: Vec<Arc<Segment>>) -> SegmentReader {
        list.sort_by_key(|segment| segment.base);
        SegmentReader(Arc::new(Segments {
            list: RwLock::new(list),
            open: Mutex::new(Vec::new()),
            scans: Semaphore::new(SCANS),
        }))
    }

    /// All segments, by base.
    pub(super) fn list(&self) -> Vec<Arc<Segment>> {
        self.0.list.read().clone()
    }

    /// Adds the newest one.
    pub(super) fn add(&self, segment: Arc<Segment>) {
        self.0.list.write().push(segment);
    }

    /// Takes one out; scans that have it finish with it.
    pub(super) fn remove(&self, segment: &Arc<Segment>) {
        self.0.list.write().retain(|other| !Arc::ptr_eq(other, segment));
        self.0.open.lock().retain(|(other, _)| !Arc::ptr_eq(other, segment));
    }

    /// Closes what is open for reading.
    pub(super) async fn close(&self) {
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
        let limit = row::limit(scan);
        let mut records = Vec::new();
        if limit == 0 {
            return Ok(records);
        }
        let _turn = self.0.scans.acquire().await.map_err(|_| StoreError::Closed)?;
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
            let mut query = row::select::<sqlx::Sqlite>("record", scan, limit - records.len());
            let rows: Result<Vec<Row>, _> = query.build_query_as().fetch_all(&self.pool(&segment)).await;
            match rows {
                Ok(rows) => {
                    for row in rows {
                        records.push(row::record(row)?);
                    }
                }
                // Retention came first.
                Err(_) if segment.removed.load(Ordering::Acquire) => continue,
                Err(error) => return Err(error.into()),
            }
            if records.len() >= limit {
                break;
            }
        }
        Ok(records)
    }

    pub(super) async fn oldest(&self) -> Result<Option<Position>, StoreError> {
        let scan = Scan { limit: 1, ..Scan::default() };
        Ok(self.scan(&scan).await?.first().map(|record| record.position))
    }

    /// Whether the segment holds this event of this device.
    pub(super) async fn contains(&self, segment: &Arc<Segment>, record: &Record) -> Result<bool, sqlx::Error> {
        let found = sqlx::query("SELECT 1 FROM record WHERE device = $1 AND event_id = $2")
            .bind(record.device.as_bytes().as_slice())
            .bind(record.id.as_deref())
            .fetch_optional(&self.pool(segment))
            .await?;
        Ok(found.is_some())
    }

    /// The connections to a segment, which make it the most recently used one.
    fn pool(&self, segment: &Arc<Segment>) -> SqlitePool {
        let mut open = self.0.open.lock();
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
        pool
    }
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
}
