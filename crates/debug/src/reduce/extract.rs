//! A part of a graph as a graph of its own.

use super::Case;
use rabot_ir::{Fact, Graph, NodeId, Op, Value};
use rabot_tensor::Tensor;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The case of some nodes of another one: what they read from others become inputs, with these values, and what others
/// read of them become outputs. Constants go along. `None` if a value is not known, or the part cannot be typed.
pub(super) fn extract(
    case: &Case,
    nodes: &BTreeSet<NodeId>,
    values: &HashMap<Value, Tensor>,
) -> Option<Case> {
    let source = &case.graph;
    let mut part = Part {
        source,
        values,
        graph: Graph::new(&source.name),
        inputs: Default::default(),
        made: HashMap::new(),
        names: HashSet::new(),
    };
    for id in source.topological().ok()?.into_iter().filter(|id| nodes.contains(id)) {
        part.add(id)?;
    }
    part.outputs(nodes)?;
    let Part { mut graph, inputs, .. } = part;
    graph.refresh().ok()?;
    Some(Case { graph, inputs })
}

struct Part<'a> {
    source: &'a Graph,
    values: &'a HashMap<Value, Tensor>,
    graph: Graph,
    inputs: crate::Tensors,
    made: HashMap<Value, Value>,
    /// Names of inputs and outputs.
    names: HashSet<String>,
}

impl Part<'_> {
    fn add(&mut self, id: NodeId) -> Option<()> {
        let node = self.source.node(id).clone();
        let mut operands = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            operands.push(match input {
                None => None,
                Some(value) => Some(self.operand(*value)?),
            });
        }
        let new = self.graph.add_copy(&node, operands);
        for slot in 0..node.outputs.len() as u32 {
            self.made.insert(Value { node: id, slot }, Value { node: new, slot });
        }
        Some(())
    }

    fn operand(&mut self, value: Value) -> Option<Value> {
        if let Some(&made) = self.made.get(&value) {
            return Some(made);
        }
        let node = self.source.node(value.node);
        let new = match &node.op {
            Op::Constant(tensor) => self.graph.add_constant(&node.name, tensor.clone()),
            _ => {
                let tensor = self.values.get(&value)?.clone();
                let name = self.free_name(self.source.value_name(value));
                let shape = tensor.shape().iter().map(|&dim| dim.into()).collect::<Vec<_>>();
                let input = self.graph.add_input(&name, Fact::of_type(tensor.dtype(), shape));
                self.inputs.insert(name, tensor);
                input
            }
        };
        self.made.insert(value, new);
        Some(new)
    }

    fn outputs(&mut self, nodes: &BTreeSet<NodeId>) -> Option<()> {
        for &id in nodes {
            for slot in 0..self.source.node(id).outputs.len() as u32 {
                let value = Value { node: id, slot };
                let users = self.source.users(value);
                let leaves = users.iter().any(|(user, _)| !nodes.contains(user));
                if !leaves && !self.source.is_output(value) {
                    continue;
                }
                let output = self.source.outputs().iter().find(|o| o.value == value);
                let name = output.map_or(self.source.value_name(value), |o| &o.name).clone();
                let name = self.free_name(&name);
                self.graph.add_output(&name, *self.made.get(&value)?);
            }
        }
        (!self.graph.outputs().is_empty()).then_some(())
    }

    fn free_name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}.{count}");
        }
        name
    }
}
