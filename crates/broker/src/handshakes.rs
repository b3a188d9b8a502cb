//! TLS handshakes in progress: what a listener spends on strangers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;

/// TLS on a listener. Copies share the count of handshakes in progress.
#[derive(Clone)]
pub struct TlsListener {
    /// Versions, certificate and all else of TLS.
    pub config: Arc<ServerConfig>,
    /// From accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Handshakes in progress at most; a connection beyond is closed at once.
    pub max_handshakes: usize,
    /// Handshakes in progress of one network (/24, /64) at most.
    pub max_of_network: usize,
    open: Arc<Mutex<Open>>,
}

impl TlsListener {
    /// The defaults: 10 s, 1,024 handshakes, 256 of one network.
    pub fn new(config: Arc<ServerConfig>) -> TlsListener {
        TlsListener {
            config,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1_024,
            max_of_network: 256,
            open: Arc::default(),
        }
    }

    /// Takes a place for a handshake with this peer; an error says which limit is reached.
    pub(crate) fn enter(&self, peer: IpAddr) -> Result<Place<'_>, &'static str> {
        let network = network(peer);
        let mut open = self.open.lock();
        if open.total >= self.max_handshakes {
            return Err("tls_handshakes");
        }
        if open.networks.get(&network).copied().unwrap_or_default() >= self.max_of_network {
            return Err("tls_handshakes_of_network");
        }
        *open.networks.entry(network).or_default() += 1;
        open.total += 1;
        Ok(Place { open: &self.open, network })
    }
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener").field("handshake_timeout", &self.handshake_timeout).finish_non_exhaustive()
    }
}

/// As large as the number of handshakes in progress.
#[derive(Default)]
struct Open {
    total: usize,
    networks: HashMap<u128, usize>,
}

/// A handshake in progress; its place is free again when this is dropped.
pub(crate) struct Place<'a> {
    open: &'a Mutex<Open>,
    network: u128,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.total -= 1;
        if let Entry::Occupied(mut of_network) = open.networks.entry(self.network) {
            *of_network.get_mut() -= 1;
            if *of_network.get() == 0 {
                of_network.remove();
            }
        }
    }
}

/// The /24 or the /64 of an address. An IPv4 address written as IPv6 is the former.
fn network(address: IpAddr) -> u128 {
    let v6 = |address: Ipv6Addr| address.to_bits() >> 64 << 64;
    match address.to_canonical() {
        // No prefix of IPv6 that is in use looks like it.
        IpAddr::V4(address) => u128::from(address.to_bits() >> 8),
        IpAddr::V6(address) => v6(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::server::ResolvesServerCertUsingSni;

    fn listener(total: usize, of_network: usize) -> TlsListener {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        TlsListener { max_handshakes: total, max_of_network: of_network, ..TlsListener::new(Arc::new(config)) }
    }

    #[test]
    fn a_network_has_its_share_and_all_together_have_theirs() {
        let listener = listener(3, 2);
        let at = |address: &str| listener.enter(address.parse().expect("an address"));
        let first = at("192.0.2.1").expect("a place");
        let _second = at("::ffff:192.0.2.200").expect("a place");
        assert_eq!(at("192.0.2.3").err(), Some("tls_handshakes_of_network"));
        let third = at("2001:db8::1").expect("a place");
        assert_eq!(at("198.51.100.1").err(), Some("tls_handshakes"));
        drop(first);
        let _again = at("192.0.2.3").expect("a place that was given back");
        drop(third);
        let _other = at("2001:db8::2").expect("a place");
        assert_eq!(listener.open.lock().networks.len(), 2);
    }
}
