//! `GatherND`: `y[b…, j…, k…] = x[b…, indices[b…, j…, :], k…]`: the last axis of `indices` holds index tuples.
//!
//! **Shapes**: `x: [b…, n₁…nₘ, k…]`, `indices: [b…, j…, m]` → `[b…, j…, k…]`, where `batch_dims` says how many axes are
//! `b…`. Negative indices count from the end. Where `m` is not known, neither is the rank of the result.
//!
//! **Dtypes**: `x` all, strings too; `indices` i64.
//!
//! **Opsets**: 11, 12 (`batch_dims`), 13 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__GatherND.html>

use super::{places_of_tuples, take};
use crate::ops::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `GatherND`: operands data, indices.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherNd {
    /// Leading axes that both operands share.
    pub batch_dims: usize,
}

impl OpDef for GatherNd {
    const NAMES: &'static [&'static str] = &["GatherND"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["batch_dims"])?;
        let value = attrs.int("batch_dims", 0)?;
        let batch_dims = usize::try_from(value).map_err(|_| OpError::Attribute {
            name: "batch_dims".to_owned(),
            value: value.to_string(),
            reason: "expected a number of axes".to_owned(),
        })?;
        Ok(GatherNd { batch_dims })
    }
    fn name(&self) -> &'static str {
        "GatherND"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("batch_dims", Attr::Int(self.batch_dims as i64))
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (data, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        expect_dtype(1, indices.dtype(), "i64", |d| d == DType::I64)?;
        let batch = self.batch_dims;
        let refused = || {
            OpError::Shape(format!("indices {} into data {} with batch_dims = {batch}", indices.ty, data.ty))
        };
        let (tuple, outer) = indices.shape().split_last().ok_or_else(refused)?;
        if batch > outer.len() || batch >= data.rank() {
            return Err(refused());
        }
        for (a, b) in data.shape()[..batch].iter().zip(outer) {
            cx.require_equal(a, b)?;
        }
        let Some(length) = tuple.as_usize() else { return Ok(vec![Fact::unranked(data.dtype())]) };
        let end = batch.checked_add(length).filter(|_| length > 0);
        let rest = end.and_then(|end| data.shape().get(end..)).ok_or_else(refused)?;
        let shape: Vec<Dim> = [outer, rest].concat();
        Ok(vec![Fact::of_type(data.dtype(), shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (required_tensor(inputs, 0, "data")?, required_tensor(inputs, 1, "indices")?);
        let (places, block) = places_of_tuples(data.shape(), indices, self.batch_dims)?;
        let outer = indices.rank() - 1;
        let end = self.batch_dims + indices.shape()[outer];
        let shape = [&indices.shape()[..outer], &data.shape()[end..]].concat();
        Ok(vec![take(data, &shape, places, block)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, plain, with};

    fn batched(count: i64) -> crate::Op {
        with("GatherND", Attrs::new().with("batch_dims", Attr::Int(count)))
    }

    #[test]
    fn takes_blocks_and_elements() {
        let data = Tensor::from_vec(&[2, 2, 2], (0..8).collect::<Vec<i32>>());
        let rows = Tensor::from_vec(&[2, 2], vec![0i64, 1, -1, 0]);
        let taken = eval(&plain("GatherND"), &[&data, &rows]).unwrap();
        assert_eq!(taken, Tensor::from_vec(&[2, 2], vec![2, 3, 4, 5]));
        let one = Tensor::from_vec(&[3], vec![1i64, 1, 0]);
        assert_eq!(eval(&plain("GatherND"), &[&data, &one]).unwrap(), Tensor::scalar(6i32));
        let each = Tensor::from_vec(&[2, 1], vec![1i64, 0]);
        assert_eq!(eval(&batched(1), &[&data, &each]).unwrap(), Tensor::from_vec(&[2, 2], vec![2, 3, 4, 5]));
        assert!(eval(&plain("GatherND"), &[&data, &Tensor::from_vec(&[1], vec![2i64])]).is_err());
        assert!(eval(&plain("GatherND"), &[&data, &Tensor::from_vec(&[4], vec![0i64; 4])]).is_err());
    }

    #[test]
    fn infers_shapes() {
        let data = fact(DType::F32, &["n", "8", "m"]);
        assert_eq!(inferred(&batched(1), &[&data, &fact(DType::I64, &["n", "k", "1"])]), "f32[n,k,m]");
        assert_eq!(inferred(&batched(0), &[&data, &fact(DType::I64, &["k", "t"])]), "f32[*]");
        assert!(inferred(&batched(0), &[&data, &fact(DType::I64, &["4"])]).contains("batch_dims = 0"));
    }
}
