//! `Compress`: the slices along `axis` (or, without it, the elements) for which a condition holds.
//!
//! **Shapes**: `x: [a…, n, b…]`, `condition: [m]` → `[a…, k, b…]` with `k` the number of true entries. Slices behind the
//! end of the condition are left out.
//!
//! **Dtypes**: `x` all, strings too; `condition` bool.
//!
//! **Opsets**: 9, 11 (negative axes).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Compress.html>

use super::take;
use crate::ops::movement::element_count;
use crate::ops::util::{arity, expect_dtype, known_attrs, normalize_axis, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `Compress`: operands input, condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Compress {
    /// Axis whose slices are taken; without it, elements.
    pub axis: Option<i64>,
}

impl OpDef for Compress {
    const NAMES: &'static [&'static str] = &["Compress"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis"])?;
        Ok(Compress { axis: attrs.get("axis").map(|_| attrs.required_int("axis")).transpose()? })
    }
    fn name(&self) -> &'static str {
        "Compress"
    }
    fn attrs(&self) -> Attrs {
        self.axis.map_or_else(Attrs::new, |axis| Attrs::new().with("axis", Attr::Int(axis)))
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (data, condition) = (required(inputs, 0, "input")?, required(inputs, 1, "condition")?);
        expect_dtype(1, condition.dtype(), "bool", |d| d == DType::Bool)?;
        if condition.rank() != 1 {
            return Err(OpError::Shape(format!("the condition is {}, expected one dim", condition.ty)));
        }
        let count = match &condition.constant {
            Some(condition) => Dim::from(condition.bytes().iter().filter(|&&byte| byte != 0).count()),
            None => cx.fresh(),
        };
        let shape = match self.axis {
            None => vec![count],
            Some(axis) => {
                let mut shape = data.shape().to_vec();
                shape[normalize_axis(axis, data.rank())?] = count;
                shape
            }
        };
        Ok(vec![Fact::of_type(data.dtype(), shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, condition) =
            (required_tensor(inputs, 0, "input")?, required_tensor(inputs, 1, "condition")?);
        expect_dtype(1, condition.dtype(), "bool", |d| d == DType::Bool)?;
        let flat;
        let (data, axis) = match self.axis {
            Some(axis) => (data, normalize_axis(axis, data.rank())?),
            None => {
                flat = data.reshaped(&[data.len()]).map_err(|e| OpError::Shape(e.to_string()))?;
                (&flat, 0)
            }
        };
        let dim = data.shape()[axis];
        let set = condition.bytes().iter().enumerate().filter(|(_, byte)| **byte != 0);
        let chosen: Vec<usize> = set.map(|(at, _)| at).collect();
        if let Some(&beyond) = chosen.last().filter(|&&at| at >= dim) {
            return Err(OpError::Value(format!(
                "the condition holds at {beyond}, which is out of range for an axis of {dim}"
            )));
        }
        let (outer, block) =
            (element_count(&data.shape()[..axis])?, element_count(&data.shape()[axis + 1..])?);
        let mut shape = data.shape().to_vec();
        shape[axis] = chosen.len();
        // With blocks of nothing there may be more of them than there is memory for.
        let places = match element_count(&shape)? {
            0 => Vec::new(),
            _ => (0..outer).flat_map(|o| chosen.iter().map(move |at| (o * dim + at) * block)).collect(),
        };
        Ok(vec![take(data, &shape, places, block)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, plain, with};

    #[test]
    fn takes_slices_and_elements() {
        let data = Tensor::from_vec(&[3, 2], (0..6).collect::<Vec<i32>>());
        let condition = Tensor::from_bools(&[3], &[false, true, true]);
        let rows = with("Compress", Attrs::new().with("axis", Attr::Int(0)));
        assert_eq!(eval(&rows, &[&data, &condition]).unwrap(), Tensor::from_vec(&[2, 2], vec![2, 3, 4, 5]));
        let columns = with("Compress", Attrs::new().with("axis", Attr::Int(-1)));
        assert!(eval(&columns, &[&data, &condition]).is_err());
        let short = Tensor::from_bools(&[1], &[true]);
        assert_eq!(eval(&columns, &[&data, &short]).unwrap(), Tensor::from_vec(&[3, 1], vec![0, 2, 4]));
        assert_eq!(
            eval(&plain("Compress"), &[&data, &condition]).unwrap(),
            Tensor::from_vec(&[2], vec![1, 2])
        );
    }

    #[test]
    fn the_count_is_known_of_constants_only() {
        let data = fact(DType::F32, &["n", "4"]);
        let rows = with("Compress", Attrs::new().with("axis", Attr::Int(0)));
        assert_eq!(inferred(&rows, &[&data, &fact(DType::Bool, &["n"])]), "f32[node.0,4]");
        let known = Fact::of_constant(Tensor::from_bools(&[2], &[true, false]));
        assert_eq!(inferred(&rows, &[&data, &known]), "f32[1,4]");
    }
}
