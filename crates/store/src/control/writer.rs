//! The one task that writes to the control database: what is queued shares a transaction.

use metrics::counter;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::sync::{mpsc, oneshot};

use crate::db::{Connection, Db, on_db};
use crate::{DeviceId, DeviceRow, LeafPart, LeafRow, Position, StoreError};

/// Writes of one transaction at most.
const GROUP: usize = 1_000;
/// Credentials of one statement at most.
const TOGETHER: usize = 64;

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
    Disabled { id: DeviceId, disabled: bool },
    Rotate { id: DeviceId, code: Vec<u8> },
    LastFailure { id: DeviceId, json: Option<String> },
    Presence { id: DeviceId, json: Option<String> },
    Leaves { leaves: Vec<LeafRow>, applied: Option<Position> },
    Credentials { id: DeviceId, committed: Option<Vec<u8>>, candidate: Option<Vec<u8>> },
}

/// Serves the queue until asked to stop or nobody can ask any more.
pub(super) async fn run(db: Db, mut jobs: mpsc::Receiver<Job>) {
    let mut link = Link { db, kept: None };
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
        serve(&mut link, &mut group).await;
    }
    jobs.close();
}

/// The writer's way to the database.
struct Link {
    db: Db,
    /// The connection to SQLite of the last commit. Another one would first have to read what this one has in its cache.
    /// A server may hang up, so the pool is asked for each commit there.
    kept: Option<Connection>,
}

impl Link {
    async fn take(&mut self) -> Result<Connection, sqlx::Error> {
        match self.kept.take() {
            Some(connection) => Ok(connection),
            None => self.db.connection().await,
        }
    }

    /// After a commit that worked; any other connection goes back to the pool, which checks it.
    fn keep(&mut self, connection: Connection) {
        if matches!(connection, Connection::Sqlite(_)) {
            self.kept = Some(connection);
        }
    }
}

