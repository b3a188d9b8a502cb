//! A private key of ours.

use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroize as _;

use crate::authority::IssueError;

/// A private key on P-256. Wiped when dropped, never printed.
pub struct Key(KeyPair);

impl Key {
    /// Makes a new one.
    ///
    /// # Errors
    /// The crypto library has no randomness.
    pub fn generate() -> Result<Key, IssueError> {
        KeyPair::generate().map(Key).map_err(IssueError::library)
    }

    /// Reads what [`Key::pkcs8`] gave.
    ///
    /// # Errors
    /// The bytes are not such a key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Key, IssueError> {
        let der = PrivatePkcs8KeyDer::from(der);
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Key)
            .map_err(|_| IssueError::Key)
    }

    /// The key as PKCS #8, DER: a secret.
    pub fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    pub(crate) fn borrow_der(&self) -> PrivateKeyDer<'_> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8()))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}
