//! From publisher to subscriber.

use std::time::Duration;

use vestibule_broker::codec::{PublishHead, QoS};
use vestibule_broker::{EndReason, Profile, SendError};

use crate::client::{CONNACK_OK, Message, connect_with, puback, publish, publish_with};
use crate::probe::Asked;
use crate::server::{Server, counted};

fn text(message: &Message) -> (&str, &str) {
    (&message.topic, std::str::from_utf8(&message.payload).expect("text"))
}

#[test]
fn a_message_goes_to_those_who_asked_for_it_once_and_with_the_lower_qos() {
    let server = Server::with(2, Profile::Strict, |_| {});
    let (mut exact, mut wild, mut publisher) = (server.login("exact"), server.login("wild"), server.login("publisher"));
    exact.subscribe("hall/door", QoS::AtMostOnce);
    wild.subscribe("hall/+", QoS::AtLeastOnce);
    wild.subscribe("#", QoS::AtMostOnce);
    publisher.send(&publish("hall/door", Some(1), b"open"));
    publisher.expect(&puback(1));
    let (one, other) = (exact.message(), wild.message());
    assert_eq!((text(&one), one.packet_id), (("hall/door", "open"), None));
    assert_eq!((text(&other), other.packet_id), (("hall/door", "open"), Some(1)));
    wild.send(&puback(1));
    wild.expect_silence();
    assert_eq!(server.probe.count(|asked| *asked == Asked::Acknowledged(1)), 1);
    // An acknowledgement of nothing is ignored.
    wild.send(&puback(1));
    wild.expect_silence();
    assert_eq!(server.probe.count(|asked| *asked == Asked::Acknowledged(1)), 1);
}

#[test]
fn an_unsubscribed_filter_delivers_nothing() {
    let server = Server::start();
    let (mut reader, mut publisher) = (server.login("reader"), server.login("publisher"));
    reader.subscribe("a", QoS::AtMostOnce);
    publisher.send(&publish("a", Some(1), b"1"));
    publisher.expect(&puback(1));
    assert_eq!(text(&reader.message()), ("a", "1"));
    reader.send(b"\xa2\x05\x00\x09\x00\x01a");
    reader.expect(&[0xb0, 2, 0, 9]);
    publisher.send(&publish("a", Some(2), b"2"));
    publisher.expect(&puback(2));
    reader.expect_silence();
}

#[test]
fn retain_is_ignored() {
    let server = Server::start();
    let (mut before, mut publisher) = (server.login("before"), server.login("publisher"));
    before.subscribe("state", QoS::AtMostOnce);
    let head = PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: true, topic: "state", packet_id: Some(1) };
    publisher.send(&publish_with(head, b"on"));
    publisher.expect(&puback(1));
    assert!(!before.message().retain);
    let mut after = server.login("after");
    after.subscribe("state", QoS::AtMostOnce);
    after.expect_silence();
}

#[test]
fn a_payload_opened_in_place_is_what_subscribers_get() {
    let server = Server::start();
    let (mut reader, mut publisher) = (server.login("reader"), server.login("publisher"));
    reader.subscribe("open/it", QoS::AtMostOnce);
    publisher.send(&publish("open/it", None, b"sealed"));
    assert_eq!(text(&reader.message()), ("open/it", "SEALED"));
}

#[test]
fn mqtt_3_2_0_1_the_connack_comes_before_what_the_service_says_during_the_login() {
    let server = Server::start();
    let mut client = server.dial();
    client.send(&connect_with("greeted", 0, Some("greeted"), None));
    client.expect(&CONNACK_OK);
    assert_eq!(text(&client.message()), ("hello", "hi"));
}

#[test]
fn an_idle_connection_is_woken_by_whoever_sends_to_it() {
    let server = Server::with(2, Profile::Strict, |_| {});
    let mut client = server.login("idle");
    client.expect_silence();
    let link = server.probe.link("idle");
    for number in 0..2_000u32 {
        let body = number.to_be_bytes();
        link.publish("n", QoS::AtMostOnce, 4, |out| out.extend_from_slice(&body)).expect("room");
        assert_eq!(client.message().payload, body);
    }
    link.close("test_over");
    client.expect_end();
    assert_eq!(server.probe.wait_ended("idle"), EndReason::Closed("test_over"));
    assert_eq!(link.publish("n", QoS::AtMostOnce, 0, |_| {}), Err(SendError::Ending));
}

