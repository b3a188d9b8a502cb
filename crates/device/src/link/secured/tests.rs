//! A modern login against hand-made answers, on virtual time.

use std::sync::Arc;

use osap::das::login::LoginRecord;
use osap::modern::envelope::Opened as Envelope;
use vestibule_mqtt_codec::{ConnAck, Packet, QoS, Rules, decode, split_publish};

use super::*;
use crate::link::{Channel, Link, LinkEvent};
use crate::outbox::{DEVICE, Limits, Outbox};
use crate::profile::tests::profile;
use crate::session::Login;

const FULL: Login = Login { full: true, subscribe: true, first: true };
const HELLO: &str = "/iot/SN0000001/global/0-global/basic/login/hello";
const REPORT: &str = "/iot/SN0000001/global/0-global/basic/login/report";
const RECEIPT: &str = "/iot/SN0000001/global/0-global/basic/login/receipt";
const EVENT: &str = "/iot/SN0000001/global/0-Camera/model/event/report/Detection/Motion";
const OPERATE: &str = "/iot/SN0000001/global/0-Lamp/model/service/operate/Light/Blink";

/// Counts up from a byte: `nonceC` of the vectors begins at 0xe0.
struct Count(u8);

impl Random for Count {
    fn fill(&mut self, out: &mut [u8]) {
        out.iter_mut().zip(self.0..=255).for_each(|(byte, next)| *byte = next);
    }
}

