//! What one listener tolerates and allows.

use std::time::Duration;

use vestibule_mqtt_codec::Rules;

use crate::handshakes::TlsListener;

/// How a listener reads MQTT. The families demand opposite things of one CONNECT, so each has a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// OASIS MQTT 3.1.1 to the letter.
    Strict,
    /// Legacy OSAP devices: osap-wire 9.1 and 9.10. The will is login data and never published, retain is
    /// ignored, QoS 2 is refused.
    OsapLegacy,
    /// OSAP devices of the modern suites (osap-wire 13.3): MQTT to the letter, without wills and QoS 2.
    OsapModern,
}

impl Profile {
    pub(crate) fn rules(self) -> &'static Rules {
        match self {
            Profile::Strict | Profile::OsapModern => &Rules::STRICT,
            Profile::OsapLegacy => &Rules::OSAP_LEGACY,
        }
    }

    pub(crate) fn publishes_wills(self) -> bool {
        self == Profile::Strict
    }

    /// Legacy devices send QoS 0 and 1 only (osap-wire 9.5).
    pub(crate) fn takes_qos2(self) -> bool {
        self == Profile::Strict
    }

    /// The CONNACK of a server that is going down: "server unavailable" (MQTT 3.1.1, 3.2.2.3), or the code that
    /// sends a device back to the LBS (osap-wire 9.3).
    pub(crate) fn going_down(self) -> u8 {
        match self {
            Profile::Strict | Profile::OsapModern => 3,
            Profile::OsapLegacy => 11,
        }
    }
}

/// Limits of one listener.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Short name for metrics and logs, such as `das_legacy`.
    pub name: &'static str,
    /// How MQTT is read.
    pub profile: Profile,
    /// Open connections at most; more are closed at once.
    pub max_connections: usize,
    /// Longest packet, fixed header included.
    pub max_frame: usize,
    /// Longest CONNECT: what a stranger may make us hold.
    pub max_connect: usize,
    /// TLS on every connection; `None`: none.
    pub tls: Option<TlsListener>,
    /// From accept, or from the end of the TLS handshake, to a complete CONNECT.
    pub connect_timeout: Duration,
    /// Unwritten bytes a peer may have waiting; past it, messages for it are dropped and counted. Four times as
    /// much until its next turn when it took everything at its last. A peer that lets that many bytes of answers
    /// lie is not read.
    pub max_out: usize,
    /// Messages of QoS 1 to the peer that it has not acknowledged; past it, more are dropped and counted.
    pub max_inflight: u16,
    /// When all of them are taken, those that have waited this long for their acknowledgement are given up and
    /// counted; `None`: never.
    pub inflight_patience: Option<Duration>,
    /// Messages of the peer that are not acknowledged yet; past it, the connection is not read.
    pub max_unacknowledged: usize,
    /// Messages of QoS 2 that the peer has not released yet; past it, the connection is closed.
    pub max_unreleased: usize,
    /// Subscriptions of one connection.
    pub max_subscriptions: usize,
}

impl ListenerConfig {
    /// The defaults of a profile.
    pub fn new(name: &'static str, profile: Profile) -> ListenerConfig {
        let (max_frame, max_inflight, inflight_patience) = match profile {
            // 2.0.x reads at most 16 KiB and sends no more (osap-wire 3.4), and forgets what it read in part (9.10).
            Profile::OsapLegacy => (16 * 1024, 32, Some(Duration::from_secs(30))),
            Profile::OsapModern => (64 * 1024, 32, Some(Duration::from_secs(30))),
            Profile::Strict => (256 * 1024, 1_024, None),
        };
        ListenerConfig {
            name,
            profile,
            max_connections: 10_000,
            max_frame,
            max_connect: 16 * 1024,
            tls: None,
            connect_timeout: Duration::from_secs(20),
            max_out: 256 * 1024,
            max_inflight,
            inflight_patience,
            max_unacknowledged: 256,
            max_unreleased: 4_096,
            max_subscriptions: 64,
        }
    }
}
