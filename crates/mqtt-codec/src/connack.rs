//! CONNACK (MQTT 3.1.1 section 3.2).

use crate::error::DecodeError;
use crate::reader::Reader;

/// The server's answer to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// The server holds a session of this client; only with code 0.
    pub session_present: bool,
    /// 0 accepts, 1 to 5 refuse (table 3.1). Other values are reserved by the standard and in
    /// use by OSAP (osap-wire 9.3: 10, 11, 12); each of them refuses.
    pub code: u8,
}

impl ConnAck {
    pub(crate) fn decode(body: &[u8]) -> Result<ConnAck, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        let code = reader.u8()?;
        reader.finish()?;
        if flags & !1 != 0 {
            return Err(DecodeError::ConnAckReservedFlag);
        }
        let session_present = flags == 1;
        if session_present && code != 0 {
            return Err(DecodeError::SessionPresentRefused);
        }
        Ok(ConnAck { session_present, code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, Rules, decode};

    fn read(flags: u8, code: u8) -> Result<ConnAck, DecodeError> {
        match decode(&[0x20, 2, flags, code], &Rules::STRICT)? {
            Packet::ConnAck(connack) => Ok(connack),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mqtt_3_2_2_session_present_and_code_are_read() {
        for (flags, code, session_present) in [(0, 0, false), (1, 0, true), (0, 5, false)] {
            assert_eq!(read(flags, code), Ok(ConnAck { session_present, code }));
        }
    }

    #[test]
    fn mqtt_3_2_2_1_reserved_flags_are_refused() {
        for bit in 1..8 {
            assert_eq!(read(1 << bit, 0), Err(DecodeError::ConnAckReservedFlag));
        }
    }

    #[test]
    fn mqtt_3_2_2_4_a_refusal_has_no_session() {
        assert_eq!(read(1, 2), Err(DecodeError::SessionPresentRefused));
    }

    #[test]
    fn osap_wire_9_3_codes_of_osap_are_read() {
        for code in [10, 11, 12] {
            assert_eq!(read(0, code).map(|connack| connack.code), Ok(code));
        }
    }
}
