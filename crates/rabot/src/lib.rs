//! rabot compiles trained models: an ONNX file goes in at one end, machine code that gives right answers comes out at
//! the other, and every step between can be looked at.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rabot::{Options, Session, Tensor, Tensors};
//!
//! let program = rabot::compile(concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits.onnx"), &Options::default())?;
//! let session = Session::new(&program)?;
//! let image = Tensor::from_vec(&[1, 1, 8, 8], vec![0.5f32; 64]);
//! let outputs = session.run(&Tensors::from_iter([("image".to_owned(), image)]))?;
//! assert_eq!(outputs["logits"].shape(), [1, 10]);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod build;
mod cache;
pub mod conformance;
mod error;
pub mod npz;
mod options;
pub mod recipe;
pub mod snapshot;

pub use build::{
    Compiled, all_left_out, compile, compile_graph, export, import, lower, optimize, specialize,
};
pub use error::Error;
pub use options::Options;
pub use rabot_codegen as codegen;
pub use rabot_debug as debug;
pub use rabot_ir as ir;
pub use rabot_kernel as kernel;
pub use rabot_onnx as onnx;
pub use rabot_passes as passes;
pub use rabot_rewrite as rewrite;
pub use rabot_runtime::{Observed, Program, RunError, Session, Tensors};
pub use rabot_target::{Profile, TargetError};
pub use rabot_tensor::{DType, Tensor};
