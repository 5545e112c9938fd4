//! Functions of one and two operands, for each dtype.

use crate::clif::cast::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16, wrap};
use crate::clif::expr::{STATUS_DIVISION, STATUS_INDEX};
use crate::clif::math;
use crate::clif::ops::Ops;
use crate::error::KernelError;
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F64, I64};
use cranelift_codegen::ir::{InstBuilder, InstructionData, Opcode, Value};
use rabot_kernel::{BinaryFn, UnaryFn};
use rabot_tensor::DType;

#[derive(Clone, Copy)]
pub(crate) enum Power {
    Reciprocal,
    ReciprocalSqrt,
    Sqrt,
    Same,
    Square,
    Cube,
}

pub(crate) const POWERS: [(f64, Power); 6] = [
    (-1.0, Power::Reciprocal),
    (-0.5, Power::ReciprocalSqrt),
    (0.5, Power::Sqrt),
    (1.0, Power::Same),
    (2.0, Power::Square),
    (3.0, Power::Cube),
];

/// `x` to a special power; `one` is 1 in its dtype.
pub(crate) fn special_power<O: Prim>(o: &mut O, power: Power, one: O::V, x: O::V) -> O::V {
    match power {
        Power::Same => x,
        Power::Square => o.mul(x, x),
        Power::Cube => {
            let square = o.mul(x, x);
            o.mul(square, x)
        }
        Power::Sqrt => o.sqrt(x),
        Power::Reciprocal => o.div(one, x),
        Power::ReciprocalSqrt => {
            let root = o.sqrt(x);
            o.div(one, root)
        }
    }
}

fn reciprocal(o: &mut Ops, dtype: DType, x: Value) -> Value {
    let one = if dtype == DType::F64 { o.f64(1.0) } else { o.f32(1.0) };
    o.div(one, x)
}

pub(crate) fn select_bool(o: &mut Ops, condition: Value, a: Value, b: Value) -> Value {
    let a = o.and(condition, a);
    let not = o.not_bool(condition);
    let b = o.and(not, b);
    o.or(a, b)
}

/// Negative indices count from the end; others out of range set the status and become 0.
pub(crate) fn check_index(o: &mut Ops, index: Value, bound: Value) -> Value {
    let zero = o.i64(0);
    let negative = o.compare_int(IntCC::SignedLessThan, index, zero);
    let from_end = o.add(index, bound);
    let index = o.select(negative, from_end, index);
    let bad = o.compare_int(IntCC::UnsignedGreaterThanOrEqual, index, bound);
    o.cx.set_status(bad, STATUS_INDEX);
    o.select(bad, zero, index)
}

fn unsupported(function: impl std::fmt::Debug, dtype: DType) -> KernelError {
    KernelError::DType { operation: format!("{function:?}"), dtype }
}

pub(crate) fn unary(o: &mut Ops, function: UnaryFn, dtype: DType, x: Value) -> Result<Value, KernelError> {
    match dtype {
        DType::F32 => unary_f32(o, function, x),
        DType::F64 => unary_f64(o, function, x),
        DType::Bool if function == UnaryFn::Not => Ok(o.not_bool(x)),
        _ if dtype.is_int() => {
            let value = match function {
                UnaryFn::Abs if dtype.is_unsigned_int() => x,
                UnaryFn::Abs => o.cx.builder.ins().iabs(x),
                UnaryFn::Neg => o.cx.builder.ins().ineg(x),
                UnaryFn::Not => o.cx.builder.ins().bnot(x),
                _ => return Err(unsupported(function, dtype)),
            };
            Ok(wrap(o, dtype, value))
        }
        _ => Err(unsupported(function, dtype)),
    }
}

/// What is one instruction for floats of either size.
fn unary_float(o: &mut Ops, function: UnaryFn, x: Value) -> Option<Value> {
    let ins = o.cx.builder.ins();
    Some(match function {
        UnaryFn::Abs => ins.fabs(x),
        UnaryFn::Neg => ins.fneg(x),
        UnaryFn::Sqrt => ins.sqrt(x),
        UnaryFn::Floor => ins.floor(x),
        UnaryFn::Ceil => ins.ceil(x),
        UnaryFn::Round => ins.nearest(x),
        UnaryFn::IsNaN => ins.fcmp(FloatCC::Unordered, x, x),
        _ => return None,
    })
}

