//! The same is done to many devices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vestibule_platform::{BulkAction, BulkError, Caller, Device, DeviceFilter, LONGEST_WINDOW, Platform};

use crate::api::Shared;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller};
use crate::find::{Asked, FilterToApply};
use crate::jobs::{BULK, BulkList, BulkShape, JobInPath, TheJob, kind};
use crate::org::OrgParam;
use crate::problem::{Kind, Problem, ProblemDocument};

/// The most devices that are named one by one.
const MAX_NAMED: usize = 1_000;
/// Devices of a dry run that are shown.
const SAMPLE: usize = 10;

/// What is done to which devices: those named, or those that a filter finds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManyToChange {
    /// What is done to each: `label`, `move`, `disable`, `enable`, `remove`, or `enrol` (a window is opened in which it may
    /// enrol again).
    #[schema(pattern = "^(label|move|disable|enable|remove|enrol)$", example = "disable")]
    action: String,
    /// Ids or serials of devices.
    #[schema(min_items = 1, max_items = 1000)]
    devices: Option<Vec<String>>,
    /// Which devices, by something that is true of them.
    filter: Option<FilterToApply>,
    /// For `label`: labels to be set, or taken off where the value is null.
    #[schema(example = json!({"floor": "2", "old": null}))]
    labels: Option<BTreeMap<String, Option<String>>>,
    /// For `move`: the place in the organisation they go to.
    #[schema(value_type = Option<String>, max_length = 256, example = "/plant-1/hall-2")]
    org: Option<OrgParam>,
    /// For `enrol`: the length of the window in seconds.
    #[schema(minimum = 1, maximum = 86400, example = 600)]
    window_seconds: Option<u64>,
    /// Only count the devices and show some of them.
    #[serde(default)]
    dry_run: bool,
}

/// What would be done.
#[derive(Serialize, ToSchema)]
pub(crate) struct BulkDryRun {
    /// To how many devices.
    #[schema(minimum = 0)]
    devices: usize,
    /// The first ten of them.
    sample: Vec<SampleDevice>,
}

/// One of the devices.
#[derive(Serialize, ToSchema)]
pub(crate) struct SampleDevice {
    /// Our identity of the device.
    #[schema(format = Uuid)]
    id: String,
    /// The device's own identity.
    #[schema(value_type = String)]
    serial: Arc<str>,
}

