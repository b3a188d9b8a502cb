//! What a device does next: authenticate, store, log in, wait, stop.
//!
//! This is the whole decision, without socket and clock (osap-wire 5.11, 5.12, 9.3, 9.9). The
//! driver asks [`Session::poll`], does the step, and answers with the `handle_*` that fits it.

use std::io;
use std::time::{Duration, Instant};

use osap::das::connack;
use osap::lbs::backoff;
use osap::lbs::client::{Reaction, Stored};
use osap::{CodeCase, DevId, Random, SessionKey};

use crate::modern::Admission;
use crate::moving::ATTEMPTS;
use crate::state::{LinkFault, Reason, StopReason, TlsFault};
use crate::storage::LegacyCredentials;

/// How long a connection has to live before its loss is a new matter and not one more failure of
/// the same row.
const STABLE: Duration = Duration::from_secs(30);

/// Light logins after a loss before the device turns to the LBS again.
const LIGHT_LOGINS: u32 = 4;

/// Full logins in a row that may fail before the device turns to the LBS again.
const FULL_LOGINS: u32 = 6;

/// "Session unknown" in a row that are followed at once; the first one is the rule after a first
/// authentication (osap-wire 13.2.2).
const UNKNOWN_AT_ONCE: u32 = 2;

/// The decisions of one device.
#[derive(Debug)]
pub(crate) struct Session {
    phase: Phase,
    /// The device speaks the modern suites. What it came in with is then the matter of each run, and so is storing it.
    modern: bool,
    /// What the storage holds.
    durable: Option<LegacyCredentials>,
    /// What the next authentication starts from. Results 4 and 10 set a part aside; nothing is
    /// deleted before a run without it succeeded.
    believed: Stored,
    /// Credentials of a run that succeeded, on their way to the storage.
    unsaved: Option<LegacyCredentials>,
    case: CodeCase,
    access: Option<Access>,
    /// A login succeeded since the program started: from then on the will is "breakconnect".
    seen_login: bool,
    subscribed: bool,
    online_since: Option<Instant>,
    failures: Failures,
    /// Another LBS than the one the program named; the platform sent the device there.
    away: Option<Away>,
    /// What that LBS gave, until the present connection is over.
    moved: Option<Box<(Option<Box<str>>, Grant)>>,
    /// Seconds, where the platform said how many.
    keep_alive: Option<u16>,
}

/// An LBS the device was sent to.
#[derive(Debug)]
struct Away {
    host: Box<str>,
    /// Conversations with it since the last login that was complete.
    turns: u32,
}

/// Failures in a row, by kind.
#[derive(Debug, Default)]
struct Failures {
    authentication: u32,
    mismatch: u32,
    storage: u32,
    full_login: u32,
    light_login: u32,
    /// Turns to the LBS because of links that did not live long.
    short_link: u32,
    session_unknown: u32,
    session_exists: u32,
}

/// What an authentication brought: the way into the DAS.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub dev_id: DevId,
    pub secret: Secret,
    pub address: Box<str>,
    pub port: u16,
}

/// What proves the device to the DAS.
#[derive(Debug, Clone)]
pub(crate) enum Secret {
    #[cfg_attr(not(feature = "legacy"), expect(dead_code, reason = "only a legacy run gives one"))]
    Legacy(SessionKey),
    Modern(Box<Admission>),
}

impl Access {
    /// Whether the platform takes it no longer.
    fn is_over(&self, now: Instant) -> bool {
        matches!(&self.secret, Secret::Modern(admission) if admission.expires <= now)
    }
}

/// A whole LBS sequence that succeeded, service address included.
#[derive(Debug)]
pub(crate) struct Grant {
    pub access: Access,
    /// What is to be stored, after a run of the legacy suite.
    pub legacy: Option<(LegacyCredentials, CodeCase)>,
}

impl Grant {
    /// Of a run under a modern suite, which has stored what it gave.
    pub(crate) fn modern(access: Access) -> Self {
        Self { access, legacy: None }
    }
}

/// An authentication that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied {
    pub reason: Reason,
    pub reaction: Reaction,
    /// What the delay depends on.
    pub delay: backoff::Trouble,
}

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// One LBS connection; answer with [`Session::handle_authentication`].
    Authenticate { stored: Stored, case: CodeCase },
    /// Make these durable; answer with [`Session::handle_stored`].
    Store(LegacyCredentials),
    /// One DAS connection; answer with [`Session::handle_accepted`], [`Session::handle_ready`]
    /// and at its end [`Session::handle_link_end`].
    Login { login: Login, access: Access },
    /// Nothing until then; answer with [`Session::handle_timeout`].
    Wait { until: Instant, reason: Reason },
    /// Nothing any more.
    Stop(StopReason),
}

