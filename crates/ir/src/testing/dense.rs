//! Recipes for products, convolutions, pools and resampling.

use super::builder::{Builder, Item, Rounding, int_attrs};
use crate::{Attr, Attrs, Dim};
use rabot_tensor::{DType, Tensor};

pub(super) fn mat_mul(b: &mut Builder, name: &'static str) -> Option<()> {
    let a = b.item(DType::F32, 1, 4);
    let dims = b.dims(&a);
    let k = dims.last()?.clone();
    k.as_const()?;
    let n = Dim::from(b.size());
    let other = match b.rng.below(3) {
        0 if dims.len() > 2 => {
            let mut other = b.broadcastable(&dims[..dims.len() - 2], false);
            other.extend([k, n]);
            other
        }
        1 => vec![k],
        _ => vec![k, n],
    };
    let c = b.fresh(DType::F32, &other);
    b.one(name, Attrs::new(), &[Some(&a), Some(&c)], Rounding::Some).map(drop)
}

pub(super) fn gemm(b: &mut Builder, name: &'static str) -> Option<()> {
    let a = b.item(DType::F32, 2, 2);
    let dims = b.dims(&a);
    let trans_a = dims[0].as_const().is_some() && b.rng.chance(0.3);
    let (m, k) =
        if trans_a { (dims[1].clone(), dims[0].clone()) } else { (dims[0].clone(), dims[1].clone()) };
    k.as_const()?;
    let n = Dim::from(b.size());
    let trans_b = b.rng.chance(0.5);
    let other = if trans_b { [n.clone(), k] } else { [k, n.clone()] };
    let other = b.fresh(DType::F32, &other);
    let bias = match b.rng.below(5) {
        0 => None,
        1 if b.is_plain(&m) => Some(vec![m, Dim::from(1)]),
        2 => Some(vec![Dim::from(1), n]),
        3 => Some(vec![]),
        _ => Some(vec![n]),
    };
    let bias = bias.map(|dims| b.fresh(DType::F32, &dims));
    let mut attrs = int_attrs(&[("transA", trans_a.into()), ("transB", trans_b.into())]);
    if b.rng.chance(0.3) {
        attrs.set("alpha", Attr::Float(0.5));
        attrs.set("beta", Attr::Float(*b.rng.pick(&[0.0, 0.25, 2.0])));
    }
    b.one(name, attrs, &[Some(&a), Some(&other), bias.as_ref()], Rounding::Some).map(drop)
}

/// An image `[n, c, …]` with one or two spatial axes, big enough for windows.
pub(super) fn image(b: &mut Builder, dtype: DType) -> Item {
    let fits = |item: &Item| {
        item.dtype() == dtype
            && matches!(item.rank(), 3 | 4)
            && item.tensor.shape()[2..].iter().all(|&d| d >= 3)
            && !item.tensor.is_empty()
    };
    let found = if b.rng.chance(0.6) { b.pick(fits) } else { None };
    if let Some(item) = found
        && b.dims(&item)[1].as_const().is_some()
    {
        return item;
    }
    let mut dims = b.shape(1, 1);
    dims.push(Dim::from(*b.rng.pick(&[1, 2, 3, 4, 6, 8])));
    for _ in 0..1 + b.rng.below(2) {
        dims.push(Dim::from(*b.rng.pick(&[3, 4, 5, 7, 8, 9])));
    }
    // Batches of images stay small.
    if dims[0].as_const().is_some_and(|n| n > 3) {
        dims[0] = Dim::from(2);
    }
    b.fresh(dtype, &dims)
}

/// Attributes of a window over these spatial sizes, and its extents.
pub(super) fn window(b: &mut Builder, spatial: &[usize]) -> (Attrs, Vec<usize>) {
    let mut attrs = Attrs::new();
    let kernel: Vec<usize> = spatial.iter().map(|&d| 1 + b.rng.below(d.min(3))).collect();
    if b.rng.chance(0.5) {
        let strides = spatial.iter().map(|_| *b.rng.pick(&[1, 2, 3])).collect();
        attrs.set("strides", Attr::Ints(strides));
    }
    if b.rng.chance(0.3) {
        let fits = |(&k, &d): (&usize, &usize)| i64::from(2 * (k - 1) < d) + 1;
        attrs.set("dilations", Attr::Ints(kernel.iter().zip(spatial).map(fits).collect()));
    }
    match b.rng.below(5) {
        0 => {}
        1 => {
            let auto = *b.rng.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"]);
            attrs.set("auto_pad", Attr::Str(auto.to_owned()));
        }
        _ => {
            // Less than the window, so that every position sees data.
            let pads = kernel.iter().chain(&kernel).map(|&k| b.rng.below(k) as i64).collect();
            attrs.set("pads", Attr::Ints(pads));
        }
    }
    (attrs, kernel)
}

