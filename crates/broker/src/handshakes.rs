//! TLS of a listener, and what it spends on strangers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::link::Link;
use crate::strangers::{Limits, Place, Strangers};

/// TLS on a listener. Copies share the count of those who have not logged in yet.
#[derive(Clone)]
pub struct TlsListener {
    /// Versions, certificate and all else of TLS.
    pub config: Arc<ServerConfig>,
    /// From accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Connections at most that have not logged in yet, be it that their handshake is in progress. Three quarters of them are
    /// kept for addresses that have logged in before, or were vouched for. Past its part one of the network that has most of
    /// them makes room, or the newcomer is closed at once.
    pub max_handshakes: usize,
    /// The same of one network (/24, /64), but for such addresses. Past it one that stands still makes room, or the newcomer is
    /// closed at once.
    pub max_of_network: usize,
    /// Who has not got a step further for so long stands still; the steps are accept, hello, end of the handshake, CONNECT.
    pub standstill: Duration,
    strangers: Arc<Strangers>,
}

impl TlsListener {
    /// The defaults: 10 s, 4,096 who have not logged in (1,024 of them unknown), 256 of one network, who stand still after 3 s.
    pub fn new(config: Arc<ServerConfig>) -> TlsListener {
        TlsListener {
            config,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 4_096,
            max_of_network: 256,
            standstill: Duration::from_secs(3),
            strangers: Arc::default(),
        }
    }

    /// Somebody at this address was just let in elsewhere, and is about to come here: from now on the address is one of
    /// those that have logged in before.
    pub fn vouch(&self, address: IpAddr) {
        self.strangers.vouch(address);
    }

    /// Takes a place for the peer of this link; an error says which limit is reached.
    pub(crate) fn enter(&self, link: &Arc<Link>) -> Result<Place<'_>, &'static str> {
        let limits = Limits { total: self.max_handshakes, of_network: self.max_of_network, patience: self.standstill };
        self.strangers.enter(link, limits, Instant::now())
    }
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener").field("handshake_timeout", &self.handshake_timeout).finish_non_exhaustive()
    }
}
