//! The children of a hub, without socket and clock (osap-wire 10.6).
//!
//! A child is authenticated after each login, and the platform hears nothing of it before it is accepted. Which children
//! there are is told after a login, once the platform has judged all of them, and then whenever it changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::das::command::Command;
use osap::das::hub::{self, AccessMode, ChildAuth, ChildProof, Children, MAX_CHILDREN, Online};
use tokio::sync::watch;

use crate::child::{ChildError, ChildState};
use crate::link::Note;
use crate::operation::Operations;
use crate::outbox::Lane;

/// How long a verdict is waited for before it is asked for again. Nothing else acknowledges the question.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the list waits after a login for the verdicts.
const SETTLE: Duration = Duration::from_secs(6);

/// The children of one device.
#[derive(Default)]
pub(crate) struct Hub {
    children: BTreeMap<Box<str>, Entry>,
    /// There was a child at some time.
    ever: bool,
    /// Between a login and the end of its connection.
    online: bool,
    /// A login: the list waits until then.
    settle_by: Option<Instant>,
    due: VecDeque<Due>,
    /// Children that the platform has just been told of.
    told: Vec<Told>,
}

/// A child as the hub knows it.
pub(crate) struct Entry {
    pub lane: Lane,
    pub proof: ChildProof,
    pub mode: AccessMode,
    pub product: Box<str>,
    pub version: Box<str>,
    /// The hub reaches it.
    pub connected: bool,
    pub state: watch::Sender<ChildState>,
    pub operations: Arc<Operations>,
    ask_at: Option<Instant>,
    /// The platform was told of it on this connection.
    told: bool,
    /// All its values were reported under this session key.
    reported: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    List,
    Online,
}

/// A child is on the list that has just been sent: what it reports may follow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub serial: Box<str>,
    pub lane: Lane,
    /// All its values are due.
    pub report: bool,
}

impl Entry {
    pub(crate) fn new(
        proof: ChildProof,
        mode: AccessMode,
        product: Box<str>,
        version: Box<str>,
        operations: Arc<Operations>,
    ) -> Self {
        let state = watch::Sender::new(ChildState::Waiting);
        Self {
            lane: 0,
            proof,
            mode,
            product,
            version,
            connected: true,
            state,
            operations,
            ask_at: None,
            told: false,
            reported: false,
        }
    }

    fn is(&self, state: ChildState) -> bool {
        *self.state.borrow() == state
    }
}

impl Hub {
    pub(crate) fn child(&self, serial: &str) -> Option<&Entry> {
        self.children.get(serial)
    }

    pub(crate) fn serials(&self) -> impl Iterator<Item = &str> {
        self.children.keys().map(|serial| &**serial)
    }

    /// A new child.
    pub(crate) fn add(&mut self, now: Instant, serial: Box<str>, mut entry: Entry) -> Result<(), ChildError> {
        if self.children.contains_key(&serial) {
            return Err(ChildError::Exists);
        }
        let free = |lane: &Lane| self.children.values().all(|child| child.lane != *lane);
        let most = Lane::try_from(MAX_CHILDREN).unwrap_or(Lane::MAX);
        entry.lane = (1..=most).find(free).ok_or(ChildError::Full(MAX_CHILDREN))?;
        entry.ask_at = self.online.then_some(now);
        self.ever = true;
        self.children.insert(serial, entry);
        Ok(())
    }

    /// A child is gone.
    pub(crate) fn remove(&mut self, serial: &str) -> Option<Entry> {
        let gone = self.children.remove(serial)?;
        gone.state.send_replace(ChildState::Gone);
        self.changed();
        Some(gone)
    }

    /// The hub reaches a child, or does not.
    pub(crate) fn set_connected(&mut self, serial: &str, connected: bool) {
        if let Some(child) = self.children.get_mut(serial).filter(|child| child.connected != connected) {
            child.connected = connected;
            self.changed();
        }
    }

    /// The program wants a child that was refused to be asked about again.
    pub(crate) fn retry(&mut self, now: Instant, serial: &str) {
        if let Some(child) = self.children.get_mut(serial).filter(|child| child.is(ChildState::Refused)) {
            child.state.send_replace(ChildState::Waiting);
            child.ask_at = self.online.then_some(now);
        }
    }

    /// The device is logged in; `new_key` when nothing that was said before counts.
    pub(crate) fn handle_ready(&mut self, now: Instant, new_key: bool) {
        self.online = true;
        self.settle_by = Some(now + SETTLE);
        self.due.clear();
        for child in self.children.values_mut() {
            child.ask_at = (!child.is(ChildState::Refused)).then_some(now);
            child.told = false;
            child.reported &= !new_key;
        }
    }

