//! The driver: applies rules until none fits.
//!
//! A first sweep tries every node, operands before users. After it only nodes near a change are tried: those below it
//! by as many steps as the deepest pattern has, and those whose types became other ones. When nothing is left to try,
//! one more sweep over all nodes makes sure, for a rule may look further than its pattern.

use crate::pass::{Exactness, PassCx, PassError, Report, Skipped};
use crate::pattern::{Match, Pattern, PatternError};
use crate::rewriter::{
    Rewriter, RuleInfo, Skip, Valid, edit_branches, remove_dead, remove_dead_near, taken_names,
};
use rabot_ir::{Dim, Fact, Graph, GraphError, Node, NodeId, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

#[derive(Debug)]
struct Rule {
    info: RuleInfo,
    patterns: Vec<Pattern>,
}

/// Rules whose patterns are parsed and checked.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    /// By op of the root: rules, in order.
    by_op: HashMap<String, Vec<usize>>,
    /// How far above its root the deepest pattern looks.
    depth: usize,
}

/// What one application did.
struct Change {
    detail: String,
    sources: Vec<Arc<str>>,
    /// Nodes that were added, and those whose users are others now; some may be gone.
    near: Vec<NodeId>,
}

impl Rules {
    /// Parses a table of rules. Earlier rules are tried first.
    ///
    /// **Errors**: a pattern that cannot be read, names that do not fit it, or a rule without an identity.
    pub fn new(table: &[RuleInfo]) -> Result<Self, PatternError> {
        let mut found = Rules { rules: Vec::with_capacity(table.len()), by_op: HashMap::new(), depth: 0 };
        for (at, info) in table.iter().enumerate() {
            if info.identity.is_empty() || info.lhs.is_empty() {
                return Err(PatternError::Incomplete { rule: info.name.to_owned() });
            }
            let patterns: Result<Vec<Pattern>, _> = info.lhs.iter().map(|lhs| Pattern::parse(lhs)).collect();
            let patterns = patterns?;
            for pattern in &patterns {
                pattern.check_uses(info.uses)?;
                found.depth = found.depth.max(pattern.depth());
                for op in pattern.root_ops() {
                    let rules = found.by_op.entry(op.clone()).or_default();
                    if rules.last() != Some(&at) {
                        rules.push(at);
                    }
                }
            }
            found.rules.push(Rule { info: *info, patterns });
        }
        Ok(found)
    }

    /// How far one application of any of the rules may move outputs.
    pub fn exactness(&self) -> Exactness {
        self.rules.iter().map(|rule| rule.info.exactness).fold(Exactness::Bitwise, Exactness::loosest)
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
        let mut skipped: HashMap<NodeId, Vec<Skipped>> = HashMap::new();
        // The nodes to try; all if absent.
        let mut due: Option<HashSet<NodeId>> = None;
        loop {
            let order = graph.topological().map_err(error)?;
            let mut near: Vec<NodeId> = Vec::new();
            for id in order {
                if !graph.contains(id) || due.as_ref().is_some_and(|due| !due.contains(&id)) {
                    continue;
                }
                let mut skips = Report::default();
                if let Some((rule, node, change)) = self.try_node(graph, &mut names, id, cx, &mut skips) {
                    near.extend(change.near);
                    if report.applied.len() == budget {
                        return Err(PassError::Budget { pass, budget, rule, node: node.to_string() });
                    }
                    report.apply_to(rule, node, change.detail, change.sources);
                }
                skipped.insert(id, skips.skipped);
            }
            if !near.is_empty() {
                due = Some(self.refresh(graph, near).map_err(error)?);
            } else if due.take().is_none() {
                let order = graph.topological().map_err(error)?;
                report.skipped = order.iter().filter_map(|id| skipped.remove(id)).flatten().collect();
                return Ok(report);
            }
        }
    }

    /// Infers types again below changes, and gives the nodes at which rules may now apply.
    fn refresh(&self, graph: &mut Graph, near: Vec<NodeId>) -> Result<HashSet<NodeId>, GraphError> {
        let mut due: HashSet<NodeId> = near.into_iter().filter(|&id| graph.contains(id)).collect();
        let mut stale = due.clone();
        stale.extend(due.iter().flat_map(|&id| users(graph, id)).collect::<Vec<_>>());
        for id in graph.topological()? {
            if !stale.contains(&id) {
                continue;
            }
            let facts = |graph: &Graph| -> Vec<Fact> {
                graph.node(id).outputs.iter().map(|o| o.fact.clone()).collect()
            };
            let before = facts(graph);
            graph.refresh_node(id)?;
            if facts(graph) != before {
                due.insert(id);
                stale.extend(users(graph, id));
            }
        }
        let mut edge: Vec<NodeId> = due.iter().copied().collect();
        for _ in 0..self.depth {
            let below: Vec<NodeId> = edge.iter().flat_map(|&id| users(graph, id)).collect();
            edge = below.into_iter().filter(|&id| due.insert(id)).collect();
        }
        Ok(due)
    }