/// Do the same to many devices
///
/// A job that goes on after the answer: `GET` of its address says how far it is. Which devices it is about is decided when it
/// begins. Each is changed as by itself, and written down in the audit; one that cannot be does not keep the others from it.
/// `label`, `move` and `remove` ask for the permission `devices_write`. To begin the same once more, after an interruption for
/// example, does what is not done yet.
#[utoipa::path(
    post,
    path = "/v1/bulk",
    tag = "devices",
    request_body = ManyToChange,
    responses(
        (status = 200, description = "A dry run: which devices it would be about", body = BulkDryRun),
        (status = 202, description = "It goes on", body = BulkShape,
            headers(("Location" = String, description = "Address of the job"))),
        (status = 404, description = "No device has one of these ids or serials",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "As many jobs as may are running",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn change_devices(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
    JsonBody(many): JsonBody<ManyToChange>,
) -> Answer<Response> {
    let action = action(&many.action, many.labels, many.org, many.window_seconds)?;
    let permission = action.permission();
    if !caller.may(permission) {
        shared.platform.denied(&caller, permission);
        let detail = format!("For {} this token needs the permission {}.", action.as_str(), permission.as_str());
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    let devices = match (many.devices, many.filter) {
        (Some(keys), None) => named(&shared.platform, &keys, &caller)?,
        (None, Some(filter)) => {
            let filter = Asked::from(filter).filter(&shared.platform, &caller)?;
            if filter == DeviceFilter::default() {
                let detail = "filter must leave something out. All devices of yours are meant by {\"org\": \"/\"}.";
                return Err(Problem::field(Kind::InvalidValue, "filter", detail));
            }
            shared.platform.select_devices(&filter, &caller).await
        }
        _ => {
            let detail = "Say which devices by either devices or filter.";
            return Err(Problem::field(Kind::InvalidValue, "devices", detail));
        }
    };
    if many.dry_run {
        let shown =
            |device: &Arc<Device>| SampleDevice { id: device.id.to_string(), serial: Arc::clone(&device.serial) };
        let sample = devices.iter().take(SAMPLE).map(shown).collect();
        return Ok(Json(BulkDryRun { devices: devices.len(), sample }).into_response());
    }
    let ids = devices.iter().map(|device| device.id).collect();
    let job = shared.platform.begin_bulk(action, ids, &caller).await?;
    let location = format!("/v1/bulk/{}", job.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(BulkShape::from(&*job))).into_response())
}

/// The devices with these ids or serials, each once.
fn named(platform: &Platform, keys: &[String], by: &Caller) -> Answer<Vec<Arc<Device>>> {
    if keys.is_empty() || keys.len() > MAX_NAMED {
        return Err(Problem::field(Kind::InvalidValue, "devices", "devices must be 1 to 1000 ids or serials."));
    }
    let mut devices = Vec::with_capacity(keys.len());
    for key in keys {
        devices.push(platform.device(key, by).ok_or_else(Problem::unknown_device)?);
    }
    devices.sort_unstable_by_key(|device| device.id);
    devices.dedup_by_key(|device| device.id);
    Ok(devices)
}

/// The action of this name, with what belongs to it and nothing else.
fn action(
    name: &str,
    labels: Option<BTreeMap<String, Option<String>>>,
    org: Option<OrgParam>,
    window: Option<u64>,
) -> Answer<BulkAction> {
    let wrong = |field: &str, detail: String| Err(Problem::field(Kind::InvalidValue, field, detail));
    for (field, is_there, owner) in [
        ("labels", labels.is_some(), "label"),
        ("org", org.is_some(), "move"),
        ("window_seconds", window.is_some(), "enrol"),
    ] {
        match (is_there, name == owner) {
            (true, false) => return wrong(field, format!("{field} belongs to the action {owner}.")),
            (false, true) => return wrong(field, format!("{field} is missing: {owner} needs it.")),
            _ => {}
        }
    }
    match (name, labels, org, window) {
        ("label", Some(labels), ..) if labels.is_empty() => {
            wrong("labels", "labels must name one at least.".to_owned())
        }
        ("label", Some(labels), ..) => Ok(BulkAction::Label(labels)),
        ("move", _, Some(org), _) => Ok(BulkAction::Move(org.0)),
        ("enrol", _, _, Some(window)) if (1..=LONGEST_WINDOW.as_secs()).contains(&window) => {
            Ok(BulkAction::Enrol(Duration::from_secs(window)))
        }
        ("enrol", ..) => wrong("window_seconds", "window_seconds must be between 1 and 86400.".to_owned()),
        ("disable", ..) => Ok(BulkAction::Disable),
        ("enable", ..) => Ok(BulkAction::Enable),
        ("remove", ..) => Ok(BulkAction::Remove),
        _ => wrong("action", "action must be label, move, disable, enable, remove or enrol.".to_owned()),
    }
}

impl From<BulkError> for Problem {
    fn from(error: BulkError) -> Problem {
        match error {
            BulkError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            BulkError::Refused(refused) => refused.into(),
            _ => Problem::new(Kind::StoreUnavailable, "The job was not begun."),
        }
    }
}

/// List changes of many devices, newest first
#[utoipa::path(
    get,
    path = "/v1/bulk",
    tag = "devices",
    responses((status = 200, description = "Those of your part of the organisation", body = BulkList)),
)]
pub(crate) async fn list_bulk(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
) -> Json<BulkList> {
    let jobs = shared.platform.jobs(kind(BULK), &caller);
    Json(BulkList { items: jobs.iter().map(|job| BulkShape::from(&**job)).collect(), next: None })
}

/// Show how far a change of many devices is
#[utoipa::path(
    get,
    path = "/v1/bulk/{id}",
    tag = "devices",
    params(JobInPath),
    responses(
        (status = 200, description = "The change", body = BulkShape),
        (status = 404, description = "There is no such change",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_bulk(TheJob(job): TheJob<BULK>, _: Params<Nothing>) -> Json<BulkShape> {
    Json(BulkShape::from(&*job))
}

/// Cancel a change of many devices
///
/// What is changed stays so. One that has ended stays as it is.
#[utoipa::path(
    post,
    path = "/v1/bulk/{id}/cancel",
    tag = "devices",
    params(JobInPath),
    responses(
        (status = 200, description = "The change", body = BulkShape),
        (status = 404, description = "There is no such change",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel_bulk(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheJob(job): TheJob<BULK>,
    _: Params<Nothing>,
) -> Json<BulkShape> {
    shared.platform.cancel_job(&job, &caller).await;
    Json(BulkShape::from(&*job))
}
