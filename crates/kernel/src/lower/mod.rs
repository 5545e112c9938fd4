//! Lowering: from a graph to the kernels that compute it.
//!
//! Nodes with the same `group` become one kernel where that can be described; a group that cannot is split, never
//! refused. Views (reshape, transpose, slice, expand, split) cost nothing: they become strides of whoever reads.

mod blocks;
mod builder;
mod contract;
mod conv;
mod elementwise;
mod exprs;
mod frame;
mod groups;
mod host;
mod moves;
mod name;
mod padding;
mod place;
mod quantized;
mod reduce;
mod scalar;
mod tiles;
mod view;
mod views;
mod window;

use crate::stages::outer_symbols;
use crate::{BufferId, Plan, Port, Step, Storage};
use builder::{Builder, Origin};
use exprs::Members;
use rabot_ir::ops::{BinaryOp, If};
use rabot_ir::{Dim, Graph, GraphError, NodeId, Op, Value};
use rabot_target::Profile;
use rabot_tensor::DType;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use view::View;

/// Why quantization in blocks runs on the host.
const BLOCKS: &str = "no kernel reads scales and zero points of blocks";

/// A node that cannot be planned.
#[derive(Clone, Debug)]
pub struct Unplannable {
    /// Name of the source node.
    pub node: String,
    /// Name of its op.
    pub op: String,
    /// Why, and what to do.
    pub reason: String,
}

/// A graph cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nodes that cannot be planned, all of them.
    #[error("{} cannot be compiled:{}", count(.0.len()), list(.0))]
    Unsupported(Vec<Unplannable>),
    /// The graph is not valid.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

fn list(nodes: &[Unplannable]) -> String {
    nodes.iter().map(|n| format!("\n  {} `{}`: {}", n.op, n.node, n.reason)).collect()
}

/// Plans a graph for a target.
///
/// **Errors**: every node that cannot be compiled, at once.
pub fn plan(graph: &Graph, profile: &Profile) -> Result<Plan, PlanError> {
    plan_with(graph, Target { profile, pack: true }, &HashSet::new())
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'p> {
    /// The machine.
    pub profile: &'p Profile,
    /// Whether weights are packed: a plan without them cannot be run, but tells what can be planned.
    pub pack: bool,
}

/// As [`plan`], where the caller knows the sizes of some symbols.
pub(crate) fn plan_with(
    graph: &Graph,
    target: Target<'_>,
    known: &HashSet<Arc<str>>,
) -> Result<Plan, PlanError> {
    let mut builder = Builder::new(&graph.name, target);
    let mut views = HashMap::new();
    for (index, &id) in graph.inputs().iter().enumerate() {
        let node = graph.node(id);
        let ty = &node.outputs[0].fact.ty;
        let buffer = builder.buffer(Storage::Input(index), ty.dtype, ty.elements());
        let (name, dtype, shape) = (node.name.clone(), ty.dtype, ty.shape.clone());
        views.insert(Value { node: id, slot: 0 }, View::dense(buffer, dtype, &shape));
        builder.plan.inputs.push(Port { name, dtype, shape, buffer });
    }
    let mut outputs = Vec::new();
    for (index, output) in graph.outputs().iter().enumerate() {
        let ty = &graph.fact(output.value).ty;
        let buffer = builder.buffer(Storage::Output(index), ty.dtype, ty.elements());
        let (name, dtype, shape) = (output.name.clone(), ty.dtype, ty.shape.clone());
        builder.plan.outputs.push(Port { name, dtype, shape, buffer });
        outputs.push(buffer);
    }
    builder.plan.symbols = outer_symbols(graph, known);
    let mut problems = unbound_dims(graph, known);
    let mut lowering = Lowering::new(graph, &mut builder, views, outputs);
    lowering.run()?;
    problems.append(&mut lowering.problems);
    if !problems.is_empty() {
        return Err(PlanError::Unsupported(problems));
    }
    Ok(builder.finish())
}

