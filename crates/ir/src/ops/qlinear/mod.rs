//! Products of quantized tensors. These define results **to the bit**: compiled integer kernels must equal
//! them.
//!
//! - acc = Σ (x − x_zero) · (w − w_zero) + B, an exact integer, taken modulo 2³² as an i32; of 8-bit floats in f64.
//! - multiplier\[c\] = (x_scale · w_scale\[c\]) / y_scale: one f32 product, then one f32 quotient.
//! - y = clamp(rint(f32(acc) · multiplier\[c\]) + y_zero): acc is rounded to the nearest f32, the product is
//!   f32, rounding is half to even, the zero point is added as an integer, then the sum is clamped to the
//!   range of y's dtype. NaN (of a zero or infinite scale) gives the zero point. To an 8-bit float the f32 product is
//!   added to the zero point in f32 and rounded as `Cast` does it, saturating.
//! - `ConvInteger`, `MatMulInteger`: acc itself.
//!
//! Padding of convolutions counts as x_zero, so it adds nothing. c is the output channel (axis 0 of W), or
//! the column of B in products of matrices.
//!
//! `QLinearConv`: x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, optional B;
//! shapes as `Conv`. `QLinearMatMul`: a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale,
//! y_zero_point, and rabot's own ninth operand, a bias `[N]`; shapes as `MatMul`. `ConvInteger`, `MatMulInteger`: two
//! operands, and optionally the zero points of both.
//!
//! **Dtypes**: operands and results i8 or u8, of `QLinearMatMul` also the four 8-bit floats; zero points as their
//! tensors; scales f16, bf16 or f32; B i32. Parameters are one element each; those of w one for each channel `[M]`;
//! those of a one for each row `[M]` or `[…, M, 1]`; those of b one for each column `[N]` or `[…, 1, N]`.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__QLinearConv.html>,
//! <https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html>, <https://onnx.ai/onnx/operators/onnx__ConvInteger.html>,
//! <https://onnx.ai/onnx/operators/onnx__MatMulInteger.html>.
//! **Opsets**: `QLinearConv`, `ConvInteger`, `MatMulInteger` 10; `QLinearMatMul` 10, 21 (8-bit floats, f16, bf16).

mod integer;
mod spread;

pub use integer::{ConvInteger, MatMulInteger};

use super::conv::{Layout, bias_shape, conv_shape, group_attr, window_attrs};
use super::dense::{filled, output_type, same_dtype};
use super::matmul::{Product, matmul_shape};
use super::quant::saturate;
use super::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError, Window};
use crate::{Attrs, Dim, Fact};
use rabot_tensor::{DType, ShortFloat, Tensor};
use spread::{Side, Spread};

/// `QLinearConv`: operands x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, optional B (i32).
#[derive(Clone, Debug, PartialEq)]
pub struct QLinearConv {
    /// Geometry.
    pub window: Window,
    /// Number of groups.
    pub group: usize,
}

