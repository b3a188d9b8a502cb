//! JPEG: segments up to the end marker.

use std::io::{self, BufRead, Seek};

use super::{ContentError, take, within};

const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// Width and height of the frame, if the picture goes on to its end marker.
pub(super) fn walk(source: &mut (impl BufRead + Seek), max_pixels: u64) -> Result<(u32, u32), ContentError> {
    let _start: [u8; 2] = take(source)?;
    let mut size = None;
    let mut pending = None;
    loop {
        let marker = match pending.take() {
            Some(marker) => marker,
            None => next_marker(source)?,
        };
        match marker {
            END => return size.ok_or(ContentError::Broken),
            // Restart markers and the like have no length.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let length = u16::from_be_bytes(take(source)?);
                let rest = i64::from(length.checked_sub(2).ok_or(ContentError::Broken)?);
                if is_frame(marker) {
                    let [_precision, h1, h0, w1, w0] = take::<5>(source)?;
                    let frame = (u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0])));
                    within(frame.0, frame.1, max_pixels)?;
                    size = Some(frame);
                    skip(source, rest - 5)?;
                } else {
                    skip(source, rest)?;
                }
                if marker == SCAN {
                    pending = Some(after_scan(source)?);
                }
            }
        }
    }
}

/// Whether a marker begins a frame header; those between are tables.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

fn skip(source: &mut impl Seek, bytes: i64) -> Result<(), ContentError> {
    if bytes < 0 {
        return Err(ContentError::Broken);
    }
    source.seek_relative(bytes)?;
    Ok(())
}

fn next_marker(source: &mut impl io::Read) -> Result<u8, ContentError> {
    let [first] = take(source)?;
    if first != 0xff {
        return Err(ContentError::Broken);
    }
    loop {
        // Any number of fill bytes may stand before a marker.
        match take(source)? {
            [0xff] => {}
            [0] => return Err(ContentError::Broken),
            [marker] => return Ok(marker),
        }
    }
}

/// Goes through coded data up to the next marker that is not a restart.
fn after_scan(source: &mut impl BufRead) -> Result<u8, ContentError> {
    let mut after_ff = false;
    loop {
        let buffer = source.fill_buf()?;
        if buffer.is_empty() {
            return Err(ContentError::Broken);
        }
        let mut used = 0;
        let mut found = None;
        while used < buffer.len() {
            if after_ff {
                let byte = buffer[used];
                used += 1;
                match byte {
                    0xff => {}
                    0 | 0xd0..=0xd7 => after_ff = false,
                    marker => {
                        found = Some(marker);
                        break;
                    }
                }
            } else {
                match buffer[used..].iter().position(|byte| *byte == 0xff) {
                    Some(place) => {
                        used += place + 1;
                        after_ff = true;
                    }
                    None => used = buffer.len(),
                }
            }
        }
        source.consume(used);
        if let Some(marker) = found {
            return Ok(marker);
        }
    }
}
