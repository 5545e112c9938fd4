//! Recipes for reductions and normalizations.

use super::builder::{Builder, Rounding, int_attrs};
use crate::{Attr, Attrs, Dim};
use rabot_tensor::{DType, Tensor};

pub(super) fn reduce(b: &mut Builder, name: &'static str) -> Option<()> {
    let on_ints = matches!(name, "ReduceSum" | "ReduceMax" | "ReduceMin") && b.rng.chance(0.2);
    let dtype = if on_ints { *b.rng.pick(&[DType::I32, DType::I64]) } else { DType::F32 };
    let x = b.item(dtype, 0, 4);
    let x = match name {
        "ReduceLogSum" => b.within(x, 0.1, 20.0)?,
        "ReduceLogSumExp" => b.within(x, -8.0, 5.0)?,
        "ReduceProd" => b.within(x, 0.6, 1.4)?,
        _ => x,
    };
    let rank = x.rank();
    let axes: Vec<usize> = (0..rank).filter(|_| b.rng.chance(0.5)).collect();
    let signed: Vec<i64> = axes.iter().map(|&axis| b.signed_axis(axis, rank)).collect();
    let keep = b.rng.chance(0.5);
    let noop = axes.is_empty() && b.rng.chance(0.2);
    let attrs = int_attrs(&[("keepdims", keep.into()), ("noop_with_empty_axes", noop.into())]);
    let axes = (!signed.is_empty()).then(|| b.ints(&signed));
    let exact = on_ints || matches!(name, "ReduceMax" | "ReduceMin");
    let rounding = if exact { Rounding::None } else { Rounding::Some };
    b.one(name, attrs, &[Some(&x), axes.as_ref()], rounding).map(drop)
}

pub(super) fn arg_reduce(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::F32, DType::F32, DType::I32, DType::I64]);
    let x = b.exact(dtype, 1, 4);
    let axis = b.rng.below(x.rank());
    if x.tensor.shape()[axis] == 0 {
        return None;
    }
    let axis = b.signed_axis(axis, x.rank());
    let (keep, last) = (b.rng.chance(0.5), b.rng.chance(0.3));
    let attrs = int_attrs(&[("axis", axis), ("keepdims", keep.into()), ("select_last_index", last.into())]);
    b.one(name, attrs, &[Some(&x)], Rounding::None).map(drop)
}

pub(super) fn batch_norm(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.item(DType::F32, 2, 4);
    let channels = b.dims(&x)[1].as_usize()?;
    let scale = b.floats(&[channels], 0.5, 1.5);
    let bias = b.floats(&[channels], -1.0, 1.0);
    let mean = b.floats(&[channels], -1.0, 1.0);
    let var = b.floats(&[channels], 0.3, 2.0);
    let attrs = Attrs::new().with("epsilon", Attr::Float(1e-3));
    let operands = [Some(&x), Some(&scale), Some(&bias), Some(&mean), Some(&var)];
    b.one(name, attrs, &operands, Rounding::Some).map(drop)
}

pub(super) fn layer_norm(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.item(DType::F32, 1, 4);
    let dims = b.dims(&x);
    let axis = b.rng.below(dims.len());
    if !rows_vary(&x.tensor, axis) {
        return None;
    }
    // Dims that are not known are left to broadcasting.
    let sizes: Vec<usize> = dims[axis..].iter().map(|d| d.as_usize().unwrap_or(1)).collect();
    let scale = b.floats(&sizes, 0.5, 1.5);
    let takes_bias = name == "LayerNormalization" && b.rng.chance(0.7);
    let bias = takes_bias.then(|| b.floats(&sizes, -1.0, 1.0));
    let axis = b.signed_axis(axis, dims.len());
    let attrs = int_attrs(&[("axis", axis)]).with("epsilon", Attr::Float(1e-4));
    let operands = [Some(&x), Some(&scale), bias.as_ref()];
    let taken = if name == "LayerNormalization" { 3 } else { 2 };
    b.one(name, attrs, &operands[..taken], Rounding::Some).map(drop)
}

/// True if every row from `axis` on has enough variance that dividing by it does not blow up rounding errors.
fn rows_vary(x: &Tensor, axis: usize) -> bool {
    let row: usize = x.shape()[axis..].iter().product();
    let values = x.to_f64s();
    row > 1
        && values.chunks(row).all(|row| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let largest = row.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
            var > 0.01 * (1.0 + largest * largest)
        })
}

pub(super) fn lrn(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.item(DType::F32, 3, 4);
    let x = b.within(x, -10.0, 10.0)?;
    let attrs = int_attrs(&[("size", *b.rng.pick(&[1, 2, 3, 5]))])
        .with("alpha", Attr::Float(0.1))
        .with("beta", Attr::Float(*b.rng.pick(&[0.5, 0.75])))
        .with("bias", Attr::Float(1.0));
    b.one(name, attrs, &[Some(&x)], Rounding::Some).map(drop)
}

pub(super) fn softmax(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.item(DType::F32, 1, 4);
    let x = b.within(x, -20.0, 20.0)?;
    let rank = b.dims(&x).iter().filter(|d| **d != Dim::from(-1)).count();
    let axis = b.rng.below(rank);
    let attrs = int_attrs(&[("axis", b.signed_axis(axis, rank))]);
    b.one(name, attrs, &[Some(&x)], Rounding::Some).map(drop)
}
