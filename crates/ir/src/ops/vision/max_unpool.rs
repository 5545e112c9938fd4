//! `MaxUnpool`: X `[N, C, d1, …]`, I of the same shape (i64), optional output_shape (i64) → Y `[N, C, o1, …]`.
//!
//! Each element of X goes to where its index says, into the flattened tensor of the shape that the window comes to:
//! o = (d − 1) · stride + kernel − pads. The rest is 0. A larger shape that is asked for has it in its first corner.
//! Of equal indices the last one counts.
//!
//! **Dtypes**: f16, bf16, f32, f64.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__MaxUnpool.html>.
//! **Opsets**: 9, 11, 22 (bf16).

use crate::ops::dense::{filled, is_real};
use crate::ops::util::{
    arity, expect_dtype, expect_index_list, known_attrs, optional, required, required_tensor,
};
use crate::ops::window::{extents, set_extents};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `MaxUnpool`: operands X, I, optional output_shape.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxUnpool {
    /// Extent of the window.
    pub kernel_shape: Vec<usize>,
    /// Steps; empty for all 1.
    pub strides: Vec<usize>,
    /// Padding before each axis, then after each; empty for none.
    pub pads: Vec<usize>,
}

impl MaxUnpool {
    /// The shape that the window comes to.
    fn shape(&self, x: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let spatial = self.kernel_shape.len();
        let fits = |len: usize, expected: usize| len == 0 || len == expected;
        if x.len() != spatial + 2 || !fits(self.strides.len(), spatial) || !fits(self.pads.len(), 2 * spatial)
        {
            return Err(OpError::Shape(format!(
                "X {x:?} with kernel_shape {:?}, strides {:?} and pads {:?}",
                self.kernel_shape, self.strides, self.pads
            )));
        }
        let mut shape = x[..2].to_vec();
        for (axis, (size, &kernel)) in x[2..].iter().zip(&self.kernel_shape).enumerate() {
            let pad = |at: usize| Dim::from(self.pads.get(at).copied().unwrap_or(0));
            let stride = Dim::from(self.strides.get(axis).copied().unwrap_or(1));
            let full = (size.clone() - Dim::from(1)) * stride + Dim::from(kernel);
            let dim = full - pad(axis) - pad(spatial + axis);
            if dim.as_const().is_some_and(|dim| dim < 0) {
                return Err(OpError::Shape(format!("spatial axis {axis}: output size {dim}")));
            }
            shape.push(dim);
        }
        Ok(shape)
    }
}

impl OpDef for MaxUnpool {
    const NAMES: &'static [&'static str] = &["MaxUnpool"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["kernel_shape", "strides", "pads"])?;
        let kernel_shape = extents(attrs, "kernel_shape", 1)?;
        if kernel_shape.is_empty() {
            return Err(OpError::MissingAttribute("kernel_shape".to_owned()));
        }
        Ok(MaxUnpool {
            kernel_shape,
            strides: extents(attrs, "strides", 1)?,
            pads: extents(attrs, "pads", 0)?,
        })
    }

    fn name(&self) -> &'static str {
        "MaxUnpool"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        for (name, values) in
            [("kernel_shape", &self.kernel_shape), ("strides", &self.strides), ("pads", &self.pads)]
        {
            set_extents(&mut attrs, name, values);
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 3)?;
        let (x, indices) = (required(inputs, 0, "X")?, required(inputs, 1, "I")?);
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        expect_dtype(1, indices.dtype(), "i64", |dtype| dtype == DType::I64)?;
        if x.rank() != indices.rank() {
            return Err(OpError::Shape(format!("X is {}, but I is {}", x.ty, indices.ty)));
        }
        for (a, b) in x.shape().iter().zip(indices.shape()) {
            cx.require_equal(a, b)?;
        }
        let mut shape = self.shape(x.shape())?;
        if let Some(asked) = optional(inputs, 2) {
            expect_index_list(2, asked)?;
            cx.require_equal(&asked.shape()[0], &Dim::from(shape.len()))?;
            shape = match asked.dims() {
                Some(dims) if dims.iter().any(|dim| dim.as_const().is_some_and(|dim| dim < 0)) => {
                    return Err(OpError::Value(format!("output_shape {dims:?} has a negative dim")));
                }
                Some(dims) => dims,
                None => (0..shape.len()).map(|_| cx.fresh()).collect(),
            };
        }
        Ok(vec![Fact::of_type(x.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, indices) = (required_tensor(inputs, 0, "X")?, required_tensor(inputs, 1, "I")?);
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        let dims: Vec<Dim> = x.shape().iter().map(|&dim| Dim::from(dim)).collect();
        let inner: Option<Vec<usize>> = self.shape(&dims)?.iter().map(Dim::as_usize).collect();
        let inner = inner.ok_or_else(|| OpError::Shape("a shape that is not known".to_owned()))?;
        let shape = match optional(inputs, 2) {
            None => inner.clone(),
            Some(asked) => {
                let sizes = asked.to_i64s();
                let shape: Option<Vec<usize>> = sizes.iter().map(|&d| usize::try_from(d).ok()).collect();
                let fits = |shape: &Vec<usize>| {
                    shape.len() == inner.len() && shape.iter().zip(&inner).all(|(all, part)| all >= part)
                };
                shape.filter(fits).ok_or_else(|| {
                    OpError::Value(format!("output_shape {sizes:?} does not hold the result, {inner:?}"))
                })?
            }
        };
        if indices.shape() != x.shape() {
            return Err(OpError::Shape(format!("X is {:?}, but I is {:?}", x.shape(), indices.shape())));
        }
        let mut y = filled(&shape, 0.0)?;
        let count: usize = inner.iter().product();
        for (value, index) in x.to_f64s().into_iter().zip(indices.to_i64s()) {
            let mut rest = usize::try_from(index).ok().filter(|&index| index < count).ok_or_else(|| {
                OpError::Value(format!("index {index} is out of range for a result of shape {inner:?}"))
            })?;
            let (mut offset, mut step) = (0, 1);
            for (&part, &all) in inner.iter().zip(&shape).rev() {
                offset += rest % part * step;
                rest /= part;
                step *= all;
            }
            y[offset] = value;
        }
        Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &y)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, ints, op, values};

    #[test]
    fn elements_go_where_they_came_from() {
        let attrs = Attrs::new().with("kernel_shape", ints(&[2])).with("strides", ints(&[2]));
        let unpool = op("MaxUnpool", attrs);
        let (x, at) = (counting(&[1, 2, 2]), Tensor::from_vec(&[1, 2, 2], vec![1i64, 2, 4, 7]));
        assert_eq!(values(&unpool, &[&x, &at]), [0., 1., 2., 0., 3., 0., 0., 4.]);
        let asked = Tensor::from_vec(&[3], vec![1i64, 2, 5]);
        assert_eq!(values(&unpool, &[&x, &at, &asked]), [0., 1., 2., 0., 0., 3., 0., 0., 4., 0.]);
        let beyond = Tensor::from_vec(&[1, 2, 2], vec![1i64, 2, 4, 8]);
        assert!(eval(&unpool, &[&x, &beyond]).is_err());
        let small = Tensor::from_vec(&[3], vec![1i64, 2, 3]);
        assert!(eval(&unpool, &[&x, &at, &small]).is_err());
    }
}
