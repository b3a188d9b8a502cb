//! The MQTT client against hand-made answers, on virtual time.

use osap::SessionKey;
use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General, MsgType};
use osap::das::login;
use vestibule_mqtt_codec::{PublishHead, split_publish};

use super::*;
use crate::outbox::{DEVICE, Limits};

/// Session key, serial and DevID are the common inputs of osap-wire 12.
const KEY: [u8; 16] = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();

struct Bench {
    link: Link,
    outbox: Outbox<u32>,
    now: Instant,
}

fn profile() -> Arc<Profile> {
    Arc::new(crate::profile::tests::profile())
}

fn cipher() -> SessionCipher {
    SessionCipher::new(SessionKey::from_bytes(&KEY).unwrap())
}

fn dev_id() -> DevId {
    DevId::parse(b"0123456789abcdef0123456789abcdef").unwrap()
}

impl Bench {
    fn new(login: Login) -> Self {
        let now = Instant::now();
        Self {
            link: Link::new(now, profile(), Channel::Legacy(cipher()), dev_id(), login),
            outbox: Outbox::new(Limits { events: 10, bytes: 1000, window: 4 }),
            now,
        }
    }

    /// A light login that went through.
    fn online() -> Self {
        let mut bench = Self::new(LIGHT);
        bench.sent();
        assert_eq!(bench.connack(0), Ok(Some(LinkEvent::Accepted { ready: true })));
        bench
    }

    /// The next packet that is due.
    fn sent(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let due = self.link.poll_transmit(self.now, &mut self.outbox, &mut out).unwrap();
        assert_eq!(due, !out.is_empty());
        due.then_some(out)
    }

    fn got(&mut self, frame: &[u8]) -> Result<Option<LinkEvent<u32>>, LinkFault> {
        self.link.handle_frame(self.now, frame, &mut self.outbox)
    }

    fn connack(&mut self, code: u8) -> Result<Option<LinkEvent<u32>>, LinkFault> {
        let mut frame = Vec::new();
        encode::connack(&ConnAck { session_present: false, code }, &mut frame);
        self.got(&frame)
    }

    fn suback(&mut self, id: u16, code: u8) -> Result<Option<LinkEvent<u32>>, LinkFault> {
        let mut frame = Vec::new();
        encode::suback(id, &[code], &mut frame).unwrap();
        self.got(&frame)
    }

    fn elapse(&mut self, seconds: u64) -> Result<(), LinkFault> {
        self.now += Duration::from_secs(seconds);
        self.link.handle_timeout(self.now)
    }

    fn deadline(&self) -> u64 {
        (self.link.poll_timeout(&self.outbox, true) - self.now).as_secs()
    }
}

const FULL: Login = Login { full: true, subscribe: true, first: true };
const LIGHT: Login = Login { full: false, subscribe: false, first: false };

fn written_by(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn a_light_login_is_the_vector_of_the_specification() {
    // osap-wire 12.4, the zero bytes behind the will topic counted.
    let expected = [
        "10f10100044d51545404ec001e00000080",
        "2f42617369632f70753263656e706c742f534e303030303030312f627265616b636f6e6e656374",
        &"00".repeat(89),
        "00502267f4136ec4c7140a1867c99414eb1771174004d06d2df5919cce78f83184271500",
        "777d3c966fdf8ef71d83c14a7abd23f2087c9410c038f71fa0602d720eceaeecac8ae117",
        "714d9b4339872b8d67040009534e30303030303031000474657374",
    ]
    .concat();
    let mut bench = Bench::new(LIGHT);
    let sent: String = bench.sent().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sent, expected);
}

#[test]
fn a_full_login_subscribes_both_filters_one_after_the_other() {
    let mut bench = Bench::new(FULL);
    let sent = bench.sent().unwrap();
    let Ok(Packet::Connect(connect)) = decode(&sent, &Rules::OSAP_LEGACY) else { panic!() };
    assert!(connect.clean_session);
    assert_eq!((connect.keep_alive, connect.client_id), (30, ""));
    assert_eq!((connect.user, connect.password), (Some("SN0000001"), Some(&b"test"[..])));
    let will = connect.will.unwrap();
    assert!(will.topic.starts_with("/Basic/pu2cenplt/SN0000001/firstconnect"));
    let key = SessionKey::from_bytes(&KEY).unwrap();
    login::check("SN0000001", will.payload, &key, &dev_id()).unwrap();

    assert_eq!(bench.sent(), None, "nothing goes out before CONNACK");
    assert_eq!(bench.connack(0), Ok(Some(LinkEvent::Accepted { ready: false })));
    for (id, filter) in [(1, "/iot/SN0000001/#"), (2, "/SN0000001/#")] {
        let sent = bench.sent().unwrap();
        let Ok(Packet::Subscribe(subscribe)) = decode(&sent, &Rules::STRICT) else { panic!() };
        assert_eq!(subscribe.packet_id, id);
        assert_eq!(subscribe.filters.collect::<Vec<_>>(), [(filter, QoS::AtLeastOnce)]);
        assert_eq!(bench.sent(), None);
        assert_ne!(bench.link.stage, Stage::Online);
        let ready = (id == 2).then_some(LinkEvent::Ready);
        assert_eq!(bench.suback(id, 1), Ok(ready));
    }
    assert_eq!(bench.link.stage, Stage::Online);
}

