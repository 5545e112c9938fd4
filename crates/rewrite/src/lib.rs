//! Passes over graphs: rules, the rewriter that applies them, pipelines as text, and reports.
//!
//! This crate knows no concrete pass; it is what passes are written with.

#![forbid(unsafe_code)]

mod pass;

pub use pass::{Applied, Exactness, Pass, PassCx, PassError, Report, Skipped, Stats};
