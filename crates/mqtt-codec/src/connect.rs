//! CONNECT (MQTT 3.1.1 section 3.1).

use std::fmt;

use crate::error::DecodeError;
use crate::qos::QoS;
use crate::reader::Reader;
use crate::rules::Rules;
use crate::topic;

/// The protocol name of section 3.1.2.1.
pub(crate) const PROTOCOL_NAME: &[u8] = b"MQTT";
/// The protocol level of section 3.1.2.2.
pub(crate) const PROTOCOL_LEVEL: u8 = 4;

/// The bits of the connect flags (figure 3.4). Bits 3 and 4 are the will QoS.
pub(crate) mod flag {
    pub(crate) const RESERVED: u8 = 1;
    pub(crate) const CLEAN_SESSION: u8 = 1 << 1;
    pub(crate) const WILL: u8 = 1 << 2;
    pub(crate) const WILL_QOS_SHIFT: u8 = 3;
    pub(crate) const WILL_RETAIN: u8 = 1 << 5;
    pub(crate) const PASSWORD: u8 = 1 << 6;
    pub(crate) const USER: u8 = 1 << 7;
}

/// A client's request for a session. Its Debug shows neither the password nor the will payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The session begins empty and ends with the connection.
    pub clean_session: bool,
    /// Seconds between two signs of life of the client; 0 switches the timer off.
    pub keep_alive: u16,
    /// May be empty: the server then names the client itself.
    pub client_id: &'a str,
    /// What the server publishes when the client is lost.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user: Option<&'a str>,
    /// Password: bytes, not text. Only with a user name.
    pub password: Option<&'a [u8]>,
}

/// The will message of a CONNECT. Its Debug shows the length of the payload only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// A topic name. Under [`Rules::OSAP_LEGACY`] the decoder ends it before the first zero
    /// byte of the field and does not look at what follows, which is padding (osap-wire 9.1).
    pub topic: &'a str,
    /// At most 65,535 bytes.
    pub payload: &'a [u8],
    /// Quality of service of the will message.
    pub qos: QoS,
    /// The will message is to be retained.
    pub retain: bool,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("clean_session", &self.clean_session)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user", &self.user)
            .field("password", &self.password.map(|_| format_args!("hidden")))
            .finish()
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish()
    }
}

impl<'a> Connect<'a> {
    pub(crate) fn decode(body: &'a [u8], rules: &Rules) -> Result<Connect<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let name = reader.binary()?;
        let level = reader.u8()?;
        // Before anything else: a client of another version lays the rest out differently.
        if name != PROTOCOL_NAME || level != PROTOCOL_LEVEL {
            return Err(DecodeError::UnsupportedProtocol { level });
        }
        let flags = reader.u8()?;
        if flags & flag::RESERVED != 0 {
            return Err(DecodeError::ConnectReservedFlag);
        }
        let will_qos = QoS::new(flags >> flag::WILL_QOS_SHIFT & 0b11).ok_or(DecodeError::WillQos3)?;
        let has_will = flags & flag::WILL != 0;
        let will_retain = flags & flag::WILL_RETAIN != 0;
        if !has_will && (will_retain || will_qos != QoS::AtMostOnce) {
            return Err(DecodeError::WillFlags);
        }
        let has_user = flags & flag::USER != 0;
        let has_password = flags & flag::PASSWORD != 0;
        if has_password && !has_user {
            return Err(DecodeError::PasswordWithoutUser);
        }
        let clean_session = flags & flag::CLEAN_SESSION != 0;
        let keep_alive = reader.u16()?;

        let client_id = reader.text()?;
        let will = if has_will {
            Some(Will {
                topic: decode_will_topic(&mut reader, rules)?,
                payload: reader.binary()?,
                qos: will_qos,
                retain: will_retain,
            })
        } else {
            None
        };
        let user = has_user.then(|| reader.text()).transpose()?;
        let password = has_password.then(|| reader.binary()).transpose()?;
        reader.finish()?;
        // Last: CONNACK 2 is the answer to a CONNECT that is well-formed in every other way.
        if client_id.is_empty() && !clean_session && !rules.empty_client_id {
            return Err(DecodeError::ClientIdEmpty);
        }
        Ok(Connect { clean_session, keep_alive, client_id, will, user, password })
    }
}

