//! PUBLISH (MQTT 3.1.1 section 3.3).

use std::fmt;

use crate::error::DecodeError;
use crate::frame::{Header, PacketType};
use crate::qos::QoS;
use crate::reader::Reader;
use crate::rules::Rules;
use crate::topic;

/// The bits of the flags in the first byte (figure 3.10).
pub(crate) mod flag {
    pub(crate) const RETAIN: u8 = 1;
    pub(crate) const QOS_SHIFT: u8 = 1;
    pub(crate) const DUP: u8 = 1 << 3;
}

/// All of a message but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishHead<'a> {
    /// The sender has sent this packet before; never at QoS 0.
    pub dup: bool,
    /// Quality of service of this hop.
    pub qos: QoS,
    /// To a server: keep the message for later subscribers. From a server: it was kept.
    pub retain: bool,
    /// A valid topic name.
    pub topic: &'a str,
    /// 1 to 65,535; `None` at QoS 0 and only there.
    pub packet_id: Option<u16>,
}

/// A message. Its Debug shows the length of the payload only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Topic, quality of service and flags.
    pub head: PublishHead<'a>,
    /// What the application sends; may be empty.
    pub payload: &'a [u8],
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("head", &self.head).field("payload_len", &self.payload.len()).finish()
    }
}

impl<'a> Publish<'a> {
    pub(crate) fn decode(first: u8, body: &'a [u8]) -> Result<Publish<'a>, DecodeError> {
        let (head, payload) = decode_head(first, body)?;
        Ok(Publish { head, payload })
    }
}

/// Decodes one whole PUBLISH and gives the payload out for change in place, as a transform
/// needs that decrypts where the bytes lie. `rules` is taken for symmetry with
/// [`decode`](crate::decode); no rule loosens a PUBLISH.
///
/// # Errors
/// [`DecodeError::NotPublish`] for another packet, otherwise as [`decode`](crate::decode).
pub fn split_publish<'a>(frame: &'a mut [u8], _rules: &Rules) -> Result<(PublishHead<'a>, &'a mut [u8]), DecodeError> {
    let (header, body) = Header::split(frame)?;
    if header.packet != PacketType::Publish {
        return Err(DecodeError::NotPublish(header.packet));
    }
    let first = frame[0];
    let payload_at = header.len + head_len(first, body)?;
    let (head, payload) = frame.split_at_mut(payload_at);
    let (head, _) = decode_head(first, &head[header.len..])?;
    Ok((head, payload))
}

/// Bytes of the variable header, its fields unchecked.
fn head_len(first: u8, body: &[u8]) -> Result<usize, DecodeError> {
    let topic = usize::from(Reader::new(body).u16()?);
    let id = if qos(first)? == QoS::AtMostOnce { 0 } else { 2 };
    let len = 2 + topic + id;
    if len > body.len() {
        return Err(DecodeError::Truncated);
    }
    Ok(len)
}

fn decode_head(first: u8, body: &[u8]) -> Result<(PublishHead<'_>, &[u8]), DecodeError> {
    let qos = qos(first)?;
    let mut reader = Reader::new(body);
    let topic = reader.loose_text()?;
    topic::check_name(topic)?;
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
    };
    let head = PublishHead { dup: first & flag::DUP != 0, qos, retain: first & flag::RETAIN != 0, topic, packet_id };
    Ok((head, reader.rest()))
}

fn qos(first: u8) -> Result<QoS, DecodeError> {
    QoS::new(first >> flag::QOS_SHIFT & 0b11).ok_or(DecodeError::PublishQos3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, TopicError, decode};

    fn frame(first: u8, topic: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, (2 + topic.len() + rest.len()) as u8];
        frame.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        frame.extend_from_slice(topic);
        frame.extend_from_slice(rest);
        frame
    }

    #[track_caller]
    fn refused(mut frame: Vec<u8>, error: DecodeError) {
        assert_eq!(decode(&frame, &Rules::STRICT), Err(error));
        assert_eq!(split_publish(&mut frame, &Rules::STRICT), Err(error));
    }

    #[track_caller]
    fn read(mut frame: Vec<u8>, head: PublishHead<'_>, payload: &[u8]) {
        let packet = Packet::Publish(Publish { head, payload });
        assert_eq!(decode(&frame, &Rules::STRICT), Ok(packet));
        let (split, rest) = split_publish(&mut frame, &Rules::STRICT).unwrap();
        assert_eq!((split, &*rest), (head, payload));
    }

    #[test]
    fn mqtt_3_3_1_flags_are_read() {
        let mut head = PublishHead { dup: false, qos: QoS::AtMostOnce, retain: true, topic: "a/b", packet_id: None };
        read(frame(0x31, b"a/b", b"hi"), head, b"hi");
        head.qos = QoS::AtLeastOnce;
        head.retain = false;
        head.dup = true;
        head.packet_id = Some(0x0a0b);
        read(frame(0x3a, b"a/b", b"\x0a\x0bhi"), head, b"hi");
        head.qos = QoS::ExactlyOnce;
        read(frame(0x3c, b"a/b", b"\x0a\x0b"), head, b"");
    }

    #[test]
    fn mqtt_2_3_1_5_qos_0_carries_no_packet_id() {
        let head = PublishHead { dup: false, qos: QoS::AtMostOnce, retain: false, topic: "t", packet_id: None };
        read(frame(0x30, b"t", &[0, 1, 9]), head, &[0, 1, 9]);
    }

    #[test]
    fn mqtt_2_3_1_1_packet_id_0_is_refused() {
        for first in [0x32, 0x34] {
            refused(frame(first, b"t", &[0, 0, 9]), DecodeError::PacketIdZero);
        }
    }

    #[test]
    fn mqtt_3_3_2_1_the_topic_is_utf_8() {
        refused(frame(0x30, b"\xff", b""), DecodeError::Utf8);
        refused(frame(0x30, b"a\0", b""), DecodeError::Topic(TopicError::Nul));
    }

    #[test]
    fn mqtt_3_3_2_2_the_topic_has_no_wildcard() {
        for topic in [&b"a/+"[..], b"#", b"a+b"] {
            refused(frame(0x30, topic, b""), DecodeError::Topic(TopicError::WildcardInName));
        }
    }

    #[test]
    fn mqtt_4_7_3_1_the_topic_is_not_empty() {
        refused(frame(0x30, b"", b"x"), DecodeError::Topic(TopicError::Empty));
    }

    #[test]
    fn mqtt_3_3_2_a_packet_that_ends_before_its_payload_is_refused() {
        for short in [
            vec![0x30, 0],
            vec![0x30, 1, 0],
            vec![0x30, 2, 0, 1],
            vec![0x32, 3, 0, 1, b't'],
            vec![0x32, 4, 0, 1, b't', 0],
            vec![0x30, 3, 0xff, 0xff, b't'],
        ] {
            refused(short, DecodeError::Truncated);
        }
    }

    #[test]
    fn a_payload_is_changed_in_place() {
        let mut wire = frame(0x32, b"t", &[0, 1, b'a', b'b']);
        let (head, payload) = split_publish(&mut wire, &Rules::STRICT).unwrap();
        payload.make_ascii_uppercase();
        assert_eq!((head.topic, head.packet_id), ("t", Some(1)));
        assert_eq!(wire, frame(0x32, b"t", &[0, 1, b'A', b'B']));
    }

    #[test]
    fn only_a_publish_is_split() {
        let error = DecodeError::NotPublish(PacketType::PingReq);
        assert_eq!(split_publish(&mut [0xc0, 0], &Rules::STRICT), Err(error));
    }
}
