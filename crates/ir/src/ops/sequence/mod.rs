//! Lists of values, and values that may be none.

mod list;
mod optional;
mod split;

pub use list::{Sequence, SequenceOp};
pub use optional::{Optional, OptionalGetElement, OptionalHasElement};
pub use split::{ConcatFromSequence, SplitToSequence};

use super::{InferCx, OpError};
use crate::{Datum, Dim, Fact, Form, ValueType};
use std::sync::Arc;

/// The type of a list's elements. **Errors**: the operand is no list.
fn element_type(slot: usize, fact: &Fact) -> Result<&ValueType, OpError> {
    match &fact.ty.form {
        Form::Sequence(element) => Ok(element),
        _ => Err(OpError::Form { slot, actual: fact.ty.to_string(), expected: "a sequence" }),
    }
}

/// The type of one element: each dim that the list does not fix is a symbol of its own.
fn one_of(element: &ValueType, cx: &mut InferCx) -> ValueType {
    let dim = |dim: &Dim| if dim.as_const().is_some() { dim.clone() } else { cx.fresh() };
    ValueType { shape: element.shape.iter().map(dim).collect(), ..element.clone() }
}

/// The list. **Errors**: the operand is none.
fn list(slot: usize, datum: Option<&Datum>) -> Result<&Arc<Vec<Datum>>, OpError> {
    match datum {
        Some(Datum::Sequence(values)) => Ok(values),
        // A list that may be none, and is there.
        Some(Datum::Optional(Some(inner))) => list(slot, Some(inner)),
        Some(other) => Err(OpError::Form { slot, actual: other.to_string(), expected: "a sequence" }),
        None => Err(OpError::MissingInput { slot, name: "sequence" }),
    }
}
