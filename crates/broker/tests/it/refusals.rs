//! What is not MQTT is refused, and nobody else notices.

use vestibule_broker::codec::{PublishHead, QoS};
use vestibule_broker::{EndReason, Profile};

use crate::client::{CONNACK_OK, PINGREQ, PINGRESP, connect, connect_with, publish, publish_with, subscribe};
use crate::probe::Asked;
use crate::server::Server;

#[test]
fn mqtt_3_1_0_1_the_first_packet_is_a_connect_or_the_connection_ends_at_its_first_byte() {
    let server = Server::start();
    for first in [&[0x30u8][..], &PINGREQ, b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1], &[0], &[0xf0], &[0x11]] {
        let mut stranger = server.dial();
        stranger.send(first);
        stranger.expect_end();
    }
    assert_eq!(server.probe.asked(), []);
}

#[test]
fn mqtt_3_1_2_2_another_protocol_version_is_told_so() {
    let server = Server::start();
    for (name, level) in [("MQTT", 5), ("MQIsdp", 3), ("HTTP", 4)] {
        let mut body = vec![0, name.len() as u8];
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&[level, 2, 0, 60, 0, 1, b'a']);
        let mut stranger = server.dial();
        stranger.send(&[&[0x10, body.len() as u8], &body[..]].concat());
        stranger.expect(&[0x20, 2, 0, 1]);
        stranger.expect_end();
    }
}

#[test]
fn mqtt_3_1_3_8_an_empty_client_id_needs_a_clean_session() {
    let server = Server::start();
    let mut stranger = server.dial();
    stranger.send(b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00");
    stranger.expect(&[0x20, 2, 0, 2]);
    stranger.expect_end();
}

#[test]
fn a_malformed_connect_gets_no_answer() {
    let server = Server::start();
    let cases: [&[u8]; 4] = [
        // The reserved flag.
        b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01a",
        // A client id longer than the packet.
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x09a",
        // A byte too many.
        b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x01ab",
        // A remaining length of five bytes.
        b"\x10\xff\xff\xff\xff\x7f",
    ];
    for case in cases {
        let mut stranger = server.dial();
        stranger.send(case);
        stranger.expect_end();
    }
    assert_eq!(server.probe.asked(), []);
}

#[test]
fn a_connect_may_not_be_long_and_is_refused_by_its_announced_length() {
    let server = Server::start();
    let mut stranger = server.dial();
    // 32 KiB are announced, none of them is sent.
    stranger.send(&[0x10, 0x80, 0x80, 0x02]);
    stranger.expect_end();
}

#[test]
fn mqtt_3_1_0_2_a_second_connect_ends_the_session() {
    let server = Server::start();
    let mut client = server.login("twice");
    client.send(&connect("twice"));
    client.expect_end();
    assert_eq!(server.probe.wait_ended("twice"), EndReason::Protocol("second_connect"));
}

#[test]
fn mqtt_4_8_0_1_a_malformed_packet_ends_the_session_and_what_came_before_it_counts() {
    let server = Server::start();
    let cases: [&[u8]; 9] = [
        b"\x00\x00",
        b"\xf0\x00",
        b"\x36\x05\x00\x01a\x00\x01",
        b"\x38\x03\x00\x01a",
        b"\x30\x03\x00\x01+",
        b"\x32\x05\x00\x01a\x00\x00",
        b"\x82\x02\x00\x01",
        b"\xc0\x01\x00",
        b"\x30\xff\xff\xff\xff\x7f",
    ];
    for (number, case) in cases.iter().enumerate() {
        let id = format!("malformed-{number}");
        let mut client = server.login(&id);
        client.send(&[&publish("done/it", Some(9), b"kept"), *case].concat());
        client.expect(&[0x40, 2, 0, 9]);
        client.expect_end();
        assert_eq!(server.probe.wait_ended(&id), EndReason::Protocol("malformed_packet"), "{case:x?}");
    }
}

#[test]
fn a_packet_that_is_too_long_is_refused_by_its_announced_length() {
    let server = Server::with(1, Profile::Strict, |config| config.max_frame = 1_000);
    let mut client = server.login("fits");
    let fits = publish("done/it", Some(1), &vec![0; 1_000 - 3 - 9 - 2]);
    assert_eq!(fits.len(), 1_000);
    client.send(&fits);
    client.expect(&[0x40, 2, 0, 1]);
    client.send(&[0x32, 0xff, 0x07]);
    client.expect_end();
    assert_eq!(server.probe.wait_ended("fits"), EndReason::Protocol("malformed_packet"));
}

#[test]
fn a_packet_that_only_a_server_sends_ends_the_session() {
    let server = Server::start();
    let cases: [(&[u8], &str); 6] = [
        (&CONNACK_OK, "server_packet_from_client"),
        (b"\x90\x03\x00\x01\x00", "server_packet_from_client"),
        (b"\xb0\x02\x00\x01", "server_packet_from_client"),
        (&PINGRESP, "server_packet_from_client"),
        (b"\x50\x02\x00\x01", "qos2_not_in_use"),
        (b"\x70\x02\x00\x01", "qos2_not_in_use"),
    ];
    for (number, (case, reason)) in cases.into_iter().enumerate() {
        let id = format!("server-{number}");
        let mut client = server.login(&id);
        client.send(case);
        client.expect_end();
        assert_eq!(server.probe.wait_ended(&id), EndReason::Protocol(reason));
    }
}

#[test]
fn a_login_that_the_service_refuses_gets_its_code_and_is_no_session() {
    let server = Server::start();
    let mut client = server.dial();
    client.send(&connect_with("a", 0, Some("refused"), None));
    client.expect(&[0x20, 2, 0, 5]);
    client.expect_end();
    assert_eq!(server.probe.asked(), []);
}

#[test]
fn a_connect_in_single_bytes_is_one_connect() {
    let server = Server::start();
    let mut client = server.dial();
    for byte in connect("slowly") {
        client.send(&[byte]);
    }
    client.expect(&CONNACK_OK);
    for byte in publish("done/it", Some(3), b"bytes") {
        client.send(&[byte]);
    }
    client.expect(&[0x40, 2, 0, 3]);
    assert_eq!(server.probe.published(), [("done/it".into(), b"bytes".to_vec())]);
}

#[test]
fn packets_behind_the_connect_wait_for_it_and_are_all_answered() {
    let server = Server::start();
    let mut client = server.dial();
    client.send(
        &[
            connect("eager"),
            subscribe(1, &[("x", QoS::AtMostOnce)]),
            publish("x", Some(2), b"to myself"),
            PINGREQ.to_vec(),
        ]
        .concat(),
    );
    client.expect(&CONNACK_OK);
    client.expect(&[0x90, 3, 0, 1, 0]);
    client.expect(&publish("x", None, b"to myself"));
    // The acknowledgement leaves with the turn, behind what is answered at once.
    client.expect(&PINGRESP);
    client.expect(&[0x40, 2, 0, 2]);
}

#[test]
fn mqtt_4_3_3_2_a_message_of_qos_2_is_taken_once_until_it_is_released() {
    let server = Server::start();
    let mut client = server.login("exactly");
    let message = |dup, payload: &[u8]| {
        let (qos, packet_id) = (QoS::ExactlyOnce, Some(5));
        publish_with(PublishHead { dup, qos, retain: false, topic: "done/it", packet_id }, payload)
    };
    let (pubrec, pubrel, pubcomp) = ([0x50, 2, 0, 5], [0x62, 2, 0, 5], [0x70, 2, 0, 5]);
    client.send(&message(false, b"one"));
    client.expect(&pubrec);
    client.send(&message(true, b"one"));
    client.expect(&pubrec);
    client.send(&pubrel);
    client.expect(&pubcomp);
    // Once more: the PUBCOMP may have been lost.
    client.send(&pubrel);
    client.expect(&pubcomp);
    client.send(&message(false, b"two"));
    client.expect(&pubrec);
    let payloads: Vec<_> = server.probe.published().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, [b"one", b"two"]);
}

