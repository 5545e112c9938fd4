//! What can go wrong between a file and a program.

use rabot_codegen::CodegenError;
use rabot_ir::GraphError;
use rabot_kernel::PlanError;
use rabot_onnx::{ExportError, ImportError};
use rabot_rewrite::{PassError, PipelineError};
use rabot_runtime::RunError;
use rabot_target::TargetError;
use std::path::PathBuf;

/// A model cannot be compiled or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The model cannot be written as an ONNX file.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A `.rbt` file or what belongs to it cannot be read or written.
    #[error("`{}`: {reason}", .path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A pass failed in a way that it should not, and the graph it was given is kept.
    #[error("{error}\nthe graph that the pass was given is in `{}`", .path.display())]
    Reproducible {
        /// What the pass did.
        error: PassError,
        /// The graph, as a model for the command line.
        path: PathBuf,
    },
    /// No such target, or not here.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The text is no pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The graph is not valid.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A dim was named that the model does not have.
    #[error("the model has no symbolic dim `{name}`; it has {}", if .known.is_empty() { "none" } else { .known })]
    UnknownDim {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A rewrite was to be left out that no pass makes.
    #[error(
        "there is no rewrite `{rule}` at `{node}` to leave out; `rabot debug --explain` lists those that are made"
    )]
    NoRewrite {
        /// The rule.
        rule: String,
        /// The node.
        node: String,
    },
    /// The graph cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Code cannot be generated.
    #[error(transparent)]
    Codegen(#[from] CodegenError),
    /// The program cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
}
