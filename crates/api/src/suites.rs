//! Which suites are open to a device, and what it is given to come in without its code.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vestibule_platform::{Device, ProvisionError, Suites};

use crate::api::Shared;
use crate::extract::{Answer, DeviceInPath, JsonBody, Nothing, Params, TheCaller, TheDevice};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::DeviceShape;

/// Which suites are open to a device.
#[derive(Serialize, ToSchema)]
#[schema(as = Suites)]
pub(crate) struct SuitesShape {
    /// The legacy ones, which are not confidential. They close by themselves once the device has come in by a modern one.
    legacy: bool,
    /// Those over plain TCP.
    plain: bool,
}

impl SuitesShape {
    pub(crate) fn of(device: &Device) -> SuitesShape {
        SuitesShape { legacy: !device.is_modern(), plain: !device.is_tls_only() }
    }
}

/// Which suites are to be open to a device; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuitesToSet {
    /// Whether the legacy ones are.
    legacy: Option<bool>,
    /// Whether those over plain TCP are.
    plain: Option<bool>,
}

/// Open suites to a device, or close them
///
/// A device that has come in by a modern suite is refused by the legacy ones: somebody may stand between. Opened again, they
/// stay so until it comes in by a modern one the next time.
#[utoipa::path(
    put,
    path = "/v1/devices/{d}/suites",
    tag = "devices",
    params(DeviceInPath),
    request_body = SuitesToSet,
    responses(
        (status = 200, description = "It is so, durably", body = DeviceShape),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn set_device_suites(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(SuitesToSet { legacy, plain }): JsonBody<SuitesToSet>,
) -> Answer<Json<DeviceShape>> {
    shared.platform.set_suites(&device, Suites { legacy, plain }, &caller).await?;
    Ok(Json(DeviceShape::of(&shared.platform, &device, &caller)))
}

/// What a device is to be given, in hexadecimal digits but for its identity.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProvisionedDevice {
    /// The identity of the device.
    #[schema(min_length = 32, max_length = 32)]
    dev_id: String,
    /// The name of its ticket.
    #[schema(min_length = 32, max_length = 32)]
    ticket: String,
    /// The secret that goes with it: shown this once.
    #[schema(min_length = 96, max_length = 96, format = Password)]
    psk: String,
}

/// Give a device what it needs to come in without its code
///
/// For devices without TLS, on the factory line or by the tool that installs them. What was agreed with the device is void
/// and its connection ends.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/provision",
    tag = "devices",
    params(DeviceInPath),
    responses(
        (status = 200, description = "It is kept, durably", body = ProvisionedDevice),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Devices are not provisioned here",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn provision_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> Answer<Json<ProvisionedDevice>> {
    let provisioned = shared.platform.provision(&device, &caller).await.map_err(|error| match error {
        ProvisionError::Store(error) => Problem::from(error),
        error @ ProvisionError::Off => Problem::new(Kind::InvalidValue, error.to_string()),
    })?;
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    Ok(Json(ProvisionedDevice {
        dev_id: provisioned.dev_id,
        ticket: hex(&provisioned.ticket),
        psk: hex(provisioned.psk.expose()),
    }))
}
