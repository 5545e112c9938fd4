//! Packing of operands into panels whose rows are vectors of 512 bits: leaves copy them.
//!
//! Of an image, a vector holds positions next to each other: at most a few lines of the image, each of which is a piece
//! of it. Positions outside the image are in no piece, so they are 0.

use crate::clif::contract_build::Contraction;
use crate::clif::contract_leaf::is_wide;
use crate::clif::pack::{Lines, Source};
use crate::x64::copy::{self, Copy, MOST_PIECES, MOST_STEP, Word};
use crate::x64::{LANES, Leaf};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;
use rabot_kernel::{Patches, Size};
use rabot_tensor::DType;

/// Bytes of an element.
const F32_BYTES: i64 = 4;

/// Lines of an image that a vector is put together of at most.
const MOST_LINES: usize = 4;

/// Positions of a line that lie in a vector.
struct Piece {
    /// Where windows begin along the axes of the image.
    starts: Vec<Value>,
    /// The first lane.
    lane: Value,
    /// Number of lanes.
    count: Value,
}

/// What is the same for all vectors of an image.
struct Image<'p> {
    patches: &'p Patches,
    start: Value,
    channels: Value,
    channel_bytes: Value,
    /// Bytes from the row of a tap to that of the same tap in the next channel.
    row_bytes: Value,
    words: Value,
}

