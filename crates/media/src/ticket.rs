//! Tickets: signed, expiring permissions to send or fetch one thing (media 10). Without clock and without IO.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use vestibule_store::Secret;

const PREFIX: &str = "mt1.";
const VERSION: u8 = 1;
const PAYLOAD: usize = 44;
const MAC: usize = 16;
/// Characters of a ticket.
const LENGTH: usize = PREFIX.len() + (PAYLOAD + MAC) * 4 / 3;

/// What a ticket permits (media 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TicketKind {
    /// To see a stream.
    Live = 1,
    /// To see recordings.
    Recordings = 2,
    /// To send one object, once.
    Upload = 3,
    /// To fetch one picture or file.
    Object = 4,
    /// To fetch firmware.
    Firmware = 5,
    /// To talk.
    Talk = 6,
    /// To send a stream.
    Publish = 7,
}

impl TicketKind {
    fn from_wire(byte: u8) -> Option<TicketKind> {
        use TicketKind::{Firmware, Live, Object, Publish, Recordings, Talk, Upload};
        [Live, Recordings, Upload, Object, Firmware, Talk, Publish].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What it permits.
    pub kind: TicketKind,
    /// None are in use; a ticket with any is refused.
    pub flags: u16,
    /// When it expires, Unix seconds.
    pub expiry: u64,
    /// The object, or the session of a stream.
    pub id: Uuid,
    /// Where it may be used, see [`scope`].
    pub scope: [u8; 16],
}

/// Where a ticket may be used: the first 16 bytes of the SHA-256 of the canonical path.
pub fn scope(path: &str) -> [u8; 16] {
    let whole = digest(&SHA256, path.as_bytes());
    let mut scope = [0; 16];
    scope.copy_from_slice(&whole.as_ref()[..16]);
    scope
}

/// A key that tickets are signed with.
pub struct TicketKey(hmac::Key);

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

impl TicketKey {
    /// Takes the bytes of a key.
    pub fn new(key: &Secret) -> TicketKey {
        TicketKey(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// The text of a ticket.
    pub fn sign(&self, ticket: &Ticket) -> String {
        let mut bytes = [0; PAYLOAD + MAC];
        bytes[0] = VERSION;
        bytes[1] = ticket.kind as u8;
        bytes[2..4].copy_from_slice(&ticket.flags.to_be_bytes());
        bytes[4..12].copy_from_slice(&ticket.expiry.to_be_bytes());
        bytes[12..28].copy_from_slice(ticket.id.as_bytes());
        bytes[28..PAYLOAD].copy_from_slice(&ticket.scope);
        let mac = self.mac(&bytes[..PAYLOAD]);
        bytes[PAYLOAD..].copy_from_slice(&mac);
        let mut text = String::with_capacity(LENGTH);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        text
    }

    /// What a ticket says, if this key has signed it. Whether it has expired is for the caller to see, who has a clock.
    pub fn open(&self, text: &str) -> Option<Ticket> {
        if text.len() != LENGTH {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (payload, mac) = bytes.split_at_checked(PAYLOAD)?;
        constant_time::verify_slices_are_equal(&self.mac(payload), mac).ok()?;
        let payload: &[u8; PAYLOAD] = payload.try_into().ok()?;
        let [version, kind, flags @ ..] = payload.first_chunk::<4>()?;
        if *version != VERSION {
            return None;
        }
        Some(Ticket {
            kind: TicketKind::from_wire(*kind)?,
            flags: u16::from_be_bytes(*flags),
            expiry: u64::from_be_bytes(payload[4..12].try_into().ok()?),
            id: Uuid::from_slice(&payload[12..28]).ok()?,
            scope: payload[28..].try_into().ok()?,
        })
    }

    fn mac(&self, payload: &[u8]) -> [u8; MAC] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"mt1");
        context.update(payload);
        let mut mac = [0; MAC];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8) -> TicketKey {
        TicketKey::new(&Secret::new((first..first + 32).collect::<Vec<u8>>()))
    }

    fn ticket() -> Ticket {
        Ticket {
            kind: TicketKind::Live,
            flags: 0,
            expiry: 1_795_214_614,
            id: Uuid::from_bytes([0x11; 16]),
            scope: scope("/dev1/global/channel/1"),
        }
    }

    /// The vector of media 10.
    const VECTOR: &str = "mt1.AQEAAAAAAABrAM0WERERERERERERERERERERETXfedW0IxCryz6ubivC9s0zq9aAjM5aqNO6qmLskTCL";

    #[test]
    fn the_vector_is_signed_and_opened() {
        assert_eq!(key(0).sign(&ticket()), VECTOR);
        assert_eq!(key(0).open(VECTOR), Some(ticket()));
        assert_eq!(key(1).open(VECTOR), None, "another key");
    }

    #[test]
    fn every_changed_or_missing_character_is_noticed() {
        for at in 0..VECTOR.len() {
            let mut changed = VECTOR.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("text");
            assert_eq!(key(0).open(&changed), None, "character {at}");
            assert_eq!(key(0).open(&VECTOR[..at]), None, "length {at}");
        }
        assert_eq!(key(0).open(&format!("{VECTOR}A")), None);
        assert_eq!(key(0).open(""), None);
    }

    #[test]
    fn every_kind_comes_back() {
        for byte in 0..=u8::MAX {
            let Some(kind) = TicketKind::from_wire(byte) else {
                assert!(!(1..=7).contains(&byte));
                continue;
            };
            assert_eq!(kind as u8, byte);
            let made = Ticket { kind, flags: 0x0102, ..ticket() };
            assert_eq!(key(5).open(&key(5).sign(&made)), Some(made));
        }
    }
}
