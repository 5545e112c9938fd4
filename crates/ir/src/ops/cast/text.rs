//! Numbers as strings and back.

use crate::ops::OpError;
use half::{bf16, f16};
use rabot_tensor::{DType, Element, Tensor};

/// The shortest text that reads back as the same value of the dtype; exponents only for the very small and large.
pub(super) fn to_strings(tensor: &Tensor) -> Vec<String> {
    let dtype = tensor.dtype();
    if let Ok(values) = tensor.to_slice::<u64>() {
        return values.iter().map(u64::to_string).collect();
    }
    if dtype.is_int() {
        return tensor.to_i64s().iter().map(i64::to_string).collect();
    }
    let text = |value: f64| match dtype {
        DType::Bool => if value != 0.0 { "True" } else { "False" }.to_owned(),
        DType::F64 => float_text(value, |exponent| written(value, exponent)),
        DType::F32 => float_text(value, |exponent| written(value as f32, exponent)),
        _ => float_text(value, |exponent| written(shortest(dtype, value), exponent)),
    };
    tensor.to_f64s().into_iter().map(text).collect()
}

fn written<T: std::fmt::Debug + std::fmt::LowerExp>(value: T, exponent: bool) -> String {
    if exponent { format!("{value:e}") } else { format!("{value:?}") }
}

/// The decimal with the fewest digits that rounds to a value of a dtype narrower than f32.
fn shortest(dtype: DType, value: f64) -> f64 {
    let round = |v: f64| match dtype {
        DType::F16 => f16::from_f64(v).to_f64(),
        DType::BF16 => <bf16 as Element>::from_f64(v).to_f64(),
        _ => Tensor::from_f64s(dtype, &[1], &[v]).to_f64s().first().copied().unwrap_or(v),
    };
    let candidates = (0..17).filter_map(|digits| format!("{value:.digits$e}").parse::<f64>().ok());
    candidates.into_iter().find(|&candidate| round(candidate) == value).unwrap_or(value)
}

/// ONNX's words for what is not finite, else the digits; the exponent has a sign and two digits, as C's and numpy's.
fn float_text(value: f64, digits: impl Fn(bool) -> String) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return digits(false);
    }
    let text = digits(true);
    match text.split_once('e') {
        None => text,
        Some((mantissa, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{mantissa}e-{exponent:0>2}"),
            None => format!("{mantissa}e+{exponent:0>2}"),
        },
    }
}

/// What the strings say, to be rounded to `to` once.
pub(super) enum Parsed {
    /// For integers; what does not fit keeps its low bits.
    Integers(Vec<i64>),
    /// For f32, which an f64 in between would round twice.
    Singles(Vec<f32>),
    /// For other floats and bool.
    Floats(Vec<f64>),
}

/// Decimal and scientific numbers; `INF`, `+INF`, `-INF` and `NaN` in any case; `True` and `False` in any case for
/// bool. An integer is also read from a decimal fraction, which is cut off.
///
/// **Errors**: a string is no such number.
pub(super) fn parse(texts: &[String], to: DType) -> Result<Parsed, OpError> {
    let refused = |text: &String| OpError::Value(format!("the string {text:?} is no {to}"));
    let float = |text: &String| text.trim().parse::<f64>().map_err(|_| refused(text));
    if to.is_int() {
        let whole = |text: &String| match text.trim().parse::<i128>() {
            Ok(value) => Ok(value as i64),
            Err(_) => match float(text)? {
                value if value.is_finite() => Ok(value as i128 as i64),
                _ => Err(refused(text)),
            },
        };
        return Ok(Parsed::Integers(texts.iter().map(whole).collect::<Result<_, _>>()?));
    }
    if to == DType::F32 {
        let single = |text: &String| text.trim().parse::<f32>().map_err(|_| refused(text));
        return Ok(Parsed::Singles(texts.iter().map(single).collect::<Result<_, _>>()?));
    }
    let value = |text: &String| match text.trim().to_ascii_lowercase().as_str() {
        "true" if to == DType::Bool => Ok(1.0),
        "false" if to == DType::Bool => Ok(0.0),
        _ => float(text),
    };
    Ok(Parsed::Floats(texts.iter().map(value).collect::<Result<_, _>>()?))
}
