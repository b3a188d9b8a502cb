//! Configurations of listeners.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use crate::device::DeviceVerifier;
use crate::provider;
use crate::resolver::Resolver;

/// The protocol of the LBS (osap-wire 13.3, TLS profile 3).
pub const ALPN_LBS: &[u8] = b"osap-lbs";
/// The protocol of the DAS (osap-wire 13.3, TLS profile 3).
pub const ALPN_DAS: &[u8] = b"osap-das";
/// HTTP/1.1 (RFC 7301).
pub const ALPN_HTTP: &[u8] = b"http/1.1";
/// MQTT, as IANA lists it.
pub const ALPN_MQTT: &[u8] = b"mqtt";

/// Makes the configurations of listeners that show one certificate.
pub struct ServerTls {
    resolver: Arc<Resolver>,
    time: Arc<dyn TimeProvider>,
}

impl ServerTls {
    /// Listeners show what the resolver has; `time` is what certificates of clients are judged by.
    pub fn new(resolver: Arc<Resolver>, time: Arc<dyn TimeProvider>) -> ServerTls {
        ServerTls { resolver, time }
    }

    /// The certificate that is shown.
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    /// HTTP/1.1 over TLS 1.2 and 1.3.
    pub fn http(&self) -> Arc<ServerConfig> {
        let mut config = self.config(&provider::common(), &[&version::TLS13, &version::TLS12], Arc::new(NoClientAuth));
        config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
        // Browsers open several connections at once and come back; what this remembers is bounded.
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(256);
        config.send_tls13_tickets = 2;
        Arc::new(config)
    }

    /// MQTT over TLS 1.2 and 1.3. A client that names no protocol is served.
    pub fn mqtt(&self) -> Arc<ServerConfig> {
        let mut config = self.config(&provider::common(), &[&version::TLS13, &version::TLS12], Arc::new(NoClientAuth));
        config.alpn_protocols = vec![ALPN_MQTT.to_vec()];
        Arc::new(config)
    }

    /// The LBS over TLS: osap-wire 13.3, TLS profile. Its driver looks at the negotiated protocol after the handshake, and
    /// closes when it is not [`ALPN_LBS`].
    pub fn osap_lbs(&self, devices: &Arc<DeviceVerifier>) -> Arc<ServerConfig> {
        self.osap(devices, ALPN_LBS)
    }

    /// The DAS over TLS: osap-wire 13.3, TLS profile. Its driver looks at the negotiated protocol after the handshake, and
    /// closes when it is not [`ALPN_DAS`].
    pub fn osap_das(&self, devices: &Arc<DeviceVerifier>) -> Arc<ServerConfig> {
        self.osap(devices, ALPN_DAS)
    }

    fn osap(&self, devices: &Arc<DeviceVerifier>, protocol: &[u8]) -> Arc<ServerConfig> {
        let verifier: Arc<dyn ClientCertVerifier> = Arc::<DeviceVerifier>::clone(devices);
        let mut config = self.config(&provider::osap(), &[&version::TLS13], verifier);
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// Neither early data nor resumption: OSAP's ticket does that job, and a resumed session would skip the device's
    /// certificate and its revocation.
    fn config(
        &self,
        provider: &Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> ServerConfig {
        let mut config = ServerConfig::builder_with_details(Arc::clone(provider), Arc::clone(&self.time))
            .with_protocol_versions(versions)
            .expect("the providers have suites and groups for these versions")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::<Resolver>::clone(&self.resolver));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config
    }
}
