//! A medium that cannot be read, in a place or altogether.

use super::*;

#[test]
fn a_block_that_cannot_be_read_is_lost_and_the_rest_goes_on() {
    let mut bench = Bench::new();
    for number in 0..200 {
        bench.report(number);
        bench.settle();
    }
    // It goes bad while the device runs.
    bench.disk.bad = vec![(1, 4096..8192)];
    let mut all = Vec::new();
    for _ in 0..200 {
        all.extend(bench.drain());
        bench.elapse(Duration::from_secs(4));
    }
    let lost = bench.ledger.counts.dropped;
    assert!((10..80).contains(&lost), "{lost}");
    assert_eq!(all.len() as u64 + lost, 200);
    assert!(all.iter().map(|body| body.parse::<usize>().unwrap()).is_sorted_by(|a, b| a < b));
    assert!(!bench.ledger.is_failing() && bench.ledger.counts.failures > 0);
    assert_eq!(bench.ledger.losses.untold.count, lost);
    bench.report("new");
    assert_eq!(bench.drain(), ["new"]);
}

#[test]
fn a_block_that_cannot_be_read_does_not_keep_a_device_from_starting() {
    let mut bench = Bench::new();
    for number in 0..200 {
        bench.report(number);
        bench.settle();
    }
    for block in 0..3 {
        let mut disk = bench.disk.clone();
        disk.bad = vec![(1, block * 4096..(block + 1) * 4096)];
        let after = Bench::with(OPTIONS, disk);
        assert!(after.ledger.is_failing());
        let mut after = after.loaded();
        assert!(!after.ledger.is_failing());
        let lost = after.ledger.counts.dropped;
        assert_eq!(after.ledger.counts.failures, 2, "it is lost in the third attempt");
        after.report("new");
        let kept = after.drain();
        if block < 2 {
            assert_eq!(kept.len() as u64 + lost, 201, "{block}");
        } else {
            // It is the end, and nothing tells what there was.
            assert!(lost >= 1 && kept.len() < 200);
        }
        assert_eq!(kept.last().map(|body| &**body), Some("new"));
    }
}

#[test]
fn an_error_that_passes_costs_nothing() {
    let mut bench = Bench::new();
    for number in 0..20 {
        bench.report(number);
    }
    bench.settle();
    let mut bench = bench.restarted();
    bench.disk.bad = vec![(1, 0..600)];
    bench.settle();
    assert!(bench.ledger.is_failing());
    bench.disk.bad = Vec::new();
    bench.elapse(Duration::from_secs(2));
    assert_eq!(bench.drain(), numbers(0..20));
    assert_eq!(bench.ledger.counts.dropped, 0);

    // The same at the start, and then the whole medium is away before it comes.
    let mut bench = Bench::new();
    for number in 0..20 {
        bench.report(number);
    }
    bench.settle();
    bench.disk.bad = vec![(1, 0..600)];
    let mut bench = bench.restarted();
    (bench.disk.unreadable, bench.disk.full, bench.disk.cut) = (true, true, Some(0));
    let mut bench = bench.loaded();
    assert!(bench.ledger.is_failing());
    (bench.disk.unreadable, bench.disk.full, bench.disk.cut, bench.disk.bad) = (false, false, None, Vec::new());
    bench.elapse(Duration::from_secs(60));
    assert_eq!(bench.drain(), numbers(0..20));
    assert_eq!(bench.ledger.counts.dropped, 0);
}

#[test]
fn the_only_block_is_lost_once_the_medium_takes_something_else() {
    let mut bench = Bench::new();
    (0..3).for_each(|number| _ = bench.report(number));
    bench.settle();
    let mut bench = bench.restarted();
    bench.disk.bad = vec![(1, 0..4096)];
    (bench.disk.full, bench.disk.cut) = (true, Some(0));
    for _ in 0..5 {
        bench.elapse(Duration::from_secs(60));
        bench.settle();
    }
    assert_eq!((bench.ledger.len().0, bench.ledger.counts.dropped), (3, 0), "it may be away");
    (bench.disk.full, bench.disk.cut) = (false, None);
    let appends = bench.disk.appends;
    for _ in 0..5 {
        bench.elapse(Duration::from_secs(60));
        bench.settle();
    }
    assert_eq!((bench.ledger.len().0, bench.ledger.counts.dropped), (0, 3));
    assert!(bench.disk.appends - appends <= 3, "{}", bench.disk.appends - appends);
    assert!(!bench.ledger.is_failing());
}