fn unary_f32(o: &mut Ops, function: UnaryFn, x: Value) -> Result<Value, KernelError> {
    if let Some(value) = unary_float(o, function, x) {
        return Ok(value);
    }
    Ok(match function {
        UnaryFn::Reciprocal => reciprocal(o, DType::F32, x),
        UnaryFn::Exp => math::exp(o, x),
        UnaryFn::Log => math::log(o, x),
        UnaryFn::Sin => math::sin(o, x)?,
        UnaryFn::Cos => math::cos(o, x)?,
        UnaryFn::Tanh => math::tanh(o, x),
        UnaryFn::Sigmoid => math::sigmoid(o, x),
        UnaryFn::Erf => math::erf(o, x),
        UnaryFn::RoundF16 => {
            let half = f16_from_f32(o, x);
            f32_from_f16(o, half)
        }
        UnaryFn::RoundBF16 => {
            let half = bf16_from_f32(o, x);
            f32_from_bf16(o, half)
        }
        UnaryFn::Libm(name) => o.cx.call_libm(name, F32, &[x])?,
        _ => return Err(unsupported(function, DType::F32)),
    })
}

fn unary_f64(o: &mut Ops, function: UnaryFn, x: Value) -> Result<Value, KernelError> {
    if let Some(value) = unary_float(o, function, x) {
        return Ok(value);
    }
    let name = match function {
        UnaryFn::Reciprocal => return Ok(reciprocal(o, DType::F64, x)),
        UnaryFn::Sigmoid => return sigmoid_f64(o, x),
        UnaryFn::Exp => "exp",
        UnaryFn::Log => "log",
        UnaryFn::Sin => "sin",
        UnaryFn::Cos => "cos",
        UnaryFn::Tanh => "tanh",
        UnaryFn::Erf => "erf",
        UnaryFn::Libm(name) => name,
        _ => return Err(unsupported(function, DType::F64)),
    };
    o.cx.call_libm(name, F64, &[x])
}

fn sigmoid_f64(o: &mut Ops, x: Value) -> Result<Value, KernelError> {
    let (zero, one) = (o.f64(0.0), o.f64(1.0));
    let magnitude = o.abs(x);
    let negative = o.cx.builder.ins().fneg(magnitude);
    let e = o.cx.call_libm("exp", F64, &[negative])?;
    let denominator = o.add(one, e);
    let is_negative = o.compare(FloatCC::LessThan, x, zero);
    let numerator = o.select(is_negative, e, one);
    Ok(o.div(numerator, denominator))
}

pub(crate) fn binary(
    o: &mut Ops,
    function: BinaryFn,
    dtype: DType,
    a: Value,
    b: Value,
) -> Result<Value, KernelError> {
    match dtype {
        DType::F32 | DType::F64 => binary_float(o, function, dtype, a, b),
        DType::Bool => binary_bool(o, function, a, b),
        _ if dtype.is_int() => binary_int(o, function, dtype, a, b),
        _ => Err(unsupported(function, dtype)),
    }
}

fn binary_float(
    o: &mut Ops,
    function: BinaryFn,
    dtype: DType,
    a: Value,
    b: Value,
) -> Result<Value, KernelError> {
    let ty = if dtype == DType::F64 { F64 } else { F32 };
    Ok(match function {
        BinaryFn::Add => o.add(a, b),
        BinaryFn::Sub => o.sub(a, b),
        BinaryFn::Mul => o.mul(a, b),
        BinaryFn::Div => o.div(a, b),
        BinaryFn::Rem => o.cx.call_libm("fmod", ty, &[a, b])?,
        BinaryFn::Pow => o.cx.call_libm("pow", ty, &[a, b])?,
        // A constant is no NaN, mostly: then one instruction that gives its second operand will do.
        BinaryFn::Min if is_number(o, b) => o.min_or_second(b, a),
        BinaryFn::Min if is_number(o, a) => o.min_or_second(a, b),
        BinaryFn::Max if is_number(o, b) => o.max_or_second(b, a),
        BinaryFn::Max if is_number(o, a) => o.max_or_second(a, b),
        BinaryFn::Min => o.min(a, b),
        BinaryFn::Max => o.max(a, b),
        BinaryFn::Eq => o.compare(FloatCC::Equal, a, b),
        BinaryFn::Lt => o.compare(FloatCC::LessThan, a, b),
        BinaryFn::Le => o.compare(FloatCC::LessThanOrEqual, a, b),
        BinaryFn::And | BinaryFn::Or | BinaryFn::Xor => return Err(unsupported(function, dtype)),
    })
}

/// True if the value is a constant that is not NaN.
fn is_number(o: &Ops, value: Value) -> bool {
    let dfg = &o.cx.builder.func.dfg;
    let Some(inst) = dfg.value_def(value).inst() else { return false };
    match dfg.insts[inst] {
        InstructionData::UnaryIeee32 { imm, .. } => !f32::from_bits(imm.bits()).is_nan(),
        InstructionData::UnaryIeee64 { imm, .. } => !f64::from_bits(imm.bits()).is_nan(),
        InstructionData::UnaryConst { constant_handle, .. } => {
            let bytes = dfg.constants.get(constant_handle).as_slice();
            bytes.first_chunk().is_some_and(|first| !f32::from_le_bytes(*first).is_nan())
        }
        _ => false,
    }
}

