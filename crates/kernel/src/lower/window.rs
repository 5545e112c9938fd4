//! Sliding windows without a matrix product: pools, depthwise convolution, local response normalization.
//!
//! Operands have their padding around them, so that the windows themselves have no branches; vectors run along the last axis.

use super::Lowering;
use super::exprs::{Domain, Exprs, LoopDim};
use super::frame::Frame;
use super::padding::Pad;
use super::scalar::compute_dtype;
use super::view::{View, mergeable_runs, run_size};
use crate::{
    BinaryFn, Coord, Dag, Expr, ExprId, LoopKernel, ReduceFn, Reduction, Size, Stage, Store, UnaryFn,
    Vectorize,
};
use rabot_ir::ops::{Geometry, Lrn, Pool, PoolKind};
use rabot_ir::{Dim, NodeId, Op, Value};
use rabot_tensor::DType;
use std::collections::{HashMap, HashSet};

/// Windows over a padded operand, one for each element of the result.
pub(super) struct Windows {
    /// The operand as seen from each element of the result: its shape is the result's.
    pub input: View,
    /// Extent and stride of each tap dim in the operand.
    pub taps: Vec<(usize, Dim)>,
}

/// A kernel of windows under construction.
pub(super) struct WindowKernel {
    pub frame: Frame,
    /// Outer dims.
    pub domain: Domain,
    /// First tap coordinate.
    pub first_tap: Coord,
    outer: Vec<Size>,
    items: usize,
    count: Dim,
    vectorize: Vectorize,
    inner: Vec<Size>,
    stages: Vec<Stage>,
}

impl Windows {
    /// Windows of a resolved geometry over the last axes of a padded operand.
    pub fn new(padded: &View, geometry: &Geometry, result: &[Dim]) -> Self {
        let lead = padded.shape.len() - geometry.kernel.len();
        let mut input = View { shape: result.to_vec(), ..padded.clone() };
        let mut taps = Vec::new();
        for (axis, &extent) in geometry.kernel.iter().enumerate() {
            let stride = padded.strides[lead + axis].clone();
            taps.push((extent, stride.clone() * Dim::from(geometry.dilations[axis])));
            let step = if result[lead + axis].is(1) { 0 } else { geometry.strides[axis] };
            input.strides[lead + axis] = stride * Dim::from(step);
        }
        Windows { input, taps }
    }

    /// The access of an operand at the taps of the current element.
    pub fn access(&self, kernel: &mut WindowKernel) -> crate::Access {
        let mut strides = kernel.domain.strides(&self.input);
        for (index, (_, stride)) in self.taps.iter().enumerate() {
            strides.push((kernel.first_tap + index, stride.clone()));
        }
        kernel.frame.access(&self.input.offset, &strides)
    }
}

impl WindowKernel {
    /// A nest over the result's shape, with the taps inside. Each axis of `cuts` starts a loop of its own.
    pub fn new(shape: &[Dim], views: &[&View], taps: &[usize], cuts: &[usize]) -> Self {
        let runs = mergeable_runs(shape, views, cuts);
        let dims: Vec<LoopDim> = runs
            .iter()
            .map(|run| LoopDim { size: run_size(shape, run), axis: run[run.len() - 1], factor: Dim::from(1) })
            .collect();
        let mut frame = Frame::default();
        let sizes: Vec<Dim> = dims.iter().map(|d| d.size.clone()).collect();
        let (outer, items) = (frame.sizes(&sizes), sizes.len().saturating_sub(1));
        let vectorize = if sizes.is_empty() { Vectorize::No } else { Vectorize::Outer };
        WindowKernel {
            first_tap: sizes.len(),
            count: sizes[..items].iter().product(),
            inner: taps.iter().map(|&extent| Size::Const(extent as i64)).collect(),
            domain: Domain { dims: dims.into_iter().enumerate().collect() },
            frame,
            outer,
            items,
            vectorize,
            stages: Vec::new(),
        }
    }

    /// The stage that reduces over the taps.
    pub fn reduce(&mut self, dag: Dag, function: ReduceFn, value: ExprId) {
        let inner = self.inner.clone();
        self.stages.push(Stage {
            inner,
            dag,
            reductions: vec![Reduction { function, value }],
            stores: vec![],
        });
    }

    /// The stage that writes results.
    pub fn write(&mut self, dag: Dag, targets: &[View], values: &[ExprId]) {
        let mut stores = Vec::new();
        for (target, &value) in targets.iter().zip(values) {
            let access = self.frame.access(&target.offset, &self.domain.strides(target));
            stores.push(Store { arg: self.frame.arg(target, true), access, value });
        }
        self.stages.push(Stage { inner: vec![], dag, reductions: vec![], stores });
    }
}

