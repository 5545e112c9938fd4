//! Micro-kernels: a tile of C held in registers over the whole sum.
//!
//! Every element of C is a chain of multiply-adds in the order of k, or the sum of such chains of as many terms, whatever
//! tile it is in, so its bits do not depend on where tiles are cut.

use crate::clif::cast::{f32_from_bf16, f32_from_finite_f16};
use crate::clif::context::constant;
use crate::clif::contract_build::{Contraction, WORD, block_args};
use crate::clif::ops::{Ops, little};
use crate::x64::sum::CHAIN;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I16, I16X8, I32};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use cranelift_frontend::Variable;
use rabot_kernel::Size;
use rabot_tensor::DType;

/// Steps of the sum in one pass of the loop. Cranelift orders a pass by accumulator: with more steps, more rows of B
/// than there are registers would be alive at once.
const UNROLL: i64 = 2;

/// Shape of a micro-kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rows of C.
    pub rows: usize,
    /// Panels of `nr` columns of C.
    pub panels: usize,
}

/// Where a micro-kernel reads A.
pub(super) enum Rows {
    /// A panel: per step the words of `mr` rows.
    Panel(Value),
    /// A pointer per row; the terms of a row are adjacent.
    Pointers(Vec<Value>),
}

/// Position of the loop over k.
#[derive(Clone)]
struct Position {
    accumulators: Vec<Value>,
    a: Value,
    b: Vec<Value>,
}

impl Position {
    fn flat(&self) -> Vec<Value> {
        [self.accumulators.as_slice(), &[self.a], self.b.as_slice()].concat()
    }

    /// The same with other values, in the order of [`Position::flat`].
    fn with(&self, flat: &[Value]) -> Position {
        let (accumulators, rest) = flat.split_at(self.accumulators.len());
        Position { accumulators: accumulators.to_vec(), a: rest[0], b: rest[1..].to_vec() }
    }
}

/// A micro-kernel and its operands.
pub(super) struct Micro {
    /// Its shape.
    pub shape: Shape,
    /// Where it reads A.
    pub rows: Rows,
    /// Where it reads B: the start of each panel.
    pub panels: Vec<Value>,
}

