//! The audit: who did what.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{AuditQuery, AuditRow};

use crate::api::Shared;
use crate::events::position;
use crate::extract::{Answer, LARGEST_PAGE, Params, TheCaller, cut, device_filter, page_size};
use crate::moment::Moment;
use crate::problem::ProblemDocument;
use crate::shapes::{DeviceRef, rfc3339};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditParams {
    /// Only of the device with this id or serial. Rows of a removed device are found by its id.
    device: Option<String>,
    /// Only of this one.
    #[param(example = "administrator")]
    actor: Option<String>,
    /// Only this.
    #[param(example = "device.disable")]
    action: Option<String>,
    /// Only at or after this moment: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    from: Option<Moment>,
    /// Only before this moment: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "1769860800000")]
    to: Option<Moment>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Something that was done.
#[derive(Serialize, ToSchema)]
#[schema(as = Audit)]
pub(crate) struct AuditShape<'a> {
    /// Names the row.
    #[schema(minimum = 1)]
    id: i64,
    /// When.
    #[schema(format = DateTime)]
    time: String,
    /// Who did it; `device` for what a device did that it may not.
    #[schema(example = "administrator")]
    actor: &'a str,
    /// What, as noun and verb.
    #[schema(example = "device.disable")]
    action: &'a str,
    /// To which device, or by which; null for what is about none. It may be removed meanwhile.
    #[schema(required = true)]
    device: Option<DeviceRef<'a>>,
    /// With what: a JSON object that depends on the action; never a secret.
    #[schema(value_type = serde_json::Value)]
    detail: &'a RawValue,
    /// Whether it worked.
    ok: bool,
}

impl<'a> From<&'a AuditRow> for AuditShape<'a> {
    fn from(row: &'a AuditRow) -> AuditShape<'a> {
        AuditShape {
            id: row.id,
            time: rfc3339(row.time),
            actor: &row.actor,
            action: &row.action,
            device: row.device.map(|device| DeviceRef::new(device, row.serial.as_deref().unwrap_or_default())),
            // The platform wrote it itself.
            detail: serde_json::from_str(&row.detail).unwrap_or(RawValue::NULL),
            ok: row.ok,
        }
    }
}

/// One page of the audit, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditList<'a> {
    /// The rows.
    items: Vec<AuditShape<'a>>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// List what was done, newest first
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    params(AuditParams),
    responses(
        (status = 200, description = "One page of the audit", body = AuditList),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_audit(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<AuditParams>,
) -> Answer<Response> {
    let size = page_size(params.limit)?;
    let query = AuditQuery {
        device: device_filter(&shared.platform, params.device.as_deref(), &caller)?,
        actor: params.actor,
        action: params.action,
        from: params.from.map(|moment| moment.0),
        to: params.to.map(|moment| moment.0),
        before: params.cursor.map(|cursor| position("cursor", &cursor)).transpose()?.map(|position| position.get()),
        // What the caller sees is the platform's to say.
        subtree: None,
        limit: size + 1,
    };
    let mut rows = shared.platform.audits(&query, &caller).await?;
    // The store reads no more than the largest page at a time, so that one may turn out to be the last.
    let more = cut(&mut rows, size) || rows.len() == LARGEST_PAGE;
    let next = rows.last().filter(|_| more).map(|row| row.id.to_string());
    Ok(Json(AuditList { items: rows.iter().map(AuditShape::from).collect(), next }).into_response())
}
