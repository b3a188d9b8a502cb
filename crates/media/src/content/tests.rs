use std::io::{BufReader, Cursor};

use image::{DynamicImage, ImageFormat};

use super::*;

const MOST: u64 = 64_000_000;

fn looked(bytes: &[u8]) -> Result<Described, ContentError> {
    // A small buffer, so that every walk crosses its edges.
    look(&mut BufReader::with_capacity(7, Cursor::new(bytes)), bytes.len() as u64, MOST)
}

fn encoded(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture).write_to(&mut bytes, format).expect("encoded");
    bytes.into_inner()
}

#[test]
fn pictures_are_recognised_with_their_size() {
    for (format, ours) in
        [(ImageFormat::Jpeg, Format::Jpeg), (ImageFormat::Png, Format::Png), (ImageFormat::WebP, Format::Webp)]
    {
        let described = looked(&encoded(format, 61, 47)).expect("a picture");
        assert_eq!(described, Described { format: ours, width: 61, height: 47 });
    }
    let mut avif = b"\0\0\0\x1cftypavif".to_vec();
    avif.extend_from_slice(b"....ispe\0\0\0\0\0\0\0\x40\0\0\0\x30....");
    assert_eq!(looked(&avif).expect("a picture"), Described { format: Format::Avif, width: 64, height: 48 });
}

#[test]
fn a_picture_that_is_cut_off_is_broken() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let whole = encoded(format, 61, 47);
        for length in 16..whole.len() - 1 {
            let cut = looked(&whole[..length]);
            assert!(matches!(cut, Err(ContentError::Broken)), "{format:?} cut at {length}: {cut:?}");
        }
    }
}

#[test]
fn bombs_are_refused_by_their_header() {
    let mut png = encoded(ImageFormat::Png, 4, 4);
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    assert!(matches!(looked(&png), Err(ContentError::TooManyPixels { width: 60_000, height: 60_000, .. })));
    // Also when nothing but the header ever comes.
    assert!(matches!(looked(&png[..33]), Err(ContentError::TooManyPixels { .. })));
    let mut jpeg = encoded(ImageFormat::Jpeg, 4, 4);
    let frame = jpeg.windows(2).position(|bytes| bytes == [0xff, 0xc0]).expect("a frame");
    jpeg[frame + 5..frame + 9].fill(0xff);
    assert!(matches!(looked(&jpeg), Err(ContentError::TooManyPixels { width: 65_535, height: 65_535, .. })));
    jpeg[frame + 5..frame + 9].fill(0);
    assert!(matches!(looked(&jpeg), Err(ContentError::TooManyPixels { width: 0, .. })));
}

#[test]
fn other_content_is_no_picture() {
    for other in
        [&b"<!doctype html><script>alert(1)</script>"[..], b"<svg xmlns=\"\"/>", b"GIF89a..........", b"\xff\xd8", b""]
    {
        assert!(matches!(looked(other), Err(ContentError::NoPicture)));
    }
}

#[test]
fn no_bytes_behind_a_signature_panic() {
    // A counter through a few multiplications is as good as random here, and the same on each run.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let whole = encoded(format, 9, 9);
        for _ in 0..2_000 {
            let mut changed = whole.clone();
            for _ in 0..3 {
                let at = (usize::from(next()) << 8 | usize::from(next())) % changed.len();
                changed[at] = next();
            }
            let _ = looked(&changed);
        }
    }
}
