//! Where a peer comes from: its address, and the network that one attacker has for the asking.

use std::net::IpAddr;

/// A network of the size that is handed out as a whole: /24, or /64 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// The first three bytes of an IPv4 address.
    V4([u8; 3]),
    /// The first half of an IPv6 address.
    V6([u8; 8]),
}

/// An address and its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The address; never an IPv4 address in the clothes of IPv6.
    pub address: IpAddr,
    /// Its network.
    pub network: Network,
}

/// Who holds a connection: an IPv4 address, or a /64 of IPv6, in which a single host has as many addresses as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// Whose host that is: a /24, or a /48 of IPv6. That is the most that providers and tunnel brokers give a single customer
/// for the asking (RFC 6177); by /56 he would have 256 places of his own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Site {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Origin {
    pub(crate) fn host(&self) -> Host {
        match self.address {
            IpAddr::V4(v4) => Host::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Host::V6([a, b, c, d, e, f, g, h])
            }
        }
    }

    pub(crate) fn site(&self) -> Site {
        match self.network {
            Network::V4(network) => Site::V4(network),
            Network::V6([a, b, c, d, e, f, ..]) => Site::V6([a, b, c, d, e, f]),
        }
    }
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Origin {
        let address = address.to_canonical();
        let network = match address {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Network::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Network::V6([a, b, c, d, e, f, g, h])
            }
        };
        Origin { address, network }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::from(text.parse::<IpAddr>().expect("an address"))
    }

    #[test]
    fn addresses_of_one_24_or_64_are_neighbours() {
        assert_eq!(origin("192.0.2.1").network, origin("192.0.2.254").network);
        assert_ne!(origin("192.0.2.1").network, origin("192.0.3.1").network);
        assert_eq!(origin("2001:db8::1").network, origin("2001:db8::ffff:0:0:1").network);
        assert_ne!(origin("2001:db8::1").network, origin("2001:db8:0:1::1").network);
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
    }
}
