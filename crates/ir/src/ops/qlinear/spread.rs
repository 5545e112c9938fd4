//! Which scale or zero point belongs to an element.

use crate::ops::dense::{broadcast_strides, require_broadcast_to, strided_offset};
use crate::ops::{InferCx, OpError};
use crate::{Dim, Fact};

/// How the parameters of a tensor may vary over it. One element is for all of it, whatever the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// They may not; a vector is read along the last axis.
    Whole,
    /// A vector along axis 0, the filters of a convolution.
    Filter,
    /// A vector along axis 1, the channels of a result.
    Channel,
    /// A vector along the axis before the last one, or an array of the tensor's rank with 1 as the last dim.
    Rows,
    /// A vector along the last axis, or an array of the tensor's rank with 1 as the dim before the last one.
    Columns,
}

impl Side {
    /// How the parameters of an operand of a product vary over the result: an operand of rank 1 has no rows or columns
    /// there.
    pub(super) fn of_result(rank: usize, side: Side) -> Side {
        if rank < 2 { Side::Whole } else { side }
    }

    /// The shape in which a vector broadcasts to a tensor of this rank.
    fn vector_shape<D: Clone>(self, len: D, one: D, rank: usize) -> Vec<D> {
        let after = match self {
            Side::Whole | Side::Columns => 0,
            Side::Rows => 1,
            Side::Filter => rank.saturating_sub(1),
            Side::Channel => rank.saturating_sub(2),
        };
        let mut shape = vec![len];
        shape.resize(1 + after, one);
        shape
    }

    /// **Errors**: the parameter's shape does not fit the data.
    pub(super) fn check(self, parameter: &Fact, data: &Fact, cx: &mut InferCx) -> Result<(), OpError> {
        let refused = || OpError::Shape(format!("a parameter {} of {}", parameter.ty, data.ty));
        let (shape, rank) = (parameter.shape(), data.rank());
        if shape.iter().all(|dim| dim.is(1)) {
            return Ok(());
        }
        let fits = |shape: &[Dim], cx: &mut InferCx| {
            require_broadcast_to(cx, "parameter", shape, data.shape()).map_err(|_| refused())
        };
        match (self, shape) {
            (Side::Whole, _) => Err(refused()),
            (Side::Rows | Side::Columns, [_]) if rank < 2 => Err(refused()),
            (_, [len]) => fits(&self.vector_shape(len.clone(), Dim::from(1), rank), cx),
            (Side::Rows, [.., one]) if one.is(1) && shape.len() == rank => fits(shape, cx),
            (Side::Columns, [.., one, _]) if one.is(1) && shape.len() == rank => fits(shape, cx),
            _ => Err(refused()),
        }
    }
}

/// The parameter of each element of a tensor, by row-major index.
pub(super) struct Spread {
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Spread {
    /// Parameters of the shape `parameter`, for a tensor of the shape `data`.
    ///
    /// **Errors**: they do not fit it.
    pub(super) fn new(parameter: &[usize], data: &[usize], side: Side) -> Result<Self, OpError> {
        let shape = match parameter {
            _ if parameter.iter().all(|&dim| dim == 1) => vec![],
            [len] => side.vector_shape(*len, 1, data.len()),
            other => other.to_vec(),
        };
        let fits = shape.len() <= data.len()
            && shape.iter().rev().zip(data.iter().rev()).all(|(&p, &d)| p == 1 || p == d);
        if !fits {
            return Err(OpError::Shape(format!("parameters of shape {parameter:?} for {data:?}")));
        }
        Ok(Spread { strides: broadcast_strides(&shape, data), shape: data.to_vec() })
    }

    pub(super) fn of(&self, element: usize) -> usize {
        // Most often there is one for all.
        if self.strides.iter().all(|&stride| stride == 0) {
            return 0;
        }
        strided_offset(element, &self.shape, &self.strides)
    }
}
