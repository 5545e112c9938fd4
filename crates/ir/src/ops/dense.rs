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

/// What the unit tests of the families share.
#[cfg(test)]
pub(super) mod testing {
    use crate::ops::{InferCx, Op, OpError};
    use crate::{Attr, Attrs, Dim, Fact};
    use rabot_tensor::{DType, Tensor};

    /// The op, made twice, so that `attrs` is held to give back what `from_attrs` took.
    pub fn op(name: &str, attrs: Attrs) -> Op {
        let op = Op::from_attrs(name, &attrs).expect("a known op").expect("good attributes");
        assert_eq!(Op::from_attrs(op.name(), &op.attrs()), Some(Ok(op.clone())));
        op
    }

    /// Evaluates, and holds the result to what inference says.
    pub fn eval(op: &Op, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let facts: Vec<Fact> = inputs.iter().map(|&t| Fact::of_constant(t.clone())).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Some).collect();
        let inferred = op.infer(&facts, &mut InferCx::new("n"))?;
        let operands: Vec<Option<&Tensor>> = inputs.iter().map(|&t| Some(t)).collect();
        let result = op.eval(&operands)?.remove(0);
        assert_eq!(inferred[0].ty.static_shape().as_deref(), Some(result.shape()));
        assert_eq!(inferred[0].dtype(), result.dtype());
        Ok(result)
    }

    /// Elements of the result.
    pub fn values(op: &Op, inputs: &[&Tensor]) -> Vec<f64> {
        eval(op, inputs).expect("evaluates").to_f64s()
    }

    /// A shape, and pairs of dims that must be equal.
    type Inferred = (Vec<Dim>, Vec<(Dim, Dim)>);

    /// Shape of the first output and the dims that must be equal, for f32 operands of these shapes.
    pub fn shape(op: &Op, inputs: &[Vec<Dim>]) -> Result<Inferred, OpError> {
        let facts: Vec<Fact> = inputs.iter().map(|s| Fact::of_type(DType::F32, s.clone())).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Some).collect();
        let mut cx = InferCx::new("n");
        let fact = op.infer(&facts, &mut cx)?.remove(0);
        Ok((fact.ty.shape, cx.equal))
    }

    /// An f32 tensor.
    pub fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec())
    }

    /// An f32 tensor of 1, 2, 3, ….
    pub fn counting(shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        Tensor::from_vec(shape, (1..=len).map(|v| v as f32).collect::<Vec<f32>>())
    }

    /// An attribute of integers.
    pub fn ints(values: &[i64]) -> Attr {
        Attr::Ints(values.to_vec())
    }

    /// A symbol.
    pub fn sym(name: &str) -> Dim {
        Dim::symbol(name)
    }

    /// A number.
    pub fn num(value: i64) -> Dim {
        Dim::from(value)
    }
}
