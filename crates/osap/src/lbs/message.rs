//! The frames of the LBS with their fields (osap-wire 5.1 to 5.8; 6 in [`g1`], 7 in [`g0`]).
//!
//! Every message has `decode`, which takes a [`Frame`] of its type, and `encode`, which gives the
//! complete frame. The three version bytes are written as the protocol wants them and ignored
//! when read (osap-wire 14, row 1).

mod auth;
mod credentials;
pub mod g0;
pub mod g1;
mod refresh;
mod service;

pub use auth::{AuthI, AuthIi, AuthMode, Group, MAX_GROUP, Offer};
pub use credentials::{Apply, Confirm, Credentials, EcdhRefresh, Issued};
pub use refresh::{Challenge, Purpose, RefreshI, RefreshIi, RefreshIii};
pub use service::{ServiceRequest, ServiceResponse};

use super::frame::Frame;
use crate::ResultCode;
use crate::wire::Short;

/// First bytes of frames (osap-wire 3.5 and 8).
pub mod first {
    /// AUTH-I of generation G0.
    pub const AUTH_I_G0: u8 = 0x10;
    /// AUTH-I of generation G1.
    pub const AUTH_I_G1: u8 = 0x12;
    /// AUTH-I of generation G2.
    pub const AUTH_I: u8 = 0x1A;
    /// AUTH-II of generation G0.
    pub const AUTH_II_G0: u8 = 0x20;
    /// AUTH-II of generation G1.
    pub const AUTH_II_G1: u8 = 0x22;
    /// AUTH-II of generation G2.
    pub const AUTH_II: u8 = 0x2A;
    /// Request of a device with a DevID for a session key, generation G0.
    pub const KEEP: u8 = 0x30;
    /// Request for a DevID, generation G0.
    pub const CREATE: u8 = 0x40;
    /// Refresh of the master key, request.
    pub const ECDH_REFRESH: u8 = 0x42;
    /// Response without a DevID, generation G0.
    pub const KEPT: u8 = 0x50;
    /// Response with a DevID, generation G0.
    pub const CREATED: u8 = 0x60;
    /// Refresh of the master key, response.
    pub const ECDH_REFRESHED: u8 = 0x62;
    /// Plain refresh, first step.
    pub const REFRESH_I: u8 = 0x70;
    /// Request for a DevID.
    pub const APPLY: u8 = 0x72;
    /// Plain refresh, second step.
    pub const REFRESH_II: u8 = 0x80;
    /// Response with a DevID.
    pub const APPLIED: u8 = 0x82;
    /// Plain refresh, third step.
    pub const REFRESH_III: u8 = 0x90;
    /// Confirmation that the device has stored what it got.
    pub const CONFIRM: u8 = 0x92;
    /// Request for the address of a DAS.
    pub const SERVICE: u8 = 0xA0;
    /// The address of a DAS.
    pub const SERVICE_ANSWER: u8 = 0xB0;
    /// Plain refresh before a STUN server is asked for, first step.
    pub const STUN_REFRESH_I: u8 = 0xC0;
    /// The same, second step.
    pub const STUN_REFRESH_II: u8 = 0xD0;
    /// The same, third step.
    pub const STUN_REFRESH_III: u8 = 0xE0;
    /// Request for a secret key, and its response.
    pub const SECRET_KEY: u8 = 0xF0;
}

/// The version bytes of AUTH-I: the 2 announces licence support.
const VERSION_AUTH_I: [u8; 3] = [1, 2, 0];
/// The version bytes of every other message.
const VERSION: [u8; 3] = [1, 1, 0];
/// The version bytes of responses in an authentication of generation G0 (osap-wire 3.3).
const VERSION_RESPONSE_G0: [u8; 3] = [1, 0, 0];

/// Why the body of a frame is not the message its first byte names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The frame is of another type.
    #[error("the frame begins with 0x{0:02x}, another message was expected")]
    OtherType(u8),
    /// A field is cut off, or there are bytes left over.
    #[error("the length of the message does not fit its fields")]
    Length,
    /// More protocol types than a device can hold.
    #[error("the group of protocol types is longer than 14")]
    Group,
    /// An authentication mode that does not exist here.
    #[error("the authentication mode {0} is not known")]
    Mode(u8),
    /// The serial is empty, too long or has characters that no serial has.
    #[error("the serial is not acceptable: {0}")]
    Serial(#[from] crate::id::SerialError),
}

impl From<Short> for MessageError {
    fn from(_: Short) -> Self {
        Self::Length
    }
}

fn expect(frame: &Frame<'_>, first: u8) -> Result<(), MessageError> {
    if frame.first == first { Ok(()) } else { Err(MessageError::OtherType(frame.first)) }
}

fn expect_end(reader: crate::wire::Reader<'_>) -> Result<(), MessageError> {
    if reader.is_empty() { Ok(()) } else { Err(MessageError::Length) }
}

/// Reads `version | result`, the head of every response but AUTH-II of G2.
fn read_result(reader: &mut crate::wire::Reader<'_>) -> Result<ResultCode, MessageError> {
    reader.array::<3>()?;
    Ok(ResultCode::from(reader.u8()?))
}

/// A response: `version | result | rest`.
fn response(first: u8, result: ResultCode, rest: &[&[u8]]) -> Vec<u8> {
    let version = match first {
        first::AUTH_II_G0 | first::KEPT | first::CREATED => VERSION_RESPONSE_G0,
        _ => VERSION,
    };
    super::frame::build(first, |out| {
        out.extend_from_slice(&version);
        out.push(result.into());
        rest.iter().for_each(|field| out.extend_from_slice(field));
    })
}

/// A response that carries a result and nothing else: `version | result`.
#[must_use]
pub fn refusal(first: u8, result: ResultCode) -> Vec<u8> {
    response(first, result, &[])
}

pub(crate) use auth::serial_named;
