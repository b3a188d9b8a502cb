//! WebP: the first chunk.

use std::io::{BufRead, Seek};

use super::{ContentError, take};

/// Width and height, if the container is as long as it says.
pub(super) fn walk(source: &mut (impl BufRead + Seek), length: u64) -> Result<(u32, u32), ContentError> {
    let _riff: [u8; 4] = take(source)?;
    let inside = u64::from(u32::from_le_bytes(take(source)?));
    if inside + 8 > length {
        return Err(ContentError::Broken);
    }
    let _webp: [u8; 4] = take(source)?;
    let name: [u8; 4] = take(source)?;
    let chunk = u64::from(u32::from_le_bytes(take(source)?));
    if chunk + 12 > inside {
        return Err(ContentError::Broken);
    }
    match &name {
        b"VP8 " => {
            let head: [u8; 10] = take(source)?;
            // A key frame, and the start code behind its tag.
            if head[0] & 1 != 0 || head[3..6] != [0x9d, 0x01, 0x2a] {
                return Err(ContentError::Broken);
            }
            let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Ok((side(head[6], head[7]), side(head[8], head[9])))
        }
        b"VP8L" => {
            let [mark, bits @ ..]: [u8; 5] = take(source)?;
            if mark != 0x2f {
                return Err(ContentError::Broken);
            }
            let bits = u32::from_le_bytes(bits);
            Ok(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1))
        }
        b"VP8X" => {
            let head: [u8; 10] = take(source)?;
            let side = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)) + 1;
            Ok((side(&head[4..7]), side(&head[7..10])))
        }
        _ => Err(ContentError::Broken),
    }
}