/// Commits the group and answers everybody.
async fn serve(link: &mut Link, group: &mut Vec<(Write, Reply)>) {
    match commit(link, group.iter().map(|(write, _)| write)).await {
        Ok(applied) => {
            for ((_, reply), applied) in group.drain(..).zip(applied) {
                // A caller that no longer waits does not need the answer.
                let _ = reply.send(Ok(applied));
            }
        }
        // One write that breaks a constraint must not fail its neighbours: each by itself.
        Err(error) if group.len() > 1 && is_constraint(&error) => {
            for (write, reply) in group.drain(..) {
                let result = commit(link, [&write].into_iter()).await;
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

/// Credentials of one device, as [`Write::Credentials`] has them.
type Sealed<'a> = (DeviceId, &'a Option<Vec<u8>>, &'a Option<Vec<u8>>);

/// What the group writes when it writes nothing but credentials.
fn only_credentials<'a>(writes: impl Iterator<Item = &'a Write>) -> Option<Vec<Sealed<'a>>> {
    writes
        .map(|write| match write {
            Write::Credentials { id, committed, candidate } => Some((*id, committed, candidate)),
            _ => None,
        })
        .collect()
}

/// Writes credentials with as few statements as possible, each a commit of its own; false when some device does not exist
/// or occurs twice, and then nothing is known of any of them. They may be written again.
///
/// Fleets that enrol wait for this: each statement of a transaction is a trip to the database and back, and so are its
/// beginning and its end.
async fn put_together(connection: &mut Connection, credentials: &[Sealed<'_>]) -> Result<bool, sqlx::Error> {
    for some in credentials.chunks(TOGETHER) {
        // Rows without an id fill it up and match nothing, so that there are few statements to prepare.
        let rows = some.len().next_power_of_two();
        let values: Vec<String> =
            (0..rows).map(|row| format!("(${}, ${}, ${})", 3 * row + 1, 3 * row + 2, 3 * row + 3)).collect();
        let sql = format!(
            "UPDATE device SET committed = given.column2, candidate = given.column3 \
             FROM (VALUES {}) AS given WHERE device.id = given.column1",
            values.join(", ")
        );
        let written = on_db!(Connection, &mut *connection, connection => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (id, committed, candidate) in some {
                query = query.bind(id.as_bytes().to_vec()).bind(*committed).bind(*candidate);
            }
            for _ in some.len()..rows {
                query = query.bind(None::<Vec<u8>>).bind(None::<Vec<u8>>).bind(None::<Vec<u8>>);
            }
            query.execute(&mut **connection).await?.rows_affected()
        });
        if written != some.len() as u64 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Commits the writes; says of each whether it applied to anything.
async fn commit<'a>(
    link: &mut Link,
    writes: impl ExactSizeIterator<Item = &'a Write> + Clone,
) -> Result<Vec<bool>, sqlx::Error> {
    let count = writes.len();
    let mut connection = link.take().await?;
    let together = match only_credentials(writes.clone()) {
        Some(credentials) => put_together(&mut connection, &credentials).await?,
        None => false,
    };
    let applied = if together { vec![true; count] } else { one_by_one(&mut connection, writes).await? };
    link.keep(connection);
    counter!("vestibule_control_commits_total").increment(1);
    counter!("vestibule_control_writes_total").increment(count as u64);
    Ok(applied)
}

/// One transaction with a statement or more for each write.
async fn one_by_one<'a>(
    connection: &mut Connection,
    writes: impl ExactSizeIterator<Item = &'a Write>,
) -> Result<Vec<bool>, sqlx::Error> {
    let mut applied = Vec::with_capacity(writes.len());
    on_db!(Connection, connection, connection => {
        let mut transaction = connection.begin().await?;
        for write in writes {
            let connection = &mut *transaction;
            let rows = match write {
                Write::Insert { row, code } => rows!(
                    connection,
                    "INSERT INTO device (id, serial, family, product, name, created, enrol_until, last_failure, presence, code, disabled) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (serial) DO NOTHING",
                    row.id.as_bytes().to_vec(),
                    &row.serial,
                    &row.family,
                    &row.product,
                    &row.name,
                    row.created,
                    row.enrol_until,
                    &row.last_failure,
                    &row.presence,
                    code,
                    i64::from(row.disabled)
                ),
                Write::Remove { id } => rows!(connection, "DELETE FROM device WHERE id = $1", id.as_bytes().to_vec()),
                Write::EnrolUntil { id, until } => rows!(
                    connection,
                    "UPDATE device SET enrol_until = $1 WHERE id = $2",
                    until,
                    id.as_bytes().to_vec()
                ),
                Write::Rotate { id, code } => rows!(
                    connection,
                    "UPDATE device SET code = $1, committed = NULL, candidate = NULL, enrol_until = 0 WHERE id = $2",
                    code,
                    id.as_bytes().to_vec()
                ),
                Write::Disabled { id, disabled } => rows!(
                    connection,
                    "UPDATE device SET disabled = $1 WHERE id = $2",
                    i64::from(*disabled),
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
                Write::Leaves { leaves, applied } => {
                    for leaf in leaves {
                        rows!(
                            connection,
                            "INSERT INTO leaf (device, resource, place, area, name, version, reported, reported_version, \
                             desired, desired_version) SELECT id, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM device WHERE id = $1 \
                             ON CONFLICT (device, resource, place, area, name) DO UPDATE SET \
                             version = CASE WHEN excluded.version > leaf.version THEN excluded.version ELSE leaf.version END, \
                             reported = CASE WHEN excluded.reported_version >= leaf.reported_version \
                             THEN excluded.reported ELSE leaf.reported END, \
                             reported_version = CASE WHEN excluded.reported_version >= leaf.reported_version \
                             THEN excluded.reported_version ELSE leaf.reported_version END, \
                             desired = CASE WHEN excluded.desired_version >= leaf.desired_version \
                             THEN excluded.desired ELSE leaf.desired END, \
                             desired_version = CASE WHEN excluded.desired_version >= leaf.desired_version \
                             THEN excluded.desired_version ELSE leaf.desired_version END",
                            leaf.device.as_bytes().to_vec(),
                            &*leaf.path.resource,
                            &*leaf.path.index,
                            &*leaf.path.area,
                            &*leaf.path.name,
                            leaf.version,
                            LeafPart::json_of(leaf.reported.as_ref()),
                            LeafPart::version_of(leaf.reported.as_ref()),
                            LeafPart::json_of(leaf.desired.as_ref()),
                            LeafPart::version_of(leaf.desired.as_ref())
                        );
                    }
                    if let Some(applied) = applied {
                        rows!(
                            connection,
                            "INSERT INTO twin_applied (singleton, position) VALUES (1, $1) \
                             ON CONFLICT (singleton) DO UPDATE SET position = excluded.position",
                            applied.get()
                        );
                    }
                    1
                }
                Write::Credentials { id, committed, candidate } => rows!(
                    connection,
                    "UPDATE device SET committed = $1, candidate = $2 WHERE id = $3",
                    committed,
                    candidate,
                    id.as_bytes().to_vec()
                ),
            };
            applied.push(rows > 0);
        }
        transaction.commit().await?;
    });
    Ok(applied)
}
