//! `[http]`: the API and the console.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vestibule_api::Network;

use super::text;

/// The HTTP listener and its limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address of the API and the console; port 0 picks a free one.
    #[serde(with = "text::listen")]
    pub listen: SocketAddr,
    /// Permits plain HTTP on an address other machines can reach.
    pub insecure: bool,
    /// Proxies that are believed when they say whose request they pass on.
    #[serde(with = "text::networks")]
    pub trusted_proxies: Vec<Network>,
    /// Connections open at once.
    pub max_connections: usize,
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
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            insecure: false,
            trusted_proxies: Vec::new(),
            max_connections: 1_024,
            max_body_bytes: 1 << 20,
            requests_per_second: 100,
            request_timeout: Duration::from_secs(30),
        }
    }
}
