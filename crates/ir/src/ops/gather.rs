//! `Gather`: `y[i…, j…, k…] = x[i…, indices[j…], k…]`, with `indices` along `axis`.
//!
//! **Shapes**: `x: [a…, n, b…]`, `indices: [j…]` → `[a…, j…, b…]`. Negative indices count from the end.
//!
//! **Dtypes**: `x` all, strings too; `indices` i32 or i64.
//!
//! **Opsets**: 1, 11 (negative indices), 13 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Gather.html>

use super::movement::{Move, element_count, move_elements};
use super::util::{arity, expect_dtype, known_attrs, normalize_axis, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `Gather`: operands data, indices.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// Axis that is indexed.
    pub axis: i64,
}

/// An index counted from the front. **Errors**: out of range.
fn in_range(index: i64, dim: usize) -> Result<usize, OpError> {
    let signed = if index < 0 { index + dim as i64 } else { index };
    usize::try_from(signed)
        .ok()
        .filter(|&at| at < dim)
        .ok_or_else(|| OpError::Value(format!("index {index} is out of range for an axis of {dim}")))
}

/// Takes blocks of elements by index.
struct Blocks {
    outer: usize,
    dim: usize,
    block: usize,
    indices: Vec<usize>,
}

impl Move for Blocks {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        for outer in 0..self.outer {
            for index in &self.indices {
                let start = (outer * self.dim + index) * self.block;
                out.extend_from_slice(&operands[0][start..start + self.block]);
            }
        }
    }
}

impl OpDef for Gather {
    const NAMES: &'static [&'static str] = &["Gather"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis"])?;
        Ok(Gather { axis: attrs.int("axis", 0)? })
    }
    fn name(&self) -> &'static str {
        "Gather"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (data, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        expect_dtype(1, indices.dtype(), "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
        let axis = normalize_axis(self.axis, data.rank())?;
        let constant = indices.ints();
        if let (Some(indices), Some(dim)) = (&constant, data.shape()[axis].as_usize()) {
            indices.iter().try_for_each(|&index| in_range(index, dim).map(|_| ()))?;
        }
        let shape: Vec<Dim> = [&data.shape()[..axis], indices.shape(), &data.shape()[axis + 1..]].concat();
        let elements =
            data.dims().filter(|_| data.rank() == 1).zip(constant).and_then(|(elements, indices)| {
                let pick = |index| in_range(index, elements.len()).ok().map(|at| elements[at].clone());
                indices.into_iter().map(pick).collect()
            });
        Ok(vec![Fact { elements, ..Fact::of_type(data.dtype(), shape) }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (required_tensor(inputs, 0, "data")?, required_tensor(inputs, 1, "indices")?);
        let axis = normalize_axis(self.axis, data.rank())?;
        let (outer, inner) = (&data.shape()[..axis], &data.shape()[axis + 1..]);
        let dim = data.shape()[axis];
        let moves = Blocks {
            outer: element_count(outer)?,
            dim,
            block: element_count(inner)?,
            indices: indices.to_i64s().into_iter().map(|i| in_range(i, dim)).collect::<Result<_, _>>()?,
        };
        let shape = [outer, indices.shape(), inner].concat();
        Ok(vec![move_elements(&shape, &[data], &moves)?])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, infer, inferred, list, list_fact, with};
    use super::*;

    fn along(axis: i64) -> crate::Op {
        with("Gather", Gather { axis }.attrs())
    }

    #[test]
    fn takes_blocks_along_an_axis() {
        let data = Tensor::from_vec(&[2, 3], (0..6).collect::<Vec<u16>>());
        let columns = eval(&along(1), &[&data, &Tensor::from_vec(&[1, 2], vec![-1i32, 0])]).unwrap();
        assert_eq!(columns, Tensor::from_vec(&[2, 1, 2], vec![2u16, 0, 5, 3]));
        let row = eval(&along(0), &[&data, &Tensor::scalar(1i64)]).unwrap();
        assert_eq!(row, Tensor::from_vec(&[3], vec![3u16, 4, 5]));
        assert_eq!(eval(&along(0), &[&data, &list(&[])]).unwrap().shape(), [0, 3]);
        let out_of_range = eval(&along(0), &[&data, &list(&[2])]);
        assert_eq!(out_of_range, Err(OpError::Value("index 2 is out of range for an axis of 2".to_owned())));
    }

    #[test]
    fn infers_shapes_and_contents() {
        let (data, indices) = (fact(DType::F32, &["n", "8", "m"]), fact(DType::I64, &["k", "2"]));
        assert_eq!(inferred(&along(1), &[&data, &indices]), "f32[n,k,2,m]");
        assert!(inferred(&along(1), &[&data, &list_fact(&[8])]).contains("out of range"));
        assert!(infer(&along(1), &[&data, &fact(DType::F32, &["k"])]).is_err());
        let shape = Fact::of_elements(DType::I64, [Dim::from(2)], vec![Dim::symbol("n"), Dim::from(8)]);
        let picked = infer(&along(0), &[&shape, &list_fact(&[-1, 0])]).unwrap().remove(0);
        assert_eq!(picked.elements, Some(vec![Dim::from(8), Dim::symbol("n")]));
    }
}
