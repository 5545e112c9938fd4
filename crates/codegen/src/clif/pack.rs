//! Packing of operands into scratch memory while a kernel runs.
//!
//! Panels are made row by row of `[k][width]`: f32, or i16 without the zero point. Where terms come in pairs, a
//! second pass over the panel, which is then in the cache, interleaves two rows at a time.

use crate::clif::cast::{f32_from_bf16, f32_from_f16};
use crate::clif::context::plain;
use crate::clif::contract_build::{Contraction, WORD};
use crate::clif::ops::{Ops, little};
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I8X16, I16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value};
use cranelift_frontend::Variable;
use rabot_kernel::Size;
use rabot_tensor::DType;

/// A strided matrix to pack: the rows of A, or the columns of B.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    /// How elements are read.
    pub source: Source,
    /// The first element.
    pub start: Value,
    /// Number of rows of A, or columns of B.
    pub count: Value,
    /// Their distance, in elements.
    pub outer: Size,
    /// Distance of terms, in elements.
    pub k: Size,
}

/// A panel of a strided matrix.
struct Panel<'a> {
    lines: &'a Lines,
    /// The row or column in its first lane.
    first: Value,
    /// Where it goes.
    start: Value,
    width: usize,
    /// Where lanes that are not there read.
    missing: Value,
}

/// How elements are read.
#[derive(Clone, Copy)]
pub(super) struct Source {
    /// Element type in memory.
    pub dtype: DType,
    /// Subtracted from each element (integers).
    pub zero_point: i32,
}

/// Where a lane of a group reads its next term, and how far the one after it is, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    /// Address of the next term.
    pub address: Value,
    /// Distance of terms.
    pub step: Value,
}

/// Columns that are packed abreast.
pub(super) const GROUP: usize = 4;

/// Words 0 and 1 of two vectors in turn, and so on: the steps of a transposition of 4 × 4 words.
const LOW_WORDS: [u8; 4] = [0, 4, 1, 5];
const HIGH_WORDS: [u8; 4] = [2, 6, 3, 7];
const LOW_PAIR: [u8; 4] = [0, 1, 4, 5];
const HIGH_PAIR: [u8; 4] = [2, 3, 6, 7];

/// Rows of a panel that a group of lanes fills.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// Address of the first lane in the first row.
    pub start: Value,
    /// Bytes from row to row.
    pub row_bytes: Value,
    /// Number of rows.
    pub rows: Value,
}

impl Source {
    /// Bytes of an element.
    pub fn bytes(&self) -> i64 {
        self.dtype.size_bytes() as i64
    }
}

