//! Where a webhook is told: its address, taken apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::Uri;

use super::guard::Guard;

/// Longest address, in bytes.
const MAX_URL: usize = 2_048;

/// An address that a webhook can be told at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) tls: bool,
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// Host and port as they are told to the receiver.
    pub(crate) authority: String,
    pub(crate) path: String,
}

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

impl Target {
    /// Takes an address apart.
    ///
    /// # Errors
    /// What is wrong with it: the rest of a sentence that begins with its name.
    pub(crate) fn parse(url: &str) -> Result<Target, &'static str> {
        const WRITTEN: &str = "must be written as https://host/path";
        if url.len() > MAX_URL {
            return Err("must be no longer than 2048 bytes");
        }
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err("must be of printable ASCII without spaces and backslashes; percent-encode the rest");
        }
        if url.contains('#') {
            return Err("must have no fragment");
        }
        let uri: Uri = url.parse().map_err(|_| WRITTEN)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("must begin with https:// or http://"),
        };
        let authority = uri.authority().ok_or(WRITTEN)?;
        if authority.as_str().contains('@') {
            return Err("must have no user name and password; receivers know deliveries by their signature");
        }
        let host = Host::parse(authority.host())?;
        // What is behind the host is a port or nothing, which the parser leaves to us.
        let behind = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match behind.strip_prefix(':') {
            None if behind.is_empty() => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("must have a port from 1 to 65535")?,
            None => return Err(WRITTEN),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Target { tls, host, port, authority: authority.as_str().to_owned(), path })
    }

    /// Takes apart an address that somebody wants to have told. A number that is never connected to is refused at once; a
    /// name is looked at when it is connected to.
    ///
    /// # Errors
    /// As of [`parse`](Self::parse).
    pub(crate) fn wanted(url: &str, guard: &Guard) -> Result<Target, &'static str> {
        let target = Target::parse(url)?;
        match target.host {
            Host::Address(address) if guard.refuses(address).is_some() => {
                Err("must not name an address that is not public, unless webhooks.allow of the configuration has it")
            }
            _ => Ok(target),
        }
    }
}

impl Host {
    fn parse(text: &str) -> Result<Host, &'static str> {
        const NO_HOST: &str = "must have a host: a name, an IPv4 address, or an IPv6 address in brackets";
        if let Some(inside) = text.strip_prefix('[') {
            let address: Ipv6Addr = inside.strip_suffix(']').and_then(|text| text.parse().ok()).ok_or(NO_HOST)?;
            return Ok(Host::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Host::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let last = name.rsplit('.').next().unwrap_or_default();
        // The system would read 0x7f.1 or 2130706433 as an address.
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
            return Err("must have an IPv4 address written as four decimal numbers");
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(NO_HOST);
        }
        Ok(Host::Name(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_apart() {
        let target = Target::parse("https://hall.example:8443/in?x=1").expect("an address");
        assert_eq!(
            target,
            Target {
                tls: true,
                host: Host::Name("hall.example".to_owned()),
                port: 8443,
                authority: "hall.example:8443".to_owned(),
                path: "/in?x=1".to_owned(),
            }
        );
        let bare = Target::parse("http://192.0.2.1").expect("an address");
        assert_eq!((bare.port, bare.path.as_str(), bare.tls), (80, "/", false));
        assert_eq!(Target::parse("http://hall.example?a").expect("an address").path, "/?a");
        let v6 = Target::parse("https://[2606:4700::1]:8443/").expect("an address");
        assert_eq!((v6.host, v6.port), (Host::Address("2606:4700::1".parse().expect("one")), 8443));
    }

    #[test]
    fn ssrf_what_is_no_plain_address_is_refused() {
        for wrong in [
            "",
            "hall.example",
            "/in",
            "ftp://hall.example/",
            "file:///etc/passwd",
            "gopher://hall.example/",
            "https://",
            "https:///in",
            "https://user@hall.example/",
            "https://user:pass@hall.example/",
            "https://hall.example@127.0.0.1/",
            "https://hall.example/#in",
            "https://hall.example:0/",
            "https://hall.example:65536/",
            "https://hall.example:a/",
            "https://hall.example:/",
            "https://hall .example/",
            "https://hall.example\\@127.0.0.1/",
            "https://hall.example/a b",
            "https://hall..example/",
            "https://grüße.example/",
            "https://[fe80::1%25eth0]/",
            "https://[::1/",
            "https://%31%32%37.0.0.1/",
        ] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Target::parse(&format!("https://hall.example/{}", "a".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn ssrf_other_notations_of_numbers_are_refused() {
        for wrong in [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.01/",
            "http://0/",
            "http://127.0.0.1./",
            "http://hall.0x7f/",
            "http://1.2.3.4.5/",
        ] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ssrf_numbers_inside_are_refused_at_once() {
        let guard = Guard::default();
        for inside in [
            "http://127.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "https://10.0.0.1:8443/",
            "http://[::1]:8080/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[fd00::1]/",
        ] {
            assert!(Target::wanted(inside, &guard).is_err(), "{inside}");
            assert!(Target::parse(inside).is_ok(), "{inside}");
        }
        let allowing = Guard::new(vec!["127.0.0.1/32".parse().expect("a network")]);
        assert!(Target::wanted("http://[::ffff:127.0.0.1]:9000/", &allowing).is_ok());
        assert!(Target::wanted("http://127.0.0.2/", &allowing).is_err());
        assert!(Target::wanted("https://localhost/", &guard).is_ok(), "a name is looked at when it is connected to");
    }
}
