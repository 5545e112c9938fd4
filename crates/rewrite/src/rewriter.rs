//! Rules, and the driver that applies them until none fits.
//!
//! A rule matches first and changes after, only by adding nodes through the [`Rewriter`]. The driver then puts the
//! new value in the place of the matched root, with its name and the sources of all matched nodes. It refuses a
//! match whose interior values are used elsewhere, so no rule has to.

use crate::pass::{Exactness, PassCx, PassError, Report};
use crate::pattern::{Match, Pattern, PatternError};
use rabot_ir::{Dim, Fact, Graph, GraphError, Node, NodeId, Op, Value};
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
    /// What it replaces, as [`Pattern`] texts; the first that matches counts.
    pub lhs: &'static [&'static str],
    /// The names bound in each `lhs` that `apply` reads.
    pub uses: &'static [&'static str],
    /// Checks what the pattern cannot say and builds the replacement.
    pub apply: Apply,
}

impl RuleInfo {
    /// Where tables start from: a rule that changes no bit of any value. It has no name, no pattern and no identity,
    /// which [`Rules::new`] refuses.
    pub const BITWISE: RuleInfo = RuleInfo {
        name: "",
        identity: "",
        exactness: Exactness::Bitwise,
        valid: Valid::Always,
        lhs: &[],
        uses: &[],
        apply: |_, _| Err(Skip::NoMatch),
    };
}

/// For which values the identity of a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    /// For all, NaN and infinities too.
    Always,
    /// Where no value that the matched nodes read or make is infinite or NaN. Such rules are off under
    /// [`PassCx::strict`].
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
    graph: &'a mut Graph,
    names: &'a mut HashSet<Arc<str>>,
    base: Arc<str>,
    sources: Vec<Arc<str>>,
    added: Vec<NodeId>,
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
    let mut stack = vec![node];
    while let Some(id) = stack.pop() {
        if !graph.contains(id) || matches!(graph.node(id).op, Op::Input) {
            continue;
        }
        let slots = graph.node(id).outputs.len() as u32;
        if (0..slots).all(|slot| graph.use_count(Value { node: id, slot }) == 0) {
            stack.extend(graph.node(id).inputs.iter().flatten().map(|v| v.node));
            graph.remove_node(id);
        }
    }
}

#[derive(Debug)]
struct Rule {
    info: RuleInfo,
    patterns: Vec<Pattern>,
}

