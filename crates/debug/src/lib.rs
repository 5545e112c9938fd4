//! Looking at what a pipeline and its kernels do to a model's numbers.
//!
//! - [`compare`](compare()): the compiled program against the interpreter, value by value.
//! - [`trace`](trace()): a pipeline pass by pass, with sizes, times and the error each pass adds.
//! - [`bisect`]: which step breaks a check.
//! - [`golden`]: outputs that are kept, and which pass moved them.
//! - [`reduce`](mod@reduce): the smallest model that still fails.
//! - [`predict`]: the time of a plan, by a model of the target.
//! - [`taps`]: values from inside kernels, stored by the kernels themselves.
//! - [`ledger`]: what each pass contributed, and what moved between two of them.
//! - [`tolerance`]: how far rounding can move a value, derived from the graph.
//!
//! This crate knows nothing of ONNX files or of the command line.

#![forbid(unsafe_code)]

pub mod bisect;
mod compare;
mod difference;
mod digest;
mod error;
pub mod golden;
pub mod ledger;
mod measure;
pub mod predict;
pub mod reduce;
pub mod report;
pub mod taps;
pub mod tolerance;
mod trace;

pub use compare::{Comparison, Row, Skipped, compare};
pub use difference::Difference;
pub use digest::digest;
pub use error::DebugError;
pub use measure::{Measured, count_kernels, measure};
pub use predict::Predicted;
pub use tolerance::{Tolerance, Verdict};
pub use trace::{
    Change, CompiledRow, OutputError, PassVerdict, SkippedChange, Trace, TraceOptions, TraceRow, ValueError,
    trace,
};

use indexmap::IndexMap;
use rabot_tensor::Tensor;

/// Tensors by name, in order.
pub type Tensors = IndexMap<String, Tensor>;
