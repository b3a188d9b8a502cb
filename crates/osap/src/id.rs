//! Who a device is: its serial and the DevID the LBS gave it (osap-wire 2).

use std::fmt;

use crate::random::Random;

/// The serial of a device ("SubSerial"), 1 to 71 visible ASCII characters.
///
/// The serial is a level of MQTT topics, so `/`, `+` and `#` are refused; so are spaces, which
/// would make two serials that look alike different.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Box<str>);

/// Why a text is not a serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// Empty, or longer than [`Serial::MAX`] bytes.
    #[error("a serial has 1 to 71 characters")]
    Length,
    /// A character that is not visible ASCII, or one of `/`, `+`, `#`.
    #[error("a serial consists of visible ASCII characters without '/', '+' and '#'")]
    Character,
}

impl Serial {
    /// The longest serial, in bytes.
    pub const MAX: usize = 71;

    /// Checks and takes a serial.
    ///
    /// # Errors
    /// [`SerialError`] names what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, SerialError> {
        if text.is_empty() || text.len() > Self::MAX {
            return Err(SerialError::Length);
        }
        let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'+' | b'#');
        if !text.bytes().all(allowed) {
            return Err(SerialError::Character);
        }
        Ok(Self(text.into()))
    }

    /// The serial as it travels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({})", self.0)
    }
}

impl std::str::FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        Self::new(text)
    }
}

/// The identity an LBS issues at first authentication: 32 printable ASCII bytes.
///
/// It travels in clear and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevId([u8; 32]);

/// The bytes are not a DevID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a DevID is 32 printable ASCII characters")]
pub struct DevIdError;

impl DevId {
    /// The length of a DevID on the wire.
    pub const LEN: usize = 32;

    /// A new DevID: 32 lower-case hexadecimal digits, 128 random bits.
    #[must_use]
    pub fn mint(random: &mut dyn Random) -> Self {
        let mut bits = [0; 16];
        random.fill(&mut bits);
        Self(crate::wire::hex_lower(&bits))
    }

    /// Takes a DevID from the wire or from storage.
    ///
    /// # Errors
    /// [`DevIdError`] unless there are exactly 32 visible ASCII characters.
    pub fn parse(bytes: &[u8]) -> Result<Self, DevIdError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| DevIdError)?;
        if bytes.iter().all(u8::is_ascii_graphic) { Ok(Self(bytes)) } else { Err(DevIdError) }
    }

    /// The 32 bytes as they travel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The DevID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a DevID was checked to be ASCII")
    }
}

impl fmt::Display for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevId({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_bounded_and_safe_as_a_topic_level() {
        for good in ["A", "SN0000001", "productKey:deviceName", &"x".repeat(71)] {
            assert_eq!(Serial::new(good).map(|s| s.as_str().to_owned()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", SerialError::Length),
            (&*"x".repeat(72), SerialError::Length),
            ("a/b", SerialError::Character),
            ("a+", SerialError::Character),
            ("#", SerialError::Character),
            ("a b", SerialError::Character),
            ("ä", SerialError::Character),
            ("a\0", SerialError::Character),
        ] {
            assert_eq!(Serial::new(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_minted_dev_id_is_lower_case_hexadecimal() {
        struct Ramp;
        impl Random for Ramp {
            fn fill(&mut self, out: &mut [u8]) {
                (0xA0..).zip(out).for_each(|(value, byte)| *byte = value);
            }
        }
        let id = DevId::mint(&mut Ramp);
        assert_eq!(id.as_str(), "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf");
        assert_eq!(DevId::parse(id.as_bytes()), Ok(id));
    }

    #[test]
    fn a_dev_id_has_32_visible_characters() {
        assert!(DevId::parse(&[b'a'; 31]).is_err());
        assert!(DevId::parse(&[b'a'; 33]).is_err());
        assert!(DevId::parse(&[0; 32]).is_err());
        assert!(DevId::parse(&[0x80; 32]).is_err());
        assert!(DevId::parse(b"0123456789ABCDEF-0123456789abcde").is_ok());
    }
}
