//! Quantization: layers that compute in integers.

mod calibrate;
pub(crate) mod carry;
pub mod int8;
mod layers;
