//! The graph: nodes with ordered operands over a petgraph `StableDiGraph`.
//!
//! petgraph does not order the edges of a node, and it reuses freed indices. So a node keeps its ordered
//! operands itself, the edges follow them, and no petgraph type is public.

use crate::ops::{InferCx, Op, OpError, refresh_regions};
use crate::{Dim, Fact};
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use rabot_tensor::Tensor;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

/// A node of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    fn index(self) -> NodeIndex {
        NodeIndex::new(self.0 as usize)
    }

    fn of(index: NodeIndex) -> Self {
        NodeId(index.index() as u32)
    }
}

/// One output of a node: what flows along edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node that makes it.
    pub node: NodeId,
    /// Which of the node's outputs it is.
    pub slot: u32,
}

/// An output of a node: its name and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeOutput {
    /// Name of the value: that of the source model, or derived from the node's name.
    pub name: Arc<str>,
    /// What inference knows.
    pub fact: Fact,
}

/// An operator applied to operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operator.
    pub op: Op,
    /// Ordered operands; `None` for an absent optional one.
    pub inputs: Vec<Option<Value>>,
    /// Ordered outputs.
    pub outputs: Vec<NodeOutput>,
    /// Name, unique in the graph as far as the source model's names are.
    pub name: Arc<str>,
    /// Names of the source nodes this one stands for, through every rewrite.
    pub sources: Vec<Arc<str>>,
    /// Nodes with the same group become one kernel.
    pub group: Option<u32>,
    /// Dims that must be equal when the program runs.
    pub equal: Vec<(Dim, Dim)>,
}

/// A named output of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphOutput {
    /// The name callers see.
    pub name: Arc<str>,
    /// What is given out.
    pub value: Value,
}

/// The graph cannot be built or edited as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// An operator refused its operands.
    #[error("{op} `{node}`: {error} (inputs: {inputs})")]
    Op {
        /// Name of the node.
        node: String,
        /// Name of its op.
        op: &'static str,
        /// Types of the operands.
        inputs: String,
        /// What the op said; boxed, since a result is as large as its error.
        error: Box<OpError>,
    },
    /// The nodes cannot be put in order.
    #[error("the graph has a cycle through `{0}`")]
    Cycle(String),
}

/// Pairs of dims that must be equal when the program runs.
type EqualDims = Vec<(Dim, Dim)>;

