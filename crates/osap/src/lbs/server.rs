//! The server's end of one LBS connection (osap-wire 5.13).
//!
//! [`Server`] is driven like this: [`poll`](Server::poll) says what is to be done next, the
//! driver does it and reports back with the method the [`Output`] names. The machine reads no
//! clock: the driver closes connections that stay silent for ten seconds (osap-wire 3.4) and
//! counts the attempts of a serial (osap-wire 13.2.3).
//!
//! ```text
//! Start ─ 0x1A|0x12 ─ Lookup ─ Compute ─ Send 0x2A|0x22 ─ Read ─ 0x72|0x42 ─ Send 0x82|0x62 ┐
//!   ├──── 0x10 ────── Lookup ─────────── Send 0x20 ────── Read ─ 0x40|0x30 ─ Send 0x60|0x50 ┤
//!   └──── 0x70|0xC0 ─ Lookup ─────────── Send 0x80|0xD0 ─ Read ─ 0x90|0xE0 ─────────────────┤
//!                           Done ─ Send 0xB0 ─ Stage ─ Assign ─ 0xA0 ─ Read (0x92: Stage) ──┘
//! ```
//!
//! The first byte tells the generation (osap-wire 8), and each keeps to its own row: G2 and G1 the
//! first, G0 the second, all of them the third. A refresh for STUN (0xC0) ends at 0xA0.
//!
//! Every refusal the protocol has a result for is sent before the connection is closed. Whatever
//! has none, such as a message out of order, closes it without an answer.

mod agreement;
mod close;
mod code;
mod frames;
mod original;
mod refresh;

pub use close::CloseReason;

use super::das_info::DasInfo;
use super::message::{AuthIi, Purpose, RefreshI, ServiceResponse, first, g0, refusal};
use super::record::{Record, Run, Stage};
use crate::id::Serial;
use crate::key::SessionKey;
use crate::random::Random;
use crate::result::ResultCode;
use crate::suite::legacy::{PUBLIC_KEY_LEN, Signature, l_cbc_seal};
use crate::suite::{Generation, Suite};
use agreement::{Agreement, Hello, Opened};
use original::Greeted;
use refresh::Refresh;

/// What a listener serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerPolicy {
    /// The suites served, the preferred one first. [`Suite::Legacy`] is G2 and G1.
    pub suites: Vec<Suite>,
    /// Whether [`Suite::Legacy`] is generation G0 too. Its master key has the entropy of the code:
    /// who listens to one authentication and guesses the code has every key that follows.
    pub g0: bool,
    /// The longest frame accepted, header included.
    pub max_frame: usize,
}

impl ServerPolicy {
    /// The longest frame accepted before a device is known (osap-wire 5.13).
    pub const MAX_FRAME: usize = 1024;

    /// The policy of a legacy listener: G2 and G1.
    #[must_use]
    pub fn legacy() -> Self {
        Self { suites: vec![Suite::Legacy], g0: false, max_frame: Self::MAX_FRAME }
    }

    /// Whether devices of a generation are served.
    fn serves(&self, generation: Generation) -> bool {
        self.suites.contains(&Suite::Legacy) && (generation != Generation::G0 || self.g0)
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
    /// Call [`Server::compute`], a key agreement of some hundred microseconds; or
    /// [`Server::handle_unavailable`] when too many wait for theirs already.
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
    generation: Option<Generation>,
    run: Option<Run>,
    refusal: Option<ResultCode>,
}

#[derive(Debug)]
enum State {
    /// Nothing has come yet.
    Start,
    /// AUTH-I of G2 or G1 has come: who is it?
    LookupHello(Box<Hello>),
    /// AUTH-I of G0 has come: who is it?
    LookupOriginal(Box<g0::AuthI>),
    /// The first step of a refresh has come: who is it?
    LookupRefresh(Box<RefreshI>, Purpose),
    /// The code fits: agree on a master key.
    Agree(Box<Opened>),
    /// 0x2A or 0x22 is out: 0x72 or 0x42 follows.
    WaitApply(Box<Agreement>),
    /// 0x20 is out: 0x40 or 0x30 follows.
    WaitOriginal(Box<Greeted>),
    /// 0x80 or 0xD0 is out: 0x90 or 0xE0 follows.
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
    purpose: Purpose,
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
        Self { policy, state: State::Start, outbox: None, serial: None, generation: None, run: None, refusal: None }
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

    /// Whether the device has proven who it is on this connection: under a key that was agreed on here, or by the answer to a
    /// challenge. A first message, which anybody may have recorded, is no proof.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        matches!(self.state, State::WaitService(_) | State::Assign(_) | State::Staging { .. } | State::Done)
    }

