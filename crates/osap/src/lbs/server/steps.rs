//! The cryptographic steps of the server, as functions from one state to the next.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::CloseReason;
use crate::id::DevId;
use crate::key::{Code, MasterKey, SessionKey};
use crate::lbs::message::{AuthI, AuthIi, Challenge, Credentials, Issued, RefreshI, RefreshIi};
use crate::lbs::record::{Credential, Record, Run, Slot, Stage};
use crate::random::Random;
use crate::suite::legacy::{
    AgreementKey, PUBLIC_KEY_LEN, SIGNATURE_LEN, ShareKey, Signature, l_cbc_open, l_cbc_seal, l_gcm_open, l_gcm_seal,
    share_key,
};
use crate::suite::{CodeCase, Suite};

/// An AUTH-I that the registered code has opened.
#[derive(Debug)]
pub(super) struct Opened {
    auth: AuthI,
    record: Record,
    code_case: CodeCase,
    share_key: ShareKey,
    device_key: [u8; PUBLIC_KEY_LEN],
}

/// Opens AUTH-I with the registered code, in the case the device is known to use first.
///
/// An unknown serial and a wrong code cost two derivations each (osap-wire 13.2.3).
pub(super) fn open_auth(auth: AuthI, record: Option<Record>) -> Result<Opened, CloseReason> {
    let Some(record) = record else {
        let decoy = Code::new("AAAAAA").expect("six letters are a code");
        for case in [CodeCase::Upper, CodeCase::Lower] {
            let _ = std::hint::black_box(try_case(&auth, &decoy, case));
        }
        return Err(CloseReason::UnknownSerial);
    };
    let Some(code) = &record.code else { return Err(CloseReason::CodeUnavailable) };
    let likely = record.code_case.unwrap_or_default();
    for code_case in [likely, likely.other()] {
        if let Some((share_key, device_key)) = try_case(&auth, code, code_case) {
            return Ok(Opened { auth, record, code_case, share_key, device_key });
        }
    }
    Err(CloseReason::WrongCode)
}

fn try_case(auth: &AuthI, code: &Code, case: CodeCase) -> Option<(ShareKey, [u8; PUBLIC_KEY_LEN])> {
    let share_key = share_key(code, &auth.serial, case);
    let mut device_key = auth.sealed_key;
    l_gcm_open(share_key.aes_key(), &auth.tag, &mut device_key).ok()?;
    Some((share_key, device_key))
}

/// A key agreement, and what may be handed out under it.
#[derive(Debug)]
pub(super) struct Agreement {
    record: Record,
    code_case: CodeCase,
    master_key: MasterKey,
    signature: Signature,
    session_key: SessionKey,
    fresh_dev_id: DevId,
}

/// Agrees on a master key and answers with AUTH-II.
pub(super) fn agree(opened: Opened, random: &mut dyn Random) -> Result<(Agreement, AuthIi), CloseReason> {
    let Opened { auth, record, code_case, share_key, device_key } = opened;
    let key = AgreementKey::draw(random);
    let master_key = key.agree(&device_key).map_err(|_| CloseReason::Point)?;
    let mut sealed_key = *key.public();
    let tag = l_gcm_seal(share_key.aes_key(), &mut sealed_key);
    let answer = AuthIi::Accepted { protocol_type: auth.offer.protocol_type, tag, sealed_key };
    let agreement = Agreement {
        signature: Signature::of(&master_key, &auth.serial),
        record,
        code_case,
        master_key,
        session_key: SessionKey::draw(random),
        fresh_dev_id: DevId::mint(random),
    };
    Ok((agreement, answer))
}

/// What 0x72 or 0x42 brought about.
pub(super) struct Issuing {
    pub(super) credentials: Credentials,
    pub(super) stage: Stage,
    /// What a 0x92 has to carry.
    pub(super) proof: Signature,
    pub(super) session_key: SessionKey,
}

