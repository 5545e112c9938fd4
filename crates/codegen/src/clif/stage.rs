//! What a loop kernel does for one outer point: its stages, each with its inner loops, reductions and stores.

use crate::clif::access::{copy_scalar, copy_vector};
use crate::clif::context::LANES;
use crate::clif::expr::value_of;
use crate::clif::expr::{
    CoordValue, Memo, Point, Val, combine, eval, in_lanes, operands, store, to_lane, to_vector,
};
use crate::clif::loops::{Bound, Lanes, LoopEmitter, with_coord};
use crate::clif::ops::Ops;
use crate::clif::reduce::{self, ACCUMULATORS, Accumulators};
use crate::error::KernelError;
use crate::prim::Prim;
use cranelift_codegen::ir::Value;
use cranelift_frontend::Variable;
use rabot_kernel::{
    Access, BinaryFn, Coord, Expr, ExprId, LoopKernel, ReduceFn, Reduction, Size, Stage, UnaryFn, Vectorize,
};
use rabot_tensor::DType;

/// The last inner loops are unrolled while they have at most this many points, all extents constant: windows of
/// pools and convolutions. More (5 × 5 at once) would not leave registers for the weights.
const WINDOW: i64 = 9;

/// What is found out about a stage before code is emitted.
pub(crate) struct StageInfo {
    /// May run on vectors along the last outer dim.
    pub(crate) by_outer: bool,
    /// May run on vectors along its last inner dim.
    by_inner: bool,
    /// Rough number of instructions at a point.
    pub(crate) cost: usize,
    /// Number of inner points that are unrolled together.
    pub(crate) window: usize,
    /// For each node, the set of coordinates that it depends on (a bit each), and [`REDUCED`].
    depends: Vec<u64>,
    /// For each node, whether it must not be repeated where it need not be: calls, branches, loads that cannot move.
    pinned: Vec<bool>,
}

/// Bit of a dependence on reductions of earlier stages.
const REDUCED: u64 = 1 << 63;

impl StageInfo {
    pub(crate) fn new(kernel: &LoopKernel, index: usize, vectors: bool) -> Result<Self, KernelError> {
        let stage = &kernel.stages[index];
        let coords = kernel.outer.len() + stage.inner.len();
        if coords > 62 {
            return Err(KernelError::Index { what: "coordinate", index: coords, count: 62 });
        }
        let depends = dependences(stage);
        let nodes = stage.dag.nodes().iter().zip(live(stage));
        let pinned = nodes.map(|(node, live)| live && is_pinned(kernel, &node.expr)).collect();
        let last_outer = kernel.outer.len().checked_sub(1);
        let last_inner = stage.inner.len().checked_sub(1).map(|i| kernel.inner_coord(i));
        let cost = stage.dag.nodes().iter().map(|node| cost(&node.expr)).sum();
        Ok(StageInfo {
            by_outer: vectors && last_outer.is_some_and(|lane| vectorizable(kernel, stage, lane)),
            by_inner: vectors && last_inner.is_some_and(|lane| vectorizable(kernel, stage, lane)),
            cost,
            window: (0..stage.inner.len()).find_map(|i| window(&stage.inner[i..])).unwrap_or(1) as usize,
            depends,
            pinned,
        })
    }

    /// Vectors in flight along the last inner dim.
    fn inner_unroll(&self) -> usize {
        match self.cost {
            0..=24 => 4,
            25..=60 => 2,
            _ => 1,
        }
    }
}

/// Number of points of inner loops, if it is small and known.
fn window(inner: &[Size]) -> Option<i64> {
    let product = inner.iter().try_fold(1i64, |product, size| match size {
        Size::Const(extent) => product.checked_mul((*extent).max(0)),
        Size::Param(_) => None,
    })?;
    (product <= WINDOW).then_some(product)
}

