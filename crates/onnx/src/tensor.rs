//! Tensors of a file as rabot's tensors. Raw data are shared with the file, everything else is converted.

use crate::dtype;
use crate::error::{ImportError, TensorProblem};
use crate::external::ExternalFiles;
use crate::limits::Limits;
use crate::wire::{DATA_LOCATION_EXTERNAL, SparseTensorProto, TensorProto};
use bytes::Bytes;
use half::{bf16, f16};
use rabot_tensor::{DType, Element, Tensor, unpack_bits};
use std::path::Path;

/// Reads tensors within limits.
pub(crate) struct TensorReader {
    external: ExternalFiles,
    tensor_bytes: u64,
    rank: usize,
    sparse_limit: u64,
    sparse_left: u64,
}

/// Dims that have been checked, and their product.
struct Dims<'a> {
    wire: &'a [i64],
    dims: Vec<usize>,
    len: usize,
}

impl TensorReader {
    /// A reader for the tensors of a model in `folder`.
    pub(crate) fn new(folder: Option<&Path>, limits: &Limits) -> Self {
        TensorReader {
            external: ExternalFiles::new(folder, limits),
            tensor_bytes: limits.tensor_bytes,
            rank: limits.rank,
            sparse_limit: limits.sparse_bytes,
            sparse_left: limits.sparse_bytes,
        }
    }

    /// Size of all files beside the model that have been read from.
    pub(crate) fn external_bytes(&self) -> u64 {
        self.external.bytes()
    }

    /// The tensor; `label` names it in errors.
    pub(crate) fn read(&mut self, proto: &TensorProto, label: &str) -> Result<Tensor, ImportError> {
        self.dense(proto).map_err(|problem| ImportError::Tensor { tensor: label.to_owned(), problem })
    }

    /// The tensor made dense; `label` names it in errors.
    pub(crate) fn read_sparse(
        &mut self,
        proto: &SparseTensorProto,
        label: &str,
    ) -> Result<Tensor, ImportError> {
        self.sparse(proto).map_err(|problem| ImportError::Tensor { tensor: label.to_owned(), problem })
    }

    fn dense(&mut self, proto: &TensorProto) -> Result<Tensor, TensorProblem> {
        let dtype = dtype::from_code(proto.data_type)?;
        if proto.segment.is_some() {
            return Err(TensorProblem::Segment);
        }
        let dims = self.dims(&proto.dims, dtype, self.tensor_bytes, "tensor_bytes")?;
        if proto.data_location == DATA_LOCATION_EXTERNAL {
            let bytes = self.external.read(&proto.external_data, stored_bytes(dtype, dims.len));
            let bytes = bytes.map_err(|(location, problem)| TensorProblem::External { location, problem })?;
            return from_raw(dtype, &dims, bytes);
        }
        match &proto.raw_data {
            Some(raw) if !raw.is_empty() => from_raw(dtype, &dims, raw.clone()),
            _ => from_values(dtype, &dims, proto),
        }
    }

