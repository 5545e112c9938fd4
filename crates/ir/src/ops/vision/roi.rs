//! Pools of regions of images.
//!
//! - `RoiAlign`: X `[N, C, H, W]`, rois `[R, 4]` (x1, y1, x2, y2), batch_indices `[R]` → Y `[R, C, height, width]`. Each
//!   bin of a region is the mean, or the largest weighted element, of linear interpolations at `sampling_ratio²` points
//!   of it; with a ratio of 0, as many as the bin has pixels.
//! - `MaxRoiPool`: X `[N, C, H, W]`, rois `[R, 5]` (batch, x1, y1, x2, y2) → Y `[R, C, height, width]`: the maximum of the
//!   pixels in each bin, 0 where there is none. Corners are rounded to pixels, halves away from zero.
//!
//! In mode `max`, `RoiAlign` takes the largest of the four weighted neighbours of each point, not of their sums: so do
//! ONNX's reference implementation and ONNX Runtime.
//!
//! **Dtypes**: f16, bf16, f32, f64, the same for X and rois; batch_indices i64.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__RoiAlign.html>,
//! <https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html>.
//! **Opsets**: `RoiAlign` 10 (`output_half_pixel`), 16 (`coordinate_transformation_mode`), 22 (bf16); `MaxRoiPool` 1,
//! 22 (bf16).

use super::{inside, refused};
use crate::ops::dense::{filled, is_real, output_type, same_dtype};
use crate::ops::pool::larger;
use crate::ops::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// Most points that are read for one region: more than pixels of any image.
const MAX_POINTS: f64 = (1u64 << 28) as f64;

/// `RoiAlign`: operands X, rois, batch_indices.
#[derive(Clone, Debug, PartialEq)]
pub struct RoiAlign {
    /// Maxima instead of means.
    pub max: bool,
    /// Coordinates are those of pixels' corners, not of their centres.
    pub half_pixel: bool,
    /// Rows and columns of the result.
    pub output: [usize; 2],
    /// Points along each axis of a bin; 0 for as many as it has pixels.
    pub sampling_ratio: usize,
    /// From coordinates of regions to pixels.
    pub spatial_scale: f32,
}

/// A size of the result, at least 1.
fn output_size(name: &str, value: i64) -> Result<usize, OpError> {
    let size = u32::try_from(value).ok().filter(|&size| size > 0 && size < 1 << 31);
    size.map(|size| size as usize).ok_or_else(|| refused(name, value, "expected at least 1"))
}

/// Shape of the result, of regions with that many numbers.
fn region_shape(
    inputs: &[Option<&Fact>],
    numbers: i64,
    output: [usize; 2],
    cx: &mut InferCx,
) -> Result<Vec<Dim>, OpError> {
    let (x, rois) = (required(inputs, 0, "X")?, required(inputs, 1, "rois")?);
    expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
    same_dtype(1, rois.dtype(), x.dtype())?;
    let ([_, channels, _, _], [regions, columns]) = (x.shape(), rois.shape()) else {
        return Err(OpError::Shape(format!("X is {} and rois {}, expected 4 and 2 dims", x.ty, rois.ty)));
    };
    cx.require_equal(columns, &Dim::from(numbers))?;
    Ok(vec![regions.clone(), channels.clone(), Dim::from(output[0]), Dim::from(output[1])])
}

