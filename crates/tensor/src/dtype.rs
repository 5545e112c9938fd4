//! Element types.

use std::fmt;
use std::str::FromStr;

/// Element type of a tensor; names follow ONNX, the text form is the short one (`f32`, `i8`).
///
/// **Source**: ONNX `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    BF16,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities.
    F8E4M3FN,
    /// As [`DType::F8E4M3FN`], with one zero and one NaN.
    F8E4M3FNUZ,
    /// 8-bit float, 5 exponent and 2 mantissa bits.
    F8E5M2,
    /// As [`DType::F8E5M2`], with one zero and one NaN.
    F8E5M2FNUZ,
    /// 8 exponent bits and nothing else: powers of two and NaN, no zero, no sign. For scales.
    F8E8M0,
    /// 6-bit float, 2 exponent and 3 mantissa bits, no infinities, no NaN; stored one element a byte.
    F6E2M3,
    /// 6-bit float, 3 exponent and 2 mantissa bits, no infinities, no NaN; stored one element a byte.
    F6E3M2,
    /// 4-bit float, 2 exponent and 1 mantissa bit, no infinities, no NaN; stored one element a byte, in the low half.
    F4E2M1,
    /// Two f32: real and imaginary part. Elements are moved, compared and selected, not computed with.
    C64,
    /// Two f64: real and imaginary part. Elements are moved, compared and selected, not computed with.
    C128,
    /// Signed 2-bit integer; stored one element a byte.
    I2,
    /// Unsigned 2-bit integer; stored one element a byte.
    U2,
    /// Signed 4-bit integer; stored one element a byte.
    I4,
    /// Unsigned 4-bit integer; stored one element a byte.
    U4,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// Boolean; stored as one byte, 0 or 1.
    Bool,
    /// UTF-8 string; held on the host, never in a compiled kernel.
    String,
}

const NAMES: [(DType, &str, usize); 28] = [
    (DType::F32, "f32", 4),
    (DType::F64, "f64", 8),
    (DType::F16, "f16", 2),
    (DType::BF16, "bf16", 2),
    (DType::F8E4M3FN, "f8e4m3fn", 1),
    (DType::F8E4M3FNUZ, "f8e4m3fnuz", 1),
    (DType::F8E5M2, "f8e5m2", 1),
    (DType::F8E5M2FNUZ, "f8e5m2fnuz", 1),
    (DType::F8E8M0, "f8e8m0", 1),
    (DType::F6E2M3, "f6e2m3", 1),
    (DType::F6E3M2, "f6e3m2", 1),
    (DType::F4E2M1, "f4e2m1", 1),
    (DType::C64, "c64", 8),
    (DType::C128, "c128", 16),
    (DType::I2, "i2", 1),
    (DType::U2, "u2", 1),
    (DType::I4, "i4", 1),
    (DType::U4, "u4", 1),
    (DType::I8, "i8", 1),
    (DType::U8, "u8", 1),
    (DType::I16, "i16", 2),
    (DType::U16, "u16", 2),
    (DType::I32, "i32", 4),
    (DType::U32, "u32", 4),
    (DType::I64, "i64", 8),
    (DType::U64, "u64", 8),
    (DType::Bool, "bool", 1),
    (DType::String, "string", 0),
];

impl DType {
    /// Bytes one stored element takes; 0 for strings, which have no fixed size.
    pub fn size_bytes(self) -> usize {
        self.row().2
    }

    /// Bits that carry an element: less than 8 where several elements share a byte in a file. 0 for strings.
    pub fn bits(self) -> u32 {
        match self {
            DType::I2 | DType::U2 => 2,
            DType::I4 | DType::U4 | DType::F4E2M1 => 4,
            DType::F6E2M3 | DType::F6E3M2 => 6,
            _ => 8 * self.size_bytes() as u32,
        }
    }

    /// Bytes that `len` elements take in a file, where those of less than 8 bits are packed; `None` on overflow.
    pub fn packed_bytes(self, len: usize) -> Option<usize> {
        match self.bits() {
            bits @ 2..8 => len.checked_mul(bits as usize).map(|bits| bits.div_ceil(8)),
            _ => len.checked_mul(self.size_bytes()),
        }
    }

    /// Short name, as printed in `.rbt` text.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Every dtype, in declaration order.
    pub fn all() -> impl Iterator<Item = DType> {
        NAMES.iter().map(|row| row.0)
    }

    /// True for every real floating-point type, those of 4, 6 and 8 bits included.
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(self, F32 | F64 | F16 | BF16) || self.is_short_float()
    }

    /// True for floats of 4, 6 and 8 bits, which are stored as codes of one byte; see [`crate::ShortFloat`].
    pub fn is_short_float(self) -> bool {
        use DType::*;
        matches!(self, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F6E2M3 | F6E3M2 | F4E2M1)
    }

    /// True for numbers of two parts.
    pub fn is_complex(self) -> bool {
        matches!(self, DType::C64 | DType::C128)
    }

    /// True for signed and unsigned integers; false for `bool`.
    pub fn is_int(self) -> bool {
        self.is_signed_int() || self.is_unsigned_int()
    }

    /// True for `i2` to `i64`.
    pub fn is_signed_int(self) -> bool {
        use DType::*;
        matches!(self, I2 | I4 | I8 | I16 | I32 | I64)
    }

    /// True for `u2` to `u64`.
    pub fn is_unsigned_int(self) -> bool {
        use DType::*;
        matches!(self, U2 | U4 | U8 | U16 | U32 | U64)
    }

    /// Smallest and largest value of an integer type; `None` for any other.
    pub fn int_range(self) -> Option<(i128, i128)> {
        let bits = self.bits();
        if self.is_signed_int() {
            Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1))
        } else if self.is_unsigned_int() {
            Some((0, (1i128 << bits) - 1))
        } else {
            None
        }
    }

    fn row(self) -> &'static (DType, &'static str, usize) {
        // The table lists the variants in declaration order; a unit test holds it to that.
        &NAMES[self as usize]
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is no dtype name.
#[derive(Debug, thiserror::Error)]
#[error("unknown dtype `{0}`")]
pub struct ParseDTypeError(String);

impl FromStr for DType {
    type Err = ParseDTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|row| row.1 == text);
        found.map(|row| row.0).ok_or_else(|| ParseDTypeError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_follows_declaration_order() {
        for (index, row) in NAMES.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(row.1.parse::<DType>().unwrap(), row.0);
        }
    }

    #[test]
    fn ranges() {
        assert_eq!(DType::I4.int_range(), Some((-8, 7)));
        assert_eq!(DType::U8.int_range(), Some((0, 255)));
        assert_eq!(DType::I64.int_range(), Some((i64::MIN as i128, i64::MAX as i128)));
        assert_eq!(DType::I2.int_range(), Some((-2, 1)));
        assert_eq!(DType::F32.int_range(), None);
        assert_eq!(DType::U2.packed_bytes(5), Some(2));
        assert_eq!(DType::F4E2M1.packed_bytes(3), Some(2));
        assert_eq!(DType::F6E2M3.packed_bytes(3), Some(3));
        assert_eq!(DType::C128.packed_bytes(3), Some(48));
    }
}
