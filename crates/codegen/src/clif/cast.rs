//! Conversions between dtypes, in registers and at memory's edge.

use crate::clif::ops::Ops;
use crate::error::KernelError;
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F64, I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use rabot_tensor::DType;

/// CLIF type of a scalar of this dtype: F32, F64, I8 (bool), I32 (integers up to 32 bits) or I64.
///
/// **Errors**: f16, bf16 (which are widened as they are loaded), shorter floats, complex numbers and strings have none.
pub fn register_class(dtype: DType) -> Result<Type, KernelError> {
    use DType::*;
    Ok(match dtype {
        F32 => cranelift_codegen::ir::types::F32,
        F64 => cranelift_codegen::ir::types::F64,
        Bool => cranelift_codegen::ir::types::I8,
        I2 | U2 | I4 | U4 | I8 | U8 | I16 | U16 | I32 | U32 => cranelift_codegen::ir::types::I32,
        I64 | U64 => cranelift_codegen::ir::types::I64,
        F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F6E2M3 | F6E3M2 | F4E2M1
        | C64 | C128 | String => return Err(KernelError::Element(dtype)),
    })
}

/// Makes an integer of a narrow dtype canonical again: cuts it to the dtype's bits and extends it.
pub fn wrap(o: &mut Ops, dtype: DType, x: Value) -> Value {
    let bits = match dtype {
        DType::I2 | DType::U2 => 2,
        DType::I4 | DType::U4 => 4,
        DType::I8 | DType::U8 => 8,
        DType::I16 | DType::U16 => 16,
        _ => return x,
    };
    if dtype.is_unsigned_int() {
        let mask = o.i32((1 << bits) - 1);
        return o.and(x, mask);
    }
    let shifted = o.shl(x, 32 - bits);
    o.shr_signed(shifted, 32 - bits)
}

/// Conversion by value: float → integer truncates and saturates, integers wrap, → bool is `!= 0`.
///
/// **Errors**: a dtype that is not held in registers.
pub fn cast(o: &mut Ops, from: DType, to: DType, x: Value) -> Result<Value, KernelError> {
    let (source, target) = (register_class(from)?, register_class(to)?);
    if from == to {
        return Ok(x);
    }
    Ok(match (source, target) {
        (F32 | F64, F32 | F64) => convert_float(o, target, x),
        (F32 | F64, I8) => {
            let zero = if source == F64 { o.f64(0.0) } else { o.f32(0.0) };
            o.compare(FloatCC::NotEqual, x, zero)
        }
        (F32 | F64, _) => float_to_int(o, to, target, x),
        (I8, _) => {
            let int = o.int_from_bool(x);
            return if target == I32 { Ok(int) } else { cast(o, DType::I32, to, int) };
        }
        (_, I8) => {
            let zero = if source == I64 { o.i64(0) } else { o.i32(0) };
            o.compare_int(IntCC::NotEqual, x, zero)
        }
        (I32, F32 | F64) => int_to_float(o, from == DType::U32, target, x),
        (_, F32 | F64) => int_to_float(o, from == DType::U64, target, x),
        (I32, I32) => wrap(o, to, x),
        (I32, _) if from.is_unsigned_int() => o.cx.builder.ins().uextend(I64, x),
        (I32, _) => o.cx.builder.ins().sextend(I64, x),
        (_, I32) => {
            let x = o.cx.builder.ins().ireduce(I32, x);
            wrap(o, to, x)
        }
        _ => x,
    })
}

fn convert_float(o: &mut Ops, target: Type, x: Value) -> Value {
    match target == F64 {
        true => o.cx.builder.ins().fpromote(F64, x),
        false => o.cx.builder.ins().fdemote(F32, x),
    }
}

fn int_to_float(o: &mut Ops, unsigned: bool, target: Type, x: Value) -> Value {
    let ty = if target == F64 { F64 } else { o.f32_type() };
    let ins = o.cx.builder.ins();
    if unsigned { ins.fcvt_from_uint(ty, x) } else { ins.fcvt_from_sint(ty, x) }
}

fn float_to_int(o: &mut Ops, to: DType, target: Type, x: Value) -> Value {
    let ty = if target == I64 { I64 } else { o.i32_type() };
    let ins = o.cx.builder.ins();
    if matches!(to, DType::U32 | DType::U64) {
        return ins.fcvt_to_uint_sat(ty, x);
    }
    let value = ins.fcvt_to_sint_sat(ty, x);
    match to.int_range() {
        Some((low, high)) if high < i32::MAX as i128 => {
            let (low, high) = (o.i32(low as i32), o.i32(high as i32));
            let value = o.max_int(true, value, low);
            o.min_int(true, value, high)
        }
        _ => value,
    }
}

