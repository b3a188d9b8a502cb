//! Operations: have a device do something; see what was done.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use vestibule_platform::{Invoke, InvokeError, OperationQuery, Outcome, Record};

use crate::api::Shared;
use crate::events::{end_page, position};
use crate::extract::{
    Answer, JsonBody, Nothing, Params, PartInPath, TheCaller, TheDevice, ThePart, device_filter, one_header, page_size,
};
use crate::moment::Moment;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::{DeviceRef, rfc3339};

pub(crate) const DEFAULT_DEADLINE_MS: u64 = 10_000;
/// Shorter than the time in which an answer has to begin.
pub(crate) const LONGEST_DEADLINE_MS: u64 = 25_000;
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An operation to be carried out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationToInvoke {
    /// What the operation takes, any JSON of at most 64 KiB; null or absent for one that takes nothing.
    #[serde(default)]
    input: Option<Value>,
    /// How long the device may take, in milliseconds.
    #[schema(minimum = 100, maximum = 25000, default = 10000)]
    deadline_ms: Option<u64>,
    /// Has the operation wait for a device that is not there; absent: it is not kept for later.
    queue: Option<WaitToQueue>,
}

/// How an operation waits for its device.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Queue)]
pub(crate) struct WaitToQueue {
    /// After so many seconds it is not sent any more.
    #[schema(minimum = 1, maximum = 86400, example = 600)]
    expires_in: u64,
}

/// How an operation ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationEnd {
    /// The operation's id in the operation log.
    #[schema(format = Uuid)]
    operation_id: String,
    /// `done`; `failed`: the device says so; `timed_out`: sent, and not answered in time; `offline`: not sent; `queued`:
    /// not sent, it waits for the device; `unknown`: sent, then the connection was lost, or it was to wait and the store
    /// did not say whether it does. After `timed_out` and `unknown` it may have been carried out or not.
    #[schema(pattern = "^(done|failed|timed_out|offline|queued|unknown)$", example = "done")]
    outcome: &'static str,
    /// When one that waits is not sent any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    expires: Option<String>,
    /// What the device answered, any JSON; absent without output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    output: Option<Box<RawValue>>,
    /// The device's own code of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    /// The device's own words of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Box<str>>,
}

/// Have a device carry out an operation
///
/// It is sent at most once, and kept for later only with `queue`. The answer comes when the device has answered, or its
/// time is over. What becomes of one that waits is in the operation log, with its `operation_id` as `queued`. A request
/// with an `Idempotency-Key` that came before, within 24 hours, is answered as it was then and nothing is sent.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/operations/{resource}/{index}/{area}/{name}",
    tag = "operations",
    params(
        PartInPath,
        ("Idempotency-Key" = Option<String>, Header, description = "What you call this request, 1 to 255 bytes"),
    ),
    request_body = OperationToInvoke,
    responses(
        (status = 200, description = "How it ended", body = OperationEnd),
        (status = 202, description = "It waits for the device", body = OperationEnd),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "The request with this idempotency key is under way",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "The body is too long, or the input is larger than this device can take",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too much waits for the device, or the journal takes no records; nothing was sent",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn invoke_operation(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    ThePart(path): ThePart,
    _: Params<Nothing>,
    headers: HeaderMap,
    JsonBody(operation): JsonBody<OperationToInvoke>,
) -> Answer<(StatusCode, Json<OperationEnd>)> {
    let deadline = operation.deadline_ms.unwrap_or(DEFAULT_DEADLINE_MS);
    if !(100..=LONGEST_DEADLINE_MS).contains(&deadline) {
        let detail = "deadline_ms must be between 100 and 25000.";
        return Err(Problem::field(Kind::InvalidValue, "deadline_ms", detail));
    }
    let idempotency_key = one_header(&headers, &KEY).map_err(|()| {
        Problem::field(Kind::InvalidValue, "Idempotency-Key", "Idempotency-Key must be one header of printable ASCII.")
    })?;
    let input = operation.input.map(|input| input.to_string());
    let invoke = Invoke {
        path,
        input: input.as_deref(),
        deadline: Duration::from_millis(deadline),
        queue: operation.queue.map(|queue| Duration::from_secs(queue.expires_in)),
        idempotency_key,
        by: &caller,
    };
    let (id, outcome) = shared.platform.invoke(&device, invoke).await?;
    let waits = matches!(outcome, Outcome::Queued { .. });
    let status = if waits { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(OperationEnd::of(id, outcome))))
}

impl OperationEnd {
    fn of(id: Uuid, outcome: Outcome) -> OperationEnd {
        let mut end = OperationEnd {
            operation_id: id.to_string(),
            outcome: outcome.as_str(),
            expires: None,
            output: None,
            code: None,
            message: None,
        };
        match outcome {
            Outcome::Done { output } => end.output = output.and_then(|text| RawValue::from_string(text.into()).ok()),
            Outcome::Failed { code, message } => (end.code, end.message) = (Some(code), message),
            Outcome::Queued { expires } => end.expires = Some(rfc3339(expires)),
            _ => {}
        }
        end
    }
}

