use super::*;

const WINDOW: i64 = 900;
/// After this what was counted is forgotten for certain.
const OVER: i64 = WINDOW + WINDOW / 9;

fn budget(limit: u16) -> Budget<u64> {
    Budget::new("test", limit, WINDOW)
}

fn sets_in_use<K>(budget: &Budget<K>) -> usize {
    budget.sets.lock().iter().flatten().count()
}

#[test]
fn who_fails_too_often_waits_for_the_end_of_the_window() {
    let budget = budget(5);
    for now in 0..5 {
        assert!(budget.has_left(&1, now));
        budget.failed(&1, now);
    }
    assert!(!budget.has_left(&1, WINDOW) && budget.has_left(&2, WINDOW));
    assert!(budget.has_left(&1, OVER));
    budget.failed(&1, OVER);
    budget.forget(&1);
    assert!((0..5).all(|_| budget.take(&1, OVER)), "what is forgotten is forgotten whole");
}

#[test]
fn attempts_at_the_same_moment_are_as_many_as_may_fail() {
    let budget = budget(5);
    assert_eq!((0..100).filter(|_| budget.take(&1, 7)).count(), 5);
    budget.give_back(&1, 8);
    assert_eq!((0..100).filter(|_| budget.take(&1, 8)).count(), 1);
}

/// The end of one window and the beginning of the next are a window as well.
#[test]
fn osap_13_2_3_no_window_of_time_holds_more_than_the_limit() {
    for step in [1, 13, 60, 99, 100, 250] {
        let budget = budget(5);
        let taken: Vec<i64> = (0..10_000).step_by(step).filter(|now| budget.take(&1, *now)).collect();
        assert!(taken.iter().any(|now| *now > 9_000), "it goes on: {taken:?}");
        for window in taken.windows(6) {
            assert!(window[5] - window[0] >= WINDOW, "{window:?}");
        }
    }
}

#[test]
fn a_flood_of_keys_takes_no_more_than_the_table() {
    assert_eq!(size_of::<Set>(), WAYS * 32);
    let budget = budget(5);
    for key in 0..4 * (SETS * WAYS) as u64 {
        budget.failed(&key, 0);
    }
    assert_eq!(sets_in_use(&budget), SETS);
}

/// Whoever is locked out stays so while others fail less often than he did, however many they are.
#[test]
fn osap_13_2_3_a_flood_of_other_keys_does_not_reset_a_budget() {
    let budget = budget(5);
    (0..5).for_each(|now| budget.failed(&u64::MAX, now));
    for key in 0..4 * (SETS * WAYS) as u64 {
        budget.failed(&key, 10);
    }
    assert!(!budget.has_left(&u64::MAX, 20));
}

/// It costs as many failures as the table has room for: what an attacker gains is five guesses.
#[test]
fn a_budget_is_reset_by_spending_most_of_the_table() {
    let budget = budget(5);
    (0..5).for_each(|now| budget.failed(&u64::MAX, now));
    let mut keys = 0;
    while !budget.has_left(&u64::MAX, 20) {
        (0..5).for_each(|_| budget.failed(&keys, 10));
        keys += 1;
    }
    // Eight of them have to fall into one set of 16,384: in half of all cases it takes 125,000.
    assert!(keys > 10_000, "{keys}");
}

#[test]
fn entries_of_the_past_make_room_first() {
    let budget = budget(5);
    for key in 0..(SETS * WAYS) as u64 {
        (0..5).for_each(|_| budget.failed(&key, 0));
    }
    (0..5).for_each(|_| budget.failed(&u64::MAX, OVER));
    for key in 0..(SETS as u64) {
        (0..5).for_each(|_| budget.failed(&(key + 1_000_000), OVER));
    }
    assert!(!budget.has_left(&u64::MAX, OVER));
}
