//! `CumSum`, `CumProd`: running sums and products along an axis.
//!
//! Result `j` is made of the elements up to and with `j`; with `exclusive` without it. With `reverse` from the end.
//! Floats are accumulated in f64, and each result is rounded once; integers wrap.
//!
//! **Shapes**: that of `x`; `axis` is one integer.
//!
//! **Dtypes**: `x` f16, bf16, f32, f64, i32, i64, u32, u64; `axis` i32 or i64.
//!
//! **Opsets**: CumSum 11, 14 (f16, bf16); CumProd 26.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__CumSum.html>, <https://onnx.ai/onnx/operators/onnx__CumProd.html>

use crate::ops::dense::{is_real, is_wide_int};
use crate::ops::util::{arity, expect_dtype, known_attrs, normalize_axis, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// `CumSum` or `CumProd`: operands x, axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Cumulate {
    /// Products instead of sums.
    pub product: bool,
    /// An element is not part of its own result.
    pub exclusive: bool,
    /// From the end to the start.
    pub reverse: bool,
}

impl Cumulate {
    /// Replaces the elements by running results.
    fn run<T: Copy>(&self, values: &mut [T], (dim, block): (usize, usize), start: T, f: impl Fn(T, T) -> T) {
        let group = dim * block;
        if group == 0 {
            return;
        }
        for rows in values.chunks_exact_mut(group) {
            for column in 0..block {
                let mut sum = start;
                for step in 0..dim {
                    let along = if self.reverse { dim - 1 - step } else { step };
                    let element = &mut rows[along * block + column];
                    let next = f(sum, *element);
                    *element = if self.exclusive { sum } else { next };
                    sum = next;
                }
            }
        }
    }
}

impl OpDef for Cumulate {
    const NAMES: &'static [&'static str] = &["CumSum", "CumProd"];
    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["exclusive", "reverse"])?;
        Ok(Cumulate {
            product: name == "CumProd",
            exclusive: attrs.int("exclusive", 0)? != 0,
            reverse: attrs.int("reverse", 0)? != 0,
        })
    }
    fn name(&self) -> &'static str {
        if self.product { "CumProd" } else { "CumSum" }
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        for (name, set) in [("exclusive", self.exclusive), ("reverse", self.reverse)] {
            if set {
                attrs.set(name, Attr::Int(1));
            }
        }
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (x, axis) = (required(inputs, 0, "x")?, required(inputs, 1, "axis")?);
        expect_dtype(0, x.dtype(), "f16, bf16, f32, f64, i32, i64, u32 or u64", |d| {
            is_real(d) || is_wide_int(d)
        })?;
        expect_dtype(1, axis.dtype(), "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
        if axis.rank() > 1 || axis.ty.elements().as_const().is_some_and(|count| count != 1) {
            return Err(OpError::Shape(format!("axis is {}, expected one integer", axis.ty)));
        }
        if let Some([axis]) = axis.ints().as_deref() {
            normalize_axis(*axis, x.rank())?;
        }
        Ok(vec![Fact::of_type(x.dtype(), x.shape())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, axis) = (required_tensor(inputs, 0, "x")?, required_tensor(inputs, 1, "axis")?);
        let [axis] = axis.to_i64s()[..] else {
            return Err(OpError::Shape(format!("axis has shape {:?}, expected one integer", axis.shape())));
        };
        let axis = normalize_axis(axis, x.rank())?;
        if x.is_empty() {
            return Ok(vec![x.clone()]);
        }
        let lines = (x.shape()[axis], x.shape()[axis + 1..].iter().product());
        if is_real(x.dtype()) {
            let mut values = x.to_f64s();
            match self.product {
                true => self.run(&mut values, lines, 1.0, |a, b| a * b),
                false => self.run(&mut values, lines, 0.0, |a, b| a + b),
            }
            return Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), &values)]);
        }
        // The low bits of a wrapped sum or product are the same for signed and unsigned integers.
        let mut values = x.to_i64s();
        match self.product {
            true => self.run(&mut values, lines, 1, i64::wrapping_mul),
            false => self.run(&mut values, lines, 0, i64::wrapping_add),
        }
        Ok(vec![Tensor::from_i64s(x.dtype(), x.shape(), &values)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, plain, with};

    #[test]
    fn runs_along_an_axis() {
        let x = Tensor::from_vec(&[2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let (columns, rows) = (Tensor::scalar(1i32), Tensor::scalar(-2i64));
        let check = |name: &str, attrs: &[&str], axis: &Tensor, expected: [f32; 6]| {
            let attrs = attrs.iter().fold(Attrs::new(), |attrs, name| attrs.with(name, Attr::Int(1)));
            let y = eval(&with(name, attrs), &[&x, axis]).unwrap();
            assert_eq!(y, Tensor::from_vec(&[2, 3], expected.to_vec()), "{name}");
        };
        check("CumSum", &[], &columns, [1., 3., 6., 4., 9., 15.]);
        check("CumSum", &[], &rows, [1., 2., 3., 5., 7., 9.]);
        check("CumSum", &["exclusive"], &columns, [0., 1., 3., 0., 4., 9.]);
        check("CumSum", &["exclusive", "reverse"], &columns, [5., 3., 0., 11., 6., 0.]);
        check("CumProd", &["reverse"], &columns, [6., 6., 3., 120., 30., 6.]);
        check("CumProd", &["exclusive"], &rows, [1., 1., 1., 1., 2., 3.]);
    }

    #[test]
    fn integers_wrap_and_nothing_is_fine() {
        let x = Tensor::from_vec(&[2], vec![u32::MAX, 2]);
        let axis = Tensor::scalar(0i64);
        assert_eq!(eval(&plain("CumSum"), &[&x, &axis]).unwrap(), Tensor::from_vec(&[2], vec![u32::MAX, 1]));
        let empty = Tensor::from_vec::<f32>(&[0, 2], vec![]);
        assert_eq!(eval(&plain("CumProd"), &[&empty, &axis]).unwrap(), empty);
        assert!(eval(&plain("CumSum"), &[&x, &Tensor::scalar(1i64)]).is_err());
    }
}
