//! Quantization and its inverse.
//!
//! `QuantizeLinear`: x, y_scale, optional y_zero_point →
//! y = saturate(rint(x / y_scale) + y_zero_point). The quotient is of the dtype `precision` (that of the scale where it
//! is not given; f32 for scales of i32 and f8e8m0): x and the scale are rounded to it, then their quotient. Integers
//! round half to even, the zero point is added as an integer, then the sum is clamped to the range of the result; NaN
//! gives the zero point. To short floats the zero point is added as f32 and the sum rounded as `Cast` does it.
//! `DequantizeLinear`: x, x_scale, optional x_zero_point → y = f32(x − x_zero_point) · x_scale: the exact
//! difference rounded to f32, one f32 product, rounded to `output_dtype`, the dtype of the scale where it is not given.
//!
//! **Shapes**: the result has the shape of x. Scale and zero point have the same shape: one element (per
//! tensor); `[D]` for the axis of size D (per axis); or, with `block_size` B > 0, that of x with ⌈D / B⌉ on the
//! axis (blocked).
//! **Dtypes**: x of `QuantizeLinear` f16, bf16, f32 or i32, its scale these or f8e8m0; quantized integers of 2, 4, 8 and
//! 16 bits and floats of 4, 6 and 8 bits but f8e8m0, for `DequantizeLinear` i32 too, its scale f16, bf16, f32 or f8e8m0.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>,
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>.
//! **Opsets**: 10, 13 (per axis), 19 (8-bit floats, f16), 21 (blocks, 4 and 16 bits, `output_dtype`), 23
//! (`precision`; `output_dtype` of `DequantizeLinear`, f4e2m1), 24 (f8e8m0 scales), 25 (2 bits), 28 (6-bit floats).

use super::dense::output_type;
use super::util::{
    arity, dtype_attr, expect_dtype, known_attrs, normalize_axis, optional, required, required_tensor,
};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use half::{bf16, f16};
use rabot_tensor::{DType, Element, ShortFloat, Tensor};

/// `QuantizeLinear`: operands x, y_scale, optional y_zero_point.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizeLinear {
    /// Axis of per-channel parameters.
    pub axis: i64,
    /// Elements that share parameters along the axis; 0 for none.
    pub block_size: usize,
    /// Whether 8-bit floats saturate.
    pub saturate: bool,
    /// Dtype of the result where there is no zero point; u8 if absent.
    pub output_dtype: Option<DType>,
    /// Dtype of the quotient; that of the scale if absent.
    pub precision: Option<DType>,
}

impl QuantizeLinear {
    /// Dtype of the quotient by a scale of this dtype.
    pub fn quotient_dtype(&self, scale: DType) -> DType {
        let dtype = self.precision.unwrap_or(scale);
        if is_float_scale(dtype) { dtype } else { DType::F32 }
    }
}

