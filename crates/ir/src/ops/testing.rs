//! What unit tests of ops share.

use super::{InferCx, Op, OpError};
use crate::{Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// The op named `name` without attributes.
pub(super) fn plain(name: &str) -> Op {
    with(name, Attrs::new())
}

/// The op named `name`; its attributes must give it back.
pub(super) fn with(name: &str, attrs: Attrs) -> Op {
    let op = Op::from_attrs(name, &attrs).expect("a known op").expect("good attributes");
    assert_eq!(Op::from_attrs(op.name(), &op.attrs()), Some(Ok(op.clone())), "attributes round-trip");
    op
}

/// Facts of all outputs, for operands that are all present.
pub(super) fn infer(op: &Op, facts: &[&Fact]) -> Result<Vec<Fact>, OpError> {
    let facts: Vec<Option<&Fact>> = facts.iter().map(|&f| Some(f)).collect();
    op.infer(&facts, &mut InferCx::new("node"))
}

/// The type of the first output as text, or the error.
pub(super) fn inferred(op: &Op, facts: &[&Fact]) -> String {
    infer(op, facts).map_or_else(|error| error.to_string(), |facts| facts[0].ty.to_string())
}

/// The first output, for operands that are all present.
pub(super) fn eval(op: &Op, tensors: &[&Tensor]) -> Result<Tensor, OpError> {
    let tensors: Vec<Option<&Tensor>> = tensors.iter().map(|&t| Some(t)).collect();
    op.eval(&tensors).map(|mut outputs| outputs.remove(0))
}

/// A constant list of 64-bit integers.
pub(super) fn list(values: &[i64]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

/// A fact of that list.
pub(super) fn list_fact(values: &[i64]) -> Fact {
    Fact::of_constant(list(values))
}

/// A fact whose dims are numbers, or symbols by name.
pub(super) fn fact(dtype: DType, shape: &[&str]) -> Fact {
    let dim = |text: &&str| text.parse::<i64>().map_or_else(|_| Dim::symbol(*text), Dim::from);
    Fact::of_type(dtype, shape.iter().map(dim).collect::<Vec<_>>())
}
