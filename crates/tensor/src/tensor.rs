//! Dense tensors.

use crate::{DType, Element, ShortFloat};
use bytes::Bytes;
use half::{bf16, f16};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A tensor could not be made or read as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The product of the dims does not fit.
    #[error("shape {0:?} has more elements than fit in memory")]
    TooLarge(Vec<usize>),
    /// The bytes are not those of the shape.
    #[error("{dtype}{shape:?} needs {expected} bytes, got {actual}")]
    ByteCount {
        /// Element type asked for.
        dtype: DType,
        /// Shape asked for.
        shape: Vec<usize>,
        /// Bytes that dtype and shape need.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// Data of another dtype was asked for.
    #[error("tensor is {actual}, expected {expected}")]
    DType {
        /// Dtype asked for.
        expected: DType,
        /// Dtype of the tensor.
        actual: DType,
    },
    /// A new shape does not have the same number of elements.
    #[error("cannot view shape {from:?} as {to:?}: element counts differ")]
    Reshape {
        /// Shape of the tensor.
        from: Vec<usize>,
        /// Shape asked for.
        to: Vec<usize>,
    },
}

#[derive(Clone)]
enum Data {
    Bytes(Bytes),
    Strings(Arc<[String]>),
}

/// A dense, row-major tensor. Cloning shares the data.
///
/// Types of less than 8 bits are held unpacked, one element a byte, sign-extended for `i2` and `i4`.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Data,
}

/// Number of elements of a shape, or `None` on overflow.
fn checked_len(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the tensor empty however large the other dims are.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= isize::MAX as usize)
}

