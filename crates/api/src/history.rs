//! The past of an attribute.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{HistoryQuery, Order, RecordKind, Records};

use crate::api::Shared;
use crate::events::{end_page, position};
use crate::extract::{Answer, Params, PartInPath, TheCaller, TheDevice, ThePart, page_size};
use crate::moment::Moment;
use crate::problem::ProblemDocument;
use crate::shapes::ReportShape;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryParams {
    /// Only at or after this moment by the device's time: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    from: Option<Moment>,
    /// Only before this moment by the device's time: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "1769860800000")]
    to: Option<Moment>,
    /// Only received at or after this moment, by the platform's time: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    received_from: Option<Moment>,
    /// Only received before this moment, by the platform's time: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "1769860800000")]
    received_to: Option<Moment>,
    /// Most reports on the page. It may have fewer, or none, and a cursor all the same, where much was left out.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before: a position; reports older than it follow.
    cursor: Option<String>,
}

/// One page of reports, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReportList<'a> {
    /// The reports.
    items: Vec<ReportShape<'a>>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// List what an attribute was reported as, newest first
///
/// Every report that the journal still has, also one of the value that was there before, and also of an attribute that
/// the device does not report any more. How long they are kept is `store.retention`.
#[utoipa::path(
    get,
    path = "/v1/devices/{d}/attributes/{resource}/{index}/{area}/{name}/history",
    tag = "attributes",
    params(PartInPath, HistoryParams),
    responses(
        (status = 200, description = "One page of reports", body = ReportList),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_history(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    ThePart(path): ThePart,
    Params(params): Params<HistoryParams>,
) -> Answer<Response> {
    let size = page_size(params.limit)?;
    let query = HistoryQuery {
        from: params.from.map(|moment| moment.0),
        to: params.to.map(|moment| moment.0),
        received_from: params.received_from.map(|moment| moment.0),
        received_to: params.received_to.map(|moment| moment.0),
        before: params.cursor.map(|cursor| position("cursor", &cursor)).transpose()?,
        order: Order::Newest,
        limit: size + 1,
        ..HistoryQuery::of(RecordKind::Attribute, device.id, &path)
    };
    let page = shared.platform.history(query, &caller).await?;
    let mut records = Records { items: page.items, resume: page.reached.filter(|_| !page.is_last) };
    let next = end_page(&mut records, size);
    let items = records.items.iter().map(|record| ReportShape::from(&**record)).collect();
    Ok(Json(ReportList { items, next }).into_response())
}
