//! Sub-devices behind a hub (osap-wire 10.6): who they are, whether they are there, and the way to them.
//!
//! A hub may speak for the devices that the registry has as its children, and for no other (13.2.7). One becomes its
//! child by a proof of its code, or because somebody registered it so.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use osap::das::command::Command;
use osap::das::hub::{ChildAuth, ChildProof, ChildVerdict, Children as ChildList, MAX_CHILDREN, Online};
use osap::id::Serial;
use osap::key::Code;
use serde_json::json;
use vestibule_platform::{
    Connection, ConnectionId, Device, DeviceId, DeviceLink, Directive, NotSent, Operate, PassMessage, Platform,
    SetAttribute,
};

use super::link::OsapLink;
use super::uplink::send_pending;
use super::{Das, DasSession, Grant, SUITE, Speaker};
use crate::budget::Budget;
use crate::explain;

/// Proofs of one hub that are looked at at the same time: it proves all its children at once when it comes in, and one
/// that is dropped is not heard of again for half a minute.
const PROOFS: usize = MAX_CHILDREN;
const HOUR: i64 = 60 * 60 * 1_000;

/// How often a hub may fail to prove a device in an hour: codes are short, and each answer tells whether one was right
/// (13.2.3). It does not count for devices that are its children already, so that nobody loses what he has, nor for
/// serials that nobody has registered, which have no code.
pub(super) fn proof_budget() -> Budget<DeviceId> {
    Budget::new("hub_proofs", 20, HOUR)
}

/// A proof that is looked at; over when dropped.
struct Proving(Arc<AtomicUsize>);

impl Proving {
    fn begin(under_way: &Arc<AtomicUsize>) -> Option<Proving> {
        let proving = Proving(Arc::clone(under_way));
        // What is not handed out is dropped here, and takes its count back.
        (under_way.fetch_add(1, Ordering::AcqRel) < PROOFS).then_some(proving)
    }
}

impl Drop for Proving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The sub-devices that are there behind one connection.
#[derive(Default)]
pub(super) struct Children {
    here: BTreeMap<DeviceId, Child>,
    /// Proofs that are looked at. Few devices are hubs: the others own no memory for it.
    proofs: Option<Arc<AtomicUsize>>,
}

struct Child {
    speaker: Speaker,
    link: Arc<ChildLink>,
}

/// The platform's way to a sub-device. It is not the sub-device's to close: the hub's connection goes on.
struct ChildLink {
    line: Arc<OsapLink>,
    device: Arc<Device>,
    platform: Arc<Platform>,
    connection: OnceLock<ConnectionId>,
    /// Why it is over, once it is.
    over: OnceLock<&'static str>,
}

impl ChildLink {
    fn end(&self, reason: &'static str) {
        let reason = *self.over.get_or_init(|| reason);
        self.line.lost();
        if let Some(connection) = self.connection.get() {
            self.platform.disconnected(&self.device, *connection, reason);
        }
    }

    fn is_over(&self) -> bool {
        self.over.get().is_some()
    }
}

impl DeviceLink for ChildLink {
    fn close(&self, reason: &'static str) {
        self.end(reason);
    }

    fn operate(&self, operation: Operate<'_>) -> Result<(), NotSent> {
        self.line.operate(operation)
    }

    fn set(&self, set: SetAttribute<'_>) -> Result<(), NotSent> {
        self.line.set(set)
    }

    fn pass(&self, message: PassMessage<'_>) -> Result<(), NotSent> {
        self.line.pass(message)
    }

    fn direct(&self, directive: &Directive) -> Result<(), NotSent> {
        self.line.direct(directive)
    }
}

