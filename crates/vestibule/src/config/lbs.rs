//! `[lbs]`: where devices authenticate and learn their DAS.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text;

/// The LBS listeners and their limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lbs {
    /// Address for the legacy suites (osap-wire 4 and 5); off unless set, because they are not confidential.
    #[serde(with = "text::listen_or_off")]
    pub legacy_listen: Option<SocketAddr>,
    /// Whether the legacy listener serves generation G0 too (osap-wire 7), whose keys follow from the code alone.
    pub g0: bool,
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
            legacy_listen: None,
            g0: false,
            max_connections: 4_096,
            run_timeout: Duration::from_secs(30),
            max_frame_bytes: 1_024,
            max_failures_per_serial: 5,
            max_failures_per_address: 20,
            max_failures_per_network: 200,
        }
    }
}
