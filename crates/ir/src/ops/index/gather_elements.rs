//! `GatherElements`: `y[i…, j, k…] = x[i…, indices[i…, j, k…], k…]`, with `j` along `axis`.
//!
//! **Shapes**: `x` and `indices` of one rank → that of `indices`, which apart from `axis` is at most that of `x`.
//! Negative indices count from the end.
//!
//! **Dtypes**: `x` all, strings too; `indices` i32 or i64.
//!
//! **Opsets**: 11, 13 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__GatherElements.html>

use super::{check_ranks, places_along, take};
use crate::ops::util::{arity, expect_dtype, known_attrs, normalize_axis, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// `GatherElements`: operands data, indices.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherElements {
    /// Axis that is indexed.
    pub axis: i64,
}

impl OpDef for GatherElements {
    const NAMES: &'static [&'static str] = &["GatherElements"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis"])?;
        Ok(GatherElements { axis: attrs.int("axis", 0)? })
    }
    fn name(&self) -> &'static str {
        "GatherElements"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (data, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        expect_dtype(1, indices.dtype(), "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
        check_ranks(data.rank(), indices.rank())?;
        normalize_axis(self.axis, data.rank())?;
        Ok(vec![Fact::of_type(data.dtype(), indices.shape())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (required_tensor(inputs, 0, "data")?, required_tensor(inputs, 1, "indices")?);
        let axis = normalize_axis(self.axis, data.rank())?;
        let places = places_along(data.shape(), indices, axis)?;
        Ok(vec![take(data, indices.shape(), places, 1)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, with};

    #[test]
    fn takes_elements_along_an_axis() {
        let data = Tensor::from_vec(&[3, 2], (0..6).collect::<Vec<i16>>());
        let indices = Tensor::from_vec(&[1, 2], vec![-1i32, 1]);
        let op = with("GatherElements", Attrs::new());
        assert_eq!(eval(&op, &[&data, &indices]).unwrap(), Tensor::from_vec(&[1, 2], vec![4i16, 3]));
        let across = with("GatherElements", Attrs::new().with("axis", Attr::Int(-1)));
        let indices = Tensor::from_vec(&[2, 3], vec![1i64, 0, 0, 0, 1, 1]);
        assert_eq!(
            eval(&across, &[&data, &indices]).unwrap(),
            Tensor::from_vec(&[2, 3], vec![1i16, 0, 0, 2, 3, 3])
        );
        assert!(eval(&op, &[&data, &Tensor::from_vec(&[1, 1], vec![3i64])]).is_err());
        assert!(eval(&op, &[&data, &Tensor::from_vec(&[1, 3], vec![0i64; 3])]).is_err());
        assert!(eval(&op, &[&data, &Tensor::from_vec(&[1, 1], vec![i64::MIN])]).is_err());
    }

    #[test]
    fn has_the_shape_of_the_indices() {
        let op = with("GatherElements", Attrs::new());
        let (data, indices) = (fact(DType::C64, &["n", "4"]), fact(DType::I64, &["k", "2"]));
        assert_eq!(inferred(&op, &[&data, &indices]), "c64[k,2]");
        assert!(inferred(&op, &[&data, &fact(DType::I64, &["k"])]).contains("rank"));
    }
}
