//! The device's end of one LBS connection (osap-wire 5.12).
//!
//! One [`Client`] is one attempt on one connection. What the device has stored decides the run;
//! the machine ends with [`Output::Done`], after which the device stores what it got, or with
//! [`Output::Failed`], whose [`Reaction`] says what to change for the next attempt. Nothing of a
//! failed attempt is kept: the answer that would have completed it may have been lost, and the
//! server accepts the old credentials until the new ones were shown (osap-wire 5.5).

mod failure;

use zeroize::Zeroizing;

pub use failure::{Failure, Reaction, Trouble};

use super::das_info::{DasInfo, Request};
use super::frame::Frame;
use super::message::{
    Apply, AuthI, AuthIi, AuthMode, Credentials, EcdhRefresh, Group, Issued, Offer, Purpose, RefreshI, RefreshIi,
    RefreshIii, ServiceRequest, ServiceResponse, first,
};
use super::record::Run;
use crate::id::{DevId, Serial};
use crate::key::{Code, MasterKey, SessionKey};
use crate::random::Random;
use crate::suite::legacy::{
    AgreementKey, PUBLIC_KEY_LEN, ShareKey, Signature, l_cbc_open, l_cbc_seal, l_gcm_open, l_gcm_seal, share_key,
};
use crate::suite::{CodeCase, Suite};

/// The longest frame a client accepts, header included (osap-wire 3.4).
pub const MAX_FRAME: usize = 16 * 1024;

/// What a device is born with.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its serial.
    pub serial: Serial,
    /// Its verification code or licence.
    pub code: Code,
    /// How the two are to be read.
    pub mode: AuthMode,
    /// The protocol types to announce. The one that is run is [`Suite::Legacy`].
    pub group: Group,
}

impl Identity {
    /// A device with a printed code that supports the legacy suite alone.
    #[must_use]
    pub fn new(serial: Serial, code: Code) -> Self {
        let group = Group::new(&[Suite::Legacy.protocol_type()]).expect("one type fits a group");
        Self { serial, code, mode: AuthMode::Sap, group }
    }
}

/// What a device has stored; it decides the run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stored {
    /// Nothing: first authentication.
    #[default]
    Nothing,
    /// A DevID without a master key: ECDH refresh.
    DevId(DevId),
    /// Both: plain refresh.
    Both {
        /// The identity.
        dev_id: DevId,
        /// The key that goes with it.
        master_key: MasterKey,
    },
}

impl Stored {
    /// The run this leads to.
    #[must_use]
    pub fn run(&self) -> Run {
        match self {
            Self::Nothing => Run::First,
            Self::DevId(_) => Run::EcdhRefresh,
            Self::Both { .. } => Run::PlainRefresh,
        }
    }
}

/// Everything a device needs for the DAS, and what it stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// To be stored.
    pub dev_id: DevId,
    /// To be stored.
    pub master_key: MasterKey,
    /// For this session only; it stays in memory.
    pub session_key: SessionKey,
    /// Where to go.
    pub das: DasInfo,
    /// The run that led here.
    pub run: Run,
    /// The case of the code that worked, to be used next time.
    pub case: CodeCase,
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Call [`Client::compute`].
    Compute,
    /// Write these bytes. Given once.
    Send(Vec<u8>),
    /// Read one complete frame, at most [`MAX_FRAME`] bytes, and hand it to
    /// [`Client::handle_frame`].
    Read,
    /// The device has everything. Close the connection.
    Done(Success),
    /// The attempt failed. Close the connection.
    Failed(Failure),
}

/// One attempt of a device; see the [module](self).
#[derive(Debug)]
pub struct Client {
    identity: Identity,
    case: CodeCase,
    run: Run,
    state: State,
    outbox: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    /// Draw what the first message needs.
    Begin(Stored),
    /// AUTH-I is out.
    WaitAuth(Box<Hello>),
    /// AUTH-II has come: agree.
    Agree(Box<Hello>, Box<[u8; PUBLIC_KEY_LEN]>),
    /// 0x72 or 0x42 is out.
    WaitCredentials { master_key: MasterKey, signature: Signature },
    /// 0x70 is out.
    WaitRefresh { dev_id: DevId, master_key: MasterKey, r1: u8 },
    /// 0xA0 is out.
    WaitService(Box<Issue>),
    /// Over.
    Done(Box<Success>),
    /// Over.
    Failed(Failure),
}

#[derive(Debug)]
struct Hello {
    key: AgreementKey,
    share_key: ShareKey,
    dev_id: Option<DevId>,
}

#[derive(Debug)]
struct Issue {
    dev_id: DevId,
    master_key: MasterKey,
    session_key: SessionKey,
}

impl Client {
    /// An attempt of the device `identity`, which has `stored`, with its code in the given case.
    #[must_use]
    pub fn new(identity: Identity, stored: Stored, case: CodeCase) -> Self {
        Self { identity, case, run: stored.run(), state: State::Begin(stored), outbox: Vec::new() }
    }

