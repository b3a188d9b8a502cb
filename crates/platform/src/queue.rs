//! Operations that wait for their device, because their caller asked for it.
//!
//! One is marked in the store before it is sent or taken back, so that none is sent twice whatever happens, and removed when
//! it is written down how it ended. What a process leaves behind that is marked may have been sent: it ends as unknown. The
//! record of the end has an id that follows from the operation's, so that the journal keeps the first end and no second.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;
use vestibule_store::{DeviceId, DevicePath, QueuedOperation, StoreError};

use crate::audit::Deed;
use crate::caller::Caller;
use crate::device::Device;
use crate::invoke::{InvokeError, Outcome, Request, carry_out, raw};
use crate::operation_log::Ended;
use crate::platform::{Platform, to_the_end};
use crate::presence::live_link;

/// Operations that may wait for one device.
const MOST: usize = 256;
/// Operations that are still to be taken back from the store; of more it is only said that they may be there.
const MOST_DOUBTFUL: usize = 4_096;
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
    /// Devices whose queue is worked off right now: one operation after the other.
    worked: Mutex<HashSet<DeviceId>>,
    /// Operations of which the store has not said whether it has them, and which must not wait there.
    doubtful: Mutex<VecDeque<Uuid>>,
}

/// The right to work off the queue of a device; given back when dropped.
struct Turn {
    platform: Arc<Platform>,
    device: DeviceId,
}

impl Turn {
    /// `None`: somebody is at it.
    fn take(platform: &Arc<Platform>, device: DeviceId) -> Option<Turn> {
        let is_free = platform.queues().worked.lock().insert(device);
        is_free.then(|| Turn { platform: Arc::clone(platform), device })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.platform.queues().worked.lock().remove(&self.device);
    }
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

    /// Takes the first that `wanted` says yes to. It is the caller's alone from then on.
    fn take(&self, device: DeviceId, wanted: impl Fn(&QueuedOperation) -> bool) -> Option<QueuedOperation> {
        let mut waiting = self.waiting.lock();
        let queue = waiting.get_mut(&device)?;
        let taken = queue.iter().position(wanted).and_then(|at| queue.remove(at));
        if queue.is_empty() {
            waiting.remove(&device);
        }
        taken
    }

    /// The devices with something that waits, and whether one of that has an end that does not wait for the device.
    fn devices(&self, now: i64) -> Vec<(DeviceId, bool)> {
        let ends = |queue: &VecDeque<QueuedOperation>| queue.iter().any(|one| one.is_over(now));
        self.waiting.lock().iter().map(|(device, queue)| (*device, ends(queue))).collect()
    }

