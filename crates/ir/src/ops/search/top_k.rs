//! `TopK`: the `k` largest or smallest elements along an axis, and their indices.
//!
//! Of equal elements the one with the lower index comes first. NaN is larger than any number, as in sorting. With
//! `sorted=0` any order is allowed; results are sorted then too.
//!
//! **Shapes**: `x: [a…, n, b…]`, one integer `k ≤ n` → twice `[a…, k, b…]`.
//!
//! **Dtypes**: `x` any number; `k` i64; indices are i64.
//!
//! **Opsets**: 1 (`k` is an attribute), 10 (an operand), 11 (`largest`, `sorted`, integers), 24 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__TopK.html>

use super::{float_order, wide_ints};
use crate::ops::elementwise::{is_arithmetic_float, is_numeric};
use crate::ops::movement::{Move, element_count, move_elements};
use crate::ops::util::{arity, expect_dtype, known_attrs, normalize_axis, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};
use std::cmp::Ordering;

/// `TopK`: operands x, k.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// Axis along which elements are compared.
    pub axis: i64,
    /// The largest elements; else the smallest.
    pub largest: bool,
    /// The results must be in order.
    pub sorted: bool,
}

/// Takes single elements.
struct Picked<'a>(&'a [usize]);

impl Move for Picked<'_> {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        out.extend(self.0.iter().map(|&at| operands[0][at].clone()));
    }
}

/// Where lines of elements are: `outer` groups of `dim` rows of `block` elements.
struct Lines {
    outer: usize,
    dim: usize,
    block: usize,
}

impl TopK {
    /// Positions along the axis of the first `k` elements of each line, in row-major order of the result.
    fn choose<T: Copy>(
        &self,
        values: &[T],
        lines: &Lines,
        k: usize,
        order: impl Fn(T, T) -> Ordering,
    ) -> Vec<usize> {
        let Lines { outer, dim, block } = *lines;
        let mut chosen = vec![0; outer * k * block];
        let mut positions: Vec<usize> = Vec::with_capacity(dim);
        for group in 0..outer {
            for column in 0..block {
                let value = |at: usize| values[(group * dim + at) * block + column];
                let compare = |&a: &usize, &b: &usize| {
                    let by_value = order(value(a), value(b));
                    (if self.largest { by_value.reverse() } else { by_value }).then(a.cmp(&b))
                };
                positions.clear();
                positions.extend(0..dim);
                if k > 0 && k < dim {
                    positions.select_nth_unstable_by(k - 1, compare);
                }
                positions.truncate(k);
                positions.sort_unstable_by(compare);
                for (rank, &at) in positions.iter().enumerate() {
                    chosen[(group * k + rank) * block + column] = at;
                }
            }
        }
        chosen
    }
}

