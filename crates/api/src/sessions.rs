//! Sessions: log in, see who one is, change one's own password, log out.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vestibule_platform::{LoginError, Secret};

use crate::api::Shared;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller, ThePeer};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;

/// Who wants to log in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogIn {
    /// Their name.
    #[schema(example = "anna")]
    name: String,
    /// Their password.
    #[schema(format = Password)]
    password: String,
}

/// Who has logged in.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoggedIn {
    /// What to show in `Authorization: Bearer`: shown this once, kept nowhere.
    #[schema(format = Password, example = "vss_…")]
    token: String,
    #[serde(flatten)]
    who: Who,
}

/// Somebody, and what they may.
#[derive(Serialize, ToSchema)]
pub(crate) struct Who {
    /// The name of the user or the token.
    #[schema(example = "anna")]
    name: String,
    /// What they may do.
    #[schema(pattern = "^(viewer|operator|admin)$", example = "operator")]
    role: &'static str,
    /// The part of the organisation they are bound to.
    #[schema(example = "/plant-1")]
    subtree: String,
    /// When the session or the token ends; null: not by itself.
    #[schema(required = true, format = DateTime)]
    expires: Option<String>,
}

/// Log in
///
/// The session lasts twelve hours. Past ten wrong passwords of a name from one address (/64 of IPv6), and past forty from
/// one address, no more are looked at for a while; from elsewhere the name is let in meanwhile.
#[utoipa::path(
    post,
    path = "/v1/sessions",
    tag = "rights",
    request_body = LogIn,
    responses(
        (status = 201, description = "Logged in", body = LoggedIn),
        (status = 401, description = "Name or password is wrong",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many were wrong; `Retry-After` says when another is looked at",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer, or too many passwords are being looked at",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn log_in(
    State(shared): State<Arc<Shared>>,
    ThePeer(peer): ThePeer,
    _: Params<Nothing>,
    JsonBody(LogIn { name, password }): JsonBody<LogIn>,
) -> Answer<(StatusCode, Json<LoggedIn>)> {
    let session = shared.platform.log_in(&name, Secret::new(password.into_bytes()), peer).await?;
    let who = Who {
        name: session.user.name.to_string(),
        role: session.user.role.as_str(),
        subtree: session.user.subtree.as_str().to_owned(),
        expires: Some(rfc3339(session.expires)),
    };
    Ok((StatusCode::CREATED, Json(LoggedIn { token: session.token.to_string(), who })))
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Problem {
        match error {
            LoginError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            LoginError::Refused => Problem::new(Kind::LoginRefused, "Name or password is wrong."),
            LoginError::TooManyFailures { after } => {
                Problem::new(Kind::TooManyRequests, "Too many were wrong. Wait before another is looked at.")
                    .after(after)
            }
            LoginError::NoUser => Problem::new(Kind::UnknownSession, "This is the token of a program, not a session."),
            LoginError::Store(error) => Problem::from(error),
            _ => Problem::new(Kind::Overloaded, "Too many passwords are being looked at. Try again."),
        }
    }
}

/// Show who one is
#[utoipa::path(
    get,
    path = "/v1/sessions/current",
    tag = "rights",
    responses((status = 200, description = "Whose token it is", body = Who)),
)]
pub(crate) async fn show_session(TheCaller(caller): TheCaller, _: Params<Nothing>) -> Json<Who> {
    Json(Who {
        name: caller.name().to_owned(),
        role: caller.role().as_str(),
        subtree: caller.subtree().as_str().to_owned(),
        expires: caller.expires().map(rfc3339),
    })
}

/// Log out
#[utoipa::path(
    delete,
    path = "/v1/sessions/current",
    tag = "rights",
    responses(
        (status = 204, description = "The session has ended, durably"),
        (status = 404, description = "The token is that of a program",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn log_out(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    let ended = shared.platform.log_out(&caller).await?;
    if ended { Ok(StatusCode::NO_CONTENT) } else { Err(LoginError::NoUser.into()) }
}

/// Another password of one's own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnPassword {
    /// The password until now.
    #[schema(format = Password)]
    current: String,
    /// The password from now on.
    #[schema(min_length = 10, max_length = 256, format = Password)]
    password: String,
}

/// Change one's own password
///
/// All other sessions of the user end.
#[utoipa::path(
    put,
    path = "/v1/sessions/current/password",
    tag = "rights",
    request_body = OwnPassword,
    responses(
        (status = 204, description = "It is in force, durably"),
        (status = 401, description = "The password until now is another one",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "The token is that of a program",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many were wrong; `Retry-After` says when another is looked at",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer, or too many passwords are being looked at",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn change_password(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    ThePeer(peer): ThePeer,
    _: Params<Nothing>,
    JsonBody(OwnPassword { current, password }): JsonBody<OwnPassword>,
) -> Answer<StatusCode> {
    let [current, password] = [current, password].map(|text| Secret::new(text.into_bytes()));
    shared.platform.change_password(current, password, &caller, peer).await?;
    Ok(StatusCode::NO_CONTENT)
}
