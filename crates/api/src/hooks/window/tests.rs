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
    std::iter::from_fn(|| window.start(now)).map(|start| start.key.position().get()).collect()
}

fn key(position: i64) -> Key {
    Key::Journal(Position::new(position))
}

fn second(failures: u32) -> Duration {
    Duration::from_secs(failures.into())
}

#[test]
fn devices_go_side_by_side_and_each_in_order() {
    let mut window = window(&[1, 1, 2, 3, 2]);
    assert_eq!(begun(&mut window, 0), [1, 3, 4]);
    assert_eq!(window.place(), at(0));
    window.done(key(3));
    assert_eq!(begun(&mut window, 0), [5]);
    assert_eq!(window.place(), at(0), "the first is not told yet");
    window.done(key(1));
    assert_eq!(window.place(), at(1));
    assert_eq!(begun(&mut window, 0), [2]);
    for position in [2, 5, 4] {
        window.done(key(position));
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
    window.done(key(4));
    assert_eq!(begun(&mut window, 0), [9]);
    assert!(window.has_room());
    (21..=32).for_each(|position| window.push(record(position, 1)));
    assert!(!window.has_room(), "what is done behind one that is not keeps its place");
    window.done(key(1));
    assert!(window.has_room());
}

#[test]
fn a_receiver_that_fails_is_asked_by_one_delivery_at_a_time() {
    let mut window = window(&[1, 2, 3]);
    assert_eq!(begun(&mut window, 0), [1, 2, 3]);
    // All of a round: one failure.
    for position in [3, 1, 2] {
        window.failed((key(position), 0), 100, second);
    }
    assert_eq!(window.failures(), 1);
    assert_eq!(begun(&mut window, 1_099), [] as [i64; 0]);
    assert_eq!(window.wake(), Some(1_100));
    assert_eq!(begun(&mut window, 1_100), [1]);
    assert_eq!(window.wake(), None, "its end wakes");
    let failed = window.failed((key(1), 1), 1_200, second);
    assert_eq!(failed, Failed { since: 100, attempts: 2 });
    assert_eq!((window.failures(), window.wake()), (2, Some(3_200)));
    assert_eq!(window.place().stuck, Some((Position::new(1), 100)));
    assert_eq!(begun(&mut window, 3_200), [1]);
    window.done(key(1));
    assert_eq!(window.failures(), 0);
    assert_eq!(begun(&mut window, 3_201), [2, 3]);
}

#[test]
fn a_failure_of_a_former_round_does_not_count_again() {
    let mut window = window(&[1, 2]);
    assert_eq!(begun(&mut window, 0), [1, 2]);
    window.failed((key(1), 0), 0, second);
    // The other hangs on while the wait is over: nobody else is tried.
    assert_eq!(begun(&mut window, 5_000), [] as [i64; 0]);
    window.failed((key(2), 0), 6_000, second);
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
    assert_eq!(window.failed((key(5), 0), 1_000, second).since, 70);
    // Gone from the journal meanwhile: the next one is not to blame.
    let mut window = Window::new(place);
    window.push(record(6, 1));
    assert_eq!(window.place(), at(5));
}

#[test]
fn a_dead_letter_does_not_move_the_place() {
    let mut window = Window::new(at(10));
    window.push_letter(record(3, 1));
    window.push(record(11, 1));
    assert!(window.has_letters());
    assert_eq!(window.place(), at(10));
    assert_eq!(begun(&mut window, 0), [3]);
    window.done(Key::Letter(Position::new(3)));
    assert!(!window.has_letters());
    assert_eq!(window.place(), at(10));
    assert_eq!(begun(&mut window, 0), [11]);
    window.done(key(11));
    assert_eq!(window.place(), at(11));
}
