//! Budgets of failures: who fails too often in a while is not looked at any more (osap-wire 13.2.3).

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// Keys remembered at the same time; more than that are taken for spent.
const REMEMBERED: usize = 65_536;

/// How many failures each key may have in a window of time that begins with its first.
pub(crate) struct Budget<K> {
    failures: u8,
    window_ms: i64,
    spent: Mutex<HashMap<K, Spent>>,
}

struct Spent {
    failures: u8,
    since: i64,
}

impl<K: Hash + Eq> Budget<K> {
    pub(crate) fn new(failures: u8, window_ms: i64) -> Budget<K> {
        Budget { failures, window_ms, spent: Mutex::default() }
    }

    /// Whether another attempt may be looked at.
    pub(crate) fn has_left(&self, key: &K, now: i64) -> bool {
        let spent = self.spent.lock();
        match spent.get(key) {
            Some(spent) => spent.failures < self.failures || self.is_over(spent, now),
            None => spent.len() < REMEMBERED,
        }
    }

    pub(crate) fn failed(&self, key: K, now: i64) {
        let mut spent = self.spent.lock();
        if spent.len() >= REMEMBERED {
            spent.retain(|_, spent| !self.is_over(spent, now));
        }
        let entry = spent.entry(key).or_insert(Spent { failures: 0, since: now });
        if self.is_over(entry, now) {
            *entry = Spent { failures: 0, since: now };
        }
        entry.failures = entry.failures.saturating_add(1);
    }

    fn is_over(&self, spent: &Spent, now: i64) -> bool {
        now.saturating_sub(spent.since) >= self.window_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_too_often_waits_for_the_end_of_the_window() {
        let budget = Budget::new(5, 1_000);
        for n in 0..5 {
            assert!(budget.has_left(&"a", n));
            budget.failed("a", n);
        }
        assert!(!budget.has_left(&"a", 999) && budget.has_left(&"b", 999));
        assert!(budget.has_left(&"a", 1_000));
        budget.failed("a", 1_000);
        assert!(budget.has_left(&"a", 1_001), "and has its whole budget again");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let budget = Budget::new(1, 1_000);
        for key in 0..REMEMBERED {
            budget.failed(key, 0);
        }
        assert!(!budget.has_left(&REMEMBERED, 0));
        budget.failed(REMEMBERED, 1_000);
        assert!(budget.has_left(&(REMEMBERED + 1), 1_000));
        assert_eq!(budget.spent.lock().len(), 1);
    }
}
