//! The fixed header (MQTT 3.1.1 section 2.2): where a packet ends and what it is.

use crate::error::DecodeError;

/// The largest remaining length that four bytes can say (section 2.2.3).
pub const MAX_REMAINING_LENGTH: usize = 268_435_455;

/// The packet types of table 2.1 with their wire values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// A client asks for a session.
    Connect = 1,
    /// The server's answer to CONNECT.
    ConnAck = 2,
    /// A message.
    Publish = 3,
    /// Acknowledges a message of QoS 1.
    PubAck = 4,
    /// A message of QoS 2 was received.
    PubRec = 5,
    /// A message of QoS 2 may be released.
    PubRel = 6,
    /// A message of QoS 2 is complete.
    PubComp = 7,
    /// A client asks for topics.
    Subscribe = 8,
    /// The server's answer to SUBSCRIBE.
    SubAck = 9,
    /// A client gives topics up.
    Unsubscribe = 10,
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck = 11,
    /// A client shows that it lives.
    PingReq = 12,
    /// The server's answer to PINGREQ.
    PingResp = 13,
    /// A client leaves in good order.
    Disconnect = 14,
}

impl PacketType {
    /// The type that the first byte of a packet announces, its flags checked.
    ///
    /// # Errors
    /// A reserved type or flags that do not belong to it: [`DecodeError::ReservedType`],
    /// [`DecodeError::Flags`], [`DecodeError::PublishQos3`], [`DecodeError::DupAtQos0`].
    pub fn from_first_byte(first: u8) -> Result<PacketType, DecodeError> {
        let flags = first & 0x0f;
        let packet = match first >> 4 {
            1 => PacketType::Connect,
            2 => PacketType::ConnAck,
            3 => PacketType::Publish,
            4 => PacketType::PubAck,
            5 => PacketType::PubRec,
            6 => PacketType::PubRel,
            7 => PacketType::PubComp,
            8 => PacketType::Subscribe,
            9 => PacketType::SubAck,
            10 => PacketType::Unsubscribe,
            11 => PacketType::UnsubAck,
            12 => PacketType::PingReq,
            13 => PacketType::PingResp,
            14 => PacketType::Disconnect,
            reserved => return Err(DecodeError::ReservedType(reserved)),
        };
        match packet {
            PacketType::Publish if flags & 0b0110 == 0b0110 => Err(DecodeError::PublishQos3),
            PacketType::Publish if flags & 0b1110 == 0b1000 => Err(DecodeError::DupAtQos0),
            PacketType::Publish => Ok(packet),
            _ if flags == packet.fixed_flags() => Ok(packet),
            _ => Err(DecodeError::Flags { packet, flags }),
        }
    }

    /// The first byte of every packet of this type; of a PUBLISH, the one without flags.
    pub(crate) fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.fixed_flags()
    }

    /// Table 2.2.
    fn fixed_flags(self) -> u8 {
        match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The remaining length, for the types that have only one.
    fn fixed_len(self) -> Option<usize> {
        match self {
            PacketType::ConnAck
            | PacketType::PubAck
            | PacketType::PubRec
            | PacketType::PubRel
            | PacketType::PubComp
            | PacketType::UnsubAck => Some(2),
            PacketType::PingReq | PacketType::PingResp | PacketType::Disconnect => Some(0),
            PacketType::Connect
            | PacketType::Publish
            | PacketType::Subscribe
            | PacketType::SubAck
            | PacketType::Unsubscribe => None,
        }
    }
}

/// A complete fixed header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) packet: PacketType,
    /// Bytes of the header itself: 2 to 5.
    pub(crate) len: usize,
    /// The remaining length.
    pub(crate) body: usize,
}

impl Header {
    /// Reads the header at the start of `buf`; `None` while it is incomplete.
    pub(crate) fn read(buf: &[u8], max: usize) -> Result<Option<Header>, DecodeError> {
        let Some((&first, rest)) = buf.split_first() else {
            return Ok(None);
        };
        let packet = PacketType::from_first_byte(first)?;
        let mut body = 0;
        for (index, &byte) in rest.iter().take(4).enumerate() {
            body |= usize::from(byte & 0x7f) << (7 * index);
            let len = 2 + index;
            // What is read so far only grows: a header need not be complete to be too large.
            if len + body > max {
                return Err(DecodeError::TooLarge { len: len + body, max });
            }
            if byte & 0x80 == 0 {
                return match packet.fixed_len() {
                    Some(fixed) if fixed != body => Err(DecodeError::WrongLength { packet, len: body }),
                    _ => Ok(Some(Header { packet, len, body })),
                };
            }
        }
        if rest.len() >= 4 {
            return Err(DecodeError::RemainingLength);
        }
        Ok(None)
    }

    /// Splits one whole packet into its header and its body.
    pub(crate) fn split(frame: &[u8]) -> Result<(Header, &[u8]), DecodeError> {
        let header = Header::read(frame, usize::MAX)?.ok_or(DecodeError::Truncated)?;
        let body = &frame[header.len..];
        match body.len().cmp(&header.body) {
            std::cmp::Ordering::Less => Err(DecodeError::Truncated),
            std::cmp::Ordering::Greater => Err(DecodeError::TrailingBytes),
            std::cmp::Ordering::Equal => Ok((header, body)),
        }
    }
}

