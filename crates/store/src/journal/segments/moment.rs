//! What was true at a moment of the past: where the journal was then, and what each attribute had last been reported as.
//!
//! The work is bounded by what is asked for, whatever was reported before and since: where the journal was is found by
//! halving, and the last report of an attribute by an index over (device, path, position), in memory as long as the segment is
//! written to. Only segments that were sealed by a version without that index are searched by their index over devices.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sqlx::{QueryBuilder, Sqlite};

use super::{Ask, SegmentReader};
use crate::journal::row::{self, Row};
use crate::journal::segment::Segment;
use crate::{DeviceId, DevicePath, Order, Position, Record, RecordKind, Scan, StoreError};

/// The last reports of attributes of a device up to a position.
pub(super) struct Last<'a> {
    device: DeviceId,
    paths: &'a [Arc<DevicePath>],
    until: Position,
}

impl SegmentReader {
    /// The last position that was received at or before this time, milliseconds since 1970; the start, when there is none. Where
    /// the clock was set back in between it is one of those that come into question.
    pub(in crate::journal) async fn position_at(&self, received: i64) -> Result<Position, StoreError> {
        let _turn = self.turn().await?;
        let list = self.list();
        let ends: Vec<i64> = list.iter().skip(1).map(|next| next.base).chain([i64::MAX]).collect();
        // The first record of a segment says whether the moment lies before it.
        let (mut low, mut high) = (0, list.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first(&list[middle], list[middle].base, ends[middle]).await? {
                Some(record) if record.received > received => high = middle,
                _ => low = middle + 1,
            }
        }
        let Some(at) = low.checked_sub(1) else { return Ok(Position::START) };
        // Within it, positions may be missing: each look takes the next one there is.
        let segment = &list[at];
        let newest = Scan { before: before(ends[at]), order: Order::Newest, limit: 1, ..Scan::default() };
        let newest = self.records(segment.clone(), &Ask::Scan(&newest, 1)).await?;
        let Some(newest) = newest.first() else { return Ok(Position::new(segment.base - 1)) };
        let (mut low, mut high) = (segment.base, newest.position.get() + 1);
        // Everything before `low` was received in time, nothing from `high` on.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first(segment, middle, high).await? {
                Some(record) if record.received <= received => low = record.position.get() + 1,
                _ => high = middle,
            }
        }
        Ok(Position::new(low - 1))
    }

    /// The first record of a segment from this position on, before another.
    async fn first(&self, segment: &Arc<Segment>, from: i64, end: i64) -> Result<Option<Arc<Record>>, StoreError> {
        let scan = Scan { after: Position::new(from - 1), before: before(end), limit: 1, ..Scan::default() };
        Ok(self.records(segment.clone(), &Ask::Scan(&scan, 1)).await?.pop())
    }

    /// What each of these attributes of a device was last reported as, up to and with this position, as far as it is kept; in
    /// the order of the journal.
    pub(in crate::journal) async fn last_reports(
        &self,
        device: DeviceId,
        paths: &[Arc<DevicePath>],
        until: Position,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let _turn = self.turn().await?;
        let mut missing = paths.to_vec();
        let mut found = Vec::new();
        for segment in self.list().into_iter().rev() {
            if missing.is_empty() {
                break;
            }
            if segment.base > until.get() || segment.bounds.get().is_some_and(|bounds| bounds.rows == 0) {
                continue;
            }
            let last = Last { device, paths: &missing, until };
            let mut newest: BTreeMap<Position, Arc<Record>> = BTreeMap::new();
            let mut seen: HashMap<Arc<DevicePath>, Position> = HashMap::new();
            // A path, or a device whose serial changed, may have several numbers in a segment.
            for record in self.records(segment, &Ask::Last(&last)).await? {
                let before = seen.get(&record.path).copied();
                if before.is_none_or(|before| before < record.position) {
                    before.map(|before| newest.remove(&before));
                    seen.insert(record.path.clone(), record.position);
                    newest.insert(record.position, record);
                }
            }
            missing.retain(|path| !seen.contains_key(path));
            found.extend(newest.into_values());
        }
        found.sort_unstable_by_key(|record| record.position);
        Ok(found)
    }

    /// The rows of one segment, perhaps several of one attribute.
    pub(super) async fn read_last(&self, segment: &Arc<Segment>, last: &Last<'_>) -> Result<Vec<Row>, sqlx::Error> {
        let live = segment.live.read().as_ref().map(|live| {
            let reports = last.paths.iter().filter_map(|path| live.last_report(&last.device, path, last.until.get()));
            reports.collect::<Vec<i64>>()
        });
        match live {
            Some(positions) if positions.is_empty() => Ok(Vec::new()),
            Some(positions) => self.select(segment, &Scan::default(), Some(&positions), positions.len()).await,
            None => loop {
                let pool = self.pool(segment)?;
                let read = match indexed(last).build_query_as().fetch_all(&pool).await {
                    Err(error) if is_unindexed(&error) => unindexed(last).build_query_as().fetch_all(&pool).await,
                    read => read,
                };
                match read {
                    // Another look finds another pool.
                    Err(sqlx::Error::PoolClosed) => {}
                    read => return read,
                }
            },
        }
    }
}

fn before(end: i64) -> Option<Position> {
    (end < i64::MAX).then(|| Position::new(end))
}

/// Whether the segment was sealed by a version that made other indexes.
fn is_unindexed(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains("no such index"))
}

/// The wanted paths, as a table.
fn wanted(last: &Last<'_>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("WITH wanted (resource, idx, area, name) AS (");
    query.push_values(last.paths, |mut row, path| {
        for level in [&path.resource, &path.index, &path.area, &path.name] {
            // No stored text has U+0000 (see `Record::make_storable`).
            row.push_bind(level.replace('\0', "\u{fffd}"));
        }
    });
    query.push(format!(") SELECT {} FROM entry WHERE position IN (", row::COLUMNS));
    query
}

/// The levels of a path, in the order of its index.
const LEVELS: &str = "p.name = w.name AND p.area = w.area AND p.resource = w.resource AND p.idx = w.idx";

/// One look into an index for each attribute, however often it was reported. An index that is not there is an error.
fn indexed(last: &Last<'_>) -> QueryBuilder<Sqlite> {
    let mut query = wanted(last);
    query.push(
        "SELECT (SELECT r.position FROM record r INDEXED BY record_report WHERE r.device = d.number AND r.path = p.number AND ",
    );
    query.push(format!("r.kind = {} AND r.position <= ", RecordKind::Attribute.stored()));
    query.push_bind(last.until.get());
    query.push(" ORDER BY r.position DESC LIMIT 1) FROM wanted w ");
    query.push(format!("CROSS JOIN path p INDEXED BY path_levels ON {LEVELS} CROSS JOIN device d WHERE d.id = "));
    query.push_bind(last.device.as_bytes().to_vec()).push(")");
    query
}

/// The same by the index over devices: it looks at each record of the device in the segment.
fn unindexed(last: &Last<'_>) -> QueryBuilder<Sqlite> {
    let mut query = wanted(last);
    query.push("SELECT max(position) FROM record WHERE device IN (SELECT number FROM device WHERE id = ");
    query.push_bind(last.device.as_bytes().to_vec());
    query.push(format!(") AND kind = {} AND position <= ", RecordKind::Attribute.stored()));
    query.push_bind(last.until.get());
    query.push(format!(" AND path IN (SELECT p.number FROM wanted w CROSS JOIN path p ON {LEVELS}) GROUP BY path)"));
    query
}

#[cfg(test)]
mod tests;
