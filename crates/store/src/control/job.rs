//! Jobs: what is done to many devices at once, and how far it is.

use uuid::Uuid;

use super::Control;
use super::writer::{Write, rows};
use crate::StoreError;
use crate::db::{Transaction, on_db};

/// The most rows [`Control::jobs`] returns.
const MAX_JOBS: i64 = 10_000;

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Our id.
    pub id: Uuid,
    /// What it does, `import` for example.
    pub kind: String,
    /// The place in the organisation who asked for it is bound to.
    pub org: String,
    /// Who asked for it.
    pub actor: String,
    /// When it began, Unix milliseconds.
    pub created: i64,
    /// When it ended, Unix milliseconds; none: it has not.
    pub finished: Option<i64>,
    /// How it is doing.
    pub state: String,
    /// Whether it only says what it would do.
    pub dry_run: bool,
    /// How far it is and what went wrong, JSON.
    pub detail: String,
}

impl Control {
    /// Jobs in the order of their ids, which is that of their beginning; 10,000 at most.
    pub async fn jobs(&self) -> Result<Vec<JobRow>, StoreError> {
        type Row = (Vec<u8>, String, String, String, i64, Option<i64>, String, i64, String);
        self.read(move |db| async move {
            let rows: Vec<Row> = on_db!(&db, pool => sqlx::query_as(
                "SELECT id, kind, org, actor, created, finished, state, dry_run, detail FROM job ORDER BY id LIMIT $1",
            )
            .bind(MAX_JOBS)
            .fetch_all(pool)
            .await?);
            let row = |(id, kind, org, actor, created, finished, state, dry_run, detail): Row| {
                let id = Uuid::from_slice(&id).map_err(|_| StoreError::Corrupt("job id"))?;
                Ok(JobRow { id, kind, org, actor, created, finished, state, dry_run: dry_run != 0, detail })
            };
            rows.into_iter().map(row).collect()
        })
        .await
    }

    /// Keeps a job as it is now, durably when this returns.
    pub async fn put_job(&self, row: JobRow) -> Result<(), StoreError> {
        self.write(Write::Job(JobWrite::Put(Box::new(row)))).await.map(drop)
    }

    /// Removes a job that has ended; false when there is none.
    pub async fn remove_job(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(self.write(Write::Job(JobWrite::Remove(id))).await? > 0)
    }
}

/// A change of the jobs.
pub(super) enum JobWrite {
    Put(Box<JobRow>),
    Remove(Uuid),
}

impl JobWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            JobWrite::Put(row) => rows!(
                transaction,
                "INSERT INTO job (id, kind, org, actor, created, finished, state, dry_run, detail) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                 ON CONFLICT (id) DO UPDATE SET finished = excluded.finished, state = excluded.state, \
                 detail = excluded.detail",
                row.id.as_bytes().to_vec(),
                &row.kind,
                &row.org,
                &row.actor,
                row.created,
                row.finished,
                &row.state,
                i64::from(row.dry_run),
                &row.detail
            ),
            JobWrite::Remove(id) => rows!(transaction, "DELETE FROM job WHERE id = $1", id.as_bytes().to_vec()),
        }
    }
}
