//! Webhooks: add, list, show, change, remove, try.

pub(crate) mod letters;

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use vestibule_platform::{
    Caller, Filter, Kinds, Platform, RecordKind, Secret, Webhook, WebhookError, WebhookPlace, WebhookSpec,
};

use crate::api::Shared;
use crate::events::position;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller};
use crate::hooks::{Seen, sign};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;

/// A webhook to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookToAdd {
    /// Where it is told: `https` or `http`, without user name and fragment, and not inside of the platform's network
    /// unless `webhooks.allow` of the configuration says so.
    #[schema(min_length = 8, max_length = 2048, format = "uri", example = "https://hall.example/vestibule")]
    url: String,
    /// A name for people.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// What it is told of: `event`, `attribute`, `operation`, `pass`; `event` when absent. Who adds it must be allowed to
    /// see these.
    #[schema(min_items = 1, example = json!(["event", "operation"]))]
    kinds: Option<Vec<String>>,
    /// Only of the device with this id or serial.
    device: Option<String>,
    /// Only of this area.
    #[schema(min_length = 1, max_length = 128)]
    area: Option<String>,
    /// Only with this name, of an event for example.
    #[serde(rename = "type")]
    #[schema(min_length = 1, max_length = 128, example = "Smoke")]
    event: Option<String>,
    /// What deliveries are signed with: `whsec_` and the base64 of 24 to 64 random bytes. Never shown again; drawn by the
    /// platform, and shown once, when absent.
    #[schema(format = Password)]
    secret: Option<String>,
    /// Whether it is told from now on; it is when absent.
    enabled: Option<bool>,
    /// Begin after this position of the journal; with what comes from now on when absent.
    #[schema(example = "0")]
    after: Option<String>,
}

/// What a webhook is to be from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookToChange {
    /// As when it is added.
    #[schema(min_length = 8, max_length = 2048, format = "uri", example = "https://hall.example/vestibule")]
    url: String,
    /// A name for people; none when absent.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// As when it is added.
    #[schema(min_items = 1, example = json!(["event"]))]
    kinds: Option<Vec<String>>,
    /// Only of the device with this id or serial; of all when absent.
    device: Option<String>,
    /// Only of this area; of all when absent.
    #[schema(min_length = 1, max_length = 128)]
    area: Option<String>,
    /// Only with this name; with any when absent.
    #[serde(rename = "type")]
    #[schema(min_length = 1, max_length = 128)]
    event: Option<String>,
    /// Another secret; the one it has when absent.
    #[schema(format = Password)]
    secret: Option<String>,
}

/// A webhook and how it is doing.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(crate) struct WebhookShape {
    /// Names it.
    #[schema(format = Uuid)]
    id: String,
    /// A name for people.
    #[schema(required = true)]
    name: Option<String>,
    /// Where it is told.
    url: String,
    /// What it is told of.
    kinds: Vec<&'static str>,
    /// Only of the device with this id.
    #[schema(required = true, format = Uuid)]
    device: Option<String>,
    /// Only of this area.
    #[schema(required = true)]
    area: Option<String>,
    /// Only with this name.
    #[serde(rename = "type")]
    #[schema(required = true)]
    event: Option<String>,
    /// Whether it is told now.
    enabled: bool,
    /// Why the platform disabled it by itself.
    #[schema(required = true)]
    disabled_because: Option<String>,
    /// When it was added.
    #[schema(format = DateTime)]
    created: String,
    /// Up to where in the journal it was told, buried what it would not take, and passed over what is not for it.
    #[schema(minimum = 0)]
    position: i64,
    /// How far it is behind.
    lag: Lag,
    /// Positions of the journal that retention took before it could be told.
    #[schema(minimum = 0)]
    missed: i64,
    /// Records that it could not be told.
    #[schema(minimum = 0)]
    dead_letters: i64,
    /// Dead letters that had to make room for others.
    #[schema(minimum = 0)]
    dead_letters_dropped: i64,
    /// When it took something last, since the platform was started.
    #[schema(required = true, format = DateTime)]
    last_success: Option<String>,
    /// What went wrong last, since the platform was started.
    #[schema(required = true)]
    last_error: Option<WebhookTrouble>,
    /// Since when the next record cannot be delivered; null when nothing is wrong.
    #[schema(required = true, format = DateTime)]
    failing_since: Option<String>,
    /// Tries in a row that failed.
    #[schema(minimum = 0)]
    failures: u32,
    /// When it is tried again; null when nothing waits for that.
    #[schema(required = true, format = DateTime)]
    next_attempt: Option<String>,
    /// What deliveries are signed with, when the platform drew it: shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// How far a webhook is behind.
#[derive(Serialize, ToSchema)]
pub(crate) struct Lag {
    /// Positions of the journal that it was not told yet, or that were not looked at.
    #[schema(minimum = 0)]
    positions: i64,
    /// For how long the earliest record waits that it was not told yet; 0 when none does.
    #[schema(minimum = 0)]
    seconds: i64,
}

/// A delivery that did not work.
#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookTrouble {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// The HTTP status, when there was an answer.
    #[schema(required = true)]
    status: Option<u16>,
    /// What happened, for people.
    reason: String,
}

/// All webhooks, oldest first. It is one page.
#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookList {
    /// The webhooks.
    items: Vec<WebhookShape>,
    /// Always null.
    #[schema(required = true)]
    next: Option<String>,
}

/// What came of a test.
#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookTest {
    /// Whether the receiver took it.
    delivered: bool,
    /// The HTTP status, when there was an answer.
    #[schema(required = true)]
    status: Option<u16>,
    /// What went wrong, for people.
    #[schema(required = true)]
    error: Option<String>,
    /// How long it took, in milliseconds.
    #[schema(minimum = 0)]
    took_ms: u64,
}

