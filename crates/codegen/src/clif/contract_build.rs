//! What the parts of the contraction builder share: the kernel, address arithmetic, loops.

use crate::clif::context::{KernelCx, plain};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I32, I32X4, I64};
use cranelift_codegen::ir::{BlockArg, InstBuilder, StackSlotData, StackSlotKind, Type, Value};
use cranelift_frontend::{FuncInstBuilder, Variable};
use rabot_kernel::{ContractKernel, Operand, Size};
use rabot_tensor::DType;

/// A contraction under construction.
pub(super) struct Contraction<'k, 'c, 'f> {
    /// The function.
    pub cx: &'c mut KernelCx<'f>,
    /// What it computes.
    pub kernel: &'k ContractKernel,
    /// Values that are the same for all items.
    pub common: Common,
}

/// Values that are the same for all items.
#[derive(Clone, Copy)]
pub(super) struct Common {
    /// Rows of A.
    pub m: Value,
    /// Columns of B.
    pub n: Value,
    /// Terms of the sum.
    pub k: Value,
    /// Steps of the micro-kernel: terms, or pairs of them.
    pub steps: Value,
    /// Bytes of one row or column in a panel.
    pub line_bytes: Value,
    /// Bytes of one column in a panel of B.
    pub b_line_bytes: Value,
    /// Start of the packed block of B in scratch memory.
    pub b_block: Value,
    /// Start of the packed block of A in scratch memory.
    pub a_block: Value,
    /// Accumulators of a tile, on the stack.
    pub tile: Value,
}

/// Bytes of an accumulator, and of a term or a pair of terms in a panel.
pub(super) const WORD: i64 = 4;

/// Bytes of a cache line, and of the widest vector.
const CACHE_LINE: usize = 64;

impl<'f> Contraction<'_, '_, 'f> {
    pub fn ins(&mut self) -> FuncInstBuilder<'_, 'f> {
        self.cx.builder.ins()
    }

    /// True if terms come in pairs of i16.
    pub fn pairs(&self) -> bool {
        self.kernel.accumulator != DType::F32
    }

    /// The dtype of B's panels if they are f16 or bf16.
    pub fn narrow_b(&self) -> Option<DType> {
        let Operand::Packed { arg, .. } = &self.kernel.b else { return None };
        let dtype = self.kernel.args.get(*arg).map(|arg| arg.dtype);
        dtype.filter(|dtype| matches!(dtype, DType::F16 | DType::BF16))
    }

    /// Bytes of a term or a pair of terms in a panel of B.
    pub fn b_word(&self) -> i64 {
        if self.narrow_b().is_some() { WORD / 2 } else { WORD }
    }

    /// Lanes of an accumulator.
    pub fn lanes(&self) -> usize {
        if self.cx.target.vectors { 4 } else { 1 }
    }

    /// CLIF type of an accumulator.
    pub fn accumulator_type(&self) -> Type {
        match (self.pairs(), self.cx.target.vectors) {
            (false, true) => F32X4,
            (false, false) => F32,
            (true, true) => I32X4,
            (true, false) => I32,
        }
    }

    pub fn int(&mut self, value: i64) -> Value {
        self.ins().iconst(I64, value)
    }

