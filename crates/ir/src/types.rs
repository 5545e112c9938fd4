//! What is known of a value at compile time.

use crate::Dim;
use rabot_tensor::{DType, Tensor};
use std::fmt;

/// What kind of thing a value is.
///
/// Types inside others say what is known of all elements: a dim that is a number holds for each of them, any other dim
/// is unknown.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Form {
    /// A tensor with a known number of dims.
    #[default]
    Tensor,
    /// A tensor of which only the dtype is known.
    Unranked,
    /// A list of values of one type.
    Sequence(Box<ValueType>),
    /// A value or none.
    Optional(Box<ValueType>),
    /// A map from keys of a dtype to values.
    Map(DType, Box<ValueType>),
}

/// Type of a value; for a tensor, its dtype and symbolic shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ValueType {
    /// Element type; of other forms than tensors, that of the innermost values.
    pub dtype: DType,
    /// Dims, outermost first; empty for a scalar, and for everything that is no tensor of known rank.
    pub shape: Vec<Dim>,
    /// What kind of thing it is.
    pub form: Form,
}

impl ValueType {
    /// The type of a tensor.
    pub fn new(dtype: DType, shape: impl Into<Vec<Dim>>) -> Self {
        ValueType { dtype, shape: shape.into(), form: Form::Tensor }
    }

    /// The type of a tensor of which only the dtype is known.
    pub fn unranked(dtype: DType) -> Self {
        ValueType { dtype, shape: Vec::new(), form: Form::Unranked }
    }

    /// The type of a list of values.
    pub fn sequence(element: ValueType) -> Self {
        ValueType { dtype: element.dtype, shape: Vec::new(), form: Form::Sequence(Box::new(element)) }
    }

    /// The type of a value that may be none.
    pub fn optional(element: ValueType) -> Self {
        ValueType { dtype: element.dtype, shape: Vec::new(), form: Form::Optional(Box::new(element)) }
    }

    /// The type of a map.
    pub fn map(key: DType, value: ValueType) -> Self {
        ValueType { dtype: value.dtype, shape: Vec::new(), form: Form::Map(key, Box::new(value)) }
    }

    /// True for a tensor of known rank: what kernels compute with.
    pub fn is_tensor(&self) -> bool {
        self.form == Form::Tensor
    }

    /// What holds of values of both types, or `None` if they are of different kinds. Dims that differ become what
    /// `unknown` gives.
    pub fn join(&self, other: &ValueType, unknown: &mut dyn FnMut() -> Dim) -> Option<ValueType> {
        if self.dtype != other.dtype {
            return None;
        }
        let inner = |a: &ValueType, b: &ValueType| a.join(b, &mut || Dim::symbol(UNKNOWN_DIM));
        match (&self.form, &other.form) {
            (Form::Tensor, Form::Tensor) if self.rank() == other.rank() => {
                let pairs = self.shape.iter().zip(&other.shape);
                let shape: Vec<Dim> =
                    pairs.map(|(x, y)| if x == y { x.clone() } else { unknown() }).collect();
                Some(ValueType::new(self.dtype, shape))
            }
            (Form::Tensor | Form::Unranked, Form::Tensor | Form::Unranked) => {
                Some(ValueType::unranked(self.dtype))
            }
            (Form::Sequence(a), Form::Sequence(b)) => Some(ValueType::sequence(inner(a, b)?)),
            (Form::Optional(a), Form::Optional(b)) => Some(ValueType::optional(inner(a, b)?)),
            // A value that is certainly there in one case.
            (Form::Optional(a), _) => Some(ValueType::optional(inner(a, other)?)),
            (_, Form::Optional(b)) => Some(ValueType::optional(inner(self, b)?)),
            (Form::Map(key, a), Form::Map(other_key, b)) if key == other_key => {
                Some(ValueType::map(*key, inner(a, b)?))
            }
            _ => None,
        }
    }

    /// As the type of an element: dims that are no numbers are unknown.
    #[must_use]
    pub fn as_element(&self) -> ValueType {
        let known = |dim: &Dim| if dim.as_const().is_some() { dim.clone() } else { Dim::symbol(UNKNOWN_DIM) };
        ValueType { shape: self.shape.iter().map(known).collect(), ..self.clone() }
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

/// Stands for each dim of an element's type that is no number.
pub const UNKNOWN_DIM: &str = "_";

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.form {
            Form::Tensor => {}
            Form::Unranked => return write!(f, "{}[*]", self.dtype),
            Form::Sequence(element) => return write!(f, "sequence({element})"),
            Form::Optional(element) => return write!(f, "optional({element})"),
            Form::Map(key, value) => return write!(f, "map({key}, {value})"),
        }
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
        Fact::of(ValueType::new(dtype, shape))
    }

    /// Known type, unknown contents.
    pub fn of(ty: ValueType) -> Self {
        Fact { ty, constant: None, elements: None }
    }

    /// A tensor of which only the dtype is known.
    pub fn unranked(dtype: DType) -> Self {
        Fact::of(ValueType::unranked(dtype))
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
