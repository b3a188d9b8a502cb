//! One packet of any type.

use crate::ack;
use crate::connack::ConnAck;
use crate::connect::Connect;
use crate::error::DecodeError;
use crate::frame::{Header, PacketType};
use crate::publish::Publish;
use crate::rules::Rules;
use crate::subscribe::{SubAck, Subscribe, Unsubscribe};

/// A decoded packet; all text and payload lies in the frame it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks for a session.
    Connect(Connect<'a>),
    /// The server's answer to CONNECT.
    ConnAck(ConnAck),
    /// A message.
    Publish(Publish<'a>),
    /// The message of QoS 1 with this packet id is acknowledged.
    PubAck(u16),
    /// The message of QoS 2 with this packet id was received.
    PubRec(u16),
    /// The message of QoS 2 with this packet id may be released.
    PubRel(u16),
    /// The message of QoS 2 with this packet id is complete.
    PubComp(u16),
    /// A client asks for topics.
    Subscribe(Subscribe<'a>),
    /// The server's answer to SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// A client gives topics up.
    Unsubscribe(Unsubscribe<'a>),
    /// The UNSUBSCRIBE with this packet id is done.
    UnsubAck(u16),
    /// A client shows that it lives.
    PingReq,
    /// The server's answer to PINGREQ.
    PingResp,
    /// A client leaves in good order.
    Disconnect,
}

impl Packet<'_> {
    /// The type on the wire.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect => PacketType::Disconnect,
        }
    }
}

/// Decodes exactly one packet: `frame` is what [`frame_len`](crate::frame_len) measured, no
/// more and no less. Both directions are decoded; whether a packet may come from this side is
/// for the session to say.
///
/// # Errors
/// The first clause of the standard, as `rules` read it, that the frame breaks.
pub fn decode<'a>(frame: &'a [u8], rules: &Rules) -> Result<Packet<'a>, DecodeError> {
    let (header, body) = Header::split(frame)?;
    Ok(match header.packet {
        PacketType::Connect => Packet::Connect(Connect::decode(body, rules)?),
        PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(body)?),
        PacketType::Publish => Packet::Publish(Publish::decode(frame[0], body)?),
        PacketType::PubAck => Packet::PubAck(ack::decode(body, rules)?),
        PacketType::PubRec => Packet::PubRec(ack::decode(body, rules)?),
        PacketType::PubRel => Packet::PubRel(ack::decode(body, rules)?),
        PacketType::PubComp => Packet::PubComp(ack::decode(body, rules)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body)?),
        PacketType::SubAck => Packet::SubAck(SubAck::decode(body, rules)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body)?),
        PacketType::UnsubAck => Packet::UnsubAck(ack::decode(body, rules)?),
        // Their empty body is proven by the fixed length of these types.
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect,
    })
}
