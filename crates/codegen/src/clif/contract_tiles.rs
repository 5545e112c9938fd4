//! Contractions on the tile unit.
//!
//! An item is a block of C, as elsewhere. What is not constant of its operands is cut into pieces of bf16 in scratch
//! memory, once, a constant B a panel at a time; then leaves take the sums of 32 × 32 elements at a time over all terms, and the epilogue takes them
//! from the stack. Of an image, its lines are cut once for all taps of the window: a tap reads the same pairs of
//! channels from a place further on, so columns run over the lines with the elements between them that only windows
//! at their ends reach.

use crate::clif::contract_build::Contraction;
use crate::clif::tile_cut::{Image, VECTORS};
use crate::clif::tile_products::lines_ahead;
use crate::error::KernelError;
use crate::x64::Leaf;
use crate::x64::split::{self, Found};
use crate::x64::tiles::{self, TILE_ROW_BYTES, Unit};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;
use rabot_kernel::{
    BLOCK_BYTES, ContractKernel, KEPT_BYTES, Operand, Size, TILE_BYTES, TILE_COLUMNS, TILE_ROWS, TILE_TERMS,
    Tiles,
};
use rabot_tensor::DType;

/// Bytes of an f32, and of a pair of bf16.
const WORD: i64 = 4;

/// What does not change from item to item.
pub(super) struct Common {
    pub tiles: Tiles,
    /// Blocks of terms, and taps of a block.
    pub blocks: Value,
    pub taps: Value,
    /// Bytes of a panel of A, and of a column of B.
    pub panel_bytes: Value,
    /// Bytes from pair to pair of B.
    pub row_bytes: Value,
    /// Bytes of a panel of B in f32, where it is packed.
    pub b_panel_bytes: Value,
    /// Distances of taps.
    pub distances: Value,
    /// Words of a leaf's argument.
    pub words: Value,
    /// Masks of columns.
    pub masks: Value,
    /// Cache lines that the leaf of a tile fetches ahead for each tap.
    pub ahead: usize,
    /// What was found in A and in B.
    pub found: [Value; 2],
    /// What takes back the scales of A and B, an f32 each.
    pub unscale: [Value; 2],
    /// Pieces of A in scratch memory.
    pub a_block: Value,
    /// Sums of a block in scratch memory, tile after tile, where they wait.
    pub sums: Value,
}

/// A block of C, its operands at hand.
pub(super) struct Block<'b> {
    pub batch: &'b [Value],
    pub row: Value,
    pub rows: Value,
    pub a: Value,
    /// Pieces of B, or the panels of a constant one.
    pub b: Value,
    /// Columns of the tiles, those between lines included.
    pub columns: Value,
    /// The first column of the result.
    pub column: Value,
    pub lines: Option<BlockLines>,
    /// Not 0 where the pieces do not add up.
    pub exact: Value,
}

/// Columns that go in lines.
#[derive(Clone, Copy)]
pub(super) struct BlockLines {
    /// Columns from line to line of the tiles.
    pub step: Value,
    /// Columns of a line of the result.
    pub width: Value,
}

/// What scratch memory holds pieces of: start of A; start and block of B.
#[derive(Clone, Copy)]
struct Held {
    a: Variable,
    b: [Variable; 2],
}

/// Emits the work items of a contraction whose products the tile unit takes.
///
/// **Errors**: operands that are not in f32 or not in pieces, or an inconsistent description.
pub(super) fn emit(c: &mut Contraction, tiles: Tiles) -> Result<(), KernelError> {
    check(c, tiles)?;
    let kept = c.kernel.keeps_b.then_some(c.cx.scratch);
    if let Some(kept) = kept {
        c.cx.scratch = c.add_int(kept, KEPT_BYTES as i64);
    }
    c.common.tile = c.aligned_stack(TILE_COLUMNS * TILE_ROW_BYTES as usize);
    let image = c.image(tiles);
    let common = c.tile_common(tiles, image.as_ref(), kept);
    c.cx.call_leaf(Leaf::Unit(Unit::Take), common.words);
    c.tile_items(&common, image.as_ref(), kept)?;
    c.cx.call_leaf(Leaf::Unit(Unit::GiveBack), common.words);
    Ok(())
}

