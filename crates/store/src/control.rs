//! The control database: the registry of devices, what they authenticate with, their twins, what waits for them, whom
//! webhooks tell of them, who may use the platform, and what they did.

mod audit;
mod certificate;
mod credential;
mod device;
mod enlist;
mod idempotency;
mod job;
mod media;
mod note;
mod principal;
mod queue;
mod root;
mod session;
mod statements;
mod twin;
mod view;
mod webhook;
mod writer;

pub(crate) use audit::add_audit;
pub use audit::{AuditQuery, AuditRow, NewAudit};
pub use certificate::{CertificateRow, DeviceCertificateQuery, DeviceCertificateRow};
pub use credential::{CodeUse, Credential, Credentials, SealedCode};
pub use device::DeviceRow;
pub use idempotency::Begun;
pub use job::JobRow;
pub use media::{MEDIA_LEAST, MEDIA_PAGE, MediaArrival, MediaKey, MediaKind, MediaRow, MediaState};
pub use note::Note;
pub use principal::PrincipalRow;
pub use queue::QueuedOperation;
pub use root::{KnownBy, OverdueRow};
pub use session::SessionRow;
pub use twin::{LeafPart, LeafRow};
pub use view::ViewRow;
pub use webhook::{DeadLetter, WebhookPlace, WebhookRow};

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::StoreError;
use crate::db::Db;
use crate::envelope::Envelope;
use writer::{EXPIRED, Job, Reply, Requests, Write};

/// Writes that wait for the writer; a caller beyond waits for room.
const QUEUE: usize = 4_096;

/// The control database. Cheap to clone; every method may be called from any runtime, the work is done on the one the
/// store was opened on.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    db: Db,
    envelope: Envelope,
    requests: Requests,
    runtime: Handle,
}

impl Control {
    /// Starts the writer on the current runtime. It ends when asked by [`Control::stop`].
    pub(crate) fn start(db: Db, envelope: Envelope) -> (Control, JoinHandle<()>) {
        let (requests, groups) = writer::queue(QUEUE);
        let writer = tokio::spawn(writer::run(db.clone(), groups));
        let inner = Inner { db, envelope, requests, runtime: Handle::current() };
        (Control(Arc::new(inner)), writer)
    }

    /// Lets the writer finish what is queued and end.
    pub(crate) async fn stop(&self) {
        // A writer that is gone has nothing left to finish.
        let _ = self.0.requests.send(Job::Stop).await;
    }

    /// Closes the connections.
    pub(crate) async fn close(&self) {
        self.0.db.close().await;
    }

    /// Hands a write to the writer and waits until it is durable; returns what the write answers.
    async fn write(&self, write: Write) -> Result<i64, StoreError> {
        let (reply, done) = Reply::new(&self.0.runtime);
        self.0.requests.send(Job::Write(write, reply)).await?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    /// A write that needs a device.
    async fn update(&self, write: Write) -> Result<(), StoreError> {
        match self.write(write).await? {
            0 => Err(StoreError::UnknownDevice),
            _ => Ok(()),
        }
    }

    /// Removes what has expired a bounded number of rows at a time, so that other writes come in between; returns how many
    /// there were.
    async fn expire(&self, step: impl Fn() -> Write) -> Result<u64, StoreError> {
        let mut sum = 0;
        loop {
            let removed = self.write(step()).await?;
            sum += removed.unsigned_abs();
            if removed < EXPIRED {
                return Ok(sum);
            }
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