/// Those of the vectors of osap-wire 13.3.
fn node() -> Node {
    let text = "5040bfb779d46dee92558e393912cff0fb9e501d5a0ae0dcc59c37429880b52e\
                e111c40282f96907873a48e31fa2c8ea";
    Node::from_bytes(&hex(text)).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn entry() -> Entry {
    Entry {
        node: node(),
        suite: Suite::P384,
        dev_id: DevId::parse(b"0123456789abcdef0123456789abcdef").unwrap(),
        boot_id: BootId::parse("00112233aabbccdd").unwrap(),
    }
}

struct Bench {
    link: Link,
    outbox: Outbox<u32>,
    now: Instant,
    /// The keys of the platform.
    server: Option<(Opener, Sealer)>,
}

impl Bench {
    fn new(receipts: bool) -> Self {
        let now = Instant::now();
        let secured = Secured::new(now, entry(), None, receipts, &mut Count(0xe0));
        let channel = Channel::Modern(Box::new(secured));
        let link = Link::new(now, Arc::new(profile()), channel, entry().dev_id, FULL);
        Self { link, outbox: Outbox::new(Limits { events: 10, bytes: 1000, window: 4 }), now, server: None }
    }

    /// A login that went through.
    fn online(receipts: bool) -> Self {
        let mut bench = Self::new(receipts);
        let password = bench.connect();
        bench.connack();
        let hello = bench.hello(&password);
        bench.publish(HELLO, QoS::AtMostOnce, &hello).unwrap();
        assert_eq!(bench.sent_publish().0, REPORT);
        for id in 2..=3 {
            bench.sent().unwrap();
            let mut frame = Vec::new();
            encode::suback(id, &[1], &mut frame).unwrap();
            bench.got(&frame).unwrap();
        }
        assert!(bench.link.is_online());
        bench
    }

    fn sent(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let due = self.link.poll_transmit(self.now, &mut self.outbox, &mut out).unwrap();
        due.then_some(out)
    }

    fn connect(&mut self) -> Vec<u8> {
        let sent = self.sent().unwrap();
        let Ok(Packet::Connect(connect)) = decode(&sent, &Rules::STRICT) else { panic!() };
        assert!(connect.clean_session && connect.will.is_none());
        assert_eq!((connect.client_id, connect.user), (entry().dev_id.as_str(), Some("SN0000001")));
        connect.password.unwrap().to_vec()
    }

    /// A message of the device, opened: its topic, general part with application, and whether it is of QoS 1.
    fn sent_publish(&mut self) -> (String, u64, String) {
        let mut sent = self.sent().unwrap();
        let (head, payload) = split_publish(&mut sent, &Rules::STRICT).unwrap();
        assert!(!head.retain);
        let topic = head.topic.to_owned();
        let opened = self.server.as_mut().unwrap().0.open(&topic, payload).unwrap();
        let Envelope::Next(text) = opened else { panic!("{topic}") };
        let opened = plain::read(text).unwrap();
        (topic, opened.general.seq, String::from_utf8(opened.application.to_vec()).unwrap())
    }

    fn got(&mut self, frame: &[u8]) -> Result<Option<LinkEvent<u32>>, LinkFault> {
        self.link.handle_frame(self.now, frame, &mut self.outbox)
    }

    fn connack(&mut self) {
        let mut frame = Vec::new();
        encode::connack(&ConnAck { session_present: false, code: 0 }, &mut frame);
        assert_eq!(self.got(&frame), Ok(None), "anybody can say that");
    }

    /// What the DAS answers to this password, `nonceH` being 00…1f.
    fn hello(&mut self, password: &[u8]) -> Vec<u8> {
        let proof = Proof::decode(password).unwrap();
        let login = login::login_hash(None, &entry().dev_id, &proof.nonce);
        assert!(login::proves_device(&node(), &login, &proof));
        let nonce = std::array::from_fn(|at| at as u8);
        let hash = login::hello_hash(&login, &nonce);
        let key = |direction| login::record_key(&node(), &hash, direction);
        self.server = Some((
            Opener::new(Suite::P384, Direction::Up, key(Direction::Up)),
            Sealer::new(Suite::P384, Direction::Down, key(Direction::Down)),
        ));
        login::hello(&node(), &hash, nonce).encode().to_vec()
    }

    fn publish(&mut self, topic: &str, qos: QoS, payload: &[u8]) -> Result<Option<LinkEvent<u32>>, LinkFault> {
        let packet_id = (qos != QoS::AtMostOnce).then_some(9);
        let head = PublishHead { dup: false, qos, retain: false, topic, packet_id };
        let mut frame = Vec::new();
        encode::publish(&head, payload, &mut frame).unwrap();
        self.got(&frame)
    }

    /// A message of the platform, sealed as the next one.
    fn sealed(&mut self, topic: &str, body: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        plain::write(&General::request(5, "v3.0.0"), body, &mut payload).unwrap();
        self.server.as_mut().unwrap().1.seal_tail(topic, &mut payload, 0).unwrap();
        payload
    }
}

#[test]
fn osap_13_3_the_login_is_the_vector_of_the_specification() {
    let mut bench = Bench::new(true);
    let password = bench.connect();
    let expected = "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff574c5e8bef2b6910da474dd8576b5c4b\
                    ecd4fd56279441ecd36f0321c442da8d085d074af0670e0cab87527575d43bb2";
    assert_eq!(password, hex(expected));
    assert_eq!(bench.sent(), None, "nothing goes out before CONNACK");
    bench.connack();
    assert_eq!(bench.sent(), None, "nor before the DAS has proven itself");
    let hello = bench.hello(&password);
    assert_eq!(bench.publish(HELLO, QoS::AtMostOnce, &hello), Ok(Some(LinkEvent::Accepted { ready: false })));

    let (topic, seq, text) = bench.sent_publish();
    assert_eq!((&*topic, seq, bench.server.as_ref().unwrap().0.seq()), (REPORT, 1, 1));
    let record = LoginRecord::decode(text.as_bytes()).unwrap();
    assert_eq!(record.boot_id.as_deref(), Some("00112233aabbccdd"));
    assert_eq!((record.sub_serial, record.device_id), ("SN0000001".into(), entry().dev_id.as_str().into()));
    assert_eq!(record.details.unwrap().firmware_version, "1.2.3");
}

#[test]
fn osap_13_3_a_das_that_does_not_prove_itself_hears_nothing() {
    let mut bench = Bench::new(true);
    let password = bench.connect();
    bench.connack();
    let hello = bench.hello(&password);
    for at in 0..hello.len() {
        let mut bench = Bench::new(true);
        bench.connect();
        bench.connack();
        let mut bad = hello.clone();
        bad[at] ^= 1;
        assert_eq!(bench.publish(HELLO, QoS::AtMostOnce, &bad), Err(LinkFault::NotAuthentic));
        assert_eq!(bench.sent(), None);
    }
    assert_eq!(bench.publish(HELLO, QoS::AtMostOnce, &hello[1..]), Err(LinkFault::NotAuthentic));
    for (topic, qos) in [(REPORT, QoS::AtMostOnce), (HELLO, QoS::AtLeastOnce), (OPERATE, QoS::AtLeastOnce)] {
        let mut bench = Bench::new(true);
        bench.connect();
        bench.connack();
        assert_eq!(bench.publish(topic, qos, &hello), Err(LinkFault::Protocol));
    }
    let mut bench = Bench::new(true);
    bench.connect();
    bench.connack();
    bench.now += Duration::from_secs(6);
    assert_eq!(bench.link.poll_timeout(&bench.outbox, true), bench.now);
    assert_eq!(bench.link.handle_timeout(bench.now), Err(LinkFault::NoAnswer));
}

#[test]
fn osap_13_3_what_is_not_the_next_message_ends_the_connection() {
    let body = br#"{"Seconds":3}"#;
    let mut bench = Bench::online(false);
    let payload = bench.sealed(OPERATE, body);
    let event = bench.publish(OPERATE, QoS::AtLeastOnce, &payload);
    assert!(matches!(event, Ok(Some(LinkEvent::Operate(_)))), "{event:?}");
    assert_eq!(bench.publish(OPERATE, QoS::AtLeastOnce, &payload), Ok(Some(LinkEvent::Ignored)), "a repetition");
    assert_eq!(bench.sent().unwrap(), [0x40, 2, 0, 9], "both are acknowledged");
    assert_eq!(bench.sent().unwrap(), [0x40, 2, 0, 9]);

    let mut other = Bench::online(false);
    let payload = other.sealed(OPERATE, body);
    let elsewhere = OPERATE.replace("Blink", "Reset");
    assert_eq!(other.publish(&elsewhere, QoS::AtLeastOnce, &payload), Err(LinkFault::Broken), "another topic");

    let mut other = Bench::online(false);
    other.sealed(OPERATE, body);
    let later = other.sealed(OPERATE, body);
    assert_eq!(other.publish(OPERATE, QoS::AtLeastOnce, &later), Err(LinkFault::Broken), "one is missing");

    let mut other = Bench::online(false);
    let mut changed = other.sealed(OPERATE, body);
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(other.publish(OPERATE, QoS::AtLeastOnce, &changed), Err(LinkFault::Broken));
    assert_eq!(Bench::online(false).publish(OPERATE, QoS::AtLeastOnce, b"short"), Err(LinkFault::Broken));
}

#[test]
fn osap_13_3_a_message_that_is_repeated_is_sealed_again_under_its_seq() {
    let mut bench = Bench::online(false);
    bench.outbox.push(DEVICE, EVENT.into(), (*b"{}").into(), 1).unwrap();
    assert_eq!(bench.sent_publish(), (EVENT.into(), 2, "{}".into()));
    bench.now += crate::outbox::PUBACK_TIMEOUT;
    assert_eq!(bench.sent_publish(), (EVENT.into(), 2, "{}".into()));
    assert_eq!(bench.server.as_ref().unwrap().0.seq(), 3);

    // Another login has other keys, and counts from the beginning; the `Seq` of the message stays.
    let mut next = Bench::new(false);
    next.outbox = bench.outbox;
    let password = next.connect();
    next.connack();
    let hello = next.hello(&password);
    next.publish(HELLO, QoS::AtMostOnce, &hello).unwrap();
    assert_eq!(next.sent_publish().0, REPORT);
    for _ in 0..2 {
        let sent = next.sent().unwrap();
        let Ok(Packet::Subscribe(subscribe)) = decode(&sent, &Rules::STRICT) else { panic!() };
        let mut frame = Vec::new();
        encode::suback(subscribe.packet_id, &[1], &mut frame).unwrap();
        next.got(&frame).unwrap();
    }
    assert_eq!(next.sent_publish(), (EVENT.into(), 2, "{}".into()));
    assert_eq!(next.server.as_ref().unwrap().0.seq(), 2);
}

#[test]
fn osap_13_3_an_event_leaves_with_the_receipt() {
    let mut bench = Bench::online(true);
    bench.outbox.push(DEVICE, EVENT.into(), (*b"{}").into(), 7).unwrap();
    bench.sent_publish();
    assert_eq!(bench.got(&[0x40, 2, 0, 4]), Ok(None), "anybody can acknowledge");
    assert_eq!(bench.outbox.len(), 1);
    let early = bench.sealed(RECEIPT, br#"{"up":1,"down":0}"#);
    assert_eq!(bench.publish(RECEIPT, QoS::AtMostOnce, &early), Ok(Some(LinkEvent::Received(vec![]))));
    let receipt = bench.sealed(RECEIPT, br#"{"up":2,"down":0}"#);
    assert_eq!(bench.publish(RECEIPT, QoS::AtMostOnce, &receipt), Ok(Some(LinkEvent::Received(vec![7]))));
    assert_eq!(bench.outbox.len(), 0);

    // With the ping goes what the device has, and knows to have arrived.
    bench.now += Duration::from_secs(30);
    assert_eq!(bench.sent().unwrap(), [0xC0, 0]);
    assert_eq!(bench.sent_publish(), (RECEIPT.into(), 3, r#"{"up":2,"down":2}"#.into()));
    assert_eq!(bench.sent(), None);

    let lie = bench.sealed(RECEIPT, br#"{"up":99,"down":0}"#);
    assert_eq!(bench.publish(RECEIPT, QoS::AtMostOnce, &lie), Err(LinkFault::Broken));
}

#[test]
fn osap_13_3_two_intervals_without_a_receipt_end_the_connection() {
    let mut bench = Bench::online(true);
    bench.now += Duration::from_secs(59);
    bench.got(&[0xD0, 0]).unwrap();
    assert_eq!(bench.link.handle_timeout(bench.now), Ok(()));
    bench.now += Duration::from_secs(1);
    assert!(bench.link.poll_timeout(&bench.outbox, false) <= bench.now);
    assert_eq!(bench.link.handle_timeout(bench.now), Err(LinkFault::NoReceipt));

    let mut with_tls = Bench::online(false);
    with_tls.now += Duration::from_secs(59);
    with_tls.got(&[0xD0, 0]).unwrap();
    with_tls.now += Duration::from_secs(1);
    assert_eq!(with_tls.link.handle_timeout(with_tls.now), Ok(()));
    let receipt = with_tls.sealed(RECEIPT, br#"{"up":1,"down":0}"#);
    assert_eq!(with_tls.publish(RECEIPT, QoS::AtMostOnce, &receipt), Ok(Some(LinkEvent::Ignored)));
}

#[test]
fn osap_13_3_a_passed_message_is_answered_by_a_receipt_at_once() {
    const DELIVER: &str = "/iot/SN0000001/global/0-Meter/pass/Raw/Frame/deliver";
    for receipts in [true, false] {
        let mut bench = Bench::online(receipts);
        let mut body = Vec::new();
        osap::das::pass::Pass { media_type: "text/plain", bytes: b"17" }.write(&mut body).unwrap();
        let operate = bench.sealed(OPERATE, br#"{"data":1}"#);
        bench.publish(OPERATE, QoS::AtMostOnce, &operate).unwrap();
        assert_eq!(bench.sent(), None, "what has an answer of its own needs none");
        let sealed = bench.sealed(DELIVER, &body);
        assert!(matches!(bench.publish(DELIVER, QoS::AtMostOnce, &sealed), Ok(Some(LinkEvent::Pass { .. }))));
        if receipts {
            assert_eq!(bench.sent_publish(), (RECEIPT.into(), 2, r#"{"up":0,"down":2}"#.into()));
        }
        assert_eq!(bench.sent(), None);
    }
}
