//! Operations that wait for their device, because their caller asked for it.
//!
//! One is taken out of the store before it is sent, so that none is sent twice whatever happens; one that was taken and
//! then not sent is put back.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;
use vestibule_store::{DeviceId, DevicePath, QueuedOperation, StoreError};

use crate::audit::Deed;
use crate::device::Device;
use crate::invoke::{InvokeError, Outcome, Request, carry_out, raw};
use crate::permission::Caller;
use crate::platform::{Platform, to_the_end};
use crate::presence::live_link;

/// Operations that may wait for one device.
const MOST: usize = 256;
/// How often queues are looked through for what can be sent and what has had its time.
const SWEEP: Duration = Duration::from_secs(1);

/// An operation that waits for its device.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The id its caller was told.
    pub id: Uuid,
    /// Which operation of which part of the device.
    pub path: DevicePath,
    /// The input, JSON text of one value.
    pub input: Option<Box<str>>,
    /// When it was asked for, milliseconds since 1970.
    pub created: i64,
    /// When it is not sent any more, milliseconds since 1970.
    pub expires: i64,
    /// Who asked for it.
    pub by: String,
}

/// What waits for each device, oldest first.
#[derive(Default)]
pub(crate) struct Queues {
    waiting: Mutex<HashMap<DeviceId, VecDeque<QueuedOperation>>>,
}

impl Queues {
    pub(crate) fn restore(&self, operations: Vec<QueuedOperation>) {
        let mut waiting = self.waiting.lock();
        for operation in operations {
            waiting.entry(operation.device).or_default().push_back(operation);
        }
    }

    fn add(&self, operation: QueuedOperation) {
        self.waiting.lock().entry(operation.device).or_default().push_back(operation);
    }

    fn put_back(&self, operation: QueuedOperation) {
        self.waiting.lock().entry(operation.device).or_default().push_front(operation);
    }

    /// Takes the first that `wanted` says yes to.
    fn take(&self, device: DeviceId, wanted: impl Fn(&QueuedOperation) -> bool) -> Option<QueuedOperation> {
        let mut waiting = self.waiting.lock();
        let queue = waiting.get_mut(&device)?;
        let taken = queue.iter().position(wanted).and_then(|at| queue.remove(at));
        if queue.is_empty() {
            waiting.remove(&device);
        }
        taken
    }

    fn devices(&self) -> Vec<DeviceId> {
        self.waiting.lock().keys().copied().collect()
    }

    fn is_empty(&self, device: DeviceId) -> bool {
        !self.waiting.lock().contains_key(&device)
    }

    fn of(&self, device: DeviceId) -> Vec<QueuedOperation> {
        self.waiting.lock().get(&device).map(|queue| queue.iter().cloned().collect()).unwrap_or_default()
    }
}

impl Platform {
    /// What waits for the device, oldest first.
    pub fn waiting(&self, device: &Device) -> Vec<Waiting> {
        let shown = |one: QueuedOperation| Waiting {
            id: one.id,
            path: one.path,
            input: one.input,
            created: one.created,
            expires: one.expires,
            by: one.by,
        };
        self.queues().of(device.id).into_iter().map(shown).collect()
    }

