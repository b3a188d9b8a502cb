//! The envelope of every PUBLISH in a modern session (osap-wire 13.3, "Envelope").
//!
//! `u8 type | u64 seq | ciphertext | tag`. The sequence counts from 1 in each direction and login,
//! over all QoS, without gaps; topic, direction and number are authentic with the body. Sealing
//! belongs to writing: nothing sealed is kept, and a message that is sent again is sealed again.

use super::seal::{Direction, RecordKey, TAG_LEN};
use crate::suite::Suite;

/// Type and sequence, in clear before the ciphertext.
pub const HEAD_LEN: usize = 9;
/// What an envelope adds to its plaintext.
pub const OVERHEAD: usize = HEAD_LEN + TAG_LEN;
/// How many messages a direction of a login may carry.
pub const MAX_MESSAGES: u64 = 1 << 24;

/// Seals what one side sends. There is one for each direction of a login, and no copy of it: two would seal under the same
/// numbers.
#[derive(Debug)]
pub struct Sealer {
    suite: Suite,
    direction: Direction,
    key: RecordKey,
    seq: u64,
}

/// A direction has carried as many messages as it may: the device has to log in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has carried 2^24 messages in one direction; it has to be renewed")]
pub struct Exhausted;

impl Sealer {
    /// The sealer of one direction of a login.
    #[must_use]
    pub fn new(suite: Suite, direction: Direction, key: RecordKey) -> Self {
        Self { suite, direction, key, seq: 0 }
    }

    /// The number of the message that was sealed last; 0 before the first.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether nothing more can be sealed.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.seq >= MAX_MESSAGES
    }

    /// Seals what stands in `out` behind `start`, for a PUBLISH to `topic`. Returns its number.
    ///
    /// # Errors
    /// [`Exhausted`]; `out` is as before then.
    pub fn seal_tail(&mut self, topic: &str, out: &mut Vec<u8>, start: usize) -> Result<u64, Exhausted> {
        if self.is_exhausted() {
            return Err(Exhausted);
        }
        self.seq += 1;
        let mut head = [0; HEAD_LEN];
        head[0] = self.suite.protocol_type();
        head[1..].copy_from_slice(&self.seq.to_be_bytes());
        let len = out.len() - start;
        out.extend_from_slice(&head);
        out[start..].rotate_right(HEAD_LEN);
        debug_assert_eq!(out.len(), start + HEAD_LEN + len);
        let (direction, topic_len) = bound_to(self.direction, topic);
        let aad: [&[u8]; 5] = [b"osap2-das", &direction, &topic_len, topic.as_bytes(), &head];
        self.key.seal_tail(self.seq, &aad, out, start + HEAD_LEN);
        Ok(self.seq)
    }
}

/// Opens what the other side sent. There is one for each direction of a login: a copy would open a message again.
#[derive(Debug)]
pub struct Opener {
    suite: Suite,
    direction: Direction,
    key: RecordKey,
    seq: u64,
}

/// What a payload is.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// The next message, with its plaintext.
    Next(&'a mut [u8]),
    /// A message that was opened before: to be acknowledged, dropped and counted.
    Repeated,
}

