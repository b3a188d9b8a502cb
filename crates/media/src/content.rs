//! What bytes are by their own signature, how large a picture says it is, and whether it ends where it should (MED-33).
//!
//! Nothing is decoded: what a header says is read, the rest is walked over. So a picture that would unpack to gigabytes costs no
//! more than its own length.

mod avif;
mod jpeg;
mod png;
mod webp;

use std::io::{self, BufRead, Read as _, Seek};

/// A kind of content that is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Png,
    Webp,
    Avif,
}

impl Format {
    /// The media type.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::Webp => "image/webp",
            Format::Avif => "image/avif",
        }
    }

    /// The format of a media type that pictures may have.
    pub(crate) fn of_media_type(text: &str) -> Option<Format> {
        [Format::Jpeg, Format::Png, Format::Webp, Format::Avif].into_iter().find(|format| format.media_type() == text)
    }
}

/// A picture as its header describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) format: Format,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Why bytes are no picture that is taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// No signature of a picture.
    #[error("the content is not a JPEG, PNG, WebP or AVIF picture")]
    NoPicture,
    /// The signature is right and what follows is not.
    #[error("the picture is broken or cut off")]
    Broken,
    /// It says that it is larger than is taken, or has no size.
    #[error("the picture is {width} by {height}, and {max_pixels} pixels is the most")]
    TooManyPixels { width: u32, height: u32, max_pixels: u64 },
    /// It cannot be read.
    #[error("the content cannot be read")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ContentError {
    fn from(error: io::Error) -> ContentError {
        match error.kind() {
            // What ends before it should is the sender's mistake.
            io::ErrorKind::UnexpectedEof => ContentError::Broken,
            _ => ContentError::Io(error),
        }
    }
}

/// Looks at a picture of `length` bytes.
pub(crate) fn look(
    source: &mut (impl BufRead + Seek),
    length: u64,
    max_pixels: u64,
) -> Result<Described, ContentError> {
    let mut head = Vec::with_capacity(16);
    source.take(16).read_to_end(&mut head)?;
    let format = signature(&head).ok_or(ContentError::NoPicture)?;
    source.rewind()?;
    let (width, height) = match format {
        Format::Jpeg => jpeg::walk(source, max_pixels)?,
        Format::Png => png::walk(source, length, max_pixels)?,
        Format::Webp => webp::walk(source, length)?,
        Format::Avif => avif::walk(source)?,
    };
    within(width, height, max_pixels)?;
    Ok(Described { format, width, height })
}

/// Whether a size is one that is taken.
fn within(width: u32, height: u32, max_pixels: u64) -> Result<(), ContentError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > max_pixels {
        return Err(ContentError::TooManyPixels { width, height, max_pixels });
    }
    Ok(())
}

fn signature(head: &[u8]) -> Option<Format> {
    let at = |place: usize, bytes: &[u8]| head.get(place..place + bytes.len()) == Some(bytes);
    if at(0, &[0xff, 0xd8, 0xff]) {
        Some(Format::Jpeg)
    } else if at(0, b"\x89PNG\r\n\x1a\n") {
        Some(Format::Png)
    } else if at(0, b"RIFF") && at(8, b"WEBP") {
        Some(Format::Webp)
    } else if at(4, b"ftypavif") || at(4, b"ftypavis") {
        Some(Format::Avif)
    } else {
        None
    }
}

/// The next bytes, as many as the array has.
fn take<const N: usize>(source: &mut impl io::Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
