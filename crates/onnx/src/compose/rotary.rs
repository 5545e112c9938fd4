//! Rotary embeddings and causal convolutions: what stands around attention.

use super::Row;
use super::emit::{Size, working, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Dim, Value};
use rabot_tensor::Tensor;

pub(super) const TABLE: &[Row] =
    &[("", "RotaryEmbedding", rotary), ("", "CausalConvWithState", causal_convolution)];

/// Pairs of elements of each head turned by angles of their position.
fn rotary(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["interleaved", "num_heads", "rotary_embedding_dim"])?;
    draft.check_inputs(4)?;
    let interleaved = draft.attrs.int("interleaved", 0).map_err(wrong)? != 0;
    let x = draft.operand(0, "X")?;
    let (dtype, shape) = (draft.dtype_of(x), draft.shape_of(x)?);
    let wide = draft.cast(x, working(dtype))?;
    // Batch, heads, positions, elements; of three dims: batch, positions, heads, elements.
    let (heads, position_axis) = match shape.len() {
        4 => (wide, 2),
        3 => (split_heads(&mut draft, wide, &shape[2])?, 1),
        rank => return Err(Failure::unsupported(format!("an input of rank {rank}; expected 3 or 4"))),
    };
    let cos = angles(&mut draft, 1, "cos_cache", position_axis)?;
    let sin = angles(&mut draft, 2, "sin_cache", position_axis)?;
    let size = draft.shape_of(heads)?[3].as_const();
    let size = size.ok_or_else(|| Failure::unsupported("a head size that is not known"))?;
    let turned = match draft.attrs.int("rotary_embedding_dim", 0).map_err(wrong)? {
        0 => size,
        turned => turned,
    };
    if turned % 2 != 0 || !(0..=size).contains(&turned) {
        return Err(Failure::unsupported(format!("{turned} elements to turn of heads of {size}")));
    }
    let (first, second) = match interleaved {
        true => ((0, turned, 2), (1, turned, 2)),
        false => ((0, turned / 2, 1), (turned / 2, turned, 1)),
    };
    let (first, second) = (draft.slice(heads, 3, first)?, draft.slice(heads, 3, second)?);
    let term = |draft: &mut Draft<'_>, op: &str, a: [Value; 2], b: [Value; 2]| {
        let (a, b) = (draft.node("Mul", &a)?, draft.node("Mul", &b)?);
        draft.node(op, &[a, b])
    };
    let real = term(&mut draft, "Sub", [cos, first], [sin, second])?;
    let imaginary = term(&mut draft, "Add", [sin, first], [cos, second])?;
    let mut parts = match interleaved {
        false => vec![real, imaginary],
        true => {
            let pair = [draft.unsqueeze(real, vec![4])?, draft.unsqueeze(imaginary, vec![4])?];
            let pairs = draft.concat(4, &pair)?;
            let sizes = [Size::Of(heads, 0), Size::Of(heads, 1), Size::Of(heads, 2), Size::Is(turned)];
            vec![draft.reshape(pairs, &sizes)?]
        }
    };
    if turned < size {
        parts.push(draft.slice(heads, 3, (turned, size, 1))?);
    }
    let mut y = if parts.len() == 1 { parts[0] } else { draft.concat(3, &parts)? };
    if shape.len() == 3 {
        y = draft.reshape(y, &[Size::Of(x, 0), Size::Of(x, 1), Size::Rest])?;
    }
    let y = draft.cast(y, dtype)?;
    draft.finish_with(vec![Some(y)])
}

/// The last of three dims, which is `size`, as heads and their elements.
fn split_heads(draft: &mut Draft<'_>, x: Value, size: &Dim) -> Result<Value, Failure> {
    let heads = draft.attrs.int("num_heads", 0).map_err(wrong)?;
    if !size.as_const().is_some_and(|size| heads > 0 && size % heads == 0) {
        let reason = format!("num_heads = {heads} for an input with a last dim of {size}");
        return Err(Failure::unsupported(reason));
    }
    draft.reshape(x, &[Size::Of(x, 0), Size::Of(x, 1), Size::Is(heads), Size::Rest])
}

/// Cosines or sines of each position, with a dim of 1 for the heads.
fn angles(draft: &mut Draft<'_>, slot: usize, name: &str, position_axis: i64) -> Result<Value, Failure> {
    let mut cache = draft.operand(slot, name)?;
    if let Some(positions) = draft.input(3) {
        let attrs = Attrs::new().with("axis", Attr::Int(0));
        cache = draft.node_with("Gather", &attrs, &[cache, positions])?;
    }
    let rank = draft.rank_of(cache)?;
    if rank != 3 {
        return Err(Failure::unsupported(format!("{name} of {rank} dims for each position; expected 3")));
    }
    let cache = draft.cast(cache, working(draft.dtype_of(cache)))?;
    draft.unsqueeze(cache, vec![3 - position_axis])
}

/// A convolution of each channel by itself that sees what came before; the last inputs are the next state.
fn causal_convolution(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["activation"])?;
    draft.check_inputs(4)?;
    let activation = draft.attrs.str("activation", "none").map_err(wrong)?;
    let (x, w) = (draft.operand(0, "input")?, draft.operand(1, "weight")?);
    let (dtype, shape, window) = (draft.dtype_of(x), draft.shape_of(x)?, draft.shape_of(w)?);
    let (Some(channels), Some(taps)) =
        (window.first().and_then(Dim::as_const), window.get(2).and_then(Dim::as_const))
    else {
        return Err(Failure::unsupported(format!("weights of shape {window:?}; their dims must be known")));
    };
    if shape.len() != 3 || window.len() != 3 || taps < 1 {
        return Err(Failure::unsupported(format!("an input {shape:?} with weights {window:?}")));
    }
    let before = match draft.input(3) {
        Some(state) => state,
        None => {
            let sizes = draft.sizes(&[Size::Of(x, 0), Size::Of(x, 1), Size::Is(taps - 1)])?;
            let zero = Attr::Tensor(Tensor::from_f64s(dtype, &[1], &[0.0]));
            draft.node_with("ConstantOfShape", &Attrs::new().with("value", zero), &[sizes])?
        }
    };
    let all = draft.concat(2, &[before, x])?;
    let group = Attrs::new().with("group", Attr::Int(channels));
    let bias = draft.input(2);
    let mut y = draft.before("Conv", &group, vec![Some(all), Some(w), bias])?;
    match activation.as_str() {
        "none" => {}
        "silu" | "swish" => {
            let wide = draft.cast(y, working(dtype))?;
            let gate = draft.node("Sigmoid", &[wide])?;
            y = draft.node("Mul", &[wide, gate])?;
            y = draft.cast(y, dtype)?;
        }
        other => {
            let reason = format!("activation = `{other}`; expected `none`, `silu` or `swish`");
            return Err(Failure::unsupported(reason));
        }
    }
    let length = draft.dims(x, 2, 3)?;
    let keep = draft.list("end", vec![i64::MAX]);
    let axis = draft.list("axis", vec![2]);
    let state = draft.node("Slice", &[all, length, keep, axis])?;
    draft.finish_with(vec![Some(y), Some(state)])
}
