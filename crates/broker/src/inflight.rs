//! Packet ids of messages that the peer has not acknowledged yet.

use std::collections::VecDeque;

/// Ids in the order they were given. Peers acknowledge in that order, so a release finds its id in front.
#[derive(Default)]
pub(crate) struct Inflight {
    max: u16,
    last: u16,
    ids: VecDeque<u16>,
}

impl Inflight {
    pub(crate) fn new(max: u16) -> Inflight {
        Inflight { max, last: 0, ids: VecDeque::new() }
    }

    /// An id that is not in use, never 0; `None` at the limit.
    pub(crate) fn take(&mut self) -> Option<u16> {
        if self.ids.len() >= usize::from(self.max) {
            return None;
        }
        self.last = self.last.checked_add(1).unwrap_or(1);
        // Ids go round in order, so the oldest is the first to be met again. A peer that has acknowledged all
        // others since will not acknowledge it any more.
        if self.ids.front() == Some(&self.last) {
            self.ids.pop_front();
        }
        self.ids.push_back(self.last);
        Some(self.last)
    }

    pub(crate) fn release(&mut self, id: u16) -> bool {
        let Some(at) = self.ids.iter().position(|&held| held == id) else { return false };
        self.ids.remove(at);
        if self.ids.is_empty() {
            self.ids = VecDeque::new();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_in_flight_are_distinct_and_never_zero(acks in proptest::collection::vec(any::<bool>(), 1..400)) {
            let mut inflight = Inflight::new(16);
            inflight.last = u16::MAX - 20;
            let mut held = Vec::new();
            for ack in acks {
                if ack && !held.is_empty() {
                    prop_assert!(inflight.release(held.remove(held.len() / 2)));
                } else if let Some(id) = inflight.take() {
                    prop_assert!(id != 0 && !held.contains(&id));
                    held.push(id);
                } else {
                    prop_assert_eq!(held.len(), 16);
                }
            }
        }
    }

    #[test]
    fn an_id_that_is_not_held_is_not_released() {
        let mut inflight = Inflight::new(2);
        assert!(!inflight.release(7));
    }

    #[test]
    fn an_id_never_acknowledged_is_given_up_when_it_comes_round_again() {
        let mut inflight = Inflight::new(4);
        let lost = inflight.take().expect("room");
        for _ in 0..u32::from(u16::MAX) - 1 {
            let id = inflight.take().expect("room");
            assert_ne!(id, lost);
            assert!(inflight.release(id));
        }
        assert_eq!(inflight.take(), Some(lost));
        assert_eq!(inflight.ids.len(), 1);
    }
}
