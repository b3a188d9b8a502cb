//! The cipher of one DAS session (osap-wire 9.6).

use crate::key::SessionKey;
use crate::suite::legacy::{Undecryptable, l_cbc_open, l_cbc_seal_tail, l_cbc_sealed_len};

/// Seals and opens the payloads of one session.
///
/// It keeps the sixteen bytes of the key and expands them for each message, which costs some 0.3 µs
/// of the 0.5 µs that 256 bytes take (release build, a shared two-core machine). Keeping both key
/// objects of the crypto library instead would take 1 KiB of the 3 KiB an idle connection may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCipher(SessionKey);

impl SessionCipher {
    /// The cipher of a session key.
    #[must_use]
    pub fn new(key: SessionKey) -> Self {
        Self(key)
    }

    /// The key of the session.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.0
    }

    /// Opens a payload in place and gives the plaintext, the front of the buffer.
    ///
    /// # Errors
    /// [`Undecryptable`], whatever is wrong.
    pub fn open<'a>(&self, payload: &'a mut [u8]) -> Result<&'a mut [u8], Undecryptable> {
        l_cbc_open(self.0.as_bytes(), payload)
    }

    /// Appends the sealed concatenation of `parts` to `out`.
    pub fn seal_into(&self, parts: &[&[u8]], out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(Self::sealed_len(parts.iter().map(|part| part.len()).sum()));
        parts.iter().for_each(|part| out.extend_from_slice(part));
        self.seal_tail(out, start);
    }

    /// Seals what stands in `out` behind `start`, in place.
    pub fn seal_tail(&self, out: &mut Vec<u8>, start: usize) {
        l_cbc_seal_tail(self.0.as_bytes(), out, start);
    }

    /// The length of the payload of a plaintext.
    #[must_use]
    pub fn sealed_len(plaintext: usize) -> usize {
        l_cbc_sealed_len(plaintext)
    }
}
