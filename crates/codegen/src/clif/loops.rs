//! Loop kernels: the loops. What is done at each point is in `stage`.
//!
//! Work items are decoded once, at the first; then coordinates count up like an odometer. The dims that are no items
//! are nested loops. Where the last outer dim is vectorized, it is done by vectors times an unroll factor, then by
//! single vectors, then by what is left; all give the same bits for an element.

use crate::clif::access::ByteStride;
use crate::clif::context::{KernelCx, LANES};
use crate::clif::expr::{CoordValue, Memo, Point};
use crate::clif::stage::StageInfo;
use crate::clif::wide::Wide;
use crate::error::KernelError;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;
use rabot_kernel::{Access, Coord, Expr, LoopKernel, Size, Vectorize};
use rabot_tensor::DType;

/// Emits the body of a loop kernel. The function is then in the block after the loop, without a return.
///
/// **Errors**: an operation that is not compiled for its dtype, or a description that is inconsistent.
pub fn emit(cx: &mut KernelCx, kernel: &LoopKernel) -> Result<(), KernelError> {
    if kernel.items > kernel.outer.len() {
        let (index, count) = (kernel.items, kernel.outer.len());
        return Err(KernelError::Index { what: "work item dim", index, count });
    }
    let mut emitter = LoopEmitter::new(cx, kernel)?;
    emitter.wide = emitter.find_wide()?;
    emitter.items()
}

/// A loop bound.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    Const(i64),
    Value(Value),
}

impl Bound {
    pub(crate) fn new(cx: &mut KernelCx, size: Size) -> Bound {
        match size {
            Size::Const(value) => Bound::Const(value.max(0)),
            Size::Param(_) => Bound::Value(cx.size(size)),
        }
    }

    pub(crate) fn value(self, cx: &mut KernelCx) -> Value {
        match self {
            Bound::Const(value) => cx.builder.ins().iconst(I64, value),
            Bound::Value(value) => value,
        }
    }

    /// The largest multiple of `step` (a power of two) that is not larger.
    pub(crate) fn round_down(self, cx: &mut KernelCx, step: i64) -> Bound {
        match self {
            Bound::Const(value) => Bound::Const(value / step * step),
            Bound::Value(value) => {
                let mask = cx.builder.ins().iconst(I64, -step);
                Bound::Value(cx.builder.ins().band(value, mask))
            }
        }
    }
}

/// What is done at a coordinate of a loop.
pub(crate) type Body<'b, E> = &'b mut dyn FnMut(&mut E, CoordValue) -> Result<(), KernelError>;

/// What is done at a coordinate of a loop on vectors, for a number of them.
type LaneBody<'b, E> = &'b mut dyn FnMut(&mut E, CoordValue, Option<usize>) -> Result<(), KernelError>;

/// A loop on vectors.
#[derive(Clone, Copy)]
pub(crate) struct Lanes {
    /// Its coordinate.
    pub(crate) coord: Coord,
    /// Elements of a vector; 1 for none.
    pub(crate) lanes: usize,
    /// Vectors at a time.
    pub(crate) unroll: usize,
    /// Points may be done twice.
    pub(crate) again: bool,
}

pub(crate) struct LoopEmitter<'a, 'f> {
    pub(crate) cx: &'a mut KernelCx<'f>,
    pub(crate) kernel: &'a LoopKernel,
    pub(crate) stages: Vec<StageInfo>,
    /// Strides of each coordinate that no addressing mode has: loops keep their products in variables.
    strides: Vec<Vec<ByteStride>>,
    /// The leaf that does the rows, if there is one.
    wide: Option<Wide>,
}

impl<'a, 'f> LoopEmitter<'a, 'f> {
    fn new(cx: &'a mut KernelCx<'f>, kernel: &'a LoopKernel) -> Result<Self, KernelError> {
        let inner = kernel.stages.iter().map(|stage| stage.inner.len()).max().unwrap_or(0);
        let mut strides = vec![Vec::new(); kernel.outer.len() + inner];
        for_each_access(kernel, &mut |arg, access| {
            let dtype = kernel.args.get(arg).map_or(DType::Bool, |arg| arg.dtype);
            for &(coord, stride) in &access.strides {
                let stride = ByteStride::new(stride, dtype);
                if let Some(list) = strides.get_mut(coord)
                    && !stride.is_scale()
                    && stride != ByteStride::Const(0)
                    && !list.contains(&stride)
                {
                    list.push(stride);
                }
            }
        });
        let stages = (0..kernel.stages.len())
            .map(|index| StageInfo::new(kernel, index, cx.target.vectors))
            .collect::<Result<_, _>>()?;
        Ok(LoopEmitter { cx, kernel, stages, strides, wide: None })
    }

