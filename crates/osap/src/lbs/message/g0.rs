//! Generation G0, the original message set (osap-wire 7): four messages that carry one random
//! byte each, n1 and n3 of the device, n2 and n4 of the server, and SIG0 over the serial, the
//! random before and their own.

use super::auth::{AuthMode, read_name, write_name};
use super::credentials::read_sized;
use super::g1::{SEALED_DEV_ID_LEN, SEALED_SESSION_KEY_LEN};
use super::{Frame, MessageError, VERSION, expect, expect_end, first, read_result, refusal, response};
use crate::ResultCode;
use crate::id::{DevId, Serial};
use crate::lbs::frame::build;
use crate::suite::g0::PROOF_LEN;
use crate::wire::Reader;

/// How a client of this generation names itself: as a device does, or 2 for a mobile client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A device.
    Device(AuthMode),
    /// A mobile client.
    Mobile,
}

impl Mode {
    fn number(self) -> u8 {
        match self {
            Self::Device(mode) => mode.number(),
            Self::Mobile => 2,
        }
    }

    fn from_number(number: u8) -> Result<Self, MessageError> {
        if number == 2 { Ok(Self::Mobile) } else { AuthMode::from_number(number).map(Self::Device) }
    }
}

/// AUTH-I, first byte 0x10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthI {
    /// Authentication mode.
    pub mode: Mode,
    /// Who the device says it is.
    pub serial: Serial,
    /// The device's first random.
    pub n1: u8,
    /// SIG0 of serial and n1.
    pub proof: [u8; PROOF_LEN],
}

impl AuthI {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names the first field that is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::AUTH_I_G0)?;
        let mut reader = Reader::new(frame.body);
        let (mode, serial) = read_name(&mut reader)?;
        let n1 = reader.u8()?;
        let proof = reader.array()?;
        expect_end(reader)?;
        Ok(Self { mode: Mode::from_number(mode)?, serial, n1, proof })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::AUTH_I_G0, |out| {
            write_name(out, self.mode.number(), &self.serial);
            out.push(self.n1);
            out.extend_from_slice(&self.proof);
        })
    }
}

/// AUTH-II, first byte 0x20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthIi {
    /// The device knows the code.
    Accepted {
        /// The server's first random.
        n2: u8,
        /// SIG0 of serial, n1 and n2.
        proof: [u8; PROOF_LEN],
    },
    /// The server refuses the device.
    Refused(ResultCode),
}

impl AuthIi {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::AUTH_II_G0)?;
        let mut reader = Reader::new(frame.body);
        let result = read_result(&mut reader)?;
        if result != ResultCode::Success {
            return Ok(Self::Refused(result));
        }
        let n2 = reader.u8()?;
        let proof = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Accepted { n2, proof })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Accepted { n2, proof } => response(first::AUTH_II_G0, ResultCode::Success, &[&[*n2], proof]),
            Self::Refused(result) => refusal(first::AUTH_II_G0, *result),
        }
    }
}

/// Request for a DevID, first byte 0x40.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Create {
    /// The device's second random.
    pub n3: u8,
    /// SIG0 of serial, n2 and n3.
    pub proof: [u8; PROOF_LEN],
}

impl Create {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::CREATE)?;
        let mut reader = Reader::new(frame.body);
        reader.array::<3>()?;
        let n3 = reader.u8()?;
        let proof = reader.array()?;
        expect_end(reader)?;
        Ok(Self { n3, proof })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::CREATE, |out| {
            out.extend_from_slice(&VERSION);
            out.push(self.n3);
            out.extend_from_slice(&self.proof);
        })
    }
}

/// Request of a device that has a DevID, first byte 0x30.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The device's second random.
    pub n3: u8,
    /// The DevID the device has, in clear and as it was sent.
    pub dev_id: [u8; DevId::LEN],
    /// SIG0 of serial, n2 and n3.
    pub proof: [u8; PROOF_LEN],
}

impl Keep {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::KEEP)?;
        let mut reader = Reader::new(frame.body);
        reader.array::<3>()?;
        let n3 = reader.u8()?;
        let dev_id = read_sized(&mut reader)?;
        let proof = reader.array()?;
        expect_end(reader)?;
        Ok(Self { n3, dev_id, proof })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::KEEP, |out| {
            out.extend_from_slice(&VERSION);
            out.push(self.n3);
            out.push(self.dev_id.len() as u8);
            out.extend_from_slice(&self.dev_id);
            out.extend_from_slice(&self.proof);
        })
    }
}

/// The answer to 0x40, first byte 0x60.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The request was accepted.
    Issued {
        /// The server's second random.
        n4: u8,
        /// The DevID under the master key.
        sealed_dev_id: [u8; SEALED_DEV_ID_LEN],
        /// The session key under the master key.
        sealed_session_key: [u8; SEALED_SESSION_KEY_LEN],
        /// SIG0 of serial, n3 and n4.
        proof: [u8; PROOF_LEN],
    },
    /// It was not.
    Refused(ResultCode),
}

impl Created {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::CREATED)?;
        let mut reader = Reader::new(frame.body);
        let result = read_result(&mut reader)?;
        if result != ResultCode::Success {
            return Ok(Self::Refused(result));
        }
        let n4 = reader.u8()?;
        let sealed_dev_id = read_sized(&mut reader)?;
        let sealed_session_key = read_sized(&mut reader)?;
        let proof = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Issued { n4, sealed_dev_id, sealed_session_key, proof })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Refused(result) => refusal(first::CREATED, *result),
            Self::Issued { n4, sealed_dev_id, sealed_session_key, proof } => {
                let head = [*n4, SEALED_DEV_ID_LEN as u8];
                let length = [SEALED_SESSION_KEY_LEN as u8];
                let fields: [&[u8]; 5] = [&head, sealed_dev_id, &length, sealed_session_key, proof];
                response(first::CREATED, ResultCode::Success, &fields)
            }
        }
    }
}

/// The answer to 0x30, first byte 0x50.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The request was accepted.
    Issued {
        /// The server's second random.
        n4: u8,
        /// The session key under the master key.
        sealed_session_key: [u8; SEALED_SESSION_KEY_LEN],
        /// SIG0 of serial, n3 and n4.
        proof: [u8; PROOF_LEN],
    },
    /// It was not.
    Refused(ResultCode),
}

impl Kept {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::KEPT)?;
        let mut reader = Reader::new(frame.body);
        let result = read_result(&mut reader)?;
        if result != ResultCode::Success {
            return Ok(Self::Refused(result));
        }
        let n4 = reader.u8()?;
        let sealed_session_key = read_sized(&mut reader)?;
        let proof = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Issued { n4, sealed_session_key, proof })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Refused(result) => refusal(first::KEPT, *result),
            Self::Issued { n4, sealed_session_key, proof } => {
                let head = [*n4, SEALED_SESSION_KEY_LEN as u8];
                response(first::KEPT, ResultCode::Success, &[&head, sealed_session_key, proof])
            }
        }
    }
}
