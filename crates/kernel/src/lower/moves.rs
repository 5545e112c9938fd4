//! Nodes that move or make elements: concat, pad, gather, range, resize by whole factors.

use super::Lowering;
use super::builder::Origin;
use super::elementwise::Nest;
use super::exprs::{Domain, Exprs};
use super::frame::Frame;
use super::scalar::compute_dtype;
use super::view::View;
use crate::{BinaryFn, Dag, Expr, ExprId, LoopKernel, Stage, Store, UnaryFn, Vectorize};
use rabot_ir::ops::PadMode;
use rabot_ir::{Dim, NodeId, Op, Value};
use rabot_tensor::DType;
use std::collections::HashMap;

/// Copies of the last axis that one kernel writes as separate stores.
const MAX_RESIZE_STORES: i64 = 8;

/// Most operands of a concatenation that kernels copy: each is a call of its own.
const MAX_CONCAT_OPERANDS: usize = 1024;

impl Lowering<'_, '_, '_> {
    /// Plans one node of this family.
    pub(super) fn lower_move(&mut self, id: NodeId) {
        match &self.graph.node(id).op {
            Op::Concat(_) if self.graph.node(id).inputs.len() > MAX_CONCAT_OPERANDS => {
                self.lower_host(id, "it has so many operands that they are copied in one go");
            }
            Op::Concat(op) => self.lower_concat(id, op.axis),
            Op::Pad(op) => self.lower_pad(id, op.mode),
            Op::Gather(op) => self.lower_gather(id, op.axis),
            Op::Range(_) => self.lower_range(id),
            Op::Resize(_) => self.lower_resize(id),
            other => unreachable!("{} is not a move", other.name()),
        }
    }

    pub(super) fn operand(&self, id: NodeId, slot: usize) -> Option<Value> {
        self.graph.node(id).inputs.get(slot).copied().flatten()
    }

    /// Copies the operands that were not written into their part of the result to begin with.
    fn lower_concat(&mut self, id: NodeId, axis: i64) {
        let output = Value { node: id, slot: 0 };
        let target = match self.views.get(&output) {
            Some(view) => view.clone(),
            None => self.allocate(output),
        };
        let parts = self.concat_parts(id, axis, &target);
        for (input, part) in self.graph.node(id).inputs.clone().into_iter().zip(parts) {
            let (Some(input), Some(part)) = (input, part) else { continue };
            let source = self.view(input);
            if source != part && !part.shape.iter().any(|d| d.is(0)) {
                let origin = self.origin(&[id], &[output]);
                self.copy(&source, &part, origin);
            }
        }
    }

    /// Padding before and after each axis, if known.
    pub(super) fn pads_of(&self, id: NodeId, rank: usize) -> Option<Vec<(Dim, Dim)>> {
        let pads = self.graph.fact(self.operand(id, 1)?).dims()?;
        let axes: Vec<i64> = match self.operand(id, 3) {
            Some(axes) => self.graph.fact(axes).ints()?,
            None => (0..rank as i64).collect(),
        };
        let mut result = vec![(Dim::from(0), Dim::from(0)); rank];
        for (index, axis) in axes.iter().enumerate() {
            let axis = usize::try_from(if *axis < 0 { axis + rank as i64 } else { *axis }).ok()?;
            let (begin, end) = (pads.get(index)?.clone(), pads.get(index + axes.len())?.clone());
            *result.get_mut(axis)? = (begin, end);
        }
        Some(result)
    }

    fn lower_pad(&mut self, id: NodeId, mode: PadMode) {
        let Some(input) = self.operand(id, 0) else { return };
        let output = Value { node: id, slot: 0 };
        let source = self.view(input);
        let Some(pads) = self.pads_of(id, source.shape.len()) else {
            return self.problem(id, "pads and axes must be known when compiling");
        };
        let border = if mode == PadMode::Constant { self.border_of_pad(id) } else { None };
        if let Some((pads, fill)) = border {
            let whole = self.padded(id, &source, &pads, fill);
            self.views.insert(output, whole);
            return;
        }
        let origin = self.origin(&[id], &[output]);
        if mode != PadMode::Constant {
            let target = self.allocate(output);
            return self.pad_by_index(&source, &target, &pads, mode, origin);
        }
        let value = match self.operand(id, 2) {
            None => Some(0.0),
            Some(value) => self.graph.constant(value).and_then(|t| t.to_f64s().first().copied()),
        };
        let Some(value) = value else {
            return self.lower_host(id, "its pad value is computed when running");
        };
        let target = self.allocate(output);
        self.b.fill(&target, value, origin.clone());
        let (mut from, mut to) = (source.clone(), target);
        for (axis, (begin, end)) in pads.iter().enumerate() {
            let zero = Dim::from(0);
            let cut_begin = begin.minimum(&zero);
            let cut_end = end.minimum(&zero);
            let size = source.shape[axis].clone() + cut_begin.clone() + cut_end;
            from = from.slice(axis, &-cut_begin, 1, &size);
            to = to.slice(axis, &begin.maximum(&zero), 1, &size);
        }
        self.copy(&from, &to, origin);
    }

    /// Pads whose border repeats the inside: a load at a computed index.
    fn pad_by_index(
        &mut self,
        source: &View,
        target: &View,
        pads: &[(Dim, Dim)],
        mode: PadMode,
        origin: Origin,
    ) {
        let padded: Vec<usize> = (0..pads.len()).filter(|&a| !pads[a].0.is(0) || !pads[a].1.is(0)).collect();
        let cuts: Vec<usize> = padded.iter().flat_map(|&a| [a, a + 1]).collect();
        let mut straight = View { shape: target.shape.clone(), ..source.clone() };
        for &axis in &padded {
            straight.strides[axis] = Dim::from(0);
        }
        let nest = Nest::with_cuts(&target.shape, &[&straight, target], &cuts);
        let (mut frame, mut dag) = (Frame::default(), Dag::default());
        let (outer, inner, items) = nest.extents(&mut frame);
        let mut access = frame.access(&source.offset, &nest.domain.strides(&straight));
        for &axis in &padded {
            let at = axis_index(&mut dag, &mut frame, &nest.domain, axis);
            let begin = size_expr(&mut dag, &mut frame, &pads[axis].0);
            let extent = size_expr(&mut dag, &mut frame, &source.shape[axis]);
            let inside = dag.binary(BinaryFn::Sub, at, begin);
            let index = border_index(&mut dag, inside, extent, mode);
            let stride = frame.size(&source.strides[axis]);
            access.dynamic.push((index, stride));
        }
        let arg = frame.arg(source, false);
        let value = dag.push(Expr::Load { arg, access }, compute_dtype(source.dtype));
        let access = frame.access(&target.offset, &nest.domain.strides(target));
        let store = Store { arg: frame.arg(target, true), access, value };
        self.call_stage(frame, outer, inner, nest.items, items, dag, store, origin);
    }

    fn lower_gather(&mut self, id: NodeId, axis: i64) {
        let (Some(data), Some(indices)) = (self.operand(id, 0), self.operand(id, 1)) else { return };
        let output = Value { node: id, slot: 0 };
        let source = self.view(data);
        let axis = if axis < 0 { axis + source.shape.len() as i64 } else { axis } as usize;
        let index_fact = self.graph.fact(indices);
        if let (0, Some([index])) = (index_fact.rank(), index_fact.dims().as_deref())
            && let Some(index) = index.as_const()
        {
            let bound = source.shape[axis].clone();
            let start = if index < 0 { bound + Dim::from(index) } else { Dim::from(index) };
            let mut view = source.slice(axis, &start, 1, &Dim::from(1));
            view.shape.remove(axis);
            view.strides.remove(axis);
            self.views.insert(output, view);
            return;
        }
        let index_view = self.view(indices);
        let target = self.allocate(output);
        let rank = index_view.shape.len();
        let shape = target.shape.clone();
        let zeros = vec![Dim::from(0); rank];
        let mut data_strides = source.strides.clone();
        let stride = data_strides.splice(axis..=axis, zeros).next().unwrap_or_default();
        let straight = View { shape: shape.clone(), strides: data_strides, ..source.clone() };
        let mut index_strides = vec![Dim::from(0); shape.len()];
        index_strides[axis..axis + rank].clone_from_slice(&index_view.strides);
        let by_index = View { shape: shape.clone(), strides: index_strides, ..index_view };
        let nest = Nest::new(&shape, &[&straight, &by_index, &target]);
        let (mut frame, mut dag) = (Frame::default(), Dag::default());
        let (outer, inner, items) = nest.extents(&mut frame);
        let access = frame.access(&by_index.offset, &nest.domain.strides(&by_index));
        let arg = frame.arg(&by_index, false);
        let loaded = dag.push(Expr::Load { arg, access }, by_index.dtype);
        let wide = dag.cast(DType::I64, loaded);
        let bound = frame.size(&source.shape[axis]);
        let index = dag.push(Expr::CheckIndex { index: wide, bound }, DType::I64);
        let mut access = frame.access(&straight.offset, &nest.domain.strides(&straight));
        access.dynamic.push((index, frame.size(&stride)));
        let arg = frame.arg(&straight, false);
        let value = dag.push(Expr::Load { arg, access }, compute_dtype(source.dtype));
        let access = frame.access(&target.offset, &nest.domain.strides(&target));
        let store = Store { arg: frame.arg(&target, true), access, value };
        let origin = self.origin(&[id], &[output]);
        self.call_stage(frame, outer, inner, nest.items, items, dag, store, origin);
    }

    fn lower_range(&mut self, id: NodeId) {
        let (Some(start), Some(delta)) = (self.operand(id, 0), self.operand(id, 2)) else { return };
        let output = Value { node: id, slot: 0 };
        let members = self.members(&[]);
        let target = self.allocate(output);
        let shape = target.shape.clone();
        let views = self.leaf_views(&members, &[start, delta], &Default::default(), &shape);
        let nest = Nest::new(&shape, &[&target]);
        let mut frame = Frame::default();
        let (outer, inner, items) = nest.extents(&mut frame);
        let mut exprs = Exprs {
            members: &members,
            views: &views,
            domain: &nest.domain,
            frame: &mut frame,
            dag: Dag::default(),
            given: HashMap::new(),
        };
        let (start, delta) = (exprs.value(start), exprs.value(delta));
        let index = exprs.linear_index();
        let mut dag = exprs.dag;
        let index = dag.cast(compute_dtype(target.dtype), index);
        let scaled = dag.binary(BinaryFn::Mul, index, delta);
        let value = dag.binary(BinaryFn::Add, start, scaled);
        let access = frame.access(&target.offset, &nest.domain.strides(&target));
        let store = Store { arg: frame.arg(&target, true), access, value };
        let origin = self.origin(&[id], &[output]);
        self.call_stage(frame, outer, inner, nest.items, items, dag, store, origin);
    }

    /// Nearest neighbour by whole factors: every element is read once and written to each of its places.
    fn lower_resize(&mut self, id: NodeId) {
        let Some(input) = self.operand(id, 0) else { return };
        let source = self.view(input);
        let output = Value { node: id, slot: 0 };
        let Some(factors) = self.whole_factors(id, &source.shape) else {
            return self.lower_host(id, "resizing by other than whole factors of nearest neighbours");
        };
        let target = self.allocate(output);
        // Each axis with a factor becomes two: the source's, and the copies.
        let last = factors.len().checked_sub(1);
        let mut shape = Vec::new();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        let mut stores = 1;
        for (axis, &factor) in factors.iter().enumerate() {
            let unrolled = Some(axis) == last && factor <= MAX_RESIZE_STORES;
            shape.push(source.shape[axis].clone());
            from.push(source.strides[axis].clone());
            to.push(target.strides[axis].clone() * Dim::from(factor));
            if unrolled {
                stores = factor;
            } else if factor > 1 {
                shape.push(Dim::from(factor));
                from.push(Dim::from(0));
                to.push(target.strides[axis].clone());
            }
        }
        let last_stride = last.map_or(Dim::from(0), |axis| target.strides[axis].clone());
        let from = View { shape: shape.clone(), strides: from, ..source };
        let to = View { shape: shape.clone(), strides: to, ..target };
        let nest = Nest::new(&shape, &[&from, &to]);
        let (mut frame, mut dag) = (Frame::default(), Dag::default());
        let (outer, inner, items) = nest.extents(&mut frame);
        let access = frame.access(&from.offset, &nest.domain.strides(&from));
        let arg = frame.arg(&from, false);
        let value = dag.push(Expr::Load { arg, access }, compute_dtype(from.dtype));
        let arg = frame.arg(&to, true);
        let mut places = Vec::new();
        for copy in 0..stores {
            let offset = to.offset.clone() + last_stride.clone() * Dim::from(copy);
            let access = frame.access(&offset, &nest.domain.strides(&to));
            places.push(Store { arg, access, value });
        }
        let origin = self.origin(&[id], &[output]);
        let vectorize = if inner.is_empty() { Vectorize::No } else { Vectorize::Inner };
        let stages = vec![Stage { inner, dag, reductions: vec![], stores: places }];
        let kernel = LoopKernel { args: frame.args.clone(), outer, items: nest.items, stages, vectorize };
        self.b.call_loop(kernel, frame, items, origin);
    }

    /// Factors by which the axes grow, where copying each element that often is what the op means.
    fn whole_factors(&self, id: NodeId, shape: &[Dim]) -> Option<Vec<i64>> {
        let Op::Resize(op) = &self.graph.node(id).op else { return None };
        let rounds = matches!(op.nearest_mode.as_str(), "round_prefer_floor" | "round_prefer_ceil");
        let copies = match op.coordinate_mode.as_str() {
            "asymmetric" => op.nearest_mode == "floor",
            "half_pixel" | "pytorch_half_pixel" | "half_pixel_symmetric" => rounds,
            _ => false,
        };
        if op.mode != "nearest" || !copies {
            return None;
        }
        let output = self.graph.node(id).outputs[0].fact.shape();
        let factor = |(from, to): (&Dim, &Dim)| {
            let factor = if from == to { 1 } else { to.floor_div(from).as_const()? };
            (factor >= 1 && from.clone() * Dim::from(factor) == *to).then_some(factor)
        };
        shape.iter().zip(output).map(factor).collect()
    }
}

