//! The floor under every first authentication: one P-384 exchange, a key pair made and a secret agreed on.

use anyhow::Context as _;
use aws_lc_rs::agreement::{ECDH_P384, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::error::Unspecified;
use rustix::time::{ClockId, clock_gettime};

use crate::affinity;
use crate::spread::Spread;

/// The median of so many batches: a batch that was disturbed falls out.
const BATCHES: usize = 21;
const EXCHANGES: u32 = 25;

/// CPU time of one exchange in µs, on a thread of its own that is kept on this core.
///
/// # Errors
/// When the core cannot be had.
pub fn exchange_us(core: Option<usize>) -> anyhow::Result<f64> {
    let measured = std::thread::spawn(move || {
        if let Some(core) = core {
            affinity::pin(core)?;
        }
        measure().map_err(|_| anyhow::anyhow!("the exchange failed"))
    });
    measured.join().ok().context("the thread that measures P-384 broke off")?
}

fn measure() -> Result<f64, Unspecified> {
    let peer = PrivateKey::generate(&ECDH_P384)?;
    let peer = peer.compute_public_key()?;
    let mut batches = [0.0; BATCHES];
    for batch in &mut batches {
        let before = clock_gettime(ClockId::ThreadCPUTime);
        for _ in 0..EXCHANGES {
            let key = PrivateKey::generate(&ECDH_P384)?;
            std::hint::black_box(key.compute_public_key()?);
            let peer = UnparsedPublicKey::new(&ECDH_P384, &peer);
            agree(&key, peer, Unspecified, |secret| Ok(std::hint::black_box(secret.len())))?;
        }
        let after = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = (after.tv_sec - before.tv_sec) as f64 + (after.tv_nsec - before.tv_nsec) as f64 / 1e9;
        *batch = seconds * 1e6 / f64::from(EXCHANGES);
    }
    Spread::of(batches).map(|spread| spread.median).ok_or(Unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_takes_time() {
        assert!(exchange_us(None).expect("a figure") > 0.0);
    }
}
