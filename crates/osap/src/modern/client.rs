//! The device's end of one connection to the LBS under a modern suite (osap-wire 13.3).
//!
//! One [`Client`] is one attempt, by one [`Way`]. It ends with [`Output::Done`] or with
//! [`Output::Failed`], whose [`Failure`] says what may be done next. What the device was given is
//! stored *before* it says so ([`Output::Store`]); nothing is stored before the LBS has proven
//! itself, and nothing is ever deleted because of a message that was not sealed.

mod failure;

pub use failure::{Advice, Failure, Trouble};

use super::message::{
    AnchorId, AuthI, AuthIi, Das, Entry, Grant, Info, Issued, MAX_ANSWER, MAX_EXTRA, MessageError, VERSION, first,
    open, seal, write_request,
};
use super::schedule::{Early, Fresh, Schedule, same};
use super::seal::Direction;
use super::secret::{Exporter, Node, Psk, TicketId};
use super::share::ShareKey;
use super::slots::{Slot, Slots, Way};
use crate::id::{DevId, Serial};
use crate::key::Code;
use crate::lbs::frame::FrameError;
use crate::lbs::message::Group;
use crate::random::Random;
use crate::result::ResultCode;
use crate::suite::Suite;

/// Who a device is, and what it may run.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its serial.
    pub serial: Serial,
    /// Its code, to enrol with over TLS.
    pub code: Option<Code>,
    /// The types it may run on this transport, the preferred one first. A mismatch answer never leads outside.
    pub suites: Vec<Suite>,
}

/// What one attempt is about.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The type to offer; one of [`Identity::suites`].
    pub suite: Suite,
    /// How to come in.
    pub way: Way,
    /// A PKCS #10 request, DER, where the device wants a certificate.
    pub csr: Option<Vec<u8>>,
}

/// Everything a device needs for the DAS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// What the device holds now; it has stored this.
    pub slots: Slots,
    /// The suite of the session.
    pub suite: Suite,
    /// Where to go.
    pub das: Das,
    /// The secret of this DAS; it stays in memory.
    pub node: Node,
    /// The certificate that was asked for, DER, leaf first; empty when there is none.
    pub certificate: Vec<Vec<u8>>,
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Call [`Client::compute`].
    Compute,
    /// Export 48 bytes of the TLS connection, [`super::server::EXPORTER_LABEL`] with the serial as the context:
    /// [`Client::handle_exporter`].
    Export,
    /// Write these bytes. Given once.
    Send(Vec<u8>),
    /// Read one complete frame, at most [`MAX_ANSWER`] bytes, and hand it to [`Client::handle_frame`].
    Read,
    /// Write this to durable storage, read it back, and call [`Client::handle_stored`].
    Store(Box<Slots>),
    /// The device has everything. Close the connection.
    Done(Box<Success>),
    /// The attempt failed. Close the connection.
    Failed(Failure),
}

/// One attempt of a device; see the [module](self).
#[derive(Debug)]
pub struct Client {
    identity: Identity,
    slots: Slots,
    attempt: Attempt,
    anchors: Option<Vec<AnchorId>>,
    state: State,
    outbox: Option<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    Begin,
    /// AUTH-I is out.
    WaitAuth(Box<Hello>),
    /// AUTH-II has come: the fresh secret is needed.
    Fresh(Box<Hello>, Vec<u8>),
    /// 0x72 or 0x42 is out.
    WaitIssued(Box<Schedule>),
    /// What was given is to be stored.
    Store(Box<Schedule>, Box<Given>),
    /// 0x92 and 0xA2 are out.
    WaitService(Box<Schedule>, Box<Given>),
    Done(Box<Success>),
    Failed(Failure),
    /// Between two states; never seen from outside.
    Moving,
}

#[derive(Debug)]
struct Hello {
    frame: Vec<u8>,
    key: Option<ShareKey>,
    psk: Option<Psk>,
}

