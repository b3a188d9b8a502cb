use vestibule_platform::{DeviceId, DevicePath, Flags, RecordKind};

use super::*;

fn record(position: i64, device: u128) -> Arc<Record> {
    Arc::new(Record {
        position: Position::new(position),
        device: DeviceId::from(uuid::Uuid::from_u128(device)),
        serial: "SN".into(),
        kind: RecordKind::Event,
        path: Arc::new(DevicePath { resource: "a".into(), index: "0".into(), area: "b".into(), name: "c".into() }),
        id: None,
        time: 0,
        received: 0,
        flags: Flags::NONE,
        data: "1".into(),
    })
}

fn at(position: i64) -> WebhookPlace {
    WebhookPlace { position: Position::new(position), stuck: None }
}

fn window(devices: &[u128]) -> Window {
    let mut window = Window::new(at(0));
    (1..).zip(devices).for_each(|(position, device)| window.push(record(position, *device)));
    window
}

/// Everything that may begin now, as positions.
fn begun(window: &mut Window, now: i64) -> Vec<i64> {
    std::iter::from_fn(|| window.start(now, PARALLEL)).map(|start| start.began.key.position().get()).collect()
}

/// A delivery of the journal that began in this round.
fn of(position: i64, round: u64) -> Began {
    Began { key: Key::Journal(Position::new(position)), round }
}

/// A dead letter that began in this round.
fn letter(position: i64, round: u64) -> Began {
    Began { key: Key::Letter(Position::new(position)), round }
}

fn second(failures: u32) -> Duration {
    Duration::from_secs(failures.into())
}

#[test]
fn devices_go_side_by_side_and_each_in_order() {
    let mut window = window(&[1, 1, 2, 3, 2]);
    assert_eq!(begun(&mut window, 0), [1, 3, 4]);
    assert_eq!(window.place(), at(0));
    window.done(of(3, 0));
    assert_eq!(begun(&mut window, 0), [5]);
    assert_eq!(window.place(), at(0), "the first is not told yet");
    window.done(of(1, 0));
    assert_eq!(window.place(), at(1));
    assert_eq!(begun(&mut window, 0), [2]);
    for position in [2, 5, 4] {
        window.done(of(position, 0));
    }
    assert_eq!(window.place(), at(5));
    window.reach(Position::new(9));
    assert_eq!(window.place(), at(9));
}

#[test]
fn no_more_than_so_many_are_under_way() {
    let devices: Vec<u128> = (0..20).collect();
    let mut window = window(&devices);
    assert_eq!(begun(&mut window, 0).len(), PARALLEL);
    window.done(of(4, 0));
    assert_eq!(begun(&mut window, 0), [9]);
    assert!(window.has_room());
    (21..=32).for_each(|position| window.push(record(position, 1)));
    assert!(!window.has_room(), "what is done behind one that is not keeps its place");
    window.done(of(1, 0));
    assert!(window.has_room());
}

#[test]
fn a_receiver_that_fails_is_asked_by_one_delivery_at_a_time() {
    let mut window = window(&[1, 2, 3]);
    assert_eq!(begun(&mut window, 0), [1, 2, 3]);
    // All of a round: one failure.
    for position in [3, 1, 2] {
        window.failed(of(position, 0), 100, None, second);
    }
    assert_eq!(window.failures(), 1);
    assert_eq!(begun(&mut window, 1_099), [] as [i64; 0]);
    assert_eq!(window.wake(), Some(1_100));
    assert_eq!(begun(&mut window, 1_100), [1]);
    assert_eq!(window.wake(), None, "its end wakes");
    let failed = window.failed(of(1, 1), 1_200, None, second);
    assert_eq!(failed, Failed { since: 100, attempts: 2 });
    assert_eq!((window.failures(), window.wake()), (2, Some(3_200)));
    assert_eq!(window.place().stuck, Some((Position::new(1), 100)));
    assert_eq!(begun(&mut window, 3_200), [1]);
    window.done(of(1, 2));
    assert_eq!(window.failures(), 0);
    assert_eq!(begun(&mut window, 3_201), [2, 3]);
}

#[test]
fn a_failure_of_a_former_round_does_not_count_again() {
    let mut window = window(&[1, 2]);
    assert_eq!(begun(&mut window, 0), [1, 2]);
    window.failed(of(1, 0), 0, None, second);
    // The other hangs on while the wait is over: nobody else is tried.
    assert_eq!(begun(&mut window, 5_000), [] as [i64; 0]);
    window.failed(of(2, 0), 6_000, None, second);
    assert_eq!(window.failures(), 1);
    assert_eq!(begun(&mut window, 6_000), [1]);
}

#[test]
fn what_was_stuck_before_a_restart_is_stuck_since_then() {
    let place = WebhookPlace { position: Position::new(4), stuck: Some((Position::new(5), 70)) };
    let mut window = Window::new(place);
    assert_eq!(window.place(), place);
    window.push(record(5, 1));
    assert_eq!(begun(&mut window, 1_000), [5]);
    assert_eq!(window.failed(of(5, 0), 1_000, None, second).since, 70);
    // Gone from the journal meanwhile: the next one is not to blame.
    let mut window = Window::new(place);
    window.push(record(6, 1));
    assert_eq!(window.place(), at(5));
}

