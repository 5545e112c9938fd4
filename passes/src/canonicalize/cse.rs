//! `cse`: computes the same thing once.
//!
//! Two nodes are the same if op, attributes and operands are, bit for bit. Constants are compared by their contents.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[2]
//! %1 = Exp(%0)
//! %2 = Exp(%0)
//! %3 = Mul(%1, %2)
//! output "y" = %3
//! ; becomes
//! model "g"
//! input %0 "x" : f32[2]
//! %1 = Exp(%0)
//! %2 = Mul(%1, %1)
//! output "y" = %2
//! ```

use rabot_ir::{Graph, Node, NodeId, Op, Value};
use rabot_rewrite::{Exactness, Pass, PassCx, PassError, PassInfo, Report, edit_branches};
use rabot_tensor::Tensor;
use std::collections::HashMap;

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: "cse", options: &[], make: |_| Ok(Box::new(Cse)) };

/// Computes the same thing once.
#[derive(Clone, Debug)]
pub struct Cse;

impl Pass for Cse {
    fn name(&self) -> &'static str {
        "cse"
    }

    fn summary(&self) -> &'static str {
        "merge nodes that compute the same from the same operands, and equal constants"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Bitwise
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        merge(graph, cx, &mut report)?;
        Ok(report)
    }
}

/// What equal nodes have in common; cheap to make. Equal keys are compared in full.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    op: &'static str,
    attrs: String,
    inputs: Vec<Option<Value>>,
}

fn merge(graph: &mut Graph, cx: &PassCx<'_>, report: &mut Report) -> Result<(), PassError> {
    let error = |error| PassError::Graph { pass: "cse", error };
    edit_branches("cse", graph, &mut |branch| {
        let before = report.applied.len();
        merge(branch, cx, report)?;
        Ok(report.applied.len() > before)
    })?;
    let before = report.applied.len();
    let mut seen: HashMap<Key, Vec<NodeId>> = HashMap::new();
    for id in graph.topological().map_err(error)? {
        let node = graph.node(id);
        if matches!(node.op, Op::Input) || !node.op.regions().is_empty() {
            continue;
        }
        let candidates = seen.entry(key(node)).or_default();
        match candidates.iter().copied().find(|&first| same(graph.node(first), graph.node(id))) {
            None => candidates.push(id),
            Some(first) if cx.admits("common", &graph.node(id).name) => {
                let detail = format!("{} = `{}`", graph.node(id).op.name(), graph.node(first).name);
                report.apply("common", graph.node(id).name.clone(), detail);
                replace(graph, id, first);
            }
            Some(_) => {}
        }
    }
    if report.applied.len() > before { graph.refresh().map_err(error) } else { Ok(()) }
}

fn key(node: &Node) -> Key {
    let attrs = match &node.op {
        Op::Constant(tensor) => sample(tensor),
        // Debug text tells 0 from -0, which `==` does not.
        op => format!("{:?}", op.attrs()),
    };
    Key { op: node.op.name(), attrs, inputs: node.inputs.clone() }
}

/// Bytes of a constant by which it is looked up.
const SAMPLE_BYTES: usize = 256;

/// Type and some bytes of a tensor: hashing all weights would take longer than comparing the few that look alike.
fn sample(tensor: &Tensor) -> String {
    // From one place: of a mapped file, each place is a page to be read.
    let some = &tensor.bytes()[..tensor.bytes().len().min(SAMPLE_BYTES)];
    format!("{}{:?} {some:?} {:?}", tensor.dtype(), tensor.shape(), tensor.strings())
}

fn same(a: &Node, b: &Node) -> bool {
    a.op == b.op && a.outputs.len() == b.outputs.len()
}

fn replace(graph: &mut Graph, old: NodeId, new: NodeId) {
    for slot in 0..graph.node(old).outputs.len() as u32 {
        graph.replace_value(Value { node: old, slot }, Value { node: new, slot });
    }
    let sources = graph.node(old).sources.clone();
    graph.annotate(new, |node| {
        for source in sources {
            if !node.sources.contains(&source) {
                node.sources.push(source);
            }
        }
    });
    graph.remove_node(old);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{becomes, example, run};

    #[test]
    fn header_example() {
        example(&Cse, include_str!("cse.rs"));
    }

    #[test]
    fn chains_merge_in_one_go() {
        let report = becomes(
            &Cse,
            r#"model "g"
            input %0 "x" : f32[2]
            %1 = Constant [0.5] : f32[1]
            %2 = Constant [0.5] : f32[1]
            %3 = Mul(%0, %1)
            %4 = Mul(%0, %2)
            %5 = Exp(%3)
            %6 = Exp(%4)
            output "y" = %5
            output "z" = %6"#,
            r#"model "g"
            input %0 "x" : f32[2]
            %1 = Constant [0.5] : f32[1]
            %2 = Mul(%0, %1)
            %3 = Exp(%2)
            output "y" = %3
            output "z" = %3"#,
        );
        assert_eq!(report.applied.len(), 3);
    }

    #[test]
    fn zeros_of_other_sign_differ() {
        let (graph, report) = run(
            &Cse,
            r#"model "g"
            input %0 "x" : f32[2]
            %1 = Constant [0.0] : f32[1]
            %2 = Constant [-0.0] : f32[1]
            %3 = LeakyRelu(%0) {alpha=0.0}
            %4 = LeakyRelu(%0) {alpha=-0.0}
            %5 = Add(%3, %1)
            %6 = Add(%4, %2)
            output "y" = %5
            output "z" = %6"#,
        );
        assert_eq!((graph.node_count(), report.applied.len()), (7, 0));
    }
}
