//! Operands of the tile unit cut into pieces of bf16 as a kernel runs.
//!
//! Of an image, lines are cut once for all taps of the window. Each phase of it, the elements that lie a step of the
//! window apart, has its own lines; a tap reads the phase it falls into, some lines and places further on.

use crate::clif::contract_build::Contraction;
use crate::clif::contract_tiles::Common;
use crate::x64::split::{Found, PairWord, Pairs, RowWord, Rows};
use crate::x64::{LANES, Leaf};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use rabot_kernel::{Operand, Patches, SCRATCH_ALIGN_BYTES, Size, TILE_COLUMNS, TILE_ROWS, Tap, Tiles};

/// Bytes of an f32, and of a pair of bf16.
const WORD: i64 = 4;

/// Vectors of columns that are cut at a time at most.
pub(super) const VECTORS: i64 = 16;

/// Factor of numbers that are all small: it makes their last places, if not the numbers, large enough.
const SCALE: f32 = 7.922_816_3e28;

/// An axis of an image whose lines are cut into pieces.
pub(super) struct Axis {
    /// Windows of it.
    pub output: Value,
    /// Elements of it, and their distance.
    pub input: Value,
    pub element_bytes: Value,
    /// Elements before the first one.
    pub pad: Value,
    pub step: i64,
    pub phases: usize,
    pub taps: Vec<Tap>,
    pub reach: i64,
}

/// What is read of B, and how its pieces lie in scratch memory.
pub(super) struct Image {
    /// Lines, and places in a line.
    pub axes: [Axis; 2],
    /// Bytes from channel to channel.
    pub channel_bytes: Value,
    /// Lines that a phase has room for, and places in a line.
    pub lines: i64,
    pub width: Value,
    /// Lines of results in a block; 0 if a block is a part of the only line.
    pub block_lines: i64,
}

