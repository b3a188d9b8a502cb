//! What people say of a device: its name, its place in the organisation, labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::ToSchema;
use vestibule_platform::{Describe, DescribeError, OrgPath};

use crate::api::Shared;
use crate::attributes::if_match;
use crate::devices::shown;
use crate::extract::{Answer, DeviceInPath, Nothing, Params, PatchBody, TheCaller, TheDevice, null_or};
use crate::org::OrgParam;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::DeviceShape;

/// What is to be changed of a device; what is absent stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceToDescribe {
    /// Another name; null: none.
    #[serde(default, deserialize_with = "null_or")]
    #[schema(max_length = 128)]
    name: Option<Option<String>>,
    /// Another place in the organisation; null: the whole. Its sub-devices stay where they are.
    #[serde(default, deserialize_with = "null_or")]
    #[schema(value_type = Option<String>, max_length = 256, example = "/plant-1/hall-2")]
    org: Option<Option<OrgParam>>,
    /// Labels to be set, or taken off where the value is null; null in place of them all: none.
    #[serde(default, deserialize_with = "null_or")]
    labels: Option<Option<BTreeMap<String, Option<String>>>>,
}

/// Change a device's name, place in the organisation and labels
///
/// A JSON Merge Patch (RFC 7396). With `If-Match`, only when nobody has changed them since.
#[utoipa::path(
    patch,
    path = "/v1/devices/{d}",
    tag = "devices",
    params(
        DeviceInPath,
        ("If-Match" = Option<String>, Header, description = "The ETag of the device as it was read"),
    ),
    request_body(content = DeviceToDescribe, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, description = "The device as it is now, durably", body = DeviceShape,
            headers(("ETag" = String, description = "Version of its name, place and labels"))),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 412, description = "Somebody has changed them since",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn describe_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    headers: HeaderMap,
    PatchBody(change): PatchBody<DeviceToDescribe>,
) -> Answer<impl IntoResponse> {
    let change = Describe {
        name: change.name,
        org: change.org.map(|org| org.map_or_else(OrgPath::root, |org| org.0)),
        clear_labels: matches!(change.labels, Some(None)),
        labels: change.labels.flatten().unwrap_or_default(),
        if_match: if_match(&headers)?,
    };
    shared.platform.describe_device(&device, change, &caller).await?;
    Ok(shown(&shared.platform, &device, &caller))
}

impl From<DescribeError> for Problem {
    fn from(error: DescribeError) -> Problem {
        match error {
            DescribeError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            DescribeError::Stale { version } => Problem::new(
                Kind::Stale,
                format!("What is said of the device is at version {version} by now. Read it again and decide anew."),
            ),
            DescribeError::Store(error) => Problem::from(error),
            _ => Problem::new(Kind::StoreUnavailable, "The change was not made."),
        }
    }
}
