//! Transparent pass-through: messages between an application and a part of a device that the platform carries as they
//! are.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;
use vestibule_store::{DeviceId, DevicePath, Flags, Order, Position, Record, RecordKind, Scan, StoreError};

use crate::caller::Caller;
use crate::device::Device;
use crate::events::ReportError;
use crate::json::path_error;
use crate::link::{NotSent, PassMessage, Reply};
use crate::platform::{Platform, to_the_end};
use crate::presence::live_link;
use crate::records::Records;

/// The longest message that is passed through, in bytes.
pub const MAX_PASS: usize = 64 * 1024;
const MAX_MEDIA_TYPE: usize = 127;
const DEADLINES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(120);

/// A message to be passed to a device.
#[derive(Debug, Clone)]
pub struct Pass<'a> {
    /// Which part of the device it is for.
    pub path: DevicePath,
    /// What the body is, `type/subtype` with optional parameters; at most 127 bytes of ASCII.
    pub media_type: &'a str,
    /// The message, at most 64 KiB.
    pub body: &'a [u8],
    /// How long the device may take to say that it has it, 100 ms to 2 min.
    pub deadline: Duration,
    /// Who sends it.
    pub by: &'a Caller,
}

/// What became of a message. It is sent once and never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassOutcome {
    /// The device has it.
    Delivered,
    /// Sent; the device did not say within the deadline that it has it.
    TimedOut,
    /// The device is not there; nothing was sent.
    Offline,
    /// Sent, then the connection was lost.
    Unknown,
}

impl PassOutcome {
    /// The name for people and programs, snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            PassOutcome::Delivered => "delivered",
            PassOutcome::TimedOut => "timed_out",
            PassOutcome::Offline => "offline",
            PassOutcome::Unknown => "unknown",
        }
    }
}

/// Why a message was not even tried. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// A value is not acceptable.
    #[error("{field} {reason}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The device's protocol carries no such messages.
    #[error("the device's protocol carries no such messages")]
    Unsupported,
    /// The device takes too little of what is sent.
    #[error("too much waits for the device already")]
    Busy,
    /// The message is larger than this device can take.
    #[error("the message is larger than the device can take")]
    TooLarge,
    /// The journal takes no records, and what is sent to a device is written down.
    #[error("the journal takes no records now")]
    NoRoom,
    /// The caller does not see the device (any more).
    #[error("there is no such device")]
    UnknownDevice,
}

/// Which messages to read back, newest first.
#[derive(Debug, Clone, Default)]
pub struct PassQuery {
    /// Only of this device.
    pub device: Option<DeviceId>,
    /// Only older than this position; the cursor of the previous page.
    pub before: Option<Position>,
    /// At most so many.
    pub limit: usize,
}

/// What is kept of a message.
#[derive(Serialize)]
struct Entry<'a> {
    direction: &'static str,
    media_type: &'a str,
    bytes: usize,
    base64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

impl Platform {
    /// Passes a message to a device. What became of it is in the journal, durably when this returns, and in the audit.
    ///
    /// # Errors
    /// [`PassError`]: nothing was sent.
    pub async fn pass(self: &Arc<Self>, device: &Arc<Device>, pass: Pass<'_>) -> Result<PassOutcome, PassError> {
        check(&pass)?;
        if !self.journal().has_room() {
            return Err(PassError::NoRoom);
        }
        let (platform, device) = (Arc::clone(self), Arc::clone(device));
        let (path, media_type, body) = (Arc::new(pass.path), pass.media_type.to_owned(), pass.body.to_vec());
        let (deadline, by) = (pass.deadline, pass.by.clone());
        let underway = self.begin_operation();
        to_the_end(async move {
            let _underway = underway;
            by.still_sees(&device).map_err(|_| PassError::UnknownDevice)?;
            let outcome = send(&device, &path, &media_type, &body, deadline).await?;
            metered("down", body.len());
            let detail = json!({
                "resource": path.resource, "index": path.index, "area": path.area, "name": path.name,
                "media_type": media_type, "bytes": body.len(), "outcome": outcome.as_str(),
            });
            let entry = Entry {
                direction: "down",
                media_type: &media_type,
                bytes: body.len(),
                base64: STANDARD.encode(&body),
                by: Some(by.name()),
                outcome: Some(outcome.as_str()),
            };
            let logged = platform.keep_passed(&device, &path, &entry);
            let ok = outcome == PassOutcome::Delivered;
            let audited = platform.audited(by.name(), "pass.deliver", &device, detail, ok);
            tokio::join!(platform.logged(logged), audited);
            Ok(outcome)
        })
        .await
    }

