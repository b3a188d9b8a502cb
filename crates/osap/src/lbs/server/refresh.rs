//! The plain refresh, in all generations (osap-wire 5.7).

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::CloseReason;
use super::agreement::whole;
use crate::key::{MasterKey, SessionKey};
use crate::lbs::message::{Challenge, Purpose, RefreshI, RefreshIi};
use crate::lbs::record::{Record, Slot, Stage, Standing};
use crate::random::Random;
use crate::suite::legacy::{l_cbc_open, l_cbc_seal};

/// A plain refresh whose r2 is on its way.
#[derive(Debug)]
pub(super) struct Refresh {
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
    pub(super) session_key: SessionKey,
    master_key: MasterKey,
    r2: Zeroizing<u8>,
}

/// Answers the first step: finds the credential the device names, by its DevID and then by the
/// key that opens r1. Both credentials of a device may have the same DevID.
pub(super) fn refresh(
    request: &RefreshI,
    purpose: Purpose,
    record: Record,
    random: &mut dyn Random,
) -> Result<(Refresh, RefreshIi), CloseReason> {
    let mut known = false;
    for slot in Slot::BOTH {
        let Some(credential) = record.credential(slot) else { continue };
        if credential.dev_id.as_bytes() != &request.dev_id {
            continue;
        }
        if record.standing == Standing::Disabled {
            // It forgets nothing of what it needs to come back, and who does not know the DevID is told what all are.
            return Err(CloseReason::ShutOut);
        }
        known = true;
        if let Some(r1) = open_challenge(&credential.master_key, request.challenge) {
            return Ok(answer(slot, &credential.master_key, r1, purpose, random));
        }
    }
    Err(if known { CloseReason::MasterKey } else { CloseReason::DevIdUnknown })
}

fn answer(
    from: Slot,
    master_key: &MasterKey,
    r1: u8,
    purpose: Purpose,
    random: &mut dyn Random,
) -> (Refresh, RefreshIi) {
    let session_key = SessionKey::draw(random);
    let mut r2 = Zeroizing::new(0);
    random.fill(std::slice::from_mut(&mut *r2));
    let mut plaintext = Zeroizing::new([0; 18]);
    plaintext[0] = r1;
    plaintext[1] = *r2;
    plaintext[2..].copy_from_slice(session_key.as_bytes());
    let sealed = whole(l_cbc_seal(master_key.as_bytes(), plaintext.as_slice()));
    let stage = Stage::Refreshed { from, master_key: master_key.clone(), session_key: session_key.clone() };
    let refresh = Refresh { purpose, stage, session_key, master_key: master_key.clone(), r2 };
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
    /// Whether the third step carries r2.
    pub(super) fn is_answered_by(&self, challenge: Challenge) -> bool {
        open_challenge(&self.master_key, challenge).is_some_and(|r2| r2.ct_eq(&self.r2).into())
    }
}
