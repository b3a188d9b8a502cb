//! Users: people who log in with a name and a password.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vestibule_platform::{NewUser, Principal, Secret};

use crate::api::Shared;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller, cut, page_size};
use crate::org::OrgParam;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;
use crate::tokens::{PageParams, PrincipalInPath, RoleParam, ThePrincipal, id_cursor};

/// Somebody to be let in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserToAdd {
    /// Their name, that no other user and no token has.
    #[schema(min_length = 1, max_length = 64, example = "anna")]
    name: String,
    /// Their password. Never shown again.
    #[schema(min_length = 10, max_length = 256, format = Password)]
    password: String,
    /// What they may do: `viewer` sees, `operator` has devices do something as well, `admin` does everything.
    #[schema(value_type = String, pattern = "^(viewer|operator|admin)$", example = "operator")]
    role: RoleParam,
    /// The part of the organisation they are bound to; absent: your own.
    #[schema(value_type = Option<String>, max_length = 256, example = "/plant-1")]
    subtree: Option<OrgParam>,
}

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserShape {
    /// Their id.
    #[schema(format = Uuid)]
    id: String,
    /// Their name.
    #[schema(example = "anna")]
    name: String,
    /// What they may do.
    #[schema(pattern = "^(viewer|operator|admin)$", example = "operator")]
    role: &'static str,
    /// The part of the organisation they are bound to.
    #[schema(example = "/plant-1")]
    subtree: String,
    /// Since when they may log in.
    #[schema(format = DateTime)]
    created: String,
    /// Who let them.
    created_by: String,
    /// When they were here last, to the minute; null: never.
    #[schema(required = true, format = DateTime)]
    last_used: Option<String>,
}

impl From<&Principal> for UserShape {
    fn from(user: &Principal) -> UserShape {
        UserShape {
            id: user.id.to_string(),
            name: user.name.to_string(),
            role: user.role.as_str(),
            subtree: user.subtree.as_str().to_owned(),
            created: rfc3339(user.created),
            created_by: user.created_by.to_string(),
            last_used: user.last_used().map(rfc3339),
        }
    }
}

/// One page of users, in the order in which they were added.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserList {
    /// The users.
    items: Vec<UserShape>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// Let somebody log in from now on
#[utoipa::path(
    post,
    path = "/v1/users",
    tag = "rights",
    request_body = UserToAdd,
    responses(
        (status = 201, description = "Added, durably", body = UserShape,
            headers(("Location" = String, description = "Address of the user"))),
        (status = 409, description = "A user or a token has this name",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "There are as many users and tokens as may be, or the platform has too much to do",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn add_user(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
    JsonBody(new): JsonBody<UserToAdd>,
) -> Answer<impl IntoResponse> {
    let new = NewUser {
        name: new.name,
        password: Secret::new(new.password.into_bytes()),
        role: new.role.0,
        subtree: new.subtree.map(|org| org.0),
    };
    let user = shared.platform.add_user(new, &caller).await?;
    let location = format!("/v1/users/{}", user.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(UserShape::from(&*user))))
}

/// List users in the order in which they were added
///
/// Those are shown that are bound to your part of the organisation, or below.
#[utoipa::path(
    get,
    path = "/v1/users",
    tag = "rights",
    params(PageParams),
    responses((status = 200, description = "One page of users", body = UserList)),
)]
pub(crate) async fn list_users(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<PageParams>,
) -> Answer<Json<UserList>> {
    let size = page_size(params.limit)?;
    let mut users = shared.platform.users(id_cursor(params.cursor.as_deref())?, size + 1, &caller);
    let more = cut(&mut users, size);
    let next = users.last().filter(|_| more).map(|user| user.id.to_string());
    Ok(Json(UserList { items: users.iter().map(|user| UserShape::from(&**user)).collect(), next }))
}

fn unknown_user() -> Problem {
    Problem::new(Kind::UnknownUser, "No user has this id or name.")
}

/// Remove a user
///
/// Their sessions and streams end. Tokens that they made stay.
#[utoipa::path(
    delete,
    path = "/v1/users/{id}",
    tag = "rights",
    params(PrincipalInPath),
    responses(
        (status = 204, description = "Removed, durably"),
        (status = 404, description = "No user has this id or name",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove_user(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    ThePrincipal(key): ThePrincipal,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    let removed = shared.platform.remove_user(&key, &caller).await?;
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(unknown_user()) }
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordToSet {
    /// The password from now on. Never shown again.
    #[schema(min_length = 10, max_length = 256, format = Password)]
    password: String,
}

/// Give a user another password
///
/// Their sessions end.
#[utoipa::path(
    put,
    path = "/v1/users/{id}/password",
    tag = "rights",
    params(PrincipalInPath),
    request_body = PasswordToSet,
    responses(
        (status = 204, description = "It is in force, durably"),
        (status = 404, description = "No user has this id or name",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer, or the platform has too much to do",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn set_user_password(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    ThePrincipal(key): ThePrincipal,
    _: Params<Nothing>,
    JsonBody(new): JsonBody<PasswordToSet>,
) -> Answer<StatusCode> {
    let set = shared.platform.set_password(&key, Secret::new(new.password.into_bytes()), &caller).await?;
    if set { Ok(StatusCode::NO_CONTENT) } else { Err(unknown_user()) }
}