fn binary_bool(o: &mut Ops, function: BinaryFn, a: Value, b: Value) -> Result<Value, KernelError> {
    Ok(match function {
        BinaryFn::And | BinaryFn::Min | BinaryFn::Mul => o.and(a, b),
        BinaryFn::Or | BinaryFn::Max | BinaryFn::Add => o.or(a, b),
        BinaryFn::Xor => o.xor(a, b),
        BinaryFn::Eq => {
            let different = o.xor(a, b);
            o.not_bool(different)
        }
        BinaryFn::Lt => {
            let not = o.not_bool(a);
            o.and(not, b)
        }
        BinaryFn::Le => {
            let not = o.not_bool(a);
            o.or(not, b)
        }
        BinaryFn::Sub | BinaryFn::Div | BinaryFn::Rem | BinaryFn::Pow => {
            return Err(unsupported(function, DType::Bool));
        }
    })
}

fn binary_int(
    o: &mut Ops,
    function: BinaryFn,
    dtype: DType,
    a: Value,
    b: Value,
) -> Result<Value, KernelError> {
    let signed = dtype.is_signed_int();
    let (less, at_most) = match signed {
        true => (IntCC::SignedLessThan, IntCC::SignedLessThanOrEqual),
        false => (IntCC::UnsignedLessThan, IntCC::UnsignedLessThanOrEqual),
    };
    let value = match function {
        BinaryFn::Add => o.add(a, b),
        BinaryFn::Sub => o.sub(a, b),
        BinaryFn::Mul => o.mul(a, b),
        BinaryFn::Div | BinaryFn::Rem => divide(o, function == BinaryFn::Div, signed, a, b),
        BinaryFn::Min => return Ok(o.min_int(signed, a, b)),
        BinaryFn::Max => return Ok(o.max_int(signed, a, b)),
        BinaryFn::And => return Ok(o.and(a, b)),
        BinaryFn::Or => return Ok(o.or(a, b)),
        BinaryFn::Xor => return Ok(o.xor(a, b)),
        BinaryFn::Eq => return Ok(o.compare_int(IntCC::Equal, a, b)),
        BinaryFn::Lt => return Ok(o.compare_int(less, a, b)),
        BinaryFn::Le => return Ok(o.compare_int(at_most, a, b)),
        BinaryFn::Pow => return Err(unsupported(function, dtype)),
    };
    Ok(wrap(o, dtype, value))
}

/// Scalar division that never traps: by zero sets the status and gives 0, by -1 negates (or leaves no remainder).
fn divide(o: &mut Ops, quotient: bool, signed: bool, a: Value, b: Value) -> Value {
    let ty = o.cx.builder.func.dfg.value_type(b);
    let (zero, one) = (o.cx.builder.ins().iconst(ty, 0), o.cx.builder.ins().iconst(ty, 1));
    let by_zero = o.compare_int(IntCC::Equal, b, zero);
    let known = o.cx.builder.func.dfg.value_def(b).inst();
    let is_constant = known.is_some_and(|inst| o.cx.builder.func.dfg.insts[inst].opcode() == Opcode::Iconst);
    if !is_constant || is_zero_constant(o, b) {
        o.cx.set_status(by_zero, STATUS_DIVISION);
    }
    let divisor = o.select(by_zero, one, b);
    if !signed {
        let ins = o.cx.builder.ins();
        let result = if quotient { ins.udiv(a, divisor) } else { ins.urem(a, divisor) };
        return o.select(by_zero, zero, result);
    }
    let minus_one = o.cx.builder.ins().iconst(ty, if ty == I64 { -1 } else { u32::MAX as i64 });
    let negates = o.compare_int(IntCC::Equal, b, minus_one);
    let divisor = o.select(negates, one, divisor);
    let ins = o.cx.builder.ins();
    let result = if quotient { ins.sdiv(a, divisor) } else { ins.srem(a, divisor) };
    let by_minus_one = if quotient { o.cx.builder.ins().ineg(a) } else { zero };
    let result = o.select(negates, by_minus_one, result);
    o.select(by_zero, zero, result)
}

fn is_zero_constant(o: &Ops, value: Value) -> bool {
    let dfg = &o.cx.builder.func.dfg;
    dfg.value_def(value).inst().is_some_and(
        |inst| matches!(dfg.insts[inst], InstructionData::UnaryImm { imm, .. } if imm.bits() == 0),
    )
}
