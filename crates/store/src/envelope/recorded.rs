//! What the database says of the key that its secrets are sealed under.

use sqlx::AssertSqlSafe;

use super::{Envelope, EnvelopeKey, Place, Sealed, sealed_under};
use crate::db::{Db, database, on_db};
use crate::{OpenError, Secret};

/// What is sealed as the proof.
const PROOF: &[u8] = b"vestibule";
/// The row it stands in.
pub(crate) const ONE: i64 = 1;

/// The key that the database is under, as far as it says.
pub(crate) struct Recorded {
    pub(crate) key_id: String,
    proof: Vec<u8>,
}

impl Recorded {
    /// What the database says; `None`: it was never used, or by a release that did not write it down.
    pub(crate) async fn read(db: &Db) -> Result<Option<Recorded>, OpenError> {
        let read = async {
            let there: i64 = match db {
                Db::Sqlite(pool) => {
                    sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'envelope'")
                        .fetch_one(pool)
                        .await?
                }
                Db::Postgres(pool) => {
                    sqlx::query_scalar("SELECT (to_regclass('envelope') IS NOT NULL)::int::bigint")
                        .fetch_one(pool)
                        .await?
                }
            };
            if there == 0 {
                return Ok(None);
            }
            let row: Option<(String, Vec<u8>)> = on_db!(db, pool => {
                sqlx::query_as("SELECT key_id, proof FROM envelope WHERE one = $1").bind(ONE).fetch_optional(pool).await?
            });
            Ok(row.map(|(key_id, proof)| Recorded { key_id, proof }))
        };
        read.await.map_err(|error| database(db.what(), error))
    }

    /// Whether the key is the one.
    pub(crate) fn is(&self, key: &EnvelopeKey) -> bool {
        key.id() == self.key_id && Envelope::new(key).open_sealed(&self.proof, &PLACE).is_ok()
    }
}

const PLACE: Place<'_> = Place { column: Sealed::Proof, row: &ONE.to_be_bytes() };

/// The proof that a database is under this key.
pub(crate) fn proof(envelope: &Envelope) -> Vec<u8> {
    envelope.seal(&Secret::new(PROOF), &PLACE)
}

/// Writes down which key the database is under, which did not say so; its schema is up to date. What it has must not be
/// sealed under another one.
pub(crate) async fn record(db: &Db, key: &EnvelopeKey, now: i64) -> Result<(), OpenError> {
    let failed = |error| database(db.what(), error);
    for sealed in Sealed::ALL {
        let column = sealed.column();
        let sql = format!("SELECT {0} FROM {1} WHERE {0} IS NOT NULL LIMIT 1", column.name, column.table);
        let some: Option<(Vec<u8>,)> = on_db!(db, pool => {
            sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(pool).await.map_err(failed)?
        });
        if let Some(found) = some.and_then(|(some,)| sealed_under(&some))
            && found != key.id()
        {
            return Err(OpenError::WrongKey { origin: key.origin().to_owned(), given: key.id(), needed: found });
        }
    }
    let envelope = Envelope::new(key);
    on_db!(db, pool => {
        sqlx::query("INSERT INTO envelope (one, key_id, proof, since) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
            .bind(ONE)
            .bind(key.id())
            .bind(proof(&envelope))
            .bind(now)
            .execute(pool)
            .await
            .map_err(failed)?;
    });
    Ok(())
}