    /// The run of this attempt.
    #[must_use]
    pub fn run(&self) -> Run {
        self.run
    }

    /// What is to be done next. Everything but [`Output::Send`] is repeated until it is answered.
    pub fn poll(&mut self) -> Output {
        if !self.outbox.is_empty() {
            return Output::Send(self.outbox.remove(0));
        }
        match &self.state {
            State::Begin(_) | State::Agree(..) => Output::Compute,
            State::WaitAuth(_) | State::WaitCredentials { .. } | State::WaitRefresh { .. } | State::WaitService(_) => {
                Output::Read
            }
            State::Done(success) => Output::Done(Success::clone(success)),
            State::Failed(failure) => Output::Failed(failure.clone()),
        }
    }

    /// Answers [`Output::Compute`].
    pub fn compute(&mut self, random: &mut dyn Random) {
        match self.leave() {
            State::Begin(Stored::Both { dev_id, master_key }) => {
                self.begin_refresh(dev_id, master_key, random);
            }
            State::Begin(Stored::DevId(dev_id)) => self.begin_auth(Some(dev_id), random),
            State::Begin(Stored::Nothing) => self.begin_auth(None, random),
            State::Agree(hello, server_key) => self.agree(*hello, &server_key),
            other => self.state = other,
        }
    }

    /// Takes the answer to [`Output::Read`]: exactly one frame.
    pub fn handle_frame(&mut self, bytes: &[u8]) {
        if self.poll_is_read() {
            let result = match Frame::decode(bytes) {
                _ if bytes.len() > MAX_FRAME => {
                    let error = super::frame::FrameError::TooLong { len: bytes.len(), max: MAX_FRAME };
                    Err(Trouble::Frame(error))
                }
                Ok(frame) => self.read(&frame),
                Err(error) => Err(Trouble::Frame(error)),
            };
            if let Err(trouble) = result {
                self.state = State::Failed(Failure::new(trouble, self.run, self.case, &self.identity.group));
            }
        }
    }

    fn poll_is_read(&self) -> bool {
        self.outbox.is_empty()
            && matches!(
                self.state,
                State::WaitAuth(_) | State::WaitCredentials { .. } | State::WaitRefresh { .. } | State::WaitService(_)
            )
    }

    /// Takes the state to move on from. What is left in its place shows only if a step panics.
    fn leave(&mut self) -> State {
        let abandoned = Failure::new(Trouble::Abandoned, self.run, self.case, &self.identity.group);
        std::mem::replace(&mut self.state, State::Failed(abandoned))
    }

    fn begin_auth(&mut self, dev_id: Option<DevId>, random: &mut dyn Random) {
        let share_key = share_key(&self.identity.code, &self.identity.serial, self.case);
        let key = AgreementKey::draw(random);
        let mut sealed_key = *key.public();
        let tag = l_gcm_seal(share_key.aes_key(), &mut sealed_key);
        let auth = AuthI {
            offer: Offer { protocol_type: Suite::Legacy.protocol_type(), group: self.identity.group },
            mode: self.identity.mode,
            serial: self.identity.serial.clone(),
            tag,
            sealed_key,
        };
        self.outbox.push(auth.encode());
        self.state = State::WaitAuth(Box::new(Hello { key, share_key, dev_id }));
    }

    fn begin_refresh(&mut self, dev_id: DevId, master_key: MasterKey, random: &mut dyn Random) {
        let mut r1 = [0];
        random.fill(&mut r1);
        let refresh = RefreshI {
            serial: self.identity.serial.clone(),
            dev_id: *dev_id.as_bytes(),
            challenge: seal_challenge(&master_key, r1[0]),
        };
        self.outbox.push(refresh.encode(Purpose::Das));
        self.state = State::WaitRefresh { dev_id, master_key, r1: r1[0] };
    }

    fn agree(&mut self, hello: Hello, server_key: &[u8; PUBLIC_KEY_LEN]) {
        let Ok(master_key) = hello.key.agree(server_key) else {
            let failure = Failure::new(Trouble::Point, self.run, self.case, &self.identity.group);
            self.state = State::Failed(failure);
            return;
        };
        let signature = Signature::of(&master_key, &self.identity.serial);
        self.outbox.push(match hello.dev_id {
            None => Apply { signature: *signature.as_bytes() }.encode(),
            Some(dev_id) => EcdhRefresh { dev_id: *dev_id.as_bytes(), signature: *signature.as_bytes() }.encode(),
        });
        self.state = State::WaitCredentials { master_key, signature };
    }

