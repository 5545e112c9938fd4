//! Small helpers that several operator families share.

use super::OpError;
use crate::{Attrs, Fact};
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