    /// The connection is gone.
    pub(crate) fn handle_link_end(&mut self) {
        self.online = false;
        self.settle_by = None;
        self.due = VecDeque::new();
        self.told = Vec::new();
        for child in self.children.values_mut() {
            child.ask_at = None;
            if child.is(ChildState::Accepted) {
                child.state.send_replace(ChildState::Waiting);
            }
        }
    }

    /// The platform accepts a child, or not. `None` for one that nobody knows; otherwise the lane whose messages are to
    /// be given up, if it is refused.
    pub(crate) fn handle_verdict(&mut self, serial: &str, accepted: bool) -> Option<Option<Lane>> {
        let child = self.children.get_mut(serial)?;
        let was_accepted = child.is(ChildState::Accepted);
        let lane = child.lane;
        child.ask_at = None;
        child.told &= accepted;
        child.state.send_replace(if accepted { ChildState::Accepted } else { ChildState::Refused });
        if was_accepted != accepted {
            self.changed();
        }
        Some((!accepted).then_some(lane))
    }

    /// Children that the platform has been told of since; what they report comes after that (osap-wire 13.2.7).
    pub(crate) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    fn changed(&mut self) {
        for due in [Due::List, Due::Online] {
            if self.online && self.settle_by.is_none() && !self.due.contains(&due) {
                self.due.push_back(due);
            }
        }
    }

    /// The next message that is due.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Note> {
        if !self.online {
            return None;
        }
        let asks = self.children.iter_mut().find(|(_, child)| child.ask_at.is_some_and(|at| at <= now));
        if let Some((serial, child)) = asks {
            child.ask_at = Some(now + PATIENCE);
            let auth = ChildAuth { serial: (&**serial).into(), proof: child.proof.clone(), mode: child.mode };
            return note(Command::ChildAuth, |out| auth.write(out));
        }
        if let Some(until) = self.settle_by {
            if until > now && self.children.values().any(|child| child.is(ChildState::Waiting)) {
                return None;
            }
            self.settle_by = None;
            // The list goes twice at a login.
            self.due = [Due::List, Due::Online, Due::List].into();
        }
        match self.due.pop_front()? {
            Due::List => {
                self.tell();
                let list = self.list();
                note(Command::Children, |out| list.write(out))
            }
            Due::Online => {
                let children = self.accepted().map(|(serial, child)| (serial.into(), child.connected)).collect();
                note(Command::ChildrenOnline, |out| Online { children }.write(out))
            }
        }
    }

    fn tell(&mut self) {
        for (serial, child) in &mut self.children {
            if child.is(ChildState::Accepted) && !child.told {
                let report = !child.reported;
                (child.told, child.reported) = (true, true);
                self.told.push(Told { serial: serial.clone(), lane: child.lane, report });
            }
        }
    }

    fn list(&self) -> Children<'_> {
        if !self.ever {
            return Children::Never;
        }
        let children = self.accepted().map(|(serial, child)| hub::Child {
            serial: serial.into(),
            connected: child.connected,
            version: (&*child.version).into(),
            product: (&*child.product).into(),
            firmware_code: "".into(),
        });
        Children::Now(children.collect())
    }

    fn accepted(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let accepted = self.children.iter().filter(|(_, child)| child.is(ChildState::Accepted));
        accepted.map(|(serial, child)| (&**serial, child))
    }

    /// When something is due without anything else happening.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.children.values().filter_map(|child| child.ask_at).chain(self.settle_by).min()
    }
}

/// A message whose texts were bounded where they entered the device.
fn note(command: Command, write: impl FnOnce(&mut Vec<u8>) -> Result<(), osap::das::BodyError>) -> Option<Note> {
    let mut body = Vec::new();
    write(&mut body).ok()?;
    Some(Note { command, answers: None, body: body.into() })
}

#[cfg(test)]
mod tests {
    use osap::{Code, Serial};

    use super::*;

    fn entry(serial: &str) -> Entry {
        let (code, serial) = (Code::new("ZXCVBN").expect("a code"), Serial::new(serial).expect("a serial"));
        Entry::new(ChildProof::new(&code, &serial), AccessMode::Code, "PLUG".into(), "V1".into(), Arc::default())
    }

