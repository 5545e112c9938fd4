//! Straight-line code on vectors of 16 lanes: first as a list of operations on values, then in registers.
//!
//! Values are f32 or 32-bit integers in vector registers, and bools in mask registers. Each value is made once; its
//! register is free again after its last use.

use super::asm::{Asm, AsmError, Mem, zmm};
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use iced_x86::{Code, Instruction, Register};
use std::collections::HashMap;

/// Number of a value.
pub(crate) type V = usize;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Float,
    Int,
    Mask,
}

impl Kind {
    fn register(self, number: usize) -> Register {
        match self {
            Kind::Float | Kind::Int => zmm(number),
            Kind::Mask => Register::K0 + number as u32,
        }
    }
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// A constant of 32 bits in all lanes.
    Const(u32),
    /// 16 words of a stream.
    Load(usize),
    /// One word of a stream, in all lanes.
    Uniform(usize),
    /// `code a, b`.
    Two(Code, V, V),
    /// `code a`.
    One(Code, V),
    /// `code a, number`.
    Number(Code, V, i32),
    /// `code a, b, number`: comparisons.
    Compare(Code, V, V, i32),
    /// `a·b + c`, or `c - a·b`.
    MulAdd { negate: bool, a: V, b: V, c: V },
    /// `mask ? a : b`.
    Select(V, V, V),
    /// `mask ? a : 0`.
    OrZero(V, V),
}

/// A list of operations.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    ops: Vec<(Op, Kind)>,
    constants: HashMap<u32, [Option<V>; 2]>,
    /// What has no code.
    unsupported: bool,
}

impl Lanes {
    fn push(&mut self, op: Op, kind: Kind) -> V {
        self.ops.push((op, kind));
        self.ops.len() - 1
    }

    fn kind(&self, value: V) -> Kind {
        self.ops.get(value).map_or(Kind::Float, |(_, kind)| *kind)
    }

    fn arithmetic(&mut self, float: Code, int: Code, a: V, b: V) -> V {
        match self.kind(a) {
            Kind::Float => self.push(Op::Two(float, a, b), Kind::Float),
            Kind::Int => self.push(Op::Two(int, a, b), Kind::Int),
            Kind::Mask => self.refuse(Kind::Int),
        }
    }

    fn logic(&mut self, vector: Code, mask: Code, a: V, b: V) -> V {
        let kind = self.kind(a);
        self.push(Op::Two(if kind == Kind::Mask { mask } else { vector }, a, b), kind)
    }

    fn refuse(&mut self, kind: Kind) -> V {
        self.unsupported = true;
        self.push(Op::Const(0), kind)
    }

    fn constant(&mut self, bits: u32, kind: Kind) -> V {
        let slot = usize::from(kind == Kind::Int);
        if let Some(known) = self.constants.get(&bits).and_then(|known| known[slot]) {
            return known;
        }
        let value = self.push(Op::Const(bits), kind);
        self.constants.entry(bits).or_default()[slot] = Some(value);
        value
    }

    /// 16 words of a stream.
    pub fn load(&mut self, stream: usize) -> V {
        self.push(Op::Load(stream), Kind::Float)
    }

    /// One word of a stream, in all lanes.
    pub fn uniform(&mut self, stream: usize) -> V {
        self.push(Op::Uniform(stream), Kind::Float)
    }

    /// Negation of a float.
    pub fn neg(&mut self, a: V) -> V {
        let sign = self.i32(i32::MIN);
        self.push(Op::Two(Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32, a, sign), Kind::Float)
    }

    /// To an integer: 0 nearest, 1 down, 2 up.
    pub fn round(&mut self, a: V, way: i32) -> V {
        // Bit 3: no exception for what is not exact.
        let code = Code::EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae;
        self.push(Op::Number(code, a, way | 8), Kind::Float)
    }

    /// The smaller float of `a` and `b`; `b` if either is NaN.
    pub fn min_or_second(&mut self, a: V, b: V) -> V {
        self.push(Op::Two(Code::EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae, a, b), Kind::Float)
    }

    /// The smaller or larger float; NaN if either is.
    pub fn extreme(&mut self, larger: bool, a: V, b: V) -> V {
        let found = if larger { self.max_or_second(a, b) } else { self.min_or_second(a, b) };
        let nan = self.compare(FloatCC::Unordered, a, a);
        self.select(nan, a, found)
    }

