//! What a pass is, what it may use, and what it tells.

use crate::gate::Gate;
use crate::pattern::PatternError;
use crate::rewriter::RuleInfo;
use rabot_ir::interp::{InterpError, Tensors};
use rabot_ir::{Dim, Graph, GraphError, Node, NodeId, NodeOutput, Op};
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A transformation of a graph. A struct whose fields are its options; it keeps nothing between runs.
pub trait Pass: fmt::Debug + Send + Sync {
    /// Name in pipelines: `fold`.
    fn name(&self) -> &'static str;

    /// What it does, in one line.
    fn summary(&self) -> &'static str;

    /// How far outputs may move. Tests hold the pass to it.
    fn exactness(&self) -> Exactness;

    /// The rules it applies, in the order in which they are tried; none if it is not made of rules.
    fn rules(&self) -> Vec<RuleInfo> {
        Vec::new()
    }

    /// Options that differ from their defaults, as pipelines spell them: `{sparsity=0.8}`; empty if none does.
    fn options(&self) -> String {
        String::new()
    }

    /// Changes the graph and reports every change made and every one that was possible but not made.
    /// The caller fills in [`Report::before`], [`Report::after`] and [`Report::elapsed`] and verifies the graph.
    ///
    /// **Errors**: the pass cannot do its work at all. The graph may then be half changed.
    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError>;
}

/// How far a pass may move outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exactness {
    /// Not a bit.
    Bitwise,
    /// At most this many units in the last place.
    Ulp(u32),
    /// At most `atol + rtol * max |expected|` of each output.
    Rel {
        /// Factor of the largest magnitude of the output.
        rtol: f64,
        /// Absolute part.
        atol: f64,
    },
    /// As far as the user asked for; the text names the metric that bounds it.
    Changes(&'static str),
}

impl Exactness {
    /// What a pass promises that applies these rules: no more than the loosest of them does.
    pub fn of_rules(rules: &[RuleInfo]) -> Self {
        rules.iter().map(|rule| rule.exactness).fold(Exactness::Bitwise, Exactness::loosest)
    }

    /// The looser of two: what holds for changes of both kinds.
    pub fn loosest(self, other: Self) -> Self {
        use Exactness::{Bitwise, Changes, Rel, Ulp};
        match (self, other) {
            (Rel { rtol: a, atol: b }, Rel { rtol: c, atol: d }) => Rel { rtol: a.max(c), atol: b.max(d) },
            (Ulp(a), Ulp(b)) => Ulp(a.max(b)),
            (Changes(metric), _) | (_, Changes(metric)) => Changes(metric),
            (rel @ Rel { .. }, _) | (_, rel @ Rel { .. }) => rel,
            (ulp @ Ulp(_), Bitwise) | (Bitwise, ulp @ Ulp(_)) => ulp,
            (Bitwise, Bitwise) => Bitwise,
        }
    }
}

impl fmt::Display for Exactness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exactness::Bitwise => write!(f, "bitwise"),
            Exactness::Ulp(count) => write!(f, "{count} ulp"),
            Exactness::Rel { rtol, atol } => write!(f, "rtol {rtol:e}, atol {atol:e}"),
            Exactness::Changes(metric) => write!(f, "changes {metric}"),
        }
    }
}

/// What passes may use besides the graph.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassCx<'a> {
    /// Named input sets to calibrate on; each is one call of the model.
    pub calibration: Option<&'a [Tensors]>,
    /// Leave out rules that only hold for finite values.
    pub strict: bool,
    /// Which changes are let through; all if absent.
    pub gate: Option<&'a Gate>,
    /// Keeps what a pass found out about the graph that it is given, where passes run on it again.
    pub memo: Option<&'a Memo>,
}

/// What passes found out about one graph, by name, for when they run on it again.
#[derive(Debug, Default)]
pub struct Memo(RefCell<HashMap<String, Rc<dyn Any>>>);

impl Memo {
    /// What is kept under a name, or what `make` gives, which is then kept.
    ///
    /// **Errors**: those of `make`.
    pub fn get<T: 'static, E>(&self, name: &str, make: impl FnOnce() -> Result<T, E>) -> Result<Rc<T>, E> {
        let kept = self.0.borrow().get(name).cloned();
        if let Some(kept) = kept.and_then(|kept| kept.downcast::<T>().ok()) {
            return Ok(kept);
        }
        let made = Rc::new(make()?);
        self.0.borrow_mut().insert(name.to_owned(), made.clone());
        Ok(made)
    }
}

