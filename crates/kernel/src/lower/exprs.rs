//! From graph nodes to the scalar DAG of a kernel.
//!
//! A kernel walks a *domain*: a shape whose axes are covered by loop dims. Values made by nodes inside the kernel
//! become expressions; values from outside become loads.

use super::frame::Frame;
use super::scalar;
use super::view::View;
use crate::{BinaryFn, Coord, Dag, Expr, ExprId, UnaryFn};
use rabot_ir::{Dim, Fact, Graph, NodeId, Op, Value};
use rabot_tensor::DType;
use std::collections::{HashMap, HashSet};

/// A value from outside, and the axis that its only dim stands for where it is a per-axis parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaf {
    /// The value.
    pub value: Value,
    /// Axis of the domain that a rank-1 parameter runs along; `None` for numpy's alignment.
    pub axis: Option<usize>,
}

/// Nodes whose values are expressions inside a kernel.
pub(super) struct Members<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// Elementwise nodes, all of the domain's shape.
    pub nodes: HashSet<NodeId>,
}

/// The value of a scalar that is known when the plan is made or when dims are known.
fn is_scalar_fact(fact: &Fact) -> bool {
    let one = fact.ty.elements().is(1);
    let constant = fact.constant.as_ref().is_some_and(|t| scalar::is_compiled_dtype(t.dtype()));
    one && (constant || fact.elements.is_some())
}

/// The operands of an elementwise node that carry data, with the axis of per-axis parameters.
fn operands(graph: &Graph, node: NodeId) -> Vec<Option<Leaf>> {
    let node = graph.node(node);
    let rank = node.outputs[0].fact.rank();
    let per_axis = |axis: i64| {
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(axis).ok()
    };
    let axis = match &node.op {
        Op::QuantizeLinear(op) => per_axis(op.axis),
        Op::DequantizeLinear(op) => per_axis(op.axis),
        Op::BatchNormalization(_) => Some(1),
        _ => None,
    };
    let leaf = |(slot, input): (usize, &Option<Value>)| {
        input.map(|value| {
            let vector = slot > 0 && graph.fact(value).rank() == 1;
            Leaf { value, axis: if vector { axis } else { None } }
        })
    };
    node.inputs.iter().enumerate().map(leaf).collect()
}

impl Members<'_> {
    /// True if the value is made by a member.
    pub fn has(&self, value: Value) -> bool {
        self.nodes.contains(&value.node)
    }

    /// The values from outside that expressions for `roots` load, in first-use order.
    pub fn leaves(&self, roots: &[Value], given: &HashSet<Value>) -> Vec<Leaf> {
        let mut leaves: Vec<Leaf> = Vec::new();
        let mut seen: HashSet<Leaf> = HashSet::new();
        let mut stack: Vec<Leaf> = roots.iter().rev().map(|&value| Leaf { value, axis: None }).collect();
        while let Some(leaf) = stack.pop() {
            if given.contains(&leaf.value) || !seen.insert(leaf) {
                continue;
            }
            if self.has(leaf.value) {
                stack.extend(operands(self.graph, leaf.value.node).into_iter().rev().flatten());
            } else if !is_scalar_fact(self.graph.fact(leaf.value)) {
                leaves.push(leaf);
            }
        }
        leaves
    }
}

/// One loop dim of a kernel: `size` steps along `axis`, each of `factor` elements of it.
#[derive(Clone, Debug)]
pub(super) struct LoopDim {
    /// Number of steps.
    pub size: Dim,
    /// The innermost axis of the run of axes that it covers.
    pub axis: usize,
    /// Elements of that run per step.
    pub factor: Dim,
}

/// What a kernel walks.
pub(super) struct Domain {
    /// Loop dims with their coordinates.
    pub dims: Vec<(Coord, LoopDim)>,
}

impl Domain {
    /// Strides of a view, which has the domain's shape, for each coordinate.
    pub fn strides(&self, view: &View) -> Vec<(Coord, Dim)> {
        let stride = |d: &LoopDim| view.strides[d.axis].clone() * d.factor.clone();
        self.dims.iter().map(|(coord, dim)| (*coord, stride(dim))).collect()
    }
}

/// What a value of 16 bits is in a kernel that computes it in f32 and goes on with it: rounded, as a store would.
fn rounded(dag: &mut Dag, exact: ExprId, dtype: DType) -> ExprId {
    match dtype {
        DType::F16 => dag.unary(UnaryFn::RoundF16, exact),
        DType::BF16 => dag.unary(UnaryFn::RoundBF16, exact),
        _ => exact,
    }
}

/// Builds expressions of one stage.
pub(super) struct Exprs<'a, 'g> {
    /// The nodes inside.
    pub members: &'a Members<'g>,
    /// Views of the leaves, broadcast to the domain's shape.
    pub views: &'a HashMap<Leaf, View>,
    /// The domain.
    pub domain: &'a Domain,
    /// Arguments and parameters.
    pub frame: &'a mut Frame,
    /// The DAG so far.
    pub dag: Dag,
    /// Values that are already expressions.
    pub given: HashMap<Value, ExprId>,
}

