//! The frames of the LBS with their fields (osap-wire 5.1 to 5.8).
//!
//! Every message has `decode`, which takes a [`Frame`] of its type, and `encode`, which gives the
//! complete frame. The three version bytes are written as the protocol wants them and ignored
//! when read (osap-wire 14, row 1).

mod auth;
mod credentials;
mod refresh;
mod service;

pub use auth::{AuthI, AuthIi, AuthMode, Group, MAX_GROUP, Offer};
pub use credentials::{Apply, Confirm, Credentials, EcdhRefresh, Issued};
pub use refresh::{Challenge, RefreshI, RefreshIi, RefreshIii};
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
    /// AUTH-II of generation G2.
    pub const AUTH_II: u8 = 0x2A;
    /// Refresh of the master key, request.
    pub const ECDH_REFRESH: u8 = 0x42;
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
    /// STUN refresh.
    pub const STUN: u8 = 0xC0;
    /// Request for a secret key, and its response.
    pub const SECRET_KEY: u8 = 0xF0;
}

/// The version bytes of AUTH-I: the 2 announces licence support.
const VERSION_AUTH_I: [u8; 3] = [1, 2, 0];
/// The version bytes of every other message.
const VERSION: [u8; 3] = [1, 1, 0];

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

/// A response that carries a result and nothing else: `version | result`.
#[must_use]
pub fn refusal(first: u8, result: ResultCode) -> Vec<u8> {
    super::frame::build(first, |out| {
        out.extend_from_slice(&VERSION);
        out.push(result.into());
    })
}

pub(crate) use auth::serial_of_older_generation;