/// Why a payload ends the connection: TCP loses nothing and changes no order, so somebody else did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// Too short, or of another type than the session's.
    #[error("the payload is no envelope of this session's suite")]
    Malformed,
    /// The tag is wrong: another key, another topic, another direction, or somebody has changed it.
    #[error("the envelope does not open: it was not sealed for this topic of this login")]
    Tag,
    /// Messages are missing before it.
    #[error("message {found} came where {expected} was due: messages are missing")]
    Gap {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The direction has carried as many messages as it may.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

impl Opener {
    /// The opener of one direction of a login.
    #[must_use]
    pub fn new(suite: Suite, direction: Direction, key: RecordKey) -> Self {
        Self { suite, direction, key, seq: 0 }
    }

    /// The number of the message that was opened last; 0 before the first.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Opens the payload of a PUBLISH to `topic`, in place: the tag first, then the number.
    ///
    /// # Errors
    /// [`Broken`]; the connection is to be closed.
    pub fn open<'a>(&mut self, topic: &str, payload: &'a mut [u8]) -> Result<Opened<'a>, Broken> {
        if payload.len() < OVERHEAD {
            return Err(Broken::Malformed);
        }
        let (head, sealed) = payload.split_first_chunk_mut::<HEAD_LEN>().ok_or(Broken::Malformed)?;
        let (suite, seq) = head.split_first().ok_or(Broken::Malformed)?;
        if *suite != self.suite.protocol_type() {
            return Err(Broken::Malformed);
        }
        let seq = u64::from_be_bytes(seq.try_into().map_err(|_| Broken::Malformed)?);
        let (direction, topic_len) = bound_to(self.direction, topic);
        let aad: [&[u8]; 5] = [b"osap2-das", &direction, &topic_len, topic.as_bytes(), head];
        let text = self.key.open(seq, &aad, sealed).map_err(|_| Broken::Tag)?;
        if seq <= self.seq {
            return Ok(Opened::Repeated);
        }
        if seq > MAX_MESSAGES {
            return Err(Exhausted.into());
        }
        if seq != self.seq + 1 {
            return Err(Broken::Gap { expected: self.seq + 1, found: seq });
        }
        self.seq = seq;
        Ok(Opened::Next(text))
    }
}

fn bound_to(direction: Direction, topic: &str) -> ([u8; 1], [u8; 2]) {
    let direction = match direction {
        Direction::Up => 0,
        Direction::Down => 1,
    };
    // A topic of MQTT has at most 65,535 bytes.
    ([direction], (topic.len() as u16).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modern::Node;
    use crate::modern::login::record_key;

    const TOPIC: &str = "/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smoke";

    #[test]
    fn osap_13_7_7_a_direction_of_a_login_ends_after_two_to_the_24_messages() {
        let key = record_key(&Node::from_bytes(&[1; 48]).unwrap(), &[2; 48], Direction::Up);
        let mut sealer = Sealer { seq: MAX_MESSAGES - 1, ..Sealer::new(Suite::P384, Direction::Up, key.clone()) };
        let mut opener = Opener { seq: MAX_MESSAGES - 1, ..Opener::new(Suite::P384, Direction::Up, key.clone()) };
        let mut last = b"last".to_vec();
        assert_eq!(sealer.seal_tail(TOPIC, &mut last, 0), Ok(MAX_MESSAGES));
        assert_eq!(opener.open(TOPIC, &mut last), Ok(Opened::Next(&mut b"last"[..].to_vec())));
        let mut kept = b"one more".to_vec();
        assert_eq!(sealer.seal_tail(TOPIC, &mut kept, 0), Err(Exhausted));
        assert_eq!((&kept[..], sealer.seq()), (&b"one more"[..], MAX_MESSAGES));
        // Somebody who knows the key and does not keep the limit.
        let mut sealer = Sealer { seq: MAX_MESSAGES, ..Sealer::new(Suite::P384, Direction::Up, key) };
        sealer.seq -= 1;
        let mut again = b"last".to_vec();
        sealer.seal_tail(TOPIC, &mut again, 0).unwrap();
        assert_eq!(opener.open(TOPIC, &mut again), Ok(Opened::Repeated));
        let mut beyond = vec![Suite::P384.protocol_type()];
        beyond.extend((MAX_MESSAGES + 1).to_be_bytes());
        beyond.extend(b"text");
        let (direction, topic_len) = bound_to(Direction::Up, TOPIC);
        let head: [u8; HEAD_LEN] = *beyond.first_chunk().unwrap();
        let aad: [&[u8]; 5] = [b"osap2-das", &direction, &topic_len, TOPIC.as_bytes(), &head];
        opener.key.clone().seal_tail(MAX_MESSAGES + 1, &aad, &mut beyond, HEAD_LEN);
        assert_eq!(opener.open(TOPIC, &mut beyond), Err(Broken::Exhausted(Exhausted)));
        assert_eq!(opener.seq(), MAX_MESSAGES);
    }
}
