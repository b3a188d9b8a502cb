//! Receipts, on plain TCP alone (osap-wire 13.3, "Receipts").
//!
//! There a PUBACK is not authentic: somebody on the path can swallow an alarm and acknowledge it. So
//! each side says, sealed, up to which number everything of QoS 1 is durable.

use serde::{Deserialize, Serialize};

/// Up to which sequence everything of QoS 1 is durable, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Receipt {
    /// Of what the device has sent.
    pub up: u64,
    /// Of what the platform has sent.
    pub down: u64,
}

impl Receipt {
    /// The JSON that travels.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("two numbers always serialise")
    }

    /// Reads one; `None` unless both numbers are there.
    #[must_use]
    pub fn decode(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// More messages of QoS 1 wait to be durable than there are packet identifiers: the other side does not keep to MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than 65,535 messages of QoS 1 wait to be stored")]
pub struct Overrun;

/// Which messages of QoS 1 are durable at this end, to be told in receipts.
///
/// Messages come in the order of their numbers, as an [`Opener`](super::envelope::Opener) gives them, without what it calls
/// repeated. They become durable in the order in which they came, those of other QoS as they come.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    durable: u64,
    last: u64,
    waiting: std::collections::VecDeque<u64>,
}

impl Ledger {
    /// As many may wait: each holds a packet identifier until it is acknowledged.
    pub const MAX_WAITING: usize = 65_535;

    /// A message of this number came; `waits` when it is durable only later.
    ///
    /// # Errors
    /// [`Overrun`]; nothing is entered, and the connection is to be closed.
    pub fn came(&mut self, seq: u64, waits: bool) -> Result<(), Overrun> {
        if waits && self.waiting.len() >= Self::MAX_WAITING {
            return Err(Overrun);
        }
        self.last = self.last.max(seq);
        if waits {
            self.waiting.push_back(seq);
        } else if self.waiting.is_empty() {
            self.durable = self.last;
        }
        Ok(())
    }

    /// The oldest message that waited is durable.
    pub fn stored(&mut self) {
        self.waiting.pop_front();
        self.durable = self.waiting.front().map_or(self.last, |next| next.saturating_sub(1));
    }

    /// The number to be told.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_travels() {
        let receipt = Receipt { up: 7, down: 3 };
        assert_eq!(receipt.encode(), br#"{"up":7,"down":3}"#);
        assert_eq!(Receipt::decode(&receipt.encode()), Some(receipt));
        assert_eq!(Receipt::decode(br#"{"up":7}"#), None);
        assert_eq!(Receipt::decode(br#"{"up":-1,"down":0}"#), None);
    }

    #[test]
    fn what_is_told_never_passes_a_message_that_waits() {
        let mut ledger = Ledger::default();
        ledger.came(1, false).unwrap();
        assert_eq!(ledger.durable(), 1);
        ledger.came(2, true).unwrap();
        ledger.came(3, false).unwrap();
        ledger.came(4, true).unwrap();
        assert_eq!(ledger.durable(), 1);
        ledger.stored();
        assert_eq!(ledger.durable(), 3);
        ledger.stored();
        assert_eq!(ledger.durable(), 4);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut ledger = Ledger::default();
        let most = Ledger::MAX_WAITING as u64;
        for seq in 1..=most {
            ledger.came(seq, true).unwrap();
        }
        assert_eq!(ledger.came(most + 1, true), Err(Overrun));
        assert_eq!(ledger.came(most + 1, false), Ok(()));
        (0..most).for_each(|_| ledger.stored());
        assert_eq!(ledger.durable(), most + 1, "what was refused was not entered");
    }

    #[test]
    fn osap_13_7_7_receipts_say_no_more_than_is_stored_whatever_the_order() {
        // Each number: whether it waits, and how many were stored before the next came.
        let mut state = 0x9E37_79B9_u64;
        for _ in 0..200 {
            let (mut ledger, mut waiting, mut told) = (Ledger::default(), std::collections::VecDeque::new(), 0);
            for seq in 1..=60 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let waits = state >> 60 < 9;
                ledger.came(seq, waits).unwrap();
                if waits {
                    waiting.push_back(seq);
                }
                for _ in 0..(state >> 40) % 3 {
                    if waiting.pop_front().is_some() {
                        ledger.stored();
                    }
                }
                let expected = waiting.front().map_or(seq, |next| next - 1);
                assert_eq!(ledger.durable(), expected);
                assert!(ledger.durable() >= told, "a receipt is never taken back");
                told = ledger.durable();
            }
        }
    }
}
