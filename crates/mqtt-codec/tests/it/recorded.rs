//! Frames of osap-wire 12.4 to 12.6, most of them recorded from the devices' own clients.

use vestibule_mqtt_codec::{
    Connect, DecodeError, Packet, PublishHead, QoS, Rules, TopicError, decode, encode, frame_len, split_publish,
};

/// The bytes of a vector: the last word of each line, behind the name of the field.
fn bytes(vector: &str) -> Vec<u8> {
    let digits: String = vector
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hex digits");
            u8::from_str_radix(pair, 16).expect("two hex digits")
        })
        .collect()
}

fn connect(frame: &[u8]) -> Connect<'_> {
    assert_eq!(frame_len(frame, 1024), Ok(Some(frame.len())));
    match decode(frame, &Rules::OSAP_LEGACY) {
        Ok(Packet::Connect(connect)) => connect,
        other => panic!("{other:?}"),
    }
}

/// The parts in which the logins of osap-wire 9.1 are alike.
#[track_caller]
fn check_login(frame: &[u8], will_topic: &str, will_len: usize) {
    let login = connect(frame);
    assert_eq!((login.client_id, login.keep_alive), ("", 30));
    assert_eq!(login.user, Some("SN0000001"));
    assert_eq!(login.password, Some(&b"test"[..]));
    let will = login.will.expect("the login record");
    assert_eq!((will.topic, will.payload.len()), (will_topic, will_len));
    assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
}

#[test]
fn osap_wire_9_1_full_login_of_the_2_0_client() {
    let frame = bytes(include_str!("../vectors/connect_2_0.hex"));
    check_login(&frame, "/Basic/pu2cenplt/SN0000001/firstconnect", 400);
    assert!(connect(&frame).clean_session);
}

#[test]
fn osap_wire_9_1_full_login_of_the_1_5_client() {
    let frame = bytes(include_str!("../vectors/connect_1_5.hex"));
    check_login(&frame, "/Basic/pu2cenplt/SN0000001/firstconnect", 416);
    assert!(connect(&frame).clean_session);
}

#[test]
fn osap_wire_9_1_light_login() {
    let frame = bytes(include_str!("../vectors/connect_light.hex"));
    check_login(&frame, "/Basic/pu2cenplt/SN0000001/breakconnect", 80);
    assert!(!connect(&frame).clean_session);
}

#[test]
fn mqtt_1_5_3_2_the_strict_rules_refuse_the_padded_will_topic() {
    for vector in [
        include_str!("../vectors/connect_2_0.hex"),
        include_str!("../vectors/connect_1_5.hex"),
        include_str!("../vectors/connect_light.hex"),
    ] {
        assert_eq!(decode(&bytes(vector), &Rules::STRICT), Err(DecodeError::Topic(TopicError::Nul)));
    }
}

/// A device that serves the recorded clients' logins writes the very same bytes.
#[test]
fn osap_wire_9_1_a_login_is_written_as_the_clients_write_it() {
    for vector in [
        include_str!("../vectors/connect_2_0.hex"),
        include_str!("../vectors/connect_1_5.hex"),
        include_str!("../vectors/connect_light.hex"),
    ] {
        let recorded = bytes(vector);
        let mut login = connect(&recorded);
        let mut will = login.will.expect("the login record");
        let padded = format!("{:\0<128}", will.topic);
        will.topic = &padded;
        login.will = Some(will);
        let mut written = Vec::new();
        encode::connect_under(&login, &Rules::OSAP_LEGACY, &mut written).expect("legal");
        assert_eq!(written, recorded);
    }
}

#[test]
fn osap_wire_9_5_publishes_are_read_and_written_alike() {
    for (vector, path, packet_id, payload_len) in [
        (include_str!("../vectors/publish_event.hex"), "model/event/report/Alarm/Smoke", 4, 32),
        (include_str!("../vectors/publish_event_2_0.hex"), "model/event/report/Alarm/Smoke", 4, 128),
        (include_str!("../vectors/publish_shadow_2_0.hex"), "basic/shadow/report", 5, 128),
        (include_str!("../vectors/publish_operate_reply_2_0.hex"), "model/service/operate_reply/Light/Blink", 8, 48),
        (include_str!("../vectors/publish_set_reply_2_0.hex"), "model/attribute/set_reply/Light/Power", 9, 32),
    ] {
        let mut frame = bytes(vector);
        let recorded = frame.clone();
        assert_eq!(frame_len(&frame, 1024), Ok(Some(frame.len())));
        let topic = format!("/iot/SN0000001/global/0-Lamp/{path}");
        for rules in [Rules::STRICT, Rules::OSAP_LEGACY] {
            let (head, payload) = split_publish(&mut frame, &rules).expect("a PUBLISH");
            assert_eq!(
                head,
                PublishHead {
                    dup: false,
                    qos: QoS::AtLeastOnce,
                    retain: true,
                    topic: &topic,
                    packet_id: Some(packet_id),
                }
            );
            assert_eq!(payload.len(), payload_len);
            let mut written = Vec::new();
            encode::publish(&head, payload, &mut written).expect("legal");
            assert_eq!(written, recorded);
        }
    }
}
