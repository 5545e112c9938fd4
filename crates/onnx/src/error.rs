//! Why a model cannot be imported.

use crate::limits::flag;
use rabot_ir::GraphError;
use rabot_tensor::DType;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A model cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be opened, mapped or read.
    #[error("cannot read `{}`: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The model is larger than it may be.
    #[error(
        "{what}: {actual}, but at most {limit} is allowed (raise {} if the file is trusted)",
        flag(field)
    )]
    Limit {
        /// What is too large, with its name.
        what: String,
        /// How large it is, or the first count past the limit.
        actual: u64,
        /// How large it may be.
        limit: u64,
        /// The field of [`Limits`](crate::Limits).
        field: &'static str,
    },
    /// The bytes are no protocol buffer message.
    #[error("not an ONNX model: byte {offset}: {problem}")]
    Wire {
        /// Position in the file.
        offset: usize,
        /// What is wrong there.
        problem: WireProblem,
    },
    /// The bytes are a protocol buffer message of another schema.
    #[error("not an ONNX model: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The file holds no graph.
    #[error("the file holds no graph: it is empty or no ONNX model")]
    NoGraph,
    /// The file does not say which version of an operator set its nodes mean.
    #[error("{op} `{node}`: the model imports no operator set for domain `{domain}`")]
    NoOpset {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Domain of the operator.
        domain: String,
    },
    /// A value of the graph has no name.
    #[error("{what} of graph `{graph}` has no name")]
    Unnamed {
        /// Which value.
        what: String,
        /// Name of the graph.
        graph: String,
    },
    /// Two values of a graph have the same name.
    #[error("value `{name}` is defined twice: by {first} and by {second}")]
    Duplicate {
        /// The name.
        name: String,
        /// What defines it.
        first: String,
        /// What defines it again.
        second: String,
    },
    /// A node takes a value that nothing makes.
    #[error("{op} `{node}`: nothing makes its input `{input}`")]
    UndefinedInput {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Name of the value.
        input: String,
    },
    /// A graph gives out a value that nothing makes.
    #[error("nothing makes output `{output}` of graph `{graph}`")]
    UndefinedOutput {
        /// Name of the graph.
        graph: String,
        /// Name of the value.
        output: String,
    },
    /// Nodes depend on each other in a circle.
    #[error("{op} `{node}` depends on its own output")]
    Cycle {
        /// Name of one of the nodes.
        node: String,
        /// Its operator.
        op: String,
    },
    /// A tensor's data are not what its type says.
    #[error("tensor `{tensor}`: {problem}")]
    Tensor {
        /// Name of the tensor, or of the node and attribute that hold it.
        tensor: String,
        /// What is wrong.
        problem: TensorProblem,
    },
    /// A value that is no tensor is not what its type says.
    #[error("value `{value}`: {problem}")]
    Datum {
        /// Name of the value.
        value: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An attribute is not well formed.
    #[error("{op} `{node}`: attribute `{attribute}` {problem}")]
    Attribute {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Name of the attribute.
        attribute: String,
        /// What is wrong.
        problem: AttributeProblem,
    },
    /// A function calls itself.
    #[error("function `{0}` calls itself")]
    Recursion(String),
    /// The body of a loop does not fit the node that holds it.
    #[error("{op} `{node}`: {problem}")]
    Body {
        /// Name of the node.
        node: String,
        /// Its op.
        op: String,
        /// What does not fit.
        problem: String,
    },
    /// A node has the wrong number of operands, or operands of the wrong shape.
    #[error(transparent)]
    Node(#[from] GraphError),
    /// The model is valid, as far as it could be read, and holds what rabot does not support.
    #[error("{0}")]
    Unsupported(UnsupportedNodes),
}

/// Why bytes are no protocol buffer message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireProblem {
    /// The bytes end within a field.
    #[error("the file ends within a field; is it complete?")]
    Truncated,
    /// A number has more than ten bytes.
    #[error("a variable-length number does not end")]
    Varint,
    /// A field has a wire type or a number that does not exist.
    #[error("no field starts like this")]
    Field,
    /// Messages are nested too deeply.
    #[error("messages are nested more than 100 deep")]
    Depth,
    /// The bytes unfold to far more than their size.
    #[error("its messages need more than the {0} bytes allowed (--max-message-bytes)")]
    Blowup(u64),
    /// A name is too long.
    #[error("a name or text of {0} bytes, but at most {1} are allowed (--max-name-bytes)")]
    Name(u64, u64),
}