    fn items(&mut self) -> Result<(), KernelError> {
        let (begin, end) = (self.cx.begin, self.cx.end);
        let kernel = self.kernel;
        if let Some(wide) = self.wide.clone().filter(|wide| wide.does_items(kernel)) {
            return self.wide_items(&wide);
        }
        if kernel.items == 1 {
            return self.for_range(Bound::Value(begin), Bound::Value(end), 1, 0, &mut |e, coord| {
                e.outer(Point { coords: vec![coord], ..Point::default() })
            });
        }
        let extents: Vec<Value> =
            kernel.outer[..kernel.items].iter().map(|&size| self.cx.size(size)).collect();
        let digits: Vec<Variable> = extents.iter().map(|_| self.cx.builder.declare_var(I64)).collect();
        let (start, exit) = (self.cx.builder.create_block(), self.cx.builder.create_block());
        let any = self.cx.builder.ins().icmp(IntCC::SignedLessThan, begin, end);
        self.cx.builder.ins().brif(any, start, &[], exit, &[]);
        self.enter(start);
        self.decode(begin, &extents, &digits);
        // No strides belong to the item itself, so any coordinate number without strides will do.
        self.counted(Bound::Value(begin), Bound::Value(end), 1, &[], &mut |e, _| {
            let coords = digits.iter().map(|&v| CoordValue::variable(e.cx.builder.use_var(v))).collect();
            e.outer(Point { coords, ..Point::default() })?;
            let one = e.cx.builder.ins().iconst(I64, 1);
            e.advance(&extents, &digits, one);
            Ok(())
        })?;
        self.cx.builder.ins().jump(exit, &[]);
        self.enter(exit);
        Ok(())
    }

    pub(crate) fn enter(&mut self, block: cranelift_codegen::ir::Block) {
        self.cx.builder.switch_to_block(block);
        self.cx.builder.seal_block(block);
    }

    /// Sets the coordinates to those of an item.
    pub(crate) fn decode(&mut self, item: Value, extents: &[Value], digits: &[Variable]) {
        let mut rest = item;
        for (index, (&extent, &digit)) in extents.iter().zip(digits).enumerate().rev() {
            let builder = &mut self.cx.builder;
            if index == 0 {
                builder.def_var(digit, rest);
                return;
            }
            let quotient = builder.ins().udiv(rest, extent);
            let product = builder.ins().imul(quotient, extent);
            let remainder = builder.ins().isub(rest, product);
            builder.def_var(digit, remainder);
            rest = quotient;
        }
    }

    /// Steps the coordinates to an item so many further on, which is not beyond the first of the next row.
    pub(crate) fn advance(&mut self, extents: &[Value], digits: &[Variable], count: Value) {
        let builder = &mut self.cx.builder;
        let mut carry = count;
        for (&extent, &digit) in extents.iter().zip(digits).rev() {
            let old = builder.use_var(digit);
            let next = builder.ins().iadd(old, carry);
            let wraps = builder.ins().icmp(IntCC::Equal, next, extent);
            let zero = builder.ins().iconst(I64, 0);
            let next = builder.ins().select(wraps, zero, next);
            builder.def_var(digit, next);
            carry = builder.ins().uextend(I64, wraps);
        }
    }

    /// The outer dims that follow those in `point`, then the stages.
    fn outer(&mut self, point: Point) -> Result<(), KernelError> {
        let dim = point.coords.len();
        if let Some(wide) = self.wide.clone().filter(|wide| wide.depth() == dim) {
            return self.all_rows(&wide, &point);
        }
        let Some(&extent) = self.kernel.outer.get(dim) else {
            let memos = self.fresh_memos();
            return self.stages(vec![point], vec![memos]);
        };
        let extent = Bound::new(self.cx, extent);
        let last = dim + 1 == self.kernel.outer.len();
        if last && self.kernel.vectorize == Vectorize::Outer {
            return self.outer_last(point, dim, extent);
        }
        self.for_range(Bound::Const(0), extent, 1, dim, &mut |e, coord| e.outer(with_coord(&point, coord)))
    }

