//! Floats of 4, 6 and 8 bits: conversion to and from f64.

use crate::DType;

/// A float format of at most 8 bits, stored one element a byte.
///
/// **Source**: <https://onnx.ai/onnx/technical/float8.html>, <https://onnx.ai/onnx/technical/float4.html>; of scales:
/// OCP Microscaling Formats (MX) 1.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortFloat {
    mantissa_bits: i32,
    bias: i32,
    /// Bit of the sign; 0 for formats without one.
    sign: u8,
    /// Code of the largest finite value.
    largest: u8,
    /// Code of infinity, where there is one.
    infinity: Option<u8>,
    /// What is no number.
    nan: Nan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nan {
    /// Codes above the largest and infinity, with either sign.
    Above,
    /// The code that -0 would have, which there is not.
    NegativeZero,
    /// There is none.
    Absent,
}

/// How a power-of-two format (`f8e8m0`) rounds what is between two of its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoundMode {
    /// Away from zero.
    #[default]
    Up,
    /// Toward zero.
    Down,
    /// To the nearest, ties up.
    Nearest,
}

impl ShortFloat {
    /// The format of a dtype; `None` if it is no float of at most 8 bits.
    pub fn of(dtype: DType) -> Option<Self> {
        let format = |mantissa_bits, bias, sign, largest, infinity, nan| {
            Some(ShortFloat { mantissa_bits, bias, sign, largest, infinity, nan })
        };
        match dtype {
            DType::F8E4M3FN => format(3, 7, 0x80, 0x7e, None, Nan::Above),
            DType::F8E4M3FNUZ => format(3, 8, 0x80, 0x7f, None, Nan::NegativeZero),
            DType::F8E5M2 => format(2, 15, 0x80, 0x7b, Some(0x7c), Nan::Above),
            DType::F8E5M2FNUZ => format(2, 16, 0x80, 0x7f, None, Nan::NegativeZero),
            DType::F8E8M0 => format(0, 127, 0, 0xfe, None, Nan::Above),
            DType::F6E2M3 => format(3, 1, 0x20, 0x1f, None, Nan::Absent),
            DType::F6E3M2 => format(2, 3, 0x20, 0x1f, None, Nan::Absent),
            DType::F4E2M1 => format(1, 1, 0x08, 0x07, None, Nan::Absent),
            _ => None,
        }
    }