fn check(c: &Contraction, tiles: Tiles) -> Result<(), KernelError> {
    let kernel = c.kernel;
    let inconsistent = |message: &str| Err(KernelError::Inconsistent(message.to_owned()));
    if !c.cx.target.tiles {
        return inconsistent("tiles for a machine without a tile unit");
    }
    if !(1..=3).contains(&tiles.pieces) || kernel.accumulator != DType::F32 {
        return inconsistent("tiles of something else than one to three pieces of f32");
    }
    if kernel.keeps_b && matches!(kernel.b, Operand::Packed { .. }) {
        return inconsistent("a constant that is kept");
    }
    if tiles.least_rows > 0 && !matches!(kernel.b, Operand::Packed { .. }) {
        return inconsistent("panels that only the vector unit reads");
    }
    let whole = |size: usize| size > 0 && size.is_multiple_of(TILE_COLUMNS);
    if !whole(kernel.tile.rows) || (tiles.lines == 0 && !whole(kernel.tile.columns)) {
        return inconsistent("blocks for the tile unit that are not whole tiles");
    }
    if let Operand::Strided { k, .. } = &kernel.a
        && *k != Size::Const(1)
    {
        return inconsistent("rows for the tile unit whose terms are not adjacent");
    }
    if let Operand::Patches(patches) = &kernel.b
        && (patches.kernel.len() > 2 || (tiles.lines > 0) != (patches.kernel.len() == 2))
    {
        return inconsistent("lines of an image that does not have two axes");
    }
    let cut = if matches!(kernel.a, Operand::Packed { .. }) { DType::BF16 } else { DType::F32 };
    for (operand, needed) in [(&kernel.a, cut), (&kernel.b, DType::F32)] {
        let dtype = c.cx.arg(operand.arg())?.dtype;
        if dtype != needed {
            return Err(KernelError::DType { operation: "operand of the tile unit".to_owned(), dtype });
        }
    }
    Ok(())
}

/// True if columns are the outer loop of a block.
pub(super) fn by_column(kernel: &ContractKernel) -> bool {
    matches!(kernel.b, Operand::Packed { .. })
}