impl OpDef for RoiAlign {
    const NAMES: &'static [&'static str] = &["RoiAlign"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let known = [
            "coordinate_transformation_mode",
            "mode",
            "output_height",
            "output_width",
            "sampling_ratio",
            "spatial_scale",
        ];
        known_attrs(attrs, &known)?;
        let max = match attrs.str("mode", "avg")?.as_str() {
            "avg" => false,
            "max" => true,
            other => return Err(refused("mode", other, "expected avg or max")),
        };
        let half_pixel = match attrs.str(known[0], "half_pixel")?.as_str() {
            "half_pixel" => true,
            "output_half_pixel" => false,
            other => return Err(refused(known[0], other, "expected half_pixel or output_half_pixel")),
        };
        let ratio = attrs.int("sampling_ratio", 0)?;
        let sampling_ratio = u16::try_from(ratio).map(usize::from);
        Ok(RoiAlign {
            max,
            half_pixel,
            output: [
                output_size("output_height", attrs.int("output_height", 1)?)?,
                output_size("output_width", attrs.int("output_width", 1)?)?,
            ],
            sampling_ratio: sampling_ratio
                .map_err(|_| refused("sampling_ratio", ratio, "expected 0 to 65535"))?,
            spatial_scale: attrs.float("spatial_scale", 1.0)?,
        })
    }

    fn name(&self) -> &'static str {
        "RoiAlign"
    }

    fn attrs(&self) -> Attrs {
        let pixel = if self.half_pixel { "half_pixel" } else { "output_half_pixel" };
        Attrs::new()
            .with("mode", Attr::Str(if self.max { "max" } else { "avg" }.to_owned()))
            .with("coordinate_transformation_mode", Attr::Str(pixel.to_owned()))
            .with("output_height", Attr::Int(self.output[0] as i64))
            .with("output_width", Attr::Int(self.output[1] as i64))
            .with("sampling_ratio", Attr::Int(self.sampling_ratio as i64))
            .with("spatial_scale", Attr::Float(self.spatial_scale))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 3)?;
        let shape = region_shape(inputs, 4, self.output, cx)?;
        let images = required(inputs, 2, "batch_indices")?;
        expect_dtype(2, images.dtype(), "i64", |dtype| dtype == DType::I64)?;
        match images.shape() {
            [count] => cx.require_equal(count, &shape[0])?,
            _ => return Err(OpError::Shape(format!("batch_indices is {}, expected a list", images.ty))),
        }
        Ok(vec![Fact::of_type(required(inputs, 0, "X")?.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "X")?;
        let rois = required_tensor(inputs, 1, "rois")?.to_f64s();
        let images = required_tensor(inputs, 2, "batch_indices")?.to_i64s();
        let (values, mut y) = (x.to_f64s(), filled(&shape, 0.0)?);
        let plane = [x.shape()[2], x.shape()[3]];
        let per_region = shape[1] * self.output[0] * self.output[1];
        if per_region == 0 {
            return Ok(vec![Tensor::from_f64s(dtype, &shape, &y)]);
        }
        let regions = rois.chunks_exact(4).zip(&images).zip(y.chunks_exact_mut(per_region));
        for ((roi, &image), y) in regions {
            let x = image_of(&values, x.shape(), image)?;
            self.pool(x, plane, roi, y)?;
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

/// All channels of an image. **Errors**: there is no such image.
fn image_of<'a>(x: &'a [f64], shape: &[usize], image: i64) -> Result<&'a [f64], OpError> {
    let size = shape[1] * shape[2] * shape[3];
    let index = usize::try_from(image).ok().filter(|&image| image < shape[0]);
    let index =
        index.ok_or_else(|| OpError::Value(format!("a region of image {image}; there are {}", shape[0])))?;
    Ok(&x[index * size..][..size])
}

/// A region along one axis, in pixels.
struct Span {
    start: f64,
    bin: f64,
    points: usize,
}

impl RoiAlign {
    fn span(&self, start: f64, end: f64, bins: usize) -> Span {
        let scale = f64::from(self.spatial_scale);
        let shift = if self.half_pixel { 0.5 } else { 0.0 };
        let (start, end) = (start * scale - shift, end * scale - shift);
        // Without the shift, regions are of one pixel at least.
        let size = if self.half_pixel { end - start } else { (end - start).max(1.0) };
        let bin = size / bins as f64;
        let points = match self.sampling_ratio {
            // Of a NaN, or of less than nothing, there are none.
            0 => bin.ceil() as usize,
            ratio => ratio,
        };
        Span { start, bin, points }
    }

    /// All channels of one region.
    fn pool(&self, x: &[f64], plane: [usize; 2], roi: &[f64], y: &mut [f64]) -> Result<(), OpError> {
        let rows = self.span(roi[1], roi[3], self.output[0]);
        let columns = self.span(roi[0], roi[2], self.output[1]);
        let points = rows.points as f64 * columns.points as f64 * (self.output[0] * self.output[1]) as f64;
        if points > MAX_POINTS {
            return Err(OpError::Value(format!("the region {roi:?} is too large: {points} points to read")));
        }
        let count = (rows.points * columns.points).max(1) as f64;
        let bins = self.output[0] * self.output[1];
        for bin in 0..bins {
            let (top, left) = (bin / self.output[1], bin % self.output[1]);
            let mut first = true;
            for point in 0..rows.points * columns.points {
                let at = |span: &Span, bin: usize, point: usize| {
                    span.start + span.bin * (bin as f64 + (point as f64 + 0.5) / span.points as f64)
                };
                let row = neighbours(at(&rows, top, point / columns.points), plane[0]);
                let column = neighbours(at(&columns, left, point % columns.points), plane[1]);
                for (x, y) in x.chunks_exact((plane[0] * plane[1]).max(1)).zip(y.chunks_exact_mut(bins)) {
                    let read = |r: (usize, f64), c: (usize, f64)| r.1 * c.1 * x[r.0 * plane[1] + c.0];
                    let terms = match (row, column) {
                        (Some(r), Some(c)) => {
                            [read(r[0], c[0]), read(r[0], c[1]), read(r[1], c[0]), read(r[1], c[1])]
                        }
                        _ => [0.0; 4],
                    };
                    if self.max {
                        let most = terms[1..].iter().copied().fold(terms[0], larger);
                        y[bin] = if first { most } else { larger(y[bin], most) };
                    } else {
                        y[bin] += terms.iter().sum::<f64>() / count;
                    }
                }
                first = false;
            }
        }
        Ok(())
    }
}

/// The two pixels of an axis around a coordinate, and their weights; `None` for more than a pixel outside.
fn neighbours(at: f64, size: usize) -> Option<[(usize, f64); 2]> {
    let last = size.checked_sub(1)?;
    if !(-1.0..=size as f64).contains(&at) {
        return None;
    }
    let at = at.max(0.0);
    match inside(at.floor(), last) {
        Some(low) => Some([(low, 1.0 - (at - low as f64)), (low + 1, at - low as f64)]),
        None => Some([(last, 1.0), (last, 0.0)]),
    }
}

/// `MaxRoiPool`: operands X, rois.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxRoiPool {
    /// Rows and columns of the result.
    pub pooled_shape: [usize; 2],
    /// From coordinates of regions to pixels.
    pub spatial_scale: f32,
}

