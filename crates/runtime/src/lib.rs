//! Running compiled plans: programs, sessions, the arena and threads.
//!
//! This crate makes all calls into generated code. It knows nothing of how a plan came to be.

#![deny(clippy::undocumented_unsafe_blocks)]

mod bind;
mod error;
mod leaf;
mod memory;
mod pool;
mod program;
mod session;
mod staged;

pub use error::RunError;
pub use program::Program;
pub use session::{Observed, Session, Tensors};