    /// Everything that is due, as `number body`.
    fn sent(hub: &mut Hub, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| hub.poll(now))
            .map(|note| format!("{} {}", note.command.number(), String::from_utf8_lossy(&note.body)))
            .collect()
    }

    fn told(serial: &str, lane: Lane, report: bool) -> Told {
        Told { serial: serial.into(), lane, report }
    }

    const AUTH_A: &str =
        r#"16 {"childserial":"SUB000001","childverifycode":"A3A8F72BF61D8E1336F528A501D91E05","devAccessMode":0}"#;
    const LIST_A: &str =
        r#"1 [{"connected":1,"childdevid":"SUB000001","version":"V1","type":"PLUG","FirmwareIdentificationCode":""}]"#;
    const ONLINE_A: &str = r#"3 [{"connected":1,"childdevid":"SUB000001"}]"#;

    #[test]
    fn osap_10_6_children_are_told_twice_at_login_and_on_every_change() {
        let mut now = Instant::now();
        let mut hub = Hub::default();
        hub.add(now, "SUB000001".into(), entry("SUB000001")).expect("room");
        assert_eq!(sent(&mut hub, now), [] as [&str; 0], "not before the login");
        hub.handle_ready(now, true);
        assert_eq!(sent(&mut hub, now), [AUTH_A]);
        assert_eq!((hub.handle_verdict("SUB000001", true), hub.take_told()), (Some(None), vec![]));
        assert_eq!(sent(&mut hub, now), [LIST_A, ONLINE_A, LIST_A]);
        assert_eq!(hub.take_told(), [told("SUB000001", 1, true)]);
        assert_eq!(hub.handle_verdict("SUB000001", true), Some(None));
        assert_eq!(sent(&mut hub, now), [] as [&str; 0], "nothing changed");

        hub.set_connected("SUB000001", false);
        hub.set_connected("SUB000001", false);
        let gone = |text: &str| text.replace("\"connected\":1", "\"connected\":0");
        assert_eq!(sent(&mut hub, now), [gone(LIST_A), gone(ONLINE_A)]);
        assert!(hub.remove("SUB000001").is_some() && hub.remove("SUB000001").is_none());
        assert_eq!(sent(&mut hub, now), ["1 []", "3 []"]);

        // One that comes while the hub is online, and is judged late.
        hub.add(now, "SUB000001".into(), entry("SUB000001")).expect("room");
        assert_eq!(sent(&mut hub, now), [AUTH_A]);
        now += PATIENCE;
        assert_eq!((hub.deadline(), sent(&mut hub, now)), (Some(now), vec![AUTH_A.to_owned()]), "asked again");
        hub.handle_verdict("SUB000001", true);
        assert_eq!(sent(&mut hub, now), [LIST_A, ONLINE_A]);
        assert_eq!(hub.deadline(), None);
    }

    #[test]
    fn a_hub_that_never_had_a_child_says_so() {
        let now = Instant::now();
        let mut hub = Hub::default();
        hub.handle_ready(now, true);
        assert_eq!(sent(&mut hub, now), ["1 {}", "3 []", "1 {}"]);
    }

    #[test]
    fn the_list_does_not_wait_for_ever_and_a_refused_child_is_not_in_it() {
        let now = Instant::now();
        let mut hub = Hub::default();
        for serial in ["SUB000001", "SUB000002", "SUB000003"] {
            hub.add(now, serial.into(), entry(serial)).expect("room");
        }
        hub.handle_ready(now, true);
        assert_eq!(sent(&mut hub, now).len(), 3);
        hub.handle_verdict("SUB000001", true);
        assert_eq!(hub.handle_verdict("SUB000002", false), Some(Some(2)));
        assert_eq!(hub.handle_verdict("SUB000009", true), None);
        assert_eq!((sent(&mut hub, now), hub.deadline()), (vec![], Some(now + SETTLE)));
        assert_eq!(hub.take_told(), [], "what an accepted child reports waits for the list");
        assert_eq!(sent(&mut hub, now + SETTLE), [LIST_A, ONLINE_A, LIST_A]);
        assert_eq!(hub.take_told(), [told("SUB000001", 1, true)]);

        // After a light login those that were accepted have to be accepted again; a refused one is not asked about.
        hub.handle_link_end();
        assert_eq!((sent(&mut hub, now), hub.deadline()), (vec![], None));
        hub.handle_ready(now, false);
        assert_eq!(sent(&mut hub, now).len(), 2);
        hub.handle_verdict("SUB000001", true);
        hub.handle_verdict("SUB000003", true);
        assert_eq!(sent(&mut hub, now).len(), 3);
        assert_eq!(hub.take_told(), [told("SUB000001", 1, false), told("SUB000003", 3, true)]);
        hub.retry(now, "SUB000002");
        hub.retry(now, "SUB000001");
        assert!(sent(&mut hub, now)[0].contains("SUB000002"));
    }

    #[test]
    fn there_are_at_most_64_and_each_once() {
        let now = Instant::now();
        let mut hub = Hub::default();
        for n in 0..64 {
            hub.add(now, n.to_string().into(), entry("SUB000001")).expect("room");
        }
        assert_eq!(hub.add(now, "0".into(), entry("SUB000001")), Err(ChildError::Exists));
        assert_eq!(hub.add(now, "64".into(), entry("SUB000001")), Err(ChildError::Full(64)));
        let lane = hub.remove("7").expect("there").lane;
        hub.add(now, "64".into(), entry("SUB000001")).expect("room again");
        assert_eq!(hub.child("64").expect("there").lane, lane);
    }
}
