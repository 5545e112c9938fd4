//! `Det`: determinants of square matrices, by elimination with row exchanges in f64.
//!
//! **Shapes**: `[b…, m, m]` → `[b…]`. **Dtypes**: f16, bf16, f32, f64.
//!
//! **Opsets**: 11, 22 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Det.html>

use crate::ops::dense::is_real;
use crate::ops::movement::{element_count, reserve};
use crate::ops::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// `Det`.
#[derive(Clone, Debug, PartialEq)]
pub struct Det;

/// Determinant of a matrix of `size` rows, which is overwritten.
fn determinant(matrix: &mut [f64], size: usize) -> f64 {
    let mut product = 1.0;
    for column in 0..size {
        let magnitude = |row: usize| matrix[row * size + column].abs();
        let pivot = (column..size).max_by(|&a, &b| magnitude(a).total_cmp(&magnitude(b))).unwrap_or(column);
        let value = matrix[pivot * size + column];
        if value == 0.0 {
            return 0.0;
        }
        if pivot != column {
            (0..size).for_each(|at| matrix.swap(pivot * size + at, column * size + at));
            product = -product;
        }
        product *= value;
        for row in column + 1..size {
            let factor = matrix[row * size + column] / value;
            for at in column + 1..size {
                matrix[row * size + at] -= factor * matrix[column * size + at];
            }
        }
    }
    product
}

impl OpDef for Det {
    const NAMES: &'static [&'static str] = &["Det"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Det)
    }
    fn name(&self) -> &'static str {
        "Det"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        let [batch @ .., rows, columns] = x.shape() else {
            return Err(OpError::Shape(format!("input 0 is {}, expected at least rank 2", x.ty)));
        };
        cx.require_equal(rows, columns)?;
        Ok(vec![Fact::of_type(x.dtype(), batch)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        let [batch @ .., rows, columns] = x.shape() else {
            return Err(OpError::Shape(format!(
                "input 0 has shape {:?}, expected at least rank 2",
                x.shape()
            )));
        };
        if rows != columns {
            return Err(OpError::Shape(format!("matrices of shape {:?} are not square", x.shape())));
        }
        let mut results: Vec<f64> = reserve(batch)?;
        if *rows == 0 {
            // The product of nothing.
            results.resize(element_count(batch)?, 1.0);
        } else {
            let mut values = x.to_f64s();
            results.extend(values.chunks_exact_mut(rows * rows).map(|matrix| determinant(matrix, *rows)));
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), batch, &results)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, plain};
    use rabot_tensor::DType;

    #[test]
    fn small_matrices() {
        let x = Tensor::from_vec(&[2, 2, 2], vec![0f32, 1.0, 2.0, 3.0, 1.0, 2.0, 2.0, 4.0]);
        assert_eq!(eval(&plain("Det"), &[&x]).unwrap(), Tensor::from_vec(&[2], vec![-2f32, 0.0]));
        let empty = Tensor::from_vec::<f64>(&[0, 0], vec![]);
        assert_eq!(eval(&plain("Det"), &[&empty]).unwrap(), Tensor::scalar(1f64));
        assert!(eval(&plain("Det"), &[&Tensor::from_vec(&[1, 2], vec![1f32, 2.0])]).is_err());
        assert_eq!(inferred(&plain("Det"), &[&fact(DType::F16, &["b", "3", "3"])]), "f16[b]");
    }
}
