//! Acknowledgements owed to a publisher, in the order of receipt.

use std::collections::VecDeque;

use crate::service::Ticket;

/// What is owed for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// PUBACK of a QoS 1 message.
    PubAck(u16),
    /// PUBREC of a QoS 2 message.
    PubRec(u16),
}

/// The queue of one connection. Its length is bounded by the listener's window: past it the connection is not
/// read.
#[derive(Default)]
pub(crate) struct Acks {
    owed: VecDeque<(Owed, Ticket)>,
}

impl Acks {
    pub(crate) fn push(&mut self, owed: Owed, ticket: Ticket) {
        self.owed.push_back((owed, ticket));
    }

    pub(crate) fn len(&self) -> usize {
        self.owed.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Hands out, oldest first, what the mark allows. One that waits holds back those behind it, so that
    /// acknowledgements leave in the order of receipt (MQTT-4.6.0-2).
    pub(crate) fn release(&mut self, durable: Ticket, mut hand_out: impl FnMut(Owed)) {
        while let Some(&(owed, ticket)) = self.owed.front() {
            if ticket > durable {
                return;
            }
            self.owed.pop_front();
            hand_out(owed);
        }
        self.owed = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_4_6_acknowledgements_keep_the_order_of_receipt() {
        let mut acks = Acks::default();
        acks.push(Owed::PubAck(1), Ticket(10));
        acks.push(Owed::PubAck(2), Ticket::READY);
        acks.push(Owed::PubRec(3), Ticket(12));
        let mut out = Vec::new();
        acks.release(Ticket(9), |owed| out.push(owed));
        assert!(out.is_empty());
        acks.release(Ticket(11), |owed| out.push(owed));
        assert_eq!(out, [Owed::PubAck(1), Owed::PubAck(2)]);
        acks.release(Ticket(12), |owed| out.push(owed));
        assert_eq!(out.len(), 3);
        assert!(acks.is_empty());
    }
}