fn ints(values: &[usize]) -> Attr {
    Attr::Ints(values.iter().map(|&v| v as i64).collect())
}

pub(super) fn conv(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = image(b, DType::F32);
    let channels = x.tensor.shape()[1];
    let (mut attrs, kernel) = window(b, &x.tensor.shape()[2..]);
    let groups: Vec<usize> =
        [1, 1, 2, channels].into_iter().filter(|g| channels.is_multiple_of(*g)).collect();
    let group = *b.rng.pick(&groups);
    let per_group = 1 + b.rng.below(4);
    attrs.set("group", Attr::Int(group as i64));
    let transposed = name == "ConvTranspose";
    let mut shape =
        if transposed { vec![channels, per_group] } else { vec![group * per_group, channels / group] };
    shape.extend(&kernel);
    if b.rng.chance(0.5) {
        attrs.set("kernel_shape", ints(&kernel));
    }
    if transposed {
        // Its padding takes away from the result; by number only, so that something is left.
        attrs.remove("auto_pad");
        attrs.remove("pads");
        if attrs.get("strides").is_some() && b.rng.chance(0.4) {
            let strides = attrs.ints("strides").ok().flatten()?;
            let extra = strides.iter().map(|&s| b.rng.int(0, s - 1)).collect();
            attrs.set("output_padding", Attr::Ints(extra));
        }
    }
    let dims: Vec<Dim> = shape.iter().map(|&d| Dim::from(d)).collect();
    let w = if b.rng.chance(0.8) {
        b.floats(&shape, -1.0, 1.0)
    } else {
        b.fresh_within(DType::F32, &dims, -1.0, 1.0)
    };
    let bias = b.rng.chance(0.6).then(|| b.floats(&[group * per_group], -1.0, 1.0));
    b.one(name, attrs, &[Some(&x), Some(&w), bias.as_ref()], Rounding::Some).map(drop)
}

pub(super) fn pool(b: &mut Builder, name: &'static str) -> Option<()> {
    let max = name == "MaxPool";
    let dtype = if max {
        *b.rng.pick(&[DType::F32, DType::F32, DType::F32, DType::U8, DType::I8])
    } else {
        DType::F32
    };
    let x = image(b, dtype);
    let (mut attrs, kernel) = window(b, &x.tensor.shape()[2..]);
    attrs.set("kernel_shape", ints(&kernel));
    if b.rng.chance(0.3) {
        attrs.set("ceil_mode", Attr::Int(1));
    }
    if !max && b.rng.chance(0.5) {
        attrs.set("count_include_pad", Attr::Int(1));
    }
    let rounding = if max { Rounding::None } else { Rounding::Some };
    b.one(name, attrs, &[Some(&x)], rounding).map(drop)
}

pub(super) fn global_pool(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = image(b, DType::F32);
    let rounding = if name == "GlobalMaxPool" { Rounding::None } else { Rounding::Some };
    b.one(name, Attrs::new(), &[Some(&x)], rounding).map(drop)
}

pub(super) fn resize(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = image(b, DType::F32);
    let spatial = x.rank() - 2;
    let mode = *b.rng.pick(&["nearest", "nearest", "linear", "cubic"]);
    let coordinates = match mode {
        // Of powers of two every coordinate is exact, ties included.
        "nearest" => *b.rng.pick(&["half_pixel", "asymmetric", "pytorch_half_pixel"]),
        _ => *b.rng.pick(&["half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners"]),
    };
    let mut attrs = Attrs::new()
        .with("mode", Attr::Str(mode.to_owned()))
        .with("coordinate_transformation_mode", Attr::Str(coordinates.to_owned()));
    if mode == "nearest" {
        let rounding = *b.rng.pick(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]);
        attrs.set("nearest_mode", Attr::Str(rounding.to_owned()));
    }
    let rounding = if mode == "nearest" { Rounding::None } else { Rounding::Some };
    if mode != "nearest" && b.rng.chance(0.4) {
        let axes: Vec<i64> = (2..x.rank() as i64).collect();
        let sizes: Vec<i64> = axes.iter().map(|_| b.rng.int(2, 12)).collect();
        attrs.set("axes", Attr::Ints(axes));
        let sizes = b.ints(&sizes);
        return b.one(name, attrs, &[Some(&x), None, None, Some(&sizes)], rounding).map(drop);
    }
    let mut scales = vec![1.0f32; 2];
    scales.extend((0..spatial).map(|_| *b.rng.pick(&[0.5f32, 1.0, 2.0, 2.0, 4.0])));
    let scales = b.constant(Tensor::from_vec(&[scales.len()], scales));
    b.one(name, attrs, &[Some(&x), None, Some(&scales)], rounding).map(drop)
}
