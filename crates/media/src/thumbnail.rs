//! Thumbnails: made when somebody first asks, and kept beside the original (MED-35).

use std::io::Cursor;
use std::sync::Arc;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{PixelType, ResizeError, ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::content::Format;

/// JPEG quality.
const QUALITY: u8 = 80;
/// Bytes a decoder may need for each pixel: four channels of 16 bits.
const PIXEL: u64 = 8;

/// Memory that all together may need.
pub(crate) const MEMORY: u64 = 512 << 20;
/// What memory is counted in.
const UNIT: u64 = 1 << 20;

/// Bounds how many are made at the same time, and how much memory they need together.
pub(crate) struct Thumbnails {
    places: Arc<Semaphore>,
    /// One permit for each unit of memory.
    memory: Arc<Semaphore>,
    units: u32,
}

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThumbnailError {
    /// The format is stored only.
    #[error("pictures of this format are stored and not decoded")]
    NotDecoded,
    /// What looked like a picture is none.
    #[error("the picture cannot be decoded")]
    Broken(#[from] image::ImageError),
    /// It would unpack to more than is taken, whatever its header said before.
    #[error("the picture is too large to be decoded")]
    TooLarge,
    /// The sizes do not fit together.
    #[error("the picture cannot be resized")]
    Resize(#[from] ResizeError),
    /// The work ended badly, or the platform is shutting down.
    #[error("the thumbnail was not made")]
    Ended,
}

impl Thumbnails {
    /// `memory` is in bytes, and counted in whole MiB.
    pub(crate) fn new(at_once: usize, memory: u64) -> Thumbnails {
        let units = u32::try_from(memory / UNIT).unwrap_or(u32::MAX);
        Thumbnails {
            places: Arc::new(Semaphore::new(at_once.max(1))),
            memory: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Waits for one of the places.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, ThumbnailError> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| ThumbnailError::Ended)
    }

    /// A JPEG of a picture whose longest side has at most `width` pixels. The work goes on when whoever asked has gone, so it
    /// is the work that has the place and the memory.
    pub(crate) async fn make(
        &self,
        place: OwnedSemaphorePermit,
        picture: Vec<u8>,
        format: Format,
        width: u32,
        max_pixels: u64,
    ) -> Result<Vec<u8>, ThumbnailError> {
        let looked = tokio::task::spawn_blocking(move || {
            let need = need(&picture, format, width, max_pixels);
            (place, picture, need)
        });
        let (place, picture, need) = looked.await.map_err(|_| ThumbnailError::Ended)?;
        let units = u32::try_from(need?.div_ceil(UNIT)).ok().filter(|units| *units <= self.units);
        let units = units.ok_or(ThumbnailError::TooLarge)?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(units).await.map_err(|_| ThumbnailError::Ended)?;
        let made = tokio::task::spawn_blocking(move || {
            let _held = (place, memory);
            shrink(&picture, format, width, max_pixels)
        });
        made.await.map_err(|_| ThumbnailError::Ended)?
    }
}

/// A decoder that has read the header and nothing else.
fn opened(picture: &[u8], format: Format, max_pixels: u64) -> Result<impl ImageDecoder + '_, ThumbnailError> {
    let format = match format {
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Png => ImageFormat::Png,
        Format::Webp => ImageFormat::WebP,
        Format::Avif => return Err(ThumbnailError::NotDecoded),
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_pixels.saturating_mul(PIXEL));
    let mut reader = ImageReader::with_format(Cursor::new(picture), format);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    if decoder.total_bytes() > max_pixels.saturating_mul(PIXEL) {
        return Err(ThumbnailError::TooLarge);
    }
    Ok(decoder)
}

/// Bytes of memory that a thumbnail needs while it is made: the picture as it is, which some decoders copy, what it unpacks to,
/// that as RGB where it is something else, and the thumbnail before and after it is turned.
fn need(picture: &[u8], format: Format, longest: u32, max_pixels: u64) -> Result<u64, ThumbnailError> {
    let decoder = opened(picture, format, max_pixels)?;
    let rgb = |(width, height): (u32, u32)| u64::from(width).saturating_mul(u64::from(height)).saturating_mul(3);
    let (width, height) = decoder.dimensions();
    let converted = match decoder.color_type() {
        ColorType::Rgb8 => 0,
        _ => rgb((width, height)),
    };
    let target = rgb(reduced(width, height, longest)).saturating_mul(2);
    let picture = (picture.len() as u64).saturating_mul(2);
    Ok(picture.saturating_add(decoder.total_bytes()).saturating_add(converted).saturating_add(target))
}

fn shrink(picture: &[u8], format: Format, longest: u32, max_pixels: u64) -> Result<Vec<u8>, ThumbnailError> {
    let mut decoder = opened(picture, format, max_pixels)?;
    // A thumbnail says nothing of how it is to be turned, so it is turned here.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let whole = DynamicImage::from_decoder(decoder)?.into_rgb8();
    let (width, height) = reduced(whole.width(), whole.height(), longest);
    let small = if (width, height) == whole.dimensions() {
        whole
    } else {
        let source = ImageRef::new(whole.width(), whole.height(), whole.as_raw(), PixelType::U8x3);
        let source = source.map_err(|_| ThumbnailError::Ended)?;
        let mut target = Image::new(width, height, PixelType::U8x3);
        Resizer::new().resize(&source, &mut target, &ResizeOptions::new())?;
        RgbImage::from_raw(width, height, target.into_vec()).ok_or(ThumbnailError::Ended)?
    };
    let mut small = DynamicImage::ImageRgb8(small);
    small.apply_orientation(orientation);
    let mut jpeg = Vec::new();
    small.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))?;
    Ok(jpeg)
}

