//! The control database: the registry of devices and what they authenticate with.

mod credential;
mod twin;
mod writer;

pub use twin::{LeafPart, LeafRow};

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::db::{Db, on_db};
use crate::envelope::{Envelope, Place};
use crate::{DeviceId, InsertError, Secret, StoreError};
use writer::{Job, Write};

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
    /// Whether an operator has shut it out.
    pub disabled: bool,
    /// The last failed connection fact, JSON.
    pub last_failure: Option<String>,
    /// The last known presence, JSON.
    pub presence: Option<String>,
}

/// A device's verification code as it is stored: sealed, and of use to [`Control::open_code`] only.
#[derive(Clone)]
pub struct SealedCode(Box<[u8]>);

impl fmt::Debug for SealedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedCode(..)")
    }
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

    /// Registers a device with its verification code, which is given back sealed.
    pub async fn insert_device(&self, row: &DeviceRow, code: &Secret) -> Result<SealedCode, InsertError> {
        let code = self.0.envelope.seal(code, &place(&row.id, CODE));
        let sealed = SealedCode(code.as_slice().into());
        let row = Box::new(row.clone());
        match self.write(Write::Insert { row, code }).await? {
            true => Ok(sealed),
            false => Err(InsertError::SerialTaken),
        }
    }

    /// The codes of the devices that nothing was agreed with yet.
    pub async fn new_codes(&self) -> Result<Vec<(DeviceId, SealedCode)>, StoreError> {
        self.read(move |db| async move {
            let rows: Vec<(Vec<u8>, Vec<u8>)> = on_db!(&db, pool => sqlx::query_as(
                "SELECT id, code FROM device WHERE committed IS NULL AND candidate IS NULL",
            )
            .fetch_all(pool)
            .await?);
            rows.into_iter()
                .map(|(id, code)| {
                    let id = DeviceId::from_stored(&id).ok_or(StoreError::Corrupt("device id"))?;
                    Ok((id, SealedCode(code.into())))
                })
                .collect()
        })
        .await
    }

    /// Opens a code that was sealed for this device.
    pub fn open_code(&self, id: DeviceId, code: &SealedCode) -> Result<Secret, StoreError> {
        self.0.envelope.open_sealed(&code.0, &place(&id, CODE))
    }

    /// Devices with an id beyond `after`, by id, at most `limit` (and never more than 10,000).
    pub async fn devices(&self, after: Option<DeviceId>, limit: i64) -> Result<Vec<DeviceRow>, StoreError> {
        type Text = Option<String>;
        type Row = (Vec<u8>, String, String, Text, Text, i64, i64, Text, Text, i64);
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let limit = limit.clamp(0, MAX_DEVICES);
        self.read(move |db| async move {
            let rows: Vec<Row> = on_db!(&db, pool => sqlx::query_as(
                "SELECT id, serial, family, product, name, created, enrol_until, last_failure, presence, disabled \
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
                        disabled: row.9 != 0,
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

    /// Gives the device another verification code and forgets what was agreed with it, at once.
    pub async fn rotate(&self, id: DeviceId, code: &Secret) -> Result<(), StoreError> {
        let code = self.0.envelope.seal(code, &place(&id, CODE));
        self.update(Write::Rotate { id, code }).await
    }

    /// Shuts the device out, or lets it in again.
    pub async fn set_disabled(&self, id: DeviceId, disabled: bool) -> Result<(), StoreError> {
        self.update(Write::Disabled { id, disabled }).await
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
        type Row = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);
        let row: Option<Row> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as("SELECT code, committed, candidate FROM device WHERE id = $1")
                        .bind(id.as_bytes().to_vec())
                        .fetch_optional(pool)
                        .await?
                }))
            })
            .await?;
        let Some((code, committed, candidate)) = row else {
            return Ok((None, Credentials::default()));
        };
        let open = |sealed: Vec<u8>, column| self.0.envelope.open_sealed(&sealed, &place(&id, column));
        let credential = |sealed: Option<Vec<u8>>, column| {
            let Some(sealed) = sealed else { return Ok(None) };
            let stored = open(sealed, column)?;
            credential::decode(stored.expose()).map(Some).ok_or(StoreError::Corrupt("credential"))
        };
        let credentials =
            Credentials { committed: credential(committed, COMMITTED)?, candidate: credential(candidate, CANDIDATE)? };
        Ok((Some(open(code, CODE)?), credentials))
    }

    /// Replaces the credentials of a device; a slot that is None is emptied. Returns when durable; callers at the same
    /// time share a transaction.
    pub async fn put_credentials(&self, id: DeviceId, credentials: Credentials) -> Result<(), StoreError> {
        let seal = |credential: Option<Credential>, column| {
            credential.map(|credential| self.0.envelope.seal(&credential::encode(&credential), &place(&id, column)))
        };
        let committed = seal(credentials.committed, COMMITTED);
        let candidate = seal(credentials.candidate, CANDIDATE);
        self.update(Write::Credentials { id, committed, candidate }).await
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

const CODE: &str = "device/code";
const COMMITTED: &str = "device/committed";
const CANDIDATE: &str = "device/candidate";

fn place<'a>(id: &'a DeviceId, column: &'static str) -> Place<'a> {
    Place { column, row: id.as_bytes() }
}
