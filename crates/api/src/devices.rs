//! Devices: register, list, show, remove, open for enrolment, explain.

pub(crate) mod export;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{
    AddDeviceError, BadCursor, Caller, Device, DeviceFilter, DeviceQuery, LONGEST_WINDOW, NewDevice, Platform, Secret,
};

use crate::api::Shared;
use crate::extract::{Answer, DeviceInPath, JsonBody, Nothing, Params, TheCaller, TheDevice, page_size};
use crate::find::asking_for_devices;
use crate::org::OrgParam;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::{DeviceList, DeviceShape, Why, rfc3339};
use crate::views;

/// A device to be registered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceToRegister {
    /// The device's own identity: printable ASCII without spaces, `/`, `+` and `#`.
    #[schema(min_length = 1, max_length = 71, example = "SN-0001")]
    serial: String,
    /// Its verification code: printable ASCII without spaces. Never shown again.
    #[schema(min_length = 1, max_length = 47, format = Password)]
    code: String,
    /// Whether the code enrols the device once only.
    #[serde(default)]
    one_time: bool,
    /// The product it is an instance of.
    #[schema(max_length = 128)]
    product: Option<String>,
    /// A name for people.
    #[schema(max_length = 128)]
    name: Option<String>,
    /// Id or serial of the hub or gateway it is reached through; absent for a device that comes by itself.
    parent: Option<String>,
    /// Where it belongs in the organisation; absent: where its hub belongs, or else where you are bound to.
    #[schema(value_type = Option<String>, max_length = 256, example = "/plant-1/hall-2")]
    org: Option<OrgParam>,
    /// What to write on it: at most 32 texts of 256 bytes, under names of 64.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Register a device
#[utoipa::path(
    post,
    path = "/v1/devices",
    tag = "devices",
    request_body = DeviceToRegister,
    responses(
        (status = 201, description = "Registered, durably", body = DeviceShape,
            headers(("Location" = String, description = "Address of the device"))),
        (status = 409, description = "A device with this serial is registered already",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The registry is full, or the store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn register_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
    JsonBody(new): JsonBody<DeviceToRegister>,
) -> Answer<impl IntoResponse> {
    let unknown = || Problem::field(Kind::InvalidValue, "parent", "No device has the id or serial in parent.");
    let parent = new.parent.map(|key| shared.platform.device(&key, &caller).ok_or_else(unknown)).transpose()?;
    let new = NewDevice {
        serial: new.serial,
        code: Secret::new(new.code.into_bytes()),
        one_time: new.one_time,
        product: new.product,
        name: new.name,
        parent,
        org: new.org.map(|org| org.0),
        labels: new.labels,
    };
    let device = shared.platform.add_device(new, &caller).await.map_err(refused)?;
    let location = format!("/v1/devices/{}", device.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(DeviceShape::of(&shared.platform, &device, &caller))))
}

/// Why a device, or its code, is not taken.
fn refused(error: AddDeviceError) -> Problem {
    match error {
        AddDeviceError::Invalid { field, reason } => {
            Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
        }
        AddDeviceError::SerialTaken => {
            Problem::field(Kind::SerialTaken, "serial", "A device with this serial is registered already.")
        }
        AddDeviceError::Full(limit) => {
            Problem::new(Kind::RegistryFull, format!("The registry holds its limit of {limit} devices."))
        }
        AddDeviceError::Store(error) => Problem::from(error),
    }
}

asking_for_devices! {
    ListParams {
        /// In this order: `added` (when they were registered), `serial`, `name`, or `seen` (when they were seen last: those
        /// that are online come last). From its end with a `-` before it.
        #[param(pattern = "^-?(added|serial|name|seen)$", default = "added", example = "-seen")]
        order: Option<String>,
        /// As the view of this name says; what is asked for beside it counts before that.
        #[param(min_length = 1, max_length = 64)]
        view: Option<String>,
        /// Most devices on the page.
        #[param(minimum = 1, maximum = 1000, default = 100)]
        limit: Option<u64>,
        /// `next` of the page before, asked with the same filters and order.
        cursor: Option<String>,
    }
}

