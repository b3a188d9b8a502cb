//! The ephemeral key pair of types 8 and 16, used for one connection (osap-wire 13.3).

use aws_lc_rs::agreement::{Algorithm, ECDH_P384, PrivateKey, UnparsedPublicKey, X25519, agree};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::random::Random;
use crate::suite::Suite;

/// The longest share: an uncompressed point on P-384.
pub const MAX_SHARE: usize = 97;

/// What an agreement gives: 48 bytes on P-384, 32 on X25519.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Shared(Vec<u8>);

impl Shared {
    /// The agreed secret.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared(..)")
    }
}

/// The other side's share is no key that can be agreed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the share is not a public key of the suite")]
pub struct BadShare;

/// One side's key pair.
pub struct ShareKey {
    private: PrivateKey,
    public: Vec<u8>,
}

impl std::fmt::Debug for ShareKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShareKey(..)")
    }
}

/// How long a share of this suite is; type 4 has none.
#[must_use]
pub fn share_len(suite: Suite) -> usize {
    match suite {
        Suite::P384 => 97,
        Suite::X25519 => 32,
        Suite::Tls | Suite::Legacy => 0,
    }
}

fn algorithm(suite: Suite) -> Option<(&'static Algorithm, usize)> {
    match suite {
        Suite::P384 => Some((&ECDH_P384, 48)),
        Suite::X25519 => Some((&X25519, 32)),
        Suite::Tls | Suite::Legacy => None,
    }
}

impl ShareKey {
    /// Draws a key pair; `None` for a suite that agrees on nothing itself.
    #[must_use]
    pub fn draw(suite: Suite, random: &mut dyn Random) -> Option<Self> {
        let (algorithm, len) = algorithm(suite)?;
        if random.is_system()
            && let Some(key) = PrivateKey::generate(algorithm).ok().and_then(Self::of)
        {
            return Some(key);
        }
        let mut bytes = Zeroizing::new(vec![0; len]);
        loop {
            // A draw outside the range of private keys of P-384 is repeated: once in 2^190 draws.
            random.fill(&mut bytes);
            if let Some(key) = PrivateKey::from_private_key(algorithm, &bytes).ok().and_then(Self::of) {
                return Some(key);
            }
        }
    }

    fn of(private: PrivateKey) -> Option<Self> {
        let public = private.compute_public_key().ok()?.as_ref().to_vec();
        Some(Self { private, public })
    }

    /// The public key that travels.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Agrees with the other side.
    ///
    /// # Errors
    /// [`BadShare`] when `peer` is no point of the curve, another encoding of one, or agrees on zero (X25519).
    pub fn agree(&self, peer: &[u8]) -> Result<Shared, BadShare> {
        let algorithm = self.private.algorithm();
        // The parser of the crypto library reads other encodings too; only this one is the protocol's.
        let fits = if algorithm == &X25519 { peer.len() == 32 } else { peer.len() == 97 && peer[0] == 4 };
        if !fits {
            return Err(BadShare);
        }
        agree(&self.private, UnparsedPublicKey::new(algorithm, peer), BadShare, |z| {
            if z.iter().all(|byte| *byte == 0) { Err(BadShare) } else { Ok(Shared(z.to_vec())) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn both_ends_agree_and_foreign_shares_are_refused() {
        for suite in [Suite::P384, Suite::X25519] {
            let ours = ShareKey::draw(suite, &mut SystemRandom).unwrap();
            let theirs = ShareKey::draw(suite, &mut SystemRandom).unwrap();
            assert_eq!(ours.public().len(), share_len(suite));
            let agreed = ours.agree(theirs.public()).unwrap();
            assert_eq!(agreed.as_bytes(), theirs.agree(ours.public()).unwrap().as_bytes());
            for bad in [&[][..], &[0; 32], &[4; 97], &[0; 97], &theirs.public()[1..]] {
                assert!(ours.agree(bad).is_err(), "{suite} {}", bad.len());
            }
        }
        assert!(ShareKey::draw(Suite::Tls, &mut SystemRandom).is_none());
    }
}
