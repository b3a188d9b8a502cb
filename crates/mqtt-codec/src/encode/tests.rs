//! What the encoder refuses, and how it lays out what it writes.

use super::*;
use crate::{TopicError, Will};

const CONNECT: Connect<'_> =
    Connect { clean_session: true, keep_alive: 30, client_id: "id", will: None, user: None, password: None };

const WILL: Will<'_> = Will { topic: "will", payload: b"", qos: QoS::AtMostOnce, retain: false };

const HEAD: PublishHead<'_> =
    PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: false, topic: "t", packet_id: Some(1) };

/// The packet is refused and nothing is written.
#[track_caller]
fn refused(error: EncodeError, write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) {
    let mut out = b"before".to_vec();
    assert_eq!(write(&mut out), Err(error));
    assert_eq!(out, b"before");
}

#[track_caller]
fn connect_refused(error: EncodeError, packet: Connect<'_>) {
    refused(error, |out| connect(&packet, out));
}

#[test]
fn mqtt_1_5_3_a_field_is_at_most_65535_bytes() {
    let long = "x".repeat(65_536);
    let error = |field| EncodeError::FieldTooLong { field, len: 65_536 };
    let text = long.as_str();
    let mut packet = CONNECT;
    packet.client_id = text;
    connect_refused(error("client id"), packet);
    packet = CONNECT;
    packet.user = Some(text);
    connect_refused(error("user name"), packet);
    packet.user = Some("u");
    packet.password = Some(text.as_bytes());
    connect_refused(error("password"), packet);
    packet = CONNECT;
    packet.will = Some(Will { payload: text.as_bytes(), ..WILL });
    connect_refused(error("will payload"), packet);
    packet.will = Some(Will { topic: text, ..WILL });
    connect_refused(EncodeError::Topic(TopicError::TooLong), packet);
    let head = PublishHead { topic: text, ..HEAD };
    refused(EncodeError::Topic(TopicError::TooLong), |out| publish(&head, b"", out));
}

#[test]
fn mqtt_1_5_3_a_field_of_65535_bytes_is_written() {
    let long = "x".repeat(65_535);
    let will = Will { topic: &long, payload: long.as_bytes(), ..WILL };
    let packet =
        Connect { client_id: &long, will: Some(will), user: Some(&long), password: Some(long.as_bytes()), ..CONNECT };
    let mut out = Vec::new();
    connect(&packet, &mut out).unwrap();
    assert_eq!(crate::decode(&out, &Rules::STRICT), Ok(Packet::Connect(packet)));
}

#[test]
fn osap_wire_9_1_padding_counts_towards_the_will_topic() {
    let padded = format!("t{}", "\0".repeat(65_535));
    let mut packet = CONNECT;
    packet.will = Some(Will { topic: &padded, ..WILL });
    refused(EncodeError::FieldTooLong { field: "will topic", len: 65_536 }, |out| {
        connect_under(&packet, &Rules::OSAP_LEGACY, out)
    });
    connect_refused(EncodeError::Topic(TopicError::TooLong), packet);
}

#[test]
fn mqtt_1_5_3_2_text_has_no_nul() {
    let mut packet = CONNECT;
    packet.client_id = "a\0";
    connect_refused(EncodeError::Nul("client id"), packet);
    packet = CONNECT;
    packet.user = Some("\0");
    connect_refused(EncodeError::Nul("user name"), packet);
    packet = CONNECT;
    packet.will = Some(Will { topic: "t\0", ..WILL });
    connect_refused(EncodeError::Topic(TopicError::Nul), packet);
}

#[test]
fn mqtt_3_1_2_22_and_3_1_3_7_a_connect_that_no_server_takes_is_not_written() {
    let mut packet = CONNECT;
    packet.password = Some(b"pw");
    connect_refused(EncodeError::PasswordWithoutUser, packet);
    packet = CONNECT;
    packet.client_id = "";
    packet.clean_session = false;
    connect_refused(EncodeError::ClientIdEmpty, packet);
    let mut out = Vec::new();
    assert!(connect_under(&packet, &Rules::OSAP_LEGACY, &mut out).is_ok());
}

#[test]
fn mqtt_2_3_1_packet_id_and_qos_agree() {
    for (qos, packet_id, dup, error) in [
        (0, Some(1), false, EncodeError::PacketIdQos),
        (1, None, false, EncodeError::PacketIdQos),
        (2, None, true, EncodeError::PacketIdQos),
        (1, Some(0), false, EncodeError::PacketIdZero),
        (2, Some(0), false, EncodeError::PacketIdZero),
        (0, None, true, EncodeError::DupAtQos0),
    ] {
        let head = PublishHead { qos: QoS::new(qos).unwrap(), packet_id, dup, ..HEAD };
        refused(error, |out| publish(&head, b"x", out));
        assert_eq!(publish_len(&head, 1), Err(error));
    }
    refused(EncodeError::PacketIdZero, |out| subscribe(0, [("a", QoS::AtMostOnce)], out));
    refused(EncodeError::PacketIdZero, |out| unsubscribe(0, ["a"], out));
}

