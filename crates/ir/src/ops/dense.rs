//! Helpers of the families that compute on dense arrays: contractions, pools, reductions, norms.

use super::{InferCx, OpDef, OpError};
use crate::{Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// True for the float types that arithmetic is defined on; 8-bit floats only store.
pub(super) fn is_real(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

/// True for 32- and 64-bit integers.
pub(super) fn is_wide_int(dtype: DType) -> bool {
    matches!(dtype, DType::I32 | DType::I64 | DType::U32 | DType::U64)
}

/// Checks that an operand has the dtype of another one.
pub(super) fn same_dtype(slot: usize, actual: DType, expected: DType) -> Result<(), OpError> {
    super::util::expect_dtype(slot, actual, expected.name(), |dtype| dtype == expected)
}

/// Dtype and shape of an op's only output on these operands, checked as inference checks them.
///
/// **Errors**: as `infer`, and dims that the values do not tell.
pub(super) fn output_type(
    op: &impl OpDef,
    inputs: &[Option<&Tensor>],
) -> Result<(DType, Vec<usize>), OpError> {
    let facts: Vec<Option<Fact>> =
        inputs.iter().map(|i| i.map(|tensor| Fact::of_constant(tensor.clone()))).collect();
    let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
    let outputs = op.infer(&facts, &mut InferCx::new(""))?;
    let fact = outputs.first().ok_or_else(|| OpError::Shape("no output".to_owned()))?;
    let shape = fact.ty.static_shape();
    let shape = shape.ok_or_else(|| OpError::Shape(format!("cannot make a result of type {}", fact.ty)))?;
    Ok((fact.dtype(), shape))
}

/// An array of the given shape.
///
/// **Errors**: memory does not suffice; sizes may come from data.
pub(super) fn filled<T: Clone>(shape: &[usize], value: T) -> Result<Vec<T>, OpError> {
    let too_large = || OpError::Value(format!("a result of shape {shape:?} does not fit in memory"));
    let len = match shape.contains(&0) {
        true => 0,
        false => shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(too_large)?,
    };
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| too_large())?;
    values.resize(len, value);
    Ok(values)
}

/// Requires that `shape` broadcasts to `target` without changing it (ONNX's unidirectional broadcasting).
///
/// **Errors**: more dims, or a known dim that is neither 1 nor that of the target.
pub(super) fn require_broadcast_to(
    cx: &mut InferCx,
    name: &str,
    shape: &[Dim],
    target: &[Dim],
) -> Result<(), OpError> {
    let refused = || OpError::Shape(format!("{name} {shape:?} does not broadcast to {target:?}"));
    if shape.len() > target.len() {
        return Err(refused());
    }
    for (dim, wanted) in shape.iter().rev().zip(target.iter().rev()) {
        if !dim.is(1) {
            cx.require_equal(dim, wanted).map_err(|_| refused())?;
        }
    }
    Ok(())
}

/// Strides in elements with which an array of `shape` is read as one of the shape `target`; 0 where it is
/// repeated.
pub(super) fn broadcast_strides(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; target.len()];
    let mut step = 1;
    for (&dim, stride) in shape.iter().rev().zip(strides.iter_mut().rev()) {
        *stride = if dim == 1 { 0 } else { step };
        step *= dim;
    }
    strides
}

/// Offset of the element with row-major index `index` of an array of shape `shape`, read with `strides`.
pub(super) fn strided_offset(mut index: usize, shape: &[usize], strides: &[usize]) -> usize {
    let mut offset = 0;
    for (&dim, &stride) in shape.iter().zip(strides).rev() {
        offset += index % dim * stride;
        index /= dim;
    }
    offset
}
