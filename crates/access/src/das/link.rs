//! The platform's way to a live connection of a device (osap-wire 9.6 to 9.8, 10.1).

mod delivery;
mod requests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use osap::Serial;
use osap::das::access::{KeepAlive, Redirect, RiskList};
use osap::das::command::Command;
use osap::das::envelope::General;
use osap::das::shadow::{self, State, Versioned};
use osap::das::topic::{self, MAX_NAME, Topic, method};
use osap::das::{attribute, service, storage};
use osap::modern::login;
use osap::modern::receipt::Receipt;
use osap::suite::Suite;
use parking_lot::Mutex;
use vestibule_broker::codec::QoS;
use vestibule_broker::{Link, SendError};
use vestibule_platform::{
    Device, DeviceLink, DevicePath, Directive, Leaf, NotSent, Operate, PassMessage, SetAttribute,
};

pub(super) use self::requests::{Kind, Waiting};

use self::requests::Operations;
use super::grant::Place;
use super::own::OwnOperation;
use super::receipts::Receipts;
use super::sealing::Sealing;
use crate::key_state::KeyState;

/// The largest payload that a device of the newer library takes, with its topic (3.4).
const MAX_PACKET: usize = 16_000;
/// The version that downlinks on `/iot` topics carry; devices compare it nowhere (9.6).
const CMD_VER: &str = "v3.0.0";

/// The way to one device over a connection: its own, or that of the hub it is behind.
pub(super) struct OsapLink {
    device: Arc<Device>,
    /// The serial of the hub, when it is one's connection.
    hub: Option<Arc<str>>,
    link: Arc<Link>,
    key: Arc<KeyState>,
    sealing: Arc<Sealing>,
    /// Of a session over plain TCP.
    receipts: OnceLock<Weak<Receipts>>,
    operations: Mutex<Operations>,
    told: AtomicBool,
}

/// What a message went out as.
struct Sent {
    packet_id: Option<u16>,
    /// What it was sealed under, in a modern suite.
    number: Option<u64>,
}

impl OsapLink {
    pub(super) fn new(device: Arc<Device>, link: Arc<Link>, key: Arc<KeyState>, sealing: Arc<Sealing>) -> OsapLink {
        OsapLink {
            device,
            hub: None,
            link,
            key,
            sealing,
            receipts: OnceLock::new(),
            operations: Mutex::new(Operations::None),
            told: AtomicBool::new(false),
        }
    }

    /// The way to a sub-device over this connection of its hub.
    pub(super) fn to_child(&self, child: Arc<Device>) -> OsapLink {
        let hub = Some(Arc::clone(&self.device.serial));
        let (link, key, sealing) = (Arc::clone(&self.link), Arc::clone(&self.key), Arc::clone(&self.sealing));
        OsapLink { hub, ..OsapLink::new(child, link, key, sealing) }
    }

    /// The serial that topics name first, and the sub-device after it.
    fn names(&self) -> (&str, &str) {
        match &self.hub {
            Some(hub) => (hub, &self.device.serial),
            None => (&self.device.serial, topic::GLOBAL),
        }
    }

    /// The device has spoken of its state through the shadow (10.2): that is where it is told of it from now on.
    pub(super) fn set_shadow(&self) {
        match self.hub {
            Some(_) => self.key.set_shadow_of(self.device.id),
            None => self.key.set_shadow(),
        }
    }