fn decode_will_topic<'a>(reader: &mut Reader<'a>, rules: &Rules) -> Result<&'a str, DecodeError> {
    let mut bytes = reader.binary()?;
    if rules.zero_padded_will_topic {
        let end = bytes.iter().position(|&byte| byte == 0);
        bytes = &bytes[..end.unwrap_or(bytes.len())];
    }
    let name = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?;
    topic::check_name(name)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, TopicError, decode};

    /// A CONNECT with these connect flags and these payload fields, each behind its length.
    fn frame(flags: u8, fields: &[&[u8]]) -> Vec<u8> {
        frame_of(b"MQTT", 4, flags, fields)
    }

    fn frame_of(name: &[u8], level: u8, flags: u8, fields: &[&[u8]]) -> Vec<u8> {
        let mut body = vec![0, name.len() as u8];
        body.extend_from_slice(name);
        body.extend_from_slice(&[level, flags, 0, 60]);
        for field in fields {
            body.extend_from_slice(&(field.len() as u16).to_be_bytes());
            body.extend_from_slice(field);
        }
        let mut frame = vec![0x10, body.len() as u8];
        frame.extend_from_slice(&body);
        frame
    }

    fn read<'a>(frame: &'a [u8], rules: &Rules) -> Result<Connect<'a>, DecodeError> {
        match decode(frame, rules)? {
            Packet::Connect(connect) => Ok(connect),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refused(frame: &[u8], error: DecodeError) {
        assert_eq!(read(frame, &Rules::STRICT), Err(error));
    }

    #[test]
    fn mqtt_3_1_3_1_fields_are_read_in_their_order() {
        let frame = frame(0xf6, &[b"id", b"will/topic", b"\xff\x00", b"user", b"\x00pw"]);
        assert_eq!(
            read(&frame, &Rules::STRICT),
            Ok(Connect {
                clean_session: true,
                keep_alive: 60,
                client_id: "id",
                will: Some(Will { topic: "will/topic", payload: b"\xff\x00", qos: QoS::ExactlyOnce, retain: true }),
                user: Some("user"),
                password: Some(b"\x00pw"),
            })
        );
    }

    #[test]
    fn mqtt_3_1_2_1_another_protocol_name_is_told_apart() {
        for name in [&b"MQIsdp"[..], b"mqtt", b"", b"MQTT\0"] {
            let frame = frame_of(name, 4, 2, &[b"id"]);
            refused(&frame, DecodeError::UnsupportedProtocol { level: 4 });
        }
    }

    #[test]
    fn mqtt_3_1_2_2_another_level_is_answered_with_connack_1() {
        for level in [0, 3, 5, 0x84] {
            let frame = frame_of(b"MQTT", level, 2, &[b"id"]);
            let error = DecodeError::UnsupportedProtocol { level };
            refused(&frame, error);
            assert_eq!(error.connack_code(), Some(1));
        }
        // MQTT 5 has properties behind the keep alive; they do not hide its level.
        let version_5 = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'x'];
        refused(&version_5, DecodeError::UnsupportedProtocol { level: 5 });
    }

    #[test]
    fn mqtt_3_1_2_3_the_reserved_connect_flag_is_refused() {
        refused(&frame(0x03, &[b"id"]), DecodeError::ConnectReservedFlag);
    }

    #[test]
    fn mqtt_3_1_2_11_will_qos_and_retain_need_a_will() {
        for flags in [0x0a, 0x12, 0x22, 0x2a] {
            refused(&frame(flags, &[b"id"]), DecodeError::WillFlags);
        }
    }

    #[test]
    fn mqtt_3_1_2_14_will_qos_3_is_refused() {
        refused(&frame(0x1e, &[b"id", b"t", b""]), DecodeError::WillQos3);
        refused(&frame(0x1a, &[b"id"]), DecodeError::WillQos3);
    }

    #[test]
    fn mqtt_3_1_2_22_a_password_needs_a_user() {
        refused(&frame(0x42, &[b"id", b"pw"]), DecodeError::PasswordWithoutUser);
        let user_only = frame(0x82, &[b"id", b"user"]);
        assert_eq!(read(&user_only, &Rules::STRICT).map(|c| c.password), Ok(None));
    }

    #[test]
    fn mqtt_3_1_3_8_an_empty_client_id_without_clean_session_is_answered_with_connack_2() {
        refused(&frame(0x00, &[b""]), DecodeError::ClientIdEmpty);
        assert_eq!(DecodeError::ClientIdEmpty.connack_code(), Some(2));
        assert!(read(&frame(0x02, &[b""]), &Rules::STRICT).is_ok());
        // A packet that is broken as well is no CONNECT to answer.
        let mut broken = frame(0x00, &[b"", b"x"]);
        refused(&broken, DecodeError::TrailingBytes);
        broken[9] = 1;
        refused(&broken, DecodeError::ConnectReservedFlag);
        assert_eq!(DecodeError::ConnectReservedFlag.connack_code(), None);
    }

    #[test]
    fn osap_wire_9_10_2_an_empty_client_id_without_clean_session_is_tolerated() {
        let frame = frame(0x00, &[b""]);
        let connect = read(&frame, &Rules::OSAP_LEGACY).unwrap();
        assert_eq!((connect.client_id, connect.clean_session), ("", false));
    }

    #[test]
    fn mqtt_1_5_3_1_and_2_text_fields_are_utf_8_without_nul() {
        let fields: [&[u8]; 4] = [b"id", b"topic", b"payload", b"user"];
        for (at, nul) in [(0, DecodeError::Nul), (1, DecodeError::Topic(TopicError::Nul)), (3, DecodeError::Nul)] {
            let mut broken = fields;
            broken[at] = b"a\0b";
            refused(&frame(0x86, &broken), nul);
            // Unfinished, overlong, surrogate, beyond U+10FFFF.
            for bytes in [&b"\xc3"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
                broken[at] = bytes;
                refused(&frame(0x86, &broken), DecodeError::Utf8);
            }
        }
    }

    #[test]
    fn mqtt_1_5_3_3_a_byte_order_mark_is_kept() {
        let frame = frame(0x02, &["\u{feff}id".as_bytes()]);
        let connect = read(&frame, &Rules::STRICT).unwrap();
        assert_eq!(connect.client_id, "\u{feff}id");
    }

    #[test]
    fn mqtt_4_7_1_1_the_will_topic_is_a_topic_name() {
        for (topic, error) in
            [(&b"a/+"[..], TopicError::WildcardInName), (b"#", TopicError::WildcardInName), (b"", TopicError::Empty)]
        {
            let frame = frame(0x06, &[b"id", topic, b""]);
            refused(&frame, DecodeError::Topic(error));
        }
    }

    #[test]
    fn osap_wire_9_10_1_a_padded_will_topic_ends_at_its_first_zero() {
        let frame = frame(0x06, &[b"id", b"/Basic/x\0\xff\0", b"record"]);
        let will = read(&frame, &Rules::OSAP_LEGACY).unwrap().will.unwrap();
        assert_eq!((will.topic, will.payload), ("/Basic/x", &b"record"[..]));
        assert!(read(&frame, &Rules::STRICT).is_err());
        let nothing = self::frame(0x06, &[b"id", b"\0\0", b"record"]);
        assert_eq!(read(&nothing, &Rules::OSAP_LEGACY), Err(DecodeError::Topic(TopicError::Empty)));
    }

    #[test]
    fn mqtt_3_1_a_packet_that_ends_early_or_late_is_refused() {
        let whole = frame(0xf6, &[b"id", b"topic", b"payload", b"user", b"pw"]);
        for end in 2..whole.len() {
            let mut short = whole[..end].to_vec();
            short[1] = (end - 2) as u8;
            // An early end shows before anything else, or as the missing name.
            refused(&short, DecodeError::Truncated);
        }
        let mut long = whole;
        long.push(0);
        long[1] += 1;
        refused(&long, DecodeError::TrailingBytes);
    }

    #[test]
    fn debug_shows_neither_password_nor_will_payload() {
        let frame = frame(0xc6, &[b"id", b"topic", b"record", b"user", b"secret"]);
        let shown = format!("{:?}", read(&frame, &Rules::STRICT).unwrap());
        assert!(shown.contains("user") && shown.contains("hidden"));
        let bytes = |text: &str| format!("{:?}", text.as_bytes());
        for secret in ["record", "secret"] {
            assert!(!shown.contains(secret) && !shown.contains(&bytes(secret)));
        }
    }
}