    /// Applies the first rule that fits; notes those that match but do not apply.
    fn try_node(
        &self,
        graph: &mut Graph,
        names: &mut HashSet<Arc<str>>,
        id: NodeId,
        cx: &PassCx<'_>,
        report: &mut Report,
    ) -> Option<(&'static str, Arc<str>, Change)> {
        for &at in self.by_op.get(graph.node(id).op.name())? {
            let rule = &self.rules[at];
            let found = rule.patterns.iter().find_map(|pattern| pattern.find(graph, id));
            let Some(found) = found else { continue };
            let name = graph.node(id).name.clone();
            match apply(rule, graph, names, &found, cx) {
                Ok(change) => return Some((rule.info.name, name, change)),
                Err(Skip::NoMatch) => {}
                Err(Skip::Reason(reason)) => report.skip(rule.info.name, name, reason),
                Err(Skip::Graph(error)) => report.skip(rule.info.name, name, error.to_string()),
            }
        }
        None
    }
}

/// The nodes that use any output of a node.
fn users(graph: &Graph, node: NodeId) -> Vec<NodeId> {
    let slots = 0..graph.node(node).outputs.len() as u32;
    slots.flat_map(|slot| graph.users(Value { node, slot })).map(|(user, _)| user).collect()
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
) -> Result<Change, Skip> {
    // Rules reason about shapes, which only tensors of known rank have.
    if !found.nodes.iter().all(|&id| has_shapes(graph, id)) {
        return Err(Skip::NoMatch);
    }
    let old = Value { node: found.root, slot: 0 };
    let (base, sources) = (graph.node(found.root).name.clone(), sources_of(graph, &found.nodes));
    let mut rewriter = Rewriter { graph, names, base, sources, added: Vec::new(), others: Vec::new() };
    let result = (rule.info.apply)(&mut rewriter, found);
    let Rewriter { added, others, sources, .. } = rewriter;
    // What the rule is not meant for is not worth a report, so the rule speaks first.
    let result = result.and_then(|new| {
        check_interior(graph, found, &added, &others, rule.info.shared)?;
        check_type(graph, old, new)?;
        others.iter().try_for_each(|&(old, new)| check_type(graph, old, new))?;
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
    let mut near = neighbours(graph, found);
    let matched: Vec<&str> = found.nodes.iter().rev().map(|&id| graph.node(id).op.name()).collect();
    let matched = matched.join(" + ");
    graph.replace_value(old, new);
    for &(old, new) in &others {
        near.extend(graph.users(old).iter().map(|(user, _)| *user));
        graph.replace_value(old, new);
    }
    let root = graph.node(found.root).clone();
    // Where nobody uses the root, what takes its place goes with it.
    let name = graph.value_name(new).clone();
    remove_dead_near(graph, found.root, &mut near);
    others.iter().for_each(|(old, _)| remove_dead_near(graph, old.node, &mut near));
    let detail = if added.contains(&new.node) && new.slot == 0 {
        take_place(graph, new.node, &root);
        format!("{matched} → {}", graph.node(new.node).op.name())
    } else {
        format!("{matched} → `{name}`")
    };
    added.iter().rev().for_each(|&id| remove_dead_near(graph, id, &mut near));
    near.extend(added);
    near.extend(others.iter().map(|(_, new)| new.node).chain([new.node]));
    Ok(Change { detail, sources, near })
}

/// The operands of the matched nodes: how often they are used changes with the match.
fn neighbours(graph: &Graph, found: &Match) -> Vec<NodeId> {
    found.nodes.iter().flat_map(|&id| graph.node(id).inputs.iter().flatten().map(|v| v.node)).collect()
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
/// Nodes that the rule itself just added do not: they replace the matched ones. Of a rule that may share, only outputs
/// of the root count.
fn check_interior(
    graph: &Graph,
    found: &Match,
    added: &[NodeId],
    others: &[(Value, Value)],
    shared: bool,
) -> Result<(), Skip> {
    let inside = |user: &NodeId| found.nodes.contains(user) || added.contains(user);
    for &id in &found.nodes {
        let node = graph.node(id);
        for slot in 0..node.outputs.len() as u32 {
            let value = Value { node: id, slot };
            let replaced = slot == 0 || others.iter().any(|(old, _)| *old == value);
            if if id == found.root { replaced } else { shared } {
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
    use rabot_ir::Op;
    use rabot_ir::ops::{Binary, BinaryOp, Unary, UnaryOp};
    use rabot_tensor::{DType, Tensor};

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
