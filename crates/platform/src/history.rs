//! What devices reported in the past, in either order.

use std::sync::Arc;

use vestibule_store::{DeviceId, DevicePath, Looked, MAX_SCAN, Order, Position, Record, RecordKind, Scan, StoreError};

use crate::caller::Caller;
use crate::platform::Platform;

/// Which stored reports.
#[derive(Debug, Clone)]
pub struct HistoryQuery {
    /// Events or attributes.
    pub kind: RecordKind,
    /// Only of this device.
    pub device: Option<DeviceId>,
    /// Only of this part of a device.
    pub resource: Option<String>,
    /// Only of this one of several such parts.
    pub index: Option<String>,
    /// Only of this area.
    pub area: Option<String>,
    /// Only with this name.
    pub name: Option<String>,
    /// By the device's time, at or after this moment in milliseconds since 1970.
    pub from: Option<i64>,
    /// By the device's time, before this moment.
    pub to: Option<i64>,
    /// Received at or after this moment.
    pub received_from: Option<i64>,
    /// Received before this moment.
    pub received_to: Option<i64>,
    /// Only after this position.
    pub after: Position,
    /// Only before this position.
    pub before: Option<Position>,
    /// Oldest or newest first.
    pub order: Order,
    /// How many at most; the journal gives no more than 1,000 at a time.
    pub limit: usize,
}

impl HistoryQuery {
    /// Everything of a kind, oldest first.
    pub fn all(kind: RecordKind) -> HistoryQuery {
        HistoryQuery {
            kind,
            device: None,
            resource: None,
            index: None,
            area: None,
            name: None,
            from: None,
            to: None,
            received_from: None,
            received_to: None,
            after: Position::START,
            before: None,
            order: Order::Oldest,
            limit: usize::MAX,
        }
    }

    /// The reports of one attribute, or the events of one name of one part of a device, oldest first.
    pub fn of(kind: RecordKind, device: DeviceId, path: &DevicePath) -> HistoryQuery {
        let level = |level: &str| Some(level.to_owned());
        HistoryQuery {
            device: Some(device),
            resource: level(&path.resource),
            index: level(&path.index),
            area: level(&path.area),
            name: level(&path.name),
            ..HistoryQuery::all(kind)
        }
    }
}

/// What was read of the past.
#[derive(Debug)]
pub struct HistoryPage {
    /// The reports, in the order that was asked for.
    pub items: Vec<Arc<Record>>,
    /// The last position that was read, also of what was left out: the next page begins behind it.
    pub reached: Option<Position>,
    /// Whether nothing follows.
    pub is_last: bool,
    /// Whether retention has taken what follows the position that was asked from: there may be a hole.
    pub overtaken: bool,
}

impl Platform {
    /// Stored reports of devices that the caller sees. Who sees many, but not all, has those of others left out, so that a page
    /// may be short and not the last; for who sees few, no others are read. It is short as well where too much does not match.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn history(&self, query: HistoryQuery, by: &Caller) -> Result<HistoryPage, StoreError> {
        let HistoryQuery { kind, device, resource, index, area, name, from, to, received_from, received_to, .. } =
            query;
        let scan = Scan {
            device,
            kind: Some(kind),
            amendments: false,
            resource,
            index,
            area,
            name,
            time_from: from,
            time_to: to,
            received_from,
            received_to,
            after: query.after,
            before: query.before,
            order: query.order,
            limit: query.limit.min(MAX_SCAN),
        };
        if device.is_some_and(|device| !self.registry().is_seen(device, by)) {
            return Ok(HistoryPage { items: Vec::new(), reached: None, is_last: true, overtaken: false });
        }
        let (limit, order, before) = (scan.limit, scan.order, scan.before);
        let few = if device.is_none() && !by.subtree().is_root() { self.few_seen(by) } else { None };
        let Looked { records: mut items, resume } = match few {
            Some(devices) => self.look_at_each(scan, devices).await?,
            None => self.look(&scan).await?,
        };
        let reached = resume.or(items.last().map(|record| record.position));
        let is_last = resume.is_none() && items.len() < limit;
        if !by.subtree().is_root() {
            items.retain(|record| self.registry().is_seen(record.device, by));
        }
        // Looked at after the scan: what retention takes away meanwhile cannot go unnoticed.
        let overtaken = order == Order::Oldest && self.is_overtaken(query.after, before).await?;
        let items = self.pictures().fold(self.control(), self.clock().now_ms(), items).await?;
        Ok(HistoryPage { items, reached, is_last, overtaken })
    }

    /// Whether retention has taken something between two positions. From the very beginning means from the oldest that is
    /// left.
    async fn is_overtaken(&self, after: Position, before: Option<Position>) -> Result<bool, StoreError> {
        let next = Position::new(after.get().saturating_add(1));
        if after == Position::START || before.is_some_and(|before| before <= next) {
            return Ok(false);
        }
        let oldest = self.journal().oldest().await?;
        Ok(oldest.map_or_else(|| next <= self.journal().durable(), |oldest| next < oldest))
    }
}
