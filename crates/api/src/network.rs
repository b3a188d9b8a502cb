//! Ranges of addresses, as the configuration names them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses, written `10.0.0.0/8` or `fd00::/8`; one address stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a network such as 10.0.0.0/8 or fd00::/8, with no bits set behind the prefix")]
pub struct NotANetwork;

impl Network {
    pub(crate) const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Network {
        Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix }
    }

    pub(crate) const fn v6(first: u16, second: u16, third: u16, prefix: u8) -> Network {
        Network { address: IpAddr::V6(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0)), prefix }
    }

    /// Whether the address is one of these; an IPv4 address that is written as one of IPv6 is not looked into.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                u32::from(network) & !host == u32::from(address) & !host
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let host = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                u128::from(network) & !host == u128::from(address) & !host
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(|_| NotANetwork)?;
        let bits_behind = match address {
            IpAddr::V4(address) => {
                u128::from(u32::from(address) & u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0))
            }
            IpAddr::V6(address) => u128::from(address) & u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0),
        };
        if prefix > longest || bits_behind != 0 {
            return Err(NotANetwork);
        }
        Ok(Network { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_written_with_a_prefix() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "127.0.0.1/32", "fd00::/8", "::/0", "::1/128"] {
            assert_eq!(text.parse::<Network>().expect(text).to_string(), text);
        }
        assert_eq!("192.168.1.7".parse::<Network>().expect("one").to_string(), "192.168.1.7/32");
        assert!("0.0.0.0/0".parse::<Network>().expect("all").contains("255.1.2.3".parse().expect("one")));
        for wrong in ["", "10.0.0.0/33", "10.0.0.1/8", "10/8", "fd00::/129", "a/8", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(wrong.parse::<Network>(), Err(NotANetwork), "{wrong}");
        }
    }
}
