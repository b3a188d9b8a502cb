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
use crate::link::{Note, Number};
use crate::operation::Operations;
use crate::outbox::Lane;

/// How long a verdict is waited for before it is asked for again. Nothing else acknowledges the question.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many verdicts are waited for at the same time: a platform looks at few proofs of one hub at once.
const ASKING: usize = 4;

/// How long a verdict is in the way of the next question.
const IN_THE_WAY: Duration = Duration::from_secs(2);

/// How long the list waits after a login for the next verdict.
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
    /// The verdict is waited for since then.
    asked: Option<Instant>,
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
            asked: None,
            told: false,
            reported: false,
        }
    }

    /// The platform has not refused it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.is(ChildState::Refused)
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
            child.asked = None;
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
            (child.ask_at, child.asked) = (None, None);
            if child.is(ChildState::Accepted) {
                child.state.send_replace(ChildState::Waiting);
            }
        }
    }

    /// The platform accepts a child, or not. `None` for one that nobody knows; otherwise the lane whose messages are to
    /// be given up, if it is refused.
    pub(crate) fn handle_verdict(&mut self, now: Instant, serial: &str, accepted: bool) -> Option<Option<Lane>> {
        let child = self.children.get_mut(serial)?;
        let was_accepted = child.is(ChildState::Accepted);
        let lane = child.lane;
        (child.ask_at, child.asked) = (None, None);
        if let Some(settle_by) = &mut self.settle_by {
            *settle_by = now + SETTLE;
        }
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
        if let Some((serial, child)) = self.next_to_ask(now) {
            child.ask_at = Some(now + PATIENCE);
            child.asked = Some(now);
            let auth = ChildAuth { serial: serial.into(), proof: child.proof.clone(), mode: child.mode };
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

    fn next_to_ask(&mut self, now: Instant) -> Option<(&str, &mut Entry)> {
        if self.in_the_way(now).count() >= ASKING {
            return None;
        }
        let mut due = self.children.iter_mut().filter(|(_, child)| child.ask_at.is_some_and(|at| at <= now));
        due.next().map(|(serial, child)| (&**serial, child))
    }

    /// When each of the verdicts that are waited for stops being in the way.
    fn in_the_way(&self, now: Instant) -> impl Iterator<Item = Instant> {
        let until = self.children.values().filter_map(|child| child.asked.map(|asked| asked + IN_THE_WAY));
        until.filter(move |until| *until > now)
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
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let ask = self.children.values().filter_map(|child| child.ask_at).min();
        // As many as allowed are waited for: the next is asked when one of them gives way.
        let free = if self.in_the_way(now).count() < ASKING { None } else { self.in_the_way(now).min() };
        ask.map(|ask| free.map_or(ask, |free| ask.max(free))).into_iter().chain(self.settle_by).min()
    }
}

/// A message whose texts were bounded where they entered the device.
fn note(command: Command, write: impl FnOnce(&mut Vec<u8>) -> Result<(), osap::das::BodyError>) -> Option<Note> {
    let mut body = Vec::new();
    write(&mut body).ok()?;
    Some(Note { command, number: Number::Next, body: body.into() })
}

#[cfg(test)]
mod tests;
