//! Functions of f32, expanded into primitive operations.
//!
//! Each is written once and works on scalars and on vectors, with the same operations in the same order, so both
//! give the same bits. Errors are below 2.5 ULP (tests); limits, infinities, NaN and signed zeros are those of C, but
//! `exp` and `sigmoid` give 0 instead of denormals.

use crate::clif::ops::Ops;
use crate::error::KernelError;
use crate::prim::Prim;
use cranelift_codegen::ir::Value;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};

/// Adding 1.5·2^23 to an f32 of magnitude below 2^22 rounds it to an integer, which is then in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// e to the x. Results below the smallest normal number become 0: denormals would make masked softmax crawl.
///
/// **Source**: Cephes `expf` (S. Moshier): the polynomial and the split of ln 2.
pub fn exp<O: Prim>(o: &mut O, x: O::V) -> O::V {
    let low = o.f32(EXP_LOWEST);
    // Keeps the work below on normal numbers; NaN passes.
    let clamped = o.max_or_second(low, x);
    let (log2e, rounder) = (o.f32(std::f32::consts::LOG2_E), o.f32(ROUNDER));
    let shifted = o.mul_add(clamped, log2e, rounder);
    let n = o.sub(shifted, rounder);
    let (ln2_high, ln2_low) = (o.f32(0.693_359_4), o.f32(-2.121_944_4e-4));
    let r = o.neg_mul_add(n, ln2_high, clamped);
    let r = o.neg_mul_add(n, ln2_low, r);
    let p =
        o.polynomial(r, &[1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let square = o.mul(r, r);
    let p = o.mul_add(p, square, r);
    let one = o.f32(1.0);
    let p = o.add(p, one);
    // The integer is in the low bits of `shifted`: added to the exponent of p, it multiplies by 2^n.
    let n = o.bits(shifted);
    let n = o.shl(n, 23);
    let bits = o.bits(p);
    let bits = o.add(bits, n);
    let scaled = o.float(bits);
    let normal = o.compare(FloatCC::GreaterThanOrEqual, x, low);
    let scaled = o.or_zero(normal, scaled);
    // Too large, or NaN: the product with a huge number is inf or NaN.
    let (high, huge) = (o.f32(EXP_HIGHEST), o.f32(f32::MAX));
    let finite = o.compare(FloatCC::LessThanOrEqual, x, high);
    let special = o.mul(x, huge);
    o.select(finite, scaled, special)
}

/// Below, e to the x is no normal number: ln 2^-126.
const EXP_LOWEST: f32 = -87.336_54;
/// Above, e to the x overflows: ln of the largest number.
const EXP_HIGHEST: f32 = 88.722_83;

/// Natural logarithm.
///
/// **Source**: FreeBSD msun `e_logf.c` (Sun Microsystems): reduction to [√½, √2) and the polynomial.
pub fn log<O: Prim>(o: &mut O, x: O::V) -> O::V {
    let (zero, smallest, infinity) = (o.f32(0.0), o.f32(f32::MIN_POSITIVE), o.f32(f32::INFINITY));
    let denormal = o.compare(FloatCC::LessThan, x, smallest);
    let scale = o.f32(33_554_432.0);
    let scaled = o.mul(x, scale);
    let positive = o.select(denormal, scaled, x);
    let (bits, offset) = (o.bits(positive), o.i32(0x3f80_0000 - 0x3f35_04f3));
    let bits = o.add(bits, offset);
    let exponent = o.shr_signed(bits, 23);
    let (bias, bias_denormal) = (o.i32(127), o.i32(127 + 25));
    let bias = o.select(denormal, bias_denormal, bias);
    let exponent = o.sub(exponent, bias);
    let k = o.float_from_int(exponent);
    let (mantissa, base) = (o.i32(0x007f_ffff), o.i32(0x3f35_04f3));
    let bits = o.and(bits, mantissa);
    let bits = o.add(bits, base);
    let m = o.float(bits);
    let (one, two, half) = (o.f32(1.0), o.f32(2.0), o.f32(0.5));
    let f = o.sub(m, one);
    let denominator = o.add(f, two);
    let s = o.div(f, denominator);
    let z = o.mul(s, s);
    let r = o.polynomial(z, &[0.242_790_79, 0.284_987_87, 0.400_009_72, 0.666_666_6]);
    let r = o.mul(r, z);
    let square = o.mul(f, f);
    let half_square = o.mul(half, square);
    let r = o.add(half_square, r);
    let (ln2_high, ln2_low) = (o.f32(0.693_138_1), o.f32(9.058_001e-6));
    let low = o.mul(k, ln2_low);
    let sum = o.mul_add(s, r, low);
    let sum = o.sub(sum, half_square);
    let sum = o.add(sum, f);
    let result = o.mul_add(k, ln2_high, sum);
    // Ordered so that NaN passes: x < 0 → NaN, 0 → -inf, inf → inf, NaN → NaN.
    let (nan, negative_infinity) = (o.f32(f32::NAN), o.f32(f32::NEG_INFINITY));
    let is_zero = o.compare(FloatCC::Equal, x, zero);
    let result = o.select(is_zero, negative_infinity, result);
    let is_negative = o.compare(FloatCC::LessThan, x, zero);
    let result = o.select(is_negative, nan, result);
    let is_finite = o.compare(FloatCC::LessThan, x, infinity);
    o.select(is_finite, result, x)
}

/// Sine.
///
/// **Errors**: none that depend on data; the C library must be callable.
pub fn sin(o: &mut Ops, x: Value) -> Result<Value, KernelError> {
    sin_cos(o, x, 0, "sin")
}

/// Cosine.
///
/// **Errors**: none that depend on data; the C library must be callable.
pub fn cos(o: &mut Ops, x: Value) -> Result<Value, KernelError> {
    sin_cos(o, x, 1, "cos")
}

/// `sin(x + quadrant·π/2)`. Arguments of 2^20 and more are left to the C library.
///
/// **Source**: Cephes `sinf`, `cosf` (polynomials on ±π/4); FreeBSD msun `e_rem_pio2f.c` (π/2 in two parts, the
/// first of 33 bits, so that its product with an integer below 2^20 is exact in f64).
fn sin_cos(o: &mut Ops, x: Value, quadrant: i32, name: &str) -> Result<Value, KernelError> {
    let (two_over_pi, rounder) = (o.f32(std::f32::consts::FRAC_2_PI), o.f32(ROUNDER));
    let shifted = o.mul_add(x, two_over_pi, rounder);
    let n = o.sub(shifted, rounder);
    let r = o.in_f64([x, n], |o, [x, n]| {
        let (high, low) = (o.f64(1.570_796_326_734_125_6), o.f64(6.077_100_506_506_192e-11));
        let product = o.mul(n, high);
        let r = o.sub(x, product);
        let product = o.mul(n, low);
        o.sub(r, product)
    });
    let z = o.mul(r, r);
    let s = o.polynomial(z, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let cube = o.mul(z, r);
    let sine = o.mul_add(s, cube, r);
    // The sum loses the sign of a zero.
    let sine = o.copysign(sine, r);
    let c = o.polynomial(z, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let (one, half) = (o.f32(1.0), o.f32(0.5));
    let half_square = o.mul(z, half);
    let start = o.sub(one, half_square);
    let fourth = o.mul(z, z);
    let cosine = o.mul_add(c, fourth, start);
    // The low two bits of the integer say which of ±sin, ±cos it is.
    let bits = o.bits(shifted);
    let quadrant = o.i32(quadrant);
    let bits = o.add(bits, quadrant);
    let (odd_bit, sign_bit, none) = (o.i32(1), o.i32(2), o.i32(0));
    let odd = o.and(bits, odd_bit);
    let odd = o.compare_int(IntCC::NotEqual, odd, none);
    let value = o.select(odd, cosine, sine);
    let sign = o.and(bits, sign_bit);
    let sign = o.shl(sign, 30);
    let value = o.bits(value);
    let value = o.xor(value, sign);
    let value = o.float(value);
    let limit = o.f32(1_048_576.0);
    let magnitude = o.abs(x);
    let small = o.compare(FloatCC::LessThan, magnitude, limit);
    let large = o.not_bool(small);
    o.or_call_f32(large, value, name, x)
}

/// Hyperbolic tangent.
///
/// **Source**: Cephes `tanhf` (S. Moshier): polynomial below 0.625, `1 - 2/(e^2x + 1)` above.
pub fn tanh<O: Prim>(o: &mut O, x: O::V) -> O::V {
    let magnitude = o.abs(x);
    let (one, two) = (o.f32(1.0), o.f32(2.0));
    let doubled = o.add(magnitude, magnitude);
    let e = exp(o, doubled);
    let denominator = o.add(e, one);
    let quotient = o.div(two, denominator);
    let large = o.sub(one, quotient);
    let z = o.mul(x, x);
    let p = o.polynomial(z, &[-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let p = o.mul(p, z);
    let small = o.mul_add(p, x, x);
    let limit = o.f32(0.625);
    let is_small = o.compare(FloatCC::LessThan, magnitude, limit);
    let result = o.select(is_small, small, large);
    o.copysign(result, x)
}

/// `1 / (1 + e^-x)`, by `e^-|x|`, which cannot overflow.
pub fn sigmoid<O: Prim>(o: &mut O, x: O::V) -> O::V {
    let (zero, one, sign) = (o.f32(0.0), o.f32(1.0), o.i32(i32::MIN));
    let bits = o.bits(x);
    let bits = o.or(bits, sign);
    let negative = o.float(bits);
    let e = exp(o, negative);
    let denominator = o.add(one, e);
    let is_negative = o.compare(FloatCC::LessThan, x, zero);
    let numerator = o.select(is_negative, e, one);
    o.div(numerator, denominator)
}

/// Error function: a polynomial near 0, `1 - e^p(|x|)` elsewhere.
///
/// **Source**: N. Juffa, "Fast vectorizable implementation of erff", a minimax fit with errors below 1 ULP:
/// <https://stackoverflow.com/questions/35148198>.
pub fn erf<O: Prim>(o: &mut O, x: O::V) -> O::V {
    let magnitude = o.abs(x);
    let square = o.mul(x, x);
    let (c0, c1) = (o.f32(-1.728_534_7e-5), o.f32(3.831_971_3e-4));
    let r = o.mul_add(c0, magnitude, c1);
    let (c2, c3) = (o.f32(-3.883_964_4e-3), o.f32(2.425_462_2e-2));
    let u = o.mul_add(c2, magnitude, c3);
    let r = o.mul_add(r, square, u);
    let mut r = r;
    for coefficient in [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1] {
        let coefficient = o.f32(coefficient);
        r = o.mul_add(r, magnitude, coefficient);
    }
    let product = o.mul(r, magnitude);
    let exponent = o.sub(product, magnitude);
    let e = exp(o, exponent);
    let one = o.f32(1.0);
    let large = o.sub(one, e);
    // r·x² overflows for huge arguments, where the result is 1 anyway.
    let limit = o.f32(4.0);
    let is_huge = o.compare(FloatCC::GreaterThan, magnitude, limit);
    let large = o.select(is_huge, one, large);
    let large = o.copysign(large, x);
    let p = o.polynomial(
        square,
        &[-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1],
    );
    let small = o.mul_add(p, x, x);
    let limit = o.f32(0.927_734_4);
    let is_large = o.compare(FloatCC::GreaterThan, magnitude, limit);
    o.select(is_large, large, small)
}
