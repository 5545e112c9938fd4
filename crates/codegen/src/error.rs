//! What can go wrong while making code.

use rabot_tensor::DType;
use std::sync::Arc;

/// A kernel description asks for something that no code can be made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// An operation is not defined for a dtype.
    #[error("`{operation}` is not compiled for {dtype}; cast its operands or run the op on the host")]
    DType {
        /// The operation.
        operation: String,
        /// The dtype.
        dtype: DType,
    },
    /// A dtype cannot be held in registers.
    #[error("elements of {0} are not compiled; cast them on the host first")]
    Element(DType),
    /// No C library function has that name, or it takes another number of operands.
    #[error("the C library function `{0}` is not among those that compiled code may call")]
    Libm(String),
    /// A number in the description points at nothing.
    #[error("the kernel description is inconsistent: {what} {index} of {count}")]
    Index {
        /// What is numbered.
        what: &'static str,
        /// The number.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// Two parts of the description do not fit together.
    #[error("the kernel description is inconsistent: {0}")]
    Inconsistent(String),
    /// The code generator underneath refused the function.
    #[error("Cranelift: {0}")]
    Backend(String),
}

/// Code could not be made for a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodegenError {
    /// A kernel could not be compiled.
    #[error("kernel {kernel} (from {}): {reason}", sources.join(", "))]
    Kernel {
        /// Name of the kernel.
        kernel: String,
        /// Names of the source nodes of the calls.
        sources: Vec<Arc<str>>,
        /// Why.
        reason: KernelError,
    },
    /// There is no kernel with this index.
    #[error("the plan has {count} kernels; there is no kernel {index}")]
    NoKernel {
        /// The index asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The code generator has no back end for the profile.
    #[error("profile `{profile}`: {reason}")]
    Target {
        /// Name of the profile.
        profile: String,
        /// What Cranelift said.
        reason: String,
    },
    /// The code would not run on this machine.
    #[error(transparent)]
    NotHere(#[from] rabot_target::TargetError),
    /// Code could not be placed in memory or in an object file.
    #[error("module: {0}")]
    Module(String),
    /// An object file can only hold plans whose sizes are all constants.
    #[error(
        "an object file needs constant dims, but {what} depends on `{dim}`; give the dim a value when compiling"
    )]
    Symbolic {
        /// What depends on it.
        what: String,
        /// The expression.
        dim: String,
    },
    /// An object file cannot call Rust functions.
    #[error("an object file cannot hold host ops: {}", ops.join("; "))]
    HostOps {
        /// Each op, its source node and why it is not compiled.
        ops: Vec<String>,
    },
    /// The system keeps the tile unit from this process.
    #[error(
        "code for `{profile}` needs the tile unit, which the system does not grant ({reason}); compile for x86-64-v4"
    )]
    TileUnit {
        /// Name of the profile.
        profile: String,
        /// What the system said.
        reason: String,
    },
    /// The plan contradicts itself.
    #[error("the plan is inconsistent: {0}")]
    Plan(String),
}
