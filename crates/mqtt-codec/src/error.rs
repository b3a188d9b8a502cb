//! What can be wrong with a packet that came in, and with one that is to go out.

use crate::frame::PacketType;
use crate::topic::TopicError;

/// The peer sent bytes that are not MQTT 3.1.1. The answer to each is to close the connection
/// ([MQTT-4.8.0-1]), preceded by a CONNACK where [`DecodeError::connack_code`] names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Packet type 0 or 15.
    #[error("packet type {0} is reserved (MQTT 3.1.1 table 2.1)")]
    ReservedType(u8),
    /// The lower half of the first byte is not what the packet type demands.
    #[error("flags {flags:#06b} are wrong for {packet:?} [MQTT-2.2.2-2]")]
    Flags {
        /// The packet type they came with.
        packet: PacketType,
        /// The lower four bits of the first byte.
        flags: u8,
    },
    /// A PUBLISH with both QoS bits set.
    #[error("PUBLISH with QoS 3 [MQTT-3.3.1-4]")]
    PublishQos3,
    /// A PUBLISH of QoS 0 that claims to be a repetition.
    #[error("PUBLISH of QoS 0 with DUP [MQTT-3.3.1-2]")]
    DupAtQos0,
    /// The remaining length runs on after its fourth byte.
    #[error("remaining length of more than four bytes (MQTT 3.1.1 section 2.2.3)")]
    RemainingLength,
    /// The packet is larger than the receiver allows. Known from the fixed header alone; the
    /// length may be a lower bound while the header is still incomplete.
    #[error("packet of at least {len} bytes, {max} are allowed")]
    TooLarge {
        /// Bytes of the whole packet, as far as known.
        len: usize,
        /// What the receiver allows.
        max: usize,
    },
    /// A packet of fixed size announces another size.
    #[error("{packet:?} with remaining length {len} (MQTT 3.1.1 section 3)")]
    WrongLength {
        /// The packet type.
        packet: PacketType,
        /// The remaining length it announces.
        len: usize,
    },
    /// The packet ends inside a field.
    #[error("packet ends inside a field (MQTT 3.1.1 section 3)")]
    Truncated,
    /// Bytes are left over behind the last field.
    #[error("bytes behind the last field (MQTT 3.1.1 section 3)")]
    TrailingBytes,
    /// [`split_publish`](crate::split_publish) got another packet.
    #[error("{0:?} where a PUBLISH is expected")]
    NotPublish(PacketType),
    /// A string is not well-formed UTF-8.
    #[error("string is not UTF-8 [MQTT-1.5.3-1]")]
    Utf8,
    /// A string contains U+0000.
    #[error("string contains U+0000 [MQTT-1.5.3-2]")]
    Nul,
    /// A packet identifier of 0 where the packet needs one.
    #[error("packet identifier 0 [MQTT-2.3.1-1]")]
    PacketIdZero,
    /// The protocol is not `MQTT` level 4: MQTT 3.1, MQTT 5, or no MQTT at all. A server
    /// answers CONNACK 1.
    #[error("protocol is not MQTT 3.1.1: level {level} [MQTT-3.1.2-1, MQTT-3.1.2-2]")]
    UnsupportedProtocol {
        /// The level the client asks for: 3 is MQTT 3.1, 5 is MQTT 5.
        level: u8,
    },
    /// Bit 0 of the connect flags is set.
    #[error("reserved connect flag is set [MQTT-3.1.2-3]")]
    ConnectReservedFlag,
    /// Will QoS or will retain without a will.
    #[error("will QoS or will retain without will flag [MQTT-3.1.2-11]")]
    WillFlags,
    /// Will QoS 3.
    #[error("will QoS 3 [MQTT-3.1.2-14]")]
    WillQos3,
    /// A password flag without a user name flag.
    #[error("password without user name [MQTT-3.1.2-22]")]
    PasswordWithoutUser,
    /// An empty client id that asks for a lasting session. The packet is well-formed in every
    /// other way; a server answers CONNACK 2.
    #[error("empty client id without clean session [MQTT-3.1.3-8]")]
    ClientIdEmpty,
    /// Bits 7 to 1 of the CONNACK flags are not 0.
    #[error("reserved CONNACK flag is set (MQTT 3.1.1 section 3.2.2.1)")]
    ConnAckReservedFlag,
    /// A refusing CONNACK that claims a stored session.
    #[error("session present in a refusing CONNACK [MQTT-3.2.2-4]")]
    SessionPresentRefused,
    /// SUBSCRIBE or UNSUBSCRIBE without a topic filter.
    #[error("no topic filter [MQTT-3.8.3-3, MQTT-3.10.3-2]")]
    NoFilters,
    /// A requested QoS above 2 or with reserved bits set.
    #[error("requested QoS byte {0:#04x} [MQTT-3-8.3-4]")]
    RequestedQos(u8),
    /// A SUBACK without a return code.
    #[error("SUBACK without return code [MQTT-3.8.4-5]")]
    NoReturnCodes,
    /// A SUBACK return code other than 0, 1, 2 and 0x80.
    #[error("SUBACK return code {0:#04x} [MQTT-3.9.3-2]")]
    ReturnCode(u8),
    /// A topic name or filter breaks the rules of section 4.7.
    #[error(transparent)]
    Topic(#[from] TopicError),
}

