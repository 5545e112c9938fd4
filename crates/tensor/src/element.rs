//! Rust types that stand for a dtype.

use crate::DType;
use half::{bf16, f16};

/// A plain Rust type stored in tensors of one dtype.
pub trait Element: bytemuck::Pod + Send + Sync + PartialOrd {
    /// The dtype this type stores.
    const DTYPE: DType;
    /// Nearest value, by `as` rules for integers and rounding to nearest for floats.
    fn from_f64(value: f64) -> Self;
    /// The value as f64 (64-bit integers may round).
    fn to_f64(self) -> f64;
    /// Wrapping conversion for integers, nearest for floats.
    fn from_i64(value: i64) -> Self;
    /// Truncating conversion.
    fn to_i64(self) -> i64;
}

macro_rules! elements {
    ($($ty:ty = $dtype:ident),*) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            fn from_f64(value: f64) -> Self { value as $ty }
            fn to_f64(self) -> f64 { self as f64 }
            fn from_i64(value: i64) -> Self { value as $ty }
            fn to_i64(self) -> i64 { self as i64 }
        }
    )*};
}
elements!(f32 = F32, f64 = F64, i8 = I8, u8 = U8, i16 = I16, u16 = U16);
elements!(i32 = I32, u32 = U32, i64 = I64, u64 = U64);

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    fn from_f64(value: f64) -> Self {
        f16::from_f32(to_odd_f32(value))
    }
    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }
    fn from_i64(value: i64) -> Self {
        Element::from_f64(value as f64)
    }
    fn to_i64(self) -> i64 {
        f16::to_f64(self) as i64
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
    fn from_f64(value: f64) -> Self {
        bf16::from_f32(to_odd_f32(value))
    }
    fn to_f64(self) -> f64 {
        bf16::to_f64(self)
    }
    fn from_i64(value: i64) -> Self {
        let magnitude = bf16_of_u64(value.unsigned_abs());
        if value < 0 { -magnitude } else { magnitude }
    }
    fn to_i64(self) -> i64 {
        bf16::to_f64(self) as i64
    }
}

/// The nearest bf16 to an integer, rounded once.
pub fn bf16_of_u64(value: u64) -> bf16 {
    // What the low 11 bits hold does not fit into an f64; one bit that is left of them says that they are not 0.
    let low = value & 0x7ff;
    let kept = (value & !0x7ff) | if low == 0 { 0 } else { 0x800 };
    Element::from_f64(if value >> 53 == 0 { value as f64 } else { kept as f64 })
}

/// The value as f32, with the last bit set where it is not exact ("round to odd").
///
/// Rounding that to a shorter type is the same as rounding the f64 there at once. `half`'s own conversions from f64
/// drop low bits or round twice, depending on the machine.
fn to_odd_f32(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || value.is_nan() {
        return nearest;
    }
    let bits = nearest.to_bits();
    // One step toward zero on the bits undoes a rounding away from zero, infinity included.
    let truncated = if f64::from(nearest).abs() > value.abs() { bits - 1 } else { bits };
    f32::from_bits(truncated | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_floats_round_once() {
        // Just above the middle of 1 and the next f16: rounding to f32 first would lose that it is above.
        let above = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(<f16 as Element>::from_f64(above).to_bits(), 0x3c01);
        assert_eq!(<f16 as Element>::from_f64(1.0 + 2f64.powi(-11)).to_bits(), 0x3c00);
        let above = 1.0 + 2f64.powi(-8) + 2f64.powi(-45);
        assert_eq!(<bf16 as Element>::from_f64(above).to_bits(), 0x3f81);
        assert_eq!(<bf16 as Element>::from_f64(-1.0 - 2f64.powi(-8)).to_bits(), 0xbf80);
        let middle = (1i64 << 62) + (1 << 54);
        assert_eq!(<bf16 as Element>::from_i64(middle), bf16::from_f32(2f32.powi(62)));
        assert_eq!(<bf16 as Element>::from_i64(-middle - 1).to_bits(), 0xde81);
    }

    #[test]
    fn extremes() {
        assert_eq!(<f16 as Element>::from_f64(65519.999), f16::MAX);
        assert_eq!(<f16 as Element>::from_f64(65520.0), f16::INFINITY);
        assert_eq!(<bf16 as Element>::from_f64(1e300), bf16::INFINITY);
        assert!(<bf16 as Element>::from_f64(f64::NAN).is_nan());
        assert_eq!(<f16 as Element>::from_f64(-1e-300).to_bits(), 0x8000);
    }
}