/// Rules whose patterns are parsed and checked.
#[derive(Debug)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Parses a table of rules. Earlier rules are tried first.
    ///
    /// **Errors**: a pattern that cannot be read, names that do not fit it, or a rule without an identity.
    pub fn new(table: &[RuleInfo]) -> Result<Self, PatternError> {
        let mut rules = Vec::with_capacity(table.len());
        for info in table {
            if info.identity.is_empty() || info.lhs.is_empty() {
                return Err(PatternError::Incomplete { rule: info.name.to_owned() });
            }
            let patterns: Result<Vec<Pattern>, _> = info.lhs.iter().map(|lhs| Pattern::parse(lhs)).collect();
            let patterns = patterns?;
            patterns.iter().try_for_each(|pattern| pattern.check_uses(info.uses))?;
            rules.push(Rule { info: *info, patterns });
        }
        Ok(Rules(rules))
    }

    /// How far one application of any of the rules may move outputs.
    pub fn exactness(&self) -> Exactness {
        self.0.iter().map(|rule| rule.info.exactness).fold(Exactness::Bitwise, Exactness::loosest)
    }

    /// Applies the rules, operands before users, until none applies; branches of conditionals too.
    ///
    /// **Errors**: the rules do not come to an end, or the graph cannot be typed any more.
    pub fn run(&self, pass: &'static str, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        edit_branches(pass, graph, &mut |branch| {
            let inner = self.run(pass, branch, cx)?;
            let changed = !inner.applied.is_empty();
            report.extend(inner);
            Ok(changed)
        })?;
        let outer = self.run_flat(pass, graph, cx)?;
        report.extend(outer);
        Ok(report)
    }

    fn run_flat(&self, pass: &'static str, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let error = |error| PassError::Graph { pass, error };
        let mut report = Report::default();
        let mut names = taken_names(graph);
        // Every rule makes the graph smaller or brings it nearer to a fixed form, so a node is rewritten a few times
        // at most. Ten changes a node is far more than any model has needed.
        let budget = 10 * graph.node_count() + 100;
        loop {
            let applied_before = report.applied.len();
            report.skipped.clear();
            for id in graph.topological().map_err(error)? {
                if graph.contains(id) {
                    self.try_node(graph, &mut names, id, cx, &mut report);
                }
                if let Some(last) = report.applied.last().filter(|_| report.applied.len() > budget) {
                    return Err(PassError::Budget { pass, budget, rule: last.rule, node: last.node.clone() });
                }
            }
            if report.applied.len() == applied_before {
                return Ok(report);
            }
            graph.refresh().map_err(error)?;
        }
    }

    /// Applies the first rule that fits; notes those that match but do not apply.
    fn try_node(
        &self,
        graph: &mut Graph,
        names: &mut HashSet<Arc<str>>,
        id: NodeId,
        cx: &PassCx<'_>,
        report: &mut Report,
    ) {
        for rule in &self.0 {
            let found = rule.patterns.iter().find_map(|pattern| pattern.find(graph, id));
            let Some(found) = found else { continue };
            let name = graph.node(id).name.clone();
            match apply(rule, graph, names, &found, cx) {
                Ok((detail, sources)) => {
                    report.apply_to(rule.info.name, name, detail, sources);
                    return;
                }
                Err(Skip::NoMatch) => {}
                Err(Skip::Reason(reason)) => report.skip(rule.info.name, name, reason),
                Err(Skip::Graph(error)) => report.skip(rule.info.name, name, error.to_string()),
            }
        }
    }
}

/// True if all operands and results of a node are tensors of known rank.
fn has_shapes(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let operands = node.inputs.iter().flatten().all(|&value| graph.fact(value).ty.is_tensor());
    operands && node.outputs.iter().all(|output| output.fact.ty.is_tensor())
}

fn apply(
    rule: &Rule,
    graph: &mut Graph,
    names: &mut HashSet<Arc<str>>,
    found: &Match,
    cx: &PassCx<'_>,
) -> Result<(String, Vec<Arc<str>>), Skip> {
    // Rules reason about shapes, which only tensors of known rank have.
    if !found.nodes.iter().all(|&id| has_shapes(graph, id)) {
        return Err(Skip::NoMatch);
    }
    let old = Value { node: found.root, slot: 0 };
    let (base, sources) = (graph.node(found.root).name.clone(), sources_of(graph, &found.nodes));
    let mut rewriter = Rewriter { graph, names, base, sources: sources.clone(), added: Vec::new() };
    let result = (rule.info.apply)(&mut rewriter, found);
    let added = std::mem::take(&mut rewriter.added);
    // What the rule is not meant for is not worth a report, so the rule speaks first.
    let result = result.and_then(|new| {
        check_interior(graph, found, &added)?;
        check_type(graph, old, new)?;
        if cx.strict && rule.info.valid == Valid::Finite {
            return Err(Skip::because("it only holds for finite values, and --strict is set"));
        }
        if cx.admits(rule.info.name, &graph.node(found.root).name) { Ok(new) } else { Err(Skip::NoMatch) }
    });
    let new = match result {
        Ok(new) => new,
        Err(skip) => {
            added.iter().rev().for_each(|&id| remove_dead(graph, id));
            return Err(skip);
        }
    };
    let matched: Vec<&str> = found.nodes.iter().rev().map(|&id| graph.node(id).op.name()).collect();
    let matched = matched.join(" + ");
    graph.replace_value(old, new);
    let root = graph.node(found.root).clone();
    // Where nobody uses the root, what takes its place goes with it.
    let name = graph.value_name(new).clone();
    remove_dead(graph, found.root);
    let detail = if added.contains(&new.node) && new.slot == 0 {
        take_place(graph, new.node, &root);
        format!("{matched} → {}", graph.node(new.node).op.name())
    } else {
        format!("{matched} → `{name}`")
    };
    added.iter().rev().for_each(|&id| remove_dead(graph, id));
    Ok((detail, sources))
}

