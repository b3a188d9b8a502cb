//! 0x72 and 0x42: the device proves itself, by its code, its certificate or its ticket
//! (osap-wire 13.3).

use std::fmt;

use super::{Answer, Attempt, CloseReason, Run, Server, State};
use crate::id::DevId;
use crate::key::Code;
use crate::lbs::Standing;
use crate::modern::message::{self, Entry, Info, MAX_EXTRA, MessageError, first};
use crate::modern::schedule::{MAC_LEN, Mac, same};
use crate::modern::seal::Direction;
use crate::modern::ticket::Used;
use crate::random::Random;
use crate::suite::Suite;

/// A device that is in.
pub(super) struct Entered {
    /// 0x42, not 0x72.
    pub(super) returning: bool,
    pub(super) used: Used,
    pub(super) dev_id: DevId,
    /// The proof of a code that was not looked at yet.
    proof: Option<Mac>,
    pub(super) csr: Option<Vec<u8>>,
    pub(super) certificate: Vec<Vec<u8>>,
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").field("used", &self.used).field("dev_id", &self.dev_id).finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn entry(&mut self, bytes: &[u8], run: Box<Run>, random: &mut dyn Random) -> Result<(), MessageError> {
        let returning = match bytes.first() {
            // Without TLS a ticket is all that counts (13.4.3).
            Some(&first::APPLY) if run.suite == Suite::Tls => false,
            Some(&first::RETURN) => true,
            other => return Err(MessageError::OutOfOrder(other.copied().unwrap_or_default())),
        };
        let (expected, claims): (u8, &[usize]) =
            if returning { (first::RETURN, &[DevId::LEN]) } else { (first::APPLY, &[0, MAC_LEN]) };
        let key = run.schedule.record_key(Direction::Up);
        let text = message::open(bytes, expected, Direction::Up, &key, 0)?.text;
        let Entry { mac, claim, info } = Entry::decode(&text, claims)?;
        if !same(&run.schedule.mac_d(), &mac) {
            self.state = State::Closed(CloseReason::Mac);
            return Ok(());
        }
        let info = Info::decode(&info)?;
        self.held_anchors = info.anchors.clone();
        if returning {
            self.returns(run, &claim, info);
            return Ok(());
        }
        let proof: Option<Mac> = claim.try_into().ok();
        let used = if proof.is_some() { Used::Code } else { Used::Certificate };
        let dev_id = Self::mint_dev_id(&run, random);
        let entered = Entered { returning, used, dev_id, proof, csr: info.csr, certificate: Vec::new() };
        if proof.is_some() {
            self.state = State::Attempt(run, Box::new(entered));
        } else if run.has_certificate {
            self.admit(run, entered);
        } else {
            self.refuse(&run, Answer::Entry { returning }, CloseReason::NoProof);
        }
        Ok(())
    }

    fn returns(&mut self, run: Box<Run>, claim: &[u8], info: Info) {
        let answer = Answer::Entry { returning: true };
        let used = match run.shown {
            Some(held) => Used::Ticket(held),
            None if run.has_certificate => Used::Certificate,
            None => return self.refuse(&run, answer, CloseReason::NoProof),
        };
        if run.record.standing == Standing::Unknown {
            return self.refuse(&run, answer, CloseReason::UnknownSerial);
        }
        let Some(dev_id) = run.record.tickets.dev_id.filter(|dev_id| dev_id.as_bytes() == claim) else {
            return self.refuse(&run, answer, CloseReason::DevId);
        };
        let entered = Entered { returning: true, used, dev_id, proof: None, csr: info.csr, certificate: Vec::new() };
        self.admit(run, entered);
    }

    /// Takes the answer to [`Output::Attempt`](super::Output::Attempt), and looks at the code.
    ///
    /// Unknown serial, wrong code and closed window cost the same and get the same answer. So does what was looked up of
    /// the code: [`Attempt`] has no say in what is computed but for an address that is shut out as a whole.
    pub fn handle_attempt(&mut self, attempt: Attempt) {
        let (run, entered) = match self.leave() {
            State::Attempt(run, entered) => (run, entered),
            other => {
                self.state = other;
                return;
            }
        };
        let answer = Answer::Entry { returning: false };
        if attempt == Attempt::Spent {
            return self.refuse(&run, answer, CloseReason::Spent);
        }
        let none = Code::new([b'-'; 13]).expect("thirteen characters are a code");
        let proof = entered.proof.unwrap_or([0; MAC_LEN]);
        let right = same(&run.schedule.proof_d(run.record.code.as_ref().unwrap_or(&none)), &proof);
        let reason = if run.record.standing == Standing::Unknown {
            Some(CloseReason::UnknownSerial)
        } else if !right || run.record.code.is_none() {
            Some(CloseReason::WrongCode)
        } else if attempt == Attempt::Closed || !run.record.may_use_code() {
            Some(CloseReason::EnrolmentClosed)
        } else {
            None
        };
        match reason {
            Some(reason) => self.refuse(&run, answer, reason),
            None => {
                self.proven = true;
                self.admit(run, *entered);
            }
        }
    }

    /// The device is who it says it is: may it in?
    fn admit(&mut self, run: Box<Run>, entered: Entered) {
        let answer = Answer::Entry { returning: entered.returning };
        let reason = match run.record.standing {
            Standing::Unknown => Some(CloseReason::UnknownSerial),
            Standing::Disabled => Some(CloseReason::Disabled),
            Standing::Known if run.record.certificate_required && !run.has_certificate => {
                // Who never had one asks for it: on enrolling, or once it is demanded. One that was handed out and lost on the
                // way was not shown yet either.
                let asks = entered.csr.is_some() && run.record.may_ask(run.suite);
                (!asks).then_some(CloseReason::CertificateRequired)
            }
            Standing::Known => None,
        };
        if let Some(reason) = reason {
            return self.refuse(&run, answer, reason);
        }
        self.used = Some(entered.used);
        self.state = State::Assign(run, Box::new(entered));
    }

    /// Takes the answer to [`Output::Certify`](super::Output::Certify): the certificate, leaf first, or nothing when none is
    /// issued. One that does not fit a grant is left out. Of whom it is demanded comes in with one or not at all, and nothing
    /// is written then.
    pub fn handle_certificate(&mut self, certificate: Vec<Vec<u8>>) {
        match self.leave() {
            State::Certify(run, mut issuing) => {
                let grant = message::Grant { certificate, anchors: Vec::new() };
                if grant.encode().len() <= MAX_EXTRA {
                    issuing.entered.certificate = grant.certificate;
                }
                let Entered { returning, ref certificate, .. } = issuing.entered;
                if certificate.is_empty() && run.record.certificate_required && !run.has_certificate {
                    return self.refuse(&run, Answer::Entry { returning }, CloseReason::CertificateRequired);
                }
                self.state = State::Issue(run, issuing);
            }
            other => self.state = other,
        }
    }
}