#[test]
fn mqtt_4_7_1_1_a_name_with_wildcard_is_not_written() {
    let error = EncodeError::Topic(TopicError::WildcardInName);
    let head = PublishHead { topic: "a/#", ..HEAD };
    refused(error, |out| publish(&head, b"", out));
    let mut packet = CONNECT;
    packet.will = Some(Will { topic: "+", ..WILL });
    connect_refused(error, packet);
}

#[test]
fn mqtt_3_8_3_3_and_3_10_3_2_a_request_names_valid_filters() {
    refused(EncodeError::NoFilters, |out| subscribe(1, [], out));
    refused(EncodeError::NoFilters, |out| unsubscribe(1, [], out));
    let error = EncodeError::Topic(TopicError::MultiLevel);
    refused(error, |out| unsubscribe(1, ["a", "#/b"], out));
    refused(error, |out| subscribe(1, [("#/b", QoS::AtMostOnce)], out));
}

#[test]
fn mqtt_3_9_3_2_suback_codes_are_those_of_the_standard() {
    refused(EncodeError::NoReturnCodes, |out| suback(1, &[], out));
    refused(EncodeError::ReturnCode(3), |out| suback(1, &[0, 3], out));
}

#[test]
fn mqtt_3_2_2_4_a_refusal_is_written_without_session_present() {
    let mut out = Vec::new();
    let refusal = ConnAck { session_present: true, code: 2 };
    connack(&refusal, &mut out);
    assert_eq!(out, [0x20, 2, 0, 2]);
}

#[test]
fn mqtt_2_2_3_a_packet_over_the_remaining_length_is_not_written() {
    let most = MAX_REMAINING_LENGTH - 5;
    assert_eq!(publish_len(&HEAD, most), Ok(5 + MAX_REMAINING_LENGTH));
    let error = EncodeError::TooLarge(MAX_REMAINING_LENGTH + 1);
    assert_eq!(publish_len(&HEAD, most + 1), Err(error));
    refused(error, |out| publish_with(&HEAD, most + 1, out, |_| {}));
    refused(EncodeError::TooLarge(usize::MAX), |out| publish_with(&HEAD, usize::MAX, out, |_| {}));
}

/// The header alone: no test needs a packet of 256 MiB.
#[test]
fn mqtt_2_2_3_the_largest_packet_is_written() {
    let mut out = Vec::new();
    start(0x90, MAX_REMAINING_LENGTH, &mut out).unwrap();
    assert_eq!(out, [0x90, 0xff, 0xff, 0xff, 0x7f]);
    let over = MAX_REMAINING_LENGTH + 1;
    refused(EncodeError::TooLarge(over), |out| start(0x90, over, out));
}

#[test]
fn mqtt_2_2_3_the_remaining_length_takes_as_few_bytes_as_it_can() {
    for (body, header) in [
        (127, &[0x32, 0x7f][..]),
        (128, &[0x32, 0x80, 0x01]),
        (16_383, &[0x32, 0xff, 0x7f]),
        (16_384, &[0x32, 0x80, 0x80, 0x01]),
        (2_097_151, &[0x32, 0xff, 0xff, 0x7f]),
        (2_097_152, &[0x32, 0x80, 0x80, 0x80, 0x01]),
    ] {
        let mut out = Vec::new();
        publish(&HEAD, &vec![0; body - 5], &mut out).unwrap();
        assert!(out.starts_with(header), "{:x?}", &out[..5]);
        assert_eq!(out.len(), header.len() + body);
        assert_eq!(publish_len(&HEAD, body - 5), Ok(out.len()));
    }
}

#[test]
fn a_payload_is_written_straight_into_the_buffer() {
    let mut whole = Vec::new();
    publish(&HEAD, b"sealed", &mut whole).unwrap();
    let mut out = Vec::new();
    publish_with(&HEAD, 6, &mut out, |out| out.extend_from_slice(b"sealed")).unwrap();
    assert_eq!(out, whole);
    publish(&HEAD, b"", &mut whole).unwrap();
    publish_with(&HEAD, 0, &mut out, |_| {}).unwrap();
    assert_eq!(out, whole);
}

#[test]
fn a_payload_of_another_length_takes_the_packet_back() {
    for payload in ["seale", "sealed?"] {
        let error = EncodeError::PayloadLength { announced: 6, written: payload.len() };
        refused(error, |out| publish_with(&HEAD, 6, out, |out| out.extend_from_slice(payload.as_bytes())));
    }
}
