//! The certificate that a server shows at this moment.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::covers;
use crate::identity::{Identity, IdentityError};

/// Shows one certificate, which may be exchanged: handshakes from then on show the new one, connections that are open go
/// on. Whoever asks for a name of another one, where there is one, is shown that.
pub struct Resolver {
    own: Arc<ArcSwap<CertifiedKey>>,
    named: ArcSwapOption<CertifiedKey>,
}

impl Resolver {
    /// Shows this one first.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn new(identity: &Identity) -> Result<Arc<Resolver>, IdentityError> {
        let own = Arc::new(ArcSwap::from_pointee(identity.certified()?));
        Ok(Arc::new(Resolver { own, named: ArcSwapOption::empty() }))
    }

    /// Shows this one from the next handshake on.
    ///
    /// # Errors
    /// Certificate and key do not belong together; the former one stays.
    pub fn replace(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.own.store(Arc::new(identity.certified()?));
        Ok(())
    }

    /// Shows what another one shows, at each moment, and may show one more by its names ([`Resolver::show_by_name`]).
    pub fn beside(other: &Resolver) -> Arc<Resolver> {
        Arc::new(Resolver { own: Arc::clone(&other.own), named: ArcSwapOption::empty() })
    }

    /// Shows this one, from the next handshake on, to who asks for one of its names; `None`: nobody is shown another.
    ///
    /// # Errors
    /// Certificate and key do not belong together; what was shown stays.
    pub fn show_by_name(&self, identity: Option<&Identity>) -> Result<(), IdentityError> {
        self.named.store(identity.map(Identity::certified).transpose()?.map(Arc::new));
        Ok(())
    }

    /// The chain that is shown to who asks for no name, leaf first.
    pub fn chain(&self) -> Vec<rustls::pki_types::CertificateDer<'static>> {
        self.own.load().cert.clone()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let covering =
            |name| self.named.load_full().filter(|key| key.cert.first().is_some_and(|leaf| covers(leaf, name)));
        Some(hello.server_name().and_then(covering).unwrap_or_else(|| self.own.load_full()))
    }
}