/// List devices
///
/// Those to which all that is asked for applies. A page is full unless it is the last. What is registered or removed
/// meanwhile moves no other device from one page to another.
#[utoipa::path(
    get,
    path = "/v1/devices",
    tag = "devices",
    params(ListParams),
    responses(
        (status = 200, description = "One page of devices", body = DeviceList),
        (status = 404, description = "No device has the id or serial of `parent`, or there is no such view",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer, which has the view",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_devices(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(mut params): Params<ListParams>,
) -> Answer<Json<DeviceList>> {
    let (asked, order) = (params.asked(), params.order.as_deref());
    let query = views::query(&shared.platform, params.view.as_deref(), asked, order, &caller).await?;
    page(&shared.platform, &query, params.limit, params.cursor.as_deref(), &caller).await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChildrenParams {
    /// Most devices on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List the devices that are reached through this one, in the order of their registration
#[utoipa::path(
    get,
    path = "/v1/devices/{d}/children",
    tag = "devices",
    params(DeviceInPath, ChildrenParams),
    responses(
        (status = 200, description = "One page of devices", body = DeviceList),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_children(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    Params(params): Params<ChildrenParams>,
) -> Answer<Json<DeviceList>> {
    let filter = DeviceFilter { parent: Some(device.id), ..DeviceFilter::default() };
    let query = DeviceQuery { filter, ..DeviceQuery::default() };
    page(&shared.platform, &query, params.limit, params.cursor.as_deref(), &caller).await
}

/// One page of devices.
async fn page(
    platform: &Platform,
    query: &DeviceQuery,
    limit: Option<u64>,
    cursor: Option<&str>,
    by: &Caller,
) -> Answer<Json<DeviceList>> {
    let page = platform.find_devices(query, cursor, page_size(limit)?, by).await.map_err(|BadCursor| {
        let detail = "cursor must be what \"next\" of the page before said, with the same filters and order.";
        Problem::field(Kind::InvalidValue, "cursor", detail)
    })?;
    let items = page.items.iter().map(|device| DeviceShape::of(platform, device, by)).collect();
    Ok(Json(DeviceList { items, next: page.next }))
}

/// Show a device
#[utoipa::path(
    get,
    path = "/v1/devices/{d}",
    tag = "devices",
    params(DeviceInPath),
    responses(
        (status = 200, description = "The device", body = DeviceShape,
            headers(("ETag" = String, description = "Version of its name, place and labels"))),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> impl IntoResponse {
    shown(&shared.platform, &device, &caller)
}

/// A device with its ETag.
pub(crate) fn shown(platform: &Platform, device: &Device, by: &Caller) -> impl IntoResponse + use<> {
    let shape = DeviceShape::of(platform, device, by);
    ([(header::ETAG, format!("\"{}\"", shape.version))], Json(shape))
}

/// Remove a device
///
/// Its credentials are removed and its connection is ended. What it reported stays until retention.
#[utoipa::path(
    delete,
    path = "/v1/devices/{d}",
    tag = "devices",
    params(DeviceInPath),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    shared.platform.remove_device(&device, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// For how long a device may enrol again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrolmentToOpen {
    /// Length of the window in seconds, from now.
    #[schema(minimum = 1, maximum = 86400, example = 600)]
    window_seconds: u64,
    /// Whether a code that works once and is used up works once more.
    #[serde(default)]
    rearm: bool,
}

/// An open window for enrolment.
#[derive(Serialize, ToSchema)]
pub(crate) struct Enrolment {
    /// When the window ends.
    #[schema(format = DateTime)]
    until: String,
}

/// Open a window in which a device that has enrolled before may do so again with its code
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/enrolment",
    tag = "devices",
    params(DeviceInPath),
    request_body = EnrolmentToOpen,
    responses(
        (status = 200, description = "The window is open", body = Enrolment),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn open_enrolment(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(window): JsonBody<EnrolmentToOpen>,
) -> Answer<Json<Enrolment>> {
    if !(1..=LONGEST_WINDOW.as_secs()).contains(&window.window_seconds) {
        let detail = "window_seconds must be between 1 and 86400.";
        return Err(Problem::field(Kind::InvalidValue, "window_seconds", detail));
    }
    let length = Duration::from_secs(window.window_seconds);
    let until = shared.platform.open_enrolment(&device, length, window.rearm, &caller).await?;
    Ok(Json(Enrolment { until: rfc3339(until) }))
}

/// Shut a device out
///
/// Its connection is ended, and it is refused until it is enabled again. What is known of it stays.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/disable",
    tag = "devices",
    params(DeviceInPath),
    responses(
        (status = 200, description = "It is disabled, durably", body = DeviceShape),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn disable_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> Answer<Json<DeviceShape>> {
    shared.platform.set_disabled(&device, true, &caller).await?;
    Ok(Json(DeviceShape::of(&shared.platform, &device, &caller)))
}

/// Let a device in again
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/enable",
    tag = "devices",
    params(DeviceInPath),
    responses(
        (status = 200, description = "It is enabled, durably", body = DeviceShape),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn enable_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> Answer<Json<DeviceShape>> {
    shared.platform.set_disabled(&device, false, &caller).await?;
    Ok(Json(DeviceShape::of(&shared.platform, &device, &caller)))
}

/// The next verification code of a device.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodeToRotate {
    /// Its new verification code: printable ASCII without spaces. Never shown again; made by the platform when absent.
    #[schema(min_length = 1, max_length = 47, format = Password)]
    code: Option<String>,
    /// Whether it enrols the device once only.
    #[serde(default)]
    one_time: bool,
}

/// A new verification code.
#[derive(Serialize, ToSchema)]
pub(crate) struct Rotated {
    /// The code, when the platform made it: shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

/// Give a device another verification code
///
/// What was agreed with it is void and its connection ends: it comes in with the new code as if for the first time.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/rotate",
    tag = "devices",
    params(DeviceInPath),
    request_body = CodeToRotate,
    responses(
        (status = 200, description = "The new code is in force, durably", body = Rotated),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn rotate_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(new): JsonBody<CodeToRotate>,
) -> Answer<Json<Rotated>> {
    let made = new.code.is_none().then(Secret::random_code);
    let shown = made.as_ref().map(|code| String::from_utf8_lossy(code.expose()).into_owned());
    let code = made.unwrap_or_else(|| Secret::new(new.code.unwrap_or_default().into_bytes()));
    shared.platform.rotate_device(&device, code, new.one_time, &caller).await.map_err(refused)?;
    Ok(Json(Rotated { code: shown }))
}

/// Explain why a device is or is not there
#[utoipa::path(
    get,
    path = "/v1/devices/{d}/why",
    tag = "devices",
    params(DeviceInPath),
    responses(
        (status = 200, description = "Presence, the last connection facts, the last failure", body = Why),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn explain_device(TheDevice(device): TheDevice, _: Params<Nothing>) -> axum::response::Response {
    Json(Why::from(&*device)).into_response()
}
