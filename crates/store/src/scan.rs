//! A bounded read of the journal.

use std::sync::Arc;

use crate::{DeviceId, Position, Record, RecordKind};

/// The most records one [`Journal::scan`](crate::Journal::scan) returns.
pub const MAX_SCAN: usize = 1_000;

/// What a scan has found that looks at so much at most.
#[derive(Debug, Default)]
pub struct Looked {
    /// The records.
    pub records: Vec<Arc<Record>>,
    /// Looking for more was given up here, though there may be some: going on in the same order begins after this position, or
    /// before it.
    pub resume: Option<Position>,
}

/// In which order a scan walks, by position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    Oldest,
    /// Newest first.
    Newest,
}

/// Which records a scan returns: all that match every given part, in `order`, at most `limit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Only this device.
    pub device: Option<DeviceId>,
    /// Only this kind.
    pub kind: Option<RecordKind>,
    /// With events, also what amends them.
    pub amendments: bool,
    /// Only this resource.
    pub resource: Option<String>,
    /// Only this one of several such resources.
    pub index: Option<String>,
    /// Only this functional area.
    pub area: Option<String>,
    /// Only this event or attribute.
    pub name: Option<String>,
    /// Device time at or after this, Unix milliseconds.
    pub time_from: Option<i64>,
    /// Device time before this, Unix milliseconds.
    pub time_to: Option<i64>,
    /// Received at or after this, Unix milliseconds.
    pub received_from: Option<i64>,
    /// Received before this, Unix milliseconds.
    pub received_to: Option<i64>,
    /// Only positions beyond this one.
    pub after: Position,
    /// Only positions before this one.
    pub before: Option<Position>,
    /// By position, oldest or newest first.
    pub order: Order,
    /// How many at most; above [`MAX_SCAN`] it is taken as that, 0 returns nothing.
    pub limit: usize,
}
