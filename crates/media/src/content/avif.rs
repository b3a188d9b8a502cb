//! AVIF: the sizes its properties tell. It is stored and never decoded here.

use std::io::{BufRead, Read as _, Seek};

use super::ContentError;

/// How far into the file its properties are looked for.
const HEAD: u64 = 64 * 1024;

/// The largest width and height that any image of it has.
pub(super) fn walk(source: &mut (impl BufRead + Seek)) -> Result<(u32, u32), ContentError> {
    let mut head = Vec::new();
    source.take(HEAD).read_to_end(&mut head)?;
    // `ispe`, version and flags, width, height.
    let sizes = head.windows(16).filter(|bytes| bytes.starts_with(b"ispe\0\0\0\0"));
    let sizes = sizes.map(|bytes| {
        let side = |at: usize| bytes[at..at + 4].iter().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
        (side(8), side(12))
    });
    sizes.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1))).ok_or(ContentError::Broken)
}