#[test]
fn a_login_that_is_not_answered_or_refused_fails() {
    let mut bench = Bench::new(FULL);
    bench.sent();
    assert_eq!(bench.deadline(), 6);
    assert_eq!(bench.elapse(5), Ok(()));
    assert_eq!(bench.elapse(1), Err(LinkFault::NoAnswer));

    for code in [1, 5, 10, 11, 12, 200] {
        let mut bench = Bench::new(LIGHT);
        bench.sent();
        assert_eq!(bench.connack(code), Ok(Some(LinkEvent::Refused(code))));
        assert!(bench.link.is_closed());
    }

    let mut bench = Bench::new(FULL);
    bench.sent();
    bench.connack(0).unwrap();
    bench.sent();
    assert_eq!(bench.suback(9, 0x80), Ok(None), "somebody else's");
    assert_eq!(bench.suback(1, 0x80), Err(LinkFault::SubscriptionRefused));
    assert_eq!(bench.elapse(6), Err(LinkFault::NoAnswer));
}

#[test]
fn an_event_is_sealed_under_the_session_key_and_acknowledged() {
    let mut bench = Bench::online();
    bench.outbox.push(DEVICE, "/iot/SN0000001/x".into(), (*br#"{"level":3}"#).into(), 42).unwrap();
    let mut sent = bench.sent().unwrap();
    let (head, payload) = split_publish(&mut sent, &Rules::STRICT).unwrap();
    assert_eq!((head.topic, head.packet_id, head.dup), ("/iot/SN0000001/x", Some(1), false));
    assert_eq!((head.qos, head.retain), (QoS::AtLeastOnce, true));
    let opened = envelope::open(&cipher(), payload).unwrap();
    assert_eq!(opened.general.seq, 1);
    assert_eq!(opened.application, br#"{"level":3}"#);

    assert_eq!(bench.sent(), None);
    assert_eq!(bench.deadline(), 6);
    bench.elapse(6).unwrap();
    let again = bench.sent().unwrap();
    assert_eq!(again[0], 0x3b, "QoS 1, retain and DUP");
    assert_eq!(
        again[1..],
        written_by(|out| {
            let general = General::bare(1);
            let head = PublishHead {
                dup: true,
                qos: QoS::AtLeastOnce,
                retain: true,
                topic: "/iot/SN0000001/x",
                packet_id: Some(1),
            };
            let body = br#"{"level":3}"#;
            let len = envelope::sealed_len(&general, body.len());
            encode::publish_with(&head, len, out, |out| envelope::seal(&cipher(), &general, body, out).unwrap())
                .unwrap();
        })[1..]
    );
    let puback = written_by(|out| encode::puback(1, out));
    assert_eq!(bench.got(&puback), Ok(Some(LinkEvent::Acknowledged(42))));
    assert_eq!(bench.got(&puback), Ok(None));
}

#[test]
fn downlinks_are_acknowledged_and_ignored() {
    let mut bench = Bench::online();
    for (qos, id, answer) in [
        (QoS::AtMostOnce, None, None),
        (QoS::AtLeastOnce, Some(7), Some(vec![0x40, 2, 0, 7])),
        (QoS::ExactlyOnce, Some(8), Some(vec![0x50, 2, 0, 8])),
    ] {
        let head = PublishHead { dup: false, qos, retain: false, topic: "/SN0000001/1000/1", packet_id: id };
        let frame = written_by(|out| encode::publish(&head, b"?", out).unwrap());
        assert_eq!(bench.got(&frame), Ok(Some(LinkEvent::Ignored)));
        assert_eq!(bench.sent(), answer);
        assert_eq!(bench.sent(), None);
    }
    assert_eq!(bench.got(&written_by(|out| encode::pubrel(8, out))), Ok(None));
    assert_eq!(bench.sent(), Some(vec![0x70, 2, 0, 8]));
}

#[test]
fn too_many_downlinks_stop_the_reading() {
    let mut bench = Bench::online();
    let head = PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: false, topic: "t", packet_id: Some(1) };
    let frame = written_by(|out| encode::publish(&head, b"", out).unwrap());
    for _ in 0..MAX_REPLIES {
        assert!(!bench.link.is_congested());
        bench.got(&frame).unwrap();
    }
    assert!(bench.link.is_congested());
    bench.sent();
    assert!(!bench.link.is_congested());
}

#[test]
fn pings_follow_the_clock_and_not_the_traffic() {
    let mut bench = Bench::online();
    assert_eq!(bench.deadline(), 30);
    bench.elapse(20).unwrap();
    bench.outbox.push(DEVICE, "t".into(), (*b"{}").into(), 1).unwrap();
    bench.sent().unwrap();
    bench.got(&written_by(|out| encode::puback(1, out))).unwrap();
    assert_eq!(bench.deadline(), 10);
    bench.elapse(10).unwrap();
    assert_eq!(bench.sent(), Some(vec![0xc0, 0]));
    assert_eq!(bench.sent(), None);
    assert_eq!(bench.got(&[0xd0, 0]), Ok(None));
    assert_eq!(bench.deadline(), 30);
}

#[test]
fn osap_10_5_a_pushed_keep_alive_counts_from_the_next_ping_on() {
    let mut bench = Bench::online();
    bench.elapse(10).unwrap();
    bench.link.set_keep_alive(7);
    assert_eq!(bench.deadline(), 20, "the next ping stays where it is");
    bench.elapse(20).unwrap();
    assert_eq!(bench.sent(), Some(vec![0xc0, 0]));
    // What was heard last is 30 seconds old, which says nothing yet.
    assert_eq!((bench.elapse(0), bench.deadline()), (Ok(()), 7));
    bench.got(&[0xd0, 0]).unwrap();
    bench.elapse(7).unwrap();
    assert_eq!(bench.sent(), Some(vec![0xc0, 0]));
    assert_eq!((bench.elapse(6), bench.elapse(1)), (Ok(()), Err(LinkFault::Silent)));

    let mut bench = Bench::online();
    bench.link.set_keep_alive(90);
    bench.elapse(30).unwrap();
    bench.sent().unwrap();
    assert_eq!(bench.elapse(89), Ok(()), "a longer one is patient at once");
}

#[test]
fn osap_9_6_commands_go_before_events_at_qos_0_and_share_their_numbers() {
    let mut bench = Bench::online();
    bench.outbox.push(DEVICE, "t".into(), (*b"{}").into(), 1).unwrap();
    let note = |command, number| Note { command, number, body: (*b"{}").into() };
    bench.link.note(note(Command::Children, Number::Next));
    bench.link.note(note(Command::ChallengeAnswer, Number::Answer(77)));
    bench.link.note(note(Command::OwnerQuery, Number::Request(40)));
    let mut sent = || {
        let mut frame = bench.sent().unwrap();
        let (head, payload) = split_publish(&mut frame, &Rules::OSAP_LEGACY).unwrap();
        let (topic, qos) = (head.topic.to_owned(), head.qos);
        let opened = envelope::open(&SessionCipher::new(SessionKey::from_bytes(&KEY).unwrap()), payload).unwrap();
        let General { seq, cmd_ver, msg_type } = opened.general;
        (topic, qos, seq, cmd_ver.map(|version| version.into_owned()), msg_type)
    };
    let (request, response) = (Some(MsgType::Request), Some(MsgType::Response));
    assert_eq!(sent(), ("/7002/1".into(), QoS::AtMostOnce, 1, Some("V2.0.0".into()), request));
    assert_eq!(sent(), ("/1100/20245".into(), QoS::AtMostOnce, 77, Some("v2.0.0".into()), response));
    assert_eq!(sent(), ("/1100/13381".into(), QoS::AtMostOnce, 40, Some("v2.0.0".into()), request));
    assert_eq!(sent(), ("t".into(), QoS::AtLeastOnce, 2, None, None));
}

#[test]
fn a_device_that_is_sent_away_acknowledges_and_leaves() {
    let mut bench = Bench::online();
    let head = PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: false, topic: "t", packet_id: Some(9) };
    bench.got(&written_by(|out| encode::publish(&head, b"", out).unwrap())).unwrap();
    bench.link.leave(bench.now);
    assert_eq!(bench.sent(), Some(vec![0x40, 2, 0, 9]));
    assert_eq!(bench.sent(), Some(vec![0xe0, 0]));
    assert!(bench.link.is_closed());
}

#[test]
fn two_intervals_of_silence_are_the_end() {
    let mut bench = Bench::online();
    bench.elapse(30).unwrap();
    bench.sent().unwrap();
    assert_eq!(bench.elapse(29), Ok(()));
    assert_eq!(bench.elapse(1), Err(LinkFault::Silent));
    bench.got(&[0xd0, 0]).unwrap();
    assert_eq!(bench.link.handle_timeout(bench.now), Ok(()));
}

#[test]
fn goodbye_unsubscribes_both_and_disconnects() {
    let mut bench = Bench::online();
    bench.outbox.push(DEVICE, "t".into(), (*b"{}").into(), 1).unwrap();
    bench.link.handle_stop(bench.now);
    for (id, filter) in [(1, "/iot/SN0000001/#"), (2, "/SN0000001/#")] {
        let sent = bench.sent().unwrap();
        let Ok(Packet::Unsubscribe(unsubscribe)) = decode(&sent, &Rules::STRICT) else { panic!() };
        assert_eq!(unsubscribe.packet_id, id);
        assert_eq!(unsubscribe.filters.collect::<Vec<_>>(), [filter]);
        assert_eq!(bench.sent(), None, "no event goes out any more");
        bench.link.handle_stop(bench.now);
        bench.got(&written_by(|out| encode::unsuback(id, out))).unwrap();
    }
    assert_eq!(bench.sent(), Some(vec![0xe0, 0]));
    assert!(bench.link.is_closed() && bench.link.is_orderly());
}

#[test]
fn a_goodbye_nobody_answers_ends_after_six_seconds_each() {
    let mut bench = Bench::online();
    bench.link.handle_stop(bench.now);
    for _ in 0..2 {
        bench.sent().unwrap();
        assert_eq!(bench.deadline(), 6);
        bench.elapse(6).unwrap();
    }
    assert_eq!(bench.sent(), Some(vec![0xe0, 0]));
    assert!(bench.link.is_closed() && !bench.link.is_orderly());
}

#[test]
fn a_goodbye_that_cannot_be_written_ends_although_the_server_talks() {
    let mut bench = Bench::online();
    bench.link.handle_stop(bench.now);
    // The socket takes nothing, so the UNSUBSCRIBE never leaves; the server is heard all the time.
    for _ in 0..3 {
        bench.elapse(5).unwrap();
        bench.got(&[0xd0, 0]).unwrap();
    }
    assert_eq!(bench.link.poll_timeout(&bench.outbox, false), bench.now + Duration::from_secs(3));
    assert_eq!(bench.elapse(3), Err(LinkFault::NoAnswer));
}

#[test]
fn a_goodbye_during_the_login_is_short() {
    let mut bench = Bench::new(FULL);
    bench.sent();
    bench.link.handle_stop(bench.now);
    assert!(bench.link.is_closed());
    assert_eq!(bench.sent(), None);

    let mut bench = Bench::new(FULL);
    bench.sent();
    bench.connack(0).unwrap();
    bench.sent();
    bench.link.handle_stop(bench.now);
    assert_eq!(bench.sent(), Some(vec![0xe0, 0]));
    assert!(bench.link.is_closed());
}

#[test]
fn what_no_server_sends_ends_the_link() {
    for frame in [&[0xc0, 0][..], &[0x20, 2, 0, 0], &[0x20, 2, 0, 10], &[0x40, 1, 0], &[0xff, 0]] {
        assert_eq!(Bench::online().got(frame), Err(LinkFault::Protocol), "{frame:x?}");
    }
    let mut early = Bench::new(LIGHT);
    early.sent();
    assert_eq!(early.got(&[0xd0, 0]), Err(LinkFault::Protocol), "CONNACK comes first");
}

#[test]
fn a_das_may_send_the_device_elsewhere() {
    let mut bench = Bench::online();
    assert_eq!(bench.connack(11), Ok(Some(LinkEvent::Refused(11))));
    assert!(bench.link.is_closed());
    assert_eq!(Bench::online().got(&[0xe0, 0]), Err(LinkFault::Closed));
}

#[test]
fn a_socket_that_takes_nothing_is_not_asked_again_and_again() {
    let mut bench = Bench::online();
    bench.outbox.push(DEVICE, "t".into(), (*b"{}").into(), 1).unwrap();
    bench.sent().unwrap();
    bench.elapse(40).unwrap();
    let blocked = bench.link.poll_timeout(&bench.outbox, false);
    assert_eq!((blocked - bench.now).as_secs(), 20, "only the silence is left to wait for");
    assert!(bench.link.poll_timeout(&bench.outbox, true) < bench.now, "ping and event are late");
}
