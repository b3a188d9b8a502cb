//! The streams of what devices report: events with changes of presence, and attributes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use vestibule_platform::{Filter, Record, RecordKind};

use crate::api::Shared;
use crate::extract::{Answer, Params, TheCaller, device_filter};
use crate::feed::{self, Show, record_message};
use crate::problem::ProblemDocument;
use crate::shapes::{EventShape, ReportShape};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventStreamParams {
    /// Only of the device with this id or serial.
    device: Option<String>,
    /// Only events of this area.
    area: Option<String>,
    /// Only events with this name.
    #[serde(rename = "type")]
    #[param(example = "Smoke")]
    kind: Option<String>,
    /// Begin after this position; `Last-Event-ID` counts before it. Without either the stream begins now.
    #[param(example = "0")]
    after: Option<String>,
}

/// Follow events and presence as they happen (server-sent events)
///
/// `event: event` has the position as its `id` and an Event as its data. To go on after a break, send the last
/// `id` as `Last-Event-ID`: nothing is missed and nothing comes twice. The first `id` comes at once, without data.
/// A picture that an event names and that has not arrived has `"pending": true` there. When it arrives, `event: amended` comes
/// with an id of its own and an Event as its data, whose `data` says with `{"amends": {"position", "id"}, "picture"}` what it
/// is about.
/// `event: presence` has a Device as its data
/// and no `id`, and `event: removed` the `id` and `serial` of a device that was removed, or moved out of your part of the
/// organisation; both follow `device`
/// only, not `area` and `type`. No order is promised between events and presence, and `presence`
/// is what it is when the message is made. `event: lagged` says with
/// `{"resume": position}` that the events up to there are gone (retention) and the stream goes on after it.
/// `event: presence_lagged` says with `{"missed": n}` that changes of presence were lost: read the devices again.
/// A comment comes every 15 s.
#[utoipa::path(
    get,
    path = "/v1/events/stream",
    tag = "events",
    params(
        EventStreamParams,
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
pub(crate) async fn stream_events(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    headers: HeaderMap,
    Params(params): Params<EventStreamParams>,
) -> Answer<Response> {
    let after = feed::begin(&headers, params.after.as_deref())?;
    let device = device_filter(&shared.platform, params.device.as_deref(), &caller)?;
    let filter = Filter { kinds: RecordKind::Event.into(), device, area: params.area, name: params.kind };
    let record = |record: &Record| {
        let kind = if record.kind == RecordKind::Amendment { "amended" } else { "event" };
        record_message(kind, record.position, &EventShape::from(record))
    };
    feed::open(&shared, Show { by: caller, filter, after, record, presence: true })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttributeStreamParams {
    /// Only of the device with this id or serial.
    device: Option<String>,
    /// Only attributes of this area.
    area: Option<String>,
    /// Only attributes with this name.
    name: Option<String>,
    /// Begin after this position; `Last-Event-ID` counts before it. Without either the stream begins now.
    #[param(example = "0")]
    after: Option<String>,
}

/// Follow attributes as they are reported (server-sent events)
///
/// `event: attribute` has the position as its `id` and an AttributeReport as its data; every report shows, also one of
/// the value that was there before. To go on after a break, send the last `id` as `Last-Event-ID`: nothing is missed
/// and nothing comes twice. `event: lagged` says with `{"resume": position}` that the reports up to there are gone
/// (retention) and the stream goes on after it. A comment comes every 15 s.
#[utoipa::path(
    get,
    path = "/v1/attributes/stream",
    tag = "attributes",
    params(
        AttributeStreamParams,
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
pub(crate) async fn stream_attributes(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    headers: HeaderMap,
    Params(params): Params<AttributeStreamParams>,
) -> Answer<Response> {
    let after = feed::begin(&headers, params.after.as_deref())?;
    let device = device_filter(&shared.platform, params.device.as_deref(), &caller)?;
    let filter = Filter { kinds: RecordKind::Attribute.into(), device, area: params.area, name: params.name };
    let record = |record: &Record| record_message("attribute", record.position, &ReportShape::from(record));
    feed::open(&shared, Show { by: caller, filter, after, record, presence: false })
}
