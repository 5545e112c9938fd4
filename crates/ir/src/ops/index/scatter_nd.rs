//! `ScatterND`: a copy of `data` with `y[indices[j…, :], k…] = updates[j…, k…]`: the last axis of `indices` holds index
//! tuples.
//!
//! With a `reduction` the elements there are combined with the updates, as by `ScatterElements`.
//!
//! **Shapes**: `data: [n₁…nₘ, k…]`, `indices: [j…, m]`, `updates: [j…, k…]` → that of `data`. Negative indices count
//! from the end.
//!
//! **Dtypes**: `data` all, strings too (reductions: numbers and bool); `indices` i64.
//!
//! **Opsets**: 11, 13 (bf16), 16 (`reduction`), 18 (`max`, `min`).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__ScatterND.html>

use super::places_of_tuples;
use super::update::{Reduction, write};
use crate::ops::elementwise::same_dtype;
use crate::ops::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `ScatterND`: operands data, indices, updates.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterNd {
    /// What becomes of the elements there.
    pub reduction: Reduction,
}

impl OpDef for ScatterNd {
    const NAMES: &'static [&'static str] = &["ScatterND"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["reduction"])?;
        Ok(ScatterNd { reduction: Reduction::from_attrs(attrs)? })
    }
    fn name(&self) -> &'static str {
        "ScatterND"
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        self.reduction.set(&mut attrs);
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 3)?;
        let (data, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let updates = required(inputs, 2, "updates")?;
        expect_dtype(1, indices.dtype(), "i64", |d| d == DType::I64)?;
        same_dtype(2, updates, data)?;
        self.reduction.check(data.dtype())?;
        let refused = || {
            let (data, indices, updates) = (&data.ty, &indices.ty, &updates.ty);
            OpError::Shape(format!("updates {updates} at indices {indices} of data {data}"))
        };
        let (tuple, outer) = indices.shape().split_last().ok_or_else(refused)?;
        if let Some(length) = tuple.as_usize() {
            let rest = data.shape().get(length..).ok_or_else(refused)?;
            let expected: Vec<Dim> = [outer, rest].concat();
            if expected.len() != updates.rank() {
                return Err(refused());
            }
            for (a, b) in expected.iter().zip(updates.shape()) {
                cx.require_equal(a, b).map_err(|_| refused())?;
            }
        }
        Ok(vec![Fact::of_type(data.dtype(), data.shape())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (required_tensor(inputs, 0, "data")?, required_tensor(inputs, 1, "indices")?);
        let updates = required_tensor(inputs, 2, "updates")?;
        let (places, block) = places_of_tuples(data.shape(), indices, 0)?;
        Ok(vec![write(data, updates, (&places, block), self.reduction)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::ops::testing::{eval, fact, inferred, plain, with};

    #[test]
    fn writes_blocks() {
        let data = Tensor::from_vec(&[3, 2], (0..6).collect::<Vec<i64>>());
        let indices = Tensor::from_vec(&[2, 1], vec![-1i64, -1]);
        let updates = Tensor::from_vec(&[2, 2], vec![10i64, 20, 30, 40]);
        let written = eval(&plain("ScatterND"), &[&data, &indices, &updates]).unwrap();
        assert_eq!(written, Tensor::from_vec(&[3, 2], vec![0i64, 1, 2, 3, 30, 40]));
        let add = with("ScatterND", Attrs::new().with("reduction", Attr::Str("add".to_owned())));
        let sum = eval(&add, &[&data, &indices, &updates]).unwrap();
        assert_eq!(sum, Tensor::from_vec(&[3, 2], vec![0i64, 1, 2, 3, 44, 65]));
        assert!(eval(&add, &[&data, &Tensor::from_vec(&[2, 1], vec![3i64, 0]), &updates]).is_err());
    }

    #[test]
    fn updates_must_fit() {
        let data = fact(DType::F16, &["n", "4", "m"]);
        let indices = fact(DType::I64, &["k", "2"]);
        let check =
            |shape: &[&str]| inferred(&plain("ScatterND"), &[&data, &indices, &fact(DType::F16, shape)]);
        assert_eq!(check(&["k", "m"]), "f16[n,4,m]");
        assert!(check(&["k", "m", "1"]).contains("updates"));
    }
}