/// The kind of a DAS login (osap-wire 9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Login {
    /// A full login with a clean session and the whole record; otherwise a light one.
    pub full: bool,
    /// SUBSCRIBE follows. A light login goes without, unless no login of this session got so far.
    pub subscribe: bool,
    /// The first login since the program started.
    pub first: bool,
}

/// How a DAS connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// It never began.
    Unreachable(io::ErrorKind),
    /// It never began, because TLS did not.
    Insecure(TlsFault),
    /// CONNACK with a code other than 0.
    Refused(u8),
    /// It broke.
    Lost(LinkFault),
    /// The device said goodbye.
    Left,
    /// The platform sent it away (osap-wire 10.5).
    ForcedOffline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Do(Task),
    Wait { until: Instant, reason: Reason, then: Task },
    Stopped(StopReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Authenticate,
    Store,
    Login { full: bool },
}

impl Session {
    /// A device of the modern suites that has just been switched on.
    pub(crate) fn modern() -> Self {
        Self { modern: true, ..Self::new(None) }
    }

    /// A device that has just been switched on.
    pub(crate) fn new(durable: Option<LegacyCredentials>) -> Self {
        Self {
            phase: Phase::Do(Task::Authenticate),
            modern: false,
            believed: from_storage(durable.as_ref()),
            durable,
            unsaved: None,
            case: CodeCase::Upper,
            access: None,
            seen_login: false,
            subscribed: false,
            online_since: None,
            failures: Failures::default(),
            away: None,
            moved: None,
            keep_alive: None,
        }
    }

    /// The LBS, where it is another one than the program named.
    pub(crate) fn lbs_host(&self) -> Option<&str> {
        self.away.as_ref().map(|away| &*away.host)
    }

    /// What an authentication at another LBS starts from: all but the master key. `None` while there is nothing.
    pub(crate) fn start_elsewhere(&self) -> Option<(Stored, CodeCase)> {
        match &self.durable {
            Some(credentials) => Some((Stored::DevId(credentials.dev_id), self.case)),
            None => self.modern.then_some((Stored::Nothing, self.case)),
        }
    }

    /// From when on another run at the LBS is due, while the connection goes on.
    pub(crate) fn renew_at(&self) -> Option<Instant> {
        match &self.access.as_ref()?.secret {
            Secret::Legacy(_) => None,
            Secret::Modern(_) if self.moved.is_some() => None,
            Secret::Modern(admission) => Some(admission.renew),
        }
    }

    /// Another LBS has taken the device: that is where it goes once the present connection is over. `None` is the LBS
    /// that the program named.
    pub(crate) fn handle_moved(&mut self, host: Option<Box<str>>, grant: Grant) {
        self.moved = Some(Box::new((host, grant)));
    }

    /// The keep-alive of the next connection, in seconds, where the platform said how many (osap-wire 10.5).
    pub(crate) fn keep_alive(&self) -> Option<u16> {
        self.keep_alive
    }

    /// The platform wants another keep-alive.
    pub(crate) fn handle_keep_alive(&mut self, seconds: u16) {
        self.keep_alive = Some(seconds);
    }

    /// What to do now.
    pub(crate) fn poll(&mut self) -> Step {
        let task = match self.phase {
            Phase::Do(task) => task,
            Phase::Wait { until, reason, .. } => return Step::Wait { until, reason },
            Phase::Stopped(reason) => return Step::Stop(reason),
        };
        match (task, &self.unsaved, &self.access) {
            (Task::Store, Some(credentials), _) => Step::Store(credentials.clone()),
            (Task::Login { full }, _, Some(access)) => Step::Login {
                login: Login { full, subscribe: full || !self.subscribed, first: !self.seen_login },
                access: access.clone(),
            },
            // A login without access or a store without credentials has nothing to go on: both
            // come from an authentication.
            _ => Step::Authenticate { stored: self.believed.clone(), case: self.case },
        }
    }

    /// An LBS connection came to its end.
    pub(crate) fn handle_authentication(
        &mut self,
        now: Instant,
        result: Result<Grant, Denied>,
        random: &mut dyn Random,
    ) {
        match result {
            Ok(grant) => self.handle_grant(grant),
            Err(denied) => self.handle_denied(now, denied, random),
        }
    }

