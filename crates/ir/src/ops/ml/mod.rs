//! Operators of the domain `ai.onnx.ml`: trees, support vector machines, encoders and maps.
//!
//! What is an expression of other operators (linear models, scalers, imputers, …) is composed when a file is read and
//! has no form here.
//!
//! **Source**: <https://onnx.ai/onnx/operators/index.html#ai-onnx-ml>. Where the specification leaves a choice, it is
//! that of ONNX Runtime, in whose terms exporters think:
//! <https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/core/providers/cpu/ml>

mod encoders;
mod maps;
mod scores;
mod svm;
#[cfg(test)]
mod tests;
mod tree_attrs;
mod tree_ops;
mod trees;

pub use encoders::{LabelEncoder, OneHotEncoder};
pub use maps::{CastMap, DictVectorizer, ZipMap};
pub use svm::{SvmClassifier, SvmRegressor};
pub use tree_ops::{TreeClassifier, TreeEnsemble, TreeRegressor};

use super::OpError;
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// Names of classes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Labels {
    /// Numbers.
    Ints(Vec<i64>),
    /// Texts.
    Strings(Vec<String>),
}

impl Labels {
    /// The labels that one of two attributes gives; texts if both do, as in ONNX Runtime.
    ///
    /// **Errors**: neither does.
    fn from_attrs(attrs: &Attrs, ints: &str, strings: &str) -> Result<Self, OpError> {
        let texts = strs(attrs, strings)?.unwrap_or_default();
        if !texts.is_empty() {
            return Ok(Labels::Strings(texts));
        }
        match attrs.ints(ints)? {
            Some(numbers) if !numbers.is_empty() => Ok(Labels::Ints(numbers)),
            _ => Err(OpError::MissingAttribute(format!("{ints}` or `{strings}"))),
        }
    }

    fn len(&self) -> usize {
        match self {
            Labels::Ints(labels) => labels.len(),
            Labels::Strings(labels) => labels.len(),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Labels::Ints(_) => DType::I64,
            Labels::Strings(_) => DType::String,
        }
    }

    /// Adds the attribute that gives the labels.
    fn add_to(&self, attrs: &mut Attrs, ints: &str, strings: &str) {
        match self {
            Labels::Ints(labels) => attrs.set(ints, Attr::Ints(labels.clone())),
            Labels::Strings(labels) => attrs.set(strings, Attr::Strs(labels.clone())),
        }
    }

    /// A tensor of the labels of the classes, which must exist.
    ///
    /// **Errors**: one does not.
    fn pick(&self, classes: &[usize]) -> Result<Tensor, OpError> {
        let shape = [classes.len()];
        let missing =
            |class: usize| OpError::Value(format!("class {class} is none of the {} labels", self.len()));
        match self {
            Labels::Ints(labels) => {
                let one = |&class: &usize| labels.get(class).copied().ok_or_else(|| missing(class));
                Ok(Tensor::from_vec(&shape, classes.iter().map(one).collect::<Result<Vec<i64>, _>>()?))
            }
            Labels::Strings(labels) => {
                let one = |&class: &usize| labels.get(class).cloned().ok_or_else(|| missing(class));
                Ok(Tensor::from_strings(&shape, classes.iter().map(one).collect::<Result<_, _>>()?))
            }
        }
    }
}

/// A list of strings, or `None` where absent. **Errors**: another kind of value.
pub(super) fn strs(attrs: &Attrs, name: &str) -> Result<Option<Vec<String>>, OpError> {
    match attrs.get(name) {
        None => Ok(None),
        Some(Attr::Strs(values)) => Ok(Some(values.clone())),
        // An empty list does not say what it is a list of.
        Some(Attr::Ints(values)) if values.is_empty() => Ok(Some(Vec::new())),
        Some(Attr::Floats(values)) if values.is_empty() => Ok(Some(Vec::new())),
        Some(other) => Err(refused(name, format!("{other:?}"), "expected a list of strings")),
    }
}

/// An attribute that the op does not take.
pub(super) fn refused(name: &str, value: impl ToString, reason: &str) -> OpError {
    OpError::Attribute { name: name.to_owned(), value: value.to_string(), reason: reason.to_owned() }
}

/// Most columns that a number in a file may ask for by itself, without as many values.
const MOST_IMPLIED: usize = 1 << 24;

/// A number of columns that an attribute gives.
///
/// **Errors**: it is not positive, or larger than anything that would make sense.
pub(super) fn implied_columns(name: &str, value: i64) -> Result<usize, OpError> {
    let count = usize::try_from(value).ok().filter(|count| (1..=MOST_IMPLIED).contains(count));
    count.ok_or_else(|| refused(name, value, &format!("expected a positive number up to {MOST_IMPLIED}")))
}

/// Dtypes of features that most of the operators take.
fn is_feature(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::I64 | DType::I32)
}

/// Rows and columns of features: a list is one row.
///
/// **Errors**: there are more than two dims, or none.
fn table_dims(fact: &Fact) -> Result<(Dim, Dim), OpError> {
    match fact.shape() {
        [columns] => Ok((Dim::from(1), columns.clone())),
        [rows, columns] => Ok((rows.clone(), columns.clone())),
        shape => Err(OpError::Shape(format!("features must have 1 or 2 dims, not {}", shape.len()))),
    }
}

/// Features by rows.
struct Table {
    rows: usize,
    columns: usize,
    /// Row-major. Integers are rounded to f32, which is how they are compared and multiplied.
    values: Vec<f64>,
}

impl Table {
    /// The features that a tensor holds.
    ///
    /// **Errors**: more than two dims, none, or fewer columns than `needed`.
    fn of(tensor: &Tensor, needed: usize) -> Result<Self, OpError> {
        let (rows, columns) = match *tensor.shape() {
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => {
                return Err(OpError::Shape(format!(
                    "features must have 1 or 2 dims, not {:?}",
                    tensor.shape()
                )));
            }
        };
        if columns < needed && rows > 0 {
            return Err(OpError::Shape(format!("{columns} features where the model has {needed}")));
        }
        let values = match tensor.dtype() {
            DType::I32 | DType::I64 => tensor.to_i64s().into_iter().map(|v| f64::from(v as f32)).collect(),
            _ => tensor.to_f64s(),
        };
        Ok(Table { rows, columns, values })
    }

    fn row(&self, row: usize) -> &[f64] {
        self.values.get(row * self.columns..(row + 1) * self.columns).unwrap_or_default()
    }
}

/// Checks the number of columns where it is known.
fn expect_columns(columns: &Dim, needed: usize, exact: bool) -> Result<(), OpError> {
    match columns.as_usize() {
        Some(found) if found < needed || (exact && found != needed) => {
            Err(OpError::Shape(format!("{found} features where the model has {needed}")))
        }
        _ => Ok(()),
    }
}
