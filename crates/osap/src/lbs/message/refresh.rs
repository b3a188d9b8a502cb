//! Refresh with the stored master key: three messages, the first of them answered (osap-wire 5.7).
//!
//! All generations share them. They exist a second time under other types, for a device that is
//! going to ask for a STUN server (osap-wire 3.5); [`Purpose`] says which.

use super::auth::read_serial;
use super::credentials::read_sized;
use super::{Frame, MessageError, VERSION, expect, expect_end, first, read_result, refusal, response};
use crate::ResultCode;
use crate::id::{DevId, Serial};
use crate::lbs::frame::build;
use crate::wire::Reader;

/// A one-byte challenge under the master key: one block of L-CBC.
pub type Challenge = [u8; 16];

/// What a device refreshes its session key for: the types of the three messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Purpose {
    /// To be sent to a DAS: 0x70, 0x80, 0x90.
    #[default]
    Das,
    /// To be sent to a STUN server: 0xC0, 0xD0, 0xE0.
    Stun,
}

impl Purpose {
    /// First bytes of the three messages.
    #[must_use]
    pub fn firsts(self) -> [u8; 3] {
        match self {
            Self::Das => [first::REFRESH_I, first::REFRESH_II, first::REFRESH_III],
            Self::Stun => [first::STUN_REFRESH_I, first::STUN_REFRESH_II, first::STUN_REFRESH_III],
        }
    }
}

/// First step, first byte 0x70 or 0xC0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshI {
    /// Who the device says it is.
    pub serial: Serial,
    /// The DevID it has, in clear and as it was sent.
    pub dev_id: [u8; DevId::LEN],
    /// r1.
    pub challenge: Challenge,
}

impl RefreshI {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>, purpose: Purpose) -> Result<Self, MessageError> {
        expect(frame, purpose.firsts()[0])?;
        let mut reader = Reader::new(frame.body);
        reader.array::<3>()?;
        let len = reader.u8()?;
        let serial = read_serial(reader.take(len.into())?)?;
        let dev_id = read_sized(&mut reader)?;
        let challenge = reader.array()?;
        expect_end(reader)?;
        Ok(Self { serial, dev_id, challenge })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self, purpose: Purpose) -> Vec<u8> {
        build(purpose.firsts()[0], |out| {
            out.extend_from_slice(&VERSION);
            // A serial has at most 71 bytes.
            out.push(self.serial.as_str().len() as u8);
            out.extend_from_slice(self.serial.as_str().as_bytes());
            out.push(self.dev_id.len() as u8);
            out.extend_from_slice(&self.dev_id);
            out.extend_from_slice(&self.challenge);
        })
    }
}

/// Second step, first byte 0x80 or 0xD0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshIi {
    /// r1, r2 and the session key under the master key.
    Issued([u8; 32]),
    /// The server refuses.
    Refused(ResultCode),
}

impl RefreshIi {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>, purpose: Purpose) -> Result<Self, MessageError> {
        expect(frame, purpose.firsts()[1])?;
        let mut reader = Reader::new(frame.body);
        let result = read_result(&mut reader)?;
        if result != ResultCode::Success {
            return Ok(Self::Refused(result));
        }
        let sealed = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Issued(sealed))
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self, purpose: Purpose) -> Vec<u8> {
        match self {
            Self::Refused(result) => refusal(purpose.firsts()[1], *result),
            Self::Issued(sealed) => response(purpose.firsts()[1], ResultCode::Success, &[sealed]),
        }
    }
}

/// Third step, first byte 0x90 or 0xE0; it has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshIii {
    /// r2.
    pub challenge: Challenge,
}

impl RefreshIii {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>, purpose: Purpose) -> Result<Self, MessageError> {
        expect(frame, purpose.firsts()[2])?;
        let mut reader = Reader::new(frame.body);
        reader.array::<3>()?;
        let challenge = reader.array()?;
        expect_end(reader)?;
        Ok(Self { challenge })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self, purpose: Purpose) -> Vec<u8> {
        build(purpose.firsts()[2], |out| {
            out.extend_from_slice(&VERSION);
            out.extend_from_slice(&self.challenge);
        })
    }
}
