//! What can go wrong while looking at a model.

use rabot_codegen::CodegenError;
use rabot_ir::GraphError;
use rabot_ir::interp::InterpError;
use rabot_kernel::PlanError;
use rabot_rewrite::PassError;
use rabot_runtime::RunError;

/// A model cannot be looked at as asked.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// The interpreter cannot evaluate a graph.
    #[error("{stage}: {error}")]
    Interp {
        /// Which graph.
        stage: String,
        /// What the interpreter said.
        error: Box<InterpError>,
    },
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The graph cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Code cannot be generated.
    #[error(transparent)]
    Codegen(#[from] CodegenError),
    /// The program cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The graph is not valid.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A value cannot be tapped.
    #[error(transparent)]
    Tap(crate::taps::TapError),
    /// A failure cannot be searched for.
    #[error("{0}")]
    Bisect(String),
    /// A case cannot be reduced.
    #[error("{0}")]
    Reduce(String),
    /// The text of a ledger is not what it should be.
    #[error("ledger: {0}")]
    Ledger(String),
    /// The text of a golden pack is not what it should be.
    #[error("golden.toml: {0}")]
    Pack(String),
}

impl DebugError {
    /// An error of the interpreter, with the graph that it evaluated.
    pub(crate) fn interp(stage: &str, error: InterpError) -> Self {
        DebugError::Interp { stage: stage.to_owned(), error: Box::new(error) }
    }
}