impl Lowering<'_, '_, '_> {
    /// `MaxPool`, `AveragePool`, `LRN`.
    pub(super) fn lower_window(&mut self, id: NodeId) {
        let Some(Some(input)) = self.graph.node(id).inputs.first().copied() else { return };
        match &self.graph.node(id).op {
            Op::Pool(pool) => self.lower_pool(id, pool, input),
            Op::Lrn(lrn) => self.lower_lrn(id, lrn, input),
            other => unreachable!("{} is not a window", other.name()),
        }
    }

    /// Adds the kernel to the plan.
    pub(super) fn call_window(
        &mut self,
        kernel: WindowKernel,
        nodes: &[NodeId],
        roots: &[Value],
        flops: Dim,
    ) {
        let WindowKernel { frame, outer, items, count, stages, vectorize, .. } = kernel;
        let mut origin = self.origin(nodes, roots);
        origin.flops = flops;
        let kernel = LoopKernel { args: frame.args.clone(), outer, items, stages, vectorize };
        self.b.call_loop(kernel, frame, count, origin);
    }

    fn lower_pool(&mut self, id: NodeId, pool: &Pool, input: Value) {
        let output = Value { node: id, slot: 0 };
        let source = self.view(input);
        let spatial = source.shape[2..].to_vec();
        let geometry = match pool.geometry(&spatial) {
            Ok(geometry) => geometry,
            Err(error) => return self.problem(id, error.to_string()),
        };
        let dtype = compute_dtype(source.dtype);
        let dilated = geometry.dilations.iter().any(|&d| d > 1);
        let padded_average = pool.kind == PoolKind::Average
            && geometry.pads_begin.iter().chain(&geometry.pads_end).any(|p| !p.is(0));
        // What a window counts then depends on its position.
        let border = padded_average || (pool.kind == PoolKind::Average && pool.ceil_mode);
        if border && dilated {
            return self.lower_host(id, "averages over dilated windows that reach over the edge");
        }
        let result = self.graph.fact(output).shape().to_vec();
        let pads = reach(&geometry, &spatial, &result);
        let fill = pool_fill(pool, source.dtype);
        let padded = self.padded(id, &source, &pads, fill);
        let windows = Windows::new(&padded, &geometry, &result);
        let target = self.allocate(output);
        // The position along each axis, which a merged loop does not know.
        let cuts: Vec<usize> = if border { (2..result.len()).collect() } else { vec![] };
        let mut kernel = WindowKernel::new(&result, &[&windows.input, &target], &geometry.kernel, &cuts);
        let (mut dag, access) = (Dag::default(), windows.access(&mut kernel));
        let arg = kernel.frame.arg(&windows.input, false);
        let value = dag.push(Expr::Load { arg, access }, dtype);
        let function = if pool.kind == PoolKind::Max { ReduceFn::Max } else { ReduceFn::Sum };
        kernel.reduce(dag, function, value);
        let mut dag = Dag::default();
        let mut value = dag.push(Expr::Reduced(0), dtype);
        if pool.kind == PoolKind::Average {
            let count = if border {
                let included = pool.count_include_pad;
                self.window_count(&mut dag, &mut kernel, &geometry, &spatial, included, dtype)
            } else {
                dag.constant(dtype, geometry.kernel.iter().product::<usize>() as f64)
            };
            value = dag.binary(BinaryFn::Div, value, count);
        }
        kernel.write(dag, &[target], &[value]);
        let flops = result.iter().product::<Dim>() * Dim::from(geometry.kernel.iter().product::<usize>());
        self.call_window(kernel, &[id], &[output], flops);
    }

    /// The number of elements that a window averages over.
    fn window_count(
        &self,
        dag: &mut Dag,
        kernel: &mut WindowKernel,
        geometry: &Geometry,
        spatial: &[Dim],
        include_pad: bool,
        dtype: DType,
    ) -> ExprId {
        let mut count = dag.constant(DType::I64, 1.0);
        for (axis, size) in spatial.iter().enumerate() {
            let (begin, end) = (&geometry.pads_begin[axis], &geometry.pads_end[axis]);
            let (low, high) = if include_pad {
                (-begin.clone(), size.clone() + end.clone())
            } else {
                (Dim::from(0), size.clone())
            };
            let position =
                kernel.domain.dims.iter().find(|(_, d)| d.axis == axis + 2).map(|(coord, _)| *coord);
            let mut push = |dim: &Dim| {
                let size = kernel.frame.size(dim);
                dag.push(Expr::Size(size), DType::I64)
            };
            let step = push(&Dim::from(geometry.strides[axis]));
            let (before, extent) = (push(begin), push(&Dim::from(geometry.kernel[axis])));
            let (low, high) = (push(&low), push(&high));
            let index = match position {
                Some(coord) => dag.push(Expr::Index(coord), DType::I64),
                None => dag.constant(DType::I64, 0.0),
            };
            let scaled = dag.binary(BinaryFn::Mul, index, step);
            let start = dag.binary(BinaryFn::Sub, scaled, before);
            let stop = dag.binary(BinaryFn::Add, start, extent);
            let start = dag.binary(BinaryFn::Max, start, low);
            let stop = dag.binary(BinaryFn::Min, stop, high);
            let inside = dag.binary(BinaryFn::Sub, stop, start);
            count = dag.binary(BinaryFn::Mul, count, inside);
        }
        dag.cast(dtype, count)
    }

    /// `y = x / (bias + alpha / size · Σ x²)^beta`, the sum over neighbouring channels.
    fn lower_lrn(&mut self, id: NodeId, lrn: &Lrn, input: Value) {
        let output = Value { node: id, slot: 0 };
        let source = self.view(input);
        let dtype = compute_dtype(source.dtype);
        let padded = self.padded(id, &source, &lrn_pads(lrn), 0.0);
        let target = self.allocate(output);
        let shape = source.shape.clone();
        let input = View { shape: shape.clone(), ..padded.clone() };
        let centre = source.clone();
        let windows = Windows { input, taps: vec![(lrn.size, padded.strides[1].clone())] };
        let mut kernel = WindowKernel::new(&shape, &[&windows.input, &centre, &target], &[lrn.size], &[]);
        let (mut dag, access) = (Dag::default(), windows.access(&mut kernel));
        let arg = kernel.frame.arg(&windows.input, false);
        let value = dag.push(Expr::Load { arg, access }, dtype);
        let square = dag.binary(BinaryFn::Mul, value, value);
        kernel.reduce(dag, ReduceFn::Sum, square);
        let mut dag = Dag::default();
        let access = kernel.frame.access(&centre.offset, &kernel.domain.strides(&centre));
        let arg = kernel.frame.arg(&centre, false);
        let x = dag.push(Expr::Load { arg, access }, dtype);
        let sum = dag.push(Expr::Reduced(0), dtype);
        let factor = dag.constant(dtype, lrn.alpha as f64 / lrn.size as f64);
        let scaled = dag.binary(BinaryFn::Mul, sum, factor);
        let bias = dag.constant(dtype, lrn.bias as f64);
        let base = dag.binary(BinaryFn::Add, scaled, bias);
        // base^-beta as e^(-beta · log base): base is positive, and this is vector code.
        let log = dag.unary(UnaryFn::Log, base);
        let exponent = dag.constant(dtype, -lrn.beta as f64);
        let product = dag.binary(BinaryFn::Mul, log, exponent);
        let power = dag.unary(UnaryFn::Exp, product);
        let value = dag.binary(BinaryFn::Mul, x, power);
        kernel.write(dag, &[target], &[value]);
        let flops = shape.iter().product::<Dim>() * Dim::from(2 * lrn.size + 6);
        self.call_window(kernel, &[id], &[output], flops);
    }

    /// Depthwise convolution in floats, with the elementwise nodes after it.
    pub(super) fn lower_depthwise(&mut self, nodes: &[NodeId], anchor: NodeId, geometry: &Geometry) {
        let inputs = self.graph.node(anchor).inputs.clone();
        let (Some(Some(x)), Some(Some(w))) = (inputs.first().copied(), inputs.get(1).copied()) else {
            return;
        };
        let (source, weights) = (self.view(x), self.view(w));
        let bias = inputs.get(2).copied().flatten().map(|bias| self.view(bias));
        let depthwise = Depthwise { anchor, geometry, source, fill: 0.0, weights };
        self.emit_depthwise(
            nodes,
            &depthwise,
            bias.as_slice(),
            |dag, x, w| dag.binary(BinaryFn::Mul, x, w),
            |exprs, sum, parameters| match parameters {
                [bias] => exprs.dag.binary(BinaryFn::Add, sum, *bias),
                _ => sum,
            },
        );
    }

    /// `start(Σ product(x, w), parameters)` over the taps of each channel, and the elementwise nodes after it.
    /// `parameters` are vectors of one element for each channel.
    pub(super) fn emit_depthwise(
        &mut self,
        nodes: &[NodeId],
        depthwise: &Depthwise<'_>,
        parameters: &[View],
        product: impl FnOnce(&mut Dag, ExprId, ExprId) -> ExprId,
        start: impl FnOnce(&mut Exprs<'_, '_>, ExprId, &[ExprId]) -> ExprId,
    ) {
        let Depthwise { anchor, geometry, source, fill, weights } = depthwise;
        let output = Value { node: *anchor, slot: 0 };
        let result = self.graph.fact(output).shape().to_vec();
        let pads = reach(geometry, &source.shape[2..], &result);
        let padded = self.padded(*anchor, source, &pads, *fill);
        let windows = Windows::new(&padded, geometry, &result);
        let after: Vec<NodeId> = nodes.iter().copied().filter(|id| id != anchor).collect();
        let members = self.members(&after);
        let roots = self.roots(nodes);
        let views = self.leaf_views(&members, &roots, &HashSet::from([output]), &result);
        let parameters: Vec<View> = parameters.iter().map(|view| view.along(1, &result)).collect();
        let targets: Vec<View> = roots.iter().map(|&root| self.allocate(root)).collect();
        let by_channel = weights.along(1, &result);
        let mut all: Vec<&View> = views.values().chain(&targets).chain(&parameters).collect();
        all.extend([&windows.input, &by_channel]);
        let mut kernel = WindowKernel::new(&result, &all, &geometry.kernel, &[]);
        let (mut dag, access) = (Dag::default(), windows.access(&mut kernel));
        let arg = kernel.frame.arg(&windows.input, false);
        let value = dag.push(Expr::Load { arg, access }, compute_dtype(source.dtype));
        let mut strides = kernel.domain.strides(&by_channel);
        for (tap, stride) in weights.strides[2..].iter().enumerate() {
            strides.push((kernel.first_tap + tap, stride.clone()));
        }
        let access = kernel.frame.access(&by_channel.offset, &strides);
        let arg = kernel.frame.arg(&by_channel, false);
        let weight = dag.push(Expr::Load { arg, access }, compute_dtype(weights.dtype));
        let term = product(&mut dag, value, weight);
        let dtype = dag.dtype(term);
        kernel.reduce(dag, ReduceFn::Sum, term);
        let mut exprs = Exprs {
            members: &members,
            views: &views,
            domain: &kernel.domain,
            frame: &mut kernel.frame,
            dag: Dag::default(),
            given: HashMap::new(),
        };
        let sum = exprs.dag.push(Expr::Reduced(0), dtype);
        let parameters: Vec<ExprId> = parameters.iter().map(|view| exprs.load(view)).collect();
        let value = start(&mut exprs, sum, &parameters);
        exprs.give(output, value);
        let values: Vec<ExprId> = roots.iter().map(|&root| exprs.stored(root)).collect();
        let dag = exprs.dag;
        kernel.write(dag, &targets, &values);
        let taps = geometry.kernel.iter().product::<usize>();
        let flops = result.iter().product::<Dim>() * Dim::from(2 * taps + after.len());
        self.call_window(kernel, nodes, &roots, flops);
    }
}

