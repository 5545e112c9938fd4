//! Passes that bring a graph into its simplest form without changing a bit of what it computes.

pub mod algebra;
mod copy;
pub mod cse;
pub mod dce;
pub mod fold;
pub mod unroll;
pub(crate) mod views;
