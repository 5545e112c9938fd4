//! Machine code from plans.
//!
//! Kernels become Cranelift IR (`clif`), which is compiled for the instruction set of a
//! [`rabot_target::Profile`], into memory ([`compile_jit`]) or into an
//! object file ([`emit_object`]).

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod clif;
mod compile;
mod error;
mod header;
mod isa;
mod module;
mod object;
mod prim;
mod x64;

pub use error::{CodegenError, KernelError};
pub use module::{JitProgram, KernelFn, asm_text, clif_text, compile_jit};
pub use object::{ObjectFile, emit_object};
