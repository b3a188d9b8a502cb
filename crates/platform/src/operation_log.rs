//! The operation log: one record of the journal for each operation, written when it has ended.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;
use vestibule_store::{DeviceId, DevicePath, Flags, Order, Position, Record, RecordKind, Scan, StoreError};

use crate::audit::DEVICE;
use crate::caller::Caller;
use crate::device::Device;
use crate::invoke::Outcome;
use crate::platform::Platform;
use crate::records::Records;

/// How long an answer waits for its record.
pub(crate) const LOGGED: Duration = Duration::from_secs(5);

/// Which operations to read back, newest first.
#[derive(Debug, Clone, Default)]
pub struct OperationQuery {
    /// Only of this device.
    pub device: Option<DeviceId>,
    /// Only of this area.
    pub area: Option<String>,
    /// Only with this name.
    pub name: Option<String>,
    /// Ended at or after, milliseconds since 1970.
    pub from: Option<i64>,
    /// Ended before, milliseconds since 1970.
    pub to: Option<i64>,
    /// Only older than this position; the cursor of the previous page.
    pub before: Option<Position>,
    /// At most so many.
    pub limit: usize,
}

/// An operation that has ended.
pub(crate) struct Ended<'a> {
    pub id: Uuid,
    /// Under which id it waited for its device, if it did.
    pub queued: Option<Uuid>,
    pub path: &'a Arc<DevicePath>,
    pub by: &'a str,
    pub input: Option<&'a RawValue>,
    pub outcome: &'a Outcome,
    pub took: Duration,
}

/// What is kept of an operation; the record's `id` is the operation's.
#[derive(Serialize)]
struct Entry<'a> {
    by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    took_ms: u64,
}

impl Platform {
    /// How operations of devices that the caller sees ended, newest first. `data` of a record is an object with `by`, `outcome`, `took_ms` and,
    /// where there are such, `input`, `output`, `code` and `message`; `queued` is the id under which one waited that has ended
    /// now.
    pub async fn operations(&self, query: OperationQuery, by: &Caller) -> Result<Records, StoreError> {
        let scan = Scan {
            device: query.device,
            kind: Some(RecordKind::Operation),
            area: query.area,
            name: query.name,
            time_from: query.from,
            time_to: query.to,
            before: query.before,
            order: Order::Newest,
            limit: query.limit,
            ..Scan::default()
        };
        self.records(scan, by).await
    }

    /// Waits for a record to be durable: what a caller is told can be read back at once, unless the disk is in trouble.
    /// The device has done it all the same then, and that is the more urgent news.
    pub(crate) async fn logged(&self, position: Position) {
        let mut durable = self.journal().watch_durable();
        if tokio::time::timeout(LOGGED, durable.wait_for(|durable| *durable >= position)).await.is_err() {
            tracing::warn!(%position, "what was done to a device is not durable yet");
        }
    }

    /// Writes down how an operation ended. Gives the position of the record.
    pub(crate) fn log_operation(&self, device: &Device, ended: Ended<'_>) -> Position {
        let Ended { id, queued, path, by, input, outcome, took } = ended;
        let (mut output, mut code, mut message) = (None, None, None);
        match outcome {
            Outcome::Done { output: text } => {
                output = text.as_deref().and_then(|text| serde_json::from_str(text).ok());
            }
            Outcome::Failed { code: number, message: words } => (code, message) = (Some(*number), words.as_deref()),
            _ => {}
        }
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        metrics::counter!("vestibule_operations_total", "outcome" => outcome.as_str()).increment(1);
        let entry = Entry { by, queued, input, outcome: outcome.as_str(), output, code, message, took_ms };
        self.append_operation(device, path, id, &entry)
    }

    /// Writes down that an operation was answered when nobody waited for it any more.
    pub(crate) fn log_late(&self, device: &Device, path: &Arc<DevicePath>, code: i64) {
        let entry = Entry {
            by: DEVICE,
            queued: None,
            input: None,
            outcome: "late",
            output: None,
            code: Some(code),
            message: None,
            took_ms: 0,
        };
        self.append_operation(device, path, Uuid::now_v7(), &entry);
    }

    fn append_operation(&self, device: &Device, path: &Arc<DevicePath>, id: Uuid, entry: &Entry<'_>) -> Position {
        let data = serde_json::to_string(entry).expect("raw JSON, text and numbers are JSON");
        let now = self.clock().now_ms();
        self.journal().append(Record {
            position: Position::START,
            device: device.id,
            serial: Arc::clone(&device.serial),
            kind: RecordKind::Operation,
            path: Arc::clone(path),
            id: Some(id.to_string().into()),
            time: now,
            received: now,
            flags: Flags::NONE,
            data: data.into(),
        })
    }
}