impl OpDef for MaxRoiPool {
    const NAMES: &'static [&'static str] = &["MaxRoiPool"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["pooled_shape", "spatial_scale"])?;
        let pooled = attrs.ints("pooled_shape")?;
        let pooled = pooled.ok_or_else(|| OpError::MissingAttribute("pooled_shape".to_owned()))?;
        let [height, width] = pooled[..] else {
            return Err(refused("pooled_shape", format!("{pooled:?}"), "expected height and width"));
        };
        Ok(MaxRoiPool {
            pooled_shape: [output_size("pooled_shape", height)?, output_size("pooled_shape", width)?],
            spatial_scale: attrs.float("spatial_scale", 1.0)?,
        })
    }

    fn name(&self) -> &'static str {
        "MaxRoiPool"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("pooled_shape", Attr::Ints(self.pooled_shape.map(|size| size as i64).to_vec()))
            .with("spatial_scale", Attr::Float(self.spatial_scale))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let shape = region_shape(inputs, 5, self.pooled_shape, cx)?;
        Ok(vec![Fact::of_type(required(inputs, 0, "X")?.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "X")?;
        let rois = required_tensor(inputs, 1, "rois")?.to_f64s();
        let (values, mut y) = (x.to_f64s(), filled(&shape, 0.0)?);
        let [height, width] = self.pooled_shape;
        let (plane, pixels) = ([x.shape()[2], x.shape()[3]], x.shape()[2] * x.shape()[3]);
        if shape[1] == 0 || pixels == 0 {
            return Ok(vec![Tensor::from_f64s(dtype, &shape, &y)]);
        }
        for (roi, y) in rois.chunks_exact(5).zip(y.chunks_exact_mut(shape[1] * height * width)) {
            let x = image_of(&values, x.shape(), roi[0] as i64)?;
            for (x, y) in x.chunks_exact(pixels).zip(y.chunks_exact_mut(height * width)) {
                for (bin, y) in y.iter_mut().enumerate() {
                    let rows = self.range([roi[2], roi[4]], (bin / width, height), plane[0]);
                    let columns = self.range([roi[1], roi[3]], (bin % width, width), plane[1]);
                    let taken =
                        rows.flat_map(|row| columns.clone().map(move |column| row * plane[1] + column));
                    *y = taken.map(|at| x[at]).reduce(larger).unwrap_or(0.0);
                }
            }
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

impl MaxRoiPool {
    /// Pixels of a bin along one axis.
    fn range(&self, roi: [f64; 2], (bin, bins): (usize, usize), size: usize) -> std::ops::Range<usize> {
        let [start, end] = roi.map(|at| (at * f64::from(self.spatial_scale)).round());
        let step = (end - start + 1.0).max(1.0) / bins as f64;
        let clip = |at: f64| (start + at).clamp(0.0, size as f64) as usize;
        clip((bin as f64 * step).floor())..clip(((bin + 1) as f64 * step).ceil())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, f32s, ints, op, values};

    fn align(height: i64, width: i64, ratio: i64) -> Attrs {
        Attrs::new()
            .with("output_height", Attr::Int(height))
            .with("output_width", Attr::Int(width))
            .with("sampling_ratio", Attr::Int(ratio))
    }

    #[test]
    fn means_of_points_of_bins() {
        // Pixels r·4 + c + 1: their interpolation is linear, so a bin is its centre.
        let x = counting(&[1, 1, 4, 4]);
        let rois = f32s(&[1, 4], &[0.5, 0.5, 2.5, 2.5]);
        let first = Tensor::from_vec(&[1], vec![0i64]);
        let y = values(&op("RoiAlign", align(2, 2, 2)), &[&x, &rois, &first]);
        assert_eq!(y, [3.5, 4.5, 7.5, 8.5]);
        let old =
            align(1, 1, 0).with("coordinate_transformation_mode", Attr::Str("output_half_pixel".into()));
        assert_eq!(values(&op("RoiAlign", old), &[&x, &f32s(&[1, 4], &[1., 1., 1., 1.]), &first]), [8.5]);
        let far = f32s(&[1, 4], &[50., 50., 60., 60.]);
        assert_eq!(values(&op("RoiAlign", align(1, 1, 1)), &[&x, &far, &first]), [0.]);
        let huge = f32s(&[1, 4], &[0., 0., 1e9, 1e9]);
        assert!(eval(&op("RoiAlign", align(1, 1, 0)), &[&x, &huge, &first]).is_err());
        let third = Tensor::from_vec(&[1], vec![2i64]);
        assert!(eval(&op("RoiAlign", align(1, 1, 0)), &[&x, &rois, &third]).is_err());
    }

    #[test]
    fn maxima_of_bins() {
        let attrs = Attrs::new().with("pooled_shape", ints(&[2, 2]));
        let (x, rois) = (counting(&[1, 1, 4, 4]), f32s(&[2, 5], &[0., 0., 0., 3., 3., 0., 9., 9., 9., 9.]));
        let y = values(&op("MaxRoiPool", attrs), &[&x, &rois]);
        assert_eq!(y, [6., 8., 14., 16., 0., 0., 0., 0.]);
        assert!(MaxRoiPool::from_attrs("MaxRoiPool", &Attrs::new()).is_err());
    }
}
