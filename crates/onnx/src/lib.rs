//! Reads ONNX files into rabot's IR.
//!
//! This crate knows nothing of passes or kernels. Everything in a file is untrusted.

#![forbid(unsafe_code)]

mod control;
mod dtype;
mod error;
mod external;
mod import;
mod legacy;
mod limits;
mod names;
mod node;
mod scan;
mod tensor;
mod upgrade;
pub mod wire;

pub use error::{
    AttributeProblem, ExternalProblem, ImportError, TensorProblem, UnsupportedNode, UnsupportedNodes,
    WireProblem,
};
pub use import::{Model, NEWEST_OPSET, import_bytes, import_file};
pub use limits::Limits;
