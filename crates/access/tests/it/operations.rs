//! Operations on their way to a device and back (osap-wire 9.5 to 9.8, 10.1), with a device that behaves in every way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, MsgType};
use osap::lbs::client::Success;
use tokio::task::JoinHandle;
use vestibule_broker::codec::{Packet, QoS, Rules, decode};
use vestibule_platform::{DevicePath, Invoke, InvokeError, Outcome};

use crate::device::TestDevice;
use crate::mqtt::Mqtt;
use crate::site::{SERIAL, Site, eventually};

const OPERATE: &str = "/iot/SN0000001/global/0-Lamp/model/service/operate/Light/Blink";
const REPLY: &str = "/iot/SN0000001/global/0-Lamp/model/service/operate_reply/Light/Blink";
const LONG: Duration = Duration::from_secs(20);

pub struct Logged {
    pub site: Site,
    pub device: TestDevice,
    pub mqtt: Mqtt,
    pub session: Success,
    /// Messages that came while an acknowledgement was waited for.
    early: VecDeque<Vec<u8>>,
}

/// A message as it arrived.
pub struct Arrived {
    pub topic: String,
    pub packet_id: u16,
    pub version: String,
    pub seq: u64,
    pub msg_type: Option<MsgType>,
    pub body: String,
}

pub fn logged_in() -> Logged {
    logged_in_at(Site::new())
}

pub fn logged_in_at(site: Site) -> Logged {
    site.add(SERIAL);
    let mut device = TestDevice::new();
    let (mqtt, session) = device.come_in(&site);
    Logged { site, device, mqtt, session, early: VecDeque::new() }
}

pub fn blink() -> DevicePath {
    DevicePath { resource: "Lamp".into(), index: "0".into(), area: "Light".into(), name: "Blink".into() }
}

impl Logged {
    fn invoke(
        &self,
        path: DevicePath,
        input: &'static str,
        deadline: Duration,
    ) -> JoinHandle<Result<Outcome, InvokeError>> {
        let (platform, device) = (Arc::clone(&self.site.platform), self.site.device());
        let token = self.site.token();
        self.site.spawn(async move {
            let caller = platform.authorize(&token).expect("the administrator");
            let invoke = Invoke { path, input: Some(input), deadline, queue: None, idempotency_key: None, by: &caller };
            platform.invoke(&device, invoke).await.map(|(_, outcome)| outcome)
        })
    }

    #[track_caller]
    fn outcome(&self, invoked: JoinHandle<Result<Outcome, InvokeError>>) -> Outcome {
        self.site.block_on(invoked).expect("no panic").expect("sent")
    }

    /// The next message to the device, acknowledged.
    #[track_caller]
    pub fn arrived(&mut self) -> Arrived {
        let mut frame = self.early.pop_front().unwrap_or_else(|| self.mqtt.frame().expect("a message"));
        let Ok(Packet::Publish(publish)) = decode(&frame, &Rules::STRICT) else { panic!("no PUBLISH: {frame:02x?}") };
        assert_eq!((publish.head.qos, publish.head.dup, publish.head.retain), (QoS::AtLeastOnce, false, false));
        let (topic, packet_id) = (publish.head.topic.to_owned(), publish.head.packet_id.expect("a packet id"));
        let start = frame.len() - publish.payload.len();
        let cipher = SessionCipher::new(self.session.session_key.clone());
        let opened = envelope::open(&cipher, &mut frame[start..]).expect("under the session's key");
        let version = opened.general.cmd_ver.as_deref().expect("all three members, always").to_owned();
        if topic.starts_with("/iot/") {
            assert_eq!(version, "v3.0.0");
        }
        let msg_type = opened.general.msg_type;
        let (seq, body) = (opened.general.seq, String::from_utf8(opened.application.to_vec()).expect("UTF-8"));
        self.mqtt.puback(packet_id);
        Arrived { topic, packet_id, version, seq, msg_type, body }
    }

    #[track_caller]
    pub fn reply(&mut self, topic: &str, id: u16, seq: u64, body: &[u8]) {
        self.mqtt.publish(&self.session.session_key, topic, id, seq, body);
        loop {
            let frame = self.mqtt.frame().expect("a PUBACK");
            if frame[0] == 0x40 {
                assert_eq!(frame[2..], id.to_be_bytes(), "the PUBACK of {id}");
                return;
            }
            self.early.push_back(frame);
        }
    }
}