impl PassCx<'_> {
    /// True if a change may be made. A pass asks once for each change, right before it makes it, when nothing else can
    /// keep it from doing so; a change that is not admitted is left out without a report.
    pub fn admits(&self, rule: &str, node: &str) -> bool {
        self.gate.is_none_or(|gate| gate.admits(rule, node))
    }

    /// True if no change will be admitted any more: what only serves to make one need not be found out.
    pub fn is_exhausted(&self) -> bool {
        self.gate.is_some_and(Gate::is_exhausted)
    }
}

/// What a pass did and did not do.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Changes made.
    pub applied: Vec<Applied>,
    /// Changes that matched but were not made.
    pub skipped: Vec<Skipped>,
    /// Size of the graph before.
    pub before: Stats,
    /// Size of the graph after.
    pub after: Stats,
    /// Time the pass took, verification not included.
    pub elapsed: Duration,
}

impl Report {
    /// Notes a change.
    pub fn apply(&mut self, rule: &'static str, node: impl fmt::Display, detail: impl Into<String>) {
        self.apply_to(rule, node, detail, Vec::new());
    }

    /// Notes a change, and the model's own nodes that it is about.
    pub fn apply_to(
        &mut self,
        rule: &'static str,
        node: impl fmt::Display,
        detail: impl Into<String>,
        sources: Vec<Arc<str>>,
    ) {
        self.applied.push(Applied { rule, node: node.to_string(), detail: detail.into(), sources });
    }

    /// Notes a change that was not made, and why.
    pub fn skip(&mut self, rule: &'static str, node: impl fmt::Display, reason: impl Into<String>) {
        self.skipped.push(Skipped { rule, node: node.to_string(), reason: reason.into() });
    }

    /// Appends the changes of another report.
    pub fn extend(&mut self, other: Report) {
        self.applied.extend(other.applied);
        self.skipped.extend(other.skipped);
    }
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The rule: `conv-batch-norm`.
    pub rule: &'static str,
    /// Name of the node it was made at.
    pub node: String,
    /// What became of it, in words.
    pub detail: String,
    /// Names of the model's own nodes that it is about; empty where the node itself tells.
    pub sources: Vec<Arc<str>>,
}

/// A change that was possible by its pattern and was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The rule.
    pub rule: &'static str,
    /// Name of the node.
    pub node: String,
    /// Why not, with the values that decided: "conv_12: output used twice".
    pub reason: String,
}

/// Size of a graph; branches of conditionals count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Operators: nodes other than inputs and constants.
    pub nodes: usize,
    /// Constants.
    pub constants: usize,
    /// Bytes of the constants.
    pub constants_bytes: u64,
    /// Operations of convolutions and matrix products of the graph itself, multiply and add both counted.
    pub flops: Dim,
    /// Kernels, if each group were one and so were each node without a group. Reshapes are none, nor is what
    /// inference knows.
    pub kernels: usize,
}

impl Default for Stats {
    fn default() -> Self {
        Stats { nodes: 0, constants: 0, constants_bytes: 0, flops: Dim::from(0), kernels: 0 }
    }
}

impl Stats {
    /// Counts a graph.
    pub fn of(graph: &Graph) -> Self {
        let mut stats = Stats::default();
        let mut groups = BTreeSet::new();
        for id in graph.node_ids() {
            let node = graph.node(id);
            match &node.op {
                Op::Input => continue,
                Op::Constant(tensor) => {
                    stats.constants += 1;
                    stats.constants_bytes += tensor.bytes().len() as u64;
                    continue;
                }
                _ => {}
            }
            for (_, region) in node.op.regions() {
                let inner = Stats::of(region);
                stats.nodes += inner.nodes;
                stats.constants += inner.constants;
                stats.constants_bytes += inner.constants_bytes;
                stats.kernels += inner.kernels;
            }
            stats.nodes += 1;
            stats.flops = stats.flops + flops(graph, id);
            let is_free = node.group.is_none() && needs_no_kernel(node);
            if !is_free && node.group.is_none_or(|group| groups.insert(group)) {
                stats.kernels += 1;
            }
        }
        stats
    }
}