/// A model: a directed acyclic graph of operators.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    dag: StableDiGraph<Node, ()>,
    inputs: Vec<NodeId>,
    outputs: Vec<GraphOutput>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Graph { name: name.to_owned(), ..Self::default() }
    }

    /// Adds an input.
    pub fn add_input(&mut self, name: &str, fact: Fact) -> Value {
        let value = self.insert(Op::Input, vec![], name, vec![], vec![fact], vec![]);
        self.inputs.push(value.node);
        value
    }

    /// Adds a constant. The data is shared, not copied.
    pub fn add_constant(&mut self, name: &str, tensor: Tensor) -> Value {
        let fact = Fact::of_constant(tensor.clone());
        self.insert(Op::Constant(tensor), vec![], name, vec![], vec![fact], vec![])
    }

    /// Adds a node and infers its outputs, which are named after the node.
    ///
    /// **Errors**: the op refuses the operands.
    pub fn add_node(
        &mut self,
        op: Op,
        inputs: Vec<Option<Value>>,
        name: &str,
        sources: Vec<Arc<str>>,
    ) -> Result<NodeId, GraphError> {
        let (facts, equal) = self.infer(&op, &inputs, name)?;
        Ok(self.insert(op, inputs, name, sources, facts, equal).node)
    }

    fn insert(
        &mut self,
        op: Op,
        inputs: Vec<Option<Value>>,
        name: &str,
        sources: Vec<Arc<str>>,
        facts: Vec<Fact>,
        equal: Vec<(Dim, Dim)>,
    ) -> Value {
        let name: Arc<str> = name.into();
        let outputs = facts.into_iter().enumerate().map(|(slot, fact)| {
            let name = if slot == 0 { name.clone() } else { format!("{name}:{slot}").into() };
            NodeOutput { name, fact }
        });
        let outputs = outputs.collect();
        let node = Node { op, inputs, outputs, name, sources, group: None, equal };
        let operands: Vec<Value> = node.inputs.iter().flatten().copied().collect();
        let id = NodeId::of(self.dag.add_node(node));
        for operand in operands {
            self.dag.add_edge(operand.node.index(), id.index(), ());
        }
        Value { node: id, slot: 0 }
    }

    fn infer(
        &self,
        op: &Op,
        inputs: &[Option<Value>],
        name: &str,
    ) -> Result<(Vec<Fact>, EqualDims), GraphError> {
        let facts: Vec<Option<&Fact>> = inputs.iter().map(|i| i.map(|v| self.fact(v))).collect();
        let mut cx = InferCx::new(name);
        let inferred = op.infer(&facts, &mut cx).map_err(|error| {
            let types = facts.iter().map(|f| f.map_or("-".to_owned(), |f| f.ty.to_string()));
            let inputs = types.collect::<Vec<_>>().join(", ");
            GraphError::Op { node: name.to_owned(), op: op.name(), inputs, error: Box::new(error) }
        })?;
        Ok((inferred, cx.equal))
    }

    /// Marks a value as an output.
    pub fn add_output(&mut self, name: &str, value: Value) {
        self.outputs.push(GraphOutput { name: name.into(), value });
    }

    /// The input nodes, in order.
    pub fn inputs(&self) -> &[NodeId] {
        &self.inputs
    }

    /// Puts the inputs into another order.
    ///
    /// **Panics** if the list does not hold each input once.
    pub fn set_input_order(&mut self, order: Vec<NodeId>) {
        let sorted = |nodes: &[NodeId]| {
            let mut nodes = nodes.to_vec();
            nodes.sort();
            nodes
        };
        assert_eq!(sorted(&order), sorted(&self.inputs), "an order of other inputs");
        self.inputs = order;
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> &[GraphOutput] {
        &self.outputs
    }

    /// Facts of the outputs, in order.
    pub fn output_facts(&self) -> Vec<Fact> {
        self.outputs.iter().map(|o| self.fact(o.value).clone()).collect()
    }

    /// A node.
    ///
    /// **Panics** if the node was removed: an id is only good as long as its node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id.index()]
    }

    /// True if the node is still there.
    pub fn contains(&self, id: NodeId) -> bool {
        self.dag.contains_node(id.index())
    }

    /// Changes what does not touch operands or types: name, sources, group, output names.
    pub fn annotate(&mut self, id: NodeId, edit: impl FnOnce(&mut NodeAnnotations<'_>)) {
        let node = &mut self.dag[id.index()];
        edit(&mut NodeAnnotations {
            name: &mut node.name,
            sources: &mut node.sources,
            group: &mut node.group,
            outputs: &mut node.outputs,
        });
    }

    /// What is known of a value.
    pub fn fact(&self, value: Value) -> &Fact {
        &self.node(value.node).outputs[value.slot as usize].fact
    }

    /// Name of a value.
    pub fn value_name(&self, value: Value) -> &Arc<str> {
        &self.node(value.node).outputs[value.slot as usize].name
    }

    /// The contents of a value, if it is constant.
    pub fn constant(&self, value: Value) -> Option<&Tensor> {
        self.fact(value).constant.as_ref()
    }

    /// Number of nodes, inputs and constants included; nested graphs not.
    pub fn node_count(&self) -> usize {
        self.dag.node_count()
    }

    /// All nodes by id.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.dag.node_indices().map(NodeId::of)
    }

    /// All nodes, operands before users; among those that are ready, the smaller id first.
    ///
    /// **Errors**: the graph has a cycle.
    pub fn topological(&self) -> Result<Vec<NodeId>, GraphError> {
        let mut waiting: HashMap<NodeIndex, usize> = HashMap::new();
        let mut ready = BinaryHeap::new();
        for index in self.dag.node_indices() {
            let operands = self.dag.edges_directed(index, Direction::Incoming).count();
            waiting.insert(index, operands);
            if operands == 0 {
                ready.push(Reverse(index));
            }
        }
        let mut order = Vec::with_capacity(self.dag.node_count());
        while let Some(Reverse(index)) = ready.pop() {
            order.push(NodeId::of(index));
            waiting.remove(&index);
            for user in self.dag.neighbors_directed(index, Direction::Outgoing) {
                if let Some(count) = waiting.get_mut(&user) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(Reverse(user));
                    }
                }
            }
        }
        match waiting.keys().min() {
            None => Ok(order),
            Some(&index) => Err(GraphError::Cycle(self.dag[index].name.to_string())),
        }
    }

    /// The uses of a value as an operand: node and position, by node id. Outputs of the graph are not among them.
    pub fn users(&self, value: Value) -> Vec<(NodeId, usize)> {
        let neighbors = self.dag.neighbors_directed(value.node.index(), Direction::Outgoing);
        let mut nodes: Vec<NodeId> = neighbors.map(NodeId::of).collect();
        nodes.sort();
        nodes.dedup();
        let mut users = Vec::new();
        for node in nodes {
            for (slot, input) in self.node(node).inputs.iter().enumerate() {
                if *input == Some(value) {
                    users.push((node, slot));
                }
            }
        }
        users
    }

    /// True if the value is an output of the graph.
    pub fn is_output(&self, value: Value) -> bool {
        self.outputs.iter().any(|output| output.value == value)
    }

    /// Number of uses as an operand or as an output of the graph.
    pub fn use_count(&self, value: Value) -> usize {
        self.users(value).len() + self.outputs.iter().filter(|o| o.value == value).count()
    }

    /// Sets one operand. Types of users are stale until [`Graph::refresh`].
    pub fn set_input(&mut self, node: NodeId, slot: usize, value: Option<Value>) {
        let old = std::mem::replace(&mut self.dag[node.index()].inputs[slot], value);
        if let Some(old) = old
            && let Some(edge) = self.dag.find_edge(old.node.index(), node.index())
        {
            self.dag.remove_edge(edge);
        }
        if let Some(new) = value {
            self.dag.add_edge(new.node.index(), node.index(), ());
        }
    }

    /// Makes every user of `old`, and every output that is `old`, use `new`. Types of users are stale until
    /// [`Graph::refresh`].
    pub fn replace_value(&mut self, old: Value, new: Value) {
        for (node, slot) in self.users(old) {
            self.set_input(node, slot, Some(new));
        }
        for output in &mut self.outputs {
            if output.value == old {
                output.value = new;
            }
        }
    }

    /// Points an output at another value.
    pub fn set_output(&mut self, index: usize, value: Value) {
        self.outputs[index].value = value;
    }

    /// Replaces a node's op, keeping its operands, and infers its outputs again.
    ///
    /// **Errors**: the new op refuses the operands; the node is then unchanged.
    pub fn set_op(&mut self, id: NodeId, op: Op) -> Result<(), GraphError> {
        let old = std::mem::replace(&mut self.dag[id.index()].op, op);
        let result = self.refresh_node(id);
        if result.is_err() {
            self.dag[id.index()].op = old;
        }
        result
    }

    /// Removes a node nobody uses.
    ///
    /// **Panics** if it is used: the caller has to redirect the users first.
    pub fn remove_node(&mut self, id: NodeId) {
        let users = self.dag.edges_directed(id.index(), Direction::Outgoing).count();
        assert!(users == 0, "`{}` is still used", self.node(id).name);
        assert!(self.outputs.iter().all(|o| o.value.node != id), "`{}` is an output", self.node(id).name);
        self.inputs.retain(|&input| input != id);
        self.dag.remove_node(id.index());
    }

    /// Removes nodes that no output needs; inputs stay. Returns the removed nodes.
    pub fn remove_unused(&mut self) -> Vec<Node> {
        let mut needed: Vec<bool> = vec![false; self.dag.node_indices().last().map_or(0, |i| i.index() + 1)];
        let mut stack: Vec<NodeId> = self.outputs.iter().map(|o| o.value.node).collect();
        stack.extend(&self.inputs);
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut needed[id.0 as usize], true) {
                stack.extend(self.node(id).inputs.iter().flatten().map(|v| v.node));
            }
        }
        let dead: Vec<NodeId> = self.node_ids().filter(|id| !needed[id.0 as usize]).collect();
        dead.into_iter().filter_map(|id| self.dag.remove_node(id.index())).collect()
    }

    /// Sets what is known of an input, for specializing a symbolic dim. Types are stale until [`Graph::refresh`].
    pub fn set_input_fact(&mut self, input: NodeId, fact: Fact) {
        self.dag[input.index()].outputs[0].fact = fact;
    }

    /// Infers all types again, in order.
    ///
    /// **Errors**: an op refuses its operands, or the graph has a cycle.
    pub fn refresh(&mut self) -> Result<(), GraphError> {
        for id in self.topological()? {
            self.refresh_node(id)?;
        }
        Ok(())
    }

    /// Infers the types of one node again; those of its operands must be right.
    ///
    /// **Errors**: the op refuses its operands.
    pub fn refresh_node(&mut self, id: NodeId) -> Result<(), GraphError> {
        if matches!(self.node(id).op, Op::Input) {
            return Ok(());
        }
        if !self.node(id).op.regions().is_empty() {
            self.refresh_regions(id)?;
        }
        let node = self.node(id);
        let (facts, equal) = self.infer(&node.op, &node.inputs, &node.name)?;
        let node = &mut self.dag[id.index()];
        node.equal = equal;
        node.outputs.truncate(facts.len());
        for (slot, fact) in facts.into_iter().enumerate() {
            match node.outputs.get_mut(slot) {
                Some(output) => output.fact = fact,
                None => {
                    let name = format!("{}:{slot}", node.name).into();
                    node.outputs.push(NodeOutput { name, fact });
                }
            }
        }
        Ok(())
    }

    /// Hands the facts of operands to the nested graphs of a node.
    fn refresh_regions(&mut self, id: NodeId) -> Result<(), GraphError> {
        let node = self.node(id);
        let name = node.name.clone();
        let facts: Vec<Option<Fact>> = node.inputs.iter().map(|i| i.map(|v| self.fact(v).clone())).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        refresh_regions(&mut self.dag[id.index()].op, &facts, &name)
    }

    /// Adds a copy of a node of another graph, with these operands. What is known of its outputs is taken over.
    pub fn add_copy(&mut self, node: &Node, inputs: Vec<Option<Value>>) -> NodeId {
        let operands: Vec<Value> = inputs.iter().flatten().copied().collect();
        let id = NodeId::of(self.dag.add_node(Node { inputs, ..node.clone() }));
        for operand in operands {
            self.dag.add_edge(operand.node.index(), id.index(), ());
        }
        id
    }

    /// Names of all symbols in types of inputs and nodes, sorted.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        let mut found = BTreeMap::new();
        for node in self.dag.node_weights() {
            for dim in node.outputs.iter().flat_map(|o| o.fact.shape()) {
                dim.for_each_symbol(&mut |name| {
                    found.insert(name.clone(), ());
                });
            }
        }
        found.into_keys().collect()
    }
}

