//! Recipes for ops that move elements or make them from sizes.

use super::builder::{Builder, Item, Rounding, int_attrs};
use crate::{Attr, Attrs, Dim};
use rabot_tensor::{DType, Tensor};

fn moved(b: &mut Builder, op: &str, attrs: Attrs, operands: &[Option<&Item>]) -> Option<Item> {
    b.one(op, attrs, operands, Rounding::None)
}

/// Ops whose result is known from the shape and a few axes.
pub(super) fn view(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(0, 4);
    let rank = x.rank();
    match name {
        "Flatten" => {
            let axis = b.rng.below(rank + 1) as i64;
            let axis = if axis < rank as i64 && b.rng.chance(0.3) { axis - rank as i64 } else { axis };
            moved(b, name, int_attrs(&[("axis", axis)]), &[Some(&x)])
        }
        "Transpose" => {
            let mut perm: Vec<i64> = (0..rank as i64).collect();
            for at in (1..rank).rev() {
                let other = b.rng.below(at + 1);
                perm.swap(at, other);
            }
            let explicit = b.rng.chance(0.8);
            let attrs = Attrs::new().with("perm", Attr::Ints(perm));
            moved(b, name, if explicit { attrs } else { Attrs::new() }, &[Some(&x)])
        }
        "Squeeze" => {
            let dims = b.dims(&x);
            let ones: Vec<usize> = (0..rank).filter(|&axis| dims[axis].is(1)).collect();
            // Without axes, every dim that happens to be 1 goes: a symbol that is 1 here must not be there.
            let all_known = dims.iter().all(|d| d.as_const().is_some());
            if ones.is_empty() || (all_known && b.rng.chance(0.3)) {
                return if all_known { moved(b, name, Attrs::new(), &[Some(&x)]).map(drop) } else { None };
            }
            let axis = *b.rng.pick(&ones);
            let axis = b.signed_axis(axis, rank);
            let axes = b.ints(&[axis]);
            moved(b, name, Attrs::new(), &[Some(&x), Some(&axes)])
        }
        "Unsqueeze" if rank < 4 => {
            let axis = b.rng.below(rank + 1);
            let axis = b.signed_axis(axis, rank + 1);
            let axes = b.ints(&[axis]);
            moved(b, name, Attrs::new(), &[Some(&x), Some(&axes)])
        }
        "Unsqueeze" => None,
        _ => moved(b, name, Attrs::new(), &[Some(&x)]),
    }
    .map(drop)
}

pub(super) fn reshape(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(1, 4);
    if x.tensor.is_empty() {
        return None;
    }
    let dims = b.dims(&x);
    let sizes = x.tensor.shape().to_vec();
    let target = match b.rng.below(4) {
        // The first dim, by a chain over its value, and the rest in one.
        0 => {
            let first = dim_value(b, &x, 0)?;
            let rest = b.ints(&[-1]);
            moved(b, "Concat", int_attrs(&[("axis", 0)]), &[Some(&first), Some(&rest)])?
        }
        1 => b.ints(&[0, -1]),
        // Two neighbours in one.
        2 if sizes.len() > 1 => {
            let at = b.rng.below(sizes.len() - 1);
            let mut target = vec![0i64; sizes.len() - 1];
            target[at] = -1;
            for (i, target) in target.iter_mut().enumerate().skip(at + 1) {
                *target = dims[i + 1].as_const()?;
            }
            b.ints(&target)
        }
        // One dim in two.
        _ if sizes.len() < 4 => {
            let at = b.rng.below(sizes.len());
            let size = dims[at].as_usize()?;
            let factors: Vec<usize> = (1..=size).filter(|f| size % f == 0).collect();
            let factor = *b.rng.pick(&factors);
            let mut target: Vec<i64> = Vec::new();
            for (i, dim) in dims.iter().enumerate() {
                match (i == at, dim.as_const()) {
                    (true, _) => target.extend([factor as i64, (size / factor) as i64]),
                    (false, Some(size)) => target.push(size),
                    (false, None) if i < at => target.push(0),
                    (false, None) => target.push(-1),
                }
            }
            if target.iter().filter(|&&t| t == -1).count() > 1 {
                return None;
            }
            b.ints(&target)
        }
        _ => b.ints(&[-1]),
    };
    moved(b, name, Attrs::new(), &[Some(&x), Some(&target)]).map(drop)
}

/// The size of a dim as a value of shape `[1]`.
fn dim_value(b: &mut Builder, x: &Item, axis: usize) -> Option<Item> {
    let shape = moved(b, "Shape", Attrs::new(), &[Some(x)])?;
    let index = b.ints(&[axis as i64]);
    moved(b, "Gather", int_attrs(&[("axis", 0)]), &[Some(&shape), Some(&index)])
}