/// Nodes with dims that no input's shape tells.
fn unbound_dims(graph: &Graph, given: &HashSet<Arc<str>>) -> Vec<Unplannable> {
    let input_facts = graph.inputs().iter().map(|&id| &graph.node(id).outputs[0].fact);
    let known: HashSet<&str> = input_facts.flat_map(|f| f.shape()).filter_map(Dim::as_symbol).collect();
    let mut problems = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let mut unknown: Option<Arc<str>> = None;
        for dim in node.outputs.iter().flat_map(|o| o.fact.shape()) {
            dim.for_each_symbol(&mut |name| {
                // The node that makes an unknown dim is the one to report, not all that follow.
                if !known.contains(&**name) && !given.contains(name) && name.starts_with(&*node.name) {
                    unknown = Some(name.clone());
                }
            });
        }
        if let Some(dim) = unknown {
            let op = node.op.name().to_owned();
            let reason = format!(
                "the size of its output ({dim}) depends on data, not on the shapes of the inputs; \
                 fix the dims of the inputs with --dim, or take the node out of the model"
            );
            problems.push(Unplannable { node: node.name.to_string(), op, reason });
        }
    }
    problems
}

/// Lowers one graph: the main one, or a branch of a conditional.
struct Lowering<'g, 'b, 'p> {
    graph: &'g Graph,
    b: &'b mut Builder<'p>,
    /// Where each value is, once its kernel has been planned.
    views: HashMap<Value, View>,
    /// Buffers that the graph's outputs must end up in.
    outputs: Vec<BufferId>,
    /// Outputs whose buffer has been given to the kernel that makes them.
    taken: HashSet<usize>,
    /// Copies with padding: of what, the buffer, the bits of what it is filled with.
    padded_copies: Vec<(View, BufferId, u64)>,
    /// Readers followed at the moment to find where a value is wanted.
    followed: usize,
    problems: Vec<Unplannable>,
}

impl<'g, 'b, 'p> Lowering<'g, 'b, 'p> {
    fn new(
        graph: &'g Graph,
        b: &'b mut Builder<'p>,
        views: HashMap<Value, View>,
        outputs: Vec<BufferId>,
    ) -> Self {
        let (taken, padded_copies, problems) = (HashSet::new(), Vec::new(), Vec::new());
        Lowering { graph, b, views, outputs, taken, padded_copies, followed: 0, problems }
    }

    fn run(&mut self) -> Result<(), GraphError> {
        for id in self.graph.node_ids() {
            for (left, right) in &self.graph.node(id).equal {
                self.b.check(left, right, &self.graph.node(id).name);
            }
        }
        for group in groups::schedule(self.graph)? {
            self.lower_group(&group)?;
        }
        for index in 0..self.graph.outputs().len() {
            self.finish_output(index);
        }
        Ok(())
    }

    /// Copies an output into its buffer where no kernel has written it there.
    fn finish_output(&mut self, index: usize) {
        let output = &self.graph.outputs()[index];
        let ty = self.graph.fact(output.value).ty.clone();
        let target = View::dense(self.outputs[index], ty.dtype, &ty.shape);
        let source = self.view(output.value);
        if source != target {
            let origin = self.row_major(output.value);
            self.copy(&source, &target, origin);
        }
    }

    /// What a call that computes `values` out of `nodes` stands for.
    fn origin(&self, nodes: &[NodeId], values: &[Value]) -> Origin {
        let mut sources: Vec<Arc<str>> = Vec::new();
        let makers = values.iter().map(|v| v.node).filter(|_| nodes.is_empty());
        for id in nodes.iter().copied().chain(makers) {
            let node = self.graph.node(id);
            let own = std::slice::from_ref(&node.name);
            let names = if node.sources.is_empty() { own } else { &node.sources };
            for name in names {
                if !sources.contains(name) {
                    sources.push(name.clone());
                }
            }
        }
        // A value that is not stored row-major is shown under another name, with where it is.
        let mut forms = Vec::new();
        let name = |v: &Value| {
            let name = self.graph.value_name(*v);
            let Some(view) = self.views.get(v).filter(|view| !view.is_dense()) else { return name.clone() };
            let shown: Arc<str> = format!("{name} (permuted)").into();
            forms.push((shown.clone(), view.form(name)));
            shown
        };
        let values = values.iter().map(name).collect();
        Origin { sources, values, forms, flops: Dim::from(0) }
    }