impl Agreement {
    /// First authentication: a new DevID, unless the device has one that it has shown and nobody
    /// has allowed another (osap-wire 13.2.4).
    pub(super) fn first(self, signature: &[u8; SIGNATURE_LEN]) -> Result<Issuing, CloseReason> {
        if !self.signature.matches(signature) {
            return Err(CloseReason::Signature);
        }
        if self.record.committed.is_some() && !self.record.may_enrol_again {
            return Err(CloseReason::EnrolmentClosed);
        }
        let dev_id = self.fresh_dev_id;
        Ok(self.issue(Run::First, dev_id))
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
        let held = self.record.committed.iter().chain(&self.record.candidate);
        let mut dev_ids = held.map(|credential| credential.dev_id);
        let Some(dev_id) = dev_ids.find(|dev_id| dev_id.as_bytes() == named) else {
            return Err(CloseReason::DevIdUnknown);
        };
        Ok(self.issue(Run::EcdhRefresh, dev_id))
    }

    fn issue(self, run: Run, dev_id: DevId) -> Issuing {
        let mut sealed_dev_id = *dev_id.as_bytes();
        let mut sealed_session_key = *self.session_key.as_bytes();
        let dev_id_tag = l_gcm_seal(self.master_key.as_bytes(), &mut sealed_dev_id);
        let session_key_tag = l_gcm_seal(self.master_key.as_bytes(), &mut sealed_session_key);
        let credentials = Credentials::Issued(Issued {
            dev_id_tag,
            sealed_dev_id,
            session_key_tag,
            sealed_session_key,
            signature: *self.signature.as_bytes(),
        });
        let credential = Credential {
            suite: Suite::Legacy,
            epoch: self.record.next_epoch(),
            dev_id,
            master_key: self.master_key,
            session_key: Some(self.session_key.clone()),
        };
        Issuing {
            credentials,
            stage: Stage::Candidate { run, credential, code_case: self.code_case },
            proof: self.signature,
            session_key: self.session_key,
        }
    }
}

/// A plain refresh whose r2 is on its way.
#[derive(Debug)]
pub(super) struct Refresh {
    pub(super) stage: Stage,
    pub(super) session_key: SessionKey,
    master_key: MasterKey,
    r2: Zeroizing<u8>,
}

/// Answers 0x70: finds the credential the device names, by its DevID and then by the key that
/// opens r1. Both credentials of a device may have the same DevID.
pub(super) fn refresh(
    request: RefreshI,
    record: Option<Record>,
    random: &mut dyn Random,
) -> Result<(Refresh, RefreshIi), CloseReason> {
    let record = record.unwrap_or_default();
    let mut known = false;
    for slot in Slot::BOTH {
        let Some(credential) = record.credential(slot) else { continue };
        if credential.dev_id.as_bytes() != &request.dev_id {
            continue;
        }
        known = true;
        if let Some(r1) = open_challenge(&credential.master_key, request.challenge) {
            return Ok(answer_refresh(slot, &credential.master_key, r1, random));
        }
    }
    Err(if known { CloseReason::MasterKey } else { CloseReason::DevIdUnknown })
}

fn answer_refresh(from: Slot, master_key: &MasterKey, r1: u8, random: &mut dyn Random) -> (Refresh, RefreshIi) {
    let session_key = SessionKey::draw(random);
    let mut r2 = Zeroizing::new(0);
    random.fill(std::slice::from_mut(&mut *r2));
    let mut plaintext = Zeroizing::new([0; 18]);
    plaintext[0] = r1;
    plaintext[1] = *r2;
    plaintext[2..].copy_from_slice(session_key.as_bytes());
    let sealed = l_cbc_seal(master_key.as_bytes(), plaintext.as_slice());
    let sealed = sealed.try_into().expect("eighteen bytes seal to two blocks");
    let stage = Stage::Refreshed { from, master_key: master_key.clone(), session_key: session_key.clone() };
    let refresh = Refresh { stage, session_key, master_key: master_key.clone(), r2 };
    (refresh, RefreshIi::Issued(sealed))
}

/// The one byte of a challenge, if the key opens it to exactly one.
fn open_challenge(master_key: &MasterKey, mut challenge: Challenge) -> Option<u8> {
    match l_cbc_open(master_key.as_bytes(), &mut challenge) {
        Ok([byte]) => Some(*byte),
        _ => None,
    }
}

impl Refresh {
    /// Whether a 0x90 carries r2.
    pub(super) fn is_answered_by(&self, challenge: Challenge) -> bool {
        open_challenge(&self.master_key, challenge).is_some_and(|r2| r2.ct_eq(&self.r2).into())
    }
}
