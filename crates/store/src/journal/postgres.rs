//! The journal on PostgreSQL: one table, one writer.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::row::{self, Row};
use super::writer::{CommitError, Committed};
use crate::db::{SYNC_COMMITS, database};
use crate::{OpenError, Position, Record, Scan, StoreConfig, StoreError};

/// Rows that one statement of the retention removes.
const DELETE_ROWS: i64 = 10_000;

/// Held by the one process that writes; tied to the schema, so that several installations can share a database.
const LOCK: &str =
    "SELECT pg_advisory_lock(hashtextextended('vestibule-journal ' || coalesce(current_schema(), ''), 0))";

/// How long to wait for that lock: a process that was killed a moment ago holds it until the server notices.
const LOCK_PATIENCE: &str = "SET LOCAL lock_timeout = '3s'";

/// The state PostgreSQL reports when that time is over.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Writes the journal table.
pub(super) struct PgWriter {
    options: PgConnectOptions,
    /// None after an error.
    connection: Option<PgConnection>,
    /// Stands in the mark as long as no other process has taken the journal over.
    token: [u8; 16],
    retention_ms: i64,
    next: i64,
}

impl PgWriter {
    /// Connects, takes the writer's lock and reads where the journal ends.
    pub(super) async fn open(options: PgConnectOptions, config: &StoreConfig) -> Result<PgWriter, OpenError> {
        const WHAT: &str = "the PostgreSQL journal";
        let failed = |error| database(WHAT, error);
        let mut connection = connect(&options).await.map_err(failed)?;
        if !lock(&mut connection).await.map_err(failed)? {
            return Err(OpenError::JournalInUse);
        }
        let token = *uuid::Uuid::new_v4().as_bytes();
        let (next,): (i64,) = sqlx::query_as("UPDATE journal_mark SET writer = $1 RETURNING next")
            .bind(token.as_slice())
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
        Ok(PgWriter {
            options,
            connection: Some(connection),
            token,
            retention_ms: i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX),
            next,
        })
    }

    /// The last position that was ever stored.
    pub(super) fn last(&self) -> Position {
        Position::new(self.next - 1)
    }

    /// Commits a batch.
    pub(super) async fn commit(&mut self, batch: &[Arc<Record>]) -> Result<Committed, CommitError> {
        let mut connection = self.connected().await?;
        // On an error the connection is not put back: whether the transaction went through shows in the table.
        let dropped = store(&mut connection, &self.token, batch).await?;
        self.connection = Some(connection);
        if let Some(last) = batch.last() {
            self.next = last.position.get() + 1;
        }
        Ok(Committed { count: batch.len(), dropped })
    }

    /// Removes what is older than the retention, a bounded number of rows at a time; true: there is more.
    pub(super) async fn retain(&mut self, now: i64) -> Result<bool, CommitError> {
        let limit = now.saturating_sub(self.retention_ms);
        let mut connection = self.connected().await?;
        let removed = sqlx::query(
            "DELETE FROM journal_record WHERE position IN \
             (SELECT position FROM journal_record WHERE received < $1 ORDER BY position LIMIT $2)",
        )
        .bind(limit)
        .bind(DELETE_ROWS)
        .execute(&mut connection)
        .await?
        .rows_affected();
        self.connection = Some(connection);
        Ok(removed >= DELETE_ROWS as u64)
    }

    /// Ends writing and gives the lock back.
    pub(super) async fn close(self) {
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "the journal's connection did not close in order");
        }
    }

    async fn connected(&mut self) -> Result<PgConnection, CommitError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = connect(&self.options).await?;
        if !lock(&mut connection).await? {
            // Our own lost session, until the server notices; another process, until it ends.
            return Err(CommitError::failed("the journal is locked by another session"));
        }
        Ok(connection)
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = options.clone().disable_statement_logging().connect().await?;
    connection.execute(SYNC_COMMITS).await?;
    Ok(connection)
}

/// Takes the writer's lock for as long as the connection lives; false: another session has it.
async fn lock(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    transaction.execute(LOCK_PATIENCE).await?;
    match transaction.execute(LOCK).await {
        Ok(_) => transaction.commit().await.map(|()| true),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// One transaction: the rows, and the mark beyond them; returns which were repetitions.
async fn store(
    connection: &mut PgConnection,
    token: &[u8; 16],
    batch: &[Arc<Record>],
) -> Result<Vec<Position>, CommitError> {
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
        return Ok(Vec::new());
    };
    let mut transaction = connection.begin().await?;
    // First, so that the row's lock keeps out whoever took the journal over.
    let marked = sqlx::query("UPDATE journal_mark SET next = $1 WHERE writer = $2")
        .bind(last.position.get() + 1)
        .bind(token.as_slice())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    if marked != 1 {
        return Err(CommitError::failed("another process has taken the journal over: restart this one"));
    }
    fn column<'a, T>(batch: &'a [Arc<Record>], value: impl Fn(&'a Record) -> T) -> Vec<T> {
        batch.iter().map(|record| value(record)).collect()
    }
    let stored = sqlx::query(
        "INSERT INTO journal_record \
         (position, device, serial, kind, resource, idx, area, name, event_id, time, received, flags, data) \
         SELECT * FROM UNNEST($1::bigint[], $2::bytea[], $3::text[], $4::smallint[], $5::text[], $6::text[], $7::text[], \
         $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::smallint[], $13::text[]) ON CONFLICT DO NOTHING",
    )
    .bind(column(batch, |record| record.position.get()))
    .bind(column(batch, |record| record.device.as_bytes().as_slice()))
    .bind(column(batch, |record| &*record.serial))
    .bind(column(batch, |record| record.kind.stored()))
    .bind(column(batch, |record| &*record.path.resource))
    .bind(column(batch, |record| &*record.path.index))
    .bind(column(batch, |record| &*record.path.area))
    .bind(column(batch, |record| &*record.path.name))
    .bind(column(batch, |record| record.id.as_deref()))
    .bind(column(batch, |record| record.time))
    .bind(column(batch, |record| record.received))
    .bind(column(batch, |record| record.flags.stored()))
    .bind(column(batch, |record| &*record.data))
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    let mut repetitions = Vec::new();
    if stored < batch.len() as u64 {
        let present: Vec<(i64,)> =
            sqlx::query_as("SELECT position FROM journal_record WHERE position BETWEEN $1 AND $2 ORDER BY position")
                .bind(first.position.get())
                .bind(last.position.get())
                .fetch_all(&mut *transaction)
                .await?;
        repetitions = batch
            .iter()
            .map(|record| record.position)
            .filter(|position| present.binary_search(&(position.get(),)).is_err())
            .collect();
    }
    transaction.commit().await?;
    Ok(repetitions)
}

pub(super) async fn scan(pool: &PgPool, scan: &Scan) -> Result<Vec<Arc<Record>>, StoreError> {
    let limit = row::limit(scan);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut query = row::select::<sqlx::Postgres>(&row::POSTGRES, scan);
    row::finish(&mut query, scan, limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    rows.into_iter().map(row::record).collect()
}

pub(super) async fn oldest(pool: &PgPool) -> Result<Option<Position>, StoreError> {
    let (oldest,): (Option<i64>,) = sqlx::query_as("SELECT min(position) FROM journal_record").fetch_one(pool).await?;
    Ok(oldest.map(Position::new))
}