impl OpDef for QuantizeLinear {
    const NAMES: &'static [&'static str] = &["QuantizeLinear"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "block_size", "saturate", "output_dtype", "precision"])?;
        let precision = optional_dtype(attrs, "precision")?;
        if let Some(dtype) = precision.filter(|&dtype| !is_float_scale(dtype)) {
            return Err(OpError::Attribute {
                name: "precision".to_owned(),
                value: dtype.to_string(),
                reason: "expected f16, bf16 or f32".to_owned(),
            });
        }
        Ok(QuantizeLinear {
            axis: attrs.int("axis", 1)?,
            block_size: block_size(attrs)?,
            saturate: attrs.int("saturate", 1)? != 0,
            output_dtype: optional_dtype(attrs, "output_dtype")?,
            precision,
        })
    }

    fn name(&self) -> &'static str {
        "QuantizeLinear"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = parameter_attrs(self.axis, self.block_size);
        if !self.saturate {
            attrs.set("saturate", Attr::Int(0));
        }
        if let Some(dtype) = self.output_dtype {
            attrs.set("output_dtype", Attr::Str(dtype.name().to_owned()));
        }
        if let Some(dtype) = self.precision {
            attrs.set("precision", Attr::Str(dtype.name().to_owned()));
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 3)?;
        let (x, scale) = (required(inputs, 0, "x")?, required(inputs, 1, "y_scale")?);
        let zero = optional(inputs, 2);
        let divides = |d| is_float_scale(d) || d == DType::I32;
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or i32", divides)?;
        expect_dtype(1, scale.dtype(), "f16, bf16, f32, i32 or f8e8m0", |d| divides(d) || is_scale(d))?;
        let dtype = zero.map(Fact::dtype).or(self.output_dtype).unwrap_or(DType::U8);
        if !is_quantized(dtype) {
            return Err(OpError::Unsupported(format!("quantization to {dtype}")));
        }
        if let Some(asked) = self.output_dtype.filter(|&asked| asked != dtype) {
            return Err(OpError::Attribute {
                name: "output_dtype".to_owned(),
                value: asked.to_string(),
                reason: format!("the zero point is {dtype}"),
            });
        }
        check_parameters(cx, x, scale, zero, self.axis, self.block_size)?;
        Ok(vec![Fact::of_type(dtype, x.shape())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "x")?.to_f64s();
        let scale = required_tensor(inputs, 1, "y_scale")?;
        let at = ParameterIndex::new(scale, &shape, self.axis, self.block_size)?;
        let quotient = quotient(self.quotient_dtype(scale.dtype()));
        let scale = scale.to_f64s();
        let zero = optional(inputs, 2);
        if let Some(format) = ShortFloat::of(dtype) {
            let zero = zero.map_or_else(|| vec![0.0; scale.len()], Tensor::to_f64s);
            let code = |(i, &x): (usize, &f64)| {
                let p = at.of(i);
                format.encode(f64::from(quotient(x, scale[p]) + zero[p] as f32), self.saturate)
            };
            let codes = x.iter().enumerate().map(code).collect();
            return Ok(vec![Tensor::from_raw(dtype, &shape, codes)]);
        }
        let zero = zero.map_or_else(|| vec![0; scale.len()], Tensor::to_i64s);
        let values: Vec<i64> = x
            .iter()
            .enumerate()
            .map(|(i, &x)| {
                let p = at.of(i);
                saturate(quotient(x, scale[p]), zero[p], dtype)
            })
            .collect();
        Ok(vec![Tensor::from_i64s(dtype, &shape, &values)])
    }
}

/// The quotient of two values in a dtype, widened.
fn quotient(dtype: DType) -> fn(f64, f64) -> f32 {
    // A quotient of short floats that is rounded to f64 first rounds to the same one.
    fn short<T: Element>(x: f64, scale: f64) -> f32 {
        T::from_f64(T::from_f64(x).to_f64() / T::from_f64(scale).to_f64()).to_f64() as f32
    }
    match dtype {
        DType::F16 => short::<f16>,
        DType::BF16 => short::<bf16>,
        _ => |x, scale| x as f32 / scale as f32,
    }
}

/// `clamp(rint(value) + zero)`; NaN gives the zero point.
pub(super) fn saturate(value: f32, zero: i64, dtype: DType) -> i64 {
    let (low, high) = dtype.int_range().unwrap_or_default();
    let sum = (value.round_ties_even() as i64).saturating_add(zero);
    sum.clamp(low as i64, high as i64)
}

/// `DequantizeLinear`: operands x, x_scale, optional x_zero_point.
#[derive(Clone, Debug, PartialEq)]
pub struct DequantizeLinear {
    /// Axis of per-channel parameters.
    pub axis: i64,
    /// Elements that share parameters along the axis; 0 for none.
    pub block_size: usize,
    /// Dtype of the result; that of the scale if absent.
    pub output_dtype: Option<DType>,
}

