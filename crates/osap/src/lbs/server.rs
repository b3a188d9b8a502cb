//! The server's end of one LBS connection (osap-wire 5.13).
//!
//! [`Server`] is driven like this: [`poll`](Server::poll) says what is to be done next, the
//! driver does it and reports back with the method the [`Output`] names. The machine reads no
//! clock: the driver closes connections that stay silent for ten seconds (osap-wire 3.4) and
//! counts the attempts of a serial (osap-wire 13.2.3).
//!
//! ```text
//! Start ─ 0x1A ─ Lookup ─ Compute ─ Send 0x2A ─ Read ─ 0x72|0x42 ─ Send 0x82|0x62 ┐
//!   └──── 0x70 ─ Lookup ─ Send 0x80 ─ Read ─ 0x90 ───────────────────────────────┤
//!                 Done ─ Send 0xB0 ─ Stage ─ Assign ─ 0xA0 ─ Read (0x92: Stage) ──┘
//! ```
//!
//! Every refusal the protocol has a result for is sent before the connection is closed. Whatever
//! has none, such as a message out of order, closes it without an answer.

mod close;
mod steps;

pub use close::{CloseReason, Generation};

use super::das_info::{DasInfo, Request, Service};
use super::frame::Frame;
use super::message::{
    Apply, AuthI, AuthIi, Confirm, EcdhRefresh, Group, Offer, RefreshI, RefreshIii, ServiceRequest, ServiceResponse,
    first, refusal, serial_of_older_generation,
};
use super::record::{Record, Run, Stage};
use crate::id::Serial;
use crate::key::SessionKey;
use crate::random::Random;
use crate::result::ResultCode;
use crate::suite::Suite;
use crate::suite::legacy::{Signature, l_cbc_open, l_cbc_seal};
use steps::{Agreement, Opened, Refresh};

/// What a listener serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerPolicy {
    /// The suites served, the preferred one first.
    pub suites: Vec<Suite>,
    /// The longest frame accepted, header included.
    pub max_frame: usize,
}

impl ServerPolicy {
    /// The longest frame accepted before a device is known (osap-wire 5.13).
    pub const MAX_FRAME: usize = 1024;

    /// The policy of a legacy listener.
    #[must_use]
    pub fn legacy() -> Self {
        Self { suites: vec![Suite::Legacy], max_frame: Self::MAX_FRAME }
    }
}

impl Default for ServerPolicy {
    fn default() -> Self {
        Self::legacy()
    }
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Read one complete frame, at most [`Server::max_frame`] bytes, and hand it to
    /// [`Server::handle_frame`]. The stream is cut by [`super::frame::frame_len`].
    Read,
    /// Find the device and call [`Server::handle_record`], or
    /// [`Server::handle_unavailable`] when the store is down or the serial has used up its
    /// attempts. Attempts are limited only while [`Server::run`] is `None`: a device that holds
    /// a master key cannot be locked out by strangers.
    Lookup(Serial),
    /// Call [`Server::compute`], a key agreement of some hundred microseconds.
    Compute,
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

/// The server's end of one connection; see the [module](self).
///
/// A call that does not answer the last [`Output`] is ignored.
#[derive(Debug)]
pub struct Server {
    policy: ServerPolicy,
    state: State,
    outbox: Option<Vec<u8>>,
    serial: Option<Serial>,
    run: Option<Run>,
    refusal: Option<ResultCode>,
}

#[derive(Debug)]
enum State {
    /// Nothing has come yet.
    Start,
    /// AUTH-I has come: who is it?
    LookupAuth(Box<AuthI>),
    /// 0x70 has come: who is it?
    LookupRefresh(Box<RefreshI>),
    /// The code fits: agree on a master key.
    Agree(Box<Opened>),
    /// AUTH-II is out: 0x72 or 0x42 follows.
    WaitApply(Box<Agreement>),
    /// 0x80 is out: 0x90 follows.
    WaitChallenge(Box<Refresh>),
    /// The device has a session key: 0xA0 follows.
    WaitService(Box<Issue>),
    /// 0xA0 has come: which DAS?
    Assign(Box<Issue>),
    /// This is to be made durable, then `then` happens.
    Staging { stage: Box<Stage>, then: AfterStage },
    /// 0xB0 is out.
    Done,
    /// Over.
    Closed(CloseReason),
    /// Between two states; never seen from outside.
    Moving,
}

/// What a run has handed out.
#[derive(Debug)]
struct Issue {
    session_key: SessionKey,
    /// What is still to be made durable; `None` once a 0x92 has had it done.
    unstaged: Option<Unstaged>,
}

#[derive(Debug)]
struct Unstaged {
    stage: Stage,
    /// The SIG of a 0x92, where one may come.
    proof: Option<Signature>,
}

#[derive(Debug)]
enum AfterStage {
    /// 0x92 has no answer: 0xA0 follows, under this key.
    AwaitService(SessionKey),
    /// The answer to 0xA0.
    Answer(Vec<u8>),
}

impl Server {
    /// The machine of a connection that was just accepted.
    #[must_use]
    pub fn new(policy: ServerPolicy) -> Self {
        Self { policy, state: State::Start, outbox: None, serial: None, run: None, refusal: None }
    }