impl Tensor {
    /// A tensor over little-endian bytes, which are shared, not copied.
    ///
    /// **Errors**: the byte count is not that of dtype and shape.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<Self, TensorError> {
        let len = checked_len(shape).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        let expected =
            len.checked_mul(dtype.size_bytes()).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        if expected != bytes.len() || dtype == DType::String {
            let (shape, actual) = (shape.to_vec(), bytes.len());
            return Err(TensorError::ByteCount { dtype, shape, expected, actual });
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), data: Data::Bytes(bytes) })
    }

    /// A tensor of the given elements.
    ///
    /// **Panics** if the count of values is not that of the shape: both come from the caller's code.
    pub fn from_vec<T: Element>(shape: &[usize], values: Vec<T>) -> Self {
        Self::from_raw(T::DTYPE, shape, bytemuck::cast_slice(&values).to_vec())
    }

    /// A tensor over freshly made bytes.
    ///
    /// **Panics** if the byte count is not that of dtype and shape.
    pub fn from_raw(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Self {
        match Self::from_bytes(dtype, shape, Bytes::from(bytes)) {
            Ok(tensor) => tensor,
            Err(error) => panic!("{error}"),
        }
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::from_vec(&[], vec![value])
    }

    /// A tensor of booleans.
    pub fn from_bools(shape: &[usize], values: &[bool]) -> Self {
        Self::from_raw(DType::Bool, shape, values.iter().map(|&b| b as u8).collect())
    }

    /// A tensor of strings.
    pub fn from_strings(shape: &[usize], values: Vec<String>) -> Self {
        assert_eq!(checked_len(shape), Some(values.len()), "string count of {shape:?}");
        Tensor { dtype: DType::String, shape: shape.to_vec(), data: Data::Strings(values.into()) }
    }

    /// A tensor of any dtype from f64 values, each rounded (floats), saturated (integers) or as text (strings). Of complex
    /// dtypes the values are the real parts, and the others 0.
    pub fn from_f64s(dtype: DType, shape: &[usize], values: &[f64]) -> Self {
        fn cast<T: Element>(shape: &[usize], values: &[f64]) -> Tensor {
            Tensor::from_vec(shape, values.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>())
        }
        match dtype {
            DType::F32 => cast::<f32>(shape, values),
            DType::F64 => cast::<f64>(shape, values),
            DType::F16 => cast::<f16>(shape, values),
            DType::BF16 => cast::<bf16>(shape, values),
            DType::I16 => cast::<i16>(shape, values),
            DType::U16 => cast::<u16>(shape, values),
            DType::I32 => cast::<i32>(shape, values),
            DType::U32 => cast::<u32>(shape, values),
            DType::I64 => cast::<i64>(shape, values),
            DType::U64 => cast::<u64>(shape, values),
            DType::I8 => cast::<i8>(shape, values),
            DType::U8 => cast::<u8>(shape, values),
            DType::I2 => Self::bytes_of(dtype, shape, values, |v| (v as i8).clamp(-2, 1) as u8),
            DType::U2 => Self::bytes_of(dtype, shape, values, |v| (v as u8).min(3)),
            DType::I4 => Self::bytes_of(dtype, shape, values, |v| (v as i8).clamp(-8, 7) as u8),
            DType::U4 => Self::bytes_of(dtype, shape, values, |v| (v as u8).min(15)),
            DType::Bool => Self::bytes_of(dtype, shape, values, |v| (v != 0.0) as u8),
            DType::C64 => {
                let parts = values.iter().flat_map(|&v| [v as f32, 0.0]).collect::<Vec<f32>>();
                Self::from_raw(dtype, shape, bytemuck::cast_slice(&parts).to_vec())
            }
            DType::C128 => {
                let parts = values.iter().flat_map(|&v| [v, 0.0]).collect::<Vec<f64>>();
                Self::from_raw(dtype, shape, bytemuck::cast_slice(&parts).to_vec())
            }
            DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4E2M1 => {
                let format = ShortFloat::of(dtype);
                Self::bytes_of(dtype, shape, values, |v| format.map_or(0, |f| f.encode(v, true)))
            }
            // Whoever computes with them refuses the dtype, by the name of the node.
            DType::String => Self::from_strings(shape, values.iter().map(ToString::to_string).collect()),
        }
    }

    /// A tensor of any integer dtype or `bool` from i64 values; integers wrap.
    pub fn from_i64s(dtype: DType, shape: &[usize], values: &[i64]) -> Self {
        fn cast<T: Element>(shape: &[usize], values: &[i64]) -> Tensor {
            Tensor::from_vec(shape, values.iter().map(|&v| T::from_i64(v)).collect::<Vec<T>>())
        }
        let low_bits = |v: i64| {
            let shift = 8 - dtype.bits();
            let raised = (v as u8) << shift;
            if dtype.is_signed_int() { ((raised as i8) >> shift) as u8 } else { raised >> shift }
        };
        match dtype {
            DType::I8 => cast::<i8>(shape, values),
            DType::U8 => cast::<u8>(shape, values),
            DType::I16 => cast::<i16>(shape, values),
            DType::U16 => cast::<u16>(shape, values),
            DType::I32 => cast::<i32>(shape, values),
            DType::U32 => cast::<u32>(shape, values),
            DType::I64 => cast::<i64>(shape, values),
            DType::U64 => cast::<u64>(shape, values),
            // By way of f64 they would be rounded twice.
            DType::F32 => cast::<f32>(shape, values),
            DType::BF16 => cast::<bf16>(shape, values),
            DType::I2 | DType::U2 | DType::I4 | DType::U4 => {
                Self::from_raw(dtype, shape, values.iter().map(|&v| low_bits(v)).collect())
            }
            DType::Bool => Self::from_raw(dtype, shape, values.iter().map(|&v| (v != 0) as u8).collect()),
            other => {
                let floats: Vec<f64> = values.iter().map(|&v| v as f64).collect();
                Self::from_f64s(other, shape, &floats)
            }
        }
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Self {
        let len = checked_len(shape).unwrap_or(0);
        Self::from_raw(dtype, shape, vec![0; len * dtype.size_bytes()])
    }

    fn bytes_of(dtype: DType, shape: &[usize], values: &[f64], f: impl Fn(f64) -> u8) -> Self {
        Self::from_raw(dtype, shape, values.iter().map(|&v| f(v)).collect())
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        // A dim of zero may come after dims whose product does not fit.
        checked_len(&self.shape).unwrap_or(0)
    }

    /// True if any dim is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stored bytes; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Bytes(bytes) => bytes,
            Data::Strings(_) => &[],
        }
    }

    /// The stored bytes, shared; empty for strings.
    pub fn shared_bytes(&self) -> Bytes {
        match &self.data {
            Data::Bytes(bytes) => bytes.clone(),
            Data::Strings(_) => Bytes::new(),
        }
    }

    /// The strings, if this is a string tensor.
    pub fn strings(&self) -> Option<&[String]> {
        match &self.data {
            Data::Strings(strings) => Some(strings),
            Data::Bytes(_) => None,
        }
    }

    /// The elements; borrowed when the bytes are aligned for `T`, else copied.
    ///
    /// **Errors**: the tensor is not of `T`'s dtype.
    pub fn to_slice<T: Element>(&self) -> Result<Cow<'_, [T]>, TensorError> {
        if self.dtype != T::DTYPE {
            return Err(TensorError::DType { expected: T::DTYPE, actual: self.dtype });
        }
        Ok(match bytemuck::try_cast_slice(self.bytes()) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::allocation::pod_collect_to_vec(self.bytes())),
        })
    }

    /// Every element as f64; empty for strings. 64-bit integers beyond 2^53 round; of complex numbers it is the real
    /// part.
    pub fn to_f64s(&self) -> Vec<f64> {
        fn widen<T: Element>(tensor: &Tensor) -> Vec<f64> {
            tensor.to_slice::<T>().map_or_else(|_| vec![], |s| s.iter().map(|v| v.to_f64()).collect())
        }
        match self.dtype {
            DType::F32 => widen::<f32>(self),
            DType::F64 => widen::<f64>(self),
            DType::F16 => widen::<f16>(self),
            DType::BF16 => widen::<bf16>(self),
            DType::I16 => widen::<i16>(self),
            DType::U16 => widen::<u16>(self),
            DType::I32 => widen::<i32>(self),
            DType::U32 => widen::<u32>(self),
            DType::I64 => widen::<i64>(self),
            DType::U64 => widen::<u64>(self),
            DType::I8 | DType::I4 | DType::I2 => self.bytes().iter().map(|&b| b as i8 as f64).collect(),
            DType::U8 | DType::U4 | DType::U2 | DType::Bool => {
                self.bytes().iter().map(|&b| b as f64).collect()
            }
            DType::C64 | DType::C128 => self
                .parts()
                .map_or_else(Vec::new, |parts| parts.to_f64s().chunks_exact(2).map(|part| part[0]).collect()),
            DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4E2M1 => {
                let format = ShortFloat::of(self.dtype);
                self.bytes().iter().map(|&b| format.map_or(f64::NAN, |f| f.decode(b))).collect()
            }
            DType::String => Vec::new(),
        }
    }

    /// Every element as i64 (`u64` wraps, floats truncate); empty for strings.
    pub fn to_i64s(&self) -> Vec<i64> {
        fn narrow<T: Element>(tensor: &Tensor) -> Vec<i64> {
            tensor.to_slice::<T>().map_or_else(|_| vec![], |s| s.iter().map(|v| v.to_i64()).collect())
        }
        match self.dtype {
            DType::I16 => narrow::<i16>(self),
            DType::U16 => narrow::<u16>(self),
            DType::I32 => narrow::<i32>(self),
            DType::U32 => narrow::<u32>(self),
            DType::I64 => narrow::<i64>(self),
            DType::U64 => narrow::<u64>(self),
            DType::I8 | DType::I4 | DType::I2 => self.bytes().iter().map(|&b| b as i8 as i64).collect(),
            DType::U8 | DType::U4 | DType::U2 | DType::Bool => {
                self.bytes().iter().map(|&b| b as i64).collect()
            }
            _ => self.to_f64s().into_iter().map(|v| v as i64).collect(),
        }
    }

    /// The two parts of complex numbers as a last dim of 2, in the dtype of the parts; `None` for other dtypes. Data
    /// are shared.
    pub fn parts(&self) -> Option<Self> {
        let dtype = match self.dtype {
            DType::C64 => DType::F32,
            DType::C128 => DType::F64,
            _ => return None,
        };
        let mut shape = self.shape.clone();
        shape.push(2);
        Some(Tensor { dtype, shape, data: self.data.clone() })
    }

    /// The same bytes as elements of another dtype of the same size.
    ///
    /// **Errors**: the sizes differ, or either is of strings. That the bytes are elements of the dtype (bool is 0 or 1)
    /// is for the caller to see to.
    pub fn with_dtype(&self, dtype: DType) -> Result<Self, TensorError> {
        Tensor::from_bytes(dtype, &self.shape, self.shared_bytes())
    }

    /// The same data under another shape.
    ///
    /// **Errors**: the element counts differ.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Self, TensorError> {
        if checked_len(shape) != Some(self.len()) {
            return Err(TensorError::Reshape { from: self.shape.clone(), to: shape.to_vec() });
        }
        Ok(Tensor { dtype: self.dtype, shape: shape.to_vec(), data: self.data.clone() })
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for i in (1..self.rank()).rev() {
            strides[i - 1] = usize::wrapping_mul(strides[i], self.shape[i]);
        }
        strides
    }
}

impl PartialEq for Tensor {
    /// Same dtype, shape and bits: NaN equals the same NaN, and -0 differs from 0.
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && same_bytes(self.bytes(), other.bytes())
            && self.strings() == other.strings()
    }
}

/// Bytes that are shared are not read: they may be gigabytes of a mapped file.
fn same_bytes(left: &[u8], right: &[u8]) -> bool {
    std::ptr::eq(left, right) || left == right
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        if self.len() <= 16 && self.dtype != DType::String {
            write!(f, " {:?}", self.parts().as_ref().unwrap_or(self).to_f64s())?;
        }
        Ok(())
    }
}
