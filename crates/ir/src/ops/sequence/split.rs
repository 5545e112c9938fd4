//! Between tensors and lists of their parts.

use super::{element_type, list};
use crate::ops::util::{arity, known_attrs, normalize_axis, required};
use crate::ops::{Concat, InferCx, OpDef, OpError, Slice, Squeeze, Unsqueeze};
use crate::{Attr, Attrs, Datum, Dim, Fact, UNKNOWN_DIM, ValueType};
use rabot_tensor::{DType, Tensor};

/// `SplitToSequence`: parts of a tensor along an axis.
///
/// Operands: the tensor, and the lengths of the parts (one for all of them, or a list; i32 or i64; absent means 1).
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__SplitToSequence.html>
#[derive(Clone, Debug, PartialEq)]
pub struct SplitToSequence {
    /// Axis to split.
    pub axis: i64,
    /// Where no lengths are given: if parts keep the axis.
    pub keepdims: bool,
}

impl OpDef for SplitToSequence {
    const NAMES: &'static [&'static str] = &["SplitToSequence"];
    const TAKES_DATA: bool = true;

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "keepdims"])?;
        Ok(SplitToSequence { axis: attrs.int("axis", 0)?, keepdims: attrs.int("keepdims", 1)? != 0 })
    }

    fn name(&self) -> &'static str {
        "SplitToSequence"
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("axis", Attr::Int(self.axis));
        attrs.with("keepdims", Attr::Int(self.keepdims.into()))
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 2)?;
        let fact = required(inputs, 0, "input")?;
        if !fact.ty.is_tensor() {
            return Ok(vec![Fact::of(ValueType::sequence(ValueType::unranked(fact.dtype())))]);
        }
        let mut shape = fact.shape().to_vec();
        let axis = normalize_axis(self.axis, shape.len())?;
        match inputs.get(1).copied().flatten() {
            None if self.keepdims => shape[axis] = Dim::from(1),
            None => {
                shape.remove(axis);
            }
            Some(lengths) if ![DType::I32, DType::I64].contains(&lengths.dtype()) => {
                let expected = "i32 or i64".to_owned();
                return Err(OpError::DType { slot: 1, actual: lengths.dtype(), expected });
            }
            Some(_) => shape[axis] = Dim::symbol(UNKNOWN_DIM),
        }
        let element = ValueType::new(fact.dtype(), shape).as_element();
        Ok(vec![Fact::of(ValueType::sequence(element))])
    }

    fn eval(&self, _inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Unsupported("a sequence as a tensor".to_owned()))
    }

    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let tensor = |slot: usize| inputs.get(slot).copied().flatten().and_then(Datum::tensor);
        let data = tensor(0).ok_or(OpError::MissingInput { slot: 0, name: "input" })?;
        let axis = normalize_axis(self.axis, data.rank())?;
        let length = data.shape()[axis];
        let lengths = part_lengths(tensor(1), length)?;
        let axes = Tensor::from_vec(&[1], vec![axis as i64]);
        let mut parts = Vec::with_capacity(lengths.len());
        let mut start = 0usize;
        for part in lengths {
            let bound = |at: usize| Tensor::from_vec(&[1], vec![at as i64]);
            let (first, last) = (bound(start), bound(start + part));
            let mut made = Slice.eval(&[Some(data), Some(&first), Some(&last), Some(&axes)])?;
            if tensor(1).is_none() && !self.keepdims {
                made = Squeeze.eval(&[made.first(), Some(&axes)])?;
            }
            parts.extend(made.into_iter().map(Datum::Tensor));
            start += part;
        }
        Ok(vec![Datum::sequence(parts)])
    }
}

/// Lengths of the parts of an axis. **Errors**: they do not make it up.
fn part_lengths(split: Option<&Tensor>, length: usize) -> Result<Vec<usize>, OpError> {
    let Some(split) = split else { return Ok(vec![1; length]) };
    let values = split.to_i64s();
    let wrong = || OpError::Value(format!("parts of {values:?} do not make up an axis of {length}"));
    if split.rank() == 0 {
        let part = values.first().and_then(|&part| usize::try_from(part).ok()).filter(|&part| part > 0);
        let part = part.ok_or_else(wrong)?;
        return Ok((0..length).step_by(part).map(|start| part.min(length - start)).collect());
    }
    let parts: Option<Vec<usize>> = values.iter().map(|&part| usize::try_from(part).ok()).collect();
    let parts = parts.ok_or_else(wrong)?;
    let sum = parts.iter().try_fold(0usize, |sum, &part| sum.checked_add(part));
    if sum == Some(length) { Ok(parts) } else { Err(wrong()) }
}

/// `ConcatFromSequence`: the tensors of a list, joined along an axis or along a new one.
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__ConcatFromSequence.html>
#[derive(Clone, Debug, PartialEq)]
pub struct ConcatFromSequence {
    /// Axis along which they are joined.
    pub axis: i64,
    /// True if that is a new axis.
    pub new_axis: bool,
}

impl OpDef for ConcatFromSequence {
    const NAMES: &'static [&'static str] = &["ConcatFromSequence"];
    const TAKES_DATA: bool = true;

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "new_axis"])?;
        Ok(ConcatFromSequence { axis: attrs.required_int("axis")?, new_axis: attrs.int("new_axis", 0)? != 0 })
    }

    fn name(&self) -> &'static str {
        "ConcatFromSequence"
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("axis", Attr::Int(self.axis));
        attrs.with("new_axis", Attr::Int(self.new_axis.into()))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let element = element_type(0, required(inputs, 0, "input_sequence")?)?;
        if !element.is_tensor() {
            return Ok(vec![Fact::unranked(element.dtype)]);
        }
        let rank = element.rank() + usize::from(self.new_axis);
        let axis = normalize_axis(self.axis, rank)?;
        let mut dims = element.shape.iter();
        let shape: Vec<Dim> = (0..rank)
            .map(|at| match if at == axis && self.new_axis { None } else { dims.next() } {
                Some(dim) if at != axis && dim.as_const().is_some() => dim.clone(),
                _ => cx.fresh(),
            })
            .collect();
        Ok(vec![Fact::of_type(element.dtype, shape)])
    }

    fn eval(&self, _inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Unsupported("a sequence as a tensor".to_owned()))
    }

    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let values = list(0, inputs.first().copied().flatten())?;
        let tensors: Option<Vec<&Tensor>> = values.iter().map(Datum::tensor).collect();
        let tensors = tensors.filter(|tensors| !tensors.is_empty());
        let tensors =
            tensors.ok_or_else(|| OpError::Value("the sequence has no tensors to join".to_owned()))?;
        let rank = tensors[0].rank() + usize::from(self.new_axis);
        let axis = normalize_axis(self.axis, rank)? as i64;
        let joined = if self.new_axis {
            let axes = Tensor::from_vec(&[1], vec![axis]);
            let mut parts = Vec::with_capacity(tensors.len());
            for tensor in tensors {
                parts.extend(Unsqueeze.eval(&[Some(tensor), Some(&axes)])?);
            }
            Concat { axis }.eval(&parts.iter().map(Some).collect::<Vec<_>>())?
        } else {
            Concat { axis }.eval(&tensors.into_iter().map(Some).collect::<Vec<_>>())?
        };
        Ok(joined.into_iter().map(Datum::Tensor).collect())
    }
}