impl Exprs<'_, '_> {
    /// The expression of a value.
    pub fn value(&mut self, value: Value) -> ExprId {
        if let Some(&expr) = self.given.get(&value) {
            return expr;
        }
        let expr = if self.members.has(value) {
            let exact = self.node(value.node);
            rounded(&mut self.dag, exact, self.members.graph.fact(value).dtype())
        } else {
            self.leaf(Leaf { value, axis: None })
        };
        self.given.insert(value, expr);
        expr
    }

    /// The expression of a value that is stored: the store rounds by itself.
    pub fn stored(&mut self, value: Value) -> ExprId {
        let expr = self.value(value);
        match (self.members.graph.fact(value).dtype(), &self.dag[expr].expr) {
            (DType::F16, Expr::Unary(UnaryFn::RoundF16, exact))
            | (DType::BF16, Expr::Unary(UnaryFn::RoundBF16, exact)) => *exact,
            _ => expr,
        }
    }

    /// Says what the expression of a value is that no member makes, before it is rounded to its dtype.
    pub fn give(&mut self, value: Value, exact: ExprId) {
        let expr = rounded(&mut self.dag, exact, self.members.graph.fact(value).dtype());
        self.given.insert(value, expr);
    }

    /// A load of a view that has the domain's shape.
    pub fn load(&mut self, view: &View) -> ExprId {
        let strides = self.domain.strides(view);
        let access = self.frame.access(&view.offset, &strides);
        let arg = self.frame.arg(view, false);
        self.dag.push(Expr::Load { arg, access }, scalar::compute_dtype(view.dtype))
    }

    /// A dim as a number of the given dtype.
    pub fn dim(&mut self, dim: &Dim, dtype: DType) -> ExprId {
        let size = self.frame.size(dim);
        let integer = self.dag.push(Expr::Size(size), DType::I64);
        self.dag.cast(dtype, integer)
    }

    fn leaf(&mut self, leaf: Leaf) -> ExprId {
        let fact = self.members.graph.fact(leaf.value);
        if !is_scalar_fact(fact) {
            let view = self.views[&leaf].clone();
            return self.load(&view);
        }
        let dtype = scalar::compute_dtype(fact.dtype());
        if let Some(tensor) = &fact.constant {
            return if dtype.is_float() {
                self.dag.constant(dtype, tensor.to_f64s()[0])
            } else {
                self.dag.push(Expr::Const(tensor.to_i64s()[0] as u64), dtype)
            };
        }
        let element = fact.elements.as_ref().and_then(|e| e.first()).cloned().unwrap_or_default();
        self.dim(&element, dtype)
    }

    fn operand(&mut self, leaf: Option<Leaf>) -> Option<ExprId> {
        let leaf = leaf?;
        Some(if leaf.axis.is_some() { self.leaf(leaf) } else { self.value(leaf.value) })
    }

    fn node(&mut self, id: NodeId) -> ExprId {
        let leaves = operands(self.members.graph, id);
        let operands: Vec<Option<ExprId>> = leaves.into_iter().map(|leaf| self.operand(leaf)).collect();
        let node = self.members.graph.node(id);
        let present: Vec<ExprId> = operands.iter().copied().flatten().collect();
        let first = present[0];
        let at = |slot: usize| operands.get(slot).copied().flatten();
        let dag = &mut self.dag;
        let out = node.outputs[0].fact.dtype();
        match &node.op {
            Op::Identity(_) => first,
            Op::Unary(op) => scalar::unary(dag, &op.op, first),
            Op::Binary(op) => scalar::binary(dag, op.op, first, present[1]),
            Op::Variadic(op) => scalar::variadic(dag, op.op, &present),
            Op::Where(_) => dag.select(first, present[1], present[2]),
            Op::Clip(_) => scalar::clip(dag, first, at(1), at(2)),
            Op::Cast(op) => scalar::cast(dag, first, op.to),
            Op::QuantizeLinear(op) => {
                let scale = node.inputs[1].map_or(DType::F32, |v| self.members.graph.fact(v).dtype());
                scalar::quantize(dag, first, (present[1], op.quotient_dtype(scale)), at(2), out)
            }
            Op::DequantizeLinear(_) => scalar::dequantize(dag, first, present[1], at(2)),
            Op::BatchNormalization(op) => {
                let parameters = [present[1], present[2], present[3], present[4]];
                scalar::batch_norm(dag, first, parameters, op.epsilon)
            }
            other => unreachable!("{} is not elementwise", other.name()),
        }
    }

    /// The position of the point along the domain, for domains of one axis.
    pub fn linear_index(&mut self) -> ExprId {
        let mut sum: Option<ExprId> = None;
        for (coord, dim) in &self.domain.dims {
            let index = self.dag.push(Expr::Index(*coord), DType::I64);
            let size = self.frame.size(&dim.factor);
            let factor = self.dag.push(Expr::Size(size), DType::I64);
            let term = self.dag.binary(BinaryFn::Mul, index, factor);
            sum = Some(match sum {
                Some(sum) => self.dag.binary(BinaryFn::Add, sum, term),
                None => term,
            });
        }
        sum.unwrap_or_else(|| self.dag.constant(DType::I64, 0.0))
    }
}
