//! Authentication by key agreement, generations G2 and G1: from AUTH-I to what a device is given.

use super::CloseReason;
use super::code::{self, Known};
use crate::id::{DevId, Serial};
use crate::key::{MasterKey, SessionKey};
use crate::lbs::message::{AuthI, AuthIi, Credentials, Issued, first, g1};
use crate::lbs::record::{Credential, Record, Run, Stage};
use crate::random::Random;
use crate::suite::legacy::{
    AgreementKey, PUBLIC_KEY_LEN, SIGNATURE_LEN, ShareKey, Signature, l_cbc_open, l_cbc_seal, l_gcm_open, l_gcm_seal,
};
use crate::suite::{CodeCase, Suite};

/// An AUTH-I that asks for a key agreement.
#[derive(Debug)]
pub(super) enum Hello {
    G1(g1::AuthI),
    G2(AuthI),
}

/// How the two generations seal; the messages differ in nothing else.
#[derive(Debug, Clone, Copy)]
enum Sealing {
    /// G1: L-CBC, under S1 in authentication.
    Cbc,
    /// G2: L-GCM, under S2 in authentication.
    Gcm,
}

impl Hello {
    pub(super) fn serial(&self) -> &Serial {
        match self {
            Self::G1(auth) => &auth.serial,
            Self::G2(auth) => &auth.serial,
        }
    }

    /// First byte of the answer.
    pub(super) fn answer(&self) -> u8 {
        match self {
            Self::G1(_) => first::AUTH_II_G1,
            Self::G2(_) => first::AUTH_II,
        }
    }

    /// The device's public key, if it opens.
    fn device_key(&self, share_key: &ShareKey) -> Option<[u8; PUBLIC_KEY_LEN]> {
        match self {
            Self::G1(auth) => {
                let mut sealed = auth.sealed_key;
                let key = l_cbc_open(share_key.aes_key_g1(), &mut sealed).ok()?;
                // Fifteen bytes of padding: a wrong key gets here once in 2^120.
                <[u8; PUBLIC_KEY_LEN]>::try_from(&*key).ok()
            }
            Self::G2(auth) => {
                let mut key = auth.sealed_key;
                l_gcm_open(share_key.aes_key(), &auth.tag, &mut key).ok()?;
                Some(key)
            }
        }
    }

    /// Opens the message with the registered code.
    pub(super) fn open(self, record: Record) -> Result<Opened, CloseReason> {
        let known = code::find(self.serial(), record, |share_key| self.device_key(share_key))?;
        let (serial, sealing) = match self {
            Self::G1(auth) => (auth.serial, Sealing::Cbc),
            Self::G2(auth) => (auth.serial, Sealing::Gcm),
        };
        Ok(Opened { serial, sealing, known })
    }
}

/// An AUTH-I that the registered code has opened.
#[derive(Debug)]
pub(super) struct Opened {
    serial: Serial,
    sealing: Sealing,
    known: Known<[u8; PUBLIC_KEY_LEN]>,
}

impl Opened {
    /// First byte of the answer.
    pub(super) fn answer(&self) -> u8 {
        match self.sealing {
            Sealing::Cbc => first::AUTH_II_G1,
            Sealing::Gcm => first::AUTH_II,
        }
    }

    pub(super) fn device_key(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.known.opened
    }

    /// Agrees on a master key and answers with AUTH-II.
    pub(super) fn agree(self, random: &mut dyn Random) -> Result<(Agreement, Vec<u8>), CloseReason> {
        let Opened { serial, sealing, known: Known { record, code_case, share_key, opened: device_key } } = self;
        let key = AgreementKey::draw(random);
        let master_key = key.agree(&device_key).map_err(|_| CloseReason::Point)?;
        let answer = match sealing {
            Sealing::Cbc => {
                let sealed = l_cbc_seal(share_key.aes_key_g1(), key.public());
                g1::AuthIi::Accepted(whole(sealed)).encode()
            }
            Sealing::Gcm => {
                let mut sealed_key = *key.public();
                let tag = l_gcm_seal(share_key.aes_key(), &mut sealed_key);
                AuthIi::Accepted { protocol_type: Suite::Legacy.protocol_type(), tag, sealed_key }.encode()
            }
        };
        let agreement = Agreement {
            signature: Signature::of(&master_key, &serial),
            record,
            code_case,
            sealing,
            master_key,
            session_key: SessionKey::draw(random),
            fresh_dev_id: DevId::mint(random),
        };
        Ok((agreement, answer))
    }
}

