//! Packets made at random: what was written is read back unchanged.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use vestibule_mqtt_codec::{
    ConnAck, Connect, DecodeError, EncodeError, Packet, Publish, PublishHead, QoS, Rules, SubAck, Will, decode, encode,
    frame_len, split_publish,
};

/// Any text that MQTT carries.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,24}"
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[^\0+#]{1,40}",
        4 => "\\$?[a-c/]{1,12}",
        1 => "[a-z/]{300}",
    ]
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![Just("+".to_owned()), "[^\0+#/]{0,6}"];
    (vec(level, 0..6), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter("a filter has a character", |filter| !filter.is_empty())
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..60),
        // Around the borders of one and two length bytes.
        1 => vec(any::<u8>(), 100..140),
        1 => (16_300_usize..16_400).prop_map(|len| vec![0xa5; len]),
    ]
}

/// Writes with `write`, then reads under both rules.
fn check(packet: Packet<'_>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> Result<(), TestCaseError> {
    let mut wire = Vec::new();
    write(&mut wire).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(frame_len(&wire, wire.len()), Ok(Some(wire.len())));
    for rules in [Rules::STRICT, Rules::OSAP_LEGACY] {
        prop_assert_eq!(decode(&wire, &rules), Ok(packet));
    }
    // A prefix is no packet, a longer frame is no packet either.
    for end in (0..wire.len()).rev().take(64).chain(0..wire.len().min(64)) {
        prop_assert!(decode(&wire[..end], &Rules::OSAP_LEGACY).is_err());
        let measured = frame_len(&wire[..end], usize::MAX);
        prop_assert!(matches!(measured, Ok(None)) || measured == Ok(Some(wire.len())));
    }
    let mut generic = Vec::new();
    encode::packet(&packet, &mut generic).expect("the same packet");
    prop_assert_eq!(&generic, &wire);
    wire.push(0);
    prop_assert_eq!(decode(&wire, &Rules::OSAP_LEGACY), Err(DecodeError::TrailingBytes));
    Ok(())
}

