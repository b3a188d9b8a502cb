//! `[mqtt]`: MQTT 3.1.1 for applications.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::text;

/// The MQTT listener and its limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// Address for plain MQTT; off unless set.
    #[serde(with = "text::listen_or_off")]
    pub listen: Option<SocketAddr>,
    /// Address for MQTT over TLS; off unless set.
    #[serde(with = "text::listen_or_off")]
    pub tls_listen: Option<SocketAddr>,
    /// Clients connected at once, to each of the listeners.
    pub max_connections: usize,
    /// Largest MQTT packet taken from a client, in bytes.
    #[serde(with = "text::bytes")]
    pub max_frame_bytes: usize,
    /// Bytes that may wait to be written to one client; past it, messages of other applications are dropped and counted, and
    /// those of the platform wait in the journal.
    #[serde(with = "text::bytes")]
    pub max_queue_bytes: usize,
}

impl Default for Mqtt {
    fn default() -> Self {
        Mqtt {
            listen: None,
            tls_listen: None,
            max_connections: 10_000,
            max_frame_bytes: 1 << 20,
            max_queue_bytes: 1 << 20,
        }
    }
}
