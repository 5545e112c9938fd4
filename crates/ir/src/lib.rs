//! The intermediate representation: graph, ops, symbolic dims, inference, verifier, text and interpreter.
//!
//! This crate knows nothing of ONNX files, passes or machine code.

#![forbid(unsafe_code)]

mod attrs;
pub mod budget;
mod datum;
mod dim;
mod graph;
pub mod interp;
pub mod ops;
pub mod testing;
pub mod text;
mod types;
pub mod verify;

pub use attrs::{Attr, Attrs};
pub use datum::{Datum, Map};
pub use dim::{Atom, Dim, DimError, is_reserved};
pub use graph::{Graph, GraphError, GraphOutput, Node, NodeId, NodeOutput, Value};
pub use ops::{Op, OpError};
pub use types::{Fact, Form, MAX_TRACKED_ELEMENTS, UNKNOWN_DIM, ValueType};
