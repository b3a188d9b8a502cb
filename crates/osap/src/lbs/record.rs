//! What the platform knows of a device, and what a run wants it to keep (osap-wire 5.5).
//!
//! A device has up to two credentials. The *committed* one is what it is known to hold. The
//! *candidate* is what the last authentication handed out and the device has not shown yet: the
//! answer that carried it may have been lost, in which case the device comes back with the
//! committed one. Either is accepted until the candidate is shown, which makes it the committed
//! one.

use crate::id::DevId;
use crate::key::{Code, MasterKey, SessionKey};
use crate::suite::{CodeCase, Suite};

/// What a device was given by one authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The suite it was issued under.
    pub suite: Suite,
    /// Counts the credentials of a device: higher is newer.
    pub epoch: u64,
    /// The identity.
    pub dev_id: DevId,
    /// The key that outlives connections.
    pub master_key: MasterKey,
    /// The key of the DAS session, while one is usable.
    pub session_key: Option<SessionKey>,
}

/// How a serial stands with the platform. Whoever has not proven to be the device cannot tell from the answers which one
/// it is (osap-wire 13.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Standing {
    /// It is the serial of a device.
    #[default]
    Known,
    /// It is the serial of a device that somebody has shut out: it is refused whatever it proves.
    Disabled,
    /// Nobody has registered it; the record is a [decoy](super::Decoy).
    Unknown,
}

/// A registered device, as the server machine needs it.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Whether it may get in at all.
    pub standing: Standing,
    /// The verification code; `None` when it exists and cannot be read now (result 5).
    pub code: Option<Code>,
    /// Which case the device was seen to use; it is tried first.
    pub code_case: Option<CodeCase>,
    /// The credential the device has shown.
    pub committed: Option<Credential>,
    /// The credential it was given and has not shown yet.
    pub candidate: Option<Credential>,
    /// Whether a device with a committed DevID may start a first authentication: an enrolment
    /// window is open, or the device is marked replaceable (osap-wire 13.2.4).
    pub may_enrol_again: bool,
    /// The device has come in by a modern suite: this one is closed to it (osap-wire 13.4.4).
    pub modern: bool,
}

impl Record {
    /// The credential in a slot.
    #[must_use]
    pub fn credential(&self, slot: Slot) -> Option<&Credential> {
        match slot {
            Slot::Committed => self.committed.as_ref(),
            Slot::Candidate => self.candidate.as_ref(),
        }
    }

    /// Whether the device may be given a DevID: it has shown none yet, or may replace it
    /// (osap-wire 13.2.4).
    #[must_use]
    pub fn may_enrol(&self) -> bool {
        self.committed.is_none() || self.may_enrol_again
    }

    /// The DevID of one of the device's credentials, if these bytes are one.
    #[must_use]
    pub fn own_dev_id(&self, named: &[u8; DevId::LEN]) -> Option<DevId> {
        let held = self.committed.iter().chain(&self.candidate);
        held.map(|credential| credential.dev_id).find(|dev_id| dev_id.as_bytes() == named)
    }

    /// The epoch of the next credential.
    #[must_use]
    pub fn next_epoch(&self) -> u64 {
        let epochs = self.committed.iter().chain(&self.candidate).map(|credential| credential.epoch);
        epochs.max().unwrap_or(0).saturating_add(1)
    }
}

/// Which of a device's two credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The one it has shown.
    Committed,
    /// The one it was given last.
    Candidate,
}

impl Slot {
    /// Both, in the order in which a device is expected to hold them.
    pub const BOTH: [Self; 2] = [Self::Candidate, Self::Committed];
}

/// The three ways through the LBS (osap-wire 5.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    /// No DevID: the code, then a new DevID.
    First,
    /// DevID without a master key: the code again, the DevID stays. In generation G0, which
    /// agrees on nothing, it is 0x30.
    EcdhRefresh,
    /// DevID and master key: a new session key.
    PlainRefresh,
}

impl Run {
    /// A short name for logs, metrics and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::EcdhRefresh => "ecdh_refresh",
            Self::PlainRefresh => "plain_refresh",
        }
    }
}

/// What is to be durable before the device is told where to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Keep as the candidate, in place of any other; the committed credential stays as it is.
    Candidate {
        /// [`Run::First`] or [`Run::EcdhRefresh`].
        run: Run,
        /// What the device was given; it has a session key.
        credential: Credential,
        /// The case that opened AUTH-I, to be tried first next time.
        code_case: CodeCase,
    },
    /// The device said that it has stored what it got (0x92): make it the committed credential
    /// and drop any candidate.
    Confirmed {
        /// [`Run::First`] or [`Run::EcdhRefresh`].
        run: Run,
        /// What the device was given; it has a session key.
        credential: Credential,
        /// The case that opened AUTH-I, to be tried first next time.
        code_case: CodeCase,
    },
    /// Replace the session key of a credential. From [`Slot::Candidate`], which the device has
    /// shown by this, the candidate becomes the committed credential.
    Refreshed {
        /// Whose session key it is.
        from: Slot,
        /// The master key of that credential: it tells whether the slot still holds what the
        /// device has shown, or another connection has replaced it meanwhile.
        master_key: MasterKey,
        /// The new session key.
        session_key: SessionKey,
    },
}

