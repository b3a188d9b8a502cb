//! Webhooks: who outside is told what the journal holds. The telling itself is not here: who does it asks for a webhook's
//! records as any follower does, and says here how far it came.

use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;
use vestibule_store::{
    DeadLetter, Order, Position, Record, RecordKind, Scan, Secret, StoreError, WebhookPlace, WebhookRow,
};

use crate::audit::Deed;
use crate::caller::Caller;
use crate::follow::{Filter, Kinds};
use crate::permission::Permission;
use crate::platform::{Platform, to_the_end};

/// Longest name, area and name of an event, in bytes.
const MAX_TEXT: usize = 128;

/// Who is named where the platform did something to a webhook by itself.
const PLATFORM: &str = "platform";

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Which one.
    pub id: Uuid,
    /// What people call it.
    pub name: Option<String>,
    /// Where it is told.
    pub url: String,
    /// What it is told.
    pub filter: Filter,
    /// Whether it is told now.
    pub enabled: bool,
    /// Why the platform disabled it by itself.
    pub disabled_because: Option<String>,
    /// When it was made, milliseconds since 1970.
    pub created: i64,
    /// Grows with every change by somebody.
    pub version: i64,
    /// How far it was told, as noted last.
    pub place: WebhookPlace,
    /// How many positions of the journal retention took before they could be looked at.
    pub missed: i64,
    /// How many dead letters had to make room for others.
    pub dropped: i64,
    /// How many dead letters there are.
    pub dead_letters: i64,
}

/// What somebody wants of a webhook.
pub struct WebhookSpec {
    /// What people call it.
    pub name: Option<String>,
    /// Where it is told: whoever tells it has looked at the address.
    pub url: String,
    /// What it is told.
    pub filter: Filter,
}

/// Why a webhook is not as somebody wants it.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The caller: a value cannot be one.
    #[error("{field} {reason}")]
    Invalid {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The caller may not see what the webhook would be told.
    #[error("the permission {0:?} is missing")]
    Forbidden(Permission),
    /// There are as many as there may be.
    #[error("there is the limit of {0} webhooks")]
    Full(usize),
    /// There is no such webhook (any more).
    #[error("there is no such webhook")]
    Unknown,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Webhook {
    fn of(row: WebhookRow) -> Webhook {
        let kinds = row.kinds.split(' ').filter_map(Kinds::named).collect();
        Webhook {
            id: row.id,
            name: row.name,
            url: row.url,
            filter: Filter { kinds, device: row.device, area: row.area, name: row.event },
            enabled: row.enabled,
            disabled_because: row.disabled_because,
            created: row.created,
            version: row.version,
            place: row.place,
            missed: row.missed,
            dropped: row.dropped,
            dead_letters: row.dead_letters,
        }
    }
}

impl WebhookSpec {
    fn check(&self, caller: &Caller) -> Result<(), WebhookError> {
        let Filter { kinds, area, name, .. } = &self.filter;
        let texts = [("name", &self.name), ("area", area), ("type", name)];
        for (field, text) in texts.into_iter().filter_map(|(field, text)| Some((field, text.as_ref()?))) {
            if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
                let reason = "must be 1 to 128 bytes without control characters";
                return Err(WebhookError::Invalid { field, reason });
            }
        }
        if kinds.is_empty() {
            return Err(WebhookError::Invalid { field: "kinds", reason: "must name at least one kind" });
        }
        let missing = kinds.iter().map(permission_of).find(|permission| !caller.may(*permission));
        missing.map_or(Ok(()), |permission| Err(WebhookError::Forbidden(permission)))
    }

    fn row(self, id: Uuid) -> WebhookRow {
        let kinds: Vec<&str> = self.filter.kinds.iter().map(RecordKind::as_str).collect();
        WebhookRow {
            id,
            name: self.name,
            url: self.url,
            kinds: kinds.join(" "),
            device: self.filter.device,
            area: self.filter.area,
            event: self.filter.name,
            enabled: true,
            disabled_because: None,
            created: 0,
            version: 1,
            place: WebhookPlace::default(),
            missed: 0,
            dropped: 0,
            dead_letters: 0,
        }
    }
}

/// What somebody must be allowed to see to have it told elsewhere.
fn permission_of(kind: RecordKind) -> Permission {
    match kind {
        RecordKind::Event | RecordKind::Amendment => Permission::EventsRead,
        RecordKind::Attribute => Permission::AttributesRead,
        RecordKind::Operation => Permission::OperationsRead,
        RecordKind::Pass => Permission::PassRead,
    }
}

