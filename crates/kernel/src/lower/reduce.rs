//! Reductions, softmax and layer norm, with the elementwise nodes before and after them: one kernel of a few stages
//! over each row, which stays in the first-level cache.

use super::Lowering;
use super::exprs::{Domain, Exprs, Leaf, LoopDim, Members};
use super::frame::Frame;
use super::scalar::compute_dtype;
use super::view::{View, mergeable_runs, run_size};
use crate::{
    BinaryFn, Dag, Expr, ExprId, LoopKernel, ReduceFn, Reduction, Size, Stage, Store, UnaryFn, Vectorize,
};
use rabot_ir::ops::{PoolKind, ReduceOp};
use rabot_ir::{Dim, NodeId, Op, Value};
use rabot_tensor::DType;
use std::collections::{HashMap, HashSet};

/// What is reduced, and to what.
struct Rows<'g> {
    /// The operand.
    input: Value,
    /// The anchor's result.
    output: Value,
    /// Values that the kernel writes: the anchor's result and what is made of it.
    roots: Vec<Value>,
    /// Values before the anchor that it writes too: outputs of the graph.
    early: Vec<Value>,
    /// True for axes that are reduced or normalized over.
    reduced: Vec<bool>,
    /// True if the result has the operand's shape.
    same_shape: bool,
    before: Members<'g>,
    after: Members<'g>,
}

/// The kernel under construction.
struct RowKernel<'g> {
    rows: Rows<'g>,
    views: HashMap<Leaf, View>,
    targets: Vec<View>,
    early_targets: Vec<View>,
    full: Domain,
    outer: Domain,
    frame: Frame,
    stages: Vec<Stage>,
    inner_sizes: Vec<Size>,
    reductions: usize,
    dtype: DType,
    /// Elements of a row.
    length: Dim,
}

