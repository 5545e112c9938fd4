//! Kernels of several parts: loops that call the functions of the parts.

use crate::clif::context::{KernelCx, plain};
use crate::clif::expr::STATUS_CODE_BITS;
use crate::error::KernelError;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{
    ExtFuncData, ExternalName, FuncRef, Function, InstBuilder, StackSlotData, StackSlotKind,
    UserExternalName, Value,
};
use cranelift_frontend::FunctionBuilder;
use rabot_kernel::{Arrangement, CompositeKernel, KernelDesc, Part, RowSteps, Size};
use std::collections::HashMap;

/// Namespace of kernels among external names; the index is that in [`rabot_kernel::Plan::kernels`].
pub const NAMESPACE: u32 = 2;

/// Emits the body of a kernel of several parts; `kernels` are those of the plan.
///
/// **Errors**: an argument or parameter that no offset reaches.
pub fn emit(cx: &mut KernelCx, kernel: &CompositeKernel, kernels: &[KernelDesc]) -> Result<(), KernelError> {
    let mut leaves = 0;
    let mut tags = Vec::with_capacity(kernel.parts.len());
    for part in &kernel.parts {
        let nested = matches!(kernels.get(part.kernel), Some(KernelDesc::Composite(_)));
        // A nested kernel counts its own parts from 1.
        tags.push((if nested { leaves } else { leaves + 1 }) << STATUS_CODE_BITS);
        leaves += leaf_count(kernels, part.kernel);
    }
    let mut emitter = Emitter { cx, functions: HashMap::new(), tags };
    match (kernel.arrangement, &kernel.rows) {
        (Arrangement::Chain, Some(rows)) => emitter.in_row_blocks(kernel, rows, kernels),
        (Arrangement::Chain, None) => emitter.chain(kernel),
        (Arrangement::Side, _) => emitter.side(kernel),
    }
}

/// Parts of a kernel, those of its parts one by one.
fn leaf_count(kernels: &[KernelDesc], kernel: usize) -> i64 {
    match kernels.get(kernel) {
        Some(KernelDesc::Composite(kernel)) => {
            kernel.parts.iter().map(|part| leaf_count(kernels, part.kernel)).sum()
        }
        _ => 1,
    }
}

fn smaller(builder: &mut FunctionBuilder, a: Value, b: Value) -> Value {
    let is_less = builder.ins().icmp(IntCC::SignedLessThan, a, b);
    builder.ins().select(is_less, a, b)
}

/// The first of the things of a block of a matrix: `per` are those of a block, `all` those of a matrix.
fn place(builder: &mut FunctionBuilder, [matrix, block]: [Value; 2], [per, all]: [Value; 2]) -> Value {
    let first = builder.ins().imul(matrix, all);
    let own = builder.ins().imul(block, per);
    let own = smaller(builder, own, all);
    builder.ins().iadd(first, own)
}

/// Bytes before an element of a list.
fn offset(index: usize, bytes: usize) -> Result<i64, KernelError> {
    let offset = index.checked_mul(bytes).and_then(|bytes| i32::try_from(bytes).ok()).map(i64::from);
    offset.ok_or(KernelError::Index { what: "part", index, count: i32::MAX as usize / bytes })
}

struct Emitter<'a, 'f> {
    cx: &'a mut KernelCx<'f>,
    functions: HashMap<usize, FuncRef>,
    /// What each part's failure adds to the status word.
    tags: Vec<i64>,
}

impl Emitter<'_, '_> {
    /// Item after item, or several at a time: each part in turn.
    fn chain(&mut self, kernel: &CompositeKernel) -> Result<(), KernelError> {
        let counts: Vec<[Value; 2]> = kernel.parts.iter().map(|part| self.counts(part)).collect();
        let block = self.cx.size(kernel.block);
        self.for_items(block, |e, bounds| {
            let scratch = e.cx.scratch;
            let args = e.cx.arg_list();
            counts.iter().enumerate().try_for_each(|(index, &[count, per])| {
                let own = bounds.map(|item| {
                    let item = e.cx.builder.ins().imul(item, per);
                    smaller(&mut e.cx.builder, item, count)
                });
                e.part(kernel, index, own, args, scratch)
            })
        })
    }