fn size_expr(dag: &mut Dag, frame: &mut Frame, dim: &Dim) -> ExprId {
    let size = frame.size(dim);
    dag.push(Expr::Size(size), DType::I64)
}

/// The position along an axis that no other axis was merged with.
fn axis_index(dag: &mut Dag, frame: &mut Frame, domain: &Domain, axis: usize) -> ExprId {
    let mut sum = dag.constant(DType::I64, 0.0);
    for (coord, dim) in domain.dims.iter().filter(|(_, dim)| dim.axis == axis) {
        let index = dag.push(Expr::Index(*coord), DType::I64);
        let factor = size_expr(dag, frame, &dim.factor);
        let term = dag.binary(BinaryFn::Mul, index, factor);
        sum = dag.binary(BinaryFn::Add, sum, term);
    }
    sum
}

/// The inner index that a position in the border repeats.
fn border_index(dag: &mut Dag, index: ExprId, extent: ExprId, mode: PadMode) -> ExprId {
    let (zero, one) = (dag.constant(DType::I64, 0.0), dag.constant(DType::I64, 1.0));
    let last = dag.binary(BinaryFn::Sub, extent, one);
    match mode {
        PadMode::Edge | PadMode::Constant => {
            let upper = dag.binary(BinaryFn::Min, index, last);
            dag.binary(BinaryFn::Max, upper, zero)
        }
        // |i| mirrors at the start; last - |last - |i|| at the end. Padding is less than the extent.
        PadMode::Reflect => {
            let magnitude = dag.unary(UnaryFn::Abs, index);
            let from_end = dag.binary(BinaryFn::Sub, last, magnitude);
            let mirrored = dag.unary(UnaryFn::Abs, from_end);
            let inside = dag.binary(BinaryFn::Sub, last, mirrored);
            dag.binary(BinaryFn::Max, inside, zero)
        }
        PadMode::Wrap => {
            let rest = dag.binary(BinaryFn::Rem, index, extent);
            let moved = dag.binary(BinaryFn::Add, rest, extent);
            dag.binary(BinaryFn::Rem, moved, extent)
        }
    }
}