impl Lowering<'_, '_, '_> {
    /// Plans a reduction with the elementwise nodes of its group; false if its axes are not known.
    pub(super) fn lower_reduction(&mut self, group: &[NodeId], anchor: NodeId) -> bool {
        let node = self.graph.node(anchor);
        let Some(Some(input)) = node.inputs.first().copied() else { return false };
        let shape = self.graph.fact(input).shape().to_vec();
        let Some(axes) = self.reduced_axes(anchor, shape.len()) else { return false };
        let output = Value { node: anchor, slot: 0 };
        let same_shape = matches!(node.op, Op::Softmax(_) | Op::LayerNormalization(_));
        let (mut before, mut after) = self.split_at(group, anchor);
        if !self.fits_before(&before, anchor, input, &shape) {
            self.lower_elementwise(&before);
            before.clear();
        }
        let result_shape = self.graph.fact(output).shape();
        let fits = after.iter().all(|&id| {
            let fact = &self.graph.node(id).outputs[0].fact;
            fact.shape() == result_shape
        });
        let late = if fits { vec![] } else { std::mem::take(&mut after) };
        let mut nodes = before.clone();
        nodes.push(anchor);
        nodes.extend(&after);
        let reduced = (0..shape.len()).map(|axis| axes.contains(&axis)).collect();
        let (before, after) = (self.members(&before), self.members(&after));
        let (early, roots) = self.roots(&nodes).into_iter().partition(|&value| before.has(value));
        let rows = Rows { input, output, roots, early, reduced, same_shape, before, after };
        self.emit_rows(rows, &nodes, anchor, &shape);
        if !late.is_empty() {
            self.lower_elementwise(&late);
        }
        true
    }

    /// True if the nodes before the anchor are computed at each point of its operand, and by nobody else.
    fn fits_before(&self, before: &[NodeId], anchor: NodeId, input: Value, shape: &[Dim]) -> bool {
        before.iter().all(|&id| {
            let value = Value { node: id, slot: 0 };
            let fact = self.graph.fact(value);
            let users = self.graph.users(value);
            let inside = users.iter().all(|(user, slot)| {
                before.contains(user) || (*user == anchor && *slot == 0 && value == input)
            });
            inside && fact.shape() == shape && self.has_compiled_dtypes(id)
        })
    }

    /// The axes that are reduced, if they are known.
    fn reduced_axes(&self, id: NodeId, rank: usize) -> Option<Vec<usize>> {
        let normalize = |axis: i64| {
            let axis = if axis < 0 { axis + rank as i64 } else { axis };
            usize::try_from(axis).ok().filter(|&a| a < rank)
        };
        let node = self.graph.node(id);
        match &node.op {
            Op::GlobalPool(_) => Some((2..rank).collect()),
            Op::Softmax(op) => Some(vec![normalize(op.axis)?]),
            Op::LayerNormalization(op) => Some((normalize(op.axis)?..rank).collect()),
            Op::Reduce(op) => match node.inputs.get(1).copied().flatten() {
                None if op.noop_with_empty_axes => Some(vec![]),
                None => Some((0..rank).collect()),
                Some(axes) => {
                    let axes = self.graph.fact(axes).ints()?;
                    match (axes.is_empty(), op.noop_with_empty_axes) {
                        (true, true) => Some(vec![]),
                        (true, false) => Some((0..rank).collect()),
                        _ => axes.into_iter().map(normalize).collect(),
                    }
                }
            },
            _ => None,
        }
    }

    /// Views of what the rows read, besides the anchor's result, and of what they write, all on the operand's axes.
    fn row_views(
        &mut self,
        rows: &Rows<'_>,
        anchor: NodeId,
        shape: &[Dim],
    ) -> (HashMap<Leaf, View>, Vec<View>) {
        let given = HashSet::from([rows.output]);
        let mut views = self.leaf_views(&rows.before, &[rows.input], &HashSet::new(), shape);
        let result_shape = self.graph.fact(rows.output).shape().to_vec();
        let mut targets = Vec::new();
        for (leaf, view) in self.leaf_views(&rows.after, &rows.roots, &given, &result_shape) {
            views.insert(leaf, on_operand_axes(view, rows, shape));
        }
        for &root in &rows.roots {
            let view = self.allocate(root);
            targets.push(on_operand_axes(view, rows, shape));
        }
        for slot in 1..self.graph.node(anchor).inputs.len() {
            if let (true, Some(value)) = (rows.same_shape, self.graph.node(anchor).inputs[slot]) {
                let view = self.view(value).broadcast(shape);
                views.insert(Leaf { value, axis: None }, view);
            }
        }
        (views, targets)
    }

    fn emit_rows(&mut self, rows: Rows<'_>, nodes: &[NodeId], anchor: NodeId, shape: &[Dim]) {
        let (views, targets) = self.row_views(&rows, anchor, shape);
        let early_targets: Vec<View> = rows.early.iter().map(|&value| self.allocate_dense(value)).collect();
        let mut frame = Frame::default();
        let all: Vec<&View> = views.values().chain(&targets).chain(&early_targets).collect();
        let cuts: Vec<usize> = (1..shape.len()).filter(|&a| rows.reduced[a] != rows.reduced[a - 1]).collect();
        let runs = mergeable_runs(shape, &all, &cuts);
        let (inner, outer): (Vec<&Vec<usize>>, Vec<&Vec<usize>>) =
            runs.iter().partition(|run| rows.reduced[run[0]]);
        let loop_dim = |run: &Vec<usize>| LoopDim {
            size: run_size(shape, run),
            axis: run[run.len() - 1],
            factor: Dim::from(1),
        };
        let dims: Vec<LoopDim> = outer.iter().chain(&inner).map(|run| loop_dim(run)).collect();
        let outer_sizes: Vec<Dim> = dims[..outer.len()].iter().map(|d| d.size.clone()).collect();
        let inner_dims: Vec<Dim> = dims[outer.len()..].iter().map(|d| d.size.clone()).collect();
        let last_is_reduced = runs.last().is_none_or(|run| rows.reduced[run[0]]);
        let vectorize = match (last_is_reduced, inner.is_empty()) {
            (true, false) => Vectorize::Inner,
            _ if outer.is_empty() => Vectorize::No,
            _ => Vectorize::Outer,
        };
        let items = outer.len() - usize::from(vectorize == Vectorize::Outer);
        let numbered: Vec<(usize, LoopDim)> = dims.into_iter().enumerate().collect();
        let kernel_outer = frame.sizes(&outer_sizes);
        let inner_sizes = frame.sizes(&inner_dims);
        let dtype = compute_dtype(self.graph.fact(rows.input).dtype());
        let written: Vec<Value> = rows.early.iter().chain(&rows.roots).copied().collect();
        let mut origin = self.origin(nodes, &written);
        origin.flops = shape.iter().product::<Dim>() * Dim::from(nodes.len() + 2);
        let length = (0..shape.len()).filter(|&a| rows.reduced[a]).map(|a| &shape[a]).product::<Dim>();
        let mut kernel = RowKernel {
            outer: Domain { dims: numbered[..outer_sizes.len()].to_vec() },
            full: Domain { dims: numbered },
            rows,
            views,
            targets,
            early_targets,
            frame,
            stages: Vec::new(),
            inner_sizes,
            reductions: 0,
            dtype,
            length,
        };
        kernel.describe(&self.graph.node(anchor).op, self.graph.node(anchor).inputs.clone());
        let RowKernel { frame, stages, .. } = kernel;
        let kernel = LoopKernel { args: frame.args.clone(), outer: kernel_outer, items, stages, vectorize };
        self.b.call_loop(kernel, frame, outer_sizes[..items].iter().product(), origin);
    }
}

