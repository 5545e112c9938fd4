//! Products of quantized tensors. These define results **to the bit**: compiled integer kernels must equal
//! them.
//!
//! - acc = Σ (x − x_zero) · (w − w_zero) + B, an exact integer, taken modulo 2³² as an i32.
//! - multiplier\[c\] = (x_scale · w_scale\[c\]) / y_scale: one f32 product, then one f32 quotient.
//! - y = clamp(rint(f32(acc) · multiplier\[c\]) + y_zero): acc is rounded to the nearest f32, the product is
//!   f32, rounding is half to even, the zero point is added as an integer, then the sum is clamped to the
//!   range of y's dtype. NaN (of a zero or infinite scale) gives the zero point.
//!
//! Padding of `QLinearConv` counts as x_zero, so it adds nothing. c is the output channel (axis 0 of W), or
//! the column of B in `QLinearMatMul`.
//!
//! `QLinearConv`: x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, optional B;
//! shapes as `Conv`. `QLinearMatMul`: a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale,
//! y_zero_point, and rabot's own ninth operand, a bias `[N]`; shapes as `MatMul`.
//!
//! **Dtypes**: x, w, y each i8 or u8; zero points as their tensors; scales f32; B i32. Scale and zero point of
//! w are one element or one for each channel; all others are one element.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__QLinearConv.html>,
//! <https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html>.
//! **Opsets**: `QLinearConv` 10; `QLinearMatMul` 10, 21 (other scale dtypes, which are not supported here).

