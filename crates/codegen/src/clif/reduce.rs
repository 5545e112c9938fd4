//! Reductions: where they start, how they combine, and the order of what is reduced along a row.

use crate::clif::context::{KernelCx, LANES, plain};
use crate::clif::expr::{Memo, Point, combine};
use crate::clif::loops::{Bound, LoopEmitter, with_coord};
use crate::clif::ops::Ops;
use crate::error::KernelError;
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I64};
use cranelift_codegen::ir::{InstBuilder, StackSlotData, StackSlotKind, Value};
use cranelift_frontend::Variable;
use rabot_kernel::{BinaryFn, ReduceFn, Reduction, Stage};
use rabot_tensor::DType;

/// Accumulators of a stage: for each point in flight, one for each reduction.
pub(crate) type Accumulators = Vec<Vec<Variable>>;

/// Elements of a row that a reduction has accumulators for: element `i` goes to number `i % ACCUMULATORS`.
pub(crate) const ACCUMULATORS: usize = 16;

/// Bytes of an accumulator.
const WORD: usize = 4;

/// Dtype of a reduction: that of its value.
pub(crate) fn dtype(stage: &Stage, reduction: &Reduction) -> Result<DType, KernelError> {
    let count = stage.dag.nodes().len();
    let node = stage.dag.nodes().get(reduction.value);
    node.map(|n| n.dtype).ok_or(KernelError::Index { what: "node", index: reduction.value, count })
}

/// The function of two values that a reduction repeats.
pub(crate) fn function(reduce: ReduceFn) -> BinaryFn {
    match reduce {
        ReduceFn::Sum => BinaryFn::Add,
        ReduceFn::Prod => BinaryFn::Mul,
        ReduceFn::Max => BinaryFn::Max,
        ReduceFn::Min => BinaryFn::Min,
    }
}

/// The value that a reduction starts at.
///
/// **Errors**: the dtype cannot be reduced.
pub(crate) fn identity(
    cx: &mut KernelCx,
    wide: bool,
    reduce: ReduceFn,
    dtype: DType,
) -> Result<Value, KernelError> {
    let o = &mut Ops { cx, wide };
    let float = match reduce {
        ReduceFn::Sum => 0.0,
        ReduceFn::Prod => 1.0,
        ReduceFn::Max => f32::NEG_INFINITY,
        ReduceFn::Min => f32::INFINITY,
    };
    let (low, high) = dtype.int_range().unwrap_or((0, 1));
    let int = match reduce {
        ReduceFn::Sum => 0,
        ReduceFn::Prod => 1,
        ReduceFn::Max => low as i64,
        // As bits: the highest u64 is -1.
        ReduceFn::Min => high as i64,
    };
    Ok(match dtype {
        DType::F32 => o.f32(float),
        DType::F64 => o.f64(float as f64),
        DType::Bool if wide => o.i32(-(int as i32)),
        DType::Bool => o.cx.builder.ins().iconst(I8, int),
        DType::I64 | DType::U64 => o.cx.builder.ins().iconst(I64, int),
        _ if dtype.is_int() => o.i32(int as i32),
        _ => return Err(KernelError::DType { operation: format!("{reduce:?}"), dtype }),
    })
}

impl LoopEmitter<'_, '_> {
    /// Combines neighbours until one is left.
    pub(crate) fn pairwise(
        &mut self,
        wide: bool,
        function: BinaryFn,
        dtype: DType,
        mut values: Vec<Value>,
    ) -> Result<Value, KernelError> {
        while values.len() > 1 {
            let mut next = Vec::with_capacity(values.len().div_ceil(2));
            for pair in values.chunks(2) {
                next.push(match *pair {
                    [a, b] => combine(self.cx, wide, function, dtype, a, b)?,
                    _ => pair[0],
                });
            }
            values = next;
        }
        Ok(values[0])
    }