impl Contraction<'_, '_, '_> {
    /// The axes of B that are cut into pieces, if it is not packed.
    pub(super) fn image(&mut self, tiles: Tiles) -> Option<Image> {
        let kernel = self.kernel;
        let columns = kernel.tile.columns as i64;
        match &kernel.b {
            Operand::Packed { .. } => None,
            Operand::Strided { outer, k, .. } => {
                let (one, width) = (self.axis_of_one(), self.int(columns));
                let (outer, k) = (self.size(*outer), self.size(*k));
                let axis = Axis {
                    output: self.common.n,
                    input: self.common.n,
                    element_bytes: self.mul_int(outer, WORD),
                    ..self.axis_of_one()
                };
                let channel_bytes = self.mul_int(k, WORD);
                Some(Image { axes: [one, axis], channel_bytes, lines: 1, width, block_lines: 0 })
            }
            Operand::Patches(patches) => {
                let inner = self.axis(patches, patches.kernel.len() - 1);
                let outer =
                    if patches.kernel.len() == 2 { self.axis(patches, 0) } else { self.axis_of_one() };
                let channel = self.size(patches.channel);
                let width = if tiles.lines > 0 { inner.output } else { self.int(columns) };
                Some(Image {
                    channel_bytes: self.mul_int(channel, WORD),
                    lines: (tiles.lines.max(1)) as i64 + outer.reach,
                    width: self.add_int(width, inner.reach),
                    block_lines: tiles.lines as i64,
                    axes: [outer, inner],
                })
            }
        }
    }

    fn axis(&mut self, patches: &Patches, axis: usize) -> Axis {
        let stride = self.size(patches.input_strides[axis]);
        Axis {
            output: self.size(patches.output[axis]),
            input: self.size(patches.input[axis]),
            element_bytes: self.mul_int(stride, WORD),
            pad: self.size(patches.pads[axis]),
            step: patches.strides[axis] as i64,
            phases: patches.phases(axis),
            taps: patches.taps(axis),
            reach: patches.reach(axis) as i64,
        }
    }

    fn axis_of_one(&mut self) -> Axis {
        let (one, zero) = (self.int(1), self.int(0));
        Axis {
            output: one,
            input: one,
            element_bytes: zero,
            pad: zero,
            step: 1,
            phases: 1,
            taps: vec![Tap { phase: 0, distance: 0 }],
            reach: 0,
        }
    }

    /// A word that holds 1.
    pub(super) fn unscaled(&mut self) -> Value {
        let (word, one) = (self.stack(8), self.int(i64::from(1f32.to_bits())));
        self.store(one, word, 0);
        word
    }

    /// Cuts an operand into pieces; once more, scaled, if all its numbers are small: their pieces would be denormals.
    pub(super) fn cut(&mut self, common: &Common, operand: usize, cut: impl FnOnce(&mut Self, Value)) {
        let bits = |c: &mut Self, value: f32| c.int(i64::from(value.to_bits()));
        let (zero, first) = (self.int(0), bits(self, 1.0));
        let (scale, again) = (self.variable(first), self.variable(first));
        self.store(first, common.unscale[operand], 0);
        self.repeat_while(
            |c| c.get(again),
            |c| {
                c.store(zero, common.found[operand], 0);
                let by = c.get(scale);
                cut(c, by);
                let small = c.is_small(common.found[operand]);
                let unscaled = c.ins().icmp(IntCC::Equal, by, first);
                let retry = c.ins().band(small, unscaled);
                c.when(retry, |c| {
                    let (large, back) = (bits(c, SCALE), bits(c, 1.0 / SCALE));
                    c.store(back, common.unscale[operand], 0);
                    c.set(scale, large);
                });
                let retry = c.ins().uextend(I64, retry);
                c.set(again, retry);
            },
        );
    }

    /// True if nothing but very small numbers was found.
    fn is_small(&mut self, found: Value) -> Value {
        let found = self.load(I64, found, 0);
        let sizes = self.ins().band_imm_u(found, Found::Some as i64 | Found::Large as i64);
        self.ins().icmp_imm_u(IntCC::Equal, sizes, Found::Some as i64)
    }

    /// Writes the distances of taps; gives the bytes from pair to pair.
    pub(super) fn distances(&mut self, image: &Image, list: Value) -> Value {
        let [outer, inner] = &image.axes;
        let line = self.mul_int(image.width, WORD);
        let mut at = 0;
        for tap in &outer.taps {
            for place in &inner.taps {
                let start = self.phase_line(image, [tap.phase, place.phase]);
                let lines = self.add_int(start, tap.distance as i64);
                let distance = self.mul(lines, line);
                let distance = self.add_int(distance, place.distance as i64 * WORD);
                self.store(distance, list, at);
                at += 8;
            }
        }
        let end = self.int(image.lines * (outer.phases * inner.phases) as i64);
        let bytes = self.mul(end, line);
        // A tile that begins with the last column ends here; an odd number of cache lines, so that the rows of a tile
        // lie in different sets of the cache.
        let bytes = self.add_int(bytes, TILE_COLUMNS as i64 * WORD + SCRATCH_ALIGN_BYTES as i64 - 1);
        let mask = self.int(-(SCRATCH_ALIGN_BYTES as i64));
        let bytes = self.ins().band(bytes, mask);
        let odd = self.int(SCRATCH_ALIGN_BYTES as i64);
        self.ins().bor(bytes, odd)
    }

    /// The first line of a phase.
    fn phase_line(&mut self, image: &Image, [outer, inner]: [usize; 2]) -> Value {
        let number = (outer * image.axes[1].phases + inner) as i64;
        self.int(number * image.lines)
    }

    pub(super) fn cut_rows(&mut self, common: &Common, start: Value, line: Value, rows: Value, scale: Value) {
        let (zero, words) = (self.int(0), common.words);
        let k = self.common.k;
        let some = self.ins().icmp(IntCC::SignedGreaterThan, k, zero);
        let rows_with_terms = self.ins().select(some, rows, zero);
        let panel = self.variable(common.a_block);
        self.for_range(zero, rows_with_terms, TILE_ROWS as i64, |c, row| {
            let offset = c.mul(row, line);
            let source = c.add(start, offset);
            let (left, most) = (c.ins().isub(rows, row), c.int(TILE_ROWS as i64));
            let (count, target) = (c.min(left, most), c.get(panel));
            let put = |c: &mut Self, word: RowWord, value: Value| c.store(value, words, word.offset());
            put(c, RowWord::Source, source);
            put(c, RowWord::RowBytes, line);
            put(c, RowWord::Rows, count);
            put(c, RowWord::Terms, c.common.k);
            put(c, RowWord::Target, target);
            put(c, RowWord::Found, common.found[0]);
            put(c, RowWord::Scale, scale);
            c.cx.call_leaf(Leaf::Rows(Rows { pieces: common.tiles.pieces }), words);
            c.advance(panel, common.panel_bytes);
        });
    }

    /// Cuts the lines, or the places of the only line, that windows `first..first + count` reach.
    pub(super) fn cut_image(
        &mut self,
        common: &Common,
        image: &Image,
        start: Value,
        [first, count]: [Value; 2],
        scale: Value,
    ) {
        let zero = self.int(0);
        let [outer, inner] = &image.axes;
        let in_lines = image.block_lines > 0;
        let one = self.int(1);
        let (first_line, lines) = if in_lines { (first, count) } else { (zero, one) };
        let (first_place, places) = if in_lines { (zero, inner.output) } else { (first, count) };
        let channels = self.channels(common);
        for phase in 0..outer.phases {
            for place in 0..inner.phases {
                let (Some(reach), Some(reach_inside)) = (reach_of(outer, phase), reach_of(inner, place))
                else {
                    continue;
                };
                let (lines, places) = (self.add_int(lines, reach), self.add_int(places, reach_inside));
                let start_line = self.phase_line(image, [phase, place]);
                self.for_range(zero, lines, 1, |c, line| {
                    let number = c.add(first_line, line);
                    let number = c.mul_int(number, outer.step);
                    let number = c.add_int(number, phase as i64);
                    let number = c.ins().isub(number, outer.pad);
                    let inside = c.ins().icmp(IntCC::UnsignedLessThan, number, outer.input);
                    let offset = c.mul(number, outer.element_bytes);
                    let source = c.add(start, offset);
                    let to = c.add(start_line, line);
                    let to = c.mul(to, image.width);
                    c.for_range(zero, places, VECTORS * LANES as i64, |c, at| {
                        let from = c.add(first_place, at);
                        let from = c.mul_int(from, inner.step);
                        let from = c.add_int(from, place as i64);
                        let from = c.ins().isub(from, inner.pad);
                        let left = c.ins().isub(places, at);
                        let vectors = c.masks(common, inner, from, left, inside);
                        let offset = c.mul(from, inner.element_bytes);
                        let address = c.add(source, offset);
                        let to = c.add(to, at);
                        let to = c.mul_int(to, WORD);
                        let target = c.add(c.cx.scratch, to);
                        c.cut_pairs(common, image, [address, target, vectors, channels, scale]);
                    });
                });
            }
        }
    }

    /// Writes the masks of the places of a line from `from` on, those of `left` columns; none if not `inside`. Gives how
    /// many there are.
    fn masks(&mut self, common: &Common, axis: &Axis, from: Value, left: Value, inside: Value) -> Value {
        let (zero, most) = (self.int(0), self.int(VECTORS));
        let vectors = self.ceil_div(left, LANES as i64);
        let vectors = self.min(vectors, most);
        let list = self.variable(common.masks);
        let from = self.variable(from);
        self.for_range(zero, vectors, 1, |c, _| {
            let (at, to) = (c.get(from), c.get(list));
            let mask = c.lanes_between(at, axis);
            let mask = c.ins().select(inside, mask, zero);
            c.store(mask, to, 0);
            let (next, after) = (c.add_int(at, LANES as i64 * axis.step), c.add_int(to, 8));
            c.set(from, next);
            c.set(list, after);
        });
        vectors
    }

    /// Channels of B: terms of a tap.
    fn channels(&mut self, common: &Common) -> Value {
        let k = self.common.k;
        self.ins().udiv(k, common.taps)
    }

    /// The lanes whose places, `from` and then `axis.step` further each, lie in the axis.
    fn lanes_between(&mut self, from: Value, axis: &Axis) -> Value {
        let (zero, step) = (self.int(0), self.int(axis.step));
        let before = self.ins().isub(zero, from);
        let before = self.ins().smax(before, zero);
        let low = self.add_int(before, axis.step - 1);
        let low = self.ins().udiv(low, step);
        let left = self.ins().isub(axis.input, from);
        let left = self.ins().smax(left, zero);
        let high = self.add_int(left, axis.step - 1);
        let high = self.ins().udiv(high, step);
        let low = self.ones_below(low);
        let high = self.ones_below(high);
        self.ins().band_not(high, low)
    }

    fn cut_pairs(
        &mut self,
        common: &Common,
        image: &Image,
        [address, target, vectors, channels, scale]: [Value; 5],
    ) {
        let inner = &image.axes[1];
        let (words, tiles) = (common.words, common.tiles);
        let step = self.mul_int(inner.element_bytes, inner.step);
        let put = |c: &mut Self, word: PairWord, value: Value| c.store(value, words, word.offset());
        put(self, PairWord::Source, address);
        put(self, PairWord::TermBytes, image.channel_bytes);
        put(self, PairWord::Terms, channels);
        put(self, PairWord::Target, target);
        put(self, PairWord::RowBytes, common.row_bytes);
        put(self, PairWord::Blocks, common.blocks);
        put(self, PairWord::Vectors, vectors);
        put(self, PairWord::Masks, common.masks);
        put(self, PairWord::ColumnBytes, step);
        put(self, PairWord::Found, common.found[1]);
        put(self, PairWord::Scale, scale);
        let adjacent = inner.step == 1 && self.has_adjacent_columns();
        self.cx.call_leaf(Leaf::Pairs(Pairs { pieces: tiles.pieces, adjacent }), words);
    }

    /// True if elements next to each other in B's innermost axis are adjacent.
    fn has_adjacent_columns(&self) -> bool {
        let stride = match &self.kernel.b {
            Operand::Strided { outer, .. } => Some(outer),
            Operand::Patches(patches) => patches.input_strides.last(),
            Operand::Packed { .. } => None,
        };
        stride == Some(&Size::Const(1))
    }
}

/// How far the taps of a phase reach; none if no tap reads it.
fn reach_of(axis: &Axis, phase: usize) -> Option<i64> {
    axis.taps.iter().filter(|tap| tap.phase == phase).map(|tap| tap.distance as i64).max()
}
