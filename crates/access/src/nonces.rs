//! The nonces that tickets have shown (osap-wire 13.3): a first message that comes again is a recording.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use osap::modern::TicketId;
use parking_lot::Mutex;

/// Nonces remembered of one ticket.
const OF_TICKET: usize = 64;
/// Tickets remembered. A device shows a ticket once or twice in its life, so most own a few words; who would push others
/// out has to hold that many tickets.
const TICKETS: usize = 65_536;

/// The nonces of the tickets that were shown last, as hashes under a secret of the process.
#[derive(Default)]
pub(crate) struct Nonces {
    hasher: RandomState,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    by_ticket: HashMap<TicketId, VecDeque<u64>>,
    /// The tickets in the order in which they came, the oldest first.
    order: VecDeque<TicketId>,
}

impl Nonces {
    /// Whether the ticket, whose binder was right, shows this nonce for the first time.
    pub(crate) fn is_fresh(&self, ticket: TicketId, nonce: &[u8; 32]) -> bool {
        let mark = self.hasher.hash_one((ticket, nonce));
        let mut shown = self.shown.lock();
        let Shown { by_ticket, order } = &mut *shown;
        let marks = by_ticket.entry(ticket).or_insert_with(|| {
            order.push_back(ticket);
            VecDeque::with_capacity(1)
        });
        if marks.contains(&mark) {
            return false;
        }
        if marks.len() == OF_TICKET {
            marks.pop_front();
        }
        marks.push_back(mark);
        if order.len() > TICKETS
            && let Some(oldest) = order.pop_front()
        {
            by_ticket.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(n: u32) -> [u8; 32] {
        let mut nonce = [0; 32];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        nonce
    }

    #[test]
    fn osap_13_3_the_last_64_nonces_of_a_ticket_are_known() {
        let nonces = Nonces::default();
        let (one, other) = (TicketId::new([1; 16]), TicketId::new([2; 16]));
        assert!((0..64).all(|n| nonces.is_fresh(one, &nonce(n))));
        assert!((0..64).all(|n| !nonces.is_fresh(one, &nonce(n))));
        assert!(nonces.is_fresh(other, &nonce(0)), "of another ticket");
        assert!(nonces.is_fresh(one, &nonce(64)));
        assert!(nonces.is_fresh(one, &nonce(0)), "the oldest is forgotten");
    }

    #[test]
    fn the_table_is_bounded() {
        let nonces = Nonces::default();
        for n in 0..=TICKETS as u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            assert!(nonces.is_fresh(TicketId::new(id), &nonce(0)));
        }
        let shown = nonces.shown.lock();
        assert_eq!((shown.by_ticket.len(), shown.order.len()), (TICKETS, TICKETS));
    }
}
