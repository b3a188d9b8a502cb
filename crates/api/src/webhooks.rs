//! Webhooks: add, list, show, change, remove, try.

pub(crate) mod letters;
mod shapes;
mod wanted;

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;
use vestibule_platform::{Webhook, WebhookError};

use crate::api::Shared;
use crate::events::position;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller};
use crate::hooks::sign;
use crate::problem::{Kind, Problem, ProblemDocument};
use shapes::{WebhookList, WebhookShape, WebhookTest};
use wanted::{Wanted, WebhookToAdd, WebhookToChange, secret};

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Problem {
        match error {
            WebhookError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            WebhookError::Forbidden(permission) => Problem::field(
                Kind::Forbidden,
                "kinds",
                format!("To have this told elsewhere takes the permission {}.", permission.as_str()),
            ),
            WebhookError::Full(limit) => Problem::new(
                Kind::TooManyWebhooks,
                format!("There is the limit of {limit} webhooks. Remove one, or raise webhooks.max_webhooks."),
            ),
            WebhookError::Unknown => unknown(),
            WebhookError::Store(error) => Problem::from(error),
        }
    }
}

fn unknown() -> Problem {
    Problem::new(Kind::UnknownWebhook, "No webhook has this id.")
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct WebhookInPath {
    /// Id of the webhook.
    #[param(format = Uuid)]
    id: String,
}

/// The webhook `{id}` of the path; whether there is one, the platform says.
pub(crate) struct TheWebhook(pub(crate) Uuid);

impl FromRequestParts<Arc<Shared>> for TheWebhook {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let path = Path::<WebhookInPath>::from_request_parts(parts, shared).await;
        path.ok().and_then(|Path(path)| path.id.parse().ok()).map(TheWebhook).ok_or_else(unknown)
    }
}

/// Shows a webhook, or why there is none.
fn shown(shared: &Shared, webhook: Result<Webhook, WebhookError>) -> Answer<Json<WebhookShape>> {
    Ok(Json(WebhookShape::of(shared, webhook?)))
}

/// Add a webhook
///
/// Each record goes out as a CloudEvent 1.0 (structured, JSON) in a POST of its own, signed as Standard Webhooks has it, at
/// least once and, for each device, in order. See docs/webhooks.md.
#[utoipa::path(
    post,
    path = "/v1/webhooks",
    tag = "webhooks",
    request_body = WebhookToAdd,
    responses(
        (status = 201, description = "Added, durably; with its secret when that was drawn", body = WebhookShape,
            headers(("Location" = String, description = "Address of the webhook"))),
        (status = 409, description = "There are as many webhooks as there may be",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn add_webhook(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
    JsonBody(mut new): JsonBody<WebhookToAdd>,
) -> Answer<impl IntoResponse> {
    let (given, enabled, after) = (new.secret.take(), new.enabled, new.after.take());
    let spec = Wanted::from(new).spec(&shared)?;
    let drawn = given.is_none().then(sign::draw);
    let told = drawn.as_ref().map(sign::shown);
    let secret = match drawn {
        Some(drawn) => drawn,
        None => secret(given.as_deref().unwrap_or_default())?,
    };
    let after = after.map(|after| position("after", &after)).transpose()?;
    let webhook = shared.platform.add_webhook(spec, &secret, enabled.unwrap_or(true), after, &caller).await?;
    let location = format!("/v1/webhooks/{}", webhook.id);
    let shape = WebhookShape::of(&shared, webhook).with_secret(told);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(shape)))
}

/// List webhooks, oldest first
#[utoipa::path(
    get,
    path = "/v1/webhooks",
    tag = "webhooks",
    responses(
        (status = 200, description = "All webhooks", body = WebhookList),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_webhooks(State(shared): State<Arc<Shared>>, _: Params<Nothing>) -> Answer<Json<WebhookList>> {
    let webhooks = shared.platform.webhooks().await?;
    let items = webhooks.into_iter().map(|webhook| WebhookShape::of(&shared, webhook)).collect();
    Ok(Json(WebhookList { items, next: None }))
}

/// Show a webhook
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}",
    tag = "webhooks",
    params(WebhookInPath),
    responses(
        (status = 200, description = "The webhook", body = WebhookShape),
        (status = 404, description = "No webhook has this id",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_webhook(
    State(shared): State<Arc<Shared>>,
    TheWebhook(id): TheWebhook,
    _: Params<Nothing>,
) -> Answer<Json<WebhookShape>> {
    shown(&shared, shared.platform.webhook(id).await)
}

/// Change a webhook
///
/// Where it stands in the journal, and whether it is enabled, stays as it is.
#[utoipa::path(
    put,
    path = "/v1/webhooks/{id}",
    tag = "webhooks",
    params(WebhookInPath),
    request_body = WebhookToChange,
    responses(
        (status = 200, description = "Changed, durably", body = WebhookShape),
        (status = 404, description = "No webhook has this id",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn change_webhook(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheWebhook(id): TheWebhook,
    _: Params<Nothing>,
    JsonBody(mut new): JsonBody<WebhookToChange>,
) -> Answer<Json<WebhookShape>> {
    let given = new.secret.take().map(|text| secret(&text)).transpose()?;
    let spec = Wanted::from(new).spec(&shared)?;
    shown(&shared, shared.platform.change_webhook(id, spec, given, &caller).await)
}

/// Remove a webhook with its dead letters
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{id}",
    tag = "webhooks",
    params(WebhookInPath),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "No webhook has this id",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove_webhook(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheWebhook(id): TheWebhook,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    shared.platform.remove_webhook(id, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Have a webhook told again, from where it stood
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/enable",
    tag = "webhooks",
    params(WebhookInPath),
    responses(
        (status = 200, description = "It is enabled, durably", body = WebhookShape),
        (status = 404, description = "No webhook has this id",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn enable_webhook(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheWebhook(id): TheWebhook,
    _: Params<Nothing>,
) -> Answer<Json<WebhookShape>> {
    shown(&shared, shared.platform.enable_webhook(id, true, &caller).await)
}

/// Tell a webhook nothing for now
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/disable",
    tag = "webhooks",
    params(WebhookInPath),
    responses(
        (status = 200, description = "It is disabled, durably", body = WebhookShape),
        (status = 404, description = "No webhook has this id",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn disable_webhook(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheWebhook(id): TheWebhook,
    _: Params<Nothing>,
) -> Answer<Json<WebhookShape>> {
    shown(&shared, shared.platform.enable_webhook(id, false, &caller).await)
}

/// Try a webhook
///
/// It is sent one CloudEvent of type `vestibule.webhook.test`, at once and once, also when it is disabled.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/test",
    tag = "webhooks",
    params(WebhookInPath),
    responses(
        (status = 200, description = "What came of it", body = WebhookTest),
        (status = 404, description = "No webhook has this id",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer, or too many tests are under way",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn test_webhook(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheWebhook(id): TheWebhook,
    _: Params<Nothing>,
) -> Answer<Json<WebhookTest>> {
    let webhook = shared.platform.webhook(id).await?;
    let secret = shared.platform.webhook_secret(id).await?.ok_or_else(unknown)?;
    shared.platform.webhook_is_tested(id, &caller).await;
    let tested = shared.hooks.test(&webhook, &secret).await;
    let tested = tested.ok_or_else(|| Problem::new(Kind::Overloaded, "Too many tests are under way. Try again."))?;
    Ok(Json(tested.into()))
}
