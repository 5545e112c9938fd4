//! `rabot explain --op NAME`: what became of one node of the model, and why not more.

use super::explain::Row;
use super::{Failure, Status, output};
use rabot::ir::{Graph, NodeId, Op, Value};
use rabot::rewrite::{Near, PassInfo, Pattern, Step, near};
use serde::Serialize;
use std::collections::BTreeSet;

/// Patterns that fit in part are looked for at this many users downstream: the longest patterns are not deeper.
const MAX_DISTANCE: usize = 8;
/// How many of them are told.
const MAX_NEAR: usize = 3;

/// A change that a pass made, or did not make.
#[derive(Serialize)]
struct Event {
    pass: String,
    /// Number of the change in the pipeline; absent if it was not made.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<usize>,
    rule: String,
    node: String,
    text: String,
}

/// A rule that almost applied.
#[derive(Serialize)]
struct NearRule {
    pass: &'static str,
    rule: &'static str,
    fitting: usize,
    nodes: usize,
    /// The value that is in the way.
    at: String,
    found: String,
    expected: String,
}

/// Everything about one node, collected while the pipeline runs.
pub(crate) struct Story {
    name: String,
    /// Op and type as imported.
    origin: String,
    applied: Vec<Event>,
    skipped: Vec<Event>,
    near: Vec<NearRule>,
}

impl Story {
    /// Looks a node up by its own name, by that of a source node, or by that of its value.
    ///
    /// **Errors**: the model has no such node; names that contain it are told.
    pub(crate) fn new(graph: &Graph, name: &str) -> Result<Self, Failure> {
        let ids = nodes_of(graph, name);
        let Some(&first) = ids.first() else {
            let all = graph.node_ids().map(|id| graph.node(id).name.to_string());
            let like: Vec<String> = all.filter(|other| other.contains(name)).take(5).collect();
            let failure = Failure::new(format!("the model has no node `{name}`"));
            return Err(failure.with_help(match like.is_empty() {
                true => "`rabot inspect MODEL` shows what is in it".to_owned(),
                false => format!("there is {}", like.join(", ")),
            }));
        };
        let origin = ids.iter().map(|&id| describe(graph, id)).collect::<Vec<_>>().join("; ");
        let own = graph.node(first);
        let name = own.sources.first().map_or(name.to_owned(), |source| source.to_string());
        Ok(Story { name, origin, applied: vec![], skipped: vec![], near: near_rules(graph, &ids)? })
    }

    /// Notes what a pass did to the node. `before` is the graph that it was given.
    pub(crate) fn see(&mut self, step: &Step, before: &Graph) {
        let names: BTreeSet<String> =
            nodes_of(before, &self.name).into_iter().map(|id| before.node(id).name.to_string()).collect();
        let concerns = |node: &str| names.contains(node);
        for (index, change) in step.report.applied.iter().enumerate() {
            let from = change.sources.iter().any(|source| **source == *self.name);
            if from || concerns(&change.node) {
                self.applied.push(Event {
                    pass: step.pass.clone(),
                    number: Some(step.first_change + index),
                    rule: change.rule.to_owned(),
                    node: change.node.clone(),
                    text: change.detail.clone(),
                });
            }
        }
        for change in step.report.skipped.iter().filter(|change| concerns(&change.node)) {
            self.skipped.push(Event {
                pass: step.pass.clone(),
                number: None,
                rule: change.rule.to_owned(),
                node: change.node.clone(),
                text: change.reason.clone(),
            });
        }
    }

    /// Prints the story, with the kernels that compute the node in the end.
    ///
    /// **Errors**: it cannot be written.
    pub(crate) fn show(mut self, rows: &[Row], json: bool) -> Result<Status, Failure> {
        // A reason may be told by every sweep of a pass.
        let mut seen = BTreeSet::new();
        self.skipped
            .retain(|event| seen.insert((event.rule.clone(), event.node.clone(), event.text.clone())));
        let kernels: Vec<(usize, &Row)> =
            rows.iter().enumerate().filter(|(_, row)| row.sources.contains(&self.name)).collect();
        if json {
            let kernels: Vec<&Row> = kernels.iter().map(|(_, row)| *row).collect();
            output::print_json(&serde_json::json!({
                "node": self.name, "origin": self.origin, "applied": self.applied, "skipped": self.skipped,
                "near": self.near, "kernels": kernels,
            }))?;
            return Ok(Status::Done);
        }
        output::print(&self.text(&kernels))?;
        Ok(Status::Done)
    }