    /// Logical not of a bool.
    pub fn not(&mut self, a: V) -> V {
        self.push(Op::One(Code::VEX_Knotw_kr_kr, a), Kind::Mask)
    }

    /// Exclusive or of bools.
    pub fn xor_masks(&mut self, a: V, b: V) -> V {
        self.push(Op::Two(Code::VEX_Kxorw_kr_kr_kr, a, b), Kind::Mask)
    }

    /// True if every operation has code.
    pub fn is_possible(&self) -> bool {
        !self.unsupported
    }
}

impl Prim for Lanes {
    type V = V;

    fn f32(&mut self, value: f32) -> V {
        self.constant(value.to_bits(), Kind::Float)
    }

    fn i32(&mut self, value: i32) -> V {
        self.constant(value as u32, Kind::Int)
    }

    fn add(&mut self, a: V, b: V) -> V {
        self.arithmetic(
            Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er,
            Code::EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32,
            a,
            b,
        )
    }

    fn sub(&mut self, a: V, b: V) -> V {
        self.arithmetic(
            Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er,
            Code::EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32,
            a,
            b,
        )
    }

    fn mul(&mut self, a: V, b: V) -> V {
        self.arithmetic(
            Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er,
            Code::EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32,
            a,
            b,
        )
    }

    fn div(&mut self, a: V, b: V) -> V {
        self.push(Op::Two(Code::EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er, a, b), Kind::Float)
    }

    fn mul_add(&mut self, a: V, b: V, c: V) -> V {
        self.push(Op::MulAdd { negate: false, a, b, c }, Kind::Float)
    }

    fn neg_mul_add(&mut self, a: V, b: V, c: V) -> V {
        self.push(Op::MulAdd { negate: true, a, b, c }, Kind::Float)
    }

    fn sqrt(&mut self, a: V) -> V {
        self.push(Op::One(Code::EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er, a), Kind::Float)
    }

    fn abs(&mut self, a: V) -> V {
        let magnitude = self.i32(i32::MAX);
        self.push(Op::Two(Code::EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32, a, magnitude), Kind::Float)
    }

    fn bits(&mut self, a: V) -> V {
        self.push(Op::One(Code::EVEX_Vmovdqa32_zmm_k1z_zmmm512, a), Kind::Int)
    }

    fn float(&mut self, a: V) -> V {
        self.push(Op::One(Code::EVEX_Vmovdqa32_zmm_k1z_zmmm512, a), Kind::Float)
    }

    fn float_from_int(&mut self, a: V) -> V {
        self.push(Op::One(Code::EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er, a), Kind::Float)
    }

    fn and(&mut self, a: V, b: V) -> V {
        self.logic(Code::EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32, Code::VEX_Kandw_kr_kr_kr, a, b)
    }

    fn or(&mut self, a: V, b: V) -> V {
        self.logic(Code::EVEX_Vpord_zmm_k1z_zmm_zmmm512b32, Code::VEX_Korw_kr_kr_kr, a, b)
    }

    fn shl(&mut self, a: V, bits: i64) -> V {
        self.push(Op::Number(Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, a, bits as i32), Kind::Int)
    }

    fn shr_signed(&mut self, a: V, bits: i64) -> V {
        self.push(Op::Number(Code::EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8, a, bits as i32), Kind::Int)
    }

    fn compare(&mut self, condition: FloatCC, a: V, b: V) -> V {
        // Quiet predicates of VCMPPS.
        let predicate = match condition {
            FloatCC::Equal => 0x00,
            FloatCC::LessThan => 0x11,
            FloatCC::LessThanOrEqual => 0x12,
            FloatCC::Unordered => 0x03,
            FloatCC::NotEqual => 0x04,
            FloatCC::GreaterThan => 0x1e,
            FloatCC::GreaterThanOrEqual => 0x1d,
            FloatCC::Ordered => 0x07,
            _ => return self.refuse(Kind::Mask),
        };
        self.push(Op::Compare(Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae, a, b, predicate), Kind::Mask)
    }

