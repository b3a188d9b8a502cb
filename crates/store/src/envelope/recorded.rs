//! What the database says of the key that its secrets are sealed under.

use std::collections::BTreeSet;

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

/// What a database tells of the key that it is under.
pub(crate) enum Under {
    /// It says so.
    Recorded(Recorded),
    /// It does not say, as one of a former release: the ids of the keys that what it has is sealed under. None: it has
    /// nothing.
    Seen(BTreeSet<String>),
}

impl Under {
    /// Looks at a database, whatever its schema is. Writes nothing.
    pub(crate) async fn read(db: &Db) -> Result<Under, OpenError> {
        match Recorded::read(db).await? {
            Some(recorded) => Ok(Under::Recorded(recorded)),
            None => seen(db).await.map(Under::Seen).map_err(|error| database(db.what(), error)),
        }
    }

    /// The id of the key that is needed and is not this one. `None`: as far as the database tells, it is the one.
    pub(crate) fn other_than(&self, key: &EnvelopeKey) -> Option<&str> {
        match self {
            Under::Recorded(recorded) => (!recorded.is(key)).then_some(&recorded.key_id),
            Under::Seen(ids) => ids.iter().find(|id| **id != key.id()).map(String::as_str),
        }
    }

    /// Whether the database tells that this key is the one.
    pub(crate) fn is_surely(&self, key: &EnvelopeKey) -> bool {
        let is_empty = matches!(self, Under::Seen(ids) if ids.is_empty());
        !is_empty && self.other_than(key).is_none()
    }
}

/// The keys that one value of each column is sealed under, of the columns that are there.
async fn seen(db: &Db) -> Result<BTreeSet<String>, sqlx::Error> {
    let mut ids = BTreeSet::new();
    for sealed in Sealed::ALL {
        let column = sealed.column();
        let there: i64 = match db {
            Db::Sqlite(pool) => {
                sqlx::query_scalar("SELECT count(*) FROM pragma_table_info($1) WHERE name = $2")
                    .bind(column.table)
                    .bind(column.name)
                    .fetch_one(pool)
                    .await?
            }
            Db::Postgres(pool) => {
                sqlx::query_scalar(
                    "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped",
                )
                .bind(column.table)
                .bind(column.name)
                .fetch_one(pool)
                .await?
            }
        };
        if there == 0 {
            continue;
        }
        let sql = format!("SELECT {0} FROM {1} WHERE {0} IS NOT NULL LIMIT 1", column.name, column.table);
        let some: Option<(Vec<u8>,)> =
            on_db!(db, pool => sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(pool).await?);
        ids.extend(some.and_then(|(some,)| sealed_under(&some)));
    }
    Ok(ids)
}

/// Writes down which key the database is under, which did not say so; its schema is up to date. Where somebody else has come
/// first, it is to be the same.
pub(crate) async fn record(db: &Db, key: &EnvelopeKey, now: i64) -> Result<(), OpenError> {
    let envelope = Envelope::new(key);
    on_db!(db, pool => {
        sqlx::query("INSERT INTO envelope (one, key_id, proof, since) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
            .bind(ONE)
            .bind(key.id())
            .bind(proof(&envelope))
            .bind(now)
            .execute(pool)
            .await
            .map_err(|error| database(db.what(), error))?;
    });
    match Under::read(db).await?.other_than(key) {
        None => Ok(()),
        Some(needed) => {
            Err(OpenError::WrongKey { origin: key.origin().to_owned(), given: key.id(), needed: needed.to_owned() })
        }
    }
}
