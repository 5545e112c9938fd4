//! Small helpers that several operator families share.

use super::OpError;
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// The operand at `slot`, which must be present.
pub(super) fn required<'a>(
    inputs: &[Option<&'a Fact>],
    slot: usize,
    name: &'static str,
) -> Result<&'a Fact, OpError> {
    inputs.get(slot).copied().flatten().ok_or(OpError::MissingInput { slot, name })
}

/// The operand at `slot`, if present.
pub(super) fn optional<'a, T>(inputs: &[Option<&'a T>], slot: usize) -> Option<&'a T> {
    inputs.get(slot).copied().flatten()
}

/// The tensor at `slot`, which must be present.
pub(super) fn required_tensor<'a>(
    inputs: &[Option<&'a Tensor>],
    slot: usize,
    name: &'static str,
) -> Result<&'a Tensor, OpError> {
    inputs.get(slot).copied().flatten().ok_or(OpError::MissingInput { slot, name })
}

/// Checks the number of operands.
pub(super) fn arity<T>(inputs: &[T], min: usize, max: usize) -> Result<(), OpError> {
    if (min..=max).contains(&inputs.len()) {
        return Ok(());
    }
    let expected = if min == max { min.to_string() } else { format!("{min} to {max}") };
    Err(OpError::InputCount { expected, actual: inputs.len() })
}

/// Checks that an operand's dtype is one that the op takes.
pub(super) fn expect_dtype(
    slot: usize,
    actual: DType,
    expected: &str,
    allowed: impl Fn(DType) -> bool,
) -> Result<(), OpError> {
    if allowed(actual) {
        return Ok(());
    }
    Err(OpError::DType { slot, actual, expected: expected.to_owned() })
}

/// Refuses attributes that the op does not have.
pub(super) fn known_attrs(attrs: &Attrs, known: &[&str]) -> Result<(), OpError> {
    match attrs.iter().find(|(name, _)| !known.contains(name)) {
        None => Ok(()),
        Some((name, value)) => Err(OpError::Attribute {
            name: name.to_owned(),
            value: format!("{value:?}"),
            reason: "the op has no such attribute".to_owned(),
        }),
    }
}

/// `axis` counted from the front. **Errors**: not within `-rank..rank`.
pub(super) fn normalize_axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let signed = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(signed).ok().filter(|&a| a < rank).ok_or_else(|| OpError::Attribute {
        name: "axis".to_owned(),
        value: axis.to_string(),
        reason: format!("out of range for rank {rank}"),
    })
}

/// An attribute that names a dtype: ONNX's `TensorProto.DataType` code, or the short name that `.rbt` text has.
///
/// **Errors**: another kind of value, or a dtype that rabot does not have.
pub(super) fn dtype_attr(attrs: &Attrs, name: &str) -> Result<Option<DType>, OpError> {
    let refused = |value: String, reason: &str| OpError::Attribute {
        name: name.to_owned(),
        value,
        reason: reason.to_owned(),
    };
    match attrs.get(name) {
        None => Ok(None),
        Some(Attr::Str(text)) => {
            text.parse().map(Some).map_err(|_| refused(text.clone(), "there is no such dtype"))
        }
        Some(Attr::Int(code)) => {
            dtype_of_code(*code).map(Some).ok_or_else(|| refused(code.to_string(), "no dtype that rabot has"))
        }
        Some(other) => Err(refused(format!("{other:?}"), "expected a dtype")),
    }
}

/// **Source**: `TensorProto.DataType` of onnx.proto.
fn dtype_of_code(code: i64) -> Option<DType> {
    Some(match code {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        8 => DType::String,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        14 => DType::C64,
        15 => DType::C128,
        16 => DType::BF16,
        17 => DType::F8E4M3FN,
        18 => DType::F8E4M3FNUZ,
        19 => DType::F8E5M2,
        20 => DType::F8E5M2FNUZ,
        21 => DType::U4,
        22 => DType::I4,
        23 => DType::F4E2M1,
        24 => DType::F8E8M0,
        25 => DType::U2,
        26 => DType::I2,
        27 => DType::F6E2M3,
        28 => DType::F6E3M2,
        _ => return None,
    })
}

/// Checks that an operand is a list of 64-bit integers: a shape, axes, lengths of parts.
pub(super) fn expect_index_list(slot: usize, fact: &Fact) -> Result<(), OpError> {
    expect_dtype(slot, fact.dtype(), "i64", |d| d == DType::I64)?;
    match fact.rank() {
        1 => Ok(()),
        rank => Err(OpError::Shape(format!("input {slot} must be a list, but its rank is {rank}"))),
    }
}

/// Axes counted from the front, each once. **Errors**: one is out of range or given twice.
pub(super) fn normalize_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let mut seen = vec![false; rank];
    let mut normalized = Vec::with_capacity(axes.len());
    for &axis in axes {
        let axis = normalize_axis(axis, rank)?;
        if std::mem::replace(&mut seen[axis], true) {
            return Err(OpError::Value(format!("axis {axis} is given twice in {axes:?}")));
        }
        normalized.push(axis);
    }
    Ok(normalized)
}