#[test]
fn a_clock_that_is_set_back_does_not_make_a_record_wait_for_ever() {
    let mut window = Window::new(WebhookPlace { position: Position::new(4), stuck: Some((Position::new(5), 9_000)) });
    window.push(record(5, 1));
    assert_eq!(begun(&mut window, 1_000), [5]);
    assert_eq!(window.failed(of(5, 0), 1_000, None, second).since, 1_000);
    assert_eq!(begun(&mut window, 2_000), [5]);
    assert_eq!(window.failed(of(5, 1), 2_000, None, second).since, 1_000);
}

#[test]
fn a_success_that_began_before_a_failure_ends_no_wait() {
    let mut window = window(&[1, 2, 3]);
    assert_eq!(begun(&mut window, 0), [1, 2, 3]);
    window.failed(of(1, 0), 100, Some(Duration::from_secs(60)), second);
    window.done(of(2, 0));
    assert_eq!((window.failures(), begun(&mut window, 60_099)), (1, Vec::new()));
    // Nor does one that is given up for its age.
    window.done(of(3, 0));
    assert_eq!((window.failures(), window.wake()), (1, Some(60_100)));
    assert_eq!(begun(&mut window, 60_100), [1]);
    window.done(of(1, 1));
    assert_eq!(window.failures(), 0);
}

#[test]
fn what_a_receiver_asks_for_is_waited_for_whichever_delivery_it_says_it_to() {
    let mut window = window(&[1, 2]);
    assert_eq!(begun(&mut window, 0), [1, 2]);
    window.failed(of(1, 0), 0, None, second);
    window.failed(of(2, 0), 10, Some(Duration::from_secs(30)), second);
    assert_eq!((window.failures(), window.wake()), (1, Some(30_010)));
    assert_eq!(begun(&mut window, 30_010), [1]);
    // A shorter one does not shorten it.
    window.failed(of(1, 1), 30_020, Some(Duration::from_millis(1)), second);
    assert_eq!(window.wake(), Some(32_020));
}

#[test]
fn no_more_are_under_way_than_ones_share() {
    let mut window = window(&[1, 2, 3, 4]);
    let begun: Vec<Start> = std::iter::from_fn(|| window.start(0, 2)).collect();
    assert_eq!(begun.len(), 2);
    window.done(begun[0].began);
    assert!(window.start(0, 1).is_none(), "the share has become smaller");
    window.done(begun[1].began);
    assert!(window.start(0, 1).is_some());
}

#[test]
fn records_are_bounded_by_their_bytes_too() {
    let large = |position| {
        let small = record(position, 1);
        Arc::new(Record { data: "x".repeat(100 * 1024).into(), ..Record::clone(&small) })
    };
    let mut window = Window::new(at(0));
    let mut count = 0;
    while window.has_room() {
        count += 1;
        window.push(large(count));
    }
    assert_eq!(count, 3);
    assert_eq!(begun(&mut window, 0), [1]);
    window.done(of(1, 0));
    assert!(window.has_room());
    // One that is larger than all there may be is told, too.
    let mut window = Window::new(at(0));
    window.push(Arc::new(Record { data: "x".repeat(2 * BYTES).into(), ..Record::clone(&record(1, 1)) }));
    assert_eq!((window.has_room(), begun(&mut window, 0)), (false, vec![1]));
}

#[test]
fn a_dead_letter_does_not_move_the_place() {
    let mut window = Window::new(at(10));
    window.push_letter(record(3, 1));
    window.push(record(11, 1));
    assert!(window.has_letters());
    assert_eq!(window.place(), at(10));
    assert_eq!(begun(&mut window, 0), [3, 11], "they go side by side");
    window.done(letter(3, 0));
    assert!(!window.has_letters());
    assert_eq!(window.place(), at(10));
    window.done(of(11, 0));
    assert_eq!(window.place(), at(11));
}

#[test]
fn a_dead_letter_holds_up_nothing_whatever_becomes_of_it() {
    let mut window = Window::new(at(10));
    (1..=3).for_each(|position| window.push_letter(record(position, 1)));
    (11..=19).for_each(|position| window.push(record(position, u128::from(position.unsigned_abs()))));
    assert_eq!(begun(&mut window, 0).len(), 1 + PARALLEL, "one letter, and as many others as without it");
    // It was not taken: the next one.
    window.done(letter(1, 0));
    assert_eq!(begun(&mut window, 0), [2]);
    // The receiver fails at what the journal comes to, and is left alone with letters as well.
    window.failed(of(11, 0), 0, None, second);
    window.done(letter(2, 0));
    assert_eq!((window.failures(), begun(&mut window, 1_000)), (1, Vec::new()), "others are still under way");
    (12..=18).for_each(|position| window.done(of(position, 0)));
    assert_eq!(begun(&mut window, 1_000), [11]);
    window.done(of(11, 1));
    assert_eq!(begun(&mut window, 1_001), [3, 19]);
}