    pub(super) fn uses_shadow(&self) -> bool {
        match self.hub {
            Some(_) => self.key.uses_shadow_of(self.device.id),
            None => self.key.uses_shadow(),
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.link.peer()
    }

    /// The suite of the connection.
    pub(super) fn suite(&self) -> Suite {
        self.sealing.suite()
    }

    /// How the messages of the connection are sealed.
    pub(super) fn sealing(&self) -> &Sealing {
        &self.sealing
    }

    /// Whether the device has to be told of what is pending now: one that reports through the model does not ask. True
    /// once for each connection.
    pub(super) fn is_to_be_told(&self) -> bool {
        !self.uses_shadow() && !self.told.swap(true, Ordering::Relaxed)
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
        self.send(&topic, &General::response(seq, CMD_VER), &body).map(drop)
    }

    fn shadow_topic(&self, resource: &str, index: &str, msg_type: &str) -> Result<String, NotSent> {
        let (serial, sub) = self.names();
        let (module, method) = (shadow::MODULE, shadow::METHOD);
        Topic::Module { serial, sub, index, resource, module, method, msg_type }.encode().map_err(|_| UNADDRESSABLE)
    }

    /// Answers a request that came on a topic of the model.
    pub(super) fn answer_model(
        &self,
        seq: u64,
        path: &DevicePath,
        reply: (&str, &str),
        body: &[u8],
    ) -> Result<(), NotSent> {
        let (method, msg_type) = reply;
        let topic = self.model_topic(path, method, msg_type)?;
        self.send(&topic, &General::response(seq, CMD_VER), body).map(drop)
    }

    /// Answers a question for storage (10.7).
    pub(super) fn answer_storage(&self, seq: u64, place: &Place, method: &str, body: &[u8]) -> Result<(), NotSent> {
        let (serial, sub) = self.names();
        let (resource, index, module) = (&*place.resource, &*place.index, storage::MODULE);
        let topic = Topic::Module { serial, sub, index, resource, module, method, msg_type: "query_reply" };
        let topic = topic.encode().map_err(|_| UNADDRESSABLE)?;
        self.send(&topic, &General::response(seq, CMD_VER), body).map(drop)
    }

    /// Sends a command of the older form (9.7): the answer to the request with this number, or a request of our own.
    pub(super) fn command(&self, command: Command, answered: Option<u64>, body: &[u8]) -> Result<Option<u16>, NotSent> {
        let topic = command.downlink(self.names().0).encode().map_err(|_| UNADDRESSABLE)?;
        let general = match answered {
            Some(seq) => General::response(seq, command.version()),
            None => General::request(self.key.next_seq(), command.version()),
        };
        self.send(&topic, &general, body).map(|sent| sent.packet_id)
    }

    /// These are the receipts of the connection.
    pub(super) fn set_receipts(&self, receipts: &Arc<Receipts>) {
        let _ = self.receipts.set(Arc::downgrade(receipts));
    }

    /// Says what is durable here, over plain TCP (13.3).
    pub(super) fn tell_receipt(&self, receipt: Receipt) {
        let Ok(serial) = Serial::new(&self.device.serial) else { return };
        let (topic, body) = (login::topic(&serial, "receipt"), receipt.encode());
        let general = General::request(self.key.next_seq(), CMD_VER);
        let len = self.sealing.sealed_len(&general, body.len());
        let seal = |out: &mut Vec<u8>| {
            self.sealing.seal(&topic, &general, &body, out);
        };
        // One that finds no room is followed by another.
        let _ = self.link.publish(&topic, QoS::AtMostOnce, len, seal);
    }

    /// Ends the connection; `reason` is a short code.
    pub(super) fn end(&self, reason: &'static str) {
        self.link.close(reason);
    }

    fn operate_own(&self, own: OwnOperation, operation: Operate<'_>) -> Result<(), NotSent> {
        let body = own.body(operation.input)?;
        let topic = own.topic(&self.device.serial).encode().map_err(|_| UNADDRESSABLE)?;
        let version = if own == OwnOperation::Upgrade { CMD_VER } else { Command::Challenge.version() };
        let (kind, path) = (Kind::Own(own), operation.path.clone());
        let waiting = Waiting { kind, path, input: operation.input.map(Into::into), reply: operation.reply };
        self.request(waiting, operation.ttl, &topic, version, &body)
    }

    /// Seals a message straight into the connection's out buffer.
    fn send(&self, topic: &str, general: &General<'_>, application: &[u8]) -> Result<Sent, NotSent> {
        let len = self.sealing.sealed_len(general, application.len());
        if topic.len() + len > MAX_PACKET {
            return Err(NotSent::TooLarge);
        }
        if self.sealing.is_exhausted() {
            self.link.close("renew");
            return Err(NotSent::Ending);
        }
        let mut number = None;
        let seal = |out: &mut Vec<u8>| number = self.sealing.seal(topic, general, application, out);
        match self.link.publish(topic, QoS::AtLeastOnce, len, seal) {
            Ok(packet_id) => Ok(Sent { packet_id, number }),
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
        if self.hub.is_none()
            && let Some(own) = OwnOperation::of(operation.path)
        {
            return self.operate_own(own, operation);
        }
        let topic = self.model_topic(operation.path, method::SERVICE, "operate")?;
        // A vendor's client knows no such member beside `data`, and is shown none.
        let ttl_ms = self.key.is_ours().then(|| u64::try_from(operation.ttl.as_millis()).unwrap_or(u64::MAX));
        let mut body = Vec::new();
        let written = service::Operate { input: operation.input, ttl_ms }.write(&mut body);
        written.map_err(|_| NotSent::TooLarge)?;
        let (kind, path) = (Kind::Operate, operation.path.clone());
        let waiting = Waiting { kind, path, input: None, reply: operation.reply };
        self.request(waiting, operation.ttl, &topic, CMD_VER, &body)
    }

    fn set(&self, set: SetAttribute<'_>) -> Result<(), NotSent> {
        let mut topic = self.model_topic(set.path, method::ATTRIBUTE, "set")?;
        let (mut kind, mut body) = (Kind::Set, Vec::new());
        let written = if self.uses_shadow() {
            kind = Kind::Shadow;
            topic = self.shadow_topic(&set.path.resource, &set.path.index, "set")?;
            let (area, name) = (set.path.area.to_string(), set.path.name.to_string());
            let state = State { area, name, value: set.value };
            shadow::write_set(&Versioned { state, version: set.version }, &mut body)
        } else {
            attribute::write_report(set.value, &mut body)
        };
        written.map_err(|_| NotSent::TooLarge)?;
        let waiting = Waiting { kind, path: set.path.clone(), input: None, reply: set.reply };
        self.request(waiting, set.ttl, &topic, CMD_VER, &body)
    }

    fn pass(&self, message: PassMessage<'_>) -> Result<(), NotSent> {
        self.deliver(message)
    }

    fn direct(&self, directive: &Directive) -> Result<(), NotSent> {
        if self.hub.is_some() {
            return Err(NotSent::Unsupported);
        }
        let mut body = Vec::new();
        match directive {
            Directive::Redirect { host } => {
                Redirect { host: host.clone() }.write(&mut body).map_err(|_| NotSent::Unsupported)?;
                self.command(Command::Redirect, None, &body)?;
            }
            Directive::KeepAlive { seconds } => {
                KeepAlive { interval_s: *seconds }.write(&mut body).map_err(|_| NotSent::Unsupported)?;
                let packet_id = self.command(Command::KeepAlive, None, &body)?;
                self.link.tell_keep_alive(*seconds, packet_id);
                if let Some(receipts) = self.receipts.get().and_then(Weak::upgrade) {
                    receipts.told(*seconds);
                }
            }
            Directive::Silence { commands } => {
                let list = RiskList { domains: commands.clone() };
                list.write(&mut body).map_err(|_| NotSent::Unsupported)?;
                self.command(Command::RiskList, None, &body)?;
            }
            Directive::ForceOffline => {
                if let Err(error) = self.command(Command::ForcedOffline, None, b"{}") {
                    // It goes all the same, and comes back.
                    tracing::debug!(serial = %self.device.serial, %error, "a device is not told to stay away");
                }
                // The device itself keeps the socket open (10.5).
                self.link.close("forced_offline");
            }
            _ => return Err(NotSent::Unsupported),
        }
        Ok(())
    }
}

const UNADDRESSABLE: NotSent =
    NotSent::NotAddressable("a level is too long or has characters that an OSAP topic cannot carry");

impl OsapLink {
    /// Identifiers that are too long would damage the memory of a legacy device (9.7): they never leave.
    fn model_topic(&self, path: &DevicePath, method: &str, msg_type: &str) -> Result<String, NotSent> {
        if path.area.len() > MAX_NAME || path.name.len() > MAX_NAME {
            return Err(NotSent::NotAddressable("an OSAP device takes areas and names of at most 31 bytes"));
        }
        let DevicePath { resource, index, area, name } = path;
        let (serial, sub) = self.names();
        let topic = Topic::Model { serial, sub, index, resource, method, msg_type, area, name };
        topic.encode().map_err(|_| UNADDRESSABLE)
    }
}
