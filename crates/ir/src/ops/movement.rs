//! Moving elements of any dtype: what views, copies and gathers share.
//!
//! An element is moved as an array of bytes of its size, or as a string; one implementation serves all dtypes.

use super::OpError;
use rabot_tensor::{DType, Tensor};

/// Number of elements of a shape that is about to be made.
///
/// **Errors**: it does not fit into memory, or into the budget of the run.
pub(super) fn element_count(shape: &[usize]) -> Result<usize, OpError> {
    if shape.contains(&0) {
        return Ok(0);
    }
    // 16 bytes are more than any element takes, strings aside.
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let count = count
        .filter(|&n| n <= isize::MAX as usize / 16)
        .ok_or_else(|| OpError::Value(format!("a tensor of shape {shape:?} does not fit into memory")))?;
    crate::budget::check_elements(shape, count)?;
    Ok(count)
}

/// The shape that shapes broadcast to (numpy's rule).
///
/// **Errors**: two dims differ and neither is 1.
pub(super) fn broadcast_shape(shapes: &[&[usize]]) -> Result<Vec<usize>, OpError> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        for (&dim, out) in shape.iter().rev().zip(result.iter_mut().rev()) {
            if *out == 1 {
                *out = dim;
            } else if dim != 1 && dim != *out {
                return Err(OpError::Shape(format!("shapes {shapes:?} do not broadcast")));
            }
        }
    }
    element_count(&result)?;
    Ok(result)
}

/// Row-major strides in elements.
pub(super) fn row_major(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].wrapping_mul(shape[axis] as isize);
    }
    strides
}

/// Strides that read a tensor of shape `from` as one of shape `to`, which it broadcasts to.
pub(super) fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; to.len() - from.len()];
    strides.extend(row_major(from).iter().zip(from).map(|(&stride, &dim)| if dim == 1 { 0 } else { stride }));
    strides
}

/// A walk over the elements of a shape in row-major order, with strides for each of N operands.
#[derive(Debug)]
pub(super) struct Walk<const N: usize> {
    dims: Vec<usize>,
    strides: Vec<[isize; N]>,
}

impl<const N: usize> Walk<N> {
    /// Axes that are contiguous for every operand become one, so that rows are as long as can be.
    pub(super) fn new(shape: &[usize], strides: [&[isize]; N]) -> Self {
        let mut walk = Walk { dims: Vec::new(), strides: Vec::new() };
        if shape.contains(&0) {
            // The other dims may be anything then, and their product need not fit.
            return Walk { dims: vec![0], strides: vec![[0; N]] };
        }
        for (axis, &dim) in shape.iter().enumerate().filter(|(_, dim)| **dim != 1) {
            let stride: [isize; N] = std::array::from_fn(|n| strides[n][axis]);
            match (walk.dims.last_mut(), walk.strides.last_mut()) {
                (Some(outer), Some(last))
                    if (0..N).all(|n| last[n] == stride[n].wrapping_mul(dim as isize)) =>
                {
                    *outer *= dim;
                    *last = stride;
                }
                _ => {
                    walk.dims.push(dim);
                    walk.strides.push(stride);
                }
            }
        }
        walk
    }

    /// A walk that broadcasts operands of the given shapes to `to`.
    pub(super) fn broadcast(from: [&[usize]; N], to: &[usize]) -> Self {
        let strides: [Vec<isize>; N] = std::array::from_fn(|n| broadcast_strides(from[n], to));
        Self::new(to, std::array::from_fn(|n| strides[n].as_slice()))
    }

    /// Calls `row` for each innermost row, with the offset and the step of each operand, and the length.
    pub(super) fn rows(&self, base: [isize; N], mut row: impl FnMut([isize; N], [isize; N], usize)) {
        let (Some((&len, outer)), Some(&step)) = (self.dims.split_last(), self.strides.last()) else {
            return row(base, [0; N], 1);
        };
        if self.dims.contains(&0) {
            return;
        }
        let mut index = vec![0usize; outer.len()];
        let mut at = base;
        'rows: loop {
            row(at, step, len);
            for axis in (0..outer.len()).rev() {
                index[axis] += 1;
                let wraps = index[axis] == outer[axis];
                let moved = if wraps { 1 - outer[axis] as isize } else { 1 };
                for (offset, stride) in at.iter_mut().zip(&self.strides[axis]) {
                    *offset += stride * moved;
                }
                if !wraps {
                    continue 'rows;
                }
                index[axis] = 0;
            }
            return;
        }
    }
}

/// `data` of shape `from`, repeated to shape `to`, which it broadcasts to.
pub(super) fn broadcast_elements<T: Clone>(data: &[T], from: &[usize], to: &[usize]) -> Vec<T> {
    let mut out = Vec::with_capacity(to.iter().product());
    push_strided(&mut out, data, &Walk::broadcast([from], to), 0);
    out
}

