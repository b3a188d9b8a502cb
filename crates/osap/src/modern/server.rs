//! The LBS's end of one connection under a modern suite (osap-wire 13.3).
//!
//! [`Server::poll`] says what is to be done next, the driver does it and reports back with the
//! method the [`Output`] names. No clock is read: the driver closes a run that takes more than 30 s,
//! and counts what strangers get wrong.
//!
//! ```text
//! Read 0x1A ─ Lookup ─ [ticket: Fresh] ─ Compute (8, 16) | Export (4) ─ Send 0x2A
//! Read 0x72|0x42 ─ [code: Attempt] ─ Assign ─ [csr: Certify] ─ Stage Issue ─ Send 0x82|0x62
//! Read 0x92 ─ Stage Confirm ─ Read 0xA2 ─ Stage Session ─ Send 0xB2 ─ Done
//! ```
//!
//! The order of checks on AUTH-I is that of the specification: ticket, serial, end, binder, nonce,
//! and only then an agreement. So a flood costs two HMACs a frame.

mod close;
mod entry;
mod hello;
mod output;
mod policy;
mod record;
mod state;

pub use close::CloseReason;
pub use output::{Attempt, Output};
pub use policy::Policy;
pub use record::Record;

use zeroize::Zeroizing;

use super::message::{
    self, AnchorId, Das, Grant, Issued, MAX_AUTH_I, MAX_ENTRY, MAX_EXTRA, MessageError, VERSION, first,
};
use super::schedule::{Fresh, Mac, Schedule};
use super::seal::Direction;
use super::secret::{Exporter, TicketId};
use super::ticket::{Stage, Ticket, Used};
use crate::id::{DevId, Serial};
use crate::key::Code;
use crate::lbs::frame::FrameError;
use crate::random::Random;
use crate::result::ResultCode;
use crate::suite::Suite;
use state::{Answer, Issuing, Run, Session, State};

/// The exporter label of a run at the LBS; the context is the serial.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-osap2-lbs";

/// The server's end of one connection; see the [module](self).
///
/// A call that does not answer the last [`Output`] is ignored.
#[derive(Debug)]
pub struct Server {
    policy: Policy,
    /// The serial of the device certificate that the TLS handshake has verified.
    certificate: Option<String>,
    state: State,
    outbox: Option<Vec<u8>>,
    serial: Option<Serial>,
    suite: Option<Suite>,
    used: Option<Used>,
    /// A ticket, a certificate or a code has proven the device.
    proven: bool,
    refusal: Option<ResultCode>,
    held_anchors: Option<Vec<AnchorId>>,
    /// To be given along.
    anchors: Vec<Vec<u8>>,
    now: i64,
}

impl Server {
    /// The machine of a connection that was just accepted. `certificate` is the serial in the device certificate that the
    /// TLS handshake has verified.
    #[must_use]
    pub fn new(policy: Policy, certificate: Option<String>) -> Self {
        Self {
            policy,
            certificate,
            state: State::Start,
            outbox: None,
            serial: None,
            suite: None,
            used: None,
            proven: false,
            refusal: None,
            held_anchors: None,
            anchors: Vec::new(),
            now: 0,
        }
    }

