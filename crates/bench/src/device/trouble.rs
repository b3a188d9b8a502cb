//! Why a device was not let in.

use std::fmt;
use std::io;
use std::time::Duration;

/// Where it failed, and how: what is alike reads alike, so that it can be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    service: &'static str,
    step: &'static str,
    what: String,
    unknown_session: bool,
}

impl Trouble {
    /// At this service, while it did that.
    pub(super) fn new(service: &'static str, step: &'static str, what: impl ToString) -> Trouble {
        Trouble { service, step, what: what.to_string(), unknown_session: false }
    }

    /// And the DAS may not know the session.
    pub(super) fn with_unknown_session(self, unknown_session: bool) -> Trouble {
        Trouble { unknown_session, ..self }
    }

    /// The DAS does not know the session: the device turns to the LBS.
    pub fn is_unknown_session(&self) -> bool {
        self.unknown_session
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.service, self.step, self.what)
    }
}

impl std::error::Error for Trouble {}

/// Does a step of a conversation in time.
pub(super) async fn step<T>(
    (service, step): (&'static str, &'static str),
    patience: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(patience, work).await {
        Ok(Ok(done)) => Ok(done),
        // The kind alone: the text may name addresses.
        Ok(Err(error)) if error.get_ref().is_none() => Err(Trouble::new(service, step, error.kind())),
        Ok(Err(error)) => Err(Trouble::new(service, step, error)),
        Err(_) => Err(Trouble::new(service, step, format!("no answer within {} s", patience.as_secs()))),
    }
}
