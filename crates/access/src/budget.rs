//! Budgets of failures: who fails too often in a while is not looked at any more (osap-wire 13.2.3).

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// Keys remembered at the same time; more than that are taken for spent.
const REMEMBERED: usize = 65_536;

/// How many failures each key may have in a window of time that begins with its first attempt.
pub(crate) struct Budget<K> {
    failures: u8,
    window_ms: i64,
    spent: Mutex<Remembered<K>>,
}

struct Remembered<K> {
    keys: HashMap<K, Spent>,
    /// When those whose window is over were last looked for.
    swept: i64,
}

struct Spent {
    failures: u8,
    since: i64,
}

impl<K: Hash + Eq> Budget<K> {
    pub(crate) fn new(failures: u8, window_ms: i64) -> Budget<K> {
        Budget { failures, window_ms, spent: Mutex::new(Remembered { keys: HashMap::new(), swept: 0 }) }
    }

    /// Whether another attempt may be looked at. It counts as a failure, so that many at once do not all pass, until it
    /// is [given back](Budget::give_back).
    pub(crate) fn take(&self, key: K, now: i64) -> bool {
        let mut spent = self.spent.lock();
        let Remembered { keys, swept } = &mut *spent;
        let is_over = |spent: &Spent| now.saturating_sub(spent.since) >= self.window_ms;
        if keys.len() >= REMEMBERED && now.saturating_sub(*swept) >= self.window_ms / 16 {
            *swept = now;
            keys.retain(|_, spent| !is_over(spent));
        }
        if keys.len() >= REMEMBERED && !keys.contains_key(&key) {
            return false;
        }
        let entry = keys.entry(key).or_insert(Spent { failures: 0, since: now });
        if is_over(entry) {
            *entry = Spent { failures: 0, since: now };
        }
        let has_left = entry.failures < self.failures;
        if has_left {
            entry.failures += 1;
        }
        has_left
    }

    /// The attempt was no failure.
    pub(crate) fn give_back(&self, key: &K) {
        if let Some(spent) = self.spent.lock().keys.get_mut(key) {
            spent.failures = spent.failures.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_too_often_waits_for_the_end_of_the_window() {
        let budget = Budget::new(5, 1_000);
        for n in 0..5 {
            assert!(budget.take("a", n));
        }
        assert!(!budget.take("a", 999) && budget.take("b", 999));
        for n in 0..5 {
            assert!(budget.take("a", 1_000 + n), "and has its whole budget again");
        }
        assert!(!budget.take("a", 1_010));
    }

    #[test]
    fn what_was_no_failure_costs_nothing() {
        let budget = Budget::new(1, 1_000);
        for _ in 0..3 {
            assert!(budget.take("a", 0));
            assert!(!budget.take("a", 0), "one at a time");
            budget.give_back(&"a");
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let budget = Budget::new(1, 1_000);
        for key in 0..REMEMBERED {
            assert!(budget.take(key, 0));
        }
        assert!(!budget.take(REMEMBERED, 0));
        assert!(budget.take(REMEMBERED, 1_000), "the others have had their time");
        assert_eq!(budget.spent.lock().keys.len(), 1);
    }
}
