//! `com.microsoft.Inverse`: the inverses of square matrices `[…, n, n]`, by Gauss–Jordan elimination with partial pivoting.
//!
//! **Dtypes**: f16, bf16, f32, f64, computed in f64 and rounded once.
//!
//! **Source**: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Inverse>

use super::dense::is_real;
use super::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// `com.microsoft.Inverse`: operand the matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Inverse;

impl OpDef for Inverse {
    const NAMES: &'static [&'static str] = &["com.microsoft.Inverse"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Inverse)
    }

    fn name(&self) -> &'static str {
        "com.microsoft.Inverse"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        let [.., rows, columns] = x.shape() else {
            return Err(OpError::Shape(format!("X is {}, expected square matrices", x.ty)));
        };
        cx.require_equal(rows, columns)?;
        Ok(vec![Fact::of_type(x.dtype(), x.shape())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        let &[.., size, columns] = x.shape() else {
            return Err(OpError::Shape(format!("X has shape {:?}, expected square matrices", x.shape())));
        };
        if size != columns {
            return Err(OpError::Shape(format!("a matrix of {size} rows and {columns} columns")));
        }
        let mut values = x.to_f64s();
        for matrix in values.chunks_mut((size * size).max(1)) {
            let inverse = inverse(matrix, size)?;
            matrix.copy_from_slice(&inverse);
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)])
    }
}

/// The inverse of a row-major matrix, which is used up.
fn inverse(matrix: &mut [f64], size: usize) -> Result<Vec<f64>, OpError> {
    let mut result = vec![0.0; size * size];
    result.iter_mut().step_by(size + 1).for_each(|value| *value = 1.0);
    for column in 0..size {
        let largest = (column..size)
            .max_by(|&a, &b| matrix[a * size + column].abs().total_cmp(&matrix[b * size + column].abs()));
        let pivot = largest.filter(|&row| matrix[row * size + column] != 0.0);
        let pivot = pivot.ok_or_else(|| OpError::Value("a matrix has no inverse".to_owned()))?;
        for side in [&mut *matrix, &mut result] {
            for at in 0..size {
                side.swap(column * size + at, pivot * size + at);
            }
        }
        let scale = 1.0 / matrix[column * size + column];
        for side in [&mut *matrix, &mut result] {
            side[column * size..(column + 1) * size].iter_mut().for_each(|value| *value *= scale);
        }
        for row in (0..size).filter(|&row| row != column) {
            let factor = matrix[row * size + column];
            for side in [&mut *matrix, &mut result] {
                for at in 0..size {
                    side[row * size + at] -= factor * side[column * size + at];
                }
            }
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, inferred, plain};
    use super::*;
    use rabot_tensor::DType;

    #[test]
    fn products_with_inverses_are_one() {
        let values = vec![0f64, 2.0, 1.0, 1.0, -1.0, 3.0, 4.0, 0.5, 2.0];
        let x = Tensor::from_vec(&[1, 3, 3], values.clone());
        let inverse = eval(&plain("com.microsoft.Inverse"), &[&x]).unwrap().to_f64s();
        for row in 0..3 {
            for column in 0..3 {
                let sum: f64 = (0..3).map(|k| values[row * 3 + k] * inverse[k * 3 + column]).sum();
                assert!((sum - f64::from(row == column)).abs() < 1e-12, "{row} {column}: {sum}");
            }
        }
    }

    #[test]
    fn what_has_no_inverse_is_refused() {
        let op = plain("com.microsoft.Inverse");
        assert!(eval(&op, &[&Tensor::zeros(DType::F32, &[2, 2])]).is_err());
        assert!(eval(&op, &[&Tensor::zeros(DType::F32, &[2, 3])]).is_err());
        assert_eq!(eval(&op, &[&Tensor::zeros(DType::F32, &[3, 0, 0])]).unwrap().shape(), [3, 0, 0]);
        assert!(inferred(&op, &[&fact(DType::F32, &["2", "3"])]).contains("must equal"));
    }
}
