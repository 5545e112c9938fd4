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
        f16::from_f64(value)
    }
    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }
    fn from_i64(value: i64) -> Self {
        f16::from_f64(value as f64)
    }
    fn to_i64(self) -> i64 {
        f16::to_f64(self) as i64
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
    fn from_f64(value: f64) -> Self {
        bf16::from_f64(value)
    }
    fn to_f64(self) -> f64 {
        bf16::to_f64(self)
    }
    fn from_i64(value: i64) -> Self {
        bf16::from_f64(value as f64)
    }
    fn to_i64(self) -> i64 {
        bf16::to_f64(self) as i64
    }
}
