//! Certificates that devices are issued.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{DeviceCertificateQuery, DeviceCertificateRow};

use crate::api::Shared;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller, TheDevice, cut, page_size};
use crate::find::Flag;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;

const DAY: u64 = 24 * 60 * 60;
/// How long a certificate is good for unless somebody says otherwise, in days.
const USUAL_DAYS: u64 = 365;
/// The longest, in days.
const MOST_DAYS: u64 = 730;
/// How far ahead it is looked which certificates end, in days.
const MOST_AHEAD: u64 = 3_650;
/// Certificates of one device that are shown; those that have not ended are fewer.
const OF_DEVICE: usize = 4_096;

/// A certificate that was issued to a device.
#[derive(Serialize, ToSchema)]
#[schema(as = DeviceCertificate)]
pub(crate) struct DeviceCertificateShape {
    /// Its serial number, hexadecimal.
    serial: String,
    /// The serial of the device.
    device: String,
    /// The common name of who issued it.
    issuer: String,
    /// When it was issued.
    #[schema(format = DateTime)]
    issued: String,
    /// When it ends.
    #[schema(format = DateTime)]
    ends: String,
    /// Since when it is revoked; null: it is not.
    #[schema(required = true, format = DateTime)]
    revoked: Option<String>,
}

impl From<DeviceCertificateRow> for DeviceCertificateShape {
    fn from(row: DeviceCertificateRow) -> DeviceCertificateShape {
        DeviceCertificateShape {
            serial: hex(&row.serial),
            device: row.device,
            issuer: row.issuer,
            issued: rfc3339(row.made),
            ends: rfc3339(row.ends),
            revoked: row.revoked.map(rfc3339),
        }
    }
}

/// A page of certificates of devices.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceCertificateList {
    /// The certificates.
    items: Vec<DeviceCertificateShape>,
    /// What to ask for to get the next page; null: this is the last one.
    #[schema(required = true)]
    next: Option<String>,
}

/// Which certificates of devices.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CertificatesParams {
    /// Those only that end within so many days and were neither revoked nor replaced by one that ends later.
    #[param(minimum = 0, maximum = 3650)]
    ending_within_days: Option<u64>,
    /// `true`: those only that are revoked.
    #[param(value_type = Option<bool>)]
    revoked: Option<Flag>,
    /// Most on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A request for a device's certificate.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateToIssue {
    /// PKCS #10, PEM or the base64 of its DER. Of what it says the key alone is kept.
    csr: String,
    /// How long it is to be good for; absent or null: 365.
    #[schema(minimum = 1, maximum = 730)]
    days: Option<u64>,
}

/// A certificate that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct IssuedShape {
    /// What is known of it.
    certificate: DeviceCertificateShape,
    /// The certificate and the one above it, PEM, leaf first: what the device shows.
    chain: String,
}

/// Which certificates of a device are revoked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificatesToRevoke {
    /// The one with this serial number, hexadecimal; absent or null: all of them.
    serial: Option<String>,
}

/// How many were revoked.
#[derive(Serialize, ToSchema)]
pub(crate) struct RevokedShape {
    /// Certificates that were not revoked before.
    revoked: u64,
}

