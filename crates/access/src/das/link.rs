//! The platform's way to a live connection of a device (osap-wire 9.6 to 9.8, 10.1).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General};
use osap::das::pending::{Pending, Take};
use osap::das::shadow::{self, State, Versioned};
use osap::das::topic::{self, MAX_NAME, Topic, method};
use osap::das::{attribute, service};
use parking_lot::Mutex;
use vestibule_broker::codec::QoS;
use vestibule_broker::{Link, SendError};
use vestibule_platform::{Answer, Device, DeviceLink, DevicePath, Leaf, NotSent, Operate, Reply, SetAttribute};

use crate::key_state::KeyState;

/// Operations of one device under way at the same time.
const OPERATIONS: usize = 64;
/// The largest payload that a device of the newer library takes, with its topic (3.4).
const MAX_PACKET: usize = 16_000;
/// How much longer than its caller a request is kept: who waits decides when it is too late, and given up here first it
/// would look like a lost connection.
const GRACE: Duration = Duration::from_secs(1);
/// The version that downlinks on `/iot` topics carry; devices compare it nowhere (9.6).
const CMD_VER: &str = "v3.0.0";

/// One connection of one device.
pub(super) struct OsapLink {
    device: Arc<Device>,
    link: Arc<Link>,
    key: Arc<KeyState>,
    operations: Mutex<Operations>,
    told: AtomicBool,
}

/// What was sent and not answered.
enum Operations {
    /// Nothing so far: most devices are asked nothing.
    None,
    Some(Box<Pending<Waiting>>),
    /// The connection is over.
    Closed,
}

/// A request that waits for its answer.
pub(super) struct Waiting {
    pub(super) kind: Kind,
    pub(super) path: DevicePath,
    reply: Reply,
}

/// Which answer a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The reply to an operation.
    Operate,
    /// The reply to a value set through the model.
    Set,
    /// The reply to a value set through the shadow. It does not say of which attribute it speaks.
    Shadow,
}

impl Waiting {
    /// False: the answer is late.
    pub(super) fn answer(self, answer: Answer) -> bool {
        self.reply.answer(answer)
    }
}

impl OsapLink {
    pub(super) fn new(device: Arc<Device>, link: Arc<Link>, key: Arc<KeyState>) -> OsapLink {
        OsapLink { device, link, key, operations: Mutex::new(Operations::None), told: AtomicBool::new(false) }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.link.peer()
    }

    /// A connection keeps the key it logged in with until it ends (9.2).
    pub(super) fn cipher(&self) -> SessionCipher {
        SessionCipher::new(self.key.key().clone())
    }

    /// The request that a reply with this number belongs to, if it fits.
    pub(super) fn take(&self, seq: u64, fits: impl FnOnce(&Waiting) -> bool) -> Take<Waiting> {
        match &mut *self.operations.lock() {
            Operations::Some(pending) => {
                // First, so that what is late is known as such.
                drop(pending.expire(Instant::now()));
                pending.take(seq, fits)
            }
            Operations::None | Operations::Closed => Take::Unknown,
        }
    }

    /// Whether the device has to be told of what is pending now: one that reports through the model does not ask. True
    /// once for each connection.
    pub(super) fn is_to_be_told(&self) -> bool {
        !self.key.uses_shadow() && !self.told.swap(true, Ordering::Relaxed)
    }

    /// Answers a query for what is desired of one part of the device, as far as it fits into `window` bytes.
    pub(super) fn answer_query(
        &self,
        seq: u64,
        place: (&str, &str),
        desired: &[Leaf],
        window: usize,
    ) -> Result<(), NotSent> {
        let (resource, index) = place;
        let mut states = Vec::new();
        let mut room = window.min(MAX_PACKET).saturating_sub(512);
        for leaf in desired.iter().filter(|leaf| &*leaf.path.resource == resource && &*leaf.path.index == index) {
            let Some(wish) = &leaf.desired else { continue };
            let (area, name, value) = (&leaf.path.area, &leaf.path.name, wish.value.get());
            let cost = area.len() + name.len() + value.len() + 64;
            if area.len() > MAX_NAME || name.len() > MAX_NAME || cost > room {
                continue;
            }
            room -= cost;
            states.push(State { area: area.to_string(), name: name.to_string(), value });
        }
        let mut body = Vec::new();
        shadow::write_query_reply(&states, &mut body).map_err(|_| NotSent::TooLarge)?;
        let topic = self.shadow_topic(resource, index, "query_reply")?;
        self.send(&topic, &General::response(seq, CMD_VER), &body)
    }

    fn shadow_topic(&self, resource: &str, index: &str, msg_type: &str) -> Result<String, NotSent> {
        let (serial, sub) = (&*self.device.serial, topic::GLOBAL);
        let (module, method) = (shadow::MODULE, shadow::METHOD);
        Topic::Module { serial, sub, index, resource, module, method, msg_type }.encode().map_err(|_| UNADDRESSABLE)
    }

