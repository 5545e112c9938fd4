//! Elements of constants as text: shortest decimals that read back as the same bits.

use super::lexer::escape;
use half::{bf16, f16};
use rabot_tensor::{DType, Tensor};

/// Most elements that are written out; more become a `splat` or a blob.
pub(super) const MAX_INLINE: usize = 64;

/// A tensor's contents in the four forms of the text (strings are always written out).
pub(super) fn format_tensor(tensor: &Tensor) -> String {
    if let Some(strings) = tensor.strings() {
        let quoted: Vec<String> = strings.iter().map(|s| format!("\"{}\"", escape(s, '"'))).collect();
        return format!("[{}]", quoted.join(", "));
    }
    let (dtype, size) = (tensor.dtype(), tensor.dtype().size_bytes());
    if is_inline(tensor) {
        let elements: Vec<String> = tensor.bytes().chunks(size).map(|e| format_element(dtype, e)).collect();
        return format!("[{}]", elements.join(", "));
    }
    match splat(tensor) {
        Some(element) => format!("splat({})", format_element(dtype, element)),
        None => format!("@blob(\"{}\")", hash(tensor)),
    }
}

/// True if the text holds the contents of the tensor, false if it only names them.
pub(super) fn is_self_contained(tensor: &Tensor) -> bool {
    tensor.strings().is_some() || is_inline(tensor) || splat(tensor).is_some()
}

fn is_inline(tensor: &Tensor) -> bool {
    tensor.len() <= MAX_INLINE
}

/// The bytes of the one element that all others equal.
fn splat(tensor: &Tensor) -> Option<&[u8]> {
    let mut elements = tensor.bytes().chunks(tensor.dtype().size_bytes().max(1));
    let first = elements.next()?;
    elements.all(|e| e == first).then_some(first)
}

/// Content hash as blobs are named.
pub(super) fn hash(tensor: &Tensor) -> String {
    hash_bytes(tensor.bytes())
}

/// Content hash of bytes: BLAKE3 in hex.
pub(super) fn hash_bytes(bytes: &[u8]) -> String {
    format!("blake3:{}", blake3::hash(bytes).to_hex())
}

/// A finite float as the shortest decimal that reads back as the same bits, anything else as its bits.
pub(super) fn format_f32(value: f32) -> String {
    if value.is_finite() { format!("{value:?}") } else { format!("0x{:08x}", value.to_bits()) }
}

fn format_element(dtype: DType, bytes: &[u8]) -> String {
    // Little-endian, zero-extended.
    let bits = bytes.iter().rev().fold(0u128, |bits, &b| (bits << 8) | u128::from(b));
    if dtype.is_short_float() || dtype.is_complex() {
        return format!("0x{bits:0width$x}", width = 2 * bytes.len());
    }
    let bits = bits as u64;
    let signed = |bits: u64, width: u32| ((bits << (64 - width)) as i64) >> (64 - width);
    match dtype {
        DType::F32 => format_f32(f32::from_bits(bits as u32)),
        DType::F64 => {
            let value = f64::from_bits(bits);
            if value.is_finite() { format!("{value:?}") } else { format!("0x{bits:016x}") }
        }
        DType::F16 => {
            format_half(bits as u16, f16::from_bits(bits as u16).to_f64(), |v| f16::from_f64(v).to_bits())
        }
        DType::BF16 => {
            format_half(bits as u16, bf16::from_bits(bits as u16).to_f64(), |v| bf16::from_f64(v).to_bits())
        }
        DType::I2 | DType::I4 | DType::I8 => signed(bits, 8).to_string(),
        DType::I16 => signed(bits, 16).to_string(),
        DType::I32 => signed(bits, 32).to_string(),
        DType::I64 => (bits as i64).to_string(),
        DType::U2 | DType::U4 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => bits.to_string(),
        DType::Bool => (bits != 0).to_string(),
        _ => String::new(),
    }
}

/// The decimal with fewest digits that rounds to these bits.
fn format_half(bits: u16, value: f64, round: impl Fn(f64) -> u16) -> String {
    if !value.is_finite() {
        return format!("0x{bits:04x}");
    }
    for digits in 0..17 {
        let candidate = format!("{value:.digits$e}").parse::<f64>();
        if let Ok(short) = candidate
            && round(short) == bits
        {
            return format!("{short:?}");
        }
    }
    format!("{value:?}")
}

/// One element of a list, before its dtype is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    /// A number and whether a minus stands before it.
    Number { negative: bool, text: &'a str },
    /// `true` or `false`.
    Bool(bool),
    /// A string.
    Text(String),
}