impl OpDef for DequantizeLinear {
    const NAMES: &'static [&'static str] = &["DequantizeLinear"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "block_size", "output_dtype"])?;
        Ok(DequantizeLinear {
            axis: attrs.int("axis", 1)?,
            block_size: block_size(attrs)?,
            output_dtype: optional_dtype(attrs, "output_dtype")?,
        })
    }

    fn name(&self) -> &'static str {
        "DequantizeLinear"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = parameter_attrs(self.axis, self.block_size);
        if let Some(dtype) = self.output_dtype {
            attrs.set("output_dtype", Attr::Str(dtype.name().to_owned()));
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 3)?;
        let (x, scale) = (required(inputs, 0, "x")?, required(inputs, 1, "x_scale")?);
        let zero = optional(inputs, 2);
        let expected = "an integer of 2 to 16 bits, i32 or a float of 4, 6 or 8 bits";
        expect_dtype(0, x.dtype(), expected, |d| is_quantized(d) || d == DType::I32)?;
        expect_dtype(1, scale.dtype(), "f16, bf16, f32 or f8e8m0", is_scale)?;
        let dtype = self.output_dtype.unwrap_or(scale.dtype());
        if !is_float_scale(dtype) {
            return Err(OpError::Attribute {
                name: "output_dtype".to_owned(),
                value: dtype.to_string(),
                reason: format!("the result of a scale of {} must be f16, bf16 or f32", scale.dtype()),
            });
        }
        if let Some(zero) = zero {
            super::dense::same_dtype(2, zero.dtype(), x.dtype())?;
        }
        check_parameters(cx, x, scale, zero, self.axis, self.block_size)?;
        Ok(vec![Fact::of_type(dtype, x.shape())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "x")?;
        let scale = required_tensor(inputs, 1, "x_scale")?;
        let at = ParameterIndex::new(scale, &shape, self.axis, self.block_size)?;
        let scale = scale.to_f64s();
        // Differences of what any quantized dtype holds are exact in f64.
        let zero = optional(inputs, 2).map_or_else(|| vec![0.0; scale.len()], Tensor::to_f64s);
        let values: Vec<f64> = x
            .to_f64s()
            .iter()
            .enumerate()
            .map(|(i, &x)| {
                let p = at.of(i);
                f64::from((x - zero[p]) as f32 * scale[p] as f32)
            })
            .collect();
        Ok(vec![Tensor::from_f64s(dtype, &shape, &values)])
    }
}

fn is_quantized(dtype: DType) -> bool {
    let integer = dtype.is_int() && dtype.bits() <= 16;
    integer || dtype.is_short_float() && dtype != DType::F8E8M0
}

fn is_float_scale(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32)
}

fn is_scale(dtype: DType) -> bool {
    is_float_scale(dtype) || dtype == DType::F8E8M0
}

/// An attribute that names a dtype, where ONNX's code 0 means that it is not given.
fn optional_dtype(attrs: &Attrs, name: &str) -> Result<Option<DType>, OpError> {
    match attrs.get(name) {
        Some(Attr::Int(0)) => Ok(None),
        _ => dtype_attr(attrs, name),
    }
}

fn parameter_attrs(axis: i64, block_size: usize) -> Attrs {
    let mut attrs = Attrs::new().with("axis", Attr::Int(axis));
    if block_size != 0 {
        attrs.set("block_size", Attr::Int(block_size as i64));
    }
    attrs
}

fn block_size(attrs: &Attrs) -> Result<usize, OpError> {
    let value = attrs.int("block_size", 0)?;
    usize::try_from(value).map_err(|_| OpError::Attribute {
        name: "block_size".to_owned(),
        value: value.to_string(),
        reason: "expected 0 or more".to_owned(),
    })
}

/// Checks the shapes of scale and zero point against the quantized tensor.
fn check_parameters(
    cx: &mut InferCx,
    x: &Fact,
    scale: &Fact,
    zero: Option<&Fact>,
    axis: i64,
    block_size: usize,
) -> Result<(), OpError> {
    let refused = || OpError::Shape(format!("scale {} does not fit x {}", scale.ty, x.ty));
    let expected: Vec<Dim> = match scale.shape() {
        _ if block_size > 0 => {
            let axis = normalize_axis(axis, x.rank())?;
            let mut shape = x.shape().to_vec();
            shape[axis] = shape[axis].ceil_div(&Dim::from(block_size));
            shape
        }
        [] => vec![],
        [dim] if dim.is(1) => vec![Dim::from(1)],
        [_] => vec![x.shape()[normalize_axis(axis, x.rank())?].clone()],
        _ => return Err(refused()),
    };
    if scale.rank() != expected.len() {
        return Err(refused());
    }
    for (dim, expected) in scale.shape().iter().zip(&expected) {
        cx.require_equal(dim, expected).map_err(|_| refused())?;
    }
    let Some(zero) = zero else { return Ok(()) };
    let refused = || OpError::Shape(format!("zero point {} does not fit scale {}", zero.ty, scale.ty));
    let single = |fact: &Fact| fact.shape().iter().all(|d| d.is(1));
    if single(zero) && single(scale) {
        return Ok(());
    }
    if zero.rank() != scale.rank() {
        return Err(refused());
    }
    for (a, b) in zero.shape().iter().zip(scale.shape()) {
        cx.require_equal(a, b).map_err(|_| refused())?;
    }
    Ok(())
}

