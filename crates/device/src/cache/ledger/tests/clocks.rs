//! The wall clock is set, and shows anything after a restart.

use super::*;

/// 2024-01-01T00:00:00Z, where a device without a clock of its own begins.
const FACTORY: i64 = 1_704_067_200_000;

const HOUR: i64 = 3_600_000;

#[test]
fn what_is_too_old_is_dropped() {
    let mut bench = Bench::new();
    bench.report("old");
    bench.settle();
    bench.elapse(Duration::from_secs(1800));
    bench.report("new");
    bench.settle();
    bench.elapse(Duration::from_secs(1800));
    assert_eq!(bench.drain(), ["new"]);
    assert_eq!(bench.ledger.counts.dropped, 1);

    let mut bench = Bench::with(Options { age: Duration::MAX, ..OPTIONS }, Disk::default());
    bench.report("kept for ever");
    bench.elapse(Duration::from_secs(1 << 33));
    assert_eq!(bench.drain(), ["kept for ever"]);
}

#[test]
fn a_clock_that_is_set_drops_nothing_and_keeps_nothing_longer() {
    for (before, after) in [(FACTORY, TODAY), (1000, TODAY), (TODAY, FACTORY), (TODAY, 1000), (TODAY, i64::MAX / 2)] {
        let mut bench = Bench::at(before, OPTIONS, Disk::default());
        bench.report("old");
        bench.settle();
        bench.elapse(Duration::from_secs(1000));
        bench.now_ms = after;
        bench.report("new");
        bench.settle();
        assert_eq!(bench.ledger.len().0, 2, "{before} {after}");
        bench.elapse(Duration::from_secs(2599));
        bench.settle();
        assert_eq!(bench.ledger.len().0, 2, "{before} {after}");
        bench.elapse(Duration::from_secs(1));
        bench.settle();
        assert_eq!(bench.drain(), ["new"], "{before} {after}");
    }
}

#[test]
fn a_stop_counts_as_the_wall_clock_says_as_far_as_it_is_believed() {
    let day = Options { age: Duration::from_secs(30 * 3600), ..OPTIONS };
    let kept = |at: i64, back: i64| {
        let mut bench = Bench::at(at, day, Disk::default());
        bench.report("0");
        bench.settle();
        let mut bench = bench.restarted_at(back);
        bench.elapse(Duration::from_secs(7 * 3600));
        bench.settle();
        bench.ledger.len().0 == 1
    };
    assert!(kept(TODAY, TODAY + 22 * HOUR), "29 hours");
    assert!(!kept(TODAY, TODAY + 24 * HOUR), "31 hours");
    assert!(!kept(TODAY, TODAY + 700 * HOUR), "a day and seven hours at least");
    for (at, back) in [(FACTORY, FACTORY), (TODAY, FACTORY), (1000, TODAY), (TODAY, 1000)] {
        assert!(kept(at, back), "{at} {back}: nobody knows how long it was");
    }
}

#[test]
fn the_time_of_a_long_run_is_not_forgotten_with_it() {
    let mut bench = Bench::with(Options { age: Duration::from_secs(48 * 3600), ..OPTIONS }, Disk::default());
    bench.report("0");
    bench.settle();
    for _ in 0..3 {
        // Each run is longer than half a day, and no clock shows it.
        let appends = bench.disk.appends;
        bench.now += Duration::from_secs(12 * 3600);
        bench.settle();
        assert!(bench.disk.appends - appends <= 1, "one note in half a day");
        bench = bench.restarted_at(FACTORY);
    }
    bench.now += Duration::from_secs(12 * 3600 - 2);
    bench.settle();
    assert_eq!((bench.ledger.len().0, bench.ledger.counts.dropped), (1, 0));
    bench.now += Duration::from_secs(2);
    bench.settle();
    assert_eq!((bench.ledger.len().0, bench.ledger.counts.dropped), (0, 1));
    bench.now += Duration::from_secs(48 * 3600);
    bench.settle();
    let appends = bench.disk.appends;
    bench.now += Duration::from_secs(48 * 3600);
    bench.settle();
    assert_eq!(bench.disk.appends, appends, "nothing is kept, nothing is noted");
}
