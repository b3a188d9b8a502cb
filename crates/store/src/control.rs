//! The control database: the registry of devices and what they authenticate with.

mod writer;

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::db::{Db, on_db};
use crate::envelope::{Envelope, Place};
use crate::{DeviceId, InsertError, Secret, StoreError};
use writer::{Job, SealedCredential, Write};

/// Writes that wait for the writer; a caller beyond waits for room.
const QUEUE: usize = 4_096;
/// The most rows one [`Control::devices`] returns.
const MAX_DEVICES: i64 = 10_000;

/// A device of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Our id.
    pub id: DeviceId,
    /// The external identity, unique.
    pub serial: String,
    /// The family, `osap` for example.
    pub family: String,
    /// What kind of product it is.
    pub product: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// When it was registered, Unix milliseconds.
    pub created: i64,
    /// Until when it may enrol again, Unix milliseconds; 0: no window was opened.
    pub enrol_until: i64,
    /// The last failed connection fact, JSON.
    pub last_failure: Option<String>,
    /// The last known presence, JSON.
    pub presence: Option<String>,
}

/// What a device authenticates with after a first authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The suite it was agreed in.
    pub suite: String,
    /// Which first authentication of the device this is from.
    pub epoch: i64,
    /// The id the device was given.
    pub dev_id: String,
    /// The master key.
    pub master_key: Secret,
    /// The session key, once there is one.
    pub session_key: Option<Secret>,
    /// When it was made, Unix milliseconds.
    pub created: i64,
    /// Whether the device hashes its code in lower case.
    pub code_case_lower: bool,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("suite", &self.suite).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The credentials of a device: those in force and those on trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Proven by the device.
    pub committed: Option<Credential>,
    /// Given to the device, not proven by it yet.
    pub candidate: Option<Credential>,
}

/// The control database. Cheap to clone; every method may be called from any runtime, the work is done on the one the
/// store was opened on.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    db: Db,
    envelope: Envelope,
    writes: mpsc::Sender<Job>,
    runtime: Handle,
}

impl Control {
    /// Starts the writer on the current runtime. It ends when asked by [`Control::stop`].
    pub(crate) fn start(db: Db, envelope: Envelope) -> (Control, JoinHandle<()>) {
        let (writes, jobs) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(writer::run(db.clone(), jobs));
        let inner = Inner { db, envelope, writes, runtime: Handle::current() };
        (Control(Arc::new(inner)), writer)
    }

    /// Lets the writer finish what is queued and end.
    pub(crate) async fn stop(&self) {
        // A writer that is gone has nothing left to finish.
        let _ = self.0.writes.send(Job::Stop).await;
    }

    /// Closes the connections.
    pub(crate) async fn close(&self) {
        self.0.db.close().await;
    }

    /// Registers a device with its verification code.
    pub async fn insert_device(&self, row: &DeviceRow, code: &Secret) -> Result<(), InsertError> {
        let code = self.0.envelope.seal(code, &code_place(&row.id));
        let row = Box::new(row.clone());
        match self.write(Write::Insert { row, code }).await? {
            true => Ok(()),
            false => Err(InsertError::SerialTaken),
        }
    }

    /// Devices with an id beyond `after`, by id, at most `limit` (and never more than 10,000).
    pub async fn devices(&self, after: Option<DeviceId>, limit: i64) -> Result<Vec<DeviceRow>, StoreError> {
        type Row = (Vec<u8>, String, String, Option<String>, Option<String>, i64, i64, Option<String>, Option<String>);
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let limit = limit.clamp(0, MAX_DEVICES);
        self.read(move |db| async move {
            let rows: Vec<Row> = on_db!(&db, pool => sqlx::query_as(
                "SELECT id, serial, family, product, name, created, enrol_until, last_failure, presence \
                 FROM device WHERE id > $1 ORDER BY id LIMIT $2",
            )
            .bind(after)
            .bind(limit)
            .fetch_all(pool)
            .await?);
            rows.into_iter()
                .map(|row| {
                    Ok(DeviceRow {
                        id: DeviceId::from_stored(&row.0).ok_or(StoreError::Corrupt("device id"))?,
                        serial: row.1,
                        family: row.2,
                        product: row.3,
                        name: row.4,
                        created: row.5,
                        enrol_until: row.6,
                        last_failure: row.7,
                        presence: row.8,
                    })
                })
                .collect()
        })
        .await
    }

    /// Removes a device and its credentials; false when there is none. Its records stay in the journal until retention.
    pub async fn remove_device(&self, id: DeviceId) -> Result<bool, StoreError> {
        self.write(Write::Remove { id }).await
    }

    /// Sets until when the device may enrol again, Unix milliseconds; 0 closes the window.
    pub async fn set_enrol_until(&self, id: DeviceId, until: i64) -> Result<(), StoreError> {
        self.update(Write::EnrolUntil { id, until }).await
    }

    /// Keeps the last failed connection fact, JSON.
    pub async fn set_last_failure(&self, id: DeviceId, json: Option<&str>) -> Result<(), StoreError> {
        let json = json.map(str::to_owned);
        self.update(Write::LastFailure { id, json }).await
    }

    /// Keeps the last known presence, JSON.
    pub async fn set_presence(&self, id: DeviceId, json: Option<&str>) -> Result<(), StoreError> {
        let json = json.map(str::to_owned);
        self.update(Write::Presence { id, json }).await
    }