impl DecodeError {
    /// The return code a server puts into a CONNACK before it closes, for a CONNECT that failed
    /// this way: 1 for the protocol, 2 for the client id. `None`: close without an answer.
    pub fn connack_code(&self) -> Option<u8> {
        match self {
            DecodeError::UnsupportedProtocol { .. } => Some(1),
            DecodeError::ClientIdEmpty => Some(2),
            _ => None,
        }
    }
}

/// The caller asked for a packet that MQTT 3.1.1 cannot carry. The output is as it was before
/// the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A field behind a two-byte length is longer than 65,535 bytes.
    #[error("{field} of {len} bytes, 65535 fit (MQTT 3.1.1 section 1.5.3)")]
    FieldTooLong {
        /// Which one, in the words of the standard.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The packet does not fit the remaining length.
    #[error("remaining length {0} is over 268435455 (MQTT 3.1.1 section 2.2.3)")]
    TooLarge(usize),
    /// A string contains U+0000.
    #[error("{0} contains U+0000 [MQTT-1.5.3-2]")]
    Nul(&'static str),
    /// Packet identifier 0 in SUBSCRIBE, UNSUBSCRIBE or a PUBLISH above QoS 0.
    #[error("packet identifier 0 [MQTT-2.3.1-1]")]
    PacketIdZero,
    /// A PUBLISH of QoS 0 with a packet identifier, or one above QoS 0 without.
    #[error("packet identifier and QoS disagree [MQTT-2.3.1-5]")]
    PacketIdQos,
    /// A PUBLISH of QoS 0 marked as a repetition.
    #[error("PUBLISH of QoS 0 with DUP [MQTT-3.3.1-2]")]
    DupAtQos0,
    /// A password without a user name.
    #[error("password without user name [MQTT-3.1.2-22]")]
    PasswordWithoutUser,
    /// An empty client id without clean session.
    #[error("empty client id without clean session [MQTT-3.1.3-7]")]
    ClientIdEmpty,
    /// SUBSCRIBE or UNSUBSCRIBE without a topic filter.
    #[error("no topic filter [MQTT-3.8.3-3, MQTT-3.10.3-2]")]
    NoFilters,
    /// A SUBACK without a return code.
    #[error("SUBACK without return code [MQTT-3.8.4-5]")]
    NoReturnCodes,
    /// A SUBACK return code other than 0, 1, 2 and 0x80.
    #[error("SUBACK return code {0:#04x} [MQTT-3.9.3-2]")]
    ReturnCode(u8),
    /// The writer of a payload wrote another length than it announced.
    #[error("payload of {written} bytes, {announced} were announced")]
    PayloadLength {
        /// What the caller announced.
        announced: usize,
        /// What its function appended.
        written: usize,
    },
    /// A topic name or filter breaks the rules of section 4.7.
    #[error(transparent)]
    Topic(#[from] TopicError),
}
