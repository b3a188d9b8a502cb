use super::*;

const LIMITS: Limits = Limits { events: 4, bytes: 1000, window: 3 };

fn outbox(events: usize) -> Outbox<usize> {
    let mut outbox = Outbox::new(LIMITS);
    for token in 0..events {
        outbox.push(DEVICE, format!("/{token}").into(), (*b"{}").into(), token).unwrap();
    }
    outbox
}

/// (topic, packet id, Seq, DUP) of everything that is due.
fn drain(outbox: &mut Outbox<usize>, now: Instant) -> Vec<(String, u16, u64, bool)> {
    let mut sent = Vec::new();
    while let Some(out) = outbox.poll(now) {
        sent.push((out.topic.to_owned(), out.packet_id, out.seq, out.dup));
    }
    sent
}

fn row(topic: &str, id: u16, seq: u64, dup: bool) -> (String, u16, u64, bool) {
    (topic.to_owned(), id, seq, dup)
}

#[test]
fn the_window_limits_what_is_on_the_wire() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    assert_eq!(drain(&mut outbox, now), [row("/0", 1, 1, false), row("/1", 2, 2, false), row("/2", 3, 3, false)]);
    // An acknowledgement out of order frees no place in the window, or `Seq` would run away.
    assert_eq!(outbox.handle_puback(2), Some(1));
    assert_eq!(drain(&mut outbox, now), []);
    assert_eq!(outbox.handle_puback(1), Some(0));
    assert_eq!(drain(&mut outbox, now), [row("/3", 4, 4, false)]);
    assert_eq!(outbox.len(), 2);
}

#[test]
fn an_acknowledgement_counts_once() {
    let now = Instant::now();
    let mut outbox = outbox(2);
    drain(&mut outbox, now);
    assert_eq!(outbox.handle_puback(2), Some(1));
    assert_eq!(outbox.handle_puback(2), None);
    assert_eq!(outbox.handle_puback(0), None);
    assert_eq!(outbox.handle_puback(77), None);
}

#[test]
fn a_missing_acknowledgement_repeats_with_growing_pauses() {
    let start = Instant::now();
    let mut outbox = outbox(1);
    drain(&mut outbox, start);
    let mut now = start;
    for pause in [6, 12, 24, 48, 60, 60] {
        let at = now + Duration::from_secs(pause);
        assert_eq!(outbox.deadline(), Some(at));
        assert_eq!(drain(&mut outbox, at - Duration::from_millis(1)), []);
        assert_eq!(drain(&mut outbox, at), [row("/0", 1, 1, true)]);
        now = at;
    }
    assert_eq!(outbox.handle_puback(1), Some(0));
    assert_eq!(outbox.deadline(), None);
    assert_eq!(outbox.bytes, 0);
}

#[test]
fn the_same_session_repeats_numbers_and_a_new_one_does_not() {
    let now = Instant::now();
    let mut outbox = outbox(2);
    drain(&mut outbox, now);
    outbox.handle_connection(true);
    assert_eq!(drain(&mut outbox, now), [row("/0", 1, 1, true), row("/1", 2, 2, true)]);
    outbox.handle_connection(false);
    assert_eq!(outbox.handle_puback(1), None, "an id of the former session");
    assert_eq!(drain(&mut outbox, now), [row("/0", 3, 3, false), row("/1", 4, 4, false)]);
}

#[test]
fn count_and_bytes_are_bounded() {
    let mut full = outbox(4);
    let error = full.push(DEVICE, "/4".into(), (*b"{}").into(), 4).unwrap_err();
    assert_eq!(error, PushError::Full { events: 4, bytes: 16 });

    let mut outbox = outbox(1);
    outbox.push(DEVICE, "/1".into(), "x".repeat(994).into_bytes().into(), 1).unwrap();
    assert!(outbox.push(DEVICE, "".into(), (*b"x").into(), 2).is_err());
    drain(&mut outbox, Instant::now());
    outbox.handle_puback(2).unwrap();
    outbox.push(DEVICE, "/2".into(), (*b"room again").into(), 2).unwrap();
}