fn dependences(stage: &Stage) -> Vec<u64> {
    let mut depends: Vec<u64> = Vec::with_capacity(stage.dag.nodes().len());
    for node in stage.dag.nodes() {
        let own = match &node.expr {
            Expr::Index(coord) => 1 << (coord & 63),
            Expr::Load { access, .. } => {
                access.strides.iter().fold(0, |set, (coord, _)| set | 1 << (coord & 63))
            }
            Expr::Reduced(_) => REDUCED,
            _ => 0,
        };
        let all =
            operands(&node.expr).iter().fold(own, |set, &id| set | depends.get(id).copied().unwrap_or(0));
        depends.push(all);
    }
    depends
}

/// For each node, whether a store or a reduction needs it.
fn live(stage: &Stage) -> Vec<bool> {
    let mut live = vec![false; stage.dag.nodes().len()];
    let indices = stage.stores.iter().flat_map(|s| s.access.dynamic.iter().map(|(id, _)| *id));
    let values = stage.stores.iter().map(|s| s.value).chain(stage.reductions.iter().map(|r| r.value));
    let mut waiting: Vec<ExprId> = values.chain(indices).collect();
    while let Some(id) = waiting.pop() {
        if let Some(seen) = live.get_mut(id)
            && !std::mem::replace(seen, true)
        {
            waiting.extend(operands(&stage.dag[id].expr));
        }
    }
    live
}

fn is_pinned(kernel: &LoopKernel, expr: &Expr) -> bool {
    match expr {
        Expr::Load { arg, .. } => kernel.args.get(*arg).is_some_and(|arg| arg.written),
        Expr::CheckIndex { .. } => true,
        Expr::Unary(function, _) => matches!(function, UnaryFn::Libm(_) | UnaryFn::Sin | UnaryFn::Cos),
        Expr::Binary(function, ..) => matches!(function, BinaryFn::Div | BinaryFn::Rem | BinaryFn::Pow),
        _ => false,
    }
}

fn cost(expr: &Expr) -> usize {
    match expr {
        Expr::Const(_) | Expr::Size(_) | Expr::Index(_) | Expr::Reduced(_) | Expr::Accumulator => 0,
        Expr::Unary(function, _) => match function {
            UnaryFn::Exp | UnaryFn::RoundF16 => 20,
            UnaryFn::Log => 28,
            UnaryFn::Sigmoid => 26,
            UnaryFn::Tanh | UnaryFn::Erf => 40,
            UnaryFn::Sin | UnaryFn::Cos | UnaryFn::Libm(_) => 60,
            _ => 1,
        },
        Expr::Binary(BinaryFn::Pow, ..) => 60,
        _ => 1,
    }
}

