//! Secrets at rest: sealed under one key of the installation.
//!
//! A sealed value is `format (1) | key id (4) | nonce (12) | ciphertext | tag (16)`, AES-256-GCM. The associated data name
//! the table, the column and the row, so that a value moved elsewhere does not open. The key id says which key sealed a
//! value, so that values can be moved to a new key one by one.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use crate::directory::{DataDir, create_dir, write_new};
use crate::{OpenError, Secret, StoreError};

const FORMAT: u8 = 1;
const KEY: usize = 32;
const KEY_ID: usize = 4;
const NONCE: usize = 12;
const TAG: usize = 16;
const HEAD: usize = 1 + KEY_ID + NONCE;

/// Where a sealed value stands. Its bytes are the associated data.
pub(crate) struct Place<'a> {
    /// Table and column, `device/code`.
    pub(crate) column: &'static str,
    /// What identifies the row.
    pub(crate) row: &'a [u8],
}

impl Place<'_> {
    fn aad(&self) -> Aad<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.column.len() + 1 + self.row.len());
        bytes.extend_from_slice(self.column.as_bytes());
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
    /// Reads `keys/envelope.key`; makes it in a fresh data directory.
    pub(crate) fn open(dir: &DataDir) -> Result<Envelope, OpenError> {
        let keys = dir.path().join("keys");
        create_dir(&keys)?;
        let path = keys.join("envelope.key");
        if !path.exists() {
            if !dir.is_fresh() {
                return Err(OpenError::KeyMissing { path });
            }
            let mut key = Zeroizing::new([0; KEY]);
            aws_lc_rs::rand::fill(&mut *key).map_err(|_| OpenError::Io {
                action: "make random bytes for",
                path: path.clone(),
                source: std::io::Error::other("the system's random source failed"),
            })?;
            write_new(&path, &*key, 0o600)?;
        }
        Ok(Envelope::new(&*read_key(&path)?))
    }

    pub(crate) fn new(key: &[u8; KEY]) -> Envelope {
        let mut named = Context::new(&SHA256);
        named.update(b"vestibule envelope key id");
        named.update(key);
        let mut key_id = [0; KEY_ID];
        key_id.copy_from_slice(&named.finish().as_ref()[..KEY_ID]);
        let key = UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes");
        Envelope { key: LessSafeKey::new(key), key_id }
    }

    /// Which key it is, in hexadecimal digits; says nothing of the key.
    pub(crate) fn key_id(&self) -> String {
        self.key_id.iter().map(|byte| format!("{byte:02x}")).collect()
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
            let key = head[1..=KEY_ID].iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(StoreError::UnknownKey { key });
        }
        let nonce = Nonce::try_assume_unique_for_key(&head[1 + KEY_ID..]).map_err(|_| StoreError::Corrupt("secret"))?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.key.open_in_place(nonce, place.aad(), &mut body).map_err(|_| StoreError::SealBroken)?.len();
        Ok(Secret::new(&body[..length]))
    }
}

pub(crate) fn read_key(path: &Path) -> Result<Zeroizing<[u8; KEY]>, OpenError> {
    let failed = |source| OpenError::Io { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(OpenError::KeyExposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
    }
    if metadata.len() != KEY as u64 {
        return Err(OpenError::KeyLength { path: path.to_owned() });
    }
    let mut key = Zeroizing::new([0; KEY]);
    file.read_exact(&mut *key).map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'_> = Place { column: "device/code", row: b"row" };

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let envelope = Envelope::new(&[7; KEY]);
        let secret = Secret::new(*b"ABCDEF");
        let sealed = envelope.seal(&secret, &HERE);
        assert_eq!(envelope.open_sealed(&sealed, &HERE).unwrap(), secret);
        for other in [Place { column: "device/cod", ..HERE }, Place { row: b"roW", ..HERE }] {
            assert!(matches!(envelope.open_sealed(&sealed, &other), Err(StoreError::SealBroken)));
        }
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let envelope = Envelope::new(&[7; KEY]);
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
        let envelope = Envelope::new(&[7; KEY]);
        let secret = Secret::new(*b"ABCDEF");
        assert_ne!(envelope.seal(&secret, &HERE), envelope.seal(&secret, &HERE));
    }

    #[test]
    fn a_value_under_another_key_names_that_key() {
        let sealed = Envelope::new(&[7; KEY]).seal(&Secret::new(*b"x"), &HERE);
        let error = Envelope::new(&[8; KEY]).open_sealed(&sealed, &HERE).unwrap_err();
        let StoreError::UnknownKey { key } = error else {
            panic!("another error: {error}");
        };
        assert_eq!(key.len(), 2 * KEY_ID);
    }
}