/// Which parameter belongs to an element.
struct ParameterIndex {
    /// Elements per step along the axis.
    inner: usize,
    /// Size of the axis.
    size: usize,
    /// Elements along the axis that share a parameter.
    block: usize,
    /// Parameters along the axis; 1 where there is one for the tensor.
    count: usize,
    /// Whether parameters differ across the other axes too.
    blocked: bool,
}

impl ParameterIndex {
    fn new(scale: &Tensor, shape: &[usize], axis: i64, block_size: usize) -> Result<Self, OpError> {
        if block_size == 0 && scale.len() == 1 {
            return Ok(ParameterIndex { inner: 1, size: 1, block: 1, count: 1, blocked: false });
        }
        let axis = normalize_axis(axis, shape.len())?;
        let (inner, size) = (shape[axis + 1..].iter().product(), shape[axis]);
        let block = block_size.max(1);
        Ok(ParameterIndex { inner, size, block, count: size.div_ceil(block), blocked: block_size > 0 })
    }

    fn of(&self, element: usize) -> usize {
        let at = element / self.inner % self.size / self.block;
        if !self.blocked {
            return at;
        }
        let outer = element / self.inner / self.size;
        (outer * self.count + at) * self.inner + element % self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{eval, f32s, num, op, sym, values};
    use half::f16;

    #[test]
    fn halves_go_to_even_and_ends_saturate() {
        let x = f32s(&[7], &[0.5, 1.5, -0.5, -1.5, 1e9, f32::NEG_INFINITY, f32::NAN]);
        let (scale, zero) = (Tensor::scalar(1f32), Tensor::scalar(3i8));
        let y = eval(&op("QuantizeLinear", Attrs::new()), &[&x, &scale, &zero]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[7], vec![3i8, 5, 3, 1, 127, -128, 3]));
    }

    #[test]
    fn the_quotient_is_f32() {
        // 0.45 / 0.1 is 4.5 in f32, and a little more than that between the f32 operands as real numbers.
        let (x, scale) = (0.45f32, 0.1f32);
        assert!(x / scale == 4.5 && f64::from(x) / f64::from(scale) != 4.5);
        let y = values(&op("QuantizeLinear", Attrs::new()), &[&f32s(&[1], &[x]), &f32s(&[1], &[scale])]);
        assert_eq!(y, [4.]);
    }

    #[test]
    fn per_axis_and_blocked_parameters() {
        let x = f32s(&[2, 3], &[10., 10., 10., 10., 10., 10.]);
        let columns = f32s(&[3], &[1., 2., 5.]);
        let per_axis = op("QuantizeLinear", Attrs::new().with("axis", Attr::Int(-1)));
        assert_eq!(values(&per_axis, &[&x, &columns]), [10., 5., 2., 10., 5., 2.]);
        let blocked = op("QuantizeLinear", Attrs::new().with("block_size", Attr::Int(2)));
        let blocks = f32s(&[2, 2], &[1., 2., 5., 10.]);
        assert_eq!(values(&blocked, &[&x, &blocks]), [10., 10., 5., 2., 2., 1.]);
        assert!(eval(&blocked, &[&x, &columns]).is_err());
        assert!(eval(&per_axis, &[&x, &f32s(&[2], &[1., 1.])]).is_err());
    }

