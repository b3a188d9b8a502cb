//! Pictures and files: addresses with tickets, to send something for a device and to fetch what it has sent.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use vestibule_platform::{MediaKind, Offer, OfferError, Wish};

use crate::api::Shared;
use crate::extract::{Answer, DeviceInPath, JsonBody, Nothing, Params, TheCaller, TheDevice, TheEntrance};
use crate::problem::{Kind, Problem, ProblemDocument};

/// What is to be sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upload {
    /// `picture`, whose content is looked at, or `file`; `picture` when absent.
    #[schema(pattern = "^(picture|file)$", example = "picture")]
    kind: Option<String>,
    /// What it is called.
    #[schema(max_length = 255, example = "door.jpg")]
    name: Option<String>,
    /// How many bytes it has.
    #[schema(minimum = 0, example = 84000)]
    bytes: Option<u64>,
    /// The only media type that is taken; any of a picture when absent.
    #[schema(example = "image/jpeg")]
    media_type: Option<String>,
    /// Its SHA-256 in 64 lower-case hexadecimal digits; when absent, whoever sends it says it in `Repr-Digest`.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    sha256: Option<String>,
}

/// What is to be fetched.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Download {
    /// Id of the picture or file.
    #[schema(format = Uuid)]
    id: String,
}

/// An address that is good for one object, for a time.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ticketed {
    /// Id of the picture or file.
    #[schema(format = Uuid)]
    id: String,
    /// How the address is asked.
    #[schema(pattern = "^(PUT|GET)$", example = "PUT")]
    method: &'static str,
    /// The address; whoever has it needs no token, so keep it out of logs.
    url: String,
    /// For how many seconds it may be begun.
    #[schema(minimum = 1, example = 900)]
    expires_in: u64,
}

impl Ticketed {
    fn new(method: &'static str, offer: Offer) -> Ticketed {
        Ticketed { id: offer.id.to_string(), method, url: offer.url, expires_in: offer.expires_in.as_secs() }
    }
}

/// Have something sent for a device
///
/// The address takes one picture or one file, once.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/uploads",
    tag = "media",
    params(DeviceInPath),
    request_body = Upload,
    responses(
        (status = 201, description = "Where it may be sent", body = Ticketed),
        (status = 404, description = "No device has this id or serial, or nothing is kept here",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "There is no room for more",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn offer_upload(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    TheEntrance(entrance): TheEntrance,
    _: Params<Nothing>,
    JsonBody(upload): JsonBody<Upload>,
) -> Answer<(StatusCode, Json<Ticketed>)> {
    let kind = match upload.kind.as_deref() {
        None | Some("picture") => MediaKind::Picture,
        Some("file") => MediaKind::File,
        Some(_) => return Err(Problem::field(Kind::InvalidValue, "kind", "kind must be picture or file.")),
    };
    let digest = match upload.sha256.as_deref() {
        None => None,
        Some(text) => Some(digest(text).ok_or_else(|| {
            Problem::field(Kind::InvalidValue, "sha256", "sha256 must be 64 lower-case hexadecimal digits.")
        })?),
    };
    let wish = Wish {
        id: None,
        kind,
        name: upload.name.unwrap_or_default(),
        bytes: upload.bytes,
        media_type: upload.media_type,
        digest,
    };
    let offer = shared.platform.offer_upload(&device, wish, Some(&caller), entrance).await?;
    Ok((StatusCode::CREATED, Json(Ticketed::new("PUT", offer))))
}

/// Get an address where a picture or file of a device may be fetched without a token
///
/// For pages and programs that cannot send a header.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/downloads",
    tag = "media",
    params(DeviceInPath),
    request_body = Download,
    responses(
        (status = 201, description = "Where it may be fetched", body = Ticketed),
        (status = 404, description = "No device has this id or serial, or it has no such picture or file",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn offer_download(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    TheEntrance(entrance): TheEntrance,
    _: Params<Nothing>,
    JsonBody(download): JsonBody<Download>,
) -> Answer<(StatusCode, Json<Ticketed>)> {
    let id = Uuid::try_parse(&download.id).map_err(|_| Problem::from(OfferError::Unknown))?;
    let offer = shared.platform.offer_download(&device, id, Some(&caller), entrance).await?;
    Ok((StatusCode::CREATED, Json(Ticketed::new("GET", offer))))
}

impl From<OfferError> for Problem {
    fn from(error: OfferError) -> Problem {
        match error {
            OfferError::Off => Problem::new(Kind::MediaOff, "This platform keeps no pictures and files."),
            OfferError::TooLarge { most } => {
                Problem::field(Kind::InvalidValue, "bytes", format!("bytes is at most {most}."))
            }
            OfferError::Type { .. } => {
                let detail = "media_type is image/jpeg, image/png, image/webp or image/avif of a picture, and \
                              application/octet-stream of a file.";
                Problem::field(Kind::InvalidValue, "media_type", detail)
            }
            OfferError::Name => Problem::field(
                Kind::InvalidValue,
                "name",
                "name must have at most 255 bytes and no control characters.",
            ),
            OfferError::Quota => {
                Problem::new(Kind::QuotaUsed, "The device has as many open uploads, or as many bytes, as it may.")
            }
            // Nobody chooses an id here.
            OfferError::Taken | OfferError::Unknown => {
                Problem::new(Kind::UnknownObject, "The device has no such picture or file.")
            }
            OfferError::Store(error) => error.into(),
        }
    }
}

/// The bytes of a SHA-256 in digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}