    fn handle_grant(&mut self, grant: Grant) {
        self.turn_away();
        self.failures.authentication = 0;
        self.failures.mismatch = 0;
        self.failures.full_login = 0;
        self.failures.light_login = 0;
        self.failures.session_exists = 0;
        self.subscribed = false;
        self.access = Some(grant.access);
        let Some((credentials, case)) = grant.legacy else {
            self.phase = Phase::Do(Task::Login { full: true });
            return;
        };
        self.case = case;
        self.believed = from_storage(Some(&credentials));
        if self.durable.as_ref() == Some(&credentials) {
            self.phase = Phase::Do(Task::Login { full: true });
        } else {
            self.unsaved = Some(credentials);
            self.phase = Phase::Do(Task::Store);
        }
    }

    /// One conversation more with an LBS the device was sent to. After four that led to nothing it is given up, and what
    /// it said with it (osap-wire 13.5).
    fn turn_away(&mut self) -> bool {
        let given_up = self.away.as_mut().is_some_and(|away| {
            away.turns += 1;
            away.turns > ATTEMPTS
        });
        if given_up {
            self.away = None;
        }
        given_up
    }

    fn handle_denied(&mut self, now: Instant, denied: Denied, random: &mut dyn Random) {
        let Denied { reason, reaction, delay } = denied;
        if self.turn_away() {
            self.believed = from_storage(self.durable.as_ref());
            self.case = CodeCase::Upper;
            self.phase = Phase::Do(Task::Authenticate);
            return;
        }
        match reaction {
            Reaction::RetryLowerCase if self.case == CodeCase::Upper => {
                self.case = CodeCase::Lower;
                self.phase = Phase::Do(Task::Authenticate);
                return;
            }
            Reaction::ForgetDevId => self.believed = Stored::Nothing,
            Reaction::ForgetMasterKey => {
                if let Stored::Both { dev_id, .. } = self.believed {
                    self.believed = Stored::DevId(dev_id);
                }
            }
            // One suite is all there is: another one than it offered cannot be adopted.
            Reaction::RetryLowerCase | Reaction::Rematch(_) | Reaction::BackOff => {
                // A server that refused without what was set aside is asked again with it: its
                // verdict may have come from a record that has been put right since.
                if !matches!(reason, Reason::LbsUnreachable(_)) {
                    self.believed = from_storage(self.durable.as_ref());
                    self.case = CodeCase::Upper;
                }
            }
        }
        // A server out of reach is asked like one that refuses, with growing pauses: a whole fleet
        // may be waiting for it.
        let delay = if delay == backoff::Trouble::NothingInCommon {
            self.failures.mismatch += 1;
            within(backoff::delay(delay, self.failures.mismatch), random)
        } else {
            self.failures.authentication += 1;
            pause(self.failures.authentication, random)
        };
        self.wait(now, delay, reason, Task::Authenticate);
    }

    /// The storage answered.
    pub(crate) fn handle_stored(&mut self, now: Instant, stored: bool, random: &mut dyn Random) {
        if stored {
            self.failures.storage = 0;
            self.durable = self.unsaved.take();
            self.phase = Phase::Do(Task::Login { full: true });
        } else {
            // A login would make the platform forget the credentials that are still in storage.
            self.failures.storage += 1;
            let delay = pause(self.failures.storage, random);
            self.wait(now, delay, Reason::Storage, Task::Store);
        }
    }

    /// CONNACK 0.
    pub(crate) fn handle_accepted(&mut self) {
        self.seen_login = true;
        self.failures.session_exists = 0;
    }

    /// The login is complete, subscriptions included.
    pub(crate) fn handle_ready(&mut self, now: Instant) {
        self.subscribed = true;
        self.online_since = Some(now);
        self.failures.full_login = 0;
        if let Some(away) = &mut self.away {
            away.turns = 0;
        }
    }

