//! Kernels as Cranelift IR: any instruction set that Cranelift has, vectors of 128 bits.

pub mod access;
pub mod cast;
pub mod composite;
pub mod context;
pub mod contract;
mod contract_build;
mod contract_epilogue;
mod contract_leaf;
mod contract_micro;
mod contract_tiles;
pub mod expr;
pub(crate) mod functions;
pub mod libm;
pub mod loops;
pub mod math;
pub mod ops;
mod pack;
mod pack_patches;
mod pack_wide;
mod reduce;
mod stage;
mod tile_cut;
mod tile_products;
mod wide;
