//! `Gather`: `y[i…, j…, k…] = x[i…, indices[j…], k…]`, with `indices` along `axis`.
//!
//! **Shapes**: `x: [a…, n, b…]`, `indices: [j…]` → `[a…, j…, b…]`. Negative indices count from the end.
//!
//! **Dtypes**: `x` all, strings too; `indices` i32 or i64.
//!
//! **Opsets**: 1, 11 (negative indices), 13 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Gather.html>

use super::movement::{Move, move_elements};
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
            outer: outer.iter().product(),
            dim,
            block: inner.iter().product(),
            indices: indices.to_i64s().into_iter().map(|i| in_range(i, dim)).collect::<Result<_, _>>()?,
        };
        let shape = [outer, indices.shape(), inner].concat();
        Ok(vec![move_elements(&shape, &[data], &moves)?])
    }
}
