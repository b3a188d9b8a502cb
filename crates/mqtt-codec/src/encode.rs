//! Writes packets at the end of a buffer.
//!
//! What the encoder writes, the decoder reads back unchanged under the same rules: a request
//! for anything else is an [`EncodeError`], and the buffer is then as it was. The functions
//! without a result cannot fail; acknowledgements repeat the packet id they are given.

use crate::connack::ConnAck;
use crate::connect::{self, Connect};
use crate::error::EncodeError;
use crate::frame::{MAX_REMAINING_LENGTH, PacketType};
use crate::packet::Packet;
use crate::publish::{self, PublishHead};
use crate::qos::QoS;
use crate::rules::Rules;
use crate::subscribe::valid_code;
use crate::topic;

/// Writes any packet, a CONNECT under [`Rules::STRICT`].
///
/// # Errors
/// Those of the function for the packet's type.
pub fn packet(packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match packet {
        Packet::Connect(packet) => connect(packet, out)?,
        Packet::ConnAck(packet) => connack(packet, out),
        Packet::Publish(packet) => publish(&packet.head, packet.payload, out)?,
        Packet::PubAck(id) => puback(*id, out),
        Packet::PubRec(id) => pubrec(*id, out),
        Packet::PubRel(id) => pubrel(*id, out),
        Packet::PubComp(id) => pubcomp(*id, out),
        Packet::Subscribe(packet) => subscribe(packet.packet_id, packet.filters, out)?,
        Packet::SubAck(packet) => suback(packet.packet_id, packet.codes, out)?,
        Packet::Unsubscribe(packet) => unsubscribe(packet.packet_id, packet.filters, out)?,
        Packet::UnsubAck(id) => unsuback(*id, out),
        Packet::PingReq => pingreq(out),
        Packet::PingResp => pingresp(out),
        Packet::Disconnect => disconnect(out),
    }
    Ok(())
}

/// Writes a CONNECT as the standard wants it.
///
/// # Errors
/// A field that is too long or breaks a rule for it.
pub fn connect(packet: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    connect_under(packet, &Rules::STRICT, out)
}

/// Writes a CONNECT with the freedoms of `rules`. Under [`Rules::OSAP_LEGACY`] the will topic is
/// written with the zero bytes it contains (osap-wire 9.1: padded to 128), and an empty client
/// id needs no clean session.
///
/// # Errors
/// A field that is too long or breaks a rule for it.
pub fn connect_under(packet: &Connect<'_>, rules: &Rules, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if packet.client_id.is_empty() && !packet.clean_session && !rules.empty_client_id {
        return Err(EncodeError::ClientIdEmpty);
    }
    if packet.password.is_some() && packet.user.is_none() {
        return Err(EncodeError::PasswordWithoutUser);
    }
    let mut flags = 0;
    // Protocol name, level, flags, keep alive.
    let mut body = 2 + connect::PROTOCOL_NAME.len() + 1 + 1 + 2;
    if packet.clean_session {
        flags |= connect::flag::CLEAN_SESSION;
    }
    body += text_len("client id", packet.client_id)?;
    if let Some(will) = &packet.will {
        flags |= connect::flag::WILL | will.qos.value() << connect::flag::WILL_QOS_SHIFT;
        if will.retain {
            flags |= connect::flag::WILL_RETAIN;
        }
        let name = match will.topic.split_once('\0') {
            Some((name, _)) if rules.zero_padded_will_topic => name,
            _ => will.topic,
        };
        topic::check_name(name)?;
        body += field_len("will topic", will.topic.len())?;
        body += field_len("will payload", will.payload.len())?;
    }
    if let Some(user) = packet.user {
        flags |= connect::flag::USER;
        body += text_len("user name", user)?;
    }
    if let Some(password) = packet.password {
        flags |= connect::flag::PASSWORD;
        body += field_len("password", password.len())?;
    }

    start(PacketType::Connect.first_byte(), body, out)?;
    field(connect::PROTOCOL_NAME, out);
    out.push(connect::PROTOCOL_LEVEL);
    out.push(flags);
    out.extend_from_slice(&packet.keep_alive.to_be_bytes());
    field(packet.client_id.as_bytes(), out);
    if let Some(will) = &packet.will {
        field(will.topic.as_bytes(), out);
        field(will.payload, out);
    }
    if let Some(user) = packet.user {
        field(user.as_bytes(), out);
    }
    if let Some(password) = packet.password {
        field(password, out);
    }
    Ok(())
}