#[test]
fn osap_10_1_an_operation_is_sent_as_devices_know_it_and_both_replies_are_understood() {
    let mut it = logged_in();
    let invoked = it.invoke(blink(), r#"{"count":3}"#, LONG);
    let first = it.arrived();
    assert_eq!((&*first.topic, &*first.body), (OPERATE, r#"{"data":{"count":3}}"#));
    assert_eq!(first.msg_type, Some(MsgType::Request));
    it.reply(REPLY, 1, first.seq, br#"{"code":0,"data":{"done":true}}"#);
    assert_eq!(it.outcome(invoked), Outcome::Done { output: Some(r#"{"done":true}"#.into()) });

    let invoked = it.invoke(blink(), "3", LONG);
    let second = it.arrived();
    assert_eq!((second.seq, second.packet_id), (first.seq % 0x7fff_ffff + 1, first.packet_id + 1));
    it.reply(REPLY, 2, second.seq, br#"{"status":200,"code":"0x7","errorMsg":"stuck"}"#);
    assert_eq!(it.outcome(invoked), Outcome::Failed { code: 7, message: Some("stuck".into()) });
}

#[test]
fn osap_9_8_a_reply_counts_once_and_only_for_its_own_operation() {
    let mut it = logged_in();
    let invoked = it.invoke(blink(), "1", LONG);
    let sent = it.arrived();
    let other = "/iot/SN0000001/global/0-Lamp/model/service/operate_reply/Light/Dim";
    it.reply(other, 1, sent.seq, br#"{"code":0}"#);
    it.reply(REPLY, 2, sent.seq + 1, br#"{"code":0}"#);
    it.site.expect_fact("reply_to_nothing");
    it.reply(REPLY, 3, sent.seq, br#"{"code":5}"#);
    it.reply(REPLY, 4, sent.seq, br#"{"code":0}"#);
    assert_eq!(it.outcome(invoked), Outcome::Failed { code: 5, message: None });
    let facts = it.site.device().facts();
    let strays = facts.iter().filter(|fact| fact.reason == "reply_to_nothing").map(|fact| fact.count).sum::<u32>();
    assert_eq!(strays, 3);
}

#[test]
fn a_reply_after_the_deadline_is_late() {
    let mut it = logged_in();
    let invoked = it.invoke(blink(), "1", Duration::from_millis(100));
    let sent = it.arrived();
    assert_eq!(it.outcome(invoked), Outcome::TimedOut);
    it.reply(REPLY, 1, sent.seq, br#"{"code":0}"#);
    it.site.expect_fact("late_answer");
}

#[test]
fn osap_9_5_a_connection_lost_after_sending_leaves_it_unknown_and_nothing_is_sent_again() {
    let mut it = logged_in();
    let invoked = it.invoke(blink(), "1", LONG);
    let sent = it.arrived();
    let session = it.session.clone();
    // The device comes back under the same key; its old connection is replaced.
    let (code, mqtt) = it.device.log_in(&it.site, &session);
    assert_eq!(code, 0);
    it.mqtt = mqtt;
    assert_eq!(it.outcome(invoked), Outcome::Unknown);
    // What it answers now belongs to nothing, and the first thing it hears is a new operation with a new number.
    it.reply(REPLY, 1, sent.seq, br#"{"code":0}"#);
    let invoked = it.invoke(blink(), "2", LONG);
    let next = it.arrived();
    assert_eq!(next.body, r#"{"data":2}"#);
    assert_ne!(next.seq, sent.seq);
    it.reply(REPLY, 2, next.seq, br#"{"code":0}"#);
    assert_eq!(it.outcome(invoked), Outcome::Done { output: None });
}

#[test]
fn osap_9_7_what_would_damage_a_device_never_leaves() {
    let mut it = logged_in();
    let path = |area: &str, name: &str| DevicePath { area: area.into(), name: name.into(), ..blink() };
    let long = "x".repeat(32);
    for path in [path(&long, "Blink"), path("Light", &long), path("a/b", "c"), path("Light", "#")] {
        let invoked = it.invoke(path, "1", LONG);
        let refused = it.site.block_on(invoked).expect("no panic");
        assert!(matches!(refused, Err(InvokeError::Invalid { field: "path", .. })), "{refused:?}");
    }
    let huge: &'static str = Box::leak(format!("\"{}\"", "x".repeat(20_000)).into_boxed_str());
    let invoked = it.invoke(blink(), huge, LONG);
    assert!(matches!(it.site.block_on(invoked).expect("no panic"), Err(InvokeError::TooLarge)));
    assert!(it.mqtt.is_alive());
}

#[test]
fn a_device_that_answers_nothing_is_asked_no_more_than_its_window() {
    let mut it = logged_in();
    let invoked: Vec<_> = (0..32).map(|_| it.invoke(blink(), "1", LONG)).collect();
    for _ in 0..32 {
        it.arrived();
    }
    assert!(it.mqtt.is_alive(), "and what it has acknowledged is known");
    let more: Vec<_> = (0..40).map(|_| it.invoke(blink(), "1", Duration::from_secs(1))).collect();
    let (mut busy, mut timed_out) = (0, 0);
    for invoked in more {
        match it.site.block_on(invoked).expect("no panic") {
            Err(InvokeError::Busy) => busy += 1,
            Ok(Outcome::TimedOut) => timed_out += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((busy, timed_out), (8, 32), "64 under way are enough");
    drop(it.mqtt.wire);
    for invoked in invoked {
        assert_eq!(it.site.block_on(invoked).expect("no panic").expect("sent"), Outcome::Unknown);
    }
    eventually("the device is away", || it.site.reasons().iter().any(|reason| reason == "connection_lost"));
}
