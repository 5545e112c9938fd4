//! `GridSample`: X `[N, C, d1, …, dr]`, grid `[N, o1, …, or, r]` → Y `[N, C, o1, …, or]`.
//!
//! The last axis of the grid is a place in X, its last axis first: −1 and 1 are the centres of the outermost elements
//! (`align_corners`) or their outer edges. Y is the nearest element there (halves to even), or interpolates linearly
//! between 2 or cubically (A = −0.75) between 4 of them along each axis. Beyond the edges are zeros, the elements at the
//! edges, or reflections of X.
//!
//! **Dtypes**: X any number, bool, string or complex, of which `linear` and `cubic` take numbers and bool; results
//! for integers are truncated. The grid is f16, bf16, f32 or f64.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__GridSample.html>.
//! **Opsets**: 16 (`bilinear`, `bicubic`), 20 (`linear`, `cubic`, any number of axes), 22 (bf16).

use super::{inside, products, refused};
use crate::ops::dense::{filled, is_real, output_type};
use crate::ops::movement::{Move, move_elements};
use crate::ops::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// How elements are made of those around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GridMode {
    /// Along each axis, a line between 2.
    Linear,
    /// The one that is nearest.
    Nearest,
    /// Along each axis, a cubic through 4.
    Cubic,
}

/// What is beyond the edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GridPadding {
    /// Zeros.
    Zeros,
    /// What is at the edge.
    Border,
    /// What is as far from the edge on the other side.
    Reflection,
}

const MODES: [(GridMode, &str); 3] =
    [(GridMode::Linear, "linear"), (GridMode::Nearest, "nearest"), (GridMode::Cubic, "cubic")];

const PADDINGS: [(GridPadding, &str); 3] =
    [(GridPadding::Zeros, "zeros"), (GridPadding::Border, "border"), (GridPadding::Reflection, "reflection")];

/// `GridSample`: operands X, grid.
#[derive(Clone, Debug, PartialEq)]
pub struct GridSample {
    /// How elements are made of those around.
    pub mode: GridMode,
    /// What is beyond the edges.
    pub padding: GridPadding,
    /// −1 and 1 are centres of elements.
    pub align_corners: bool,
}

