//! SUBSCRIBE, SUBACK and UNSUBSCRIBE (MQTT 3.1.1 sections 3.8 to 3.10).

use crate::ack;
use crate::error::DecodeError;
use crate::qos::QoS;
use crate::reader::Reader;
use crate::rules::Rules;
use crate::topic;

/// A client asks for topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// 1 to 65,535.
    pub packet_id: u16,
    /// At least one valid filter, each with the QoS that is asked for.
    pub filters: SubscribeFilters<'a>,
}

/// A client gives topics up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// 1 to 65,535.
    pub packet_id: u16,
    /// At least one valid filter.
    pub filters: UnsubscribeFilters<'a>,
}

/// The server's answer to a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The identifier of the SUBSCRIBE.
    pub packet_id: u16,
    /// One code for each filter, in their order: the granted QoS 0, 1 or 2, or
    /// [`SubAck::FAILURE`].
    pub codes: &'a [u8],
}

/// The checked filters of a SUBSCRIBE, an iterator over `(filter, qos)` that allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilters<'a> {
    rest: Reader<'a>,
}

/// The checked filters of an UNSUBSCRIBE, an iterator that allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    rest: Reader<'a>,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Subscribe<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if reader.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        let filters = SubscribeFilters { rest: reader };
        while !reader.is_empty() {
            read_requested(&mut reader)?;
        }
        Ok(Subscribe { packet_id, filters })
    }
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Unsubscribe<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if reader.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        let filters = UnsubscribeFilters { rest: reader };
        while !reader.is_empty() {
            read_filter(&mut reader)?;
        }
        Ok(Unsubscribe { packet_id, filters })
    }
}

impl<'a> SubAck<'a> {
    /// The code that refuses a filter (section 3.9.3).
    pub const FAILURE: u8 = 0x80;

    pub(crate) fn decode(body: &'a [u8], rules: &Rules) -> Result<SubAck<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = ack::decode_id(&mut reader, rules)?;
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(DecodeError::NoReturnCodes);
        }
        match codes.iter().find(|&&code| !valid_code(code)) {
            Some(&code) => Err(DecodeError::ReturnCode(code)),
            None => Ok(SubAck { packet_id, codes }),
        }
    }
}

impl<'a> Iterator for SubscribeFilters<'a> {
    type Item = (&'a str, QoS);

    /// The bytes were checked when the packet was decoded, so an error is their end.
    fn next(&mut self) -> Option<(&'a str, QoS)> {
        read_requested(&mut self.rest).ok()
    }
}

impl<'a> Iterator for UnsubscribeFilters<'a> {
    type Item = &'a str;

    /// The bytes were checked when the packet was decoded, so an error is their end.
    fn next(&mut self) -> Option<&'a str> {
        read_filter(&mut self.rest).ok()
    }
}

/// [MQTT-3.9.3-2]
pub(crate) fn valid_code(code: u8) -> bool {
    code <= 2 || code == SubAck::FAILURE
}

fn read_requested<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, QoS), DecodeError> {
    let filter = read_filter(reader)?;
    let requested = reader.u8()?;
    let qos = QoS::new(requested).ok_or(DecodeError::RequestedQos(requested))?;
    Ok((filter, qos))
}

