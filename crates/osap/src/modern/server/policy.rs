//! What a listener serves.

use crate::suite::Suite;

/// What a listener serves, and what it hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The suites usable on this transport, the preferred one first: type 4 over TLS, 16 and 8 over plain TCP.
    pub suites: Vec<Suite>,
    /// How long a ticket is accepted, in seconds; 0: without end.
    pub ticket_lifetime_s: u32,
}

impl Policy {
    /// One year: a ticket has to outlast a device that lies in a store room (rule 6).
    pub const TICKET_LIFETIME_S: u32 = 365 * 86_400;

    /// The policy of a TLS listener.
    #[must_use]
    pub fn tls() -> Self {
        Self { suites: vec![Suite::Tls], ticket_lifetime_s: Self::TICKET_LIFETIME_S }
    }

    /// The policy of a plain listener that serves these suites, as far as they are for plain TCP.
    #[must_use]
    pub fn plain(mut suites: Vec<Suite>) -> Self {
        suites.retain(|suite| matches!(suite, Suite::X25519 | Suite::P384));
        Self { suites, ticket_lifetime_s: Self::TICKET_LIFETIME_S }
    }
}
