use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn publish(link: &Link, payload: &[u8]) -> Result<Option<u16>, SendError> {
    link.publish("t", QoS::AtLeastOnce, payload.len(), |out| out.extend_from_slice(payload))
}

#[test]
fn a_panic_while_a_payload_is_written_leaves_no_torn_packet() {
    let link = Link::for_test();
    publish(&link, b"first").expect("room");
    let whole = link.take_out();
    link.settle(whole.clone(), 0);
    let torn = catch_unwind(AssertUnwindSafe(|| {
        link.publish("t", QoS::AtLeastOnce, 4, |out| {
            out.push(1);
            panic!("sealing failed");
        })
    }));
    assert!(torn.is_err());
    assert_eq!(link.take_out(), whole);
    assert!(!link.acknowledged(2), "its packet id is free again");
}

#[test]
fn osap_9_9_a_new_keep_alive_counts_from_the_first_ping_after_the_peer_knows_of_it() {
    let link = Link::for_test();
    assert_eq!(link.take_told_keep_alive(), None);
    let id = publish(&link, b"{}").expect("room");
    link.tell_keep_alive(15, id);
    assert_eq!((link.take_told_keep_alive(), link.told_keep_alive()), (None, 15), "this ping may have crossed it");
    assert!(link.acknowledged(id.expect("QoS 1")));
    assert_eq!((link.take_told_keep_alive(), link.told_keep_alive()), (Some(15), 0));
    assert_eq!(link.take_told_keep_alive(), None);
    // Acknowledged before we came to say what it was.
    let id = publish(&link, b"{}").expect("room");
    assert!(link.acknowledged(id.expect("QoS 1")));
    link.tell_keep_alive(20, id);
    assert_eq!(link.take_told_keep_alive(), Some(20));
}

#[test]
fn mqtt_3_2_0_1_what_was_said_before_the_connack_follows_it() {
    let link = Link::for_test();
    publish(&link, b"early").expect("room");
    link.welcome();
    assert_eq!(link.take_out()[..5], [0x20, 2, 0, 0, 0x32]);
}

#[test]
fn a_refused_peer_is_told_that_and_nothing_else() {
    let link = Link::for_test();
    publish(&link, b"early").expect("room");
    link.refuse(5);
    assert_eq!(publish(&link, b"late"), Err(SendError::Ending));
    assert_eq!(link.take_out(), [0x20, 2, 0, 5]);
}

#[test]
fn a_peer_that_takes_nothing_is_held_to_its_mark_and_a_willing_one_is_spared_a_while() {
    let link = Link::new(SocketAddr::from(([127, 0, 0, 1], 1)), 1_000, Inflight::new(1_000, None));
    let fill = || (0..1_000).take_while(|_| publish(&link, &[0; 100]).is_ok()).count();
    let willing = fill();
    assert!((30..=40).contains(&willing), "{willing}");
    let out = link.take_out();
    assert_eq!(publish(&link, &[0; 100]), Err(SendError::BufferFull), "what is being written still counts");
    link.settle(out[..900].to_vec(), 0);
    assert_eq!(publish(&link, &[0; 100]), Err(SendError::BufferFull));
    assert_eq!(link.settle(Vec::new(), 0), 900);
    assert!(publish(&link, &[0; 100]).is_ok());
}

#[test]
fn who_found_no_room_is_woken_when_the_peer_takes_or_acknowledges_something() {
    let link = Link::new(SocketAddr::from(([127, 0, 0, 1], 1)), 100, Inflight::new(2, None));
    let mut context = Context::from_waker(Waker::noop());
    let mut is_ready = || std::pin::pin!(link.room()).poll(&mut context).is_ready();
    assert!(is_ready());
    let id = publish(&link, b"1").expect("room");
    publish(&link, b"2").expect("room");
    assert_eq!(publish(&link, b"3"), Err(SendError::InflightFull));
    assert!(!is_ready());
    assert!(link.acknowledged(id.expect("QoS 1")));
    assert!(is_ready());
    let full = || link.publish("t", QoS::AtMostOnce, 90, |out| out.extend_from_slice(&[0; 90]));
    while full().is_ok() {}
    assert!(!is_ready());
    link.take_out();
    assert!(!is_ready(), "what is being written still counts");
    link.settle(Vec::new(), 0);
    assert!(is_ready());
    while full().is_ok() {}
    link.close("test");
    assert!(is_ready() && link.is_ending());
}

#[test]
fn what_came_during_a_write_goes_behind_what_was_left_of_it() {
    let link = Link::for_test();
    link.reply(|out| out.extend_from_slice(b"abc"));
    let mut out = link.take_out();
    link.reply(|out| out.extend_from_slice(b"def"));
    out.drain(..1);
    assert_eq!(link.settle(out, 0), 5);
    assert_eq!(link.take_out(), b"bcdef");
}
