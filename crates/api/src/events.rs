//! Events: what devices reported, newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use vestibule_platform::{EventQuery, Position, Record, Records};

use crate::api::Shared;
use crate::extract::{Answer, LARGEST_PAGE, Params, TheCaller, cut, device_filter, page_size};
use crate::moment::Moment;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::{EventList, EventShape};

/// Reported data on one page, in bytes; a page of large events ends here, before its limit.
const PAGE_BYTES: usize = 4 << 20;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// Only of the device with this id or serial. Events of a removed device are found by its id.
    device: Option<String>,
    /// Only of this area.
    area: Option<String>,
    /// Only with this name.
    #[serde(rename = "type")]
    #[param(example = "Smoke")]
    kind: Option<String>,
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
    /// Most events on the page. It may have fewer, or none, and a cursor all the same, where much was left out.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before: a position; events older than it follow.
    cursor: Option<String>,
}

/// List events, newest first in the order of receipt
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(EventParams),
    responses(
        (status = 200, description = "One page of events", body = EventList),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_events(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<EventParams>,
) -> Answer<Response> {
    let size = page_size(params.limit)?;
    let before = params.cursor.map(|cursor| position("cursor", &cursor)).transpose()?;
    let query = EventQuery {
        device: device_filter(&shared.platform, params.device.as_deref(), &caller)?,
        area: params.area,
        name: params.kind,
        from: params.from.map(|moment| moment.0),
        to: params.to.map(|moment| moment.0),
        received_from: params.received_from.map(|moment| moment.0),
        received_to: params.received_to.map(|moment| moment.0),
        before,
        limit: size + 1,
    };
    let mut records = shared.platform.events(query, &caller).await?;
    let next = end_page(&mut records, size);
    let items = records.items.iter().map(|record| EventShape::from(&**record)).collect();
    Ok(Json(EventList { items, next }).into_response())
}

/// Cuts what was read, one longer than the page, to what the page has room for; gives the cursor of the next one.
pub(crate) fn end_page(records: &mut Records, size: usize) -> Option<String> {
    let size = size.min(fitting(&records.items));
    // The journal reads no more than the largest page at a time, so that one may turn out to be the last.
    let more = cut(&mut records.items, size) || records.items.len() == LARGEST_PAGE;
    let last = records.items.last().filter(|_| more).map(|record| record.position);
    last.or(records.resume).map(|position| position.get().to_string())
}

/// How many of the records fit on a page, one at least: the answer is in memory for as long as its client takes over it.
fn fitting(records: &[Arc<Record>]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Arc<Record>| {
        bytes += record.data.len();
        bytes <= PAGE_BYTES
    };
    records.iter().take_while(fits).count().max(1)
}

/// Reads a position from a parameter or header.
pub(crate) fn position(field: &'static str, text: &str) -> Result<Position, Problem> {
    let position = text.parse().ok().filter(|position| *position >= 0).map(Position::new);
    position.ok_or_else(|| {
        Problem::field(Kind::InvalidValue, field, format!("{field} must be a position: a whole number, 0 or greater."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_not_negative() {
        assert_eq!(position("after", "12"), Ok(Position::new(12)));
        for wrong in ["", "-1", "1.0", "x", "9223372036854775808"] {
            assert!(position("after", wrong).is_err(), "{wrong}");
        }
    }
}
