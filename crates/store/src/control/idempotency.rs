//! Requests that are carried out once however often they come.

use super::Control;
use super::writer::{EXPIRED, Write, rows};
use crate::StoreError;
use crate::db::{Transaction, on_db};

/// How a request with a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is the first: carry it out, then [`Control::finish_key`], or [`Control::forget_key`] when nothing was done.
    New,
    /// The first one is under way, or nobody knows how it ended.
    Running {
        /// The digest of what was asked first.
        digest: [u8; 32],
    },
    /// The first one was answered.
    Done {
        /// The digest of what was asked first.
        digest: [u8; 32],
        /// The answer it was given.
        answer: String,
    },
}

impl Control {
    /// Says how the request with this key stands, and takes note of it, durably when this returns, if it is new. A key
    /// is one inside its scope; one that expired is as if it never was. Times are Unix milliseconds.
    pub async fn begin_key(
        &self,
        scope: &str,
        key: &str,
        digest: [u8; 32],
        now: i64,
        expires: i64,
    ) -> Result<Begun, StoreError> {
        let name = Name { scope: scope.to_owned(), key: key.to_owned() };
        loop {
            if self.write(Write::Key(KeyWrite::Begin { name: name.clone(), digest, now, expires })).await? > 0 {
                return Ok(Begun::New);
            }
            // None: it was forgotten in this moment, so this request may be the first now.
            if let Some(begun) = self.key(name.clone()).await? {
                return Ok(begun);
            }
        }
    }

    /// Keeps the answer for whoever asks again, durably when this returns. A key that is gone stays gone.
    pub async fn finish_key(&self, scope: &str, key: &str, answer: &str) -> Result<(), StoreError> {
        let name = Name { scope: scope.to_owned(), key: key.to_owned() };
        self.write(Write::Key(KeyWrite::Finish { name, answer: answer.to_owned() })).await.map(drop)
    }

    /// Forgets a key: nothing was done, and the request may come again.
    pub async fn forget_key(&self, scope: &str, key: &str) -> Result<(), StoreError> {
        let name = Name { scope: scope.to_owned(), key: key.to_owned() };
        self.write(Write::Key(KeyWrite::Forget { name })).await.map(drop)
    }

    /// Removes the keys that have expired; returns how many there were.
    pub async fn expire_keys(&self, now: i64) -> Result<u64, StoreError> {
        self.expire(|| Write::Key(KeyWrite::Expire { now })).await
    }

    async fn key(&self, name: Name) -> Result<Option<Begun>, StoreError> {
        let row: Option<(Vec<u8>, Option<String>)> = self
            .read(|db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as("SELECT digest, answer FROM idempotency WHERE scope = $1 AND key = $2")
                        .bind(name.scope)
                        .bind(name.key)
                        .fetch_optional(pool)
                        .await?
                }))
            })
            .await?;
        let Some((digest, answer)) = row else { return Ok(None) };
        let digest = <[u8; 32]>::try_from(digest).map_err(|_| StoreError::Corrupt("digest"))?;
        Ok(Some(match answer {
            Some(answer) => Begun::Done { digest, answer },
            None => Begun::Running { digest },
        }))
    }
}

/// Which key.
#[derive(Clone)]
pub(super) struct Name {
    scope: String,
    key: String,
}

/// A change of the keys.
pub(super) enum KeyWrite {
    Begin { name: Name, digest: [u8; 32], now: i64, expires: i64 },
    Finish { name: Name, answer: String },
    Forget { name: Name },
    Expire { now: i64 },
}

impl KeyWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            KeyWrite::Begin { name, digest, now, expires } => rows!(
                transaction,
                "INSERT INTO idempotency (scope, key, digest, expires) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (scope, key) DO UPDATE SET digest = excluded.digest, expires = excluded.expires, \
                 answer = NULL WHERE idempotency.expires <= $5",
                &name.scope,
                &name.key,
                digest.to_vec(),
                expires,
                now
            ),
            KeyWrite::Finish { name, answer } => rows!(
                transaction,
                "UPDATE idempotency SET answer = $1 WHERE scope = $2 AND key = $3",
                answer,
                &name.scope,
                &name.key
            ),
            KeyWrite::Forget { name } => {
                rows!(transaction, "DELETE FROM idempotency WHERE scope = $1 AND key = $2", &name.scope, &name.key)
            }
            KeyWrite::Expire { now } => rows!(
                transaction,
                "DELETE FROM idempotency WHERE (scope, key) IN \
                 (SELECT scope, key FROM idempotency WHERE expires <= $1 LIMIT $2)",
                now,
                EXPIRED
            ),
        }
    }
}