    /// The longest frame to be read, header included.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        if matches!(self.state, State::WaitEntry(_)) { MAX_ENTRY } else { MAX_AUTH_I }
    }

    /// Who the device says it is, once it has said so.
    #[must_use]
    pub fn serial(&self) -> Option<&Serial> {
        self.serial.as_ref()
    }

    /// The suite that is run, once AUTH-I has come.
    #[must_use]
    pub fn suite(&self) -> Option<Suite> {
        self.suite
    }

    /// What has proven the device, once something has.
    #[must_use]
    pub fn used(&self) -> Option<Used> {
        self.used
    }

    /// Whether the device has proven who it is, by a ticket whose binder was right and whose nonce was new, a certificate
    /// or its code: no limit that strangers can fill applies to it any more, and what goes wrong from here on is no
    /// stranger's doing. Once it is so, it stays so to the end of the connection.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Why the connection is to be closed, once that is decided; the answer that says so may still have to be sent.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        match &self.state {
            State::Closed(reason) => Some(*reason),
            _ => None,
        }
    }

    /// The result a refused device was sent.
    #[must_use]
    pub fn refusal(&self) -> Option<ResultCode> {
        self.refusal
    }

    /// What the device says it knows the platform by, from [`Output::Assign`] on; `None` when it says nothing of it, and would
    /// take nothing.
    #[must_use]
    pub fn held_anchors(&self) -> Option<&[AnchorId]> {
        self.held_anchors.as_deref()
    }

    /// CA certificates, DER, that the device is to know the platform by, the newest first. They go along with what it is
    /// issued, so that nobody else can tell it of any, and as far as they fit. To be called before the answer to
    /// [`Output::Assign`].
    pub fn tell_anchors(&mut self, anchors: Vec<Vec<u8>>) {
        self.anchors = anchors;
    }

    /// The public key of the device, while its agreement is to be computed.
    #[must_use]
    pub fn device_share(&self) -> Option<&[u8]> {
        match &self.state {
            State::Compute(hello) => Some(hello.share()),
            _ => None,
        }
    }

    /// What is to be done next. Everything but [`Output::Send`] is repeated until it is answered.
    pub fn poll(&mut self) -> Output {
        if let Some(bytes) = self.outbox.take() {
            return Output::Send(bytes);
        }
        match &self.state {
            State::Start | State::WaitEntry(_) | State::WaitStored(..) | State::WaitService(..) => Output::Read,
            State::Lookup(hello) => Output::Lookup(hello.serial().clone()),
            State::Fresh(hello) => hello.fresh(),
            State::Compute(_) => Output::Compute,
            State::Export(hello, _) => Output::Export(hello.serial().clone()),
            State::Attempt(run, _) => Output::Attempt { short: !run.record.code.as_ref().is_some_and(Code::is_long) },
            State::Certify(_, issuing) => Output::Certify(issuing.entered.csr.clone().unwrap_or_default()),
            State::Assign(..) => Output::Assign,
            State::Issue(run, issuing) => Output::Stage(Stage::Issue {
                rev: run.record.tickets.rev,
                used: issuing.entered.used,
                over: run.record.tickets.next.as_ref().map(|next| next.id),
                dev_id: issuing.entered.dev_id,
                ticket: issuing.ticket.clone(),
            }),
            State::Confirm(_, session) => Output::Stage(Stage::Confirm { used: session.used, ticket: session.ticket }),
            State::Session(run, session) => Output::Stage(session.stage(&run.schedule)),
            State::Done => Output::Done,
            State::Closed(reason) => Output::Close(*reason),
            State::Moving => Output::Close(CloseReason::Abandoned),
        }
    }

    fn leave(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Moving)
    }

    /// Takes the answer to [`Output::Read`]: exactly one frame.
    pub fn handle_frame(&mut self, bytes: &[u8], random: &mut dyn Random) {
        if self.outbox.is_some() {
            return;
        }
        let max = self.max_frame();
        let taken = match self.leave() {
            State::Start | State::WaitEntry(_) | State::WaitStored(..) | State::WaitService(..)
                if bytes.len() > max =>
            {
                Err(FrameError::TooLong { len: bytes.len(), max }.into())
            }
            State::Start => self.auth_i(bytes),
            State::WaitEntry(run) => self.entry(bytes, run, random),
            State::WaitStored(run, session) => self.stored_or_service(bytes, run, session),
            State::WaitService(run, session) => self.service(bytes, run, session),
            other => {
                self.state = other;
                Ok(())
            }
        };
        if let Err(error) = taken {
            self.state = State::Closed(CloseReason::Message(error));
        }
    }

    /// 0x92 has no answer; 0xA2 before it is out of order.
    fn stored_or_service(&mut self, bytes: &[u8], run: Box<Run>, session: Box<Session>) -> Result<(), MessageError> {
        if bytes.first() == Some(&first::SERVICE) {
            // Its counter is that of its position, whether 0x92 came or not.
            return self.service(bytes, run, session);
        }
        let key = run.schedule.record_key(Direction::Up);
        if !message::open(bytes, first::CONFIRM, Direction::Up, &key, 1)?.text.is_empty() {
            return Err(MessageError::Content);
        }
        self.state = State::Confirm(run, session);
        Ok(())
    }

    fn service(&mut self, bytes: &[u8], run: Box<Run>, session: Box<Session>) -> Result<(), MessageError> {
        let key = run.schedule.record_key(Direction::Up);
        let opened = message::open(bytes, first::SERVICE, Direction::Up, &key, 2)?;
        if !message::read_request(&opened.text, &run.serial) {
            return Err(MessageError::Content);
        }
        if let Some(reason) = session.failed {
            self.refuse(&run, Answer::Service, reason);
        } else if !session.confirmed {
            self.refuse(&run, Answer::Service, CloseReason::NotStored);
        } else {
            self.state = State::Session(run, session);
        }
        Ok(())
    }

    /// Takes the answer to [`Output::Assign`]; `None`, and a DAS no device can hold, is sealed result 9. Nothing is written
    /// then, or every retry of an outage would wear the device's flash.
    pub fn handle_das(&mut self, das: Option<Das>, random: &mut dyn Random) {
        let (run, entered) = match self.leave() {
            State::Assign(run, entered) => (run, entered),
            other => {
                self.state = other;
                return;
            }
        };
        let refused = match &das {
            None => Some(CloseReason::NoDas),
            Some(das) => das.encode().err().map(CloseReason::DasUnusable),
        };
        let (Some(das), None) = (das, refused) else {
            let answer = Answer::Entry { returning: entered.returning };
            return self.refuse(&run, answer, refused.unwrap_or(CloseReason::NoDas));
        };
        let lifetime = self.policy.ticket_lifetime_s;
        let ticket = Ticket {
            id: TicketId::draw(random),
            psk: run.schedule.resume(),
            expires: (lifetime > 0).then(|| self.now.saturating_add(i64::from(lifetime) * 1_000)),
        };
        // A certificate is issued once there is a place to go to, or every retry of an outage would have another.
        let issuing = Box::new(Issuing { entered: *entered, das, ticket });
        self.state =
            if issuing.entered.csr.is_some() { State::Certify(run, issuing) } else { State::Issue(run, issuing) };
    }

    /// Takes the answer to [`Output::Stage`]: it is durable.
    pub fn handle_staged(&mut self) {
        match self.leave() {
            State::Issue(run, issuing) => self.issued(run, *issuing),
            State::Confirm(run, mut session) => {
                session.confirmed = true;
                self.state = State::WaitService(run, session);
            }
            State::Session(run, session) => {
                let text = session.das.encode().expect("it was encoded when it was chosen");
                let key = run.schedule.record_key(Direction::Down);
                let head: [&[u8]; 2] = [&VERSION, &[0]];
                self.outbox = Some(message::seal(first::SERVICE_ANSWER, &head, &key, 1, &text));
                self.state = State::Done;
            }
            other => self.state = other,
        }
    }

    /// Takes the answer to [`Output::Stage`] when another run of the device came first, or the record holds the ticket of
    /// this one no more: sealed result 6.
    pub fn handle_outrun(&mut self) {
        self.not_staged(CloseReason::Outrun);
    }

    /// Takes the answer to [`Output::Lookup`], [`Output::Fresh`] or [`Output::Stage`] when the store is down, and to
    /// [`Output::Compute`] when too many wait: result 6, sealed where there is a key.
    pub fn handle_unavailable(&mut self) {
        self.not_staged(CloseReason::StoreUnavailable);
    }

    fn not_staged(&mut self, reason: CloseReason) {
        match self.leave() {
            State::Lookup(hello) | State::Fresh(hello) | State::Compute(hello) => self.refuse_hello(&hello, reason),
            State::Issue(run, issuing) => {
                self.refuse(&run, Answer::Entry { returning: issuing.entered.returning }, reason);
            }
            // 0x92 has no answer; 0xA2 has.
            State::Confirm(run, mut session) => {
                session.failed = Some(reason);
                self.state = State::WaitService(run, session);
            }
            State::Session(run, _) => self.refuse(&run, Answer::Service, reason),
            other => self.state = other,
        }
    }

    fn issued(&mut self, run: Box<Run>, issuing: Issuing) {
        let Issuing { entered, das, ticket } = issuing;
        let proof: Option<Mac> = match (entered.used, &run.record.code) {
            (Used::Code, Some(code)) => Some(run.schedule.proof_s(code)),
            _ => None,
        };
        let issued = Issued {
            dev_id: entered.dev_id,
            lifetime_s: self.policy.ticket_lifetime_s,
            ticket: ticket.id,
            proof,
            grant: Grant { certificate: entered.certificate, anchors: std::mem::take(&mut self.anchors) }
                .within(MAX_EXTRA)
                .encode(),
        };
        let answer = if entered.returning { first::RETURNED } else { first::APPLIED };
        let key = run.schedule.record_key(Direction::Down);
        let text: Zeroizing<Vec<u8>> = issued.encode();
        self.outbox = Some(message::seal(answer, &[&VERSION, &[0]], &key, 0, &text));
        let rev = run.record.tickets.rev + 1;
        let session = Session { das, used: entered.used, ticket: ticket.id, rev, confirmed: false, failed: None };
        self.state = State::WaitStored(run, Box::new(session));
    }

    /// A sealed refusal: an empty text under the key, so that the code is authentic.
    fn refuse(&mut self, run: &Run, answer: Answer, reason: CloseReason) {
        if let Some(result) = reason.result() {
            let (first, counter) = match answer {
                Answer::Entry { returning: true } => (first::RETURNED, 0),
                Answer::Entry { returning: false } => (first::APPLIED, 0),
                Answer::Service => (first::SERVICE_ANSWER, 1),
            };
            let key = run.schedule.record_key(Direction::Down);
            let head: [&[u8]; 2] = [&VERSION, &[result.into()]];
            self.outbox = Some(message::seal(first, &head, &key, counter, &[]));
            self.refusal = Some(result);
        }
        self.state = State::Closed(reason);
    }

    fn mint_dev_id(run: &Run, random: &mut dyn Random) -> DevId {
        // Who enrols again keeps its DevID.
        run.record.tickets.dev_id.unwrap_or_else(|| DevId::mint(random))
    }
}

impl Session {
    fn stage(&self, schedule: &Schedule) -> Stage {
        let server_id = self.das.info.server_id.clone();
        Stage::Session {
            rev: self.rev,
            node: schedule.das().node(&server_id),
            server_id,
            bind: self.das.bind && self.das.tls_port.is_some(),
            expires_in: self.das.expires_in,
        }
    }
}

impl Server {
    /// Takes the answer to [`Output::Export`].
    pub fn handle_exporter(&mut self, exporter: &Exporter) {
        match self.leave() {
            State::Export(hello, nonce) => self.greet(*hello, nonce, &[], &Fresh::Exporter(exporter)),
            other => self.state = other,
        }
    }
}
