//! Operations that wait for their device.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use vestibule_platform::{DevicePath, Waiting};

use crate::api::Shared;
use crate::extract::{Answer, DeviceInPath, Nothing, Params, TheCaller, TheDevice};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;

/// An operation that waits for its device.
#[derive(Serialize, ToSchema)]
#[schema(as = Waiting)]
pub(crate) struct WaitingShape {
    /// Its id, as the one who asked was told.
    #[schema(format = Uuid)]
    operation_id: String,
    /// The part of the device; `global` for the device itself.
    #[schema(value_type = String)]
    resource: Box<str>,
    /// Which of several such parts.
    #[schema(value_type = String)]
    index: Box<str>,
    /// The functional area.
    #[schema(value_type = String)]
    area: Box<str>,
    /// The operation.
    #[schema(value_type = String)]
    name: Box<str>,
    /// What it is given; absent without input.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    input: Option<Box<RawValue>>,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created: String,
    /// When it is not sent any more.
    #[schema(format = DateTime)]
    expires: String,
    /// Who asked for it.
    by: String,
}

impl From<Waiting> for WaitingShape {
    fn from(waiting: Waiting) -> WaitingShape {
        let DevicePath { resource, index, area, name } = waiting.path;
        WaitingShape {
            operation_id: waiting.id.to_string(),
            resource,
            index,
            area,
            name,
            // The text was checked before it was stored.
            input: waiting.input.and_then(|input| RawValue::from_string(input.into()).ok()),
            created: rfc3339(waiting.created),
            expires: rfc3339(waiting.expires),
            by: waiting.by,
        }
    }
}

/// What waits for a device, oldest first. It is one page: no more than 256 operations wait.
#[derive(Serialize, ToSchema)]
pub(crate) struct WaitingList {
    /// The operations.
    items: Vec<WaitingShape>,
    /// Always null.
    #[schema(required = true)]
    next: Option<String>,
}

/// List the operations that wait for a device, oldest first
#[utoipa::path(
    get,
    path = "/v1/devices/{d}/queue",
    tag = "operations",
    params(DeviceInPath),
    responses(
        (status = 200, description = "What waits", body = WaitingList),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_queue(
    State(shared): State<Arc<Shared>>,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> Json<WaitingList> {
    let items = shared.platform.waiting(&device).into_iter().map(WaitingShape::from).collect();
    Json(WaitingList { items, next: None })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct WaitingInPath {
    /// Id or serial of the device.
    #[serde(rename = "d")]
    _d: String,
    /// The operation's id.
    id: String,
}

/// The operation `{id}` of the path.
pub(crate) struct TheWaiting(Uuid);

impl FromRequestParts<Arc<Shared>> for TheWaiting {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let path = Path::<WaitingInPath>::from_request_parts(parts, shared).await;
        let id = path.ok().and_then(|Path(path)| path.id.parse().ok());
        id.map(TheWaiting).ok_or_else(not_waiting)
    }
}

fn not_waiting() -> Problem {
    Problem::new(Kind::UnknownOperation, "No such operation waits for the device; it may have been sent meanwhile.")
}

/// Take back an operation that waits
///
/// It is not sent any more; in the operation log it has ended as `cancelled`.
#[utoipa::path(
    delete,
    path = "/v1/devices/{d}/queue/{id}",
    tag = "operations",
    params(WaitingInPath),
    responses(
        (status = 204, description = "It does not wait any more"),
        (status = 404, description = "No device has this id or serial, or no such operation waits for it",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel_waiting(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    TheWaiting(id): TheWaiting,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    if shared.platform.cancel(&device, id, &caller).await? { Ok(StatusCode::NO_CONTENT) } else { Err(not_waiting()) }
}