/// The same bits as another dtype of the same size.
///
/// **Errors**: sizes differ, or a dtype is not held in registers.
pub fn bitcast(o: &mut Ops, from: DType, to: DType, x: Value) -> Result<Value, KernelError> {
    let (source, target) = (register_class(from)?, register_class(to)?);
    if from.size_bytes() != to.size_bytes() || (source == I8) != (target == I8) {
        return Err(KernelError::Inconsistent(format!("bits of {from} cannot be read as {to}")));
    }
    Ok(match (source, target) {
        (F32, I32) => o.bits(x),
        (I32, F32) => o.float(x),
        (F64, I64) | (I64, F64) => o.cx.builder.ins().bitcast(target, crate::clif::ops::little(), x),
        (I32, I32) => wrap(o, to, x),
        _ => x,
    })
}

/// f16 bits in the low half of an integer → f32.
///
/// The exponent is rebiased by an exact multiplication, which gets denormals right as well.
///
/// **Source**: F. Giesen, "Half-precision floating-point conversion":
/// <https://gist.github.com/rygorous/2156668>.
pub fn f32_from_f16(o: &mut Ops, half: Value) -> Value {
    let (magnitude_mask, sign_mask) = (o.i32(0x7fff), o.i32(0x8000));
    let magnitude = o.and(half, magnitude_mask);
    let magnitude = o.shl(magnitude, 13);
    let scale = o.f32(f32::from_bits((127 + 112) << 23));
    let float = o.float(magnitude);
    let float = o.mul(float, scale);
    let float = o.bits(float);
    let (infinity, exponent) = (o.i32(0x7c00 << 13), o.i32(0x7f80_0000));
    let special = o.compare_int(IntCC::SignedGreaterThanOrEqual, magnitude, infinity);
    let special_bits = o.or(magnitude, exponent);
    let bits = o.select(special, special_bits, float);
    let sign = o.and(half, sign_mask);
    let sign = o.shl(sign, 16);
    let bits = o.or(bits, sign);
    o.float(bits)
}

/// Sign-extended bits of a finite f16 → f32, exact: a product with 2¹¹² moves the exponent, denormals included.
pub fn f32_from_finite_f16(o: &mut Ops, half: Value) -> Value {
    let bits = o.shl(half, 13);
    let mask = o.i32(0x8fff_e000u32 as i32);
    let bits = o.and(bits, mask);
    let float = o.float(bits);
    let scale = o.f32(f32::from_bits((127 + 112) << 23));
    o.mul(float, scale)
}

/// f32 → f16 bits in the low half of an integer, to nearest, halves to even.
///
/// **Source**: F. Giesen, "Float to half, round to nearest even": <https://gist.github.com/rygorous/2156668>.
pub fn f16_from_f32(o: &mut Ops, x: Value) -> Value {
    let bits = o.bits(x);
    let (sign_mask, one) = (o.i32(i32::MIN), o.i32(1));
    let sign = o.and(bits, sign_mask);
    let a = o.xor(bits, sign);
    let odd = o.shr(a, 13);
    let odd = o.and(odd, one);
    let rebias = o.i32(((15 - 127) << 23) + 0xfff);
    let normal = o.add(a, rebias);
    let normal = o.add(normal, odd);
    let normal = o.shr(normal, 13);
    // Adding 0.5 aligns the bits of a result that is denormal, and rounds.
    let half = o.f32(0.5);
    let denormal = o.float(a);
    let denormal = o.add(denormal, half);
    let denormal = o.bits(denormal);
    let half = o.i32(0.5f32.to_bits() as i32);
    let denormal = o.sub(denormal, half);
    let (smallest, infinity) = (o.i32(113 << 23), o.i32(0x7f80_0000));
    let (overflow, infinity16, nan16) = (o.i32((127 + 16) << 23), o.i32(0x7c00), o.i32(0x7e00));
    let is_denormal = o.compare_int(IntCC::SignedLessThan, a, smallest);
    let result = o.select(is_denormal, denormal, normal);
    let is_nan = o.compare_int(IntCC::SignedGreaterThan, a, infinity);
    let special = o.select(is_nan, nan16, infinity16);
    let is_special = o.compare_int(IntCC::SignedGreaterThanOrEqual, a, overflow);
    let result = o.select(is_special, special, result);
    let sign = o.shr(sign, 16);
    o.or(result, sign)
}

/// bf16 bits in the low half of an integer → f32.
pub fn f32_from_bf16(o: &mut Ops, x: Value) -> Value {
    let bits = o.shl(x, 16);
    o.float(bits)
}

/// f32 → bf16 bits in the low half of an integer, to nearest, halves to even; NaN stays NaN.
pub fn bf16_from_f32(o: &mut Ops, x: Value) -> Value {
    let bits = o.bits(x);
    let (one, half) = (o.i32(1), o.i32(0x7fff));
    let truncated = o.shr(bits, 16);
    let odd = o.and(truncated, one);
    let rounded = o.add(bits, half);
    let rounded = o.add(rounded, odd);
    let rounded = o.shr(rounded, 16);
    let quiet = o.i32(0x40);
    let nan = o.or(truncated, quiet);
    let is_nan = o.compare(FloatCC::Unordered, x, x);
    o.select(is_nan, nan, rounded)
}
