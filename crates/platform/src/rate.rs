//! How often something may happen: so many at once, then so many in a time. Each takes a few bytes, whatever comes.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Sets of a table, and keys in each.
const SETS: usize = 1_024;
const WAYS: usize = 8;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// One comes back in so many milliseconds.
    pub(crate) every_ms: i64,
    /// So many may happen at once.
    pub(crate) burst: i64,
}

impl Pace {
    /// Takes one: `due` is when all would be there again. Gives the next `due`, or how long until there is one.
    fn take(self, due: i64, now: i64) -> Result<i64, Duration> {
        let all = self.every_ms.saturating_mul(self.burst);
        // A clock that was set back costs no more than the whole.
        let due = due.clamp(now, now.saturating_add(all));
        let next = due.saturating_add(self.every_ms);
        match next - now - all {
            wait if wait > 0 => Err(Duration::from_millis(wait.unsigned_abs())),
            _ => Ok(next),
        }
    }
}

/// What one principal has used up of its pace.
#[derive(Debug, Default)]
pub(crate) struct Used(AtomicI64);

impl Used {
    /// Takes one, or says how long until there is one.
    pub(crate) fn take(&self, pace: Pace, now: i64) -> Result<(), Duration> {
        let mut refused = None;
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |due| match pace.take(due, now) {
            Ok(next) => Some(next),
            Err(wait) => {
                refused = Some(wait);
                None
            }
        });
        refused.map_or(Ok(()), Err)
    }
}

/// What many have used up, each known by its hash under a secret of the process. The table is of a fixed size; in a full set
/// whoever has used least makes room.
pub(crate) struct UsedBy {
    pace: Pace,
    hasher: RandomState,
    sets: Mutex<Vec<[(u64, i64); WAYS]>>,
}

/// One that was taken, and is given back when this is dropped before it was [spent](Taken::spend).
#[must_use = "what is dropped at once is given back at once"]
pub(crate) struct Taken {
    of: Arc<UsedBy>,
    hash: u64,
    spent: bool,
}

impl Taken {
    /// It is used up for good.
    pub(crate) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.spent {
            self.of.give_back(self.hash);
        }
    }
}

impl UsedBy {
    pub(crate) fn new(pace: Pace) -> Arc<UsedBy> {
        Arc::new(UsedBy { pace, hasher: RandomState::new(), sets: Mutex::new(Vec::new()) })
    }

    /// Takes one, or says how long until there is one.
    pub(crate) fn take(self: &Arc<Self>, key: &(impl Hash + ?Sized), now: i64) -> Result<Taken, Duration> {
        let hash = self.hasher.hash_one(key);
        let mut sets = self.sets.lock();
        if sets.is_empty() {
            // Who has no people owns no memory for them.
            sets.resize(SETS, [(0, 0); WAYS]);
        }
        let set = &mut sets[hash as usize % SETS];
        let known = set.iter().position(|(known, _)| *known == hash);
        let due = self.pace.take(known.map_or(0, |at| set[at].1), now)?;
        let at = known.or_else(|| (0..WAYS).min_by_key(|at| set[*at].1)).unwrap_or_default();
        set[at] = (hash, due);
        drop(sets);
        Ok(Taken { of: Arc::clone(self), hash, spent: false })
    }

    /// Nothing to be done for one that has made room for others.
    fn give_back(&self, hash: u64) {
        let mut sets = self.sets.lock();
        let known = sets.get_mut(hash as usize % SETS).and_then(|set| set.iter_mut().find(|(known, _)| *known == hash));
        if let Some((_, due)) = known {
            *due = due.saturating_sub(self.pace.every_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { every_ms: 100, burst: 3 };

    #[test]
    fn so_many_at_once_and_then_one_after_the_other() {
        let used = Used::default();
        for _ in 0..3 {
            assert_eq!(used.take(PACE, 1_000), Ok(()));
        }
        assert_eq!(used.take(PACE, 1_000), Err(Duration::from_millis(100)));
        assert_eq!(used.take(PACE, 1_060), Err(Duration::from_millis(40)));
        assert_eq!(used.take(PACE, 1_100), Ok(()));
        assert_eq!(used.take(PACE, 1_100), Err(Duration::from_millis(100)));
        for _ in 0..3 {
            assert_eq!(used.take(PACE, 9_000), Ok(()), "all are back");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_shuts_nobody_out() {
        let used = Used::default();
        for _ in 0..3 {
            assert_eq!(used.take(PACE, 1_000_000), Ok(()));
        }
        assert_eq!(used.take(PACE, 5), Err(Duration::from_millis(100)));
        assert_eq!(used.take(PACE, 5), Err(Duration::from_millis(100)), "no longer than after all were used");
    }

    fn spend(used: &Arc<UsedBy>, key: &str) -> Result<(), Duration> {
        used.take(key, 1_000).map(Taken::spend)
    }

    #[test]
    fn each_key_is_its_own_and_what_is_not_spent_is_there_again() {
        let used = UsedBy::new(PACE);
        assert_eq!((spend(&used, "a"), spend(&used, "a")), (Ok(()), Ok(())));
        let taken = used.take("a", 1_000).map_err(drop).expect("the third");
        assert!(spend(&used, "a").is_err());
        assert_eq!(spend(&used, "b"), Ok(()));
        drop(taken);
        assert_eq!(spend(&used, "a"), Ok(()));
        assert!(spend(&used, "a").is_err());
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_room_and_lets_off_nobody_who_has_used_more() {
        let used = UsedBy::new(PACE);
        for _ in 0..3 {
            assert_eq!(spend(&used, "a"), Ok(()));
        }
        for n in 0..20 * SETS * WAYS {
            let _ = used.take(&n, 1_000).map(Taken::spend);
        }
        assert!(spend(&used, "a").is_err());
        assert_eq!(used.sets.lock().len(), SETS);
    }
}
