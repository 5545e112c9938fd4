//! Encoded images to pixels: JPEG, JPEG 2000, PNG, BMP, WebP, TIFF, PNM.
//!
//! Files come from outside: sizes are checked before anything is allocated for them.
#![forbid(unsafe_code)]

mod jpeg;

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image as Jpeg2000};
use image::{DynamicImage, ImageReader, Limits};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Most pixels of an image.
pub const MOST_PIXELS: u64 = 1 << 26;

/// Most pixels of a row or column.
const LONGEST_SIDE: u32 = 1 << 16;

/// Most bytes that a decoder may take at a time.
const MOST_BYTES: u64 = 1 << 29;

/// First bytes of JPEG 2000: the box format, and the bare code stream.
const JPEG2000: [&[u8]; 2] = [b"\x00\x00\x00\x0c\x6a\x50\x20\x20", b"\xff\x4f\xff\x51"];

/// Pixels of 8 bits, row by row, red, green and blue next to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Three bytes for each pixel.
    pub rgb: Vec<u8>,
}

/// An image was not decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The bytes are no image of a known format, or damaged.
    #[error("not decoded: {0}")]
    Undecodable(String),
    /// The image is larger than is allowed.
    #[error("the image is larger than {MOST_PIXELS} pixels or {LONGEST_SIDE} on a side: scale it down")]
    TooLarge,
}

/// Decodes an image of whichever format it is. Transparency is dropped, 16 bits become 8.
///
/// **Errors**: the bytes are no such image, or it is too large.
pub fn decode(bytes: &[u8]) -> Result<Pixels, ImageError> {
    // A decoder that panics over a damaged file has not decoded it.
    let decoded =
        catch_unwind(AssertUnwindSafe(|| match JPEG2000.iter().any(|magic| bytes.starts_with(magic)) {
            true => jpeg2000(bytes),
            false => other(bytes),
        }));
    decoded.unwrap_or_else(|_| Err(ImageError::Undecodable("the decoder failed".to_owned())))
}

fn undecodable(error: impl ToString) -> ImageError {
    ImageError::Undecodable(error.to_string())
}

fn check_size(width: u32, height: u32) -> Result<(), ImageError> {
    let pixels = u64::from(width) * u64::from(height);
    match width <= LONGEST_SIDE && height <= LONGEST_SIDE && pixels <= MOST_PIXELS {
        true => Ok(()),
        false => Err(ImageError::TooLarge),
    }
}

fn other(bytes: &[u8]) -> Result<Pixels, ImageError> {
    if let Some(pixels) = jpeg::decode(bytes) {
        return Ok(pixels);
    }
    let reader = || ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(undecodable);
    let (width, height) = reader()?.into_dimensions().map_err(undecodable)?;
    check_size(width, height)?;
    let mut reader = reader()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let image = reader.decode().map_err(undecodable)?;
    Ok(of_image(image))
}

fn of_image(image: DynamicImage) -> Pixels {
    let image = image.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Pixels { width, height, rgb: image.into_raw() }
}

fn jpeg2000(bytes: &[u8]) -> Result<Pixels, ImageError> {
    let image = Jpeg2000::new(bytes, &DecodeSettings::default()).map_err(undecodable)?;
    let (width, height) = (image.width(), image.height());
    check_size(width, height)?;
    let colors = usize::from(image.color_space().num_channels());
    let step = colors + usize::from(image.has_alpha());
    if colors != 1 && colors != 3 {
        return Err(ImageError::Undecodable(format!("JPEG 2000 of {colors} color channels")));
    }
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(undecodable)?.data_u8();
    let (width, height) = (width as usize, height as usize);
    let expected = width * height * step;
    if decoded.len() != expected {
        let text = format!("{} bytes for {width} by {height} pixels of {step}", decoded.len());
        return Err(ImageError::Undecodable(text));
    }
    let rgb = decoded.chunks(step).flat_map(|pixel| match colors {
        1 => [pixel[0]; 3],
        _ => [pixel[0], pixel[1], pixel[2]],
    });
    Ok(Pixels { width, height, rgb: rgb.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 by 1: red, blue.
    const PNM: &[u8] = b"P6 2 1 255\n\xff\x00\x00\x00\x00\xff";

    #[test]
    fn formats_are_guessed() {
        let pixels = decode(PNM).unwrap();
        assert_eq!(pixels, Pixels { width: 2, height: 1, rgb: vec![255, 0, 0, 0, 0, 255] });
        let mut png = Cursor::new(Vec::new());
        let image = image::RgbImage::from_raw(2, 1, pixels.rgb.clone()).unwrap();
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        assert_eq!(decode(png.get_ref()).unwrap(), pixels);
    }

    #[test]
    fn what_is_damaged_or_too_large_is_refused() {
        assert!(matches!(decode(b"no image"), Err(ImageError::Undecodable(_))));
        assert!(matches!(decode(b""), Err(ImageError::Undecodable(_))));
        assert!(matches!(decode(JPEG2000[0]), Err(ImageError::Undecodable(_))));
        assert!(decode(&PNM[..12]).is_err());
        assert_eq!(decode(b"P6 60000 60000 255\n"), Err(ImageError::TooLarge));
        assert_eq!(decode(b"P6 70000 1 255\n"), Err(ImageError::TooLarge));
    }
}