#[test]
fn while_nothing_can_be_read_new_events_go_first() {
    let mut bench = Bench::new();
    for number in 0..20 {
        bench.report(number);
    }
    bench.settle();
    let mut bench = bench.restarted();
    bench.disk.unreadable = true;
    (bench.disk.full, bench.disk.cut) = (true, Some(0));
    bench.online = true;
    for _ in 0..3 {
        bench.settle();
        bench.elapse(Duration::from_secs(10));
    }
    assert!(bench.ledger.is_failing());
    for number in 100..400 {
        bench.report(number);
        bench.settle();
        assert_eq!(bench.acknowledge(), number.to_string());
        bench.elapse(Duration::from_secs(1));
    }
    assert_eq!((bench.ledger.counts.dropped, bench.ledger.len()), (0, (20, 0)));
    (bench.disk.full, bench.disk.cut, bench.disk.unreadable) = (false, None, false);
    bench.elapse(Duration::from_secs(60));
    assert_eq!(bench.drain(), numbers(0..20));
    assert!(!bench.ledger.is_failing());
    bench.ledger.close();
    bench.settle();
    assert_eq!(bench.restarted().drain(), [] as [&str; 0]);
}

#[test]
fn a_device_starts_without_its_medium_and_takes_it_up_when_it_comes() {
    let mut bench = Bench::new();
    for number in 0..20 {
        bench.report(number);
    }
    bench.settle();
    bench.disk.unreadable = true;
    let mut bench = bench.restarted();
    assert!(bench.ledger.is_failing());
    bench.online = true;
    for number in 100..110 {
        bench.report(number);
        bench.settle();
        bench.acknowledge();
    }
    let waits = bench.report("110");
    for _ in 0..100 {
        bench.report("111");
        if !bench.ledger.takes(10).is_ok_and(|room| room) {
            break;
        }
    }
    assert!(matches!(bench.ledger.takes(10), Err(ReportError::Full { .. })), "memory is bounded");
    bench.settle();
    assert_eq!(*waits.borrow(), Fate::Pending);
    let stale = bench.sent[0].clone();
    // Writing fails: nothing may be given up yet.
    (bench.disk.full, bench.disk.cut) = (true, Some(0));
    for _ in 0..5 {
        bench.elapse(Duration::from_secs(60));
        bench.settle();
    }
    assert!(bench.ledger.is_failing());
    (bench.disk.full, bench.disk.cut, bench.disk.unreadable) = (false, None, false);
    bench.elapse(Duration::from_secs(60));
    bench.settle();
    assert!(!bench.ledger.is_failing());
    assert_eq!(bench.ledger.counts.dropped, 0);
    assert_eq!(*waits.borrow(), Fate::Cached);
    // An acknowledgement from before names nothing any more.
    bench.ledger.acknowledge(&stale.0, stale.1);
    let mut expected = numbers(0..20);
    expected.push("110".into());
    let all = bench.drain();
    assert_eq!(all[..21], expected);
    assert_eq!(*waits.borrow(), Fate::Delivered);
}

#[test]
fn a_medium_of_which_nothing_can_be_read_is_begun_anew_once_it_can_be_written() {
    let mut bench = Bench::new();
    for number in 0..5 {
        bench.report(number);
    }
    bench.settle();
    // The only block there is.
    bench.disk.bad = vec![(1, 0..4096)];
    let mut bench = bench.restarted();
    bench.report("5");
    assert!(bench.ledger.is_failing());
    let bench = bench.loaded();
    assert!(!bench.ledger.is_failing());
    assert!(bench.ledger.counts.dropped >= 1);
    let mut bench = bench.restarted();
    assert_eq!(bench.ledger.losses.untold.count, 1);
    assert_eq!(bench.ledger.counts.dropped, 0);
    bench.report("6");
    assert_eq!(bench.drain(), ["5", "6"]);
    assert_eq!(bench.disk.segments.len(), 1, "what cannot be read is taken away");
}
