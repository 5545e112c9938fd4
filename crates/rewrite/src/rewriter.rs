//! Rules, and what they change graphs with.
//!
//! A rule matches first and changes after, only by adding nodes through the [`Rewriter`]. The driver then puts the
//! new value in the place of the matched root, with its name and the sources of all matched nodes. It refuses a
//! match whose interior values are used elsewhere, so no rule has to.

use crate::pass::{Exactness, PassError};
use crate::pattern::Match;
use rabot_ir::{Fact, Graph, GraphError, Node, NodeId, Op, Value};
use rabot_tensor::Tensor;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// A rewrite rule, as a table holds it. Fields that are not written come from [`RuleInfo::BITWISE`] or from a rule of
/// the table's own that starts from it.
#[derive(Clone, Copy, Debug)]
pub struct RuleInfo {
    /// Name in reports: `conv-batch-norm`.
    pub name: &'static str,
    /// The identity, or where it is written down, in one line: `x * 1 = x`.
    pub identity: &'static str,
    /// How far outputs may move by one application. Tests hold the rule to it.
    pub exactness: Exactness,
    /// For which values the identity holds.
    pub valid: Valid,
    /// What it replaces, as [`Pattern`](crate::Pattern) texts; the first that matches counts.
    pub lhs: &'static [&'static str],
    /// The names bound in each `lhs` that `apply` reads.
    pub uses: &'static [&'static str],
    /// Checks what the pattern cannot say and builds the replacement.
    pub apply: Apply,
    /// True if the rule pays off also where values inside the match are used elsewhere and stay: an inverse pair that
    /// is looked through, say. Otherwise the driver refuses such matches.
    pub shared: bool,
}

impl RuleInfo {
    /// Where tables start from: a rule that changes no bit of any value. It has no name, no pattern and no identity,
    /// which [`Rules::new`](crate::Rules::new) refuses.
    pub const BITWISE: RuleInfo = RuleInfo {
        name: "",
        identity: "",
        exactness: Exactness::Bitwise,
        valid: Valid::Always,
        lhs: &[],
        uses: &[],
        apply: |_, _| Err(Skip::NoMatch),
        shared: false,
    };
}

/// For which values the identity of a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    /// For all, NaN and infinities too.
    Always,
    /// Where no value that the matched nodes read or make is infinite or NaN. Such rules are off under
    /// [`PassCx::strict`](crate::PassCx::strict).
    Finite,
}

impl fmt::Display for Valid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Valid::Always => "always",
            Valid::Finite => "finite values",
        })
    }
}

/// Builds the replacement of a match. Nodes it added are removed again if it returns an error.
pub type Apply = fn(&mut Rewriter<'_>, &Match) -> Result<Value, Skip>;

/// Why a rule that matched did not apply.
#[derive(Debug, Clone, PartialEq)]
pub enum Skip {
    /// The pattern was too wide and this is none of the rule's business; not reported.
    NoMatch,
    /// The reason, with the values that decided.
    Reason(String),
    /// An operator refused its operands.
    Graph(GraphError),
}

impl Skip {
    /// A reason to report.
    pub fn because(reason: impl Into<String>) -> Self {
        Skip::Reason(reason.into())
    }
}

impl From<GraphError> for Skip {
    fn from(error: GraphError) -> Self {
        Skip::Graph(error)
    }
}

/// What a rule builds its replacement with.
#[derive(Debug)]
pub struct Rewriter<'a> {
    pub(crate) graph: &'a mut Graph,
    pub(crate) names: &'a mut HashSet<Arc<str>>,
    pub(crate) base: Arc<str>,
    pub(crate) sources: Vec<Arc<str>>,
    pub(crate) added: Vec<NodeId>,
    /// What takes the place of further values than the root's first.
    pub(crate) others: Vec<(Value, Value)>,
}

