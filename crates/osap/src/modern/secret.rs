//! Secrets of the modern suites and the names that go with them (osap-wire 13.3).
//!
//! No secret prints itself, all are wiped when dropped and compared in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::KeyError;
use crate::random::Random;

/// The length of every secret of the schedule, that of SHA-384.
pub const SECRET_LEN: usize = 48;

macro_rules! secret {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; SECRET_LEN]);

        impl $name {
            /// Takes the secret from the schedule or from storage.
            ///
            /// # Errors
            /// [`KeyError::Length`] unless there are 48 bytes.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
                Ok(Self(bytes.try_into().map_err(|_| KeyError::Length)?))
            }

            /// The 48 bytes, to be sealed and stored; never to be shown.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; SECRET_LEN] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}
    )*};
}

secret! {
    /// What belongs to a ticket: proves that its holder is the device, and that the other end is its LBS.
    Psk;
    /// Keying material exported from a TLS connection: the fresh secret of type 4, and what binds a DAS login to its
    /// connection.
    Exporter;
    /// What a run of the LBS leaves behind for the DAS; only [`Node`] is taken from it.
    DasSecret;
    /// The secret of one device at one DAS, from which each login makes keys of its own.
    Node;
}

impl Psk {
    /// A new one, for a credential that a device is provisioned with.
    #[must_use]
    pub fn draw(random: &mut dyn Random) -> Self {
        let mut psk = Self([0; SECRET_LEN]);
        random.fill(&mut psk.0);
        psk
    }
}

/// The name of a ticket: 16 random bytes that travel in clear and are no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TicketId([u8; Self::LEN]);

impl TicketId {
    /// The length of a ticket's name.
    pub const LEN: usize = 16;

    /// Takes a name from the wire or from storage.
    #[must_use]
    pub fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// A new one.
    #[must_use]
    pub fn draw(random: &mut dyn Random) -> Self {
        let mut id = [0; Self::LEN];
        random.fill(&mut id);
        Self(id)
    }

    /// The bytes that travel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketId(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print_themselves_and_a_ticket_does() {
        let psk = Psk::from_bytes(&[0x80; 48]).unwrap();
        assert_eq!(
            format!("{psk:?} {:?}", TicketId::new([0x11; 16])),
            format!("Psk(..) TicketId({})", "11".repeat(16))
        );
        assert_eq!(Node::from_bytes(&[0; 47]), Err(KeyError::Length));
        assert_ne!(psk, Psk::from_bytes(&[0x81; 48]).unwrap());
    }
}
