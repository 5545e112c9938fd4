//! Recipes for ops that work element by element.

use super::builder::{Builder, Item, Rounding, int_attrs};
use crate::{Attr, Attrs};
use rabot_tensor::{DType, Tensor};

/// Unary ops: interval of operands, whether the result is rounded, whether the function jumps.
struct Domain {
    lo: f64,
    hi: f64,
    rounding: Rounding,
    jumps: bool,
}

fn domain(name: &str) -> Domain {
    let smooth = |lo, hi| Domain { lo, hi, rounding: Rounding::Some, jumps: false };
    let whole = (-500.0, 500.0);
    match name {
        "Abs" | "Neg" | "Relu" => Domain { rounding: Rounding::None, ..smooth(whole.0, whole.1) },
        "Ceil" | "Floor" | "Round" | "Sign" | "IsNaN" | "ThresholdedRelu" => {
            Domain { lo: whole.0, hi: whole.1, rounding: Rounding::None, jumps: true }
        }
        "Acos" | "Asin" | "Atanh" => smooth(-0.9, 0.9),
        "Acosh" => smooth(1.1, 50.0),
        "Cos" | "Sin" => smooth(-20.0, 20.0),
        "Cosh" | "Sinh" => smooth(-4.0, 4.0),
        "Exp" => smooth(-8.0, 4.0),
        "Tan" => smooth(-1.0, 1.0),
        "Log" | "Sqrt" => smooth(0.01, 500.0),
        "Reciprocal" => smooth(0.2, 50.0),
        _ => smooth(whole.0, whole.1),
    }
}

pub(super) fn unary(b: &mut Builder, name: &'static str) -> Option<()> {
    let Domain { lo, hi, rounding, jumps } = domain(name);
    let on_ints = matches!(name, "Abs" | "Neg" | "Sign") && b.rng.chance(0.3);
    let x = if on_ints {
        let dtype = *b.rng.pick(&[DType::I32, DType::I64, DType::I8]);
        b.item(dtype, 0, 4)
    } else if jumps {
        b.exact(DType::F32, 0, 4)
    } else {
        b.item(DType::F32, 0, 4)
    };
    let x = b.within(x, lo, hi)?;
    // Halves, where rounding has to break ties.
    let x = if name == "Round" && b.rng.chance(0.5) {
        let dims = b.dims(&x);
        let half = b.constant(Tensor::scalar(0.5f32));
        let whole =
            dims.iter().all(|d| b.is_plain(d)).then(|| b.fresh_within(DType::I32, &dims, -9.0, 9.0))?;
        let whole = b.one("Cast", cast_attrs(DType::F32), &[Some(&whole)], Rounding::None)?;
        // Small integers and halves of them are exact in any evaluation.
        b.one("Mul", Attrs::new(), &[Some(&whole), Some(&half)], Rounding::None)?
    } else {
        x
    };
    let attrs = unary_attrs(b, name);
    b.one(name, attrs, &[Some(&x)], rounding).map(drop)
}

fn unary_attrs(b: &mut Builder, name: &str) -> Attrs {
    let mut attrs = Attrs::new();
    if b.rng.chance(0.4) {
        return attrs;
    }
    let alpha = b.rng.uniform(0.1, 1.5) as f32;
    match name {
        "Celu" | "Elu" | "LeakyRelu" | "ThresholdedRelu" => attrs.set("alpha", Attr::Float(alpha)),
        "HardSigmoid" => {
            attrs.set("alpha", Attr::Float(alpha));
            attrs.set("beta", Attr::Float(0.25));
        }
        "Selu" => {
            attrs.set("alpha", Attr::Float(alpha));
            attrs.set("gamma", Attr::Float(1.25));
        }
        "Gelu" => attrs.set("approximate", Attr::Str("tanh".to_owned())),
        _ => {}
    }
    attrs
}

pub(super) fn logic(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.item(DType::Bool, 0, 4);
    if name == "Not" {
        return b.one(name, Attrs::new(), &[Some(&x)], Rounding::None).map(drop);
    }
    let y = b.partner(&x, DType::Bool, true);
    b.one(name, Attrs::new(), &[Some(&x), Some(&y)], Rounding::None).map(drop)
}

pub(super) fn bitwise(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::I32, DType::I64, DType::U8, DType::I8]);
    let x = b.item(dtype, 0, 4);
    if name == "BitwiseNot" {
        return b.one(name, Attrs::new(), &[Some(&x)], Rounding::None).map(drop);
    }
    let y = b.partner(&x, dtype, true);
    b.one(name, Attrs::new(), &[Some(&x), Some(&y)], Rounding::None).map(drop)
}