/// The parts of a node that [`Graph::annotate`] may change.
#[derive(Debug)]
pub struct NodeAnnotations<'a> {
    /// Name of the node.
    pub name: &'a mut Arc<str>,
    /// Source nodes.
    pub sources: &'a mut Vec<Arc<str>>,
    /// Kernel group.
    pub group: &'a mut Option<u32>,
    /// Outputs; only their names may be changed.
    pub outputs: &'a mut Vec<NodeOutput>,
}

impl PartialEq for Graph {
    /// Equal node by node in topological order, whatever the ids.
    fn eq(&self, other: &Self) -> bool {
        let (Ok(left), Ok(right)) = (self.topological(), other.topological()) else { return false };
        if left.len() != right.len() || self.outputs.len() != other.outputs.len() {
            return false;
        }
        let position = |order: &[NodeId]| -> HashMap<NodeId, usize> {
            order.iter().enumerate().map(|(at, &id)| (id, at)).collect()
        };
        let (left_at, right_at) = (position(&left), position(&right));
        let same_value =
            |a: Value, b: Value| left_at.get(&a.node) == right_at.get(&b.node) && a.slot == b.slot;
        let same_node = |a: &Node, b: &Node| {
            let same_inputs = a.inputs.len() == b.inputs.len()
                && a.inputs.iter().zip(&b.inputs).all(|(x, y)| match (x, y) {
                    (Some(x), Some(y)) => same_value(*x, *y),
                    (None, None) => true,
                    _ => false,
                });
            same_inputs && a.op == b.op && a.outputs == b.outputs && a.name == b.name && a.group == b.group
        };
        left.iter().zip(&right).all(|(a, b)| same_node(self.node(*a), other.node(*b)))
            && self
                .outputs
                .iter()
                .zip(&other.outputs)
                .all(|(a, b)| a.name == b.name && same_value(a.value, b.value))
    }
}
