//! Reports of devices: checked, stamped with both times, handed to the journal; and read back.

use std::sync::Arc;

use serde_json::value::RawValue;
use vestibule_store::{DeviceId, DevicePath, Flags, Order, Position, Record, RecordKind, Scan, StoreError};

use crate::caller::Caller;
use crate::device::Device;
use crate::json::{depth, path_error};
use crate::platform::Platform;
use crate::records::Records;
use crate::twin::MAX_VALUE;

/// A device clock this far ahead of ours is suspect (milliseconds).
const AHEAD: i64 = 5 * 60 * 1_000;
/// 2020-01-01T00:00:00Z: a device time before it comes from a clock that was never set.
const EARLIEST: i64 = 1_577_836_800_000;
const MAX_DEPTH: usize = 32;
const MAX_EVENT_ID: usize = 64;

/// What a device reports.
pub struct Report<'a> {
    /// An event or the value of an attribute.
    pub kind: RecordKind,
    /// Which part of the device it is about.
    pub path: Arc<DevicePath>,
    /// The device's own identity of the event, when it sends one.
    pub id: Option<&'a str>,
    /// The device's time in milliseconds since 1970, when it sends one.
    pub time: Option<i64>,
    /// JSON text, valid JSON as the adapter has parsed it.
    pub data: &'a str,
}

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The JSON text is longer than the limit.
    #[error("the report is longer than the limit of the platform")]
    TooLarge,
    /// The JSON text is nested too deeply.
    #[error("the report is nested more than 32 levels deep")]
    TooDeep,
    /// A level of the path is empty, too long or has control characters.
    #[error("a level of the report's path is empty, longer than 128 bytes or has control characters")]
    BadPath,
    /// The event identity is empty or too long.
    #[error("the event id is empty or longer than 64 bytes")]
    BadEventId,
    /// The text is not JSON, which the adapter should have seen.
    #[error("the report is not JSON")]
    NotJson,
    /// The device has as many attributes, or as much in them, as it may have.
    #[error("the device has its limit of 4096 attributes or 4 MiB of values")]
    TooManyAttributes,
}

impl ReportError {
    /// Short code for facts and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ReportError::TooLarge => "report_too_large",
            ReportError::TooDeep => "report_too_deep",
            ReportError::BadPath => "report_bad_path",
            ReportError::BadEventId => "report_bad_event_id",
            ReportError::NotJson => "report_not_json",
            ReportError::TooManyAttributes => "report_too_many_attributes",
        }
    }
}

/// Which events to read back, newest first.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only of this device.
    pub device: Option<DeviceId>,
    /// Only of this area.
    pub area: Option<String>,
    /// Only with this name.
    pub name: Option<String>,
    /// Device time at or after, milliseconds since 1970.
    pub from: Option<i64>,
    /// Device time before, milliseconds since 1970.
    pub to: Option<i64>,
    /// Received at or after, milliseconds since 1970.
    pub received_from: Option<i64>,
    /// Received before, milliseconds since 1970.
    pub received_to: Option<i64>,
    /// Only older than this position; the cursor of the previous page.
    pub before: Option<Position>,
    /// At most so many.
    pub limit: usize,
}

impl Platform {
    /// Takes a report into the journal. The report is durable, and may be acknowledged, once
    /// `journal().durable()` has reached the position returned. The caller has seen that the journal has room.
    pub fn report(&self, device: &Arc<Device>, report: Report<'_>) -> Result<Position, ReportError> {
        if report.data.len() > self.config().max_report_bytes {
            return Err(ReportError::TooLarge);
        }
        if depth(report.data.as_bytes()) > MAX_DEPTH {
            return Err(ReportError::TooDeep);
        }
        if path_error(&report.path).is_some() {
            return Err(ReportError::BadPath);
        }
        if report.id.is_some_and(|id| id.is_empty() || id.len() > MAX_EVENT_ID) {
            return Err(ReportError::BadEventId);
        }
        if report.kind != RecordKind::Attribute {
            return Ok(self.journal().append(self.record(device, &report)));
        }
        if report.data.len() > MAX_VALUE {
            return Err(ReportError::TooLarge);
        }
        // Before anything is copied or parsed again: a device that reports without end what there is no room for costs little
        // more than the bytes it sends.
        if device.twin.lock().as_ref().is_some_and(|twin| !twin.may_take(&report.path, report.data.len())) {
            return Err(ReportError::TooManyAttributes);
        }
        let value = RawValue::from_string(report.data.to_owned()).map_err(|_| ReportError::NotJson)?;
        let record = self.record(device, &report);
        let (time, received) = (record.time, record.received);
        let mut twin = device.twin.lock();
        let twin = twin.get_or_insert_default();
        if !twin.has_room_for(&report.path, report.data.len()) {
            return Err(ReportError::TooManyAttributes);
        }
        self.twins().note(device);
        let position = self.journal().append(record);
        twin.report(&report.path, position, value, time, received);
        Ok(position)
    }

    /// A report as it is kept, with both times.
    fn record(&self, device: &Device, report: &Report<'_>) -> Record {
        let received = self.clock().now_ms();
        let mut flags = Flags::default();
        match report.time {
            None => flags |= Flags::NO_TIME,
            Some(time) if time > received.saturating_add(AHEAD) || time < EARLIEST => flags |= Flags::CLOCK_SUSPECT,
            Some(_) => {}
        }
        if report.id.is_none() && report.kind == RecordKind::Event {
            flags |= Flags::AT_LEAST_ONCE;
        }
        Record {
            position: Position::START,
            device: device.id,
            serial: Arc::clone(&device.serial),
            kind: report.kind,
            path: Arc::clone(&report.path),
            id: report.id.map(Into::into),
            time: report.time.unwrap_or(received),
            received,
            flags,
            data: report.data.into(),
        }
    }

    /// Stored events of devices that the caller sees, newest first.
    pub async fn events(&self, query: EventQuery, by: &Caller) -> Result<Records, StoreError> {
        let scan = Scan {
            device: query.device,
            kind: Some(RecordKind::Event),
            area: query.area,
            name: query.name,
            time_from: query.from,
            time_to: query.to,
            received_from: query.received_from,
            received_to: query.received_to,
            before: query.before,
            order: Order::Newest,
            limit: query.limit,
            ..Scan::default()
        };
        let Records { items, resume } = self.records(scan, by).await?;
        let items = self.pictures().fold(self.control(), self.clock().now_ms(), items).await?;
        Ok(Records { items, resume })
    }
}