    fn compare_int(&mut self, condition: IntCC, a: V, b: V) -> V {
        let predicate = match condition {
            IntCC::Equal => 0,
            IntCC::SignedLessThan => 1,
            IntCC::SignedLessThanOrEqual => 2,
            IntCC::NotEqual => 4,
            IntCC::SignedGreaterThanOrEqual => 5,
            IntCC::SignedGreaterThan => 6,
            _ => return self.refuse(Kind::Mask),
        };
        self.push(Op::Compare(Code::EVEX_Vpcmpd_kr_k1_zmm_zmmm512b32_imm8, a, b, predicate), Kind::Mask)
    }

    fn select(&mut self, condition: V, a: V, b: V) -> V {
        let kind = self.kind(a);
        if kind == Kind::Mask { self.refuse(kind) } else { self.push(Op::Select(condition, a, b), kind) }
    }

    fn or_zero(&mut self, condition: V, a: V) -> V {
        self.push(Op::OrZero(condition, a), Kind::Float)
    }

    fn max_or_second(&mut self, a: V, b: V) -> V {
        self.push(Op::Two(Code::EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae, a, b), Kind::Float)
    }
}

/// Vector registers.
const VECTORS: usize = 32;
/// Mask registers: k1 to k6. k0 means no mask, and k7 tells which lanes are there.
const MASKS: std::ops::RangeInclusive<usize> = 1..=6;

/// The mask of the lanes that are there.
pub(crate) const TAIL: Register = Register::K7;

/// Where code reads and writes.
pub(crate) struct Places<'a> {
    /// Of each stream.
    pub streams: &'a [Mem],
    /// Of a constant.
    pub constant: &'a dyn Fn(u32) -> Mem,
    /// Only the lanes of [`TAIL`] are there.
    pub cut: bool,
}

/// Registers of values.
struct Registers {
    of: Vec<Option<usize>>,
    last: Vec<usize>,
    vectors: Vec<usize>,
    masks: Vec<usize>,
}

impl Registers {
    fn take(&mut self, value: V, kind: Kind) -> Option<usize> {
        let free = if kind == Kind::Mask { &mut self.masks } else { &mut self.vectors };
        let register = free.pop()?;
        self.of[value] = Some(register);
        Some(register)
    }

    fn release(&mut self, value: V, kind: Kind) {
        if let Some(register) = self.of[value].take() {
            if kind == Kind::Mask { &mut self.masks } else { &mut self.vectors }.push(register);
        }
    }
}

impl Lanes {
    /// Operands of an operation.
    fn operands(op: Op) -> [Option<V>; 3] {
        match op {
            Op::Const(_) | Op::Load(_) | Op::Uniform(_) => [None; 3],
            Op::One(_, a) | Op::Number(_, a, _) => [Some(a), None, None],
            Op::Two(_, a, b) | Op::Compare(_, a, b, _) | Op::OrZero(a, b) => [Some(a), Some(b), None],
            Op::MulAdd { a, b, c, .. } | Op::Select(a, b, c) => [Some(a), Some(b), Some(c)],
        }
    }

    /// The constants.
    pub fn constants(&self) -> Vec<u32> {
        let mut found: Vec<u32> = self.constants.keys().copied().collect();
        found.sort_unstable();
        found
    }

    /// Emits the operations that `stores` (values and their streams) need, then stores them.
    ///
    /// **Errors**: more values are alive at once than there are registers.
    pub fn emit(&self, asm: &mut Asm, places: &Places<'_>, stores: &[(V, usize)]) -> Result<(), AsmError> {
        let count = self.ops.len();
        let mut last = vec![0; count];
        let mut needed = vec![false; count];
        for &(value, _) in stores {
            (last[value], needed[value]) = (count, true);
        }
        for at in (0..count).rev() {
            if !needed[at] {
                continue;
            }
            for operand in Self::operands(self.ops[at].0).into_iter().flatten() {
                needed[operand] = true;
                last[operand] = last[operand].max(at);
            }
        }
        let mut registers = Registers {
            of: vec![None; count],
            last,
            vectors: (0..VECTORS).rev().collect(),
            masks: MASKS.rev().collect(),
        };
        for at in (0..count).filter(|at| needed[*at]) {
            // Constants and uniform words come when they are first used.
            if matches!(self.ops[at].0, Op::Const(_) | Op::Uniform(_)) {
                continue;
            }
            self.operation(asm, places, &mut registers, at)?;
        }
        for &(value, stream) in stores {
            let from = self.register(asm, places, &mut registers, value)?;
            asm.store_lanes(places.streams[stream], from, places.cut)?;
        }
        Ok(())
    }