    /// Loops over the items, `block` at a time: the first one, and the end.
    fn for_items(
        &mut self,
        block: Value,
        body: impl FnOnce(&mut Self, [Value; 2]) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let (begin, end) = (self.cx.begin, self.cx.end);
        let builder = &mut self.cx.builder;
        let item = builder.declare_var(I64);
        builder.def_var(item, begin);
        let [head, inside, exit] = std::array::from_fn(|_| builder.create_block());
        builder.ins().jump(head, &[]);
        builder.switch_to_block(head);
        let at = builder.use_var(item);
        let more = builder.ins().icmp(IntCC::SignedLessThan, at, end);
        builder.ins().brif(more, inside, &[], exit, &[]);
        builder.switch_to_block(inside);
        builder.seal_block(inside);
        let next = builder.ins().iadd(at, block);
        let next = smaller(builder, next, end);
        body(self, [at, next])?;
        let builder = &mut self.cx.builder;
        builder.def_var(item, next);
        builder.ins().jump(head, &[]);
        builder.seal_block(head);
        builder.switch_to_block(exit);
        builder.seal_block(exit);
        Ok(())
    }

    /// Block of rows after block of rows: each part in turn, on what is handed on in scratch memory.
    fn in_row_blocks(
        &mut self,
        kernel: &CompositeKernel,
        rows: &RowSteps,
        kernels: &[KernelDesc],
    ) -> Result<(), KernelError> {
        let args = self.own_args(kernel)?;
        let scratch: Vec<Value> = rows.scratch.iter().map(|&start| self.in_scratch(start)).collect();
        for (part, &scratch) in kernel.parts.iter().zip(&scratch) {
            if matches!(kernels.get(part.kernel), Some(KernelDesc::Contract(kernel)) if kernel.keeps_b) {
                self.keep_nothing(scratch);
            }
        }
        let [steps, height, block] = [rows.steps, rows.rows, rows.block].map(|size| self.cx.size(size));
        let counts: Vec<[Value; 2]> = kernel.parts.iter().map(|part| self.counts(part)).collect();
        let items: Vec<Value> = rows.items.iter().map(|&size| self.cx.size(size)).collect();
        let one = self.cx.builder.ins().iconst(I64, 1);
        self.for_items(one, |e, [step, _]| {
            let builder = &mut e.cx.builder;
            let matrix = builder.ins().udiv(step, steps);
            let before = builder.ins().imul(matrix, steps);
            let number = builder.ins().isub(step, before);
            let row = place(builder, [matrix, number], [block, height]);
            e.hand_on(rows, args, row)?;
            let next = e.cx.builder.ins().iadd(number, one);
            for (index, (&[count, per], &items)) in counts.iter().zip(&items).enumerate() {
                let own = [number, next].map(|number| {
                    let item = place(&mut e.cx.builder, [matrix, number], [per, items]);
                    smaller(&mut e.cx.builder, item, count)
                });
                e.part(kernel, index, own, args, scratch[index])?;
            }
            Ok(())
        })
    }

