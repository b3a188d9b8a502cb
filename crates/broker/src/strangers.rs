//! Who is connected over TLS and has not logged in: how many there may be, and who makes room when they are too many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::link::Link;

/// Addresses that are remembered for having logged in well.
const REMEMBERED: usize = 16_384;

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In all: a quarter of them of addresses that nobody knows, the rest of those that have logged in before.
    pub(crate) total: usize,
    /// Of one network (/24, /64) that nobody knows.
    pub(crate) of_network: usize,
    /// Who has got no further for so long may be asked to make room.
    pub(crate) patience: Duration,
}

/// The strangers of a listener. Who comes from an address that has logged in before takes nobody's place who does not, nor the
/// other way round. Where those of a kind are too many, one of the network that has most of them makes room for a newcomer of
/// a smaller one: who has got no further for longest. Inside one network, and among networks with as many, only who stands
/// still makes room, and otherwise the newcomer is refused, which costs him a connection and us nothing: a handshake that is
/// cut off has cost both sides their computing, and a thousand devices that come back at once from behind one address would
/// have each other cut off for ever.
///
/// As large as the number of strangers.
#[derive(Default)]
pub(crate) struct Strangers {
    unknown: Mutex<Here>,
    known: Mutex<Here>,
    lately: Lately,
}

#[derive(Default)]
struct Here {
    total: usize,
    /// Tells who got further last.
    next: u64,
    networks: HashMap<u128, Neighbours>,
    /// The networks by how many they have and, of several with as many, by who stands still for longest: that one is last.
    ranked: BTreeMap<Rank, u128>,
}

type Rank = (usize, Reverse<u64>);

/// The strangers of one network; who has got no further for longest is first.
type Neighbours = BTreeMap<u64, Stranger>;

struct Stranger {
    since: Instant,
    link: Arc<Link>,
}

/// A place among the strangers; free again when this is dropped.
pub(crate) struct Place<'a> {
    here: &'a Mutex<Here>,
    lately: &'a Lately,
    network: u128,
    host: u128,
    number: u64,
}

impl Strangers {
    /// As if somebody had logged in from this address.
    pub(crate) fn vouch(&self, address: IpAddr) {
        self.lately.note(host(address));
    }

    /// A place for the peer of this link; an error says which limit is reached.
    pub(crate) fn enter(&self, link: &Arc<Link>, limits: Limits, now: Instant) -> Result<Place<'_>, &'static str> {
        let (network, host) = (network(link.peer().ip()), host(link.peer().ip()));
        let unknown = limits.total.div_ceil(4);
        let (crowd, total, most_of_network) = if self.lately.holds(host) {
            (&self.known, limits.total - unknown, usize::MAX)
        } else {
            (&self.unknown, unknown, limits.of_network)
        };
        let mut here = crowd.lock();
        let of_network = here.networks.get(&network).map_or(0, Neighbours::len);
        let makes_room = if of_network >= most_of_network {
            let first = here.networks.get(&network).and_then(Neighbours::first_key_value);
            let first = first.filter(|(_, stranger)| stranger.stands_still(limits.patience, now));
            Some((network, *first.ok_or("tls_handshakes_of_network")?.0))
        } else if here.total >= total {
            Some(here.makes_room(of_network, limits.patience, now).ok_or("tls_handshakes")?)
        } else {
            None
        };
        if let Some((network, number)) = makes_room
            && let Some(stranger) = here.leave(network, number)
        {
            stranger.link.close("made_room");
        }
        let number = here.enter(network, Stranger { since: now, link: Arc::clone(link) });
        Ok(Place { here: crowd, lately: &self.lately, network, host, number })
    }
}

impl Stranger {
    fn stands_still(&self, patience: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= patience
    }
}

impl Here {
    /// Who makes room for a newcomer of a network that has so many: nobody of a network that would have fewer than his then,
    /// unless he stands still.
    fn makes_room(&self, of_newcomer: usize, patience: Duration, now: Instant) -> Option<(u128, u64)> {
        let (&(most, Reverse(number)), &network) = self.ranked.last_key_value()?;
        let stranger = self.networks.get(&network)?.get(&number)?;
        (most > of_newcomer + 1 || stranger.stands_still(patience, now)).then_some((network, number))
    }

    fn enter(&mut self, network: u128, stranger: Stranger) -> u64 {
        let number = self.next;
        self.next += 1;
        self.total += 1;
        self.change(network, |neighbours| neighbours.insert(number, stranger));
        number
    }

    fn leave(&mut self, network: u128, number: u64) -> Option<Stranger> {
        let stranger = self.change(network, |neighbours| neighbours.remove(&number))?;
        self.total -= 1;
        Some(stranger)
    }

    /// Changes the neighbours of a network, and its rank.
    fn change<T>(&mut self, network: u128, change: impl FnOnce(&mut Neighbours) -> T) -> T {
        let neighbours = self.networks.entry(network).or_default();
        let before = rank(neighbours);
        let changed = change(neighbours);
        let after = rank(neighbours);
        if before != after {
            before.and_then(|before| self.ranked.remove(&before));
            after.and_then(|after| self.ranked.insert(after, network));
        }
        if after.is_none() {
            self.networks.remove(&network);
        }
        changed
    }
}

fn rank(neighbours: &Neighbours) -> Option<Rank> {
    neighbours.first_key_value().map(|(first, _)| (neighbours.len(), Reverse(*first)))
}

impl Place<'_> {
    /// The peer has got a step further. There are a few of them, so that nobody holds a place by taking them slowly.
    pub(crate) fn advance(&mut self, now: Instant) {
        let mut here = self.here.lock();
        // Who is not here any more has just been asked to leave.
        if let Some(stranger) = here.leave(self.network, self.number) {
            self.number = here.enter(self.network, Stranger { since: now, ..stranger });
        }
    }

    /// The peer has logged in well: it is no stranger any more, and its address is remembered.
    pub(crate) fn keep(self) {
        self.lately.note(self.host);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.here.lock().leave(self.network, self.number);
    }
}

/// Addresses that have logged in well, as keyed hashes, in a table of fixed size: a newer one takes the slot of an older one.
struct Lately {
    hasher: RandomState,
    slots: Box<[AtomicU64]>,
}

impl Default for Lately {
    fn default() -> Lately {
        Lately { hasher: RandomState::new(), slots: (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Lately {
    fn slot(&self, host: u128) -> (u64, Option<&AtomicU64>) {
        // An empty slot is 0.
        let hash = self.hasher.hash_one(host) | 1;
        (hash, self.slots.get((hash >> 1) as usize % REMEMBERED))
    }

    fn note(&self, host: u128) {
        if let (hash, Some(slot)) = self.slot(host) {
            slot.store(hash, Ordering::Relaxed);
        }
    }

    fn holds(&self, host: u128) -> bool {
        let (hash, slot) = self.slot(host);
        slot.is_some_and(|slot| slot.load(Ordering::Relaxed) == hash)
    }
}

/// The /24 or the /64 of an address. An IPv4 address written as IPv6 is the former.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        // No prefix of IPv6 that is in use looks like it.
        IpAddr::V4(address) => u128::from(address.to_bits() >> 8),
        address => host(address),
    }
}

/// The address, or the /64 of IPv6, in which a single host has as many as it likes.
fn host(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests;
