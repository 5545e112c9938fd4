//! Longer expressions than those of `emit`: arithmetic with numbers, parts of axes, attributes that say yes or no.

use super::emit::{Size, wrong};
use crate::error::Failure;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Dim, Value};
use rabot_tensor::{DType, Tensor};

/// What an op of a rule gives, or why the node is refused.
pub(super) type Made = Result<Value, Failure>;

impl Draft<'_> {
    /// `a + b`.
    pub(super) fn plus(&mut self, a: Value, b: Value) -> Made {
        self.node("Add", &[a, b])
    }

    /// `a - b`.
    pub(super) fn minus(&mut self, a: Value, b: Value) -> Made {
        self.node("Sub", &[a, b])
    }

    /// `a * b`.
    pub(super) fn times(&mut self, a: Value, b: Value) -> Made {
        self.node("Mul", &[a, b])
    }

    /// `a / b`.
    pub(super) fn over(&mut self, a: Value, b: Value) -> Made {
        self.node("Div", &[a, b])
    }

    /// The matrix product.
    pub(super) fn matmul(&mut self, a: Value, b: Value) -> Made {
        self.node("MatMul", &[a, b])
    }

    /// A scalar constant of the dtype of another value.
    pub(super) fn scalar_like(&mut self, like: Value, number: f64) -> Value {
        let dtype = self.dtype_of(like);
        self.number(dtype, number)
    }

    /// `a * number`; the value itself for 1.
    pub(super) fn scaled(&mut self, a: Value, number: f64) -> Made {
        if number == 1.0 {
            return Ok(a);
        }
        let number = self.scalar_like(a, number);
        self.times(a, number)
    }

    /// `a + number`.
    pub(super) fn shifted(&mut self, a: Value, number: f64) -> Made {
        let number = self.scalar_like(a, number);
        self.plus(a, number)
    }

    /// A value without axes of length 1.
    pub(super) fn squeezed(&mut self, a: Value, axes: &[i64]) -> Made {
        let axes = self.list("axes", axes.to_vec());
        self.node("Squeeze", &[a, axes])
    }

    /// One place of an axis, which is gone then.
    pub(super) fn at(&mut self, a: Value, axis: i64, index: i64) -> Made {
        let end = index.checked_add(1).filter(|&end| end != 0).unwrap_or(i64::MAX);
        let part = self.slice(a, axis, (index, end, 1))?;
        self.squeezed(part, &[axis])
    }

    /// Parts of an axis of these lengths.
    pub(super) fn parts(&mut self, a: Value, axis: i64, lengths: &[i64]) -> Result<Vec<Value>, Failure> {
        let sizes = self.list("lengths", lengths.to_vec());
        let attrs =
            Attrs::new().with("axis", Attr::Int(axis)).with("num_outputs", Attr::Int(lengths.len() as i64));
        let node = self.before_all("Split", &attrs, vec![Some(a), Some(sizes)])?;
        Ok((0..lengths.len() as u32).map(|slot| Value { node, slot }).collect())
    }

    /// Values one after the other along an axis; a single one as it is.
    pub(super) fn joined(&mut self, values: &[Value], axis: i64) -> Made {
        match values {
            [value] => Ok(*value),
            _ => self.concat(axis, values),
        }
    }

    /// A number repeated to a shape.
    pub(super) fn filled(&mut self, dtype: DType, number: f64, sizes: &[Size]) -> Made {
        let shape = self.sizes(sizes)?;
        let value = Tensor::from_f64s(dtype, &[1], &[number]);
        self.node_with("ConstantOfShape", &Attrs::new().with("value", Attr::Tensor(value)), &[shape])
    }

    /// A length of a value's shape, if it is a number.
    pub(super) fn known_length(&self, a: Value, axis: usize) -> Option<i64> {
        self.graph.fact(a).shape().get(axis).and_then(Dim::as_const)
    }

    /// An integer attribute.
    pub(super) fn int_attr(&self, name: &str, default: i64) -> Result<i64, Failure> {
        self.attrs.int(name, default).map_err(wrong)
    }

    /// An attribute that says yes or no.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Failure> {
        match self.int_attr(name, default.into())? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Failure::unsupported(format!("attribute `{name}` = {other}, expected 0 or 1"))),
        }
    }

    /// A float attribute.
    pub(super) fn float_attr(&self, name: &str, default: f32) -> Result<f64, Failure> {
        self.attrs.float(name, default).map(f64::from).map_err(wrong)
    }
}
