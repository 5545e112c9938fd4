//! Passes over graphs: rules, the rewriter that applies them, pipelines as text, and reports.
//!
//! This crate knows no concrete pass; it is what passes are written with.

#![forbid(unsafe_code)]

mod driver;
mod gate;
mod near;
mod options;
mod pass;
mod pattern;
mod pipeline;
mod rewriter;

pub use driver::Rules;
pub use gate::{Admit, Asked, Gate, RewriteKey};
pub use near::{Blocked, Near, near};
pub use options::{OptionError, OptionInfo, Options, print_options};
pub use pass::{Applied, Exactness, Memo, Pass, PassCx, PassError, Report, Skipped, Stats, flops};
pub use pattern::{Match, Operand, Pattern, PatternError, Term};
pub use pipeline::{PassInfo, Pipeline, PipelineError, Step};
pub use rewriter::{
    Apply, Rewriter, RuleInfo, Skip, Valid, edit_branches, remove_dead, taken_names, unique_name,
};
