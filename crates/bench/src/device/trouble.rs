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
        Ok(Err(error)) => Err(match error.kind() {
            // TLS says what is wrong.
            io::ErrorKind::InvalidData | io::ErrorKind::Other => Trouble::new(service, step, error),
            // However it is worded, and without the numbers of the system.
            kind => Trouble::new(service, step, kind),
        }),
        Err(_) => Err(Trouble::new(service, step, format!("no answer within {} s", patience.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_alike_reads_alike() {
        let fails = |error: io::Error| step(("LBS", "TLS"), Duration::from_secs(5), async { Err::<(), _>(error) });
        for eof in [io::Error::from(io::ErrorKind::UnexpectedEof), io::Error::new(io::ErrorKind::UnexpectedEof, "eof")]
        {
            let trouble = fails(eof).await.expect_err("it failed");
            assert_eq!(trouble.to_string(), "LBS, TLS: unexpected end of file");
        }
        let trouble = fails(io::Error::new(io::ErrorKind::InvalidData, "bad record")).await.expect_err("it failed");
        assert_eq!(trouble.to_string(), "LBS, TLS: bad record");
        let silence = std::future::pending::<io::Result<()>>();
        let trouble = step(("DAS", "hello"), Duration::ZERO, silence).await.expect_err("nothing comes");
        assert_eq!(trouble.to_string(), "DAS, hello: no answer within 0 s");
    }
}