proptest! {
    #[test]
    fn connect(
        clean_session: bool,
        keep_alive: u16,
        client_id in text(),
        will in option::of((name(), payload(), qos(), any::<bool>())),
        user in option::of((text(), option::of(payload()))),
    ) {
        let packet = Connect {
            clean_session: clean_session || client_id.is_empty(),
            keep_alive,
            client_id: &client_id,
            will: will.as_ref().map(|(topic, payload, qos, retain)| Will {
                topic,
                payload,
                qos: *qos,
                retain: *retain,
            }),
            user: user.as_ref().map(|(user, _)| user.as_str()),
            password: user.as_ref().and_then(|(_, password)| password.as_deref()),
        };
        check(Packet::Connect(packet), |out| encode::connect(&packet, out))?;
    }

    #[test]
    fn login_of_an_osap_device(topic in name(), padding in 0_usize..90, payload in payload()) {
        let padded = format!("{topic}{}", "\0".repeat(padding));
        let written = Connect {
            clean_session: false,
            keep_alive: 30,
            client_id: "",
            will: Some(Will {
                topic: &padded,
                payload: &payload,
                qos: QoS::AtLeastOnce,
                retain: true,
            }),
            user: Some("SN0000001"),
            password: Some(b"test"),
        };
        let mut wire = Vec::new();
        encode::connect_under(&written, &Rules::OSAP_LEGACY, &mut wire).expect("legal");
        let mut read = written;
        read.will.as_mut().expect("it has one").topic = &topic;
        prop_assert_eq!(decode(&wire, &Rules::OSAP_LEGACY), Ok(Packet::Connect(read)));
        prop_assert!(decode(&wire, &Rules::STRICT).is_err());
    }

    #[test]
    fn connack(session_present: bool, code: u8) {
        let packet = ConnAck { session_present: session_present && code == 0, code };
        check(Packet::ConnAck(packet), |out| {
            encode::connack(&packet, out);
            Ok(())
        })?;
    }

    #[test]
    fn publish(
        dup: bool,
        qos in qos(),
        retain: bool,
        topic in name(),
        id in 1..=u16::MAX,
        payload in payload(),
    ) {
        let numbered = qos != QoS::AtMostOnce;
        let head = PublishHead {
            dup: dup && numbered,
            qos,
            retain,
            topic: &topic,
            packet_id: numbered.then_some(id),
        };
        let packet = Packet::Publish(Publish { head, payload: &payload });
        check(packet, |out| encode::publish(&head, &payload, out))?;
        check(packet, |out| {
            encode::publish_with(&head, payload.len(), out, |out| out.extend_from_slice(&payload))
        })?;
        let mut wire = Vec::new();
        encode::publish(&head, &payload, &mut wire).expect("legal");
        prop_assert_eq!(encode::publish_len(&head, payload.len()), Ok(wire.len()));
        let (split, rest) = split_publish(&mut wire, &Rules::STRICT).expect("a PUBLISH");
        prop_assert_eq!((split, &*rest), (head, payload.as_slice()));
    }

    #[test]
    fn acknowledgements(id in 1..=u16::MAX) {
        type Write = fn(u16, &mut Vec<u8>);
        for (packet, write) in [
            (Packet::PubAck(id), encode::puback as Write),
            (Packet::PubRec(id), encode::pubrec),
            (Packet::PubRel(id), encode::pubrel),
            (Packet::PubComp(id), encode::pubcomp),
            (Packet::UnsubAck(id), encode::unsuback),
        ] {
            check(packet, |out| {
                write(id, out);
                Ok(())
            })?;
        }
    }

    #[test]
    fn subscribe(id in 1..=u16::MAX, filters in vec((filter(), qos()), 1..8)) {
        let wanted = filters.iter().map(|(filter, qos)| (filter.as_str(), *qos));
        let mut wire = Vec::new();
        encode::subscribe(id, wanted.clone(), &mut wire).expect("legal");
        let Ok(Packet::Subscribe(packet)) = decode(&wire, &Rules::STRICT) else {
            return Err(TestCaseError::fail("not read"));
        };
        prop_assert_eq!(packet.packet_id, id);
        prop_assert!(packet.filters.eq(wanted));
        check(Packet::Subscribe(packet), |out| encode::subscribe(id, packet.filters, out))?;
    }

    #[test]
    fn suback(id in 1..=u16::MAX, codes in vec(prop_oneof![0..=2_u8, Just(SubAck::FAILURE)], 1..200)) {
        let packet = Packet::SubAck(SubAck { packet_id: id, codes: &codes });
        check(packet, |out| encode::suback(id, &codes, out))?;
    }

    #[test]
    fn unsubscribe(id in 1..=u16::MAX, filters in vec(filter(), 1..8)) {
        let wanted = filters.iter().map(String::as_str);
        let mut wire = Vec::new();
        encode::unsubscribe(id, wanted.clone(), &mut wire).expect("legal");
        let Ok(Packet::Unsubscribe(packet)) = decode(&wire, &Rules::STRICT) else {
            return Err(TestCaseError::fail("not read"));
        };
        prop_assert_eq!(packet.packet_id, id);
        prop_assert!(packet.filters.eq(wanted));
        check(Packet::Unsubscribe(packet), |out| encode::unsubscribe(id, packet.filters, out))?;
    }
}

#[test]
fn packets_without_a_body() {
    type Write = fn(&mut Vec<u8>);
    for (packet, write) in [
        (Packet::PingReq, encode::pingreq as Write),
        (Packet::PingResp, encode::pingresp),
        (Packet::Disconnect, encode::disconnect),
    ] {
        check(packet, |out| {
            write(out);
            Ok(())
        })
        .expect("two bytes");
    }
}
