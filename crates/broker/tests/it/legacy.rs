//! Legacy OSAP devices (osap-wire 9.1, 9.10).

use vestibule_broker::codec::{PublishHead, QoS};
use vestibule_broker::{EndReason, Profile};

use crate::client::{CONNACK_OK, Client, puback, publish_with};
use crate::server::Server;

/// A CONNECT with the flags of a full (0xEE) or a light (0xEC) login: will topic padded to 128, empty client id.
fn login(serial: &str, flags: u8) -> Vec<u8> {
    let mut topic = format!("/Basic/pu2cenplt/{serial}/firstconnect").into_bytes();
    topic.resize(128, 0);
    let mut body = b"\x00\x04MQTT\x04".to_vec();
    body.extend_from_slice(&[flags, 0, 30]);
    for field in [&b""[..], &topic, b"login record", serial.as_bytes(), b"test"] {
        body.extend_from_slice(&(field.len() as u16).to_be_bytes());
        body.extend_from_slice(field);
    }
    assert!((128..256).contains(&body.len()));
    [&[0x10, body.len() as u8 & 0x7f | 0x80, 1], &body[..]].concat()
}

fn device(server: &Server, serial: &str, flags: u8) -> Client {
    let mut device = server.dial();
    device.send(&login(serial, flags));
    device.expect(&CONNACK_OK);
    device
}

fn legacy() -> Server {
    Server::with(1, Profile::OsapLegacy, |_| {})
}

#[test]
fn osap_wire_9_1_both_logins_are_taken_by_the_legacy_listener_only() {
    let server = legacy();
    let mut full = device(&server, "SN1", 0xee);
    let mut light = device(&server, "SN1", 0xec);
    full.expect_end();
    light.expect_silence();

    let strict = Server::start();
    let mut refused = strict.dial();
    refused.send(&login("SN1", 0xee));
    refused.expect_end();
    assert_eq!(strict.probe.asked(), []);
}

#[test]
fn osap_wire_9_2_the_will_of_a_legacy_device_is_never_published() {
    let server = legacy();
    let mut watcher = device(&server, "WATCHER", 0xee);
    watcher.subscribe("#", QoS::AtMostOnce);
    device(&server, "SN1", 0xee).hang_up();
    assert_eq!(server.probe.wait_ended("SN1"), EndReason::Lost);
    watcher.expect_silence();
    assert_eq!(server.probe.published(), []);
}

#[test]
fn osap_wire_9_10_retain_on_everything_and_an_acknowledgement_of_0_are_tolerated() {
    let server = legacy();
    let mut device = device(&server, "SN1", 0xee);
    for id in 1..=3 {
        let head =
            PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: true, topic: "done/it", packet_id: Some(id) };
        device.send(&publish_with(head, b"x"));
        device.expect(&puback(id));
    }
    device.send(&[0x40, 2, 0, 0]);
    device.expect_silence();
}

#[test]
fn osap_wire_9_5_qos_2_is_refused() {
    let server = legacy();
    let mut device = device(&server, "SN1", 0xee);
    let head = PublishHead { dup: false, qos: QoS::ExactlyOnce, retain: false, topic: "done/it", packet_id: Some(1) };
    device.send(&publish_with(head, b"x"));
    device.expect_end();
    assert_eq!(server.probe.wait_ended("SN1"), EndReason::Protocol("qos2_not_offered"));
    assert_eq!(server.probe.published(), []);
}