impl OpDef for GridSample {
    const NAMES: &'static [&'static str] = &["GridSample"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["align_corners", "mode", "padding_mode"])?;
        let (mode, padding) = (attrs.str("mode", "linear")?, attrs.str("padding_mode", "zeros")?);
        let mode = MODES
            .iter()
            .find(|row| row.1 == mode)
            .ok_or_else(|| refused("mode", mode, "expected linear, nearest or cubic"))?;
        let padding = PADDINGS
            .iter()
            .find(|row| row.1 == padding)
            .ok_or_else(|| refused("padding_mode", padding, "expected zeros, border or reflection"))?;
        let align_corners = attrs.int("align_corners", 0)? != 0;
        Ok(GridSample { mode: mode.0, padding: padding.0, align_corners })
    }

    fn name(&self) -> &'static str {
        "GridSample"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().with("align_corners", Attr::Int(i64::from(self.align_corners)));
        for row in MODES.iter().filter(|row| row.0 == self.mode) {
            attrs.set("mode", Attr::Str(row.1.to_owned()));
        }
        for row in PADDINGS.iter().filter(|row| row.0 == self.padding) {
            attrs.set("padding_mode", Attr::Str(row.1.to_owned()));
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (x, grid) = (required(inputs, 0, "X")?, required(inputs, 1, "grid")?);
        expect_dtype(1, grid.dtype(), "f16, bf16, f32 or f64", is_real)?;
        if self.mode != GridMode::Nearest {
            let numbers = |dtype: DType| is_real(dtype) || dtype.is_int() || dtype == DType::Bool;
            expect_dtype(0, x.dtype(), "a number or bool, as it is interpolated", numbers)?;
        }
        let ([batch, channels, spatial @ ..], [images, outputs @ .., last]) = (x.shape(), grid.shape())
        else {
            return Err(OpError::Shape(format!("X is {} and grid {}", x.ty, grid.ty)));
        };
        if spatial.is_empty() || spatial.len() != outputs.len() {
            return Err(OpError::Shape(format!(
                "X is {} and grid {}, expected the same rank",
                x.ty, grid.ty
            )));
        }
        cx.require_equal(batch, images)?;
        cx.require_equal(last, &Dim::from(spatial.len()))?;
        let mut shape = vec![batch.clone(), channels.clone()];
        shape.extend_from_slice(outputs);
        Ok(vec![Fact::of_type(x.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (x, grid) = (required_tensor(inputs, 0, "X")?, required_tensor(inputs, 1, "grid")?);
        let sizes = x.shape()[2..].to_vec();
        let places = grid.to_f64s();
        let (positions, plane): (usize, usize) = (shape[2..].iter().product(), sizes.iter().product());
        if self.mode == GridMode::Nearest {
            let index = |place: &[f64]| self.nearest(place, &sizes);
            let indices = places.chunks_exact(sizes.len()).map(index).collect();
            let zero = match dtype {
                DType::String => Tensor::from_strings(&[1], vec![String::new()]),
                _ => Tensor::zeros(dtype, &[1]),
            };
            let moves = Nearest { channels: shape[1], positions, plane, indices };
            return Ok(vec![move_elements(&shape, &[x, &zero], &moves)?]);
        }
        let values = x.to_f64s();
        let mut y = filled(&shape, 0.0)?;
        for (at, place) in places.chunks_exact(sizes.len()).enumerate() {
            let (image, position) = (at / positions.max(1), at % positions.max(1));
            let taps = self.taps(place, &sizes);
            for channel in image * shape[1]..(image + 1) * shape[1] {
                let x = &values[channel * plane..][..plane];
                let sum: f64 = taps.iter().map(|&(offset, weight)| x[offset] * weight).sum();
                y[channel * positions + position] = if dtype.is_int() { sum.trunc() } else { sum };
            }
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

/// Takes an element of each plane for each position, or that of the second operand.
struct Nearest {
    channels: usize,
    positions: usize,
    plane: usize,
    indices: Vec<Option<usize>>,
}

impl Move for Nearest {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        for (image, indices) in self.indices.chunks_exact(self.positions.max(1)).enumerate() {
            for channel in image * self.channels..(image + 1) * self.channels {
                out.extend(indices.iter().map(|index| match index {
                    Some(index) => operands[0][channel * self.plane + index].clone(),
                    None => operands[1][0].clone(),
                }));
            }
        }
    }
}

impl GridSample {
    /// From −1 to 1 to elements of an axis, which is brought inside where the padding says so.
    fn coordinate(&self, place: f64, size: usize) -> f64 {
        let length = size as f64;
        let at = match self.align_corners {
            true => (place + 1.0) / 2.0 * (length - 1.0),
            false => ((place + 1.0) * length - 1.0) / 2.0,
        };
        let at = if self.mode == GridMode::Nearest { at.round_ties_even() } else { at };
        let (low, high) = self.edges(size);
        match self.padding {
            _ if (low..=high).contains(&at) => at,
            GridPadding::Zeros => at,
            GridPadding::Border => at.max(0.0).min(length - 1.0),
            GridPadding::Reflection => reflect(at, low, high),
        }
    }

    /// Where an axis ends.
    fn edges(&self, size: usize) -> (f64, f64) {
        match self.align_corners {
            true => (0.0, size as f64 - 1.0),
            false => (-0.5, size as f64 - 0.5),
        }
    }

    /// The element at a whole coordinate; `None` for a zero.
    fn element(&self, at: f64, size: usize) -> Option<usize> {
        let (low, high) = self.edges(size);
        let within = inside(at, size);
        match self.padding {
            _ if within.is_some() => within,
            GridPadding::Zeros => None,
            GridPadding::Border => inside(at.max(0.0).min(size as f64 - 1.0), size),
            GridPadding::Reflection => {
                // Rounding at the edge may leave it by a hair.
                inside(reflect(at, low, high).trunc().max(0.0).min(size as f64 - 1.0), size)
            }
        }
    }

    /// Offset into a plane of the nearest element.
    fn nearest(&self, place: &[f64], sizes: &[usize]) -> Option<usize> {
        place.iter().rev().zip(sizes).try_fold(0, |offset, (&place, &size)| {
            Some(offset * size + self.element(self.coordinate(place, size), size)?)
        })
    }

    /// Offsets into a plane, and their weights.
    fn taps(&self, place: &[f64], sizes: &[usize]) -> Vec<(usize, f64)> {
        let axis = |(&place, &size): (&f64, &usize)| {
            let at = self.coordinate(place, size);
            let low = at.floor();
            let part = at - low;
            let tap = |step: f64, weight: f64| (self.element(low + step, size), weight);
            match self.mode {
                GridMode::Cubic => {
                    let weights = cubic(part);
                    vec![
                        tap(-1.0, weights[0]),
                        tap(0.0, weights[1]),
                        tap(1.0, weights[2]),
                        tap(2.0, weights[3]),
                    ]
                }
                GridMode::Linear | GridMode::Nearest => vec![tap(0.0, 1.0 - part), tap(1.0, part)],
            }
        };
        let taps: Vec<_> = place.iter().rev().zip(sizes).map(axis).collect();
        let taps: Vec<_> = taps.iter().zip(sizes).map(|(taps, &size)| (size, &taps[..])).collect();
        products(&taps)
    }
}

/// Brought between two edges by reflections at them.
fn reflect(at: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let (beyond, from, towards) = match at < low {
        true => (low - at, low, 1.0),
        false => (at - high, high, -1.0),
    };
    if beyond <= 0.0 {
        return at;
    }
    let turns = (beyond / range).trunc();
    let rest = beyond - turns * range;
    match turns % 2.0 == 0.0 {
        true => from + towards * rest,
        false => from + towards * (range - rest),
    }
}

/// Weights of 4 elements for a part of the way from the second to the third.
///
/// **Source**: R. Keys, "Cubic convolution interpolation for digital image processing", 1981, with A = −0.75.
fn cubic(part: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, f32s, op, values};

    fn sample(mode: &str, padding: &str, align: i64, places: &[f32]) -> Vec<f64> {
        let attrs = Attrs::new()
            .with("mode", Attr::Str(mode.to_owned()))
            .with("padding_mode", Attr::Str(padding.to_owned()))
            .with("align_corners", Attr::Int(align));
        values(&op("GridSample", attrs), &[&counting(&[1, 1, 4]), &f32s(&[1, places.len(), 1], places)])
    }

    #[test]
    fn places_between_and_beyond() {
        assert_eq!(sample("linear", "zeros", 1, &[-1., 0., 1., 1.5]), [1., 2.5, 4., 1.]);
        // 0.5 is 2.5: halves go to the even side.
        assert_eq!(sample("nearest", "zeros", 0, &[-0.9, -0.5, 0.5, 3.]), [1., 1., 3., 0.]);
        assert_eq!(sample("nearest", "border", 0, &[-9., 9.]), [1., 4.]);
        // Beyond the last by 1 and by 3.5 elements, around 3 and around 3.5.
        assert_eq!(sample("linear", "reflection", 1, &[5. / 3., -3.]), [3., 4.]);
        assert_eq!(sample("nearest", "reflection", 0, &[1.5]), [4.]);
        let cubic = sample("cubic", "border", 1, &[0.]);
        assert!((cubic[0] - 2.5).abs() < 1e-6);
    }

    #[test]
    fn any_dtype_is_taken_from_the_nearest_place() {
        let attrs = Attrs::new().with("mode", Attr::Str("nearest".to_owned()));
        let names = Tensor::from_strings(&[1, 1, 2], vec!["a".to_owned(), "b".to_owned()]);
        let grid = f32s(&[1, 3, 1], &[-0.5, 0.5, 5.]);
        let y = op("GridSample", attrs).eval(&[Some(&names), Some(&grid)]).unwrap();
        let expected = ["a", "b", ""].map(str::to_owned).to_vec();
        assert_eq!(y[0], Tensor::from_strings(&[1, 1, 3], expected));
        let linear = op("GridSample", Attrs::new());
        assert!(linear.eval(&[Some(&names), Some(&grid)]).is_err());
        let x = Tensor::from_vec(&[1, 1, 2], vec![1i32, 4]);
        let half = f32s(&[1, 1, 1], &[0.]);
        assert_eq!(linear.eval(&[Some(&x), Some(&half)]).unwrap()[0].to_i64s(), [2]);
    }

    #[test]
    fn two_axes_have_the_last_one_first() {
        let x = counting(&[1, 1, 2, 3]);
        let attrs = Attrs::new().with("align_corners", Attr::Int(1));
        let grid = f32s(&[1, 1, 2, 2], &[1., -1., 0., 1.]);
        assert_eq!(values(&op("GridSample", attrs), &[&x, &grid]), [3., 5.]);
        assert!(
            GridSample::from_attrs("GridSample", &Attrs::new().with("mode", Attr::Str("cube".into())))
                .is_err()
        );
    }
}