/// Why a tensor of a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TensorProblem {
    /// A dim is negative.
    #[error("dims {0:?} include a negative one")]
    NegativeDim(Vec<i64>),
    /// There are too many dims.
    #[error("{rank} dims, but at most {limit} are allowed ({})", flag("rank"))]
    Rank {
        /// Number of dims.
        rank: usize,
        /// The limit.
        limit: usize,
    },
    /// The tensor is larger than it may be.
    #[error("dims {dims:?} make more than the {limit} bytes allowed ({})", flag(field))]
    TooLarge {
        /// The dims.
        dims: Vec<i64>,
        /// The limit.
        limit: u64,
        /// The field of [`Limits`](crate::Limits).
        field: &'static str,
    },
    /// rabot has no such element type.
    #[error("element type {name} (code {code}) is not supported")]
    DType {
        /// The code in the file.
        code: i32,
        /// Its name in the schema.
        name: &'static str,
    },
    /// There is more or less data than the dims say.
    #[error("{dtype}{dims:?} needs {expected} {unit} of data, found {actual}")]
    Count {
        /// Element type.
        dtype: DType,
        /// The dims.
        dims: Vec<i64>,
        /// Count that the dims ask for.
        expected: usize,
        /// What is counted: bytes, values.
        unit: &'static str,
        /// Count in the file.
        actual: usize,
    },
    /// A string is no UTF-8.
    #[error("string {0} is not UTF-8")]
    Utf8(usize),
    /// The tensor is a segment of one that is spread over several messages.
    #[error("tensors in segments are not supported")]
    Segment,
    /// Indices of a sparse tensor are out of range, or not as many as its values.
    #[error("indices of the sparse tensor are {0}")]
    SparseIndices(String),
    /// A part of a sparse tensor is absent.
    #[error("the sparse tensor has no {0}")]
    SparsePart(&'static str),
    /// The data are in another file, which cannot be used.
    #[error("external data `{location}`: {problem}")]
    External {
        /// Where the file says they are.
        location: String,
        /// What is wrong.
        problem: ExternalProblem,
    },
}

/// Why external data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExternalProblem {
    /// The model was given as bytes.
    #[error("the model did not come from a folder, so there is nothing beside it")]
    NoFolder,
    /// The location is absolute or leads out of the folder.
    #[error("the location leads out of the model's folder; only files within it are read")]
    Outside,
    /// `offset` or `length` is no number.
    #[error("`{key}` is `{value}`, expected a number of bytes")]
    Number {
        /// `offset` or `length`.
        key: &'static str,
        /// What the file says.
        value: String,
    },
    /// The range is not within the file.
    #[error("{length} bytes at {offset} are not within the file of {file_bytes} bytes")]
    Range {
        /// Start of the data.
        offset: u64,
        /// Size of the data.
        length: u64,
        /// Size of the file.
        file_bytes: u64,
    },
    /// The stated length is not that of the tensor.
    #[error("`length` is {length}, but the tensor has {expected} bytes")]
    Length {
        /// What the file says.
        length: u64,
        /// What dims and element type say.
        expected: u64,
    },
    /// An entry has a key that the format does not define.
    #[error("the key `{0}` is not known; known are location, offset, length and checksum")]
    Key(String),
    /// A key is there twice.
    #[error("the key `{0}` is given twice")]
    Twice(&'static str),
    /// The location is a directory, a pipe or a device.
    #[error("it is not a regular file")]
    Kind,
    /// The file has other names, which may be outside.
    #[error("the file has {0} hard links, so it may be one from elsewhere (--follow-links allows it)")]
    HardLink(u64),
    /// The file is too large.
    #[error("the file has {actual} bytes, but at most {limit} are allowed ({})", flag("file_bytes"))]
    Limit {
        /// Size of the file.
        actual: u64,
        /// The limit.
        limit: u64,
    },
    /// The file cannot be opened, mapped or read.
    #[error("{0}")]
    Read(#[from] io::Error),
}

/// Why an attribute cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeProblem {
    /// It has no value, or none of the kind that it says it has.
    #[error("has no value")]
    NoValue,
    /// Its text is no UTF-8.
    #[error("is not UTF-8")]
    Utf8,
    /// There are two of this name.
    #[error("is given twice")]
    Twice,
    /// Its value is not one the op can have.
    #[error("is {value}, expected {expected}")]
    Value {
        /// The value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

/// A node, initializer or input that rabot does not support.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedNode {
    /// Name in the model.
    pub node: String,
    /// Operator, or `Input` or `Initializer`.
    pub op: String,
    /// Domain of the operator; empty for ONNX's own.
    pub domain: String,
    /// Version of the operator set.
    pub opset: i64,
    /// What is not supported.
    pub reason: String,
    /// The way around, where there is one.
    pub hint: Option<String>,
}

impl fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = if self.domain.is_empty() { "" } else { "::" };
        write!(f, "{}{domain}{} `{}`", self.domain, self.op, self.node)?;
        write!(f, " (opset {}): {}", self.opset, self.reason)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// All that a model holds and rabot does not support.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedNodes(pub Vec<UnsupportedNode>);

impl fmt::Display for UnsupportedNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the model holds {} unsupported node(s):", self.0.len())?;
        self.0.iter().try_for_each(|node| write!(f, "\n  {node}"))
    }
}

/// Why one node cannot be converted.
pub(crate) enum Failure {
    /// The node is put on the list of unsupported ones, and the rest is looked at.
    Unsupported {
        /// What is not supported.
        reason: String,
        /// The way around.
        hint: Option<&'static str>,
    },
    /// An operand is the result of an unsupported node: nothing to say.
    Poisoned,
    /// The model is not valid.
    Invalid(ImportError),
}

impl Failure {
    /// A reason without a way around.
    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Failure::Unsupported { reason: reason.into(), hint: None }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Tensor { problem: problem @ TensorProblem::DType { .. }, .. } => {
                Failure::unsupported(problem.to_string())
            }
            other => Failure::Invalid(other),
        }
    }
}
