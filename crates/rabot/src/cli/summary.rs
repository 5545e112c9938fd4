//! What is in a tensor, in few words.

use rabot::{DType, Tensor};
use serde::Serialize;

/// How many of the largest values are shown.
const TOP: usize = 5;

/// A tensor in few words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Name of the value.
    pub name: String,
    /// Element type.
    pub dtype: &'static str,
    /// Dims.
    pub shape: Vec<usize>,
    /// Smallest element that is a number.
    pub min: Option<f64>,
    /// Largest element that is a number.
    pub max: Option<f64>,
    /// Count of elements that are NaN.
    pub nan: usize,
    /// The largest elements of the first row, the largest first: for a classifier, its answer.
    pub top: Vec<Top>,
}

/// An element and its place in the row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Top {
    /// Index in the last dim.
    pub index: usize,
    /// The element.
    pub value: f64,
}

impl Summary {
    /// Looks through a tensor. Strings have no smallest or largest.
    pub(crate) fn of(name: &str, tensor: &Tensor) -> Self {
        let values = tensor.to_f64s();
        let numbers = || values.iter().copied().filter(|value| !value.is_nan());
        let row = tensor.shape().last().copied().unwrap_or(1).min(values.len());
        let mut top: Vec<Top> =
            values.iter().take(row).enumerate().map(|(index, &value)| Top { index, value }).collect();
        // Equal ones stay in order.
        top.retain(|t| !t.value.is_nan());
        top.sort_by(|a, b| b.value.total_cmp(&a.value));
        top.truncate(TOP);
        Summary {
            name: name.to_owned(),
            dtype: tensor.dtype().name(),
            shape: tensor.shape().to_vec(),
            min: numbers().reduce(f64::min),
            max: numbers().reduce(f64::max),
            nan: values.len() - numbers().count(),
            top: if tensor.dtype() == DType::String { Vec::new() } else { top },
        }
    }

    /// Cells of a table: name, dtype, shape, min, max, top values.
    pub(crate) fn cells(&self) -> [String; 6] {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
        let mut top = self.top.iter().map(|t| format!("{}: {}", t.index, short(t.value))).collect::<Vec<_>>();
        if self.nan > 0 {
            top.push(format!("{} NaN", self.nan));
        }
        let shape = self.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let (dtype, shape) = (self.dtype.to_owned(), format!("[{shape}]"));
        [self.name.clone(), dtype, shape, number(self.min), number(self.max), top.join("  ")]
    }
}

/// Headings of [`Summary::cells`].
pub(crate) const HEADINGS: [&str; 6] =
    ["output", "dtype", "shape", ">min", ">max", "largest of the first row"];

/// A number in six digits or fewer.
pub(crate) fn short(value: f64) -> String {
    if value == 0.0 || (value.fract() == 0.0 && value.abs() < 1e9) {
        return format!("{value}");
    }
    if (1e-3..1e6).contains(&value.abs()) { format!("{value:.4}") } else { format!("{value:.3e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_pass_over_nan() {
        let tensor = Tensor::from_vec(&[2, 3], vec![1.0f32, f32::NAN, 3.0, -7.0, 0.0, 9.0]);
        let summary = Summary::of("y", &tensor);
        assert_eq!((summary.min, summary.max, summary.nan), (Some(-7.0), Some(9.0), 1));
        assert_eq!(summary.top.iter().map(|t| t.index).collect::<Vec<_>>(), [2, 0]);
        let empty = Summary::of("y", &Tensor::from_vec::<f32>(&[0, 3], vec![]));
        assert_eq!((empty.min, empty.top.len()), (None, 0));
    }
}
