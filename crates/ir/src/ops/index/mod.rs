//! Ops that read or write elements at computed places.
//!
//! An op computes the place of every element that it moves, in row-major order of its indices; moving them is the same
//! for all dtypes.

mod col2im;
mod compress;
mod cumulate;
mod gather_elements;
mod gather_nd;
mod reverse_sequence;
mod scatter;
mod scatter_nd;
mod tensor_scatter;
mod update;

pub use col2im::Col2Im;
pub use compress::Compress;
pub use cumulate::Cumulate;
pub use gather_elements::GatherElements;
pub use gather_nd::GatherNd;
pub use reverse_sequence::ReverseSequence;
pub use scatter::ScatterElements;
pub use scatter_nd::ScatterNd;
pub use tensor_scatter::TensorScatter;
pub use update::Reduction;

use super::OpError;
use super::movement::{Move, element_count, move_elements, row_major};
use rabot_tensor::Tensor;

/// An index counted from the front. **Errors**: out of range.
fn place(index: i64, axis: usize, dim: usize) -> Result<usize, OpError> {
    let signed = if index < 0 { index.saturating_add(dim as i64) } else { index };
    usize::try_from(signed).ok().filter(|&at| at < dim).ok_or_else(|| {
        OpError::Value(format!("index {index} is out of range for axis {axis}, which is {dim}"))
    })
}

/// Takes blocks of elements from places.
struct Taken {
    places: Vec<usize>,
    block: usize,
}

impl Move for Taken {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        for &place in &self.places {
            out.extend_from_slice(&operands[0][place..place + self.block]);
        }
    }
}

/// A tensor of blocks of elements of another one, which begin at places.
///
/// **Errors**: the result does not fit into memory.
fn take(data: &Tensor, shape: &[usize], places: Vec<usize>, block: usize) -> Result<Tensor, OpError> {
    move_elements(shape, &[data], &Taken { places, block })
}

/// Calls `visit` with the index of each element of a shape, in row-major order.
///
/// **Errors**: those of `visit`; the shape has too many elements.
fn for_each_index(
    shape: &[usize],
    mut visit: impl FnMut(usize, &[usize]) -> Result<(), OpError>,
) -> Result<(), OpError> {
    let mut index = vec![0usize; shape.len()];
    for at in 0..element_count(shape)? {
        visit(at, &index)?;
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(())
}

/// For each of `indices`, the element of `data` that it names along `axis`; the other axes have the same index in both.
///
/// **Errors**: an index is out of range, or the other axes of `data` are shorter.
fn places_along(data: &[usize], indices: &Tensor, axis: usize) -> Result<Vec<usize>, OpError> {
    check_ranks(data.len(), indices.rank())?;
    for (other, (&wide, &narrow)) in data.iter().zip(indices.shape()).enumerate() {
        if other != axis && narrow > wide && !indices.is_empty() {
            return Err(OpError::Shape(format!(
                "indices have {narrow} entries along axis {other}, data only {wide}"
            )));
        }
    }
    let strides = row_major(data);
    let values = indices.to_i64s();
    let mut places = Vec::with_capacity(values.len());
    for_each_index(indices.shape(), |at, index| {
        let along = place(values[at], axis, data[axis])?;
        let offsets = index.iter().zip(&strides).enumerate();
        places.push(
            offsets.map(|(a, (&i, &stride))| (if a == axis { along } else { i }) * stride as usize).sum(),
        );
        Ok(())
    })?;
    Ok(places)
}

/// The places in `data` that index tuples name: the start of a block for each, and the length of a block. The first
/// `batch` axes of both are walked together.
///
/// **Errors**: an index is out of range, or tuples are longer than data has axes.
fn places_of_tuples(data: &[usize], indices: &Tensor, batch: usize) -> Result<(Vec<usize>, usize), OpError> {
    let too_few = || OpError::Shape(format!("indices {:?} into data of shape {data:?}", indices.shape()));
    let (&length, outer) = indices.shape().split_last().ok_or_else(too_few)?;
    let end = batch.checked_add(length).filter(|&end| length > 0 && end <= data.len()).ok_or_else(too_few)?;
    if outer.get(..batch) != data.get(..batch) {
        return Err(too_few());
    }
    let strides = row_major(data);
    let values = indices.to_i64s();
    let mut places = Vec::with_capacity(element_count(outer)?);
    for_each_index(outer, |at, index| {
        let mut start: usize = index[..batch].iter().zip(&strides).map(|(&i, &s)| i * s as usize).sum();
        for (k, axis) in (batch..end).enumerate() {
            start += place(values[at * length + k], axis, data[axis])? * strides[axis] as usize;
        }
        places.push(start);
        Ok(())
    })?;
    Ok((places, element_count(&data[end..])?))
}

/// **Errors**: data and indices differ in rank, or have none.
fn check_ranks(data: usize, indices: usize) -> Result<(), OpError> {
    match data == indices && data > 0 {
        true => Ok(()),
        false => Err(OpError::Shape(format!(
            "data of rank {data} and indices of rank {indices}: expected one rank of at least 1"
        ))),
    }
}
