//! Asking for credentials and getting them (osap-wire 5.3 to 5.6). The requests are those of G1
//! too; its answers are in [`g1`](super::g1).

use super::{Frame, MessageError, VERSION, expect, expect_end, first, read_result, refusal, response};
use crate::ResultCode;
use crate::id::DevId;
use crate::lbs::frame::build;
use crate::suite::legacy::{SIGNATURE_LEN, TAG_LEN};
use crate::wire::Reader;

/// A request that consists of a signature alone.
macro_rules! signed {
    ($(#[$doc:meta])* $name:ident, $first:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            /// SIG under the new master key.
            pub signature: [u8; SIGNATURE_LEN],
        }

        impl $name {
            /// Reads the message.
            ///
            /// # Errors
            /// [`MessageError`] names what is wrong.
            pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
                expect(frame, $first)?;
                let mut reader = Reader::new(frame.body);
                reader.array::<3>()?;
                let signature = reader.array()?;
                expect_end(reader)?;
                Ok(Self { signature })
            }

            /// The complete frame.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                build($first, |out| {
                    out.extend_from_slice(&VERSION);
                    out.extend_from_slice(&self.signature);
                })
            }
        }
    };
}

signed! {
    /// Request for a DevID, first byte 0x72 (osap-wire 5.3).
    Apply, first::APPLY
}

signed! {
    /// The device has stored what it got, first byte 0x92 (osap-wire 5.5). No legacy device sends
    /// it.
    Confirm, first::CONFIRM
}

/// Refresh of the master key, first byte 0x42 (osap-wire 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EcdhRefresh {
    /// The DevID the device has, in clear and as it was sent.
    pub dev_id: [u8; DevId::LEN],
    /// SIG under the new master key.
    pub signature: [u8; SIGNATURE_LEN],
}

impl EcdhRefresh {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        expect(frame, first::ECDH_REFRESH)?;
        let mut reader = Reader::new(frame.body);
        reader.array::<3>()?;
        let dev_id = read_sized(&mut reader)?;
        let signature = reader.array()?;
        expect_end(reader)?;
        Ok(Self { dev_id, signature })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::ECDH_REFRESH, |out| {
            out.extend_from_slice(&VERSION);
            out.push(self.dev_id.len() as u8);
            out.extend_from_slice(&self.dev_id);
            out.extend_from_slice(&self.signature);
        })
    }
}

/// What an accepted request brings, sealed under the new master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// L-GCM tag of the DevID.
    pub dev_id_tag: [u8; TAG_LEN],
    /// The DevID under the master key.
    pub sealed_dev_id: [u8; DevId::LEN],
    /// L-GCM tag of the session key.
    pub session_key_tag: [u8; TAG_LEN],
    /// The session key under the master key.
    pub sealed_session_key: [u8; 16],
    /// SIG under the new master key.
    pub signature: [u8; SIGNATURE_LEN],
}

/// The answer to 0x72 and to 0x42, first byte 0x82 and 0x62 (osap-wire 5.4 and 5.6).
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
        let dev_id_tag = reader.array()?;
        let sealed_dev_id = read_sized(&mut reader)?;
        let session_key_tag = reader.array()?;
        let sealed_session_key = read_sized(&mut reader)?;
        let signature = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Issued(Issued { dev_id_tag, sealed_dev_id, session_key_tag, sealed_session_key, signature }))
    }

    /// The complete frame, beginning with `first`.
    #[must_use]
    pub fn encode(&self, first: u8) -> Vec<u8> {
        match self {
            Self::Refused(result) => refusal(first, *result),
            Self::Issued(issued) => {
                let lengths = [[issued.sealed_dev_id.len() as u8], [issued.sealed_session_key.len() as u8]];
                let fields: [&[u8]; 7] = [
                    &issued.dev_id_tag,
                    &lengths[0],
                    &issued.sealed_dev_id,
                    &issued.session_key_tag,
                    &lengths[1],
                    &issued.sealed_session_key,
                    &issued.signature,
                ];
                response(first, ResultCode::Success, &fields)
            }
        }
    }
}

/// A field with a length byte in front that has to say exactly `N`.
pub(super) fn read_sized<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N], MessageError> {
    if usize::from(reader.u8()?) != N {
        return Err(MessageError::Length);
    }
    Ok(reader.array()?)
}
