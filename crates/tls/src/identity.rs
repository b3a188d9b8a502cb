//! A certificate with the key that proves it.

use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use zeroize::Zeroize as _;

use crate::Key;

/// A chain, leaf first, and the private key of its leaf. The key is wiped when dropped and never printed.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Certificate and key are no pair that TLS can use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate's text is not PEM.
    #[error("the certificate is not PEM: {0}")]
    CertificatePem(PemError),
    /// The key's text is not PEM, or is protected by a password.
    #[error("the private key is not PEM in the clear: {0}")]
    KeyPem(PemError),
    /// There is no certificate.
    #[error("no certificate is there")]
    Empty,
    /// The key is of a kind that TLS does not use.
    #[error("the private key cannot be used: {0}")]
    Key(rustls::Error),
    /// The key belongs to another certificate.
    #[error("the private key is not that of the first certificate: {0}")]
    Mismatch(rustls::Error),
}

impl Identity {
    /// Puts a chain, leaf first, and a key of ours together.
    ///
    /// # Errors
    /// They do not belong together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &Key) -> Result<Identity, IdentityError> {
        let identity = Identity { chain, key: key.borrow_der().clone_key() };
        identity.certified()?;
        Ok(identity)
    }

    /// Reads the PEM texts of a chain, leaf first, and of a private key (PKCS #8, PKCS #1 or SEC 1, not encrypted).
    ///
    /// # Errors
    /// A text cannot be read, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(IdentityError::CertificatePem)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(IdentityError::KeyPem)?;
        let identity = Identity { chain, key };
        identity.certified()?;
        Ok(identity)
    }

    /// The chain, leaf first; never empty.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// What the library signs with.
    pub(crate) fn certified(&self) -> Result<CertifiedKey, IdentityError> {
        if self.chain.is_empty() {
            return Err(IdentityError::Empty);
        }
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.key).map_err(IdentityError::Key)?;
        let certified = CertifiedKey::new(self.chain.clone(), signer);
        certified.keys_match().map_err(IdentityError::Mismatch)?;
        Ok(certified)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}
