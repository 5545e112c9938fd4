//! Copies of nested graphs into the graph around them: what choosing a branch and unrolling a loop share.

use rabot_ir::ops::OpError;
use rabot_ir::{Graph, GraphError, NodeId, Op, Value};
use rabot_rewrite::unique_name;
use rabot_tensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What stands in a graph for each value of a nested one.
pub(super) type Values = HashMap<Value, Value>;

/// Adds nodes to a graph that can all be taken away again.
#[derive(Debug)]
pub(super) struct Copier<'a> {
    graph: &'a mut Graph,
    names: &'a mut HashSet<Arc<str>>,
    /// Begins all names.
    prefix: Arc<str>,
    added: Vec<NodeId>,
    taken: Vec<Arc<str>>,
}

impl<'a> Copier<'a> {
    /// Adds to `graph`; names begin with `prefix` and are none of `names`.
    pub fn new(graph: &'a mut Graph, names: &'a mut HashSet<Arc<str>>, prefix: &Arc<str>) -> Self {
        Copier { graph, names, prefix: prefix.clone(), added: Vec::new(), taken: Vec::new() }
    }

    /// What was added.
    pub fn added(&self) -> &[NodeId] {
        &self.added
    }

    fn name(&mut self, part: &str) -> Arc<str> {
        let name = unique_name(self.names, &format!("{}/{part}", self.prefix));
        self.taken.push(name.clone());
        name
    }

    /// Adds a node and gives its first output.
    ///
    /// **Errors**: the op refuses the operands.
    pub fn add(
        &mut self,
        op: Op,
        inputs: Vec<Option<Value>>,
        part: &str,
        sources: &[Arc<str>],
    ) -> Result<Value, GraphError> {
        let name = self.name(part);
        let node = self.graph.add_node(op, inputs, &name, sources.to_vec())?;
        self.added.push(node);
        Ok(Value { node, slot: 0 })
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor, part: &str) -> Value {
        let name = self.name(part);
        let value = self.graph.add_constant(&name, tensor);
        self.added.push(value.node);
        value
    }

    /// Copies the constants of a nested graph.
    pub fn constants(&mut self, region: &Graph, values: &mut Values) {
        for id in region.node_ids() {
            if let Op::Constant(tensor) = &region.node(id).op {
                let made = self.constant(tensor.clone(), &region.node(id).name);
                values.insert(Value { node: id, slot: 0 }, made);
            }
        }
    }

    /// Copies the nodes of a nested graph in order; `values` has what stands for its inputs and constants, and gets
    /// what stands for all others.
    ///
    /// **Errors**: an op refuses its operands, or nothing stands for one.
    pub fn nodes(&mut self, region: &Graph, values: &mut Values) -> Result<(), GraphError> {
        for id in region.topological()? {
            let inner = region.node(id);
            if matches!(inner.op, Op::Input | Op::Constant(_)) {
                continue;
            }
            let operands = inner.inputs.iter().enumerate();
            let operands: Vec<Option<Value>> = operands
                .map(|(slot, input)| {
                    let stands = |value: Value| values.get(&value).copied();
                    match *input {
                        None => Ok(None),
                        Some(value) => {
                            stands(value).map(Some).ok_or_else(|| missing(&inner.name, inner.op.name(), slot))
                        }
                    }
                })
                .collect::<Result<_, _>>()?;
            let made = self.add(inner.op.clone(), operands, &inner.name, &inner.sources)?.node;
            for slot in 0..inner.outputs.len() as u32 {
                values.insert(Value { node: id, slot }, Value { node: made, slot });
            }
        }
        Ok(())
    }

    /// Takes away what was added.
    pub fn undo(self) {
        for &node in self.added.iter().rev() {
            self.graph.remove_node(node);
        }
        for name in &self.taken {
            self.names.remove(name);
        }
    }
}

/// What stands for the outputs of a nested graph.
///
/// **Errors**: nothing stands for one.
pub(super) fn results(region: &Graph, values: &Values) -> Result<Vec<Value>, GraphError> {
    let outputs = region.outputs().iter().enumerate();
    outputs
        .map(|(slot, output)| {
            values.get(&output.value).copied().ok_or_else(|| missing(&output.name, "output", slot))
        })
        .collect()
}

fn missing(node: &str, op: &'static str, slot: usize) -> GraphError {
    let error = OpError::MissingInput { slot, name: "a value of the nested graph" };
    GraphError::Op { node: node.to_owned(), op, inputs: "none".to_owned(), error: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::text::{parse, print};
    use rabot_rewrite::taken_names;

    #[test]
    fn a_value_that_nothing_stands_for_is_an_error_and_what_was_added_goes() {
        let region =
            parse("model \"r\"\ninput %0 \"a\" : f32[2]\n%1 = Neg(%0)\n%2 = Add(%1, %0)\noutput \"o\" = %2")
                .unwrap();
        let mut graph = parse("model \"g\"\ninput %0 \"x\" : f32[2]\noutput \"y\" = %0").unwrap();
        let (before, mut names) = (print(&graph), taken_names(&graph));
        let taken = names.clone();
        let x = Value { node: graph.inputs()[0], slot: 0 };
        let own = Value { node: region.inputs()[0], slot: 0 };

        let mut copier = Copier::new(&mut graph, &mut names, &"if".into());
        let error = copier.nodes(&region, &mut Values::new()).unwrap_err().to_string();
        assert!(error.contains("a value of the nested graph"), "{error}");
        assert!(results(&region, &Values::new()).is_err());

        let mut values = Values::from([(own, x)]);
        copier.nodes(&region, &mut values).unwrap();
        assert_eq!(copier.added().len(), 2);
        assert_eq!(results(&region, &values).unwrap().len(), 1);
        copier.undo();
        assert_eq!((print(&graph), names), (before, taken));
    }
}
