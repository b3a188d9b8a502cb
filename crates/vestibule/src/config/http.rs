//! `[http]`: the API and the console.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vestibule_api::Network;

use super::text;

/// The usual port.
const HTTP: u16 = 8080;
/// The usual port of HTTPS beside the usual one of HTTP.
const HTTPS: u16 = 8443;

/// Where a listener over TLS is, beside a plain one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beside {
    /// At the usual port beside the usual one, at a free one beside a free one, and nowhere beside any other.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

/// The HTTP listeners and their limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address of the API and the console; port 0 picks a free one.
    #[serde(with = "text::listen")]
    pub listen: SocketAddr,
    /// Address of both over TLS.
    #[serde(with = "text::beside")]
    pub tls_listen: Beside,
    /// Permits plain HTTP on an address other machines can reach.
    pub insecure: bool,
    /// Proxies that are believed when they say whose request they pass on.
    #[serde(with = "text::networks")]
    pub trusted_proxies: Vec<Network>,
    /// Connections open at once.
    pub max_connections: usize,
    /// Event streams and exports open at once.
    pub max_streams: usize,
    /// Largest request body, in bytes.
    #[serde(with = "text::bytes")]
    pub max_body_bytes: usize,
    /// Requests a second that one token or user may make; 0: as many as it likes.
    pub requests_per_second: u32,
    /// Longest time a request may take; event streams are exempt.
    #[serde(with = "text::duration")]
    pub request_timeout: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP)),
            tls_listen: Beside::Auto,
            insecure: false,
            trusted_proxies: Vec::new(),
            max_connections: 1_024,
            max_streams: 256,
            max_body_bytes: 1 << 20,
            requests_per_second: 100,
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl Http {
    /// Where the listener over TLS is to be; `None`: nowhere.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        match (self.tls_listen, self.listen.port()) {
            (Beside::At(address), _) => Some(address),
            (Beside::Auto, HTTP) => Some(SocketAddr::new(self.listen.ip(), HTTPS)),
            (Beside::Auto, 0) => Some(SocketAddr::new(self.listen.ip(), 0)),
            (Beside::Auto | Beside::Off, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_is_beside_the_usual_port_and_a_free_one() {
        let at = |listen: &str, tls_listen| {
            let http = Http { listen: listen.parse().expect("an address"), tls_listen, ..Http::default() };
            http.tls_address().map(|address| address.to_string())
        };
        for (listen, tls) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8443")),
            ("[::1]:8080", Some("[::1]:8443")),
            ("127.0.0.1:0", Some("127.0.0.1:0")),
            ("127.0.0.1:9000", None),
        ] {
            assert_eq!(at(listen, Beside::Auto).as_deref(), tls, "{listen}");
        }
        assert_eq!(at("127.0.0.1:8080", Beside::Off), None);
        assert_eq!(at("127.0.0.1:9", Beside::At(([0, 0, 0, 0], 443).into())).as_deref(), Some("0.0.0.0:443"));
    }
}
