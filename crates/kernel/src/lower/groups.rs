//! The order in which groups of nodes are lowered.

use rabot_ir::{Graph, GraphError, NodeId, Op, Value};
use std::collections::{HashMap, HashSet};

/// The operands of a node whose contents a kernel reads: not shapes, axes and the like, nor what is known already.
fn data_operands(graph: &Graph, id: NodeId) -> Vec<Value> {
    let node = graph.node(id);
    let reads = |slot: usize| match &node.op {
        Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Expand(_) | Op::Slice(_) => slot == 0,
        Op::Split(_) | Op::Reduce(_) | Op::Resize(_) => slot == 0,
        Op::Pad(_) => slot == 0 || slot == 2,
        Op::ConstantOfShape(_) | Op::Shape(_) => false,
        _ => true,
    };
    let operands = node.inputs.iter().enumerate().filter(|(slot, _)| reads(*slot));
    operands
        .filter_map(|(_, input)| *input)
        .filter(|&v| {
            let fact = graph.fact(v);
            fact.constant.is_none() && fact.elements.is_none()
        })
        .collect()
}

/// Groups of nodes in an order in which each follows what it reads; nodes inside are in topological order.
/// Nodes that no output needs are left out, and so are inputs and constants.
///
/// **Errors**: the graph has a cycle.
pub(super) fn schedule(graph: &Graph) -> Result<Vec<Vec<NodeId>>, GraphError> {
    let order = graph.topological()?;
    let mut needed: HashSet<NodeId> = HashSet::new();
    for output in graph.outputs() {
        let fact = graph.fact(output.value);
        if fact.constant.is_none() && fact.elements.is_none() {
            needed.insert(output.value.node);
        }
    }
    for &id in order.iter().rev() {
        if needed.contains(&id) {
            needed.extend(data_operands(graph, id).iter().map(|v| v.node));
        }
    }
    let mut groups: HashMap<u32, Vec<NodeId>> = HashMap::new();
    for &id in order.iter().filter(|id| needed.contains(id)) {
        if let Some(group) = graph.node(id).group {
            groups.entry(group).or_default().push(id);
        }
    }
    let mut scheduler =
        Scheduler { graph, groups, done: HashSet::new(), entered: HashSet::new(), out: vec![] };
    for &id in &order {
        if needed.contains(&id) && !matches!(graph.node(id).op, Op::Input | Op::Constant(_)) {
            scheduler.visit(id);
        }
    }
    Ok(scheduler.out)
}

struct Scheduler<'g> {
    graph: &'g Graph,
    groups: HashMap<u32, Vec<NodeId>>,
    done: HashSet<NodeId>,
    entered: HashSet<u32>,
    out: Vec<Vec<NodeId>>,
}

impl Scheduler<'_> {
    /// Schedules the group of a node after whatever it reads. Nodes come in topological order, so this recurses only
    /// across groups that interleave.
    fn visit(&mut self, id: NodeId) {
        if self.done.contains(&id) || matches!(self.graph.node(id).op, Op::Input | Op::Constant(_)) {
            return;
        }
        let group = self.graph.node(id).group.filter(|g| self.groups.get(g).is_some_and(|n| n.len() > 1));
        let members = match group {
            Some(group) if self.entered.insert(group) => self.groups.get(&group).cloned().unwrap_or_default(),
            // Entered already and not done: the group is not convex, so its nodes go one by one.
            _ => vec![id],
        };
        for &member in &members {
            for value in data_operands(self.graph, member) {
                if !members.contains(&value.node) {
                    self.visit(value.node);
                }
            }
        }
        let left: Vec<NodeId> = members.into_iter().filter(|m| self.done.insert(*m)).collect();
        if !left.is_empty() {
            self.out.push(left);
        }
    }
}
