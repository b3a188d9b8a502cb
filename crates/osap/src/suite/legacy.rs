//! The cryptography of protocol type 1 and of generation G1, each function named after its section
//! of the wire specification (osap-wire 4). The constants are the protocol's; that they are
//! constant is what makes the suite weak.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P384, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::cipher::{
    AES_128, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac, pbkdf2};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::id::Serial;
use crate::key::{Code, MasterKey};
use crate::random::Random;
use crate::suite::CodeCase;
use crate::wire::hex_upper;

/// `01234567` and eight zero bytes (osap-wire 4.1).
const L_CBC_IV: [u8; 16] = *b"01234567\0\0\0\0\0\0\0\0";
/// `012345` and six zero bytes (osap-wire 4.2).
const L_GCM_NONCE: [u8; NONCE_LEN] = *b"012345\0\0\0\0\0\0";
/// The salt of the share key (osap-wire 4.3).
const SALT: &[u8; 16] = b"www.88075998.com";
const ITERATIONS: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");

/// The length of an L-GCM tag.
pub const TAG_LEN: usize = 16;
/// The length of a P-384 public key, an uncompressed point.
pub const PUBLIC_KEY_LEN: usize = 97;
/// The length of [`Signature`].
pub const SIGNATURE_LEN: usize = 48;
/// The block of L-CBC: every ciphertext is a positive multiple of it.
pub const BLOCK: usize = 16;

/// A ciphertext does not open under the key.
///
/// Length, padding and tag errors are deliberately the same value: an answer that told them apart
/// would be an oracle (osap-wire 13.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not open under this key")]
pub struct Undecryptable;

/// The part of a vector behind `start`, grown by the padding of the cipher.
struct Tail<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl AsMut<[u8]> for Tail<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl<'b> Extend<&'b u8> for Tail<'_> {
    fn extend<I: IntoIterator<Item = &'b u8>>(&mut self, more: I) {
        self.bytes.extend(more);
    }
}

/// L-CBC of the bytes of `out` behind `start`, in place (osap-wire 4.1). `out` grows by the
/// padding, 1 to 16 bytes. A `start` behind the end of `out` counts as its end.
pub fn l_cbc_seal_tail(key: &[u8; 16], out: &mut Vec<u8>, start: usize) {
    let start = start.min(out.len());
    let key = UnboundCipherKey::new(&AES_128, key)
        .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
        .expect("sixteen bytes are a key of AES-128");
    let iv = EncryptionContext::Iv128(FixedLength::from(L_CBC_IV));
    key.less_safe_encrypt(&mut Tail { bytes: out, start }, iv).expect("whole blocks always encrypt");
}

/// L-CBC of a whole message (osap-wire 4.1).
#[must_use]
pub fn l_cbc_seal(key: &[u8; 16], plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(l_cbc_sealed_len(plaintext.len()));
    out.extend_from_slice(plaintext);
    l_cbc_seal_tail(key, &mut out, 0);
    out
}

/// The length of the L-CBC ciphertext of `len` bytes.
#[must_use]
pub const fn l_cbc_sealed_len(len: usize) -> usize {
    (len / BLOCK + 1) * BLOCK
}

/// Opens L-CBC in place and gives the plaintext, the front of the buffer (osap-wire 4.1).
///
/// # Errors
/// [`Undecryptable`]; the buffer then holds nothing of use.
pub fn l_cbc_open<'a>(key: &[u8; 16], ciphertext: &'a mut [u8]) -> Result<&'a mut [u8], Undecryptable> {
    if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK) {
        return Err(Undecryptable);
    }
    let key = UnboundCipherKey::new(&AES_128, key)
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .map_err(|_| Undecryptable)?;
    let iv = DecryptionContext::Iv128(FixedLength::from(L_CBC_IV));
    key.decrypt(ciphertext, iv).map_err(|_| Undecryptable)
}

fn gcm(key: &[u8; 16]) -> (LessSafeKey, Nonce) {
    let key = UnboundKey::new(&AES_128_GCM, key).expect("sixteen bytes are a key of AES-128");
    (LessSafeKey::new(key), Nonce::assume_unique_for_key(L_GCM_NONCE))
}

/// L-GCM in place; the tag is returned because it travels in front (osap-wire 4.2).
pub fn l_gcm_seal(key: &[u8; 16], in_out: &mut [u8]) -> [u8; TAG_LEN] {
    let (key, nonce) = gcm(key);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), in_out).expect("a short message always encrypts");
    tag.as_ref().try_into().expect("the tag of AES-128-GCM has sixteen bytes")
}

/// Opens L-GCM in place (osap-wire 4.2).
///
/// # Errors
/// [`Undecryptable`]; `in_out` then holds nothing of use.
pub fn l_gcm_open(key: &[u8; 16], tag: &[u8; TAG_LEN], in_out: &mut [u8]) -> Result<(), Undecryptable> {
    let (key, nonce) = gcm(key);
    match key.open_in_place_separate_tag(nonce, Aad::empty(), tag, in_out) {
        Ok(_) => Ok(()),
        Err(_) => Err(Undecryptable),
    }
}

/// The share key of a code and a serial: S1 and S2 of osap-wire 4.3.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ShareKey {
    s1: [u8; 32],
    s2: [u8; 32],
}

impl ShareKey {
    /// S2, 32 characters: the share key of generation G2.
    #[must_use]
    pub fn s2(&self) -> &[u8; 32] {
        &self.s2
    }

