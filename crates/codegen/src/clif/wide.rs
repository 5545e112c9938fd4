//! Loop kernels on machines with vectors of 512 bits: a leaf does their rows.
//!
//! What does not change from call to call is written into the leaf's argument once, before the loops.

use crate::clif::access::ByteStride;
use crate::clif::context::plain;
use crate::clif::expr::{Memo, Point, eval, to_lane, value_of};
use crate::clif::loops::LoopEmitter;
use crate::error::KernelError;
use crate::x64::nest::{Call, Pointer};
use crate::x64::{Leaf, Loop};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, StackSlotData, StackSlotKind, Value};
use cranelift_frontend::Variable;
use rabot_kernel::{LoopKernel, Size, Vectorize};
use rabot_tensor::DType;
use std::rc::Rc;

/// The leaf of a kernel.
#[derive(Clone)]
pub(crate) struct Wide {
    leaf: Rc<Loop>,
    call: Rc<Call>,
    /// Its argument.
    words: Value,
}

impl Wide {
    /// How many coordinates there are before the row.
    pub(crate) fn depth(&self) -> usize {
        self.call.row.unwrap_or(0)
    }

    /// True if rows are items.
    pub(crate) fn does_items(&self, kernel: &LoopKernel) -> bool {
        self.call.row.is_some_and(|row| row < kernel.items)
    }
}