    /// The verification code of a device; `None` when there is no such device.
    pub async fn code(&self, id: DeviceId) -> Result<Option<Secret>, StoreError> {
        Ok(self.secrets(id).await?.0)
    }

    /// The credentials of a device; none for a device that has none or does not exist.
    pub async fn credentials(&self, id: DeviceId) -> Result<Credentials, StoreError> {
        Ok(self.secrets(id).await?.1)
    }

    /// Code and credentials of a device in one question: a device that comes in for the first time waits for both.
    pub async fn secrets(&self, id: DeviceId) -> Result<(Option<Secret>, Credentials), StoreError> {
        // A device without credentials has one row with nothing beside its code.
        type Text = Option<String>;
        type Number = Option<i64>;
        type Sealed = Option<Vec<u8>>;
        type Row = (Vec<u8>, Text, Text, Number, Text, Sealed, Sealed, Number, Number);
        let rows: Vec<Row> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => sqlx::query_as(
                    "SELECT device.code, slot, suite, epoch, dev_id, master_key, session_key, \
                     credential.created AS made, code_case_lower \
                     FROM device LEFT JOIN credential ON credential.device = device.id WHERE device.id = $1",
                )
                .bind(id.as_bytes().to_vec())
                .fetch_all(pool)
                .await?))
            })
            .await?;
        let envelope = &self.0.envelope;
        let code = rows.first().map(|(code, ..)| envelope.open_sealed(code, &code_place(&id))).transpose()?;
        let mut credentials = Credentials::default();
        for (_, slot, suite, epoch, dev_id, master_key, session_key, made, lower) in rows {
            let Some(slot) = slot else { continue };
            let (slot, part) = match slot.as_str() {
                writer::COMMITTED => (&mut credentials.committed, writer::COMMITTED),
                writer::CANDIDATE => (&mut credentials.candidate, writer::CANDIDATE),
                _ => return Err(StoreError::Corrupt("credential")),
            };
            let open = |sealed: &[u8], column| envelope.open_sealed(sealed, &key_place(&id, column, part));
            let missing = || StoreError::Corrupt("credential");
            *slot = Some(Credential {
                suite: suite.ok_or_else(missing)?,
                epoch: epoch.ok_or_else(missing)?,
                dev_id: dev_id.ok_or_else(missing)?,
                master_key: open(&master_key.ok_or_else(missing)?, MASTER_KEY)?,
                session_key: session_key.map(|sealed| open(&sealed, SESSION_KEY)).transpose()?,
                created: made.ok_or_else(missing)?,
                code_case_lower: lower.ok_or_else(missing)? != 0,
            });
        }
        Ok((code, credentials))
    }

    /// Replaces the credentials of a device; a slot that is None is emptied. Returns when durable; callers at the same
    /// time share a transaction.
    pub async fn put_credentials(&self, id: DeviceId, credentials: Credentials) -> Result<(), StoreError> {
        let seal = |credential: Option<Credential>, part| credential.map(|credential| self.seal(&id, credential, part));
        let write = Write::Credentials {
            id,
            committed: seal(credentials.committed, writer::COMMITTED).map(Box::new),
            candidate: seal(credentials.candidate, writer::CANDIDATE).map(Box::new),
        };
        self.update(write).await
    }

    fn seal(&self, id: &DeviceId, credential: Credential, part: &'static str) -> SealedCredential {
        let seal = |secret: &Secret, column| self.0.envelope.seal(secret, &key_place(id, column, part));
        SealedCredential {
            master_key: seal(&credential.master_key, MASTER_KEY),
            session_key: credential.session_key.as_ref().map(|key| seal(key, SESSION_KEY)),
            suite: credential.suite,
            epoch: credential.epoch,
            dev_id: credential.dev_id,
            created: credential.created,
            code_case_lower: credential.code_case_lower,
        }
    }

    /// Hands a write to the writer and waits until it is durable; false: there was nothing it applied to.
    async fn write(&self, write: Write) -> Result<bool, StoreError> {
        let (reply, done) = oneshot::channel();
        self.0.writes.send(Job::Write(write, reply)).await.map_err(|_| StoreError::Closed)?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    async fn update(&self, write: Write) -> Result<(), StoreError> {
        match self.write(write).await? {
            true => Ok(()),
            false => Err(StoreError::UnknownDevice),
        }
    }

    /// Runs a read on the store's runtime, so that connections belong to that one.
    async fn read<T, F>(&self, read: impl FnOnce(Db) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        on_runtime(&self.0.runtime, read(self.0.db.clone())).await
    }
}

/// Runs a future on the store's runtime, as long as the caller waits for it; a runtime that is gone means that the store
/// is.
pub(crate) async fn on_runtime<T: Send + 'static>(
    runtime: &Handle,
    future: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    struct Running<T>(JoinHandle<T>);
    impl<T> Drop for Running<T> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    match (&mut Running(runtime.spawn(future)).0).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::Closed),
    }
}

const MASTER_KEY: &str = "credential/master_key";
const SESSION_KEY: &str = "credential/session_key";

fn code_place(id: &DeviceId) -> Place<'_> {
    Place { column: "device/code", row: id.as_bytes(), part: "" }
}

fn key_place<'a>(id: &'a DeviceId, column: &'static str, part: &'static str) -> Place<'a> {
    Place { column, row: id.as_bytes(), part }
}
