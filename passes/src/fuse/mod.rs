//! Passes that make fewer nodes, or fewer kernels, of many.

mod affine;
mod composite;
pub mod fusion;
pub mod group;