/// Gives a node the name of the one it replaces, and the name of its first output.
fn take_place(graph: &mut Graph, new: NodeId, old: &Node) {
    graph.annotate(new, |node| {
        *node.name = old.name.clone();
        for (output, replaced) in node.outputs.iter_mut().zip(&old.outputs) {
            output.name = replaced.name.clone();
        }
    });
}

/// The sources of all nodes, each once, operands first.
fn sources_of(graph: &Graph, nodes: &[NodeId]) -> Vec<Arc<str>> {
    let mut sources: Vec<Arc<str>> = Vec::new();
    for source in nodes.iter().rev().flat_map(|&id| &graph.node(id).sources) {
        if !sources.contains(source) {
            sources.push(source.clone());
        }
    }
    sources
}

/// Refuses a match whose interior values are seen from outside. Other outputs of matched nodes count too.
/// Nodes that the rule itself just added do not: they replace the matched ones.
fn check_interior(graph: &Graph, found: &Match, added: &[NodeId]) -> Result<(), Skip> {
    let inside = |user: &NodeId| found.nodes.contains(user) || added.contains(user);
    for &id in &found.nodes {
        let node = graph.node(id);
        for slot in 0..node.outputs.len() as u32 {
            let value = Value { node: id, slot };
            if id == found.root && slot == 0 {
                continue;
            }
            let name = &node.outputs[slot as usize].name;
            if graph.is_output(value) {
                return Err(Skip::Reason(format!("`{name}` is an output of the graph")));
            }
            if let Some((user, _)) = graph.users(value).iter().find(|(user, _)| !inside(user)) {
                let user = &graph.node(*user).name;
                return Err(Skip::Reason(format!("`{name}` is used by `{user}` too")));
            }
        }
    }
    Ok(())
}

