//! Attributes: what devices report of themselves, and what they are wished to be.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{DevicePath, Leaf, PastLeaf, Set, SetError, SetOutcome};

use crate::api::Shared;
use crate::extract::{
    Answer, DeviceInPath, JsonBody, Nothing, Params, PartInPath, TheCaller, TheDevice, ThePart, cut, page_size,
};
use crate::moment::Moment;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;

const DEFAULT_WAIT_MS: u64 = 5_000;
/// Shorter than the time in which an answer has to begin.
const LONGEST_WAIT_MS: u64 = 25_000;
/// Values on one page, in bytes; a page of large values ends here, before its limit.
const PAGE_BYTES: usize = 4 << 20;

/// An attribute of a device.
#[derive(Serialize, ToSchema)]
#[schema(as = Attribute)]
pub(crate) struct AttributeShape {
    /// The part of the device; `global` for the device itself.
    #[schema(value_type = String, example = "global")]
    resource: Box<str>,
    /// Which of several such parts.
    #[schema(value_type = String, example = "0")]
    index: Box<str>,
    /// The functional area.
    #[schema(value_type = String)]
    area: Box<str>,
    /// The attribute's name.
    #[schema(value_type = String)]
    name: Box<str>,
    /// Grows with every change; the ETag. Absent where a moment of the past is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    version: Option<u64>,
    /// What the device last reported; null when it never did. At a moment of the past: what it had last reported by then; null when
    /// it reported nothing from `past.known_from` up to then.
    #[schema(required = true)]
    reported: Option<ReportedShape>,
    /// What somebody wished it to be; null when nobody did, and where a moment of the past is shown.
    #[schema(required = true)]
    desired: Option<DesiredShape>,
    /// The moment of the past that one attribute is shown at, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    past: Option<PastShape>,
}

/// A moment of the past, and how far back anything is known.
#[derive(Serialize, ToSchema)]
#[schema(as = Past)]
pub(crate) struct PastShape {
    /// The moment, by the time of receipt.
    #[schema(format = DateTime)]
    at: String,
    /// When the oldest record that is kept was received: what an attribute was reported as before this is only known as long as it
    /// has not been reported again. Null when nothing is kept.
    #[schema(required = true, format = DateTime)]
    known_from: Option<String>,
}

impl PastShape {
    fn new(at: i64, known_from: Option<i64>) -> PastShape {
        PastShape { at: rfc3339(at), known_from: known_from.map(rfc3339) }
    }
}

