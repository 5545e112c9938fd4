//! `NonZero`: the indices of the elements that are not zero, in row-major order.
//!
//! NaN is not zero; a string is zero if it is empty, a complex number if both parts are.
//!
//! **Shapes**: `x` of rank `r` → `[r, k]` with `k` the number of such elements.
//!
//! **Dtypes**: `x` all, strings too; the result is i64.
//!
//! **Opsets**: 9, 13 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__NonZero.html>

use crate::ops::util::{arity, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `NonZero`.
#[derive(Clone, Debug, PartialEq)]
pub struct NonZero;

/// Offsets of the elements that are not zero.
fn offsets(x: &Tensor) -> Vec<usize> {
    let set =
        |flags: Vec<bool>| flags.iter().enumerate().filter(|(_, set)| **set).map(|(at, _)| at).collect();
    if let Some(strings) = x.strings() {
        return set(strings.iter().map(|s| !s.is_empty()).collect());
    }
    if let Some(parts) = x.parts() {
        return set(parts.to_f64s().chunks_exact(2).map(|part| part.iter().any(|&v| v != 0.0)).collect());
    }
    if x.dtype().is_float() {
        return set(x.to_f64s().iter().map(|&v| v != 0.0).collect());
    }
    set(x.to_i64s().iter().map(|&v| v != 0).collect())
}

impl OpDef for NonZero {
    const NAMES: &'static [&'static str] = &["NonZero"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(NonZero)
    }
    fn name(&self) -> &'static str {
        "NonZero"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        let count = match &x.constant {
            Some(x) => Dim::from(offsets(x).len()),
            None => cx.fresh(),
        };
        Ok(vec![Fact::of_type(DType::I64, vec![Dim::from(x.rank()), count])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        let offsets = offsets(x);
        let mut indices = Vec::with_capacity(x.rank() * offsets.len());
        for (stride, &dim) in x.strides().iter().zip(x.shape()) {
            indices.extend(offsets.iter().map(|at| (at / stride % dim) as i64));
        }
        Ok(vec![Tensor::from_vec(&[x.rank(), offsets.len()], indices)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, plain};

    #[test]
    fn indices_in_order() {
        let x = Tensor::from_vec(&[2, 3], vec![0f32, -0.0, 2.0, f32::NAN, 0.0, 5.0]);
        let indices = eval(&plain("NonZero"), &[&x]).unwrap();
        assert_eq!(indices, Tensor::from_vec(&[2, 3], vec![0i64, 1, 1, 2, 0, 2]));
        assert_eq!(eval(&plain("NonZero"), &[&Tensor::scalar(3i8)]).unwrap().shape(), [0, 1]);
        let words = Tensor::from_strings(&[2], vec![String::new(), "a".into()]);
        assert_eq!(eval(&plain("NonZero"), &[&words]).unwrap(), Tensor::from_vec(&[1, 1], vec![1i64]));
        let none = Tensor::from_vec::<i64>(&[0, 4], vec![]);
        assert_eq!(eval(&plain("NonZero"), &[&none]).unwrap().shape(), [2, 0]);
    }

    #[test]
    fn the_count_comes_with_the_data() {
        assert_eq!(inferred(&plain("NonZero"), &[&fact(DType::Bool, &["n", "m"])]), "i64[2,node.0]");
    }
}
