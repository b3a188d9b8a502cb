//! A client that meets its server for the first time.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, Error as TlsError, version};

use crate::certificate::spki_sha256;
use crate::provider;
use crate::server::{ALPN_HTTP, ALPN_LBS};

/// For an LBS whose key is not known yet (osap-wire 13.4.3): whoever answers is talked to, and only has to hold the key of
/// the certificate it shows. What it is worth is for the caller to find out, by the code of the device, **before** it keeps
/// anything; then it pins that key, and never uses this again. After the handshake the caller closes unless the negotiated
/// protocol is [`ALPN_LBS`].
pub fn first_use_lbs(time: Arc<dyn TimeProvider>) -> Arc<ClientConfig> {
    any_server(time, ALPN_LBS)
}

/// For who only looks at what an HTTPS listener shows: whoever answers is talked to, and nothing is to be said to it.
pub fn first_use_http(time: Arc<dyn TimeProvider>) -> Arc<ClientConfig> {
    any_server(time, ALPN_HTTP)
}

fn any_server(time: Arc<dyn TimeProvider>, protocol: &[u8]) -> Arc<ClientConfig> {
    let provider = provider::osap();
    let mut config = ClientConfig::builder_with_details(Arc::clone(&provider), time)
        .with_protocol_versions(&[&version::TLS13])
        .expect("the provider has suites and groups for this version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer { provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

/// Takes any certificate; its key has to sign the handshake.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        // It is going to be pinned, so it has to have a key that can be.
        spki_sha256(end_entity).map_err(|_| TlsError::from(CertificateError::BadEncoding))?;
        Ok(ServerCertVerified::assertion())
    }

    crate::signatures::checked_by_its_provider!();
}
