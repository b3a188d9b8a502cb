//! Login records, envelopes and bodies as the real client sent them (osap-wire 12.4, 12.5).

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General};
use osap::das::event::{self, EventBody};
use osap::das::login::{self, Details, FirstOrBreak, LoginError, LoginRecord};
use osap::das::topic::Topic;
use osap::{DevId, SessionKey};

use crate::vectors::{bytes, dev_id, serial, session_key};

/// The fields of a CONNECT that matter here: flags, keep alive, client id, will topic, will
/// message, user name, password.
fn connect(name: &str) -> (u8, u16, Vec<Vec<u8>>) {
    let packet = bytes(name);
    let header = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let rest = &packet[header..];
    assert_eq!(&rest[..7], b"\0\x04MQTT\x04");
    let (flags, keep_alive) = (rest[7], u16::from_be_bytes([rest[8], rest[9]]));
    let (mut rest, mut strings) = (&rest[10..], Vec::new());
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (string, tail) = tail.split_at(u16::from_be_bytes(*len).into());
        strings.push(string.to_vec());
        rest = tail;
    }
    (flags, keep_alive, strings)
}

/// Topic, packet id and payload of a PUBLISH at QoS 1.
fn publish(name: &str) -> (String, u16, Vec<u8>) {
    let packet = bytes(name);
    assert_eq!(packet[0], 0x33);
    let header = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let (len, rest) = packet[header..].split_first_chunk::<2>().unwrap();
    let (topic, rest) = rest.split_at(u16::from_be_bytes(*len).into());
    let (id, payload) = rest.split_first_chunk::<2>().unwrap();
    (String::from_utf8(topic.to_vec()).unwrap(), u16::from_be_bytes(*id), payload.to_vec())
}

#[test]
fn the_light_connect_carries_a_short_record() {
    let (flags, keep_alive, strings) = connect("light_connect");
    let [client_id, will_topic, will, user, password] = &strings[..] else { panic!("five strings") };
    assert_eq!((flags, keep_alive, &client_id[..]), (0xEC, 30, &b""[..]));
    assert_eq!(will_topic[..], login::will_topic(&serial(), FirstOrBreak::Break));
    assert_eq!(login::read_will_topic(will_topic), Some((serial(), FirstOrBreak::Break)));
    assert_eq!((&user[..], &password[..]), (serial().as_str().as_bytes(), login::PASSWORD));
    let record = LoginRecord::short(&serial(), &dev_id());
    assert_eq!(login::check("SN0000001", will, &session_key(), &dev_id()), Ok(record.clone()));
    assert_eq!(&record.seal(&session_key()), will);
    let text = br#"{"SubSerial":"SN0000001","DeviceID":"0123456789abcdef0123456789abcdef"}"#;
    assert_eq!(record.encode(), text);
}

#[test]
fn the_full_connect_carries_a_full_record() {
    let (flags, keep_alive, strings) = connect("real_connect");
    let [client_id, will_topic, will, user, password] = &strings[..] else { panic!("five strings") };
    assert_eq!((flags, keep_alive, &client_id[..]), (0xEE, 30, &b""[..]));
    assert_eq!(will_topic[..], login::will_topic(&serial(), FirstOrBreak::First));
    assert_eq!((&user[..], &password[..]), (serial().as_str().as_bytes(), login::PASSWORD));
    let record = login::check("SN0000001", will, &session_key(), &dev_id()).unwrap();
    let unused = || ("0".to_owned(), String::new());
    let mut sdk_versions = vec![("1000".to_owned(), "V3.0.0".to_owned()), ("1100".to_owned(), "v2.0.0".to_owned())];
    sdk_versions.extend(std::iter::repeat_with(unused).take(7));
    let expected = Details {
        dev_serial: String::new(),
        firmware_version: "V1.2.3 build 200101".into(),
        dev_type: "DT1".into(),
        dev_type_display: "Display1".into(),
        mac: "02:00:00:00:00:01".into(),
        status: 1,
        nick_name: None,
        firmware_identification_code: String::new(),
        oem_info: None,
        lbs_domain: "127.0.0.1".into(),
        reg_mode: 1,
        sdk_main_version: String::new(),
        sdk_versions,
    };
    assert_eq!(record, LoginRecord::full(&serial(), &dev_id(), expected));
    assert_eq!(&record.seal(&session_key()), will, "written again it is the same record");
}

