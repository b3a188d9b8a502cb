//! The copy of the journal in PostgreSQL: the local journal is the outbox that this drains.
//!
//! What is durable here is copied in the order of its positions. The rows and how far they go are of one transaction, so
//! that a copy which was interrupted goes on where it was, wherever the interruption came. Nothing here keeps a device from
//! being acknowledged; but what was not copied is not removed here either, so a server that stays away fills the journal up
//! to its cap.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use metrics::{counter, gauge};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use uuid::Uuid;

use super::{Recent, Shared};
use crate::config::Clock;
use crate::db::{SYNC_COMMITS, database};
use crate::{OpenError, Position, Record, Scan, StoreConfig, StoreError};

/// Records of one transaction at most.
const BATCH: usize = 1_000;
const _: () = assert!(BATCH == crate::MAX_SCAN, "a batch is one scan, or the rest of it would be taken for the end");
/// Bytes of records of one transaction, unless one record alone is larger.
const BATCH_BYTES: usize = 8 << 20;
/// Least time between the beginnings of two transactions that are not full.
const EVERY: Duration = Duration::from_millis(50);
/// The pause after a failure, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// After this the server is taken as gone: a network may swallow a commit without a word.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a journal that is being closed waits for the rest to be copied; what is not copied then is at the next start.
const CLOSING: Duration = Duration::from_secs(5);
/// How many rows one statement of the retention looks at.
const DELETE_ROWS: i64 = 10_000;

/// Held, shared, by whoever copies, and alone by one who takes the table over from another journal; tied to the schema, so
/// that several installations can share a database.
const LOCK_KEY: &str = "hashtextextended('vestibule-journal ' || coalesce(current_schema(), ''), 0)";
/// How long to wait for that lock: a process that was killed a moment ago holds it until the server notices.
const LOCK_PATIENCE: &str = "SET LOCAL lock_timeout = '3s'";
/// The state PostgreSQL reports when that time is over.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    #[error("the local journal cannot be read: {0}")]
    Local(#[from] StoreError),
    #[error("PostgreSQL does not answer")]
    Silent,
    #[error("the table is locked by another process")]
    Locked,
    #[error("another journal has taken the table over: stop one of the two platforms that share it")]
    TakenOver,
}

/// The right to copy, and how far the copy goes.
pub(super) struct Claim {
    options: PgConnectOptions,
    connection: PgConnection,
    /// Stands in the mark as long as nobody else has claimed it: the journal's id, and what is this process's alone.
    token: [u8; 32],
    /// The next position to be copied.
    next: i64,
    /// The first position that this journal may give: those before were given, perhaps by a journal that was lost.
    pub(super) floor: i64,
}

