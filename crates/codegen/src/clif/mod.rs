//! Kernels as Cranelift IR: any instruction set that Cranelift has, vectors of 128 bits.

pub mod access;
pub mod cast;
pub mod context;
pub mod expr;
pub mod libm;
pub mod loops;
pub mod math;
pub mod ops;