    #[test]
    fn the_dtype_comes_from_the_zero_point_or_the_attribute() {
        let (x, scale) = (f32s(&[2], &[-9., 9.]), Tensor::scalar(1f32));
        let dtype = |code: i64| op("QuantizeLinear", Attrs::new().with("output_dtype", Attr::Int(code)));
        assert_eq!(eval(&dtype(0), &[&x, &scale]).unwrap(), Tensor::from_vec(&[2], vec![0u8, 9]));
        assert_eq!(eval(&dtype(22), &[&x, &scale]).unwrap(), Tensor::from_i64s(DType::I4, &[2], &[-8, 7]));
        assert!(eval(&dtype(5), &[&x, &scale, &Tensor::scalar(0u8)]).is_err());
        assert_eq!(eval(&dtype(17), &[&x, &scale]).unwrap().to_f64s(), [-9.0, 9.0]);
        assert!(matches!(eval(&dtype(24), &[&x, &scale]), Err(OpError::Unsupported(_))));
        let precision = Attrs::new().with("precision", Attr::Int(11));
        assert!(QuantizeLinear::from_attrs("QuantizeLinear", &precision).is_err());
    }

    #[test]
    fn the_quotient_has_the_precision_asked_for() {
        let x = Tensor::from_f64s(DType::F16, &[1], &[100.5]);
        let scale = Tensor::from_f64s(DType::F16, &[], &[0.75]);
        let of = |attrs: Attrs| {
            let attrs = attrs.with("output_dtype", Attr::Int(4));
            values(&op("QuantizeLinear", attrs), &[&x, &scale])[0]
        };
        assert_eq!(of(Attrs::new()), 134.0);
        assert_eq!(of(Attrs::new().with("precision", Attr::Int(16))), 134.0);
        let wide = Tensor::from_f64s(DType::F16, &[1], &[2049.0]);
        let bf16 = op(
            "QuantizeLinear",
            Attrs::new().with("precision", Attr::Int(16)).with("output_dtype", Attr::Int(4)),
        );
        assert_eq!(values(&bf16, &[&wide, &Tensor::scalar(1f32)]), [2048.0]);
    }

    #[test]
    fn short_floats_and_their_scales() {
        let x = f32s(&[4], &[0.3, 500.0, -3.5, f32::NAN]);
        let zero = Tensor::from_f64s(DType::F4E2M1, &[], &[1.0]);
        let y = eval(&op("QuantizeLinear", Attrs::new()), &[&x, &Tensor::scalar(1f32), &zero]).unwrap();
        assert_eq!(y.to_f64s(), [1.5, 6.0, -2.0, -0.0]);
        let scale = Tensor::from_f64s(DType::F8E8M0, &[], &[4.0]);
        let back = op("DequantizeLinear", Attrs::new().with("output_dtype", Attr::Int(1)));
        assert_eq!(eval(&back, &[&y, &scale, &zero]).unwrap(), f32s(&[4], &[2.0, 20.0, -12.0, -4.0]));
        assert!(eval(&op("DequantizeLinear", Attrs::new()), &[&y, &scale]).is_err());
    }

    #[test]
    fn dequantization() {
        let x = Tensor::from_vec(&[2, 2], vec![0u8, 255, 7, 9]);
        let (scale, zero) = (f32s(&[2], &[0.5, 2.]), Tensor::from_vec(&[2], vec![128u8, 8]));
        let rows = op("DequantizeLinear", Attrs::new().with("axis", Attr::Int(0)));
        assert_eq!(eval(&rows, &[&x, &scale, &zero]).unwrap(), f32s(&[2, 2], &[-64., 63.5, -2., 2.]));
        let half = Tensor::scalar(f16::from_f32(0.1));
        let y = eval(&rows, &[&Tensor::from_vec(&[1], vec![3i8]), &half]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[1], vec![f16::from_f32(3.0 * f16::from_f32(0.1).to_f32())]));
        assert!(eval(&rows, &[&x, &scale, &Tensor::from_vec(&[2], vec![0i8, 0])]).is_err());
    }

    #[test]
    fn a_symbolic_axis_must_match_its_parameters() {
        let x = Fact::of_type(DType::F32, vec![sym("n"), sym("c")]);
        let scale = Fact::of_type(DType::F32, vec![num(8)]);
        let mut cx = InferCx::new("q");
        let y =
            op("QuantizeLinear", Attrs::new()).infer(&[Some(&x), Some(&scale)], &mut cx).unwrap().remove(0);
        assert_eq!((y.dtype(), y.shape()), (DType::U8, &[sym("n"), sym("c")][..]));
        assert_eq!(cx.equal, [(num(8), sym("c"))]);
    }
}
