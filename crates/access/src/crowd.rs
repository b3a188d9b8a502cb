//! How many connections one place may have open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::origin::{Network, Origin};

/// Who is here. As large as the number of connections, which the listener limits.
pub(crate) struct Crowd {
    per_address: usize,
    per_network: usize,
    here: Mutex<Here>,
}

#[derive(Default)]
struct Here {
    addresses: HashMap<IpAddr, usize>,
    networks: HashMap<Network, usize>,
}

/// A place in the crowd; free again when dropped.
pub(crate) struct Place<'a> {
    crowd: &'a Crowd,
    origin: Origin,
}

impl Crowd {
    pub(crate) fn new(per_address: usize, per_network: usize) -> Crowd {
        Crowd { per_address, per_network, here: Mutex::default() }
    }

    /// A place for a peer from there; `None` when his neighbours have taken them all.
    pub(crate) fn enter(&self, origin: Origin) -> Option<Place<'_>> {
        let mut here = self.here.lock();
        let from_address = here.addresses.get(&origin.address).copied().unwrap_or(0);
        let from_network = here.networks.get(&origin.network).copied().unwrap_or(0);
        if from_address >= self.per_address || from_network >= self.per_network {
            return None;
        }
        *here.addresses.entry(origin.address).or_default() += 1;
        *here.networks.entry(origin.network).or_default() += 1;
        Some(Place { crowd: self, origin })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut here = self.crowd.here.lock();
        leave(&mut here.addresses, self.origin.address);
        leave(&mut here.networks, self.origin.network);
    }
}

fn leave<K: Hash + Eq>(here: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = here.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(c: u8, d: u8) -> Origin {
        Origin::from(IpAddr::from([10, 0, c, d]))
    }

    #[test]
    fn neither_an_address_nor_a_network_takes_every_place() {
        let crowd = Crowd::new(2, 3);
        let first = crowd.enter(from(1, 1)).expect("room");
        let _second = crowd.enter(from(1, 1)).expect("room");
        assert!(crowd.enter(from(1, 1)).is_none());
        let third = crowd.enter(from(1, 2)).expect("room for a neighbour");
        assert!(crowd.enter(from(1, 3)).is_none(), "the network has its three");
        let _other = crowd.enter(from(2, 1)).expect("room for another network");
        drop(first);
        assert!(crowd.enter(from(1, 3)).is_some());
        drop(third);
        let here = crowd.here.lock();
        assert_eq!((here.addresses.len(), here.networks.len()), (2, 2), "who is gone is forgotten");
    }
}
