//! Asking for the address of a DAS (osap-wire 5.8).

use super::{Frame, MessageError, VERSION, expect, first, read_result, refusal, response};
use crate::ResultCode;
use crate::lbs::frame::build;
use crate::suite::legacy::BLOCK;
use crate::wire::Reader;

/// Request, first byte 0xA0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRequest {
    /// The JSON request under the session key, whole blocks.
    pub sealed: Vec<u8>,
}

impl ServiceRequest {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::SERVICE)?;
        let mut reader = Reader::new(frame.body);
        reader.array::<3>()?;
        Ok(Self { sealed: read_blocks(reader)? })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::SERVICE, |out| {
            out.extend_from_slice(&VERSION);
            out.extend_from_slice(&self.sealed);
        })
    }
}

/// Response, first byte 0xB0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceResponse {
    /// The JSON response under the session key, whole blocks.
    Assigned(Vec<u8>),
    /// The server refuses.
    Refused(ResultCode),
}

impl ServiceResponse {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::SERVICE_ANSWER)?;
        let mut reader = Reader::new(frame.body);
        let result = read_result(&mut reader)?;
        if result != ResultCode::Success {
            return Ok(Self::Refused(result));
        }
        Ok(Self::Assigned(read_blocks(reader)?))
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Refused(result) => refusal(first::SERVICE_ANSWER, *result),
            Self::Assigned(sealed) => response(first::SERVICE_ANSWER, ResultCode::Success, &[sealed]),
        }
    }
}

fn read_blocks(reader: Reader<'_>) -> Result<Vec<u8>, MessageError> {
    let sealed = reader.rest();
    if sealed.is_empty() || !sealed.len().is_multiple_of(BLOCK) {
        return Err(MessageError::Length);
    }
    Ok(sealed.to_vec())
}
