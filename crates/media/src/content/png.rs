//! PNG: chunks up to IEND.

use std::io::{BufRead, Seek};

use super::{ContentError, take, within};

/// Width and height, if the chunks go on to the last one.
pub(super) fn walk(
    source: &mut (impl BufRead + Seek),
    length: u64,
    max_pixels: u64,
) -> Result<(u32, u32), ContentError> {
    let _signature: [u8; 8] = take(source)?;
    let mut left = length.saturating_sub(8);
    let mut size = None;
    let mut data = false;
    loop {
        let chunk = u64::from(u32::from_be_bytes(take(source)?));
        let name: [u8; 4] = take(source)?;
        // Its length and name stand before the content, a checksum behind it.
        left = left.checked_sub(chunk + 12).ok_or(ContentError::Broken)?;
        let mut rest = chunk + 4;
        match &name {
            b"IHDR" if size.is_none() && chunk == 13 => {
                let (width, height) = (u32::from_be_bytes(take(source)?), u32::from_be_bytes(take(source)?));
                within(width, height, max_pixels)?;
                size = Some((width, height));
                rest -= 8;
            }
            b"IEND" if data => return size.ok_or(ContentError::Broken),
            b"IDAT" => data = true,
            // Nothing comes before the header.
            _ if size.is_none() => return Err(ContentError::Broken),
            _ => {}
        }
        source.seek_relative(i64::try_from(rest).map_err(|_| ContentError::Broken)?)?;
    }
}
