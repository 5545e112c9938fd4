//! Machine code from plans.
//!
//! Kernels become Cranelift IR (`clif`), which is compiled for the instruction set of a
//! [`rabot_target::Profile`], into memory ([`compile_jit`]).

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod clif;
mod compile;
mod error;
mod isa;
mod module;

pub use error::{CodegenError, KernelError};
pub use module::{JitProgram, KernelFn, asm_text, clif_text, compile_jit};
