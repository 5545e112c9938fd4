//! Element types and dense tensors: what every other crate of rabot agrees on.
//!
//! A [`Tensor`] is a dtype, a shape and reference-counted little-endian bytes. Cloning one never
//! copies its data, so weights stay in the memory-mapped model file they came from.

#![forbid(unsafe_code)]

mod dtype;
mod element;
mod packed;
mod short_float;
mod tensor;

pub use dtype::DType;
pub use element::{Element, bf16_of_u64};
pub use packed::{pack_bits, unpack_bits};
pub use short_float::{RoundMode, ShortFloat};
pub use tensor::{Tensor, TensorError};
