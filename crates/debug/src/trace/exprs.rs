//! Graphs as expressions that they share.
//!
//! The graphs of a pipeline differ in a few nodes from one to the next. Each is read into one table of expressions: a
//! node is found by its operator, its attributes and its operands, so what two graphs have in common is there once and
//! is evaluated once.

use rabot_ir::text::print;
use rabot_ir::{Attr, Datum, Graph, GraphError, Node, NodeId, Op, Value, ValueType};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A hash of contents.
pub(crate) type Hash = [u8; 32];

/// One result of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Port {
    /// Index of the expression.
    pub expr: usize,
    /// Which of its results.
    pub slot: u32,
}

/// What an expression is.
#[derive(Debug)]
pub(crate) enum Work {
    /// An input or a constant.
    Leaf(Datum),
    /// An operator.
    Node(Arc<Node>),
}

/// An expression: operands come before their users.
#[derive(Debug)]
pub(crate) struct Expr {
    /// What it is.
    pub work: Work,
    /// Operands.
    pub operands: Vec<Option<Port>>,
    /// Hash of the operator and its attributes; of a leaf, of its contents.
    pub signature: Hash,
    /// Where it belongs in the order of the first graph, so that graphs are evaluated side by side.
    pub order: usize,
    /// The graph of the pipeline that first has it; absent for what is evaluated besides those.
    pub stage: Option<usize>,
}

/// A graph in expressions.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The graph.
    pub graph: Arc<Graph>,
    /// Its values, of all nodes that outputs need.
    pub ports: HashMap<Value, Port>,
    /// The same values, operands first.
    pub values: Vec<Value>,
    /// Its values by name, operands first, where one value has the name; inputs and constants are not among them.
    pub named: Vec<(Arc<str>, Value)>,
    /// The same, to look up.
    pub by_name: HashMap<Arc<str>, Value>,
    order: Vec<NodeId>,
    signatures: HashMap<NodeId, Hash>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Exprs {
    exprs: Vec<Expr>,
    ids: HashMap<(Hash, Vec<Option<Port>>), usize>,
    /// Positions of the values of the first graph, by name.
    positions: HashMap<Arc<str>, usize>,
}

impl Exprs {
    /// The expressions.
    pub fn all(&self) -> &[Expr] {
        &self.exprs
    }

    /// Reads a graph on inputs in the order of its own. `stage` is its number, if it is one of the pipeline; `before`
    /// is a graph that it may have nodes in common with.
    ///
    /// **Errors**: the graph has a cycle.
    pub fn read(
        &mut self,
        graph: Arc<Graph>,
        inputs: &[Option<Datum>],
        stage: Option<usize>,
        before: Option<&Stage>,
    ) -> Result<Stage, GraphError> {
        let order = needed(&graph)?;
        let first = self.exprs.is_empty();
        let mut read = Stage {
            ports: HashMap::new(),
            values: Vec::new(),
            named: Vec::new(),
            by_name: HashMap::new(),
            signatures: HashMap::new(),
            order,
            graph: graph.clone(),
        };
        let mut twice = HashSet::new();
        for (at, &id) in read.order.iter().enumerate() {
            let node = graph.node(id);
            let position = graph.inputs().iter().position(|&input| input == id);
            let datum = position.and_then(|at| inputs.get(at).cloned().flatten());
            let signature = match &datum {
                Some(datum) => hash_of(datum),
                None => signature(&graph, id, before),
            };
            read.signatures.insert(id, signature);
            let operand = |input: &Option<Value>| input.and_then(|value| read.ports.get(&value).copied());
            let operands: Vec<Option<Port>> = node.inputs.iter().map(operand).collect();
            let position = if first { at } else { self.position(node, &operands) };
            let work = || match (datum, &node.op) {
                (Some(datum), _) => Work::Leaf(datum),
                (None, Op::Constant(tensor)) => Work::Leaf(Datum::Tensor(tensor.clone())),
                (None, _) => Work::Node(Arc::new(node.clone())),
            };
            let expr = self.intern(signature, operands, position, stage, work);
            for (slot, output) in node.outputs.iter().enumerate() {
                let value = Value { node: id, slot: slot as u32 };
                read.ports.insert(value, Port { expr, slot: slot as u32 });
                read.values.push(value);
                if first {
                    self.positions.insert(output.name.clone(), at);
                }
                if matches!(node.op, Op::Input | Op::Constant(_)) {
                    continue;
                }
                match read.by_name.insert(output.name.clone(), value) {
                    None => read.named.push((output.name.clone(), value)),
                    Some(_) => drop(twice.insert(output.name.clone())),
                }
            }
        }
        read.named.retain(|(name, _)| !twice.contains(name));
        read.by_name.retain(|name, _| !twice.contains(name));
        Ok(read)
    }