pub(super) fn expand(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(0, 4);
    let other = b.any(0, 4);
    let dims = b.dims(&x);
    let fits = |a: &Dim, b: &Dim| a == b || a.is(1) || b.is(1);
    let other_dims = b.dims(&other);
    if other_dims.iter().rev().zip(dims.iter().rev()).all(|(a, b)| fits(a, b)) && b.rng.chance(0.5) {
        let shape = moved(b, "Shape", Attrs::new(), &[Some(&other)])?;
        return moved(b, name, Attrs::new(), &[Some(&x), Some(&shape)]).map(drop);
    }
    let mut target = Vec::new();
    if dims.len() < 4 && b.rng.chance(0.5) {
        target.push(*b.rng.pick(&[1, 2, 3]));
    }
    for dim in &dims {
        let size = dim.as_const().unwrap_or(1);
        target.push(if size == 1 && dim.is(1) { *b.rng.pick(&[1, 2, 5]) } else { size });
    }
    let target = b.ints(&target);
    moved(b, name, Attrs::new(), &[Some(&x), Some(&target)]).map(drop)
}

pub(super) fn shape(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(0, 4);
    let mut attrs = Attrs::new();
    if b.rng.chance(0.3) {
        attrs.set("start", Attr::Int(b.rng.int(-3, 2)));
    }
    if b.rng.chance(0.3) {
        attrs.set("end", Attr::Int(b.rng.int(-1, 4)));
    }
    moved(b, name, attrs, &[Some(&x)]).map(drop)
}

pub(super) fn slice(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(1, 4);
    let dims = b.dims(&x);
    let all_axes = b.rng.chance(0.2);
    let (mut starts, mut ends, mut steps, mut axes) = (vec![], vec![], vec![], vec![]);
    for (axis, dim) in dims.iter().enumerate() {
        if !all_axes && b.rng.chance(0.5) {
            continue;
        }
        let step = *b.rng.pick(&[1, 1, 1, 2, 3, -1, -2]);
        let (start, end) = match (dim.as_const(), step > 0) {
            (Some(size), true) => (b.rng.int(-size, size / 2), b.rng.int(1, size + 2)),
            (Some(size), false) => (b.rng.int(size / 2, size + 1), b.rng.int(-size - 2, -size)),
            (None, true) => (*b.rng.pick(&[0, 0, 1, -1]), i64::MAX),
            (None, false) => (-1, i64::MIN),
        };
        starts.push(start);
        ends.push(if step > 0 && b.rng.chance(0.2) { i64::MAX } else { end });
        steps.push(step);
        axes.push(b.signed_axis(axis, dims.len()));
    }
    if starts.is_empty() {
        return None;
    }
    let lists = [starts, ends, axes, steps].map(|list| b.ints(&list));
    let [starts, ends, axes, steps] = &lists;
    let axes = (!all_axes).then_some(axes);
    moved(b, name, Attrs::new(), &[Some(&x), Some(starts), Some(ends), axes, Some(steps)]).map(drop)
}

pub(super) fn split(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(1, 4);
    let dims = b.dims(&x);
    let wide: Vec<usize> = (0..dims.len()).filter(|&a| dims[a].as_usize().is_some_and(|d| d >= 2)).collect();
    if wide.is_empty() {
        return None;
    }
    let axis = *b.rng.pick(&wide);
    let size = dims[axis].as_usize()?;
    let parts = 2 + b.rng.below(2.min(size - 1));
    let signed = b.signed_axis(axis, dims.len());
    let attrs = int_attrs(&[("axis", signed), ("num_outputs", parts as i64)]);
    if b.rng.chance(0.5) {
        let fits = (parts - 1) * size.div_ceil(parts) < size;
        return if fits { b.node(name, attrs, &[Some(&x)], Rounding::None).map(drop) } else { None };
    }
    let mut lengths = vec![1i64; parts];
    for _ in parts..size {
        let part = b.rng.below(parts);
        lengths[part] += 1;
    }
    let lengths = b.ints(&lengths);
    b.node(name, attrs, &[Some(&x), Some(&lengths)], Rounding::None).map(drop)
}

pub(super) fn concat(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(1, 4);
    let dims = b.dims(&x);
    let axis = b.rng.below(dims.len());
    let mut operands = vec![x.clone()];
    for _ in 0..1 + b.rng.below(2) {
        if b.rng.chance(0.3) || !dims.iter().enumerate().all(|(a, d)| a == axis || b.is_plain(d)) {
            operands.push(x.clone());
            continue;
        }
        let mut other = dims.clone();
        other[axis] = Dim::from(b.size().min(5));
        operands.push(b.fresh(x.dtype(), &other));
    }
    let attrs = int_attrs(&[("axis", b.signed_axis(axis, dims.len()))]);
    let operands: Vec<Option<&Item>> = operands.iter().map(Some).collect();
    moved(b, name, attrs, &operands).map(drop)
}