/// The size with the longest side as asked, never enlarged, and no side of nothing.
fn reduced(width: u32, height: u32, longest: u32) -> (u32, u32) {
    let side = width.max(height);
    if side <= longest {
        return (width, height);
    }
    let scaled = |part: u32| {
        let exact = u64::from(part) * u64::from(longest) / u64::from(side);
        u32::try_from(exact).unwrap_or(longest).max(1)
    };
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let whole = RgbImage::from_fn(width, height, |x, _| image::Rgb([x as u8, 90, 200]));
        DynamicImage::ImageRgb8(whole).write_to(&mut bytes, format).expect("encoded");
        bytes.into_inner()
    }

    #[test]
    fn the_longest_side_is_as_asked_and_never_enlarged() {
        assert_eq!(reduced(4_000, 3_000, 640), (640, 480));
        assert_eq!(reduced(3_000, 4_000, 160), (120, 160));
        assert_eq!(reduced(100, 50, 160), (100, 50));
        assert_eq!(reduced(60_000, 1, 320), (320, 1));
        for (ours, theirs) in
            [(Format::Jpeg, ImageFormat::Jpeg), (Format::Png, ImageFormat::Png), (Format::Webp, ImageFormat::WebP)]
        {
            let small = shrink(&picture(theirs, 500, 250), ours, 160, 1 << 20).expect("a thumbnail");
            let small = image::load_from_memory_with_format(&small, ImageFormat::Jpeg).expect("a JPEG");
            assert_eq!((small.width(), small.height()), (160, 80));
        }
    }

    #[test]
    fn what_would_take_too_much_memory_is_not_decoded() {
        let png = picture(ImageFormat::Png, 500, 250);
        assert!(matches!(shrink(&png, Format::Png, 160, 1_000), Err(ThumbnailError::TooLarge)));
        assert!(matches!(shrink(&png, Format::Jpeg, 160, 1 << 20), Err(ThumbnailError::Broken(_))));
        assert!(matches!(shrink(&png, Format::Avif, 160, 1 << 20), Err(ThumbnailError::NotDecoded)));
    }

    #[tokio::test]
    async fn all_together_need_no_more_memory_than_there_is() {
        let of_all = 3;
        let thumbnails = Arc::new(Thumbnails::new(4, of_all << 20));
        let make = async |picture| {
            let place = thumbnails.place().await.expect("a place");
            thumbnails.make(place, picture, Format::Png, 160, 64_000_000).await
        };
        // 500 by 400 takes 600 kB as RGB; with an alpha channel and 16 bits 1.6 MB, and the 600 kB besides that it becomes then.
        let small = picture(ImageFormat::Png, 500, 400);
        assert!(make(small.clone()).await.is_ok());
        let mut deep = Cursor::new(Vec::new());
        DynamicImage::new_rgba16(500, 400).write_to(&mut deep, ImageFormat::Png).expect("encoded");
        assert!(make(deep.into_inner()).await.is_ok());
        let mut deeper = Cursor::new(Vec::new());
        DynamicImage::new_rgba16(700, 600).write_to(&mut deeper, ImageFormat::Png).expect("encoded");
        assert!(matches!(make(deeper.into_inner()).await, Err(ThumbnailError::TooLarge)), "more than there is in all");
        // While others have the memory, it waits.
        assert_eq!(thumbnails.memory.available_permits(), of_all as usize);
        let others = thumbnails.memory.acquire_many(of_all as u32).await.expect("memory");
        let mut made = std::pin::pin!(make(small));
        let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut made).await;
        assert!(early.is_err(), "there is none");
        drop(others);
        assert!(made.await.is_ok());
        assert_eq!(thumbnails.memory.available_permits(), of_all as usize);
        assert_eq!(thumbnails.places.available_permits(), 4);
    }
}
