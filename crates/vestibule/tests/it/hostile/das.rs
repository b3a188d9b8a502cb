//! Devices that are logged in and break the rules of the DAS.

use osap::lbs::client::Stored;
use vestibule_mqtt_codec::{Packet, Rules, decode, encode};

use crate::support::{self, Platform, QoS, minted};

const CODE: &str = "ABCDEF";
const BODY: &str = r#"{"level":1}"#;

fn topic(serial: &str, sub: &str) -> String {
    format!("/iot/{serial}/{sub}/0-Lamp/model/event/report/Alarm/Smoke")
}

/// A platform with one device.
fn site() -> (Platform, String) {
    let (platform, serial) = (Platform::start(), minted("SN"));
    platform.add(&serial, CODE);
    (platform, serial)
}

#[test]
fn osap_13_2_7_what_is_published_for_others_is_acknowledged_and_dropped() {
    let (platform, serial) = site();
    let other = minted("SN");
    platform.add(&other, CODE);
    let (_, mut device) = support::enrol(&platform, &serial, CODE);
    let foreign = [topic(&other, "global"), topic(&serial, "CHILD0001"), format!("/{other}/1100/14448")];
    for (seq, topic) in (1..).zip(&foreign) {
        let id = device.publish(topic, seq, QoS::AtLeastOnce, BODY);
        device.acknowledged(id);
    }
    let id = device.publish(&topic(&serial, "global"), 9, QoS::AtLeastOnce, BODY);
    device.acknowledged(id);
    let events = platform.events(None);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["device"]["serial"], serial);
    for reason in ["foreign_serial", "unknown_child", "bad_topic"] {
        let dropped = platform.metric("vestibule_das_messages_dropped_total", &[("reason", reason)]);
        assert_eq!(dropped, 1.0, "{reason}");
        assert!(platform.reasons(&serial).iter().any(|it| it == reason), "{reason}");
    }
    assert_eq!(platform.reasons(&other), [] as [String; 0], "the other device has done nothing");
}

#[test]
fn osap_13_2_5_ten_messages_that_do_not_open_end_the_session_and_its_key() {
    let (platform, serial) = site();
    let (access, mut device) = support::enrol(&platform, &serial, CODE);
    let topic = topic(&serial, "global");
    // Each looks like an accepted one from outside, or the answers were a padding oracle.
    let bad: [&[u8]; 6] = [b"", b"short", &[0; 16], &[0xaa; 32], &[0x55; 1024], &[1; 33]];
    for payload in bad {
        let id = device.publish_raw(&topic, QoS::AtLeastOnce, payload);
        device.acknowledged(id);
    }
    for (seq, body) in (1..).zip(["", "no JSON", "[1,2]"]) {
        let id = device.publish(&topic, seq, QoS::AtLeastOnce, body);
        device.acknowledged(id);
    }
    device.publish_raw(&topic, QoS::AtLeastOnce, b"the tenth");
    device.drained();
    assert_eq!(platform.events(None).len(), 0);
    platform.until_presence(&serial, "offline", "too_many_errors");

    let (answer, _) = support::connect(&serial, &access);
    assert_eq!(answer, 11, "the key is not accepted any more");
    let stored = Stored::Both { dev_id: access.dev_id, master_key: access.master_key };
    let refreshed = support::authenticate(&platform, &serial, CODE, stored).expect("the master key still counts");
    let (answer, mut device) = support::connect(&serial, &refreshed);
    assert_eq!(answer, 0);
    let id = device.publish(&topic, 1, QoS::AtLeastOnce, BODY);
    device.acknowledged(id);
    assert_eq!(platform.events(None).len(), 1);
}

#[test]
fn osap_13_2_6_a_repeated_seq_is_acknowledged_and_stored_once() {
    let (platform, serial) = site();
    let (access, mut device) = support::enrol(&platform, &serial, CODE);
    let topic = topic(&serial, "global");
    for _ in 0..3 {
        let id = device.publish(&topic, 5, QoS::AtLeastOnce, BODY);
        device.acknowledged(id);
    }
    assert_eq!(platform.events(None).len(), 1);
    // The window belongs to the session key: a recording is worth nothing on the next connection either.
    drop(device);
    let (answer, mut device) = support::connect(&serial, &access);
    assert_eq!(answer, 0);
    for (seq, stored) in [(5, 1), (4, 2), (4, 2), (6, 3)] {
        let id = device.publish(&topic, seq, QoS::AtLeastOnce, BODY);
        device.acknowledged(id);
        assert_eq!(platform.events(None).len(), stored, "after Seq {seq}");
    }
}

