//! Round trips and limits of what travels inside MQTT packets (osap-wire 9.2, 9.6, 9.7, 10.1).

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, EnvelopeError, General, MsgType, TooLong};
use osap::das::event::{self, EventBody};
use osap::das::login::{Details, LoginRecord, NotARecord};
use osap::das::topic::{Topic, TopicError};
use osap::das::{BodyError, MAX_BODY, attribute};
use osap::{DevId, SessionKey};
use proptest::prelude::*;

use crate::vectors::{dev_id, serial, session_key};

fn cipher() -> SessionCipher {
    SessionCipher::new(session_key())
}

#[test]
fn a_cipher_costs_an_idle_connection_sixteen_bytes() {
    assert_eq!(size_of::<SessionCipher>(), 16);
    assert!(size_of::<osap::das::seq::SeqWindow>() <= 48);
}

#[test]
fn padding_is_always_added() {
    for len in 0..=64 {
        let mut sealed = Vec::new();
        cipher().seal_into(&[&vec![7; len]], &mut sealed);
        assert_eq!(sealed.len(), (len / 16 + 1) * 16);
        assert_eq!(SessionCipher::sealed_len(len), sealed.len());
        assert_eq!(cipher().open(&mut sealed), Ok(&mut vec![7; len][..]));
    }
}

#[test]
fn sealing_behind_other_bytes_allocates_nothing_that_was_reserved() {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"header");
    let before = out.as_ptr();
    cipher().seal_into(&[b"one", b"two"], &mut out);
    assert_eq!((out.as_ptr(), &out[..6], out.len()), (before, &b"header"[..], 22));
    assert_eq!(cipher().open(&mut out[6..]), Ok(&mut b"onetwo".to_owned()[..]));
}

fn plaintext(bytes: &[u8]) -> Result<u64, EnvelopeError> {
    let mut payload = Vec::new();
    cipher().seal_into(&[bytes], &mut payload);
    envelope::open(&cipher(), &mut payload).map(|opened| opened.general.seq)
}

