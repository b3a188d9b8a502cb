//! The floor under every authentication: what its cryptography costs alone, with nothing around it. Of the legacy suite and
//! of type 8 that is one side of a P-384 exchange, of type 16 of one on X25519, of type 4 the server's side of a whole TLS
//! handshake. Beside them stands what a conversation costs in which nothing is said.

mod conversation;
mod handshake;

use anyhow::Context as _;
use aws_lc_rs::agreement::{Algorithm, ECDH_P384, PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::error::Unspecified;
use osap::Suite;
use rustix::time::{ClockId, clock_gettime};

use crate::affinity::{self, Cores};
use crate::spread::Spread;

/// The median of so many batches: a batch that was disturbed falls out.
const BATCHES: usize = 21;
/// Exchanges or handshakes of one batch.
const BATCH: usize = 25;

/// The floor of a suite.
#[derive(Debug, Clone, PartialEq)]
pub struct Bare {
    /// What it is, with the group that was negotiated.
    pub what: String,
    /// CPU time of one in µs.
    pub us: f64,
}

/// Measures the floor of a suite, on a thread of its own that is kept on this core.
///
/// # Errors
/// When the core cannot be had, or the crypto library fails.
pub fn measure(core: Option<usize>, suite: Suite) -> anyhow::Result<Bare> {
    let measured = std::thread::spawn(move || {
        if let Some(core) = core {
            affinity::pin(core)?;
        }
        let failed = |_| anyhow::anyhow!("the exchange failed");
        match suite {
            Suite::Tls => handshake::measure(),
            Suite::X25519 => Ok(Bare { what: "X25519 exchange".to_owned(), us: exchange(&X25519).map_err(failed)? }),
            _ => Ok(Bare { what: "P-384 exchange".to_owned(), us: exchange(&ECDH_P384).map_err(failed)? }),
        }
    });
    measured.join().ok().context("the thread that measures the bare exchange broke off")?
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
fn exchange(algorithm: &'static Algorithm) -> Result<f64, Unspecified> {
    let peer = PrivateKey::generate(algorithm)?;
    let peer = peer.compute_public_key()?;
    let mut batches = [0.0; BATCHES];
    for batch in &mut batches {
        let before = thread_seconds();
        for _ in 0..BATCH {
            let key = PrivateKey::generate(algorithm)?;
            std::hint::black_box(key.compute_public_key()?);
            let peer = UnparsedPublicKey::new(algorithm, &peer);
            agree(&key, peer, Unspecified, |secret| Ok(std::hint::black_box(secret.len())))?;
        }
        *batch = of_one(thread_seconds() - before);
    }
    Spread::of(batches).map(|spread| spread.median).ok_or(Unspecified)
}

/// CPU time of this thread so far.
fn thread_seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// µs of one, from the seconds of a batch.
fn of_one(seconds: f64) -> f64 {
    seconds * 1e6 / BATCH as f64
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
            let bare = measure(None, suite).expect("a figure");
            assert!(bare.us > 0.0);
            assert_eq!(bare.what, name);
        }
        assert!(conversation(None, 4).expect("a figure").us > 0.0);
    }
}