impl Contraction<'_, '_, '_> {
    /// Lines that a vector of positions is put together of, if leaves can pack the image.
    pub fn wide_lines(&self, patches: &Patches, source: Source) -> Option<usize> {
        let wide = is_wide(self.kernel, self.cx.target) && source.dtype == DType::F32;
        let step = *patches.strides.last()?;
        let near = step <= MOST_STEP && patches.input_strides.last() == Some(&Size::Const(1));
        let lines = match patches.output.as_slice() {
            [_] => 1,
            [.., Size::Const(width)] if *width > 0 => 1 + (LANES as i64 - 1 + width - 1) / width,
            _ => return None,
        };
        let lines = usize::try_from(lines).ok()?;
        (wide && near && lines <= MOST_LINES.min(Copy::most_pieces(step))).then_some(lines)
    }

    /// Packs the columns `column..column + columns` of the patches of an image into the block of B.
    pub fn pack_patches_wide(
        &mut self,
        patches: &Patches,
        lines: usize,
        start: Value,
        column: Value,
        columns: Value,
    ) {
        let nr = self.kernel.tile.nr as i64;
        let taps = patches.kernel.iter().product::<usize>().max(1) as i64;
        let (k, divisor) = (self.common.k, self.int(taps));
        let channels = self.ins().udiv(k, divisor);
        let channel = self.size(patches.channel);
        let image = Image {
            patches,
            start,
            channels,
            channel_bytes: self.mul_int(channel, F32_BYTES),
            row_bytes: self.int(taps * nr * F32_BYTES),
            words: self.stack(8 * copy::WORDS),
        };
        let zero = self.int(0);
        let panels = self.ceil_div(columns, nr);
        let padded = self.mul_int(panels, nr);
        self.for_range(zero, padded, LANES as i64, |c, at| {
            let pieces = c.pieces(patches, lines, column, at, columns);
            let target = c.lane_of_block(at);
            let row = c.variable(target);
            c.wide_taps(&image, &pieces, &mut Vec::new(), row);
        });
    }

    /// The pieces of a vector that begins `at` columns from `column`.
    fn pieces(
        &mut self,
        patches: &Patches,
        lines: usize,
        column: Value,
        at: Value,
        columns: Value,
    ) -> Vec<Piece> {
        let (zero, most) = (self.int(0), self.int(LANES as i64));
        let left = self.ins().isub(columns, at);
        let left = self.min(left, most);
        let some = self.ins().icmp(IntCC::SignedGreaterThan, left, zero);
        let left = self.ins().select(some, left, zero);
        let mut lane = zero;
        let mut pieces = Vec::new();
        for _ in 0..lines {
            let position = self.add(column, at);
            let position = self.add(position, lane);
            let mut starts = Vec::new();
            let mut rest = position;
            let mut in_line = zero;
            for axis in (0..patches.output.len()).rev() {
                let coord = if axis == 0 {
                    rest
                } else {
                    let extent = self.size(patches.output[axis]);
                    let quotient = self.ins().udiv(rest, extent);
                    let product = self.mul(quotient, extent);
                    let coord = self.ins().isub(rest, product);
                    rest = quotient;
                    coord
                };
                if axis + 1 == patches.output.len() {
                    let extent = self.size(patches.output[axis]);
                    in_line = self.ins().isub(extent, coord);
                }
                let coord = self.mul_int(coord, patches.strides[axis] as i64);
                let pad = self.size(patches.pads[axis]);
                starts.insert(0, self.ins().isub(coord, pad));
            }
            let count = self.ins().isub(left, lane);
            let count = self.min(count, in_line);
            pieces.push(Piece { starts, lane, count });
            lane = self.add(lane, count);
        }
        pieces
    }

    /// Loops over the taps of the axes from `distances.len()` on; `row` is the address of the row to write next.
    fn wide_taps(&mut self, image: &Image, pieces: &[Piece], distances: &mut Vec<Value>, row: Variable) {
        let Some(&taps) = image.patches.kernel.get(distances.len()) else {
            self.wide_tap(image, pieces, distances, row);
            return;
        };
        let dilation = image.patches.dilations[distances.len()] as i64;
        let (zero, end) = (self.int(0), self.int(taps as i64 * dilation));
        self.for_range(zero, end, dilation, |c, distance| {
            distances.push(distance);
            c.wide_taps(image, pieces, distances, row);
            distances.pop();
        });
    }

    /// One tap, all channels.
    fn wide_tap(&mut self, image: &Image, pieces: &[Piece], distances: &[Value], row: Variable) {
        let patches = image.patches;
        for (index, piece) in pieces.iter().enumerate() {
            let mut address = image.start;
            let mut mask = None;
            for (axis, (&start, &distance)) in piece.starts.iter().zip(distances).enumerate() {
                let at = self.add(start, distance);
                let extent = self.size(patches.input[axis]);
                if axis + 1 == distances.len() {
                    let before = self.mul_int(piece.lane, patches.strides[axis] as i64);
                    let first = self.ins().isub(at, before);
                    let offset = self.mul_int(first, F32_BYTES);
                    address = self.add(address, offset);
                    let lanes = self.lanes_inside(piece, at, extent, patches.strides[axis] as i64);
                    let none = self.int(0);
                    mask = Some(match mask {
                        Some(inside) => self.ins().select(inside, lanes, none),
                        None => lanes,
                    });
                } else {
                    let stride = self.size(patches.input_strides[axis]);
                    let offset = self.mul(at, stride);
                    let offset = self.mul_int(offset, F32_BYTES);
                    address = self.add(address, offset);
                    let inside = self.ins().icmp(IntCC::UnsignedLessThan, at, extent);
                    mask = Some(match mask {
                        Some(before) => self.ins().band(before, inside),
                        None => inside,
                    });
                }
            }
            let Some(mask) = mask else { return };
            let at = Word::Pieces.offset() + 16 * index as i64;
            self.store(address, image.words, at);
            self.store(mask, image.words, at + 8);
        }
        let target = self.get(row);
        self.store(image.channels, image.words, Word::Rows.offset());
        self.store(target, image.words, Word::Target.offset());
        self.store(image.row_bytes, image.words, Word::TargetStep.offset());
        self.store(image.channel_bytes, image.words, Word::SourceStep.offset());
        let step = patches.strides.last().copied().unwrap_or(1);
        self.cx.call_leaf(Leaf::Copy(Copy { vectors: 1, pieces: pieces.len(), step }), image.words);
        let next = self.add_int(target, self.kernel.tile.nr as i64 * F32_BYTES);
        self.set(row, next);
    }

    /// The lanes of a piece that lie in a line of the image: its first one is at `at`, the others `step` elements
    /// apart, and the line has `extent` elements.
    fn lanes_inside(&mut self, piece: &Piece, at: Value, extent: Value, step: i64) -> Value {
        let zero = self.int(0);
        let before = self.ins().isub(zero, at);
        let missing = self.ins().smax(before, zero);
        let missing = self.ceil_div(missing, step);
        let low = self.add(piece.lane, missing);
        let there = self.ins().isub(extent, at);
        let there = self.ins().smax(there, zero);
        let there = self.ceil_div(there, step);
        let count = self.min(there, piece.count);
        let high = self.add(piece.lane, count);
        let low = self.ones_below(low);
        let high = self.ones_below(high);
        self.ins().band_not(high, low)
    }

    /// As many low bits as `count`, of 16 at most.
    pub(super) fn ones_below(&mut self, count: Value) -> Value {
        let (zero, most, one) = (self.int(0), self.int(LANES as i64), self.int(1));
        let count = self.ins().smax(count, zero);
        let count = self.ins().smin(count, most);
        let bit = self.ins().ishl(one, count);
        self.ins().isub(bit, one)
    }

    /// True if leaves can pack a matrix into panels of `width`.
    pub fn packs_wide(&self, lines: &Lines, width: usize) -> bool {
        let vectors = width / LANES;
        is_wide(self.kernel, self.cx.target)
            && width.is_multiple_of(LANES)
            && vectors <= MOST_PIECES
            && lines.outer == Size::Const(1)
            && lines.source.dtype == DType::F32
    }

    /// Packs a matrix whose rows of A, or columns of B, are adjacent into panels of `width` at `block`.
    pub fn pack_strided_wide(&mut self, lines: &Lines, block: Value, width: usize) {
        let words = self.stack(8 * copy::WORDS);
        let vectors = width / LANES;
        let k = self.size(lines.k);
        let step = self.mul_int(k, F32_BYTES);
        let row_bytes = self.int(width as i64 * F32_BYTES);
        let (zero, terms) = (self.int(0), self.common.k);
        self.for_range(zero, lines.count, width as i64, |c, first| {
            let offset = c.mul(first, c.common.line_bytes);
            let panel = c.add(block, offset);
            let offset = c.mul_int(first, F32_BYTES);
            let start = c.add(lines.start, offset);
            c.store(terms, words, Word::Rows.offset());
            c.store(panel, words, Word::Target.offset());
            c.store(row_bytes, words, Word::TargetStep.offset());
            c.store(step, words, Word::SourceStep.offset());
            let left = c.ins().isub(lines.count, first);
            for vector in 0..vectors {
                let lane = (vector * LANES) as i64;
                let address = c.add_int(start, lane * F32_BYTES);
                let count = c.add_int(left, -lane);
                let mask = c.ones_below(count);
                let at = Word::Pieces.offset() + 16 * vector as i64;
                c.store(address, words, at);
                c.store(mask, words, at + 8);
            }
            c.cx.call_leaf(Leaf::Copy(Copy { vectors, pieces: 1, step: 1 }), words);
        });
    }
}
