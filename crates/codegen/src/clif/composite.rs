//! Kernels of several parts: loops that call the functions of the parts.

use crate::clif::context::{KernelCx, plain};
use crate::clif::expr::STATUS_CODE_BITS;
use crate::error::KernelError;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{
    ExtFuncData, ExternalName, FuncRef, Function, InstBuilder, UserExternalName, Value,
};
use cranelift_frontend::FunctionBuilder;
use rabot_kernel::{Arrangement, CompositeKernel, KernelDesc, Part};
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
    match kernel.arrangement {
        Arrangement::Chain => emitter.chain(kernel),
        Arrangement::Side => emitter.side(kernel),
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
        let (begin, end) = (self.cx.begin, self.cx.end);
        let builder = &mut self.cx.builder;
        let item = builder.declare_var(I64);
        builder.def_var(item, begin);
        let [head, body, exit] = std::array::from_fn(|_| builder.create_block());
        builder.ins().jump(head, &[]);
        builder.switch_to_block(head);
        let at = builder.use_var(item);
        let more = builder.ins().icmp(IntCC::SignedLessThan, at, end);
        builder.ins().brif(more, body, &[], exit, &[]);
        builder.switch_to_block(body);
        builder.seal_block(body);
        let next = builder.ins().iadd(at, block);
        let next = smaller(builder, next, end);
        for (index, counts) in counts.into_iter().enumerate() {
            self.part(kernel, index, counts, [at, next])?;
        }
        let builder = &mut self.cx.builder;
        builder.def_var(item, next);
        builder.ins().jump(head, &[]);
        builder.seal_block(head);
        builder.switch_to_block(exit);
        builder.seal_block(exit);
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
            let (first, last) = (inside(begin), inside(end));
            start = self.cx.builder.ins().iadd(start, items);
            self.part(kernel, index, [count, per], [first, last])?;
        }
        Ok(())
    }

    /// A part's number of items, and how many of them are one of the whole.
    fn counts(&mut self, part: &Part) -> [Value; 2] {
        [self.cx.size(part.count), self.cx.size(part.per)]
    }

    /// Calls a part for items `first..last` of the whole, if it has any there.
    fn part(
        &mut self,
        kernel: &CompositeKernel,
        index: usize,
        [count, per]: [Value; 2],
        [first, last]: [Value; 2],
    ) -> Result<(), KernelError> {
        let (part, tag) = (&kernel.parts[index], self.tags[index]);
        let pointer_bytes = self.cx.target.pointer.bytes() as usize;
        let offset = |index: usize, bytes: usize| {
            let offset = index.checked_mul(bytes).and_then(|bytes| i64::try_from(bytes).ok());
            offset.ok_or(KernelError::Index { what: "part", index, count: usize::MAX / bytes })
        };
        let (args, params) = (offset(part.args, pointer_bytes)?, offset(part.params, 8)?);
        let function = self.function(part.kernel);
        let (scratch, status) = (self.cx.scratch, self.cx.status);
        let (arg_list, param_list) = (self.cx.arg_list(), self.cx.params);
        let builder = &mut self.cx.builder;
        let mut own = |item: Value| {
            let item = builder.ins().imul(item, per);
            smaller(builder, item, count)
        };
        let (first, last) = (own(first), own(last));
        let [call, next] = std::array::from_fn(|_| builder.create_block());
        let any = builder.ins().icmp(IntCC::SignedLessThan, first, last);
        builder.ins().brif(any, call, &[], next, &[]);
        builder.switch_to_block(call);
        builder.seal_block(call);
        let args = builder.ins().iconst(I64, args);
        let args = builder.ins().iadd(arg_list, args);
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
