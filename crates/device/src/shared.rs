//! What the handle and the task of a device share.

use std::collections::BTreeSet;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use osap::das::topic::GLOBAL;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::attribute::{self, Attributes, Message};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::dial::{Dial, TcpDial};
use crate::event::ReportError;
use crate::firmware::Firmware;
use crate::hub::Hub;
use crate::modern::Web;
use crate::operation::{OperationPath, Operations};
use crate::outbox::{DEVICE, Lane, Limits, Outbox};
use crate::profile::Profile;
use crate::query::Place;
use crate::state::{LinkFault, State};
use crate::steering::{Hooks, Steering};

/// What belongs to a message in the outbox.
#[derive(Debug)]
pub(crate) enum Token {
    /// Resolves the report that waits for the acknowledgement.
    Waiting(oneshot::Sender<()>),
    /// An event of the cache: the sub-device it is from, and its number.
    Cached { sub: Arc<str>, seq: u64 },
    /// The report of what the cache has dropped.
    Losses,
}

pub(crate) struct Shared {
    pub profile: Arc<Profile>,
    pub clock: Arc<dyn Clock>,
    pub dial: Arc<dyn Dial>,
    pub operations: Arc<Operations>,
    pub hooks: Hooks,
    /// Whom to believe where pictures go, of a device that speaks TLS.
    pub web: Option<Box<Web>>,
    /// Of a device that says what firmware it has.
    pub firmware: Option<Box<Firmware>>,
    pub steering: Mutex<Steering>,
    /// Never locked while the hub or the outbox is.
    pub attributes: Mutex<Attributes>,
    /// The children, of a device that is a hub. Never locked while the outbox is.
    pub hub: Mutex<Option<Box<Hub>>>,
    /// Held for the time of one call, never over an await.
    pub outbox: Mutex<Outbox<Token>>,
    /// Where events outlive the program, if they do. Its ledger is locked after the hub and before the outbox.
    pub cache: Option<Box<Cache>>,
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
    pub passed: AtomicU64,
    pub forbidden: AtomicU64,
    pub upgrades: AtomicU64,
    pub upgrades_refused: AtomicU64,
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
    /// Pass-through messages that were handed to the program.
    pub passed: u64,
    /// Commands that were not sent, because the platform forbade it.
    pub forbidden: u64,
    /// Upgrades that were handed to the program.
    pub upgrades: u64,
    /// Upgrades that were refused: the program takes none, one was under way, or the order was wrong.
    pub upgrades_refused: u64,
    /// Events that were written to the cache.
    pub cached: u64,
    /// Events that were dropped from the cache, because it was full, they were too old or could not be read.
    pub dropped: u64,
    /// Events that were taken out of the cache because their child was refused or taken away.
    pub given_up: u64,
    /// Times that the cache could not be written or read.
    pub cache_failures: u64,
    /// Bytes in the cache that were no records: what a loss of power cut short, or a medium that forgets.
    pub cache_damaged_bytes: u64,
}

impl Shared {
    pub(crate) fn new(profile: Profile, clock: Arc<dyn Clock>, operations: Arc<Operations>, limits: Limits) -> Self {
        Self {
            profile: Arc::new(profile),
            clock,
            dial: Arc::new(TcpDial),
            operations,
            hooks: Hooks::default(),
            web: None,
            firmware: None,
            steering: Mutex::default(),
            attributes: Mutex::default(),
            hub: Mutex::default(),
            outbox: Mutex::new(Outbox::new(limits)),
            cache: None,
            wake: Notify::new(),
            state: watch::Sender::new(State::Authenticating),
            farewell: OnceLock::new(),
            stop: AtomicBool::new(false),
            count: Count::default(),
        }
    }

    /// What the program can do for the device itself, or for a child.
    pub(crate) fn operations_of(&self, sub: &str) -> Option<Arc<Operations>> {
        if sub == GLOBAL {
            return Some(Arc::clone(&self.operations));
        }
        let hub = self.hub.lock();
        hub.as_ref()?.child(sub).map(|child| Arc::clone(&child.operations))
    }

    /// Puts a message into the lane of the device or of a child. The hub stays locked meanwhile: a child that is taken
    /// away leaves nothing behind in a lane that another child gets.
    fn push(&self, sub: &str, message: Message, token: Token) -> Result<(), ReportError> {
        let hub;
        let lane = if sub == GLOBAL {
            DEVICE
        } else {
            hub = self.hub.lock();
            let child = hub.as_ref().and_then(|hub| hub.child(sub));
            child.filter(|child| child.is_wanted()).ok_or(ReportError::NoChild)?.lane
        };
        Ok(self.outbox.lock().push(lane, message.topic, message.body, token)?)
    }

