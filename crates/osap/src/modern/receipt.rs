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

/// Which messages of QoS 1 are durable at this end, to be told in receipts.
///
/// Messages become durable in the order in which they came, those of other QoS as they come.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    durable: u64,
    last: u64,
    waiting: std::collections::VecDeque<u64>,
}

impl Ledger {
    /// A message of this number came; `waits` when it is durable only later.
    pub fn came(&mut self, seq: u64, waits: bool) {
        self.last = self.last.max(seq);
        if waits {
            self.waiting.push_back(seq);
        } else if self.waiting.is_empty() {
            self.durable = self.last;
        }
    }

    /// The oldest message that waited is durable.
    pub fn stored(&mut self) {
        self.waiting.pop_front();
        self.durable = self.waiting.front().map_or(self.last, |next| next - 1);
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
        ledger.came(1, false);
        assert_eq!(ledger.durable(), 1);
        ledger.came(2, true);
        ledger.came(3, false);
        ledger.came(4, true);
        assert_eq!(ledger.durable(), 1);
        ledger.stored();
        assert_eq!(ledger.durable(), 3);
        ledger.stored();
        assert_eq!(ledger.durable(), 4);
    }
}