#[derive(Debug)]
struct Given {
    slots: Slots,
    certificate: Vec<Vec<u8>>,
    anchors: Vec<Vec<u8>>,
}

impl Client {
    /// An attempt of the device `identity`, which holds `slots`.
    #[must_use]
    pub fn new(identity: Identity, slots: Slots, attempt: Attempt) -> Self {
        Self { identity, slots, attempt, anchors: None, state: State::Begin, outbox: None }
    }

    /// Says which CA certificates the device knows the platform by, and so that it takes others: the LBS may then give it
    /// some ([`Client::granted_anchors`]). To be called before the fresh secret is known.
    pub fn tell_anchors(&mut self, anchors: Vec<AnchorId>) {
        self.anchors = Some(anchors);
    }

    /// CA certificates, DER, that the LBS has given along, once it has proven that it knows the ticket or the code: to be
    /// stored with [`Output::Store`].
    #[must_use]
    pub fn granted_anchors(&self) -> &[Vec<u8>] {
        match &self.state {
            State::Store(_, given) => &given.anchors,
            _ => &[],
        }
    }

    /// What is to be done next. Everything but [`Output::Send`] is repeated until it is answered.
    pub fn poll(&mut self) -> Output {
        if let Some(bytes) = self.outbox.take() {
            return Output::Send(bytes);
        }
        match &self.state {
            State::Begin => Output::Compute,
            State::WaitAuth(_) | State::WaitIssued(_) | State::WaitService(..) => Output::Read,
            State::Fresh(hello, _) => {
                if hello.key.is_some() {
                    Output::Compute
                } else {
                    Output::Export
                }
            }
            State::Store(_, given) => Output::Store(Box::new(given.slots.clone())),
            State::Done(success) => Output::Done(success.clone()),
            State::Failed(failure) => Output::Failed(failure.clone()),
            State::Moving => Output::Failed(self.failure(Trouble::Abandoned)),
        }
    }

