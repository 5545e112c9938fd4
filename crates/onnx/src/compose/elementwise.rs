//! Elementwise operators that are short expressions of others.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Swish.html> and the pages of the other operators.

use super::Row;
use super::chain::Made;
use super::emit::{working, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Dim, Value};
use rabot_tensor::{DType, Tensor};

pub(super) const TABLE: &[Row] = &[
    ("", "BitShift", bit_shift),
    ("", "IsInf", is_inf),
    ("", "Shrink", shrink),
    ("", "Swish", swish),
    ("", "SwiGLU", swiglu),
];

/// Refuses operands that are no floats of 16 bits or more.
fn expect_float(draft: &Draft<'_>, value: Value) -> Result<(), Failure> {
    match draft.dtype_of(value) {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(()),
        other => Err(Failure::unsupported(format!("{other}, expected f16, bf16, f32 or f64"))),
    }
}

/// `x * sigmoid(alpha * x)`.
fn swished(draft: &mut Draft<'_>, x: Value, alpha: f64) -> Made {
    let scaled = draft.scaled(x, alpha)?;
    let gate = draft.node("Sigmoid", &[scaled])?;
    draft.times(x, gate)
}

fn swish(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["alpha"])?;
    let x = draft.operand(0, "X")?;
    expect_float(&draft, x)?;
    let (dtype, alpha) = (draft.dtype_of(x), draft.float_attr("alpha", 1.0)?);
    let wide = draft.cast(x, working(dtype))?;
    let y = swished(&mut draft, wide, alpha)?;
    let y = draft.cast(y, dtype)?;
    draft.finish_with(vec![Some(y)])
}

/// A gate that has gone through `Swish`, times a value of the same shape.
fn swiglu(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["alpha"])?;
    let (gate, linear) = (draft.operand(0, "A")?, draft.operand(1, "B")?);
    expect_float(&draft, gate)?;
    let (dtype, alpha) = (draft.dtype_of(gate), draft.float_attr("alpha", 1.0)?);
    let (shape, other) = (draft.shape_of(gate)?, draft.shape_of(linear)?);
    let differ = |(a, b): (&Dim, &Dim)| (a.clone() - b.clone()).as_const().is_some_and(|d| d != 0);
    if draft.dtype_of(linear) != dtype || shape.len() != other.len() || shape.iter().zip(&other).any(differ) {
        return Err(Failure::unsupported(format!(
            "A is {} and B is {}: both must have one type",
            draft.graph.fact(gate).ty,
            draft.graph.fact(linear).ty
        )));
    }
    let wide = draft.cast(gate, working(dtype))?;
    let swished = swished(&mut draft, wide, alpha)?;
    let linear = draft.cast(linear, working(dtype))?;
    let y = draft.times(swished, linear)?;
    let y = draft.cast(y, dtype)?;
    draft.finish_with(vec![Some(y)])
}

/// `x + bias` below `-lambd`, `x - bias` above `lambd`, else 0; in f32, or f64 for what f32 does not hold.
fn shrink(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["bias", "lambd"])?;
    let x = draft.operand(0, "input")?;
    let (bias, limit) = (draft.float_attr("bias", 0.0)?, draft.float_attr("lambd", 0.5)?);
    let dtype = draft.dtype_of(x);
    let work = match dtype {
        DType::F16 | DType::BF16 | DType::F32 => DType::F32,
        DType::F64 => DType::F64,
        int if int.is_int() && int.bits() >= 8 => DType::F64,
        other => return Err(Failure::unsupported(format!("Shrink of {other}"))),
    };
    let wide = draft.cast(x, work)?;
    let (low, high) = (draft.number(work, -limit), draft.number(work, limit));
    let (below, above) = (draft.node("Less", &[wide, low])?, draft.node("Greater", &[wide, high])?);
    let (raised, lowered) = (draft.shifted(wide, bias)?, draft.shifted(wide, -bias)?);
    let zero = draft.number(work, 0.0);
    let upper = draft.node("Where", &[above, lowered, zero])?;
    let y = draft.node("Where", &[below, raised, upper])?;
    let y = draft.cast(y, dtype)?;
    draft.finish_with(vec![Some(y)])
}

