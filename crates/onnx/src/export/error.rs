//! Why a model cannot be exported.

use rabot_ir::GraphError;
use std::io;
use std::path::PathBuf;

/// A model cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A node has no form in the operator set.
    #[error(
        "{op} `{node}` cannot be written in operator set {opset}{}: {reason}{}",
        in_domain(.domain),
        way_out(*.lowest)
    )]
    Node {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Domain of the operator; empty for ONNX's own.
        domain: String,
        /// Version of the domain's operator set.
        opset: i64,
        /// What cannot be said in it.
        reason: String,
        /// The lowest version in which it can be said, if there is one.
        lowest: Option<i64>,
    },
    /// There is no such operator set, or it is too old.
    #[error("operator set {asked}: models are written in operator sets {oldest} to {newest}")]
    Opset {
        /// What was asked for.
        asked: i64,
        /// The oldest there is.
        oldest: i64,
        /// The newest there is.
        newest: i64,
    },
    /// Two inputs or outputs of the model have the same name.
    #[error("{what} `{name}` of the graph has the name of another value that must keep it")]
    Duplicate {
        /// Input or output.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The model file would be larger than a protocol buffer message may be.
    #[error(
        "the model takes {bytes} bytes without what can be in a file of its own; at most {limit} are allowed"
    )]
    TooLarge {
        /// How large it would be.
        bytes: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The file of weights gets its name from that of the model.
    #[error("`{}`: a model with weights in a file of their own needs a file name in UTF-8", .0.display())]
    Location(PathBuf),
    /// The file cannot be written.
    #[error("cannot write `{}`: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The graph is not valid.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

fn in_domain(domain: &str) -> String {
    if domain.is_empty() { String::new() } else { format!(" of `{domain}`") }
}

fn way_out(lowest: Option<i64>) -> String {
    match lowest {
        Some(lowest) => format!("; the lowest operator set that can say it is {lowest}"),
        None => "; no operator set can say it".to_owned(),
    }
}