impl OpDef for QLinearConv {
    const NAMES: &'static [&'static str] = &["QLinearConv"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[&Window::ATTRS[..], &["group"]].concat())?;
        Ok(QLinearConv { window: Window::from_attrs(attrs)?, group: group_attr(attrs)? })
    }

    fn name(&self) -> &'static str {
        "QLinearConv"
    }

    fn attrs(&self) -> Attrs {
        window_attrs(&self.window, self.group)
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let operands = Operands::of(inputs, is_byte)?;
        let (x, w) = (operands.a.shape(), operands.b.shape());
        let (shape, _) = conv_shape(&self.window, self.group, x, w, cx)?;
        operands.check_parameters([Side::Whole, Side::Filter], &shape[1], cx)?;
        Ok(vec![Fact::of_type(operands.dtype, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (x, w) = (required_tensor(inputs, 0, "x")?, required_tensor(inputs, 3, "w")?);
        let layout = Layout::of_conv(&self.window, self.group, x.shape(), w.shape())?;
        let x = centered(x, required_tensor(inputs, 2, "x_zero_point")?, Side::Whole)?;
        let w = centered(w, required_tensor(inputs, 5, "w_zero_point")?, Side::Filter)?;
        let mut sums = filled(&shape, 0i32)?;
        layout.convolve(&x, &w, &mut sums);
        let bias = Spread::new(&[layout.outputs], &shape, Side::Channel)?;
        let sides = [Side::Whole, Side::Channel];
        requantized(inputs, dtype, &shape, &add_bias(inputs, sums, &bias), sides)
    }
}

/// `QLinearMatMul`: operands a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point, and rabot's optional bias (i32, per column).
#[derive(Clone, Debug, PartialEq)]
pub struct QLinearMatMul;

impl OpDef for QLinearMatMul {
    const NAMES: &'static [&'static str] = &["QLinearMatMul"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(QLinearMatMul)
    }

    fn name(&self) -> &'static str {
        "QLinearMatMul"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let operands = Operands::of(inputs, is_byte_or_float)?;
        let (a, b) = (operands.a.shape(), operands.b.shape());
        let shape = matmul_shape(a, b, cx)?;
        let one = Dim::from(1);
        let columns = if b.len() > 1 { b.last().unwrap_or(&one) } else { &one };
        operands.check_parameters([Side::Rows, Side::Columns], columns, cx)?;
        Ok(vec![Fact::of_type(operands.dtype, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (a, b) = (required_tensor(inputs, 0, "a")?, required_tensor(inputs, 3, "b")?);
        let product = Product::of(a.shape(), b.shape())?;
        let (a_zero, b_zero) =
            (required_tensor(inputs, 2, "a_zero_point")?, required_tensor(inputs, 5, "b_zero_point")?);
        let sides = [Side::of_result(a.rank(), Side::Rows), Side::of_result(b.rank(), Side::Columns)];
        if a.dtype().is_float() || b.dtype().is_float() {
            let (a, b) =
                (centered_floats(a, a_zero, Side::Rows)?, centered_floats(b, b_zero, Side::Columns)?);
            let mut sums = filled(&shape, 0f64)?;
            product.run(&a, &b, |v| v, &mut sums);
            return requantized(inputs, dtype, &shape, &sums, sides);
        }
        let (a, b) = (centered(a, a_zero, Side::Rows)?, centered(b, b_zero, Side::Columns)?);
        let mut sums = filled(&shape, 0i32)?;
        product.run(&a, &b, |v| v, &mut sums);
        let bias = Spread::new(&[product.columns], &shape, Side::Whole)?;
        requantized(inputs, dtype, &shape, &add_bias(inputs, sums, &bias), sides)
    }
}

fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8)
}

fn is_byte_or_float(dtype: DType) -> bool {
    is_byte(dtype) || matches!(dtype, DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ)
}

/// The operands that both ops have, with dtypes checked.
struct Operands<'a> {
    a: &'a Fact,
    b: &'a Fact,
    /// Scale and zero point of a, then of b.
    parameters: [[&'a Fact; 2]; 2],
    bias: Option<&'a Fact>,
    /// Dtype of the result.
    dtype: DType,
}

const NAMES: [&str; 8] =
    ["x", "x_scale", "x_zero_point", "w", "w_scale", "w_zero_point", "y_scale", "y_zero_point"];

impl<'a> Operands<'a> {
    fn of(inputs: &[Option<&'a Fact>], quantized: fn(DType) -> bool) -> Result<Self, OpError> {
        arity(inputs, 8, 9)?;
        let operand = |slot: usize| required(inputs, slot, NAMES[slot]);
        for slot in [0, 3, 7] {
            expect_dtype(slot, operand(slot)?.dtype(), "i8, u8 or, for matrices, an 8-bit float", quantized)?;
        }
        for (slot, of) in [(2, 0), (5, 3)] {
            same_dtype(slot, operand(slot)?.dtype(), operand(of)?.dtype())?;
        }
        let scale = |dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        for slot in [1, 4, 6] {
            expect_dtype(slot, operand(slot)?.dtype(), "f16, bf16 or f32", scale)?;
        }
        for slot in [6, 7] {
            let fact = operand(slot)?;
            if !fact.ty.elements().is(1) {
                let (name, ty) = (NAMES[slot], &fact.ty);
                return Err(OpError::Unsupported(format!(
                    "{name} of type {ty}: only one element is supported"
                )));
            }
        }
        let bias = optional(inputs, 8);
        if let Some(bias) = bias {
            expect_dtype(8, bias.dtype(), "i32", |d| d == DType::I32)?;
            if operand(0)?.dtype().is_float() || operand(3)?.dtype().is_float() {
                return Err(OpError::Unsupported("a bias for 8-bit floats".to_owned()));
            }
        }
        Ok(Operands {
            a: operand(0)?,
            b: operand(3)?,
            parameters: [[operand(1)?, operand(2)?], [operand(4)?, operand(5)?]],
            bias,
            dtype: operand(7)?.dtype(),
        })
    }

    /// Checks the shapes of parameters and bias.
    fn check_parameters(&self, sides: [Side; 2], channels: &Dim, cx: &mut InferCx) -> Result<(), OpError> {
        for (side, (data, parameters)) in sides.into_iter().zip([self.a, self.b].iter().zip(self.parameters))
        {
            for parameter in parameters {
                side.check(parameter, data, cx)?;
            }
            let [scale, zero] = parameters;
            check_alike(scale, zero)?;
        }
        self.bias.map_or(Ok(()), |bias| bias_shape(bias.shape(), channels, cx))
    }
}

/// Refuses a zero point that has not the shape of its scale, as far as that is known, unless either is one element.
fn check_alike(scale: &Fact, zero: &Fact) -> Result<(), OpError> {
    let single = scale.ty.elements().is(1) || zero.ty.elements().is(1);
    // Dims that are not known are checked when a program is bound: each parameter has to fit the operand.
    let differ = |(a, b): (&Dim, &Dim)| a.as_const().zip(b.as_const()).is_some_and(|(a, b)| a != b);
    let apart = zero.rank() != scale.rank() || zero.shape().iter().zip(scale.shape()).any(differ);
    if apart && !single {
        return Err(OpError::Shape(format!("a zero point {} for a scale {}", zero.ty, scale.ty)));
    }
    Ok(())
}

/// The elements with their zero point taken away.
fn centered(tensor: &Tensor, zero: &Tensor, side: Side) -> Result<Vec<i32>, OpError> {
    let spread = Spread::new(zero.shape(), tensor.shape(), side)?;
    let zero = zero.to_i64s();
    let of = |(i, &v): (usize, &i64)| (v - zero[spread.of(i)]) as i32;
    Ok(tensor.to_i64s().iter().enumerate().map(of).collect())
}

fn centered_floats(tensor: &Tensor, zero: &Tensor, side: Side) -> Result<Vec<f64>, OpError> {
    let spread = Spread::new(zero.shape(), tensor.shape(), side)?;
    let zero = zero.to_f64s();
    let of = |(i, &v): (usize, &f64)| v - zero[spread.of(i)];
    Ok(tensor.to_f64s().iter().enumerate().map(of).collect())
}

/// Sums with the bias, if there is one; they wrap.
fn add_bias(inputs: &[Option<&Tensor>], mut sums: Vec<i32>, spread: &Spread) -> Vec<i32> {
    if let Some(bias) = optional(inputs, 8).map(Tensor::to_i64s) {
        let add = |(i, sum): (usize, &mut i32)| *sum = sum.wrapping_add(bias[spread.of(i)] as i32);
        sums.iter_mut().enumerate().for_each(add);
    }
    sums
}

/// A sum of products, rounded to f32.
trait Sum: Copy {
    fn rounded(self) -> f32;
}

impl Sum for i32 {
    fn rounded(self) -> f32 {
        self as f32
    }
}

impl Sum for f64 {
    fn rounded(self) -> f32 {
        self as f32
    }
}

/// The result from the sums of products; `sides` say which scales of the operands belong to an element of it.
fn requantized<T: Sum>(
    inputs: &[Option<&Tensor>],
    dtype: DType,
    shape: &[usize],
    sums: &[T],
    sides: [Side; 2],
) -> Result<Vec<Tensor>, OpError> {
    let scales = |slot: usize, side: Side| -> Result<(Vec<f32>, Spread), OpError> {
        let tensor = required_tensor(inputs, slot, NAMES[slot])?;
        let values = tensor.to_f64s().into_iter().map(|v| v as f32).collect();
        Ok((values, Spread::new(tensor.shape(), shape, side)?))
    };
    let ((a_scale, a_at), (b_scale, b_at)) = (scales(1, sides[0])?, scales(4, sides[1])?);
    let y_scale = scales(6, Side::Whole)?.0.first().copied().unwrap_or(1.0);
    let zero = required_tensor(inputs, 7, "y_zero_point")?;
    let scaled = sums
        .iter()
        .enumerate()
        .map(|(i, &sum)| sum.rounded() * (a_scale[a_at.of(i)] * b_scale[b_at.of(i)] / y_scale));
    if let Some(format) = ShortFloat::of(dtype) {
        let zero = zero.to_f64s().first().copied().unwrap_or(0.0) as f32;
        let codes = scaled.map(|value| format.encode(f64::from(value + zero), true)).collect();
        return Ok(vec![Tensor::from_raw(dtype, shape, codes)]);
    }
    let zero = zero.to_i64s().first().copied().unwrap_or(0);
    let values: Vec<i64> = scaled.map(|value| saturate(value, zero, dtype)).collect();
    Ok(vec![Tensor::from_i64s(dtype, shape, &values)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{eval, f32s, ints, op};

    fn scalars(x_scale: f32, y_scale: f32) -> [Tensor; 2] {
        [Tensor::scalar(x_scale), Tensor::scalar(y_scale)]
    }

    #[test]
    fn padding_counts_as_the_zero_point() {
        let conv = op("QLinearConv", Attrs::new().with("pads", ints(&[1, 0])));
        let [x_scale, y_scale] = scalars(1.0, 1.0);
        let x = Tensor::from_vec(&[1, 1, 2], vec![110u8, 90]);
        let w = Tensor::from_vec(&[2, 1, 2], vec![1i8, 2, 3, 4]);
        let (x_zero, y_zero) = (Tensor::scalar(100u8), Tensor::scalar(50u8));
        let (w_scale, w_zero) = (f32s(&[2], &[1.0, 0.5]), Tensor::from_vec(&[2], vec![0i8, 1]));
        let bias = Tensor::from_vec(&[2], vec![1i32, -2]);
        let y =
            eval(&conv, &[&x, &x_scale, &x_zero, &w, &w_scale, &w_zero, &y_scale, &y_zero, &bias]).unwrap();
        // x − zero = 10, −10. Sums: 20, −10 and 30, −10; with bias 21, −9 and 28, −12.
        assert_eq!(y, Tensor::from_vec(&[1, 2, 2], vec![71u8, 41, 64, 44]));
    }

    #[test]
    fn rounding_is_half_to_even_after_one_f32_product() {
        let [a_scale, y_scale] = scalars(0.5, 1.0);
        let a = Tensor::from_vec(&[5, 1], vec![1i8, 3, 5, -1, -3]);
        let b = Tensor::from_vec(&[1, 1], vec![1i8]);
        let (zero, one) = (Tensor::scalar(0i8), Tensor::scalar(1f32));
        let y = eval(
            &op("QLinearMatMul", Attrs::new()),
            &[&a, &a_scale, &zero, &b, &one, &zero, &y_scale, &zero],
        );
        assert_eq!(y, Ok(Tensor::from_vec(&[5, 1], vec![0i8, 2, 2, 0, -2])));
    }

    #[test]
    fn large_sums_round_to_f32_and_wrap() {
        let zero = Tensor::scalar(0i8);
        let [a_scale, y_scale] = scalars(1.0, 16777216.0);
        let a = Tensor::from_vec(&[1, 1], vec![1i8]);
        let b = Tensor::from_vec(&[1, 2], vec![1i8, 1]);
        let bias = Tensor::from_vec(&[2], vec![16777216 * 5 + 8388608, i32::MAX]);
        let one = Tensor::scalar(1f32);
        let inputs = [&a, &a_scale, &zero, &b, &one, &zero, &y_scale, &zero, &bias];
        let y = eval(&op("QLinearMatMul", Attrs::new()), &inputs);
        // 5.5 · 2²⁴ + 1 is no f32, so it is the tie 5.5 that rounds, to even; i32::MAX + 1 wraps to −2³¹.
        assert_eq!(y, Ok(Tensor::from_vec(&[1, 2], vec![6i8, -128])));
    }

    #[test]
    fn parameters_must_fit() {
        let (zero, one) = (Tensor::scalar(0u8), Tensor::scalar(1f32));
        let a = Tensor::from_vec(&[2, 2], vec![1u8; 4]);
        let matmul = op("QLinearMatMul", Attrs::new());
        let with = |slot: usize, tensor: &Tensor| {
            let mut inputs = [&a, &one, &zero, &a, &one, &zero, &one, &zero];
            inputs[slot] = tensor;
            eval(&matmul, &inputs)
        };
        assert!(with(1, &one).is_ok());
        assert!(with(4, &f32s(&[2], &[1., 2.])).is_ok());
        assert!(with(4, &f32s(&[3], &[1.; 3])).is_err());
        assert!(with(1, &f32s(&[2], &[1.; 2])).is_ok());
        assert!(with(1, &f32s(&[1, 2], &[1.; 2])).is_err());
        let rows = [f32s(&[2, 1], &[0.5, 1.0]), Tensor::from_vec(&[2], vec![1u8, 2])];
        assert!(eval(&matmul, &[&a, &rows[0], &rows[1], &a, &one, &zero, &one, &zero]).is_err());
        assert!(matches!(with(6, &f32s(&[2], &[1.; 2])), Err(OpError::Unsupported(_))));
        assert!(matches!(with(2, &Tensor::scalar(0i8)), Err(OpError::DType { slot: 2, .. })));
        assert!(matches!(
            with(0, &Tensor::from_vec(&[2, 2], vec![1i32; 4])),
            Err(OpError::DType { slot: 0, .. })
        ));
    }

    #[test]
    fn rows_columns_and_stacks_have_parameters_of_their_own() {
        let matmul = op("QLinearMatMul", Attrs::new());
        let a = Tensor::from_vec(&[2, 2, 1], vec![11u8, 22, 33, 44]);
        let b = Tensor::from_vec(&[1, 2], vec![1u8, 3]);
        let a_scale = f32s(&[2, 2, 1], &[1.0, 0.5, 2.0, 1.0]);
        let a_zero = Tensor::from_vec(&[2, 2, 1], vec![1u8, 2, 3, 4]);
        let (b_scale, b_zero) = (f32s(&[1, 2], &[1.0, 2.0]), Tensor::from_vec(&[1, 2], vec![0u8, 1]));
        let (one, zero) = (Tensor::scalar(1f32), Tensor::scalar(0u8));
        let y = eval(&matmul, &[&a, &a_scale, &a_zero, &b, &b_scale, &b_zero, &one, &zero]).unwrap();
        // 10, 20, 30, 40 by 1 and 2.
        assert_eq!(y, Tensor::from_vec(&[2, 2, 2], vec![10u8, 40, 10, 40, 60, 240, 40, 160]));
    }

    #[test]
    fn short_floats() {
        let matmul = op("QLinearMatMul", Attrs::new());
        let float = |shape: &[usize], values: &[f64]| Tensor::from_f64s(DType::F8E4M3FN, shape, values);
        let half = Tensor::from_f64s(DType::F16, &[], &[0.5]);
        let (a, b, zero) = (float(&[1, 2], &[1.5, 2.0]), float(&[2, 1], &[4.0, 0.25]), float(&[], &[0.0]));
        let y = eval(&matmul, &[&a, &half, &zero, &b, &half, &zero, &half, &zero]).unwrap();
        assert_eq!(y, float(&[1, 1], &[3.25]));
    }
}
