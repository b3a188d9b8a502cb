//! Pass-through: messages in the device's own format, in both directions.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{Filter, MAX_PASS, Pass, PassError, PassQuery, Record, RecordKind};

use crate::api::Shared;
use crate::events::{end_page, position};
use crate::extract::{Answer, Params, PartInPath, TheCaller, TheDevice, ThePart, TypedBody, device_filter, page_size};
use crate::feed::{self, Show, record_message};
use crate::operations::{DEFAULT_DEADLINE_MS, LONGEST_DEADLINE_MS};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::{DeviceRef, rfc3339};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PassParams {
    /// How long the device may take to say that it has the message, in milliseconds.
    #[param(minimum = 100, maximum = 25000, default = 10000)]
    deadline_ms: Option<u64>,
}

/// What became of a message.
#[derive(Serialize, ToSchema)]
pub(crate) struct PassEnd {
    /// `delivered`: the device has it; `timed_out`: sent, and the device did not say so in time; `offline`: not sent;
    /// `unknown`: sent, then the connection was lost.
    #[schema(pattern = "^(delivered|timed_out|offline|unknown)$", example = "delivered")]
    outcome: &'static str,
}

/// Pass a message to a part of a device as it is
///
/// The body is the message, at most 64 KiB, and its `Content-Type` goes with it. It is sent once and never kept for
/// later.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/pass/{resource}/{index}/{area}/{name}",
    tag = "pass",
    params(PartInPath, PassParams),
    request_body(content = serde_json::Value, content_type = "*/*", description = "The message, as it is"),
    responses(
        (status = 200, description = "What became of it", body = PassEnd),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "The message is longer than 64 KiB, or than this device can take",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "The header Content-Type is missing",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too much waits for the device, or the journal takes no records; nothing was sent",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn pass_message(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    ThePart(path): ThePart,
    Params(params): Params<PassParams>,
    body: TypedBody,
) -> Answer<Json<PassEnd>> {
    let deadline = params.deadline_ms.unwrap_or(DEFAULT_DEADLINE_MS);
    if !(100..=LONGEST_DEADLINE_MS).contains(&deadline) {
        let detail = "deadline_ms must be between 100 and 25000.";
        return Err(Problem::field(Kind::InvalidValue, "deadline_ms", detail));
    }
    if body.bytes.len() > MAX_PASS {
        let detail = format!("The message is longer than {MAX_PASS} bytes.");
        return Err(Problem::field(Kind::BodyTooLarge, "body", detail));
    }
    let deadline = Duration::from_millis(deadline);
    let pass = Pass { path, media_type: &body.media_type, body: &body.bytes, deadline, by: &caller };
    let outcome = shared.platform.pass(&device, pass).await?.as_str();
    Ok(Json(PassEnd { outcome }))
}

impl From<PassError> for Problem {
    fn from(error: PassError) -> Problem {
        match error {
            PassError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            PassError::UnknownDevice => Problem::unknown_device(),
            PassError::Unsupported => {
                Problem::new(Kind::Unsupported, "The device's protocol carries no such messages.")
            }
            PassError::Busy => Problem::new(
                Kind::DeviceBusy,
                "Too much waits for the device already, so the message was not sent. Try again.",
            ),
            PassError::TooLarge => {
                Problem::field(Kind::BodyTooLarge, "body", "The message is larger than this device can take.")
            }
            _ => Problem::new(Kind::StoreUnavailable, "The journal takes no records now, so the message was not sent."),
        }
    }
}

/// A message that went through.
#[derive(Serialize, ToSchema)]
#[schema(as = Passed)]
pub(crate) struct PassedShape<'a> {
    /// Where it stands in the journal; the `id` of the stream.
    #[schema(minimum = 1)]
    position: i64,
    /// Which device it is of or for.
    device: DeviceRef<'a>,
    /// The part of the device; `global` for the device itself.
    resource: &'a str,
    /// Which of several such parts.
    index: &'a str,
    /// The functional area.
    area: &'a str,
    /// The message's name.
    name: &'a str,
    /// When it was received, or when it was known what had become of it.
    #[schema(format = DateTime)]
    time: String,
    #[serde(flatten)]
    entry: Entry<'a>,
}