    /// The platform has set an attribute: its value is reported again (osap-wire 10.2).
    pub(crate) fn report_set(&self, path: &OperationPath, value: Box<str>) {
        if self.operations_of(&path.sub).is_none() {
            return;
        }
        let mut attributes = self.attributes.lock();
        // The platform wants to hear it also when the device had this value before.
        attributes.not_queued(path);
        let queued = match attributes.take(&self.profile.serial, path, value) {
            Ok(Some(message)) => self.queue(&path.sub, message),
            Ok(None) => true,
            // It was small enough to arrive.
            Err(_) => false,
        };
        if !queued {
            attributes.not_queued(path);
        }
    }

    /// A login under a new session key, or a child that is accepted: everything is reported again, and then asked for.
    pub(crate) fn report_all(&self, now: Instant, sub: &str) {
        let Some(operations) = self.operations_of(sub) else { return };
        let serial = &self.profile.serial;
        let mut attributes = self.attributes.lock();
        let mut due = attributes.all(serial, sub);
        attributes.queries.forget(sub);
        let places: BTreeSet<Place> = operations.writable().map(Place::of).collect();
        for place in places {
            due.extend(attribute::query(serial, &place));
            attributes.queries.asked(now, place);
        }
        drop(attributes);
        // What finds no room is reported with its next change.
        for message in due {
            let _ = self.queue(sub, message);
        }
    }

    /// Asks again what was not answered.
    pub(crate) fn ask_again(&self, now: Instant) {
        let due = self.attributes.lock().queries.due(now);
        for place in due {
            if let Some(message) = attribute::query(&self.profile.serial, &place) {
                let _ = self.queue(&place.sub, message);
            }
        }
    }

    pub(crate) fn queue(&self, sub: &str, message: Message) -> bool {
        let (token, _) = oneshot::channel();
        self.push(sub, message, Token::Waiting(token)).is_ok()
    }

    /// Queues what the program reports and gives what resolves with the acknowledgement.
    pub(crate) fn enqueue(&self, sub: &str, message: Message) -> Result<oneshot::Receiver<()>, ReportError> {
        let (token, acknowledged) = oneshot::channel();
        self.push(sub, message, Token::Waiting(token))?;
        self.wake.notify_one();
        Ok(acknowledged)
    }

    /// As [`enqueue`](Self::enqueue) for the end of an upgrade of the device, which has places of its own.
    pub(crate) fn enqueue_end(&self, Message { topic, body }: Message) -> Result<oneshot::Receiver<()>, ReportError> {
        let (token, acknowledged) = oneshot::channel();
        self.outbox.lock().push_reserved(topic, body, Token::Waiting(token))?;
        self.wake.notify_one();
        Ok(acknowledged)
    }

    /// Waits for an acknowledgement.
    pub(crate) async fn outcome(&self, acknowledged: oneshot::Receiver<()>) -> Result<(), ReportError> {
        acknowledged.await.map_err(|_| match self.outbox.lock().is_closed() {
            true => ReportError::Stopped,
            // Only what a child reported is dropped while the device runs.
            false => ReportError::NoChild,
        })
    }

    /// A message in the outbox is acknowledged.
    pub(crate) fn handle_acknowledged(&self, token: Token) {
        match (token, &self.cache) {
            // Nobody may be waiting any more; the event is stored all the same.
            (Token::Waiting(report), _) => _ = report.send(()),
            (Token::Cached { sub, seq }, Some(cache)) => cache.acknowledge(&sub, seq),
            (Token::Losses, Some(cache)) => cache.acknowledge_losses(),
            (Token::Cached { .. } | Token::Losses, None) => {}
        }
        if let Some(firmware) = &self.firmware {
            firmware.handle_room(self);
        }
        if let Some(cache) = &self.cache {
            cache.handle_room();
        }
    }

    /// Nothing of a child is sent any more.
    pub(crate) fn give_up(&self, serial: &str, lane: Lane) {
        self.outbox.lock().drop_lane(lane);
        if let Some(cache) = &self.cache {
            cache.give_up(serial);
        }
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
        let cache = self.cache.as_ref().map(|cache| cache.counts()).unwrap_or_default();
        Counters {
            authentications: count.authentications.load(Relaxed),
            logins: count.logins.load(Relaxed),
            acknowledged: count.acknowledged.load(Relaxed),
            ignored: count.ignored.load(Relaxed),
            operations: count.operations.load(Relaxed),
            operations_refused: count.operations_refused.load(Relaxed),
            operations_dropped: count.operations_dropped.load(Relaxed),
            passed: count.passed.load(Relaxed),
            forbidden: count.forbidden.load(Relaxed),
            upgrades: count.upgrades.load(Relaxed),
            upgrades_refused: count.upgrades_refused.load(Relaxed),
            cached: cache.cached,
            dropped: cache.dropped,
            given_up: cache.given_up,
            cache_failures: cache.failures,
            cache_damaged_bytes: cache.damaged_bytes,
        }
    }
}
