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
}

impl Trouble {
    /// At this service, while it did that.
    pub(super) fn new(service: &'static str, step: &'static str, what: impl ToString) -> Trouble {
        Trouble { service, step, what: what.to_string() }
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
