//! The platform's own certificates: its authorities, and which root devices know.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{AuthorityView, CertificateView, CertificatesError, OverdueRoots, OverdueRow, Purpose};
use vestibule_tls::IssueError;

use crate::api::Shared;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller, cut, page_size};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;

/// A certificate of the platform's own.
#[derive(Serialize, ToSchema)]
#[schema(as = Certificate)]
pub(crate) struct CertificateShape {
    /// `servers/root`, `servers/intermediate`, `servers/cross` (a newer root, signed by an older one), `devices/root`,
    /// `devices/intermediate` or `server` (what listeners show).
    kind: String,
    /// Its serial number, hexadecimal.
    serial: String,
    /// The common name of whom it is for.
    subject: String,
    /// The common name of who issued it.
    issuer: String,
    /// Valid from.
    #[schema(format = DateTime)]
    not_before: String,
    /// Valid to.
    #[schema(format = DateTime)]
    not_after: String,
    /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal: what a device may pin in place of a root.
    spki_sha256: String,
    /// The certificate, PEM.
    pem: String,
}

impl From<CertificateView> for CertificateShape {
    fn from(view: CertificateView) -> CertificateShape {
        CertificateShape {
            kind: view.kind,
            serial: view.serial,
            subject: view.subject,
            issuer: view.issuer,
            not_before: rfc3339(view.not_before),
            not_after: rfc3339(view.not_after),
            spki_sha256: view.spki_sha256,
            pem: view.pem,
        }
    }
}

/// The platform's certificates.
#[derive(Serialize, ToSchema)]
#[schema(as = Authority)]
pub(crate) struct AuthorityShape {
    /// The names, hosts and addresses, of the platform's own certificate.
    names: Vec<String>,
    /// The platform's own certificate.
    server: CertificateShape,
    /// Roots and intermediates, newest first, those of servers before those of devices.
    authorities: Vec<CertificateShape>,
    /// The roots of servers, PEM, newest first: what clients trust.
    roots: String,
}

impl AuthorityShape {
    async fn of(shared: &Shared) -> Answer<Json<AuthorityShape>> {
        let certificates = shared.platform.certificates();
        let AuthorityView { names, server, authorities } = certificates.view().await?;
        let authorities = authorities.into_iter().map(CertificateShape::from).collect();
        let roots = certificates.anchors_pem(Purpose::Servers).await;
        Ok(Json(AuthorityShape { names, server: server.into(), authorities, roots }))
    }
}

/// Whose roots are changed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollToDo {
    /// `servers`: what proves the platform; `devices`: what proves devices.
    #[schema(pattern = "^(servers|devices)$", example = "servers")]
    purpose: String,
    /// `true`: also while devices need what goes.
    #[serde(default)]
    force: bool,
}

/// A device that does not know the newest root of servers.
#[derive(Serialize, ToSchema)]
pub(crate) struct OverdueShape {
    /// The id of the device.
    device: String,
    /// Its serial.
    serial: String,
    /// The newest root of ours that it does know, SHA-256, hexadecimal; null: it has named none.
    #[schema(required = true)]
    root: Option<String>,
    /// Since when that is what it says; null: it was not in since devices are asked.
    #[schema(required = true, format = DateTime)]
    since: Option<String>,
}

impl From<OverdueRow> for OverdueShape {
    fn from(row: OverdueRow) -> OverdueShape {
        let OverdueRow { device, serial, root, since } = row;
        OverdueShape { device: device.to_string(), serial, root, since: since.map(rfc3339) }
    }
}

/// A page of devices that do not know the newest root of servers.
#[derive(Serialize, ToSchema)]
pub(crate) struct OverdueList {
    /// SHA-256 of the newest root, hexadecimal.
    newest: String,
    /// How many devices there are on all pages.
    total: u64,
    /// The devices.
    items: Vec<OverdueShape>,
    /// What to ask for to get the next page; null: this is the last one.
    #[schema(required = true)]
    next: Option<String>,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OverdueParams {
    /// Most on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

impl From<CertificatesError> for Problem {
    fn from(error: CertificatesError) -> Problem {
        match error {
            CertificatesError::Store(error) => error.into(),
            CertificatesError::Issue(IssueError::Request(error)) => {
                Problem::field(Kind::InvalidValue, "csr", format!("csr is refused: {error}."))
            }
            CertificatesError::Unknown => Problem::new(
                Kind::UnknownCertificate,
                "The device has no certificate with this serial number in force.",
            ),
            error
            @ (CertificatesError::Overdue { .. } | CertificatesError::Dependent(_) | CertificatesError::Early) => {
                Problem::new(Kind::RootNeeded, format!("{error}."))
            }
            error @ (CertificatesError::Full(_) | CertificatesError::Spent(_)) => {
                Problem::new(Kind::TooManyCertificates, format!("{error}."))
            }
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "a certificate was not made");
                Problem::new(Kind::StoreUnavailable, "The platform's certificates cannot be used; its log says why.")
            }
        }
    }
}

