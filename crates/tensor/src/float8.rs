//! 8-bit floats: conversion to and from f64.

use crate::DType;

/// An 8-bit float format.
///
/// **Source**: <https://onnx.ai/onnx/technical/float8.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Float8 {
    mantissa_bits: i32,
    bias: i32,
    /// Code of the largest finite value.
    largest: u8,
    /// Code of infinity, where there is one.
    infinity: Option<u8>,
    /// "Unsigned zero": no -0, and the code it would have is the only NaN.
    unsigned_zero: bool,
}

impl Float8 {
    /// The format of a dtype; `None` if it is no 8-bit float.
    pub fn of(dtype: DType) -> Option<Self> {
        let format = |mantissa_bits, bias, largest, infinity, unsigned_zero| {
            Some(Float8 { mantissa_bits, bias, largest, infinity, unsigned_zero })
        };
        match dtype {
            DType::F8E4M3FN => format(3, 7, 0x7e, None, false),
            DType::F8E4M3FNUZ => format(3, 8, 0x7f, None, true),
            DType::F8E5M2 => format(2, 15, 0x7b, Some(0x7c), false),
            DType::F8E5M2FNUZ => format(2, 16, 0x7f, None, true),
            _ => None,
        }
    }

    /// The value of a code.
    pub fn decode(self, code: u8) -> f64 {
        let magnitude = code & 0x7f;
        if self.unsigned_zero && code == 0x80 {
            return f64::NAN;
        }
        let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
        if magnitude > self.largest {
            return if self.infinity == Some(magnitude) { sign * f64::INFINITY } else { f64::NAN };
        }
        let exponent = i32::from(magnitude >> self.mantissa_bits);
        let mantissa = i32::from(magnitude) & ((1 << self.mantissa_bits) - 1);
        // Exponent 0 has no implicit leading one and the scale of exponent 1.
        let significand = if exponent == 0 { mantissa } else { mantissa | (1 << self.mantissa_bits) };
        sign * f64::from(significand) * exp2(exponent.max(1) - self.bias - self.mantissa_bits)
    }

    /// The nearest code, halves to the even one. What is too large, infinity too, becomes the largest finite value
    /// if `saturate`, else infinity, or NaN where there is no infinity.
    pub fn encode(self, value: f64, saturate: bool) -> u8 {
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        if value.is_nan() {
            return if self.unsigned_zero { 0x80 } else { sign | 0x7f };
        }
        let magnitude = value.abs();
        let smallest = 1 - self.bias;
        let exponent = (((magnitude.to_bits() >> 52) as i32) - 1023).max(smallest);
        // A power of two and a small integer: both steps are exact but for the rounding.
        let steps = (magnitude * exp2(self.mantissa_bits - exponent)).round_ties_even();
        // Counting on from a full mantissa carries into the exponent, as the codes do.
        let code = steps + f64::from((exponent - smallest) << self.mantissa_bits);
        if code <= f64::from(self.largest) {
            let code = code as u8;
            return if code == 0 && self.unsigned_zero { 0 } else { sign | code };
        }
        match self.infinity {
            _ if saturate => sign | self.largest,
            Some(infinity) => sign | infinity,
            None if self.unsigned_zero => 0x80,
            None => sign | 0x7f,
        }
    }
}

/// 2 to a power within the normal range of f64.
fn exp2(power: i32) -> f64 {
    f64::from_bits(((power + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [DType; 4] = [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ];

    #[test]
    fn every_code_comes_back() {
        for dtype in FORMATS {
            let format = Float8::of(dtype).unwrap();
            for code in 0..=255u8 {
                let value = format.decode(code);
                match value.is_nan() {
                    true => assert!(format.decode(format.encode(value, true)).is_nan()),
                    false => assert_eq!(format.encode(value, false), code, "{dtype} {code:#x} {value}"),
                }
            }
        }
    }

    #[test]
    fn largest_values_and_overflow() {
        let largest = [448.0, 240.0, 57344.0, 57344.0];
        for (dtype, largest) in FORMATS.into_iter().zip(largest) {
            let format = Float8::of(dtype).unwrap();
            assert_eq!(format.decode(format.encode(1e9, true)), largest);
            assert_eq!(format.decode(format.encode(f64::NEG_INFINITY, true)), -largest);
            let beyond = format.decode(format.encode(1e9, false));
            assert!(if dtype == DType::F8E5M2 { beyond == f64::INFINITY } else { beyond.is_nan() });
        }
    }

    #[test]
    fn halves_go_to_even() {
        let format = Float8::of(DType::F8E4M3FN).unwrap();
        assert_eq!(format.decode(format.encode(1.0625, true)), 1.0);
        assert_eq!(format.decode(format.encode(1.1875, true)), 1.25);
        assert_eq!(format.decode(format.encode(464.0, false)), 448.0);
        assert!(format.decode(format.encode(465.0, false)).is_nan());
        // Half of the smallest subnormal.
        assert_eq!(format.encode(2f64.powi(-10), true), 0);
        assert_eq!(Float8::of(DType::F8E4M3FNUZ).unwrap().encode(-1e-9, true), 0);
    }
}
