//! Devices of the older generations, as far as authentication goes: what follows it is the same in all (osap-wire 6, 7).

use osap::lbs::frame::Frame;
use osap::lbs::message::{Apply, AuthMode, EcdhRefresh, ServiceRequest, ServiceResponse, first, g0, g1};
use osap::suite::Generation;
use osap::suite::g0::{Proof, master_key};
use osap::suite::legacy::{AgreementKey, Signature, l_cbc_open, l_cbc_seal, share_key};
use osap::{CodeCase, DevId, MasterKey, Random, SessionKey};

use crate::vectors::{code, serial};

/// What a run has given the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gained {
    pub dev_id: DevId,
    pub master_key: MasterKey,
    pub session_key: SessionKey,
}

/// One authentication of a device of G1 or G0.
pub struct OldDevice {
    generation: Generation,
    dev_id: Option<DevId>,
    state: State,
}

enum State {
    Begin,
    AuthG1(AgreementKey),
    AuthG0 { n1: u8 },
    CredentialsG1(MasterKey),
    CredentialsG0 { randoms: [u8; 3] },
    Service(Gained),
    Done(Gained),
    Failed,
}

impl OldDevice {
    /// A device that has this DevID and no master key.
    pub fn new(generation: Generation, dev_id: Option<DevId>) -> Self {
        Self { generation, dev_id, state: State::Begin }
    }

    /// What it got, when it is done.
    pub fn gained(&self) -> Option<&Gained> {
        match &self.state {
            State::Done(gained) => Some(gained),
            _ => None,
        }
    }

    pub fn waits(&self) -> bool {
        !matches!(self.state, State::Begin | State::Done(_) | State::Failed)
    }

    /// Its first frame.
    pub fn begin(&mut self, random: &mut dyn Random) -> Vec<u8> {
        let share_key = share_key(&code(), &serial(), CodeCase::Upper);
        if self.generation == Generation::G1 {
            let key = AgreementKey::draw(random);
            let sealed_key = l_cbc_seal(share_key.aes_key_g1(), key.public()).try_into().expect("a sealed key");
            self.state = State::AuthG1(key);
            return g1::AuthI { mode: AuthMode::Sap, serial: serial(), sealed_key }.encode();
        }
        let n1 = byte(random);
        self.state = State::AuthG0 { n1 };
        let proof = *Proof::of(&share_key, &serial(), &[n1]).as_bytes();
        g0::AuthI { mode: g0::Mode::Device(AuthMode::Sap), serial: serial(), n1, proof }.encode()
    }

    /// Takes an answer; what it sends next. Whatever is not right ends the attempt.
    pub fn handle_frame(&mut self, bytes: &[u8], random: &mut dyn Random) -> Option<Vec<u8>> {
        let frame = Frame::decode(bytes).expect("the server sends frames");
        match std::mem::replace(&mut self.state, State::Failed) {
            State::AuthG1(key) => self.agree(&frame, &key),
            State::AuthG0 { n1 } => self.answer(&frame, n1, random),
            State::CredentialsG1(master_key) => self.take_g1(&frame, master_key),
            State::CredentialsG0 { randoms } => self.take_g0(&frame, randoms),
            State::Service(gained) => {
                if let Ok(ServiceResponse::Assigned(_)) = ServiceResponse::decode(&frame) {
                    self.state = State::Done(gained);
                }
                None
            }
            State::Begin | State::Done(_) | State::Failed => None,
        }
    }

    fn agree(&mut self, frame: &Frame<'_>, key: &AgreementKey) -> Option<Vec<u8>> {
        let g1::AuthIi::Accepted(mut sealed) = g1::AuthIi::decode(frame).ok()? else { return None };
        let share_key = share_key(&code(), &serial(), CodeCase::Upper);
        let public = l_cbc_open(share_key.aes_key_g1(), &mut sealed).ok()?;
        let master_key = key.agree(&(&*public).try_into().ok()?).ok()?;
        let signature = *Signature::of(&master_key, &serial()).as_bytes();
        self.state = State::CredentialsG1(master_key);
        Some(match self.dev_id {
            None => Apply { signature }.encode(),
            Some(dev_id) => EcdhRefresh { dev_id: *dev_id.as_bytes(), signature }.encode(),
        })
    }

    fn take_g1(&mut self, frame: &Frame<'_>, master_key: MasterKey) -> Option<Vec<u8>> {
        let expected = if self.dev_id.is_none() { first::APPLIED } else { first::ECDH_REFRESHED };
        let g1::Credentials::Issued(mut issued) = g1::Credentials::decode(frame, expected).ok()? else { return None };
        let dev_id = l_cbc_open(master_key.as_bytes(), &mut issued.sealed_dev_id).ok()?;
        let session_key = l_cbc_open(master_key.as_bytes(), &mut issued.sealed_session_key).ok()?;
        let (dev_id, session_key) = (DevId::parse(dev_id).ok()?, SessionKey::from_bytes(session_key).ok()?);
        self.ask(Gained { dev_id, master_key, session_key })
    }

    fn answer(&mut self, frame: &Frame<'_>, n1: u8, random: &mut dyn Random) -> Option<Vec<u8>> {
        let g0::AuthIi::Accepted { n2, .. } = g0::AuthIi::decode(frame).ok()? else { return None };
        let n3 = byte(random);
        let share_key = share_key(&code(), &serial(), CodeCase::Upper);
        let proof = *Proof::of(&share_key, &serial(), &[n2, n3]).as_bytes();
        self.state = State::CredentialsG0 { randoms: [n1, n2, n3] };
        Some(match self.dev_id {
            None => g0::Create { n3, proof }.encode(),
            Some(dev_id) => g0::Keep { n3, dev_id: *dev_id.as_bytes(), proof }.encode(),
        })
    }

    fn take_g0(&mut self, frame: &Frame<'_>, [n1, n2, n3]: [u8; 3]) -> Option<Vec<u8>> {
        let share_key = share_key(&code(), &serial(), CodeCase::Upper);
        let (dev_id, n4, mut sealed) = match self.dev_id {
            Some(dev_id) => match g0::Kept::decode(frame).ok()? {
                g0::Kept::Issued { n4, sealed_session_key, .. } => (dev_id, n4, sealed_session_key),
                g0::Kept::Refused(_) => return None,
            },
            None => match g0::Created::decode(frame).ok()? {
                g0::Created::Issued { n4, mut sealed_dev_id, sealed_session_key, .. } => {
                    let master_key = master_key(&share_key, [n1, n2, n3, n4]);
                    let dev_id = l_cbc_open(master_key.as_bytes(), &mut sealed_dev_id).ok()?;
                    (DevId::parse(dev_id).ok()?, n4, sealed_session_key)
                }
                g0::Created::Refused(_) => return None,
            },
        };
        let master_key = master_key(&share_key, [n1, n2, n3, n4]);
        let session_key = SessionKey::from_bytes(l_cbc_open(master_key.as_bytes(), &mut sealed).ok()?).ok()?;
        self.ask(Gained { dev_id, master_key, session_key })
    }

    fn ask(&mut self, gained: Gained) -> Option<Vec<u8>> {
        let request = format!(r#"{{"DevSerial":"{}","Type":"DAS","Mode":0}}"#, serial());
        let sealed = l_cbc_seal(gained.session_key.as_bytes(), request.as_bytes());
        self.state = State::Service(gained);
        Some(ServiceRequest { sealed }.encode())
    }
}

fn byte(random: &mut dyn Random) -> u8 {
    let mut byte = [0];
    random.fill(&mut byte);
    byte[0]
}
