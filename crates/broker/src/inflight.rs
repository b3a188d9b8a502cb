//! Packet ids of messages that the peer has not acknowledged yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Ids in the order they were given. Peers acknowledge in that order, so a release finds its id in front.
#[derive(Default)]
pub(crate) struct Inflight {
    max: u16,
    /// How long an acknowledgement is waited for when the place is needed.
    patience: Option<Duration>,
    last: u16,
    /// With the moment they were given, where that matters.
    ids: VecDeque<(u16, Option<Instant>)>,
}

impl Inflight {
    pub(crate) fn new(max: u16, patience: Option<Duration>) -> Inflight {
        Inflight { max, patience, last: 0, ids: VecDeque::new() }
    }

    /// An id that is not in use, never 0; `None` at the limit.
    pub(crate) fn take(&mut self) -> Option<u16> {
        let given = self.patience.map(|_| Instant::now());
        if self.ids.len() >= usize::from(self.max) && !self.give_up(given) {
            return None;
        }
        self.last = self.last.checked_add(1).unwrap_or(1);
        // Ids go round in order, so the oldest is the first to be met again. A peer that has acknowledged all
        // others since will not acknowledge it any more.
        if self.ids.front().is_some_and(|(id, _)| *id == self.last) {
            self.ids.pop_front();
        }
        self.ids.push_back((self.last, given));
        Some(self.last)
    }

    /// Frees the places of messages whose acknowledgement is overdue; says whether there were such. A message that a
    /// legacy device has lost is never acknowledged (osap-wire 9.10.8).
    fn give_up(&mut self, now: Option<Instant>) -> bool {
        let (Some(patience), Some(now)) = (self.patience, now) else { return false };
        let overdue = |given: &Option<Instant>| given.is_some_and(|given| now.duration_since(given) >= patience);
        let before = self.ids.len();
        self.ids.retain(|(_, given)| !overdue(given));
        let lost = before - self.ids.len();
        metrics::counter!("vestibule_messages_unacknowledged_total").increment(lost as u64);
        lost > 0
    }

    pub(crate) fn holds(&self, id: u16) -> bool {
        self.ids.iter().any(|(held, _)| *held == id)
    }

    pub(crate) fn release(&mut self, id: u16) -> bool {
        let Some(at) = self.ids.iter().position(|(held, _)| *held == id) else { return false };
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
            let mut inflight = Inflight::new(16, None);
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
        let mut inflight = Inflight::new(2, None);
        assert!(!inflight.release(7));
    }

    #[test]
    fn an_id_never_acknowledged_is_given_up_when_it_comes_round_again() {
        let mut inflight = Inflight::new(4, None);
        let lost = inflight.take().expect("room");
        for _ in 0..u32::from(u16::MAX) - 1 {
            let id = inflight.take().expect("room");
            assert_ne!(id, lost);
            assert!(inflight.release(id));
        }
        assert_eq!(inflight.take(), Some(lost));
        assert_eq!(inflight.ids.len(), 1);
    }

    #[test]
    fn osap_9_10_8_a_message_the_peer_has_lost_frees_its_place_in_time() {
        let mut patient = Inflight::new(2, Some(Duration::from_secs(3_600)));
        assert!(patient.take().is_some() && patient.take().is_some());
        assert_eq!(patient.take(), None);
        let mut hasty = Inflight::new(2, Some(Duration::ZERO));
        assert!(hasty.take().is_some() && hasty.take().is_some());
        assert_eq!(hasty.take(), Some(3));
        assert!(!hasty.release(1), "given up");
    }
}
