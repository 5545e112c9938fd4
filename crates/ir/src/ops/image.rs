//! `ImageDecoder`: an encoded image (u8 `[n]`) to pixels (u8 `[height, width, channels]`).
//!
//! What cannot be decoded gives an image of no pixels, as the specification says; an image that is too large is an
//! error. Gray is (19595 · R + 38470 · G + 7471 · B + 2¹⁵) / 2¹⁶, the luma of ITU-R 601-2 as Pillow has it.
//!
//! **Opsets**: 20. **Source**: <https://onnx.ai/onnx/operators/onnx__ImageDecoder.html>

use super::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_image::ImageError;
use rabot_tensor::{DType, Tensor};

/// Channels of a pixel, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Luma.
    Grayscale,
}

impl PixelFormat {
    fn name(self) -> &'static str {
        match self {
            PixelFormat::Rgb => "RGB",
            PixelFormat::Bgr => "BGR",
            PixelFormat::Grayscale => "Grayscale",
        }
    }

    fn channels(self) -> usize {
        if self == PixelFormat::Grayscale { 1 } else { 3 }
    }
}

/// `ImageDecoder`: operand the encoded image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageDecoder {
    /// Channels of the result.
    pub format: PixelFormat,
}

impl OpDef for ImageDecoder {
    const NAMES: &'static [&'static str] = &["ImageDecoder"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["pixel_format"])?;
        let stated = attrs.str("pixel_format", "RGB")?;
        let known = [PixelFormat::Rgb, PixelFormat::Bgr, PixelFormat::Grayscale];
        match known.into_iter().find(|format| format.name() == stated) {
            Some(format) => Ok(ImageDecoder { format }),
            None => Err(OpError::Attribute {
                name: "pixel_format".to_owned(),
                value: stated,
                reason: "expected RGB, BGR or Grayscale".to_owned(),
            }),
        }
    }

    fn name(&self) -> &'static str {
        "ImageDecoder"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().with("pixel_format", Attr::Str(self.format.name().to_owned()))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let data = required(inputs, 0, "encoded_stream")?;
        expect_dtype(0, data.dtype(), "u8", |dtype| dtype == DType::U8)?;
        if data.rank() != 1 {
            return Err(OpError::Shape(format!("encoded_stream is {}, expected one axis", data.ty)));
        }
        let shape = vec![cx.fresh(), cx.fresh(), Dim::from(self.format.channels())];
        Ok(vec![Fact::of_type(DType::U8, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = required_tensor(inputs, 0, "encoded_stream")?;
        let pixels = match rabot_image::decode(data.bytes()) {
            Ok(pixels) => pixels,
            Err(ImageError::Undecodable(_)) => rabot_image::Pixels::default(),
            Err(error @ ImageError::TooLarge) => return Err(OpError::Value(error.to_string())),
        };
        let shape = [pixels.height, pixels.width, self.format.channels()];
        let mut bytes = pixels.rgb;
        match self.format {
            PixelFormat::Rgb => {}
            PixelFormat::Bgr => bytes.chunks_exact_mut(3).for_each(<[u8]>::reverse),
            PixelFormat::Grayscale => bytes = bytes.chunks_exact(3).map(luma).collect(),
        }
        Ok(vec![Tensor::from_raw(DType::U8, &shape, bytes)])
    }
}

fn luma(rgb: &[u8]) -> u8 {
    let sum: u32 = rgb.iter().zip([19595, 38470, 7471]).map(|(&v, weight)| u32::from(v) * weight).sum();
    ((sum + (1 << 15)) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, inferred, plain, with};
    use super::*;

    fn bytes(data: &[u8]) -> Tensor {
        Tensor::from_vec(&[data.len()], data.to_vec())
    }

    #[test]
    fn channels_are_those_asked_for() {
        let image = bytes(b"P6 1 2 255\n\xff\x00\x00\x00\x00\xff");
        let op =
            |format: &str| with("ImageDecoder", Attrs::new().with("pixel_format", Attr::Str(format.into())));
        let rgb = eval(&plain("ImageDecoder"), &[&image]).unwrap();
        assert_eq!((rgb.shape(), rgb.bytes()), ([2, 1, 3].as_slice(), [255, 0, 0, 0, 0, 255].as_slice()));
        assert_eq!(eval(&op("BGR"), &[&image]).unwrap().bytes(), [0, 0, 255, 255, 0, 0]);
        assert_eq!(eval(&op("Grayscale"), &[&image]).unwrap().bytes(), [76, 29]);
        assert!(
            crate::Op::from_attrs(
                "ImageDecoder",
                &Attrs::new().with("pixel_format", Attr::Str("HSV".into()))
            )
            .unwrap()
            .is_err()
        );
    }

    #[test]
    fn what_is_no_image_has_no_pixels() {
        assert_eq!(eval(&plain("ImageDecoder"), &[&bytes(b"?")]).unwrap().shape(), [0, 0, 3]);
        assert!(eval(&plain("ImageDecoder"), &[&bytes(b"P6 65000 65000 255\n")]).is_err());
        assert_eq!(inferred(&plain("ImageDecoder"), &[&fact(DType::U8, &["n"])]), "u8[node.0,node.1,3]");
    }
}
