//! Element types and dense tensors: what every other crate of rabot agrees on.
//!
//! A [`Tensor`] is a dtype, a shape and reference-counted little-endian bytes. Cloning one never
//! copies its data, so weights stay in the memory-mapped model file they came from.

#![forbid(unsafe_code)]

mod dtype;
mod element;
mod float8;
mod tensor;

pub use dtype::DType;
pub use element::Element;
pub use float8::Float8;
pub use tensor::{Tensor, TensorError};
