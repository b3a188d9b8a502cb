//! Why an attempt failed and what the device does about it (osap-wire 5.11).

use crate::lbs::backoff;
use crate::lbs::das_info::DasInfoError;
use crate::lbs::frame::FrameError;
use crate::lbs::message::{Group, MessageError};
use crate::lbs::record::Run;
use crate::result::ResultCode;
use crate::suite::CodeCase;

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub trouble: Trouble,
    /// What to change for the next attempt.
    pub reaction: Reaction,
}

/// What a device changes before its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// Forget DevID and master key: the next attempt is a first authentication.
    ForgetDevId,
    /// Forget the master key: the next attempt is an ECDH refresh.
    ForgetMasterKey,
    /// Try again at once, with the code in lower case.
    RetryLowerCase,
    /// Offer this protocol type next time.
    Rematch(u8),
    /// Change nothing and wait.
    BackOff,
}

/// What ended an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The server refused.
    #[error("the server answered with {0}")]
    Refused(ResultCode),
    /// The server wants another protocol type.
    #[error("the server runs protocol type {protocol_type} with this device")]
    Mismatch {
        /// The type it names.
        protocol_type: u8,
        /// The types it serves, where it says so.
        group: Option<Group>,
    },
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame is not the answer that was due.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The address of the access server is not usable.
    #[error(transparent)]
    DasInfo(#[from] DasInfoError),
    /// The answer does not open: the server does not know the code or the master key.
    #[error("the answer of the server does not open under the key of the device")]
    Undecryptable,
    /// The server's public key is not a point of the curve.
    #[error("the public key of the server is not a point on P-384")]
    Point,
    /// The server's proof of the master key is wrong.
    #[error("the proof of the server is wrong")]
    Signature,
    /// The server did not return r1.
    #[error("the server did not return the challenge of the refresh")]
    Challenge,
    /// The DevID is not printable.
    #[error("the server issued a DevID that is none")]
    DevId,
    /// The machine was left in the middle of a step by a panic.
    #[error("the attempt was abandoned inside a step")]
    Abandoned,
}

impl Failure {
    pub(super) fn new(trouble: Trouble, run: Run, case: CodeCase, supported: &Group) -> Self {
        let reaction = match trouble {
            Trouble::Refused(result) => react(result, run, case),
            // Type 0 stands for "none"; a device that adopted it could never come back.
            Trouble::Mismatch { protocol_type, .. } if protocol_type != 0 && supported.contains(protocol_type) => {
                Reaction::Rematch(protocol_type)
            }
            _ => Reaction::BackOff,
        };
        Self { trouble, reaction }
    }

    /// The result the server sent, if it sent one.
    #[must_use]
    pub fn result(&self) -> Option<ResultCode> {
        match self.trouble {
            Trouble::Refused(result) => Some(result),
            _ => None,
        }
    }

    /// The kind of delay before the next attempt; see [`backoff::delay`].
    #[must_use]
    pub fn delay_kind(&self) -> backoff::Trouble {
        match (&self.trouble, self.reaction) {
            (_, Reaction::Rematch(_)) => backoff::Trouble::Unreached,
            (Trouble::Mismatch { .. }, _) => backoff::Trouble::NothingInCommon,
            _ => backoff::Trouble::Failed,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.trouble.fmt(f)
    }
}

impl std::error::Error for Failure {}

/// A device forgets only what the run has shown the server.
fn react(result: ResultCode, run: Run, case: CodeCase) -> Reaction {
    match (result, run) {
        (ResultCode::CodeRefused, Run::First | Run::EcdhRefresh) if case == CodeCase::Upper => Reaction::RetryLowerCase,
        (ResultCode::DevIdMismatch, Run::EcdhRefresh | Run::PlainRefresh) => Reaction::ForgetDevId,
        (ResultCode::MasterKeyInvalid, Run::PlainRefresh) => Reaction::ForgetMasterKey,
        _ => Reaction::BackOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_the_reaction_of_the_table() {
        use ResultCode as R;
        let every_run = [Run::First, Run::EcdhRefresh, Run::PlainRefresh];
        for number in 1..=255 {
            let result = R::from(number);
            for run in every_run {
                for case in [CodeCase::Upper, CodeCase::Lower] {
                    let expected = match (number, run, case) {
                        (1, Run::First | Run::EcdhRefresh, CodeCase::Upper) => Reaction::RetryLowerCase,
                        (4, Run::EcdhRefresh | Run::PlainRefresh, _) => Reaction::ForgetDevId,
                        (10, Run::PlainRefresh, _) => Reaction::ForgetMasterKey,
                        _ => Reaction::BackOff,
                    };
                    let failure = Failure::new(Trouble::Refused(result), run, case, &Group::default());
                    assert_eq!(failure.reaction, expected, "{number} {run:?} {case:?}");
                    assert_eq!(failure.result(), Some(result));
                    assert_eq!(failure.delay_kind(), backoff::Trouble::Failed);
                }
            }
        }
    }

    #[test]
    fn a_mismatch_leads_to_a_supported_type_and_never_to_none() {
        let supported = Group::new(&[1, 4, 0]).unwrap();
        for (protocol_type, reaction, delay) in [
            (4, Reaction::Rematch(4), backoff::Trouble::Unreached),
            (8, Reaction::BackOff, backoff::Trouble::NothingInCommon),
            (0, Reaction::BackOff, backoff::Trouble::NothingInCommon),
        ] {
            let trouble = Trouble::Mismatch { protocol_type, group: None };
            let failure = Failure::new(trouble, Run::First, CodeCase::Upper, &supported);
            assert_eq!((failure.reaction, failure.delay_kind()), (reaction, delay));
        }
    }
}
