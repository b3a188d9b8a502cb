//! Sub-devices behind a hub (osap-wire 10.6): who they are, whether they are there, and the way to them.
//!
//! A hub may speak for the devices that the registry has as its children, and for no other (13.2.7). One becomes its
//! child by a proof of its code, or because somebody registered it so.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use osap::das::command::Command;
use osap::das::hub::{ChildAuth, ChildProof, ChildVerdict, Children as ChildList, MAX_CHILDREN, Online};
use osap::id::Serial;
use osap::key::Code;
use serde_json::json;
use tokio::time::Instant;
use vestibule_platform::{
    ChildRefused, Connection, ConnectionId, Device, DeviceId, DeviceLink, Directive, NotSent, Operate, PassMessage,
    Platform, Secret, SetAttribute,
};

use super::link::OsapLink;
use super::uplink::send_pending;
use super::{Das, DasSession, Grant, Speaker};
use crate::explain;

/// Proofs of one hub that are looked at or answered at the same time: it proves all its children at once when it comes in,
/// and one that is dropped is not heard of again for half a minute.
const PROOFS: usize = 2 * MAX_CHILDREN;

/// How often it is tried to tell a hub what became of a child, a [`REFUSAL_PACE`] apart.
const TELLING: usize = 100;

/// A proof is refused no sooner than this after it came, as a code is at the LBS: what is read of a known serial from the
/// disk, and not of an unknown one, does not show (13.2.3).
const REFUSAL_PACE: Duration = Duration::from_millis(25);

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
                suite: line.suite().as_str(),
                confidential: line.suite().is_confidential(),
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
            let came = Instant::now();
            let accepted = das.judge_proof(&hub, &serial, &proof, peer).await;
            if accepted == Some(false) {
                tokio::time::sleep_until(came + REFUSAL_PACE).await;
            }
            if let Some(accepted) = accepted {
                tell_verdict(&line, seq, &ChildVerdict { serial: serial.as_str().into(), accepted }).await;
            }
            drop(proving);
        });
    }

    /// What a hub is told of a proof; `None` when it is told nothing.
    ///
    /// A serial that nobody has registered, a wrong code, a device that is disabled and one that is in another place get the
    /// same answer, after the same time and at the same cost, and none of them gets one once the hub has failed too often
    /// ([`Proofs`](super::proofs::Proofs)) or while the store is down (13.2.3). A hub forgets a child that it is told is
    /// none (10.6): so it is told nothing either of one that is its own and disabled, which an operator may let in again.
    async fn judge_proof(
        &self,
        hub: &Arc<Device>,
        serial: &str,
        proof: &ChildProof,
        peer: Option<IpAddr>,
    ) -> Option<bool> {
        let platform = &self.platform;
        let device = platform.device_by_serial(serial);
        let told = |result: &'static str, accepted| {
            metrics::counter!("vestibule_hub_proofs_total", "result" => result).increment(1);
            if accepted != Some(true) {
                platform.fact(hub, explain::child_refused(result, peer));
            }
            accepted
        };
        let Some(attempt) = self.proofs.begin(hub, serial, device.as_deref(), platform.clock().steady_ms()) else {
            return told("child_guessed", None);
        };
        let is_own = device.is_some_and(|device| device.parent() == Some(hub.id));
        let proves = |code: &Secret| {
            let expected = Code::new(code.expose()).ok().zip(Serial::new(serial).ok());
            expected.is_some_and(|(code, serial)| ChildProof::new(&code, &serial) == *proof)
        };
        let refused = match platform.admit_child(hub, serial, proves).await {
            Ok(_) => return told("ok", Some(true)),
            Err(refused) => refused,
        };
        match refused {
            ChildRefused::Store(_) => told(refused.as_str(), None),
            ChildRefused::Disabled if is_own => told(refused.as_str(), None),
            // What was not read now did not show that the store is down.
            _ if !platform.store_answers().await => told("child_unavailable", None),
            _ => {
                attempt.failed();
                told(refused.as_str(), Some(false))
            }
        }
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

    /// The hub has everything up to this number; some of it was for its children.
    pub(super) fn children_received(session: &DasSession, number: u64) {
        for child in session.children.here.values() {
            child.speaker.line.received(number);
        }
    }
}

/// Tells a hub what became of its child. One that proves all of them at once has more answers to come than it may have
/// unacknowledged messages: they wait for each other, or it would hear of the rest when it asks again.
async fn tell_verdict(line: &OsapLink, seq: u64, verdict: &ChildVerdict<'_>) {
    let mut body = Vec::new();
    if verdict.write(&mut body).is_err() {
        return;
    }
    for _ in 0..TELLING {
        match line.command(Command::ChildVerdict, Some(seq), &body) {
            Err(NotSent::Busy) => tokio::time::sleep(REFUSAL_PACE).await,
            _ => return,
        }
    }
    metrics::counter!("vestibule_hub_verdicts_lost_total").increment(1);
}

fn may_speak_for(hub: &Device, child: &Device) -> bool {
    child.parent() == Some(hub.id) && !child.is_disabled() && !child.is_removed()
}
