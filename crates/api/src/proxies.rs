//! Whose request it is that a proxy passes on.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use crate::network::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client behind the peer. Each proxy appends whom it was asked by, so that the list is read from its end,
/// and only as far as everybody behind it is trusted: what lies before may be the client's own invention.
///
/// Where both headers are there, one of them may be the client's that a proxy knows nothing of. So they have to agree, or the
/// peer's address stands.
pub(crate) fn client(trusted: &[Network], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let first_stranger = |mut passed: Vec<Option<IpAddr>>| {
        let mut client = peer;
        // Where somebody who is trusted does not tell an address, he is as far as one can see.
        while is_trusted(client)
            && let Some(Some(before)) = passed.pop()
        {
            client = before;
        }
        client
    };
    let of = |name, parse: fn(&str) -> Vec<Option<IpAddr>>| {
        headers.contains_key(&name).then(|| first_stranger(hops(headers, &name, parse)))
    };
    match (of(X_FORWARDED_FOR, x_forwarded_for), of(header::FORWARDED, forwarded)) {
        (Some(client), None) | (None, Some(client)) => client,
        (Some(client), Some(other)) if client == other => client,
        _ => peer,
    }
}

/// Who passed the request on, the last one last; none for one that cannot be read.
fn hops(headers: &HeaderMap, name: &HeaderName, parse: fn(&str) -> Vec<Option<IpAddr>>) -> Vec<Option<IpAddr>> {
    headers.get_all(name).iter().flat_map(|line| line.to_str().map_or_else(|_| vec![None], parse)).collect()
}

fn x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.split(',').map(|entry| address(entry.trim())).collect()
}

/// `for=192.0.2.1;proto=https, for="[2001:db8::1]:443"` (RFC 7239). A line with a mistake anywhere is one that cannot be read:
/// a quotation that a client leaves open would swallow what the proxy appends.
fn forwarded(line: &str) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    let mut rest = line;
    loop {
        let Some((hop, tail)) = forwarded_element(rest) else { return vec![None] };
        hops.push(hop);
        match tail.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return hops,
        }
    }
}

/// One element, with what follows it: a comma, or nothing.
fn forwarded_element(mut rest: &str) -> Option<(Option<IpAddr>, &str)> {
    let mut hop = None;
    loop {
        let (name, tail) = rest.split_once('=')?;
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => tail.split_at(tail.find([',', ';', '"']).unwrap_or(tail.len())),
        };
        let (name, value, tail) = (name.trim(), value.trim(), tail.trim_start());
        // No address is written with a quoted pair, which would hide where the quotation ends.
        if value.contains('\\') || name.contains([',', ';', '"']) {
            return None;
        }
        if name.eq_ignore_ascii_case("for") {
            hop = address(value);
        }
        match tail.strip_prefix(';') {
            Some(tail) => rest = tail,
            None if tail.is_empty() || tail.starts_with(',') => return Some((hop, tail)),
            None => return None,
        }
    }
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client that the headers `name: value` give behind the proxies 10.0.0.0/8 and fd00::/8, seen from 10.0.0.1.
    #[track_caller]
    fn check(headers: &[(&'static str, &str)], expected: &str) {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect(text));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        let found = client(&trusted, "10.0.0.1".parse().expect("an address"), &map);
        assert_eq!(found.to_string(), expected, "{headers:?}");
    }

    const XFF: &str = "x-forwarded-for";
    const FWD: &str = "forwarded";

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_clients() {
        check(&[], "10.0.0.1");
        check(&[(XFF, "192.0.2.1")], "192.0.2.1");
        check(&[(XFF, "6.6.6.6, 192.0.2.1")], "192.0.2.1");
        check(&[(XFF, "6.6.6.6, 192.0.2.1, 10.0.0.9 ,fd00::1")], "192.0.2.1");
        check(&[(XFF, "6.6.6.6"), (XFF, "192.0.2.1"), (XFF, "10.0.0.2")], "192.0.2.1");
        check(&[(XFF, "192.0.2.1:4711")], "192.0.2.1");
        check(&[(XFF, "[2001:db8::1]:4711")], "2001:db8::1");
        check(&[(XFF, "::ffff:192.0.2.1")], "192.0.2.1");
        check(&[(XFF, "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check(&[(FWD, "for=6.6.6.6;proto=http, For=\"[2001:db8::1]:443\" ; by=10.0.0.9, for=10.0.0.2")], "2001:db8::1");
        check(&[(FWD, "for=192.0.2.1;host=\"a, b; c\"")], "192.0.2.1");
    }

    #[test]
    fn who_is_no_proxy_is_not_believed() {
        let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, "6.6.6.6".parse().expect("a value"))]);
        let peer = "192.0.2.7".parse().expect("an address");
        assert_eq!(client(&[], peer, &headers), peer);
        assert_eq!(client(&["10.0.0.0/8".parse().expect("a network")], peer, &headers), peer);
    }

    #[test]
    fn what_is_no_address_ends_the_list() {
        check(&[(XFF, "")], "10.0.0.1");
        check(&[(XFF, "192.0.2.1, unknown")], "10.0.0.1");
        check(&[(XFF, "192.0.2.1, unknown, 10.0.0.2")], "10.0.0.2");
        check(&[(FWD, "for=192.0.2.1, for=_hidden, for=10.0.0.2")], "10.0.0.2");
        check(&[(FWD, "for=192.0.2.1, proto=http")], "10.0.0.1");
    }

    #[test]
    fn a_client_does_not_hide_what_a_proxy_appends() {
        for invented in [
            "for=6.6.6.6;x=\"",
            "for=6.6.6.6;x=\"\\",
            "for=\"6.6.6.6",
            "for=6.6.6.6;x=\"a\"\"",
            "for=6.6.6.6;",
            "for=6.6.6.6;x",
            "6.6.6.6",
            ";",
        ] {
            for appended in ["for=192.0.2.1", "for=\"[2001:db8::1]\"", "for=\"192.0.2.1:80\";proto=https"] {
                let line = format!("{invented}, {appended}");
                let mut headers = HeaderMap::new();
                headers.append(FWD, line.parse().expect("a value"));
                let trusted = ["10.0.0.0/8".parse().expect("a network")];
                let found = client(&trusted, "10.0.0.1".parse().expect("an address"), &headers).to_string();
                assert_ne!(found, "6.6.6.6", "{line}");
            }
            check(&[(FWD, invented), (FWD, "for=192.0.2.1")], "192.0.2.1");
        }
    }

    #[test]
    fn headers_that_do_not_agree_are_not_believed() {
        check(&[(XFF, "192.0.2.1"), (FWD, "for=192.0.2.1")], "192.0.2.1");
        check(&[(XFF, "192.0.2.1"), (FWD, "for=6.6.6.6")], "10.0.0.1");
        check(&[(XFF, "6.6.6.6"), (FWD, "for=192.0.2.1")], "10.0.0.1");
    }
}