impl WebhookShape {
    fn of(shared: &Shared, webhook: Webhook) -> WebhookShape {
        let Seen { place, waiting_since, last_success, last_error, failures, next_attempt } =
            shared.hooks.seen(webhook.id);
        // Without a courier nothing is newer than what was noted.
        let WebhookPlace { position, stuck } = place.filter(|_| webhook.enabled).unwrap_or(webhook.place);
        let durable = shared.platform.journal().durable();
        let now = shared.platform.clock().now_ms();
        let behind = waiting_since.filter(|_| webhook.enabled).map_or(0, |since| now.saturating_sub(since).max(0));
        WebhookShape {
            id: webhook.id.to_string(),
            name: webhook.name,
            url: webhook.url,
            kinds: webhook.filter.kinds.iter().map(RecordKind::as_str).collect(),
            device: webhook.filter.device.map(|device| device.to_string()),
            area: webhook.filter.area,
            event: webhook.filter.name,
            enabled: webhook.enabled,
            disabled_because: webhook.disabled_because,
            created: rfc3339(webhook.created),
            position: position.get(),
            lag: Lag { positions: durable.get().saturating_sub(position.get()).max(0), seconds: behind / 1_000 },
            missed: webhook.missed,
            dead_letters: webhook.dead_letters,
            dead_letters_dropped: webhook.dropped,
            last_success: last_success.map(rfc3339),
            last_error: last_error.map(|trouble| WebhookTrouble {
                at: rfc3339(trouble.at),
                status: trouble.status,
                reason: trouble.reason,
            }),
            failing_since: stuck.map(|(_, since)| rfc3339(since)),
            failures,
            next_attempt: next_attempt.filter(|_| webhook.enabled).map(rfc3339),
            secret: None,
        }
    }
}

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

/// What is wanted of a webhook, from what was sent.
struct Wanted {
    url: String,
    name: Option<String>,
    kinds: Option<Vec<String>>,
    device: Option<String>,
    area: Option<String>,
    event: Option<String>,
}

impl Wanted {
    fn spec(self, shared: &Shared) -> Answer<WebhookSpec> {
        shared
            .hooks
            .check(&self.url)
            .map_err(|wrong| Problem::field(Kind::InvalidValue, "url", format!("url {wrong}.")))?;
        let unknown = "kinds must be of event, attribute, operation and pass.";
        let kinds = match self.kinds {
            None => Kinds::from(RecordKind::Event),
            Some(names) => names
                .iter()
                .map(|name| Kinds::named(name))
                .collect::<Option<Kinds>>()
                .ok_or_else(|| Problem::field(Kind::InvalidValue, "kinds", unknown))?,
        };
        let device = self.device.map(|key| device(&shared.platform, &key)).transpose()?;
        let filter = Filter { kinds, device, area: self.area, name: self.event };
        Ok(WebhookSpec { name: self.name, url: self.url, filter })
    }
}

fn device(platform: &Platform, key: &str) -> Answer<vestibule_platform::DeviceId> {
    let unknown = || Problem::field(Kind::InvalidValue, "device", "No device has the id or serial in device.");
    // Who manages webhooks sees all devices.
    platform.device(key, &Caller::program()).map(|device| device.id).ok_or_else(unknown)
}

fn secret(text: &str) -> Answer<Secret> {
    sign::read(text).map_err(|wrong| Problem::field(Kind::InvalidValue, "secret", format!("secret {wrong}.")))
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
    JsonBody(new): JsonBody<WebhookToAdd>,
) -> Answer<impl IntoResponse> {
    let WebhookToAdd { url, name, kinds, device, area, event, secret: given, enabled, after } = new;
    let spec = Wanted { url, name, kinds, device, area, event }.spec(&shared)?;
    let drawn = given.is_none().then(sign::draw);
    let shown = drawn.as_ref().map(sign::shown);
    let secret = match drawn {
        Some(drawn) => drawn,
        None => secret(given.as_deref().unwrap_or_default())?,
    };
    let after = after.map(|after| position("after", &after)).transpose()?;
    let webhook = shared.platform.add_webhook(spec, &secret, enabled.unwrap_or(true), after, &caller).await?;
    let location = format!("/v1/webhooks/{}", webhook.id);
    let shape = WebhookShape { secret: shown, ..WebhookShape::of(&shared, webhook) };
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
    let webhook = shared.platform.webhook(id).await?;
    Ok(Json(WebhookShape::of(&shared, webhook)))
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
    JsonBody(new): JsonBody<WebhookToChange>,
) -> Answer<Json<WebhookShape>> {
    let WebhookToChange { url, name, kinds, device, area, event, secret: given } = new;
    let spec = Wanted { url, name, kinds, device, area, event }.spec(&shared)?;
    let given = given.map(|text| secret(&text)).transpose()?;
    let webhook = shared.platform.change_webhook(id, spec, given, &caller).await?;
    Ok(Json(WebhookShape::of(&shared, webhook)))
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
    let webhook = shared.platform.enable_webhook(id, true, &caller).await?;
    Ok(Json(WebhookShape::of(&shared, webhook)))
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
    let webhook = shared.platform.enable_webhook(id, false, &caller).await?;
    Ok(Json(WebhookShape::of(&shared, webhook)))
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
        (status = 503, description = "The store does not answer, or deliveries take up all there may be",
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
    let tested = shared.hooks.test(&webhook, &secret).await;
    shared.platform.webhook_tested(id, tested.error.is_none(), &caller).await;
    Ok(Json(WebhookTest {
        delivered: tested.error.is_none(),
        status: tested.status,
        error: tested.error,
        took_ms: u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX),
    }))
}
