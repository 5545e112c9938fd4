//! Signals: Fourier transforms, windows, mel filters.
//!
//! Complex numbers are a last axis of length 2, real and imaginary part; a last axis of length 1 is real.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__DFT.html>, <https://onnx.ai/onnx/operators/onnx__STFT.html>,
//! <https://onnx.ai/onnx/operators/onnx__HannWindow.html>, <https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html>

mod dft;
mod fourier;
mod mel;
mod stft;
mod window;

pub use dft::Dft;
pub use mel::MelWeightMatrix;
pub use stft::Stft;
pub use window::{SignalWindow, WindowKind};

use super::OpError;
use super::util::expect_dtype;
use crate::{Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// The flag `name`. **Errors**: it is neither 0 nor 1.
fn flag(attrs: &Attrs, name: &str, default: bool) -> Result<bool, OpError> {
    match attrs.int(name, default.into())? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(OpError::Attribute {
            name: name.to_owned(),
            value: other.to_string(),
            reason: "expected 0 or 1".to_owned(),
        }),
    }
}

/// Checks that an operand is one integer, and gives it if it is known.
fn length_fact(slot: usize, fact: &Fact) -> Result<Option<Dim>, OpError> {
    expect_dtype(slot, fact.dtype(), "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
    if fact.rank() > 1 || !fact.ty.elements().is(1) {
        return Err(OpError::Shape(format!("input {slot} is {}, expected a scalar", fact.ty)));
    }
    Ok(fact.dims().and_then(|mut dims| dims.pop()))
}

/// The only element of an operand.
fn integer(slot: usize, tensor: &Tensor) -> Result<i64, OpError> {
    match tensor.to_i64s().as_slice() {
        [value] => Ok(*value),
        _ => Err(OpError::Shape(format!("input {slot} has shape {:?}, expected a scalar", tensor.shape()))),
    }
}

/// A length from data. **Errors**: it is below `least`.
fn length(what: &str, value: i64, least: usize) -> Result<usize, OpError> {
    let length = usize::try_from(value).ok().filter(|&length| length >= least);
    length.ok_or_else(|| OpError::Value(format!("{what} is {value}, expected at least {least}")))
}

/// True for dtypes that windows and filters may have.
fn is_window_dtype(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
        || (dtype.is_int() && dtype.bits() >= 8)
}