/// The length in bytes of the packet at the start of `buf`, header included, as soon as its
/// fixed header is complete; the packet itself may still be incomplete. `None` asks for more
/// bytes, which never happens with five or more.
///
/// `max` bounds the whole packet in bytes. A first byte that no packet has, a length over `max`
/// and a length that the packet type cannot have are refused as soon as they show.
///
/// # Errors
/// Those of [`PacketType::from_first_byte`], and [`DecodeError::RemainingLength`],
/// [`DecodeError::TooLarge`], [`DecodeError::WrongLength`].
pub fn frame_len(buf: &[u8], max: usize) -> Result<Option<usize>, DecodeError> {
    Ok(Header::read(buf, max)?.map(|header| header.len + header.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = usize::MAX;

    #[test]
    fn mqtt_2_2_1_reserved_types_are_refused_at_the_first_byte() {
        assert_eq!(frame_len(&[0x00], MAX), Err(DecodeError::ReservedType(0)));
        assert_eq!(frame_len(&[0xf0], MAX), Err(DecodeError::ReservedType(15)));
    }

    #[test]
    fn mqtt_2_2_2_2_every_flag_nibble_but_the_right_one_is_refused_at_the_first_byte() {
        for first in 0..=u8::MAX {
            let flags = first & 0x0f;
            let right = match first >> 4 {
                0 | 15 => false,
                // PUBLISH: QoS 3 and DUP at QoS 0 are the wrong ones.
                3 => !matches!(flags, 6 | 7 | 8 | 9 | 14 | 15),
                6 | 8 | 10 => flags == 2,
                _ => flags == 0,
            };
            assert_eq!(frame_len(&[first], MAX).is_ok(), right, "{first:#04x}");
            assert_eq!(PacketType::from_first_byte(first).is_ok(), right);
        }
        assert_eq!(frame_len(&[0x80], MAX), Err(DecodeError::Flags { packet: PacketType::Subscribe, flags: 0 }));
    }

    #[test]
    fn mqtt_3_3_1_4_publish_with_qos_3_is_refused() {
        assert_eq!(frame_len(&[0x36], MAX), Err(DecodeError::PublishQos3));
        assert_eq!(frame_len(&[0x3f], MAX), Err(DecodeError::PublishQos3));
    }

    #[test]
    fn mqtt_3_3_1_2_dup_at_qos_0_is_refused() {
        assert_eq!(frame_len(&[0x38], MAX), Err(DecodeError::DupAtQos0));
        assert_eq!(frame_len(&[0x39], MAX), Err(DecodeError::DupAtQos0));
        assert_eq!(frame_len(&[0x3a], MAX), Ok(None));
    }

    #[test]
    fn mqtt_2_2_3_table_2_4_borders_of_the_remaining_length() {
        for (bytes, body) in [
            (&[0x30, 0x00][..], 0),
            (&[0x30, 0x7f], 127),
            (&[0x30, 0x80, 0x01], 128),
            (&[0x30, 0xff, 0x7f], 16_383),
            (&[0x30, 0x80, 0x80, 0x01], 16_384),
            (&[0x30, 0xff, 0xff, 0x7f], 2_097_151),
            (&[0x30, 0x80, 0x80, 0x80, 0x01], 2_097_152),
            (&[0x30, 0xff, 0xff, 0xff, 0x7f], MAX_REMAINING_LENGTH),
        ] {
            assert_eq!(frame_len(bytes, MAX), Ok(Some(bytes.len() + body)));
            for end in 0..bytes.len() {
                assert_eq!(frame_len(&bytes[..end], MAX), Ok(None));
            }
        }
    }

    #[test]
    fn mqtt_2_2_3_a_fifth_length_byte_is_refused_before_it_arrives() {
        let endless = [0x30, 0x80, 0x80, 0x80, 0x80];
        assert_eq!(frame_len(&endless, MAX), Err(DecodeError::RemainingLength));
        assert_eq!(frame_len(&endless[..4], MAX), Ok(None));
    }

    /// The standard asks for no shortest form (MQTT 5 does).
    #[test]
    fn mqtt_2_2_3_a_length_with_leading_zeros_is_read() {
        assert_eq!(frame_len(&[0xc0, 0x80, 0x80, 0x00], MAX), Ok(Some(4)));
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_while_its_header_is_incomplete() {
        assert_eq!(frame_len(&[0x30, 98], 100), Ok(Some(100)));
        assert_eq!(frame_len(&[0x30, 99], 100), Err(DecodeError::TooLarge { len: 101, max: 100 }));
        // 127 so far, and more to come.
        assert_eq!(frame_len(&[0x30, 0xff], 100), Err(DecodeError::TooLarge { len: 129, max: 100 }));
    }

    #[test]
    fn packets_of_fixed_size_announce_that_size() {
        for first in [0x20, 0x40, 0x50, 0x62, 0x70, 0xb0] {
            assert_eq!(frame_len(&[first, 2], MAX), Ok(Some(4)));
            for len in [0, 1, 3, 127] {
                assert!(matches!(frame_len(&[first, len], MAX), Err(DecodeError::WrongLength { .. })));
            }
        }
        for first in [0xc0, 0xd0, 0xe0] {
            assert_eq!(frame_len(&[first, 0], MAX), Ok(Some(2)));
            assert!(matches!(frame_len(&[first, 2], MAX), Err(DecodeError::WrongLength { .. })));
        }
    }
}
