//! Reads ONNX files into rabot's IR.
//!
//! This crate knows nothing of passes or kernels. Everything in a file is untrusted.

#![forbid(unsafe_code)]

mod dtype;
mod error;
mod external;
mod limits;
mod scan;
mod tensor;
pub mod wire;

pub use error::{
    AttributeProblem, ExternalProblem, ImportError, TensorProblem, UnsupportedNode, UnsupportedNodes,
    WireProblem,
};
pub use limits::Limits;
