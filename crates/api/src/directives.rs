//! Directives: what an operator has done to the connection of a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use vestibule_platform::{DirectError, Directive};

use crate::api::Shared;
use crate::extract::{Answer, DeviceInPath, JsonBody, Nothing, Params, TheCaller, TheDevice};
use crate::problem::{Kind, Problem, ProblemDocument};

/// Where a device is to go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redirect {
    /// Name or IPv4 address of the host whose LBS it is to authenticate at.
    #[schema(min_length = 1, max_length = 63, example = "hall.example")]
    host: String,
}

/// Send a device to another host
///
/// Devices answer nothing to this: that one obeys shows in what it does next.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/redirect",
    tag = "devices",
    params(DeviceInPath),
    request_body = Redirect,
    responses(
        (status = 202, description = "The device has been told"),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "The device is not there",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too much waits for the device already",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn redirect_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(Redirect { host }): JsonBody<Redirect>,
) -> Answer<StatusCode> {
    shared.platform.direct(&device, Directive::Redirect { host }, &caller).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Have a device go, and stay away until it is started again
///
/// Devices answer nothing to this: that one obeys shows in what it does next.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/force-offline",
    tag = "devices",
    params(DeviceInPath),
    responses(
        (status = 202, description = "The device has been told"),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "The device is not there",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "The device cannot be told such a thing",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too much waits for the device already",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn force_device_offline(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    shared.platform.direct(&device, Directive::ForceOffline, &caller).await?;
    Ok(StatusCode::ACCEPTED)
}

/// How often a device is to show that it is there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeepAlive {
    /// A sign of life every so many seconds.
    #[schema(minimum = 5, maximum = 3600, example = 60)]
    seconds: u64,
}

/// Have a device show a sign of life more or less often
///
/// Devices answer nothing to this: that one obeys shows in what it does next.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/keep-alive",
    tag = "devices",
    params(DeviceInPath),
    request_body = KeepAlive,
    responses(
        (status = 202, description = "The device has been told"),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "The device is not there",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too much waits for the device already",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn set_device_keep_alive(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(KeepAlive { seconds }): JsonBody<KeepAlive>,
) -> Answer<StatusCode> {
    // What does not fit is too long in any case, and the platform says so.
    let seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
    shared.platform.direct(&device, Directive::KeepAlive { seconds }, &caller).await?;
    Ok(StatusCode::ACCEPTED)
}

/// What a device is not to send any more.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Silence {
    /// Numbers of commands, by the number of their domain; a domain without commands is meant as a whole. At most 64 domains
    /// and 1,024 commands.
    #[schema(example = json!({"1100": [18759], "7002": []}))]
    commands: BTreeMap<u32, Vec<u32>>,
}

/// Forbid a device to send some of its commands
///
/// Devices made with our SDK take the list in place of the one before, so that an empty one allows everything again.
/// How devices of others are allowed again what was forbidden is not known. Devices answer nothing to this: that one obeys
/// shows in what it does next.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/silence",
    tag = "devices",
    params(DeviceInPath),
    request_body = Silence,
    responses(
        (status = 202, description = "The device has been told"),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "The device is not there",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too much waits for the device already",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn silence_device(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(Silence { commands }): JsonBody<Silence>,
) -> Answer<StatusCode> {
    shared.platform.direct(&device, Directive::Silence { commands }, &caller).await?;
    Ok(StatusCode::ACCEPTED)
}

impl From<DirectError> for Problem {
    fn from(error: DirectError) -> Problem {
        match error {
            DirectError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            DirectError::UnknownDevice => Problem::unknown_device(),
            DirectError::Offline => {
                Problem::new(Kind::DeviceOffline, "The device is not there, so it could not be told.")
            }
            DirectError::Busy => {
                Problem::new(Kind::DeviceBusy, "Too much waits for the device already, so it was not told. Try again.")
            }
            _ => Problem::new(
                Kind::Unsupported,
                "The device's protocol has nothing of the kind, or the device is reached through another one.",
            ),
        }
    }
}