/// List certificates of devices
#[utoipa::path(
    get,
    path = "/v1/certificates",
    tag = "rights",
    params(CertificatesParams),
    responses(
        (status = 200, description = "One page of certificates, by their serial numbers", body = DeviceCertificateList),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_certificates(
    State(shared): State<Arc<Shared>>,
    Params(params): Params<CertificatesParams>,
) -> Answer<Json<DeviceCertificateList>> {
    let size = page_size(params.limit)?;
    let now = shared.platform.clock().now_ms();
    let ending = match params.ending_within_days {
        Some(days) if days > MOST_AHEAD => {
            let detail = "ending_within_days must be 0 to 3650.";
            return Err(Problem::field(Kind::InvalidValue, "ending_within_days", detail));
        }
        days => days.map(|days| now.saturating_add_unsigned(days * DAY * 1_000)),
    };
    let cursor =
        |()| Problem::field(Kind::InvalidValue, "cursor", "cursor must be what \"next\" of the page before said.");
    let query = DeviceCertificateQuery {
        device: None,
        ending,
        revoked: params.revoked.is_some_and(|flag| flag.0),
        after: params.cursor.as_deref().map(unhex).transpose().map_err(cursor)?,
        ..DeviceCertificateQuery::default()
    };
    page(&shared, query, size).await
}

/// List the certificates of a device
#[utoipa::path(
    get,
    path = "/v1/devices/{d}/certificates",
    tag = "devices",
    params(crate::extract::DeviceInPath),
    responses(
        (status = 200, description = "Its certificates; ended ones are left out after an hour", body = DeviceCertificateList),
        (status = 404, description = "There is no such device",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_device_certificates(
    State(shared): State<Arc<Shared>>,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
) -> Answer<Json<DeviceCertificateList>> {
    let query = DeviceCertificateQuery { device: Some(device.serial.to_string()), ..DeviceCertificateQuery::default() };
    page(&shared, query, OF_DEVICE).await
}

/// The first of those asked for, as many as this.
async fn page(shared: &Shared, query: DeviceCertificateQuery, size: usize) -> Answer<Json<DeviceCertificateList>> {
    let limit = i64::try_from(size).unwrap_or(i64::MAX - 1) + 1;
    let mut rows = shared.platform.certificates().issued(DeviceCertificateQuery { limit, ..query }).await?;
    let more = cut(&mut rows, size);
    let next = rows.last().filter(|_| more).map(|row| hex(&row.serial));
    Ok(Json(DeviceCertificateList { items: rows.into_iter().map(Into::into).collect(), next }))
}

/// Issue a certificate to a device
///
/// The request is checked to be signed with its own key, and that key alone is kept: name and usage are the platform's to write.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/certificates",
    tag = "devices",
    params(crate::extract::DeviceInPath),
    request_body = CertificateToIssue,
    responses(
        (status = 201, description = "It is issued, durably", body = IssuedShape),
        (status = 404, description = "There is no such device",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "The device has as many valid ones as may be",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn issue_certificate(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(asked): JsonBody<CertificateToIssue>,
) -> Answer<(StatusCode, Json<IssuedShape>)> {
    let days = asked.days.unwrap_or(USUAL_DAYS);
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(Problem::field(Kind::InvalidValue, "days", "days must be 1 to 730."));
    }
    let request = request(&asked.csr)?;
    let life = Duration::from_secs(days * DAY);
    let issued = shared.platform.issue_certificate(&device, &request, life, &caller).await?;
    let answer = IssuedShape { chain: vestibule_tls::pem(&issued.chain), certificate: issued.row.into() };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Revoke certificates of a device
///
/// From the next handshake on nobody comes in with one of them, and the device's connection is ended.
#[utoipa::path(
    post,
    path = "/v1/devices/{d}/certificates/revoke",
    tag = "devices",
    params(crate::extract::DeviceInPath),
    request_body = CertificatesToRevoke,
    responses(
        (status = 200, description = "They are revoked, durably", body = RevokedShape),
        (status = 404, description = "There is no such device, or it has no such certificate in force",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke_certificates(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheDevice(device): TheDevice,
    _: Params<Nothing>,
    JsonBody(asked): JsonBody<CertificatesToRevoke>,
) -> Answer<Json<RevokedShape>> {
    let wrong = |_| Problem::field(Kind::InvalidValue, "serial", "serial must be hexadecimal digits.");
    let serial = asked.serial.as_deref().map(unhex).transpose().map_err(wrong)?;
    let revoked = shared.platform.revoke_certificates(&device, serial.as_deref(), &caller).await?;
    Ok(Json(RevokedShape { revoked }))
}

/// A request as people have it: PEM, or the base64 of its DER.
fn request(text: &str) -> Answer<CertificateSigningRequestDer<'static>> {
    let wrong = || Problem::field(Kind::InvalidValue, "csr", "csr must be PKCS #10, PEM or the base64 of its DER.");
    if text.trim_start().starts_with("-----BEGIN") {
        return CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong());
    }
    let der = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
    Ok(der.into())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The longest serial number of a certificate, in bytes (RFC 5280, 4.1.2.2).
const MAX_SERIAL: usize = 20;

fn unhex(text: &str) -> Result<Vec<u8>, ()> {
    if !text.len().is_multiple_of(2)
        || text.len() > 2 * MAX_SERIAL
        || !text.bytes().all(|digit| digit.is_ascii_hexdigit())
    {
        return Err(());
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| ());
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_hexadecimal_digits() {
        assert_eq!(unhex(&hex(&[0, 0xab, 0xff])), Ok(vec![0, 0xab, 0xff]));
        for text in ["a", "xx", "+1", "é", &"0".repeat(42)] {
            assert_eq!(unhex(text), Err(()), "{text}");
        }
    }

    #[test]
    fn a_request_is_pem_or_base64() {
        assert_eq!(request("AAEC").ok().map(|der| der.to_vec()), Some(vec![0, 1, 2]));
        let pem = "-----BEGIN CERTIFICATE REQUEST-----\nAAEC\n-----END CERTIFICATE REQUEST-----\n";
        assert_eq!(request(pem).ok().map(|der| der.to_vec()), Some(vec![0, 1, 2]));
        assert!(request("no base64 at all").is_err());
        assert!(request("-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n").is_err());
    }
}