/// Appends the elements that a walk meets.
pub(super) fn push_strided<T: Clone>(out: &mut Vec<T>, data: &[T], walk: &Walk<1>, base: isize) {
    walk.rows([base], |[at], [step], len| match step {
        1 => out.extend_from_slice(&data[at as usize..at as usize + len]),
        0 => out.resize(out.len() + len, data[at as usize].clone()),
        _ => out.extend((0..len as isize).map(|k| data[(at + k * step) as usize].clone())),
    });
}

/// How an op moves the elements of its operands, whatever they are.
pub(super) trait Move {
    /// Appends the elements of the result, which are as many as its shape says.
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]);
}

/// The result of moving elements: a tensor of the given shape, with the dtype of the operands.
///
/// **Errors**: the operands' dtypes differ, or the result does not fit into memory.
pub(super) fn move_elements(
    shape: &[usize],
    operands: &[&Tensor],
    moves: &impl Move,
) -> Result<Tensor, OpError> {
    let Some(first) = operands.first() else {
        return Err(OpError::InputCount { expected: "at least 1".to_owned(), actual: 0 });
    };
    for (slot, operand) in operands.iter().enumerate() {
        let (actual, expected) = (operand.dtype(), first.dtype());
        if actual != expected {
            return Err(OpError::DType { slot, actual, expected: format!("{expected}, as input 0") });
        }
    }
    let dtype = first.dtype();
    if dtype == DType::String {
        let strings: Vec<&[String]> = operands.iter().filter_map(|t| t.strings()).collect();
        return Ok(Tensor::from_strings(shape, moved(shape, &strings, moves)?));
    }
    let bytes = match dtype.size_bytes() {
        1 => moved_bytes::<1>(shape, operands, moves)?,
        2 => moved_bytes::<2>(shape, operands, moves)?,
        4 => moved_bytes::<4>(shape, operands, moves)?,
        16 => moved_bytes::<16>(shape, operands, moves)?,
        _ => moved_bytes::<8>(shape, operands, moves)?,
    };
    Ok(Tensor::from_raw(dtype, shape, bytes))
}

fn moved_bytes<const SIZE: usize>(
    shape: &[usize],
    operands: &[&Tensor],
    moves: &impl Move,
) -> Result<Vec<u8>, OpError> {
    let elements: Vec<&[[u8; SIZE]]> = operands.iter().map(|t| t.bytes().as_chunks().0).collect();
    Ok(moved(shape, &elements, moves)?.into_flattened())
}

fn moved<T: Clone>(shape: &[usize], operands: &[&[T]], moves: &impl Move) -> Result<Vec<T>, OpError> {
    let mut out = reserve(shape)?;
    moves.append(&mut out, operands);
    Ok(out)
}

/// An empty vector with room for the elements of a shape.
///
/// **Errors**: there is not that much memory.
pub(super) fn reserve<T>(shape: &[usize]) -> Result<Vec<T>, OpError> {
    let mut out = Vec::new();
    out.try_reserve_exact(element_count(shape)?)
        .map_err(|_| OpError::Value(format!("a tensor of shape {shape:?} does not fit into memory")))?;
    Ok(out)
}

/// Reads an operand through strides: transposed, sliced or broadcast.
#[derive(Debug)]
pub(super) struct Strided {
    /// The walk over the result.
    pub(super) walk: Walk<1>,
    /// Offset of the first element.
    pub(super) base: isize,
}

impl Move for Strided {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        push_strided(out, operands[0], &self.walk, self.base);
    }
}

/// A tensor read through strides as one of another shape.
///
/// **Errors**: the result does not fit into memory.
pub(super) fn strided(
    tensor: &Tensor,
    shape: &[usize],
    strides: &[isize],
    base: isize,
) -> Result<Tensor, OpError> {
    element_count(shape)?;
    move_elements(shape, &[tensor], &Strided { walk: Walk::new(shape, [strides]), base })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_merge_axes_and_meet_every_element() {
        let walk = Walk::<1>::broadcast([&[2, 3, 4]], &[2, 3, 4]);
        assert_eq!(walk.dims, [24]);
        let data: Vec<i32> = (0..6).collect();
        assert_eq!(broadcast_elements(&data[..3], &[3, 1], &[2, 3, 2]), [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
        let mut out = Vec::new();
        push_strided(&mut out, &data, &Walk::new(&[3, 2], [&[1, 3]]), 0);
        assert_eq!(out, [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn empty_and_rank_zero() {
        assert_eq!(broadcast_elements(&[7], &[], &[]), [7]);
        assert_eq!(broadcast_elements::<i32>(&[], &[0, 1], &[0, 3]), [0; 0]);
        assert!(element_count(&[usize::MAX, 2]).is_err());
        assert_eq!(element_count(&[usize::MAX, 2, 0]), Ok(0));
    }

    #[test]
    fn operands_of_one_dtype_only() {
        let (a, b) = (Tensor::scalar(1f32), Tensor::scalar(1i32));
        let moves = Strided { walk: Walk::new(&[], [&[]]), base: 0 };
        assert!(move_elements(&[], &[&a, &b], &moves).is_err());
    }
}
