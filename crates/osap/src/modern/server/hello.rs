//! AUTH-I and its answer: who is it, which suite is run, does the ticket hold (osap-wire 13.3, 13.4).

use super::{CloseReason, Output, Record, Run, Server, State};
use crate::id::Serial;
use crate::lbs::Standing;
use crate::lbs::message::Group;
use crate::modern::message::{AuthI, AuthIi, MessageError};
use crate::modern::schedule::{Early, Fresh, MAC_LEN, binder, same};
use crate::modern::secret::Psk;
use crate::modern::share::ShareKey;
use crate::modern::ticket::Held;
use crate::random::Random;
use crate::result::ResultCode;
use crate::suite::Suite;

/// An AUTH-I that is being answered.
#[derive(Debug)]
pub(super) struct Hello {
    auth: AuthI,
    suite: Suite,
    /// The whole frame, for the transcript.
    frame: Vec<u8>,
    record: Record,
    /// The ticket whose binder was right, with its secret.
    pub(super) shown: Option<(Held, Psk)>,
}

impl Hello {
    pub(super) fn serial(&self) -> &Serial {
        &self.auth.serial
    }

    pub(super) fn share(&self) -> &[u8] {
        &self.auth.share
    }

    pub(super) fn fresh(&self) -> Output {
        match &self.auth.bound {
            Some(bound) => Output::Fresh { ticket: bound.ticket, nonce: self.auth.nonce },
            None => Output::Close(CloseReason::Abandoned),
        }
    }
}

impl Server {
    pub(super) fn auth_i(&mut self, bytes: &[u8]) -> Result<(), MessageError> {
        let (offered, group) = AuthI::offer(bytes)?;
        // Of two types that differ the mismatch answer names one; it could not answer an offer outside of its own group.
        if !group.contains(offered) {
            return Err(MessageError::Group);
        }
        let suite = match self.choose(&group, false) {
            Some(suite) if suite.protocol_type() == offered => suite,
            _ => {
                self.mismatch(offered, &group, false);
                return Ok(());
            }
        };
        let auth = AuthI::decode(bytes)?;
        // Without TLS there is nothing that could carry a code in safety: a ticket is required.
        if suite != Suite::Tls && auth.bound.is_none() {
            return Err(MessageError::Length);
        }
        self.serial = Some(auth.serial.clone());
        self.suite = Some(suite);
        let hello = Hello { auth, suite, frame: bytes.to_vec(), record: Record::default(), shown: None };
        self.state = State::Lookup(Box::new(hello));
        Ok(())
    }

    /// The first of the preferred suites that the device names and may run here.
    fn choose(&self, group: &Group, tls_only: bool) -> Option<Suite> {
        let usable = |suite: &&Suite| group.contains(suite.protocol_type()) && (!tls_only || **suite == Suite::Tls);
        self.policy.suites.iter().find(usable).copied()
    }

    /// The answer of osap-wire 5.10, with the types that are usable here and were not offered.
    fn mismatch(&mut self, offered: u8, group: &Group, tls_only: bool) {
        let usable = |suite: &&Suite| !tls_only || **suite == Suite::Tls;
        let others: Vec<u8> = self.policy.suites.iter().filter(usable).map(|suite| suite.protocol_type()).collect();
        let choice = self
            .choose(group, tls_only)
            .map(Suite::protocol_type)
            .filter(|choice| *choice != offered)
            .or(others.first().copied().filter(|choice| *choice != offered))
            // Nothing can be run here; the type that is always served elsewhere.
            .unwrap_or(Suite::Tls.protocol_type());
        let others: Vec<u8> = others.into_iter().filter(|other| *other != offered).collect();
        let group = Group::new(&others).unwrap_or_default();
        let suite = Suite::from_protocol_type(offered).unwrap_or(Suite::Tls);
        self.outbox = Some(AuthIi::Mismatch { protocol_type: choice, group }.encode(suite));
        self.refusal = Some(ResultCode::InvalidData);
        self.state = State::Closed(CloseReason::Mismatch { offered });
    }

