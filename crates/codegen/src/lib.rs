//! Machine code from plans.
//!
//! Kernels become Cranelift IR (`clif`), which is compiled for the instruction set of a
//! [`rabot_target::Profile`].

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod clif;
mod error;

pub use error::{CodegenError, KernelError};