    fn leave(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Moving)
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        Failure { trouble, way: self.attempt.way, suite: self.attempt.suite }
    }

    fn fail(&mut self, trouble: Trouble) {
        self.state = State::Failed(self.failure(trouble));
    }

    /// Answers [`Output::Compute`]: draws what AUTH-I needs, or agrees.
    pub fn compute(&mut self, random: &mut dyn Random) {
        match self.leave() {
            State::Begin => self.begin(random),
            State::Fresh(hello, answer) => match &hello.key {
                Some(key) => match self.their_share(&answer).and_then(|share| key.agree(&share).ok()) {
                    Some(shared) => self.meet(&hello, &answer, &Fresh::Shared(&shared)),
                    None => self.fail(Trouble::Share),
                },
                None => self.state = State::Fresh(hello, answer),
            },
            other => self.state = other,
        }
    }

    /// Answers [`Output::Export`].
    pub fn handle_exporter(&mut self, exporter: &Exporter) {
        match self.leave() {
            State::Fresh(hello, answer) if hello.key.is_none() => {
                self.meet(&hello, &answer, &Fresh::Exporter(exporter));
            }
            other => self.state = other,
        }
    }

    fn may_run(&self, suite: Suite) -> bool {
        suite.is_modern() && self.identity.suites.contains(&suite)
    }

    fn info(&self) -> Info {
        Info { csr: self.attempt.csr.clone(), anchors: self.anchors.clone() }
    }

    fn begin(&mut self, random: &mut dyn Random) {
        let Attempt { suite, way, .. } = self.attempt;
        let bare = matches!(way, Way::Code | Way::Certificate);
        // The group is what the device runs on this transport; nobody may lead it to anything else.
        let types: Vec<u8> =
            self.identity.suites.iter().filter(|suite| suite.is_modern()).map(|suite| suite.protocol_type()).collect();
        let usable = self.may_run(suite) && (suite == Suite::Tls || !bare);
        // What does not fit is not sent, or the length of it would be cut off.
        let fits = self.info().encode(true).len() <= MAX_EXTRA;
        let ready = match way {
            Way::Code => self.identity.code.is_some(),
            Way::Certificate => true,
            Way::Newest | Way::Older | Way::Base => self.slots.slot(way).is_some() && self.slots.dev_id.is_some(),
        };
        let (true, Ok(group)) = (usable && ready && fits, Group::new(&types)) else {
            return self.fail(Trouble::Unusable);
        };
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let key = ShareKey::draw(suite, random);
        let auth = AuthI {
            protocol_type: suite.protocol_type(),
            group,
            nonce,
            serial: self.identity.serial.clone(),
            share: key.as_ref().map(|key| key.public().to_vec()).unwrap_or_default(),
            bound: None,
        };
        let slot = self.slots.slot(way);
        let frame = match slot {
            Some(Slot { ticket, psk }) => auth.encode_bound(*ticket, psk),
            None => auth.encode(),
        };
        let psk = slot.map(|slot| slot.psk.clone());
        self.outbox = Some(frame.clone());
        self.state = State::WaitAuth(Box::new(Hello { frame, key, psk }));
    }

    /// Takes the answer to [`Output::Read`]: exactly one frame.
    pub fn handle_frame(&mut self, bytes: &[u8]) {
        if self.outbox.is_some() {
            return;
        }
        if let Err(trouble) = self.read(bytes) {
            self.fail(trouble);
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        match self.leave() {
            State::WaitAuth(_) | State::WaitIssued(_) | State::WaitService(..) if bytes.len() > MAX_ANSWER => {
                let error = FrameError::TooLong { len: bytes.len(), max: MAX_ANSWER };
                Err(Trouble::Message(error.into()))
            }
            State::WaitAuth(hello) => match AuthIi::decode(bytes, self.attempt.suite)? {
                AuthIi::Accepted { .. } => {
                    self.state = State::Fresh(hello, bytes.to_vec());
                    Ok(())
                }
                AuthIi::Refused(result) => Err(Trouble::Hint(result)),
                AuthIi::Mismatch { protocol_type, group } => Err(Trouble::Mismatch {
                    // Never outside of what the device may run here, and never to what it has just offered.
                    instead: Suite::from_protocol_type(protocol_type)
                        .into_iter()
                        .chain(group.as_slice().iter().filter_map(|number| Suite::from_protocol_type(*number)))
                        .find(|suite| *suite != self.attempt.suite && self.may_run(*suite)),
                }),
            },
            State::WaitIssued(schedule) => self.issued(bytes, schedule),
            State::WaitService(schedule, given) => self.service(bytes, &schedule, *given),
            other => {
                self.state = other;
                Ok(())
            }
        }
    }

    fn their_share(&self, answer: &[u8]) -> Option<Vec<u8>> {
        match AuthIi::decode(answer, self.attempt.suite) {
            Ok(AuthIi::Accepted { share, .. }) => Some(share),
            _ => None,
        }
    }

    /// Checks `macS` and sends what proves the device.
    fn meet(&mut self, hello: &Hello, answer: &[u8], fresh: &Fresh<'_>) {
        let Ok(AuthIi::Accepted { mac, .. }) = AuthIi::decode(answer, self.attempt.suite) else {
            return self.fail(Trouble::Abandoned);
        };
        let schedule = Early::new(hello.psk.as_ref(), fresh).complete(&hello.frame, answer);
        if !same(&schedule.mac_s(), &mac) {
            return self.fail(Trouble::Server);
        }
        let returning = match self.attempt.way {
            Way::Code => None,
            Way::Certificate | Way::Newest | Way::Older | Way::Base => self.slots.dev_id,
        };
        let claim = match (returning, &self.identity.code) {
            (Some(dev_id), _) => dev_id.as_bytes().to_vec(),
            (None, Some(code)) if self.attempt.way == Way::Code => schedule.proof_d(code).to_vec(),
            (None, _) => Vec::new(),
        };
        let info = self.info().encode(returning.is_none());
        let text = Entry { mac: schedule.mac_d(), claim, info }.encode();
        let kind = if returning.is_some() { first::RETURN } else { first::APPLY };
        self.outbox = Some(seal(kind, &[&VERSION], &schedule.record_key(Direction::Up), 0, &text));
        self.state = State::WaitIssued(Box::new(schedule));
    }

    fn issued(&mut self, bytes: &[u8], schedule: Box<Schedule>) -> Result<(), Trouble> {
        let returning = self.attempt.way != Way::Code && self.slots.dev_id.is_some();
        let expected = if returning { first::RETURNED } else { first::APPLIED };
        let opened = open(bytes, expected, Direction::Down, &schedule.record_key(Direction::Down), 0)?;
        if opened.result != ResultCode::Success {
            return Err(refused(opened.result, &opened.text));
        }
        let Issued { dev_id, ticket, proof, grant, .. } = Issued::decode(&opened.text)?;
        if self.attempt.way != Way::Code && proof.is_some() {
            return Err(MessageError::Content.into());
        }
        if self.attempt.way == Way::Code {
            // A false LBS with a certificate the device trusts fails here.
            let code = self.identity.code.as_ref().ok_or(Trouble::Unusable)?;
            if !proof.is_some_and(|proof| same(&schedule.proof_s(code), &proof)) {
                return Err(Trouble::Server);
            }
        }
        let Grant { certificate, mut anchors } = Grant::decode(&grant)?;
        if self.attempt.way == Way::Certificate {
            // This LBS has proven itself by TLS alone: what it tells of anchors waits for a run by a secret of both.
            anchors.clear();
        }
        let new = Slot { ticket, psk: schedule.resume() };
        let slots = self.slots.with_new(self.attempt.way, dev_id, new);
        self.state = State::Store(schedule, Box::new(Given { slots, certificate, anchors }));
        Ok(())
    }

    /// Takes the answer to [`Output::Store`]: whether what was to be stored was read back. If it was not, the platform is
    /// told nothing, and the device keeps what it has.
    pub fn handle_stored(&mut self, stored: bool) {
        match self.leave() {
            State::Store(..) if !stored => self.fail(Trouble::Storage),
            State::Store(schedule, given) => {
                let key = schedule.record_key(Direction::Up);
                // Both in one write (rule 3).
                let mut both = seal(first::CONFIRM, &[&VERSION], &key, 1, &[]);
                both.extend(seal(first::SERVICE, &[&VERSION], &key, 2, &write_request(&self.identity.serial)));
                self.outbox = Some(both);
                self.state = State::WaitService(schedule, given);
            }
            other => self.state = other,
        }
    }

    fn service(&mut self, bytes: &[u8], schedule: &Schedule, given: Given) -> Result<(), Trouble> {
        let key = schedule.record_key(Direction::Down);
        let opened = open(bytes, first::SERVICE_ANSWER, Direction::Down, &key, 1)?;
        if opened.result != ResultCode::Success {
            return Err(refused(opened.result, &opened.text));
        }
        let das = Das::decode(&opened.text).map_err(|_| MessageError::Content)?;
        let node = schedule.das().node(&das.info.server_id);
        let Given { slots, certificate, .. } = given;
        self.state = State::Done(Box::new(Success { slots, suite: self.attempt.suite, das, node, certificate }));
        Ok(())
    }
}

/// A sealed result; its text is empty.
fn refused(result: ResultCode, text: &[u8]) -> Trouble {
    if text.is_empty() { Trouble::Refused(result) } else { MessageError::Content.into() }
}

/// What a ticket is made of, for tools that provision devices (rule 8).
#[must_use]
pub fn provision(random: &mut dyn Random) -> (DevId, Slot) {
    (DevId::mint(random), Slot { ticket: TicketId::draw(random), psk: Psk::draw(random) })
}
