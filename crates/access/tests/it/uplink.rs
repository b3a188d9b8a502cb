//! What a device publishes and subscribes (osap-wire 9.4, 9.5, 13.2.5 to 13.2.7).

use std::time::Duration;

use osap::das::{attribute, event};
use osap::lbs::client::Success;
use vestibule_broker::codec::QoS;
use vestibule_platform::{Flags, RecordKind};
use vestibule_store::{Order, Scan};

use crate::device::{TestDevice, wrong_key};
use crate::mqtt::{Mqtt, SMOKE};
use crate::site::{NOW, SERIAL, Site, eventually};

struct Logged {
    site: Site,
    device: TestDevice,
    mqtt: Mqtt,
    session: Success,
}

fn logged_in() -> Logged {
    let site = Site::new();
    site.add(SERIAL);
    let mut device = TestDevice::new();
    let (mqtt, session) = device.come_in(&site);
    Logged { site, device, mqtt, session }
}

impl Logged {
    #[track_caller]
    fn publish(&mut self, topic: &str, id: u16, seq: u64, body: &[u8]) {
        self.mqtt.publish(&self.session.session_key, topic, id, seq, body);
    }

    #[track_caller]
    fn reconnect(&mut self) {
        let (code, mqtt) = self.device.log_in(&self.site, &self.session);
        assert_eq!(code, 0);
        self.mqtt = mqtt;
    }

