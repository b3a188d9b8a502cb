//! A coarse timer wheel: one-second slots, one wheel for each shard.
//!
//! A link carries its own deadline and moves it with every frame without touching the wheel. When the wheel
//! comes to a link whose deadline has moved, it puts it where it belongs now. A connection, busy or idle, costs
//! one visit in [`REACH`] seconds.

use std::sync::{Arc, Weak};

use crate::link::Link;

/// Seconds after which a link is looked at again at the latest, so that a deadline that was moved closer is
/// seen in time.
pub(crate) const REACH: Tick = 8;
const SLOTS: usize = REACH as usize + 1;

/// Seconds since the shard started.
pub(crate) type Tick = u32;

#[derive(Default)]
pub(crate) struct Wheel {
    slots: [Vec<Weak<Link>>; SLOTS],
}

impl Wheel {
    /// Watches a link until it is dropped.
    pub(crate) fn insert(&mut self, link: &Arc<Link>, now: Tick) {
        let at = match link.deadline() {
            0 => now + REACH,
            deadline => deadline.clamp(now + 1, now + REACH),
        };
        self.slots[at as usize % SLOTS].push(Arc::downgrade(link));
    }

    /// Visits every link that is watched.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Link)) {
        for link in self.slots.iter().flatten().filter_map(Weak::upgrade) {
            visit(&link);
        }
    }

    /// The links whose deadline has come at `now`, which is one more than at the call before.
    pub(crate) fn tick(&mut self, now: Tick) -> Vec<Arc<Link>> {
        let mut expired = Vec::new();
        for weak in std::mem::take(&mut self.slots[now as usize % SLOTS]) {
            let Some(link) = weak.upgrade() else { continue };
            match link.deadline() {
                deadline if deadline != 0 && deadline <= now => expired.push(link),
                _ => self.insert(&link, now),
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;

    fn link(deadline: Tick) -> Arc<Link> {
        let link = Link::for_test();
        link.set_deadline(deadline);
        link
    }

    #[test]
    fn a_link_expires_at_its_deadline_however_often_it_moved() {
        let mut wheel = Wheel::default();
        let moving = link(5);
        wheel.insert(&moving, 0);
        for now in 1..=30 {
            let expired = wheel.tick(now);
            assert!(expired.is_empty(), "at {now}");
            if now <= 26 {
                moving.set_deadline(now + 5);
            }
        }
        assert_eq!(wheel.tick(31).len(), 1);
    }

    #[test]
    fn a_link_without_deadline_never_expires_and_a_dropped_one_is_forgotten() {
        let mut wheel = Wheel::default();
        let idle = link(0);
        wheel.insert(&idle, 0);
        wheel.insert(&link(1), 0);
        for now in 1..=100 {
            assert!(wheel.tick(now).is_empty());
        }
        assert_eq!(wheel.slots.iter().map(Vec::len).sum::<usize>(), 1);
    }
}
