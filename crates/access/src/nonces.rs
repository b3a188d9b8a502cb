//! The nonces that devices have shown at the LBS, and in their sessions at the DAS (osap-wire 13.3): a first message that comes
//! again is a recording.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};

use parking_lot::Mutex;

/// Nonces remembered of one holder.
const OF_HOLDER: usize = 64;
/// Holders remembered, the latest to come; most own a few words. One that is pushed out in a larger fleet has its recordings
/// cost a key agreement again, or a guest.
const HOLDERS: usize = 65_536;

/// The nonces that the holders of a secret, devices or their sessions, have shown last, as hashes under a secret of the process.
pub(crate) struct Nonces<K> {
    hasher: RandomState,
    shown: Mutex<Shown<K>>,
}

struct Shown<K> {
    by_holder: HashMap<K, VecDeque<u64>>,
    /// The holders in the order in which they came, the oldest first.
    order: VecDeque<K>,
}

impl<K> Default for Nonces<K> {
    fn default() -> Self {
        let shown = Shown { by_holder: HashMap::new(), order: VecDeque::new() };
        Nonces { hasher: RandomState::new(), shown: Mutex::new(shown) }
    }
}

impl<K: Hash + Eq + Copy> Nonces<K> {
    /// Whether the holder, who has proven to be one, shows this nonce for the first time.
    pub(crate) fn is_fresh(&self, holder: K, nonce: &[u8; 32]) -> bool {
        let mark = self.hasher.hash_one((holder, nonce));
        let mut shown = self.shown.lock();
        let Shown { by_holder, order } = &mut *shown;
        let marks = by_holder.entry(holder).or_insert_with(|| {
            order.push_back(holder);
            VecDeque::with_capacity(1)
        });
        if marks.contains(&mark) {
            return false;
        }
        if marks.len() == OF_HOLDER {
            marks.pop_front();
        }
        marks.push_back(mark);
        if order.len() > HOLDERS
            && let Some(oldest) = order.pop_front()
        {
            by_holder.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use osap::modern::TicketId;

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
        for n in 0..=HOLDERS as u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            assert!(nonces.is_fresh(TicketId::new(id), &nonce(0)));
        }
        let shown = nonces.shown.lock();
        assert_eq!((shown.by_holder.len(), shown.order.len()), (HOLDERS, HOLDERS));
    }
}
