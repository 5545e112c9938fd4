//! What a report holds, as it is written in JSON.
//!
//! A stage says only what differs from the stage before it: a model of thousands of nodes and ten passes is then
//! little more than the model.

use serde::{Serialize, Serializer};

/// Version of the data; the page refuses others.
pub const VERSION: u32 = 1;

/// Runs of models.
#[derive(Clone, Debug, Serialize)]
pub struct ReportData {
    /// [`VERSION`].
    pub version: u32,
    /// The runs, at most [`super::MAX_RUNS`].
    pub runs: Vec<Run>,
}

/// A pipeline on a model.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The model's file or name.
    pub model: String,
    /// The pipeline as text.
    pub pipeline: String,
    /// Name of the target.
    pub target: String,
    /// The machine that took the times: instruction set and cores.
    pub machine: String,
    /// Threads of the compiled program.
    pub threads: usize,
    /// Names of nodes and values; numbers elsewhere are positions in this list.
    pub names: Vec<String>,
    /// The graph before all passes, then after each.
    pub stages: Vec<Stage>,
    /// The compiled program's row.
    pub compiled: LedgerRow,
    /// Kernels of the last graph, in the order of their calls.
    pub kernels: Vec<KernelData>,
    /// Machine code of the kernels, each distinct one once.
    pub code: Vec<CodeData>,
}

/// The graph after one pass, against that before it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stage {
    /// The pass with its options; `import` for the first.
    pub pass: String,
    /// Its row of the ledger.
    pub ledger: LedgerRow,
    /// Changes made.
    pub applied: Vec<ChangeData>,
    /// Changes not made; the detail is the reason.
    pub skipped: Vec<ChangeData>,
    /// Nodes that are new or not as before.
    pub nodes: Vec<NodeData>,
    /// Nodes that are gone.
    pub removed: Vec<usize>,
    /// Values whose numbers are new or not as before.
    pub values: Vec<ValueData>,
    /// Outputs of the graph, if they are not those of the stage before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<PortData>>,
}

/// A change that a pass made or did not make.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeData {
    /// The rule.
    pub rule: String,
    /// Name of the node.
    pub node: String,
    /// What became of it, or why nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeData {
    /// Its name. Where several nodes have the same one, the later ones have a number behind it.
    pub id: usize,
    /// The operator.
    pub op: String,
    /// Attributes as text; of a constant, its first elements.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub attrs: String,
    /// Operands: node and output of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Option<(usize, u32)>>,
    /// Results.
    pub outputs: Vec<OutputData>,
    /// The model's own nodes that it stands for, unless that is its own name alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<usize>>,
    /// The group that becomes one kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
}

/// A result of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputData {
    /// Name of the value.
    pub name: usize,
    /// Dtype and shape.
    #[serde(rename = "type")]
    pub ty: String,
}

/// An output of the graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortData {
    /// The name that callers see.
    pub name: String,
    /// Node and output of it.
    pub value: (usize, u32),
}

/// The numbers in a value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueData {
    /// Its name.
    pub name: usize,
    /// Shape on these inputs; absent where the numbers are as before and only the error is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<usize>>,
    /// Its distribution; absent for text and complex numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Statistics>,
    /// How far it is off; absent where nothing differs, or the first graph has no such value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorData>,
}

/// The distribution of a tensor's elements. Extremes, mean and deviation are those of the finite ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// Smallest element.
    pub min: Number,
    /// Largest element.
    pub max: Number,
    /// Mean.
    pub mean: Number,
    /// Standard deviation.
    pub std: Number,
    /// Elements that are 0.
    pub zeros: u64,
    /// Elements that are no number.
    pub nan: u64,
    /// Infinite elements.
    pub inf: u64,
    /// Number of elements in each of 32 bins of equal width from `min` to `max`; empty if all are the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub histogram: Vec<u64>,
}

/// How far a value is off from the value of the same name in the first graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorData {
    /// Largest distance.
    pub max: Number,
    /// Largest distance over the largest magnitude.
    pub relative: Number,
    /// Root of the mean square distance.
    pub rms: Number,
    /// Signal to noise, in dB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<Number>,
    /// What this pass added: the relative distance from the value before it.
    pub added: Number,
    /// The part of it that the pass injected at this value.
    pub injected: Number,
    /// The part of it that came through operands.
    pub inherited: Number,
}

/// What a pass did, in figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LedgerRow {
    /// What the pass promises.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exactness: String,
    /// What became of the promise, in one word.
    pub verdict: String,
    /// Why, if it is broken.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Operators.
    pub nodes: usize,
    /// Kernels.
    pub kernels: usize,
    /// Bytes of the constants.
    pub constants_bytes: u64,
    /// Time of the pass, or of compiling, in milliseconds.
    pub pass_ms: Number,
    /// Median time of the compiled program, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<Number>,
    /// Predicted time of the compiled program, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_ms: Option<Number>,
    /// Error that the pass added to the outputs, relative to their largest magnitude; that of the worst.
    pub added: Number,
    /// Signal to noise of what it added, in dB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_sqnr_db: Option<Number>,
    /// Error of the outputs against the first graph.
    pub total: Number,
}

/// A call of a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct KernelData {
    /// Name, from its description.
    pub name: String,
    /// `contract`, `loop`, `move` or `host`.
    pub kind: String,
    /// The model's own nodes that it computes.
    pub sources: Vec<usize>,
    /// Values that it writes.
    pub values: Vec<usize>,
    /// Operations: a number, or an expression over symbolic dims.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operations: String,
    /// Median time in nanoseconds, looking at its values included; absent if it was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ns: Option<u64>,
    /// Why it is on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Position of its machine code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<usize>,
}

/// Machine code.
#[derive(Clone, Debug, Serialize)]
pub struct CodeData {
    /// Number of instructions, labels included.
    pub lines: usize,
    /// Assembly, one instruction a line; cut where it is very long.
    pub assembly: String,
}

/// A number with six digits; what is not finite is text: `NaN`, `inf`, `-inf`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Number(pub f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.0.is_finite() {
            return serializer.collect_str(&self.0);
        }
        // Printing gives six digits, reading them back the number that has no more.
        let rounded: f64 = format!("{:.5e}", self.0).parse().unwrap_or(self.0);
        if rounded.fract() == 0.0 && rounded.abs() < 1e15 {
            return serializer.serialize_i64(rounded as i64);
        }
        serializer.serialize_f64(rounded)
    }
}