    /// S1, 32 characters: the share key of generations G0 and G1, and the proof a hub shows for
    /// a child (osap-wire 10.6).
    #[must_use]
    pub fn s1(&self) -> &[u8; 32] {
        &self.s1
    }

    /// The AES key of authentication in generation G2: the first half of S2.
    #[must_use]
    pub fn aes_key(&self) -> &[u8; 16] {
        self.s2.first_chunk().expect("thirty-two bytes have a first half")
    }

    /// The AES key of authentication in generation G1: the first half of S1.
    #[must_use]
    pub fn aes_key_g1(&self) -> &[u8; 16] {
        self.s1.first_chunk().expect("thirty-two bytes have a first half")
    }
}

impl std::fmt::Debug for ShareKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShareKey(..)")
    }
}

/// Derives the share key (osap-wire 4.3).
#[must_use]
pub fn share_key(code: &Code, serial: &Serial, case: CodeCase) -> ShareKey {
    let md5 = |parts: [&[u8]; 2]| -> Zeroizing<[u8; 16]> {
        let mut hash = Md5::new();
        parts.iter().for_each(|part| hash.update(part));
        Zeroizing::new(hash.finalize().into())
    };
    let d1 = md5([code.as_bytes(), serial.as_str().as_bytes()]);
    let d1: Zeroizing<[u8; 32]> = Zeroizing::new(match case {
        CodeCase::Upper => hex_upper(&*d1),
        CodeCase::Lower => crate::wire::hex_lower(&*d1),
    });
    let d2: Zeroizing<[u8; 32]> = Zeroizing::new(hex_upper(&*md5([&*d1, SALT])));
    let s1: Zeroizing<[u8; 32]> = Zeroizing::new(hex_upper(&*md5([&*d2, &[]])));
    let mut p = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, SALT, &*s1, &mut *p);
    // Characters 10..42 of the text are bytes 5..21.
    ShareKey { s1: *s1, s2: hex_upper(&p[5..21]) }
}

/// One side's P-384 key pair, used for one agreement (osap-wire 4.4).
pub struct AgreementKey {
    private: PrivateKey,
    public: [u8; PUBLIC_KEY_LEN],
}

/// The other side's public key is not a point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public key is not a point on P-384")]
pub struct BadPoint;

impl std::fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgreementKey(..)")
    }
}

impl AgreementKey {
    /// Draws a key pair.
    ///
    /// A draw outside the range of private keys is repeated, which for true randomness happens
    /// once in 2^190 draws.
    #[must_use]
    pub fn draw(random: &mut dyn Random) -> Self {
        if random.is_system()
            && let Some(key) = PrivateKey::generate(&ECDH_P384).ok().and_then(Self::of)
        {
            return key;
        }
        let mut bytes = Zeroizing::new([0; 48]);
        loop {
            random.fill(&mut *bytes);
            if let Some(key) = Self::from_private(&bytes) {
                return key;
            }
        }
    }

    fn from_private(bytes: &[u8; 48]) -> Option<Self> {
        PrivateKey::from_private_key(&ECDH_P384, bytes).ok().and_then(Self::of)
    }

    fn of(private: PrivateKey) -> Option<Self> {
        let public = private.compute_public_key().ok()?.as_ref().try_into().ok()?;
        Some(Self { private, public })
    }

    /// The public key, an uncompressed point.
    #[must_use]
    pub fn public(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.public
    }

    /// Agrees with the other side and derives the master key from the shared secret.
    ///
    /// # Errors
    /// [`BadPoint`] when `peer` is not an uncompressed point of the curve.
    pub fn agree(&self, peer: &[u8; PUBLIC_KEY_LEN]) -> Result<MasterKey, BadPoint> {
        // The parser of the crypto library reads other encodings too; only this one is the protocol's.
        if peer[0] != 4 {
            return Err(BadPoint);
        }
        let peer = UnparsedPublicKey::new(&ECDH_P384, peer.as_slice());
        agree(&self.private, peer, BadPoint, |z| Ok(master_key(z)))
    }
}

/// The master key of a shared secret: half its MD5, as text (osap-wire 4.4).
#[must_use]
pub fn master_key(z: &[u8]) -> MasterKey {
    let mut hash: [u8; 16] = Md5::digest(z).into();
    let mut text: [u8; 16] = hex_upper(&hash[..8]);
    let key = MasterKey::from_bytes(&text).expect("upper-case hexadecimal text is a master key");
    hash.zeroize();
    text.zeroize();
    key
}

/// SIG: the proof that a side knows the master key, the same for both (osap-wire 4.4).
#[derive(Clone, Copy)]
pub struct Signature([u8; SIGNATURE_LEN]);

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signature(..)")
    }
}

impl Signature {
    /// Computes SIG.
    #[must_use]
    pub fn of(master_key: &MasterKey, serial: &Serial) -> Self {
        let digest = digest::digest(&digest::SHA384, serial.as_str().as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA384, master_key.as_bytes());
        let tag = hmac::sign(&key, digest.as_ref());
        Self(tag.as_ref().try_into().expect("HMAC-SHA384 has forty-eight bytes"))
    }

    /// The bytes that travel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; SIGNATURE_LEN] {
        &self.0
    }

    /// Whether `other` is this signature; takes the same time whatever differs.
    #[must_use]
    pub fn matches(&self, other: &[u8; SIGNATURE_LEN]) -> bool {
        self.0.ct_eq(other).into()
    }
}