impl Claim {
    /// Connects and claims the copy for the journal with this id. One that last belonged to another journal is taken over,
    /// unless that one is still there.
    pub(super) async fn make(options: PgConnectOptions, journal: Uuid) -> Result<Claim, OpenError> {
        let failed = |error| database("the PostgreSQL journal", error);
        let options = options.disable_statement_logging();
        let mut connection = connect(&options).await.map_err(failed)?;
        let mut token = [0; 32];
        token[..16].copy_from_slice(journal.as_bytes());
        token[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        match claim(&mut connection, &token).await {
            Ok((next, floor)) => Ok(Claim { options, connection, token, next, floor }),
            Err(Trouble::Database(error)) => Err(failed(error)),
            Err(_) => Err(OpenError::JournalInUse),
        }
    }

    /// Up to where everything is in PostgreSQL, as it becomes known.
    pub(super) fn forwarded(&self) -> Forwarded {
        Forwarded(Arc::new(AtomicI64::new(self.next - 1)))
    }
}

/// The last position up to which everything is in PostgreSQL. Cheap to clone.
#[derive(Clone)]
pub(super) struct Forwarded(Arc<AtomicI64>);

impl Forwarded {
    pub(super) fn get(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The task that copies.
pub(super) struct Forwarding {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Forwarding {
    /// Starts copying on the current runtime.
    pub(super) fn start(claim: Claim, forwarded: Forwarded, shared: Arc<Shared>, config: &StoreConfig) -> Forwarding {
        let (stop, stopped) = oneshot::channel();
        let forwarder = Forwarder {
            shared,
            options: claim.options,
            connection: Some(claim.connection),
            token: claim.token,
            forwarded,
            now: config.now.clone(),
            retention_ms: i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX),
        };
        Forwarding { stop, task: tokio::spawn(forwarder.run(stopped)) }
    }

    /// Copies the rest, as far as that works at once, and ends. Nothing may be committed any more.
    pub(super) async fn finish(self) {
        // A task that is gone has nothing to finish.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the forwarder of the journal ended badly");
        }
    }
}

struct Forwarder {
    shared: Arc<Shared>,
    options: PgConnectOptions,
    /// None after an error.
    connection: Option<PgConnection>,
    token: [u8; 32],
    forwarded: Forwarded,
    now: Clock,
    retention_ms: i64,
}

impl Forwarder {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut durable = self.shared.durable.subscribe();
        let mut kept = self.shared.kept.subscribe();
        let mut expired = false;
        let mut failures: u32 = 0;
        loop {
            let begun = Instant::now();
            let pause = async {
                match self.turn(&mut expired).await {
                    Ok(true) => {
                        self.recovered(&mut failures);
                        // Everything that was durable is there.
                        sleep_until(begun + EVERY).await;
                        tokio::select! {
                            // The sender lives as long as the journal does, which is longer.
                            _ = durable.changed() => {}
                            _ = kept.changed() => expired = true,
                        }
                    }
                    Ok(false) => self.recovered(&mut failures),
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        self.failed(&error, failures);
                        sleep(LAST_PAUSE.min(FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(10)))).await;
                    }
                }
            };
            tokio::select! {
                biased;
                _ = &mut stop => break,
                () = pause => {}
            }
        }
        // A turn that the stop came into took its connection along: whether it went through shows on a new one.
        let deadline = Instant::now() + CLOSING;
        loop {
            match timeout_at(deadline, self.forward()).await {
                Ok(Ok(true)) => break,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    self.failed(&error, 1);
                    break;
                }
                Err(_) => break,
            }
        }
        let lag = self.shared.durable.borrow().get() - self.forwarded.get();
        if lag > 0 {
            tracing::info!(lag, "the rest of the journal is copied to PostgreSQL after the next start");
        }
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "the forwarder's connection did not close in order");
        }
    }

    /// Copies a batch or, when there is none, removes some of what has expired; true: there is nothing left to do.
    async fn turn(&mut self, expired: &mut bool) -> Result<bool, Trouble> {
        if !timeout(PATIENCE, self.forward()).await.map_err(|_| Trouble::Silent)?? {
            return Ok(false);
        }
        if *expired {
            *expired = timeout(PATIENCE, self.retain()).await.map_err(|_| Trouble::Silent)??;
        }
        Ok(!*expired)
    }

    /// Copies the next batch; true: it was the last.
    async fn forward(&mut self) -> Result<bool, Trouble> {
        let mut connection = self.connected().await?;
        let durable = *self.shared.durable.borrow();
        let after = Position::new(self.forwarded.get());
        if after < durable {
            let (records, whole) = self.batch(after, durable).await?;
            let last = if whole { durable } else { records.last().map_or(durable, |record| record.position) };
            // On an error the connection is not put back: whether the transaction went through shows in the mark.
            let stored = store(&mut connection, &self.token, &records, last).await?;
            self.forwarded.0.store(last.get(), Ordering::Release);
            counter!("vestibule_journal_forwarded_total").increment(stored);
        }
        self.connection = Some(connection);
        self.report();
        Ok(self.forwarded.get() >= durable.get())
    }

    /// The next records up to a position that is durable; true: all of them.
    async fn batch(&self, after: Position, durable: Position) -> Result<(Vec<Arc<Record>>, bool), StoreError> {
        let recent = self.shared.tail.read().after(after, BATCH);
        let mut records = match recent {
            Recent::Records(records) => records,
            Recent::Gone => {
                let before = Some(Position::new(durable.get().saturating_add(1)));
                self.shared.reader.scan(&Scan { after, before, limit: BATCH, ..Scan::default() }).await?
            }
        };
        records.truncate(records.partition_point(|record| record.position <= durable));
        let mut bytes = 0;
        let fit = records.iter().position(|record| {
            bytes += record.size();
            bytes > BATCH_BYTES
        });
        if let Some(fit) = fit {
            records.truncate(fit.max(1));
        }
        let whole = fit.is_none() && records.len() < BATCH;
        Ok((records, whole))
    }

    /// Removes what the journal no longer keeps, and was received before the retention, from among the oldest rows; true:
    /// there may be more. So a clock that is stepped forward removes nothing here that it does not remove there.
    async fn retain(&mut self) -> Result<bool, Trouble> {
        let limit = (self.now)().saturating_sub(self.retention_ms);
        let kept = *self.shared.kept.borrow();
        let mut connection = self.connected().await?;
        let removed = sqlx::query(
            "DELETE FROM journal_record WHERE position IN (SELECT position FROM \
             (SELECT position, received FROM journal_record ORDER BY position LIMIT $1) AS oldest \
             WHERE received < $2 AND position < $3)",
        )
        .bind(DELETE_ROWS)
        .bind(limit)
        .bind(kept)
        .execute(&mut connection)
        .await?
        .rows_affected();
        self.connection = Some(connection);
        Ok(removed >= DELETE_ROWS as u64)
    }

    /// The connection; a new one is asked how far the copy goes.
    async fn connected(&mut self) -> Result<PgConnection, Trouble> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = connect(&self.options).await?;
        let next = resume(&mut connection, &self.token).await?;
        self.forwarded.0.store(next - 1, Ordering::Release);
        Ok(connection)
    }

    fn failed(&self, error: &Trouble, failures: u32) {
        counter!("vestibule_journal_forward_failures_total").increment(1);
        self.report();
        // An outage may last for days.
        if failures.is_power_of_two() {
            tracing::warn!(%error, failures, "the journal is not copied to PostgreSQL: it is kept here and tried again");
        }
    }

    fn recovered(&self, failures: &mut u32) {
        if std::mem::take(failures) > 0 {
            tracing::info!("the journal is copied to PostgreSQL again");
        }
    }

    fn report(&self) {
        let (durable, forwarded) = (self.shared.durable.borrow().get(), self.forwarded.get());
        gauge!("vestibule_journal_forwarded_position").set(forwarded as f64);
        gauge!("vestibule_journal_forward_lag_records").set((durable - forwarded).max(0) as f64);
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    connection.execute(SYNC_COMMITS).await?;
    Ok(connection)
}