/// Show the platform's certificates
///
/// What its listeners show, and the authorities behind it. Nothing of it is secret.
#[utoipa::path(
    get,
    path = "/v1/authority",
    tag = "rights",
    responses((status = 200, description = "The certificates", body = AuthorityShape)),
)]
pub(crate) async fn show_authority(
    State(shared): State<Arc<Shared>>,
    _: Params<Nothing>,
) -> Answer<Json<AuthorityShape>> {
    AuthorityShape::of(&shared).await
}

/// Replace a root
///
/// A new root, and what issues below it, are in force at once. The older root stays trusted until it ends or is retired; for servers it
/// vouches for the newer one, so that clients which know the older root alone go on. Devices of our SDK are told the new root when they come
/// in. Four roots are kept: one more takes the place of the oldest, which is refused while devices need that one, unless `force` is set.
#[utoipa::path(
    post,
    path = "/v1/authority/roll",
    tag = "rights",
    request_body = RollToDo,
    responses(
        (status = 200, description = "The certificates as they are now, durably", body = AuthorityShape),
        (status = 409, description = "The oldest of four roots would go, which is needed",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn roll_authority(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
    JsonBody(roll): JsonBody<RollToDo>,
) -> Answer<Json<AuthorityShape>> {
    shared.platform.roll_authority(purpose(&roll.purpose)?, roll.force, &caller).await?;
    AuthorityShape::of(&shared).await
}

/// Retire the older roots
///
/// The newest root alone stays, with what hangs on it. Devices that know the platform by an older one only, or have a certificate from below
/// one, come in no more: while there are any this is refused, unless `force` is set. So it is while devices are registered that have never
/// been in, since their firmware may name an older root; and a factory reset takes a device back to what its firmware names.
#[utoipa::path(
    post,
    path = "/v1/authority/retire",
    tag = "rights",
    request_body = RollToDo,
    responses(
        (status = 200, description = "The certificates as they are now, durably", body = AuthorityShape),
        (status = 409, description = "An older root is needed",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn retire_authority(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
    JsonBody(retire): JsonBody<RollToDo>,
) -> Answer<Json<AuthorityShape>> {
    shared.platform.retire_authority(purpose(&retire.purpose)?, retire.force, &caller).await?;
    AuthorityShape::of(&shared).await
}

/// List devices that do not know the newest root
///
/// Devices that come in over TLS and have not said that they know the newest root of servers. A device of our SDK is told it when it comes in,
/// and says so when it does the next time, a day later at most; others have to be given it by hand.
#[utoipa::path(
    get,
    path = "/v1/authority/overdue",
    tag = "rights",
    params(OverdueParams),
    responses(
        (status = 200, description = "One page of devices, by their serials", body = OverdueList),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_overdue(
    State(shared): State<Arc<Shared>>,
    Params(params): Params<OverdueParams>,
) -> Answer<Json<OverdueList>> {
    let size = page_size(params.limit)?;
    let limit = i64::try_from(size).unwrap_or(i64::MAX - 1) + 1;
    let after = params.cursor.unwrap_or_default();
    let OverdueRoots { newest, total, mut rows } = shared.platform.certificates().overdue_roots(&after, limit).await?;
    let more = cut(&mut rows, size);
    let next = rows.last().filter(|_| more).map(|row| row.serial.clone());
    Ok(Json(OverdueList { newest, total, items: rows.into_iter().map(Into::into).collect(), next }))
}

fn purpose(name: &str) -> Answer<Purpose> {
    match name {
        "servers" => Ok(Purpose::Servers),
        "devices" => Ok(Purpose::Devices),
        _ => Err(Problem::field(Kind::InvalidValue, "purpose", "purpose must be \"servers\" or \"devices\".")),
    }
}