    /// The value of a code.
    pub fn decode(self, code: u8) -> f64 {
        if self.sign == 0 {
            return if code > self.largest { f64::NAN } else { exp2(i32::from(code) - self.bias) };
        }
        let magnitude = code & (self.sign - 1);
        let negative = code & self.sign != 0;
        if self.nan == Nan::NegativeZero && negative && magnitude == 0 {
            return f64::NAN;
        }
        let sign = if negative { -1.0 } else { 1.0 };
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
    /// if `saturate`, else infinity, or NaN where there is no infinity. Formats without NaN always saturate, and give
    /// -0 for NaN. Powers of two round up, as [`ShortFloat::encode_power`] with [`RoundMode::Up`].
    pub fn encode(self, value: f64, saturate: bool) -> u8 {
        if self.sign == 0 {
            return self.encode_power(value, saturate, RoundMode::Up);
        }
        let sign = if value.is_sign_negative() { self.sign } else { 0 };
        if value.is_nan() {
            return match self.nan {
                Nan::Above => sign | 0x7f,
                Nan::NegativeZero | Nan::Absent => self.sign,
            };
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
            return if code == 0 && self.nan == Nan::NegativeZero { 0 } else { sign | code };
        }
        match (self.infinity, self.nan) {
            _ if saturate => sign | self.largest,
            (_, Nan::Absent) => sign | self.largest,
            (Some(infinity), _) => sign | infinity,
            (None, Nan::NegativeZero) => 0x80,
            (None, Nan::Above) => sign | 0x7f,
        }
    }

    /// The code of the power of two that a magnitude rounds to; of other formats that of the nearest value.
    ///
    /// The sign of the value is dropped (ONNX leaves negative values unspecified). What lies outside of the range is
    /// moved into it if `saturate`, else it is NaN, zero and infinity too.
    pub fn encode_power(self, value: f64, saturate: bool, mode: RoundMode) -> u8 {
        if self.sign != 0 {
            return self.encode(value, saturate);
        }
        let (magnitude, nan) = (value.abs(), 0xff);
        if magnitude.is_nan() {
            return nan;
        }
        let (smallest, largest) = (self.decode(0), self.decode(self.largest));
        if magnitude < smallest || magnitude.is_infinite() {
            let bound = if magnitude < smallest { 0 } else { self.largest };
            return if saturate { bound } else { nan };
        }
        let bits = magnitude.to_bits();
        let (exponent, fraction) = ((bits >> 52) as i32 - 1023, bits & ((1 << 52) - 1));
        let up = match mode {
            RoundMode::Up => fraction != 0,
            RoundMode::Down => false,
            RoundMode::Nearest => fraction >= 1 << 51,
        };
        let code = exponent + self.bias + i32::from(up);
        match u8::try_from(code) {
            Ok(code) if code <= self.largest => code,
            _ if saturate || (mode == RoundMode::Down && magnitude < 2.0 * largest) => self.largest,
            _ => nan,
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
        for dtype in DType::all().filter(|dtype| dtype.is_short_float()) {
            let format = ShortFloat::of(dtype).unwrap();
            let codes = if dtype.bits() == 8 { 255 } else { (1 << dtype.bits()) - 1 };
            for code in 0..=codes {
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
            let format = ShortFloat::of(dtype).unwrap();
            assert_eq!(format.decode(format.encode(1e9, true)), largest);
            assert_eq!(format.decode(format.encode(f64::NEG_INFINITY, true)), -largest);
            let beyond = format.decode(format.encode(1e9, false));
            assert!(if dtype == DType::F8E5M2 { beyond == f64::INFINITY } else { beyond.is_nan() });
        }
        for (dtype, largest) in [(DType::F4E2M1, 6.0), (DType::F6E2M3, 7.5), (DType::F6E3M2, 28.0)] {
            let format = ShortFloat::of(dtype).unwrap();
            assert_eq!(format.decode(format.encode(f64::NEG_INFINITY, false)), -largest, "{dtype}");
            assert_eq!(format.decode(format.encode(f64::NAN, true)).to_bits(), (-0.0f64).to_bits());
        }
    }

    #[test]
    fn halves_go_to_even() {
        let format = ShortFloat::of(DType::F8E4M3FN).unwrap();
        assert_eq!(format.decode(format.encode(1.0625, true)), 1.0);
        assert_eq!(format.decode(format.encode(1.1875, true)), 1.25);
        assert_eq!(format.decode(format.encode(464.0, false)), 448.0);
        assert!(format.decode(format.encode(465.0, false)).is_nan());
        // Half of the smallest subnormal.
        assert_eq!(format.encode(2f64.powi(-10), true), 0);
        assert_eq!(ShortFloat::of(DType::F8E4M3FNUZ).unwrap().encode(-1e-9, true), 0);
        let format = ShortFloat::of(DType::F4E2M1).unwrap();
        let rounded = [0.25, 0.75, 1.75, 2.5, 5.0].map(|v| format.decode(format.encode(v, true)));
        assert_eq!(rounded, [0.0, 1.0, 2.0, 2.0, 4.0]);
    }

    #[test]
    fn powers_round_as_asked() {
        let format = ShortFloat::of(DType::F8E8M0).unwrap();
        let round = |v: f64, mode| format.decode(format.encode_power(v, true, mode));
        assert_eq!([1.1, 1.5, 2.0].map(|v| round(v, RoundMode::Up)), [2.0, 2.0, 2.0]);
        assert_eq!([1.1, 1.5, 1.9].map(|v| round(v, RoundMode::Down)), [1.0, 1.0, 1.0]);
        assert_eq!([1.1, 1.5, 2.9].map(|v| round(v, RoundMode::Nearest)), [1.0, 2.0, 2.0]);
        let largest = 2f64.powi(127);
        assert_eq!([0.0, f64::INFINITY].map(|v| round(v, RoundMode::Up)), [2f64.powi(-127), largest]);
        for beyond in [0.0, f64::INFINITY, 1.5 * largest] {
            assert_eq!(format.encode_power(beyond, false, RoundMode::Nearest), 0xff, "{beyond}");
        }
        assert_eq!(format.encode_power(1.5 * largest, false, RoundMode::Down), 0xfe);
        assert_eq!(format.encode_power(1.5 * largest, true, RoundMode::Up), 0xfe);
    }
}