    /// What a call that copies a value row-major stands for.
    fn row_major(&self, value: Value) -> Origin {
        let values = vec![self.graph.value_name(value).clone()];
        Origin { values, forms: vec![], ..self.origin(&[], &[value]) }
    }

    /// Where a value is; constants and known index lists are put into buffers when they are first asked for.
    fn view(&mut self, value: Value) -> View {
        if let Some(view) = self.views.get(&value) {
            return view.clone();
        }
        let fact = self.graph.fact(value);
        let view = if let Some(tensor) = &fact.constant {
            let buffer = self.b.constant(tensor);
            View::dense(buffer, fact.dtype(), fact.shape())
        } else if let Some(elements) = fact.elements.clone() {
            self.write_elements(value, &elements)
        } else {
            // Only after an operand was reported as a problem: the plan is thrown away.
            self.b.arena(fact.dtype(), fact.shape())
        };
        self.views.insert(value, view.clone());
        view
    }

    /// As [`Lowering::view`], row-major without gaps from the start of a buffer.
    fn dense_view(&mut self, value: Value) -> View {
        let view = self.view(value);
        let dtype = self.graph.fact(value).dtype();
        if view.is_dense() && view.dtype == dtype {
            return view;
        }
        let target = self.b.arena(dtype, &view.shape);
        let origin = self.row_major(value);
        self.copy(&view, &target, origin);
        self.views.insert(value, target.clone());
        target
    }

    /// Memory for a value that a kernel is about to write: where its readers want it; else in the arena, in the order
    /// of axes of its only reader.
    fn allocate(&mut self, value: Value) -> View {
        let ty = self.graph.fact(value).ty.clone();
        let view = match self.placed(value) {
            Some(place) => place,
            None => match self.transposed_for(value) {
                Some(perm) => self.arena_in_order(ty.dtype, &ty.shape, &perm),
                None => self.b.arena(ty.dtype, &ty.shape),
            },
        };
        self.views.insert(value, view.clone());
        view
    }

    /// As [`Lowering::allocate`], always row-major from the start of a buffer.
    fn allocate_dense(&mut self, value: Value) -> View {
        let view = self.allocate(value);
        if view.is_dense() {
            return view;
        }
        let view = self.b.arena(view.dtype, &view.shape);
        self.views.insert(value, view.clone());
        view
    }

    /// The permutation of the transpose that alone reads a value, if it keeps the last axis, so that vectors of the
    /// last axis stay contiguous.
    fn transposed_for(&self, value: Value) -> Option<Vec<usize>> {
        let [(user, 0)] = self.graph.users(value)[..] else { return None };
        let rank = self.graph.fact(value).rank();
        match &self.graph.node(user).op {
            Op::Transpose(op) => {
                let perm = op.perm.clone().unwrap_or_else(|| (0..rank).rev().collect());
                (perm.last().is_some_and(|&last| last + 1 == rank) && !self.graph.is_output(value))
                    .then_some(perm)
            }
            _ => None,
        }
    }

    /// A dense buffer whose axes are stored in the order `perm`.
    fn arena_in_order(&mut self, dtype: DType, shape: &[Dim], perm: &[usize]) -> View {
        let stored: Vec<Dim> = perm.iter().map(|&axis| shape[axis].clone()).collect();
        let view = self.b.arena(dtype, &stored);
        let mut inverse = vec![0; perm.len()];
        for (position, &axis) in perm.iter().enumerate() {
            inverse[axis] = position;
        }
        view.transpose(&inverse)
    }