#[test]
fn an_event_sent_again_under_its_id_is_stored_once_whatever_its_seq() {
    let (platform, serial) = site();
    let (access, mut device) = support::enrol(&platform, &serial, CODE);
    let topic = topic(&serial, "global");
    let body =
        r#"{"level":1,"basic":{"UUID":"0123456789abcdef0123456789abcdef","dateTime":"2026-11-20T21:31:22.110+00:00"}}"#;
    for seq in [1, 2] {
        let id = device.publish(&topic, seq, QoS::AtLeastOnce, body);
        device.acknowledged(id);
    }
    let stored = Stored::Both { dev_id: access.dev_id, master_key: access.master_key };
    let refreshed = support::authenticate(&platform, &serial, CODE, stored).expect("the master key is right");
    let (answer, mut device) = support::connect(&serial, &refreshed);
    assert_eq!(answer, 0);
    let id = device.publish(&topic, 1, QoS::AtLeastOnce, body);
    device.acknowledged(id);
    let events = platform.events(None);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["id"], "0123456789abcdef0123456789abcdef");
}

#[test]
fn osap_9_5_a_message_of_qos_2_ends_the_connection_and_is_not_stored() {
    let (platform, serial) = site();
    let (access, mut device) = support::enrol(&platform, &serial, CODE);
    device.publish(&topic(&serial, "global"), 1, QoS::ExactlyOnce, BODY);
    assert_eq!(device.drained(), [] as [Vec<u8>; 0], "no PUBREC");
    assert_eq!(platform.events(None).len(), 0);
    platform.until_presence(&serial, "offline", "protocol_error");
    assert_eq!(support::connect(&serial, &access).0, 0, "it may come back");
}

#[test]
fn a_second_connect_ends_the_connection() {
    let (platform, serial) = site();
    let (access, mut device) = support::enrol(&platform, &serial, CODE);
    let again = device.login(&serial, &access);
    device.send(&again);
    assert_eq!(device.drained(), [] as [Vec<u8>; 0], "no second CONNACK");
    platform.until_presence(&serial, "offline", "protocol_error");
    let ended = [("listener", "das_legacy"), ("reason", "second_connect")];
    assert_eq!(platform.metric("vestibule_connections_ended_total", &ended), 1.0);
}

#[test]
fn osap_9_4_a_device_hears_its_own_topics_only() {
    let (platform, serial) = site();
    let other = minted("SN");
    platform.add(&other, CODE);
    let (_, mut device) = support::enrol(&platform, &serial, CODE);
    let foreign = [format!("/iot/{other}/#"), "#".to_owned(), "/iot/+/#".to_owned(), format!("/iot/{serial}/global/#")];
    let own = [format!("/iot/{serial}/#"), format!("/{serial}/#")];
    let filters: Vec<_> = foreign.iter().chain(&own).map(|filter| (filter.as_str(), QoS::AtLeastOnce)).collect();
    let mut packet = Vec::new();
    encode::subscribe(1, filters, &mut packet).expect("it fits");
    device.send(&packet);
    let answer = device.next().expect("a SUBACK");
    let Ok(Packet::SubAck(suback)) = decode(&answer, &Rules::STRICT) else { panic!("{answer:?} is no SUBACK") };
    assert_eq!(suback.codes, [0x80, 0x80, 0x80, 0x80, 1, 1]);
}

#[test]
fn osap_9_2_a_login_record_that_proves_nothing_is_answered_11() {
    let (platform, serial) = site();
    let other = minted("SN");
    platform.add(&other, CODE);
    let (access, device) = support::enrol(&platform, &serial, CODE);
    let (mine, _) = support::enrol(&platform, &other, CODE);
    // The key of one device does not open the door of another.
    assert_eq!(support::connect(&serial, &mine).0, 11);
    let mut forged = access.clone();
    forged.dev_id = mine.dev_id;
    assert_eq!(support::connect(&serial, &forged).0, 11);
    assert_eq!(support::connect(&minted("NO"), &mine).0, 11);
    let shown = platform.device(&serial);
    assert_eq!(shown["presence"]["peer"], device.local().to_string(), "the live session is left alone");
    // A foreign key opens one record in 256 to something that is none, so the first refusal has one of two reasons.
    assert_eq!(platform.reasons(&serial).last().map(String::as_str), Some("login_record_mismatch"));
}
