//! Chains of elementwise nodes, and copies.

use super::Lowering;
use super::builder::Origin;
use super::exprs::{Domain, Exprs, Leaf, LoopDim, Members};
use super::frame::Frame;
use super::scalar;
use super::view::{View, mergeable_runs, run_size};
use crate::{Dag, Expr, LoopKernel, Size, Stage, Store, Vectorize};
use rabot_ir::ops::BinaryOp;
use rabot_ir::{Dim, NodeId, Op, Value};
use rabot_tensor::DType;
use std::collections::{HashMap, HashSet};

const INTEGER_POWER: &str = "an integer to a power that is not a small constant";

/// Elements that a work item should have at least, so that starting it costs little.
const MIN_ITEM_ELEMENTS: i64 = 2048;
/// Elements of one chunk when a long run is cut into work items: 64 KiB of f32, half an L1 cache.
const MAX_CHUNK_ELEMENTS: i64 = 16384;

/// The loop nest over merged runs of axes: outer dims, then one inner dim.
pub(super) struct Nest {
    /// All loop dims, coordinates in order; the last one is inner.
    pub domain: Domain,
    /// How many outer dims are work items.
    pub items: usize,
}

impl Nest {
    /// A nest over `shape`, whose runs all views can walk.
    pub fn new(shape: &[Dim], views: &[&View]) -> Self {
        Self::with_cuts(shape, views, &[])
    }

    /// As [`Nest::new`], with runs that start at each of the axes in `cuts`.
    pub fn with_cuts(shape: &[Dim], views: &[&View], cuts: &[usize]) -> Self {
        let runs = mergeable_runs(shape, views, cuts);
        let mut dims: Vec<LoopDim> = runs
            .iter()
            .filter_map(|run| {
                let axis = *run.last()?;
                Some(LoopDim { size: run_size(shape, run), axis, factor: Dim::from(1) })
            })
            .collect();
        if let [only] = &dims[..]
            && let Some((count, chunk)) = chunks(&only.size)
        {
            let outer = LoopDim { size: count, axis: only.axis, factor: chunk.clone() };
            let inner = LoopDim { size: chunk, ..only.clone() };
            dims = vec![outer, inner];
        }
        let items = items_of(&dims);
        Nest { domain: Domain { dims: dims.into_iter().enumerate().collect() }, items }
    }

    /// Extents of the outer dims and of the inner one, and the number of work items.
    pub fn extents(&self, frame: &mut Frame) -> (Vec<Size>, Vec<Size>, Dim) {
        let sizes: Vec<Dim> = self.domain.dims.iter().map(|(_, d)| d.size.clone()).collect();
        let outer = sizes.len().saturating_sub(1);
        let items = sizes[..self.items].iter().product();
        (frame.sizes(&sizes[..outer]), frame.sizes(&sizes[outer..]), items)
    }
}

/// How many leading dims are work items: enough of them that there is something to share, few enough that each has
/// some work.
fn items_of(dims: &[LoopDim]) -> usize {
    let outer = dims.len().saturating_sub(1);
    let mut inner: i64 = dims.iter().map(|d| d.size.as_const().unwrap_or(1)).fold(1, i64::saturating_mul);
    for (index, dim) in dims[..outer].iter().enumerate() {
        inner /= dim.size.as_const().unwrap_or(1).max(1);
        if inner < MIN_ITEM_ELEMENTS {
            return index + 1;
        }
    }
    outer
}

/// A long run as equal chunks, if its size has a divisor of a good size.
fn chunks(size: &Dim) -> Option<(Dim, Dim)> {
    let content = size.terms().iter().map(|(_, coefficient)| *coefficient).fold(0, gcd);
    if content <= MIN_ITEM_ELEMENTS {
        return None;
    }
    let chunk = (MIN_ITEM_ELEMENTS..=MAX_CHUNK_ELEMENTS.min(content)).rev().find(|c| content % c == 0)?;
    if size.is(chunk) {
        return None;
    }
    Some((size.floor_div(&Dim::from(chunk)), Dim::from(chunk)))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.saturating_abs() } else { gcd(b, a % b) }
}