#[test]
fn the_general_part_needs_a_number_and_nothing_else() {
    let general = |text: &str| {
        let len = u16::try_from(text.len()).unwrap().to_be_bytes();
        plaintext(&[&len[..], text.as_bytes(), b"rest"].concat())
    };
    assert_eq!(general(r#"{"Seq":7}"#), Ok(7));
    assert_eq!(general(r#"{"CmdVer":"","MsgType":9,"Seq":7,"Seq":8,"x":[1]}"#), Ok(8));
    for bad in ["{}", r#"{"Seq":-1}"#, r#"{"Seq":"7"}"#, r#"{"Seq":1.5}"#, "[]", "", r#"{"Seq":7"#] {
        assert_eq!(general(bad), Err(EnvelopeError::General), "{bad}");
    }
    for bad in [&b""[..], b"\0", b"\0\x09{\"Seq\":7", b"\xff\xff{\"Seq\":7}"] {
        assert_eq!(plaintext(bad), Err(EnvelopeError::General), "{bad:?}");
    }
    let mut short = [0; 15];
    assert_eq!(envelope::open(&cipher(), &mut short), Err(EnvelopeError::Undecryptable));
}

#[test]
fn a_general_part_that_does_not_fit_leaves_the_buffer_alone() {
    let long = "v".repeat(70_000);
    let mut out = b"header".to_vec();
    assert_eq!(envelope::seal(&cipher(), &General::request(1, &long), b"", &mut out), Err(TooLong));
    assert_eq!(out, b"header");
}

#[test]
fn topics_of_both_forms() {
    for text in [
        "/iot/SN/global/0-Lamp/model/event/report/Alarm/Smoke",
        "/iot/SN/SUB000001/1-a-b/model/service/operate_reply/Light/Blink",
        "/iot/SN/global/0-global/ota/upgrade/operate",
        "/iot/SN/global/0-global/storage/upload/url/query_reply",
        "/1100/13381",
        "/SN/1100/1",
        "/iot/1000/1",
        "/0/4294967295",
    ] {
        let topic = Topic::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(topic.encode().as_deref(), Ok(text));
    }
    let Ok(Topic::Model { index, resource, .. }) = Topic::parse("/iot/SN/global/1-a-b/model/event/report/A/B") else {
        panic!("a model topic");
    };
    assert_eq!((index, resource), ("1", "a-b"));
    let Ok(Topic::Module { method, msg_type, .. }) = Topic::parse("/iot/SN/global/0-global/storage/upload/url/query")
    else {
        panic!("a module topic");
    };
    assert_eq!((method, msg_type), ("upload/url", "query"));
    assert_eq!(Topic::parse("/SN/1100/1").unwrap().serial(), Some("SN"));
    assert_eq!(Topic::parse("/1100/1").unwrap().serial(), None);
}

#[test]
fn topics_beyond_the_limits_are_refused() {
    use TopicError as E;
    let model = |serial: &str, sub: &str, place: &str, rest: &str| {
        Topic::parse(&format!("/iot/{serial}/{sub}/{place}/{rest}")).map(|_| ())
    };
    let n = |len: usize| "x".repeat(len);
    let rest = "model/event/report/A/B";
    for (result, expected) in [
        (model(&n(71), &n(72), &format!("{}-{}", n(64), n(64)), rest), Ok(())),
        (model(&n(72), "s", "0-r", rest), Err(E::Level("serial"))),
        (model("", "s", "0-r", rest), Err(E::Level("serial"))),
        (model("S", &n(73), "0-r", rest), Err(E::Level("sub"))),
        (model("S", "", "0-r", rest), Err(E::Level("sub"))),
        (model("S", "s", "0", rest), Err(E::Level("resource"))),
        (model("S", "s", "-r", rest), Err(E::Level("index"))),
        (model("S", "s", &format!("{}-r", n(65)), rest), Err(E::Level("index"))),
        (model("S", "s", &format!("0-{}", n(65)), rest), Err(E::Level("resource"))),
        (model("S", "s", "0-r", &format!("{}/m/t", n(15))), Ok(())),
        (model("S", "s", "0-r", &format!("{}/m/t", n(16))), Err(E::Level("module"))),
        (model("S", "s", "0-r", &format!("model/{}/{}/{}/{}", n(64), n(32), n(31), n(31))), Ok(())),
        (model("S", "s", "0-r", &format!("model/{}/t/A/B", n(65))), Err(E::Level("method"))),
        (model("S", "s", "0-r", &format!("model/m/{}/A/B", n(33))), Err(E::Level("msgType"))),
        (model("S", "s", "0-r", &format!("model/m/t/{}/B", n(32))), Err(E::Level("area"))),
        (model("S", "s", "0-r", &format!("model/m/t/A/{}", n(32))), Err(E::Level("name"))),
        (model("S", "s", "0-r", "model/event/report/A"), Err(E::Form)),
        (model("S", "s", "0-r", "model/event/report/A/B/C"), Err(E::Form)),
        (model("S", "s", "0-r", "ota/inform"), Err(E::Form)),
        (model("S", "s", "0-r", "ota"), Err(E::Form)),
        (model("S", "s", "0-r", "ota//t"), Err(E::Level("method"))),
        (model("S", "s", "0-r", "model/event/report/A/a\u{1}"), Err(E::Level("name"))),
        (model("S", "s", "0-r", &format!("m/{}/t", ["x"; 300].join("/"))), Err(E::TooLong)),
        (Topic::parse(&format!("/{}/1/2", n(71))).map(|_| ()), Ok(())),
        (Topic::parse("/S/01/2").map(|_| ()), Err(E::Level("domain"))),
        (Topic::parse("/S/+1/2").map(|_| ()), Err(E::Level("domain"))),
        (Topic::parse("/1/4294967296").map(|_| ()), Err(E::Level("command"))),
        (Topic::parse("/1/").map(|_| ()), Err(E::Level("command"))),
        (Topic::parse("1/2").map(|_| ()), Err(E::Form)),
        (Topic::parse("/1").map(|_| ()), Err(E::Form)),
        (Topic::parse("").map(|_| ()), Err(E::Form)),
        (Topic::parse("/a/b/c/d").map(|_| ()), Err(E::Form)),
    ] {
        assert_eq!(result, expected);
    }
    let injected = Topic::Model {
        serial: "S",
        sub: "global",
        index: "0",
        resource: "r",
        method: "event",
        msg_type: "report",
        area: "A/B",
        name: "C",
    };
    assert_eq!(injected.encode(), Err(E::Form));
}

#[test]
fn an_event_is_kept_whatever_its_basic_says() {
    let read = |text: &str| {
        EventBody::parse(text.as_bytes())
            .map(|event| (event.json.to_owned(), event.uuid.map(str::to_owned), event.time_ms))
    };
    for (text, uuid, time_ms) in [
        (r#"{"level":3}"#, None, None),
        ("{}", None, None),
        (r#"{"basic":5}"#, None, None),
        (r#"{"basic":{}}"#, None, None),
        (r#"{"basic":{"UUID":7,"dateTime":"yesterday"}}"#, None, None),
        (r#"{"basic":{"UUID":"","dateTime":""}}"#, None, None),
        (r#"{"basic":{"UUID":"a b"}}"#, None, None),
        (r#"{"basic":{"UUID":"a"},"basic":{"UUID":"b"}}"#, Some("b"), None),
        (r#"{"basic":{"dateTime":"1970-01-01T00:00:01Z"}}"#, None, Some(1_000)),
        (r#"{"basic":{"dateTime":"2026-11-20T23:50:17.230+02:00"}}"#, None, Some(1_795_211_417_230)),
        (r#"{"basic":{"dateTime":"1969-12-31T23:59:59.999+00:00"}}"#, None, Some(-1)),
    ] {
        assert_eq!(read(text), Ok((text.to_owned(), uuid.map(str::to_owned), time_ms)), "{text}");
    }
    assert_eq!(read(" {} \n").unwrap().0, "{}");
    let long = format!(r#"{{"basic":{{"UUID":"{}"}}}}"#, "u".repeat(65));
    assert_eq!(read(&long).unwrap().1, None);
}

#[test]
fn a_body_is_one_object_within_the_limits() {
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    for bad in ["", "1", "[]", "null", "{", "{}{}", r#"{"a":01}"#] {
        assert_eq!(EventBody::parse(bad.as_bytes()), Err(BodyError::Malformed), "{bad}");
    }
    assert_eq!(EventBody::parse(b"{\"a\":\"\xff\"}"), Err(BodyError::Malformed));
    assert!(EventBody::parse(nested(32).as_bytes()).is_ok());
    assert_eq!(EventBody::parse(nested(33).as_bytes()), Err(BodyError::TooDeep));
    let sized = |len: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(len - 8));
    assert!(EventBody::parse(sized(MAX_BODY).as_bytes()).is_ok());
    assert_eq!(EventBody::parse(sized(MAX_BODY + 1).as_bytes()), Err(BodyError::TooLong));
}

#[test]
fn an_event_is_written_once_and_only_into_an_object() {
    let write = |event: &str, uuid: &str, time: i64| {
        let mut out = Vec::new();
        event::write(event, uuid, time, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    let basic = r#""basic":{"dateTime":"1970-01-01T00:00:00.001+00:00","UUID":"u"}}"#;
    assert_eq!(write("{}", "u", 1), Ok(format!("{{{basic}")));
    assert_eq!(write(r#"{"a":{}} "#, "u", 1), Ok(format!(r#"{{"a":{{}},{basic}"#)));
    assert!(write("{ }", "u", 1).is_ok_and(|text| EventBody::parse(text.as_bytes()).is_ok()));
    for (event, uuid, time) in [
        (r#"{"basic":1}"#, "u", 1),
        ("[]", "u", 1),
        ("{}", "", 1),
        ("{}", "a\"b", 1),
        ("{}", "a\\", 1),
        ("{}", "u", i64::MAX),
        ("{}", "u", i64::MIN),
    ] {
        assert_eq!(write(event, uuid, time), Err(BodyError::Malformed), "{event} {uuid} {time}");
    }
}

#[test]
fn attribute_reports() {
    for (text, expected) in [
        (r#"{"data":{"Value":1}}"#, Ok("1")),
        (r#"{"data":{"x":0,"Value": {"a":[null]} }}"#, Ok(r#"{"a":[null]}"#)),
        (r#"{"data":{"Value":1,"Value":null}}"#, Ok("null")),
        (r#"{"data":{}}"#, Err(BodyError::Missing("Value"))),
        ("{}", Err(BodyError::Missing("data"))),
        (r#"{"data":1}"#, Err(BodyError::Malformed)),
        ("x", Err(BodyError::Malformed)),
    ] {
        assert_eq!(attribute::parse_report(text.as_bytes()), expected, "{text}");
    }
    let write = |value: &str| {
        let mut out = b"before".to_vec();
        let result = attribute::write_report(value, &mut out);
        (result, String::from_utf8(out).unwrap())
    };
    assert_eq!(write("true"), (Ok(()), r#"before{"data":{"Value":true}}"#.into()));
    for bad in ["", "1,2", "1}", r#"1,"Value":2"#, "{", r#"1},"data":{"Value":2"#] {
        let (result, out) = write(bad);
        assert!(result.is_err(), "{bad}");
        assert_eq!(out, "before");
    }
}

#[test]
fn a_login_record_tolerates_what_firmware_does() {
    let id = dev_id();
    let text = format!(
        r#"{{"SubSerial":"wrong","MAC":5,"Unknown":{{}},"SDKVersion":{{"0":"","0":"","7":1,"8":"v"}},"DeviceID":"{id}","SubSerial":"SN0000001","Status":"5"}}"#
    );
    let record = LoginRecord::decode(text.as_bytes()).unwrap();
    assert_eq!((record.sub_serial.as_str(), record.device_id.as_str()), ("SN0000001", id.as_str()));
    let details = record.details.unwrap();
    assert_eq!((details.mac.as_str(), details.status), ("", 0));
    let versions = [("0", ""), ("0", ""), ("8", "v")].map(|(d, v)| (d.to_owned(), v.to_owned()));
    assert_eq!(details.sdk_versions, versions);
    for bad in [r#"{"SubSerial":"x"}"#, r#"{"DeviceID":"x"}"#, r#"{"SubSerial":1,"DeviceID":"x"}"#, "[]", ""] {
        assert_eq!(LoginRecord::decode(bad.as_bytes()), Err(NotARecord), "{bad}");
    }
}

#[test]
fn the_members_of_a_full_record_stand_in_their_order() {
    let details = Details {
        dev_type: "CAM".into(),
        status: 1,
        nick_name: Some("n".into()),
        oem_info: Some(0),
        reg_mode: 1,
        sdk_versions: vec![("1100".into(), "v2.0.0".into()), ("0".into(), String::new())],
        ..Details::default()
    };
    let id = DevId::parse(&[b'a'; 32]).unwrap();
    let text = String::from_utf8(LoginRecord::full(&serial(), &id, details).encode()).unwrap();
    let expected = format!(
        r#"{{"DevSerial":"","SubSerial":"SN0000001","FirmwareVersion":"","DevType":"CAM","DevTypeDisplay":"","MAC":"","Status":1,"NickName":"n","FirmwareIdentificationCode":"","dev_oeminfo":0,"LbsDomain":"","RegMode":1,"SDKMainVersion":"","DeviceID":"{id}","SDKVersion":{{"1100":"v2.0.0","0":""}}}}"#
    );
    assert_eq!(text, expected);
}

proptest! {
    #[test]
    fn an_envelope_round_trips(
        seq in any::<u64>(),
        cmd_ver in proptest::option::of(".{0,20}"),
        msg_type in proptest::option::of(proptest::sample::select(vec![MsgType::Request, MsgType::Response])),
        application in proptest::collection::vec(any::<u8>(), 0..2000),
        key in any::<[u8; 16]>(),
    ) {
        let cipher = SessionCipher::new(SessionKey::from_bytes(&key).unwrap());
        let general = General { seq, cmd_ver: cmd_ver.as_deref().map(Into::into), msg_type };
        let mut payload = Vec::new();
        envelope::seal(&cipher, &general, &application, &mut payload).unwrap();
        prop_assert_eq!(payload.len(), envelope::sealed_len(&general, application.len()));
        let opened = envelope::open(&cipher, &mut payload).unwrap();
        prop_assert_eq!(opened.general, general);
        prop_assert_eq!(opened.application, application);
    }

    #[test]
    fn a_login_record_round_trips(
        texts in proptest::collection::vec(".{0,30}", 9),
        status in any::<i64>(),
        reg_mode in any::<i64>(),
        nick_name in proptest::option::of(".{0,10}"),
        oem_info in proptest::option::of(any::<i64>()),
        sdk_versions in proptest::collection::vec(("[0-9]{1,5}", ".{0,10}"), 0..20),
    ) {
        let text = |index: usize| texts[index].clone();
        let details = Details {
            dev_serial: text(0),
            firmware_version: text(1),
            dev_type: text(2),
            dev_type_display: text(3),
            mac: text(4),
            status,
            nick_name,
            firmware_identification_code: text(5),
            oem_info,
            lbs_domain: text(6),
            reg_mode,
            sdk_main_version: text(7),
            sdk_versions,
        };
        let record = LoginRecord::full(&serial(), &dev_id(), details);
        prop_assert_eq!(LoginRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn topics_round_trip(
        serial in "[!-~&&[^/+#]]{1,71}",
        sub in "[A-Za-z0-9:]{1,72}",
        index in "[0-9a-z]{1,8}",
        resource in "[A-Za-z-]{1,32}",
        method in "[a-z]{1,20}",
        msg_type in "[a-z_]{1,32}",
        area in "[A-Za-z]{1,31}",
        name in "[A-Za-z]{1,31}",
        module in "[a-z]{6,15}",
        domain in any::<u32>(),
        command in any::<u32>(),
    ) {
        let two_levels = format!("{method}/{method}");
        for topic in [
            Topic::Model {
                serial: &serial, sub: &sub, index: &index, resource: &resource,
                method: &method, msg_type: &msg_type, area: &area, name: &name,
            },
            Topic::Module {
                serial: &serial, sub: &sub, index: &index, resource: &resource,
                module: &module, method: &two_levels, msg_type: &msg_type,
            },
            Topic::Command { serial: Some(&serial), domain, command },
            Topic::Command { serial: None, domain, command },
        ] {
            let text = topic.encode().unwrap();
            prop_assert_eq!(Topic::parse(&text), Ok(topic));
        }
    }

    #[test]
    fn a_written_event_reads_back(
        level in any::<i32>(),
        uuid in "[0-9a-f]{32}",
        time_ms in -62_000_000_000_000_i64..250_000_000_000_000,
    ) {
        let mut out = Vec::new();
        event::write(&format!(r#"{{"level":{level}}}"#), &uuid, time_ms, &mut out).unwrap();
        let event = EventBody::parse(&out).unwrap();
        prop_assert_eq!((event.uuid, event.time_ms), (Some(uuid.as_str()), Some(time_ms)));
    }
}