impl Rewriter<'_> {
    /// The graph, to look at.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// What is known of a value.
    pub fn fact(&self, value: Value) -> &Fact {
        self.graph.fact(value)
    }

    /// The node that makes a value.
    pub fn node(&self, value: Value) -> &Node {
        self.graph.node(value.node)
    }

    /// The value bound to a name of the pattern.
    ///
    /// **Errors**: an absent optional operand, or no such name.
    pub fn value(&self, found: &Match, name: &str) -> Result<Value, Skip> {
        found.get(name).ok_or(Skip::NoMatch)
    }

    /// The constant bound to a name of the pattern.
    ///
    /// **Errors**: it is absent or not constant.
    pub fn tensor(&self, found: &Match, name: &str) -> Result<Tensor, Skip> {
        found.get(name).and_then(|value| self.graph.constant(value)).cloned().ok_or(Skip::NoMatch)
    }

    /// Adds a node and gives its first output. `part` says what it is of the matched root: `weights`, `sum`.
    ///
    /// **Errors**: the op refuses the operands.
    pub fn add(&mut self, op: Op, inputs: Vec<Option<Value>>, part: &str) -> Result<Value, Skip> {
        let name = self.unique(part);
        let node = self.graph.add_node(op, inputs, &name, self.sources.clone())?;
        self.added.push(node);
        Ok(Value { node, slot: 0 })
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor, part: &str) -> Value {
        let name = self.unique(part);
        let value = self.graph.add_constant(&name, tensor);
        self.added.push(value.node);
        value
    }

    /// Adds a node in the place of the one that makes `old`: named after it, with its sources.
    ///
    /// **Errors**: the op refuses the operands.
    pub fn add_like(&mut self, op: Op, inputs: Vec<Option<Value>>, old: Value) -> Result<Value, Skip> {
        let (name, sources) = (self.node(old).name.clone(), self.node(old).sources.clone());
        sources.iter().for_each(|source| self.add_source(source));
        let name = unique_name(self.names, &format!("{name}/moved"));
        let node = self.graph.add_node(op, inputs, &name, sources)?;
        self.added.push(node);
        Ok(Value { node, slot: 0 })
    }

    /// Says that the replacement also stands for the node that makes `value`, which the pattern does not name.
    pub fn absorb(&mut self, value: Value) {
        let sources = self.node(value).sources.clone();
        sources.iter().for_each(|source| self.add_source(source));
    }

    fn add_source(&mut self, source: &Arc<str>) {
        if !self.sources.contains(source) {
            self.sources.push(source.clone());
        }
    }

    /// Puts a value in the place of another than the root's first output, which gets what the rule gives.
    pub fn also(&mut self, old: Value, new: Value) {
        self.others.push((old, new));
    }

    fn unique(&mut self, part: &str) -> Arc<str> {
        unique_name(self.names, &format!("{}/{part}", self.base))
    }
}

/// A name that is not taken yet, `wanted` itself if possible; it is taken from now on.
pub fn unique_name(taken: &mut HashSet<Arc<str>>, wanted: &str) -> Arc<str> {
    let mut name: Arc<str> = wanted.into();
    let mut count = 1;
    while !taken.insert(name.clone()) {
        count += 1;
        name = format!("{wanted}.{count}").into();
    }
    name
}

/// The names of all nodes and values of a graph.
pub fn taken_names(graph: &Graph) -> HashSet<Arc<str>> {
    let nodes = graph.node_ids().map(|id| graph.node(id));
    nodes.flat_map(|node| node.outputs.iter().map(|o| o.name.clone()).chain([node.name.clone()])).collect()
}

/// Runs `edit` on every nested graph of a graph; `edit` says if it changed it.
///
/// **Errors**: those of `edit`, and branches whose outputs no longer fit together.
pub fn edit_branches(
    pass: &'static str,
    graph: &mut Graph,
    edit: &mut dyn FnMut(&mut Graph) -> Result<bool, PassError>,
) -> Result<(), PassError> {
    let holders: Vec<NodeId> =
        graph.node_ids().filter(|&id| !graph.node(id).op.regions().is_empty()).collect();
    for id in holders {
        let mut op = graph.node(id).op.clone();
        let mut changed = false;
        for region in op.regions_mut() {
            changed |= edit(region)?;
        }
        if changed {
            graph.set_op(id, op).map_err(|error| PassError::Graph { pass, error })?;
        }
    }
    Ok(())
}

/// Removes a node that nobody uses, then its operands that nobody uses any more. Inputs stay.
pub fn remove_dead(graph: &mut Graph, node: NodeId) {
    remove_dead_near(graph, node, &mut Vec::new());
}

/// As [`remove_dead`]; `near` gets the operands of what is removed.
pub(crate) fn remove_dead_near(graph: &mut Graph, node: NodeId, near: &mut Vec<NodeId>) {
    let mut stack = vec![node];
    while let Some(id) = stack.pop() {
        if !graph.contains(id) || matches!(graph.node(id).op, Op::Input) {
            continue;
        }
        let slots = graph.node(id).outputs.len() as u32;
        if (0..slots).all(|slot| graph.use_count(Value { node: id, slot }) == 0) {
            let operands = graph.node(id).inputs.iter().flatten().map(|v| v.node);
            near.extend(operands.clone());
            stack.extend(operands);
            graph.remove_node(id);
        }
    }
}