#[test]
fn a_closed_queue_is_empty_and_takes_nothing() {
    let mut outbox = outbox(2);
    outbox.close();
    assert_eq!(outbox.push(DEVICE, "/3".into(), (*b"{}").into(), 3), Err(PushError::Closed));
    assert_eq!((outbox.len(), outbox.poll(Instant::now())), (0, None));
}

#[test]
fn packet_ids_skip_zero_and_those_in_use() {
    let mut outbox = outbox(1);
    drain(&mut outbox, Instant::now());
    outbox.next_packet_id = u16::MAX;
    assert_eq!(outbox.next_packet_id(), u16::MAX);
    assert_eq!(outbox.next_packet_id(), 2, "0 is none, 1 is on the wire");
}

/// A queue with one event of the device, one of a child, and one of the device.
fn with_child() -> Outbox<usize> {
    let mut outbox = Outbox::new(LIMITS);
    for (token, lane) in [DEVICE, 5, DEVICE].into_iter().enumerate() {
        outbox.push(lane, format!("/{token}").into(), (*b"{}").into(), token).unwrap();
    }
    outbox
}

#[test]
fn a_closed_lane_holds_its_events_and_is_in_nobodys_way() {
    let now = Instant::now();
    let mut outbox = with_child();
    assert_eq!(drain(&mut outbox, now), [row("/0", 1, 1, false), row("/2", 2, 2, false)]);
    assert_eq!((outbox.handle_puback(1), outbox.handle_puback(2)), (Some(0), Some(2)));
    assert_eq!((outbox.len(), outbox.events.len()), (1, 1), "nothing acknowledged stays behind it");
    outbox.open_lane(5);
    assert_eq!(drain(&mut outbox, now), [row("/1", 3, 3, false)]);
    // A connection that goes on with the session: the child has to be accepted again, and its event gets a number
    // that is not an old one by then.
    outbox.handle_connection(true);
    assert_eq!((drain(&mut outbox, now), outbox.deadline()), (vec![], None));
    assert_eq!(outbox.handle_puback(3), None);
    outbox.open_lane(5);
    assert_eq!(drain(&mut outbox, now), [row("/1", 4, 4, false)]);
    assert_eq!(outbox.handle_puback(4), Some(1));
    assert_eq!((outbox.bytes, outbox.events.len()), (0, 0));
}

#[test]
fn a_dropped_lane_leaves_nothing() {
    let mut outbox = with_child();
    outbox.open_lane(5);
    drain(&mut outbox, Instant::now());
    assert_eq!(outbox.handle_puback(2), Some(1), "acknowledged before an older one");
    outbox.push(5, "/3".into(), (*b"{}").into(), 3).unwrap();
    outbox.drop_lane(5);
    assert_eq!((outbox.len(), outbox.bytes), (2, 8));
    outbox.drop_lane(DEVICE);
    assert_eq!(outbox.len(), 2);
}

#[test]
fn what_is_forgotten_is_not_sent_again_and_frees_its_room() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    drain(&mut outbox, now);
    assert_eq!(outbox.handle_puback(2), Some(1));
    outbox.forget(|token| *token < 2);
    assert_eq!((outbox.len(), outbox.handle_puback(1)), (2, None));
    assert_eq!(drain(&mut outbox, now), [row("/3", 4, 4, false)]);
    assert_eq!((outbox.handle_puback(3), outbox.handle_puback(4), outbox.bytes), (Some(2), Some(3), 0));
}

#[test]
fn what_was_acknowledged_behind_something_dropped_takes_no_place() {
    let now = Instant::now();
    let mut outbox = outbox(4);
    drain(&mut outbox, now);
    assert_eq!((outbox.handle_puback(2), outbox.handle_puback(3)), (Some(1), Some(2)));
    outbox.forget(|token| *token == 0);
    assert_eq!((outbox.events.len(), drain(&mut outbox, now)), (1, vec![row("/3", 4, 4, false)]));

    let mut outbox = with_child();
    outbox.open_lane(5);
    outbox.forget(|token| *token == 0);
    drain(&mut outbox, now);
    assert_eq!(outbox.handle_puback(2), Some(2));
    outbox.drop_lane(5);
    assert_eq!(outbox.events.len(), 0);
}

