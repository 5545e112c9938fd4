//! What is known of a value at compile time.

use crate::Dim;
use rabot_tensor::{DType, Tensor};
use std::fmt;

/// Dtype and symbolic shape of a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ValueType {
    /// Element type.
    pub dtype: DType,
    /// Dims, outermost first; empty for a scalar.
    pub shape: Vec<Dim>,
}

impl ValueType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl Into<Vec<Dim>>) -> Self {
        ValueType { dtype, shape: shape.into() }
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn elements(&self) -> Dim {
        self.shape.iter().product()
    }

    /// The shape in numbers, if every dim is known.
    pub fn static_shape(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(Dim::as_usize).collect()
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (index, dim) in self.shape.iter().enumerate() {
            write!(f, "{}{dim}", if index > 0 { "," } else { "" })?;
        }
        write!(f, "]")
    }
}

/// Most elements for which [`Fact::elements`] is tracked: shapes and index lists, not data.
pub const MAX_TRACKED_ELEMENTS: usize = 64;

/// What inference knows of a value: its type, and its contents where they are known.
#[derive(Clone, PartialEq, Debug)]
pub struct Fact {
    /// Dtype and shape.
    pub ty: ValueType,
    /// The contents, if they are constant.
    pub constant: Option<Tensor>,
    /// The elements as dims, for small integer values computed from shapes. Row-major.
    pub elements: Option<Vec<Dim>>,
}

impl Fact {
    /// Known type, unknown contents.
    pub fn of_type(dtype: DType, shape: impl Into<Vec<Dim>>) -> Self {
        Fact { ty: ValueType::new(dtype, shape), constant: None, elements: None }
    }

    /// Known contents.
    pub fn of_constant(tensor: Tensor) -> Self {
        let shape: Vec<Dim> = tensor.shape().iter().map(|&d| Dim::from(d)).collect();
        Fact { ty: ValueType::new(tensor.dtype(), shape), constant: Some(tensor), elements: None }
    }

    /// Contents known as dims. They are dropped if there are too many, or if the dtype is no integer.
    pub fn of_elements(dtype: DType, shape: impl Into<Vec<Dim>>, elements: Vec<Dim>) -> Self {
        let ty = ValueType::new(dtype, shape);
        let track = dtype.is_int() && elements.len() <= MAX_TRACKED_ELEMENTS;
        Fact { ty, constant: None, elements: track.then_some(elements) }
    }

    /// The contents as dims: of a small integer constant, or tracked through the graph.
    pub fn dims(&self) -> Option<Vec<Dim>> {
        if let Some(elements) = &self.elements {
            return Some(elements.clone());
        }
        let constant = self.constant.as_ref()?;
        let tracked = constant.dtype().is_int() && constant.len() <= MAX_TRACKED_ELEMENTS;
        tracked.then(|| constant.to_i64s().into_iter().map(Dim::from).collect())
    }

    /// The contents as integers, if they are all known.
    pub fn ints(&self) -> Option<Vec<i64>> {
        self.dims()?.iter().map(Dim::as_const).collect()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    /// Dims, outermost first.
    pub fn shape(&self) -> &[Dim] {
        &self.ty.shape
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.ty.shape.len()
    }
}