impl Scalar<'_> {
    /// The element as written, for error messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Scalar::Number { negative, text } => format!("{}{text}", if *negative { "-" } else { "" }),
            Scalar::Bool(value) => value.to_string(),
            Scalar::Text(text) => format!("{text:?}"),
        }
    }

    /// The bytes of the element in this dtype, or `None` if it is no such element.
    pub(super) fn encode(&self, dtype: DType) -> Option<Vec<u8>> {
        let Scalar::Number { negative, text } = self else {
            let Scalar::Bool(value) = self else { return None };
            return (dtype == DType::Bool).then(|| vec![u8::from(*value)]);
        };
        if dtype.is_float() || dtype.is_complex() {
            return encode_float(dtype, *negative, text);
        }
        let magnitude: i128 = text.parse().ok()?;
        let value = if *negative { -magnitude } else { magnitude };
        let (min, max) = dtype.int_range()?;
        let bytes = value.to_le_bytes();
        (value >= min && value <= max).then(|| bytes.get(..dtype.size_bytes()).map(<[u8]>::to_vec))?
    }

    /// The element as an f64; `None` for what is no finite number.
    pub(super) fn to_f64(&self) -> Option<f64> {
        let Scalar::Number { negative, text } = self else { return None };
        let value: f64 = text.parse().ok()?;
        value.is_finite().then_some(if *negative { -value } else { value })
    }

    /// The element as an integer.
    pub(super) fn to_i64(&self) -> Option<i64> {
        self.encode(DType::I64).and_then(|b| b.try_into().ok()).map(i64::from_le_bytes)
    }

    /// The element as an f32, written as a decimal or as bits.
    pub(super) fn to_f32(&self) -> Option<f32> {
        self.encode(DType::F32).and_then(|b| b.try_into().ok()).map(f32::from_le_bytes)
    }

    /// True for a number written as a float: with a point, an exponent or as bits.
    pub(super) fn is_float(&self) -> bool {
        matches!(self, Scalar::Number { text, .. } if text.contains(['.', 'e', 'E', 'x']))
    }
}

fn encode_float(dtype: DType, negative: bool, text: &str) -> Option<Vec<u8>> {
    let size = dtype.size_bytes();
    if let Some(hex) = text.strip_prefix("0x") {
        let bits = u128::from_str_radix(hex, 16).ok().filter(|_| !negative)?;
        let fits = size == 16 || bits >> (8 * size) == 0;
        return fits.then(|| bits.to_le_bytes().get(..size).map(<[u8]>::to_vec))?;
    }
    let sign = if negative { -1.0 } else { 1.0 };
    let wide: f64 = text.parse().ok()?;
    match dtype {
        DType::F32 => {
            let value: f32 = text.parse().ok()?;
            value.is_finite().then(|| (sign as f32 * value).to_le_bytes().to_vec())
        }
        DType::F64 => wide.is_finite().then(|| (sign * wide).to_le_bytes().to_vec()),
        DType::F16 => {
            let value = f16::from_f64(sign * wide);
            value.is_finite().then(|| value.to_le_bytes().to_vec())
        }
        DType::BF16 => {
            let value = bf16::from_f64(sign * wide);
            value.is_finite().then(|| value.to_le_bytes().to_vec())
        }
        // Short floats and complex numbers are written as bits only.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(dtype: DType, bytes: &[u8]) -> Option<Vec<u8>> {
        let text = format_element(dtype, bytes);
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.as_str()),
        };
        match text {
            "true" | "false" => Scalar::Bool(text == "true").encode(dtype),
            _ => Scalar::Number { negative, text }.encode(dtype),
        }
    }

    #[test]
    fn every_16_bit_float_reads_back_as_the_same_bits() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            assert_eq!(read_back(DType::F16, &bytes), Some(bytes.to_vec()), "f16 {bits:04x}");
            assert_eq!(read_back(DType::BF16, &bytes), Some(bytes.to_vec()), "bf16 {bits:04x}");
        }
    }

    #[test]
    fn special_floats_read_back_as_the_same_bits() {
        for bits in [0, 1 << 31, 1, 0x7f80_0000, 0xff80_0000, 0x7fc0_0001, 0x3dcc_cccd, 0x7f7f_ffff_u32] {
            let bytes = bits.to_le_bytes();
            assert_eq!(read_back(DType::F32, &bytes), Some(bytes.to_vec()), "{bits:08x}");
        }
        assert_eq!(format_element(DType::F32, &0x7fc0_0000_u32.to_le_bytes()), "0x7fc00000");
        assert_eq!(format_element(DType::F16, &f16::from_f64(0.1).to_le_bytes()), "0.1");
    }

    #[test]
    fn integers_are_held_to_their_range() {
        let number = |negative, text| Scalar::Number { negative, text };
        assert_eq!(number(true, "128").encode(DType::I8), Some(vec![128]));
        assert_eq!(number(false, "128").encode(DType::I8), None);
        assert_eq!(number(true, "8").encode(DType::I4), Some(vec![0xf8]));
        assert_eq!(number(false, "18446744073709551615").encode(DType::U64), Some(vec![255; 8]));
        assert_eq!(number(true, "1").encode(DType::U8), None);
        assert_eq!(number(false, "1.5").encode(DType::I32), None);
        assert_eq!(number(false, "1e39").encode(DType::F32), None);
    }
}