    fn read(&mut self, frame: &Frame<'_>) -> Result<(), Trouble> {
        match self.leave() {
            State::WaitAuth(hello) => self.auth(frame, hello),
            State::WaitCredentials { master_key, signature } => self.credentials(frame, master_key, &signature),
            State::WaitRefresh { dev_id, master_key, r1 } => self.refreshed(frame, dev_id, master_key, r1),
            State::WaitService(issue) => self.service(frame, *issue),
            other => {
                self.state = other;
                Ok(())
            }
        }
    }

    fn auth(&mut self, frame: &Frame<'_>, hello: Box<Hello>) -> Result<(), Trouble> {
        match AuthIi::decode(frame, Suite::Legacy.protocol_type())? {
            AuthIi::Accepted { tag, mut sealed_key, .. } => {
                l_gcm_open(hello.share_key.aes_key(), &tag, &mut sealed_key).map_err(|_| Trouble::Undecryptable)?;
                self.state = State::Agree(hello, Box::new(sealed_key));
                Ok(())
            }
            AuthIi::Refused { result, .. } => Err(Trouble::Refused(result)),
            AuthIi::Mismatch { protocol_type, group } => Err(Trouble::Mismatch { protocol_type, group }),
        }
    }

    fn credentials(&mut self, frame: &Frame<'_>, master_key: MasterKey, signature: &Signature) -> Result<(), Trouble> {
        let expected = if self.run == Run::First { first::APPLIED } else { first::ECDH_REFRESHED };
        let Issued { dev_id_tag, mut sealed_dev_id, session_key_tag, sealed_session_key, signature: theirs } =
            match Credentials::decode(frame, expected)? {
                Credentials::Issued(issued) => issued,
                Credentials::Refused(result) => return Err(Trouble::Refused(result)),
            };
        if !signature.matches(&theirs) {
            return Err(Trouble::Signature);
        }
        let key = master_key.as_bytes();
        l_gcm_open(key, &dev_id_tag, &mut sealed_dev_id).map_err(|_| Trouble::Undecryptable)?;
        let mut opened_session_key = Zeroizing::new(sealed_session_key);
        l_gcm_open(key, &session_key_tag, &mut *opened_session_key).map_err(|_| Trouble::Undecryptable)?;
        let dev_id = DevId::parse(&sealed_dev_id).map_err(|_| Trouble::DevId)?;
        let session_key = SessionKey::from_bytes(&*opened_session_key).map_err(|_| Trouble::Undecryptable)?;
        self.ask_for_service(Issue { dev_id, master_key, session_key });
        Ok(())
    }

    /// 0x80 is answered with two frames at once; the server checks the first before it honours
    /// the second.
    fn refreshed(&mut self, frame: &Frame<'_>, dev_id: DevId, master_key: MasterKey, r1: u8) -> Result<(), Trouble> {
        let mut sealed = match RefreshIi::decode(frame, Purpose::Das)? {
            RefreshIi::Issued(sealed) => Zeroizing::new(sealed),
            RefreshIi::Refused(result) => return Err(Trouble::Refused(result)),
        };
        let plaintext = l_cbc_open(master_key.as_bytes(), &mut *sealed).map_err(|_| Trouble::Undecryptable)?;
        let [ours, r2, session_key @ ..] = &*plaintext else { return Err(Trouble::Undecryptable) };
        if *ours != r1 {
            return Err(Trouble::Challenge);
        }
        let session_key = SessionKey::from_bytes(session_key).map_err(|_| Trouble::Undecryptable)?;
        let challenge = seal_challenge(&master_key, *r2);
        self.outbox.push(RefreshIii { challenge }.encode(Purpose::Das));
        self.ask_for_service(Issue { dev_id, master_key, session_key });
        Ok(())
    }

    fn ask_for_service(&mut self, issue: Issue) {
        let text = Request::encode(&self.identity.serial);
        let sealed = l_cbc_seal(issue.session_key.as_bytes(), &text);
        self.outbox.push(ServiceRequest { sealed }.encode());
        self.state = State::WaitService(Box::new(issue));
    }

    fn service(&mut self, frame: &Frame<'_>, issue: Issue) -> Result<(), Trouble> {
        let mut sealed = match ServiceResponse::decode(frame)? {
            ServiceResponse::Assigned(sealed) => sealed,
            ServiceResponse::Refused(result) => return Err(Trouble::Refused(result)),
        };
        let text = l_cbc_open(issue.session_key.as_bytes(), &mut sealed).map_err(|_| Trouble::Undecryptable)?;
        let das = DasInfo::decode(text)?;
        let Issue { dev_id, master_key, session_key } = issue;
        let (run, case) = (self.run, self.case);
        self.state = State::Done(Box::new(Success { dev_id, master_key, session_key, das, run, case }));
        Ok(())
    }
}

fn seal_challenge(master_key: &MasterKey, byte: u8) -> [u8; 16] {
    l_cbc_seal(master_key.as_bytes(), &[byte]).try_into().expect("one byte seals to one block")
}