    /// The last inner dim of a stage with reductions, by vectors for all accumulators; what is left goes to accumulators
    /// in memory.
    pub(crate) fn reduced_row(
        &mut self,
        index: usize,
        point: &Point,
        memo: &Memo,
        sums: &Accumulators,
        extent: Bound,
    ) -> Result<(), KernelError> {
        let coord = point.coords.len();
        let whole = extent.round_down(self.cx, ACCUMULATORS as i64);
        self.for_range(Bound::Const(0), whole, ACCUMULATORS as i64, coord, &mut |e, value| {
            let at = |u: usize| with_coord(point, value.plus((u * LANES) as i64));
            let points: Vec<Point> = (0..sums.len()).map(|u| Point { lane: Some(coord), ..at(u) }).collect();
            e.body(index, &points, vec![memo.clone(); sums.len()], sums)
        })?;
        let left = match (extent, whole) {
            (Bound::Const(extent), Bound::Const(whole)) if extent == whole => return Ok(()),
            (Bound::Const(_), _) => None,
            _ => {
                let (from, to) = (whole.value(self.cx), extent.value(self.cx));
                Some(self.cx.builder.ins().icmp(IntCC::SignedLessThan, from, to))
            }
        };
        let [some, next] = std::array::from_fn(|_| self.cx.builder.create_block());
        match left {
            Some(left) => self.cx.builder.ins().brif(left, some, &[], next, &[]),
            None => self.cx.builder.ins().jump(some, &[]),
        };
        self.cx.builder.switch_to_block(some);
        self.cx.builder.seal_block(some);
        self.rest_of_row(index, point, memo, sums, [whole, extent])?;
        self.cx.builder.ins().jump(next, &[]);
        self.cx.builder.switch_to_block(next);
        self.cx.builder.seal_block(next);
        Ok(())
    }

    /// Elements from `whole` on, fewer than there are accumulators: by vectors, then one by one.
    fn rest_of_row(
        &mut self,
        index: usize,
        point: &Point,
        memo: &Memo,
        sums: &Accumulators,
        [whole, extent]: [Bound; 2],
    ) -> Result<(), KernelError> {
        let coord = point.coords.len();
        let reductions = self.kernel.stages[index].reductions.len();
        let data =
            StackSlotData::new(StackSlotKind::ExplicitSlot, (reductions * ACCUMULATORS * WORD) as u32, 4);
        let slot = self.cx.builder.create_sized_stack_slot(data);
        let memory = self.cx.builder.ins().stack_addr(self.cx.target.pointer, slot, 0);
        let place = |flight: usize, i: usize| ((i * ACCUMULATORS + flight * LANES) * WORD) as i32;
        for (flight, list) in sums.iter().enumerate() {
            for (i, sum) in list.iter().enumerate() {
                let value = self.cx.builder.use_var(*sum);
                self.cx.builder.ins().store(plain(), value, memory, place(flight, i));
            }
        }
        let first = whole.value(self.cx);
        let vectors = extent.round_down(self.cx, LANES as i64);
        for (from, to, step) in [(whole, vectors, LANES), (vectors, extent, 1)] {
            self.for_range(from, to, step as i64, coord, &mut |e, value| {
                let at = value.value(e.cx);
                let at = e.cx.builder.ins().isub(at, first);
                let word = e.cx.builder.ins().iconst(I64, WORD as i64);
                let bytes = e.cx.builder.ins().imul(at, word);
                let address = e.cx.builder.ins().iadd(memory, bytes);
                let lane = (step > 1).then_some(coord);
                let list = e.accumulators(index, lane.is_some())?;
                for (i, sum) in list.iter().enumerate() {
                    let old = e.cx.builder.use_var(*sum);
                    let ty = e.cx.builder.func.dfg.value_type(old);
                    let old = e.cx.builder.ins().load(ty, plain(), address, place(0, i));
                    e.cx.builder.def_var(*sum, old);
                }
                let point = Point { lane, ..with_coord(point, value) };
                e.body(index, &[point], vec![memo.clone()], std::slice::from_ref(&list))?;
                for (i, sum) in list.iter().enumerate() {
                    let new = e.cx.builder.use_var(*sum);
                    e.cx.builder.ins().store(plain(), new, address, place(0, i));
                }
                Ok(())
            })?;
        }
        for (flight, list) in sums.iter().enumerate() {
            for (i, sum) in list.iter().enumerate() {
                let old = self.cx.builder.use_var(*sum);
                let ty = self.cx.builder.func.dfg.value_type(old);
                let value = self.cx.builder.ins().load(ty, plain(), memory, place(flight, i));
                self.cx.builder.def_var(*sum, value);
            }
        }
        Ok(())
    }
}
