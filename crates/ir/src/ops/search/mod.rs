//! Ops that look for elements: the largest ones, those that are not zero, those that differ, boxes that do not overlap.

mod det;
mod non_max_suppression;
mod non_zero;
mod top_k;
mod unique;

pub use det::Det;
pub use non_max_suppression::NonMaxSuppression;
pub use non_zero::NonZero;
pub use top_k::TopK;
pub use unique::Unique;

use std::cmp::Ordering;

/// Orders floats with NaN behind everything else, and -0 as 0.
fn float_order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// An integer tensor's elements without loss.
fn wide_ints(tensor: &rabot_tensor::Tensor) -> Vec<i128> {
    let unsigned = tensor.dtype() == rabot_tensor::DType::U64;
    let widen = |v: i64| if unsigned { i128::from(v as u64) } else { i128::from(v) };
    tensor.to_i64s().into_iter().map(widen).collect()
}
