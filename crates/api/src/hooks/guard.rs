//! Which addresses webhooks may be delivered to.
//!
//! Who may add a webhook has this machine connect to where he likes, and sees how that went. So only addresses of the
//! public internet are connected to, and none of this machine's own among them, whatever a name resolves to at that moment,
//! unless the operator allows more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::network::Network;

/// What of IPv4 is not the public internet, and what it is instead.
const INNER_V4: [(Network, &str); 15] = [
    (Network::v4(0, 0, 0, 8), "unspecified"),
    (Network::v4(10, 0, 0, 8), "private"),
    (Network::v4(100, 64, 0, 10), "shared by a provider's customers"),
    (Network::v4(127, 0, 0, 8), "loopback"),
    (Network::v4(169, 254, 0, 16), "link-local"),
    (Network::v4(172, 16, 0, 12), "private"),
    (Network::v4(192, 0, 0, 24), "reserved"),
    (Network::v4(192, 0, 2, 24), "for documentation"),
    (Network::v4(192, 88, 99, 24), "reserved"),
    (Network::v4(192, 168, 0, 16), "private"),
    (Network::v4(198, 18, 0, 15), "for measurements"),
    (Network::v4(198, 51, 100, 24), "for documentation"),
    (Network::v4(203, 0, 113, 24), "for documentation"),
    (Network::v4(224, 0, 0, 4), "multicast"),
    (Network::v4(240, 0, 0, 4), "reserved"),
];

/// The one address of a cloud's metadata service that lies among public ones.
const METADATA: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// All public IPv6 addresses there are today.
const GLOBAL_V6: Network = Network::v6(0x2000, 0, 0, 3);
/// What of those is not public all the same.
const INNER_V6: [Network; 3] =
    [Network::v6(0x2001, 0, 0, 23), Network::v6(0x2001, 0xdb8, 0, 32), Network::v6(0x3fff, 0, 0, 20)];
/// IPv4 addresses as IPv6 networks reach them: NAT64, in the last four bytes, and 6to4, behind the prefix.
const NAT64: Network = Network::v6(0x64, 0xff9b, 0, 96);
const SIX_TO_FOUR: Network = Network::v6(0x2002, 0, 0, 16);

/// Decides about addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    allow: Vec<Network>,
}

impl Guard {
    pub(crate) fn new(allow: Vec<Network>) -> Guard {
        Guard { allow }
    }

    /// What is wrong with this address; `None` when it may be connected to.
    pub(crate) fn refuses(&self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        if self.allow.iter().any(|network| network.contains(address)) {
            return None;
        }
        let inside = embedded(address).map_or_else(|| inner(address), |v4| inner(v4.into()));
        inside.or_else(|| is_own(address).then_some("this machine's own"))
    }
}

/// Whether this machine has the address itself: then it is also where the machine would send from. Asking that sends
/// nothing.
fn is_own(address: IpAddr) -> bool {
    let from = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let Ok(socket) = UdpSocket::bind((from, 0)) else {
        // Nor would there be a socket to connect with.
        return false;
    };
    // Any port does. What cannot be reached is not here.
    socket.connect((address, 9)).and_then(|()| socket.local_addr()).is_ok_and(|local| local.ip() == address)
}

/// The IPv4 address that an IPv6 network carries what is sent to this address to.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [_, high, low, .., before, last] = v6.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if NAT64.contains(address) { Some(of(before, last)) } else { SIX_TO_FOUR.contains(address).then(|| of(high, low)) }
}

fn inner(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(METADATA) => Some("a metadata service"),
        IpAddr::V4(_) => INNER_V4.iter().find(|(network, _)| network.contains(address)).map(|(_, what)| *what),
        IpAddr::V6(v6) if v6.is_loopback() => Some("loopback"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("unspecified"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("multicast"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6.is_unique_local() => Some("private"),
        IpAddr::V6(_) => {
            let public = GLOBAL_V6.contains(address) && !INNER_V6.iter().any(|network| network.contains(address));
            (!public).then_some("reserved")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(guard: &Guard, address: &str) -> bool {
        guard.refuses(address.parse().expect(address)).is_some()
    }

    #[test]
    fn ssrf_addresses_that_are_not_public_are_refused() {
        let guard = Guard::default();
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "4000::1",
            "64:ff9b:1::1",
            "100::1",
        ] {
            assert!(refused(&guard, inside), "{inside}");
        }
    }

    #[test]
    fn ssrf_ipv4_inside_of_ipv6_is_looked_at() {
        let guard = Guard::default();
        for inside in [
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::10.1.2.3",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2002:0a00:0001::1",
        ] {
            assert!(refused(&guard, inside), "{inside}");
        }
        for public in ["::ffff:93.184.216.34", "64:ff9b::93.184.216.34", "2002:5db8:d822::1"] {
            assert!(!refused(&guard, public), "{public}");
        }
    }

    #[test]
    fn ssrf_public_addresses_and_their_neighbours_are_let_through() {
        let guard = Guard::default();
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2a00:1450::1",
        ] {
            assert!(!refused(&guard, public), "{public}");
        }
    }

    #[test]
    fn ssrf_this_machine_knows_its_own_addresses() {
        let own = |address: &str| is_own(address.parse().expect(address));
        assert!(own("127.0.0.1"));
        assert!(!own("127.0.0.2"), "another one of this machine's is sent to from the first");
        assert!(!own("1.1.1.1") && !own("192.0.2.1") && !own("2606:4700::1111"));
        // Where there is a network, the address that the machine has there.
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        if socket.connect("1.1.1.1:9").is_ok() {
            assert!(is_own(socket.local_addr().expect("bound").ip()));
        }
    }

    #[test]
    fn ssrf_what_the_operator_allows_is_let_through_and_nothing_else() {
        let allow = ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].map(|text| text.parse().expect(text));
        let guard = Guard::new(allow.to_vec());
        for allowed in ["10.1.2.3", "127.0.0.1", "::ffff:127.0.0.1", "fd12::1"] {
            assert!(!refused(&guard, allowed), "{allowed}");
        }
        for inside in ["127.0.0.2", "172.16.0.1", "::1", "fc00::1", "64:ff9b::10.0.0.1"] {
            assert!(refused(&guard, inside), "{inside}");
        }
    }
}
