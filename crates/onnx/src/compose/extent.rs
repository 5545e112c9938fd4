//! Arithmetic on sizes, which are numbers where shapes are known and values otherwise.

use super::emit::wrong;
use crate::error::Failure;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Dim, OpError, Value};
use rabot_tensor::DType;

/// A size: a number, or a list of one integer (i64) that running tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extent {
    /// A number.
    Known(i64),
    /// A list of one element.
    Value(Value),
}

/// Operations on two sizes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Calc {
    Add,
    Sub,
    Mul,
    /// Rounded toward zero.
    Div,
    Max,
    Min,
}

impl Draft<'_> {
    /// The size of a value along an axis, counted from the front.
    pub(super) fn extent(&mut self, value: Value, axis: usize) -> Result<Extent, Failure> {
        match self.shape_of(value)?.get(axis).map(Dim::as_const) {
            None => Err(Failure::unsupported(format!("axis {axis} of an input of a lower rank"))),
            Some(Some(known)) => Ok(Extent::Known(known)),
            Some(None) => Ok(Extent::Value(self.dims(value, axis, axis + 1)?)),
        }
    }

    /// An element of a list of integers.
    pub(super) fn extent_at(&mut self, list: Value, index: usize) -> Result<Extent, Failure> {
        let known = self.graph.fact(list).dims().and_then(|dims| dims.get(index).and_then(Dim::as_const));
        if let Some(known) = known {
            return Ok(Extent::Known(known));
        }
        let wide = self.cast(list, DType::I64)?;
        let at = self.list("index", vec![index as i64]);
        Ok(Extent::Value(self.node("Gather", &[wide, at])?))
    }

    /// A size as a list of one element.
    pub(super) fn extent_value(&mut self, extent: Extent) -> Value {
        match extent {
            Extent::Known(known) => self.list("size", vec![known]),
            Extent::Value(value) => value,
        }
    }

    /// Sizes as one list.
    pub(super) fn extent_list(&mut self, extents: &[Extent]) -> Result<Value, Failure> {
        let known = |extent: &Extent| match extent {
            Extent::Known(known) => Some(*known),
            Extent::Value(_) => None,
        };
        if let Some(known) = extents.iter().map(known).collect::<Option<Vec<i64>>>() {
            return Ok(self.list("sizes", known));
        }
        let parts: Vec<Value> = extents.iter().map(|&extent| self.extent_value(extent)).collect();
        self.concat(0, &parts)
    }

    /// An operation on two sizes.
    ///
    /// **Errors**: the result does not fit, or is divided by zero.
    pub(super) fn calc(&mut self, op: Calc, a: Extent, b: Extent) -> Result<Extent, Failure> {
        if let (Extent::Known(a), Extent::Known(b)) = (a, b) {
            let result = match op {
                Calc::Add => a.checked_add(b),
                Calc::Sub => a.checked_sub(b),
                Calc::Mul => a.checked_mul(b),
                Calc::Div => a.checked_div(b),
                Calc::Max => Some(a.max(b)),
                Calc::Min => Some(a.min(b)),
            };
            let refused = || Failure::unsupported(format!("a size of {a} and {b} ({op:?})"));
            return result.map(Extent::Known).ok_or_else(refused);
        }
        let (a, b) = (self.extent_value(a), self.extent_value(b));
        let name = match op {
            Calc::Add => "Add",
            Calc::Sub => "Sub",
            Calc::Mul => "Mul",
            Calc::Div => "Div",
            Calc::Max => "Max",
            Calc::Min => "Min",
        };
        Ok(Extent::Value(self.node(name, &[a, b])?))
    }

    /// The product of sizes.
    pub(super) fn extent_product(&mut self, extents: &[Extent]) -> Result<Extent, Failure> {
        extents.iter().try_fold(Extent::Known(1), |product, &extent| self.calc(Calc::Mul, product, extent))
    }

    /// The value in another shape; a dim of 0 is one.
    pub(super) fn reshape_to(&mut self, value: Value, extents: &[Extent]) -> Result<Value, Failure> {
        let target = self.extent_list(extents)?;
        self.node_with("Reshape", &Attrs::new().with("allowzero", Attr::Int(1)), &[value, target])
    }

    /// The integers from 0 to a size, along the given axis of `rank` axes.
    pub(super) fn counting(&mut self, limit: Extent, axis: usize, rank: usize) -> Result<Value, Failure> {
        let (zero, one) = (self.integer(DType::I64, 0), self.integer(DType::I64, 1));
        let limit = match limit {
            Extent::Known(known) => self.integer(DType::I64, known),
            Extent::Value(value) => value,
        };
        let range = self.node("Range", &[zero, limit, one])?;
        self.unsqueeze(range, (0..rank as i64).filter(|&at| at != axis as i64).collect())
    }

    /// An axis counted from the front.
    ///
    /// **Errors**: out of range.
    pub(super) fn front_axis(&self, axis: i64, rank: usize) -> Result<usize, Failure> {
        let front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        usize::try_from(front).ok().filter(|&at| at < rank).ok_or_else(|| {
            wrong(OpError::Attribute {
                name: "axis".to_owned(),
                value: axis.to_string(),
                reason: format!("out of range for rank {rank}"),
            })
        })
    }
}