    /// The longest frame to be read, header included.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        self.policy.max_frame
    }

    /// Who the device says it is, once it has said so. Proven only when the run is done.
    #[must_use]
    pub fn serial(&self) -> Option<&Serial> {
        self.serial.as_ref()
    }

    /// What kind of run it is, once the device has shown it: [`Run::First`] and
    /// [`Run::EcdhRefresh`] differ only after AUTH-II.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        self.run
    }

    /// The result a refused device was sent.
    #[must_use]
    pub fn refusal(&self) -> Option<ResultCode> {
        self.refusal
    }

    /// What is to be done next. Everything but [`Output::Send`] is repeated until it is answered.
    pub fn poll(&mut self) -> Output {
        if let Some(bytes) = self.outbox.take() {
            return Output::Send(bytes);
        }
        match &self.state {
            State::Start | State::WaitApply(_) | State::WaitChallenge(_) | State::WaitService(_) => Output::Read,
            State::LookupAuth(auth) => Output::Lookup(auth.serial.clone()),
            State::LookupRefresh(refresh) => Output::Lookup(refresh.serial.clone()),
            State::Agree(_) => Output::Compute,
            State::Assign(_) => Output::Assign,
            State::Staging { stage, .. } => Output::Stage(Stage::clone(stage)),
            State::Done => Output::Done,
            State::Closed(reason) => Output::Close(*reason),
            State::Moving => Output::Close(CloseReason::Abandoned),
        }
    }

    /// Takes the answer to [`Output::Read`]: exactly one frame.
    pub fn handle_frame(&mut self, bytes: &[u8]) {
        if self.outbox.is_some() {
            return;
        }
        let state = match std::mem::replace(&mut self.state, State::Moving) {
            waiting @ (State::Start | State::WaitApply(_) | State::WaitChallenge(_) | State::WaitService(_)) => waiting,
            busy => {
                self.state = busy;
                return;
            }
        };
        if bytes.len() > self.policy.max_frame {
            let error = super::frame::FrameError::TooLong { len: bytes.len(), max: self.policy.max_frame };
            return self.close(CloseReason::Frame(error));
        }
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.close(CloseReason::Frame(error)),
        };
        match (state, frame.first) {
            (State::Start, _) => self.start(&frame),
            (State::WaitApply(agreement), first::APPLY) => self.apply(&frame, *agreement),
            (State::WaitApply(agreement), first::ECDH_REFRESH) => self.ecdh_refresh(&frame, *agreement),
            (State::WaitChallenge(refresh), first::REFRESH_III) => self.challenge(&frame, *refresh),
            (State::WaitService(issue), first::CONFIRM) => self.confirm(&frame, *issue),
            (State::WaitService(issue), first::SERVICE) => self.service(&frame, *issue),
            (_, other) => self.close(CloseReason::OutOfOrder(other)),
        }
    }

    /// Takes the answer to [`Output::Lookup`]: the device, or `None` for an unknown serial.
    ///
    /// An unknown serial costs the same work as a wrong code and gets the same answer.
    pub fn handle_record(&mut self, record: Option<Record>, random: &mut dyn Random) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::LookupAuth(auth) => match steps::open_auth(*auth, record) {
                Ok(opened) => self.state = State::Agree(Box::new(opened)),
                Err(reason) => self.refuse(first::AUTH_II, reason),
            },
            State::LookupRefresh(request) => match steps::refresh(*request, record, random) {
                Ok((refresh, answer)) => {
                    self.outbox = Some(answer.encode());
                    self.state = State::WaitChallenge(Box::new(refresh));
                }
                Err(reason) => self.refuse(first::REFRESH_II, reason),
            },
            other => self.state = other,
        }
    }

    /// Takes the answer to [`Output::Lookup`] or [`Output::Stage`] when the store is down, or the
    /// serial has used up its attempts: result 6.
    pub fn handle_unavailable(&mut self) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::LookupAuth(_) => self.refuse(first::AUTH_II, CloseReason::StoreUnavailable),
            State::LookupRefresh(_) => self.refuse(first::REFRESH_II, CloseReason::StoreUnavailable),
            State::Staging { then: AfterStage::Answer(_), .. } => {
                self.refuse(first::SERVICE_ANSWER, CloseReason::StoreUnavailable);
            }
            // 0x92 has no answer: it is tried again at 0xA0, which has one.
            State::Staging { stage, then: AfterStage::AwaitService(session_key) } => {
                let unstaged = Some(Unstaged { stage: *stage, proof: None });
                self.state = State::WaitService(Box::new(Issue { session_key, unstaged }));
            }
            other => self.state = other,
        }
    }

    /// Answers [`Output::Compute`]: draws a key pair, agrees on a master key, draws what may be
    /// handed out.
    pub fn compute(&mut self, random: &mut dyn Random) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Agree(opened) => match steps::agree(*opened, random) {
                Ok((agreement, answer)) => {
                    self.outbox = Some(answer.encode());
                    self.state = State::WaitApply(Box::new(agreement));
                }
                Err(reason) => self.refuse(first::AUTH_II, reason),
            },
            other => self.state = other,
        }
    }

    /// Takes the answer to [`Output::Stage`]: it is durable.
    pub fn handle_staged(&mut self) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Staging { then: AfterStage::Answer(answer), .. } => self.finish(answer),
            State::Staging { then: AfterStage::AwaitService(session_key), .. } => {
                self.state = State::WaitService(Box::new(Issue { session_key, unstaged: None }));
            }
            other => self.state = other,
        }
    }

    /// Takes the answer to [`Output::Assign`]; `None`, and a DAS no device can hold, is result 9.
    pub fn handle_das(&mut self, das: Option<DasInfo>) {
        let issue = match std::mem::replace(&mut self.state, State::Moving) {
            State::Assign(issue) => issue,
            other => {
                self.state = other;
                return;
            }
        };
        let Some(das) = das else {
            return self.refuse(first::SERVICE_ANSWER, CloseReason::NoDas);
        };
        let text = match das.encode() {
            Ok(text) => text,
            Err(error) => return self.refuse(first::SERVICE_ANSWER, CloseReason::DasUnusable(error)),
        };
        let sealed = l_cbc_seal(issue.session_key.as_bytes(), &text);
        let answer = ServiceResponse::Assigned(sealed).encode();
        match issue.unstaged {
            Some(Unstaged { stage, .. }) => {
                self.state = State::Staging { stage: Box::new(stage), then: AfterStage::Answer(answer) };
            }
            None => self.finish(answer),
        }
    }

    /// The first frame tells the generation (osap-wire 8).
    fn start(&mut self, frame: &Frame<'_>) {
        match frame.first {
            first::AUTH_I => self.auth(frame),
            first::REFRESH_I => match RefreshI::decode(frame) {
                Ok(refresh) => {
                    self.serial = Some(refresh.serial.clone());
                    self.run = Some(Run::PlainRefresh);
                    self.state = State::LookupRefresh(Box::new(refresh));
                }
                Err(error) => self.close(CloseReason::Message(error)),
            },
            first::AUTH_I_G1 => self.older_generation(frame, Generation::G1),
            first::AUTH_I_G0 => self.older_generation(frame, Generation::G0),
            first::STUN => self.close(CloseReason::StunRefresh),
            first::SECRET_KEY => self.refuse(first::SECRET_KEY, CloseReason::SecretKey),
            other => self.close(CloseReason::OutOfOrder(other)),
        }
    }

    fn older_generation(&mut self, frame: &Frame<'_>, generation: Generation) {
        self.serial = serial_of_older_generation(frame);
        self.close(CloseReason::Generation(generation));
    }

    fn auth(&mut self, frame: &Frame<'_>) {
        let offer = match Offer::decode(frame) {
            Ok(offer) => offer,
            Err(error) => return self.close(CloseReason::Message(error)),
        };
        let Some(choice) = self.choose(&offer) else {
            return self.close(CloseReason::NothingServed);
        };
        if choice.protocol_type() != offer.protocol_type {
            return self.mismatch(offer.protocol_type, choice);
        }
        match AuthI::decode(frame) {
            Ok(auth) => {
                self.serial = Some(auth.serial.clone());
                self.state = State::LookupAuth(Box::new(auth));
            }
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    /// The first suite of ours that the device supports, else our first one; `None` when the
    /// policy is empty.
    fn choose(&self, offer: &Offer) -> Option<Suite> {
        let supported = |suite: &Suite| {
            let number = suite.protocol_type();
            offer.protocol_type == number || offer.group.contains(number)
        };
        self.policy.suites.iter().copied().find(supported).or(self.policy.suites.first().copied())
    }

    /// Says which types are served instead, and closes (osap-wire 5.10).
    fn mismatch(&mut self, offered: u8, choice: Suite) {
        let served: Vec<u8> = self.policy.suites.iter().map(|suite| suite.protocol_type()).collect();
        let answer = AuthIi::Mismatch { protocol_type: choice.protocol_type(), group: Group::new(&served).ok() };
        self.refusal = Some(ResultCode::InvalidData);
        self.outbox = Some(answer.encode());
        self.close(CloseReason::Mismatch { offered });
    }

    fn apply(&mut self, frame: &Frame<'_>, agreement: Agreement) {
        self.run = Some(Run::First);
        match Apply::decode(frame) {
            Ok(apply) => self.issue(first::APPLIED, agreement.first(&apply.signature)),
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn ecdh_refresh(&mut self, frame: &Frame<'_>, agreement: Agreement) {
        self.run = Some(Run::EcdhRefresh);
        match EcdhRefresh::decode(frame) {
            Ok(refresh) => {
                let issued = agreement.refresh(&refresh.dev_id, &refresh.signature);
                self.issue(first::ECDH_REFRESHED, issued);
            }
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    fn issue(&mut self, answer: u8, issued: Result<steps::Issuing, CloseReason>) {
        match issued {
            Ok(issuing) => {
                self.outbox = Some(issuing.credentials.encode(answer));
                let unstaged = Unstaged { stage: issuing.stage, proof: Some(issuing.proof) };
                let issue = Issue { session_key: issuing.session_key, unstaged: Some(unstaged) };
                self.state = State::WaitService(Box::new(issue));
            }
            Err(reason) => self.refuse(answer, reason),
        }
    }

    /// A wrong r2 has no result: 0x90 is never answered.
    fn challenge(&mut self, frame: &Frame<'_>, refresh: Refresh) {
        match RefreshIii::decode(frame) {
            Ok(message) if refresh.is_answered_by(message.challenge) => {
                let Refresh { stage, session_key, .. } = refresh;
                let unstaged = Some(Unstaged { stage, proof: None });
                self.state = State::WaitService(Box::new(Issue { session_key, unstaged }));
            }
            Ok(_) => self.close(CloseReason::Challenge),
            Err(error) => self.close(CloseReason::Message(error)),
        }
    }

    /// 0x92, where a run has issued something that was not confirmed yet.
    fn confirm(&mut self, frame: &Frame<'_>, issue: Issue) {
        let message = match Confirm::decode(frame) {
            Ok(message) => message,
            Err(error) => return self.close(CloseReason::Message(error)),
        };
        match issue.unstaged {
            Some(Unstaged { stage: Stage::Candidate { run, credential, code_case }, proof: Some(proof) }) => {
                if !proof.matches(&message.signature) {
                    return self.close(CloseReason::Signature);
                }
                let stage = Box::new(Stage::Confirmed { run, credential, code_case });
                self.state = State::Staging { stage, then: AfterStage::AwaitService(issue.session_key) };
            }
            _ => self.close(CloseReason::OutOfOrder(frame.first)),
        }
    }

    fn service(&mut self, frame: &Frame<'_>, issue: Issue) {
        let mut sealed = match ServiceRequest::decode(frame) {
            Ok(message) => message.sealed,
            Err(error) => return self.close(CloseReason::Message(error)),
        };
        let request = match l_cbc_open(issue.session_key.as_bytes(), &mut sealed) {
            Ok(text) => Request::decode(text).ok(),
            Err(_) => None,
        };
        let Some(request) = request else {
            return self.close(CloseReason::ServiceRequest);
        };
        if self.serial.as_ref().is_none_or(|serial| serial.as_str() != request.serial) {
            return self.close(CloseReason::ServiceRequest);
        }
        match request.service {
            Service::Das => self.state = State::Assign(Box::new(issue)),
            Service::Stun => self.refuse(first::SERVICE_ANSWER, CloseReason::Stun),
            Service::Other => self.refuse(first::SERVICE_ANSWER, CloseReason::UnknownService),
        }
    }

    fn finish(&mut self, answer: Vec<u8>) {
        self.outbox = Some(answer);
        self.state = State::Done;
    }

    /// Sends the result that belongs to `reason` in a response that begins with `answer`.
    fn refuse(&mut self, answer: u8, reason: CloseReason) {
        if let Some(result) = reason.result() {
            self.refusal = Some(result);
            self.outbox = Some(if answer == first::AUTH_II {
                // Only the type that was offered gets as far as a refusal.
                AuthIi::Refused { protocol_type: Suite::Legacy.protocol_type(), result }.encode()
            } else {
                refusal(answer, result)
            });
        }
        self.close(reason);
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closed(reason);
    }
}
