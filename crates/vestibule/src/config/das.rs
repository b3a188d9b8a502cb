//! `[das]`: where authenticated devices stay connected.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use osap::das::base::Ntp;
use serde::{Deserialize, Serialize};

use super::advertise::Advertise;
use super::text;

/// The port of NTP.
const NTP_PORT: u16 = 123;
/// How often devices are to ask for the time, in seconds.
const NTP_INTERVAL_S: u32 = 3_600;

/// The DAS listeners and their limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Das {
    /// Address for devices of the modern suites over TLS (osap-wire 13.3).
    #[serde(with = "text::listen_or_off")]
    pub listen: Option<SocketAddr>,
    /// Address for those over plain TCP (types 8 and 16); off unless set.
    #[serde(with = "text::listen_or_off")]
    pub plain_listen: Option<SocketAddr>,
    /// Whether a login over TLS is bound to its connection; not where something in front of the platform ends TLS.
    pub bind: bool,
    /// How long a session of a modern suite lives before its device comes back through the LBS.
    #[serde(with = "text::duration")]
    pub session_life: Duration,
    /// Address for devices of the legacy suites (osap-wire 6); off unless set, because they are not confidential.
    #[serde(with = "text::listen_or_off")]
    pub legacy_listen: Option<SocketAddr>,
    /// Host, or host and port, told to devices at the end of authentication (osap-wire 5.8); `None` tells the address of
    /// `legacy_listen`, or, when that is a wildcard, the one the device reached the LBS at.
    #[serde(with = "text::advertise_or_auto")]
    pub advertise: Option<Advertise>,
    /// Host, or host and port, of the time server that devices are told of at each login (osap-wire 10.4); `None`: they
    /// are told of none.
    #[serde(with = "text::host_or_off")]
    pub time_server: Option<Advertise>,
    /// The time zone that they are told with it.
    pub time_zone: String,
    /// Devices connected at once.
    pub max_connections: usize,
    /// Largest MQTT packet taken from a device, in bytes.
    #[serde(with = "text::bytes")]
    pub max_frame_bytes: usize,
    /// Bytes that may wait to be written to one device; past it, messages for it are dropped and counted.
    #[serde(with = "text::bytes")]
    pub max_queue_bytes: usize,
}

impl Default for Das {
    fn default() -> Self {
        Das {
            listen: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8_667))),
            plain_listen: None,
            bind: true,
            session_life: Duration::from_secs(86_400),
            legacy_listen: None,
            advertise: None,
            time_server: None,
            time_zone: "UTC+00:00".to_owned(),
            max_connections: 50_000,
            max_frame_bytes: 128 << 10,
            max_queue_bytes: 256 << 10,
        }
    }
}

impl Das {
    /// Whether devices can be here at all.
    pub fn is_on(&self) -> bool {
        [self.listen, self.plain_listen, self.legacy_listen].iter().any(Option::is_some)
    }

    /// What devices are told: host and port, given the address the listener really has (its port may have been 0 in the file).
    ///
    /// An advertised host without a port keeps the port of the listener.
    pub fn advertised(&self, bound: SocketAddr) -> (String, u16) {
        match &self.advertise {
            Some(told) => (told.host().to_owned(), told.port().unwrap_or(bound.port())),
            None => (bound.ip().to_string(), bound.port()),
        }
    }
}

impl Das {
    /// What devices are told of the time, if they are.
    pub fn time(&self) -> Option<Ntp> {
        let server = self.time_server.as_ref()?;
        Some(Ntp {
            address: server.host().to_owned(),
            port: server.port().unwrap_or(NTP_PORT),
            interval_s: NTP_INTERVAL_S,
            timezone: self.time_zone.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_devices_are_told_follows_the_listener_unless_set() {
        let bound: SocketAddr = "192.0.2.7:40001".parse().expect("an address");
        let mut das = Das::default();
        assert_eq!(das.advertised(bound), ("192.0.2.7".to_owned(), 40_001));
        das.advertise = Some("hall.example".parse().expect("a host"));
        assert_eq!(das.advertised(bound), ("hall.example".to_owned(), 40_001));
        das.advertise = Some("hall.example:8668".parse().expect("a host and port"));
        assert_eq!(das.advertised(bound), ("hall.example".to_owned(), 8_668));
    }

    #[test]
    fn devices_are_told_of_a_time_server_when_one_is_set() {
        let mut das = Das::default();
        assert_eq!(das.time(), None);
        das.time_server = Some("time.example".parse().expect("a host"));
        let told = das.time().expect("a time server");
        assert_eq!((&*told.address, told.port, &*told.timezone), ("time.example", 123, "UTC+00:00"));
    }
}
