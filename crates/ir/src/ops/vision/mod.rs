//! Operators that read images at places which data tell: samplers, regions, deformed windows.
//!
//! All of them are planned as calls of their reference evaluation.

mod deform_conv;
mod grid_sample;
mod max_unpool;
mod roi;

pub use deform_conv::DeformConv;
pub use grid_sample::{GridMode, GridPadding, GridSample};
pub use max_unpool::MaxUnpool;
pub use roi::{MaxRoiPool, RoiAlign};

use super::OpError;

/// An attribute with a value that the op does not take.
fn refused(name: &str, value: impl ToString, reason: &str) -> OpError {
    OpError::Attribute { name: name.to_owned(), value: value.to_string(), reason: reason.to_owned() }
}

/// Elements of the axis `size` that a linear interpolation at a coordinate takes, and their weights. What lies outside
/// is none.
fn linear_taps(at: f64, size: usize) -> [(Option<usize>, f64); 2] {
    let low = at.floor();
    let part = at - low;
    [(inside(low, size), 1.0 - part), (inside(low + 1.0, size), part)]
}

/// The index that a whole coordinate is, if the axis has it.
fn inside(at: f64, size: usize) -> Option<usize> {
    (at >= 0.0 && at < size as f64).then_some(at as usize)
}

/// Indices along an axis, where they are inside, and their weights.
type Taps<'a> = &'a [(Option<usize>, f64)];

/// Offsets into a plane and their weights, of taps along each axis, whose sizes come with them.
fn products(taps: &[(usize, Taps<'_>)]) -> Vec<(usize, f64)> {
    let mut all = vec![(0, 1.0)];
    for (size, axis) in taps {
        let one = |&(offset, weight): &(usize, f64)| {
            axis.iter().filter_map(move |&(index, w)| Some((offset * size + index?, weight * w)))
        };
        all = all.iter().flat_map(one).collect();
    }
    all
}
