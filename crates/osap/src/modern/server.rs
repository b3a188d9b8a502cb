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

pub use close::CloseReason;

use zeroize::Zeroizing;

use super::message::{
    self, AnchorId, Das, Grant, Issued, MAX_AUTH_I, MAX_ENTRY, MAX_EXTRA, MessageError, VERSION, first,
};
use super::schedule::{Fresh, Mac, Schedule};
use super::seal::Direction;
use super::secret::{Exporter, TicketId};
use super::ticket::{Held, Stage, Ticket, Tickets, Used};
use crate::id::{DevId, Serial};
use crate::key::Code;
use crate::lbs::Standing;
use crate::lbs::frame::FrameError;
use crate::random::Random;
use crate::result::ResultCode;
use crate::suite::Suite;
use entry::Entered;
use hello::Hello;

/// The exporter label of a run at the LBS; the context is the serial.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-osap2-lbs";

/// What a listener serves, and what it hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The suites usable on this transport, the preferred one first: type 4 over TLS, 16 and 8 over plain TCP.
    pub suites: Vec<Suite>,
    /// How long a ticket is accepted, in seconds; 0: without end.
    pub ticket_lifetime_s: u32,
}

impl Policy {
    /// One year: a ticket has to outlast a device that lies in a store room (rule 6).
    pub const TICKET_LIFETIME_S: u32 = 365 * 86_400;

    /// The policy of a TLS listener.
    #[must_use]
    pub fn tls() -> Self {
        Self { suites: vec![Suite::Tls], ticket_lifetime_s: Self::TICKET_LIFETIME_S }
    }

    /// The policy of a plain listener that serves these suites, as far as they are for plain TCP.
    #[must_use]
    pub fn plain(mut suites: Vec<Suite>) -> Self {
        suites.retain(|suite| matches!(suite, Suite::X25519 | Suite::P384));
        Self { suites, ticket_lifetime_s: Self::TICKET_LIFETIME_S }
    }
}

/// A device as the machine needs it.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Whether it may get in at all; of an unknown one the rest is made up.
    pub standing: Standing,
    /// Its code; `None` when it has none, or it was spent.
    pub code: Option<Code>,
    /// Its identity and its tickets.
    pub tickets: Tickets,
    /// An operator has opened an enrolment window.
    pub window: bool,
    /// A device whose enrolment is over may enrol again with a long code.
    pub may_enrol_again: bool,
    /// It has to show a certificate. As long as it never has, and in a window, it may ask for one instead: it comes in with
    /// the run in which it is granted.
    pub certificate_required: bool,
    /// It has shown one before, in a run that came to its end.
    pub certified: bool,
    /// It may come over TLS alone.
    pub tls_only: bool,
}

impl Record {
    /// Whether the device may come in without a certificate that is demanded, if it is granted one in this run. Without TLS it
    /// could not show it.
    fn may_ask(&self, suite: Suite) -> bool {
        suite == Suite::Tls && (self.window || !self.certified)
    }

    /// Whether this code may enrol the device now, if it is proven.
    fn may_use_code(&self) -> bool {
        let long = self.code.as_ref().is_some_and(Code::is_long);
        self.window || (long && (!self.tickets.confirmed || self.may_enrol_again))
    }
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Read one complete frame, at most [`Server::max_frame`] bytes, and hand it to [`Server::handle_frame`].
    Read,
    /// Find the device and call [`Server::handle_record`], or [`Server::handle_unavailable`].
    Lookup(Serial),
    /// Whether this ticket has shown this nonce among its last 64: [`Server::handle_fresh`].
    Fresh {
        /// The ticket, whose binder was right.
        ticket: TicketId,
        /// The nonce of AUTH-I.
        nonce: [u8; 32],
    },
    /// Call [`Server::compute`], an agreement; or [`Server::handle_unavailable`] when too many wait for theirs.
    Compute,
    /// Export 48 bytes of the TLS connection, [`EXPORTER_LABEL`] with this serial as the context:
    /// [`Server::handle_exporter`].
    Export(Serial),
    /// A code is about to be looked at: [`Server::handle_attempt`].
    Attempt {
        /// It is one that can be guessed: it is looked at within a window alone, and a wrong one counts against that.
        short: bool,
    },
    /// The device asks for a certificate with this PKCS #10 request: [`Server::handle_certificate`].
    Certify(Vec<u8>),
    /// Choose a DAS and call [`Server::handle_das`].
    Assign,
    /// Make this durable and call [`Server::handle_staged`], or [`Server::handle_unavailable`].
    Stage(Stage),
    /// Write these bytes, in one piece. Given once.
    Send(Vec<u8>),
    /// The device has everything; it closes the connection.
    Done,
    /// Close the connection.
    Close(CloseReason),
}

/// What the driver says of a code that is about to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It may be looked at.
    Go,
    /// The window has closed since the record was read, or its last wrong code was used up: what a wrong code gets.
    Closed,
    /// The address has sent too many wrong ones: sealed result 6, and nothing is computed. Never because of a budget of
    /// the serial, or the answer would tell that there is one.
    Spent,
}

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

#[derive(Debug)]
enum State {
    Start,
    Lookup(Box<Hello>),
    Fresh(Box<Hello>),
    /// Types 8 and 16: agree.
    Compute(Box<Hello>),
    /// Type 4: the exporter.
    Export(Box<Hello>, [u8; 32]),
    /// 0x2A is out: 0x72 or 0x42 follows.
    WaitEntry(Box<Run>),
    /// The proof of a code has come.
    Attempt(Box<Run>, Box<Entered>),
    /// A certificate was asked for.
    Certify(Box<Run>, Box<Issuing>),
    /// Which DAS?
    Assign(Box<Run>, Box<Entered>),
    /// The ticket is to be durable.
    Issue(Box<Run>, Box<Issuing>),
    /// 0x82 or 0x62 is out: 0x92 follows.
    WaitStored(Box<Run>, Box<Session>),
    /// It has come.
    Confirm(Box<Run>, Box<Session>),
    /// 0xA2 follows.
    WaitService(Box<Run>, Box<Session>),
    /// The session at the DAS is to be durable.
    Session(Box<Run>, Box<Session>),
    Done,
    Closed(CloseReason),
    /// Between two states; never seen from outside.
    Moving,
}

/// What a run knows from AUTH-II on.
#[derive(Debug)]
struct Run {
    serial: Serial,
    suite: Suite,
    record: Record,
    /// The ticket that was shown, and whose binder was right.
    shown: Option<Held>,
    schedule: Schedule,
    has_certificate: bool,
}

/// What is to be sent once it is durable.
#[derive(Debug)]
struct Issuing {
    entered: Entered,
    das: Das,
    ticket: Ticket,
}

/// What leads to the DAS.
#[derive(Debug)]
struct Session {
    das: Das,
    used: Used,
    /// What was handed out.
    ticket: TicketId,
    rev: u64,
    /// 0x92 was stored.
    confirmed: bool,
    /// 0x92 came and was not stored, for this reason.
    failed: Option<CloseReason>,
}

/// Which answer a refusal belongs into.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Entry { returning: bool },
    Service,
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