impl OpDef for TopK {
    const NAMES: &'static [&'static str] = &["TopK"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "largest", "sorted"])?;
        Ok(TopK {
            axis: attrs.int("axis", -1)?,
            largest: attrs.int("largest", 1)? != 0,
            sorted: attrs.int("sorted", 1)? != 0,
        })
    }
    fn name(&self) -> &'static str {
        "TopK"
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().with("axis", Attr::Int(self.axis));
        for (name, set) in [("largest", self.largest), ("sorted", self.sorted)] {
            if !set {
                attrs.set(name, Attr::Int(0));
            }
        }
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (x, k) = (required(inputs, 0, "X")?, required(inputs, 1, "K")?);
        expect_dtype(0, x.dtype(), "a number", is_numeric)?;
        expect_dtype(1, k.dtype(), "i64", |d| d == DType::I64)?;
        if k.rank() > 1 || k.ty.elements().as_const().is_some_and(|count| count != 1) {
            return Err(OpError::Shape(format!("K is {}, expected one integer", k.ty)));
        }
        let axis = normalize_axis(self.axis, x.rank())?;
        let count = k.dims().and_then(|mut dims| dims.pop());
        let mut shape = x.shape().to_vec();
        if let (Some(count), Some(dim)) = (count.as_ref().and_then(Dim::as_const), shape[axis].as_const())
            && !(0..=dim).contains(&count)
        {
            return Err(OpError::Value(format!("K = {count} of an axis of {dim}")));
        }
        shape[axis] = count.unwrap_or_else(|| cx.fresh());
        Ok(vec![Fact::of_type(x.dtype(), shape.clone()), Fact::of_type(DType::I64, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, k) = (required_tensor(inputs, 0, "X")?, required_tensor(inputs, 1, "K")?);
        let axis = normalize_axis(self.axis, x.rank())?;
        let dim = x.shape()[axis];
        let count = match k.to_i64s()[..] {
            [count] => usize::try_from(count).ok().filter(|&count| count <= dim),
            _ => return Err(OpError::Shape(format!("K has shape {:?}, expected one integer", k.shape()))),
        };
        let count =
            count.ok_or_else(|| OpError::Value(format!("K = {:?} of an axis of {dim}", k.to_i64s())))?;
        let mut shape = x.shape().to_vec();
        shape[axis] = count;
        if element_count(&shape)? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &shape), Tensor::zeros(DType::I64, &shape)]);
        }
        let outer = x.shape()[..axis].iter().product();
        let lines = Lines { outer, dim, block: x.shape()[axis + 1..].iter().product() };
        let chosen = match is_arithmetic_float(x.dtype()) {
            true => self.choose(&x.to_f64s(), &lines, count, float_order),
            false => self.choose(&wide_ints(x), &lines, count, |a, b| a.cmp(&b)),
        };
        let place = |(slot, &at): (usize, &usize)| {
            let (group, column) = (slot / (count * lines.block), slot % lines.block);
            (group * dim + at) * lines.block + column
        };
        let places: Vec<usize> = chosen.iter().enumerate().map(place).collect();
        let values = move_elements(&shape, &[x], &Picked(&places))?;
        let indices = Tensor::from_vec(&shape, chosen.into_iter().map(|at| at as i64).collect());
        Ok(vec![values, indices])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{fact, infer, list, plain, with};

    fn both(op: &crate::Op, x: &Tensor, k: i64) -> Result<Vec<Tensor>, OpError> {
        op.eval(&[Some(x), Some(&list(&[k]))])
    }

    #[test]
    fn largest_and_smallest() {
        let x = Tensor::from_vec(&[2, 4], vec![1f32, 3.0, 3.0, 0.0, -1.0, f32::NAN, 2.0, -5.0]);
        let top = both(&plain("TopK"), &x, 2).unwrap();
        assert_eq!(top[1], Tensor::from_vec(&[2, 2], vec![1i64, 2, 1, 2]));
        assert_eq!(top[0].to_f64s()[..2], [3.0, 3.0]);
        let low = with("TopK", Attrs::new().with("largest", Attr::Int(0)));
        assert_eq!(both(&low, &x, 3).unwrap()[1], Tensor::from_vec(&[2, 3], vec![3i64, 0, 1, 3, 0, 2]));
        assert_eq!(both(&low, &x, 0).unwrap()[0].shape(), [2, 0]);
        assert!(both(&low, &x, 5).is_err() && both(&low, &x, -1).is_err());
    }

    #[test]
    fn along_other_axes_and_exactly() {
        let x = Tensor::from_vec(&[2, 2], vec![u64::MAX - 1, 5, u64::MAX, 7]);
        let op = with("TopK", Attrs::new().with("axis", Attr::Int(0)));
        let top = both(&op, &x, 1).unwrap();
        assert_eq!(top[0], Tensor::from_vec(&[1, 2], vec![u64::MAX, 7]));
        assert_eq!(top[1], Tensor::from_vec(&[1, 2], vec![1i64, 1]));
    }

    #[test]
    fn k_may_be_a_dim() {
        let k = Fact::of_elements(DType::I64, [Dim::from(1)], vec![Dim::symbol("k")]);
        let facts = infer(&plain("TopK"), &[&fact(DType::F32, &["n", "8"]), &k]).unwrap();
        assert_eq!([facts[0].ty.to_string(), facts[1].ty.to_string()], ["f32[n,k]", "i64[n,k]"]);
    }
}