    fn text(&self, kernels: &[(usize, &Row)]) -> String {
        let mut text = format!("`{}`: {}\n", self.name, self.origin);
        text.push_str("\nwhat passes did\n");
        for event in &self.applied {
            let Event { pass, number, rule, node, text: detail } = event;
            let number = number.unwrap_or(0);
            text.push_str(&format!("  #{number} {pass}: {rule} at `{node}`: {detail}\n"));
        }
        if self.applied.is_empty() {
            text.push_str("  nothing\n");
        }
        if !self.skipped.is_empty() {
            text.push_str("\nwhat they did not do, and why\n");
        }
        for Event { pass, rule, node, text: reason, .. } in &self.skipped {
            text.push_str(&format!("  {pass}: {rule} at `{node}`: {reason}\n"));
        }
        if !self.near.is_empty() {
            text.push_str("\npatterns that almost fit the model as imported\n");
        }
        for NearRule { pass, rule, fitting, nodes, at, found, expected } in &self.near {
            text.push_str(&format!(
                "  {pass}: {rule} fits {fitting} of {nodes} nodes; blocked by `{at}`, which is {found}, not {expected}\n"
            ));
        }
        text.push_str("\nkernels that compute it\n");
        for (index, row) in kernels {
            text.push_str(&format!("  {index} {} {}: {}\n", row.kind, row.name, row.sources.join(", ")));
            if let Some(reason) = &row.reason {
                text.push_str(&format!("    on the host: {reason}\n"));
            }
            for value in row.values.iter().filter(|value| value.ends_with(')')) {
                text.push_str(&format!("    stored as {value}: the order or place that its readers want\n"));
            }
        }
        if kernels.is_empty() {
            text.push_str("  none: it is a view, known when compiling, or not needed\n");
        }
        text
    }
}

/// The nodes that are, or come from, a node or value of this name.
fn nodes_of(graph: &Graph, name: &str) -> Vec<NodeId> {
    let order = graph.topological().unwrap_or_default();
    let is = |id: &NodeId| {
        let node = graph.node(*id);
        let named = &*node.name == name || node.outputs.iter().any(|output| &*output.name == name);
        !matches!(node.op, Op::Constant(_)) && (named || node.sources.iter().any(|source| &**source == name))
    };
    order.into_iter().filter(is).collect()
}

fn describe(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    let ty = |value: Value| format!("`{}` {}", graph.value_name(value), graph.fact(value).ty);
    let inputs: Vec<String> = node.inputs.iter().flatten().map(|&value| ty(value)).collect();
    let outputs: Vec<String> = node.outputs.iter().map(|output| output.fact.ty.to_string()).collect();
    format!("{}({}) → {}", node.op.name(), inputs.join(", "), outputs.join(", "))
}

/// The rules that fit around these nodes in part, the best first.
fn near_rules(graph: &Graph, ids: &[NodeId]) -> Result<Vec<NearRule>, Failure> {
    let mut roots: Vec<NodeId> = ids.to_vec();
    let mut ring = roots.clone();
    for _ in 0..MAX_DISTANCE {
        let mut next = Vec::new();
        for id in ring {
            let slots = graph.node(id).outputs.len() as u32;
            let users = (0..slots).flat_map(|slot| graph.users(Value { node: id, slot }));
            next.extend(users.map(|(user, _)| user).filter(|user| !roots.contains(user)));
        }
        next.sort_unstable();
        next.dedup();
        roots.extend(&next);
        ring = next;
    }
    let mut found: Vec<(NearRule, Near)> = Vec::new();
    for info in rabot::passes::PASSES {
        near_of_pass(info, graph, &roots, ids, &mut found)?;
    }
    found.sort_by(|(a, _), (b, _)| (b.fitting * a.nodes).cmp(&(a.fitting * b.nodes)));
    let mut seen = BTreeSet::new();
    found.retain(|(rule, _)| seen.insert(rule.rule));
    Ok(found.into_iter().map(|(rule, _)| rule).take(MAX_NEAR).collect())
}

fn near_of_pass(
    info: &'static PassInfo,
    graph: &Graph,
    roots: &[NodeId],
    ids: &[NodeId],
    found: &mut Vec<(NearRule, Near)>,
) -> Result<(), Failure> {
    let pass = (info.make)(&rabot::rewrite::Options::new(info.name, info.options))?;
    for rule in pass.rules() {
        for text in rule.lhs {
            let Ok(pattern) = Pattern::parse(text) else { continue };
            for &root in roots {
                let Some(near) = near(&pattern, graph, root) else { continue };
                let about = near.fitting.iter().any(|id| ids.contains(id));
                // One node of two says nothing; most of a longer pattern does.
                if about && near.nodes > 1 && 2 * near.fitting.len() > near.nodes {
                    let rule = NearRule {
                        pass: info.name,
                        rule: rule.name,
                        fitting: near.fitting.len(),
                        nodes: near.nodes,
                        at: near.blocked.at.clone(),
                        found: near.blocked.found.clone(),
                        expected: near.blocked.expected.clone(),
                    };
                    found.push((rule, near));
                }
            }
        }
    }
    Ok(())
}
