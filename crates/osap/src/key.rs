//! Secrets: the verification code and the keys that follow from it (osap-wire 2).
//!
//! None of them prints itself, all are wiped when dropped and compared in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::random::Random;

/// The verification code printed on a device, or its licence: 1 to 47 visible ASCII characters.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Code(Vec<u8>);

/// Why bytes are not a verification code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Empty, or longer than [`Code::MAX`] bytes.
    #[error("a verification code has 1 to 47 characters")]
    Length,
    /// A character that is not visible ASCII.
    #[error("a verification code consists of visible ASCII characters without spaces")]
    Character,
}

/// Why bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 16 bytes.
    #[error("the key is not 16 bytes long")]
    Length,
    /// A master key with a character outside `0-9A-F`.
    #[error("a master key consists of the characters 0-9 and A-F")]
    Character,
}

impl Code {
    /// The longest code, in bytes.
    pub const MAX: usize = 47;

    /// Checks and takes a verification code.
    ///
    /// # Errors
    /// [`CodeError`] names what is wrong; it never repeats the code.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, CodeError> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() || bytes.len() > Self::MAX {
            return Err(CodeError::Length);
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(CodeError::Character);
        }
        Ok(Self(bytes.to_vec()))
    }

    /// Whether nobody guesses it: it has the length that 64 random bits need in its alphabet (osap-wire 13.5). A code
    /// of digits alone counts 3.3 bits each, of hexadecimal digits 4, of anything else the 5 of base 32.
    #[must_use]
    pub fn is_long(&self) -> bool {
        let needed = if self.0.iter().all(u8::is_ascii_digit) {
            20
        } else if self.0.iter().all(u8::is_ascii_hexdigit) {
            16
        } else {
            13
        };
        self.0.len() >= needed
    }

    /// The code, to be stored under seal or hashed; never to be shown.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The key both ends keep between connections: 16 ASCII characters `0-9A-F` (osap-wire 4.4).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 16]);

impl MasterKey {
    /// Takes a master key from storage.
    ///
    /// # Errors
    /// [`KeyError`] unless it is 16 upper-case hexadecimal digits.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = Self(bytes.try_into().map_err(|_| KeyError::Length)?);
        let digit = |b: &u8| matches!(b, b'0'..=b'9' | b'A'..=b'F');
        if key.0.iter().all(digit) { Ok(key) } else { Err(KeyError::Character) }
    }

    /// The sixteen characters, used as an AES-128 key as they are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The key of one DAS session: 16 raw bytes chosen by the LBS.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 16]);

impl SessionKey {
    /// Takes a session key from the wire or from storage.
    ///
    /// # Errors
    /// [`KeyError::Length`] unless there are 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        Ok(Self(bytes.try_into().map_err(|_| KeyError::Length)?))
    }

    /// A new session key.
    #[must_use]
    pub fn draw(random: &mut dyn Random) -> Self {
        let mut key = Self([0; 16]);
        random.fill(&mut key.0);
        key
    }

    /// The sixteen bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

macro_rules! secret {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.as_slice().ct_eq(other.0.as_slice()).into()
            }
        }

        impl Eq for $name {}
    )*};
}

secret!(Code, MasterKey, SessionKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_bounded_visible_ascii() {
        assert!(Code::new("ABCDEF").is_ok());
        assert!(Code::new([b'x'; 47]).is_ok());
        assert_eq!(Code::new([b'x'; 48]), Err(CodeError::Length));
        assert_eq!(Code::new(""), Err(CodeError::Length));
        assert_eq!(Code::new("A B"), Err(CodeError::Character));
        assert_eq!(Code::new([0xC3, 0xA4]), Err(CodeError::Character));
    }

    #[test]
    fn osap_13_5_a_long_code_has_64_bits() {
        for (code, long) in [
            ("ABCDEF", false),
            ("ABCDEFGHJKMN", false),
            ("ABCDEFGHJKMNP", true),
            ("0123456789012345678", false),
            ("01234567890123456789", true),
            ("0123456789abcde", false),
            ("0123456789abcdef", true),
        ] {
            assert_eq!(Code::new(code).unwrap().is_long(), long, "{code}");
        }
    }

    #[test]
    fn a_master_key_is_sixteen_upper_case_digits() {
        assert!(MasterKey::from_bytes(b"C45938929A7F2133").is_ok());
        assert_eq!(MasterKey::from_bytes(b"C45938929A7F213"), Err(KeyError::Length));
        assert_eq!(MasterKey::from_bytes(b"c45938929a7f2133"), Err(KeyError::Character));
        assert_eq!(SessionKey::from_bytes(&[0; 17]), Err(KeyError::Length));
    }

    #[test]
    fn secrets_do_not_print_themselves() {
        let code = Code::new("ABCDEF").unwrap();
        let master = MasterKey::from_bytes(b"C45938929A7F2133").unwrap();
        let session = SessionKey::from_bytes(b"session-key-1234").unwrap();
        assert_eq!(format!("{code:?} {master:?} {session:?}"), "Code(..) MasterKey(..) SessionKey(..)");
    }
}