    /// The generation of an authentication, once the device has shown it; a plain refresh is the
    /// same in all.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// What kind of run it is, once the device has shown it: [`Run::First`] and
    /// [`Run::EcdhRefresh`] differ only after AUTH-II.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        self.run
    }

    /// The public key of the device, while its key agreement is to be computed.
    #[must_use]
    pub fn device_key(&self) -> Option<&[u8; PUBLIC_KEY_LEN]> {
        match &self.state {
            State::Agree(opened) => Some(opened.device_key()),
            _ => None,
        }
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
            State::Start
            | State::WaitApply(_)
            | State::WaitOriginal(_)
            | State::WaitChallenge(_)
            | State::WaitService(_) => Output::Read,
            State::LookupHello(hello) => Output::Lookup(hello.serial().clone()),
            State::LookupOriginal(auth) => Output::Lookup(auth.serial.clone()),
            State::LookupRefresh(refresh, _) => Output::Lookup(refresh.serial.clone()),
            State::Agree(_) => Output::Compute,
            State::Assign(_) => Output::Assign,
            State::Staging { stage, .. } => Output::Stage(Stage::clone(stage)),
            State::Done => Output::Done,
            State::Closed(reason) => Output::Close(*reason),
            State::Moving => Output::Close(CloseReason::Abandoned),
        }
    }

    /// Takes the answer to [`Output::Lookup`]: the device, or the [decoy](super::Decoy) of an unknown serial.
    ///
    /// Both cost the same work, and a wrong code gets the same answer as an unknown serial.
    pub fn handle_record(&mut self, record: Record, random: &mut dyn Random) {
        if record.modern {
            let answer = match &self.state {
                State::LookupHello(hello) => hello.answer(),
                State::LookupOriginal(_) => first::AUTH_II_G0,
                State::LookupRefresh(_, purpose) => purpose.firsts()[1],
                _ => return,
            };
            return self.refuse(answer, CloseReason::ModernDevice);
        }
        match std::mem::replace(&mut self.state, State::Moving) {
            State::LookupHello(hello) => {
                let answer = hello.answer();
                match hello.open(record) {
                    Ok(opened) => self.state = State::Agree(Box::new(opened)),
                    Err(reason) => self.refuse(answer, reason),
                }
            }
            State::LookupOriginal(auth) => match original::greet(*auth, record, random) {
                Ok((greeted, answer)) => {
                    self.outbox = Some(answer.encode());
                    self.state = State::WaitOriginal(Box::new(greeted));
                }
                Err(reason) => self.refuse(first::AUTH_II_G0, reason),
            },
            State::LookupRefresh(request, purpose) => match refresh::refresh(&request, purpose, record, random) {
                Ok((refresh, answer)) => {
                    self.outbox = Some(answer.encode(purpose));
                    self.state = State::WaitChallenge(Box::new(refresh));
                }
                Err(reason) => self.refuse(purpose.firsts()[1], reason),
            },
            other => self.state = other,
        }
    }

    /// Takes the answer to [`Output::Lookup`] or [`Output::Stage`] when the store is down, or the
    /// serial has used up its attempts, and to [`Output::Compute`] when too many wait for it:
    /// result 6.
    pub fn handle_unavailable(&mut self) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::LookupHello(hello) => self.refuse(hello.answer(), CloseReason::StoreUnavailable),
            State::LookupOriginal(_) => self.refuse(first::AUTH_II_G0, CloseReason::StoreUnavailable),
            State::LookupRefresh(_, purpose) => self.refuse(purpose.firsts()[1], CloseReason::StoreUnavailable),
            State::Agree(opened) => self.refuse(opened.answer(), CloseReason::StoreUnavailable),
            State::Staging { then: AfterStage::Answer(_), .. } => {
                self.refuse(first::SERVICE_ANSWER, CloseReason::StoreUnavailable);
            }
            // 0x92 has no answer: it is tried again at 0xA0, which has one.
            State::Staging { stage, then: AfterStage::AwaitService(session_key) } => {
                let unstaged = Some(Unstaged { stage: *stage, proof: None });
                self.state = State::WaitService(Box::new(Issue { purpose: Purpose::Das, session_key, unstaged }));
            }
            other => self.state = other,
        }
    }

    /// Takes back a refusal that was not sent yet: result 6 instead. For who finds then that the store is down, and would
    /// tell by the refusal that he did not have to ask it (osap-wire 13.2.3).
    pub fn withhold_refusal(&mut self) {
        if self.refusal.is_some()
            && let Some(answer) = self.outbox.take().and_then(|refusal| refusal.first().copied())
        {
            self.refuse(answer, CloseReason::StoreUnavailable);
        }
    }

    /// Answers [`Output::Compute`]: draws a key pair, agrees on a master key, draws what may be
    /// handed out.
    pub fn compute(&mut self, random: &mut dyn Random) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Agree(opened) => {
                let answer_to = opened.answer();
                match opened.agree(random) {
                    Ok((agreement, answer)) => {
                        self.outbox = Some(answer);
                        self.state = State::WaitApply(Box::new(agreement));
                    }
                    Err(reason) => self.refuse(answer_to, reason),
                }
            }
            other => self.state = other,
        }
    }

    /// Takes the answer to [`Output::Stage`]: it is durable.
    pub fn handle_staged(&mut self) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Staging { then: AfterStage::Answer(answer), .. } => self.finish(answer),
            State::Staging { then: AfterStage::AwaitService(session_key), .. } => {
                self.state = State::WaitService(Box::new(Issue { purpose: Purpose::Das, session_key, unstaged: None }));
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
