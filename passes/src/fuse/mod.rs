//! Passes that make fewer nodes, or fewer kernels, of many.

mod affine;
pub mod compact;
mod composite;
pub mod fusion;
pub mod group;
