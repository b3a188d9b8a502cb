//! The certificate that a server shows at this moment.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::identity::{Identity, IdentityError};

/// Shows one certificate, which may be exchanged: handshakes from then on show the new one, connections that are open go
/// on.
pub struct Resolver(ArcSwap<CertifiedKey>);

impl Resolver {
    /// Shows this one first.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn new(identity: &Identity) -> Result<Arc<Resolver>, IdentityError> {
        Ok(Arc::new(Resolver(ArcSwap::from_pointee(identity.certified()?))))
    }

    /// Shows this one from the next handshake on.
    ///
    /// # Errors
    /// Certificate and key do not belong together; the former one stays.
    pub fn replace(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.0.store(Arc::new(identity.certified()?));
        Ok(())
    }

    /// Shows what another one shows now.
    pub fn copy_of(other: &Resolver) -> Arc<Resolver> {
        Arc::new(Resolver(ArcSwap::new(other.0.load_full())))
    }

    /// Shows what another one shows now from the next handshake on.
    pub fn adopt(&self, other: &Resolver) {
        self.0.store(other.0.load_full());
    }

    /// The chain that is shown, leaf first.
    pub fn chain(&self) -> Vec<rustls::pki_types::CertificateDer<'static>> {
        self.0.load().cert.clone()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