impl LoopEmitter<'_, '_> {
    /// The leaf that does the rows of the kernel, if one can.
    pub(crate) fn find_wide(&mut self) -> Result<Option<Wide>, KernelError> {
        let kernel = self.kernel;
        // Stages that are not done by vectors add up in another order.
        let in_order = |index: usize| kernel.stages[index].inner.is_empty() || self.is_by_inner(index);
        let possible = match kernel.vectorize {
            Vectorize::Inner => (0..kernel.stages.len()).all(in_order),
            Vectorize::Outer => true,
            Vectorize::No => false,
        };
        if !self.cx.target.wide || !possible {
            return Ok(None);
        }
        let Some((leaf, call)) = Loop::new(kernel) else { return Ok(None) };
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, call.bytes() as u32, 3);
        let slot = self.cx.builder.create_sized_stack_slot(data);
        let words = self.cx.builder.ins().stack_addr(self.cx.target.pointer, slot, 0);
        let wide = Wide { leaf: Rc::new(leaf), call: Rc::new(call), words };
        self.write_fixed(&wide)?;
        Ok(Some(wide))
    }

    fn put(&mut self, wide: &Wide, at: i64, value: Value) {
        self.cx.builder.ins().store(plain(), value, wide.words, at as i32);
    }

    /// What is the same for all calls: sizes, distances of rows, values that depend on parameters only.
    fn write_fixed(&mut self, wide: &Wide) -> Result<(), KernelError> {
        let call = &wide.call;
        for (index, size) in call.columns.iter().enumerate() {
            let count = self.cx.size(*size);
            self.put(wide, call.columns_at(index), count);
        }
        for (index, pointer) in call.pointers.iter().enumerate() {
            for (at, along) in [(8, call.row), (16, call.inner)] {
                if let Some(step) = pointer.step(along) {
                    let bytes = ByteStride::new(step, self.cx.arg(pointer.arg)?.dtype).value(self.cx);
                    self.put(wide, call.pointer_at(index) + at, bytes);
                }
            }
        }
        for (index, &(stage, id)) in call.values.iter().enumerate() {
            let dag = &self.kernel.stages[stage].dag;
            let mut memo = Memo::new(dag);
            eval(self.cx, dag, &Point::default(), &mut memo, &[id])?;
            let value = to_lane(self.cx, DType::F32, value_of(&memo, id)?, 0);
            self.put(wide, call.value_at(index), value);
        }
        Ok(())
    }

    /// All rows at a point before them.
    pub(crate) fn all_rows(&mut self, wide: &Wide, point: &Point) -> Result<(), KernelError> {
        let mut coords = Vec::with_capacity(point.coords.len() + 1);
        for coord in &point.coords {
            coords.push(coord.value(self.cx));
        }
        let rows = match wide.call.row.and_then(|row| self.kernel.outer.get(row)) {
            Some(&extent) => {
                coords.push(self.cx.builder.ins().iconst(I64, 0));
                self.cx.size(extent)
            }
            None => self.cx.builder.ins().iconst(I64, 1),
        };
        self.call_rows(wide, &coords, rows)
    }

    /// The items, as many rows at a time as lie behind each other.
    pub(crate) fn wide_items(&mut self, wide: &Wide) -> Result<(), KernelError> {
        let kernel = self.kernel;
        let (begin, end) = (self.cx.begin, self.cx.end);
        let [start, head, body, exit] = std::array::from_fn(|_| self.cx.builder.create_block());
        let any = self.cx.builder.ins().icmp(IntCC::SignedLessThan, begin, end);
        self.cx.builder.ins().brif(any, start, &[], exit, &[]);
        self.enter(start);
        let extents: Vec<Value> =
            kernel.outer[..kernel.items].iter().map(|&size| self.cx.size(size)).collect();
        let digits: Vec<Variable> = extents.iter().map(|_| self.cx.builder.declare_var(I64)).collect();
        self.decode(begin, &extents, &digits);
        let item = self.cx.builder.declare_var(I64);
        self.cx.builder.def_var(item, begin);
        self.cx.builder.ins().jump(head, &[]);
        self.cx.builder.switch_to_block(head);
        let at = self.cx.builder.use_var(item);
        let more = self.cx.builder.ins().icmp(IntCC::SignedLessThan, at, end);
        self.cx.builder.ins().brif(more, body, &[], exit, &[]);
        self.enter(body);
        let coords: Vec<Value> = digits.iter().map(|digit| self.cx.builder.use_var(*digit)).collect();
        let builder = &mut self.cx.builder;
        let mut rows = builder.ins().isub(end, at);
        if let (Some(&row), Some(&extent), true) = (coords.last(), extents.last(), extents.len() > 1) {
            let left = builder.ins().isub(extent, row);
            let fits = builder.ins().icmp(IntCC::SignedLessThan, rows, left);
            rows = builder.ins().select(fits, rows, left);
        }
        self.call_rows(wide, &coords, rows)?;
        let next = self.cx.builder.ins().iadd(at, rows);
        self.cx.builder.def_var(item, next);
        self.advance(&extents, &digits, rows);
        self.cx.builder.ins().jump(head, &[]);
        self.cx.builder.seal_block(head);
        self.enter(exit);
        Ok(())
    }

    /// Calls the leaf for so many rows; the coordinates are those of the first.
    fn call_rows(&mut self, wide: &Wide, coords: &[Value], rows: Value) -> Result<(), KernelError> {
        self.put(wide, 0, rows);
        for (index, pointer) in wide.call.pointers.iter().enumerate() {
            let start = self.start(pointer, coords)?;
            self.put(wide, wide.call.pointer_at(index), start);
        }
        self.cx.call_leaf(Leaf::Loop((*wide.leaf).clone()), wide.words);
        Ok(())
    }

    /// The address of a pointer in the first row.
    fn start(&mut self, pointer: &Pointer, coords: &[Value]) -> Result<Value, KernelError> {
        let arg = self.cx.arg(pointer.arg)?;
        let mut address = arg.pointer;
        let offset = pointer.offset.map(|param| (1, Size::Param(param)));
        let shift = pointer.shift.iter().map(|&(param, times)| (times, Size::Param(param)));
        for (times, size) in offset.into_iter().chain(shift) {
            let times = self.cx.builder.ins().iconst(I64, times);
            let bytes = ByteStride::new(size, arg.dtype).times(self.cx, times);
            address = self.cx.builder.ins().iadd(address, bytes);
        }
        let outer = pointer.strides.iter().filter(|(coord, _)| *coord < self.kernel.outer.len());
        for &(coord, stride) in outer {
            let (index, count) = (coord, coords.len());
            let value = *coords.get(coord).ok_or(KernelError::Index { what: "coordinate", index, count })?;
            let bytes = ByteStride::new(stride, arg.dtype).times(self.cx, value);
            address = self.cx.builder.ins().iadd(address, bytes);
        }
        Ok(address)
    }
}
