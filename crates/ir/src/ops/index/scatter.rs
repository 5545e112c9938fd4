//! `ScatterElements`: a copy of `data` with `y[i…, indices[i…, j, k…], k…] = updates[i…, j, k…]`, `j` along `axis`.
//!
//! With a `reduction` the element there is combined with the updates instead: floats in f64, rounded once; integers
//! wrap; of bools `add` and `max` are "or", `mul` and `min` "and".
//!
//! **Shapes**: `data` and `indices` of one rank, `updates` of the shape of `indices` → that of `data`. Negative indices
//! count from the end.
//!
//! **Dtypes**: `data` all, strings too (reductions: numbers and bool); `indices` i32 or i64.
//!
//! **Opsets**: 11, 13 (bf16), 16 (`reduction`), 18 (`max`, `min`); `Scatter` 9 is the same without reductions.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>

use super::update::{Reduction, write};
use super::{check_ranks, places_along};
use crate::ops::elementwise::same_dtype;
use crate::ops::util::{arity, expect_dtype, known_attrs, normalize_axis, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// `ScatterElements`: operands data, indices, updates.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterElements {
    /// Axis that is indexed.
    pub axis: i64,
    /// What becomes of the elements there.
    pub reduction: Reduction,
}

impl OpDef for ScatterElements {
    const NAMES: &'static [&'static str] = &["ScatterElements"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "reduction"])?;
        Ok(ScatterElements { axis: attrs.int("axis", 0)?, reduction: Reduction::from_attrs(attrs)? })
    }
    fn name(&self) -> &'static str {
        "ScatterElements"
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().with("axis", Attr::Int(self.axis));
        self.reduction.set(&mut attrs);
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 3)?;
        let (data, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let updates = required(inputs, 2, "updates")?;
        expect_dtype(1, indices.dtype(), "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
        same_dtype(2, updates, data)?;
        self.reduction.check(data.dtype())?;
        check_ranks(data.rank(), indices.rank())?;
        check_ranks(updates.rank(), indices.rank())?;
        normalize_axis(self.axis, data.rank())?;
        for (a, b) in indices.shape().iter().zip(updates.shape()) {
            cx.require_equal(a, b)?;
        }
        Ok(vec![Fact::of_type(data.dtype(), data.shape())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (required_tensor(inputs, 0, "data")?, required_tensor(inputs, 1, "indices")?);
        let updates = required_tensor(inputs, 2, "updates")?;
        let axis = normalize_axis(self.axis, data.rank())?;
        if updates.shape() != indices.shape() {
            return Err(OpError::Shape(format!(
                "updates of shape {:?} for indices of shape {:?}",
                updates.shape(),
                indices.shape()
            )));
        }
        let places = places_along(data.shape(), indices, axis)?;
        Ok(vec![write(data, updates, (&places, 1), self.reduction)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, with};

    fn op(reduction: &str) -> crate::Op {
        let attrs =
            Attrs::new().with("axis", Attr::Int(1)).with("reduction", Attr::Str(reduction.to_owned()));
        with("ScatterElements", attrs)
    }

    #[test]
    fn writes_and_reduces() {
        let data = Tensor::from_vec(&[1, 4], vec![1f32, 2.0, 3.0, 4.0]);
        let indices = Tensor::from_vec(&[1, 3], vec![1i64, -1, 1]);
        let updates = Tensor::from_vec(&[1, 3], vec![5f32, -6.0, 7.0]);
        for (name, expected) in [
            ("none", [1f32, 7.0, 3.0, -6.0]),
            ("add", [1.0, 14.0, 3.0, -2.0]),
            ("mul", [1.0, 70.0, 3.0, -24.0]),
            ("max", [1.0, 7.0, 3.0, 4.0]),
            ("min", [1.0, 2.0, 3.0, -6.0]),
        ] {
            let y = eval(&op(name), &[&data, &indices, &updates]).unwrap();
            assert_eq!(y, Tensor::from_vec(&[1, 4], expected.to_vec()), "{name}");
        }
        let short = Tensor::from_vec(&[1, 2], vec![5f32, -6.0]);
        assert!(eval(&op("none"), &[&data, &indices, &short]).is_err());
    }

    #[test]
    fn unsigned_extremes_and_bools() {
        let indices = Tensor::from_vec(&[1, 1], vec![0i32]);
        let big = Tensor::from_vec(&[1, 1], vec![u64::MAX]);
        let one = Tensor::from_vec(&[1, 1], vec![1u64]);
        assert_eq!(eval(&op("max"), &[&one, &indices, &big]).unwrap(), big);
        assert_eq!(eval(&op("add"), &[&one, &indices, &big]).unwrap(), Tensor::from_vec(&[1, 1], vec![0u64]));
        let (yes, no) = (Tensor::from_bools(&[1, 1], &[true]), Tensor::from_bools(&[1, 1], &[false]));
        assert_eq!(eval(&op("add"), &[&yes, &indices, &yes]).unwrap(), yes);
        assert_eq!(eval(&op("mul"), &[&yes, &indices, &no]).unwrap(), no);
    }

    #[test]
    fn strings_are_not_reduced() {
        let data = fact(DType::String, &["n", "4"]);
        let indices = fact(DType::I64, &["n", "2"]);
        assert_eq!(
            inferred(&op("none"), &[&data, &indices, &fact(DType::String, &["n", "2"])]),
            "string[n,4]"
        );
        assert!(inferred(&op("add"), &[&data, &indices, &data]).contains("reduction"));
    }
}
