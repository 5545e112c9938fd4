//! `dce`: removes what no output needs.
//!
//! Also outside the reach of every other pass: operands that neither branch of a conditional reads.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[2]
//! %1 = Relu(%0)
//! %2 = Neg(%0)
//! output "y" = %1
//! ; becomes
//! model "g"
//! input %0 "x" : f32[2]
//! %1 = Relu(%0)
//! output "y" = %1
//! ```

use rabot_ir::{Graph, GraphError, NodeId, Value};
use rabot_rewrite::{Exactness, Pass, PassCx, PassError, PassInfo, Report, edit_branches};

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: "dce", options: &[], make: |_| Ok(Box::new(Dce)) };

/// Removes what no output needs.
#[derive(Clone, Debug)]
pub struct Dce;

impl Pass for Dce {
    fn name(&self) -> &'static str {
        "dce"
    }

    fn summary(&self) -> &'static str {
        "remove what no output needs"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Bitwise
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        remove(graph, cx, &mut report)?;
        Ok(report)
    }
}

fn remove(graph: &mut Graph, cx: &PassCx<'_>, report: &mut Report) -> Result<(), PassError> {
    let error = |error| PassError::Graph { pass: "dce", error };
    remove_unused(graph, cx, report);
    edit_branches("dce", graph, &mut |branch| {
        let before = report.applied.len();
        remove(branch, cx, report)?;
        Ok(report.applied.len() > before)
    })?;
    let ids: Vec<NodeId> = graph.node_ids().collect();
    for id in ids {
        drop_captures(graph, id, cx, report).map_err(error)?;
    }
    // What only a dropped capture used is unused now.
    remove_unused(graph, cx, report);
    Ok(())
}

/// Removes what no output needs. Whether it is there changes no output, so it goes whatever is admitted.
fn remove_unused(graph: &mut Graph, cx: &PassCx<'_>, report: &mut Report) {
    for node in graph.remove_unused() {
        cx.admits("unused", &node.name);
        report.apply("unused", node.name, node.op.name());
    }
}

/// Removes the captured operands that no nested graph reads.
fn drop_captures(
    graph: &mut Graph,
    id: NodeId,
    cx: &PassCx<'_>,
    report: &mut Report,
) -> Result<(), GraphError> {
    let mut op = graph.node(id).op.clone();
    if op.regions().is_empty() {
        return Ok(());
    }
    let (own_operands, own_inputs) = (op.own_operands(), op.own_inputs());
    let used = |region: &Graph, at: usize| {
        let input = region.inputs().get(own_inputs + at);
        input.is_none_or(|&node| region.use_count(Value { node, slot: 0 }) > 0)
    };
    let count = graph.node(id).inputs.len().saturating_sub(own_operands);
    let unused: Vec<usize> =
        (0..count).filter(|&at| !op.regions().iter().any(|(_, region)| used(region, at))).collect();
    if unused.is_empty() || !cx.admits("unread-capture", &graph.node(id).name) {
        return Ok(());
    }
    for region in op.regions_mut() {
        for &at in unused.iter().rev() {
            let input = region.inputs()[own_inputs + at];
            region.remove_node(input);
        }
    }
    let old = graph.node(id).clone();
    let is_kept = |slot: usize| slot < own_operands || !unused.contains(&(slot - own_operands));
    let kept = old.inputs.iter().enumerate().filter(|(slot, _)| is_kept(*slot));
    let inputs = kept.map(|(_, input)| *input).collect();
    let new = graph.add_node(op, inputs, &old.name, old.sources.clone())?;
    for slot in 0..old.outputs.len() as u32 {
        graph.replace_value(Value { node: id, slot }, Value { node: new, slot });
    }
    graph.remove_node(id);
    graph.annotate(new, |node| {
        for (output, old) in node.outputs.iter_mut().zip(&old.outputs) {
            output.name = old.name.clone();
        }
    });
    report.apply("unread-capture", old.name, format!("{} operands", unused.len()));
    graph.refresh()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{becomes, example};

    #[test]
    fn header_example() {
        example(&Dce, include_str!("dce.rs"));
    }

    #[test]
    fn captures_that_no_branch_reads_go() {
        becomes(
            &Dce,
            r#"model "g"
            input %0 "c" : bool[1]
            input %1 "x" : f32[2]
            %2 = Relu(%1)
            %3 = Neg(%1)
            %4 = If(%0, %2, %3) then "t" {
                input %0 "a" : f32[2]
                input %1 "b" : f32[2]
                %2 = Abs(%0)
                output "o" = %1
            } else "e" {
                input %0 "a" : f32[2]
                input %1 "b" : f32[2]
                %2 = Abs(%1)
                output "o" = %2
            }
            output "y" = %4"#,
            r#"model "g"
            input %0 "c" : bool[1]
            input %1 "x" : f32[2]
            %2 = Neg(%1)
            %3 = If(%0, %2) then "t" {
                input %0 "b" : f32[2]
                output "o" = %0
            } else "e" {
                input %0 "b" : f32[2]
                %1 = Abs(%0)
                output "o" = %1
            }
            output "y" = %3"#,
        );
    }
}
