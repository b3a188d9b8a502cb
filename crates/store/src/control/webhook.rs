//! Webhooks: who is told what the journal holds, how far each was told, and what could not be delivered.

mod letter;

pub use letter::DeadLetter;
pub(super) use letter::LetterWrite;

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::Control;
use super::device::stored_id;
use super::writer::{Write, rows};
use crate::db::{Transaction, on_db};
use crate::envelope::{Place, Sealed};
use crate::{DeviceId, Position, Secret, StoreError};

const SECRET: Sealed = Sealed::WebhookSecret;

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRow {
    /// Which one.
    pub id: Uuid,
    /// What people call it.
    pub name: Option<String>,
    /// Where it is told.
    pub url: String,
    /// Of which kinds of records, as the platform writes them.
    pub kinds: String,
    /// Only of this device, which may be gone.
    pub device: Option<DeviceId>,
    /// Only of this area.
    pub area: Option<String>,
    /// Only with this name.
    pub event: Option<String>,
    /// Whether it is told now.
    pub enabled: bool,
    /// Why the platform disabled it by itself.
    pub disabled_because: Option<String>,
    /// When it was made, Unix milliseconds.
    pub created: i64,
    /// Grows with every change by somebody.
    pub version: i64,
    /// How far it was told.
    pub place: WebhookPlace,
    /// How many positions of the journal were gone before they could be looked at.
    pub missed: i64,
    /// How many dead letters had to make room for others.
    pub dropped: i64,
    /// How many dead letters there are.
    pub dead_letters: i64,
}

/// How far a webhook was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookPlace {
    /// Everything up to here was delivered, buried, or is not for it.
    pub position: Position,
    /// The record that cannot be delivered, and since when, Unix milliseconds.
    pub stuck: Option<(Position, i64)>,
}

impl Control {
    /// Every webhook, oldest first.
    pub async fn webhooks(&self) -> Result<Vec<WebhookRow>, StoreError> {
        self.read(|db| async move {
            let rows: Vec<Stored> = on_db!(&db, pool => sqlx::query_as(
                "SELECT id, name, url, kinds, device, area, event, enabled, disabled_because, created, version, \
                 position, stuck_position, stuck_since, missed, \
                 (SELECT count(*) FROM webhook_dead_letter AS letter WHERE letter.webhook = hook.id) AS dead, dropped \
                 FROM webhook AS hook ORDER BY created, id",
            )
            .fetch_all(pool)
            .await?);
            rows.into_iter().map(Stored::row).collect()
        })
        .await
    }

    /// What a webhook is signed with; `None` when there is no such webhook.
    pub async fn webhook_secret(&self, id: Uuid) -> Result<Option<Secret>, StoreError> {
        let sealed: Option<(Vec<u8>,)> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as("SELECT secret FROM webhook WHERE id = $1")
                        .bind(id.as_bytes().to_vec())
                        .fetch_optional(pool)
                        .await?
                }))
            })
            .await?;
        sealed.map(|(sealed,)| self.0.envelope.open_sealed(&sealed, &place(&id))).transpose()
    }

    /// Adds a webhook, durably when this returns; false: there are `max` already.
    pub async fn insert_webhook(&self, row: WebhookRow, secret: &Secret, max: usize) -> Result<bool, StoreError> {
        let secret = self.0.envelope.seal(secret, &place(&row.id));
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        Ok(self.write(Write::Webhook(WebhookWrite::Insert { row: Box::new(row), secret, max })).await? > 0)
    }

    /// Replaces name, address and filter of a webhook and, where one is given, its secret; false: there is none.
    pub async fn change_webhook(&self, row: WebhookRow, secret: Option<&Secret>) -> Result<bool, StoreError> {
        let secret = secret.map(|secret| self.0.envelope.seal(secret, &place(&row.id)));
        Ok(self.write(Write::Webhook(WebhookWrite::Change { row: Box::new(row), secret })).await? > 0)
    }

    /// Enables a webhook, or disables it; false: there is none. Nothing has failed in the time in which it is disabled.
    pub async fn enable_webhook(&self, id: Uuid, enabled: bool) -> Result<bool, StoreError> {
        Ok(self.write(Write::Webhook(WebhookWrite::Enable { id, enabled })).await? > 0)
    }

    /// Disables a webhook for a reason that nobody has asked for; false: there is none, or it has another version by now.
    pub async fn give_up_webhook(&self, id: Uuid, version: i64, because: &str) -> Result<bool, StoreError> {
        let because = because.to_owned();
        Ok(self.write(Write::Webhook(WebhookWrite::GiveUp { id, version, because })).await? > 0)
    }

    /// Removes a webhook with its dead letters; false: there is none.
    pub async fn remove_webhook(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(self.write(Write::Webhook(WebhookWrite::Remove { id })).await? > 0)
    }

    /// Notes how far a webhook was told, and how many more positions it could not be; false: there is none. What could not
    /// be delivered under another version than its present one is not held against it.
    pub async fn place_webhook(
        &self,
        id: Uuid,
        version: i64,
        place: WebhookPlace,
        missed: i64,
    ) -> Result<bool, StoreError> {
        Ok(self.write(Write::Webhook(WebhookWrite::Place { id, version, place, missed })).await? > 0)
    }
}

fn place(id: &Uuid) -> Place<'_> {
    Place { column: SECRET, row: id.as_bytes() }
}

