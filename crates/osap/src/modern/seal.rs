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
    ///
    /// # Panics
    /// When `out` ends before `start`.
    pub fn seal_tail(&self, counter: u64, aad: &[&[u8]], out: &mut Vec<u8>, start: usize) {
        self.seal(counter, &Joined::new(aad), out, start);
    }

    /// The same where everything before `start` is the AAD.
    pub(crate) fn seal_behind(&self, counter: u64, out: &mut Vec<u8>, start: usize) {
        let aad = Joined::new(&[&out[..start]]);
        self.seal(counter, &aad, out, start);
    }

    fn seal(&self, counter: u64, aad: &Joined, out: &mut Vec<u8>, start: usize) {
        #[cfg(test)]
        observer::note(&self.key, self.nonce(counter).as_ref());
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(self.nonce(counter), Aad::from(aad), &mut out[start..])
            .expect("a message of bounded length always encrypts");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens a ciphertext with its tag in place and gives the plaintext, the front of the buffer.
    ///
    /// # Errors
    /// [`Undecryptable`]; the buffer then holds nothing of use.
    pub fn open<'a>(&self, counter: u64, aad: &[&[u8]], sealed: &'a mut [u8]) -> Result<&'a mut [u8], Undecryptable> {
        let aad = Joined::new(aad);
        self.cipher().open_in_place(self.nonce(counter), Aad::from(&aad), sealed).map_err(|_| Undecryptable)
    }

    /// The bytes, for the vectors of the specification.
    #[must_use]
    pub fn expose(&self) -> (&[u8; 16], &[u8; NONCE_LEN]) {
        (&self.key, &self.iv)
    }
}

/// The parts of an AAD in one piece, as the crypto library wants them: on the stack, unless a topic is very long.
struct Joined {
    short: [u8; Self::SHORT],
    len: usize,
    /// Used when `short` is not enough; allocates nothing otherwise.
    long: Vec<u8>,
}

impl Joined {
    const SHORT: usize = 256;

    fn new(parts: &[&[u8]]) -> Self {
        let mut joined = Self { short: [0; Self::SHORT], len: 0, long: Vec::new() };
        for part in parts {
            match joined.short.get_mut(joined.len..joined.len + part.len()) {
                Some(room) => {
                    room.copy_from_slice(part);
                    joined.len += part.len();
                }
                None => {
                    joined.long = parts.concat();
                    break;
                }
            }
        }
        joined
    }
}

impl AsRef<[u8]> for Joined {
    fn as_ref(&self) -> &[u8] {
        if self.long.is_empty() { &self.short[..self.len] } else { &self.long }
    }
}

/// Every key and nonce that has sealed something in this thread.
#[cfg(test)]
pub(crate) mod observer {
    use std::cell::RefCell;

    thread_local! {
        static SEALED: RefCell<Vec<([u8; 16], Vec<u8>)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn note(key: &[u8; 16], nonce: &[u8]) {
        SEALED.with_borrow_mut(|sealed| sealed.push((*key, nonce.to_vec())));
    }

    /// What was noted since the last call.
    pub(crate) fn take() -> Vec<([u8; 16], Vec<u8>)> {
        SEALED.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RecordKey {
        RecordKey::new(Zeroizing::new([7; 16]), Zeroizing::new([9; NONCE_LEN]))
    }

    #[test]
    fn an_aad_is_the_same_in_one_piece_and_in_many_whatever_its_length() {
        for len in [0, 1, 255, 256, 257, 511, 4_000] {
            let aad: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let (one, rest) = aad.split_at(len / 3);
            let (two, three) = rest.split_at(rest.len() / 2);
            let mut sealed = b"text".to_vec();
            key().seal_tail(3, &[one, two, &[], three], &mut sealed, 0);
            let mut whole = [&aad[..], b"text"].concat();
            key().seal_behind(3, &mut whole, len);
            assert_eq!(whole[len..], sealed, "{len}");
            assert_eq!(key().open(3, &[&aad], &mut sealed.clone()).map(|text| text.to_vec()), Ok(b"text".to_vec()));
            assert!(key().open(4, &[&aad], &mut sealed.clone()).is_err());
            assert!(key().open(3, &[&aad, &[0]], &mut sealed).is_err());
        }
    }
}