    pub fn size(&mut self, size: Size) -> Value {
        self.cx.size(size)
    }

    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.ins().iadd(a, b)
    }

    pub fn add_int(&mut self, a: Value, b: i64) -> Value {
        if b == 0 {
            return a;
        }
        let b = self.int(b);
        self.ins().iadd(a, b)
    }

    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.ins().imul(a, b)
    }

    pub fn mul_int(&mut self, a: Value, b: i64) -> Value {
        let b = self.int(b);
        self.ins().imul(a, b)
    }

    /// The smaller of two sizes.
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        let less = self.ins().icmp(IntCC::SignedLessThan, a, b);
        self.ins().select(less, a, b)
    }

    /// `ceil(a / divisor)` for a ≥ 0.
    pub fn ceil_div(&mut self, a: Value, divisor: i64) -> Value {
        let a = self.add_int(a, divisor - 1);
        let divisor = self.int(divisor);
        self.ins().udiv(a, divisor)
    }

    /// `offset + Σ value·stride` in elements.
    pub fn element(&mut self, offset: Option<Size>, terms: &[(Value, Size)]) -> Value {
        let mut sum = self.size(offset.unwrap_or(Size::Const(0)));
        for &(value, stride) in terms {
            let stride = self.size(stride);
            let term = self.mul(value, stride);
            sum = self.add(sum, term);
        }
        sum
    }

    pub fn load(&mut self, ty: Type, address: Value, offset: i64) -> Value {
        self.ins().load(ty, plain(), address, offset as i32)
    }

    pub fn store(&mut self, value: Value, address: Value, offset: i64) {
        self.ins().store(plain(), value, address, offset as i32);
    }

    /// Memory in the frame of the function.
    pub fn stack(&mut self, bytes: usize) -> Value {
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 4);
        let slot = self.cx.builder.create_sized_stack_slot(data);
        let pointer = self.cx.target.pointer;
        self.ins().stack_addr(pointer, slot, 0)
    }

    /// Memory in the frame of the function that begins with a cache line.
    pub fn aligned_stack(&mut self, bytes: usize) -> Value {
        let start = self.stack(bytes + CACHE_LINE - 1);
        let end = self.add_int(start, CACHE_LINE as i64 - 1);
        let mask = self.int(-(CACHE_LINE as i64));
        self.ins().band(end, mask)
    }

    /// A mutable i64.
    pub fn variable(&mut self, value: Value) -> Variable {
        let ty = self.cx.builder.func.dfg.value_type(value);
        let variable = self.cx.builder.declare_var(ty);
        self.cx.builder.def_var(variable, value);
        variable
    }

    pub fn get(&mut self, variable: Variable) -> Value {
        self.cx.builder.use_var(variable)
    }

    pub fn set(&mut self, variable: Variable, value: Value) {
        self.cx.builder.def_var(variable, value);
    }

    /// Adds to a mutable i64.
    pub fn advance(&mut self, variable: Variable, by: Value) {
        let value = self.get(variable);
        let value = self.add(value, by);
        self.set(variable, value);
    }

    /// Runs `body` while `condition`, which is evaluated before each pass, is not 0.
    pub fn repeat_while(&mut self, condition: impl Fn(&mut Self) -> Value, body: impl FnOnce(&mut Self)) {
        let (inside, after) = (self.cx.builder.create_block(), self.cx.builder.create_block());
        let enter = condition(self);
        self.ins().brif(enter, inside, &[], after, &[]);
        self.cx.builder.switch_to_block(inside);
        body(self);
        let again = condition(self);
        self.ins().brif(again, inside, &[], after, &[]);
        self.cx.builder.seal_block(inside);
        self.cx.builder.switch_to_block(after);
        self.cx.builder.seal_block(after);
    }

    /// Runs `body` for `begin`, `begin + step`, … below `end`.
    pub fn for_range(&mut self, begin: Value, end: Value, step: i64, body: impl FnOnce(&mut Self, Value)) {
        let counter = self.variable(begin);
        self.repeat_while(
            |c| {
                let at = c.get(counter);
                c.ins().icmp(IntCC::SignedLessThan, at, end)
            },
            |c| {
                let at = c.get(counter);
                body(c, at);
                let at = c.get(counter);
                let next = c.add_int(at, step);
                c.set(counter, next);
            },
        );
    }

    /// Runs `body` if the condition is not 0.
    pub fn when(&mut self, condition: Value, body: impl FnOnce(&mut Self)) {
        self.if_else(condition, body, |_| {});
    }

    /// Runs one of two bodies.
    pub fn if_else(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self),
        otherwise: impl FnOnce(&mut Self),
    ) {
        let [yes, no, after] = std::array::from_fn(|_| self.cx.builder.create_block());
        self.ins().brif(condition, yes, &[], no, &[]);
        for block in [yes, no] {
            self.cx.builder.seal_block(block);
        }
        self.cx.builder.switch_to_block(yes);
        then(self);
        self.ins().jump(after, &[]);
        self.cx.builder.switch_to_block(no);
        otherwise(self);
        self.ins().jump(after, &[]);
        self.cx.builder.seal_block(after);
        self.cx.builder.switch_to_block(after);
    }
}

/// Values as arguments of a block.
pub(super) fn block_args(values: &[Value]) -> Vec<BlockArg> {
    values.iter().map(|value| BlockArg::Value(*value)).collect()
}