    /// Checks dims before anything is allocated for them.
    fn dims<'a>(
        &self,
        wire: &'a [i64],
        dtype: DType,
        limit: u64,
        field: &'static str,
    ) -> Result<Dims<'a>, TensorProblem> {
        if wire.len() > self.rank {
            return Err(TensorProblem::Rank { rank: wire.len(), limit: self.rank });
        }
        let too_large = || TensorProblem::TooLarge { dims: wire.to_vec(), limit, field };
        let mut dims = Vec::with_capacity(wire.len());
        // The product of the dims that are not 0 must fit too: strides are made of it.
        let (mut len, mut extent) = (1usize, 1usize);
        for &dim in wire {
            if dim < 0 {
                return Err(TensorProblem::NegativeDim(wire.to_vec()));
            }
            let dim = usize::try_from(dim).map_err(|_| too_large())?;
            extent = extent.checked_mul(dim.max(1)).ok_or_else(too_large)?;
            len = len.saturating_mul(dim);
            dims.push(dim);
        }
        let bytes = extent.checked_mul(dtype.size_bytes().max(1)).ok_or_else(too_large)?;
        if bytes as u64 > limit {
            return Err(too_large());
        }
        if dims.contains(&0) {
            len = 0;
        }
        Ok(Dims { wire, dims, len })
    }

    fn sparse(&mut self, proto: &SparseTensorProto) -> Result<Tensor, TensorProblem> {
        let values = proto.values.as_ref().ok_or(TensorProblem::SparsePart("values"))?;
        let values = self.dense(values)?;
        let dtype = values.dtype();
        let dims = self.dims(&proto.dims, dtype, self.sparse_left, "sparse_bytes")?;
        let indices = match &proto.indices {
            Some(indices) => self.dense(indices)?,
            None if values.is_empty() => Tensor::from_i64s(DType::I64, &[0], &[]),
            None => return Err(TensorProblem::SparsePart("indices")),
        };
        if dtype == DType::String || indices.dtype() != DType::I64 {
            let text = format!("{} for values of {dtype}, expected i64", indices.dtype());
            return Err(TensorProblem::SparseIndices(text));
        }
        let size = dtype.size_bytes();
        let bytes = (dims.len * size) as u64;
        let limit = self.sparse_limit;
        self.sparse_left = self.sparse_left.checked_sub(bytes).ok_or_else(|| TensorProblem::TooLarge {
            dims: proto.dims.clone(),
            limit,
            field: "sparse_bytes",
        })?;
        let positions = positions(&indices, values.len(), &dims)?;
        let mut dense = vec![0u8; dims.len * size];
        for (position, value) in positions.into_iter().zip(values.bytes().chunks_exact(size)) {
            // `positions` checked that each is less than the number of elements.
            dense[position * size..][..size].copy_from_slice(value);
        }
        Ok(Tensor::from_raw(dtype, &dims.dims, dense))
    }
}

/// Where the values of a sparse tensor go, as row-major positions.
fn positions(indices: &Tensor, count: usize, dims: &Dims<'_>) -> Result<Vec<usize>, TensorProblem> {
    let all = indices.to_i64s();
    let wrong = |text: String| Err(TensorProblem::SparseIndices(text));
    let rank = dims.dims.len();
    match *indices.shape() {
        [n] if n == count => {}
        [n, r] if n == count && r == rank => {}
        _ => return wrong(format!("{:?}, expected [{count}] or [{count}, {rank}]", indices.shape())),
    }
    let linear = indices.rank() == 1;
    let mut positions = Vec::with_capacity(count);
    for index in all.chunks(if linear { 1 } else { rank.max(1) }) {
        let sizes: &[usize] = if linear { &[dims.len] } else { &dims.dims };
        let mut position = 0usize;
        for (&at, &size) in index.iter().zip(sizes) {
            match usize::try_from(at).ok().filter(|&at| at < size) {
                Some(at) => position = position * size + at,
                None => return wrong(format!("out of range: {index:?} in {:?}", dims.dims)),
            }
        }
        if position >= dims.len {
            return wrong(format!("out of range: {index:?} in {:?}", dims.dims));
        }
        positions.push(position);
    }
    Ok(positions)
}

/// Bytes a tensor has in a file, where elements of less than 8 bits share them.
fn stored_bytes(dtype: DType, len: usize) -> usize {
    // `dims` has checked that the product fits.
    dtype.packed_bytes(len).unwrap_or(usize::MAX)
}

fn from_raw(dtype: DType, dims: &Dims<'_>, raw: Bytes) -> Result<Tensor, TensorProblem> {
    let expected = stored_bytes(dtype, dims.len);
    if dtype == DType::String || raw.len() != expected {
        return Err(count(dtype, dims, expected, "bytes", raw.len()));
    }
    let bytes = match dtype {
        dtype if (1..8).contains(&dtype.bits()) => Bytes::from(unpack_bits(dtype, &raw, dims.len)),
        DType::Bool if raw.iter().any(|&b| b > 1) => raw.iter().map(|&b| u8::from(b != 0)).collect(),
        _ => raw,
    };
    tensor(dtype, dims, bytes)
}

fn tensor(dtype: DType, dims: &Dims<'_>, bytes: Bytes) -> Result<Tensor, TensorProblem> {
    let (expected, actual) = (dims.len * dtype.size_bytes(), bytes.len());
    Tensor::from_bytes(dtype, &dims.dims, bytes).map_err(|_| count(dtype, dims, expected, "bytes", actual))
}

fn count(dtype: DType, dims: &Dims<'_>, expected: usize, unit: &'static str, actual: usize) -> TensorProblem {
    TensorProblem::Count { dtype, dims: dims.wire.to_vec(), expected, unit, actual }
}

