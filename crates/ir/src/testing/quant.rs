//! Recipes for quantized ops. Their semantics are exact, so their results carry no rounding error.

use super::builder::{Builder, Item, Rounding, int_attrs};
use super::dense::{image, window};
use crate::{Attr, Attrs};
use rabot_tensor::{DType, Tensor};

/// A scale and a zero point of these many elements, as constants: one element or one for each channel.
fn parameters(b: &mut Builder, dtype: DType, channels: Option<usize>, symmetric: bool) -> (Item, Item) {
    let shape: Vec<usize> = channels.into_iter().collect();
    let count: usize = shape.iter().product();
    let scale = b.floats(&shape, 0.01, 0.1);
    let (lo, hi) = match dtype {
        DType::U8 => (100, 140),
        DType::I8 | DType::I32 => (-10, 10),
        // What a dtype of 2 bits holds, signed or not.
        _ => (0, 1),
    };
    let zeros: Vec<i64> = (0..count).map(|_| if symmetric { 0 } else { b.rng.int(lo, hi) }).collect();
    let zero = b.constant(Tensor::from_i64s(dtype, &shape, &zeros));
    (scale, zero)
}

pub(super) fn quantize(b: &mut Builder, name: &'static str) -> Option<()> {
    let real = *b.rng.pick(&[DType::F32, DType::F32, DType::F32, DType::F16]);
    let x = b.exact(real, 0, 4);
    let dtype = *b.rng.pick(&[DType::U8, DType::U8, DType::I8, DType::I8, DType::U16, DType::I4, DType::U2]);
    let (axis, channels) = channel_axis(b, &x);
    let (scale, zero) = parameters(b, dtype, channels, false);
    let attrs = int_attrs(&[("axis", axis)]);
    if channels.is_none() && b.rng.chance(0.2) {
        return b.one(name, attrs, &[Some(&x), Some(&scale)], Rounding::None).map(drop);
    }
    b.one(name, attrs, &[Some(&x), Some(&scale), Some(&zero)], Rounding::None).map(drop)
}

/// An axis of known size for parameters per channel, sometimes; else any axis and none.
fn channel_axis(b: &mut Builder, x: &Item) -> (i64, Option<usize>) {
    let dims = b.dims(x);
    if dims.is_empty() {
        return (0, None);
    }
    let axis = b.rng.below(dims.len());
    let size = dims[axis].as_usize().filter(|_| b.rng.chance(0.4));
    let signed = b.signed_axis(axis, dims.len());
    (signed, size)
}

pub(super) fn dequantize(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::U8, DType::I8, DType::I8, DType::I32]);
    let x = b.item(dtype, 0, 4);
    let (axis, channels) = channel_axis(b, &x);
    let (scale, zero) = parameters(b, dtype, channels, dtype == DType::I32);
    let zero = b.rng.chance(0.7).then_some(zero);
    let attrs = int_attrs(&[("axis", axis)]);
    b.one(name, attrs, &[Some(&x), Some(&scale), zero.as_ref()], Rounding::None).map(drop)
}

/// Scale and zero point of a result, so that its values are spread over the range.
fn result_parameters(b: &mut Builder, dtype: DType) -> (Item, Item) {
    let scale = b.rng.uniform(0.05, 0.5) as f32;
    let zero = if dtype == DType::U8 { 128 } else { 0 };
    let zero = b.constant(Tensor::from_i64s(dtype, &[], &[zero]));
    (b.constant(Tensor::scalar(scale)), zero)
}

fn quantized_weights(b: &mut Builder, shape: &[usize]) -> Item {
    let count: usize = shape.iter().product();
    let values: Vec<i64> = (0..count).map(|_| b.rng.int(-127, 127)).collect();
    b.constant(Tensor::from_i64s(DType::I8, shape, &values))
}

fn bias(b: &mut Builder, count: usize) -> Option<Item> {
    let values: Vec<i64> = (0..count).map(|_| b.rng.int(-500, 500)).collect();
    b.rng.chance(0.6).then(|| b.constant(Tensor::from_i64s(DType::I32, &[count], &values)))
}