pub(super) fn pad(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(1, 4);
    let sizes = x.tensor.shape().to_vec();
    let dims = b.dims(&x);
    let mode = *b.rng.pick(&["constant", "constant", "reflect", "edge", "wrap"]);
    let (mut before, mut after, mut axes) = (vec![], vec![], vec![]);
    let some_axes = b.rng.chance(0.3);
    for (axis, dim) in dims.iter().enumerate() {
        if some_axes && b.rng.chance(0.5) {
            continue;
        }
        // Modes that read the data need enough of it, whatever a symbol stands for.
        let known = if dim.as_const().is_some() { sizes[axis] as i64 } else { 1 };
        let most = match mode {
            "constant" => 3,
            "reflect" => (known - 1).clamp(0, 3),
            _ => known.clamp(0, 3),
        };
        let least = if mode == "constant" && known > 3 { -1 } else { 0 };
        before.push(b.rng.int(least, most));
        after.push(b.rng.int(least, most));
        axes.push(b.signed_axis(axis, dims.len()));
    }
    if before.is_empty() {
        return None;
    }
    let pads = b.ints(&[before, after].concat());
    let value = (mode == "constant" && b.rng.chance(0.5))
        .then(|| b.constant(Tensor::from_i64s(x.dtype(), &[], &[1])));
    let axes = some_axes.then(|| b.ints(&axes));
    let attrs = Attrs::new().with("mode", Attr::Str(mode.to_owned()));
    moved(b, name, attrs, &[Some(&x), Some(&pads), value.as_ref(), axes.as_ref()]).map(drop)
}

pub(super) fn gather(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(1, 4);
    let dims = b.dims(&x);
    let axis = b.rng.below(dims.len());
    // Of a symbol no more is known than that it is not 0.
    let size = dims[axis].as_const().unwrap_or(1);
    if size == 0 {
        return None;
    }
    let dtype = if b.rng.chance(0.7) { DType::I64 } else { DType::I32 };
    let most = (4 - x.rank() + 1).min(2);
    let shape = b.shape(0, most);
    let indices = b.fresh_within(dtype, &shape, -size as f64, (size - 1) as f64);
    let attrs = int_attrs(&[("axis", b.signed_axis(axis, dims.len()))]);
    moved(b, name, attrs, &[Some(&x), Some(&indices)]).map(drop)
}

pub(super) fn constant_of_shape(b: &mut Builder, name: &'static str) -> Option<()> {
    let shape = if b.rng.chance(0.5) {
        let x = b.any(0, 4);
        moved(b, "Shape", Attrs::new(), &[Some(&x)])?
    } else {
        let sizes: Vec<i64> = (0..b.rng.below(4)).map(|_| b.size() as i64).collect();
        b.ints(&sizes)
    };
    let dtype = *b.rng.pick(&[DType::F32, DType::F32, DType::I64, DType::I32, DType::Bool]);
    let value = Tensor::from_i64s(dtype, &[1], &[b.rng.int(0, 1)]);
    let attrs =
        if b.rng.chance(0.7) { Attrs::new().with("value", Attr::Tensor(value)) } else { Attrs::new() };
    moved(b, name, attrs, &[Some(&shape)]).map(drop)
}

pub(super) fn range(b: &mut Builder, name: &'static str) -> Option<()> {
    let scalar = |b: &mut Builder, dtype, value: f64| b.constant(Tensor::from_f64s(dtype, &[], &[value]));
    if b.rng.chance(0.4) {
        // Counts along a dim.
        let x = b.any(1, 4);
        let axis = b.rng.below(x.rank());
        let size = dim_value(b, &x, axis)?;
        let limit = moved(b, "Squeeze", Attrs::new(), &[Some(&size)])?;
        let (start, delta) = (scalar(b, DType::I64, 0.0), scalar(b, DType::I64, 1.0));
        return moved(b, name, Attrs::new(), &[Some(&start), Some(&limit), Some(&delta)]).map(drop);
    }
    let dtype = *b.rng.pick(&[DType::F32, DType::I64, DType::I32]);
    let (start, length) = (b.rng.int(-4, 4) as f64, b.rng.int(1, 17) as f64);
    // Multiples of a half are exact in any evaluation.
    let delta =
        if dtype == DType::F32 { *b.rng.pick(&[0.5, 1.0, -0.5]) } else { *b.rng.pick(&[1.0, 2.0, -1.0]) };
    let [start, limit, delta] = [start, start + delta * length, delta].map(|value| scalar(b, dtype, value));
    moved(b, name, Attrs::new(), &[Some(&start), Some(&limit), Some(&delta)]).map(drop)
}