/// From the typed fields: `float_data`, `int32_data` and the like.
///
/// **Source**: the comments on those fields in onnx.proto say which dtype is in which.
fn from_values(dtype: DType, dims: &Dims<'_>, proto: &TensorProto) -> Result<Tensor, TensorProblem> {
    let check = |actual: usize| match actual == dims.len {
        true => Ok(()),
        false => Err(count(dtype, dims, dims.len, "values", actual)),
    };
    let ints = &proto.int32_data;
    let from_ints = |convert: &dyn Fn(i32, &mut Vec<u8>)| {
        check(ints.len())?;
        let mut bytes = Vec::with_capacity(dims.len * dtype.size_bytes());
        ints.iter().for_each(|&value| convert(value, &mut bytes));
        tensor(dtype, dims, Bytes::from(bytes))
    };
    match dtype {
        DType::F32 => {
            check(proto.float_data.len()).map(|()| Tensor::from_vec(&dims.dims, proto.float_data.clone()))
        }
        DType::F64 => {
            check(proto.double_data.len()).map(|()| Tensor::from_vec(&dims.dims, proto.double_data.clone()))
        }
        DType::I64 => {
            check(proto.int64_data.len()).map(|()| Tensor::from_vec(&dims.dims, proto.int64_data.clone()))
        }
        DType::U64 => {
            check(proto.uint64_data.len()).map(|()| Tensor::from_vec(&dims.dims, proto.uint64_data.clone()))
        }
        DType::U32 => {
            check(proto.uint64_data.len())?;
            let values: Vec<u32> = proto.uint64_data.iter().map(|&v| v as u32).collect();
            Ok(Tensor::from_vec(&dims.dims, values))
        }
        DType::I32 => check(ints.len()).map(|()| Tensor::from_vec(&dims.dims, ints.clone())),
        DType::I16 | DType::U16 => {
            from_ints(&|value, bytes| bytes.extend_from_slice(&(value as u16).to_le_bytes()))
        }
        DType::F16 => from_ints(&|value, bytes| {
            bytes.extend_from_slice(&f16::from_bits(value as u16).to_le_bytes());
        }),
        DType::BF16 => from_ints(&|value, bytes| {
            bytes.extend_from_slice(&bf16::from_bits(value as u16).to_le_bytes());
        }),
        DType::I8 | DType::U8 => from_ints(&|value, bytes| bytes.push(value as u8)),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 => {
            from_ints(&|value, bytes| bytes.push(value as u8))
        }
        // One element a value, unlike in raw data.
        DType::F6E2M3 | DType::F6E3M2 => from_ints(&|value, bytes| bytes.push(value as u8 & 0x3f)),
        DType::Bool => from_ints(&|value, bytes| bytes.push(u8::from(value != 0))),
        DType::C64 => parts(dtype, dims, &proto.float_data),
        DType::C128 => parts(dtype, dims, &proto.double_data),
        DType::I2 | DType::U2 | DType::I4 | DType::U4 | DType::F4E2M1 => {
            let packed: Vec<u8> = ints.iter().map(|&value| value as u8).collect();
            from_raw(dtype, dims, Bytes::from(packed))
        }
        DType::String => strings(dims, proto),
    }
}

/// Complex numbers from their real and imaginary parts in turn.
fn parts<T: Element>(dtype: DType, dims: &Dims<'_>, values: &[T]) -> Result<Tensor, TensorProblem> {
    let parts = Tensor::from_vec(&[values.len()], values.to_vec());
    match dims.len.checked_mul(2) {
        Some(expected) if expected == values.len() => tensor(dtype, dims, parts.shared_bytes()),
        _ => Err(count(dtype, dims, dims.len.saturating_mul(2), "values", values.len())),
    }
}

fn strings(dims: &Dims<'_>, proto: &TensorProto) -> Result<Tensor, TensorProblem> {
    if proto.string_data.len() != dims.len {
        return Err(count(DType::String, dims, dims.len, "strings", proto.string_data.len()));
    }
    let text = |(index, bytes): (usize, &Bytes)| {
        String::from_utf8(bytes.to_vec()).map_err(|_| TensorProblem::Utf8(index))
    };
    let strings = proto.string_data.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::from_strings(&dims.dims, strings))
}

#[cfg(test)]
mod tests;
