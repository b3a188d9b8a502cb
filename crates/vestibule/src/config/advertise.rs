//! The address devices are told to come to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The text members of the address record a device receives hold at most this many bytes (osap-wire 5.8).
const MAX_HOST: usize = 63;

/// A host, with or without a port: `hall.example`, `192.0.2.7:8668`, `[2001:db8::1]:8668`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    host: String,
    port: Option<u16>,
}

/// Why a text is no address for devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdvertiseError {
    /// The host is empty or holds a character no host has.
    Host,
    /// The host is longer than the 63 bytes a device can take.
    TooLong,
    /// The port is not a number from 1 to 65535.
    Port,
    /// `0.0.0.0` or `::`, to which no device can connect.
    Unspecified,
}

impl fmt::Display for AdvertiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdvertiseError::Host => "expected a host or host:port such as hall.example:8668",
            AdvertiseError::TooLong => "the host is longer than the 63 bytes a device can take",
            AdvertiseError::Port => "the port must be a number from 1 to 65535",
            AdvertiseError::Unspecified => {
                "no device can connect to an unspecified address; name the one they reach this machine by"
            }
        })
    }
}

impl std::error::Error for AdvertiseError {}

impl Advertise {
    /// The host: a name or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where one was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl FromStr for Advertise {
    type Err = AdvertiseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = split(text)?;
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
        {
            return Err(AdvertiseError::Host);
        }
        if host.len() > MAX_HOST {
            return Err(AdvertiseError::TooLong);
        }
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            return Err(AdvertiseError::Unspecified);
        }
        let port = match port {
            None => None,
            Some(text) => Some(text.parse().ok().filter(|&port: &u16| port != 0).ok_or(AdvertiseError::Port)?),
        };
        Ok(Advertise { host: host.to_owned(), port })
    }
}

/// Splits host and port. Only an IPv6 address may hold further colons, and with a port it stands in brackets.
fn split(text: &str) -> Result<(&str, Option<&str>), AdvertiseError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or(AdvertiseError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| AdvertiseError::Host)?;
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err(AdvertiseError::Host),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, Some(port))),
        Some(_) => Err(AdvertiseError::Host),
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(&self.host),
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_come_apart_and_together() {
        for (text, host, port) in [
            ("hall.example", "hall.example", None),
            ("hall.example:8668", "hall.example", Some(8_668)),
            ("192.0.2.7:1", "192.0.2.7", Some(1)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]:8668", "2001:db8::1", Some(8_668)),
        ] {
            let told: Advertise = text.parse().expect(text);
            assert_eq!((told.host(), told.port()), (host, port), "{text}");
            assert_eq!(told.to_string(), text);
        }
    }

    #[test]
    fn what_no_device_could_reach_is_refused() {
        let long = "a".repeat(64);
        for (text, error) in [
            ("", AdvertiseError::Host),
            (":8668", AdvertiseError::Host),
            ("http://hall.example", AdvertiseError::Host),
            ("a b", AdvertiseError::Host),
            ("[hall.example]:1", AdvertiseError::Host),
            ("hall.example:0", AdvertiseError::Port),
            ("hall.example:65536", AdvertiseError::Port),
            ("0.0.0.0:8668", AdvertiseError::Unspecified),
            ("[::]:8668", AdvertiseError::Unspecified),
            (long.as_str(), AdvertiseError::TooLong),
        ] {
            assert_eq!(text.parse::<Advertise>(), Err(error), "{text}");
        }
    }
}
