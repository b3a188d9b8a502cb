//! Tokens and people: one row for each.

use uuid::Uuid;

use super::Control;
use super::writer::{Write, rows};
use crate::db::{Transaction, on_db};
use crate::{Secret, StoreError};

/// The most rows one [`Control::principals`] returns.
const MAX_PRINCIPALS: i64 = 10_000;

/// Somebody who may use the platform: a program by its token, or a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalRow {
    /// Its id.
    pub id: Uuid,
    /// What it is, `token` for example.
    pub kind: String,
    /// Its name, unique over all kinds.
    pub name: String,
    /// What it may do.
    pub role: String,
    /// Where it may do it.
    pub subtree: String,
    /// The digest of what it shows: of a token, or of a password.
    pub secret: Secret,
    /// When it was made, Unix milliseconds.
    pub created: i64,
    /// Who made it.
    pub created_by: String,
    /// When it ends, Unix milliseconds; none: it does not.
    pub expires: Option<i64>,
    /// When it was used last, Unix milliseconds, more or less; none: never.
    pub last_used: Option<i64>,
}

impl Control {
    /// Keeps a principal, durably when this returns; false when the name is taken.
    pub async fn insert_principal(&self, row: PrincipalRow) -> Result<bool, StoreError> {
        Ok(self.write(Write::Principal(PrincipalWrite::Insert(Box::new(row)))).await? > 0)
    }

    /// Principals with an id beyond `after`, by id, at most `limit` (and never more than 10,000).
    pub async fn principals(&self, after: Option<Uuid>, limit: i64) -> Result<Vec<PrincipalRow>, StoreError> {
        type Row = (Vec<u8>, String, String, String, String, Vec<u8>, i64, String, Option<i64>, Option<i64>);
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let limit = limit.clamp(0, MAX_PRINCIPALS);
        self.read(move |db| async move {
            let rows: Vec<Row> = on_db!(&db, pool => sqlx::query_as(
                "SELECT id, kind, name, role, subtree, secret, created, created_by, expires, last_used \
                 FROM principal WHERE id > $1 ORDER BY id LIMIT $2",
            )
            .bind(after)
            .bind(limit)
            .fetch_all(pool)
            .await?);
            let row = |row: Row| {
                let (id, kind, name, role, subtree, secret, created, created_by, expires, last_used) = row;
                let id = Uuid::from_slice(&id).map_err(|_| StoreError::Corrupt("principal id"))?;
                let secret = Secret::new(secret);
                Ok(PrincipalRow { id, kind, name, role, subtree, secret, created, created_by, expires, last_used })
            };
            rows.into_iter().map(row).collect()
        })
        .await
    }

    /// Removes a principal, durably when this returns; false when there is none.
    pub async fn remove_principal(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(self.write(Write::Principal(PrincipalWrite::Remove { id })).await? > 0)
    }

    /// Notes when principals were used last, Unix milliseconds. One that is gone stays gone.
    pub async fn note_used(&self, used: Vec<(Uuid, i64)>) -> Result<(), StoreError> {
        self.write(Write::Principal(PrincipalWrite::Used(used))).await.map(drop)
    }
}

/// A change of the principals.
pub(super) enum PrincipalWrite {
    Insert(Box<PrincipalRow>),
    Remove { id: Uuid },
    Used(Vec<(Uuid, i64)>),
}

impl PrincipalWrite {
    /// How many rows it touches.
    pub(super) fn weight(&self) -> usize {
        match self {
            PrincipalWrite::Used(used) => used.len(),
            _ => 1,
        }
    }

    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        let stored = |id: &Uuid| id.as_bytes().to_vec();
        match self {
            PrincipalWrite::Insert(row) => rows!(
                transaction,
                "INSERT INTO principal (id, kind, name, role, subtree, secret, created, created_by, expires, last_used) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO NOTHING",
                stored(&row.id),
                &row.kind,
                &row.name,
                &row.role,
                &row.subtree,
                row.secret.expose().to_vec(),
                row.created,
                &row.created_by,
                row.expires,
                row.last_used
            ),
            PrincipalWrite::Remove { id } => rows!(transaction, "DELETE FROM principal WHERE id = $1", stored(id)),
            PrincipalWrite::Used(used) => {
                let mut touched = 0;
                for (id, at) in used {
                    touched += rows!(transaction, "UPDATE principal SET last_used = $1 WHERE id = $2", at, stored(id))?;
                }
                Ok(touched)
            }
        }
    }
}
