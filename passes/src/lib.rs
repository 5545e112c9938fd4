//! The passes of rabot, one file each, and the pipelines made of them.

#![forbid(unsafe_code)]

pub mod canonicalize;
pub mod convert;
pub mod fuse;
pub mod prune;
pub mod quantize;
mod registry;

#[cfg(test)]
mod check;
#[cfg(test)]
mod random;
#[cfg(test)]
mod sound;

pub use registry::{
    DEFAULT_PIPELINE, PASSES, default_pipeline, default_pipeline_with, file_pipeline, level, pipeline,
};
