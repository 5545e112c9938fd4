//! Ops that make tensors from sizes: `ConstantOfShape`, `Range`.
//!
//! - `ConstantOfShape(shape)`: a tensor of that shape, all elements `value` (f32 0 by default).
//! - `Range(start, limit, delta)`: `start + i·delta` for `0 ≤ i < max(0, ⌈(limit - start) / delta⌉)`.
//!
//! **Dtypes**: `shape` i64, `value` any but strings; `Range` floats, i16, i32, i64.
//!
//! **Opsets**: ConstantOfShape 9 (later ones add dtypes), Range 11, 27 (f16, bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html>,
//! <https://onnx.ai/onnx/operators/onnx__Range.html>

use super::elementwise::{is_arithmetic_float, same_dtype};
use super::movement::{element_count, strided};
use super::tracked::{at_least_zero, with_elements};
use super::util::{arity, expect_dtype, expect_index_list, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::{DType, Tensor};

/// `ConstantOfShape`: operand shape (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantOfShape {
    /// One element: the value.
    pub value: Tensor,
}

impl OpDef for ConstantOfShape {
    const NAMES: &'static [&'static str] = &["ConstantOfShape"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["value"])?;
        match attrs.get("value") {
            None => Ok(ConstantOfShape { value: Tensor::from_vec(&[1], vec![0f32]) }),
            Some(Attr::Tensor(value)) if value.len() == 1 && value.dtype() != DType::String => {
                Ok(ConstantOfShape { value: value.clone() })
            }
            Some(other) => Err(OpError::Attribute {
                name: "value".to_owned(),
                value: format!("{other:?}"),
                reason: "expected a tensor of one number".to_owned(),
            }),
        }
    }
    fn name(&self) -> &'static str {
        "ConstantOfShape"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("value", Attr::Tensor(self.value.clone()))
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let target = required(inputs, 0, "input")?;
        expect_index_list(0, target)?;
        let shape: Vec<Dim> = match (target.dims(), target.shape()[0].as_usize()) {
            (Some(dims), _) => dims,
            (None, Some(rank)) if rank <= MAX_TRACKED_ELEMENTS => (0..rank).map(|_| cx.fresh()).collect(),
            _ => return Ok(vec![Fact::unranked(self.value.dtype())]),
        };
        if shape.iter().any(|dim| dim.as_const().is_some_and(|value| value < 0)) {
            return Err(OpError::Value(format!("a dim of {shape:?} is negative")));
        }
        let count = shape.iter().product::<Dim>().as_usize().filter(|&n| n <= MAX_TRACKED_ELEMENTS);
        let elements = count.and_then(|n| Some(vec![Dim::from(*self.value.to_i64s().first()?); n]));
        Ok(vec![with_elements(self.value.dtype(), shape, elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let dims = required_tensor(inputs, 0, "input")?.to_i64s();
        let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape = shape.ok_or_else(|| OpError::Value(format!("a dim of {dims:?} is negative")))?;
        Ok(vec![strided(&self.value, &shape, &vec![0; shape.len()], 0)?])
    }
}

/// `Range`: scalar operands start, limit, delta.
#[derive(Clone, Debug, PartialEq)]
pub struct Range;

/// The names of the operands.
const OPERANDS: [&str; 3] = ["start", "limit", "delta"];

/// The three operands when all are known integers or dims.
struct Limits {
    start: Dim,
    limit: Dim,
    delta: i64,
}

impl Limits {
    fn of(facts: [&Fact; 3]) -> Option<Self> {
        let scalar = |fact: &Fact| fact.dims()?.pop();
        let delta = scalar(facts[2])?.as_const()?;
        Some(Limits { start: scalar(facts[0])?, limit: scalar(facts[1])?, delta })
    }

    fn length(&self) -> Result<Dim, OpError> {
        let span = self.limit.clone() - self.start.clone();
        match self.delta {
            0 => Err(OpError::Value("the delta of Range is 0".to_owned())),
            delta if delta > 0 => Ok(at_least_zero(&span.ceil_div(&Dim::from(delta)))),
            delta => Ok(at_least_zero(&(-span).ceil_div(&Dim::from(delta.saturating_neg())))),
        }
    }
}

/// Length of a range of floats. **Errors**: it is not finite, or too long.
fn float_length(start: f64, limit: f64, delta: f64) -> Result<usize, OpError> {
    let length = ((limit - start) / delta).ceil().max(0.0);
    let refused = || OpError::Value(format!("no range goes from {start} to {limit} by {delta}"));
    // NaN is gone through `max`, so it is asked for by the operands.
    if start.is_nan() || limit.is_nan() || delta.is_nan() || delta == 0.0 || length > 1e15 {
        return Err(refused());
    }
    Ok(length as usize)
}

impl OpDef for Range {
    const NAMES: &'static [&'static str] = &["Range"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Range)
    }
    fn name(&self) -> &'static str {
        "Range"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 3)?;
        let [start, limit, delta] = OPERANDS;
        let facts = [required(inputs, 0, start)?, required(inputs, 1, limit)?, required(inputs, 2, delta)?];
        let dtype = facts[0].dtype();
        let allowed = |d| is_arithmetic_float(d) || matches!(d, DType::I16 | DType::I32 | DType::I64);
        expect_dtype(0, dtype, "a float, i16, i32 or i64", allowed)?;
        for (slot, fact) in facts.iter().enumerate() {
            same_dtype(slot, fact, facts[0])?;
            if fact.rank() > 1 || !fact.ty.elements().is(1) {
                return Err(OpError::Shape(format!("{} must be a scalar, not {}", OPERANDS[slot], fact.ty)));
            }
        }
        if let Some(limits) = Limits::of(facts) {
            let length = limits.length()?;
            let count = length.as_usize().filter(|&n| n <= MAX_TRACKED_ELEMENTS);
            let at = |i| limits.start.clone() + Dim::from(i) * Dim::from(limits.delta);
            let elements = count.map(|n| (0..n).map(at).collect());
            return Ok(vec![with_elements(dtype, vec![length], elements)]);
        }
        let scalar = |fact: &Fact| fact.constant.as_ref()?.to_f64s().first().copied();
        let length = match (scalar(facts[0]), scalar(facts[1]), scalar(facts[2])) {
            (Some(start), Some(limit), Some(delta)) => Dim::from(float_length(start, limit, delta)?),
            _ => cx.fresh(),
        };
        Ok(vec![Fact::of_type(dtype, vec![length])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let mut operands =
            [Fact::of_type(DType::F32, []), Fact::of_type(DType::F32, []), Fact::of_type(DType::F32, [])];
        for (slot, name) in OPERANDS.into_iter().enumerate() {
            let tensor = required_tensor(inputs, slot, name)?;
            if tensor.len() != 1 {
                return Err(OpError::Shape(format!("{name} must be a scalar, not {:?}", tensor.shape())));
            }
            operands[slot] = Fact::of_constant(tensor.clone());
        }
        let [start, limit, delta] = &operands;
        let dtype = start.dtype();
        if let Some(limits) = Limits::of([start, limit, delta]) {
            let length = limits.length()?.as_usize().unwrap_or(usize::MAX);
            element_count(&[length])?;
            let first = limits.start.as_const().unwrap_or(0);
            let at = |i: usize| first.wrapping_add((i as i64).wrapping_mul(limits.delta));
            return Ok(vec![Tensor::from_i64s(dtype, &[length], &(0..length).map(at).collect::<Vec<_>>())]);
        }
        let value = |fact: &Fact| {
            fact.constant.as_ref().and_then(|t| t.to_f64s().first().copied()).unwrap_or(f64::NAN)
        };
        let (start, limit, delta) = (value(start), value(limit), value(delta));
        let length = float_length(start, limit, delta)?;
        element_count(&[length])?;
        let values: Vec<f64> = (0..length).map(|i| start + i as f64 * delta).collect();
        Ok(vec![Tensor::from_f64s(dtype, &[length], &values)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, infer, inferred, list, list_fact, plain, with};
    use super::*;

    #[test]
    fn constants_of_shapes() {
        let op = with("ConstantOfShape", Attrs::new().with("value", Attr::Tensor(list(&[7]))));
        assert_eq!(eval(&op, &[&list(&[2])]).unwrap(), list(&[7, 7]));
        assert_eq!(infer(&op, &[&list_fact(&[2])]).unwrap()[0].ints(), Some(vec![7, 7]));
        assert_eq!(eval(&plain("ConstantOfShape"), &[&list(&[])]).unwrap(), Tensor::scalar(0f32));
        assert_eq!(eval(&plain("ConstantOfShape"), &[&list(&[0, 3])]).unwrap().shape(), [0, 3]);
        assert!(eval(&plain("ConstantOfShape"), &[&list(&[-1])]).is_err());
        assert!(eval(&plain("ConstantOfShape"), &[&list(&[i64::MAX, i64::MAX])]).is_err());
        let dims = Fact::of_elements(DType::I64, [Dim::from(1)], vec![Dim::symbol("n")]);
        assert_eq!(inferred(&plain("ConstantOfShape"), &[&dims]), "f32[n]");
        assert_eq!(inferred(&plain("ConstantOfShape"), &[&fact(DType::I64, &["2"])]), "f32[node.0,node.1]");
    }

    #[test]
    fn ranges() {
        let scalars = |values: [i64; 3]| values.map(Tensor::scalar);
        let range = |values| {
            let [start, limit, delta] = &scalars(values);
            eval(&plain("Range"), &[start, limit, delta])
        };
        assert_eq!(range([1, 8, 3]).unwrap(), list(&[1, 4, 7]));
        assert_eq!(range([3, -1, -2]).unwrap(), list(&[3, 1]));
        assert_eq!(range([3, 3, 1]).unwrap(), list(&[]));
        assert!(range([0, 1, 0]).is_err());
        assert!(range([i64::MIN, i64::MAX, 1]).is_err());
        let [start, limit, delta] = &[0f32, 1.0, 0.3].map(Tensor::scalar);
        let floats = eval(&plain("Range"), &[start, limit, delta]).unwrap();
        assert_eq!(floats.len(), 4);
        assert!(eval(&plain("Range"), &[start, &Tensor::scalar(f32::INFINITY), delta]).is_err());
    }

    #[test]
    fn symbolic_ranges() {
        let scalar = |dim: Dim| Fact::of_elements(DType::I64, [], vec![dim]);
        let n = Dim::symbol("n");
        let to = |start: Dim, limit: Dim, delta: i64| {
            inferred(&plain("Range"), &[&scalar(start), &scalar(limit), &scalar(Dim::from(delta))])
        };
        assert_eq!(to(Dim::from(0), n.clone(), 1), "i64[n]");
        assert_eq!(to(n.clone(), n.clone() + Dim::symbol("k"), 1), "i64[k]");
        assert_eq!(to(n.clone(), Dim::from(0), -2), "i64[floordiv(n + 1, 2)]");
        assert_eq!(to(Dim::from(1), n, 1), "i64[max(0, n - 1)]");
        let unknown = fact(DType::I64, &[]);
        let zero = scalar(Dim::from(0));
        assert_eq!(inferred(&plain("Range"), &[&zero, &unknown, &scalar(Dim::from(1))]), "i64[node.0]");
    }
}