    /// A copy of the list of arguments, on the stack.
    fn own_args(&mut self, kernel: &CompositeKernel) -> Result<Value, KernelError> {
        let pointer = self.cx.target.pointer;
        let list = self.cx.arg_list();
        let builder = &mut self.cx.builder;
        let bytes = offset(kernel.args.len(), pointer.bytes() as usize)?;
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 3);
        let slot = builder.create_sized_stack_slot(data);
        let own = builder.ins().stack_addr(pointer, slot, 0);
        for index in 0..kernel.args.len() {
            let at = offset(index, pointer.bytes() as usize)? as i32;
            let address = builder.ins().load(pointer, plain(), list, at);
            builder.ins().store(plain(), address, own, at);
        }
        Ok(own)
    }

    fn in_scratch(&mut self, start: Size) -> Value {
        let (scratch, start) = (self.cx.scratch, self.cx.size(start));
        self.cx.builder.ins().iadd(scratch, start)
    }

    /// Says in a part's scratch memory that it keeps nothing yet.
    fn keep_nothing(&mut self, scratch: Value) {
        let builder = &mut self.cx.builder;
        for (at, word) in [-1, -1, 0, i64::from(1f32.to_bits())].into_iter().enumerate() {
            let word = builder.ins().iconst(I64, word);
            builder.ins().store(plain(), word, scratch, 8 * at as i32);
        }
    }

    /// Lets the arguments that are handed on be the block of rows from `row` on: so far before it that parts find it where
    /// it would be in the whole.
    fn hand_on(&mut self, rows: &RowSteps, args: Value, row: Value) -> Result<(), KernelError> {
        let bytes = self.cx.target.pointer.bytes() as usize;
        for handed_on in &rows.handed_on {
            let (start, row_bytes) = (self.in_scratch(handed_on.start), self.cx.size(handed_on.row_bytes));
            let builder = &mut self.cx.builder;
            let before = builder.ins().imul(row, row_bytes);
            let address = builder.ins().isub(start, before);
            builder.ins().store(plain(), address, args, offset(handed_on.arg, bytes)? as i32);
        }
        Ok(())
    }

    /// The items of each part that are among those to be done.
    fn side(&mut self, kernel: &CompositeKernel) -> Result<(), KernelError> {
        let (begin, end) = (self.cx.begin, self.cx.end);
        let mut start = self.cx.builder.ins().iconst(I64, 0);
        for (index, part) in kernel.parts.iter().enumerate() {
            let [count, per] = self.counts(part);
            let ins = &mut self.cx.builder;
            let rounded = ins.ins().iadd(count, per);
            let one = ins.ins().iconst(I64, 1);
            let rounded = ins.ins().isub(rounded, one);
            let items = ins.ins().udiv(rounded, per);
            let zero = ins.ins().iconst(I64, 0);
            let mut inside = |bound: Value| {
                let own = ins.ins().isub(bound, start);
                let is_before = ins.ins().icmp(IntCC::SignedLessThan, own, zero);
                let own = ins.ins().select(is_before, zero, own);
                smaller(ins, own, items)
            };
            let own = [inside(begin), inside(end)].map(|item| {
                let item = ins.ins().imul(item, per);
                smaller(ins, item, count)
            });
            start = self.cx.builder.ins().iadd(start, items);
            let (args, scratch) = (self.cx.arg_list(), self.cx.scratch);
            self.part(kernel, index, own, args, scratch)?;
        }
        Ok(())
    }

    /// A part's number of items, and how many of them are one of the whole.
    fn counts(&mut self, part: &Part) -> [Value; 2] {
        [self.cx.size(part.count), self.cx.size(part.per)]
    }

    /// Calls a part for its items `first..last`, if there are any. `args` is the list of arguments of all parts.
    fn part(
        &mut self,
        kernel: &CompositeKernel,
        index: usize,
        [first, last]: [Value; 2],
        args: Value,
        scratch: Value,
    ) -> Result<(), KernelError> {
        let (part, tag) = (&kernel.parts[index], self.tags[index]);
        let pointer_bytes = self.cx.target.pointer.bytes() as usize;
        let (own_args, params) = (offset(part.args, pointer_bytes)?, offset(part.params, 8)?);
        let function = self.function(part.kernel);
        let (status, param_list) = (self.cx.status, self.cx.params);
        let builder = &mut self.cx.builder;
        let [call, next] = std::array::from_fn(|_| builder.create_block());
        let any = builder.ins().icmp(IntCC::SignedLessThan, first, last);
        builder.ins().brif(any, call, &[], next, &[]);
        builder.switch_to_block(call);
        builder.seal_block(call);
        let own_args = builder.ins().iconst(I64, own_args);
        let args = builder.ins().iadd(args, own_args);
        let params = builder.ins().iconst(I64, params);
        let params = builder.ins().iadd(param_list, params);
        let before = builder.ins().load(I64, plain(), status, 0);
        builder.ins().call(function, &[args, params, first, last, scratch, status]);
        // The first failure stays, with the part that it is of.
        let after = builder.ins().load(I64, plain(), status, 0);
        let tagged = builder.ins().iadd_imm_s(after, tag);
        let own = builder.ins().select(after, tagged, after);
        let kept = builder.ins().select(before, before, own);
        builder.ins().store(plain(), kept, status, 0);
        builder.ins().jump(next, &[]);
        builder.switch_to_block(next);
        builder.seal_block(next);
        Ok(())
    }

    fn function(&mut self, kernel: usize) -> FuncRef {
        if let Some(&function) = self.functions.get(&kernel) {
            return function;
        }
        let signature = crate::clif::context::kernel_signature(&self.cx.target);
        let builder = &mut self.cx.builder;
        let signature = builder.import_signature(signature);
        let caller: &mut Function = builder.func;
        let name = UserExternalName { namespace: NAMESPACE, index: kernel as u32 };
        let name = ExternalName::user(caller.declare_imported_user_function(name));
        let data = ExtFuncData { name, signature, colocated: false, patchable: false };
        let function = builder.import_function(data);
        self.functions.insert(kernel, function);
        function
    }
}
