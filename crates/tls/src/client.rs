//! Configurations of clients.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, Error as TlsError, RootCertStore, SupportedProtocolVersion, version};
use thiserror::Error;

use crate::anchor::Anchor;
use crate::certificate::spki_sha256;
use crate::identity::{Identity, IdentityError};
use crate::provider;
use crate::server::{ALPN_DAS, ALPN_HTTP, ALPN_LBS, ALPN_MQTT};

/// Anchors of one client: so many that a root can be replaced (osap-wire 13.3, TLS profile 4).
const MAX_ANCHORS: usize = 2;
/// What a client has learned from servers that those vouched for.
const MAX_LEARNED: usize = 3;
/// Certificates of a chain at most, and so how often a clock can be found to be behind.
const MAX_CHAIN: usize = 8;

/// Why a client cannot be configured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No anchor, or more than two.
    #[error("a client holds one or two anchors, not {0}")]
    Anchors(usize),
    /// An anchor is no CA certificate.
    #[error("an anchor is not a CA certificate: {0}")]
    Ca(String),
    /// Its own certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Makes the configurations of a client that trusts the same anchors everywhere. None of them resumes a session.
pub struct ClientTls {
    anchors: Vec<Anchor>,
    time: Arc<dyn TimeProvider>,
    unset_clock: bool,
    identity: Option<Arc<CertifiedKey>>,
}

impl ClientTls {
    /// Trusts one or two anchors.
    ///
    /// # Errors
    /// None, more than two, or one that cannot be read.
    pub fn new(
        anchors: impl IntoIterator<Item = Anchor>,
        time: Arc<dyn TimeProvider>,
    ) -> Result<ClientTls, ClientError> {
        let anchors: Vec<Anchor> = anchors.into_iter().collect();
        if anchors.is_empty() || anchors.len() > MAX_ANCHORS {
            return Err(ClientError::Anchors(anchors.len()));
        }
        roots(&anchors)?;
        Ok(ClientTls { anchors, time, unset_clock: false, identity: None })
    }

    /// Trusts these as well: what a server that its own anchors vouch for has told it of, three at most.
    ///
    /// # Errors
    /// More, or one that cannot be read.
    pub fn with_learned(mut self, learned: impl IntoIterator<Item = Anchor>) -> Result<ClientTls, ClientError> {
        let learned: Vec<Anchor> = learned.into_iter().collect();
        if learned.len() > MAX_LEARNED {
            return Err(ClientError::Anchors(learned.len()));
        }
        roots(&learned)?;
        self.anchors.extend(learned);
        Ok(self)
    }

    /// Whether a server of this name that has shown this chain, leaf first, is trusted now. That it holds the key of the leaf
    /// was for the handshake to see.
    pub fn vouches_for(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
        let (Some((leaf, above)), Some(now)) = (chain.split_first(), self.time.current_time()) else { return false };
        self.verifier(&provider::osap()).verify_server_cert(leaf, above, name, &[], now).is_ok()
    }

    /// The clock was not set: what it says is the least that the time can be (osap-wire 13.3, TLS profile 4). A certificate
    /// that begins later than that is not refused for it; one that ended before is.
    pub fn with_unset_clock(mut self) -> ClientTls {
        self.unset_clock = true;
        self
    }

    /// Shows this certificate to a server that asks for one.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn with_identity(mut self, identity: &Identity) -> Result<ClientTls, ClientError> {
        self.identity = Some(Arc::new(identity.certified()?));
        Ok(self)
    }

    /// For an LBS. After the handshake its driver closes unless the negotiated protocol is [`ALPN_LBS`].
    pub fn osap_lbs(&self) -> Arc<ClientConfig> {
        self.config(&provider::osap(), &[&version::TLS13], ALPN_LBS)
    }

    /// For a DAS. After the handshake its driver closes unless the negotiated protocol is [`ALPN_DAS`].
    pub fn osap_das(&self) -> Arc<ClientConfig> {
        self.config(&provider::osap(), &[&version::TLS13], ALPN_DAS)
    }

    /// For HTTP/1.1, over TLS 1.2 or 1.3.
    pub fn http(&self) -> Arc<ClientConfig> {
        self.config(&provider::common(), &[&version::TLS13, &version::TLS12], ALPN_HTTP)
    }

    /// For MQTT, over TLS 1.2 or 1.3.
    pub fn mqtt(&self) -> Arc<ClientConfig> {
        self.config(&provider::common(), &[&version::TLS13, &version::TLS12], ALPN_MQTT)
    }

    fn config(
        &self,
        provider: &Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
        protocol: &[u8],
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_details(Arc::clone(provider), Arc::clone(&self.time))
            .with_protocol_versions(versions)
            .expect("the providers have suites and groups for these versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(provider)));
        let mut config = match &self.identity {
            Some(identity) => {
                let identity = SingleCertAndKey::from(Arc::clone(identity));
                builder.with_client_cert_resolver(Arc::new(identity))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Arc::new(config)
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> AnchorVerifier {
        let roots = roots(&self.anchors).expect("the anchors were read before");
        let by_ca = (!roots.is_empty()).then(|| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .expect("there is a root, and no list that could be wrong")
        });
        let pins = self.anchors.iter().filter_map(|anchor| match anchor {
            Anchor::Pin(pin) => Some(*pin),
            Anchor::Ca(_) => None,
        });
        AnchorVerifier { by_ca, pins: pins.collect(), unset_clock: self.unset_clock, provider: Arc::clone(provider) }
    }
}

fn roots(anchors: &[Anchor]) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        if let Anchor::Ca(certificate) = anchor {
            roots.add(certificate.clone()).map_err(|error| ClientError::Ca(error.to_string()))?;
        }
    }
    Ok(roots)
}

/// Judges a server's certificate by anchors. Whatever they say, the server has to sign the handshake.
#[derive(Debug)]
struct AnchorVerifier {
    by_ca: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<[u8; 32]>,
    unset_clock: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnchorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if !self.pins.is_empty() {
            let key = spki_sha256(end_entity).map_err(|_| TlsError::from(CertificateError::BadEncoding))?;
            if self.pins.contains(&key) {
                return Ok(ServerCertVerified::assertion());
            }
        }
        let Some(by_ca) = &self.by_ca else { return Err(CertificateError::UnknownIssuer.into()) };
        let mut now = now;
        for _ in 0..MAX_CHAIN {
            let verified = by_ca.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            match verified {
                // Whoever signs that certificate says that it is at least as late as this.
                Err(TlsError::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if self.unset_clock && not_before > now =>
                {
                    now = not_before;
                }
                other => return other,
            }
        }
        Err(CertificateError::NotValidYet.into())
    }

    crate::signatures::checked_by_its_provider!();
}
