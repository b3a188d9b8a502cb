//! Frames of the LBS: one byte of type and flags, a length, a body (osap-wire 3.1).

/// The flag bit that announces a variable header.
const NEGOTIATION: u8 = 0x08;
/// Flag bits that are never set; the one that is left, 0x02, is that of the ECDH message set.
const RESERVED: u8 = 0x05;
/// The longest remaining length four bytes can carry.
const MAX_LENGTH: usize = 0x0FFF_FFFF;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Reserved flag bits, or a type that does not exist: the peer speaks something else.
    #[error("the first byte 0x{0:02x} begins no LBS frame")]
    FirstByte(u8),
    /// The remaining length does not end after four bytes, or is not in its shortest form.
    #[error("the length of the frame is not encoded as it should be")]
    Length,
    /// The peer announces a frame longer than is accepted here.
    #[error("a frame of {len} bytes is longer than the {max} that are accepted")]
    TooLong {
        /// The length announced, header included.
        len: usize,
        /// The longest frame accepted.
        max: usize,
    },
    /// The bytes given are less or more than one frame.
    #[error("the bytes are not exactly one frame")]
    NotOne,
}

/// The type and flags of a frame, and what follows its fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Control message type in the high nibble, flags in the low one.
    pub first: u8,
    /// Variable header and payload.
    pub body: &'a [u8],
}

/// The total length of the frame at the front of `buf`, or `None` while its fixed header is not
/// complete. A wrong first byte or a length above `max` is reported as soon as it is visible.
///
/// # Errors
/// [`FrameError`]; the stream cannot be read any further.
pub fn frame_len(buf: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    Ok(header(buf, max)?.map(|(header, length)| header + length))
}

/// Lengths of the fixed header and of what follows it.
fn header(buf: &[u8], max: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
    check_first(first)?;
    let mut length = 0_usize;
    for (index, &byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 != 0 {
            continue;
        }
        if byte == 0 && index > 0 {
            return Err(FrameError::Length);
        }
        let header = index + 2;
        if header + length > max {
            return Err(FrameError::TooLong { len: header + length, max });
        }
        return Ok(Some((header, length)));
    }
    if rest.len() < 4 { Ok(None) } else { Err(FrameError::Length) }
}

fn check_first(first: u8) -> Result<(), FrameError> {
    let kind = first >> 4;
    let negotiation_misplaced = first & NEGOTIATION != 0 && !matches!(kind, 1 | 2);
    if kind == 0 || first & RESERVED != 0 || negotiation_misplaced {
        return Err(FrameError::FirstByte(first));
    }
    Ok(())
}

impl<'a> Frame<'a> {
    /// Reads exactly one frame.
    ///
    /// # Errors
    /// [`FrameError`] when `bytes` are anything else.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (header, length) = header(bytes, usize::MAX)?.ok_or(FrameError::NotOne)?;
        let (first, body) = match bytes.split_at_checked(header) {
            Some(([first, ..], body)) if body.len() == length => (*first, body),
            _ => return Err(FrameError::NotOne),
        };
        Ok(Self { first, body })
    }
}

/// A frame with the body that `write` appends.
///
/// # Panics
/// When the body is longer than a remaining length can say; bodies of this crate are built from
/// bounded fields and stay far below.
#[must_use]
pub(crate) fn build(first: u8, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::with_capacity(160);
    write(&mut body);
    let mut frame = start(first, body.len());
    frame.extend_from_slice(&body);
    frame
}

/// The fixed header of a frame whose body has `length` bytes, with room for the body.
///
/// # Panics
/// As for [`build`].
pub(crate) fn start(first: u8, mut length: usize) -> Vec<u8> {
    assert!(length <= MAX_LENGTH, "bodies are built from bounded fields");
    let mut frame = Vec::with_capacity(length + 5);
    frame.push(first);
    loop {
        let more = if length > 0x7F { 0x80 } else { 0 };
        frame.push((length & 0x7F) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_is_known_when_the_header_is_complete() {
        for (bytes, expected) in [
            (&[][..], Ok(None)),
            (&[0x1A], Ok(None)),
            (&[0x1A, 0x82], Ok(None)),
            (&[0x1A, 0x82, 0x01], Ok(Some(133))),
            (&[0x90, 0x13, 1, 2], Ok(Some(21))),
            (&[0x90, 0x00], Ok(Some(2))),
            (&[0x90, 0x80, 0x00], Err(FrameError::Length)),
            (&[0x90, 0xFF, 0xFF, 0xFF, 0xFF], Err(FrameError::Length)),
            (&[0x90, 0xFF, 0x07], Err(FrameError::TooLong { len: 1026, max: 1024 })),
            (&[0x90, 0xFE, 0x07], Err(FrameError::TooLong { len: 1025, max: 1024 })),
            (&[0x90, 0xFD, 0x07], Ok(Some(1024))),
        ] {
            assert_eq!(frame_len(bytes, 1024), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn foreign_protocols_fail_at_their_first_byte() {
        // TLS, SSH, HTTP GET, a type of zero, negotiation on a type that has none.
        for first in [0x16, b'S', b'G', 0x02, 0x78, 0x74] {
            assert_eq!(frame_len(&[first], 1024), Err(FrameError::FirstByte(first)));
        }
        for first in [0x10, 0x12, 0x1A, 0x2A, 0x70, 0x72, 0x92, 0xA0, 0xC0, 0xF0] {
            assert_eq!(frame_len(&[first], 1024), Ok(None));
        }
    }

    proptest! {
        #[test]
        fn what_is_built_decodes(body in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let frame = build(0x1A, |out| out.extend_from_slice(&body));
            prop_assert_eq!(frame_len(&frame, usize::MAX), Ok(Some(frame.len())));
            let decoded = Frame::decode(&frame).unwrap();
            prop_assert_eq!(decoded, Frame { first: 0x1A, body: &body });
            prop_assert_eq!(Frame::decode(&frame[..frame.len() - 1]), Err(FrameError::NotOne));
        }

        #[test]
        fn any_bytes_give_a_bounded_length(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(len)) = frame_len(&bytes, 1024) {
                prop_assert!((2..=1024).contains(&len));
            }
            let _ = Frame::decode(&bytes);
        }
    }
}