    /// Sends a request that is answered.
    fn request(&self, waiting: Waiting, ttl: Duration, topic: &str, body: &[u8]) -> Result<(), NotSent> {
        let seq = self.enter(waiting, ttl)?;
        // Entered first: the answer may be faster than we are.
        self.send(topic, &General::request(seq, CMD_VER), body).inspect_err(|_| self.withdraw(seq))
    }

    /// The connection is over: nobody can know what became of what was not answered.
    pub(super) fn lost(&self) {
        let operations = std::mem::replace(&mut *self.operations.lock(), Operations::Closed);
        // Not under the lock: whoever waits is woken.
        drop(operations);
    }

    fn enter(&self, waiting: Waiting, ttl: Duration) -> Result<u64, NotSent> {
        let now = Instant::now();
        let mut operations = self.operations.lock();
        if let Operations::None = *operations {
            *operations = Operations::Some(Box::new(Pending::new(OPERATIONS)));
        }
        let Operations::Some(pending) = &mut *operations else { return Err(NotSent::Ending) };
        drop(pending.expire(now));
        let seq = self.key.next_seq();
        pending.enter(seq, now + ttl + GRACE, waiting).map_err(|_| NotSent::Busy)?;
        Ok(seq)
    }

    fn withdraw(&self, seq: u64) {
        if let Operations::Some(pending) = &mut *self.operations.lock() {
            drop(pending.withdraw(seq));
        }
    }

    /// Seals a message straight into the connection's out buffer.
    fn send(&self, topic: &str, general: &General<'_>, application: &[u8]) -> Result<(), NotSent> {
        let len = envelope::sealed_len(general, application.len());
        if topic.len() + len > MAX_PACKET {
            return Err(NotSent::TooLarge);
        }
        let cipher = self.cipher();
        let seal = |out: &mut Vec<u8>| {
            envelope::seal(&cipher, general, application, out).expect("three short members");
        };
        match self.link.publish(topic, QoS::AtLeastOnce, len, seal) {
            Ok(_) => Ok(()),
            Err(SendError::Ending) => Err(NotSent::Ending),
            Err(SendError::TooLarge) => Err(NotSent::TooLarge),
            Err(_) => Err(NotSent::Busy),
        }
    }
}

impl DeviceLink for OsapLink {
    fn close(&self, reason: &'static str) {
        self.link.close(reason);
    }

    fn operate(&self, operation: Operate<'_>) -> Result<(), NotSent> {
        let topic = topic_of(&self.device.serial, operation.path, method::SERVICE, "operate")?;
        // A vendor's client knows no such member beside `data`, and is shown none.
        let ttl_ms = self.key.is_ours().then(|| u64::try_from(operation.ttl.as_millis()).unwrap_or(u64::MAX));
        let mut body = Vec::new();
        let written = service::Operate { input: operation.input, ttl_ms }.write(&mut body);
        written.map_err(|_| NotSent::TooLarge)?;
        let waiting = Waiting { kind: Kind::Operate, path: operation.path.clone(), reply: operation.reply };
        self.request(waiting, operation.ttl, &topic, &body)
    }

    fn set(&self, set: SetAttribute<'_>) -> Result<(), NotSent> {
        let mut topic = topic_of(&self.device.serial, set.path, method::ATTRIBUTE, "set")?;
        let (mut kind, mut body) = (Kind::Set, Vec::new());
        let written = if self.key.uses_shadow() {
            kind = Kind::Shadow;
            topic = self.shadow_topic(&set.path.resource, &set.path.index, "set")?;
            let (area, name) = (set.path.area.to_string(), set.path.name.to_string());
            let state = State { area, name, value: set.value };
            shadow::write_set(&Versioned { state, version: set.version }, &mut body)
        } else {
            attribute::write_report(set.value, &mut body)
        };
        written.map_err(|_| NotSent::TooLarge)?;
        self.request(Waiting { kind, path: set.path.clone(), reply: set.reply }, set.ttl, &topic, &body)
    }
}

const UNADDRESSABLE: NotSent =
    NotSent::NotAddressable("a level is too long or has characters that an OSAP topic cannot carry");

/// Identifiers that are too long would damage the memory of a legacy device (9.7): they never leave.
fn topic_of(serial: &str, path: &DevicePath, method: &str, msg_type: &str) -> Result<String, NotSent> {
    if path.area.len() > MAX_NAME || path.name.len() > MAX_NAME {
        return Err(NotSent::NotAddressable("an OSAP device takes areas and names of at most 31 bytes"));
    }
    let DevicePath { resource, index, area, name } = path;
    let topic = Topic::Model { serial, sub: topic::GLOBAL, index, resource, method, msg_type, area, name };
    topic.encode().map_err(|_| UNADDRESSABLE)
}
