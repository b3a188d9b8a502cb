//! The platform's way to a live connection of a device (osap-wire 9.6 to 9.8, 10.1).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General};
use osap::das::pending::{Pending, Take};
use osap::das::service;
use osap::das::topic::{self, MAX_NAME, Topic, method};
use parking_lot::Mutex;
use vestibule_broker::codec::QoS;
use vestibule_broker::{Link, SendError};
use vestibule_platform::{Device, DeviceLink, DevicePath, NotSent, Operate, Reply};

use crate::key_state::KeyState;

/// Operations of one device under way at the same time.
const OPERATIONS: usize = 64;
/// The largest payload that a device of the newer library takes, with its topic (3.4).
const MAX_PACKET: usize = 16_000;
/// The version that downlinks on `/iot` topics carry; devices compare it nowhere (9.6).
const CMD_VER: &str = "v3.0.0";

/// One connection of one device.
pub(super) struct OsapLink {
    device: Arc<Device>,
    link: Arc<Link>,
    key: Arc<KeyState>,
    operations: Mutex<Operations>,
}

/// What was sent and not answered.
enum Operations {
    /// Nothing so far: most devices are asked nothing.
    None,
    Some(Box<Pending<Waiting>>),
    /// The connection is over.
    Closed,
}

/// An operation that waits for its answer.
pub(super) struct Waiting {
    path: DevicePath,
    reply: Reply,
}

impl Waiting {
    /// False: the answer is late.
    pub(super) fn answer(self, answer: vestibule_platform::Answer) -> bool {
        self.reply.answer(answer)
    }
}

impl OsapLink {
    pub(super) fn new(device: Arc<Device>, link: Arc<Link>, key: Arc<KeyState>) -> OsapLink {
        OsapLink { device, link, key, operations: Mutex::new(Operations::None) }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.link.peer()
    }

    /// A connection keeps the key it logged in with until it ends (9.2).
    pub(super) fn cipher(&self) -> SessionCipher {
        SessionCipher::new(self.key.key().clone())
    }

    /// The operation that a reply with this number belongs to, if it was this one.
    pub(super) fn take(&self, seq: u64, path: &DevicePath) -> Take<Waiting> {
        match &mut *self.operations.lock() {
            Operations::Some(pending) => {
                // First, so that what is late is known as such.
                drop(pending.expire(Instant::now()));
                pending.take(seq, |waiting| waiting.path == *path)
            }
            Operations::None | Operations::Closed => Take::Unknown,
        }
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
        pending.enter(seq, now + ttl, waiting).map_err(|_| NotSent::Busy)?;
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
        let topic = topic_of(&self.device.serial, operation.path)?;
        // A vendor's client knows no such member beside `data`, and is shown none.
        let ttl_ms = self.key.is_ours().then(|| u64::try_from(operation.ttl.as_millis()).unwrap_or(u64::MAX));
        let mut body = Vec::new();
        let written = service::Operate { input: operation.input, ttl_ms }.write(&mut body);
        written.map_err(|_| NotSent::TooLarge)?;
        let waiting = Waiting { path: operation.path.clone(), reply: operation.reply };
        let seq = self.enter(waiting, operation.ttl)?;
        // Entered first: the answer may be faster than we are.
        self.send(&topic, &General::request(seq, CMD_VER), &body).inspect_err(|_| self.withdraw(seq))
    }
}

/// Identifiers that are too long would damage the memory of a legacy device (9.7): they never leave.
fn topic_of(serial: &str, path: &DevicePath) -> Result<String, NotSent> {
    if path.area.len() > MAX_NAME || path.name.len() > MAX_NAME {
        return Err(NotSent::NotAddressable("an OSAP device takes areas and names of at most 31 bytes"));
    }
    let topic = Topic::Model {
        serial,
        sub: topic::GLOBAL,
        index: &path.index,
        resource: &path.resource,
        method: method::SERVICE,
        msg_type: "operate",
        area: &path.area,
        name: &path.name,
    };
    topic
        .encode()
        .map_err(|_| NotSent::NotAddressable("a level is too long or has characters that an OSAP topic cannot carry"))
}
