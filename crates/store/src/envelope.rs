//! Secrets at rest: sealed under one key of the installation.
//!
//! A sealed value is `format (1) | key id (4) | nonce (12) | ciphertext | tag (16)`, AES-256-GCM. The associated data name
//! the table, the column and the row, so that a value moved elsewhere does not open. The key id says which key sealed a
//! value; the database says under which one all of them are ([`recorded`]). Which columns there are is said once
//! ([`sealed`]): what seals and what moves everything to another key go by the same list.

pub(crate) mod keeping;
mod key;
pub(crate) mod recorded;
pub(crate) mod sealed;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

pub use key::EnvelopeKey;
pub(crate) use sealed::Sealed;

use crate::{Secret, StoreError};

const FORMAT: u8 = 1;
const KEY_ID: usize = 4;
const NONCE: usize = 12;
const TAG: usize = 16;
const HEAD: usize = 1 + KEY_ID + NONCE;

/// Where a sealed value stands. Table, column and what identifies the row are the associated data.
pub(crate) struct Place<'a> {
    /// Table and column.
    pub(crate) column: Sealed,
    /// What identifies the row.
    pub(crate) row: &'a [u8],
}

impl Place<'_> {
    fn aad(&self) -> Aad<Vec<u8>> {
        let column = self.column.column();
        let mut bytes = Vec::with_capacity(column.table.len() + column.name.len() + 2 + self.row.len());
        bytes.extend_from_slice(column.table.as_bytes());
        bytes.push(b'/');
        bytes.extend_from_slice(column.name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(self.row);
        Aad::from(bytes)
    }
}

/// Seals and opens under the installation's envelope key.
pub(crate) struct Envelope {
    key: LessSafeKey,
    key_id: [u8; KEY_ID],
}

impl Envelope {
    pub(crate) fn new(key: &EnvelopeKey) -> Envelope {
        let (bytes, key_id) = (key.bytes(), key.id_bytes());
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("an AES-256 key has 32 bytes");
        Envelope { key: LessSafeKey::new(key), key_id }
    }

    /// Seals a secret for its place.
    pub(crate) fn seal(&self, secret: &Secret, place: &Place<'_>) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        aws_lc_rs::rand::fill(&mut nonce).expect("the random source worked when the store was opened");
        let plain = secret.expose();
        let mut sealed = Vec::with_capacity(HEAD + plain.len() + TAG);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.key_id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), place.aad(), &mut sealed[HEAD..])
            .expect("a secret is shorter than the limit of AES-GCM");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens a sealed secret.
    pub(crate) fn open_sealed(&self, sealed: &[u8], place: &Place<'_>) -> Result<Secret, StoreError> {
        let Some((head, body)) = sealed.split_at_checked(HEAD) else {
            return Err(StoreError::Corrupt("secret"));
        };
        if head[0] != FORMAT {
            return Err(StoreError::Corrupt("secret"));
        }
        if head[1..=KEY_ID] != self.key_id {
            return Err(StoreError::UnknownKey { key: hexadecimal(&head[1..=KEY_ID]) });
        }
        let nonce = Nonce::try_assume_unique_for_key(&head[1 + KEY_ID..]).map_err(|_| StoreError::Corrupt("secret"))?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.key.open_in_place(nonce, place.aad(), &mut body).map_err(|_| StoreError::SealBroken)?.len();
        body.truncate(length);
        Ok(Secret::of_wiped(body))
    }
}

/// The id of the key that a value was sealed under; `None`: it is no sealed value.
pub(crate) fn sealed_under(sealed: &[u8]) -> Option<String> {
    (sealed.len() >= HEAD + TAG && sealed[0] == FORMAT).then(|| hexadecimal(&sealed[1..=KEY_ID]))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'_> = Place { column: Sealed::DeviceCode, row: b"row" };

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let envelope = Envelope::new(&EnvelopeKey::from_bytes([7; 32], "a test"));
        let secret = Secret::new(*b"ABCDEF");
        let sealed = envelope.seal(&secret, &HERE);
        assert_eq!(envelope.open_sealed(&sealed, &HERE).unwrap(), secret);
        for other in [Place { column: Sealed::DeviceTickets, ..HERE }, Place { row: b"roW", ..HERE }] {
            assert!(matches!(envelope.open_sealed(&sealed, &other), Err(StoreError::SealBroken)));
        }
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let envelope = Envelope::new(&EnvelopeKey::from_bytes([7; 32], "a test"));
        let sealed = envelope.seal(&Secret::new(*b"ABCDEF"), &HERE);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(envelope.open_sealed(&changed, &HERE).is_err(), "byte {at}");
            assert!(envelope.open_sealed(&sealed[..at], &HERE).is_err(), "length {at}");
        }
    }

    #[test]
    fn the_same_secret_never_seals_to_the_same_bytes() {
        let envelope = Envelope::new(&EnvelopeKey::from_bytes([7; 32], "a test"));
        let secret = Secret::new(*b"ABCDEF");
        assert_ne!(envelope.seal(&secret, &HERE), envelope.seal(&secret, &HERE));
    }

    #[test]
    fn a_value_under_another_key_names_that_key() {
        let sealed = Envelope::new(&EnvelopeKey::from_bytes([7; 32], "a test")).seal(&Secret::new(*b"x"), &HERE);
        let error = Envelope::new(&EnvelopeKey::from_bytes([8; 32], "a test")).open_sealed(&sealed, &HERE).unwrap_err();
        let StoreError::UnknownKey { key } = error else {
            panic!("another error: {error}");
        };
        assert_eq!(key.len(), 2 * KEY_ID);
    }
}
