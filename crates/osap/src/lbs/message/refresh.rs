//! Refresh with the stored master key: three messages, two of them answered (osap-wire 5.7).

use super::auth::read_serial;
use super::credentials::read_sized;
use super::{Frame, MessageError, VERSION, expect, expect_end, first};
use crate::ResultCode;
use crate::id::{DevId, Serial};
use crate::lbs::frame::build;
use crate::wire::Reader;

/// A one-byte challenge under the master key: one block of L-CBC.
pub type Challenge = [u8; 16];

/// First step, first byte 0x70.
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
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::REFRESH_I)?;
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
    pub fn encode(&self) -> Vec<u8> {
        build(first::REFRESH_I, |out| {
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

/// Second step, first byte 0x80.
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
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::REFRESH_II)?;
        let mut reader = Reader::new(frame.body);
        reader.array::<3>()?;
        let result = ResultCode::from(reader.u8()?);
        if result != ResultCode::Success {
            return Ok(Self::Refused(result));
        }
        let sealed = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Issued(sealed))
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Refused(result) => super::refusal(first::REFRESH_II, *result),
            Self::Issued(sealed) => build(first::REFRESH_II, |out| {
                out.extend_from_slice(&VERSION);
                out.push(ResultCode::Success.into());
                out.extend_from_slice(sealed);
            }),
        }
    }
}

/// Third step, first byte 0x90; it has no answer.
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
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::REFRESH_III)?;
        let mut reader = Reader::new(frame.body);
        reader.array::<3>()?;
        let challenge = reader.array()?;
        expect_end(reader)?;
        Ok(Self { challenge })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::REFRESH_III, |out| {
            out.extend_from_slice(&VERSION);
            out.extend_from_slice(&self.challenge);
        })
    }
}
