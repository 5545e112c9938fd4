//! Reads ONNX files into rabot's IR, and writes them.
//!
//! This crate knows nothing of passes or kernels. Everything in a file is untrusted.
//!
//! ```no_run
//! # fn main() -> Result<(), rabot_onnx::ImportError> {
//! let model = rabot_onnx::import_file("model.onnx".as_ref(), &rabot_onnx::Limits::default())?;
//! for output in model.graph.outputs() {
//!     println!("{}: {}", output.name, model.graph.fact(output.value).ty);
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod calls;
mod compose;
mod control;
mod data;
mod datum;
mod dtype;
mod error;
mod export;
mod external;
mod flex;
mod import;
mod legacy;
mod limits;
mod looped;
mod model;
mod names;
mod node;
mod outline;
mod scan;
mod sequence_map;
mod tensor;
mod types;
mod upgrade;
pub mod wire;

pub use data::{read_tensor, write_tensor};
pub use datum::{declared_outputs, read_datum};
pub use error::{
    AttributeProblem, ExternalProblem, ImportError, TensorProblem, UnsupportedNode, UnsupportedNodes,
    WireProblem,
};
pub use export::{ExportError, ExportOptions, Exported, OLDEST_WRITTEN_OPSET, export, export_file};
pub use import::{NEWEST_IR_VERSION, NEWEST_OPSET, import_bytes, import_file};
pub use limits::Limits;
pub use model::{Model, Notes};
pub use outline::{Outline, outline_bytes, outline_file};
pub use upgrade::supported_ops;
