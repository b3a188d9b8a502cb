//! A queue in which everybody has his turn.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;

use crate::origin::{Network, Origin};

/// What waits, by network and address. Networks take turns, and so do the addresses of a network when it has its turn.
///
/// When it is full the network that has most waiting gives way, and in it the address that has most waiting: its newest
/// goes. So a flood from few places pushes out itself, and everybody else finds room.
pub(crate) struct FairQueue<T> {
    networks: Turns<Network, Lane<T>>,
    waiting: usize,
    max: usize,
}

/// What waits of one network.
struct Lane<T> {
    addresses: Turns<IpAddr, VecDeque<T>>,
    waiting: usize,
}

/// Who has something, in the order of the turns.
struct Turns<K, V> {
    order: VecDeque<K>,
    of: HashMap<K, V>,
}

impl<K: Hash + Eq + Copy, V> Turns<K, V> {
    fn new() -> Turns<K, V> {
        Turns { order: VecDeque::new(), of: HashMap::new() }
    }

    fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        match self.of.entry(key) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(place) => {
                self.order.push_back(key);
                place.insert(new())
            }
        }
    }

    /// Takes something of whoever is next; `take` says what is left of him.
    fn next<T>(&mut self, take: impl FnOnce(&mut V) -> (Option<T>, usize)) -> Option<T> {
        let key = self.order.pop_front()?;
        let (taken, left) = take(self.of.get_mut(&key)?);
        if left == 0 {
            self.of.remove(&key);
        } else {
            self.order.push_back(key);
        }
        taken
    }

    /// Takes something of whoever has most.
    fn most<T>(&mut self, size: impl Fn(&V) -> usize, take: impl FnOnce(&mut V) -> (Option<T>, usize)) -> Option<T> {
        let key = *self.of.iter().max_by_key(|(_, held)| size(held))?.0;
        let (taken, left) = take(self.of.get_mut(&key)?);
        if left == 0 {
            self.of.remove(&key);
            self.order.retain(|other| *other != key);
        }
        taken
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn new(max: usize) -> FairQueue<T> {
        FairQueue { networks: Turns::new(), waiting: 0, max }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Adds something, and gives back what has to go for it: nothing, something else, or itself.
    pub(crate) fn push(&mut self, origin: Origin, item: T) -> Option<T> {
        let lane = self.networks.entry(origin.network, || Lane { addresses: Turns::new(), waiting: 0 });
        lane.addresses.entry(origin.address, VecDeque::new).push_back(item);
        lane.waiting += 1;
        self.waiting += 1;
        if self.waiting <= self.max {
            return None;
        }
        self.waiting -= 1;
        self.networks.most(|lane| lane.waiting, |lane| (lane.newest(), lane.waiting))
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.networks.next(|lane| (lane.next(), lane.waiting))?;
        self.waiting -= 1;
        Some(item)
    }
}

impl<T> Lane<T> {
    fn next(&mut self) -> Option<T> {
        self.waiting -= 1;
        self.addresses.next(|items| (items.pop_front(), items.len()))
    }

    fn newest(&mut self) -> Option<T> {
        self.waiting -= 1;
        self.addresses.most(VecDeque::len, |items| (items.pop_back(), items.len()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn from(c: u8, d: u8) -> Origin {
        Origin::from(IpAddr::from([10, 0, c, d]))
    }

    fn all(queue: &mut FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn networks_take_turns_and_so_do_the_addresses_of_one() {
        let mut queue = FairQueue::new(100);
        for (origin, item) in [(from(1, 1), 11), (from(1, 1), 12), (from(1, 2), 13), (from(2, 1), 21), (from(2, 1), 22)]
        {
            assert_eq!(queue.push(origin, item), None);
        }
        assert_eq!(all(&mut queue), [11, 21, 13, 22, 12]);
        assert!(queue.len() == 0 && queue.networks.of.is_empty() && queue.networks.order.is_empty());
    }

    #[test]
    fn a_full_queue_takes_from_whoever_has_most() {
        let mut queue = FairQueue::new(4);
        for item in 0..4 {
            assert_eq!(queue.push(from(1, 1), item), None);
        }
        assert_eq!(queue.push(from(1, 1), 4), Some(4), "his own newest goes");
        assert_eq!(queue.push(from(1, 2), 5), Some(3), "a neighbour finds room");
        assert_eq!(queue.push(from(2, 1), 6), Some(2), "and so does another network");
        assert_eq!(queue.push(from(2, 1), 7), Some(1));
        assert_eq!(all(&mut queue), [0, 6, 5, 7]);
    }

    /// However many addresses one network has, another one has every second turn.
    #[test]
    fn a_network_of_many_addresses_is_one_network() {
        let mut queue = FairQueue::new(1_000);
        for host in 0..200 {
            assert!((0..5).all(|n| queue.push(from(1, host), n).is_none()));
        }
        queue.push(from(2, 1), 100);
        queue.push(from(2, 1), 101);
        let order = all(&mut queue);
        assert!(order[..4].contains(&100) && order[..4].contains(&101), "{:?}", &order[..4]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled_and_the_bound_holds(
            steps in prop::collection::vec((0u8..4, 0u8..4, prop::bool::weighted(0.7)), 1..200),
            max in 0usize..8,
        ) {
            let mut queue = FairQueue::new(max);
            let mut inside = HashSet::new();
            for (number, (network, host, push)) in steps.into_iter().enumerate() {
                let out = if push {
                    inside.insert(number);
                    queue.push(from(network, host), number)
                } else {
                    let popped = queue.pop();
                    prop_assert_eq!(popped.is_none(), inside.is_empty());
                    popped
                };
                if let Some(out) = out {
                    prop_assert!(inside.remove(&out));
                }
                prop_assert!(inside.len() <= max);
                let lanes: usize = queue.networks.of.values().map(|lane| lane.waiting).sum();
                prop_assert_eq!((lanes, queue.networks.order.len()), (inside.len(), queue.networks.of.len()));
            }
        }
    }
}