impl Contraction<'_, '_, '_> {
    /// Emits a micro-kernel; it leaves the sums in the tile on the stack, whose rows are `tile_row` bytes apart.
    pub fn micro_kernel(&mut self, micro: &Micro, tile_row: i64) {
        let vectors = self.vectors(micro.shape);
        let ty = self.accumulator_type();
        let zero = self.zero(ty);
        let a = match micro.rows {
            Rows::Panel(start) => start,
            Rows::Pointers(_) => self.int(0),
        };
        let accumulators = vec![zero; micro.shape.rows * vectors];
        let mut position = Position { accumulators, a, b: micro.panels.clone() };
        if self.has_chains() {
            return self.sum_of_chains(micro, &position, tile_row);
        }
        let a_step = self.a_step(micro);
        let (passes, rest) = match self.kernel.k {
            Size::Const(k) => {
                let steps = if self.pairs() { (k + 1) / 2 } else { k };
                (steps / UNROLL, Some(steps % UNROLL))
            }
            Size::Param(_) => (i64::MAX, None),
        };
        if passes > 0 {
            let (steps, mask) = (self.common.steps, self.int(-UNROLL));
            let whole = self.ins().band(steps, mask);
            let bytes = self.mul_int(whole, a_step);
            let end = self.add(a, bytes);
            position = self.sum_loop(micro, position, end, UNROLL);
        }
        match rest {
            Some(rest) => {
                for step in 0..rest {
                    position = self.sum_step(micro, &position, step, false);
                }
            }
            None => {
                let bytes = self.mul_int(self.common.steps, a_step);
                let end = self.add(a, bytes);
                position = self.sum_loop(micro, position, end, 1);
            }
        }
        for (at, value) in position.accumulators.iter().enumerate() {
            let (row, vector) = (at / vectors, at % vectors);
            let offset = row as i64 * tile_row + (vector * self.lanes()) as i64 * WORD;
            self.store(*value, self.common.tile, offset);
        }
    }

    /// True if there may be more terms than those of a chain. Sums of integers are exact.
    pub fn has_chains(&self) -> bool {
        !self.pairs() && !matches!(self.kernel.k, Size::Const(k) if k <= CHAIN)
    }

    /// Chain after chain, each added to the tile.
    fn sum_of_chains(&mut self, micro: &Micro, start: &Position, tile_row: i64) {
        let vectors = self.vectors(micro.shape);
        let (a_step, ty) = (self.a_step(micro), self.accumulator_type());
        let lanes = self.lanes();
        let place = |at: usize| (at / vectors) as i64 * tile_row + ((at % vectors) * lanes) as i64 * WORD;
        for (at, &zero) in start.accumulators.iter().enumerate() {
            self.store(zero, self.common.tile, place(at));
        }
        let left = self.variable(self.common.steps);
        let a = self.variable(start.a);
        let b: Vec<Variable> = start.b.iter().map(|&panel| self.variable(panel)).collect();
        self.repeat_while(
            |c| {
                let left = c.get(left);
                c.ins().icmp_imm_s(IntCC::SignedGreaterThan, left, 0)
            },
            |c| {
                let (most, some) = (c.int(CHAIN), c.get(left));
                let steps = c.min(some, most);
                let panels = b.iter().map(|&panel| c.get(panel)).collect();
                let position = Position { a: c.get(a), b: panels, ..start.clone() };
                let mask = c.int(-UNROLL);
                let whole = c.ins().band(steps, mask);
                let [whole, all] = [whole, steps].map(|steps| {
                    let bytes = c.mul_int(steps, a_step);
                    c.add(position.a, bytes)
                });
                let position = c.sum_loop(micro, position, whole, UNROLL);
                let position = c.sum_loop(micro, position, all, 1);
                for (at, &value) in position.accumulators.iter().enumerate() {
                    let before = c.load(ty, c.common.tile, place(at));
                    let sum = c.ins().fadd(before, value);
                    c.store(sum, c.common.tile, place(at));
                }
                c.set(a, position.a);
                for (&variable, &panel) in b.iter().zip(&position.b) {
                    c.set(variable, panel);
                }
                let rest = c.add_int(some, -CHAIN);
                c.set(left, rest);
            },
        );
    }

    /// A loop of `unroll` steps a pass until the position in A is `end`.
    fn sum_loop(&mut self, micro: &Micro, start: Position, end: Value, unroll: i64) -> Position {
        let flat = start.flat();
        // The test comes first: then each sum has one use, without which factors are not loaded as operands.
        let [header, body, after] = std::array::from_fn(|_| self.cx.builder.create_block());
        for &value in &flat {
            let ty = self.cx.builder.func.dfg.value_type(value);
            self.cx.builder.append_block_param(header, ty);
        }
        self.ins().jump(header, &block_args(&flat));
        self.cx.builder.switch_to_block(header);
        let at = start.with(self.cx.builder.block_params(header));
        let more = self.ins().icmp(IntCC::UnsignedLessThan, at.a, end);
        self.ins().brif(more, body, &[], after, &[]);
        self.cx.builder.seal_block(body);
        self.cx.builder.switch_to_block(body);
        let mut next = at.clone();
        for step in 0..unroll {
            next = self.sum_step(micro, &next, step, step + 1 == unroll);
        }
        self.ins().jump(header, &block_args(&next.flat()));
        self.cx.builder.seal_block(header);
        self.cx.builder.seal_block(after);
        self.cx.builder.switch_to_block(after);
        at
    }

    /// One step of the sum, `step` steps after the position. The last one of a pass moves the position.
    fn sum_step(&mut self, micro: &Micro, at: &Position, step: i64, last: bool) -> Position {
        let b = self.row_of_b(micro, at, step);
        let mut sums = at.accumulators.iter();
        let mut accumulators = Vec::with_capacity(at.accumulators.len());
        for row in 0..micro.shape.rows {
            let a = match &micro.rows {
                Rows::Panel(_) => {
                    let offset = (step * self.kernel.tile.mr as i64 + row as i64) * WORD;
                    self.broadcast(at.a, offset)
                }
                Rows::Pointers(pointers) => {
                    let address = self.add(pointers[row], at.a);
                    self.broadcast(address, step * WORD)
                }
            };
            for (&b, &sum) in b.iter().zip(sums.by_ref()) {
                accumulators.push(self.multiply_add(a, b, sum));
            }
        }
        let mut next = Position { accumulators, ..at.clone() };
        if last {
            let bytes = (step + 1) * self.a_step(micro);
            next.a = self.add_int(at.a, bytes);
            let bytes = (step + 1) * self.kernel.tile.nr as i64 * self.b_word();
            next.b = at.b.iter().map(|&base| self.add_int(base, bytes)).collect();
        }
        next
    }

    /// The vectors of B in one step. Loads of operands may move and merge: while tiles are computed nothing writes
    /// to them, and their addresses come from the loops over tiles, which begin after scratch memory was packed.
    fn row_of_b(&mut self, micro: &Micro, at: &Position, step: i64) -> Vec<Value> {
        let lanes = self.lanes();
        let per_panel = self.kernel.tile.nr / lanes;
        let row = step * self.kernel.tile.nr as i64 * self.b_word();
        (0..self.vectors(micro.shape))
            .map(|vector| {
                let column = ((vector % per_panel) * lanes) as i64 * self.b_word();
                let (panel, offset) = (at.b[vector / per_panel], row + column);
                if let Some(dtype) = self.narrow_b() {
                    return self.load_narrow(dtype, panel, offset);
                }
                let ty = self.operand_type();
                self.ins().load(ty, constant(), panel, offset as i32)
            })
            .collect()
    }

    /// Elements of 16 bits as f32: a vector, or one where there are none. Of f16, finite ones.
    fn load_narrow(&mut self, dtype: DType, panel: Value, offset: i64) -> Value {
        let (flags, offset) = (constant(), offset as i32);
        let bits = match (dtype == DType::F16, self.cx.target.vectors) {
            (true, true) => self.ins().sload16x4(flags, panel, offset),
            (false, true) => self.ins().uload16x4(flags, panel, offset),
            (true, false) => self.ins().sload16(I32, flags, panel, offset),
            (false, false) => self.ins().uload16(I32, flags, panel, offset),
        };
        let wide = self.cx.target.vectors;
        let ops = &mut Ops { cx: self.cx, wide };
        if dtype == DType::F16 { f32_from_finite_f16(ops, bits) } else { f32_from_bf16(ops, bits) }
    }

    /// Vectors of a row of the tile.
    fn vectors(&self, shape: Shape) -> usize {
        shape.panels * self.kernel.tile.nr / self.lanes()
    }

    /// Bytes from one step to the next in A.
    fn a_step(&self, micro: &Micro) -> i64 {
        match micro.rows {
            Rows::Panel(_) => self.kernel.tile.mr as i64 * WORD,
            Rows::Pointers(_) => WORD,
        }
    }

    /// What is multiplied: f32, or pairs of i16 (in one word where there are no vectors).
    fn operand_type(&self) -> Type {
        match (self.pairs(), self.cx.target.vectors) {
            (true, true) => I16X8,
            (true, false) => I32,
            (false, _) => self.accumulator_type(),
        }
    }

    fn zero(&mut self, ty: Type) -> Value {
        let lane = match self.pairs() {
            true => self.ins().iconst(I32, 0),
            false => self.ins().f32const(0.0),
        };
        if ty.is_vector() { self.ins().splat(ty, lane) } else { lane }
    }

    /// The word at an address, in every lane.
    fn broadcast(&mut self, address: Value, offset: i64) -> Value {
        let flags = constant();
        match (self.pairs(), self.cx.target.vectors) {
            (false, false) => self.ins().load(F32, flags, address, offset as i32),
            (true, false) => self.ins().load(I32, flags, address, offset as i32),
            (pairs, true) => {
                // Pairs of i16, too, come in as a float: that needs no integer register on the way.
                let value = self.ins().load(F32, flags, address, offset as i32);
                let value = self.ins().splat(F32X4, value);
                if pairs { self.ins().bitcast(I16X8, little(), value) } else { value }
            }
        }
    }

    /// `sum + a·b`. In f32 one rounding where the machine has the instruction, else two; in integers two terms,
    /// exact: products of 9-bit values, and their sums wrap as i32 does.
    fn multiply_add(&mut self, a: Value, b: Value, sum: Value) -> Value {
        match (self.pairs(), self.cx.target.vectors) {
            (false, _) if self.cx.target.fma => self.ins().fma(a, b, sum),
            (false, _) => {
                let product = self.ins().fmul(a, b);
                self.ins().fadd(sum, product)
            }
            (true, true) => {
                // The shape that x86 back ends know as PMADDWD.
                let [a_low, b_low] = [a, b].map(|v| self.ins().swiden_low(v));
                let low = self.ins().imul(a_low, b_low);
                let [a_high, b_high] = [a, b].map(|v| self.ins().swiden_high(v));
                let high = self.ins().imul(a_high, b_high);
                let products = self.ins().iadd_pairwise(low, high);
                self.ins().iadd(sum, products)
            }
            (true, false) => {
                let [a_low, b_low] = [a, b].map(|v| {
                    let low = self.ins().ireduce(I16, v);
                    self.ins().sextend(I32, low)
                });
                let sixteen = self.ins().iconst(I32, 16);
                let [a_high, b_high] = [a, b].map(|v| self.ins().sshr(v, sixteen));
                let low = self.ins().imul(a_low, b_low);
                let high = self.ins().imul(a_high, b_high);
                let products = self.ins().iadd(low, high);
                self.ins().iadd(sum, products)
            }
        }
    }
}