/// Swaps half of the time: broadcasting has to work on either side.
fn either_way(b: &mut Builder, x: Item, y: Item) -> (Item, Item) {
    if b.rng.chance(0.5) { (x, y) } else { (y, x) }
}

pub(super) fn arithmetic(b: &mut Builder, name: &'static str) -> Option<()> {
    let on_ints = name == "Mod" || (!matches!(name, "Pow" | "PRelu") && b.rng.chance(0.25));
    let dtype = if on_ints { *b.rng.pick(&[DType::I32, DType::I64]) } else { DType::F32 };
    let rounding = if on_ints { Rounding::None } else { Rounding::Some };
    let x = b.item(dtype, 0, 4);
    let y = b.partner(&x, dtype, name != "PRelu");
    let (x, y) = match name {
        "Div" if on_ints => (x, b.within(y, 1.0, 9.0)?),
        "Div" => (x, b.within(y, 0.3, 20.0)?),
        "Mod" => (x, b.within(y, 1.0, 9.0)?),
        "Pow" => (b.within(x, 0.2, 3.0)?, b.within(y, -2.0, 2.0)?),
        "PRelu" => (x, y),
        _ => either_way(b, x, y),
    };
    let attrs = if name == "Mod" && b.rng.chance(0.3) { int_attrs(&[("fmod", 1)]) } else { Attrs::new() };
    b.one(name, attrs, &[Some(&x), Some(&y)], rounding).map(drop)
}

pub(super) fn comparison(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::F32, DType::F32, DType::I32, DType::I64]);
    let x = b.exact(dtype, 0, 4);
    let y = b.partner(&x, dtype, true);
    let y = if y.exact {
        y
    } else {
        let dims = b.dims(&x);
        let dims = b.broadcastable(&dims, true);
        b.fresh(dtype, &dims)
    };
    let (x, y) = either_way(b, x, y);
    b.one(name, Attrs::new(), &[Some(&x), Some(&y)], Rounding::None).map(drop)
}

pub(super) fn variadic(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.item(DType::F32, 0, 4);
    let mut operands = vec![x.clone()];
    for _ in 0..b.rng.below(3) {
        operands.push(b.partner(&x, DType::F32, false));
    }
    let rounding = if matches!(name, "Max" | "Min") { Rounding::None } else { Rounding::Some };
    let operands: Vec<Option<&Item>> = operands.iter().map(Some).collect();
    b.one(name, Attrs::new(), &operands, rounding).map(drop)
}

pub(super) fn select(b: &mut Builder, name: &'static str) -> Option<()> {
    let x = b.any(0, 4);
    let y = b.partner(&x, x.dtype(), false);
    let condition = b.partner(&x, DType::Bool, true);
    b.one(name, Attrs::new(), &[Some(&condition), Some(&x), Some(&y)], Rounding::None).map(drop)
}

pub(super) fn clip(b: &mut Builder, name: &'static str) -> Option<()> {
    let dtype = *b.rng.pick(&[DType::F32, DType::F32, DType::F32, DType::I32, DType::I64, DType::I8]);
    let x = b.item(dtype, 0, 4);
    let mut bound = |lo: f64, hi: f64| {
        let value = b.rng.uniform(lo, hi).round() as i64;
        b.rng.chance(0.75).then(|| b.constant(Tensor::from_i64s(dtype, &[], &[value])))
    };
    let (lo, hi) = (bound(-6.0, 0.0), bound(1.0, 6.0));
    b.one(name, Attrs::new(), &[Some(&x), lo.as_ref(), hi.as_ref()], Rounding::None).map(drop)
}

fn cast_attrs(to: DType) -> Attrs {
    Attrs::new().with("to", Attr::Str(to.name().to_owned()))
}

pub(super) fn cast(b: &mut Builder, name: &'static str) -> Option<()> {
    let all = [DType::F32, DType::I64, DType::I32, DType::U8, DType::I8, DType::Bool];
    let (from, to) = (*b.rng.pick(&all), *b.rng.pick(&all));
    let x = b.exact(from, 0, 4);
    // What does not fit has no agreed result.
    let (lo, hi) = match to {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        _ => (-1e6, 1e6),
    };
    if !x.is_within(lo, hi) {
        return None;
    }
    b.one(name, cast_attrs(to), &[Some(&x)], Rounding::None).map(drop)
}