    /// The last outer dim, by vectors where all stages allow it.
    fn outer_last(&mut self, point: Point, dim: Coord, extent: Bound) -> Result<(), KernelError> {
        let memos = self.hoist_all(&point)?;
        let (lanes, unroll) = match self.copy_lanes(dim) {
            Some(lanes) => (lanes, 4),
            None if self.stages.iter().all(|s| s.by_outer) => (LANES, self.outer_unroll()),
            None => (1, 1),
        };
        let again = self.repeatable(&self.kernel.stages);
        self.lane_loop(extent, Lanes { coord: dim, lanes, unroll, again }, &mut |e, coord, unroll| {
            let (lane, count) = match unroll {
                Some(count) => (Some(dim), count),
                None => (None, 1),
            };
            let points: Vec<Point> = (0..count)
                .map(|u| Point { lane, ..with_coord(&point, coord.plus((u * lanes) as i64)) })
                .collect();
            e.stages(points, vec![memos.clone(); count])
        })
    }

    /// A loop on vectors: `unroll` of them at a time, then one at a time, then what is left. `body` gets the first
    /// coordinate and the number of vectors; no number means a scalar.
    ///
    /// If points may be done twice, what is left is done by the vector that ends at the end.
    pub(crate) fn lane_loop(
        &mut self,
        extent: Bound,
        shape: Lanes,
        body: LaneBody<Self>,
    ) -> Result<(), KernelError> {
        let Lanes { coord, lanes, unroll, again } = shape;
        let mut from = Bound::Const(0);
        if lanes > 1 {
            let unrolls = [unroll, 1];
            for &unroll in if unroll == 1 { &unrolls[1..] } else { &unrolls[..] } {
                let step = (lanes * unroll) as i64;
                let to = extent.round_down(self.cx, step);
                self.for_range(from, to, step, coord, &mut |e, value| body(e, value, Some(unroll)))?;
                from = to;
            }
        }
        if lanes == 1 || !again {
            return self.for_range(from, extent, 1, coord, &mut |e, value| body(e, value, None));
        }
        self.last_vector(from, extent, shape, body)
    }

    /// What single vectors leave of a loop, where points may be done twice.
    fn last_vector(
        &mut self,
        from: Bound,
        extent: Bound,
        shape: Lanes,
        body: LaneBody<Self>,
    ) -> Result<(), KernelError> {
        let (coord, lanes) = (shape.coord, shape.lanes as i64);
        match extent {
            Bound::Const(n) if n < lanes => {
                self.for_range(from, extent, 1, coord, &mut |e, value| body(e, value, None))
            }
            Bound::Const(n) if n % lanes == 0 => Ok(()),
            Bound::Const(n) => body(self, CoordValue::constant(n - lanes), Some(1)),
            Bound::Value(n) => {
                let blocks: [_; 4] = std::array::from_fn(|_| self.cx.builder.create_block());
                let [left, last, few, next] = blocks;
                let first = from.value(self.cx);
                let any = self.cx.builder.ins().icmp(IntCC::SignedLessThan, first, n);
                self.cx.builder.ins().brif(any, left, &[], next, &[]);
                self.enter(left);
                let width = self.cx.builder.ins().iconst(I64, lanes);
                let start = self.cx.builder.ins().isub(n, width);
                let enough = self.cx.builder.ins().icmp(IntCC::SignedGreaterThanOrEqual, n, width);
                self.cx.builder.ins().brif(enough, last, &[], few, &[]);
                self.enter(last);
                body(self, CoordValue::variable(start), Some(1))?;
                self.cx.builder.ins().jump(next, &[]);
                self.enter(few);
                self.for_range(Bound::Const(0), extent, 1, coord, &mut |e, value| body(e, value, None))?;
                self.cx.builder.ins().jump(next, &[]);
                self.enter(next);
                Ok(())
            }
        }
    }

    fn outer_unroll(&self) -> usize {
        let cost: usize = self.stages.iter().map(|s| s.cost * s.window.max(1)).sum();
        match cost {
            0..=128 => 4,
            129..=256 => 2,
            _ => 1,
        }
    }

    /// All stages at points that differ in the lane coordinate only.
    fn stages(&mut self, mut points: Vec<Point>, memos: Vec<Vec<Memo>>) -> Result<(), KernelError> {
        for index in 0..self.kernel.stages.len() {
            let memos = memos.iter().map(|list| list[index].clone()).collect();
            let reduced = self.stage(index, &points, memos)?;
            for (point, values) in points.iter_mut().zip(reduced) {
                point.reduced.extend(values);
            }
        }
        Ok(())
    }

