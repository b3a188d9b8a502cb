//! What the messages of a connection are sealed with, and how it logs in.

use std::time::{Duration, Instant};

use osap::SessionKey;
use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General, Opened};
use vestibule_mqtt_codec::{PublishHead, QoS, encode};

use super::secured::Secured;
use super::written;
use crate::state::LinkFault;

/// The suite of a connection with what belongs to it.
#[derive(Debug)]
pub(crate) enum Channel {
    /// The legacy suite: one key for any number of connections.
    Legacy(SessionCipher),
    /// A modern suite: keys of this login alone.
    Modern(Box<Secured>),
}

/// What the numbers of the platform's requests count in. Under another one nothing that was sent before can come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Epoch {
    /// A session key.
    Key(SessionKey),
    /// A login, by the nonce of the device.
    Login([u8; 32]),
}

impl Channel {
    pub(crate) fn epoch(&self) -> Epoch {
        match self {
            Self::Legacy(cipher) => Epoch::Key(cipher.key().clone()),
            Self::Modern(secured) => Epoch::Login(*secured.nonce()),
        }
    }

    /// Whether it is one of the modern suites.
    pub(super) fn is_modern(&self) -> bool {
        matches!(self, Self::Modern(_))
    }

    /// Writes a PUBLISH and gives its number in this login, if it has one.
    ///
    /// # Errors
    /// [`LinkFault::Exhausted`]; nothing is written then.
    pub(super) fn publish(
        &mut self,
        topic: &str,
        (packet_id, dup): (Option<u16>, bool),
        general: &General<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<u64, LinkFault> {
        let qos = if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        // Every device of the legacy suite sets it, and servers ignore it (9.5).
        let retain = !self.is_modern();
        let head = PublishHead { dup, qos, retain, topic, packet_id };
        match self {
            Self::Legacy(cipher) => {
                let len = envelope::sealed_len(general, body.len());
                let seal = |out: &mut Vec<u8>| {
                    envelope::seal(cipher, general, body, out).expect("a number and a version are short");
                };
                written(encode::publish_with(&head, len, out, seal));
                Ok(0)
            }
            Self::Modern(secured) => secured.publish(&head, general, body, out),
        }
    }

    /// Opens the payload of a PUBLISH to `topic`; `None` for one that is acknowledged and of no effect.
    ///
    /// # Errors
    /// [`LinkFault::Broken`]: somebody has interfered, and the connection ends.
    pub(super) fn open<'a>(&mut self, topic: &str, payload: &'a mut [u8]) -> Result<Option<Opened<'a>>, LinkFault> {
        match self {
            // Whoever cannot open it says nothing about that.
            Self::Legacy(cipher) => Ok(envelope::open(cipher, payload).ok()),
            Self::Modern(secured) => secured.open(topic, payload),
        }
    }

    /// Where there are receipts, it is time for one.
    pub(super) fn owe_receipt(&mut self) {
        if let Self::Modern(secured) = self {
            secured.owe_receipt();
        }
    }

    /// When the platform has to have sent a receipt, where receipts count.
    pub(super) fn receipt_missing_at(&self, silence: Duration) -> Option<Instant> {
        match self {
            Self::Legacy(_) => None,
            Self::Modern(secured) => secured.receipt_missing_at(silence),
        }
    }
}
