//! Straight-line code on vectors of 16 lanes, as a list of operations on values; `registers` makes instructions of it.
//!
//! Values are f32 or 32-bit integers in vector registers, and bools in mask registers. Each value is made once.

use super::asm::zmm;
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use iced_x86::{Code, Register};
use rabot_tensor::DType;
use std::collections::HashMap;

/// Number of a value.
pub(crate) type V = usize;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Int,
    Mask,
}

impl Kind {
    pub(super) fn register(self, number: usize) -> Register {
        match self {
            Kind::Float | Kind::Int => zmm(number),
            Kind::Mask => Register::K0 + number as u32,
        }
    }
}

/// A type of memory other than f32. Floats are widened to f32, integers to 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cell {
    /// f16.
    F16,
    /// bf16.
    BF16,
    /// i8.
    I8,
    /// u8.
    U8,
    /// i16.
    I16,
    /// u16.
    U16,
    /// i32.
    I32,
}

impl Cell {
    /// That of a dtype, if lanes hold it.
    pub fn of(dtype: DType) -> Option<Cell> {
        Some(match dtype {
            DType::F16 => Cell::F16,
            DType::BF16 => Cell::BF16,
            DType::I8 => Cell::I8,
            DType::U8 => Cell::U8,
            DType::I16 => Cell::I16,
            DType::U16 => Cell::U16,
            DType::I32 => Cell::I32,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub fn bytes(self) -> i64 {
        match self {
            Cell::I8 | Cell::U8 => 1,
            Cell::F16 | Cell::BF16 | Cell::I16 | Cell::U16 => 2,
            Cell::I32 => 4,
        }
    }

    fn kind(self) -> Kind {
        if matches!(self, Cell::F16 | Cell::BF16) { Kind::Float } else { Kind::Int }
    }
}

/// True if lanes hold a dtype as integers of 32 bits.
pub(crate) fn is_int(dtype: DType) -> bool {
    Cell::of(dtype).is_some_and(|cell| cell.kind() == Kind::Int)
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A constant of 32 bits in all lanes.
    Const(u32),
    /// 16 words of a stream.
    Load(usize),
    /// 16 elements of a stream, widened.
    LoadCell(usize, Cell),
    /// One element of a stream, widened, in all lanes.
    UniformCell(usize, Cell),
    /// The nearest f16, as f32.
    RoundF16(V),
    /// 16 words of a stream, those of a mask register; the others are 0.
    LoadWhere(usize, usize),
    /// 16 words of a stream that are the same for all columns, whichever lanes are there.
    Table(usize),
    /// One word of a stream, in all lanes.
    Uniform(usize),
    /// A value that is in a register from the start.
    Given,
    /// Lane `i` is word `index[i]` of the 32 words of a and b.
    Pick { a: V, b: V, index: V },
    /// `code a, b`.
    Two(Code, V, V),
    /// `code a`.
    One(Code, V),
    /// `code a, number`.
    Number(Code, V, i32),
    /// `code a, b, number`: comparisons, and moves between groups of lanes.
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
    pub(super) ops: Vec<(Op, Kind)>,
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

    /// 16 elements of a stream, widened.
    pub fn load_cell(&mut self, stream: usize, cell: Cell) -> V {
        self.push(Op::LoadCell(stream, cell), cell.kind())
    }

    /// One element of a stream, widened, in all lanes.
    pub fn uniform_cell(&mut self, stream: usize, cell: Cell) -> V {
        self.push(Op::UniformCell(stream, cell), cell.kind())
    }

    /// The integer of 32 bits towards 0, as near as there is one; 0 for NaN.
    pub fn int_from_float(&mut self, a: V) -> V {
        // Gives the lowest integer for what it cannot hold.
        let value = self.push(Op::One(Code::EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae, a), Kind::Int);
        let (limit, highest, none) = (self.f32(2_147_483_648.0), self.i32(i32::MAX), self.i32(0));
        let is_high = self.compare(FloatCC::GreaterThanOrEqual, a, limit);
        let value = self.select(is_high, highest, value);
        let is_nan = self.compare(FloatCC::Unordered, a, a);
        self.select(is_nan, none, value)
    }

    /// A byte of the low two of an integer, extended.
    pub fn byte_of(&mut self, a: V, is_low: bool, signed: bool) -> V {
        let up = if is_low { 24 } else { 16 };
        let down = match signed {
            true => Code::EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8,
            false => Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8,
        };
        let up = self.push(Op::Number(Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, a, up), Kind::Int);
        self.push(Op::Number(down, up, 24), Kind::Int)
    }

    /// The smaller or larger signed integer.
    pub fn extreme_int(&mut self, larger: bool, a: V, b: V) -> V {
        let code = match larger {
            true => Code::EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32,
            false => Code::EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32,
        };
        self.push(Op::Two(code, a, b), Kind::Int)
    }

    /// Exclusive or of integers.
    pub fn xor_ints(&mut self, a: V, b: V) -> V {
        self.push(Op::Two(Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32, a, b), Kind::Int)
    }

    /// An integer cut to the bits of a narrow dtype, and extended.
    pub fn wrap(&mut self, dtype: DType, a: V) -> V {
        let bits = 32 - 8 * dtype.size_bytes() as i32;
        if bits == 0 {
            return a;
        }
        let up = self.push(Op::Number(Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, a, bits), Kind::Int);
        let down = match dtype.is_unsigned_int() {
            true => Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8,
            false => Code::EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8,
        };
        self.push(Op::Number(down, up, bits), Kind::Int)
    }

    /// The nearest f16, as f32.
    pub fn round_f16(&mut self, a: V) -> V {
        self.push(Op::RoundF16(a), Kind::Float)
    }

    /// The bits of the nearest bf16 in the low half of an integer, halves to even; NaN stays NaN.
    pub fn bf16_bits(&mut self, a: V) -> V {
        let bits = self.bits(a);
        let (one, half) = (self.i32(1), self.i32(0x7fff));
        let truncated = self.push(Op::Number(Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8, bits, 16), Kind::Int);
        let odd = self.and(truncated, one);
        let rounded = self.add(bits, half);
        let rounded = self.add(rounded, odd);
        let rounded =
            self.push(Op::Number(Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8, rounded, 16), Kind::Int);
        let quiet = self.i32(0x40);
        let nan = self.or(truncated, quiet);
        let is_nan = self.compare(FloatCC::Unordered, a, a);
        self.select(is_nan, nan, rounded)
    }

    /// The nearest bf16, as f32.
    pub fn round_bf16(&mut self, a: V) -> V {
        let bits = self.bf16_bits(a);
        let bits = self.shl(bits, 16);
        self.float(bits)
    }

    /// 16 words of a stream where a mask register is set, else 0.
    pub fn load_where(&mut self, stream: usize, mask: usize) -> V {
        self.push(Op::LoadWhere(stream, mask), Kind::Float)
    }

    /// 16 integers of a stream that are the same for all columns.
    pub fn table(&mut self, stream: usize) -> V {
        self.push(Op::Table(stream), Kind::Int)
    }

    /// A value of a dtype that is in a register from the start.
    pub fn given(&mut self, dtype: DType) -> V {
        self.push(Op::Given, if is_int(dtype) { Kind::Int } else { Kind::Float })
    }

    /// Lane `i` is word `index[i]` of the 32 words of `a` and `b`.
    pub fn pick(&mut self, a: V, b: V, index: V) -> V {
        self.push(Op::Pick { a, b, index }, Kind::Float)
    }

    /// Lane `i` is lane `index[i]` of `a`.
    pub fn permute_by(&mut self, index: V, a: V) -> V {
        self.push(Op::Two(Code::EVEX_Vpermps_zmm_k1z_zmm_zmmm512b32, index, a), Kind::Float)
    }

    /// The lanes in another order: groups of four by `blocks`, then each group by `lanes`, two bits a place.
    pub fn permute(&mut self, a: V, blocks: i32, lanes: i32) -> V {
        const IN_ORDER: i32 = 0xe4;
        let (mut value, kind) = (a, self.kind(a));
        if blocks != IN_ORDER {
            let code = Code::EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8;
            value = self.push(Op::Compare(code, value, value, blocks), kind);
        }
        if lanes != IN_ORDER {
            value = self.push(Op::Number(Code::EVEX_Vpermilps_zmm_k1z_zmmm512b32_imm8, value, lanes), kind);
        }
        value
    }

    /// For each value, whether it is the same in all lanes and for all columns; streams of one word are.
    pub fn uniform_values(&self) -> Vec<bool> {
        let mut uniform: Vec<bool> = Vec::with_capacity(self.ops.len());
        for (op, _) in &self.ops {
            uniform.push(match op {
                Op::Const(_) | Op::Uniform(_) | Op::UniformCell(..) | Op::Table(_) => true,
                Op::Load(_) | Op::LoadCell(..) | Op::LoadWhere(..) | Op::Given => false,
                _ => Self::operands(*op).into_iter().flatten().all(|operand| uniform[operand]),
            });
        }
        uniform
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

    /// The constants.
    pub fn constants(&self) -> Vec<u32> {
        let mut found: Vec<u32> = self.constants.keys().copied().collect();
        found.sort_unstable();
        found
    }

    /// Operands of an operation.
    pub(super) fn operands(op: Op) -> [Option<V>; 3] {
        match op {
            Op::Const(_) | Op::Uniform(_) | Op::UniformCell(..) | Op::Table(_) => [None; 3],
            Op::Load(_) | Op::LoadCell(..) | Op::LoadWhere(..) | Op::Given => [None; 3],
            Op::One(_, a) | Op::Number(_, a, _) | Op::RoundF16(a) => [Some(a), None, None],
            Op::Two(_, a, b) | Op::Compare(_, a, b, _) | Op::OrZero(a, b) => [Some(a), Some(b), None],
            Op::MulAdd { a, b, c, .. } | Op::Select(a, b, c) | Op::Pick { a, b, index: c } => {
                [Some(a), Some(b), Some(c)]
            }
        }
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
