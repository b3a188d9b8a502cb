//! Operations: sent once, with an honest word of how they ended.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use vestibule_store::{DevicePath, StoreError};

use crate::caller::Caller;
use crate::device::Device;
use crate::facts::{Fact, Step};
use crate::json::{depth, path_error};
use crate::link::{Answer, NotSent, Operate, Reply};
use crate::once::Key;
use crate::operation_log::Ended;
use crate::platform::{Platform, to_the_end};
use crate::presence::live_link;

const WAITS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const MAX_KEY: usize = 255;
const DEADLINES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(120);
const MAX_INPUT: usize = 64 * 1024;
const MAX_DEPTH: usize = 32;

/// An operation to be carried out by a device.
#[derive(Debug, Clone)]
pub struct Invoke<'a> {
    /// Which operation of which part of the device.
    pub path: DevicePath,
    /// The input, JSON text of one value of at most 64 KiB and 32 levels; `None` for an operation without.
    pub input: Option<&'a str>,
    /// How long the device may take, 100 ms to 2 min.
    pub deadline: Duration,
    /// How long it may wait for a device that is not there, 1 s to 24 h; `None`: not at all.
    pub queue: Option<Duration>,
    /// What the caller calls this request, 1 to 255 bytes: asked again within 24 h, it is answered as it was the first
    /// time, and nothing is sent.
    pub idempotency_key: Option<&'a str>,
    /// Who wants it.
    pub by: &'a Caller,
}

/// How an operation ended. Nothing is sent twice: after [`Outcome::TimedOut`] and [`Outcome::Unknown`] it may have been
/// carried out or not, and it is for the caller to find out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The device did it.
    Done {
        /// JSON text of its output, where there is one.
        output: Option<Box<str>>,
    },
    /// The device says that it did not.
    Failed {
        /// The device's own code.
        code: i64,
        /// Its words, where it sends some.
        message: Option<Box<str>>,
    },
    /// Sent, and not answered within the deadline.
    TimedOut,
    /// The device is not there; nothing was sent.
    Offline,
    /// The device is not there; the operation waits for it, under the id that is returned with this.
    Queued {
        /// When it is not sent any more, milliseconds since 1970.
        expires: i64,
    },
    /// It waited for the device, which did not come in time; nothing was sent.
    Expired,
    /// It waited for the device, and somebody took it back; nothing was sent.
    Cancelled,
    /// Sent, then the connection was lost; or the platform ended in the middle; or it was to wait, and the store did not
    /// say whether it does.
    Unknown,
}

impl Outcome {
    /// The name for people and programs, snake case.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Done { .. } => "done",
            Outcome::Failed { .. } => "failed",
            Outcome::TimedOut => "timed_out",
            Outcome::Offline => "offline",
            Outcome::Queued { .. } => "queued",
            Outcome::Expired => "expired",
            Outcome::Cancelled => "cancelled",
            Outcome::Unknown => "unknown",
        }
    }
}

/// Why an operation was not even tried. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvokeError {
    /// A value is not acceptable.
    #[error("{field} {reason}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Too many operations of the device are under way, or it takes too little of what is sent.
    #[error("too much waits for the device already")]
    Busy,
    /// The input is larger than this device can take.
    #[error("the input is larger than the device can take")]
    TooLarge,
    /// As many operations wait for the device as may.
    #[error("as many operations wait for the device as may")]
    QueueFull,
    /// The key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyTaken,
    /// The request with this key is under way.
    #[error("the request with this idempotency key is under way")]
    KeyUnderWay,
    /// The journal takes no records, and what is done to a device is written down.
    #[error("the journal takes no records now")]
    NoRoom,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Platform {
    /// Has a device carry out an operation. It is sent at most once, and kept for later only when asked; it runs to its
    /// end also when the caller goes away. How it ended is in the operation log under the id that is returned, durably,
    /// and in the audit.
    ///
    /// # Errors
    /// [`InvokeError`]: nothing was sent, and nothing written down.
    pub async fn invoke(
        self: &Arc<Self>,
        device: &Arc<Device>,
        invoke: Invoke<'_>,
    ) -> Result<(Uuid, Outcome), InvokeError> {
        check(&invoke)?;
        let request = Request {
            device: Arc::clone(device),
            path: Arc::new(invoke.path),
            input: invoke.input.map(raw).transpose()?,
            deadline: invoke.deadline,
            queue: invoke.queue,
            by: invoke.by.name().into(),
        };
        if !self.journal().has_room() {
            return Err(InvokeError::NoRoom);
        }
        let by = invoke.by.clone();
        let key = invoke.idempotency_key.map(|key| Key::of(key, &request, &by));
        let platform = Arc::clone(self);
        let underway = self.begin_operation();
        to_the_end(async move {
            let _underway = underway;
            match key {
                Some(key) => platform.once(key, request, &by).await,
                None => platform.perform(request, &by).await,
            }
        })
        .await
    }

    /// Sends the operation, or queues it, and writes down how that ended.
    pub(crate) async fn perform(
        self: &Arc<Self>,
        request: Request,
        by: &Caller,
    ) -> Result<(Uuid, Outcome), InvokeError> {
        by.still_sees(&request.device)?;
        let begun = Instant::now();
        let mut outcome = carry_out(&request).await?;
        let id = Uuid::now_v7();
        if outcome == Outcome::Offline
            && let Some(length) = request.queue
        {
            outcome = self.enqueue(id, &request, length).await?;
        }
        self.conclude(&request, id, None, &outcome, begun.elapsed()).await;
        Ok((id, outcome))
    }

    /// Writes down how an operation ended; `queued` is what it was when it began to wait.
    pub(crate) async fn conclude(
        &self,
        request: &Request,
        id: Uuid,
        queued: Option<Uuid>,
        outcome: &Outcome,
        took: Duration,
    ) {
        let Request { device, path, input, by, .. } = request;
        let input = input.as_deref();
        let logged = self.log_operation(device, Ended { id, queued, path, by, input, outcome, took });
        if matches!(outcome, Outcome::TimedOut | Outcome::Unknown) {
            let text =
                "An operation was asked of the device and no answer came: whether it was carried out is not known.";
            self.fact(device, Fact::failure(Step::Operation, outcome.as_str(), text, None));
        }
        let DevicePath { resource, index, area, name } = &**path;
        let detail = json!({
            "resource": resource, "index": index, "area": area, "name": name,
            "operation_id": id, "outcome": outcome.as_str(),
        });
        let ok = matches!(outcome, Outcome::Done { .. } | Outcome::Queued { .. });
        let audited = self.audited(by, "operation.invoke", device, detail, ok);
        tokio::join!(self.logged(logged), audited);
    }

    /// An adapter got an answer to an operation that nobody waits for any more.
    /// With its `path`, where that is known, it is in the operation log with the outcome `late` and the device's code.
    pub fn late_answer(&self, device: &Arc<Device>, path: Option<&Arc<DevicePath>>, code: i64) {
        metrics::counter!("vestibule_operations_late_total").increment(1);
        if let Some(path) = path {
            self.log_late(device, path, code);
        }
        let text = if code == 0 {
            "The device answered an operation after its deadline: it was carried out."
        } else {
            "The device answered an operation after its deadline: it failed."
        };
        self.fact(device, Fact { ok: code == 0, ..Fact::failure(Step::Operation, "late_answer", text, None) });
    }
}