    /// A message that opens under no key of ours.
    #[track_caller]
    fn publish_undecryptable(&mut self, id: u16) {
        self.mqtt.publish(&wrong_key(), SMOKE, id, u64::from(id), br#"{"a":1}"#);
    }
}

fn event(uuid: &str) -> Vec<u8> {
    let mut body = Vec::new();
    event::write(r#"{"level":1}"#, uuid, NOW, &mut body).expect("an event");
    body
}

#[test]
fn osap_13_2_6_a_repeated_seq_is_stored_once_and_acknowledged_again() {
    let mut it = logged_in();
    it.publish(SMOKE, 1, 7, br#"{"level":1}"#);
    it.mqtt.expect_puback(1);
    it.publish(SMOKE, 1, 7, br#"{"level":1}"#);
    it.mqtt.expect_puback(1);
    it.publish(SMOKE, 2, 6, br#"{"level":2}"#);
    it.mqtt.expect_puback(2);
    assert_eq!(it.site.events().len(), 2, "an older number is not a repeated one");
    // The window is the key's, not the connection's.
    it.reconnect();
    it.publish(SMOKE, 3, 7, br#"{"level":1}"#);
    it.mqtt.expect_puback(3);
    assert_eq!(it.site.events().len(), 2);
    // A new key starts a new count, as a new process of the device does.
    it.session = it.device.authenticate(&it.site);
    it.reconnect();
    it.publish(SMOKE, 1, 7, br#"{"level":3}"#);
    it.mqtt.expect_puback(1);
    let events = it.site.events();
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.flags == Flags::NO_TIME.with(Flags::AT_LEAST_ONCE)), "no UUID, no time");
}

#[test]
fn an_event_that_is_sent_again_under_another_key_is_stored_once() {
    let mut it = logged_in();
    it.publish(SMOKE, 1, 1, &event("5fb66b24e52c11f1800094306f635ec7"));
    it.mqtt.expect_puback(1);
    it.session = it.device.authenticate(&it.site);
    it.reconnect();
    it.publish(SMOKE, 1, 1, &event("5fb66b24e52c11f1800094306f635ec7"));
    it.mqtt.expect_puback(1);
    let events = it.site.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].flags, Flags::NONE);
}

#[test]
fn an_attribute_report_is_stored_as_one() {
    let mut it = logged_in();
    let mut body = Vec::new();
    attribute::write_report(r#"{"on":true}"#, &mut body).expect("a report");
    it.publish("/iot/SN0000001/global/0-Lamp/model/attribute/report/Light/Power", 1, 1, &body);
    it.mqtt.expect_puback(1);
    let scan = Scan { kind: Some(RecordKind::Attribute), order: Order::Newest, limit: 10, ..Scan::default() };
    let stored = it.site.block_on(it.site.platform.journal().scan(&scan)).expect("readable");
    let [report] = &stored[..] else { panic!("one report") };
    assert_eq!((&*report.path.area, &*report.path.name, &*report.data), ("Light", "Power", r#"{"on":true}"#));
    assert!(it.site.events().is_empty());
}

#[test]
fn osap_13_2_7_what_is_not_the_devices_own_is_acknowledged_and_dropped() {
    let mut it = logged_in();
    it.site.add("SN0000002");
    let cases = [
        ("/iot/SN0000002/global/0-Lamp/model/event/report/Alarm/Smoke", "foreign_serial"),
        ("/iot/SN0000001/SUB000001/0-Lamp/model/event/report/Alarm/Smoke", "unknown_child"),
        ("/some/where/else", "bad_topic"),
        ("/1100/14448", "not_handled"),
    ];
    for (n, (topic, reason)) in (1u16..).zip(cases) {
        it.publish(topic, n, u64::from(n), br#"{"level":1}"#);
        it.mqtt.expect_puback(n);
        it.site.expect_fact(reason);
    }
    assert!(it.site.events().is_empty());
    it.publish(SMOKE, 9, 9, br#"{"level":1}"#);
    it.mqtt.expect_puback(9);
    assert_eq!(it.site.events().len(), 1, "and the connection goes on");
}

#[test]
fn osap_13_2_5_what_does_not_open_or_parse_is_acknowledged_like_everything_else() {
    let mut it = logged_in();
    it.publish_undecryptable(1);
    it.mqtt.expect_puback(1);
    it.publish(SMOKE, 2, 2, b"not json");
    it.mqtt.expect_puback(2);
    it.publish(SMOKE, 3, 3, br#"{"level":1}"#);
    it.mqtt.expect_puback(3);
    it.mqtt.publish_raw(SMOKE, QoS::AtLeastOnce, 4, &[1, 2, 3]);
    it.mqtt.expect_puback(4);
    assert_eq!(it.site.events().len(), 1);
    let last = it.site.device().last_failure().expect("kept");
    assert_eq!((last.reason.as_ref(), last.count), ("not_opened", 1));
}

#[test]
fn osap_13_2_5_ten_in_a_minute_close_the_connection_and_drop_the_key() {
    let mut it = logged_in();
    for id in 1..=9 {
        it.publish_undecryptable(id);
        it.mqtt.expect_puback(id);
    }
    it.publish_undecryptable(10);
    it.mqtt.wire.expect_end();
    it.site.expect_fact("too_many_errors");
    assert_eq!(it.device.log_in(&it.site, &it.session).0, 11, "the key is gone at once");
    let stored = || it.site.credentials().committed.expect("the master key stays").session_key;
    eventually("the key is out of the store", || stored().is_none());
    it.site = it.site.restart();
    assert_eq!(it.device.log_in(&it.site, &it.session).0, 11, "and stays so");
    it.session = it.device.authenticate(&it.site);
    it.reconnect();
    it.publish(SMOKE, 1, 1, br#"{"level":1}"#);
    it.mqtt.expect_puback(1);
}

#[test]
fn osap_13_2_5_a_new_connection_does_not_start_a_new_count() {
    let mut it = logged_in();
    for id in 1..=9 {
        it.publish_undecryptable(id);
        it.mqtt.expect_puback(id);
    }
    it.reconnect();
    it.publish_undecryptable(10);
    it.mqtt.wire.expect_end();
    assert_eq!(it.device.log_in(&it.site, &it.session).0, 11);
}

#[test]
fn osap_13_2_5_nine_in_a_minute_are_forgiven() {
    let mut it = logged_in();
    for minute in 0..3 {
        for n in 1..=9 {
            let id = minute * 10 + n;
            it.publish_undecryptable(id);
            it.mqtt.expect_puback(id);
        }
        it.site.clock.advance(Duration::from_secs(67));
    }
    assert!(it.mqtt.is_alive());
}

#[test]
fn osap_9_5_qos_2_ends_the_connection() {
    let mut it = logged_in();
    it.mqtt.publish_raw(SMOKE, QoS::ExactlyOnce, 1, &[0; 16]);
    it.mqtt.wire.expect_end();
    assert!(it.site.events().is_empty());
}

#[test]
fn osap_9_4_a_device_owns_two_filters_and_no_other() {
    let mut it = logged_in();
    for (filter, code) in [
        ("/iot/SN0000001/#", 1),
        ("/SN0000001/#", 1),
        ("#", 0x80),
        ("/iot/#", 0x80),
        ("/iot/SN0000002/#", 0x80),
        ("/iot/+/#", 0x80),
        ("/iot/SN0000001/global/#", 0x80),
        ("SN0000001/#", 0x80),
        ("/iot//SN0000001/#", 0x80),
    ] {
        assert_eq!(it.mqtt.subscribe(filter), code, "{filter}");
    }
}
