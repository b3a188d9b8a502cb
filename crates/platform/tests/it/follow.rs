//! Followers: nothing missed, nothing twice, whatever the ring of recent records still has.

use std::time::Duration;

use vestibule_platform::{Caller, Filter, Follow, Followed, Kinds, Position, RecordKind, Report};

use crate::bed::{Bed, PATIENCE, Plan, path};

/// A ring that holds next to nothing: a follower that is behind has to scan.
fn tiny_ring() -> Plan {
    Plan { tail_records: Some(4), segment_rows: Some(100), ..Plan::default() }
}

async fn next(follow: &mut Follow) -> Followed {
    tokio::time::timeout(PATIENCE, follow.next()).await.expect("in time").expect("readable")
}

/// The position of the next event.
async fn event(follow: &mut Follow) -> i64 {
    match next(follow).await {
        Followed::Record(record) => record.position.get(),
        Followed::Lagged { resume } => panic!("lagged to {resume}"),
    }
}

async fn lag(follow: &mut Follow) -> i64 {
    match next(follow).await {
        Followed::Lagged { resume } => resume.get(),
        Followed::Record(record) => panic!("event {}", record.position),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_or_doubled_while_a_writer_appends() {
    const COUNT: i64 = 3_000;
    let bed = Bed::with(tiny_ring()).await;
    let device = bed.add("SN1").await;
    let mut followers = Vec::new();
    for n in 0..4 {
        let mut follow = bed.platform.follow(Some(Position::START), Filter::all(RecordKind::Event), &Caller::program());
        followers.push(tokio::spawn(async move {
            for expected in 1..=COUNT {
                assert_eq!(event(&mut follow).await, expected);
                // Some of them are slower than the writer.
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    let platform = bed.platform.clone();
    let writer = tokio::spawn(async move {
        for n in 0..COUNT {
            let id = format!("event-{n}");
            let report = Report { kind: RecordKind::Event, path: path("Smoke"), id: Some(&id), time: None, data: "1" };
            platform.report(&device, report).expect("taken");
            if n % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    writer.await.expect("written");
    for follower in followers {
        follower.await.expect("followed to the end");
    }
}

#[tokio::test]
async fn a_follower_resumes_where_it_was_also_after_a_restart() {
    let bed = Bed::with(tiny_ring()).await;
    let device = bed.add("SN1").await;
    for _ in 0..300 {
        bed.report(&device, "Smoke", None, None);
    }
    bed.event(&device, "Smoke", None).await;
    let mut follow = bed.platform.follow(Some(Position::new(10)), Filter::all(RecordKind::Event), &Caller::program());
    for expected in 11..=301 {
        assert_eq!(event(&mut follow).await, expected);
    }
    drop((follow, device));
    let bed = bed.restart_with(tiny_ring()).await;
    let mut follow = bed.platform.follow(Some(Position::new(299)), Filter::all(RecordKind::Event), &Caller::program());
    assert_eq!((event(&mut follow).await, event(&mut follow).await), (300, 301));
    let device = bed.platform.device("SN1", &Caller::program()).expect("registered");
    bed.event(&device, "Smoke", None).await;
    assert_eq!(event(&mut follow).await, 302);
}

#[tokio::test]
async fn from_now_means_what_becomes_durable_from_now_on() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    bed.event(&device, "Smoke", None).await;
    let mut follow = bed.platform.follow(None, Filter::all(RecordKind::Event), &Caller::program());
    bed.event(&device, "Smoke", None).await;
    assert_eq!(event(&mut follow).await, 2);
}

#[tokio::test]
async fn several_kinds_come_in_order_and_what_is_not_wanted_moves_the_position_on() {
    let bed = Bed::with(tiny_ring()).await;
    let device = bed.add("SN1").await;
    let value = || Report { kind: RecordKind::Attribute, path: path("Power"), id: None, time: None, data: "1" };
    let pass = || Report { kind: RecordKind::Pass, path: path("Frame"), id: None, time: None, data: "1" };
    let kinds: Kinds = [RecordKind::Event, RecordKind::Attribute].into_iter().collect();
    let from_disk = Some(Position::START);
    for _ in 0..20 {
        bed.platform.report(&device, pass()).expect("taken");
        bed.report(&device, "Smoke", None, None);
        bed.platform.report(&device, value()).expect("taken");
    }
    let last = bed.platform.report(&device, pass()).expect("taken");
    bed.durable(last).await;
    let mut both = bed.platform.follow(from_disk, Filter::all(kinds), &Caller::program()).with_batch(7, usize::MAX);
    for expected in (1..=60).filter(|position| position % 3 != 1) {
        assert_eq!(event(&mut both).await, expected);
        assert!(both.position().get() >= expected && both.position().get() <= expected + 1);
    }
    let ahead = async {
        while both.position() < last {
            assert!(both.advance().await.expect("readable").is_none());
        }
    };
    tokio::time::timeout(PATIENCE, ahead).await.expect("in time");
}

#[tokio::test]
async fn a_filter_lets_through_what_it_names_from_memory_and_from_disk() {
    let bed = Bed::with(tiny_ring()).await;
    let (one, two) = (bed.add("SN1").await, bed.add("SN2").await);
    let filter = Filter {
        kinds: RecordKind::Event.into(),
        device: Some(two.id),
        area: Some("Alarm".into()),
        name: Some("Motion".into()),
    };
    let mut live = bed.platform.follow(None, filter.clone(), &Caller::program());
    let mut wanted = Vec::new();
    for n in 0..600 {
        let device = if n % 3 == 0 { &two } else { &one };
        let name = if n % 2 == 0 { "Motion" } else { "Smoke" };
        let position = bed.report(device, name, None, None);
        if n % 6 == 0 {
            wanted.push(position.get());
        }
    }
    let value = Report { kind: RecordKind::Attribute, path: path("Motion"), id: None, time: None, data: "1" };
    let last = bed.platform.report(&two, value).expect("taken");
    bed.durable(last).await;
    let mut behind = bed.platform.follow(Some(Position::START), filter, &Caller::program());
    for expected in wanted {
        assert_eq!((event(&mut live).await, event(&mut behind).await), (expected, expected));
    }
    let then = bed.event(&two, "Motion", None).await.get();
    assert_eq!((event(&mut live).await, event(&mut behind).await), (then, then), "an attribute's value is no event");
}

#[tokio::test]
async fn repetitions_do_not_stop_a_follower() {
    let bed = Bed::with(tiny_ring()).await;
    let device = bed.add("SN1").await;
    bed.event(&device, "Smoke", Some("first")).await;
    let mut follow = bed.platform.follow(None, Filter::all(RecordKind::Event), &Caller::program());
    for _ in 0..20 {
        bed.event(&device, "Smoke", Some("first")).await;
    }
    let new = bed.event(&device, "Smoke", Some("second")).await;
    assert_eq!(event(&mut follow).await, new.get());
    let mut again = bed.platform.follow(Some(Position::new(1)), Filter::all(RecordKind::Event), &Caller::program());
    assert_eq!(event(&mut again).await, new.get());
}

#[tokio::test]
async fn a_bound_of_bytes_has_less_read_at_a_time_and_nothing_missed() {
    for tail_records in [Some(4), None] {
        let bed = Bed::with(Plan { tail_records, ..Plan::default() }).await;
        let device = bed.add("SN1").await;
        for _ in 0..59 {
            bed.report(&device, "Smoke", None, None);
        }
        bed.event(&device, "Smoke", None).await;
        for bytes in [0, 1, 1_000] {
            let follow = bed.platform.follow(Some(Position::START), Filter::all(RecordKind::Event), &Caller::program());
            let mut follow = follow.with_batch(50, bytes);
            for expected in 1..=60 {
                assert_eq!(event(&mut follow).await, expected, "{bytes}");
                assert_eq!(follow.position().get(), expected);
            }
        }
    }
}

#[tokio::test]
async fn a_position_that_was_never_reached_is_a_lag_to_the_present() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let last = bed.event(&device, "Smoke", None).await;
    let mut follow =
        bed.platform.follow(Some(Position::new(1_000)), Filter::all(RecordKind::Event), &Caller::program());
    assert_eq!(lag(&mut follow).await, last.get());
    bed.event(&device, "Smoke", None).await;
    assert_eq!(event(&mut follow).await, last.get() + 1);
    let mut at_the_end =
        bed.platform.follow(Some(Position::new(2)), Filter::all(RecordKind::Event), &Caller::program());
    bed.event(&device, "Smoke", None).await;
    assert_eq!(event(&mut at_the_end).await, 3, "the last position is none");
}

#[tokio::test]
async fn what_retention_has_taken_is_a_lag_to_the_oldest_that_is_left() {
    let day = Duration::from_secs(24 * 3600);
    let plan = || Plan { retention: Some(day), ..tiny_ring() };
    let bed = Bed::with(plan()).await;
    let device = bed.add("SN1").await;
    for _ in 0..250 {
        bed.report(&device, "Smoke", None, None);
    }
    bed.event(&device, "Smoke", None).await;
    bed.advance(3 * day);
    bed.event(&device, "Smoke", None).await;
    drop(device);
    // Retention runs at the start.
    let bed = bed.restart_with(plan()).await;
    let oldest = bed.platform.journal().oldest().await.expect("readable").expect("one is left").get();
    assert!(oldest > 11, "something was taken: {oldest}");
    let mut follow = bed.platform.follow(Some(Position::new(10)), Filter::all(RecordKind::Event), &Caller::program());
    assert_eq!(lag(&mut follow).await, oldest - 1);
    assert_eq!(event(&mut follow).await, oldest);
    let mut all = bed.platform.follow(Some(Position::START), Filter::all(RecordKind::Event), &Caller::program());
    assert_eq!(event(&mut all).await, oldest, "from the beginning is from the oldest that is left");
}

#[tokio::test]
async fn a_next_that_is_given_up_loses_nothing() {
    let bed = Bed::with(tiny_ring()).await;
    let device = bed.add("SN1").await;
    let mut follow = bed.platform.follow(Some(Position::START), Filter::all(RecordKind::Event), &Caller::program());
    let mut expected = 1;
    for _ in 0..200 {
        bed.report(&device, "Smoke", None, None);
        // Ready or not: what is dropped here must come the next time.
        tokio::select! {
            biased;
            followed = follow.next() => match followed.expect("readable") {
                Followed::Record(record) => {
                    assert_eq!(record.position.get(), expected);
                    expected += 1;
                }
                Followed::Lagged { resume } => panic!("lagged to {resume}"),
            },
            () = tokio::task::yield_now() => {}
        }
    }
    while expected <= 200 {
        assert_eq!(event(&mut follow).await, expected);
        expected += 1;
    }
}