/// Refuses a replacement of another type. A dim that only running the new node tells has a new name and may differ.
fn check_type(graph: &Graph, old: Value, new: Value) -> Result<(), Skip> {
    let fresh = format!("{}.", graph.node(new.node).name);
    let (old, new) = (&graph.fact(old).ty, &graph.fact(new).ty);
    let fits = |(a, b): (&Dim, &Dim)| a == b || b.as_symbol().is_some_and(|name| name.starts_with(&fresh));
    if old.dtype == new.dtype && old.rank() == new.rank() && old.shape.iter().zip(&new.shape).all(fits) {
        return Ok(());
    }
    Err(Skip::Reason(format!("the replacement would be {new}, not {old}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::ops::{Binary, BinaryOp, Unary, UnaryOp};
    use rabot_tensor::DType;

    fn unary(op: UnaryOp) -> Op {
        Op::Unary(Unary { op })
    }

    /// x → Neg → Neg → Relu → y.
    fn twice_negated() -> (Graph, [Value; 4]) {
        let mut graph = Graph::new("g");
        let mut value = graph.add_input("x", Fact::of_type(DType::F32, vec![2.into()]));
        let mut values = vec![value];
        for (name, op) in [("n1", UnaryOp::Neg), ("n2", UnaryOp::Neg), ("r", UnaryOp::Relu)] {
            let source: Arc<str> = format!("source_{name}").into();
            let node = graph.add_node(unary(op), vec![Some(value)], name, vec![source]).unwrap();
            value = Value { node, slot: 0 };
            values.push(value);
        }
        graph.add_output("y", value);
        (graph, [values[0], values[1], values[2], values[3]])
    }

    const DOUBLE_NEG: RuleInfo = RuleInfo {
        name: "double-neg",
        identity: "-(-x) = x",
        lhs: &["Neg(Neg(?x))"],
        uses: &["x"],
        apply: |rewriter, found| rewriter.value(found, "x"),
        ..RuleInfo::BITWISE
    };

    #[test]
    fn rewrites_and_removes() {
        let (mut graph, [x, _, _, r]) = twice_negated();
        let report = Rules::new(&[DOUBLE_NEG]).unwrap().run("test", &mut graph, &PassCx::default()).unwrap();
        assert_eq!(report.applied.len(), 1);
        assert_eq!(graph.node_count(), 2);
        assert_eq!(graph.node(r.node).inputs, [Some(x)]);
    }

    #[test]
    fn a_value_used_elsewhere_blocks() {
        let (mut graph, [_, n1, ..]) = twice_negated();
        graph.add_output("also", n1);
        let report = Rules::new(&[DOUBLE_NEG]).unwrap().run("test", &mut graph, &PassCx::default()).unwrap();
        assert!(report.applied.is_empty());
        assert_eq!(report.skipped[0].reason, "`n1` is an output of the graph");
        assert_eq!(graph.node_count(), 4);
    }

    #[test]
    fn the_replacement_keeps_name_and_sources() {
        let rule = RuleInfo {
            name: "abs",
            identity: "relu(-x) = relu(0 - x)",
            lhs: &["Relu(Neg(?x))"],
            uses: &["x"],
            apply: |rewriter, found| {
                let x = rewriter.value(found, "x")?;
                let zero = rewriter.constant(Tensor::scalar(0f32), "zero");
                let min =
                    rewriter.add(Op::Binary(Binary { op: BinaryOp::Sub }), vec![Some(zero), Some(x)], "m")?;
                rewriter.add(Op::Unary(Unary { op: UnaryOp::Relu }), vec![Some(min)], "r")
            },
            ..RuleInfo::BITWISE
        };
        let (mut graph, _) = twice_negated();
        Rules::new(&[rule]).unwrap().run("test", &mut graph, &PassCx::default()).unwrap();
        let node = graph.node(graph.outputs()[0].value.node);
        assert_eq!((&*node.name, &*node.outputs[0].name), ("r", "r"));
        assert_eq!(node.sources, ["source_n2".into(), "source_r".into()]);
    }

    #[test]
    fn rules_that_undo_each_other_are_an_error() {
        let rules = [
            RuleInfo {
                name: "to-sin",
                identity: "none",
                lhs: &["Cos(?x)"],
                uses: &["x"],
                apply: |rewriter, found| {
                    let x = rewriter.value(found, "x")?;
                    rewriter.add(unary(UnaryOp::Sin), vec![Some(x)], "sin")
                },
                ..RuleInfo::BITWISE
            },
            RuleInfo {
                name: "to-cos",
                identity: "none",
                lhs: &["Sin|Neg(?x)"],
                uses: &["x"],
                apply: |rewriter, found| {
                    let x = rewriter.value(found, "x")?;
                    rewriter.add(unary(UnaryOp::Cos), vec![Some(x)], "cos")
                },
                ..RuleInfo::BITWISE
            },
        ];
        let (mut graph, _) = twice_negated();
        let error = Rules::new(&rules).unwrap().run("test", &mut graph, &PassCx::default()).unwrap_err();
        assert!(matches!(error, PassError::Budget { .. }), "{error}");
    }

    #[test]
    fn strict_leaves_out_what_holds_for_finite_values() {
        let rules = Rules::new(&[RuleInfo { valid: Valid::Finite, ..DOUBLE_NEG }]).unwrap();
        let (mut graph, _) = twice_negated();
        let strict = PassCx { strict: true, ..PassCx::default() };
        let report = rules.run("test", &mut graph, &strict).unwrap();
        assert!(report.applied.is_empty());
        assert_eq!(report.skipped[0].reason, "it only holds for finite values, and --strict is set");
        assert_eq!(rules.run("test", &mut graph, &PassCx::default()).unwrap().applied.len(), 1);
    }

    #[test]
    fn a_rule_states_its_identity() {
        let rule = RuleInfo { identity: "", ..DOUBLE_NEG };
        assert!(matches!(Rules::new(&[rule]), Err(PatternError::Incomplete { .. })));
    }

    #[test]
    fn unbound_names_fail_at_construction() {
        let rule = RuleInfo { uses: &["x", "y"], ..DOUBLE_NEG };
        assert!(Rules::new(&[rule]).is_err());
    }
}