#[test]
fn a_subscriber_that_does_not_read_stalls_nobody_and_its_losses_are_counted() {
    const ROUNDS: usize = 150;
    const ROUND: usize = 20;
    let server = Server::with(1, Profile::Strict, |config| config.max_out = 64 * 1024);
    let (mut slow, mut quick) = (server.login("slow"), server.login("quick"));
    slow.subscribe("flood", QoS::AtMostOnce);
    quick.subscribe("flood", QoS::AtMostOnce);
    let mut publisher = server.login("publisher");
    let dropped = || counted("vestibule_messages_dropped_total", "reason=buffer_full");
    let before = dropped();
    let message = publish("flood", None, &[b'f'; 8_000]);
    for _ in 0..ROUNDS {
        publisher.send(&message.repeat(ROUND));
        // Each round arrives whole, so nothing was lost for the one who reads.
        for _ in 0..ROUND {
            assert_eq!(quick.message().payload.len(), 8_000);
        }
    }
    publisher.expect_silence();
    let lost = (dropped() - before) as usize;
    assert!(lost > 0, "24 MB fitted into the buffers of a socket that nobody reads");
    // The slow one still gets what was kept for it, whole packets in order.
    slow.send(&crate::client::PINGREQ);
    let mut got = 0;
    while slow.packet().expect("the connection lives").len() == message.len() {
        got += 1;
    }
    assert_eq!(got + lost, ROUNDS * ROUND);
}

#[test]
fn a_subscriber_that_reads_loses_nothing_to_a_publisher_that_never_pauses() {
    const MESSAGES: usize = 3_000;
    let server = Server::with(1, Profile::Strict, |config| config.max_out = 64 * 1024);
    let (mut reader, mut publisher) = (server.login("reader"), server.login("publisher"));
    reader.subscribe("burst", QoS::AtMostOnce);
    // A megabyte fits the sockets' buffers, so the reader takes all that is written to it; without turns of its
    // own, its out buffer would have overflown long before.
    publisher.send(&publish("burst", None, &[b'b'; 300]).repeat(MESSAGES));
    for _ in 0..MESSAGES {
        assert_eq!(reader.message().payload.len(), 300);
    }
}

#[test]
fn a_subscriber_that_reads_loses_nothing_to_many_publishers_at_once() {
    const PUBLISHERS: usize = 12;
    const MESSAGES: usize = 200;
    let server = Server::with(1, Profile::Strict, |config| config.max_out = 16 * 1024);
    let mut reader = server.login("reader");
    reader.subscribe("crowd", QoS::AtMostOnce);
    let mut crowd: Vec<_> = (0..PUBLISHERS).map(|number| server.login(&format!("publisher-{number}"))).collect();
    // While the thread stands still, all of it arrives; each then has 60 KB ready to be read at once.
    let mut stall = server.login("stall");
    stall.send(&publish("stall", None, b""));
    server.probe.wait_published(1);
    let burst = publish("crowd", None, &[b'c'; 300]).repeat(MESSAGES);
    for publisher in &mut crowd {
        publisher.send(&burst);
    }
    server.probe.go_on();
    for _ in 0..PUBLISHERS * MESSAGES {
        assert_eq!(reader.message().payload.len(), 300);
    }
}

#[test]
fn a_subscriber_that_does_not_acknowledge_gets_no_more_than_its_window() {
    let server = Server::with(1, Profile::Strict, |config| config.max_inflight = 4);
    let (mut reader, mut publisher) = (server.login("reader"), server.login("publisher"));
    reader.subscribe("a", QoS::AtLeastOnce);
    let before = counted("vestibule_messages_dropped_total", "reason=inflight_full");
    publisher.send(&(1..=10).flat_map(|id| publish("a", Some(id), b"")).collect::<Vec<_>>());
    publisher.expect(&(1..=10).flat_map(puback).collect::<Vec<_>>());
    let ids: Vec<_> = (0..4).map(|_| reader.message().packet_id.expect("QoS 1")).collect();
    assert_eq!(counted("vestibule_messages_dropped_total", "reason=inflight_full") - before, 6);
    reader.expect_silence();
    reader.send(&puback(ids[0]));
    reader.expect_silence();
    publisher.send(&publish("a", Some(11), b"more"));
    assert_eq!(reader.message().payload, b"more");
}

#[test]
fn a_peer_that_lets_its_answers_lie_is_not_read() {
    let server = Server::with(1, Profile::Strict, |config| config.max_out = 4_096);
    let mut greedy = server.login("greedy");
    // Each PINGREQ is worth as many bytes in return; without a limit all would be taken.
    let pings = crate::client::PINGREQ.repeat(16 << 20);
    let sent = greedy.stuff(&pings, Duration::from_millis(300));
    assert!(sent < pings.len(), "the server goes on reading and hoards the answers");
    let mut answered = 0;
    while answered < sent / 2 * 2 {
        answered += greedy.read_once().len();
    }
    assert_eq!(answered, sent / 2 * 2);
}
