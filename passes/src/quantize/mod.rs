//! Quantization: layers that compute in integers.

mod calibrate;
mod carry;
pub mod int8;
mod layers;
