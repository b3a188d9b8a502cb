//! What the handle and the task of a device share.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::attribute::{Attributes, Message};
use crate::clock::Clock;
use crate::dial::{Dial, TcpDial};
use crate::operation::{OperationPath, Operations};
use crate::outbox::{Limits, Outbox};
use crate::profile::Profile;
use crate::state::{LinkFault, State};

/// Resolves the report that waits for an event.
pub(crate) type Token = oneshot::Sender<()>;

pub(crate) struct Shared {
    pub profile: Arc<Profile>,
    pub clock: Arc<dyn Clock>,
    pub dial: Arc<dyn Dial>,
    pub operations: Arc<Operations>,
    /// Never locked while the outbox is.
    pub attributes: Mutex<Attributes>,
    /// Held for the time of one call, never over an await.
    pub outbox: Mutex<Outbox<Token>>,
    /// Wakes the task: an event was queued, or the program wants an end.
    pub wake: Notify,
    pub state: watch::Sender<State>,
    /// What broke the goodbye, if something did.
    pub farewell: OnceLock<LinkFault>,
    stop: AtomicBool,
    count: Count,
}

#[derive(Default)]
pub(crate) struct Count {
    pub authentications: AtomicU64,
    pub logins: AtomicU64,
    pub acknowledged: AtomicU64,
    pub ignored: AtomicU64,
    pub operations: AtomicU64,
    pub operations_refused: AtomicU64,
    pub operations_dropped: AtomicU64,
}

/// What happened to a device since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Conversations with the LBS that succeeded.
    pub authentications: u64,
    /// Logins at the DAS that were accepted.
    pub logins: u64,
    /// Events the platform acknowledged.
    pub acknowledged: u64,
    /// Messages from the platform that were acknowledged and ignored.
    pub ignored: u64,
    /// Operations that were handed to the program.
    pub operations: u64,
    /// Operations that were refused: the program does not know them, or too many were under way.
    pub operations_refused: u64,
    /// Operations that waited for their turn until it was too late or the connection was lost.
    pub operations_dropped: u64,
}

impl Shared {
    pub(crate) fn new(profile: Profile, clock: Arc<dyn Clock>, operations: Arc<Operations>, limits: Limits) -> Self {
        Self {
            profile: Arc::new(profile),
            clock,
            dial: Arc::new(TcpDial),
            operations,
            attributes: Mutex::default(),
            outbox: Mutex::new(Outbox::new(limits)),
            wake: Notify::new(),
            state: watch::Sender::new(State::Authenticating),
            farewell: OnceLock::new(),
            stop: AtomicBool::new(false),
            count: Count::default(),
        }
    }

    /// The platform has set an attribute: its value is reported again (osap-wire 10.2).
    pub(crate) fn report_set(&self, path: &OperationPath, value: Box<str>) {
        let mut attributes = self.attributes.lock();
        // The platform wants to hear it also when the device had this value before.
        attributes.not_queued(path);
        let queued = match attributes.take(&self.profile.serial, path, value) {
            Ok(Some(message)) => self.queue(message),
            Ok(None) => true,
            // It was small enough to arrive.
            Err(_) => false,
        };
        if !queued {
            attributes.not_queued(path);
        }
    }

    /// A login under a new session key: everything is reported again, and then asked for.
    pub(crate) fn report_all(&self) {
        let due = self.attributes.lock().after_login(&self.profile.serial, self.operations.writable());
        // What finds no room is reported with its next change.
        for message in due {
            let _ = self.queue(message);
        }
    }

    fn queue(&self, message: Message) -> bool {
        let (token, _) = oneshot::channel();
        self.outbox.lock().push(message.topic, message.body, token).is_ok()
    }

    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Release);
        self.wake.notify_one();
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Acquire)
    }

    pub(crate) fn count(&self, of: impl FnOnce(&Count) -> &AtomicU64) {
        of(&self.count).fetch_add(1, Relaxed);
    }

    pub(crate) fn count_many(&self, of: impl FnOnce(&Count) -> &AtomicU64, number: usize) {
        of(&self.count).fetch_add(number as u64, Relaxed);
    }

    pub(crate) fn counters(&self) -> Counters {
        let count = &self.count;
        Counters {
            authentications: count.authentications.load(Relaxed),
            logins: count.logins.load(Relaxed),
            acknowledged: count.acknowledged.load(Relaxed),
            ignored: count.ignored.load(Relaxed),
            operations: count.operations.load(Relaxed),
            operations_refused: count.operations_refused.load(Relaxed),
            operations_dropped: count.operations_dropped.load(Relaxed),
        }
    }
}
