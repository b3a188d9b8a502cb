//! The frames between device and LBS (osap-wire 13.3, "Frames").
//!
//! A frame is a fixed header, a clear head and, but for AUTH-I and AUTH-II, a sealed part. What
//! stands before the ciphertext is its AAD, so the head is authentic where there is one.

mod auth;
mod body;
mod service;

pub use auth::{AuthI, AuthIi, Bound};
pub use body::{AnchorId, Entry, Grant, Info, Issued, MAX_ANCHORS};
pub use service::{Das, DasError};

pub(crate) use service::{read_request, write_request};

use super::seal::{Direction, RecordKey};
use crate::lbs::frame::{Frame, FrameError, frame_len};
use crate::result::ResultCode;

/// First bytes of the frames.
pub mod first {
    pub use crate::lbs::message::first::{
        APPLIED, APPLY, AUTH_I, AUTH_II, CONFIRM, ECDH_REFRESH as RETURN, ECDH_REFRESHED as RETURNED,
    };
    /// Request for the address of a DAS.
    pub const SERVICE: u8 = 0xA2;
    /// The address of a DAS.
    pub const SERVICE_ANSWER: u8 = 0xB2;
}

/// The version bytes of every frame: form, low, high.
pub const VERSION: [u8; 3] = [1, 0x10, 0];
/// The longest AUTH-I, header included.
pub const MAX_AUTH_I: usize = 1_024;
/// The longest 0x72 and 0x42, header included.
pub const MAX_ENTRY: usize = 4_096;
/// The longest answer a device takes, header included: a grant of 2,048 bytes and what stands around it.
pub const MAX_ANSWER: usize = 4_096;
/// The longest `info` and `grant`, in bytes.
pub const MAX_EXTRA: usize = 2_048;

/// Why bytes are not the frame that belongs here. All of them close the connection without an
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Another frame than the one that belongs here.
    #[error("a frame that begins with 0x{0:02x} does not belong here")]
    OutOfOrder(u8),
    /// A field is cut off, too long, or there are bytes left over.
    #[error("the length of the message does not fit its fields")]
    Length,
    /// The version bytes are others.
    #[error("the version of the frame is not that of the modern suites")]
    Version,
    /// The serial is empty, too long or has characters that no serial has.
    #[error("the serial is not acceptable: {0}")]
    Serial(#[from] crate::id::SerialError),
    /// The group is longer than 14 types, or does not name the type that is offered.
    #[error("the group of protocol types is not acceptable")]
    Group,
    /// The sealed part does not open.
    #[error("the sealed part of the frame does not open")]
    Undecryptable,
    /// What was sealed is not what belongs here.
    #[error("the content of the frame cannot be read")]
    Content,
}

impl From<crate::wire::Short> for MessageError {
    fn from(_: crate::wire::Short) -> Self {
        Self::Length
    }
}

/// A frame of this first byte with `head` in clear and `text` sealed.
pub(crate) fn seal(first: u8, head: &[&[u8]], key: &RecordKey, counter: u64, text: &[u8]) -> Vec<u8> {
    let head_len: usize = head.iter().map(|field| field.len()).sum();
    // The length in the header is part of the AAD and counts the tag. Room for all of it is there from the start, so that
    // no copy of the text stays behind in memory.
    let mut frame = crate::lbs::frame::start(first, head_len + text.len() + super::seal::TAG_LEN);
    head.iter().for_each(|field| frame.extend_from_slice(field));
    let sealed_at = frame.len();
    frame.extend_from_slice(text);
    key.seal_behind(counter, &mut frame, sealed_at);
    frame
}

/// The head of a sealed frame and its opened text.
pub(crate) struct Unsealed {
    /// 0 in requests, which carry none.
    pub(crate) result: ResultCode,
    pub(crate) text: zeroize::Zeroizing<Vec<u8>>,
}

/// Opens a sealed frame of one of these first bytes. Answers carry a result behind the version.
pub(crate) fn open(
    bytes: &[u8],
    expected: u8,
    direction: Direction,
    key: &RecordKey,
    counter: u64,
) -> Result<Unsealed, MessageError> {
    let frame = Frame::decode(bytes)?;
    if frame.first != expected {
        return Err(MessageError::OutOfOrder(frame.first));
    }
    let (version, rest) = frame.body.split_first_chunk::<3>().ok_or(MessageError::Length)?;
    if *version != VERSION {
        return Err(MessageError::Version);
    }
    let (result, sealed) = match direction {
        Direction::Up => (ResultCode::Success, rest),
        Direction::Down => {
            let (result, sealed) = rest.split_first().ok_or(MessageError::Length)?;
            (ResultCode::from(*result), sealed)
        }
    };
    let head = &bytes[..bytes.len() - sealed.len()];
    let mut text = zeroize::Zeroizing::new(sealed.to_vec());
    let len = key.open(counter, &[head], &mut text).map_err(|_| MessageError::Undecryptable)?.len();
    text.truncate(len);
    Ok(Unsealed { result, text })
}

/// Where the next frame ends, if it has come whole; a frame that is out of bounds shows as soon as its header is there.
///
/// # Errors
/// [`FrameError`].
pub fn next_frame(received: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    Ok(frame_len(received, max)?.filter(|len| received.len() >= *len))
}