pub(super) fn qlinear_conv(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::U8, DType::I8]);
    let x = image(b, dtype);
    let channels = x.tensor.shape()[1];
    let (mut attrs, kernel) = window(b, &x.tensor.shape()[2..]);
    let group = if b.rng.chance(0.3) { channels } else { 1 };
    let filters = group * (1 + b.rng.below(4));
    attrs.set("group", Attr::Int(group as i64));
    let mut shape = vec![filters, channels / group];
    shape.extend(kernel);
    let w = quantized_weights(b, &shape);
    let per_channel = b.rng.chance(0.5).then_some(filters);
    let (x_scale, x_zero) = parameters(b, dtype, None, false);
    let (w_scale, w_zero) = parameters(b, DType::I8, per_channel, true);
    let (y_scale, y_zero) = result_parameters(b, dtype);
    let bias = bias(b, filters);
    let operands = [&x, &x_scale, &x_zero, &w, &w_scale, &w_zero, &y_scale, &y_zero];
    let mut operands: Vec<Option<&Item>> = operands.into_iter().map(Some).collect();
    operands.push(bias.as_ref());
    b.one(name, attrs, &operands, Rounding::None).map(drop)
}

pub(super) fn qlinear_mat_mul(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::U8, DType::I8]);
    let x = b.item(dtype, 2, 4);
    let k = b.dims(&x).last()?.as_usize()?;
    let n = b.size();
    let w = quantized_weights(b, &[k, n]);
    let per_column = b.rng.chance(0.5).then_some(n);
    let (x_scale, x_zero) = parameters(b, dtype, None, false);
    let (w_scale, w_zero) = parameters(b, DType::I8, per_column, true);
    let (y_scale, y_zero) = result_parameters(b, dtype);
    let bias = bias(b, n);
    let operands = [&x, &x_scale, &x_zero, &w, &w_scale, &w_zero, &y_scale, &y_zero];
    let mut operands: Vec<Option<&Item>> = operands.into_iter().map(Some).collect();
    operands.push(bias.as_ref());
    b.one(name, Attrs::new(), &operands, Rounding::None).map(drop)
}

pub(super) fn bit_cast(b: &mut Builder, name: &'static str) -> Option<()> {
    let (from, to) = *b.rng.pick(&[(DType::U8, DType::I8), (DType::I8, DType::U8), (DType::Bool, DType::U8)]);
    let x = b.item(from, 0, 4);
    let attrs = Attrs::new().with("to", Attr::Str(to.name().to_owned()));
    b.one(name, attrs, &[Some(&x)], Rounding::None).map(drop)
}

/// A zero point as a constant, of one element or one for each channel; sometimes none.
fn zero_point(b: &mut Builder, dtype: DType, channels: Option<usize>) -> Option<Item> {
    let (_, zero) = parameters(b, dtype, channels, false);
    b.rng.chance(0.7).then_some(zero)
}

pub(super) fn conv_integer(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::U8, DType::I8]);
    let x = image(b, dtype);
    let channels = x.tensor.shape()[1];
    let (mut attrs, kernel) = window(b, &x.tensor.shape()[2..]);
    let group = if b.rng.chance(0.3) { channels } else { 1 };
    let filters = group * (1 + b.rng.below(4));
    attrs.set("group", Attr::Int(group as i64));
    let mut shape = vec![filters, channels / group];
    shape.extend(kernel);
    let w = quantized_weights(b, &shape);
    let per_channel = b.rng.chance(0.5).then_some(filters);
    let (x_zero, w_zero) = (zero_point(b, dtype, None), zero_point(b, DType::I8, per_channel));
    let operands = [Some(&x), Some(&w), x_zero.as_ref(), w_zero.as_ref()];
    b.one(name, attrs, &operands, Rounding::None).map(drop)
}

pub(super) fn mat_mul_integer(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::U8, DType::I8]);
    let x = b.item(dtype, 2, 4);
    let k = b.dims(&x).last()?.as_usize()?;
    let n = b.size();
    let w = quantized_weights(b, &[k, n]);
    let per_column = b.rng.chance(0.5).then_some(n);
    let (x_zero, w_zero) = (zero_point(b, dtype, None), zero_point(b, DType::I8, per_column));
    let operands = [Some(&x), Some(&w), x_zero.as_ref(), w_zero.as_ref()];
    b.one(name, Attrs::new(), &operands, Rounding::None).map(drop)
}
