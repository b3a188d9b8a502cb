//! The packets that carry a packet identifier and nothing else.

use crate::error::DecodeError;
use crate::reader::Reader;
use crate::rules::Rules;

/// The identifier of an acknowledgement. The standard never acknowledges 0, because it never
/// numbers a packet 0 ([MQTT-2.3.1-1], [MQTT-2.3.1-6]); an OSAP device may (osap-wire 9.10).
pub(crate) fn decode_id(reader: &mut Reader<'_>, rules: &Rules) -> Result<u16, DecodeError> {
    if rules.ack_of_zero { reader.u16() } else { reader.packet_id() }
}

/// The body of PUBACK, PUBREC, PUBREL, PUBCOMP and UNSUBACK.
pub(crate) fn decode(body: &[u8], rules: &Rules) -> Result<u16, DecodeError> {
    let mut reader = Reader::new(body);
    let id = decode_id(&mut reader, rules)?;
    reader.finish()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use crate::{DecodeError, Packet, Rules, decode};

    const FIRST_BYTES: [u8; 5] = [0x40, 0x50, 0x62, 0x70, 0xb0];

    #[test]
    fn mqtt_3_4_to_3_7_and_3_11_carry_one_packet_id() {
        for (first, packet) in FIRST_BYTES.into_iter().zip([
            Packet::PubAck(0x0102),
            Packet::PubRec(0x0102),
            Packet::PubRel(0x0102),
            Packet::PubComp(0x0102),
            Packet::UnsubAck(0x0102),
        ]) {
            assert_eq!(decode(&[first, 2, 1, 2], &Rules::STRICT), Ok(packet));
        }
    }

    #[test]
    fn mqtt_2_3_1_6_packet_id_0_is_never_acknowledged() {
        for first in FIRST_BYTES {
            assert_eq!(decode(&[first, 2, 0, 0], &Rules::STRICT), Err(DecodeError::PacketIdZero));
        }
    }

    #[test]
    fn osap_wire_9_10_8_packet_id_0_in_an_acknowledgement_is_tolerated() {
        for first in FIRST_BYTES {
            assert!(decode(&[first, 2, 0, 0], &Rules::OSAP_LEGACY).is_ok());
        }
        assert_eq!(decode(&[0x40, 2, 0, 0], &Rules::OSAP_LEGACY), Ok(Packet::PubAck(0)));
    }
}
