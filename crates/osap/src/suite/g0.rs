//! The cryptography of generation G0 (osap-wire 4.4 and 7): everything follows from the share key
//! S1 and four one-byte randoms, which travel in clear. Who knows the code knows the master key.

use aws_lc_rs::{digest, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::legacy::ShareKey;
use crate::id::Serial;
use crate::key::MasterKey;
use crate::wire::hex_upper;

/// The length of [`Proof`].
pub const PROOF_LEN: usize = 32;

/// SIG0: the proof that a side knows the code, over serial and randoms (osap-wire 4.4).
#[derive(Clone, Copy)]
pub struct Proof([u8; PROOF_LEN]);

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(..)")
    }
}

impl Proof {
    /// Computes SIG0 of `serial | randoms`.
    #[must_use]
    pub fn of(share_key: &ShareKey, serial: &Serial, randoms: &[u8]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(serial.as_str().as_bytes());
        hash.update(randoms);
        let key = hmac::Key::new(hmac::HMAC_SHA256, share_key.s1());
        let tag = hmac::sign(&key, hash.finish().as_ref());
        Self(tag.as_ref().try_into().expect("HMAC-SHA256 has thirty-two bytes"))
    }

    /// The bytes that travel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PROOF_LEN] {
        &self.0
    }

    /// Whether `other` is this proof; takes the same time whatever differs.
    #[must_use]
    pub fn matches(&self, other: &[u8; PROOF_LEN]) -> bool {
        self.0.ct_eq(other).into()
    }
}

/// The master key of n1 to n4 (osap-wire 4.4).
#[must_use]
pub fn master_key(share_key: &ShareKey, randoms: [u8; 4]) -> MasterKey {
    let mut seed = Zeroizing::new([0; 36]);
    seed[..4].copy_from_slice(&randoms);
    seed[4..].copy_from_slice(share_key.s1());
    let hash = digest::digest(&digest::SHA384, seed.as_slice());
    let text: Zeroizing<[u8; 16]> = Zeroizing::new(hex_upper(&hash.as_ref()[..8]));
    MasterKey::from_bytes(text.as_slice()).expect("upper-case hexadecimal text is a master key")
}