#[test]
fn unreleased_messages_of_qos_2_are_bounded() {
    let server = Server::with(1, Profile::Strict, |config| config.max_unreleased = 3);
    let mut client = server.login("hoarder");
    for id in 1..=4 {
        let (qos, packet_id) = (QoS::ExactlyOnce, Some(id));
        client.send(&publish_with(PublishHead { dup: false, qos, retain: false, topic: "done/it", packet_id }, b""));
    }
    for id in 1..=3 {
        client.expect(&[0x50, 2, 0, id]);
    }
    client.expect_end();
    assert_eq!(server.probe.wait_ended("hoarder"), EndReason::Protocol("too_many_unreleased"));
}

#[test]
fn a_topic_is_authorised_once_and_before_the_payload_is_touched() {
    let server = Server::start();
    let mut client = server.login("asker");
    client.send(
        &[publish("done/a", Some(1), b"1"), publish("done/b", None, b"2"), publish("done/a", None, b"3")].concat(),
    );
    client.expect(&[0x40, 2, 0, 1]);
    client.expect_silence();
    let asked: Vec<_> = server
        .probe
        .asked()
        .into_iter()
        .filter_map(|asked| match asked {
            Asked::Authorized(topic) => Some(format!("authorize {topic}")),
            Asked::Published { topic, .. } => Some(format!("publish {topic}")),
            _ => None,
        })
        .collect();
    assert_eq!(asked, ["authorize done/a", "publish done/a", "authorize done/b", "publish done/b", "publish done/a"]);
}

#[test]
fn a_denied_message_is_acknowledged_or_ends_the_session_and_is_never_seen() {
    let server = Server::start();
    let mut client = server.login("denied");
    client.send(&publish("deny/this", Some(1), b"secret"));
    client.expect(&[0x40, 2, 0, 1]);
    client.send(&publish("forbid/this", Some(2), b"secret"));
    client.expect_end();
    assert_eq!(server.probe.wait_ended("denied"), EndReason::Closed("test_forbidden"));
    assert_eq!(server.probe.published(), []);
}

#[test]
fn a_message_that_closes_is_not_acknowledged() {
    let server = Server::start();
    let mut client = server.login("closed");
    client.send(&publish("close/this", Some(1), b""));
    client.expect_end();
    assert_eq!(server.probe.wait_ended("closed"), EndReason::Closed("test_closed"));
}

#[test]
fn a_subscription_is_refused_by_the_service_by_number_and_by_depth() {
    let server = Server::with(1, Profile::Strict, |config| config.max_subscriptions = 2);
    let mut client = server.login("reader");
    let deep = vec!["+"; 30_000].join("/");
    let q1 = QoS::AtLeastOnce;
    client.send(&subscribe(1, &[("deny/a", q1), (&deep, q1), ("granted/b", QoS::ExactlyOnce)]));
    client.expect(&[0x90, 5, 0, 1, 0x80, 0x80, 1]);
    client.send(&subscribe(2, &[("a", q1), ("b", q1), ("c", q1), ("a", QoS::AtMostOnce)]));
    client.expect(&[0x90, 6, 0, 2, 1, 1, 0x80, 0]);
}