impl Lowering<'_, '_, '_> {
    /// Plans elementwise nodes: one kernel per shape among them.
    pub(super) fn lower_elementwise(&mut self, group: &[NodeId]) {
        let mut rest: Vec<NodeId> = group.to_vec();
        while !rest.is_empty() {
            // The shape of a node that depends on no other one left of another shape; operands come first, and
            // broadcasting only grows shapes, so the first node's shape always qualifies once its operands are done.
            let key = self.part_key(rest[0]);
            let mut part: Vec<NodeId> = Vec::new();
            for &id in &rest {
                let waits = self.graph.node(id).inputs.iter().flatten();
                let ready = waits.clone().all(|v| part.contains(&v.node) || !rest.contains(&v.node));
                if self.part_key(id) == key && ready {
                    part.push(id);
                }
            }
            rest.retain(|id| !part.contains(id));
            self.lower_part(&part);
        }
    }

    /// Nodes with the same key can be in one kernel: same shape, and nothing that runs on the host.
    fn part_key(&self, id: NodeId) -> (Vec<Dim>, Option<NodeId>) {
        let fact = &self.graph.node(id).outputs[0].fact;
        let alone = !self.has_compiled_dtypes(id);
        (fact.shape().to_vec(), alone.then_some(id))
    }

    fn lower_part(&mut self, part: &[NodeId]) {
        if !part.iter().all(|&id| self.has_compiled_dtypes(id)) {
            for &id in part {
                let power = matches!(&self.graph.node(id).op, Op::Binary(op) if op.op == BinaryOp::Pow);
                let reason = if power { INTEGER_POWER } else { "its dtype is held on the host" };
                self.lower_host(id, reason);
            }
            return;
        }
        let members = self.members(part);
        let roots = self.roots(part);
        let Some(&first) = roots.first() else { return };
        let shape = self.graph.fact(first).shape().to_vec();
        let views = self.leaf_views(&members, &roots, &HashSet::new(), &shape);
        let targets: Vec<View> = roots.iter().map(|&root| self.allocate(root)).collect();
        let nest = Nest::new(&shape, &views.values().chain(&targets).collect::<Vec<_>>());
        let mut frame = Frame::default();
        let (outer, inner, items) = nest.extents(&mut frame);
        let domain = &nest.domain;
        let mut exprs = Exprs {
            members: &members,
            views: &views,
            domain,
            frame: &mut frame,
            dag: Dag::default(),
            given: HashMap::new(),
        };
        let values: Vec<usize> = roots.iter().map(|&root| exprs.stored(root)).collect();
        let dag = exprs.dag;
        let mut stores = Vec::new();
        for (target, value) in targets.iter().zip(values) {
            let access = frame.access(&target.offset, &domain.strides(target));
            stores.push(Store { arg: frame.arg(target, true), access, value });
        }
        let vectorize = if inner.is_empty() { Vectorize::No } else { Vectorize::Inner };
        let mut origin = self.origin(part, &roots);
        origin.flops = shape.iter().product::<Dim>() * Dim::from(part.len());
        let stages = vec![Stage { inner, dag, reductions: vec![], stores }];
        let kernel = LoopKernel { args: frame.args.clone(), outer, items: nest.items, stages, vectorize };
        self.b.call_loop(kernel, frame, items, origin);
    }

    /// Views of the leaves of `roots`, broadcast to `shape`.
    pub(super) fn leaf_views(
        &mut self,
        members: &Members<'_>,
        roots: &[Value],
        given: &HashSet<Value>,
        shape: &[Dim],
    ) -> HashMap<Leaf, View> {
        let mut views = HashMap::new();
        for leaf in members.leaves(roots, given) {
            let view = self.view(leaf.value);
            let broadcast = match leaf.axis {
                None => view.broadcast(shape),
                Some(axis) => {
                    let mut strides = vec![Dim::from(0); shape.len()];
                    strides[axis] = view.strides[0].clone();
                    View { shape: shape.to_vec(), strides, ..view }
                }
            };
            views.insert(leaf, broadcast);
        }
        views
    }

    /// Copies a view's elements into another of the same shape, whatever the dtype.
    pub(super) fn copy(&mut self, source: &View, target: &View, origin: Origin) {
        let (source, target) = (&source.carried(), &target.carried());
        let nest = Nest::new(&source.shape, &[source, target]);
        let mut frame = Frame::default();
        let (outer, inner, items) = nest.extents(&mut frame);
        let mut dag = Dag::default();
        let access = frame.access(&source.offset, &nest.domain.strides(source));
        let arg = frame.arg(source, false);
        let value = dag.push(Expr::Load { arg, access }, scalar::compute_dtype(source.dtype));
        let access = frame.access(&target.offset, &nest.domain.strides(target));
        let store = Store { arg: frame.arg(target, true), access, value };
        self.call_stage(frame, outer, inner, nest.items, items, dag, store, origin);
    }

    /// Adds a kernel of one stage with one store.
    #[allow(clippy::too_many_arguments, reason = "the parts of one kernel, each used once")]
    pub(super) fn call_stage(
        &mut self,
        frame: Frame,
        outer: Vec<Size>,
        inner: Vec<Size>,
        items: usize,
        count: Dim,
        dag: Dag,
        store: Store,
        origin: Origin,
    ) {
        let vectorize = if inner.is_empty() { Vectorize::No } else { Vectorize::Inner };
        let stages = vec![Stage { inner, dag, reductions: vec![], stores: vec![store] }];
        let kernel = LoopKernel { args: frame.args.clone(), outer, items, stages, vectorize };
        self.b.call_loop(kernel, frame, count, origin);
    }

    /// Writes the known elements of a value (dims of shapes) into a buffer.
    pub(super) fn write_elements(&mut self, value: Value, elements: &[Dim]) -> View {
        let fact = self.graph.fact(value).clone();
        let target = self.b.arena(fact.dtype(), fact.shape());
        let (mut frame, mut dag, mut stores) = (Frame::default(), Dag::default(), Vec::new());
        let arg = frame.arg(&target, true);
        for (index, element) in elements.iter().enumerate() {
            let size = frame.size(element);
            let integer = dag.push(Expr::Size(size), DType::I64);
            let value = dag.cast(fact.dtype(), integer);
            let access = frame.access(&Dim::from(index), &[]);
            stores.push(Store { arg, access, value });
        }
        let origin = self.origin(&[], &[value]);
        let stages = vec![Stage { inner: vec![], dag, reductions: vec![], stores }];
        let args = frame.args.clone();
        let kernel = LoopKernel { args, outer: vec![], items: 0, stages, vectorize: Vectorize::No };
        self.b.call_loop(kernel, frame, Dim::from(1), origin);
        target
    }
}
