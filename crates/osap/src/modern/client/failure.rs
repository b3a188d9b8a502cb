//! Why an attempt failed, and what a device does about it (osap-wire 13.3 rule 5, 13.4.6).

use crate::modern::message::MessageError;
use crate::modern::slots::Way;
use crate::result::ResultCode;
use crate::suite::Suite;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The device has not what the attempt needs, or may not run the suite this way.
    #[error("the device has nothing to come in with by this way")]
    Unusable,
    /// The answer is not the frame that belongs here.
    #[error("the answer of the server cannot be read: {0}")]
    Message(#[from] MessageError),
    /// A result before there is a key: anybody may have sent it.
    #[error("the server answered with {0}")]
    Hint(ResultCode),
    /// A sealed result: the server has sent it.
    #[error("the server refused: {0}")]
    Refused(ResultCode),
    /// Another type is to be run.
    #[error("the server wants another protocol type to be run")]
    Mismatch {
        /// One the device may run; `None`: there is none, and nothing changes.
        instead: Option<Suite>,
    },
    /// The share of the server is no public key.
    #[error("the public key of the server is none")]
    Share,
    /// The server does not know the secrets of the run, or the code.
    #[error("the server could not prove that it is the device's own")]
    Server,
    /// What the server gave could not be stored.
    #[error("the device could not store its new ticket")]
    Storage,
    /// The attempt was abandoned inside a step.
    #[error("the attempt was abandoned inside a step")]
    Abandoned,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{trouble}")]
pub struct Failure {
    /// What went wrong.
    pub trouble: Trouble,
    /// The way that was tried.
    pub way: Way,
    /// The suite that was offered.
    pub suite: Suite,
}

/// What a device does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Try the next way; after the last one, wait.
    NextWay,
    /// Offer this suite, by the same way.
    Offer(Suite),
    /// Enrol anew, by certificate ([`Slots::without_identity`](crate::modern::Slots::without_identity)) or code; what is
    /// stored stays until something new replaces it.
    Enrol,
    /// Wait and come again with everything as it is.
    Wait,
}

impl Failure {
    /// What the device does about it. Nothing is deleted: what is not sealed is a hint, and a sealed result other than 4
    /// leaves everything as it is.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match &self.trouble {
            Trouble::Mismatch { instead: Some(suite) } => Advice::Offer(*suite),
            Trouble::Refused(ResultCode::DevIdMismatch) => Advice::Enrol,
            // A refused ticket or certificate, or what may be a forged word of that: the next credential is tried.
            Trouble::Hint(ResultCode::MasterKeyInvalid | ResultCode::CodeRefused) | Trouble::Unusable => {
                Advice::NextWay
            }
            // A sealed 1 or 5 says that this way is closed; another may be open.
            Trouble::Refused(ResultCode::CodeRefused | ResultCode::Refused) => Advice::NextWay,
            _ => Advice::Wait,
        }
    }
}