/// True if lanes along a coordinate pay: all results fit into lanes of 32 bits, and some memory is contiguous.
fn vectorizable(kernel: &LoopKernel, stage: &Stage, lane: Coord) -> bool {
    let held = |arg: usize| kernel.args.get(arg).is_some_and(|a| in_lanes(a.dtype) || is_half(a.dtype));
    let fits = stage.reductions.iter().all(|r| node_in_lanes(stage, r.value))
        && stage.stores.iter().all(|s| held(s.arg) && node_in_lanes(stage, s.value));
    let contiguous = |access: &Access| access.strides.contains(&(lane, Size::Const(1)));
    let loads =
        stage.dag.nodes().iter().any(|n| matches!(&n.expr, Expr::Load { access, .. } if contiguous(access)));
    fits && (loads || !stage.reductions.is_empty() || stage.stores.iter().any(|s| contiguous(&s.access)))
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

fn node_in_lanes(stage: &Stage, id: ExprId) -> bool {
    stage.dag.nodes().get(id).is_some_and(|node| in_lanes(node.dtype))
}

/// True if the last inner dim of a stage is long enough for vectors.
fn is_long(stage: &Stage) -> bool {
    !matches!(stage.inner.last(), None | Some(Size::Const(..=3)))
}

impl LoopEmitter<'_, '_> {
    /// True if a stage is done by vectors along its last inner dim.
    pub(crate) fn is_by_inner(&self, index: usize) -> bool {
        let is_long = self.kernel.stages.get(index).is_some_and(is_long);
        self.kernel.vectorize == Vectorize::Inner && is_long && self.stages[index].by_inner
    }

    /// Emits pinned nodes that depend on nothing but the coordinates of `point` (and on reductions, if `reduced`).
    pub(crate) fn hoist(
        &mut self,
        index: usize,
        point: &Point,
        memo: &mut Memo,
        reduced: bool,
    ) -> Result<(), KernelError> {
        let (info, stage) = (&self.stages[index], &self.kernel.stages[index]);
        let mut known = (1u64 << point.coords.len()) - 1;
        if reduced {
            known |= REDUCED;
        }
        let roots: Vec<ExprId> = (0..stage.dag.nodes().len())
            .filter(|&id| info.pinned[id] && info.depends[id] & !known == 0 && memo.get(id).is_none())
            .collect();
        eval(self.cx, &stage.dag, point, memo, &roots)
    }

    /// Emits a stage at points that differ in the lane coordinate only. Returns the reductions at each point.
    pub(crate) fn stage(
        &mut self,
        index: usize,
        points: &[Point],
        mut memos: Vec<Memo>,
    ) -> Result<Vec<Vec<Val>>, KernelError> {
        for (point, memo) in points.iter().zip(&mut memos) {
            self.hoist(index, point, memo, true)?;
        }
        let inner = &self.kernel.stages[index].inner;
        // The last inner coordinate, if there is one.
        let lane = self.kernel.outer.len() + inner.len().saturating_sub(1);
        let copies = self.kernel.vectorize == Vectorize::Inner
            && is_long(&self.kernel.stages[index])
            && self.copy_lanes(lane).is_some();
        if points[0].lane.is_none() && (copies || self.is_by_inner(index)) {
            return self.stage_by_inner(index, &points[0], memos.swap_remove(0));
        }
        let wide = points[0].lane.is_some();
        let mut flights = Vec::with_capacity(points.len());
        for _ in points {
            flights.push(self.accumulators(index, wide)?);
        }
        let sums = flights;
        self.inner(index, points.to_vec(), memos, &sums)?;
        let results = sums.iter().map(|list| {
            let wrap = |v: &Variable| {
                let value = self.cx.builder.use_var(*v);
                if wide { Val::Vector(value) } else { Val::Uniform(value) }
            };
            list.iter().map(wrap).collect()
        });
        Ok(results.collect())
    }

    pub(crate) fn accumulators(&mut self, index: usize, wide: bool) -> Result<Vec<Variable>, KernelError> {
        let stage = &self.kernel.stages[index];
        let mut list = Vec::with_capacity(stage.reductions.len());
        for reduction in &stage.reductions {
            let start =
                reduce::identity(self.cx, wide, reduction.function, reduce::dtype(stage, reduction)?)?;
            let ty = self.cx.builder.func.dfg.value_type(start);
            let variable = self.cx.builder.declare_var(ty);
            self.cx.builder.def_var(variable, start);
            list.push(variable);
        }
        Ok(list)
    }

    /// The inner loops that follow the coordinates of the points, then the body.
    fn inner(
        &mut self,
        index: usize,
        points: Vec<Point>,
        mut memos: Vec<Memo>,
        sums: &Accumulators,
    ) -> Result<(), KernelError> {
        for (point, memo) in points.iter().zip(&mut memos) {
            self.hoist(index, point, memo, true)?;
        }
        let coord = points[0].coords.len();
        let inner = &self.kernel.stages[index].inner[coord - self.kernel.outer.len()..];
        let Some(&extent) = inner.first() else {
            return self.body(index, &points, memos, sums);
        };
        let mut step = |e: &mut Self, value: CoordValue| {
            let points = points.iter().map(|p| with_coord(p, value.clone())).collect();
            e.inner(index, points, memos.clone(), sums)
        };
        let small =
            window(inner).is_some_and(|n| n as usize * points.len() * self.stages[index].cost <= 1024);
        if let (true, Size::Const(extent)) = (small, extent) {
            return (0..extent).try_for_each(|i| step(self, CoordValue::constant(i)));
        }
        let extent = Bound::new(self.cx, extent);
        self.for_range(Bound::Const(0), extent, 1, coord, &mut step)
    }

    /// A stage on vectors along its last inner dim.
    fn stage_by_inner(
        &mut self,
        index: usize,
        point: &Point,
        memo: Memo,
    ) -> Result<Vec<Vec<Val>>, KernelError> {
        let stage = &self.kernel.stages[index];
        let unroll = match stage.reductions.is_empty() {
            true => self.stages[index].inner_unroll(),
            false => ACCUMULATORS / LANES,
        };
        let mut sums = Accumulators::with_capacity(unroll);
        for _ in 0..unroll {
            sums.push(self.accumulators(index, true)?);
        }
        self.rows(index, point, memo, &sums)?;
        let mut results = Vec::with_capacity(stage.reductions.len());
        for (i, reduction) in stage.reductions.iter().enumerate() {
            let dtype = reduce::dtype(stage, reduction)?;
            let function = reduce::function(reduction.function);
            let vectors: Vec<Value> = sums.iter().map(|list| self.cx.builder.use_var(list[i])).collect();
            let vector = self.pairwise(true, function, dtype, vectors)?;
            let lanes = (0..LANES).map(|lane| to_lane(self.cx, dtype, Val::Vector(vector), lane)).collect();
            results.push(Val::Uniform(self.pairwise(false, function, dtype, lanes)?));
        }
        Ok(vec![results])
    }

    /// The inner dims but the last as loops, the last as vectors.
    fn rows(
        &mut self,
        index: usize,
        point: &Point,
        mut memo: Memo,
        sums: &Accumulators,
    ) -> Result<(), KernelError> {
        self.hoist(index, point, &mut memo, true)?;
        let coord = point.coords.len();
        let dim = coord - self.kernel.outer.len();
        let inner = &self.kernel.stages[index].inner;
        let extent = Bound::new(self.cx, inner[dim]);
        if dim + 1 < inner.len() {
            return self.for_range(Bound::Const(0), extent, 1, coord, &mut |e, value| {
                e.rows(index, &with_coord(point, value), memo.clone(), sums)
            });
        }
        let stage = &self.kernel.stages[index];
        if !stage.reductions.is_empty() {
            return self.reduced_row(index, point, &memo, sums, extent);
        }
        let lanes = self.copy_lanes(coord).unwrap_or(LANES);
        let again = self.repeatable(std::slice::from_ref(stage));
        let shape = Lanes { coord, lanes, unroll: sums.len(), again };
        self.lane_loop(extent, shape, &mut |e, value, unroll| {
            let (lane, count) = (unroll.map(|_| coord), unroll.unwrap_or(1));
            let points: Vec<Point> = (0..count)
                .map(|u| Point { lane, ..with_coord(point, value.plus((u * lanes) as i64)) })
                .collect();
            e.body(index, &points, vec![memo.clone(); count], &sums[..count])
        })
    }

    /// Values, reductions and stores at points in flight. `sums` has the accumulators of each.
    pub(crate) fn body(
        &mut self,
        index: usize,
        points: &[Point],
        mut memos: Vec<Memo>,
        sums: &[Vec<Variable>],
    ) -> Result<(), KernelError> {
        let stage = &self.kernel.stages[index];
        for ((point, memo), sums) in points.iter().zip(&mut memos).zip(sums) {
            if self.copies(stage) {
                self.copy(stage, point, memo)?;
                continue;
            }
            let roots: Vec<ExprId> = stage.stores.iter().map(|s| s.value).collect();
            eval(self.cx, &stage.dag, point, memo, &roots)?;
            for (reduction, &sum) in stage.reductions.iter().zip(sums) {
                self.accumulate(stage, point, memo, reduction, sum)?;
            }
            for s in &stage.stores {
                store(self.cx, &stage.dag, point, memo, s)?;
            }
        }
        Ok(())
    }

    fn accumulate(
        &mut self,
        stage: &Stage,
        point: &Point,
        memo: &mut Memo,
        reduction: &Reduction,
        sum: Variable,
    ) -> Result<(), KernelError> {
        let wide = point.lane.is_some();
        let dtype = reduce::dtype(stage, reduction)?;
        let old = self.cx.builder.use_var(sum);
        let is_float = matches!(dtype, DType::F32 | DType::F64);
        let mut scalar = |e: &mut Self, id: ExprId| {
            eval(e.cx, &stage.dag, point, memo, &[id])?;
            let value = value_of(memo, id)?;
            let dtype = stage.dag.dtype(id);
            Ok::<_, KernelError>(if wide {
                to_vector(e.cx, dtype, value)
            } else {
                to_lane(e.cx, dtype, value, 0)
            })
        };
        let new = match (reduction.function, &stage.dag[reduction.value].expr) {
            (ReduceFn::Sum, &Expr::Binary(BinaryFn::Mul, a, b)) if is_float => {
                let (a, b) = (scalar(self, a)?, scalar(self, b)?);
                Ops { cx: self.cx, wide }.mul_add(a, b, old)
            }
            _ => {
                let value = scalar(self, reduction.value)?;
                combine(self.cx, wide, reduce::function(reduction.function), dtype, value, old)?
            }
        };
        self.cx.builder.def_var(sum, new);
        Ok(())
    }

    /// True if a point of these stages may be done twice: they read nothing that they write.
    pub(crate) fn repeatable(&self, stages: &[Stage]) -> bool {
        let written = |arg: usize| stages.iter().flat_map(|stage| &stage.stores).any(|s| s.arg == arg);
        let mut nodes = stages.iter().flat_map(|stage| stage.dag.nodes());
        !nodes.any(|node| matches!(&node.expr, Expr::Load { arg, .. } if written(*arg)))
    }

    /// True if the stage only moves elements.
    fn copies(&self, stage: &Stage) -> bool {
        let dtype = |arg: usize| self.kernel.args.get(arg).map(|arg| arg.dtype);
        stage.reductions.is_empty()
            && !stage.stores.is_empty()
            && stage.stores.iter().all(|s| match stage.dag.nodes().get(s.value).map(|node| &node.expr) {
                Some(Expr::Load { arg, .. }) => dtype(*arg).is_some() && dtype(*arg) == dtype(s.arg),
                _ => false,
            })
    }

    /// If all stages only move elements of one size that are neighbours along a coordinate: how many fill 16 bytes.
    pub(crate) fn copy_lanes(&self, lane: Coord) -> Option<usize> {
        if !self.cx.target.vectors {
            return None;
        }
        let bit = 1u64 << (lane & 63);
        let along = |access: &Access, depends: &[u64]| {
            access.strides.contains(&(lane, Size::Const(1)))
                && access.dynamic.iter().all(|(id, _)| depends[*id] & bit == 0)
        };
        let mut size = None;
        for (stage, info) in self.kernel.stages.iter().zip(&self.stages) {
            if !self.copies(stage) {
                return None;
            }
            for s in &stage.stores {
                let Expr::Load { arg, access } = &stage.dag[s.value].expr else { return None };
                let bytes = self.kernel.args.get(*arg)?.dtype.size_bytes();
                let neighbours = along(access, &info.depends) && along(&s.access, &info.depends);
                if !neighbours || bytes == 0 || *size.get_or_insert(bytes) != bytes {
                    return None;
                }
            }
        }
        size.map(|bytes| 16 / bytes)
    }

    fn copy(&mut self, stage: &Stage, point: &Point, memo: &mut Memo) -> Result<(), KernelError> {
        for s in &stage.stores {
            let Expr::Load { arg, access } = &stage.dag[s.value].expr else { continue };
            let indices: Vec<ExprId> =
                access.dynamic.iter().chain(&s.access.dynamic).map(|(id, _)| *id).collect();
            eval(self.cx, &stage.dag, point, memo, &indices)?;
            let neighbours = point.lane.is_some_and(|lane| self.copy_lanes(lane).is_some());
            match point.lane {
                None => copy_scalar(self.cx, point, memo, (*arg, access), (s.arg, &s.access))?,
                Some(_) if neighbours => {
                    copy_vector(self.cx, point, memo, (*arg, access), (s.arg, &s.access))?
                }
                Some(_) => {
                    eval(self.cx, &stage.dag, point, memo, &[s.value])?;
                    store(self.cx, &stage.dag, point, memo, s)?;
                }
            }
        }
        Ok(())
    }
}
