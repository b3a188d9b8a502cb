//! The one task that writes to the control database: what is queued shares a transaction.

use metrics::counter;
use tokio::sync::{mpsc, oneshot};

use crate::db::{Db, on_db};
use crate::{DeviceId, DeviceRow, StoreError};

/// Writes of one transaction at most.
const GROUP: usize = 1_000;

pub(super) const COMMITTED: &str = "committed";
pub(super) const CANDIDATE: &str = "candidate";

/// What the writer is asked.
pub(super) enum Job {
    /// A write, and where to say that it is durable and whether it applied to anything.
    Write(Write, Reply),
    /// End after what was queued before.
    Stop,
}

type Reply = oneshot::Sender<Result<bool, StoreError>>;

/// One write. Secrets are sealed already.
pub(super) enum Write {
    Insert { row: Box<DeviceRow>, code: Vec<u8> },
    Remove { id: DeviceId },
    EnrolUntil { id: DeviceId, until: i64 },
    LastFailure { id: DeviceId, json: Option<String> },
    Presence { id: DeviceId, json: Option<String> },
    Credentials { id: DeviceId, committed: Option<Box<SealedCredential>>, candidate: Option<Box<SealedCredential>> },
}

/// A credential as it is stored.
pub(super) struct SealedCredential {
    pub(super) suite: String,
    pub(super) epoch: i64,
    pub(super) dev_id: String,
    pub(super) master_key: Vec<u8>,
    pub(super) session_key: Option<Vec<u8>>,
    pub(super) created: i64,
    pub(super) code_case_lower: bool,
}

/// Serves the queue until asked to stop or nobody can ask any more.
pub(super) async fn run(db: Db, mut jobs: mpsc::Receiver<Job>) {
    let mut group: Vec<(Write, Reply)> = Vec::new();
    let mut stop = false;
    while !stop && let Some(mut job) = jobs.recv().await {
        loop {
            match job {
                Job::Write(write, reply) => group.push((write, reply)),
                Job::Stop => stop = true,
            }
            if stop || group.len() >= GROUP {
                break;
            }
            match jobs.try_recv() {
                Ok(next) => job = next,
                Err(_) => break,
            }
        }
        serve(&db, &mut group).await;
    }
    jobs.close();
}

/// Commits the group and answers everybody.
async fn serve(db: &Db, group: &mut Vec<(Write, Reply)>) {
    match commit(db, group.iter().map(|(write, _)| write)).await {
        Ok(applied) => {
            for ((_, reply), applied) in group.drain(..).zip(applied) {
                // A caller that no longer waits does not need the answer.
                let _ = reply.send(Ok(applied));
            }
        }
        // One write that breaks a constraint must not fail its neighbours: each by itself.
        Err(error) if group.len() > 1 && is_constraint(&error) => {
            for (write, reply) in group.drain(..) {
                let result = commit(db, [&write].into_iter()).await;
                let _ = reply.send(result.map(|applied| applied == [true]).map_err(StoreError::from));
            }
        }
        Err(error) => {
            tracing::error!(error = %error, writes = group.len(), "the control database refused a commit");
            let error = StoreError::from(error);
            for (_, reply) in group.drain(..) {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

fn is_constraint(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.is_unique_violation() || error.is_foreign_key_violation() || error.is_check_violation()
    })
}

/// Executes one statement and says how many rows it touched.
macro_rules! rows {
    ($connection:expr, $sql:expr $(, $bind:expr)*) => {
        sqlx::query($sql)
            $(.bind($bind))*
            .execute(&mut *$connection)
            .await?
            .rows_affected()
    };
}

/// One transaction; says of each write whether it applied to anything.
async fn commit(db: &Db, writes: impl ExactSizeIterator<Item = &Write>) -> Result<Vec<bool>, sqlx::Error> {
    let count = writes.len();
    let mut applied = Vec::with_capacity(count);
    on_db!(db, pool => {
        let mut transaction = pool.begin().await?;
        for write in writes {
            let connection = &mut *transaction;
            let rows = match write {
                Write::Insert { row, code } => rows!(
                    connection,
                    "INSERT INTO device (id, serial, family, product, name, created, enrol_until, last_failure, presence, code) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (serial) DO NOTHING",
                    row.id.as_bytes().to_vec(),
                    &row.serial,
                    &row.family,
                    &row.product,
                    &row.name,
                    row.created,
                    row.enrol_until,
                    &row.last_failure,
                    &row.presence,
                    code
                ),
                Write::Remove { id } => rows!(connection, "DELETE FROM device WHERE id = $1", id.as_bytes().to_vec()),
                Write::EnrolUntil { id, until } => rows!(
                    connection,
                    "UPDATE device SET enrol_until = $1 WHERE id = $2",
                    until,
                    id.as_bytes().to_vec()
                ),
                Write::LastFailure { id, json } => rows!(
                    connection,
                    "UPDATE device SET last_failure = $1 WHERE id = $2",
                    json,
                    id.as_bytes().to_vec()
                ),
                Write::Presence { id, json } => rows!(
                    connection,
                    "UPDATE device SET presence = $1 WHERE id = $2",
                    json,
                    id.as_bytes().to_vec()
                ),
                Write::Credentials { id, committed, candidate } => {
                    let device = id.as_bytes().to_vec();
                    let known = sqlx::query("SELECT 1 FROM device WHERE id = $1")
                        .bind(&device)
                        .fetch_optional(&mut *connection)
                        .await?
                        .is_some();
                    for (slot, credential) in [(COMMITTED, committed), (CANDIDATE, candidate)] {
                        match credential {
                            Some(credential) if known => {
                                sqlx::query(
                                    "INSERT INTO credential (device, slot, suite, epoch, dev_id, master_key, session_key, \
                                     created, code_case_lower) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                                     ON CONFLICT (device, slot) DO UPDATE SET suite = excluded.suite, \
                                     epoch = excluded.epoch, dev_id = excluded.dev_id, master_key = excluded.master_key, \
                                     session_key = excluded.session_key, created = excluded.created, \
                                     code_case_lower = excluded.code_case_lower",
                                )
                                .bind(&device)
                                .bind(slot)
                                .bind(&credential.suite)
                                .bind(credential.epoch)
                                .bind(&credential.dev_id)
                                .bind(&credential.master_key)
                                .bind(&credential.session_key)
                                .bind(credential.created)
                                .bind(i64::from(credential.code_case_lower))
                                .execute(&mut *connection)
                                .await?;
                            }
                            Some(_) => {}
                            None => {
                                rows!(
                                    connection,
                                    "DELETE FROM credential WHERE device = $1 AND slot = $2",
                                    &device,
                                    slot
                                );
                            }
                        }
                    }
                    u64::from(known)
                }
            };
            applied.push(rows > 0);
        }
        transaction.commit().await?;
    });
    counter!("vestibule_control_commits_total").increment(1);
    counter!("vestibule_control_writes_total").increment(count as u64);
    Ok(applied)
}
