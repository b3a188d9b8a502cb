//! Thumbnails: made when somebody first asks, and kept beside the original (MED-35).

use std::io::Cursor;
use std::sync::Arc;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{PixelType, ResizeError, ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::content::Format;

/// JPEG quality.
const QUALITY: u8 = 80;
/// Bytes a decoder may need for each pixel: four channels of 16 bits.
const PIXEL: u64 = 8;

/// Bounds how many are made at the same time.
pub(crate) struct Thumbnails {
    places: Arc<Semaphore>,
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
    pub(crate) fn new(at_once: usize) -> Thumbnails {
        Thumbnails { places: Arc::new(Semaphore::new(at_once.max(1))) }
    }

    /// Waits for one of the places.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, ThumbnailError> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| ThumbnailError::Ended)
    }

    /// A JPEG of a picture whose longest side has at most `width` pixels. The work goes on when whoever asked has gone, so it
    /// is the work that has the place.
    pub(crate) async fn make(
        place: OwnedSemaphorePermit,
        picture: Vec<u8>,
        format: Format,
        width: u32,
        max_pixels: u64,
    ) -> Result<Vec<u8>, ThumbnailError> {
        let made = tokio::task::spawn_blocking(move || {
            let _place = place;
            shrink(&picture, format, width, max_pixels)
        });
        made.await.map_err(|_| ThumbnailError::Ended)?
    }
}

fn shrink(picture: &[u8], format: Format, longest: u32, max_pixels: u64) -> Result<Vec<u8>, ThumbnailError> {
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
    let mut decoder = reader.into_decoder()?;
    if decoder.total_bytes() > max_pixels.saturating_mul(PIXEL) {
        return Err(ThumbnailError::TooLarge);
    }
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
}
