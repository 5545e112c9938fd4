//! What can go wrong between a file and a program.

use rabot_codegen::CodegenError;
use rabot_ir::GraphError;
use rabot_kernel::PlanError;
use rabot_onnx::{ExportError, ImportError};
use rabot_rewrite::{PassError, PipelineError};
use rabot_runtime::RunError;
use rabot_target::TargetError;

/// A model cannot be compiled or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The model cannot be written as an ONNX file.
    #[error(transparent)]
    Export(#[from] ExportError),
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