impl Platform {
    /// Every webhook, oldest first.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        Ok(self.control().webhooks().await?.into_iter().map(Webhook::of).collect())
    }

    /// One webhook.
    pub async fn webhook(&self, id: Uuid) -> Result<Webhook, WebhookError> {
        self.webhooks().await?.into_iter().find(|webhook| webhook.id == id).ok_or(WebhookError::Unknown)
    }

    /// What a webhook's deliveries are signed with; `None` when there is no such webhook.
    pub async fn webhook_secret(&self, id: Uuid) -> Result<Option<Secret>, StoreError> {
        self.control().webhook_secret(id).await
    }

    /// Marked as changed whenever webhooks, or what is to be told them again, change.
    pub fn webhook_changes(&self) -> watch::Receiver<u64> {
        self.webhook_sender().subscribe()
    }

    /// Adds a webhook, durably when this returns. It is told what lies after a position; `None`: what becomes durable from
    /// now on.
    pub async fn add_webhook(
        &self,
        spec: WebhookSpec,
        secret: &Secret,
        enabled: bool,
        after: Option<Position>,
        caller: &Caller,
    ) -> Result<Webhook, WebhookError> {
        spec.check(caller)?;
        let max = self.config().max_webhooks;
        let place = WebhookPlace { position: after.unwrap_or_else(|| self.journal().durable()), stuck: None };
        let row = WebhookRow { enabled, created: self.clock().now_ms(), place, ..spec.row(Uuid::now_v7()) };
        let (control, secret, written) = (self.control().clone(), secret.clone(), row.clone());
        if !to_the_end(async move { control.insert_webhook(written, &secret, max).await }).await? {
            return Err(WebhookError::Full(max));
        }
        self.webhook_changed(row.id, "webhook.add", caller.name(), true).await;
        Ok(Webhook::of(row))
    }

    /// Replaces name, address and filter of a webhook and, where one is given, its secret, durably when this returns.
    /// Where it stands in the journal stays.
    pub async fn change_webhook(
        &self,
        id: Uuid,
        spec: WebhookSpec,
        secret: Option<Secret>,
        caller: &Caller,
    ) -> Result<Webhook, WebhookError> {
        spec.check(caller)?;
        let (control, row) = (self.control().clone(), spec.row(id));
        let changed = to_the_end(async move { control.change_webhook(row, secret.as_ref()).await }).await?;
        self.webhook_changed(id, "webhook.change", caller.name(), changed).await;
        self.webhook(id).await
    }

    /// Enables or disables a webhook, durably when this returns. One that is enabled goes on where it stood.
    pub async fn enable_webhook(&self, id: Uuid, enabled: bool, caller: &Caller) -> Result<Webhook, WebhookError> {
        let control = self.control().clone();
        let changed = to_the_end(async move { control.enable_webhook(id, enabled).await }).await?;
        let action = if enabled { "webhook.enable" } else { "webhook.disable" };
        self.webhook_changed(id, action, caller.name(), changed).await;
        self.webhook(id).await
    }

    /// Disables a webhook because of what its receiver says, durably when this returns; or leaves it as it is when somebody
    /// has changed it since this version.
    pub async fn give_up_webhook(&self, id: Uuid, version: i64, because: &str) -> Result<(), StoreError> {
        let (control, because) = (self.control().clone(), because.to_owned());
        if to_the_end(async move { control.give_up_webhook(id, version, &because).await }).await? {
            self.webhook_changed(id, "webhook.disable", PLATFORM, true).await;
        }
        Ok(())
    }

    /// Removes a webhook with its dead letters, durably when this returns.
    pub async fn remove_webhook(&self, id: Uuid, caller: &Caller) -> Result<(), WebhookError> {
        let control = self.control().clone();
        let removed = to_the_end(async move { control.remove_webhook(id).await }).await?;
        self.webhook_changed(id, "webhook.remove", caller.name(), removed).await;
        if removed { Ok(()) } else { Err(WebhookError::Unknown) }
    }

    /// Notes how far a webhook was told that was at this version, and how many more positions retention took before.
    pub async fn place_webhook(
        &self,
        id: Uuid,
        version: i64,
        place: WebhookPlace,
        missed: i64,
    ) -> Result<(), StoreError> {
        self.control().place_webhook(id, version, place, missed).await.map(drop)
    }

    /// Buries what a webhook could not be told, durably when this returns.
    pub async fn bury_letter(&self, letter: DeadLetter) -> Result<(), StoreError> {
        self.control().bury_letter(letter, self.config().max_dead_letters).await
    }

    /// What a webhook could not be told, before a position, newest first; `replay`: only what is to be told once more.
    pub async fn dead_letters(
        &self,
        id: Uuid,
        before: Option<Position>,
        replay: bool,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.control().dead_letters(id, before, replay, limit).await
    }

    /// Has a webhook told once more what it could not be told, all of it without positions; says how many letters that is.
    pub async fn replay_letters(
        &self,
        id: Uuid,
        positions: Option<Vec<Position>>,
        caller: &Caller,
    ) -> Result<u64, WebhookError> {
        self.webhook(id).await?;
        let control = self.control().clone();
        let count = to_the_end(async move { control.replay_letters(id, positions).await }).await?;
        self.webhook_changed(id, "webhook.replay", caller.name(), true).await;
        Ok(count)
    }

    /// Removes a dead letter that was delivered after all.
    pub async fn remove_letter(&self, id: Uuid, position: Position) -> Result<(), StoreError> {
        self.control().remove_letter(id, position).await
    }

    /// The record at a position, unless retention has taken it.
    pub async fn record_at(&self, position: Position) -> Result<Option<std::sync::Arc<Record>>, StoreError> {
        let after = Position::new(position.get() - 1);
        let scan = Scan { after, order: Order::Oldest, limit: 1, ..Scan::default() };
        let found = self.journal().scan(&scan).await?.into_iter().next();
        Ok(found.filter(|record| record.position == position))
    }

    /// Somebody has a webhook tried. To be said before, so that nothing goes out of which nobody knows who sent it.
    pub async fn webhook_is_tested(&self, id: Uuid, caller: &Caller) {
        let (auditor, actor) = (self.auditor(), caller.name().to_owned());
        to_the_end(async move {
            let detail = json!({ "webhook": id });
            auditor.write(Deed { actor: &actor, action: "webhook.test", device: None, detail, ok: true }).await;
        })
        .await;
    }

    /// Says that something was asked of a webhook, and writes down by whom.
    async fn webhook_changed(&self, id: Uuid, action: &'static str, actor: &str, ok: bool) {
        if ok {
            self.webhook_sender().send_modify(|count| *count = count.wrapping_add(1));
        }
        // An address may hold a secret, so that it is not in the audit.
        let detail = json!({ "webhook": id });
        self.auditor().write(Deed { actor, action, device: None, detail, ok }).await;
    }
}
