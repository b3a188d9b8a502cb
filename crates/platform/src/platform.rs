//! The platform itself: what holds the parts together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use vestibule_store::{Control, DeviceId, Journal, Store, StoreError};

use crate::audit::Misdeeds;
use crate::certificates::{Certificates, CertificatesError};
use crate::changes::Move;
use crate::clock::Clock;
use crate::config::PlatformConfig;
use crate::credentials::Answering;
use crate::demands::Demands;
use crate::device::Device;
use crate::door::Door;
use crate::job::Jobs;
use crate::notebook::Notebook;
use crate::once::Running;
use crate::pictures::Pictures;
use crate::principal::Principals;
use crate::queue::Queues;
use crate::registry::Registry;
use crate::strangers::Strangers;
use crate::suites::Provisioner;
use crate::token::TokenFile;
use crate::twin::Twins;

/// Changes of presence, removals or moves that a slow listener may fall behind before it loses the oldest.
const PRESENCE_BACKLOG: usize = 1_024;

/// How long the end waits for operations that have their outcome.
const FAREWELL: Duration = Duration::from_secs(6);

/// How often what is kept for a time only is looked through.
const EXPIRE: Duration = Duration::from_secs(60 * 60);

/// Why the platform cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The registry cannot be read.
    #[error("the registry cannot be read")]
    Registry(#[from] StoreError),
    /// The platform's certificates cannot be read or made.
    #[error("the platform's certificates cannot be used")]
    Certificates(#[from] CertificatesError),
    /// A stored device is of a family this version does not know.
    #[error("device {serial} is of the family {family:?}, which this version does not know")]
    UnknownFamily {
        /// The device's own identity.
        serial: String,
        /// The family as stored.
        family: String,
    },
}

/// The device management platform. One for each process, behind an `Arc`.
pub struct Platform {
    store: Store,
    config: PlatformConfig,
    clock: Arc<dyn Clock>,
    token: TokenFile,
    registry: Arc<Registry>,
    principals: Arc<Principals>,
    jobs: Jobs,
    door: Door,
    notebook: Arc<Notebook>,
    presence: broadcast::Sender<Arc<Device>>,
    removals: broadcast::Sender<DeviceId>,
    moves: broadcast::Sender<Move>,
    connections: AtomicU64,
    twins: Arc<Twins>,
    /// How many operations have not been written down yet.
    operations: Arc<watch::Sender<usize>>,
    misdeeds: Misdeeds,
    queues: Queues,
    running_keys: Running,
    answering: Answering,
    /// Held by who makes a device the child of another, or takes it from there.
    adoptions: Arc<tokio::sync::Mutex<()>>,
    /// Counts the changes of webhooks.
    webhooks: watch::Sender<u64>,
    pictures: Arc<Pictures>,
    provisioner: OnceLock<Arc<dyn Provisioner>>,
    strangers: Strangers,
    certificates: Arc<Certificates>,
    demands: Demands,
    runtime: Handle,
    keepers: [JoinHandle<()>; 5],
}

impl Platform {
    /// Loads registry and twins and starts what writes them on the current runtime.
    pub async fn open(
        store: Store,
        config: PlatformConfig,
        clock: Arc<dyn Clock>,
        token: TokenFile,
    ) -> Result<Arc<Platform>, OpenError> {
        let registry = Registry::load(&store.control, &*clock).await?;
        let principals = Arc::new(Principals::load(&store.control).await?);
        let jobs = Jobs::load(&store.control, clock.now_ms()).await?;
        let notebook = Arc::new(Notebook::default());
        registry.for_each(|device| {
            if device.presence().is_restored() {
                // What the last process left behind is put right durably, too.
                notebook.note(device);
            }
        });
        let twins = Arc::new(Twins::default());
        twins.load(&registry, &store.control, &store.journal).await?;
        let queues = Queues::default();
        queues.restore(store.control.queued_operations().await?);
        let certificates = Certificates::open(store.control.clone(), Arc::clone(&clock), &config.server_names).await?;
        let demands = Demands::load(&store.control).await?;
        let keepers = [
            tokio::spawn(Arc::clone(&certificates).keep()),
            tokio::spawn(Arc::clone(&notebook).keep(store.control.clone())),
            tokio::spawn(Arc::clone(&twins).keep(store.control.clone(), store.journal.clone())),
            tokio::spawn(Arc::clone(&principals).keep(store.control.clone())),
            tokio::spawn(expire(
                store.control.clone(),
                Arc::clone(&principals),
                Arc::clone(&clock),
                config.audit_retention,
            )),
        ];
        let (presence, _) = broadcast::channel(PRESENCE_BACKLOG);
        let platform = Arc::new(Platform {
            store,
            config,
            clock,
            token,
            registry: Arc::new(registry),
            principals,
            jobs,
            door: Door::default(),
            notebook,
            presence,
            removals: broadcast::channel(PRESENCE_BACKLOG).0,
            moves: broadcast::channel(PRESENCE_BACKLOG).0,
            connections: AtomicU64::new(0),
            twins,
            operations: Arc::new(watch::Sender::new(0)),
            misdeeds: Misdeeds::default(),
            queues,
            running_keys: Running::default(),
            answering: Answering::default(),
            adoptions: Arc::default(),
            webhooks: watch::Sender::new(0),
            pictures: Arc::default(),
            provisioner: OnceLock::new(),
            strangers: Strangers::default(),
            certificates,
            demands,
            runtime: Handle::current(),
            keepers,
        });
        tokio::spawn(Platform::sweep_queues(Arc::downgrade(&platform)));
        Ok(platform)
    }

    /// Writes what is still in memory and closes the store. To be called after the last device is gone.
    pub async fn close(&self) {
        // The links are gone, so that every operation has its outcome and is about to be written down.
        let mut operations = self.operations.subscribe();
        if tokio::time::timeout(FAREWELL, operations.wait_for(|count| *count == 0)).await.is_err() {
            tracing::warn!("operations are under way at the end; how they end is not written down");
        }
        // Before the keepers are ended: what they have taken they write to the end.
        self.notebook.flush(self.control()).await;
        self.twins.flush(self.control(), self.journal()).await;
        self.principals.flush(self.control()).await;
        self.keepers.iter().for_each(JoinHandle::abort);
        self.store.close().await;
    }

    /// The platform's clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The journal, for its durable position and its room.
    pub fn journal(&self) -> &Journal {
        &self.store.journal
    }

    /// The limits in force.
    pub fn config(&self) -> &PlatformConfig {
        &self.config
    }

    pub(crate) fn clock_handle(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Where the platform's own tasks run; adapters call from other threads.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn demands(&self) -> &Demands {
        &self.demands
    }

    pub(crate) fn adoptions(&self) -> &Arc<tokio::sync::Mutex<()>> {
        &self.adoptions
    }

    pub(crate) fn webhook_sender(&self) -> &watch::Sender<u64> {
        &self.webhooks
    }

    pub(crate) fn running_keys(&self) -> &Running {
        &self.running_keys
    }

    pub(crate) fn answering(&self) -> &Answering {
        &self.answering
    }

    pub(crate) fn queues(&self) -> &Queues {
        &self.queues
    }

    pub(crate) fn misdeeds(&self) -> &Misdeeds {
        &self.misdeeds
    }

    pub(crate) fn control(&self) -> &Control {
        &self.store.control
    }

    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    pub(crate) fn jobs_kept(&self) -> &Jobs {
        &self.jobs
    }

    pub(crate) fn principals(&self) -> &Arc<Principals> {
        &self.principals
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// An operation is under way until the guard is dropped.
    pub(crate) fn begin_operation(&self) -> Underway {
        self.operations.send_modify(|count| *count += 1);
        Underway(Arc::clone(&self.operations))
    }

    pub(crate) fn strangers_kept(&self) -> &Strangers {
        &self.strangers
    }

    pub(crate) fn provisioner(&self) -> &OnceLock<Arc<dyn Provisioner>> {
        &self.provisioner
    }

    pub(crate) fn certificates_kept(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    pub(crate) fn pictures(&self) -> &Arc<Pictures> {
        &self.pictures
    }

    pub(crate) fn twins(&self) -> &Twins {
        &self.twins
    }

    pub(crate) fn notebook(&self) -> &Notebook {
        &self.notebook
    }

    pub(crate) fn token(&self) -> &TokenFile {
        &self.token
    }

    pub(crate) fn presence_sender(&self) -> &broadcast::Sender<Arc<Device>> {
        &self.presence
    }

    pub(crate) fn removal_sender(&self) -> &broadcast::Sender<DeviceId> {
        &self.removals
    }

    pub(crate) fn moves(&self) -> &broadcast::Sender<Move> {
        &self.moves
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }
}

/// Removes what is kept for a time only, now and then: the audit, keys of requests, sessions.
async fn expire(control: Control, principals: Arc<Principals>, clock: Arc<dyn Clock>, audit: Duration) {
    let audit = i64::try_from(audit.as_millis()).unwrap_or(i64::MAX);
    loop {
        let now = clock.now_ms();
        let audits = control.expire_audits(now.saturating_sub(audit)).await;
        let keys = control.expire_keys(now).await;
        let sessions = principals.expire(&control, now).await;
        for (what, expired) in [("rows of the audit", audits), ("idempotency keys", keys), ("sessions", sessions)] {
            match expired {
                Ok(0) => {}
                Ok(count) => tracing::info!(what, count, "what had its time is removed"),
                Err(error) => tracing::warn!(what, %error, "what had its time stays"),
            }
        }
        tokio::time::sleep(EXPIRE).await;
    }
}

/// An operation that has not been written down yet.
pub(crate) struct Underway(Arc<watch::Sender<usize>>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Runs a change to its end, also when its caller goes away in the middle (a client that hangs up, a login that
/// takes too long): what is stored and what is in memory must not part.
pub(crate) async fn to_the_end<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(change).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}