/// A view of the result's shape as one of the operand's shape, constant along reduced axes.
fn on_operand_axes(view: View, rows: &Rows<'_>, shape: &[Dim]) -> View {
    if rows.same_shape {
        return view;
    }
    let kept_dims = view.shape.len() == shape.len();
    let mut strides = vec![Dim::from(0); shape.len()];
    let mut next = 0;
    for (stride, &reduced) in strides.iter_mut().zip(&rows.reduced) {
        if !reduced {
            stride.clone_from(&view.strides[next]);
        }
        if kept_dims || !reduced {
            next += 1;
        }
    }
    View { shape: shape.to_vec(), strides, ..view }
}

impl RowKernel<'_> {
    fn describe(&mut self, op: &Op, inputs: Vec<Option<Value>>) {
        match op {
            Op::Reduce(op) => self.reduce(op.op),
            Op::GlobalPool(op) if op.kind == PoolKind::Max => self.reduce(ReduceOp::Max),
            Op::GlobalPool(_) => self.reduce(ReduceOp::Mean),
            Op::Softmax(op) => self.softmax(op.log),
            Op::LayerNormalization(op) => {
                let parameter = |slot: usize| inputs.get(slot).copied().flatten();
                self.layer_norm(op.centered, parameter(1), parameter(2), op.epsilon);
            }
            other => unreachable!("{} is not a reduction", other.name()),
        }
    }

    /// A stage over the row that reduces what `value` makes of the operand; gives the reduction's number.
    fn pass(&mut self, function: ReduceFn, value: impl FnOnce(&mut Dag, ExprId) -> ExprId) -> usize {
        // What comes before the anchor is computed in every pass; the first one writes it.
        let early = if self.stages.is_empty() { std::mem::take(&mut self.rows.early) } else { vec![] };
        let (mut dag, x, values) = self.operand_and(&early);
        let mut stores = Vec::new();
        for (target, value) in self.early_targets.iter().zip(values) {
            let access = self.frame.access(&target.offset, &self.full.strides(target));
            stores.push(Store { arg: self.frame.arg(target, true), access, value });
        }
        let value = value(&mut dag, x);
        let inner = self.inner_sizes.clone();
        let reductions = vec![Reduction { function, value }];
        self.stages.push(Stage { inner, dag, reductions, stores });
        self.reductions += 1;
        self.reductions - 1
    }

    /// A DAG with the operand, elementwise nodes before the anchor included.
    fn operand(&mut self) -> (Dag, ExprId) {
        let (dag, x, _) = self.operand_and(&[]);
        (dag, x)
    }

    /// As [`RowKernel::operand`], and other values from before the anchor.
    fn operand_and(&mut self, others: &[Value]) -> (Dag, ExprId, Vec<ExprId>) {
        let mut exprs = Exprs {
            members: &self.rows.before,
            views: &self.views,
            domain: &self.full,
            frame: &mut self.frame,
            dag: Dag::default(),
            given: HashMap::new(),
        };
        let x = exprs.value(self.rows.input);
        let others = others.iter().map(|&value| exprs.stored(value)).collect();
        (exprs.dag, x, others)
    }

    /// The last stage: the anchor's result, the nodes after it, and the stores.
    fn finish(&mut self, dag: Dag, result: ExprId) {
        let (domain, inner) =
            if self.rows.same_shape { (&self.full, self.inner_sizes.clone()) } else { (&self.outer, vec![]) };
        let mut exprs = Exprs {
            members: &self.rows.after,
            views: &self.views,
            domain,
            frame: &mut self.frame,
            dag,
            given: HashMap::new(),
        };
        exprs.give(self.rows.output, result);
        let values: Vec<ExprId> = self.rows.roots.iter().map(|&root| exprs.stored(root)).collect();
        let dag = exprs.dag;
        let mut stores = Vec::new();
        for (target, value) in self.targets.iter().zip(values) {
            let access = self.frame.access(&target.offset, &domain.strides(target));
            stores.push(Store { arg: self.frame.arg(target, true), access, value });
        }
        self.stages.push(Stage { inner, dag, reductions: vec![], stores });
    }

    /// Elements of a row, as a number.
    fn row_length(&mut self, dag: &mut Dag) -> ExprId {
        if let Some(length) = self.length.as_const() {
            return dag.constant(self.dtype, length as f64);
        }
        let size = self.frame.size(&self.length);
        let integer = dag.push(Expr::Size(size), DType::I64);
        dag.cast(self.dtype, integer)
    }

    fn reduced(&self, dag: &mut Dag, number: usize) -> ExprId {
        dag.push(Expr::Reduced(number), self.dtype)
    }

    fn reduce(&mut self, op: ReduceOp) {
        if op == ReduceOp::LogSumExp {
            return self.log_sum_exp();
        }
        let (function, square, absolute) = match op {
            ReduceOp::Max => (ReduceFn::Max, false, false),
            ReduceOp::Min => (ReduceFn::Min, false, false),
            ReduceOp::Prod => (ReduceFn::Prod, false, false),
            ReduceOp::L1 => (ReduceFn::Sum, false, true),
            ReduceOp::L2 | ReduceOp::SumSquare => (ReduceFn::Sum, true, false),
            ReduceOp::Sum | ReduceOp::Mean | ReduceOp::LogSum | ReduceOp::LogSumExp => {
                (ReduceFn::Sum, false, false)
            }
        };
        let number = self.pass(function, |dag, x| match (square, absolute) {
            (true, _) => dag.binary(BinaryFn::Mul, x, x),
            (_, true) if !dag.dtype(x).is_unsigned_int() => dag.unary(UnaryFn::Abs, x),
            _ => x,
        });
        let mut dag = Dag::default();
        let sum = self.reduced(&mut dag, number);
        let result = match op {
            ReduceOp::Mean => {
                let length = self.row_length(&mut dag);
                dag.binary(BinaryFn::Div, sum, length)
            }
            // Integers take the root as floats.
            ReduceOp::L2 | ReduceOp::LogSum if !self.dtype.is_float() => {
                let float = dag.cast(DType::F64, sum);
                let function = if op == ReduceOp::L2 { UnaryFn::Sqrt } else { UnaryFn::Log };
                let root = dag.unary(function, float);
                dag.cast(self.dtype, root)
            }
            ReduceOp::L2 => dag.unary(UnaryFn::Sqrt, sum),
            ReduceOp::LogSum => dag.unary(UnaryFn::Log, sum),
            _ => sum,
        };
        self.finish(dag, result);
    }

    /// `max + log Σ exp(x - max)`.
    fn log_sum_exp(&mut self) {
        let dtype = self.dtype;
        let max = self.pass(ReduceFn::Max, |_, x| x);
        let sum = self.pass(ReduceFn::Sum, |dag, x| exp_above(dag, x, max, dtype));
        let mut dag = Dag::default();
        let (max, sum) = (self.reduced(&mut dag, max), self.reduced(&mut dag, sum));
        let log = dag.unary(UnaryFn::Log, sum);
        let result = dag.binary(BinaryFn::Add, max, log);
        self.finish(dag, result);
    }

    /// `e^(x - max) / Σ e^(x - max)`, or its logarithm. The exponentials wait in the result's own memory where its
    /// dtype holds them exactly.
    fn softmax(&mut self, log: bool) {
        let dtype = self.dtype;
        let max = self.pass(ReduceFn::Max, |_, x| x);
        let target = self.targets.first().filter(|t| !log && t.dtype == dtype).cloned();
        let sum = self.pass(ReduceFn::Sum, |dag, x| exp_above(dag, x, max, dtype));
        if let (Some(target), Some(stage)) = (&target, self.stages.last_mut()) {
            let access = self.frame.access(&target.offset, &self.full.strides(target));
            let value = stage.reductions[0].value;
            stage.stores.push(Store { arg: self.frame.arg(target, true), access, value });
        }
        let (mut dag, exp) = match &target {
            Some(target) => {
                let access = self.frame.access(&target.offset, &self.full.strides(target));
                let arg = self.frame.arg(target, true);
                let mut dag = Dag::default();
                let load = dag.push(Expr::Load { arg, access }, dtype);
                (dag, load)
            }
            None => {
                let (mut dag, x) = self.operand();
                let value = if log { x } else { exp_above(&mut dag, x, max, dtype) };
                (dag, value)
            }
        };
        let sum = self.reduced(&mut dag, sum);
        let result = if log {
            let max = self.reduced(&mut dag, max);
            let centred = dag.binary(BinaryFn::Sub, exp, max);
            let log_sum = dag.unary(UnaryFn::Log, sum);
            dag.binary(BinaryFn::Sub, centred, log_sum)
        } else {
            let inverse = dag.unary(UnaryFn::Reciprocal, sum);
            dag.binary(BinaryFn::Mul, exp, inverse)
        };
        self.finish(dag, result);
    }

    /// `(x - mean) / sqrt(variance + epsilon) * scale + bias`; the mean is 0 where rows are not centered.
    fn layer_norm(&mut self, centered: bool, scale: Option<Value>, bias: Option<Value>, epsilon: f32) {
        let dtype = self.dtype;
        let symbolic = self.length.as_const().is_none().then(|| self.frame.size(&self.length));
        let length = self.length.as_const().unwrap_or(1) as f64;
        let mean_of = move |dag: &mut Dag, number: usize| {
            let sum = dag.push(Expr::Reduced(number), dtype);
            let length = match symbolic {
                None => dag.constant(dtype, length),
                Some(size) => {
                    let integer = dag.push(Expr::Size(size), DType::I64);
                    dag.cast(dtype, integer)
                }
            };
            dag.binary(BinaryFn::Div, sum, length)
        };
        let sum = centered.then(|| self.pass(ReduceFn::Sum, |_, x| x));
        let centred = |dag: &mut Dag, x: ExprId| match sum {
            None => x,
            Some(sum) => {
                let mean = mean_of(dag, sum);
                dag.binary(BinaryFn::Sub, x, mean)
            }
        };
        let squares = self.pass(ReduceFn::Sum, |dag, x| {
            let centred = centred(dag, x);
            dag.binary(BinaryFn::Mul, centred, centred)
        });
        let (mut dag, x) = self.operand();
        let centred = centred(&mut dag, x);
        let variance = mean_of(&mut dag, squares);
        let epsilon = dag.constant(dtype, epsilon as f64);
        let shifted = dag.binary(BinaryFn::Add, variance, epsilon);
        let deviation = dag.unary(UnaryFn::Sqrt, shifted);
        let inverse = dag.unary(UnaryFn::Reciprocal, deviation);
        let mut result = dag.binary(BinaryFn::Mul, centred, inverse);
        for (value, function) in [(scale, BinaryFn::Mul), (bias, BinaryFn::Add)] {
            let Some(value) = value else { continue };
            let view = self.views[&Leaf { value, axis: None }].clone();
            let access = self.frame.access(&view.offset, &self.full.strides(&view));
            let arg = self.frame.arg(&view, false);
            let parameter = dag.push(Expr::Load { arg, access }, dtype);
            result = dag.binary(function, result, parameter);
        }
        self.finish(dag, result);
    }
}

/// `e^(x - max)`.
fn exp_above(dag: &mut Dag, x: ExprId, max: usize, dtype: DType) -> ExprId {
    let max = dag.push(Expr::Reduced(max), dtype);
    let centred = dag.binary(BinaryFn::Sub, x, max);
    dag.unary(UnaryFn::Exp, centred)
}