impl From<InvokeError> for Problem {
    fn from(error: InvokeError) -> Problem {
        match error {
            InvokeError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            InvokeError::Busy => Problem::new(
                Kind::DeviceBusy,
                "Too much waits for the device already, so the operation was not sent. Try again.",
            ),
            InvokeError::TooLarge => {
                Problem::field(Kind::BodyTooLarge, "input", "The input is larger than this device can take.")
            }
            InvokeError::QueueFull => Problem::new(
                Kind::QueueFull,
                "As many operations wait for the device as may. Cancel some, or wait until it comes.",
            ),
            InvokeError::KeyTaken => Problem::field(
                Kind::KeyTaken,
                "Idempotency-Key",
                "The idempotency key was used for another request. Take a new key for a new request.",
            ),
            InvokeError::KeyUnderWay => Problem::new(
                Kind::KeyUnderWay,
                "The request with this idempotency key is under way. Ask again for its answer.",
            ),
            InvokeError::Store(error) => Problem::from(error),
            _ => {
                Problem::new(Kind::StoreUnavailable, "The journal takes no records now, so the operation was not sent.")
            }
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OperationParams {
    /// Only of the device with this id or serial. Operations of a removed device are found by its id.
    device: Option<String>,
    /// Only of this area.
    area: Option<String>,
    /// Only with this name.
    name: Option<String>,
    /// Only ended at or after this moment: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    from: Option<Moment>,
    /// Only ended before this moment: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "1769860800000")]
    to: Option<Moment>,
    /// Most operations on the page. It may have fewer, or none, and a cursor all the same, where much was left out.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// An operation that has ended.
#[derive(Serialize, ToSchema)]
#[schema(as = Operation)]
pub(crate) struct OperationShape<'a> {
    /// Where it stands in the journal.
    #[schema(minimum = 1)]
    position: i64,
    /// Its id.
    #[schema(required = true, format = Uuid)]
    operation_id: Option<&'a str>,
    /// Which device it was for.
    device: DeviceRef<'a>,
    /// The part of the device; `global` for the device itself.
    resource: &'a str,
    /// Which of several such parts.
    index: &'a str,
    /// The functional area.
    area: &'a str,
    /// The operation.
    name: &'a str,
    /// When it ended.
    #[schema(format = DateTime)]
    ended: String,
    #[serde(flatten)]
    entry: Entry<'a>,
}

/// What the platform wrote down of it.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[schema(as = OperationEntry)]
struct Entry<'a> {
    /// Who wanted it.
    by: Cow<'a, str>,
    /// The `operation_id` under which it waited for its device, for one that did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Uuid)]
    queued: Option<Cow<'a, str>>,
    /// What it was given; absent without input.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    input: Option<&'a RawValue>,
    /// As in the answer to the caller. Of one that waited also `expired` and `cancelled`: it was not sent. `late`, by
    /// `device`: the answer, with its `code`, to an operation of this name that has timed out; a record of its own, under
    /// an `operation_id` of its own.
    outcome: Cow<'a, str>,
    /// What the device answered; absent without output.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    output: Option<&'a RawValue>,
    /// The device's own code of a failure, and of an answer that came late; 0 there: it was carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    /// The device's own words of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    /// How long it took, in milliseconds.
    took_ms: u64,
}

impl<'a> From<&'a Record> for OperationShape<'a> {
    fn from(record: &'a Record) -> OperationShape<'a> {
        OperationShape {
            position: record.position.get(),
            operation_id: record.id.as_deref(),
            device: DeviceRef::new(record.device, &record.serial),
            resource: &record.path.resource,
            index: &record.path.index,
            area: &record.path.area,
            name: &record.path.name,
            ended: rfc3339(record.time),
            // The platform wrote it itself.
            entry: serde_json::from_str(&record.data).unwrap_or_default(),
        }
    }
}

/// One page of operations, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationList<'a> {
    /// The operations.
    items: Vec<OperationShape<'a>>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// List operations that have ended, newest first
#[utoipa::path(
    get,
    path = "/v1/operations",
    tag = "operations",
    params(OperationParams),
    responses(
        (status = 200, description = "One page of operations", body = OperationList),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_operations(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<OperationParams>,
) -> Answer<Response> {
    let size = page_size(params.limit)?;
    let query = OperationQuery {
        device: device_filter(&shared.platform, params.device.as_deref(), &caller)?,
        area: params.area,
        name: params.name,
        from: params.from.map(|moment| moment.0),
        to: params.to.map(|moment| moment.0),
        before: params.cursor.map(|cursor| position("cursor", &cursor)).transpose()?,
        limit: size + 1,
    };
    let mut records = shared.platform.operations(query, &caller).await?;
    let next = end_page(&mut records, size);
    let items = records.items.iter().map(|record| OperationShape::from(&**record)).collect();
    Ok(Json(OperationList { items, next }).into_response())
}