    fn take_all(&self, device: DeviceId) -> VecDeque<QueuedOperation> {
        self.waiting.lock().remove(&device).unwrap_or_default()
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
        by.still_sees(device)?;
        let may_be_taken_back = |one: &QueuedOperation| one.id == id && !one.is_over(self.clock().now_ms());
        let Some(operation) = self.queues().take(device.id, may_be_taken_back) else { return Ok(false) };
        let (platform, device, actor) = (Arc::clone(self), Arc::clone(device), by.name().to_owned());
        let underway = self.begin_operation();
        to_the_end(async move {
            let _underway = underway;
            match platform.control().mark_queued(id, true).await {
                Ok(true) => {}
                Ok(false) => {
                    platform.went_with_its_device(&device, operation);
                    return Ok(false);
                }
                Err(error) => {
                    platform.queues().put_back(operation);
                    return Err(error);
                }
            }
            platform.end_waiting(&device, &operation, &Outcome::Cancelled).await;
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
            taken: false,
        };
        match self.control().queue_operation(operation.clone(), MOST).await {
            Ok(true) => {}
            Ok(false) => {
                metrics::counter!("vestibule_operations_refused_total", "reason" => "queue_full").increment(1);
                return Err(InvokeError::QueueFull);
            }
            Err(error) => match self.control().remove_queued(id).await {
                // It may have been there all the same, and is not any more.
                Ok(_) => return Err(error.into()),
                // It may be there and, should the platform end before it is taken back, be sent by the next one.
                Err(_) => {
                    tracing::error!(%error, %id, "whether an operation is in the queue is not known: it is taken back later");
                    self.take_back(id);
                    return Ok(Outcome::Unknown);
                }
            },
        }
        self.queues().add(operation);
        if request.device.is_removed() {
            self.end_all_waiting(&request.device);
        } else if live_link(&request.device).is_some() {
            // It came while we wrote.
            self.deliver(&request.device);
        }
        Ok(Outcome::Queued { expires })
    }

    /// Removes an operation from the store that may have it, as soon as the store answers.
    fn take_back(self: &Arc<Self>, id: Uuid) {
        metrics::counter!("vestibule_operations_doubtful_total").increment(1);
        {
            let mut doubtful = self.queues().doubtful.lock();
            if doubtful.len() >= MOST_DOUBTFUL {
                tracing::error!(%id, "too many operations are to be taken back: this one may be sent after a restart");
                return;
            }
            doubtful.push_back(id);
            if doubtful.len() > 1 {
                return;
            }
        }
        let platform = Arc::downgrade(self);
        self.runtime().clone().spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(platform) = platform.upgrade() else { return };
                loop {
                    let Some(id) = platform.queues().doubtful.lock().front().copied() else { return };
                    if platform.control().remove_queued(id).await.is_err() {
                        break;
                    }
                    tracing::info!(%id, "an operation was taken back that may have been in the queue");
                    let mut doubtful = platform.queues().doubtful.lock();
                    doubtful.pop_front();
                    if doubtful.is_empty() {
                        return;
                    }
                }
            }
        });
    }

    /// Works off what waits for a device: ends what has had its time and, while the device is there, sends the rest,
    /// oldest first, each after the answer to the one before.
    pub(crate) fn deliver(self: &Arc<Self>, device: &Arc<Device>) {
        if self.queues().is_empty(device.id) || !self.journal().has_room() {
            return;
        }
        let Some(turn) = Turn::take(self, device.id) else { return };
        let (platform, device) = (Arc::clone(self), Arc::clone(device));
        let underway = self.begin_operation();
        self.runtime().clone().spawn(async move {
            let (_turn, _underway) = (turn, underway);
            loop {
                platform.end_expired(&device).await;
                if live_link(&device).is_none() || !platform.journal().has_room() {
                    break;
                }
                let Some(operation) = platform.queues().take(device.id, |_| true) else { break };
                if !platform.deliver_one(&device, operation).await {
                    break;
                }
            }
        });
    }

    /// Whether to go on with the next one.
    async fn deliver_one(self: &Arc<Self>, device: &Arc<Device>, mut operation: QueuedOperation) -> bool {
        match self.control().mark_queued(operation.id, true).await {
            Ok(true) => {}
            Ok(false) => {
                self.went_with_its_device(device, operation);
                return true;
            }
            Err(error) => {
                tracing::warn!(%error, serial = %device.serial, "what waits for the device cannot be taken");
                self.queues().put_back(operation);
                return false;
            }
        }
        if operation.is_over(self.clock().now_ms()) {
            self.end_waiting(device, &operation, &Outcome::Expired).await;
            return true;
        }
        operation.taken = true;
        let Some(request) = request(device, &operation) else {
            let outcome = Outcome::Failed { code: -1, message: Some("its input cannot be read any more".into()) };
            self.end_waiting(device, &operation, &outcome).await;
            return true;
        };
        let begun = Instant::now();
        let outcome = match carry_out(&request).await {
            Ok(Outcome::Offline) | Err(InvokeError::Busy) => {
                // Nothing was sent: it goes on waiting. Should the store not learn of that, and the platform end before
                // it is sent, it ends as unknown.
                operation.taken = false;
                match self.control().mark_queued(operation.id, false).await {
                    Ok(true) => self.queues().put_back(operation),
                    Ok(false) => self.went_with_its_device(device, operation),
                    Err(error) => {
                        tracing::warn!(%error, serial = %device.serial, "an operation that waits stays marked as taken");
                        self.queues().put_back(operation);
                    }
                }
                return false;
            }
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed { code: -1, message: Some(error.to_string().into()) },
        };
        self.conclude(&request, end_id(operation.id), Some(operation.id), &outcome, begun.elapsed()).await;
        self.forget_waiting(&operation).await;
        true
    }

    /// Writes down how an operation ended that was not sent, or of which that is not known.
    async fn end_waiting(self: &Arc<Self>, device: &Arc<Device>, operation: &QueuedOperation, outcome: &Outcome) {
        let request = request(device, operation).unwrap_or_else(|| Request {
            device: Arc::clone(device),
            path: Arc::new(operation.path.clone()),
            input: None,
            deadline: Duration::ZERO,
            queue: None,
            by: operation.by.as_str().into(),
        });
        self.conclude(&request, end_id(operation.id), Some(operation.id), outcome, Duration::ZERO).await;
        self.forget_waiting(operation).await;
    }

    /// What waits for a device that was removed ends with it.
    pub(crate) fn end_all_waiting(&self, device: &Device) {
        for operation in self.queues().take_all(device.id) {
            self.went_with_its_device(device, operation);
        }
    }

    fn went_with_its_device(&self, device: &Device, operation: QueuedOperation) {
        let input = operation.input.as_deref().and_then(|input| serde_json::from_str(input).ok());
        let outcome = if operation.taken { &Outcome::Unknown } else { &Outcome::Cancelled };
        let (id, queued, by) = (end_id(operation.id), Some(operation.id), &*operation.by);
        let path = &Arc::new(operation.path);
        self.log_operation(device, Ended { id, queued, path, by, input, outcome, took: Duration::ZERO });
    }

    async fn forget_waiting(&self, operation: &QueuedOperation) {
        if let Err(error) = self.control().remove_queued(operation.id).await {
            // After a restart it ends once more, under the same id, which the journal has.
            tracing::warn!(%error, id = %operation.id, "an operation that has ended stays in the queue");
        }
    }

    /// Looks through the queues, now and then.
    pub(crate) async fn sweep_queues(platform: Weak<Platform>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(platform) = platform.upgrade() else { return };
            for (id, has_ended) in platform.queues().devices(platform.clock().now_ms()) {
                match platform.registry().by_id(id) {
                    Some(device) if has_ended || live_link(&device).is_some() => platform.deliver(&device),
                    Some(_) => {}
                    // Asked for in the moment of its removal.
                    None => drop(platform.queues().take_all(id)),
                }
            }
        }
    }

    async fn end_expired(self: &Arc<Self>, device: &Arc<Device>) {
        let now = self.clock().now_ms();
        while let Some(operation) = self.queues().take(device.id, |one| one.is_over(now)) {
            // A process that has ended had taken it.
            let outcome = if operation.taken { Outcome::Unknown } else { Outcome::Expired };
            self.end_waiting(device, &operation, &outcome).await;
        }
    }
}

/// The id of the record of how an operation ended that waited: one that was given to nobody else, the same each time.
fn end_id(queued: Uuid) -> Uuid {
    Uuid::from_u128(queued.as_u128() ^ 1)
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