    /// Reports a node that cannot be planned.
    fn problem(&mut self, id: NodeId, reason: impl Into<String>) {
        let node = self.graph.node(id);
        let (name, op) = (node.name.to_string(), node.op.name().to_owned());
        self.problems.push(Unplannable { node: name, op, reason: reason.into() });
    }

    /// Lowers the nodes of a group, which are in topological order: as one kernel if it can be, else as several.
    fn lower_group(&mut self, group: &[NodeId]) -> Result<(), GraphError> {
        let anchor = group.iter().position(|&id| !scalar::is_elementwise(&self.graph.node(id).op));
        let Some(anchor) = anchor else {
            if let [id] = *group
                && self.lower_widening(id)
            {
                return Ok(());
            }
            self.lower_elementwise(group);
            return Ok(());
        };
        if group.len() == 1 {
            return self.lower_node(group[0]);
        }
        if self.lower_anchored(group, group[anchor]) {
            return Ok(());
        }
        // The anchor by itself; what comes before and after it as groups of their own.
        let id = group[anchor];
        let (before, after): (Vec<NodeId>, Vec<NodeId>) = self.split_at(group, id);
        if !before.is_empty() {
            self.lower_group(&before)?;
        }
        self.lower_node(id)?;
        if !after.is_empty() {
            self.lower_group(&after)?;
        }
        Ok(())
    }

    /// The members that the anchor does not depend on go after it; the others before.
    fn split_at(&self, group: &[NodeId], anchor: NodeId) -> (Vec<NodeId>, Vec<NodeId>) {
        let mut needed: HashSet<NodeId> = HashSet::from([anchor]);
        for &id in group.iter().rev() {
            if needed.contains(&id) {
                needed.extend(self.graph.node(id).inputs.iter().flatten().map(|v| v.node));
            }
        }
        group.iter().filter(|&&id| id != anchor).partition(|id| needed.contains(id))
    }

    /// Plans an anchor together with the elementwise nodes around it; false if that cannot be one kernel.
    fn lower_anchored(&mut self, group: &[NodeId], anchor: NodeId) -> bool {
        match &self.graph.node(anchor).op {
            Op::MatMul(_) | Op::Gemm(_) | Op::Conv(_) => self.lower_contraction(group, anchor),
            Op::QLinearConv(_) | Op::QLinearMatMul(_) | Op::ConvInteger(_) | Op::MatMulInteger(_) => {
                self.lower_quantized(group, anchor).is_ok()
            }
            Op::Reduce(_) | Op::Softmax(_) | Op::LayerNormalization(_) | Op::GlobalPool(_) => {
                self.lower_reduction(group, anchor)
            }
            _ => false,
        }
    }

    /// Plans a node that is not elementwise, by itself.
    fn lower_node(&mut self, id: NodeId) -> Result<(), GraphError> {
        if !self.has_compiled_dtypes(id) {
            self.lower_host(id, "its dtype is held on the host");
            return Ok(());
        }
        match &self.graph.node(id).op {
            Op::Input | Op::Constant(_) => {}
            Op::If(op) => self.lower_if(id, op)?,
            Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => self.lower_reshape(id),
            Op::Transpose(_) | Op::Expand(_) | Op::Slice(_) | Op::Split(_) => self.lower_view(id),
            Op::ConstantOfShape(op) => self.lower_splat(id, &op.value),
            Op::Concat(_) | Op::Pad(_) | Op::Gather(_) | Op::Range(_) | Op::Resize(_) => {
                self.lower_move(id);
            }
            Op::MatMul(_) | Op::Gemm(_) | Op::Conv(_) | Op::ConvTranspose(_) => {
                if !self.lower_contraction(&[id], id) {
                    self.lower_host(id, "no contraction kernel takes these dtypes or strides");
                }
            }
            Op::QLinearConv(_) | Op::QLinearMatMul(_) | Op::ConvInteger(_) | Op::MatMulInteger(_) => {
                if let Err(reason) = self.lower_quantized(&[id], id) {
                    self.lower_host(id, reason);
                }
            }
            Op::QuantizeLinear(op) if op.block_size > 0 => self.lower_host(id, BLOCKS),
            Op::DequantizeLinear(op) if op.block_size > 0 => self.lower_host(id, BLOCKS),
            Op::Pool(op) if op.indices.is_some() => self.lower_host(id, host::MAXIMA),
            Op::Pool(_) | Op::Lrn(_) => self.lower_window(id),
            Op::Reduce(_) | Op::Softmax(_) | Op::LayerNormalization(_) | Op::GlobalPool(_) => {
                if !self.lower_reduction(&[id], id) {
                    self.lower_host(id, "no reduction kernel takes these axes");
                }
            }
            op if scalar::is_elementwise(op) => self.lower_elementwise(&[id]),
            op => self.lower_host(id, host::reason(op)),
        }
        Ok(())
    }

