//! Operations: sent once, with an honest word of how they ended.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use vestibule_store::DevicePath;

use crate::device::Device;
use crate::facts::{Fact, Step};
use crate::json::{depth, path_error};
use crate::link::{Answer, NotSent, Operate, Reply};
use crate::operation_log::Ended;
use crate::permission::Caller;
use crate::platform::{Platform, to_the_end};
use crate::presence::live_link;

const DEADLINES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(120);
/// How long an answer waits for its record in the operation log.
const LOGGED: Duration = Duration::from_secs(5);
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
    /// Who wants it.
    pub by: &'a Caller,
}

/// How an operation ended. Nothing is sent twice: after [`Outcome::TimedOut`] and [`Outcome::Unknown`] it may have been
/// carried out or not, and it is for the caller to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Sent, then the connection was lost.
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
            Outcome::Unknown => "unknown",
        }
    }
}

/// Why an operation was not even tried. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// The journal takes no records, and what is done to a device is written down.
    #[error("the journal takes no records now")]
    NoRoom,
}

impl Platform {
    /// Has a device carry out an operation. It is sent at most once and never kept for later; it runs to its end also
    /// when the caller goes away. How it ended is in the operation log under the id that is returned, durably.
    ///
    /// # Errors
    /// [`InvokeError`]: nothing was sent, and nothing written down.
    pub async fn invoke(
        self: &Arc<Self>,
        device: &Arc<Device>,
        invoke: Invoke<'_>,
    ) -> Result<(Uuid, Outcome), InvokeError> {
        check(&invoke)?;
        let input: Option<Box<RawValue>> = match invoke.input {
            None => None,
            Some(text) => Some(
                serde_json::from_str(text)
                    .map_err(|_| InvokeError::Invalid { field: "input", reason: "must be one JSON value" })?,
            ),
        };
        if !self.journal().has_room() {
            return Err(InvokeError::NoRoom);
        }
        let (platform, device) = (Arc::clone(self), Arc::clone(device));
        let (path, deadline) = (Arc::new(invoke.path), invoke.deadline);
        let by: Box<str> = invoke.by.name().into();
        let underway = self.begin_operation();
        to_the_end(async move {
            let _underway = underway;
            let begun = Instant::now();
            let outcome = carry_out(&device, &path, input.as_deref(), deadline).await?;
            let id = Uuid::now_v7();
            let (input, took) = (input.as_deref(), begun.elapsed());
            let logged =
                platform.log_operation(&device, Ended { id, path: &path, by: &by, input, outcome: &outcome, took });
            if matches!(outcome, Outcome::TimedOut | Outcome::Unknown) {
                let text =
                    "An operation was sent to the device and no answer came: whether it was carried out is not known.";
                platform.fact(&device, Fact::failure(Step::Operation, outcome.as_str(), text, None));
            }
            // What the caller is told can be read back at once, unless the disk is in trouble: the device has done it all
            // the same, and that is the more urgent news.
            let mut durable = platform.journal().watch_durable();
            if timeout(LOGGED, durable.wait_for(|durable| *durable >= logged)).await.is_err() {
                tracing::warn!(serial = %device.serial, %id, "how an operation ended is not durable yet");
            }
            Ok((id, outcome))
        })
        .await
    }

    /// An adapter got an answer to an operation that nobody waits for any more.
    pub fn late_answer(&self, device: &Arc<Device>, code: i64) {
        metrics::counter!("vestibule_operations_late_total").increment(1);
        let text = if code == 0 {
            "The device answered an operation after its deadline: it was carried out."
        } else {
            "The device answered an operation after its deadline: it failed."
        };
        self.fact(device, Fact { ok: code == 0, ..Fact::failure(Step::Operation, "late_answer", text, None) });
    }
}

async fn carry_out(
    device: &Device,
    path: &DevicePath,
    input: Option<&RawValue>,
    deadline: Duration,
) -> Result<Outcome, InvokeError> {
    let Some(link) = live_link(device) else { return Ok(Outcome::Offline) };
    let (reply, mut answer) = Reply::new();
    let input = input.map(RawValue::get);
    match link.operate(Operate { path, input, ttl: deadline, reply }) {
        Ok(()) => {}
        Err(NotSent::Ending) => return Ok(Outcome::Offline),
        Err(NotSent::Busy) => return Err(InvokeError::Busy),
        Err(NotSent::TooLarge) => return Err(InvokeError::TooLarge),
        Err(NotSent::NotAddressable(reason)) => return Err(InvokeError::Invalid { field: "path", reason }),
    }
    let answered = match timeout(deadline, &mut answer).await {
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

fn check(invoke: &Invoke<'_>) -> Result<(), InvokeError> {
    let invalid = |field, reason| Err(InvokeError::Invalid { field, reason });
    if !DEADLINES.contains(&invoke.deadline) {
        return invalid("deadline_ms", "must be between 100 and 120000");
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