/// A reported value.
#[derive(Serialize, ToSchema)]
#[schema(as = Reported)]
pub(crate) struct ReportedShape {
    /// Any JSON.
    #[schema(value_type = Value)]
    value: Box<RawValue>,
    /// The device's time; that of receipt where it sends none.
    #[schema(format = DateTime)]
    time: String,
    /// When the platform received it.
    #[schema(format = DateTime)]
    received: String,
    /// The attribute's version with it. Absent where a moment of the past is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

/// A desired value.
#[derive(Serialize, ToSchema)]
#[schema(as = Desired)]
pub(crate) struct DesiredShape {
    /// Any JSON.
    #[schema(value_type = Value)]
    value: Box<RawValue>,
    /// When it was wished.
    #[schema(format = DateTime)]
    time: String,
    /// The attribute's version with it.
    version: u64,
    /// Who wished it.
    #[schema(value_type = String)]
    by: Box<str>,
    /// When it is no longer wished, if nothing has become of it by then; null when it does not expire.
    #[schema(required = true, format = DateTime)]
    expires: Option<String>,
    /// `pending`: the device is told when it comes, or has not answered; `applied`: it has taken it, or reports it;
    /// `refused`: it does not take it; `superseded`: another wish came first; `expired`: its time was over first.
    #[schema(pattern = "^(pending|applied|refused|superseded|expired)$", example = "applied")]
    outcome: &'static str,
    /// The device's own code of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    /// The device's own words of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    message: Option<Box<str>>,
}

impl From<Leaf> for AttributeShape {
    fn from(leaf: Leaf) -> AttributeShape {
        let DevicePath { resource, index, area, name } = DevicePath::clone(&leaf.path);
        let reported = leaf.reported.map(|reported| ReportedShape {
            value: reported.value,
            time: rfc3339(reported.time),
            received: rfc3339(reported.received),
            version: Some(reported.version),
        });
        let desired = leaf.desired.map(|desired| {
            let outcome = desired.outcome.as_str();
            let (code, message) = match desired.outcome {
                SetOutcome::Refused { code, message } => (Some(code), message),
                _ => (None, None),
            };
            let (value, time, version, by) = (desired.value, rfc3339(desired.time), desired.version, desired.by);
            DesiredShape { value, time, version, by, expires: desired.expires.map(rfc3339), outcome, code, message }
        });
        AttributeShape { resource, index, area, name, version: Some(leaf.version), reported, desired, past: None }
    }
}

impl From<PastLeaf> for AttributeShape {
    fn from(leaf: PastLeaf) -> AttributeShape {
        let DevicePath { resource, index, area, name } = DevicePath::clone(&leaf.path);
        let reported = leaf.reported.map(|reported| ReportedShape {
            value: reported.value,
            time: rfc3339(reported.time),
            received: rfc3339(reported.received),
            version: None,
        });
        AttributeShape { resource, index, area, name, version: None, reported, desired: None, past: None }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttributeParams {
    /// Most attributes on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// What they were at this moment of the past, by the time of receipt: 2026-01-31T12:00:00Z or milliseconds since 1970.
    #[param(value_type = Option<String>)]
    at: Option<Moment>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AtParams {
    /// What it was at this moment of the past, by the time of receipt: 2026-01-31T12:00:00Z or milliseconds since 1970.
    #[param(value_type = Option<String>)]
    at: Option<Moment>,
}

/// The moment, if it is not to come.
fn past_moment(shared: &Shared, at: Moment) -> Answer<i64> {
    if at.0 > shared.platform.clock().now_ms() {
        return Err(Problem::field(Kind::InvalidValue, "at", "at must not lie in the future."));
    }
    Ok(at.0)
}

/// One page of attributes, in the order of their paths.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttributeList {
    /// The attributes.
    items: Vec<AttributeShape>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    next: Option<String>,
    /// The moment of the past that they are shown at, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    past: Option<PastShape>,
}

/// List the attributes of a device
///
/// With `at`, what they were at that moment: the last report of each that the platform had received by then.
#[utoipa::path(
    get,
    path = "/v1/devices/{d}/attributes",
    tag = "attributes",
    params(DeviceInPath, AttributeParams),
    responses(
        (status = 200, description = "One page of attributes", body = AttributeList),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_attributes(
    State(shared): State<Arc<Shared>>,
    TheDevice(device): TheDevice,
    Params(params): Params<AttributeParams>,
) -> Answer<Json<AttributeList>> {
    let size = page_size(params.limit)?;
    let after = params.cursor.as_deref().map(read_cursor).transpose()?;
    if let Some(at) = params.at {
        let at = past_moment(&shared, at)?;
        let past = shared.platform.attributes_at(&device, at, after.as_ref(), size, PAGE_BYTES).await?;
        let next = past.items.last().filter(|_| past.more).map(|leaf| write_cursor(&leaf.path));
        let items = past.items.into_iter().map(AttributeShape::from).collect();
        return Ok(Json(AttributeList { items, next, past: Some(PastShape::new(at, past.known_from)) }));
    }
    let mut leaves = shared.platform.attributes(&device);
    if let Some(after) = after {
        leaves.retain(|leaf| *leaf.path > after);
    }
    let mut bytes = 0;
    let fitting = leaves.iter().take_while(|leaf| {
        bytes += leaf.reported.as_ref().map_or(0, |reported| reported.value.get().len());
        bytes += leaf.desired.as_ref().map_or(0, |desired| desired.value.get().len());
        bytes <= PAGE_BYTES
    });
    let size = size.min(fitting.count().max(1));
    let more = cut(&mut leaves, size);
    let next = leaves.last().filter(|_| more).map(|leaf| write_cursor(&leaf.path));
    Ok(Json(AttributeList { items: leaves.into_iter().map(AttributeShape::from).collect(), next, past: None }))
}

/// The levels of a path, so that each may hold any character.
fn write_cursor(path: &DevicePath) -> String {
    serde_json::json!([path.resource, path.index, path.area, path.name]).to_string()
}

fn read_cursor(text: &str) -> Answer<DevicePath> {
    let levels: Result<[Box<str>; 4], _> = serde_json::from_str(text);
    let wrong =
        |_| Problem::field(Kind::InvalidValue, "cursor", "cursor must be what \"next\" of the page before said.");
    let [resource, index, area, name] = levels.map_err(wrong)?;
    Ok(DevicePath { resource, index, area, name })
}

/// Show one attribute
///
/// With `at`, what it was at that moment: the last report that the platform had received by then. That has no version, and no ETag.
#[utoipa::path(
    get,
    path = "/v1/devices/{d}/attributes/{resource}/{index}/{area}/{name}",
    tag = "attributes",
    params(PartInPath, AtParams),
    responses(
        (status = 200, description = "The attribute", body = AttributeShape,
            headers(("ETag" = String, description = "Its version"))),
        (status = 404, description = "No device has this id or serial, or it has no such attribute",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_attribute(
    State(shared): State<Arc<Shared>>,
    TheDevice(device): TheDevice,
    ThePart(path): ThePart,
    Params(params): Params<AtParams>,
) -> Answer<Response> {
    let unknown = || {
        Problem::new(
            Kind::UnknownAttribute,
            "The device has never reported such an attribute, and nobody has wished it.",
        )
    };
    if let Some(at) = params.at {
        let at = past_moment(&shared, at)?;
        let (leaf, known_from) = shared.platform.attribute_at(&device, &path, at).await?.ok_or_else(unknown)?;
        let past = Some(PastShape::new(at, known_from));
        return Ok(Json(AttributeShape { past, ..AttributeShape::from(leaf) }).into_response());
    }
    let leaf = shared.platform.attribute(&device, &path);
    Ok(answer(StatusCode::OK, leaf.ok_or_else(unknown)?))
}

/// A value that an attribute is wished to have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueToSet {
    /// Any JSON of at most 64 KiB.
    value: Value,
    /// How long to wait for what the device says, in milliseconds, while it is there.
    #[schema(minimum = 0, maximum = 25000, default = 5000)]
    wait_ms: Option<u64>,
    /// For how many seconds it is wished; absent: until it is fulfilled, refused or replaced.
    #[schema(minimum = 1, maximum = 31622400, example = 3600)]
    expires_in: Option<u64>,
}

/// Wish an attribute to have a value
///
/// The wish is durable. A device that is there is told at once, another when it comes back, unless the wish has expired;
/// a newer wish replaces an older one. With `If-Match`, only when the attribute is at that version still.
#[utoipa::path(
    put,
    path = "/v1/devices/{d}/attributes/{resource}/{index}/{area}/{name}",
    tag = "attributes",
    params(
        PartInPath,
        ("If-Match" = Option<String>, Header, description = "The ETag of the attribute as it was read"),
    ),
    request_body = ValueToSet,
    responses(
        (status = 200, description = "What has become of it", body = AttributeShape,
            headers(("ETag" = String, description = "The attribute's version"))),
        (status = 202, description = "Taken; the device has not said anything yet", body = AttributeShape,
            headers(("ETag" = String, description = "The attribute's version"))),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 412, description = "The attribute is at another version by now",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn set_attribute(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    ThePart(path): ThePart,
    _: Params<Nothing>,
    headers: HeaderMap,
    JsonBody(set): JsonBody<ValueToSet>,
) -> Answer<Response> {
    let wait = set.wait_ms.unwrap_or(DEFAULT_WAIT_MS);
    if wait > LONGEST_WAIT_MS {
        return Err(Problem::field(Kind::InvalidValue, "wait_ms", "wait_ms must be between 0 and 25000."));
    }
    let value = set.value.to_string();
    let if_match = if_match(&headers)?;
    let (wait, expires_in) = (Duration::from_millis(wait), set.expires_in.map(Duration::from_secs));
    let set = Set { path, value: &value, if_match, wait, expires_in, by: &caller };
    let leaf = shared.platform.set(&device, set).await?;
    let is_pending = leaf.desired.as_ref().is_some_and(|desired| desired.outcome == SetOutcome::Pending);
    Ok(answer(if is_pending { StatusCode::ACCEPTED } else { StatusCode::OK }, leaf))
}

fn answer(status: StatusCode, leaf: Leaf) -> Response {
    let tag = format!("\"{}\"", leaf.version);
    (status, [(header::ETAG, tag)], Json(AttributeShape::from(leaf))).into_response()
}

/// The version that a request expects; none when it expects none, or any.
pub(crate) fn if_match(headers: &HeaderMap) -> Answer<Option<u64>> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    if value.as_bytes() == b"*" && more.is_none() {
        return Ok(None);
    }
    let version = value.to_str().ok().and_then(|tag| tag.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    version.filter(|_| more.is_none()).map(Some).ok_or_else(|| {
        let detail = "If-Match must be one ETag as the attribute was shown with, such as \"7\" with its quotes.";
        Problem::field(Kind::InvalidValue, "If-Match", detail)
    })
}

impl From<SetError> for Problem {
    fn from(error: SetError) -> Problem {
        match error {
            SetError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            SetError::Stale { version } => Problem::new(
                Kind::Stale,
                format!("The attribute is at version {version} by now. Read it again and decide anew."),
            ),
            SetError::Full => Problem::new(
                Kind::InvalidValue,
                "The device has its limit of 4096 attributes or 4 MiB of values, and this would be more.",
            ),
            SetError::Store(error) => Problem::from(error),
            _ => Problem::new(Kind::StoreUnavailable, "The value was not taken."),
        }
    }
}

#[cfg(test)]
mod tests;