/// An operation somebody asked for, checked.
pub(crate) struct Request {
    pub(crate) device: Arc<Device>,
    pub(crate) path: Arc<DevicePath>,
    pub(crate) input: Option<Box<RawValue>>,
    pub(crate) deadline: Duration,
    pub(crate) queue: Option<Duration>,
    pub(crate) by: Box<str>,
}

/// Sends an operation and waits for its answer. [`Outcome::Offline`]: nothing was sent.
pub(crate) async fn carry_out(request: &Request) -> Result<Outcome, InvokeError> {
    let Request { device, path, input, deadline, .. } = request;
    let Some(link) = live_link(device) else { return Ok(Outcome::Offline) };
    let (reply, mut answer) = Reply::new();
    let input = input.as_deref().map(RawValue::get);
    match link.operate(Operate { path, input, ttl: *deadline, reply }) {
        Ok(()) => {}
        Err(NotSent::Ending) => return Ok(Outcome::Offline),
        Err(NotSent::Busy) => return Err(InvokeError::Busy),
        Err(NotSent::TooLarge) => return Err(InvokeError::TooLarge),
        Err(NotSent::NotAddressable(reason)) => return Err(InvokeError::Invalid { field: "path", reason }),
        Err(NotSent::Unacceptable(reason)) => return Err(InvokeError::Invalid { field: "input", reason }),
        Err(NotSent::Unsupported) => {
            return Err(InvokeError::Invalid {
                field: "path",
                reason: "names an operation, and the device's protocol has none",
            });
        }
    }
    let answered = match timeout(*deadline, &mut answer).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(_)) => return Ok(Outcome::Unknown),
        Err(_) => {
            // Either it is here now, or its sender is told that it is late.
            answer.close();
            answer.try_recv().ok()
        }
    };
    Ok(match answered {
        Some(Answer::Done(output)) => Outcome::Done { output },
        Some(Answer::Failed { code, message }) => Outcome::Failed { code, message },
        None => Outcome::TimedOut,
    })
}

pub(crate) fn raw(text: &str) -> Result<Box<RawValue>, InvokeError> {
    serde_json::from_str(text).map_err(|_| InvokeError::Invalid { field: "input", reason: "must be one JSON value" })
}

fn check(invoke: &Invoke<'_>) -> Result<(), InvokeError> {
    let invalid = |field, reason| Err(InvokeError::Invalid { field, reason });
    if !DEADLINES.contains(&invoke.deadline) {
        return invalid("deadline_ms", "must be between 100 and 120000");
    }
    if invoke.queue.is_some_and(|length| !WAITS.contains(&length)) {
        return invalid("expires_in", "must be between 1 and 86400 seconds");
    }
    if invoke.idempotency_key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY || key.contains('\0')) {
        return invalid("Idempotency-Key", "must have 1 to 255 bytes, none of them 0");
    }
    if let Some((field, reason)) = path_error(&invoke.path) {
        return invalid(field, reason);
    }
    match invoke.input {
        Some(input) if input.len() > MAX_INPUT => invalid("input", "is longer than 65536 bytes"),
        Some(input) if depth(input.as_bytes()) > MAX_DEPTH => invalid("input", "is nested more than 32 levels deep"),
        _ => Ok(()),
    }
}