/// A key agreement, and what may be handed out under it.
#[derive(Debug)]
pub(super) struct Agreement {
    record: Record,
    code_case: CodeCase,
    sealing: Sealing,
    master_key: MasterKey,
    signature: Signature,
    session_key: SessionKey,
    fresh_dev_id: DevId,
}

/// What a device was given by an authentication.
pub(super) struct Issuing {
    /// The frame that gives it.
    pub(super) answer: Vec<u8>,
    pub(super) stage: Stage,
    /// What a 0x92 has to carry; there is none in generation G0.
    pub(super) proof: Option<Signature>,
    pub(super) session_key: SessionKey,
}

impl Agreement {
    /// First authentication: a new DevID, unless the device has one that it has shown and nobody
    /// has allowed another (osap-wire 13.2.4).
    pub(super) fn first(self, signature: &[u8; SIGNATURE_LEN]) -> Result<Issuing, CloseReason> {
        if !self.signature.matches(signature) {
            return Err(CloseReason::Signature);
        }
        if !self.record.may_enrol() {
            return Err(CloseReason::EnrolmentClosed);
        }
        let dev_id = self.fresh_dev_id;
        Ok(self.issue(first::APPLIED, Run::First, dev_id))
    }

    /// Refresh of the master key: the device keeps the DevID it names, which has to be one of its
    /// own.
    pub(super) fn refresh(
        self,
        named: &[u8; DevId::LEN],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<Issuing, CloseReason> {
        if !self.signature.matches(signature) {
            return Err(CloseReason::Signature);
        }
        let dev_id = self.record.own_dev_id(named).ok_or(CloseReason::DevIdUnknown)?;
        Ok(self.issue(first::ECDH_REFRESHED, Run::EcdhRefresh, dev_id))
    }

    fn issue(self, answer: u8, run: Run, dev_id: DevId) -> Issuing {
        let master_key = self.master_key.as_bytes();
        let signature = *self.signature.as_bytes();
        let answer = match self.sealing {
            Sealing::Cbc => {
                let sealed_dev_id = whole(l_cbc_seal(master_key, dev_id.as_bytes()));
                let sealed_session_key = whole(l_cbc_seal(master_key, self.session_key.as_bytes()));
                g1::Credentials::Issued(g1::Issued { sealed_dev_id, sealed_session_key, signature }).encode(answer)
            }
            Sealing::Gcm => {
                let mut sealed_dev_id = *dev_id.as_bytes();
                let mut sealed_session_key = *self.session_key.as_bytes();
                let dev_id_tag = l_gcm_seal(master_key, &mut sealed_dev_id);
                let session_key_tag = l_gcm_seal(master_key, &mut sealed_session_key);
                let issued = Issued { dev_id_tag, sealed_dev_id, session_key_tag, sealed_session_key, signature };
                Credentials::Issued(issued).encode(answer)
            }
        };
        let credential = Credential {
            suite: Suite::Legacy,
            epoch: self.record.next_epoch(),
            dev_id,
            master_key: self.master_key,
            session_key: Some(self.session_key.clone()),
        };
        Issuing {
            answer,
            stage: Stage::Candidate { run, credential, code_case: self.code_case },
            proof: Some(self.signature),
            session_key: self.session_key,
        }
    }
}

/// An L-CBC ciphertext of a plaintext of known length.
pub(super) fn whole<const N: usize>(sealed: Vec<u8>) -> [u8; N] {
    sealed.try_into().expect("the length of a ciphertext follows from that of its plaintext")
}