    /// The DAS connection is over.
    pub(crate) fn handle_link_end(&mut self, now: Instant, end: LinkEnd, random: &mut dyn Random) {
        let online_since = self.online_since.take();
        if online_since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            self.failures.light_login = 0;
            self.failures.short_link = 0;
            self.failures.session_unknown = 0;
        }
        let Phase::Do(Task::Login { full }) = self.phase else { return };
        if let Some(moved) = self.moved.take()
            && end != LinkEnd::ForcedOffline
        {
            let (host, grant) = *moved;
            self.away = host.map(|host| Away { host, turns: 0 });
            self.handle_grant(grant);
            return;
        }
        self.forget_if_over(now);
        let reason = match end {
            // Under a modern suite it is a hint, which anybody may have given: the device only slows down.
            LinkEnd::Refused(connack::BLACKLISTED) if !self.modern => {
                self.phase = Phase::Stopped(StopReason::Blacklisted);
                return;
            }
            LinkEnd::Refused(connack::SESSION_UNKNOWN) => {
                self.session_unknown(now, random);
                return;
            }
            LinkEnd::Refused(connack::SESSION_EXISTS) if !self.modern && self.failures.session_exists == 0 => {
                self.failures.session_exists = 1;
                self.phase = Phase::Do(Task::Login { full: false });
                return;
            }
            LinkEnd::Refused(code) => Reason::LoginRefused(code),
            LinkEnd::Unreachable(kind) => Reason::DasUnreachable(kind),
            LinkEnd::Insecure(fault) => Reason::DasTls(fault),
            LinkEnd::Lost(fault) => Reason::LinkLost(fault),
            LinkEnd::Left => {
                self.handle_stop();
                return;
            }
            LinkEnd::ForcedOffline => {
                self.phase = Phase::Stopped(StopReason::ForcedOffline);
                return;
            }
        };
        if full && online_since.is_none() {
            self.full_login(now, reason, random);
        } else {
            self.light_login(now, reason, random);
        }
    }

    /// A session whose life is over is not tried again.
    fn forget_if_over(&mut self, now: Instant) {
        if self.access.as_ref().is_some_and(|access| access.is_over(now)) {
            self.access = None;
        }
    }

    fn session_unknown(&mut self, now: Instant, random: &mut dyn Random) {
        self.access = None;
        self.failures.session_unknown += 1;
        match self.failures.session_unknown.checked_sub(UNKNOWN_AT_ONCE) {
            None | Some(0) => self.phase = Phase::Do(Task::Authenticate),
            Some(row) => {
                let delay = pause(row, random);
                let reason = Reason::LoginRefused(connack::SESSION_UNKNOWN);
                self.wait(now, delay, reason, Task::Authenticate);
            }
        }
    }

    fn full_login(&mut self, now: Instant, reason: Reason, random: &mut dyn Random) {
        self.failures.full_login += 1;
        let delay = pause(self.failures.full_login, random);
        let then = if self.failures.full_login < FULL_LOGINS { Task::Login { full: true } } else { Task::Authenticate };
        self.wait(now, delay, reason, then);
    }

    fn light_login(&mut self, now: Instant, reason: Reason, random: &mut dyn Random) {
        let row = self.failures.light_login;
        self.failures.light_login += 1;
        if row >= LIGHT_LOGINS {
            // The first turn to the LBS is taken at once. A DAS that lets the device in and drops it, again and again, would
            // otherwise be visited once a second for ever, by a whole fleet.
            let delay = match self.failures.short_link {
                0 => Duration::ZERO,
                row => pause(row, random),
            };
            self.failures.short_link += 1;
            self.wait(now, delay, reason, Task::Authenticate);
        } else {
            // The first one at once; the others spread over a second, because a server that
            // restarts loses all its devices in the same moment.
            let spread = Duration::from_secs(u64::from(row.min(1)));
            let delay = Duration::from_secs(row.into()) + within(spread, random);
            self.wait(now, delay, reason, Task::Login { full: false });
        }
    }

    fn wait(&mut self, now: Instant, delay: Duration, reason: Reason, then: Task) {
        self.phase = if delay.is_zero() { Phase::Do(then) } else { Phase::Wait { until: now + delay, reason, then } };
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Wait { until, then, .. } = self.phase
            && until <= now
        {
            self.forget_if_over(now);
            self.phase = Phase::Do(then);
        }
    }

    /// The program wants an end.
    pub(crate) fn handle_stop(&mut self) {
        if !matches!(self.phase, Phase::Stopped(_)) {
            self.phase = Phase::Stopped(StopReason::Requested);
        }
    }
}

/// The pause after so many failures in a row (osap-wire 5.12): any length up to the one of the
/// specification, so that a fleet that lost its server does not come back as one.
pub(crate) fn pause(failures: u32, random: &mut dyn Random) -> Duration {
    within(backoff::delay(backoff::Trouble::Failed, failures), random)
}

/// A duration drawn evenly from zero to `longest`.
fn within(longest: Duration, random: &mut dyn Random) -> Duration {
    let mut draw = [0; 4];
    random.fill(&mut draw);
    longest.mul_f64(f64::from(u32::from_be_bytes(draw)) / f64::from(u32::MAX))
}

fn from_storage(credentials: Option<&LegacyCredentials>) -> Stored {
    match credentials {
        None => Stored::Nothing,
        Some(LegacyCredentials { dev_id, master_key }) => {
            Stored::Both { dev_id: *dev_id, master_key: master_key.clone() }
        }
    }
}

#[cfg(test)]
mod tests;