    /// Takes the answer to [`Output::Lookup`] at `now`, in Unix ms: the device, or a made-up record
    /// of an unknown serial ([`Standing::Unknown`]), which takes the same way.
    pub fn handle_record(&mut self, record: Record, now: i64, random: &mut dyn Random) {
        let mut hello = match self.leave() {
            State::Lookup(hello) => hello,
            other => {
                self.state = other;
                return;
            }
        };
        self.now = now;
        if self.certificate.as_ref().is_some_and(|owner| owner != hello.serial().as_str()) {
            return self.refuse_hello(&hello, CloseReason::CertificateSerial);
        }
        let Some(bound) = hello.auth.bound else {
            self.proven = self.certificate.is_some();
            hello.record = record;
            return self.proceed(hello, random);
        };
        // Unknown, foreign, at its end or not bound: all take the time of one binder and get one answer.
        let found =
            record.tickets.find(bound.ticket, now, record.window).map(|(held, ticket)| (held, ticket.psk.clone()));
        let psk = found.as_ref().map_or_else(|| Psk::draw(random), |(_, psk)| psk.clone());
        let right = same(&binder(&psk, &hello.frame), &bound.binder);
        let known = record.standing != Standing::Unknown;
        match found.filter(|_| right && known) {
            // Said to the holder of the ticket alone: a stranger would learn that there is such a serial.
            Some(_) if record.tls_only && hello.suite != Suite::Tls => {
                let group = hello.auth.group;
                self.mismatch(hello.auth.protocol_type, &group, true);
            }
            Some(found) => {
                hello.shown = Some(found);
                hello.record = record;
                self.state = State::Fresh(hello);
            }
            None => {
                let reason = if known && record.tickets.is_shut(bound.ticket, record.window) {
                    CloseReason::Provisioned
                } else {
                    CloseReason::Ticket { dropped: known && record.tickets.was_dropped(bound.ticket) }
                };
                self.refuse_hello(&hello, reason);
            }
        }
    }

    /// Takes the answer to [`Output::Fresh`]. A repetition is closed at once.
    pub fn handle_fresh(&mut self, fresh: bool, random: &mut dyn Random) {
        match self.leave() {
            State::Fresh(hello) if fresh => {
                self.proven = true;
                self.proceed(hello, random);
            }
            State::Fresh(_) => self.state = State::Closed(CloseReason::Repeated),
            other => self.state = other,
        }
    }

    fn proceed(&mut self, hello: Box<Hello>, random: &mut dyn Random) {
        if hello.suite == Suite::Tls {
            let mut nonce = [0; 32];
            random.fill(&mut nonce);
            self.state = State::Export(hello, nonce);
        } else {
            self.state = State::Compute(hello);
        }
    }

    /// Answers [`Output::Compute`]: draws a key pair and agrees.
    pub fn compute(&mut self, random: &mut dyn Random) {
        let hello = match self.leave() {
            State::Compute(hello) => hello,
            other => {
                self.state = other;
                return;
            }
        };
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let agreed = ShareKey::draw(hello.suite, random)
            .and_then(|key| key.agree(hello.share()).ok().map(|shared| (key, shared)));
        match agreed {
            Some((key, shared)) => self.greet(*hello, nonce, key.public(), &Fresh::Shared(&shared)),
            None => self.state = State::Closed(CloseReason::Share),
        }
    }

    /// Sends AUTH-II.
    pub(super) fn greet(&mut self, hello: Hello, nonce: [u8; 32], share: &[u8], fresh: &Fresh<'_>) {
        let Hello { auth, suite, frame, record, shown } = hello;
        let early = Early::new(shown.as_ref().map(|(_, psk)| psk), fresh);
        let mut answer = AuthIi::Accepted { nonce, share: share.to_vec(), mac: [0; MAC_LEN] }.encode(suite);
        let mac = early.server_mac(&frame, &answer);
        let at = answer.len() - MAC_LEN;
        answer[at..].copy_from_slice(&mac);
        let schedule = early.complete(&frame, &answer);
        self.outbox = Some(answer);
        let has_certificate = self.certificate.is_some();
        let shown = shown.map(|(held, _)| held);
        let run = Run { serial: auth.serial, suite, record, shown, schedule, has_certificate };
        self.state = State::WaitEntry(Box::new(run));
    }

    /// A refusal before there is a key: a hint, and the device takes it as one (osap-wire 13.4.6).
    pub(super) fn refuse_hello(&mut self, hello: &Hello, reason: CloseReason) {
        if let Some(result) = reason.result() {
            self.refusal = Some(result);
            self.outbox = Some(AuthIi::Refused(result).encode(hello.suite));
        }
        self.state = State::Closed(reason);
    }
}