impl Contraction<'_, '_, '_> {
    /// Bytes of an element of a panel.
    pub fn packed_bytes(&self) -> i64 {
        if self.pairs() { WORD / 2 } else { WORD }
    }

    /// Packs a strided matrix into panels of `width` at `block`.
    pub fn pack_strided(&mut self, lines: &Lines, block: Value, width: usize) {
        if self.packs_wide(lines, width) {
            return self.pack_strided_wide(lines, block, width);
        }
        let zero = self.int(0);
        let missing = self.missing(lines.source);
        self.for_range(zero, lines.count, width as i64, |c, first| {
            let offset = c.mul(first, c.common.line_bytes);
            let panel = c.add(block, offset);
            if c.cx.target.vectors && width.is_multiple_of(GROUP) && lines.outer == Size::Const(1) {
                let end = c.add_int(first, width as i64);
                let whole = c.ins().icmp(IntCC::SignedLessThanOrEqual, end, lines.count);
                c.if_else(
                    whole,
                    |c| c.copy_rows(lines, first, panel, width),
                    |c| c.pack_groups(lines, first, panel, width, missing),
                );
            } else {
                c.pack_groups(lines, first, panel, width, missing);
            }
            if c.pairs() {
                c.interleave(panel, width);
            }
        });
    }

    /// An address where an element lies that is 0 once its zero point is subtracted.
    pub fn missing(&mut self, source: Source) -> Value {
        let slot = self.stack(8);
        let value = self.ins().iconst(I64, i64::from(source.zero_point as u8));
        self.store(value, slot, 0);
        slot
    }

    /// A panel whose rows are adjacent elements: vectors of them.
    fn copy_rows(&mut self, lines: &Lines, first: Value, panel: Value, width: usize) {
        let bytes = lines.source.bytes();
        let offset = self.mul_int(first, bytes);
        let start = self.add(lines.start, offset);
        let k = self.size(lines.k);
        let step = self.mul_int(k, bytes);
        let (from, to) = (self.variable(start), self.variable(panel));
        let zero = self.int(0);
        let row_bytes = width as i64 * self.packed_bytes();
        self.for_range(zero, self.common.k, 1, |c, _| {
            let (address, target) = (c.get(from), c.get(to));
            for group in (0..width as i64).step_by(GROUP) {
                let value = c.load_four(lines.source, address, group * bytes);
                c.store(value, target, group * c.packed_bytes());
            }
            c.advance(from, step);
            let next = c.add_int(target, row_bytes);
            c.set(to, next);
        });
    }

    /// A panel, a few lanes at a time.
    fn pack_groups(&mut self, lines: &Lines, first: Value, panel: Value, width: usize, missing: Value) {
        let (zero, whole) = (self.int(0), width / GROUP * GROUP);
        let end = self.int(whole as i64);
        let panel = Panel { lines, first, start: panel, width, missing };
        if whole > 0 {
            self.for_range(zero, end, GROUP as i64, |c, at| c.pack_group(&panel, at, GROUP));
        }
        if whole < width {
            self.pack_group(&panel, end, width - whole);
        }
    }

    /// `count` lanes of a panel, from lane `at` on.
    fn pack_group(&mut self, panel: &Panel, at: Value, count: usize) {
        let lines = panel.lines;
        let bytes = lines.source.bytes();
        let [outer, k] = [lines.outer, lines.k].map(|stride| self.size(stride));
        let (outer_bytes, k_bytes) = (self.mul_int(outer, bytes), self.mul_int(k, bytes));
        let zero = self.int(0);
        let mut lanes = Vec::new();
        let mut exists = zero;
        for lane in 0..count as i64 {
            let number = self.add(panel.first, at);
            let number = self.add_int(number, lane);
            exists = self.ins().icmp(IntCC::SignedLessThan, number, lines.count);
            let offset = self.mul(number, outer_bytes);
            let address = self.add(lines.start, offset);
            lanes.push(Lane {
                address: self.ins().select(exists, address, panel.missing),
                step: self.ins().select(exists, k_bytes, zero),
            });
        }
        let offset = self.mul_int(at, self.packed_bytes());
        let row_bytes = self.int(panel.width as i64 * self.packed_bytes());
        let target = Target { start: self.add(panel.start, offset), row_bytes, rows: self.common.k };
        let in_vectors = count == GROUP && self.cx.target.vectors;
        // Where the last lane exists, all do.
        if in_vectors && lines.outer == Size::Const(1) {
            self.if_else(
                exists,
                |c| c.pack_adjacent(lines.source, lanes[0], target),
                |c| c.pack_lanes(lines.source, &lanes, target),
            );
        } else if in_vectors && lines.k == Size::Const(1) && lines.source.dtype == DType::F32 {
            self.if_else(
                exists,
                |c| c.transpose(&lanes, target, panel.width),
                |c| c.pack_lanes(lines.source, &lanes, target),
            );
        } else {
            self.pack_lanes(lines.source, &lanes, target);
        }
    }

    /// Four lanes of adjacent f32 terms: four terms at a time.
    fn transpose(&mut self, lanes: &[Lane], target: Target, width: usize) {
        let addresses: Vec<Variable> = lanes.iter().map(|lane| self.variable(lane.address)).collect();
        let to = self.variable(target.start);
        let (zero, sixteen) = (self.int(0), self.int(16));
        let mask = self.int(-4);
        let whole = self.ins().band(target.rows, mask);
        let row_bytes = width as i64 * WORD;
        self.for_range(zero, whole, 4, |c, _| {
            let rows = addresses.iter().map(|&address| {
                let at = c.get(address);
                let row = c.load(F32X4, at, 0);
                c.advance(address, sixteen);
                row
            });
            let rows: Vec<Value> = rows.collect();
            let [a, b] = [LOW_WORDS, HIGH_WORDS].map(|words| c.shuffle_words(rows[0], rows[1], words));
            let [e, f] = [LOW_WORDS, HIGH_WORDS].map(|words| c.shuffle_words(rows[2], rows[3], words));
            let at = c.get(to);
            let columns = [(a, e, LOW_PAIR), (a, e, HIGH_PAIR), (b, f, LOW_PAIR), (b, f, HIGH_PAIR)];
            for (row, (x, y, words)) in (0i64..).zip(columns) {
                let value = c.shuffle_words(x, y, words);
                c.store(value, at, row * row_bytes);
            }
            let next = c.add_int(at, 4 * row_bytes);
            c.set(to, next);
        });
        let rest = lanes.iter().zip(&addresses);
        let rest: Vec<Lane> = rest.map(|(lane, &at)| Lane { address: self.get(at), ..*lane }).collect();
        let rows = self.ins().isub(target.rows, whole);
        let start = self.get(to);
        self.pack_lanes(Source { dtype: DType::F32, zero_point: 0 }, &rest, Target { start, rows, ..target });
    }

    /// Words of two vectors: 0..4 are those of the first one, 4..8 those of the second.
    fn shuffle_words(&mut self, a: Value, b: Value, words: [u8; 4]) -> Value {
        let bytes: Vec<u8> = words.iter().flat_map(|word| (0..4).map(move |byte| word * 4 + byte)).collect();
        self.shuffle(a, b, bytes, F32X4)
    }

    fn shuffle(&mut self, a: Value, b: Value, bytes: Vec<u8>, ty: Type) -> Value {
        let mask = self.cx.builder.func.dfg.immediates.push(ConstantData::from(bytes));
        let [a, b] = [a, b].map(|v| self.ins().bitcast(I8X16, little(), v));
        let mixed = self.ins().shuffle(a, b, mask);
        self.ins().bitcast(ty, little(), mixed)
    }

    /// Rows of a panel, element by element; lane `i` goes to the `i`-th place of the group.
    pub fn pack_lanes(&mut self, source: Source, lanes: &[Lane], target: Target) {
        let addresses: Vec<Variable> = lanes.iter().map(|lane| self.variable(lane.address)).collect();
        let to = self.variable(target.start);
        let zero = self.int(0);
        self.for_range(zero, target.rows, 1, |c, _| {
            let at = c.get(to);
            for (lane, (&address, Lane { step, .. })) in addresses.iter().zip(lanes).enumerate() {
                let from = c.get(address);
                let value = c.load_one(source, from);
                c.store(value, at, lane as i64 * c.packed_bytes());
                c.advance(address, *step);
            }
            c.advance(to, target.row_bytes);
        });
    }

    /// Rows of a panel from lanes that are adjacent in memory.
    pub fn pack_adjacent(&mut self, source: Source, first: Lane, target: Target) {
        let (from, to) = (self.variable(first.address), self.variable(target.start));
        let zero = self.int(0);
        self.for_range(zero, target.rows, 1, |c, _| {
            let (address, at) = (c.get(from), c.get(to));
            let value = c.load_four(source, address, 0);
            c.store(value, at, 0);
            c.advance(from, first.step);
            c.advance(to, target.row_bytes);
        });
    }

    /// An element as it is packed.
    fn load_one(&mut self, source: Source, address: Value) -> Value {
        if source.dtype == DType::F32 {
            return self.load(F32, address, 0);
        }
        let flags = plain();
        let bits = match source.dtype {
            DType::I8 => self.ins().sload8(I32, flags, address, 0),
            DType::U8 => self.ins().uload8(I32, flags, address, 0),
            _ => self.ins().uload16(I32, flags, address, 0),
        };
        let ops = &mut Ops { cx: self.cx, wide: false };
        match source.dtype {
            DType::F16 => f32_from_f16(ops, bits),
            DType::BF16 => f32_from_bf16(ops, bits),
            _ => {
                let zero_point = ops.i32(source.zero_point);
                let value = ops.sub(bits, zero_point);
                self.ins().ireduce(I16, value)
            }
        }
    }

    /// Four adjacent elements as they are packed.
    fn load_four(&mut self, source: Source, address: Value, offset: i64) -> Value {
        match source.dtype {
            DType::F32 => self.load(F32X4, address, offset),
            DType::F16 | DType::BF16 => {
                let bits = self.load(I64, address, offset);
                let bits = self.ins().scalar_to_vector(I64X2, bits);
                let bits = self.ins().bitcast(I16X8, little(), bits);
                let bits = self.ins().uwiden_low(bits);
                let ops = &mut Ops { cx: self.cx, wide: true };
                if source.dtype == DType::F16 { f32_from_f16(ops, bits) } else { f32_from_bf16(ops, bits) }
            }
            _ => {
                let bits = self.load(I32, address, offset);
                let bits = self.ins().scalar_to_vector(I32X4, bits);
                let bits = self.ins().bitcast(I8X16, little(), bits);
                let wide = match source.dtype {
                    DType::I8 => self.ins().swiden_low(bits),
                    _ => self.ins().uwiden_low(bits),
                };
                let zero_point = self.ins().iconst(I16, i64::from(source.zero_point as u16));
                let zero_point = self.ins().splat(I16X8, zero_point);
                let value = self.ins().isub(wide, zero_point);
                let value = self.ins().bitcast(I64X2, little(), value);
                self.ins().extractlane(value, 0)
            }
        }
    }

    /// Turns a panel `[k][width]` of i16 into `[⌈k/2⌉][width][2]`, in place.
    pub fn interleave(&mut self, panel: Value, width: usize) {
        let half = width as i64 * WORD / 2;
        if !matches!(self.kernel.k, Size::Const(k) if k % 2 == 0) {
            // The row after the last one: zeros if there is no term for it.
            let k = self.common.k;
            let offset = self.mul_int(k, half);
            let row = self.add(panel, offset);
            let pairs = self.common.steps;
            let twice = self.add(pairs, pairs);
            let odd = self.ins().icmp(IntCC::NotEqual, twice, k);
            self.when(odd, |c| {
                let nothing = c.ins().iconst(I16, 0);
                (0..width as i64).for_each(|lane| c.store(nothing, row, lane * WORD / 2));
            });
        }
        let bytes = self.mul_int(self.common.steps, width as i64 * WORD);
        let end = self.add(panel, bytes);
        self.for_range(panel, end, width as i64 * WORD, |c, at| c.interleave_rows(at, width));
    }

    /// Interleaves two rows of i16 that follow each other, in place: all is read before anything is written.
    fn interleave_rows(&mut self, at: Value, width: usize) {
        let vectors = self.cx.target.vectors;
        if vectors && width == GROUP {
            let rows = self.load(I16X8, at, 0);
            let mixed = self.shuffle_pairs(rows, rows, [0, 4, 1, 5, 2, 6, 3, 7]);
            self.store(mixed, at, 0);
            return;
        }
        let half = width as i64 * WORD / 2;
        let in_vectors = if vectors { width / 8 * 8 } else { 0 };
        let mut pairs = Vec::new();
        for lane in (0..in_vectors as i64).step_by(8) {
            let (even, odd) = (self.load(I16X8, at, lane * 2), self.load(I16X8, at, half + lane * 2));
            let low = self.shuffle_pairs(even, odd, [0, 8, 1, 9, 2, 10, 3, 11]);
            let high = self.shuffle_pairs(even, odd, [4, 12, 5, 13, 6, 14, 7, 15]);
            pairs.extend([(lane * WORD, low), (lane * WORD + 16, high)]);
        }
        for lane in in_vectors as i64..width as i64 {
            let even = self.ins().uload16(I32, plain(), at, (lane * 2) as i32);
            let odd = self.ins().uload16(I32, plain(), at, (half + lane * 2) as i32);
            let sixteen = self.ins().iconst(I32, 16);
            let odd = self.ins().ishl(odd, sixteen);
            pairs.push((lane * WORD, self.ins().bor(even, odd)));
        }
        for (offset, value) in pairs {
            self.store(value, at, offset);
        }
    }

    /// 16-bit words of two vectors: 0..8 are those of the first one, 8..16 those of the second.
    fn shuffle_pairs(&mut self, a: Value, b: Value, words: [u8; 8]) -> Value {
        let bytes = words.iter().flat_map(|word| [word * 2, word * 2 + 1]).collect();
        self.shuffle(a, b, bytes, I16X8)
    }
}