use super::conv::{Layout, bias_shape, conv_shape, group_attr, window_attrs};
use super::dense::{filled, output_type, same_dtype};
use super::matmul::{Product, matmul_shape};
use super::quant::saturate;
use super::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError, Window};
use crate::{Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

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
        let operands = Operands::of(inputs)?;
        let (x, w) = (operands.a.shape(), operands.b.shape());
        let (shape, _) = conv_shape(&self.window, self.group, x, w, cx)?;
        operands.check_channels(&shape[1], cx)?;
        Ok(vec![Fact::of_type(operands.dtype, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (x, w) = (required_tensor(inputs, 0, "x")?, required_tensor(inputs, 3, "w")?);
        let layout = Layout::of_conv(&self.window, self.group, x.shape(), w.shape())?;
        let channel_len = w.shape()[1..].iter().product::<usize>().max(1);
        let x = centered(x, required_tensor(inputs, 2, "x_zero_point")?, |_| 0);
        let w = centered(w, required_tensor(inputs, 5, "w_zero_point")?, |i| i / channel_len);
        let mut sums = filled(&shape, 0i32)?;
        layout.convolve(&x, &w, &mut sums);
        let (positions, outputs) = (layout.table.positions, layout.outputs);
        requantized(inputs, dtype, &shape, &sums, |i| i / positions % outputs)
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
        let operands = Operands::of(inputs)?;
        let (a, b) = (operands.a.shape(), operands.b.shape());
        let shape = matmul_shape(a, b, cx)?;
        let one = Dim::from(1);
        let columns = if b.len() > 1 { b.last().unwrap_or(&one) } else { &one };
        operands.check_channels(columns, cx)?;
        Ok(vec![Fact::of_type(operands.dtype, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (a, b) = (required_tensor(inputs, 0, "a")?, required_tensor(inputs, 3, "b")?);
        let product = Product::of(a.shape(), b.shape())?;
        let columns = product.columns.max(1);
        let a = centered(a, required_tensor(inputs, 2, "a_zero_point")?, |_| 0);
        let b = centered(b, required_tensor(inputs, 5, "b_zero_point")?, |i| i % columns);
        let mut sums = filled(&shape, 0i32)?;
        product.run(&a, &b, |v| v, &mut sums);
        requantized(inputs, dtype, &shape, &sums, |i| i % columns)
    }
}

/// The operands that both ops have, with dtypes checked.
struct Operands<'a> {
    a: &'a Fact,
    b: &'a Fact,
    /// Scale and zero point of b.
    channel: [&'a Fact; 2],
    bias: Option<&'a Fact>,
    /// Dtype of the result.
    dtype: DType,
}

const NAMES: [&str; 8] =
    ["x", "x_scale", "x_zero_point", "w", "w_scale", "w_zero_point", "y_scale", "y_zero_point"];

impl<'a> Operands<'a> {
    fn of(inputs: &[Option<&'a Fact>]) -> Result<Self, OpError> {
        arity(inputs, 8, 9)?;
        let operand = |slot: usize| required(inputs, slot, NAMES[slot]);
        for slot in [0, 3, 7] {
            expect_dtype(slot, operand(slot)?.dtype(), "i8 or u8", |d| matches!(d, DType::I8 | DType::U8))?;
        }
        for (slot, of) in [(2, 0), (5, 3)] {
            same_dtype(slot, operand(slot)?.dtype(), operand(of)?.dtype())?;
        }
        for slot in [1, 4, 6] {
            expect_dtype(slot, operand(slot)?.dtype(), "f32", |d| d == DType::F32)?;
        }
        for slot in [1, 2, 6, 7] {
            if !is_single(operand(slot)?) {
                let (name, ty) = (NAMES[slot], &operand(slot)?.ty);
                return Err(OpError::Unsupported(format!(
                    "{name} of type {ty}: only one element is supported"
                )));
            }
        }
        let bias = optional(inputs, 8);
        if let Some(bias) = bias {
            expect_dtype(8, bias.dtype(), "i32", |d| d == DType::I32)?;
        }
        Ok(Operands {
            a: operand(0)?,
            b: operand(3)?,
            channel: [operand(4)?, operand(5)?],
            bias,
            dtype: operand(7)?.dtype(),
        })
    }

    /// Checks what there is one of for each output channel.
    fn check_channels(&self, channels: &Dim, cx: &mut InferCx) -> Result<(), OpError> {
        for fact in self.channel.into_iter().filter(|fact| !is_single(fact)) {
            let refused = || OpError::Shape(format!("parameter {} for {channels} channels", fact.ty));
            let [dim] = fact.shape() else { return Err(refused()) };
            cx.require_equal(dim, channels).map_err(|_| refused())?;
        }
        self.bias.map_or(Ok(()), |bias| bias_shape(bias.shape(), channels, cx))
    }
}

fn is_single(fact: &Fact) -> bool {
    match fact.shape() {
        [] => true,
        [dim] => dim.is(1),
        _ => false,
    }
}

/// The elements with their zero point taken away; `channel` tells which one belongs to an element.
fn centered(tensor: &Tensor, zero: &Tensor, channel: impl Fn(usize) -> usize) -> Vec<i32> {
    let zero = zero.to_i64s();
    let of = |i: usize| if zero.len() == 1 { zero[0] } else { zero[channel(i)] };
    tensor.to_i64s().iter().enumerate().map(|(i, &v)| (v - of(i)) as i32).collect()
}

/// The result from the sums of products; `channel` tells the output channel of an element.
fn requantized(
    inputs: &[Option<&Tensor>],
    dtype: DType,
    shape: &[usize],
    sums: &[i32],
    channel: impl Fn(usize) -> usize,
) -> Result<Vec<Tensor>, OpError> {
    let scales = |slot: usize| -> Result<Vec<f32>, OpError> {
        let values = required_tensor(inputs, slot, NAMES[slot])?.to_f64s();
        Ok(values.into_iter().map(|v| v as f32).collect())
    };
    let (x_scale, y_scale) = (scales(1)?[0], scales(6)?[0]);
    let multipliers: Vec<f32> = scales(4)?.into_iter().map(|w_scale| x_scale * w_scale / y_scale).collect();
    let zero = required_tensor(inputs, 7, "y_zero_point")?.to_i64s()[0];
    let bias = optional(inputs, 8).map(Tensor::to_i64s);
    let values: Vec<i64> = sums
        .iter()
        .enumerate()
        .map(|(i, &sum)| {
            let c = channel(i);
            let sum = sum.wrapping_add(bias.as_ref().map_or(0, |bias| bias[c] as i32));
            let multiplier = if multipliers.len() == 1 { multipliers[0] } else { multipliers[c] };
            saturate(sum as f32 * multiplier, zero, dtype)
        })
        .collect();
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
        assert!(matches!(with(1, &f32s(&[2], &[1.; 2])), Err(OpError::Unsupported(_))));
        assert!(matches!(with(2, &Tensor::scalar(0i8)), Err(OpError::DType { slot: 2, .. })));
        assert!(matches!(
            with(0, &Tensor::from_vec(&[2, 2], vec![1i32; 4])),
            Err(OpError::DType { slot: 0, .. })
        ));
    }
}