fn read_filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let filter = reader.loose_text()?;
    topic::check_filter(filter)?;
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, TopicError, decode};

    fn frame(first: u8, id: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, (2 + rest.len()) as u8];
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(rest);
        frame
    }

    #[track_caller]
    fn refused(frame: &[u8], error: DecodeError) {
        assert_eq!(decode(frame, &Rules::STRICT), Err(error));
    }

    #[test]
    fn mqtt_3_8_3_filters_are_read_in_their_order() {
        let frame = frame(0x82, 10, b"\x00\x03a/b\x01\x00\x01#\x02\x00\x01+\x00");
        let Ok(Packet::Subscribe(subscribe)) = decode(&frame, &Rules::STRICT) else {
            panic!("not read");
        };
        assert_eq!(subscribe.packet_id, 10);
        let filters: Vec<_> = subscribe.filters.collect();
        assert_eq!(filters, [("a/b", QoS::AtLeastOnce), ("#", QoS::ExactlyOnce), ("+", QoS::AtMostOnce)]);
    }

    #[test]
    fn mqtt_3_10_3_filters_are_read_in_their_order() {
        let frame = frame(0xa2, 11, b"\x00\x03a/b\x00\x03c/d");
        let Ok(Packet::Unsubscribe(unsubscribe)) = decode(&frame, &Rules::STRICT) else {
            panic!("not read");
        };
        assert_eq!(unsubscribe.packet_id, 11);
        assert_eq!(unsubscribe.filters.collect::<Vec<_>>(), ["a/b", "c/d"]);
    }

    #[test]
    fn mqtt_3_8_3_3_and_3_10_3_2_a_request_without_filter_is_refused() {
        refused(&frame(0x82, 1, b""), DecodeError::NoFilters);
        refused(&frame(0xa2, 1, b""), DecodeError::NoFilters);
    }

    #[test]
    fn mqtt_2_3_1_1_packet_id_0_is_refused() {
        refused(&frame(0x82, 0, b"\x00\x01a\x00"), DecodeError::PacketIdZero);
        refused(&frame(0xa2, 0, b"\x00\x01a"), DecodeError::PacketIdZero);
        refused(&frame(0x90, 0, b"\x00"), DecodeError::PacketIdZero);
    }

    #[test]
    fn mqtt_3_8_3_4_qos_3_and_reserved_bits_are_refused() {
        for requested in 3..=u8::MAX {
            let frame = frame(0x82, 1, &[0, 1, b'a', requested]);
            refused(&frame, DecodeError::RequestedQos(requested));
        }
    }

    #[test]
    fn mqtt_3_8_3_1_and_3_10_3_1_filters_are_utf_8() {
        refused(&frame(0x82, 1, b"\x00\x01\xff\x00"), DecodeError::Utf8);
        refused(&frame(0xa2, 1, b"\x00\x01\xff"), DecodeError::Utf8);
    }

    #[test]
    fn mqtt_4_7_filters_are_valid_in_both_requests() {
        for (filter, error) in [
            (&b""[..], TopicError::Empty),
            (b"a\0", TopicError::Nul),
            (b"a#", TopicError::MultiLevel),
            (b"+a", TopicError::SingleLevel),
        ] {
            let mut rest = vec![0, filter.len() as u8];
            rest.extend_from_slice(filter);
            refused(&frame(0xa2, 1, &rest), DecodeError::Topic(error));
            rest.push(0);
            refused(&frame(0x82, 1, &rest), DecodeError::Topic(error));
        }
    }

    #[test]
    fn mqtt_3_8_and_3_10_a_request_that_ends_early_is_refused() {
        for rest in [&b"\x00"[..], b"\x00\x02a", b"\x00\x01a\x00\x00\x01b"] {
            refused(&frame(0x82, 1, rest), DecodeError::Truncated);
        }
        for rest in [&b"\x00"[..], b"\x00\x02a", b"\x00\x01a\x00"] {
            refused(&frame(0xa2, 1, rest), DecodeError::Truncated);
        }
        refused(&[0x82, 1, 0], DecodeError::Truncated);
        refused(&[0x90, 0], DecodeError::Truncated);
    }

    #[test]
    fn mqtt_3_9_3_2_only_four_return_codes_exist() {
        let granted = frame(0x90, 5, &[0, 1, 2, 0x80]);
        assert_eq!(
            decode(&granted, &Rules::STRICT),
            Ok(Packet::SubAck(SubAck { packet_id: 5, codes: &[0, 1, 2, 0x80] }))
        );
        for code in (3..=0x7f).chain(0x81..=u8::MAX) {
            refused(&frame(0x90, 5, &[1, code]), DecodeError::ReturnCode(code));
        }
    }

    #[test]
    fn mqtt_3_8_4_5_a_suback_answers_at_least_one_filter() {
        refused(&frame(0x90, 5, b""), DecodeError::NoReturnCodes);
    }
}
