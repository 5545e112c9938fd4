//! The primitive operations that functions are expanded into, whichever code maker takes them.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};

/// Builds operations on values of f32, of 32-bit integers, and of bools.
///
/// Every code maker rounds them in the same way, so a function has the same bits everywhere.
pub trait Prim {
    /// A value.
    type V: Copy;

    /// A constant of f32.
    fn f32(&mut self, value: f32) -> Self::V;
    /// A constant of 32 bits.
    fn i32(&mut self, value: i32) -> Self::V;
    /// Sum of floats or integers.
    fn add(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// Difference of floats or integers.
    fn sub(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// Product of floats or integers.
    fn mul(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// Quotient of floats.
    fn div(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c` of floats, rounded once if the machine has the instruction.
    fn mul_add(&mut self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b` of floats, rounded once if the machine has the instruction.
    fn neg_mul_add(&mut self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Square root.
    fn sqrt(&mut self, a: Self::V) -> Self::V;
    /// Absolute value of a float.
    fn abs(&mut self, a: Self::V) -> Self::V;
    /// Bits of an f32.
    fn bits(&mut self, a: Self::V) -> Self::V;
    /// The f32 with these bits.
    fn float(&mut self, a: Self::V) -> Self::V;
    /// f32 from a signed integer.
    fn float_from_int(&mut self, a: Self::V) -> Self::V;
    /// Bitwise and; logical for bools.
    fn and(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise or; logical for bools.
    fn or(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// Shift left by a constant.
    fn shl(&mut self, a: Self::V, bits: i64) -> Self::V;
    /// Arithmetic shift right by a constant.
    fn shr_signed(&mut self, a: Self::V, bits: i64) -> Self::V;
    /// Compares floats; the result is a bool.
    fn compare(&mut self, condition: FloatCC, a: Self::V, b: Self::V) -> Self::V;
    /// Compares integers; the result is a bool.
    fn compare_int(&mut self, condition: IntCC, a: Self::V, b: Self::V) -> Self::V;
    /// `condition ? a : b`; the condition is a bool.
    fn select(&mut self, condition: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// `condition ? a : 0` for f32.
    fn or_zero(&mut self, condition: Self::V, a: Self::V) -> Self::V;
    /// The larger float of `a` and `b`; `b` if either is NaN.
    fn max_or_second(&mut self, a: Self::V, b: Self::V) -> Self::V;

    /// Horner's scheme: the first coefficient belongs to the highest power.
    fn polynomial(&mut self, x: Self::V, coefficients: &[f32]) -> Self::V {
        let mut sum = self.f32(coefficients[0]);
        for &coefficient in &coefficients[1..] {
            let coefficient = self.f32(coefficient);
            sum = self.mul_add(sum, x, coefficient);
        }
        sum
    }

    /// Magnitude of one f32, sign of another.
    fn copysign(&mut self, magnitude: Self::V, sign: Self::V) -> Self::V {
        let mask = self.i32(i32::MIN);
        let bits = self.bits(sign);
        let bits = self.and(bits, mask);
        let magnitude = self.bits(magnitude);
        let joined = self.or(magnitude, bits);
        self.float(joined)
    }
}