/// Comparisons with the infinities that are asked for.
fn is_inf(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["detect_negative", "detect_positive"])?;
    let x = draft.operand(0, "X")?;
    let (negative, positive) = (draft.flag("detect_negative", true)?, draft.flag("detect_positive", true)?);
    let dtype = draft.dtype_of(x);
    if !dtype.is_float() {
        return Err(Failure::unsupported(format!("IsInf of {dtype}, expected a float")));
    }
    let x = if dtype.bits() < 16 { draft.cast(x, DType::F32)? } else { x };
    let dtype = draft.dtype_of(x);
    let y = match (negative, positive) {
        (true, true) => {
            let (magnitude, infinity) = (draft.node("Abs", &[x])?, draft.number(dtype, f64::INFINITY));
            draft.node("Equal", &[magnitude, infinity])?
        }
        (true, false) => {
            let infinity = draft.number(dtype, f64::NEG_INFINITY);
            draft.node("Equal", &[x, infinity])?
        }
        (false, true) => {
            let infinity = draft.number(dtype, f64::INFINITY);
            draft.node("Equal", &[x, infinity])?
        }
        // Nothing is less than itself.
        (false, false) => draft.node("Less", &[x, x])?,
    };
    draft.finish_with(vec![Some(y)])
}

/// Multiplication with or division by a power of two, which a table gives. Amounts that no bits are left of, and
/// negative ones, leave only copies of the sign.
fn bit_shift(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["direction"])?;
    let (x, amount) = (draft.operand(0, "X")?, draft.operand(1, "Y")?);
    let dtype = draft.dtype_of(x);
    if !dtype.is_int() || dtype.bits() < 8 || draft.dtype_of(amount) != dtype {
        return Err(Failure::unsupported(format!(
            "a shift of {dtype} by {}, expected integers of one dtype",
            draft.dtype_of(amount)
        )));
    }
    let left = match draft.attrs.str("direction", "").map_err(wrong)?.as_str() {
        "LEFT" => true,
        "RIGHT" => false,
        other => return Err(Failure::unsupported(format!("direction = {other:?}, expected LEFT or RIGHT"))),
    };
    let signed = dtype.is_signed_int();
    let bits = i64::from(dtype.bits());
    let powers: Vec<i64> = (0..bits).map(|shift| 1i64.wrapping_shl(shift as u32)).collect();
    let powers = draft.constant("powers", Tensor::from_i64s(dtype, &[powers.len()], &powers));
    let zero = draft.integer(dtype, 0);
    let (most, all) = (draft.integer(dtype, bits - 1), draft.integer(dtype, bits));
    let clamped = draft.node("Clip", &[amount, zero, most])?;
    let index = draft.cast(clamped, DType::I64)?;
    let factor = draft.node("Gather", &[powers, index])?;
    let mut gone = draft.node("GreaterOrEqual", &[amount, all])?;
    if signed {
        let negative = draft.node("Less", &[amount, zero])?;
        gone = draft.node("Or", &[gone, negative])?;
    }
    let (shifted, empty) = match (left, signed) {
        (true, _) => (draft.times(x, factor)?, zero),
        (false, false) => (draft.over(x, factor)?, zero),
        (false, true) => {
            // Division rounds toward zero and a shift down: of a negative number the other bits are divided.
            let negative = draft.node("Less", &[x, zero])?;
            let flipped = draft.node("BitwiseNot", &[x])?;
            let magnitude = draft.node("Where", &[negative, flipped, x])?;
            let quotient = draft.over(magnitude, factor)?;
            let flipped = draft.node("BitwiseNot", &[quotient])?;
            let ones = draft.integer(dtype, -1);
            let signs = draft.node("Where", &[negative, ones, zero])?;
            (draft.node("Where", &[negative, flipped, quotient])?, signs)
        }
    };
    let y = draft.node("Where", &[gone, empty, shifted])?;
    draft.finish_with(vec![Some(y)])
}