/// What the platform wrote down of it.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[schema(as = PassedEntry)]
struct Entry<'a> {
    /// `up`: from the device; `down`: to it.
    #[schema(pattern = "^(up|down)$")]
    direction: Cow<'a, str>,
    /// What the message is, `type/subtype`.
    #[schema(example = "application/octet-stream")]
    media_type: Cow<'a, str>,
    /// Its length.
    bytes: u64,
    /// The message.
    #[schema(format = Byte)]
    base64: Cow<'a, str>,
    /// Who sent it, of one to a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Cow<'a, str>>,
    /// What became of it, of one to a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Cow<'a, str>>,
}

impl<'a> From<&'a Record> for PassedShape<'a> {
    fn from(record: &'a Record) -> PassedShape<'a> {
        PassedShape {
            position: record.position.get(),
            device: DeviceRef::new(record.device, &record.serial),
            resource: &record.path.resource,
            index: &record.path.index,
            area: &record.path.area,
            name: &record.path.name,
            time: rfc3339(record.received),
            // The platform wrote it itself.
            entry: serde_json::from_str(&record.data).unwrap_or_default(),
        }
    }
}

/// One page of messages, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct PassedList<'a> {
    /// The messages.
    items: Vec<PassedShape<'a>>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    next: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PassedParams {
    /// Only of or for the device with this id or serial. Messages of a removed device are found by its id.
    device: Option<String>,
    /// Most messages on the page. It may have fewer, or none, and a cursor all the same, where much was left out.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List messages that were passed, newest first
#[utoipa::path(
    get,
    path = "/v1/pass",
    tag = "pass",
    params(PassedParams),
    responses(
        (status = 200, description = "One page of messages", body = PassedList),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_passed(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<PassedParams>,
) -> Answer<Response> {
    let size = page_size(params.limit)?;
    let query = PassQuery {
        device: device_filter(&shared.platform, params.device.as_deref(), &caller)?,
        before: params.cursor.map(|cursor| position("cursor", &cursor)).transpose()?,
        limit: size + 1,
    };
    let mut records = shared.platform.passed_messages(query, &caller).await?;
    let next = end_page(&mut records, size);
    let items = records.items.iter().map(|record| PassedShape::from(&**record)).collect();
    Ok(Json(PassedList { items, next }).into_response())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PassStreamParams {
    /// Only of or for the device with this id or serial.
    device: Option<String>,
    /// Begin after this position; `Last-Event-ID` counts before it. Without either the stream begins now.
    #[param(example = "0")]
    after: Option<String>,
}

/// Follow messages of both directions as they are passed (server-sent events)
///
/// `event: pass` has the position as its `id` and a Passed as its data. To go on after a break, send the last `id` as
/// `Last-Event-ID`: nothing is missed and nothing comes twice. `event: lagged` says with `{"resume": position}` that the
/// messages up to there are gone (retention) and the stream goes on after it. A comment comes every 15 s.
#[utoipa::path(
    get,
    path = "/v1/pass/stream",
    tag = "pass",
    params(
        PassStreamParams,
        ("Last-Event-ID" = Option<String>, Header, description = "Begin after this position"),
    ),
    responses(
        (status = 200, description = "The stream; it ends when the platform shuts down",
            body = String, content_type = "text/event-stream"),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open, or the platform is shutting down",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn stream_passed(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    headers: HeaderMap,
    Params(params): Params<PassStreamParams>,
) -> Answer<Response> {
    let after = feed::begin(&headers, params.after.as_deref())?;
    let device = device_filter(&shared.platform, params.device.as_deref(), &caller)?;
    let filter = Filter { device, ..Filter::all(RecordKind::Pass) };
    let record = |record: &Record| record_message("pass", record.position, &PassedShape::from(record));
    feed::open(&shared, Show { by: caller, filter, after, record, presence: false })
}
