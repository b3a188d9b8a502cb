//! Which cryptography a connection speaks (osap-wire 3.2, 13.3).

pub mod g0;
pub mod legacy;

use std::fmt;

/// A suite this implementation can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// Protocol type 1 and the generations before there were types: keys derived from the code
    /// alone or by ECDH P-384 under it. Broken by design, not confidential.
    Legacy,
    /// Protocol type 4: over TLS 1.3 alone; the fresh secret is the exporter of the connection.
    Tls,
    /// Protocol type 8: over plain TCP alone; ephemeral ECDH on P-384.
    P384,
    /// Protocol type 16: over plain TCP alone; ephemeral X25519.
    X25519,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 4] = [Self::Legacy, Self::Tls, Self::P384, Self::X25519];
    /// The suites of [`crate::modern`], in the server's order of preference (osap-wire 13.3).
    pub const MODERN: [Self; 3] = [Self::Tls, Self::X25519, Self::P384];

    /// The name used in storage, in the API and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Tls => "tls",
            Self::P384 => "p384",
            Self::X25519 => "x25519",
        }
    }

    /// The suite of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.as_str() == name)
    }

    /// The protocol type on the wire.
    #[must_use]
    pub fn protocol_type(self) -> u8 {
        match self {
            Self::Legacy => 1,
            Self::Tls => 4,
            Self::P384 => 8,
            Self::X25519 => 16,
        }
    }

    /// The suite of a protocol type on the wire.
    #[must_use]
    pub fn from_protocol_type(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.protocol_type() == number)
    }

    /// Whether it is one of [`crate::modern`].
    #[must_use]
    pub fn is_modern(self) -> bool {
        self != Self::Legacy
    }

    /// Whether bodies stay closed to somebody who listens.
    #[must_use]
    pub fn is_confidential(self) -> bool {
        self.is_modern()
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A generation of the legacy suite (osap-wire 0), as the first byte of an authentication tells it.
///
/// It is a property of one run: what a device is given is the same in all three, so that a device
/// whose firmware changes generation stays the device it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// The original one: four one-byte randoms, no key agreement.
    G0,
    /// Key agreement without negotiation.
    G1,
    /// Key agreement with negotiation; what the draft describes.
    G2,
}

impl Generation {
    /// A short name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::G0 => "g0",
            Self::G1 => "g1",
            Self::G2 => "g2",
        }
    }
}

/// The case of the hexadecimal text D1 in the share key (osap-wire 4.3).
///
/// Devices try upper case first and lower case once after a refusal; which one a device uses
/// depends on its firmware, so the server tries both and remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CodeCase {
    /// `3267EB03…`, the usual one.
    #[default]
    Upper,
    /// `3267eb03…`, the fallback.
    Lower,
}

impl CodeCase {
    /// The other case.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Upper => Self::Lower,
            Self::Lower => Self::Upper,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_suite() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_name(suite.as_str()), Some(suite));
            assert_eq!(Suite::from_protocol_type(suite.protocol_type()), Some(suite));
        }
        assert_eq!(Suite::from_name("modern"), None);
    }
}
