//! Tiles of products on the tile unit, and what becomes of their sums.

use crate::clif::contract_build::Contraction;
use crate::clif::contract_epilogue::Corner;
use crate::clif::contract_tiles::{Block, Common, by_column};
use crate::error::KernelError;
use crate::x64::Leaf;
use crate::x64::panel::{Panel, PanelWord};
use crate::x64::tiles::{Products, Rescale, RescaleWord, TILE_ROW_BYTES, Word};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use rabot_kernel::{
    BLOCK_BYTES, ContractKernel, Operand, SCRATCH_ALIGN_BYTES, TILE_BYTES, TILE_COLUMNS, TILE_ROWS, Tiles,
};

/// Bytes of an f32, and of a pair of bf16.
const WORD: i64 = 4;

/// Cache lines that are fetched ahead for each tap at most: more would be in each other's way.
const MOST_AHEAD: usize = 24;

/// Bytes of the sums of a tile.
const SUM_BYTES: i64 = TILE_COLUMNS as i64 * TILE_ROW_BYTES;

/// The terms that a tile takes.
#[derive(Clone, Copy)]
struct Terms {
    /// The first block of them, and how many there are.
    first: Value,
    blocks: Value,
    /// Not 0 if they are the last ones.
    last: Value,
}

impl Contraction<'_, '_, '_> {
    /// Tile after tile; the operand packed at compile time is the outer loop. Of many terms, some at a time.
    pub(super) fn tile_block(&mut self, common: &Common, block: &Block) -> Result<(), KernelError> {
        let (zero, one) = (self.int(0), self.int(1));
        let Some(together) = self.kernel.blocks_at_a_time() else {
            let terms = Terms { first: zero, blocks: common.blocks, last: one };
            return self.tiles_of(common, block, terms);
        };
        self.clear_sums(common, block);
        let mut result = Ok(());
        self.for_range(zero, common.blocks, together as i64, |c, first| {
            let (left, most) = (c.ins().isub(common.blocks, first), c.int(together as i64));
            let last = c.ins().icmp(IntCC::SignedLessThanOrEqual, left, most);
            let last = c.ins().uextend(I64, last);
            let terms = Terms { first, blocks: c.min(left, most), last };
            result = c.tiles_of(common, block, terms);
        });
        result
    }

    fn clear_sums(&mut self, common: &Common, block: &Block) {
        let [rows, columns] =
            [block.rows, block.columns].map(|size| self.ceil_div(size, TILE_COLUMNS as i64));
        let tiles = self.mul(rows, columns);
        let bytes = self.mul_int(tiles, SUM_BYTES);
        let end = self.add(common.sums, bytes);
        let zero = self.int(0);
        self.for_range(common.sums, end, 16, |c, at| {
            c.store(zero, at, 0);
            c.store(zero, at, 8);
        });
    }

    fn tiles_of(&mut self, common: &Common, block: &Block, terms: Terms) -> Result<(), KernelError> {
        let (zero, step) = (self.int(0), TILE_COLUMNS as i64);
        let mut result = Ok(());
        if by_column(self.kernel) {
            self.for_range(zero, block.columns, step, |c, column| {
                let panel = c.panel_of_b(common, block, terms, column);
                c.cut_panel(common, panel, terms.blocks);
                c.for_range(zero, block.rows, step, |c, row| {
                    result = c.tile_of_products(common, block, terms, [row, column]);
                });
            });
        } else {
            self.for_range(zero, block.rows, step, |c, row| {
                c.for_range(zero, block.columns, step, |c, column| {
                    result = c.tile_of_products(common, block, terms, [row, column]);
                });
            });
        }
        result
    }

    /// Where the terms of a column begin in a packed B.
    fn panel_of_b(&mut self, common: &Common, block: &Block, terms: Terms, column: Value) -> Value {
        let panel = self.ins().ushr_imm_u(column, i64::from(TILE_COLUMNS.ilog2()));
        let offset = self.mul(panel, common.b_panel_bytes);
        let start = self.add(block.b, offset);
        let before = self.mul_int(terms.first, BLOCK_BYTES as i64);
        self.add(start, before)
    }

    /// Cuts terms of a panel of a packed B into pieces.
    fn cut_panel(&mut self, common: &Common, panel: Value, blocks: Value) {
        let words = common.words;
        let put = |c: &mut Self, word: PanelWord, value: Value| c.store(value, words, word.offset());
        put(self, PanelWord::Source, panel);
        put(self, PanelWord::Target, self.cx.scratch);
        put(self, PanelWord::Blocks, blocks);
        self.cx.call_leaf(Leaf::Panel(Panel { pieces: common.tiles.pieces }), words);
    }

    /// The sums of 32 × 32 elements at `row` and `column` of a block, and what becomes of them.
    fn tile_of_products(
        &mut self,
        common: &Common,
        block: &Block,
        terms: Terms,
        [row, column]: [Value; 2],
    ) -> Result<(), KernelError> {
        let words = common.words;
        let panel = self.ins().ushr_imm_u(row, i64::from(TILE_ROWS.ilog2()));
        let offset = self.mul(panel, common.panel_bytes);
        let a = self.add(block.a, offset);
        let before = self.mul(terms.first, common.taps);
        let before = self.mul_int(before, (common.tiles.pieces * TILE_BYTES) as i64);
        let a = self.add(a, before);
        let b = if by_column(self.kernel) {
            self.cx.scratch
        } else {
            let rows = self.mul_int(terms.first, (common.tiles.pieces * TILE_ROWS) as i64);
            let before = self.mul(rows, common.row_bytes);
            let offset = self.mul_int(column, WORD);
            let b = self.add(block.b, offset);
            self.add(b, before)
        };
        let tile = self.sums(common, block, [row, column]);
        let put = |c: &mut Self, word: Word, value: Value| c.store(value, words, word.offset());
        put(self, Word::A, a);
        put(self, Word::PanelBytes, common.panel_bytes);
        put(self, Word::B, b);
        put(self, Word::RowBytes, common.row_bytes);
        put(self, Word::Blocks, terms.blocks);
        put(self, Word::Taps, common.taps);
        put(self, Word::Distances, common.distances);
        put(self, Word::Tile, tile);
        let soon = self.soon(common, block, a, [row, column], terms);
        put(self, Word::Soon, soon);
        let rows = self.ins().isub(block.rows, row);
        let columns = self.ins().isub(block.columns, column);
        let most = self.int(TILE_COLUMNS as i64);
        let (rows, columns) = (self.min(rows, most), self.min(columns, most));
        self.call_products(common, block, rows, columns);
        let mut result = Ok(());
        self.when(terms.last, |c| {
            let stack = std::mem::replace(&mut c.common.tile, tile);
            c.rescale(common);
            result = c.results(block, row, column, [rows, columns]);
            c.common.tile = stack;
        });
        result
    }

    /// Where the sums of a tile go: to the stack, or to where they wait for the rest of their terms.
    fn sums(&mut self, common: &Common, block: &Block, [row, column]: [Value; 2]) -> Value {
        if self.kernel.blocks_at_a_time().is_none() {
            return self.common.tile;
        }
        let [row, column] =
            [row, column].map(|at| self.ins().ushr_imm_u(at, i64::from(TILE_COLUMNS.ilog2())));
        let rows = self.ceil_div(block.rows, TILE_COLUMNS as i64);
        let before = self.mul(column, rows);
        let number = self.add(before, row);
        let offset = self.mul_int(number, SUM_BYTES);
        self.add(common.sums, offset)
    }

    /// What the tile at `row` and `column` fetches: a part of the next panel of the operand that was packed at compile
    /// time. Each tile that reads the same panel takes another.
    fn soon(
        &mut self,
        common: &Common,
        block: &Block,
        a: Value,
        [row, column]: [Value; 2],
        terms: Terms,
    ) -> Value {
        let taps = self.mul(terms.blocks, common.taps);
        let part = self.mul_int(taps, (common.ahead * SCRATCH_ALIGN_BYTES) as i64);
        let shift = i64::from(TILE_COLUMNS.ilog2());
        if by_column(self.kernel) {
            let number = self.ins().ushr_imm_u(row, shift);
            let offset = self.mul(number, part);
            let next = self.add_int(column, TILE_COLUMNS as i64);
            let next = self.panel_of_b(common, block, terms, next);
            return self.add(next, offset);
        }
        // Two panels of A lie apart: tiles take parts of them in turn.
        let number = self.ins().ushr_imm_u(column, shift);
        let second = self.ins().band_imm_u(number, 1);
        let panel = self.add_int(second, 2);
        let panel = self.mul(panel, common.panel_bytes);
        let number = self.ins().ushr_imm_u(number, 1);
        let offset = self.mul(number, part);
        let next = self.add(a, panel);
        self.add(next, offset)
    }

    /// Takes the scales of the operands back.
    fn rescale(&mut self, common: &Common) {
        let [a, b] = common.unscale.map(|factor| self.load(I64, factor, 0));
        let different = self.ins().bxor(a, b);
        let one = self.int(i64::from(1f32.to_bits()));
        let scaled = self.ins().bxor(a, one);
        let any = self.ins().bor(different, scaled);
        self.when(any, |c| {
            let tile = c.common.tile;
            c.store(tile, common.words, RescaleWord::Tile.offset());
            for (at, factor) in (0..).zip([a, b]) {
                c.store(factor, common.words, RescaleWord::Factors.offset() + 8 * at);
            }
            c.cx.call_leaf(Leaf::Rescale(Rescale), common.words);
        });
    }

    /// Calls the leaf for so many rows and columns.
    fn call_products(&mut self, common: &Common, block: &Block, rows: Value, columns: Value) {
        let one = self.int(TILE_ROWS as i64);
        let (pieces, words, ahead) = (common.tiles.pieces, common.words, common.ahead);
        let adds = self.kernel.blocks_at_a_time().is_some();
        let few_rows = self.ins().icmp(IntCC::SignedLessThanOrEqual, rows, one);
        let few_columns = self.ins().icmp(IntCC::SignedLessThanOrEqual, columns, one);
        let call = |c: &mut Self, rows: usize, columns: usize, exact: bool| {
            c.cx.call_leaf(Leaf::Products(Products { rows, columns, pieces, ahead, adds, exact }), words);
        };
        self.if_else(
            block.exact,
            // The rows and columns that are not there are computed and not used.
            |c| {
                c.if_else(few_rows, |c| call(c, 1, 2, true), |c| call(c, 2, 2, true));
            },
            |c| {
                c.if_else(
                    few_rows,
                    |c| c.if_else(few_columns, |c| call(c, 1, 1, false), |c| call(c, 1, 2, false)),
                    |c| c.if_else(few_columns, |c| call(c, 2, 1, false), |c| call(c, 2, 2, false)),
                );
            },
        );
    }

    /// The epilogue of a tile, for its pieces of lines one after the other.
    fn results(
        &mut self,
        block: &Block,
        row: Value,
        column: Value,
        [rows, columns]: [Value; 2],
    ) -> Result<(), KernelError> {
        let row = self.add(block.row, row);
        let Some(lines) = block.lines else {
            let column = self.add(block.column, column);
            return self.epilogue(block.batch, Corner { row, column, rows, columns }, TILE_ROW_BYTES);
        };
        let tile = self.common.tile;
        let zero = self.int(0);
        let done = self.variable(zero);
        let mut result = Ok(());
        self.repeat_while(
            |c| {
                let at = c.get(done);
                c.ins().icmp(IntCC::SignedLessThan, at, columns)
            },
            |c| {
                let at = c.get(done);
                let place = c.add(column, at);
                let (line, place) = c.split(place, lines.step);
                let left = c.ins().isub(lines.width, place);
                let in_tile = c.ins().isub(columns, at);
                let count = c.min(left, in_tile);
                let some = c.ins().icmp(IntCC::SignedGreaterThan, count, zero);
                c.when(some, |c| {
                    let offset = c.mul_int(at, WORD);
                    c.common.tile = c.add(tile, offset);
                    let first = c.mul(line, lines.width);
                    let first = c.add(first, place);
                    let corner = Corner { row, column: c.add(block.column, first), rows, columns: count };
                    result = c.epilogue(block.batch, corner, TILE_ROW_BYTES);
                });
                let rest = c.ins().isub(lines.step, place);
                c.advance(done, rest);
            },
        );
        self.common.tile = tile;
        result
    }
}

/// How many cache lines a tile fetches ahead for each tap, so that the tiles of one panel of the operand packed at compile
/// time, which is read once in an item, fetch the next one.
pub(super) fn lines_ahead(kernel: &ContractKernel, tiles: Tiles) -> usize {
    let (bytes, readers) = match (&kernel.a, &kernel.b) {
        (_, Operand::Packed { .. }) => (BLOCK_BYTES, kernel.tile.rows / TILE_COLUMNS),
        (Operand::Packed { .. }, _) => {
            (2 * tiles.pieces * TILE_BYTES, (kernel.tile.columns / TILE_COLUMNS).next_multiple_of(2))
        }
        _ => return 0,
    };
    let lines = bytes / SCRATCH_ALIGN_BYTES;
    lines.div_ceil(readers.max(1)).min(MOST_AHEAD)
}
