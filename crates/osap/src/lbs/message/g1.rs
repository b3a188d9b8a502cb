//! Generation G1, key agreement without negotiation (osap-wire 6): what differs from G2 because
//! L-CBC takes the place of L-GCM. The requests 0x72 and 0x42 are those of G2.

use super::auth::{AuthMode, read_name, write_name};
use super::credentials::read_sized;
use super::{Frame, MessageError, expect, expect_end, first, read_result, refusal, response};
use crate::ResultCode;
use crate::id::{DevId, Serial};
use crate::lbs::frame::build;
use crate::suite::legacy::{PUBLIC_KEY_LEN, SIGNATURE_LEN, l_cbc_sealed_len};
use crate::wire::Reader;

/// The length of a public key under the share key.
pub const SEALED_KEY_LEN: usize = l_cbc_sealed_len(PUBLIC_KEY_LEN);
/// The length of a DevID under the master key.
pub const SEALED_DEV_ID_LEN: usize = l_cbc_sealed_len(DevId::LEN);
/// The length of a session key under the master key.
pub const SEALED_SESSION_KEY_LEN: usize = l_cbc_sealed_len(16);

/// AUTH-I, first byte 0x12.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthI {
    /// Authentication mode.
    pub mode: AuthMode,
    /// Who the device says it is.
    pub serial: Serial,
    /// The device's public key under the share key.
    pub sealed_key: [u8; SEALED_KEY_LEN],
}

impl AuthI {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names the first field that is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::AUTH_I_G1)?;
        let mut reader = Reader::new(frame.body);
        let (mode, serial) = read_name(&mut reader)?;
        let sealed_key = reader.array()?;
        expect_end(reader)?;
        Ok(Self { mode: AuthMode::from_number(mode)?, serial, sealed_key })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::AUTH_I_G1, |out| {
            write_name(out, self.mode.number(), &self.serial);
            out.extend_from_slice(&self.sealed_key);
        })
    }
}

/// AUTH-II, first byte 0x22.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthIi {
    /// The server's public key under the share key.
    Accepted([u8; SEALED_KEY_LEN]),
    /// The server refuses the device.
    Refused(ResultCode),
}

impl AuthIi {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::AUTH_II_G1)?;
        let mut reader = Reader::new(frame.body);
        let result = read_result(&mut reader)?;
        if result != ResultCode::Success {
            return Ok(Self::Refused(result));
        }
        let sealed_key = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Accepted(sealed_key))
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Accepted(sealed_key) => response(first::AUTH_II_G1, ResultCode::Success, &[sealed_key]),
            Self::Refused(result) => refusal(first::AUTH_II_G1, *result),
        }
    }
}

/// What an accepted request brings, sealed under the new master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// The DevID under the master key.
    pub sealed_dev_id: [u8; SEALED_DEV_ID_LEN],
    /// The session key under the master key.
    pub sealed_session_key: [u8; SEALED_SESSION_KEY_LEN],
    /// SIG under the new master key.
    pub signature: [u8; SIGNATURE_LEN],
}

/// The answer to 0x72 and to 0x42, first byte 0x82 and 0x62.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// The request was accepted.
    Issued(Issued),
    /// It was not.
    Refused(ResultCode),
}

impl Credentials {
    /// Reads the message from a frame that begins with `first`.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>, first: u8) -> Result<Self, MessageError> {
        expect(frame, first)?;
        let mut reader = Reader::new(frame.body);
        let result = read_result(&mut reader)?;
        if result != ResultCode::Success {
            return Ok(Self::Refused(result));
        }
        let sealed_dev_id = read_sized(&mut reader)?;
        let sealed_session_key = read_sized(&mut reader)?;
        let signature = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Issued(Issued { sealed_dev_id, sealed_session_key, signature }))
    }

    /// The complete frame, beginning with `first`.
    #[must_use]
    pub fn encode(&self, first: u8) -> Vec<u8> {
        match self {
            Self::Refused(result) => refusal(first, *result),
            Self::Issued(issued) => {
                let Issued { sealed_dev_id, sealed_session_key, signature } = issued;
                let lengths = [[SEALED_DEV_ID_LEN as u8], [SEALED_SESSION_KEY_LEN as u8]];
                let fields: [&[u8]; 5] = [&lengths[0], sealed_dev_id, &lengths[1], sealed_session_key, signature];
                response(first, ResultCode::Success, &fields)
            }
        }
    }
}