impl Contraction<'_, '_, '_> {
    fn tile_common(&mut self, tiles: Tiles, image: Option<&Image>, kept: Option<Value>) -> Common {
        let taps = self.kernel.taps() as i64;
        let blocks = self.ceil_div(self.common.k, taps * TILE_TERMS as i64);
        let piece = (tiles.pieces * TILE_BYTES) as i64;
        let distances = self.stack(8 * taps as usize);
        let row_bytes = match image {
            None => {
                let zero = self.int(0);
                self.store(zero, distances, 0);
                self.int(TILE_COLUMNS as i64 * WORD)
            }
            Some(image) => self.distances(image, distances),
        };
        let b_rows = self.mul_int(blocks, (tiles.pieces * TILE_ROWS) as i64);
        let b_bytes = self.mul(b_rows, row_bytes);
        let scratch = self.cx.scratch;
        let a_block = self.add(scratch, b_bytes);
        let panel_bytes = self.mul_int(blocks, piece * taps);
        let a_panels = match self.kernel.a {
            Operand::Packed { .. } => 0,
            Operand::Strided { .. } | Operand::Patches(_) => self.kernel.scratch_rows().div_ceil(TILE_ROWS),
        };
        let a_bytes = self.mul_int(panel_bytes, a_panels as i64);
        let (found, unscale) = match kept {
            Some(kept) => (self.add_int(kept, 16), self.add_int(kept, 24)),
            None => (self.stack(8), self.unscaled()),
        };
        Common {
            tiles,
            blocks,
            taps: self.int(taps),
            panel_bytes,
            row_bytes,
            b_panel_bytes: self.mul_int(blocks, BLOCK_BYTES as i64),
            distances,
            words: self.stack(8 * tiles::WORDS.max(split::WORDS)),
            masks: self.stack(8 * VECTORS as usize),
            ahead: lines_ahead(self.kernel, tiles),
            found: [self.stack(8), found],
            unscale: [self.unscaled(), unscale],
            a_block,
            sums: self.add(a_block, a_bytes),
        }
    }

    fn tile_items(
        &mut self,
        common: &Common,
        image: Option<&Image>,
        kept: Option<Value>,
    ) -> Result<(), KernelError> {
        let (tile, m, n) = (self.kernel.tile, self.common.m, self.common.n);
        let row_blocks = self.ceil_div(m, tile.rows as i64);
        let column_blocks = match image {
            Some(image) if image.block_lines > 0 => self.ceil_div(image.axes[0].output, image.block_lines),
            _ => self.ceil_div(n, tile.columns as i64),
        };
        let none = self.int(-1);
        let of_b = [0, 8].map(|at| kept.map_or(none, |kept| self.load(I64, kept, at)));
        let held = Held { a: self.variable(none), b: of_b.map(|of_b| self.variable(of_b)) };
        let mut result = Ok(());
        let (begin, end) = (self.cx.begin, self.cx.end);
        self.for_range(begin, end, 1, |c, item| {
            let (rest, column_block) = c.split(item, column_blocks);
            let (mut rest, row_block) = c.split(rest, row_blocks);
            let mut batch = Vec::new();
            for &extent in c.kernel.batch.iter().rev() {
                let extent = c.size(extent);
                let (quotient, coord) = c.split(rest, extent);
                batch.insert(0, coord);
                rest = quotient;
            }
            let row = c.mul_int(row_block, tile.rows as i64);
            result = c.tile_item(common, image, &batch, row, column_block, held);
        });
        if let Some(kept) = kept {
            for (at, variable) in [0, 8].into_iter().zip(held.b) {
                let value = self.get(variable);
                self.store(value, kept, at);
            }
        }
        result
    }

    /// Quotient and rest.
    pub(super) fn split(&mut self, value: Value, by: Value) -> (Value, Value) {
        let quotient = self.ins().udiv(value, by);
        let product = self.mul(quotient, by);
        (quotient, self.ins().isub(value, product))
    }

    fn tile_item(
        &mut self,
        common: &Common,
        image: Option<&Image>,
        batch: &[Value],
        row: Value,
        column_block: Value,
        held: Held,
    ) -> Result<(), KernelError> {
        let (tile, m) = (self.kernel.tile, self.common.m);
        let (most, rows) = (self.int(tile.rows as i64), self.ins().isub(m, row));
        let rows = self.min(rows, most);
        let a = self.pieces_of_a(common, batch, row, rows, held.a)?;
        let mut block = match image {
            None => self.packed_b(common, batch, column_block)?,
            Some(image) => self.pieces_of_b(common, image, batch, column_block, held.b)?,
        };
        block = Block { batch, row, rows, a, ..block };
        block.exact = self.is_exact(common);
        self.tile_block(common, &block)
    }

    /// Not 0 if pieces would not do: an infinity or NaN.
    fn is_exact(&mut self, common: &Common) -> Value {
        let [a, b] = common.found.map(|found| self.load(I64, found, 0));
        let any = self.ins().bor(a, b);
        self.ins().band_imm_u(any, Found::NotFinite as i64)
    }

    /// The panels of A of a block, cut into pieces if they are not.
    fn pieces_of_a(
        &mut self,
        common: &Common,
        batch: &[Value],
        row: Value,
        rows: Value,
        held: Variable,
    ) -> Result<Value, KernelError> {
        let zero = self.int(0);
        match &self.kernel.a {
            Operand::Packed { arg, batch: strides } => {
                self.store(zero, common.found[0], 0);
                let (start, _) = self.matrix(*arg, Size::Const(0), batch, strides)?;
                let panel = self.ins().ushr_imm_u(row, i64::from(TILE_ROWS.ilog2()));
                let offset = self.mul(panel, common.panel_bytes);
                Ok(self.add(start, offset))
            }
            Operand::Strided { arg, offset, batch: strides, outer, .. } => {
                let (start, bytes) = self.matrix(*arg, *offset, batch, strides)?;
                let outer = self.size(*outer);
                let line = self.mul_int(outer, bytes);
                let offset = self.mul(row, line);
                let start = self.add(start, offset);
                let before = self.get(held);
                let fresh = self.ins().icmp(IntCC::NotEqual, before, start);
                self.when(fresh, |c| {
                    c.set(held, start);
                    c.cut(common, 0, |c, scale| c.cut_rows(common, start, line, rows, scale));
                });
                Ok(common.a_block)
            }
            Operand::Patches(_) => Err(KernelError::Inconsistent("patches as the left operand".to_owned())),
        }
    }

    /// The block of a packed B.
    fn packed_b<'b>(
        &mut self,
        common: &Common,
        batch: &[Value],
        column_block: Value,
    ) -> Result<Block<'b>, KernelError> {
        let zero = self.int(0);
        self.store(zero, common.found[1], 0);
        let Operand::Packed { arg, batch: strides } = &self.kernel.b else {
            return Err(KernelError::Inconsistent("a right operand that is not packed".to_owned()));
        };
        let (start, _) = self.matrix(*arg, Size::Const(0), batch, strides)?;
        let column = self.mul_int(column_block, self.kernel.tile.columns as i64);
        let panel = self.ins().ushr_imm_u(column, i64::from(TILE_COLUMNS.ilog2()));
        let offset = self.mul(panel, common.b_panel_bytes);
        let b = self.add(start, offset);
        let (n, most) = (self.common.n, self.int(self.kernel.tile.columns as i64));
        let left = self.ins().isub(n, column);
        let columns = self.min(left, most);
        Ok(Block { batch: &[], row: zero, rows: zero, a: zero, b, columns, column, lines: None, exact: zero })
    }

    /// The block of a B that is cut into pieces.
    fn pieces_of_b<'b>(
        &mut self,
        common: &Common,
        image: &Image,
        batch: &[Value],
        column_block: Value,
        held: [Variable; 2],
    ) -> Result<Block<'b>, KernelError> {
        let (arg, offset, strides) = match &self.kernel.b {
            Operand::Strided { arg, offset, batch, .. } => (*arg, *offset, batch),
            Operand::Patches(p) => (p.arg, p.offset, &p.batch),
            Operand::Packed { .. } => {
                return Err(KernelError::Inconsistent("a packed right operand".to_owned()));
            }
        };
        let (start, _) = self.matrix(arg, offset, batch, strides)?;
        let zero = self.int(0);
        let (first, size) = if image.block_lines > 0 {
            (self.mul_int(column_block, image.block_lines), self.int(image.block_lines))
        } else {
            let columns = self.kernel.tile.columns as i64;
            (self.mul_int(column_block, columns), self.int(columns))
        };
        let axis = &image.axes[usize::from(image.block_lines == 0)];
        let left = self.ins().isub(axis.output, first);
        let count = self.min(left, size);
        let [before, place] = held.map(|variable| self.get(variable));
        let other = self.ins().icmp(IntCC::NotEqual, before, start);
        let moved = self.ins().icmp(IntCC::NotEqual, place, first);
        let fresh = self.ins().bor(other, moved);
        self.when(fresh, |c| {
            c.set(held[0], start);
            c.set(held[1], first);
            c.cut(common, 1, |c, scale| c.cut_image(common, image, start, [first, count], scale));
        });
        let b = self.cx.scratch;
        let block = Block {
            batch: &[],
            row: zero,
            rows: zero,
            a: zero,
            b,
            columns: count,
            column: first,
            lines: None,
            exact: zero,
        };
        if image.block_lines == 0 {
            return Ok(block);
        }
        let width = image.axes[1].output;
        let before_last = self.add_int(count, -1);
        let columns = self.mul(before_last, image.width);
        Ok(Block {
            columns: self.add(columns, width),
            column: self.mul(first, width),
            lines: Some(BlockLines { step: image.width, width }),
            ..block
        })
    }
}