/// What the padding of a pool's operand is filled with.
pub(super) fn pool_fill(pool: &Pool, dtype: DType) -> f64 {
    match (pool.kind, dtype.int_range()) {
        (PoolKind::Average, _) => 0.0,
        (PoolKind::Max, Some((lowest, _))) => lowest as f64,
        (PoolKind::Max, None) => f64::NEG_INFINITY,
    }
}

/// The channels beyond the first and the last that windows reach.
pub(super) fn lrn_pads(lrn: &Lrn) -> Vec<Pad> {
    let before = (lrn.size.max(1) - 1) / 2;
    let after = lrn.size.max(1) - 1 - before;
    vec![(1, Dim::from(before), Dim::from(after))]
}

/// A convolution of each channel by itself.
pub(super) struct Depthwise<'a> {
    /// The node.
    pub anchor: NodeId,
    /// The window.
    pub geometry: &'a Geometry,
    /// The image.
    pub source: View,
    /// What its padding is filled with.
    pub fill: f64,
    /// The weights: channel, 1, taps.
    pub weights: View,
}

/// Padding that covers every window: axis, before, after. Windows may reach beyond the declared padding where sizes
/// are rounded up, and short of it where they are rounded down.
pub(super) fn reach(geometry: &Geometry, spatial: &[Dim], result: &[Dim]) -> Vec<Pad> {
    let lead = result.len() - spatial.len();
    (0..spatial.len())
        .map(|axis| {
            let begin = geometry.pads_begin[axis].clone();
            let extent = Dim::from((geometry.kernel[axis] - 1) * geometry.dilations[axis] + 1);
            let steps = result[lead + axis].clone() - Dim::from(1);
            let covered = steps * Dim::from(geometry.strides[axis]) + extent;
            let after = (covered - spatial[axis].clone() - begin.clone()).maximum(&Dim::from(0));
            (lead + axis, begin, after)
        })
        .collect()
}