    /// Every value of a graph as its nodes make it from the values of the graph before: operands that the graph before
    /// has by name are taken from there. What a value is off by then is what the pass injected at it.
    pub fn injected(&mut self, stage: &Stage, before: &Stage) -> HashMap<Value, Port> {
        let mut found: HashMap<Value, Port> = HashMap::new();
        for &id in &stage.order {
            let node = stage.graph.node(id);
            let taken = |value: Value| {
                let own = stage.by_name.get(stage.graph.value_name(value)) == Some(&value);
                let kept = before.by_name.get(stage.graph.value_name(value)).filter(|_| own)?;
                let alike = alike(&stage.graph.fact(value).ty, &before.graph.fact(*kept).ty);
                before.ports.get(kept).copied().filter(|_| alike)
            };
            let operand = |input: &Option<Value>| input.and_then(|v| taken(v).or(found.get(&v).copied()));
            let operands: Vec<Option<Port>> = node.inputs.iter().map(operand).collect();
            let Some(actual) = stage.ports.get(&Value { node: id, slot: 0 }).map(|port| port.expr) else {
                continue;
            };
            let Some(expr) = self.exprs.get(actual) else { continue };
            let order = expr.order;
            let signature = expr.signature;
            let expr = match (&expr.work, expr.operands == operands) {
                (Work::Leaf(_), _) | (_, true) => actual,
                (Work::Node(node), false) => {
                    let node = node.clone();
                    self.intern(signature, operands, order, None, || Work::Node(node))
                }
            };
            for slot in 0..node.outputs.len() as u32 {
                found.insert(Value { node: id, slot }, Port { expr, slot });
            }
        }
        found
    }

    /// Where a node belongs in the order of the first graph: where its value was, or behind its operands.
    fn position(&self, node: &Node, operands: &[Option<Port>]) -> usize {
        let named = node.outputs.iter().filter_map(|output| self.positions.get(&output.name)).max();
        let behind = || {
            let orders = operands.iter().flatten().filter_map(|port| self.exprs.get(port.expr));
            orders.map(|expr| expr.order).max().unwrap_or(0)
        };
        named.copied().unwrap_or_else(behind)
    }

    fn intern(
        &mut self,
        signature: Hash,
        operands: Vec<Option<Port>>,
        order: usize,
        stage: Option<usize>,
        work: impl FnOnce() -> Work,
    ) -> usize {
        let next = self.exprs.len();
        let id = *self.ids.entry((signature, operands.clone())).or_insert(next);
        match self.exprs.get_mut(id) {
            Some(known) => {
                known.stage = known.stage.or(stage);
                known.order = known.order.min(order);
            }
            None => self.exprs.push(Expr { work: work(), operands, signature, order, stage }),
        }
        id
    }
}

/// Nodes that outputs need, operands first.
fn needed(graph: &Graph) -> Result<Vec<NodeId>, GraphError> {
    let order = graph.topological()?;
    let mut needed: HashSet<NodeId> = graph.outputs().iter().map(|output| output.value.node).collect();
    for &id in order.iter().rev() {
        if needed.contains(&id) {
            needed.extend(graph.node(id).inputs.iter().flatten().map(|value| value.node));
        }
    }
    Ok(order.into_iter().filter(|id| needed.contains(id)).collect())
}

/// True if values of these types can be of the same size.
fn alike(a: &ValueType, b: &ValueType) -> bool {
    let dims = || a.shape.iter().zip(&b.shape);
    let fit = |x: Option<i64>, y: Option<i64>| x.is_none() || y.is_none() || x == y;
    a.dtype == b.dtype
        && a.form == b.form
        && a.rank() == b.rank()
        && dims().all(|(x, y)| fit(x.as_const(), y.as_const()))
}

/// Hash of a node's operator and attributes, of a constant its contents; taken from the graph before if that has the same operator there.
pub(crate) fn signature(graph: &Graph, id: NodeId, before: Option<&Stage>) -> Hash {
    let op = &graph.node(id).op;
    if let Some(before) = before.filter(|before| before.graph.contains(id))
        && let Some(known) = before.signatures.get(&id)
        && before.graph.node(id).op == *op
        && !matches!(op, Op::Input)
    {
        return *known;
    }
    if let Op::Constant(tensor) = op {
        return hash_of(&Datum::Tensor(tensor.clone()));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("op {};", op.name()).as_bytes());
    for (name, attr) in op.attrs().iter() {
        hasher.update(name.as_bytes());
        match attr {
            Attr::Tensor(tensor) => hasher.update(&hash_of(&Datum::Tensor(tensor.clone()))),
            attr => hasher.update(format!("={attr:?};").as_bytes()),
        };
    }
    for (word, region) in op.regions() {
        hasher.update(word.as_bytes());
        hasher.update(print(region).as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Hash of a value's contents.
pub(crate) fn hash_of(datum: &Datum) -> Hash {
    let mut hasher = blake3::Hasher::new();
    match datum {
        Datum::Tensor(tensor) => {
            hasher.update(crate::digest(tensor).as_bytes());
        }
        Datum::Sequence(values) => {
            hasher.update(b"sequence;");
            for value in values.iter() {
                hasher.update(&hash_of(value));
            }
        }
        Datum::Optional(value) => {
            hasher.update(b"optional;");
            for value in value.iter() {
                hasher.update(&hash_of(value));
            }
        }
        Datum::Map(map) => {
            hasher.update(b"map;");
            for tensor in [&map.keys, &map.values] {
                hasher.update(&hash_of(&Datum::Tensor(tensor.clone())));
            }
        }
    }
    *hasher.finalize().as_bytes()
}