    /// Takes a message that a device sends through. It is durable, and may be acknowledged, once `journal().durable()`
    /// has reached the position returned. The caller has seen that the journal has room.
    pub fn passed(
        &self,
        device: &Device,
        path: &Arc<DevicePath>,
        media_type: &str,
        body: &[u8],
    ) -> Result<Position, ReportError> {
        if path_error(path).is_some() {
            return Err(ReportError::BadPath);
        }
        if body.len() > MAX_PASS || media_type.len() > MAX_MEDIA_TYPE {
            return Err(ReportError::TooLarge);
        }
        metered("up", body.len());
        let (bytes, base64) = (body.len(), STANDARD.encode(body));
        Ok(self.keep_passed(
            device,
            path,
            &Entry { direction: "up", media_type, bytes, base64, by: None, outcome: None },
        ))
    }

    /// Messages that were passed to or from devices that the caller sees, newest first. `data` of a record is an object with `direction`, `media_type`, `bytes`
    /// and `base64`; of one to a device also `by` and `outcome`.
    pub async fn passed_messages(&self, query: PassQuery, by: &Caller) -> Result<Records, StoreError> {
        let PassQuery { device, before, limit } = query;
        let kind = Some(RecordKind::Pass);
        self.records(Scan { device, kind, before, order: Order::Newest, limit, ..Scan::default() }, by).await
    }

    fn keep_passed(&self, device: &Device, path: &Arc<DevicePath>, entry: &Entry<'_>) -> Position {
        let now = self.clock().now_ms();
        self.journal().append(Record {
            position: Position::START,
            device: device.id,
            serial: Arc::clone(&device.serial),
            kind: RecordKind::Pass,
            path: Arc::clone(path),
            id: None,
            time: now,
            received: now,
            flags: Flags::NO_TIME,
            data: serde_json::to_string(entry).expect("text and numbers are JSON").into(),
        })
    }
}

fn metered(direction: &'static str, bytes: usize) {
    metrics::counter!("vestibule_pass_messages_total", "direction" => direction).increment(1);
    metrics::counter!("vestibule_pass_bytes_total", "direction" => direction).increment(bytes as u64);
}

async fn send(
    device: &Device,
    path: &DevicePath,
    media_type: &str,
    body: &[u8],
    deadline: Duration,
) -> Result<PassOutcome, PassError> {
    let Some(link) = live_link(device) else { return Ok(PassOutcome::Offline) };
    let (reply, answer) = Reply::new();
    match link.pass(PassMessage { path, media_type, body, ttl: deadline, reply }) {
        Ok(()) => {}
        Err(NotSent::Ending) => return Ok(PassOutcome::Offline),
        Err(NotSent::Busy) => return Err(PassError::Busy),
        Err(NotSent::TooLarge) => return Err(PassError::TooLarge),
        Err(NotSent::NotAddressable(reason)) => return Err(PassError::Invalid { field: "path", reason }),
        Err(NotSent::Unacceptable(reason)) => return Err(PassError::Invalid { field: "body", reason }),
        Err(NotSent::Unsupported) => return Err(PassError::Unsupported),
    }
    Ok(match timeout(deadline, answer).await {
        Ok(Ok(_)) => PassOutcome::Delivered,
        Ok(Err(_)) => PassOutcome::Unknown,
        Err(_) => PassOutcome::TimedOut,
    })
}

fn check(pass: &Pass<'_>) -> Result<(), PassError> {
    let invalid = |field, reason| Err(PassError::Invalid { field, reason });
    if !DEADLINES.contains(&pass.deadline) {
        return invalid("deadline_ms", "must be between 100 and 120000");
    }
    if let Some((field, reason)) = path_error(&pass.path) {
        return invalid(field, reason);
    }
    let media_type = pass.media_type;
    let is_typed = media_type.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
    if media_type.len() > MAX_MEDIA_TYPE || !is_typed || !media_type.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return invalid("Content-Type", "must be type/subtype of at most 127 printable ASCII characters");
    }
    if pass.body.len() > MAX_PASS { invalid("body", "is longer than 65536 bytes") } else { Ok(()) }
}
