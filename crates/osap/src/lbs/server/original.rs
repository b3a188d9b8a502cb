//! Authentication of generation G0, without key agreement (osap-wire 7).

use super::CloseReason;
use super::agreement::{Issuing, whole};
use super::code::{self, Known};
use crate::id::{DevId, Serial};
use crate::key::SessionKey;
use crate::lbs::message::g0::{AuthI, AuthIi, Create, Created, Keep, Kept};
use crate::lbs::record::{Credential, Record, Run, Stage};
use crate::random::Random;
use crate::suite::Suite;
use crate::suite::g0::{self, PROOF_LEN, Proof};
use crate::suite::legacy::l_cbc_seal;

/// A device that has shown its code by 0x10, and what may be handed out to it.
#[derive(Debug)]
pub(super) struct Greeted {
    serial: Serial,
    known: Known<()>,
    n1: u8,
    n2: u8,
    n4: u8,
    session_key: SessionKey,
    fresh_dev_id: DevId,
}

/// Checks the code behind 0x10 and answers with 0x20.
pub(super) fn greet(auth: AuthI, record: Record, random: &mut dyn Random) -> Result<(Greeted, AuthIi), CloseReason> {
    let AuthI { serial, n1, proof, .. } = auth;
    let known =
        code::find(&serial, record, |share_key| Proof::of(share_key, &serial, &[n1]).matches(&proof).then_some(()))?;
    let [n2, n4] = [random_byte(random), random_byte(random)];
    let answer = AuthIi::Accepted { n2, proof: *Proof::of(&known.share_key, &serial, &[n1, n2]).as_bytes() };
    let greeted =
        Greeted { serial, known, n1, n2, n4, session_key: SessionKey::draw(random), fresh_dev_id: DevId::mint(random) };
    Ok((greeted, answer))
}

fn random_byte(random: &mut dyn Random) -> u8 {
    let mut byte = [0];
    random.fill(&mut byte);
    byte[0]
}

impl Greeted {
    /// 0x40: a new DevID, under the rule of a first authentication (osap-wire 13.2.4).
    pub(super) fn create(self, request: &Create) -> Result<Issuing, CloseReason> {
        self.check(request.n3, &request.proof)?;
        if !self.known.record.may_enrol() {
            return Err(CloseReason::EnrolmentClosed);
        }
        let dev_id = self.fresh_dev_id;
        Ok(self.issue(request.n3, Run::First, dev_id))
    }

    /// 0x30: the device keeps the DevID it names, which has to be one of its own.
    pub(super) fn keep(self, request: &Keep) -> Result<Issuing, CloseReason> {
        self.check(request.n3, &request.proof)?;
        let dev_id = self.known.record.own_dev_id(&request.dev_id).ok_or(CloseReason::DevIdUnknown)?;
        Ok(self.issue(request.n3, Run::EcdhRefresh, dev_id))
    }

    fn check(&self, n3: u8, proof: &[u8; PROOF_LEN]) -> Result<(), CloseReason> {
        if self.proof(self.n2, n3).matches(proof) { Ok(()) } else { Err(CloseReason::Signature) }
    }

    fn proof(&self, before: u8, own: u8) -> Proof {
        Proof::of(&self.known.share_key, &self.serial, &[before, own])
    }

    fn issue(self, n3: u8, run: Run, dev_id: DevId) -> Issuing {
        let n4 = self.n4;
        let master_key = g0::master_key(&self.known.share_key, [self.n1, self.n2, n3, n4]);
        let sealed_session_key = whole(l_cbc_seal(master_key.as_bytes(), self.session_key.as_bytes()));
        let proof = *self.proof(n3, n4).as_bytes();
        let answer = if run == Run::First {
            let sealed_dev_id = whole(l_cbc_seal(master_key.as_bytes(), dev_id.as_bytes()));
            Created::Issued { n4, sealed_dev_id, sealed_session_key, proof }.encode()
        } else {
            Kept::Issued { n4, sealed_session_key, proof }.encode()
        };
        let credential = Credential {
            suite: Suite::Legacy,
            epoch: self.known.record.next_epoch(),
            dev_id,
            master_key,
            session_key: Some(self.session_key.clone()),
        };
        let stage = Stage::Candidate { run, credential, code_case: self.known.code_case };
        Issuing { answer, stage, proof: None, session_key: self.session_key }
    }
}
