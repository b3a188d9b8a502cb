//! Tokens: make, list, remove.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use vestibule_platform::{NewToken, Principal, PrincipalError, Role};

use crate::api::Shared;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller, cut, page_size};
use crate::org::OrgParam;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;

/// A role in a body.
#[derive(Deserialize)]
pub(crate) struct RoleParam(#[serde(deserialize_with = "role")] pub(crate) Role);

fn role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    let name = String::deserialize(deserializer)?;
    Role::parse(&name).ok_or_else(|| D::Error::custom("must be viewer, operator or admin"))
}

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenToMake {
    /// Its name, that no other token and no user has; the audit knows it by that.
    #[schema(min_length = 1, max_length = 64, example = "wall-display")]
    name: String,
    /// What it may do: `viewer` sees, `operator` has devices do something as well, `admin` does everything.
    #[schema(value_type = String, pattern = "^(viewer|operator|admin)$", example = "viewer")]
    role: RoleParam,
    /// The part of the organisation it is bound to; absent: your own.
    #[schema(value_type = Option<String>, max_length = 256, example = "/plant-1/hall-2")]
    subtree: Option<OrgParam>,
    /// After so many seconds it is nobody's any more; absent: it stays until it is removed or, when the token that makes it ends
    /// by itself, until then. Beyond that it cannot be.
    #[schema(minimum = 1, maximum = 315360000, example = 2592000)]
    expires_in: Option<u64>,
}

/// A token, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Token)]
pub(crate) struct TokenShape {
    /// Its id.
    #[schema(format = Uuid)]
    id: String,
    /// Its name.
    #[schema(example = "wall-display")]
    name: String,
    /// What it may do.
    #[schema(pattern = "^(viewer|operator|admin)$", example = "viewer")]
    role: &'static str,
    /// The part of the organisation it is bound to.
    #[schema(example = "/plant-1/hall-2")]
    subtree: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created: String,
    /// Who made it.
    created_by: String,
    /// When it is nobody's any more; null: not before it is removed.
    #[schema(required = true, format = DateTime)]
    expires: Option<String>,
    /// When it was used last, to the minute; null: never.
    #[schema(required = true, format = DateTime)]
    last_used: Option<String>,
}

impl From<&Principal> for TokenShape {
    fn from(token: &Principal) -> TokenShape {
        TokenShape {
            id: token.id.to_string(),
            name: token.name.to_string(),
            role: token.role.as_str(),
            subtree: token.subtree.as_str().to_owned(),
            created: rfc3339(token.created),
            created_by: token.created_by.to_string(),
            expires: token.expires.map(rfc3339),
            last_used: token.last_used().map(rfc3339),
        }
    }
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeToken {
    /// What it shows in `Authorization: Bearer`: shown this once, kept nowhere.
    #[schema(format = Password, example = "vst_…")]
    token: String,
    #[serde(flatten)]
    shape: TokenShape,
}

/// One page of tokens, in the order of their making.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenList {
    /// The tokens.
    items: Vec<TokenShape>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// Make a token
///
/// The answer has its secret, which nobody can read again: only a digest is kept.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    tag = "rights",
    request_body = TokenToMake,
    responses(
        (status = 201, description = "Made, durably", body = MadeToken,
            headers(("Location" = String, description = "Address of the token"))),
        (status = 409, description = "A token or a user has this name",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "There are as many tokens and users as may be, or the store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn make_token(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
    JsonBody(new): JsonBody<TokenToMake>,
) -> Answer<impl IntoResponse> {
    let new = NewToken {
        name: new.name,
        role: new.role.0,
        subtree: new.subtree.map(|org| org.0),
        expires_in: new.expires_in.map(Duration::from_secs),
    };
    let (made, token) = shared.platform.add_token(new, &caller).await?;
    let location = format!("/v1/tokens/{}", made.id);
    let made = MadeToken { token: token.to_string(), shape: TokenShape::from(&*made) };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)))
}

impl From<PrincipalError> for Problem {
    fn from(error: PrincipalError) -> Problem {
        match error {
            PrincipalError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            PrincipalError::NameTaken => Problem::field(
                Kind::NameTaken,
                "name",
                "A token or a user has this name already. Take another one, or remove that first.",
            ),
            PrincipalError::Full(limit) => Problem::new(
                Kind::RegistryFull,
                format!("There are as many tokens and users as may be: {limit}. Remove some."),
            ),
            PrincipalError::Ending => Problem::new(
                Kind::Forbidden,
                "This token ends by itself, and users do not: it can neither add one nor give one a password.",
            ),
            PrincipalError::Busy => {
                Problem::new(Kind::Overloaded, "Too many passwords are being looked at. Try again.")
            }
            PrincipalError::Store(error) => Problem::from(error),
            _ => Problem::new(Kind::StoreUnavailable, "Nothing was made."),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// Most on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(crate) limit: Option<u64>,
    /// `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// The id that a cursor is.
pub(crate) fn id_cursor(cursor: Option<&str>) -> Answer<Option<Uuid>> {
    cursor.map(str::parse).transpose().map_err(|_| {
        Problem::field(Kind::InvalidValue, "cursor", "cursor must be what \"next\" of the page before said.")
    })
}

/// List tokens in the order of their making, without their secrets
///
/// Those are shown that are bound to your part of the organisation, or below.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    tag = "rights",
    params(PageParams),
    responses((status = 200, description = "One page of tokens", body = TokenList)),
)]
pub(crate) async fn list_tokens(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<PageParams>,
) -> Answer<Json<TokenList>> {
    let size = page_size(params.limit)?;
    let mut tokens = shared.platform.tokens(id_cursor(params.cursor.as_deref())?, size + 1, &caller);
    let more = cut(&mut tokens, size);
    let next = tokens.last().filter(|_| more).map(|token| token.id.to_string());
    Ok(Json(TokenList { items: tokens.iter().map(|token| TokenShape::from(&**token)).collect(), next }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct PrincipalInPath {
    /// Id or name.
    id: String,
}

/// The token or user `{id}` of the path.
pub(crate) struct ThePrincipal(pub(crate) String);

impl FromRequestParts<Arc<Shared>> for ThePrincipal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let path = Path::<PrincipalInPath>::from_request_parts(parts, shared).await;
        path.map(|Path(path)| ThePrincipal(path.id))
            .map_err(|_| Problem::new(Kind::MalformedRequest, "The path is not percent-encoded UTF-8."))
    }
}

fn unknown_token() -> Problem {
    Problem::new(Kind::UnknownToken, "No token has this id or name.")
}

/// Remove a token
///
/// It is nobody's from now on; streams that were opened with it end.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    tag = "rights",
    params(PrincipalInPath),
    responses(
        (status = 204, description = "Removed, durably"),
        (status = 404, description = "No token has this id or name",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove_token(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    ThePrincipal(key): ThePrincipal,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    let removed = shared.platform.remove_token(&key, &caller).await?;
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(unknown_token()) }
}
