//! Passes that make fewer nodes, or fewer kernels, of many.

mod affine;
mod before;
pub mod compact;
mod composite;
pub mod fusion;
pub mod group;
mod moved;
pub mod qdq;
pub mod reassociate;
mod scaled;
mod slices;
pub mod subpixel;
