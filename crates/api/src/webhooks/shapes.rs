//! How webhooks are shown.

use serde::Serialize;
use utoipa::ToSchema;
use vestibule_platform::{RecordKind, Webhook, WebhookPlace};

use crate::api::Shared;
use crate::hooks::{Seen, Tested};
use crate::shapes::rfc3339;

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
    pub(super) items: Vec<WebhookShape>,
    /// Always null.
    #[schema(required = true)]
    pub(super) next: Option<String>,
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
    pub(super) fn of(shared: &Shared, webhook: Webhook) -> WebhookShape {
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

    /// The same with the secret that was drawn for it.
    pub(super) fn with_secret(self, secret: Option<String>) -> WebhookShape {
        WebhookShape { secret, ..self }
    }
}

impl From<Tested> for WebhookTest {
    fn from(tested: Tested) -> WebhookTest {
        WebhookTest {
            delivered: tested.error.is_none(),
            status: tested.status,
            error: tested.error,
            took_ms: u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