    /// The register of a value; loads it if it is a constant or a uniform word that is not there yet.
    fn register(
        &self,
        asm: &mut Asm,
        places: &Places<'_>,
        registers: &mut Registers,
        value: V,
    ) -> Result<usize, AsmError> {
        if let Some(register) = registers.of[value] {
            return Ok(register);
        }
        let (op, kind) = self.ops[value];
        let register = registers.take(value, kind).ok_or_else(AsmError::registers)?;
        match op {
            Op::Const(0) => asm.zero(register)?,
            Op::Const(bits) => asm.broadcast(register, (places.constant)(bits))?,
            Op::Uniform(stream) => asm.broadcast(register, places.streams[stream])?,
            _ => return Err(AsmError::registers()),
        }
        Ok(register)
    }

    /// Emits one operation.
    fn operation(
        &self,
        asm: &mut Asm,
        places: &Places<'_>,
        registers: &mut Registers,
        at: usize,
    ) -> Result<(), AsmError> {
        let (op, kind) = self.ops[at];
        let mut r = [0; 3];
        let operands = Self::operands(op);
        for (register, operand) in r.iter_mut().zip(operands) {
            if let Some(operand) = operand {
                *register = self.register(asm, places, registers, operand)?;
            }
        }
        if let Op::MulAdd { .. } = op {
            let to = self.fused(asm, registers, at, r)?;
            self.free(registers, operands, at);
            registers.of[at] = Some(to);
            return Ok(());
        }
        self.free(registers, operands, at);
        let to = registers.take(at, kind).ok_or_else(AsmError::registers)?;
        match op {
            Op::Const(_) | Op::Uniform(_) | Op::MulAdd { .. } => Ok(()),
            Op::Load(stream) => asm.load_lanes(to, places.streams[stream], places.cut),
            Op::Two(code, ..) => asm.add(Instruction::with3(
                code,
                kind.register(to),
                kind.register(r[0]),
                kind.register(r[1]),
            )?),
            Op::One(code, _) => asm.add(Instruction::with2(code, kind.register(to), kind.register(r[0]))?),
            Op::Number(code, _, number) => asm.add(Instruction::with3(code, zmm(to), zmm(r[0]), number)?),
            Op::Compare(code, _, _, number) => {
                asm.add(Instruction::with4(code, kind.register(to), zmm(r[0]), zmm(r[1]), number)?)
            }
            Op::Select(..) => asm.blend(to, r[0], r[1], r[2]),
            Op::OrZero(..) => asm.copy_where(to, r[0], r[1]),
        }
    }

    /// A multiply-add of registers; gives that of its result. One operand is overwritten: the sum, or a factor, if it is
    /// not used again, else a copy of the sum.
    fn fused(
        &self,
        asm: &mut Asm,
        registers: &mut Registers,
        at: usize,
        r: [usize; 3],
    ) -> Result<usize, AsmError> {
        let Op::MulAdd { negate, a, b, c } = self.ops[at].0 else { return Err(AsmError::registers()) };
        let dies = |v: V, others: [V; 2]| registers.last[v] == at && !others.contains(&v);
        let (to, over) = if dies(c, [a, b]) {
            asm.multiply_add_to(negate, r[2], r[0], r[1])?;
            (r[2], c)
        } else if dies(a, [b, c]) {
            asm.multiply_add_over(negate, r[0], r[1], r[2])?;
            (r[0], a)
        } else if dies(b, [a, c]) {
            asm.multiply_add_over(negate, r[1], r[0], r[2])?;
            (r[1], b)
        } else {
            let to = registers.vectors.pop().ok_or_else(AsmError::registers)?;
            asm.copy(to, r[2])?;
            asm.multiply_add_to(negate, to, r[0], r[1])?;
            return Ok(to);
        };
        registers.of[over] = None;
        Ok(to)
    }

    fn free(&self, registers: &mut Registers, operands: [Option<V>; 3], at: usize) {
        for operand in operands.into_iter().flatten() {
            if registers.last[operand] == at {
                registers.release(operand, self.ops[operand].1);
            }
        }
    }
}