    /// True if all operands and results are of dtypes that kernels compute the op with.
    fn has_compiled_dtypes(&self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        if let (Op::Binary(op), [Some(base), Some(exponent)]) = (&node.op, &node.inputs[..])
            && op.op == BinaryOp::Pow
            && self.graph.fact(*base).dtype().is_int()
            && self.graph.fact(*exponent).dtype().is_int()
        {
            return self.graph.constant(*exponent).is_some_and(scalar::is_small_power);
        }
        let inputs = node.inputs.iter().flatten().map(|&v| self.graph.fact(v).dtype());
        let outputs = node.outputs.iter().map(|o| o.fact.dtype());
        inputs.chain(outputs).all(scalar::is_compiled_dtype)
    }

    /// Plans both branches into one set of result buffers.
    fn lower_if(&mut self, id: NodeId, op: &If) -> Result<(), GraphError> {
        let node = self.graph.node(id);
        let inputs: Vec<Option<Value>> = node.inputs.clone();
        let Some(Some(condition)) = inputs.first().copied() else { return Ok(()) };
        let condition = self.dense_view(condition).buffer;
        let captured: Vec<Option<View>> =
            inputs[1..].iter().map(|value| value.map(|value| self.view(value))).collect();
        let count = self.graph.node(id).outputs.len();
        let results: Vec<BufferId> = (0..count)
            .map(|slot| self.allocate_dense(Value { node: id, slot: slot as u32 }).buffer)
            .collect();
        let mut lists = BTreeMap::new();
        for (index, branch) in [&op.then_branch, &op.else_branch].into_iter().enumerate() {
            let inputs = branch.inputs().iter().map(|&node| Value { node, slot: 0 });
            let views = inputs.zip(&captured).filter_map(|(v, view)| Some((v, view.clone()?))).collect();
            let outputs = results.clone();
            let mut problems = Vec::new();
            let steps = self.b.nested(|b| {
                let mut lowering = Lowering::new(branch, b, views, outputs);
                let result = lowering.run();
                problems = lowering.problems;
                result
            })?;
            self.problems.append(&mut problems);
            lists.insert(index, steps);
        }
        let then_steps = lists.remove(&0).unwrap_or_default();
        let else_steps = lists.remove(&1).unwrap_or_default();
        self.b.step(Step::If { condition, then_steps, else_steps });
        Ok(())
    }

    /// The nodes of a group as members of a kernel.
    fn members(&self, nodes: &[NodeId]) -> Members<'g> {
        Members { graph: self.graph, nodes: nodes.iter().copied().collect() }
    }

    /// The values of `nodes` that are used outside of them, in order.
    fn roots(&self, nodes: &[NodeId]) -> Vec<Value> {
        let mut roots = Vec::new();
        for &id in nodes {
            for slot in 0..self.graph.node(id).outputs.len() {
                let value = Value { node: id, slot: slot as u32 };
                let outside = self.graph.users(value).iter().any(|(user, _)| !nodes.contains(user));
                if outside || self.graph.is_output(value) {
                    roots.push(value);
                }
            }
        }
        roots
    }
}
