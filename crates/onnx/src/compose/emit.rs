//! Nodes of expressions, in few words, for the rules of operators that are expressions of others.

use crate::dtype;
use crate::error::Failure;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Dim, OpError, Value};
use rabot_tensor::{DType, Tensor};

/// A dim of the shape that something is brought to.
#[derive(Clone, Copy)]
pub(super) enum Size {
    /// A number.
    Is(i64),
    /// The dim of a value along an axis.
    Of(Value, usize),
    /// What is left.
    Rest,
}

/// An attribute that cannot be read.
pub(super) fn wrong(error: OpError) -> Failure {
    Failure::unsupported(error.to_string())
}

/// The dtype in which sums are made: that of halves and smaller floats is f32.
pub(super) fn working(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

impl Draft<'_> {
    /// A node of operands that are all there.
    pub(super) fn node(&mut self, op: &str, inputs: &[Value]) -> Result<Value, Failure> {
        self.node_with(op, &Attrs::new(), inputs)
    }

    /// A node with attributes.
    pub(super) fn node_with(&mut self, op: &str, attrs: &Attrs, inputs: &[Value]) -> Result<Value, Failure> {
        self.before(op, attrs, inputs.iter().map(|&value| Some(value)).collect())
    }

    /// An operand that must be there.
    pub(super) fn operand(&self, slot: usize, name: &str) -> Result<Value, Failure> {
        self.input(slot).ok_or_else(|| Failure::unsupported(format!("input {slot} ({name}) is missing")))
    }

    /// Refuses a number of operands that the op does not have.
    pub(super) fn check_inputs(&self, most: usize) -> Result<(), Failure> {
        match self.inputs.len() <= most {
            true => Ok(()),
            false => Err(Failure::unsupported(format!("{} inputs; there are {most}", self.inputs.len()))),
        }
    }

    /// Dtype of a value.
    pub(super) fn dtype_of(&self, value: Value) -> DType {
        self.graph.fact(value).dtype()
    }

    /// Dims of a value.
    ///
    /// **Errors**: their number is not known.
    pub(super) fn shape_of(&self, value: Value) -> Result<Vec<Dim>, Failure> {
        let fact = self.graph.fact(value);
        match fact.ty.is_tensor() {
            true => Ok(fact.shape().to_vec()),
            false => Err(Failure::unsupported(format!(
                "`{}` is {}: the number of its dims must be known",
                self.graph.value_name(value),
                fact.ty
            ))),
        }
    }

    /// Number of dims of a value.
    pub(super) fn rank_of(&self, value: Value) -> Result<usize, Failure> {
        Ok(self.shape_of(value)?.len())
    }

    /// A scalar constant.
    pub(super) fn number(&mut self, dtype: DType, value: f64) -> Value {
        self.constant("constant", Tensor::from_f64s(dtype, &[], &[value]))
    }

    /// A scalar constant integer.
    pub(super) fn integer(&mut self, dtype: DType, value: i64) -> Value {
        self.constant("constant", Tensor::from_i64s(dtype, &[], &[value]))
    }

    /// The value in a dtype; the value itself if that is its own.
    pub(super) fn cast(&mut self, value: Value, to: DType) -> Result<Value, Failure> {
        if self.dtype_of(value) == to {
            return Ok(value);
        }
        let code = i64::from(dtype::code(to));
        self.node_with("Cast", &Attrs::new().with("to", Attr::Int(code)), &[value])
    }

    /// A reduction along axes, which stay as 1.
    pub(super) fn reduce(&mut self, op: &str, value: Value, axes: &[i64]) -> Result<Value, Failure> {
        if axes.is_empty() {
            return self.node_with(op, &Attrs::new().with("noop_with_empty_axes", Attr::Int(1)), &[value]);
        }
        let axes = self.list("axes", axes.to_vec());
        self.node(op, &[value, axes])
    }

    /// The sum or mean of all elements, a scalar.
    pub(super) fn reduce_all(&mut self, op: &str, value: Value) -> Result<Value, Failure> {
        self.node_with(op, &Attrs::new().with("keepdims", Attr::Int(0)), &[value])
    }

    /// Dims of 1 put in at axes of the result.
    pub(super) fn unsqueeze(&mut self, value: Value, axes: Vec<i64>) -> Result<Value, Failure> {
        if axes.is_empty() {
            return Ok(value);
        }
        let axes = self.list("axes", axes);
        self.node("Unsqueeze", &[value, axes])
    }

    /// Axes in another order.
    pub(super) fn transpose(&mut self, value: Value, perm: &[i64]) -> Result<Value, Failure> {
        self.node_with("Transpose", &Attrs::new().with("perm", Attr::Ints(perm.to_vec())), &[value])
    }

    /// The part `start..end` along an axis, each `step`-th element.
    pub(super) fn slice(
        &mut self,
        value: Value,
        axis: i64,
        (start, end, step): (i64, i64, i64),
    ) -> Result<Value, Failure> {
        let operands = [start, end, axis, step].map(|number| self.list("slice", vec![number]));
        self.node("Slice", &[value, operands[0], operands[1], operands[2], operands[3]])
    }

    /// Values one after the other along an axis.
    pub(super) fn concat(&mut self, axis: i64, values: &[Value]) -> Result<Value, Failure> {
        self.node_with("Concat", &Attrs::new().with("axis", Attr::Int(axis)), values)
    }

    /// The dims `start..end` of a value, a list.
    pub(super) fn dims(&mut self, value: Value, start: usize, end: usize) -> Result<Value, Failure> {
        let known: Option<Vec<i64>> =
            self.shape_of(value)?.get(start..end).and_then(|dims| dims.iter().map(Dim::as_const).collect());
        if let Some(known) = known {
            return Ok(self.list("dims", known));
        }
        let attrs = Attrs::new().with("start", Attr::Int(start as i64)).with("end", Attr::Int(end as i64));
        self.node_with("Shape", &attrs, &[value])
    }

    /// One dim of a value, a scalar.
    pub(super) fn dim(&mut self, value: Value, axis: usize) -> Result<Value, Failure> {
        if let Some(known) = self.shape_of(value)?.get(axis).and_then(Dim::as_const) {
            return Ok(self.integer(DType::I64, known));
        }
        let list = self.dims(value, axis, axis + 1)?;
        let axes = self.list("axes", vec![0]);
        self.node("Squeeze", &[list, axes])
    }

    /// A list of sizes.
    pub(super) fn sizes(&mut self, sizes: &[Size]) -> Result<Value, Failure> {
        let mut known = Vec::with_capacity(sizes.len());
        for size in sizes {
            known.push(match *size {
                Size::Is(value) => Some(value),
                Size::Rest => Some(-1),
                Size::Of(value, axis) => self.shape_of(value)?.get(axis).and_then(Dim::as_const),
            });
        }
        if let Some(known) = known.iter().copied().collect::<Option<Vec<i64>>>() {
            return Ok(self.list("shape", known));
        }
        let mut parts = Vec::with_capacity(sizes.len());
        for (size, known) in sizes.iter().zip(known) {
            parts.push(match (known, *size) {
                (Some(value), _) => self.list("dim", vec![value]),
                (None, Size::Of(value, axis)) => self.dims(value, axis, axis + 1)?,
                (None, _) => return Err(Failure::unsupported("a size that is not known")),
            });
        }
        self.concat(0, &parts)
    }

    /// The value in another shape. Dims of 0 are zeros.
    pub(super) fn reshape(&mut self, value: Value, sizes: &[Size]) -> Result<Value, Failure> {
        let target = self.settled(value, sizes)?;
        let target = self.sizes(&target)?;
        self.node_with("Reshape", &Attrs::new().with("allowzero", Attr::Int(1)), &[value, target])
    }

    /// The sizes with a number for what is left, where it is one: tensors without elements do not tell it.
    fn settled(&self, value: Value, sizes: &[Size]) -> Result<Vec<Size>, Failure> {
        let mut taken = Dim::from(1);
        for size in sizes {
            taken = match *size {
                Size::Rest => taken,
                Size::Is(number) => taken * Dim::from(number),
                Size::Of(value, axis) => {
                    taken * self.shape_of(value)?.get(axis).cloned().unwrap_or(Dim::from(1))
                }
            };
        }
        let all: Dim = self.shape_of(value)?.iter().product();
        let rest = match (all.as_const(), taken.as_const()) {
            (Some(0), Some(0)) => Some(0),
            (Some(all), Some(taken)) if taken > 0 && all % taken == 0 => Some(all / taken),
            _ => None,
        };
        let settle = |size: &Size| match (size, rest) {
            (Size::Rest, Some(rest)) => Size::Is(rest),
            _ => *size,
        };
        Ok(sizes.iter().map(settle).collect())
    }

    /// A tensor of one value, of the shape of another one.
    pub(super) fn filled_like(&mut self, value: Value, one: Tensor) -> Result<Value, Failure> {
        let rank = self.rank_of(value)?;
        let shape = self.dims(value, 0, rank)?;
        self.node_with("ConstantOfShape", &Attrs::new().with("value", Attr::Tensor(one)), &[shape])
    }

    /// The integers from 0 to a dim of a value.
    pub(super) fn positions(&mut self, value: Value, axis: usize) -> Result<Value, Failure> {
        let (zero, one) = (self.integer(DType::I64, 0), self.integer(DType::I64, 1));
        let limit = self.dim(value, axis)?;
        self.node("Range", &[zero, limit, one])
    }
}