impl Record {
    /// Applies what a run wants kept, the way a platform has to. `false` when the credential that
    /// was refreshed is not there any more: nothing is changed then, and the device has to be
    /// told to come again (result 6).
    #[must_use]
    pub fn apply(&mut self, stage: Stage) -> bool {
        match stage {
            Stage::Candidate { credential, code_case, .. } => {
                self.candidate = Some(credential);
                self.code_case = Some(code_case);
            }
            Stage::Confirmed { credential, code_case, .. } => {
                self.committed = Some(credential);
                self.candidate = None;
                self.code_case = Some(code_case);
            }
            Stage::Refreshed { from, master_key, session_key } => {
                if self.credential(from).is_none_or(|held| held.master_key != master_key) {
                    return false;
                }
                if from == Slot::Candidate {
                    self.commit_candidate();
                }
                if let Some(committed) = &mut self.committed {
                    committed.session_key = Some(session_key);
                }
            }
        }
        true
    }

    /// The device has shown its candidate: it becomes the committed credential.
    pub fn commit_candidate(&mut self) {
        if let Some(candidate) = self.candidate.take() {
            self.committed = Some(candidate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(epoch: u64, master_key: &[u8; 16]) -> Credential {
        Credential {
            suite: Suite::Legacy,
            epoch,
            dev_id: DevId::parse(b"0123456789abcdef0123456789abcdef").unwrap(),
            master_key: MasterKey::from_bytes(master_key).unwrap(),
            session_key: None,
        }
    }

    const OLD: &[u8; 16] = b"0000000000000000";
    const NEW: &[u8; 16] = b"1111111111111111";
    const OTHER: &[u8; 16] = b"2222222222222222";

    fn record() -> Record {
        Record { committed: Some(credential(1, OLD)), candidate: Some(credential(2, NEW)), ..Record::default() }
    }

    fn refreshed(from: Slot, master_key: &[u8; 16]) -> Stage {
        Stage::Refreshed {
            from,
            master_key: MasterKey::from_bytes(master_key).unwrap(),
            session_key: SessionKey::from_bytes(&[7; 16]).unwrap(),
        }
    }

    #[test]
    fn a_candidate_leaves_the_committed_credential_alone() {
        let mut record = record();
        let stage = Stage::Candidate { run: Run::First, credential: credential(3, OTHER), code_case: CodeCase::Lower };
        assert!(record.apply(stage));
        assert_eq!(record.committed, Some(credential(1, OLD)));
        assert_eq!(record.candidate, Some(credential(3, OTHER)));
        assert_eq!(record.code_case, Some(CodeCase::Lower));
        assert_eq!(record.next_epoch(), 4);
    }

    #[test]
    fn a_refresh_under_the_candidate_commits_it() {
        let mut record = record();
        assert!(record.apply(refreshed(Slot::Candidate, NEW)));
        assert_eq!(record.candidate, None);
        let committed = record.committed.unwrap();
        assert_eq!((committed.epoch, committed.master_key), (2, credential(2, NEW).master_key));
        assert!(committed.session_key.is_some());
    }

    #[test]
    fn a_refresh_under_the_committed_keeps_the_candidate() {
        let mut record = record();
        assert!(record.apply(refreshed(Slot::Committed, OLD)));
        assert_eq!(record.candidate, Some(credential(2, NEW)));
        assert!(record.committed.unwrap().session_key.is_some());
    }

    #[test]
    fn a_refresh_of_a_replaced_credential_changes_nothing() {
        for from in Slot::BOTH {
            let mut record = record();
            assert!(!record.apply(refreshed(from, OTHER)));
            assert_eq!(record.committed, Some(credential(1, OLD)));
            assert_eq!(record.candidate, Some(credential(2, NEW)));
        }
    }

    #[test]
    fn a_confirmed_credential_is_committed_at_once() {
        let mut record = record();
        let stage =
            Stage::Confirmed { run: Run::EcdhRefresh, credential: credential(3, OTHER), code_case: CodeCase::Upper };
        assert!(record.apply(stage));
        assert_eq!((record.committed, record.candidate), (Some(credential(3, OTHER)), None));
    }
}