    /// Takes back an operation that waits; false when it does not wait (any more).
    pub async fn cancel(self: &Arc<Self>, device: &Arc<Device>, id: Uuid, by: &Caller) -> Result<bool, StoreError> {
        let Some(operation) = self.queues().take(device.id, |one| one.id == id) else { return Ok(false) };
        let (platform, device, actor) = (Arc::clone(self), Arc::clone(device), by.name().to_owned());
        to_the_end(async move {
            match platform.control().take_queued(id).await {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    platform.queues().put_back(operation);
                    return Err(error);
                }
            }
            platform.end_waiting(&device, operation, &Outcome::Cancelled).await;
            let (actor, detail) = (&*actor, serde_json::json!({"operation_id": id}));
            let deed = Deed { actor, action: "operation.cancel", device: Some(&device), detail, ok: true };
            platform.auditor().write(deed).await;
            Ok(true)
        })
        .await
    }

    /// Has an operation wait for its device.
    pub(crate) async fn enqueue(
        self: &Arc<Self>,
        id: Uuid,
        request: &Request,
        length: Duration,
    ) -> Result<Outcome, InvokeError> {
        let created = self.clock().now_ms();
        let expires = created.saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
        let operation = QueuedOperation {
            id,
            device: request.device.id,
            path: (*request.path).clone(),
            input: request.input.as_deref().map(|input| input.get().into()),
            created,
            expires,
            deadline_ms: i64::try_from(request.deadline.as_millis()).unwrap_or(i64::MAX),
            by: request.by.to_string(),
        };
        if !self.control().queue_operation(operation.clone(), MOST).await? {
            metrics::counter!("vestibule_operations_refused_total", "reason" => "queue_full").increment(1);
            return Err(InvokeError::QueueFull);
        }
        self.queues().add(operation);
        if live_link(&request.device).is_some() {
            // It came while we wrote.
            self.deliver(&request.device);
        }
        Ok(Outcome::Queued { expires })
    }

    /// Sends what waits for a device that is there now, oldest first, each after the answer to the one before.
    pub(crate) fn deliver(self: &Arc<Self>, device: &Arc<Device>) {
        if self.queues().is_empty(device.id) {
            return;
        }
        let (platform, device) = (Arc::clone(self), Arc::clone(device));
        let underway = self.begin_operation();
        self.runtime().clone().spawn(async move {
            let _underway = underway;
            while live_link(&device).is_some()
                && let Some(operation) = platform.queues().take(device.id, |_| true)
            {
                if !platform.deliver_one(&device, operation).await {
                    break;
                }
            }
        });
    }

    /// Whether to go on with the next one.
    async fn deliver_one(self: &Arc<Self>, device: &Arc<Device>, operation: QueuedOperation) -> bool {
        match self.control().take_queued(operation.id).await {
            Ok(true) => {}
            // Somebody else was faster.
            Ok(false) => return true,
            Err(error) => {
                tracing::warn!(%error, serial = %device.serial, "what waits for the device cannot be taken out");
                self.queues().put_back(operation);
                return false;
            }
        }
        if operation.expires <= self.clock().now_ms() {
            self.end_waiting(device, operation, &Outcome::Expired).await;
            return true;
        }
        let Some(request) = request(device, &operation) else { return true };
        let begun = Instant::now();
        let outcome = match carry_out(&request).await {
            Ok(Outcome::Offline) | Err(InvokeError::Busy) => {
                // Nothing was sent: it goes on waiting.
                match self.control().queue_operation(operation.clone(), usize::MAX).await {
                    Ok(_) => self.queues().put_back(operation),
                    Err(error) => {
                        tracing::error!(%error, serial = %device.serial, "an operation that waits is lost");
                        self.end_waiting(device, operation, &Outcome::Offline).await;
                    }
                }
                return false;
            }
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed { code: -1, message: Some(error.to_string().into()) },
        };
        self.conclude(&request, Uuid::now_v7(), Some(operation.id), &outcome, begun.elapsed()).await;
        true
    }

    async fn end_waiting(self: &Arc<Self>, device: &Arc<Device>, operation: QueuedOperation, outcome: &Outcome) {
        if let Some(request) = request(device, &operation) {
            self.conclude(&request, Uuid::now_v7(), Some(operation.id), outcome, Duration::ZERO).await;
        }
    }

    /// Ends those whose time is over, and sends those that a device was too busy for, now and then.
    pub(crate) async fn sweep_queues(platform: Weak<Platform>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(platform) = platform.upgrade() else { return };
            for id in platform.queues().devices() {
                let Some(device) = platform.registry().by_id(id) else {
                    // Removed, and its queue with it.
                    while platform.queues().take(id, |_| true).is_some() {}
                    continue;
                };
                platform.end_expired(&device).await;
                if live_link(&device).is_some() {
                    platform.deliver(&device);
                }
            }
        }
    }

    async fn end_expired(self: &Arc<Self>, device: &Arc<Device>) {
        let now = self.clock().now_ms();
        while let Some(operation) = self.queues().take(device.id, |one| one.expires <= now) {
            match self.control().take_queued(operation.id).await {
                Ok(true) => self.end_waiting(device, operation, &Outcome::Expired).await,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "an operation whose time is over goes on waiting");
                    return self.queues().put_back(operation);
                }
            }
        }
    }
}

fn request(device: &Arc<Device>, operation: &QueuedOperation) -> Option<Request> {
    let input = operation.input.as_deref().map(raw).transpose();
    let input =
        input.inspect_err(|_| tracing::error!(id = %operation.id, "an operation that waits has a bad input")).ok()?;
    Some(Request {
        device: Arc::clone(device),
        path: Arc::new(operation.path.clone()),
        input,
        deadline: Duration::from_millis(u64::try_from(operation.deadline_ms).unwrap_or(0)),
        queue: None,
        by: operation.by.as_str().into(),
    })
}