#[test]
fn closed_lanes_leave_half_of_the_room() {
    let mut outbox = with_child();
    outbox.push(6, "/3".into(), (*b"{}").into(), 3).unwrap();
    outbox.drop_lane(5);
    let error = outbox.push(7, "/4".into(), vec![0; 497].into(), 4).unwrap_err();
    assert_eq!(error, PushError::Full { events: 1, bytes: 4 });
    outbox.push(7, "/4".into(), vec![0; 494].into(), 4).unwrap();
    drain(&mut outbox, Instant::now());
    assert_eq!((outbox.handle_puback(1), outbox.handle_puback(2)), (Some(0), Some(2)));
    assert_eq!(outbox.push(7, "".into(), [].into(), 5), Err(PushError::Full { events: 2, bytes: 500 }));
    outbox.push(DEVICE, "/5".into(), (*b"{}").into(), 5).unwrap();
    outbox.open_lane(7);
    outbox.push(7, "/6".into(), (*b"{}").into(), 6).unwrap();
}

#[test]
fn reserved_places_are_beyond_the_limits_and_bounded() {
    let mut outbox = outbox(4);
    assert!(outbox.has_reserve());
    let (events, _) = RESERVED;
    for token in 4..4 + events {
        outbox.push_reserved("/end".into(), (*b"{}").into(), token).unwrap();
        assert!(!outbox.has_reserve());
    }
    let full = PushError::Full { events: 4 + events, bytes: 16 + 6 * events };
    assert_eq!(outbox.push_reserved("/end".into(), (*b"{}").into(), 99), Err(full));
    assert_eq!(outbox.push(DEVICE, "/x".into(), (*b"{}").into(), 99), Err(full));
    drain(&mut outbox, Instant::now());
    assert_eq!(outbox.handle_puback(1), Some(0));
    assert!(outbox.push(DEVICE, "/x".into(), (*b"{}").into(), 99).is_err(), "the reserve is no room for others");
    outbox.push_reserved("/end".into(), (*b"{}").into(), 99).unwrap();
    outbox.close();
    assert_eq!(outbox.push_reserved("/end".into(), (*b"{}").into(), 99), Err(PushError::Closed));
}

#[test]
fn where_receipts_count_an_acknowledgement_ends_nothing() {
    let now = Instant::now();
    let mut outbox = Outbox::new(Limits { events: 8, bytes: 1000, window: 4 });
    outbox.set_receipts(true);
    for token in 0..3_u32 {
        outbox.push(DEVICE, "t".into(), [0; 10].into(), token).unwrap();
        let id = outbox.poll(now).unwrap().packet_id;
        outbox.handle_sealed(id, u64::from(token) + 2);
        assert_eq!(outbox.handle_puback(id), None);
    }
    assert_eq!((outbox.len(), outbox.deadline()), (3, None), "they are not repeated either");
    assert!(outbox.poll(now + PUBACK_TIMEOUT).is_none());
    assert!(outbox.handle_receipt(1).is_empty());
    assert_eq!(outbox.handle_receipt(3), [0, 1]);
    assert!(outbox.handle_receipt(3).is_empty());

    // What has none by the end of the connection goes out again under its number, and no receipt of before counts.
    outbox.handle_connection(true);
    assert!(outbox.handle_receipt(4).is_empty());
    let again = outbox.poll(now).unwrap();
    assert_eq!((again.seq, again.dup), (3, true));
    let id = again.packet_id;
    outbox.handle_sealed(id, 2);
    assert_eq!(outbox.handle_receipt(2), [2]);
    assert_eq!(outbox.len(), 0);
}
