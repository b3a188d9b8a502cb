//! The floor under every authentication: what its cryptography costs alone, with nothing around it. Of the legacy suite and
//! of type 8 that is one side of a P-384 exchange, of type 16 of one on X25519, of type 4 the server's side of a whole TLS
//! handshake. Beside them stands what a conversation costs in which nothing is said.

mod conversation;
mod handshake;

use std::convert::Infallible;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use anyhow::Context as _;
use aws_lc_rs::agreement::{Algorithm, ECDH_P384, PrivateKey, PublicKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::error::Unspecified;
use osap::Suite;
use rustix::time::{ClockId, clock_gettime};

use crate::affinity::{self, Cores};
use handshake::Handshake;

/// Batches at least.
const LEAST: usize = 25;
/// Exchanges or handshakes of one batch: few, so that many fit into work that is short.
const BATCH: usize = 5;

/// The floor of a suite.
#[derive(Debug, Clone, PartialEq)]
pub struct Bare {
    /// What it is, with the group that was negotiated.
    pub what: String,
    /// CPU time of one in µs.
    pub us: f64,
}

/// Does the work, and measures the floor of a suite meanwhile on a thread of its own that is kept on this core: both find the
/// machine as it is then, its other core at work, its neighbours as they are, and interruptions. A batch, then nine times as
/// long nothing; where the work is short the last ones come after it.
///
/// # Errors
/// When the work fails, the core cannot be had, or the crypto library fails.
pub fn beside<T>(
    core: Option<usize>,
    suite: Suite,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Bare)> {
    std::thread::scope(|scope| {
        let (working, worked) = mpsc::channel::<Infallible>();
        let floor = scope.spawn(move || -> anyhow::Result<Bare> {
            if let Some(core) = core {
                affinity::pin(core)?;
            }
            let mut floor = Floor::of(suite)?;
            let (mut batches, mut spent) = (0, 0.0);
            loop {
                let begun = Instant::now();
                spent += floor.batch()?;
                batches += 1;
                let ended = worked.recv_timeout(9 * begun.elapsed()) == Err(RecvTimeoutError::Disconnected);
                if ended && batches >= LEAST {
                    return Ok(Bare { what: floor.what(), us: spent * 1e6 / (batches * BATCH) as f64 });
                }
            }
        });
        let done = work();
        drop(working);
        let bare = floor.join();
        Ok((done?, bare.ok().context("the thread that measures the floor broke off")??))
    })
}

/// What is measured of a suite.
enum Floor {
    Exchange(Exchange),
    Handshake(Handshake),
}

impl Floor {
    fn of(suite: Suite) -> anyhow::Result<Floor> {
        let exchange = |algorithm, what| Exchange::new(algorithm, what).map_err(failed).map(Floor::Exchange);
        match suite {
            Suite::Tls => Handshake::new().map(Floor::Handshake),
            Suite::X25519 => exchange(&X25519, "X25519 exchange"),
            _ => exchange(&ECDH_P384, "P-384 exchange"),
        }
    }

    /// CPU time of a batch in seconds.
    fn batch(&mut self) -> anyhow::Result<f64> {
        match self {
            Floor::Exchange(exchange) => exchange.batch().map_err(failed),
            Floor::Handshake(handshake) => handshake.batch(),
        }
    }

    fn what(&self) -> String {
        match self {
            Floor::Exchange(exchange) => exchange.what.to_owned(),
            Floor::Handshake(handshake) => handshake.what(),
        }
    }
}

fn failed(_: Unspecified) -> anyhow::Error {
    anyhow::anyhow!("the exchange failed")
}

/// Measures the server's side of the connection that an authentication of the legacy suite goes over: accepted, three frames
/// read and answered, closed. `lanes` of them are open at once.
///
/// # Errors
/// When the cores cannot be had, or a connection breaks.
pub fn conversation(cores: Option<Cores>, lanes: usize) -> anyhow::Result<Bare> {
    conversation::measure(cores, lanes)
}

/// A key pair made and a secret agreed on.
struct Exchange {
    algorithm: &'static Algorithm,
    peer: PublicKey,
    what: &'static str,
}

impl Exchange {
    fn new(algorithm: &'static Algorithm, what: &'static str) -> Result<Exchange, Unspecified> {
        let peer = PrivateKey::generate(algorithm)?.compute_public_key()?;
        Ok(Exchange { algorithm, peer, what })
    }

    fn batch(&self) -> Result<f64, Unspecified> {
        let before = thread_seconds();
        for _ in 0..BATCH {
            let key = PrivateKey::generate(self.algorithm)?;
            std::hint::black_box(key.compute_public_key()?);
            let peer = UnparsedPublicKey::new(self.algorithm, &self.peer);
            agree(&key, peer, Unspecified, |secret| Ok(std::hint::black_box(secret.len())))?;
        }
        Ok(thread_seconds() - before)
    }
}

/// CPU time of this thread so far.
fn thread_seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_bare_takes_time_and_says_what_it_is() {
        for (suite, name) in [
            (Suite::Legacy, "P-384 exchange"),
            (Suite::P384, "P-384 exchange"),
            (Suite::X25519, "X25519 exchange"),
            (Suite::Tls, "TLS handshake, X25519MLKEM768"),
        ] {
            let (done, bare) = beside(None, suite, || Ok(7)).expect("a figure");
            assert_eq!(done, 7);
            assert!(bare.us > 0.0);
            assert_eq!(bare.what, name);
        }
        assert!(conversation(None, 4).expect("a figure").us > 0.0);
    }

    #[test]
    fn work_that_fails_says_so() {
        let failed: anyhow::Result<((), Bare)> = beside(None, Suite::X25519, || anyhow::bail!("no device came"));
        assert_eq!(failed.expect_err("it failed").to_string(), "no device came");
    }
}
