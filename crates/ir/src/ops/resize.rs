//! `Resize`: resampling along axes.
//!
//! Operands X, optional roi, and one of scales (f32) or sizes (i64), which name all axes or those of `axes`.
//! Output sizes are `sizes`, or ⌊dim · scale⌋. A position x of the output is at `coordinate(x)` of the input
//! ([`Resize::taps`]) and reads one element (nearest), two (linear) or four (cubic) per axis; beyond the edge
//! the edge repeats. Axes are resampled one after the other, in f64; coordinates are computed in f32, as ONNX
//! Runtime does, so that ties fall the same way.
//!
//! **Dtypes**: nearest takes any but strings; linear and cubic f16, bf16, f32, f64.
//! With `antialias` the weights of linear and cubic are stretched by 1/scale where the result is smaller.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Resize.html>.
//! **Opsets**: 10, 11 (roi, coordinate modes, cubic), 13 (bf16; `tf_half_pixel_for_nn` gone), 18 (axes,
//! antialias, keep_aspect_ratio_policy), 19 (`half_pixel_symmetric`).

use super::dense::{filled, is_real, output_type};
use super::util::{arity, expect_dtype, known_attrs, normalize_axes, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `Resize`: operands X, optional roi, optional scales, optional sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// nearest, linear or cubic.
    pub mode: String,
    /// Attribute `coordinate_transformation_mode`.
    pub coordinate_mode: String,
    /// Rounding of nearest.
    pub nearest_mode: String,
    /// Axes that scales or sizes name; all if absent.
    pub axes: Option<Vec<i64>>,
    /// Filter when shrinking.
    pub antialias: bool,
    /// Coefficient of cubic.
    pub cubic_coeff_a: f32,
    /// Weights outside are zero.
    pub exclude_outside: bool,
    /// Value outside with `tf_crop_and_resize`.
    pub extrapolation_value: f32,
    /// stretch, not_larger or not_smaller.
    pub keep_aspect_ratio_policy: String,
}

/// The string attributes: name, values taken (the first is the default).
const CHOICES: [(&str, &[&str]); 4] = [
    ("mode", &["nearest", "linear", "cubic"]),
    (
        "coordinate_transformation_mode",
        &[
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
            "tf_crop_and_resize",
        ],
    ),
    ("nearest_mode", &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    ("keep_aspect_ratio_policy", &["stretch", "not_larger", "not_smaller"]),
];

/// Largest size of an axis of the result: larger ones come from broken scales, and tables have a row for each.
const MAX_SIZE: i64 = i32::MAX as i64;

/// How one axis is resampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResizeAxis {
    /// Size of the input.
    pub input: usize,
    /// Size of the output.
    pub output: usize,
    /// Output elements per input element, as coordinates use it.
    pub scale: f32,
    /// Region of interest: start and end, as parts of the input. Only `tf_crop_and_resize` reads it.
    pub roi: [f32; 2],
}

/// What an output position reads along one axis: input indices and their weights; `None` where the position
/// is outside of the input and takes the extrapolation value.
pub type ResizeTaps = Option<Vec<(usize, f64)>>;