/// Writes a CONNACK. Session present is written with code 0 only ([MQTT-3.2.2-4]).
pub fn connack(packet: &ConnAck, out: &mut Vec<u8>) {
    let session_present = packet.session_present && packet.code == 0;
    let first = PacketType::ConnAck.first_byte();
    out.extend_from_slice(&[first, 2, u8::from(session_present), packet.code]);
}

/// Writes a PUBLISH.
///
/// # Errors
/// An invalid topic name, a packet id that does not go with the QoS, a packet too large.
pub fn publish(head: &PublishHead<'_>, payload: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    publish_head(head, payload.len(), out)?;
    out.extend_from_slice(payload);
    Ok(())
}

/// Writes a PUBLISH whose payload `write` appends itself, as sealing straight into the send
/// buffer does. `write` appends exactly `payload_len` bytes and leaves what is there alone.
///
/// # Errors
/// As [`publish`], and [`EncodeError::PayloadLength`] when `write` breaks its promise.
pub fn publish_with(
    head: &PublishHead<'_>,
    payload_len: usize,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<(), EncodeError> {
    let before = out.len();
    publish_head(head, payload_len, out)?;
    let payload_at = out.len();
    write(out);
    if out.len() != payload_at + payload_len {
        let written = out.len().saturating_sub(payload_at);
        out.truncate(before);
        return Err(EncodeError::PayloadLength { announced: payload_len, written });
    }
    Ok(())
}

/// The size in bytes of the whole PUBLISH that [`publish`] would write.
///
/// # Errors
/// As [`publish`].
pub fn publish_len(head: &PublishHead<'_>, payload_len: usize) -> Result<usize, EncodeError> {
    let body = publish_body(head, payload_len)?;
    Ok(1 + length_len(body) + body)
}

/// Writes a PUBACK.
pub fn puback(packet_id: u16, out: &mut Vec<u8>) {
    ack(PacketType::PubAck, packet_id, out);
}

/// Writes a PUBREC.
pub fn pubrec(packet_id: u16, out: &mut Vec<u8>) {
    ack(PacketType::PubRec, packet_id, out);
}

/// Writes a PUBREL.
pub fn pubrel(packet_id: u16, out: &mut Vec<u8>) {
    ack(PacketType::PubRel, packet_id, out);
}

/// Writes a PUBCOMP.
pub fn pubcomp(packet_id: u16, out: &mut Vec<u8>) {
    ack(PacketType::PubComp, packet_id, out);
}

/// Writes a SUBSCRIBE. `filters` yields `(filter, requested QoS)`; it is walked more than once.
///
/// # Errors
/// No filter, an invalid one, packet id 0, a packet too large.
pub fn subscribe<'f>(
    packet_id: u16,
    filters: impl IntoIterator<Item = (&'f str, QoS)> + Clone,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let names = filters.clone().into_iter().map(|(filter, _)| filter);
    start_filters(PacketType::Subscribe, packet_id, names, 1, out)?;
    for (filter, qos) in filters {
        field(filter.as_bytes(), out);
        out.push(qos.value());
    }
    Ok(())
}

/// Writes a SUBACK: one code for each filter of the SUBSCRIBE, in their order.
///
/// # Errors
/// No code, one that the standard does not know, a packet too large.
pub fn suback(packet_id: u16, codes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if codes.is_empty() {
        return Err(EncodeError::NoReturnCodes);
    }
    if let Some(&code) = codes.iter().find(|&&code| !valid_code(code)) {
        return Err(EncodeError::ReturnCode(code));
    }
    start(PacketType::SubAck.first_byte(), 2 + codes.len(), out)?;
    out.extend_from_slice(&packet_id.to_be_bytes());
    out.extend_from_slice(codes);
    Ok(())
}

/// Writes an UNSUBSCRIBE; `filters` is walked more than once.
///
/// # Errors
/// No filter, an invalid one, packet id 0, a packet too large.
pub fn unsubscribe<'f>(
    packet_id: u16,
    filters: impl IntoIterator<Item = &'f str> + Clone,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let names = filters.clone().into_iter();
    start_filters(PacketType::Unsubscribe, packet_id, names, 0, out)?;
    for filter in filters {
        field(filter.as_bytes(), out);
    }
    Ok(())
}

