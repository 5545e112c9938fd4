//! Quantization: layers that compute in integers.

pub(crate) mod calibrate;
pub(crate) mod carry;
pub mod int8;
mod layers;
