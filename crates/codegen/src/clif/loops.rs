//! Loop kernels.