/// Writes an UNSUBACK.
pub fn unsuback(packet_id: u16, out: &mut Vec<u8>) {
    ack(PacketType::UnsubAck, packet_id, out);
}

/// Writes a PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingReq.first_byte(), 0]);
}

/// Writes a PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
}

/// Writes a DISCONNECT.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::Disconnect.first_byte(), 0]);
}

fn ack(packet: PacketType, packet_id: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[packet.first_byte(), 2, high, low]);
}

fn publish_head(head: &PublishHead<'_>, payload_len: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let body = publish_body(head, payload_len)?;
    let mut first = PacketType::Publish.first_byte() | head.qos.value() << publish::flag::QOS_SHIFT;
    if head.dup {
        first |= publish::flag::DUP;
    }
    if head.retain {
        first |= publish::flag::RETAIN;
    }
    start(first, body, out)?;
    field(head.topic.as_bytes(), out);
    if let Some(id) = head.packet_id {
        out.extend_from_slice(&id.to_be_bytes());
    }
    Ok(())
}

/// Checks the head and counts the remaining length.
fn publish_body(head: &PublishHead<'_>, payload_len: usize) -> Result<usize, EncodeError> {
    topic::check_name(head.topic)?;
    let id_len = match (head.qos, head.packet_id) {
        (QoS::AtMostOnce, None) if head.dup => return Err(EncodeError::DupAtQos0),
        (QoS::AtMostOnce, None) => 0,
        (QoS::AtMostOnce, Some(_)) | (_, None) => return Err(EncodeError::PacketIdQos),
        (_, Some(0)) => return Err(EncodeError::PacketIdZero),
        (_, Some(_)) => 2,
    };
    let body = (2 + head.topic.len() + id_len).saturating_add(payload_len);
    if body > MAX_REMAINING_LENGTH {
        return Err(EncodeError::TooLarge(body));
    }
    Ok(body)
}

/// Checks the filters and writes all that stands before them; `extra` bytes follow each.
fn start_filters<'f>(
    packet: PacketType,
    packet_id: u16,
    filters: impl Iterator<Item = &'f str>,
    extra: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if packet_id == 0 {
        return Err(EncodeError::PacketIdZero);
    }
    let mut body = 2;
    for filter in filters {
        topic::check_filter(filter)?;
        body += 2 + filter.len() + extra;
    }
    if body == 2 {
        return Err(EncodeError::NoFilters);
    }
    start(packet.first_byte(), body, out)?;
    out.extend_from_slice(&packet_id.to_be_bytes());
    Ok(())
}

/// Writes the fixed header and makes room for the body.
fn start(first: u8, body: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if body > MAX_REMAINING_LENGTH {
        return Err(EncodeError::TooLarge(body));
    }
    out.reserve(1 + length_len(body) + body);
    out.push(first);
    let mut rest = body;
    while rest > 0x7f {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    Ok(())
}

/// Bytes of the remaining length itself.
fn length_len(body: usize) -> usize {
    match body {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Bytes of a string on the wire, its length field included.
fn text_len(name: &'static str, text: &str) -> Result<usize, EncodeError> {
    if text.as_bytes().contains(&0) {
        return Err(EncodeError::Nul(name));
    }
    field_len(name, text.len())
}

/// Bytes of a field on the wire, its length field included.
fn field_len(field: &'static str, len: usize) -> Result<usize, EncodeError> {
    if len > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong { field, len });
    }
    Ok(2 + len)
}

/// Writes a field behind its length; the length was checked by [`field_len`] or by the topic
/// rules before anything was written.
fn field(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
