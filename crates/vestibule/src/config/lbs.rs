//! `[lbs]`: where devices authenticate and learn their DAS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text;

/// The LBS listeners and their limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lbs {
    /// Address for the modern suites over TLS (osap-wire 13.3, type 4).
    #[serde(with = "text::listen_or_off")]
    pub listen: Option<SocketAddr>,
    /// Address for the modern suites over plain TCP (types 8 and 16); off unless set: serials, topics and sizes show there.
    #[serde(with = "text::listen_or_off")]
    pub plain_listen: Option<SocketAddr>,
    /// Address for the legacy suites (osap-wire 4 and 5); off unless set, because they are not confidential.
    #[serde(with = "text::listen_or_off")]
    pub legacy_listen: Option<SocketAddr>,
    /// Whether the legacy listener serves generation G0 too (osap-wire 7), whose keys follow from the code alone.
    pub g0: bool,
    /// How long a ticket is accepted (osap-wire 13.3, ticket rule 6); it has to outlast a device that lies in a store room.
    #[serde(with = "text::duration")]
    pub ticket_lifetime: Duration,
    /// How long a certificate lives that a device is given on request.
    #[serde(with = "text::duration")]
    pub certificate_life: Duration,
    /// Connections open at once; an authentication run is one short connection.
    pub max_connections: usize,
    /// Longest time one authentication run may take.
    #[serde(with = "text::duration")]
    pub run_timeout: Duration,
    /// Largest frame taken from a device, in bytes.
    #[serde(with = "text::bytes")]
    pub max_frame_bytes: usize,
    /// Failed authentications looked at for one serial in an hour (osap-wire 13.2.3).
    pub max_failures_per_serial: u16,
    /// Failed authentications looked at from one address in a minute.
    pub max_failures_per_address: u16,
    /// Failed authentications looked at from one network, /24 or /64, in a minute.
    pub max_failures_per_network: u16,
}

impl Default for Lbs {
    fn default() -> Self {
        Lbs {
            listen: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8_665))),
            plain_listen: None,
            legacy_listen: None,
            g0: false,
            ticket_lifetime: Duration::from_secs(365 * 86_400),
            certificate_life: Duration::from_secs(90 * 86_400),
            max_connections: 4_096,
            run_timeout: Duration::from_secs(30),
            max_frame_bytes: 1_024,
            max_failures_per_serial: 5,
            max_failures_per_address: 20,
            max_failures_per_network: 200,
        }
    }
}