    fn fresh_memos(&self) -> Vec<Memo> {
        self.kernel.stages.iter().map(|stage| Memo::new(&stage.dag)).collect()
    }

    /// Emits what may not be repeated in the loop over the last outer dim and does not depend on it.
    fn hoist_all(&mut self, point: &Point) -> Result<Vec<Memo>, KernelError> {
        let mut memos = self.fresh_memos();
        for (index, memo) in memos.iter_mut().enumerate() {
            self.hoist(index, point, memo, false)?;
        }
        Ok(memos)
    }

    /// `body` for `from`, `from + step` … below `to`.
    pub(crate) fn for_range(
        &mut self,
        from: Bound,
        to: Bound,
        step: i64,
        coord: Coord,
        body: Body<Self>,
    ) -> Result<(), KernelError> {
        let strides = self.strides.get(coord).cloned().unwrap_or_default();
        if let (Bound::Const(first), Bound::Const(end)) = (from, to) {
            if first >= end {
                return Ok(());
            }
            if first + step >= end {
                return body(self, CoordValue::constant(first));
            }
            return self.counted(from, to, step, &strides, body);
        }
        let (start, exit) = (self.cx.builder.create_block(), self.cx.builder.create_block());
        let (first, end) = (from.value(self.cx), to.value(self.cx));
        let any = self.cx.builder.ins().icmp(IntCC::SignedLessThan, first, end);
        self.cx.builder.ins().brif(any, start, &[], exit, &[]);
        self.enter(start);
        self.counted(from, to, step, &strides, body)?;
        self.cx.builder.ins().jump(exit, &[]);
        self.enter(exit);
        Ok(())
    }

    /// A loop that runs at least once.
    fn counted(
        &mut self,
        from: Bound,
        to: Bound,
        step: i64,
        strides: &[ByteStride],
        body: Body<Self>,
    ) -> Result<(), KernelError> {
        let (first, end) = (from.value(self.cx), to.value(self.cx));
        let counter = self.cx.builder.declare_var(I64);
        self.cx.builder.def_var(counter, first);
        let mut running = Vec::with_capacity(strides.len());
        for &stride in strides {
            let start = match from {
                Bound::Const(0) => self.cx.builder.ins().iconst(I64, 0),
                _ => stride.times(self.cx, first),
            };
            let step = self.cx.builder.ins().iconst(I64, step);
            let step = stride.times(self.cx, step);
            let variable = self.cx.builder.declare_var(I64);
            self.cx.builder.def_var(variable, start);
            running.push((stride, variable, step));
        }
        let (head, after) = (self.cx.builder.create_block(), self.cx.builder.create_block());
        self.cx.builder.ins().jump(head, &[]);
        self.cx.builder.switch_to_block(head);
        let index = self.cx.builder.use_var(counter);
        let products = running.iter().map(|&(stride, v, _)| (stride, self.cx.builder.use_var(v))).collect();
        body(self, CoordValue { base: Some(index), add: 0, running: products })?;
        let builder = &mut self.cx.builder;
        for (_, variable, step) in running {
            let old = builder.use_var(variable);
            let next = builder.ins().iadd(old, step);
            builder.def_var(variable, next);
        }
        let step = builder.ins().iconst(I64, step);
        let next = builder.ins().iadd(index, step);
        builder.def_var(counter, next);
        let more = builder.ins().icmp(IntCC::SignedLessThan, next, end);
        builder.ins().brif(more, head, &[], after, &[]);
        builder.seal_block(head);
        self.enter(after);
        Ok(())
    }
}

/// The point with one more coordinate.
pub(crate) fn with_coord(point: &Point, coord: CoordValue) -> Point {
    let mut point = point.clone();
    point.coords.push(coord);
    point
}

/// Every read and write of the kernel: argument and access.
fn for_each_access(kernel: &LoopKernel, visit: &mut dyn FnMut(usize, &Access)) {
    for stage in &kernel.stages {
        for node in stage.dag.nodes() {
            if let Expr::Load { arg, access } = &node.expr {
                visit(*arg, access);
            }
        }
        for store in &stage.stores {
            visit(store.arg, &store.access);
        }
    }
}