impl Das {
    /// Who speaks on a topic with this grant. Looked at anew for each message: a sub-device may have been removed,
    /// disabled or moved since its topic was judged.
    pub(super) fn speaker<'a>(
        &self,
        session: &'a mut DasSession,
        grant: &Grant,
    ) -> Result<&'a mut Speaker, &'static str> {
        match &grant.child {
            None => Ok(&mut session.own),
            // Registered anew since: the serial is what the topic names.
            Some(child) if child.is_removed() => {
                let child = self.child_by_serial(&session.own.device, &child.serial)?;
                self.child(session, &child)
            }
            Some(child) => self.child(session, child),
        }
    }

    /// The sub-device with this serial, if the hub may speak for it; it is there then.
    pub(super) fn child_by_serial(&self, hub: &Device, serial: &str) -> Result<Arc<Device>, &'static str> {
        let child = self.platform.device_by_serial(serial).filter(|child| may_speak_for(hub, child));
        child.ok_or("unknown_child")
    }

    fn child<'a>(&self, session: &'a mut DasSession, device: &Arc<Device>) -> Result<&'a mut Speaker, &'static str> {
        if !may_speak_for(&session.own.device, device) {
            return Err("unknown_child");
        }
        let DasSession { own, children, .. } = session;
        let here = &mut children.here;
        if here.get(&device.id).is_none_or(|child| child.link.is_over()) {
            here.retain(|_, child| !child.link.is_over());
            if here.len() >= MAX_CHILDREN {
                return Err("too_many_children");
            }
            here.insert(device.id, self.child_comes(own, device));
        }
        here.get_mut(&device.id).map(|child| &mut child.speaker).ok_or("unknown_child")
    }

    fn child_comes(&self, hub: &Speaker, device: &Arc<Device>) -> Child {
        let line = Arc::new(hub.line.to_child(Arc::clone(device)));
        let link = Arc::new(ChildLink {
            line: Arc::clone(&line),
            device: Arc::clone(device),
            platform: Arc::clone(&self.platform),
            connection: OnceLock::new(),
            over: OnceLock::new(),
        });
        let connection = self.platform.connected(
            device,
            Connection {
                suite: SUITE.as_str(),
                confidential: SUITE.is_confidential(),
                peer: line.peer(),
                link: Arc::clone(&link) as Arc<dyn DeviceLink>,
            },
        );
        // Closed before it had its number, by a removal in this moment: ended now.
        let _ = link.connection.set(connection);
        if let Some(reason) = link.over.get() {
            link.end(reason);
        }
        if line.uses_shadow() {
            // Its hub comes back by a light login, after which nobody asks.
            self.runtime.spawn(send_pending(Arc::clone(&self.platform), Arc::clone(device)));
        }
        self.platform.fact(device, explain::child_here(&hub.device.serial, hub.peer()));
        Child { speaker: Speaker { device: Arc::clone(device), line, connection: None, reporting: false }, link }
    }

    fn child_goes(&self, session: &mut DasSession, device: DeviceId, reason: &'static str) {
        if let Some(child) = session.children.here.remove(&device) {
            child.link.end(reason);
        }
    }

    /// The hub is gone, and with it everything behind it.
    pub(super) fn children_lost(&self, session: &mut DasSession) {
        for (_, child) in std::mem::take(&mut session.children.here) {
            child.link.end("hub_offline");
        }
    }

    /// A hub lists its children (command 1): who is on the list and connected is there, every other is not.
    pub(super) fn children_listed(&self, session: &mut DasSession, list: &ChildList<'_>) {
        let listed: HashMap<&str, bool> = match list {
            ChildList::Never => HashMap::new(),
            ChildList::Now(children) => children.iter().map(|child| (&*child.serial, child.connected)).collect(),
        };
        for child in self.platform.children(&session.own.device) {
            match listed.get(&*child.serial) {
                Some(true) => self.child_says(session, &child.serial, true),
                Some(false) | None => self.child_goes(session, child.id, "hub_says"),
            }
        }
        for serial in listed.keys() {
            if self.child_by_serial(&session.own.device, serial).is_err() {
                // Its hub has yet to prove that it knows it.
                self.dropped(&session.own, "unproven_child");
            }
        }
    }

    /// A hub tells which children it reaches (command 3).
    pub(super) fn children_online(&self, session: &mut DasSession, online: &Online<'_>) {
        for (serial, is_online) in &online.children {
            self.child_says(session, serial, *is_online);
        }
    }

    fn child_says(&self, session: &mut DasSession, serial: &str, online: bool) {
        let found = self.child_by_serial(&session.own.device, serial);
        let said = found.and_then(|child| match online {
            true => self.child(session, &child).map(drop),
            false => {
                self.child_goes(session, child.id, "hub_says");
                Ok(())
            }
        });
        if let Err(reason) = said {
            self.dropped(&session.own, reason);
        }
    }

    /// A hub proves that it knows the code of a child (command 16); it is answered when that is known, and durable.
    pub(super) fn child_proves(&self, session: &mut DasSession, seq: u64, auth: &ChildAuth<'_>) {
        let Some(proving) = Proving::begin(session.children.proofs.get_or_insert_default()) else {
            return self.dropped(&session.own, "too_many_proofs");
        };
        let Some(das) = self.this.upgrade() else { return };
        let hub = Arc::clone(&session.own.device);
        let (line, peer) = (Arc::clone(&session.own.line), session.own.peer());
        let (serial, proof) = (auth.serial.to_string(), auth.proof.clone());
        self.runtime.spawn(async move {
            let (platform, now) = (&das.platform, das.platform.clock().now_ms());
            let proves = |code: &vestibule_platform::Secret| {
                let expected = Code::new(code.expose()).ok().zip(Serial::new(&serial).ok());
                expected.is_some_and(|(code, serial)| ChildProof::new(&code, &serial) == proof)
            };
            let may_be_guessed = |child: Arc<Device>| child.parent() != Some(hub.id);
            let costs = platform.device_by_serial(&serial).is_some_and(may_be_guessed);
            let admitted = match !costs || das.proofs.take(&hub.id, now) {
                true => platform.admit_child(&hub, &serial, proves).await.map_err(|refused| refused.as_str()),
                false => Err("child_guessed"),
            };
            if let Err(reason) = admitted {
                platform.fact(&hub, explain::child_refused(reason, peer));
            }
            if costs && !matches!(admitted, Err("child_unproven" | "child_guessed")) {
                das.proofs.give_back(&hub.id, now);
            }
            // A hub forgets a child that it is told is none (10.6). So it is told nothing of one that an operator may let
            // in again, that the store could not be asked about, or that was not looked at: it asks again.
            if !matches!(admitted, Err("child_unavailable" | "child_disabled" | "child_guessed")) {
                let verdict = ChildVerdict { serial: serial.as_str().into(), accepted: admitted.is_ok() };
                let mut body = Vec::new();
                let written = verdict.write(&mut body).is_ok();
                if !written || line.command(Command::ChildVerdict, Some(seq), &body).is_err() {
                    tracing::debug!(hub = %hub.serial, "a hub is not told what became of its child");
                }
            }
            drop(proving);
        });
    }

    /// A message for a sub-device that the hub may not speak for.
    pub(super) fn foreign_child(&self, hub: &Arc<Device>, serial: &str) {
        self.platform.misdeed(hub, "hub.unknown_child", json!({"child": serial}));
    }

    /// Tells the sub-devices of an acknowledgement, which may be of a message to one of them.
    pub(super) fn children_delivered(session: &DasSession, packet_id: u16) {
        for child in session.children.here.values() {
            child.speaker.line.delivered(packet_id);
        }
    }
}

fn may_speak_for(hub: &Device, child: &Device) -> bool {
    child.parent() == Some(hub.id) && !child.is_disabled() && !child.is_removed()
}
