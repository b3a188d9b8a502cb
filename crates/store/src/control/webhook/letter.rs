//! Dead letters: what a webhook could not be told.

use uuid::Uuid;

use super::super::Control;
use super::super::device::stored_id;
use super::super::writer::{Write, rows};
use super::{WebhookWrite, stored_webhook};
use crate::db::{Transaction, on_db};
use crate::{DeviceId, Position, StoreError};

/// The most rows one [`Control::dead_letters`] returns.
const MAX_LETTERS: usize = 1_000;

/// A record that a webhook could not be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which webhook.
    pub webhook: Uuid,
    /// Where the record stands in the journal.
    pub position: Position,
    /// The device it is of.
    pub device: DeviceId,
    /// That device's external identity at the time.
    pub serial: String,
    /// The kind of record.
    pub kind: String,
    /// When it was given up, Unix milliseconds.
    pub died: i64,
    /// How often it was tried since the last start of the platform or of a replay.
    pub attempts: i64,
    /// The last HTTP status, when there was an answer.
    pub status: Option<i64>,
    /// Why it was given up, for people.
    pub reason: String,
    /// Whether it waits to be told once more.
    pub replay: bool,
}

impl Control {
    /// Buries a letter, durably when this returns, or buries it again; the oldest of the webhook beyond `max` go and are
    /// counted there.
    pub async fn bury_letter(&self, letter: DeadLetter, max: usize) -> Result<(), StoreError> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.letter(LetterWrite::Bury { letter: Box::new(letter), max }).await.map(drop)
    }

    /// Dead letters of a webhook before a position, newest first; `replay`: only those that wait to be told once more.
    pub async fn dead_letters(
        &self,
        webhook: Uuid,
        before: Option<Position>,
        replay: bool,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        type Row = (Vec<u8>, i64, Vec<u8>, String, String, i64, i64, Option<i64>, String, i64);
        let before = before.map_or(i64::MAX, Position::get);
        let limit = i64::try_from(limit.min(MAX_LETTERS)).unwrap_or(i64::MAX);
        self.read(move |db| async move {
            let rows: Vec<Row> = on_db!(&db, pool => sqlx::query_as(
                "SELECT webhook, position, device, serial, kind, died, attempts, status, reason, replay \
                 FROM webhook_dead_letter WHERE webhook = $1 AND position < $2 AND replay >= $3 \
                 ORDER BY position DESC LIMIT $4",
            )
            .bind(webhook.as_bytes().to_vec())
            .bind(before)
            .bind(i64::from(replay))
            .bind(limit)
            .fetch_all(pool)
            .await?);
            rows.into_iter()
                .map(|row| {
                    Ok(DeadLetter {
                        webhook: stored_webhook(&row.0)?,
                        position: Position::new(row.1),
                        device: stored_id(&row.2)?,
                        serial: row.3,
                        kind: row.4,
                        died: row.5,
                        attempts: row.6,
                        status: row.7,
                        reason: row.8,
                        replay: row.9 != 0,
                    })
                })
                .collect()
        })
        .await
    }

    /// Marks dead letters of a webhook to be told once more, all of them without positions; says how many.
    pub async fn replay_letters(&self, webhook: Uuid, positions: Option<Vec<Position>>) -> Result<u64, StoreError> {
        self.letter(LetterWrite::Replay { webhook, positions }).await.map(i64::unsigned_abs)
    }

    /// Removes a letter that was delivered after all.
    pub async fn remove_letter(&self, webhook: Uuid, position: Position) -> Result<(), StoreError> {
        self.letter(LetterWrite::Remove { webhook, position }).await.map(drop)
    }

    async fn letter(&self, write: LetterWrite) -> Result<i64, StoreError> {
        self.write(Write::Webhook(WebhookWrite::Letter(write))).await
    }
}

/// A change of the dead letters.
pub(in super::super) enum LetterWrite {
    Bury { letter: Box<DeadLetter>, max: i64 },
    Replay { webhook: Uuid, positions: Option<Vec<Position>> },
    Remove { webhook: Uuid, position: Position },
}

impl LetterWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            LetterWrite::Bury { letter, max } => bury(letter, *max, transaction).await,
            LetterWrite::Replay { webhook, positions: None } => rows!(
                transaction,
                "UPDATE webhook_dead_letter SET replay = 1 WHERE webhook = $1",
                webhook.as_bytes().to_vec()
            ),
            LetterWrite::Replay { webhook, positions: Some(positions) } => {
                let mut marked = 0;
                for position in positions {
                    marked += rows!(
                        transaction,
                        "UPDATE webhook_dead_letter SET replay = 1 WHERE webhook = $1 AND position = $2",
                        webhook.as_bytes().to_vec(),
                        position.get()
                    )?;
                }
                Ok(marked)
            }
            LetterWrite::Remove { webhook, position } => rows!(
                transaction,
                "DELETE FROM webhook_dead_letter WHERE webhook = $1 AND position = $2",
                webhook.as_bytes().to_vec(),
                position.get()
            ),
        }
    }

    pub(super) fn weight(&self) -> usize {
        match self {
            LetterWrite::Replay { .. } => MAX_LETTERS,
            _ => 1,
        }
    }
}

async fn bury(letter: &DeadLetter, max: i64, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
    let webhook = || letter.webhook.as_bytes().to_vec();
    // One whose webhook was removed meanwhile is of no use to anybody.
    let buried = rows!(
        transaction,
        "INSERT INTO webhook_dead_letter (webhook, position, device, serial, kind, died, attempts, status, reason, \
         replay) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM webhook WHERE id = $1 \
         ON CONFLICT (webhook, position) DO UPDATE SET died = excluded.died, attempts = excluded.attempts, \
         status = excluded.status, reason = excluded.reason, replay = excluded.replay",
        webhook(),
        letter.position.get(),
        letter.device.as_bytes().to_vec(),
        &letter.serial,
        &letter.kind,
        letter.died,
        letter.attempts,
        letter.status,
        &letter.reason,
        i64::from(letter.replay)
    )?;
    let dropped = rows!(
        transaction,
        "DELETE FROM webhook_dead_letter WHERE webhook = $1 AND position NOT IN (SELECT position \
         FROM webhook_dead_letter WHERE webhook = $1 ORDER BY position DESC LIMIT $2)",
        webhook(),
        max
    )?;
    if dropped > 0 {
        rows!(transaction, "UPDATE webhook SET dropped = dropped + $1 WHERE id = $2", dropped, webhook())?;
    }
    Ok(buried)
}
