//! Reads ONNX files into rabot's IR.
//!
//! This crate knows nothing of passes or kernels. Everything in a file is untrusted.

#![forbid(unsafe_code)]

pub mod wire;
