//! Whether the platform can do its work.

use serde::Serialize;
use vestibule_store::JournalHealth;

use crate::platform::Platform;

/// What stops the platform from doing its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether devices' reports are being stored and acknowledged.
    pub ready: bool,
    /// One sentence for each problem: what happened and what to do.
    pub problems: Vec<String>,
}

impl Platform {
    /// The platform's state as `/readyz` tells it.
    pub fn health(&self) -> Health {
        let problem = match self.journal().health() {
            JournalHealth::Ok => None,
            JournalHealth::Full { bytes, max_bytes } => Some(format!(
                "The journal holds {bytes} of {max_bytes} bytes and takes no more: reports are not acknowledged. \
                 Raise store.max_bytes, shorten store.retention or free the volume."
            )),
            JournalHealth::Failing { .. } => Some(
                "The journal cannot be written: reports are not acknowledged. It tries again by itself; the log has the reason."
                    .to_owned(),
            ),
        };
        Health { ready: problem.is_none(), problems: problem.into_iter().collect() }
    }
}
