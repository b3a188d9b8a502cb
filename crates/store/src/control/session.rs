//! Sessions of people, and their passwords.

use uuid::Uuid;

use super::Control;
use super::writer::{EXPIRED, Write, rows};
use crate::db::{Transaction, on_db};
use crate::{Secret, StoreError};

/// The most rows one [`Control::sessions`] returns.
const MAX_SESSIONS: i64 = 10_000;

/// Somebody who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The digest of what the session shows.
    pub digest: [u8; 32],
    /// Whose it is.
    pub principal: Uuid,
    /// When it began, Unix milliseconds.
    pub created: i64,
    /// When it ends, Unix milliseconds.
    pub expires: i64,
}

impl Control {
    /// Keeps a session of a principal who has shown this secret, durably when this returns; false when there is no such
    /// principal (any more), or it has another secret by now.
    pub async fn insert_session(&self, row: SessionRow, secret: &Secret) -> Result<bool, StoreError> {
        let secret = secret.clone();
        Ok(self.write(Write::Session(SessionWrite::Insert { row, secret })).await? > 0)
    }

    /// Sessions with a digest beyond `after`, by digest, at most `limit` (and never more than 10,000).
    pub async fn sessions(&self, after: Option<[u8; 32]>, limit: i64) -> Result<Vec<SessionRow>, StoreError> {
        let after = after.map_or_else(Vec::new, |digest| digest.to_vec());
        let limit = limit.clamp(0, MAX_SESSIONS);
        self.read(move |db| async move {
            let rows: Vec<(Vec<u8>, Vec<u8>, i64, i64)> = on_db!(&db, pool => sqlx::query_as(
                "SELECT digest, principal, created, expires FROM session WHERE digest > $1 ORDER BY digest LIMIT $2",
            )
            .bind(after)
            .bind(limit)
            .fetch_all(pool)
            .await?);
            let row = |(digest, principal, created, expires): (Vec<u8>, Vec<u8>, i64, i64)| {
                let digest = digest.try_into().map_err(|_| StoreError::Corrupt("session digest"))?;
                let principal = Uuid::from_slice(&principal).map_err(|_| StoreError::Corrupt("principal id"))?;
                Ok(SessionRow { digest, principal, created, expires })
            };
            rows.into_iter().map(row).collect()
        })
        .await
    }

    /// Ends a session, durably when this returns; false when there is none.
    pub async fn remove_session(&self, digest: [u8; 32]) -> Result<bool, StoreError> {
        Ok(self.write(Write::Session(SessionWrite::Remove { digest })).await? > 0)
    }

    /// Gives a principal another secret and ends its sessions but this one, at once; false when there is no such principal.
    pub async fn set_secret(&self, id: Uuid, secret: &Secret, keep: Option<[u8; 32]>) -> Result<bool, StoreError> {
        let secret = secret.clone();
        Ok(self.write(Write::Session(SessionWrite::Secret { id, secret, keep })).await? > 0)
    }

    /// Removes the sessions that have ended; returns how many there were.
    pub async fn expire_sessions(&self, now: i64) -> Result<u64, StoreError> {
        self.expire(|| Write::Session(SessionWrite::Expire { now })).await
    }
}

/// A change of the sessions.
pub(super) enum SessionWrite {
    Insert { row: SessionRow, secret: Secret },
    Remove { digest: [u8; 32] },
    Secret { id: Uuid, secret: Secret, keep: Option<[u8; 32]> },
    Expire { now: i64 },
}

impl SessionWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            SessionWrite::Insert { row, secret } => rows!(
                transaction,
                "INSERT INTO session (digest, principal, created, expires) \
                 SELECT $1, id, $2, $3 FROM principal WHERE id = $4 AND secret = $5",
                row.digest.to_vec(),
                row.created,
                row.expires,
                row.principal.as_bytes().to_vec(),
                secret.expose().to_vec()
            ),
            SessionWrite::Remove { digest } => {
                rows!(transaction, "DELETE FROM session WHERE digest = $1", digest.to_vec())
            }
            SessionWrite::Secret { id, secret, keep } => {
                let (id, keep) = (id.as_bytes().to_vec(), keep.map_or_else(Vec::new, |digest| digest.to_vec()));
                rows!(transaction, "DELETE FROM session WHERE principal = $1 AND digest <> $2", id.clone(), keep)?;
                rows!(transaction, "UPDATE principal SET secret = $1 WHERE id = $2", secret.expose().to_vec(), id)
            }
            SessionWrite::Expire { now } => rows!(
                transaction,
                "DELETE FROM session WHERE digest IN (SELECT digest FROM session WHERE expires <= $1 LIMIT $2)",
                now,
                EXPIRED
            ),
        }
    }
}
