//! Budgets of failures: who fails too often in a while is not looked at any more (osap-wire 13.2.3).

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::marker::PhantomData;

use parking_lot::Mutex;

use crate::window::{Span, Window};

/// Sets of a table, and keys in each.
const SETS: usize = 16_384;
const WAYS: usize = 8;

/// How many failures each key may have in any window of time.
///
/// The table has room for 131,072 keys and never takes more than 4 MiB, whatever the flood. A key is known by its hash
/// under a secret of the process, which also says in which set of eight it is. In a full set the key with the fewest
/// failures makes room, of several the one that has not failed for longest. To have his own failures forgotten an attacker
/// must bring eight others in the same set to as many, and does not know which are: he has to spend the budgets of about
/// the whole table.
pub(crate) struct Budget<K: ?Sized> {
    name: &'static str,
    limit: u16,
    span: Span,
    hasher: RandomState,
    /// Sets are made when they are needed.
    sets: Mutex<Vec<Option<Box<Set>>>>,
    keys: PhantomData<fn(&K)>,
}

type Set = [Entry; WAYS];

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    hash: u64,
    failures: Window,
}

impl<K: Hash + ?Sized> Budget<K> {
    /// A table whose keys may have `limit` failures in `window_ms`; `name` is for its metrics.
    pub(crate) fn new(name: &'static str, limit: u16, window_ms: i64) -> Budget<K> {
        Budget {
            name,
            limit,
            span: Span::of_ms(window_ms),
            hasher: RandomState::new(),
            sets: Mutex::new(vec![None; SETS]),
            keys: PhantomData,
        }
    }

    /// Whether another attempt may be looked at.
    pub(crate) fn has_left(&self, key: &K, now: i64) -> bool {
        let hash = self.hasher.hash_one(key);
        let sets = self.sets.lock();
        let set = sets.get(index(hash)).and_then(Option::as_deref);
        let entry = set.and_then(|set| set.iter().find(|entry| entry.hash == hash));
        entry.is_none_or(|entry| self.allows(entry, now))
    }

    /// Counts a failure before it happens, if one is left. Of attempts at the same moment so many are looked at as may
    /// fail. [`give_back`](Self::give_back) when it was none.
    pub(crate) fn take(&self, key: &K, now: i64) -> bool {
        self.with_entry(key, now, |entry| {
            let may = self.allows(entry, now);
            if may {
                entry.failures.add(self.span, now);
            }
            may
        })
    }

    /// What was taken did not fail.
    pub(crate) fn give_back(&self, key: &K, now: i64) {
        let hash = self.hasher.hash_one(key);
        let mut sets = self.sets.lock();
        let held = &mut sets[index(hash)];
        let Some(set) = held else { return };
        if let Some(entry) = set.iter_mut().find(|entry| entry.hash == hash) {
            entry.failures.take_back(self.span, now);
            if entry.failures.count(self.span, now) == 0 {
                *entry = Entry::default();
            }
        }
        // Those who never fail are most, and own no memory.
        if set.iter().all(|entry| entry.hash == 0) {
            *held = None;
        }
    }

    /// Counts a failure, whether or not one is left.
    pub(crate) fn failed(&self, key: &K, now: i64) {
        self.with_entry(key, now, |entry| entry.failures.add(self.span, now));
    }

    /// Forgets the failures of a key.
    pub(crate) fn forget(&self, key: &K) {
        let hash = self.hasher.hash_one(key);
        if let Some(Some(set)) = self.sets.lock().get_mut(index(hash)) {
            set.iter_mut().filter(|entry| entry.hash == hash).for_each(|entry| *entry = Entry::default());
        }
    }

    fn allows(&self, entry: &Entry, now: i64) -> bool {
        entry.failures.count(self.span, now) < u32::from(self.limit)
    }

    fn with_entry<T>(&self, key: &K, now: i64, change: impl FnOnce(&mut Entry) -> T) -> T {
        let hash = self.hasher.hash_one(key);
        let mut sets = self.sets.lock();
        let set = sets[index(hash)].get_or_insert_default();
        let place = match set.iter().position(|entry| entry.hash == hash) {
            Some(place) => place,
            None => {
                let (place, failures) = self.least(set, now);
                if failures > 0 {
                    metrics::counter!("vestibule_budget_evictions_total", "budget" => self.name).increment(1);
                }
                set[place] = Entry { hash, failures: Window::default() };
                place
            }
        };
        change(&mut set[place])
    }

    /// The entry that makes room, and what is lost with it.
    fn least(&self, set: &Set, now: i64) -> (usize, u32) {
        let mut least = (0, set[0].failures.count(self.span, now));
        for (place, entry) in set.iter().enumerate().skip(1) {
            let failures = entry.failures.count(self.span, now);
            let older = || set[least.0].failures.is_newer_than(&entry.failures);
            if failures < least.1 || (failures == least.1 && older()) {
                least = (place, failures);
            }
        }
        least
    }
}

/// The set a key is in.
fn index(hash: u64) -> usize {
    const { assert!(SETS.is_power_of_two()) };
    // The whole hash is the mark of the entry: the part taken here is no loss.
    (hash >> 32) as usize & (SETS - 1)
}

#[cfg(test)]
mod tests;