impl OpDef for Resize {
    const NAMES: &'static [&'static str] = &["Resize"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(
            attrs,
            &[
                &CHOICES.map(|row| row.0)[..],
                &["axes", "antialias", "cubic_coeff_a", "exclude_outside", "extrapolation_value"],
            ]
            .concat(),
        )?;
        let [mode, coordinate_mode, nearest_mode, keep_aspect_ratio_policy] =
            CHOICES.map(|(name, values)| choice(attrs, name, values));
        let antialias = attrs.int("antialias", 0)? != 0;
        Ok(Resize {
            mode: mode?,
            coordinate_mode: coordinate_mode?,
            nearest_mode: nearest_mode?,
            axes: attrs.ints("axes")?,
            antialias,
            cubic_coeff_a: attrs.float("cubic_coeff_a", -0.75)?,
            exclude_outside: attrs.int("exclude_outside", 0)? != 0,
            extrapolation_value: attrs.float("extrapolation_value", 0.0)?,
            keep_aspect_ratio_policy: keep_aspect_ratio_policy?,
        })
    }

    fn name(&self) -> &'static str {
        "Resize"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        let chosen = [&self.mode, &self.coordinate_mode, &self.nearest_mode, &self.keep_aspect_ratio_policy];
        for ((name, values), chosen) in CHOICES.into_iter().zip(chosen) {
            if chosen != values[0] {
                attrs.set(name, Attr::Str(chosen.clone()));
            }
        }
        if let Some(axes) = &self.axes {
            attrs.set("axes", Attr::Ints(axes.clone()));
        }
        for (name, value, default) in [
            ("cubic_coeff_a", self.cubic_coeff_a, -0.75),
            ("extrapolation_value", self.extrapolation_value, 0.0),
        ] {
            if value != default {
                attrs.set(name, Attr::Float(value));
            }
        }
        for (name, value) in [("antialias", self.antialias), ("exclude_outside", self.exclude_outside)] {
            if value {
                attrs.set(name, Attr::Int(1));
            }
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 4)?;
        let x = required(inputs, 0, "X")?;
        match self.mode.as_str() {
            "nearest" => expect_dtype(0, x.dtype(), "anything but strings", |d| d != DType::String)?,
            _ => expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?,
        }
        let axes = self.resized_axes(x.rank())?;
        let mut shape = x.shape().to_vec();
        match Target::of(inputs)? {
            Target::Sizes(sizes) => {
                expect_dtype(3, sizes.dtype(), "i64", |d| d == DType::I64)?;
                expect_count(sizes, axes.len(), "sizes")?;
                let sizes = sizes.dims();
                let sizes = sizes.map(|sizes| self.fitted(x.shape(), &axes, sizes, cx)).transpose()?;
                for (i, &axis) in axes.iter().enumerate() {
                    shape[axis] = sizes.as_ref().map_or_else(|| cx.fresh(), |sizes| sizes[i].clone());
                }
            }
            Target::Scales(scales) => {
                expect_dtype(2, scales.dtype(), "f32", |d| d == DType::F32)?;
                expect_count(scales, axes.len(), "scales")?;
                let scales = scales.constant.as_ref().map(Tensor::to_f64s);
                for (i, &axis) in axes.iter().enumerate() {
                    shape[axis] = match &scales {
                        Some(scales) => scaled(&shape[axis], scales[i] as f32, cx)?,
                        None => cx.fresh(),
                    };
                }
            }
        }
        let sized = |dim: &Dim| dim.as_const().is_none_or(|d| (0..=MAX_SIZE).contains(&d));
        if let Some(axis) = shape.iter().position(|dim| !sized(dim)) {
            let dim = &shape[axis];
            return Err(OpError::Shape(format!("size {dim} of axis {axis}, expected 0 to {MAX_SIZE}")));
        }
        Ok(vec![Fact::of_type(x.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "X")?;
        let plan = self.plan(inputs, x.shape(), &shape)?;
        if x.is_empty() && !shape.contains(&0) {
            return Err(OpError::Shape(format!("cannot resize the empty {:?} to {shape:?}", x.shape())));
        }
        // What only moves elements keeps integers of any size exact.
        if dtype.is_int() || dtype == DType::Bool {
            let outside = self.extrapolation_value as i64;
            let y = resample(x.to_i64s(), x.shape(), &plan, outside, |taps, read| read(taps[0].0))?;
            return Ok(vec![Tensor::from_i64s(dtype, &shape, &y)]);
        }
        if !is_real(dtype) {
            return Err(OpError::Unsupported(format!("Resize of {dtype}")));
        }
        let outside = f64::from(self.extrapolation_value);
        let y = resample(x.to_f64s(), x.shape(), &plan, outside, |taps, read| match taps {
            [(only, _)] => read(*only),
            _ => taps.iter().map(|&(at, weight)| weight * read(at)).sum(),
        })?;
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

/// Which operand tells the output size.
enum Target<'a, T> {
    Scales(&'a T),
    Sizes(&'a T),
}

impl<'a> Target<'a, Fact> {
    /// Older exporters give the operand that is not meant as an empty list.
    fn of(inputs: &[Option<&'a Fact>]) -> Result<Self, OpError> {
        let given =
            |slot: usize| optional(inputs, slot).filter(|f| !f.shape().first().is_some_and(|d| d.is(0)));
        match (given(2), given(3)) {
            (Some(scales), None) => Ok(Target::Scales(scales)),
            (None, Some(sizes)) => Ok(Target::Sizes(sizes)),
            (None, None) => Err(OpError::MissingInput { slot: 2, name: "scales" }),
            (Some(_), Some(_)) => Err(OpError::Shape("scales and sizes are both given".to_owned())),
        }
    }
}

impl Resize {
    /// The axes that scales and sizes name, counted from the front.
    ///
    /// **Errors**: an axis is out of range or named twice.
    pub fn resized_axes(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        match &self.axes {
            None => Ok((0..rank).collect()),
            Some(axes) => normalize_axes(axes, rank),
        }
    }

    /// Sizes after `keep_aspect_ratio_policy`.
    fn fitted(
        &self,
        x: &[Dim],
        axes: &[usize],
        sizes: Vec<Dim>,
        cx: &mut InferCx,
    ) -> Result<Vec<Dim>, OpError> {
        if self.keep_aspect_ratio_policy == "stretch" {
            return Ok(sizes);
        }
        let known: Option<Vec<(usize, usize)>> = axes
            .iter()
            .zip(&sizes)
            .map(|(&axis, size)| Some((x[axis].as_usize()?, size.as_usize()?)))
            .collect();
        let Some(known) = known else { return Ok(sizes.iter().map(|_| cx.fresh()).collect()) };
        let scale = self.common_scale(&known);
        // Halves go up, as the specification says.
        Ok(known.iter().map(|&(input, _)| Dim::from((scale * input as f64 + 0.5).floor() as i64)).collect())
    }

    /// The one scale that all axes get; pairs of input size and size asked for.
    fn common_scale(&self, sizes: &[(usize, usize)]) -> f64 {
        let ratios = sizes.iter().map(|&(input, size)| size as f64 / input as f64);
        match self.keep_aspect_ratio_policy.as_str() {
            "not_larger" => ratios.fold(f64::INFINITY, f64::min),
            _ => ratios.fold(0.0, f64::max),
        }
    }

    /// The axes whose elements change place, and how.
    fn plan(
        &self,
        inputs: &[Option<&Tensor>],
        x: &[usize],
        y: &[usize],
    ) -> Result<Vec<(usize, Vec<ResizeTaps>)>, OpError> {
        let axes = self.resized_axes(x.len())?;
        let list = |slot: usize| optional(inputs, slot).filter(|t| !t.is_empty());
        let scales = list(2).map(Tensor::to_f64s);
        let roi = list(1).map(Tensor::to_f64s).filter(|_| self.coordinate_mode == "tf_crop_and_resize");
        if let Some(roi) = roi.as_ref().filter(|roi| roi.len() != 2 * axes.len()) {
            return Err(OpError::Shape(format!("roi has {} values for {} axes", roi.len(), axes.len())));
        }
        let mut plan = Vec::new();
        for (i, &axis) in axes.iter().enumerate() {
            let ratio = || y[axis] as f32 / x[axis] as f32;
            let fitted = || {
                let sizes = list(3).map(Tensor::to_i64s).unwrap_or_default();
                let asked = |(i, &axis): (usize, &usize)| (x[axis], sizes[i].max(0) as usize);
                let pairs: Vec<(usize, usize)> = axes.iter().enumerate().map(asked).collect();
                self.common_scale(&pairs) as f32
            };
            let scale = match &scales {
                Some(scales) => scales[i] as f32,
                None if self.keep_aspect_ratio_policy == "stretch" => ratio(),
                None => fitted(),
            };
            let region = roi.as_ref().map_or([0.0, 1.0], |r| [r[i] as f32, r[axes.len() + i] as f32]);
            let how = ResizeAxis { input: x[axis], output: y[axis], scale, roi: region };
            let moved = how.input != how.output || scale != 1.0 || roi.is_some();
            if moved && how.input > 0 {
                plan.push((axis, self.taps(&how)));
            }
        }
        Ok(plan)
    }

    /// What each output position along an axis reads. The input must not be empty.
    pub fn taps(&self, axis: &ResizeAxis) -> Vec<ResizeTaps> {
        (0..axis.output)
            .map(|position| {
                let at = self.coordinate(position, axis);
                let last = (axis.input - 1) as f32;
                if self.coordinate_mode == "tf_crop_and_resize" && !(0.0..=last).contains(&at) {
                    return None;
                }
                Some(match self.mode.as_str() {
                    "linear" | "cubic" if self.antialias => self.antialiased(at, axis),
                    "nearest" => vec![(self.nearest(at).clamp(0.0, f64::from(last)) as usize, 1.0)],
                    "linear" => linear(at.clamp(0.0, last), axis.input),
                    _ => self.cubic(at, axis.input),
                })
            })
            .collect()
    }

    /// Where a position of the output lies in the input; f32 throughout.
    fn coordinate(&self, position: usize, axis: &ResizeAxis) -> f32 {
        let (x, scale) = (position as f32, axis.scale);
        let (input, output) = (axis.input as f32, axis.output as f32);
        // The length before it was rounded down to a whole number.
        let length = if (scale * input).floor() == output { scale * input } else { output };
        match self.coordinate_mode.as_str() {
            "asymmetric" => x / scale,
            "align_corners" if axis.output == 1 => 0.0,
            "align_corners" => x * (input - 1.0) / (length - 1.0),
            "pytorch_half_pixel" if axis.output == 1 => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = output / (scale * input);
                input / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
            }
            "tf_crop_and_resize" => {
                let [start, end] = axis.roi;
                if axis.output > 1 {
                    start * (input - 1.0) + x * (end - start) * (input - 1.0) / (output - 1.0)
                } else {
                    0.5 * (start + end) * (input - 1.0)
                }
            }
            _ => (x + 0.5) / scale - 0.5,
        }
    }

    /// Rounds a coordinate to an element; f64, as adding a half in f32 may round up by itself.
    fn nearest(&self, at: f32) -> f64 {
        let at = f64::from(at);
        match self.nearest_mode.as_str() {
            "floor" => at.floor(),
            "ceil" => at.ceil(),
            "round_prefer_ceil" => (at + 0.5).floor(),
            _ => (at - 0.5).ceil(),
        }
    }

    /// Keys' cubic kernel (1981) with coefficient `cubic_coeff_a`, at a distance.
    fn kernel(&self, distance: f64) -> f64 {
        let (a, d) = (f64::from(self.cubic_coeff_a), distance.abs());
        match d {
            d if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            d if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            _ => 0.0,
        }
    }

    /// Weights of the elements around a coordinate, with a kernel that is as wide as an element of the result.
    fn antialiased(&self, at: f32, axis: &ResizeAxis) -> Vec<(usize, f64)> {
        let scale = f64::from(axis.scale).min(1.0);
        let reach = if self.mode == "linear" { 1.0 } else { 2.0 };
        let base = f64::from(at).ceil() - 1.0;
        let ratio = f64::from(at) - base;
        let (start, last) = ((-reach / scale).floor() as i64 + 1, axis.input as i64 - 1);
        let weight = |offset: i64| match self.mode.as_str() {
            "linear" => (1.0 - ((offset as f64 - ratio) * scale).abs()).max(0.0),
            _ => self.kernel((offset as f64 - ratio) * scale),
        };
        let mut taps: Vec<(i64, f64)> =
            (start..2 - start).map(|offset| (base as i64 + offset, weight(offset))).collect();
        if self.exclude_outside {
            taps.retain(|&(i, _)| (0..=last).contains(&i));
        }
        let sum: f64 = taps.iter().map(|tap| tap.1).sum();
        taps.into_iter().map(|(i, weight)| (i.clamp(0, last) as usize, weight / sum)).collect()
    }

    /// Weights of the four elements around a coordinate.
    fn cubic(&self, at: f32, input: usize) -> Vec<(usize, f64)> {
        let floor = at.floor();
        let s = f64::from(at - floor);
        let weights = [s + 1.0, s, 1.0 - s, 2.0 - s].map(|distance| self.kernel(distance));
        let first = floor as i64 - 1;
        let last = input as i64 - 1;
        let inside = |i: i64| (0..=last).contains(&i);
        let mut taps: Vec<(i64, f64)> = (first..).zip(weights).collect();
        if self.exclude_outside {
            taps.retain(|&(i, _)| inside(i));
            let sum: f64 = taps.iter().map(|tap| tap.1).sum();
            taps.iter_mut().for_each(|tap| tap.1 /= sum);
        }
        taps.into_iter().map(|(i, weight)| (i.clamp(0, last) as usize, weight)).collect()
    }
}

fn linear(at: f32, input: usize) -> Vec<(usize, f64)> {
    let left = at.floor();
    let part = f64::from(at - left);
    let left = left as usize;
    vec![(left, 1.0 - part), ((left + 1).min(input - 1), part)]
}

/// Resamples axis by axis; a position outside along any axis takes the value `outside`, which later axes keep:
/// weights sum to 1.
fn resample<T: Copy + PartialEq>(
    x: Vec<T>,
    shape: &[usize],
    plan: &[(usize, Vec<ResizeTaps>)],
    outside: T,
    combine: impl Fn(&[(usize, f64)], &dyn Fn(usize) -> T) -> T,
) -> Result<Vec<T>, OpError> {
    let (mut values, mut shape) = (x, shape.to_vec());
    for (axis, rows) in plan {
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..*axis].iter().product();
        let input = shape[*axis];
        shape[*axis] = rows.len();
        let mut next = filled(&shape, outside)?;
        for block in 0..outer {
            let from = &values[block * input * inner..][..input * inner];
            for (position, taps) in rows.iter().enumerate() {
                let Some(taps) = taps else { continue };
                let to = &mut next[(block * rows.len() + position) * inner..][..inner];
                for (at, to) in to.iter_mut().enumerate() {
                    *to = combine(taps, &|i| from[i * inner + at]);
                }
            }
        }
        values = next;
    }
    Ok(values)
}

fn choice(attrs: &Attrs, name: &str, values: &[&str]) -> Result<String, OpError> {
    let value = attrs.str(name, values[0])?;
    if values.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(OpError::Attribute { name: name.to_owned(), value, reason: format!("expected one of {values:?}") })
}

fn expect_count(fact: &Fact, expected: usize, name: &str) -> Result<(), OpError> {
    match fact.shape() {
        [dim] if dim.as_const().is_none_or(|count| count == expected as i64) => Ok(()),
        _ => Err(OpError::Shape(format!(
            "{name} is {}, expected one value for each of {expected} axes",
            fact.ty
        ))),
    }
}

/// `⌊dim · scale⌋`. For a symbolic dim only where the scale is a fraction with a small power of two below, so
/// that f32 arithmetic and that of dims agree; else a fresh symbol.
fn scaled(dim: &Dim, scale: f32, cx: &mut InferCx) -> Result<Dim, OpError> {
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(OpError::Value(format!("scale {scale} is not positive")));
    }
    if let Some(size) = dim.as_const() {
        return Ok(Dim::from((size as f32 * scale).floor() as i64));
    }
    let denominator = [1.0f32, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0].into_iter();
    let fraction = denominator.map(|d| (scale * d, d)).find(|(n, _)| n.fract() == 0.0 && *n < 4096.0);
    Ok(match fraction {
        Some((n, d)) => (dim.clone() * Dim::from(n as i64)).floor_div(&Dim::from(d as i64)),
        None => cx.fresh(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Op;
    use crate::ops::dense::testing::{counting, f32s, ints, num, op, sym};

    fn attrs(pairs: &[(&str, &str)]) -> Attrs {
        pairs.iter().map(|&(name, value)| (name.to_owned(), Attr::Str(value.to_owned()))).collect()
    }

    fn run(op: &Op, x: &Tensor, scales: Option<&Tensor>, sizes: Option<&Tensor>) -> Result<Tensor, OpError> {
        Ok(op.eval(&[Some(x), None, scales, sizes])?.remove(0))
    }

    #[test]
    fn nearest_modes_differ_on_ties() {
        // Asymmetric halves: coordinates 0, 0.5, 1, 1.5.
        for (mode, expected) in [
            ("round_prefer_floor", [1., 1., 2., 2.]),
            ("round_prefer_ceil", [1., 2., 2., 2.]),
            ("floor", [1., 1., 2., 2.]),
            ("ceil", [1., 2., 2., 2.]),
        ] {
            let op = op(
                "Resize",
                attrs(&[("nearest_mode", mode), ("coordinate_transformation_mode", "asymmetric")]),
            );
            let y = run(&op, &counting(&[2]), Some(&f32s(&[1], &[2.])), None).unwrap();
            assert_eq!(y, f32s(&[4], &expected), "{mode}");
        }
    }

    #[test]
    fn linear_in_three_coordinate_modes() {
        for (mode, expected) in [
            ("half_pixel", [1., 1.25, 1.75, 2.]),
            ("asymmetric", [1., 1.5, 2., 2.]),
            ("align_corners", [1., 4. / 3., 5. / 3., 2.]),
        ] {
            let op = op("Resize", attrs(&[("mode", "linear"), ("coordinate_transformation_mode", mode)]));
            let sizes = Tensor::from_vec(&[1], vec![4i64]);
            let y = run(&op, &counting(&[2]), None, Some(&sizes)).unwrap().to_f64s();
            assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{mode}: {y:?}");
        }
    }

    #[test]
    fn cubic_weights_sum_to_one_and_may_leave_out_the_outside() {
        for exclude in [0, 1] {
            let attrs = attrs(&[("mode", "cubic")]).with("exclude_outside", Attr::Int(exclude));
            let Op::Resize(resize) = op("Resize", attrs) else { panic!("a resize") };
            let taps = resize.taps(&ResizeAxis { input: 4, output: 8, scale: 2.0, roi: [0.0, 1.0] });
            for taps in taps.iter().flatten() {
                assert!((taps.iter().map(|tap| tap.1).sum::<f64>() - 1.0).abs() < 1e-12);
                assert!(taps.iter().all(|tap| tap.0 < 4));
            }
            assert_eq!(taps[0].as_ref().map(Vec::len), Some(if exclude == 1 { 2 } else { 4 }));
        }
    }

    #[test]
    fn crops_take_the_extrapolation_value_outside() {
        let attrs = attrs(&[("mode", "linear"), ("coordinate_transformation_mode", "tf_crop_and_resize")])
            .with("extrapolation_value", Attr::Float(9.0));
        let (x, roi, sizes) = (counting(&[3]), f32s(&[2], &[0.5, 1.5]), Tensor::from_vec(&[1], vec![3i64]));
        let y = op("Resize", attrs).eval(&[Some(&x), Some(&roi), None, Some(&sizes)]).unwrap();
        assert_eq!(y[0], f32s(&[3], &[2., 3., 9.]));
    }

    #[test]
    fn axes_and_aspect_ratio() {
        let attrs = attrs(&[("keep_aspect_ratio_policy", "not_larger")]).with("axes", ints(&[2, 1]));
        let sizes = Tensor::from_vec(&[2], vec![4i64, 100]);
        let y = run(&op("Resize", attrs), &counting(&[1, 3, 2]), None, Some(&sizes)).unwrap();
        assert_eq!(y.shape(), [1, 6, 4]);
        let bytes = Tensor::from_vec(&[2], vec![7u8, 9]);
        let y = run(&op("Resize", Attrs::new()), &bytes, Some(&f32s(&[1], &[2.])), None).unwrap();
        assert_eq!(y, Tensor::from_vec(&[4], vec![7u8, 7, 9, 9]));
    }

    #[test]
    fn symbolic_sizes() {
        let x = Fact::of_type(DType::F32, vec![sym("n"), num(5), sym("h"), sym("w")]);
        let infer = |scales: Option<&Fact>, sizes: Option<&Fact>| {
            let empty = Fact::of_constant(f32s(&[0], &[]));
            let inputs = [Some(&x), None, Some(scales.unwrap_or(&empty)), sizes];
            op("Resize", Attrs::new()).infer(&inputs, &mut InferCx::new("r")).unwrap().remove(0).ty.shape
        };
        let scales = Fact::of_constant(f32s(&[4], &[1., 0.7, 2., 1.5]));
        let threehalves = (sym("w") * num(3)).floor_div(&num(2));
        assert_eq!(infer(Some(&scales), None), [sym("n"), num(3), num(2) * sym("h"), threehalves]);
        let odd = Fact::of_constant(f32s(&[4], &[1., 1., 0.3, 1.]));
        assert_eq!(infer(Some(&odd), None), [sym("n"), num(5), sym("r.0"), sym("w")]);
        let tracked = vec![sym("n"), num(5), num(8), sym("h") + num(1)];
        let sizes = Fact::of_elements(DType::I64, vec![num(4)], tracked.clone());
        assert_eq!(infer(None, Some(&sizes)), tracked);
    }

    #[test]
    fn refusals() {
        let x = counting(&[2]);
        let plain = op("Resize", Attrs::new());
        let (two, sizes) = (f32s(&[1], &[2.]), Tensor::from_vec(&[1], vec![4i64]));
        assert!(matches!(run(&plain, &x, None, None), Err(OpError::MissingInput { .. })));
        assert!(run(&plain, &x, Some(&two), Some(&sizes)).is_err());
        assert!(run(&plain, &x, Some(&f32s(&[1], &[-1.])), None).is_err());
        assert!(run(&plain, &x, Some(&f32s(&[1], &[f32::NAN])), None).is_err());
        assert!(run(&plain, &x, Some(&f32s(&[1], &[1e30])), None).is_err());
        assert!(run(&plain, &x, None, Some(&Tensor::from_vec(&[1], vec![-4i64]))).is_err());
        assert!(run(&plain, &counting(&[0]), None, Some(&sizes)).is_err());
        assert!(Resize::from_attrs("Resize", &attrs(&[("mode", "area")])).is_err());
        let linear = op("Resize", attrs(&[("mode", "linear")]));
        assert!(run(&linear, &Tensor::from_vec(&[1], vec![1u8]), Some(&two), None).is_err());
    }

    #[test]
    fn filters_widen_when_shrinking() {
        let attrs = attrs(&[("mode", "linear")]).with("antialias", Attr::Int(1));
        let x = f32s(&[4], &[1., 2., 3., 4.]);
        let y = run(&op("Resize", attrs), &x, Some(&f32s(&[1], &[0.5])), None).unwrap();
        assert_eq!(y, f32s(&[2], &[1.625, 3.375]));
    }
}
