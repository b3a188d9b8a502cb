//! AES-128-GCM under a key and an iv of the schedule (osap-wire 13.3, "Sealing").
//!
//! The nonce is the iv XOR a counter; who counts decides that no pair of key and nonce seals twice:
//! at the LBS the position of the frame, at the DAS the sequence number.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::suite::legacy::Undecryptable;

/// The length of the tag behind every ciphertext.
pub const TAG_LEN: usize = 16;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the device.
    Up,
    /// To the device.
    Down,
}

/// The key and the iv of one direction.
///
/// Kept as the 28 bytes they are and expanded for each message, as the legacy cipher does and for the same reason: an
/// idle connection has no room for the tables of the crypto library.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RecordKey {
    key: [u8; 16],
    iv: [u8; NONCE_LEN],
}

impl std::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordKey(..)")
    }
}

impl RecordKey {
    pub(crate) fn new(key: Zeroizing<[u8; 16]>, iv: Zeroizing<[u8; NONCE_LEN]>) -> Self {
        Self { key: *key, iv: *iv }
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &self.key).expect("sixteen bytes are a key of AES-128"))
    }

    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(counter.to_be_bytes()).for_each(|(byte, count)| *byte ^= count);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals what stands in `out` behind `start`; the tag is appended.
    pub fn seal_tail(&self, counter: u64, aad: &[&[u8]], out: &mut Vec<u8>, start: usize) {
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(self.nonce(counter), Aad::from(aad.concat()), &mut out[start..])
            .expect("a message of bounded length always encrypts");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens a ciphertext with its tag in place and gives the plaintext, the front of the buffer.
    ///
    /// # Errors
    /// [`Undecryptable`]; the buffer then holds nothing of use.
    pub fn open<'a>(&self, counter: u64, aad: &[&[u8]], sealed: &'a mut [u8]) -> Result<&'a mut [u8], Undecryptable> {
        self.cipher().open_in_place(self.nonce(counter), Aad::from(aad.concat()), sealed).map_err(|_| Undecryptable)
    }

    /// The bytes, for the vectors of the specification.
    #[must_use]
    pub fn expose(&self) -> (&[u8; 16], &[u8; NONCE_LEN]) {
        (&self.key, &self.iv)
    }
}