#[test]
fn a_login_needs_the_key_the_serial_and_the_dev_id() {
    let (_, _, strings) = connect("light_connect");
    let will = &strings[2];
    let other_key = SessionKey::from_bytes(&[1; 16]).unwrap();
    let other_id = DevId::parse(&[b'f'; 32]).unwrap();
    let check = login::check;
    assert_eq!(check("SN0000001", will, &other_key, &dev_id()), Err(LoginError::Undecryptable));
    assert_eq!(check("SN0000001", &will[1..], &session_key(), &dev_id()), Err(LoginError::Undecryptable));
    assert_eq!(check("SN0000001", &[], &session_key(), &dev_id()), Err(LoginError::Undecryptable));
    assert_eq!(check("SN0000002", will, &session_key(), &dev_id()), Err(LoginError::OtherSerial));
    assert_eq!(check("SN0000001", will, &session_key(), &other_id), Err(LoginError::OtherDevId));
}

#[test]
fn the_event_of_the_vectors() {
    let cipher = SessionCipher::new(session_key());
    let (topic, id, mut payload) = publish("event_publish");
    assert_eq!(id, 4);
    let expected = Topic::Model {
        serial: "SN0000001",
        sub: "global",
        index: "0",
        resource: "Lamp",
        method: "event",
        msg_type: "report",
        area: "Alarm",
        name: "Smoke",
    };
    assert_eq!(Topic::parse(&topic), Ok(expected));
    assert_eq!(expected.encode(), Ok(topic));
    let mut sealed = Vec::new();
    envelope::seal(&cipher, &General::bare(6), br#"{"level":3}"#, &mut sealed).unwrap();
    assert_eq!(sealed, payload);
    let mut plain = payload.clone();
    assert_eq!(cipher.open(&mut plain).unwrap(), bytes("event_plaintext"));
    let opened = envelope::open(&cipher, &mut payload).unwrap();
    assert_eq!((opened.general, opened.application), (General::bare(6), &br#"{"level":3}"#[..]));
}

#[test]
fn the_operate_of_the_vectors() {
    let cipher = SessionCipher::new(session_key());
    let general = General::request(9004, "v3.0.0");
    let mut sealed = b"in front".to_vec();
    envelope::seal(&cipher, &general, br#"{"data":{"count":3}}"#, &mut sealed).unwrap();
    assert_eq!(sealed[8..], bytes("operate_payload"));
    assert_eq!(envelope::sealed_len(&general, 20), sealed.len() - 8);
    let opened = envelope::open(&cipher, &mut sealed[8..]).unwrap();
    assert_eq!((opened.general, opened.application), (general, &br#"{"data":{"count":3}}"#[..]));
}

#[test]
fn the_event_of_the_real_client() {
    let cipher = SessionCipher::new(session_key());
    let (_, _, mut payload) = publish("real_event");
    let opened = envelope::open(&cipher, &mut payload).unwrap();
    assert_eq!(opened.general, General::bare(4));
    let text =
        r#"{"level":3,"basic":{"dateTime":"2026-11-20T21:50:17.230+00:00","UUID":"5fb66b24e52c11f1800094306f635ec7"}}"#;
    let body = EventBody::parse(opened.application).unwrap();
    let time_ms = 1_795_211_417_230;
    let uuid = "5fb66b24e52c11f1800094306f635ec7";
    assert_eq!(body, EventBody { json: text, uuid: Some(uuid), time_ms: Some(time_ms) });
    let mut written = Vec::new();
    event::write(r#"{"level":3}"#, uuid, time_ms, &mut written).unwrap();
    assert_eq!(written, text.as_bytes());
}

#[test]
fn other_messages_of_the_real_client() {
    let cipher = SessionCipher::new(session_key());
    let (topic, _, mut payload) = publish("real_operate_reply");
    assert_eq!(Topic::parse(&topic).unwrap().to_string(), topic);
    let opened = envelope::open(&cipher, &mut payload).unwrap();
    assert_eq!((opened.general.seq, opened.application), (9004, &br#"{"code":0,"data":{"done":true}}"#[..]));

    let (topic, _, mut payload) = publish("real_shadow_report");
    let expected = Topic::Module {
        serial: "SN0000001",
        sub: "global",
        index: "0",
        resource: "Lamp",
        module: "basic",
        method: "shadow",
        msg_type: "report",
    };
    assert_eq!(Topic::parse(&topic), Ok(expected));
    let opened = envelope::open(&cipher, &mut payload).unwrap();
    assert!(opened.application.starts_with(br#"{"method":"report","spv":3"#));

    let (topic, _, mut payload) = publish("real_set_reply");
    assert!(matches!(Topic::parse(&topic), Ok(Topic::Model { msg_type: "set_reply", name: "Power", .. })));
    assert_eq!(envelope::open(&cipher, &mut payload).unwrap().application, br#"{"code":0}"#);
}
