//! What can go wrong in a run.

use rabot_tensor::DType;

/// A program cannot be run on these inputs.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An input has no value.
    #[error("input `{name}` ({ty}) is missing")]
    MissingInput {
        /// Name of the input.
        name: String,
        /// Its type.
        ty: String,
    },
    /// A value was given for an input the model does not have.
    #[error("the model has no input `{name}`; its inputs are {known}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An input is not of the declared type.
    #[error("input `{name}` is {dtype}{shape:?}, expected {ty}")]
    InputType {
        /// Name of the input.
        name: String,
        /// Dtype given.
        dtype: DType,
        /// Shape given.
        shape: Vec<usize>,
        /// The declared type.
        ty: String,
    },
    /// An input that is no tensor is not of the declared type.
    #[error("input `{name}` is {actual}, expected {ty}")]
    InputForm {
        /// Name of the input.
        name: String,
        /// What was given.
        actual: String,
        /// The declared type.
        ty: String,
    },
    /// An output is no tensor, and only tensors were asked for.
    #[error("output `{name}` is {actual}, not a tensor")]
    OutputForm {
        /// Name of the output.
        name: String,
        /// What it is.
        actual: String,
    },
    /// Dims that must be equal are not.
    #[error("`{node}`: dim {left} is {left_value}, but must equal {right}, which is {right_value}")]
    Dims {
        /// The node that asks for it.
        node: String,
        /// One dim.
        left: String,
        /// Its value.
        left_value: i64,
        /// The other.
        right: String,
        /// Its value.
        right_value: i64,
    },
    /// A size cannot be computed, or is negative, or too large.
    #[error("{0}")]
    Size(String),
    /// A kernel met data that it cannot work on.
    #[error("{nodes}: {problem}")]
    Data {
        /// Source nodes of the kernel.
        nodes: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A function on the host failed.
    #[error("{op} ({nodes}): {message}")]
    Host {
        /// Name of the op.
        op: String,
        /// Source nodes.
        nodes: String,
        /// What it said.
        message: String,
    },
    /// Memory for the run cannot be had.
    #[error("cannot allocate {bytes} bytes for {what}")]
    Memory {
        /// How much.
        bytes: usize,
        /// What for.
        what: &'static str,
    },
    /// The tensors of a run are larger than they may be; see [`rabot_ir::budget`].
    #[error("the tensors of this run take {bytes} bytes, but at most {limit} are allowed (--max-memory)")]
    Budget {
        /// How much they take.
        bytes: usize,
        /// How much they may.
        limit: u64,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}
