//! Values as they are when a graph is evaluated: tensors, and what ONNX has besides them.

use crate::{Dim, Form, ValueType};
use rabot_tensor::{DType, Tensor};
use std::fmt;
use std::sync::Arc;

/// A value of a run. Cloning shares the contents.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// A tensor.
    Tensor(Tensor),
    /// A list of values of one type.
    Sequence(Arc<Vec<Datum>>),
    /// A value or none.
    Optional(Option<Box<Datum>>),
    /// A map.
    Map(Map),
}

/// A map from integers or strings to values of one dtype, in the order in which the entries were given.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The keys: i64, another integer dtype, or string; rank 1.
    pub keys: Tensor,
    /// The values in the order of the keys; rank 1.
    pub values: Tensor,
}

impl Datum {
    /// A list of values.
    pub fn sequence(values: Vec<Datum>) -> Self {
        Datum::Sequence(Arc::new(values))
    }

    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Datum::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// True if the value is of the type, whatever the symbols are.
    pub fn fits(&self, ty: &ValueType) -> bool {
        self.dims_of(ty, &mut |_, _| true)
    }

    /// True if the value is of the type and `dim` accepts each of its dims with its size. Dims inside sequences and
    /// the like are not shown to `dim`.
    pub fn dims_of(&self, ty: &ValueType, dim: &mut dyn FnMut(&Dim, usize) -> bool) -> bool {
        match (self, &ty.form) {
            (Datum::Tensor(tensor), Form::Unranked) => tensor.dtype() == ty.dtype,
            (Datum::Tensor(tensor), Form::Tensor) => {
                tensor.dtype() == ty.dtype
                    && tensor.rank() == ty.rank()
                    && ty.shape.iter().zip(tensor.shape()).all(|(expected, &actual)| {
                        expected.as_const().is_none_or(|size| size == actual as i64) && dim(expected, actual)
                    })
            }
            (Datum::Sequence(values), Form::Sequence(element)) => values.iter().all(|v| v.fits(element)),
            (Datum::Optional(value), Form::Optional(element)) => {
                value.as_ref().is_none_or(|v| v.fits(element))
            }
            // A value that is there need not be wrapped.
            (value, Form::Optional(element)) => value.fits(element),
            (Datum::Map(map), Form::Map(key, value)) => {
                map.keys.dtype() == *key && map.values.dtype() == value.dtype
            }
            _ => false,
        }
    }
}

impl From<Tensor> for Datum {
    fn from(tensor: Tensor) -> Self {
        Datum::Tensor(tensor)
    }
}

impl fmt::Display for Datum {
    /// Its kind, dtype and size; not the contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Datum::Tensor(tensor) => write!(f, "{}{:?}", tensor.dtype(), tensor.shape()),
            Datum::Sequence(values) => {
                write!(f, "sequence of {}", values.len())?;
                values.first().map_or(Ok(()), |first| write!(f, " ({first}, …)"))
            }
            Datum::Optional(None) => f.write_str("none"),
            Datum::Optional(Some(value)) => write!(f, "optional({value})"),
            Datum::Map(map) => {
                let (key, value): (DType, DType) = (map.keys.dtype(), map.values.dtype());
                write!(f, "map({key}, {value}) of {}", map.keys.len())
            }
        }
    }
}
