//! An envelope key: how it is written, and where it is from.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::DecodePaddingMode::Indifferent;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::{KEY_ID, hexadecimal};
use crate::OpenError;

const KEY: usize = 32;
/// More than any notation of a key takes.
const MOST: u64 = 256;

/// A key that secrets are sealed under, wiped when dropped and never printed. As bytes it is 32 of them; as text 64 hexadecimal
/// digits, or standard base64 with or without padding, and white space behind it does not count. 32 bytes that are text are none.
#[derive(Clone)]
pub struct EnvelopeKey {
    bytes: Zeroizing<[u8; KEY]>,
    origin: String,
}

impl EnvelopeKey {
    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: [u8; KEY], origin: &str) -> EnvelopeKey {
        EnvelopeKey { bytes: Zeroizing::new(bytes), origin: origin.to_owned() }
    }

    /// A new key from the system's random source.
    ///
    /// # Errors
    /// When that fails.
    pub fn random(origin: impl Into<String>) -> Result<EnvelopeKey, OpenError> {
        let (origin, mut bytes) = (origin.into(), Zeroizing::new([0; KEY]));
        match aws_lc_rs::rand::fill(&mut *bytes) {
            Ok(()) => Ok(EnvelopeKey { bytes, origin }),
            Err(_) => Err(OpenError::Io {
                action: "make random bytes for",
                path: origin.into(),
                source: std::io::Error::other("the system's random source failed"),
            }),
        }
    }

    /// Reads a key that is written as text, or is the 32 bytes themselves. `origin` says in words where it is from, for
    /// errors about it.
    ///
    /// # Errors
    /// [`OpenError::KeyText`] when it is no key.
    pub fn parse(written: &[u8], origin: impl Into<String>) -> Result<EnvelopeKey, OpenError> {
        let origin = origin.into();
        let mut bytes = Zeroizing::new([0; KEY]);
        let text = written.trim_ascii_end();
        let is_read = match (written.len(), text.len()) {
            // Text is a notation that is not known here, or half of one.
            (KEY, _) if written.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => false,
            (KEY, _) => {
                bytes.copy_from_slice(written);
                true
            }
            (_, 64) => from_hexadecimal(text, &mut bytes),
            (_, 43 | 44) => {
                let config = GeneralPurposeConfig::new().with_decode_padding_mode(Indifferent);
                let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
                // The engine asks for room for whole groups of three.
                let mut decoded = Zeroizing::new([0; KEY + 1]);
                let length = engine.decode_slice(text, &mut *decoded);
                bytes.copy_from_slice(&decoded[..KEY]);
                length == Ok(KEY)
            }
            _ => false,
        };
        if is_read { Ok(EnvelopeKey { bytes, origin }) } else { Err(OpenError::KeyText { origin }) }
    }

    /// Reads a key from a file, which nobody but its owner may read.
    ///
    /// # Errors
    /// When it cannot be read, may be read by others, or holds no key.
    pub fn read(path: &Path) -> Result<EnvelopeKey, OpenError> {
        let failed = |source| OpenError::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode();
        if mode & 0o077 != 0 {
            return Err(OpenError::KeyExposed { path: path.to_owned(), mode: mode & 0o777 });
        }
        let mut written = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
        file.take(MOST + 1).read_to_end(&mut written).map_err(failed)?;
        EnvelopeKey::parse(&written, path.display().to_string())
    }

    /// Which key it is, in hexadecimal digits; says nothing of the key.
    pub fn id(&self) -> String {
        hexadecimal(&self.id_bytes())
    }

    /// In words, where it is from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub(super) fn id_bytes(&self) -> [u8; KEY_ID] {
        let mut named = Context::new(&SHA256);
        named.update(b"vestibule envelope key id");
        named.update(&*self.bytes);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&named.finish().as_ref()[..KEY_ID]);
        id
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY] {
        &self.bytes
    }
}

fn from_hexadecimal(text: &[u8], bytes: &mut [u8; KEY]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        let (Some(high), Some(low)) = (digit(high), digit(low)) else { return false };
        *byte = high << 4 | low;
    }
    rest.is_empty() && pairs.len() == KEY
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn key() -> [u8; KEY] {
        std::array::from_fn(|at| at as u8 * 7 + 3)
    }

    #[test]
    fn a_key_is_read_in_each_notation_and_in_no_other() {
        let hex: String = key().iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = base64::engine::general_purpose::STANDARD.encode(key());
        let bare = base64.trim_end_matches('=');
        let good =
            [hex.clone(), hex.to_uppercase(), format!("{hex}\n"), format!("{base64}\r\n"), base64.clone(), bare.into()];
        for text in good {
            let read = EnvelopeKey::parse(text.as_bytes(), "x").unwrap_or_else(|_| panic!("{text:?}"));
            assert_eq!(read.bytes(), &key(), "{text:?}");
        }
        assert_eq!(EnvelopeKey::parse(&key(), "x").unwrap().bytes(), &key());
        let bad = [
            String::new(),
            hex[1..].to_owned(),
            format!("{hex}0"),
            format!(" {hex}"),
            hex.replacen('a', "g", 1),
            format!("{}_", &bare[..42]),
            format!("{base64}="),
            bare[1..].to_owned(),
            hex[..32].to_owned(),
            "correct horse battery staple 123".to_owned(),
        ];
        for text in bad {
            let error = EnvelopeKey::parse(text.as_bytes(), "the place").err().unwrap_or_else(|| panic!("{text:?}"));
            assert!(error.to_string().starts_with("the place holds no key"), "{error}");
            assert!(
                text.len() < 9 || !error.to_string().contains(&text),
                "it shows what may be most of a key: {error}"
            );
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, key()).unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o610, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match EnvelopeKey::read(&path) {
                Ok(read) => assert!(good && read.origin() == path.display().to_string()),
                Err(error) => assert!(!good && error.to_string().contains("chmod 600"), "{error}"),
            }
        }
    }
}