/// True for nodes that only say how the elements of their operand are counted, and for those known at compile time.
fn needs_no_kernel(node: &Node) -> bool {
    let known = |output: &NodeOutput| output.fact.constant.is_some() || output.fact.elements.is_some();
    matches!(node.op, Op::Identity(_) | Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_))
        || node.outputs.iter().all(known)
}

/// Operations of a contraction: twice the products that one output element sums, per output element. 0 for other nodes.
pub fn flops(graph: &Graph, id: NodeId) -> Dim {
    let node = graph.node(id);
    let shape = |slot: usize| node.inputs.get(slot).copied().flatten().map(|v| graph.fact(v).shape());
    let product = |dims: &[Dim]| dims.iter().product::<Dim>();
    let summed = match &node.op {
        // Weights are [out, in / group, taps...].
        Op::Conv(_) | Op::ConvInteger(_) => shape(1).and_then(|w| w.get(1..)).map(product),
        Op::QLinearConv(_) => shape(3).and_then(|w| w.get(1..)).map(product),
        Op::MatMul(_) | Op::MatMulInteger(_) | Op::QLinearMatMul(_) => {
            shape(0).and_then(|a| a.last()).cloned()
        }
        Op::Gemm(gemm) => shape(0).and_then(|a| a.get(usize::from(!gemm.trans_a))).cloned(),
        // Weights are [in, out / group, taps...]: each input element is spread over out / group × taps.
        Op::ConvTranspose(_) => {
            let (x, w) = (shape(0).map(product), shape(1).and_then(|w| w.get(1..)).map(product));
            return x.zip(w).map_or(Dim::from(0), |(x, w)| Dim::from(2) * x * w);
        }
        _ => None,
    };
    let outputs = node.outputs.first().map(|o| o.fact.ty.elements());
    summed.zip(outputs).map_or(Dim::from(0), |(k, n)| Dim::from(2) * k * n)
}

/// A pass or a pipeline cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// An edit of the graph was refused.
    #[error("pass `{pass}`: {error}")]
    Graph {
        /// Name of the pass.
        pass: &'static str,
        /// What the graph said.
        error: GraphError,
    },
    /// Evaluating the graph failed.
    #[error("pass `{pass}`: {error}")]
    Interp {
        /// Name of the pass.
        pass: &'static str,
        /// What the interpreter said.
        error: Box<InterpError>,
    },
    /// The pass needs inputs to calibrate on, or other ones.
    #[error("pass `{pass}` needs calibration inputs: {reason}")]
    Calibration {
        /// Name of the pass.
        pass: &'static str,
        /// What is missing and how to give it.
        reason: String,
    },
    /// The model is not one the pass can work on.
    #[error("pass `{pass}` at `{node}`: {reason}")]
    Model {
        /// Name of the pass.
        pass: &'static str,
        /// Name of the node.
        node: String,
        /// Why, with values.
        reason: String,
    },
    /// A rule is not well formed; the unit tests of the pass catch this.
    #[error("pass `{pass}`: {error}")]
    Pattern {
        /// Name of the pass.
        pass: &'static str,
        /// What is wrong with the rule.
        error: PatternError,
    },
    /// Rules kept applying: two of them undo each other.
    #[error("pass `{pass}` made {budget} changes and was not done; the last was `{rule}` at `{node}`")]
    Budget {
        /// Name of the pass.
        pass: &'static str,
        /// Changes allowed.
        budget: usize,
        /// Last rule that applied.
        rule: &'static str,
        /// Node it applied at.
        node: String,
    },
    /// The pass panicked: a fault of rabot's.
    #[error("pass `{pass}` panicked: {message}")]
    Panic {
        /// Name of the pass.
        pass: &'static str,
        /// What it said.
        message: String,
    },
    /// The graph broke an invariant.
    #[error("the graph is not valid {}:\n{errors}", after.as_ref().map_or("before the first pass".to_owned(), |pass| format!("after pass `{pass}`")))]
    Verify {
        /// After which pass, with its options; before the first one if absent.
        after: Option<String>,
        /// Every violation.
        errors: String,
    },
}