/// A row as it is read.
struct Stored {
    id: Vec<u8>,
    name: Option<String>,
    url: String,
    kinds: String,
    device: Option<Vec<u8>>,
    area: Option<String>,
    event: Option<String>,
    enabled: i64,
    disabled_because: Option<String>,
    created: i64,
    version: i64,
    position: i64,
    stuck_position: Option<i64>,
    stuck_since: Option<i64>,
    missed: i64,
    dead: i64,
    dropped: i64,
}

impl<'r, R: Row> FromRow<'r, R> for Stored
where
    for<'n> &'n str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
    Option<Vec<u8>>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Stored, sqlx::Error> {
        Ok(Stored {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            url: row.try_get("url")?,
            kinds: row.try_get("kinds")?,
            device: row.try_get("device")?,
            area: row.try_get("area")?,
            event: row.try_get("event")?,
            enabled: row.try_get("enabled")?,
            disabled_because: row.try_get("disabled_because")?,
            created: row.try_get("created")?,
            version: row.try_get("version")?,
            position: row.try_get("position")?,
            stuck_position: row.try_get("stuck_position")?,
            stuck_since: row.try_get("stuck_since")?,
            missed: row.try_get("missed")?,
            dead: row.try_get("dead")?,
            dropped: row.try_get("dropped")?,
        })
    }
}

impl Stored {
    fn row(self) -> Result<WebhookRow, StoreError> {
        Ok(WebhookRow {
            id: stored_webhook(&self.id)?,
            name: self.name,
            url: self.url,
            kinds: self.kinds,
            device: self.device.as_deref().map(stored_id).transpose()?,
            area: self.area,
            event: self.event,
            enabled: self.enabled != 0,
            disabled_because: self.disabled_because,
            created: self.created,
            version: self.version,
            place: WebhookPlace {
                position: Position::new(self.position),
                stuck: self.stuck_position.map(Position::new).zip(self.stuck_since),
            },
            missed: self.missed,
            dropped: self.dropped,
            dead_letters: self.dead,
        })
    }
}

fn stored_webhook(bytes: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(bytes).map_err(|_| StoreError::Corrupt("webhook id"))
}

/// A change of the webhooks. Secrets are sealed already.
pub(super) enum WebhookWrite {
    Insert { row: Box<WebhookRow>, secret: Vec<u8>, max: i64 },
    Change { row: Box<WebhookRow>, secret: Option<Vec<u8>> },
    Enable { id: Uuid, enabled: bool },
    GiveUp { id: Uuid, version: i64, because: String },
    Remove { id: Uuid },
    Place { id: Uuid, version: i64, place: WebhookPlace, missed: i64 },
    Letter(LetterWrite),
}

impl WebhookWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        let stored = |id: &Uuid| id.as_bytes().to_vec();
        let of = |row: &WebhookRow| row.device.map(|device| device.as_bytes().to_vec());
        match self {
            WebhookWrite::Insert { row, secret, max } => rows!(
                transaction,
                "INSERT INTO webhook (id, name, url, kinds, device, area, event, secret, enabled, disabled_because, \
                 created, version, position, stuck_position, stuck_since, missed, dropped) \
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, NULL, NULL, 0, 0 \
                 WHERE (SELECT count(*) FROM webhook) < $14",
                stored(&row.id),
                &row.name,
                &row.url,
                &row.kinds,
                of(row),
                &row.area,
                &row.event,
                secret,
                i64::from(row.enabled),
                &row.disabled_because,
                row.created,
                row.version,
                row.place.position.get(),
                max
            ),
            WebhookWrite::Change { row, secret } => rows!(
                transaction,
                "UPDATE webhook SET name = $1, url = $2, kinds = $3, device = $4, area = $5, event = $6, \
                 secret = COALESCE($7, secret), version = version + 1, stuck_position = NULL, stuck_since = NULL \
                 WHERE id = $8",
                &row.name,
                &row.url,
                &row.kinds,
                of(row),
                &row.area,
                &row.event,
                secret,
                stored(&row.id)
            ),
            WebhookWrite::Enable { id, enabled } => rows!(
                transaction,
                "UPDATE webhook SET enabled = $1, disabled_because = NULL, version = version + 1, \
                 stuck_position = NULL, stuck_since = NULL WHERE id = $2",
                i64::from(*enabled),
                stored(id)
            ),
            WebhookWrite::GiveUp { id, version, because } => rows!(
                transaction,
                "UPDATE webhook SET enabled = 0, disabled_because = $1, version = version + 1, \
                 stuck_position = NULL, stuck_since = NULL WHERE id = $2 AND version = $3",
                because,
                stored(id),
                version
            ),
            WebhookWrite::Remove { id } => rows!(transaction, "DELETE FROM webhook WHERE id = $1", stored(id)),
            WebhookWrite::Place { id, version, place, missed } => rows!(
                transaction,
                "UPDATE webhook SET position = $1, missed = missed + $2, \
                 stuck_position = CASE WHEN version = $3 THEN $4 ELSE NULL END, \
                 stuck_since = CASE WHEN version = $3 THEN $5 ELSE NULL END WHERE id = $6",
                place.position.get(),
                missed,
                version,
                place.stuck.map(|(position, _)| position.get()),
                place.stuck.map(|(_, since)| since),
                stored(id)
            ),
            WebhookWrite::Letter(letter) => letter.apply(transaction).await,
        }
    }

    /// How many rows it touches at most, nearly.
    pub(super) fn weight(&self) -> usize {
        match self {
            WebhookWrite::Letter(letter) => letter.weight(),
            _ => 1,
        }
    }
}