/// Puts the token into the mark; returns the next position to be copied and the first that may be given.
async fn claim(connection: &mut PgConnection, token: &[u8; 32]) -> Result<(i64, i64), Trouble> {
    let mut transaction = connection.begin().await?;
    transaction.execute(LOCK_PATIENCE).await?;
    let (before,): (Vec<u8>,) = sqlx::query_as("SELECT writer FROM journal_mark").fetch_one(&mut *transaction).await?;
    if !before.is_empty() && !before.starts_with(&token[..16]) {
        lock(&mut transaction, "pg_advisory_xact_lock").await?;
        tracing::warn!("the copy of the journal in PostgreSQL was another journal's: this one goes on behind it");
    }
    lock(&mut transaction, "pg_advisory_lock_shared").await?;
    // The twin may be ahead of the copy: its leaves are written directly.
    let claimed: Option<(i64, i64)> = sqlx::query_as(
        "UPDATE journal_mark SET writer = $1 WHERE writer = $2 \
         RETURNING next, greatest(next, (SELECT position + 1 FROM twin_applied))",
    )
    .bind(token.as_slice())
    .bind(before)
    .fetch_optional(&mut *transaction)
    .await?;
    let claimed = claimed.ok_or(Trouble::TakenOver)?;
    transaction.commit().await?;
    Ok(claimed)
}

/// Says on a new connection where to go on.
async fn resume(connection: &mut PgConnection, token: &[u8; 32]) -> Result<i64, Trouble> {
    let mut transaction = connection.begin().await?;
    transaction.execute(LOCK_PATIENCE).await?;
    lock(&mut transaction, "pg_advisory_lock_shared").await?;
    let next: Option<i64> = sqlx::query_scalar("SELECT next FROM journal_mark WHERE writer = $1")
        .bind(token.as_slice())
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;
    next.ok_or(Trouble::TakenOver)
}

async fn lock(connection: &mut PgConnection, how: &'static str) -> Result<(), Trouble> {
    match connection.execute(sqlx::AssertSqlSafe(format!("SELECT {how}({LOCK_KEY})"))).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            Err(Trouble::Locked)
        }
        Err(error) => Err(error.into()),
    }
}

/// One transaction: the rows, and the mark beyond them; returns how many were new.
async fn store(
    connection: &mut PgConnection,
    token: &[u8; 32],
    batch: &[Arc<Record>],
    last: Position,
) -> Result<u64, Trouble> {
    let mut transaction = connection.begin().await?;
    // First, so that the row's lock keeps out whoever took the copy over.
    let marked = sqlx::query("UPDATE journal_mark SET next = $1 WHERE writer = $2")
        .bind(last.get() + 1)
        .bind(token.as_slice())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    if marked != 1 {
        return Err(Trouble::TakenOver);
    }
    fn column<'a, T>(batch: &'a [Arc<Record>], value: impl Fn(&'a Record) -> T) -> Vec<T> {
        batch.iter().map(|record| value(record)).collect()
    }
    // What is there already is an event that a journal which was lost had copied.
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
    transaction.commit().await?;
    Ok(stored)
}
