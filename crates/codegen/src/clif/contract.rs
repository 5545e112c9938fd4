//! Contractions: batches of matrix products with an epilogue.
//!
//! An item is a block of C. Its operands are packed into scratch memory where they were not packed at compile time
//! and cannot be read in place; then micro-kernels compute tile after tile, each over the whole sum, and the
//! epilogue takes the tile from the stack while it is in the first-level cache. The operand that was packed at
//! compile time, mostly the larger one, is the outer loop, so it is read once per item.

use crate::clif::context::{CodeTarget, KernelCx};
use crate::clif::contract_build::{Common, Contraction, WORD};
use crate::clif::contract_epilogue::Corner;
use crate::clif::contract_leaf::{few_rows_panels, is_wide};
use crate::clif::contract_micro::{Micro, Rows, Shape};
use crate::clif::contract_tiles;
use crate::clif::pack::{Lines, Source};
use crate::error::KernelError;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;
use rabot_kernel::{ContractKernel, IN_PLACE_ROWS, Operand, Patches, SCRATCH_ALIGN_BYTES, Size};
use rabot_tensor::DType;

/// Accumulators (vectors) of micro-kernels that take several panels: enough chains to hide the latency of a
/// multiply-add (4 cycles at 2 a cycle), and that many streams of B at most.
const FEW_ROWS_VECTORS: usize = 8;

/// Elements of a tile at most.
const MOST_TILE: usize = 512;

/// Emits the work items `begin..end` of a contraction. The function is open at its entry block; it is left open.
///
/// **Errors**: operands, accumulator or epilogue that are not compiled, or an inconsistent description.
pub fn emit_contract(cx: &mut KernelCx, kernel: &ContractKernel) -> Result<(), KernelError> {
    check(cx, kernel)?;
    cx.movable_loads = kernel.stores.len() <= 1;
    let common = common(cx, kernel);
    let mut contraction = Contraction { cx, kernel, common };
    match kernel.tiles {
        None => on_vectors(&mut contraction),
        Some(tiles) if tiles.least_rows == 0 => contract_tiles::emit(&mut contraction, tiles),
        Some(tiles) => {
            let least = contraction.int(tiles.least_rows as i64);
            let many = contraction.ins().icmp(IntCC::SignedGreaterThanOrEqual, common.m, least);
            let (mut on_tiles, mut others) = (Ok(()), Ok(()));
            contraction.if_else(
                many,
                |c| on_tiles = contract_tiles::emit(c, tiles),
                |c| others = on_vectors(c),
            );
            on_tiles.and(others)
        }
    }
}

fn on_vectors(contraction: &mut Contraction) -> Result<(), KernelError> {
    let shapes = Shapes::new(contraction.kernel, contraction.cx.target);
    contraction.common.tile = contraction.aligned_stack(shapes.tile_bytes(contraction.kernel));
    contraction.items(&shapes)
}

fn check(cx: &KernelCx, kernel: &ContractKernel) -> Result<(), KernelError> {
    let tile = kernel.tile;
    let inconsistent = |message: String| Err(KernelError::Inconsistent(message));
    if tile.mr == 0
        || tile.nr == 0
        || !tile.nr.is_multiple_of(4)
        || (kernel.tiles.is_none() && tile.mr * tile.nr > MOST_TILE)
    {
        return inconsistent(format!("a micro-kernel of {} × {}", tile.mr, tile.nr));
    }
    let in_lines = kernel.tiles.is_some_and(|tiles| tiles.lines > 0);
    let whole = tile.rows.is_multiple_of(tile.mr) && (in_lines || tile.columns.is_multiple_of(tile.nr));
    if tile.rows == 0 || tile.columns == 0 || !whole {
        let (rows, columns) = (tile.rows, tile.columns);
        return inconsistent(format!("blocks of {rows} × {columns} of tiles of {} × {}", tile.mr, tile.nr));
    }
    if !matches!(kernel.accumulator, DType::F32 | DType::I32) {
        return Err(KernelError::DType { operation: "contraction".to_owned(), dtype: kernel.accumulator });
    }
    if matches!(kernel.a, Operand::Patches(_)) {
        return inconsistent("patches are the right operand of a contraction".to_owned());
    }
    let panels = if kernel.tiles.is_some() { DType::BF16 } else { DType::F32 };
    check_operand(cx, kernel, &kernel.a, &[panels])?;
    check_operand(cx, kernel, &kernel.b, &[DType::F32, DType::F16, DType::BF16])
}

/// `packed` are the dtypes that panels of floats may have.
fn check_operand(
    cx: &KernelCx,
    kernel: &ContractKernel,
    operand: &Operand,
    packed: &[DType],
) -> Result<(), KernelError> {
    let dtype = cx.arg(operand.arg())?.dtype;
    let allowed: &[DType] = match (operand, kernel.accumulator == DType::I32) {
        (Operand::Packed { .. }, false) => packed,
        (Operand::Packed { .. }, true) => &[DType::I16],
        (_, false) => &[DType::F32, DType::F16, DType::BF16],
        (_, true) => &[DType::I8, DType::U8],
    };
    if !allowed.contains(&dtype) {
        return Err(KernelError::DType { operation: "operand of a contraction".to_owned(), dtype });
    }
    let batch = match operand {
        Operand::Packed { batch, .. } | Operand::Strided { batch, .. } => batch,
        Operand::Patches(patches) => {
            check_patches(patches)?;
            &patches.batch
        }
    };
    let (strides, dims) = (batch.len(), kernel.batch.len());
    if strides == dims {
        return Ok(());
    }
    Err(KernelError::Inconsistent(format!("{strides} batch strides for {dims} batch dims")))
}

fn check_patches(patches: &Patches) -> Result<(), KernelError> {
    let p = patches;
    let axes = p.input.len();
    let sizes = [p.input_strides.len(), p.output.len(), p.pads.len()];
    let lengths = [sizes, [p.kernel.len(), p.strides.len(), p.dilations.len()]].concat();
    if axes == 0 || lengths.iter().any(|length| *length != axes) {
        return Err(KernelError::Inconsistent(format!("patches of {axes} axes with lists of {lengths:?}")));
    }
    if [&p.kernel, &p.strides, &p.dilations].into_iter().flatten().any(|value| *value == 0) {
        return Err(KernelError::Inconsistent(
            "patches with an extent, a step or a distance of 0".to_owned(),
        ));
    }
    Ok(())
}

fn common(cx: &mut KernelCx, kernel: &ContractKernel) -> Common {
    let [m, n, k] = [kernel.m, kernel.n, kernel.k].map(|size| cx.size(size));
    let scratch = cx.scratch;
    let nothing = cx.builder.ins().iconst(I64, 0);
    let start = Common {
        m,
        n,
        k,
        steps: k,
        line_bytes: k,
        b_line_bytes: k,
        b_block: scratch,
        a_block: scratch,
        tile: nothing,
    };
    let mut c = Contraction { cx, kernel, common: start };
    let steps = if c.pairs() { c.ceil_div(k, 2) } else { k };
    let line_bytes = c.mul_int(steps, WORD);
    let a_block = if kernel.packs_b() {
        let bytes = c.mul_int(line_bytes, kernel.scratch_columns() as i64);
        let bytes = c.add_int(bytes, SCRATCH_ALIGN_BYTES as i64 - 1);
        let mask = c.int(-(SCRATCH_ALIGN_BYTES as i64));
        let bytes = c.ins().band(bytes, mask);
        c.add(scratch, bytes)
    } else {
        scratch
    };
    let word = c.b_word();
    let b_line_bytes = c.mul_int(steps, word);
    Common { steps, line_bytes, b_line_bytes, a_block, ..start }
}

/// True if columns are the outer loop of a block.
fn by_column(kernel: &ContractKernel) -> bool {
    matches!(kernel.b, Operand::Packed { .. })
}

/// The micro-kernels of a kernel.
struct Shapes {
    /// Fewest rows first; of equal rows, most panels first. The last one has `mr` rows, or all that there are.
    shapes: Vec<Shape>,
}

impl Shapes {
    fn new(kernel: &ContractKernel, target: CodeTarget) -> Self {
        let tile = kernel.tile;
        let (vectors, wide) = (target.vectors, is_wide(kernel, target));
        let mut rows: Vec<usize> = match kernel.m {
            Size::Const(m) => {
                let m = usize::try_from(m).unwrap_or(0);
                let whole = (m >= tile.mr || m == 0).then_some(tile.mr);
                [m % tile.mr].into_iter().filter(|rows| *rows > 0).chain(whole).collect()
            }
            Size::Param(_) => {
                [1, 2, 4, 8].into_iter().filter(|rows| *rows < tile.mr).chain([tile.mr]).collect()
            }
        };
        rows.dedup();
        let per_panel = if vectors { tile.nr / 4 } else { tile.nr };
        let mut shapes = Vec::new();
        for rows in rows {
            let panels =
                if wide { few_rows_panels(rows, tile.nr) } else { FEW_ROWS_VECTORS / (rows * per_panel) };
            let enough = match kernel.n {
                Size::Const(n) => n >= (panels * tile.nr) as i64,
                Size::Param(_) => true,
            };
            let all = match kernel.m {
                Size::Const(m) => m == rows as i64 || !by_column(kernel),
                Size::Param(_) => true,
            };
            if panels > 1 && enough && all && panels * tile.nr <= tile.columns {
                shapes.push(Shape { rows, panels });
            }
            shapes.push(Shape { rows, panels: 1 });
        }
        Shapes { shapes }
    }

    /// Distance of rows of the tile on the stack, in bytes.
    fn tile_row(&self, kernel: &ContractKernel) -> i64 {
        let panels = self.shapes.iter().map(|shape| shape.panels).max().unwrap_or(1);
        (panels * kernel.tile.nr) as i64 * WORD
    }

    fn tile_bytes(&self, kernel: &ContractKernel) -> usize {
        kernel.tile.mr * self.tile_row(kernel) as usize
    }
}

/// A block of C, its operands at hand.
struct Block<'s> {
    shapes: &'s Shapes,
    batch: &'s [Value],
    row: Value,
    column: Value,
    rows: Value,
    columns: Value,
    a: BlockRows,
    /// Panels of B, one after the other.
    b: Value,
}

/// A of a block. At least one is there.
#[derive(Clone, Copy, Default)]
struct BlockRows {
    /// Panels, one after the other.
    panels: Option<Value>,
    /// The matrix itself, for tiles of few rows: first row, and bytes from row to row.
    in_place: Option<(Value, Value)>,
}

impl Contraction<'_, '_, '_> {
    fn items(&mut self, shapes: &Shapes) -> Result<(), KernelError> {
        let (tile, m, n) = (self.kernel.tile, self.common.m, self.common.n);
        let row_blocks = self.ceil_div(m, tile.rows as i64);
        let column_blocks = self.ceil_div(n, tile.columns as i64);
        let none = self.int(-1);
        let packed = [self.variable(none), self.variable(none), self.variable(none)];
        let mut result = Ok(());
        let (begin, end) = (self.cx.begin, self.cx.end);
        self.for_range(begin, end, 1, |c, item| {
            let split = |c: &mut Self, item: Value, by: Value| {
                let quotient = c.ins().udiv(item, by);
                let product = c.mul(quotient, by);
                (quotient, c.ins().isub(item, product))
            };
            let (rest, column_block) = split(c, item, column_blocks);
            let (mut rest, row_block) = split(c, rest, row_blocks);
            let mut batch = Vec::new();
            for &extent in c.kernel.batch.iter().rev() {
                let extent = c.size(extent);
                let (quotient, coord) = split(c, rest, extent);
                batch.insert(0, coord);
                rest = quotient;
            }
            let row = c.mul_int(row_block, tile.rows as i64);
            let column = c.mul_int(column_block, tile.columns as i64);
            result = c.item(shapes, &batch, row, column, packed);
        });
        result
    }

    /// One block of C. `packed` tells for which A, B and column the scratch memory holds panels.
    fn item(
        &mut self,
        shapes: &Shapes,
        batch: &[Value],
        row: Value,
        column: Value,
        packed: [Variable; 3],
    ) -> Result<(), KernelError> {
        let (tile, m, n) = (self.kernel.tile, self.common.m, self.common.n);
        let (rows, columns) = (self.ins().isub(m, row), self.ins().isub(n, column));
        let most = [tile.rows, tile.columns].map(|most| self.int(most as i64));
        let (rows, columns) = (self.min(rows, most[0]), self.min(columns, most[1]));
        let a = self.block_rows(batch, row, rows, packed[0])?;
        let b = self.block_columns(batch, column, columns, &packed[1..])?;
        self.block(&Block { shapes, batch, row, column, rows, columns, a, b })
    }

    /// Start of a matrix of the batch, and bytes of an element.
    pub(super) fn matrix(
        &mut self,
        arg: usize,
        offset: Size,
        batch: &[Value],
        strides: &[Size],
    ) -> Result<(Value, i64), KernelError> {
        let arg = self.cx.arg(arg)?;
        let bytes = arg.dtype.size_bytes() as i64;
        let terms: Vec<(Value, Size)> = batch.iter().copied().zip(strides.iter().copied()).collect();
        let element = self.element(Some(offset), &terms);
        let offset = self.mul_int(element, bytes);
        Ok((self.add(arg.pointer, offset), bytes))
    }

    fn block_rows(
        &mut self,
        batch: &[Value],
        row: Value,
        rows: Value,
        packed: Variable,
    ) -> Result<BlockRows, KernelError> {
        let kernel = self.kernel;
        match &kernel.a {
            Operand::Packed { arg, batch: strides } => {
                let (start, _) = self.matrix(*arg, Size::Const(0), batch, strides)?;
                let offset = self.mul(row, self.common.line_bytes);
                let panels = Some(self.add(start, offset));
                Ok(BlockRows { panels, in_place: None })
            }
            Operand::Strided { arg, offset, batch: strides, outer, zero_point, k } => {
                let (start, bytes) = self.matrix(*arg, *offset, batch, strides)?;
                let outer_value = self.size(*outer);
                let row_bytes = self.mul_int(outer_value, bytes);
                let offset = self.mul(row, row_bytes);
                let start = self.add(start, offset);
                let in_place = kernel.reads_a_in_place().then_some((start, row_bytes));
                if !kernel.packs_a() {
                    return Ok(BlockRows { panels: None, in_place });
                }
                let source = Source { dtype: self.cx.arg(*arg)?.dtype, zero_point: *zero_point };
                let count = if in_place.is_some() { self.rows_in_panels(rows) } else { rows };
                let lines = Lines { source, start, count, outer: *outer, k: *k };
                let held = self.get(packed);
                let fresh = self.ins().icmp(IntCC::NotEqual, held, start);
                self.when(fresh, |c| {
                    c.pack_strided(&lines, c.common.a_block, kernel.tile.mr);
                    c.set(packed, start);
                });
                Ok(BlockRows { panels: Some(self.common.a_block), in_place })
            }
            Operand::Patches(_) => Err(KernelError::Inconsistent("patches as the left operand".to_owned())),
        }
    }

    /// Rows but for those of a last tile that is read in place.
    fn rows_in_panels(&mut self, rows: Value) -> Value {
        let (mr, most) = (self.int(self.kernel.tile.mr as i64), self.int(IN_PLACE_ROWS as i64));
        let rest = self.ins().urem(rows, mr);
        let few = self.ins().icmp(IntCC::SignedLessThanOrEqual, rest, most);
        let whole = self.ins().isub(rows, rest);
        self.ins().select(few, whole, rows)
    }

    /// Panels of the columns of a block, packed if they are not.
    fn block_columns(
        &mut self,
        batch: &[Value],
        column: Value,
        columns: Value,
        packed: &[Variable],
    ) -> Result<Value, KernelError> {
        let kernel = self.kernel;
        let (arg, offset, strides, zero_point) = match &kernel.b {
            Operand::Packed { arg, batch } => (*arg, Size::Const(0), batch, 0),
            Operand::Strided { arg, offset, batch, zero_point, .. } => (*arg, *offset, batch, *zero_point),
            Operand::Patches(p) => (p.arg, p.offset, &p.batch, p.zero_point),
        };
        let (start, bytes) = self.matrix(arg, offset, batch, strides)?;
        let source = Source { dtype: self.cx.arg(arg)?.dtype, zero_point };
        if matches!(kernel.b, Operand::Packed { .. }) {
            let offset = self.mul(column, self.common.b_line_bytes);
            return Ok(self.add(start, offset));
        }
        let [held_start, held_column] = [packed[0], packed[1]].map(|variable| self.get(variable));
        let other = self.ins().icmp(IntCC::NotEqual, held_start, start);
        let moved = self.ins().icmp(IntCC::NotEqual, held_column, column);
        let fresh = self.ins().bor(other, moved);
        self.when(fresh, |c| {
            match &kernel.b {
                Operand::Strided { outer, k, .. } => {
                    let (outer, k) = (*outer, *k);
                    let outer_value = c.size(outer);
                    let offset = c.mul(column, outer_value);
                    let offset = c.mul_int(offset, bytes);
                    let start = c.add(start, offset);
                    let lines = Lines { source, start, count: columns, outer, k };
                    c.pack_strided(&lines, c.common.b_block, kernel.tile.nr);
                }
                Operand::Patches(patches) => match c.wide_lines(patches, source) {
                    Some(lines) => c.pack_patches_wide(patches, lines, start, column, columns),
                    None => c.pack_patches(patches, source, start, column, columns),
                },
                Operand::Packed { .. } => {}
            }
            c.set(packed[0], start);
            c.set(packed[1], column);
        });
        Ok(self.common.b_block)
    }

    /// Tile after tile; the operand packed at compile time is the outer loop.
    fn block(&mut self, block: &Block) -> Result<(), KernelError> {
        let mr = self.kernel.tile.mr as i64;
        let zero = self.int(0);
        let mut result = Ok(());
        let mut columns = |c: &mut Self, row: Option<Value>| {
            let (column, width) = (c.variable(zero), c.variable(zero));
            c.repeat_while(
                |c| {
                    let at = c.get(column);
                    c.ins().icmp(IntCC::SignedLessThan, at, block.columns)
                },
                |c| {
                    let at = c.get(column);
                    let mut tile = |c: &mut Self, row: Value| match c.tile(block, row, at) {
                        Ok(done) => c.set(width, done),
                        Err(error) => result = Err(error),
                    };
                    match row {
                        Some(row) => tile(c, row),
                        None => c.for_range(zero, block.rows, mr, tile),
                    }
                    let width = c.get(width);
                    c.advance(column, width);
                },
            );
        };
        if by_column(self.kernel) {
            columns(self, None);
        } else {
            self.for_range(zero, block.rows, mr, |c, row| columns(c, Some(row)));
        }
        result
    }

    /// The tile at `row` and `column` of the block; gives the number of columns it took.
    fn tile(&mut self, block: &Block, row: Value, column: Value) -> Result<Value, KernelError> {
        let tile_row = block.shapes.tile_row(self.kernel);
        let mr = self.int(self.kernel.tile.mr as i64);
        let left = self.ins().isub(block.columns, column);
        let rows = self.ins().isub(block.rows, row);
        let rows = self.min(rows, mr);
        let joined = self.cx.builder.create_block();
        let width = self.cx.builder.append_block_param(joined, I64);
        let last = block.shapes.shapes.len() - 1;
        for (at, &shape) in block.shapes.shapes.iter().enumerate() {
            let next = (at < last).then(|| {
                let fits = self.fits(block, shape, rows, left);
                let (here, next) = (self.cx.builder.create_block(), self.cx.builder.create_block());
                self.ins().brif(fits, here, &[], next, &[]);
                self.cx.builder.seal_block(here);
                self.cx.builder.seal_block(next);
                self.cx.builder.switch_to_block(here);
                next
            });
            let micro = self.micro(block, shape, row, rows, column);
            match self.leaf_of(&micro, tile_row) {
                Some(leaf) => self.call_sum(&micro, leaf),
                None => self.micro_kernel(&micro, tile_row),
            }
            let width = self.int((shape.panels * self.kernel.tile.nr) as i64);
            self.ins().jump(joined, &[width.into()]);
            if let Some(next) = next {
                self.cx.builder.switch_to_block(next);
            }
        }
        self.cx.builder.seal_block(joined);
        self.cx.builder.switch_to_block(joined);
        let (first_row, first_column) = (self.add(block.row, row), self.add(block.column, column));
        let columns = self.min(left, width);
        let corner = Corner { row: first_row, column: first_column, rows, columns };
        self.epilogue(block.batch, corner, tile_row)?;
        Ok(width)
    }

    /// True if a micro-kernel of that shape may compute a tile of `rows` rows with `left` columns to go.
    fn fits(&mut self, block: &Block, shape: Shape, rows: Value, left: Value) -> Value {
        let most = self.int(shape.rows as i64);
        if shape.panels == 1 {
            return self.ins().icmp(IntCC::SignedLessThanOrEqual, rows, most);
        }
        // Going down the columns, the next rows would find other panels than these.
        let all = if by_column(self.kernel) { block.rows } else { rows };
        let all = self.ins().icmp(IntCC::SignedLessThanOrEqual, all, most);
        let width = self.int((shape.panels * self.kernel.tile.nr) as i64);
        let wide = self.ins().icmp(IntCC::SignedGreaterThanOrEqual, left, width);
        self.ins().band(all, wide)
    }

    fn micro(&mut self, block: &Block, shape: Shape, row: Value, rows: Value, column: Value) -> Micro {
        let rows = match (block.a.panels, block.a.in_place) {
            (_, Some((start, row_bytes))) if shape.rows <= IN_PLACE_ROWS => {
                Rows::Pointers(self.row_pointers(shape, start, row_bytes, row, rows))
            }
            (panels, _) => {
                // Only shapes of few rows occur where nothing is packed.
                let start = panels.unwrap_or(self.common.a_block);
                let offset = self.mul(row, self.common.line_bytes);
                Rows::Panel(self.add(start, offset))
            }
        };
        let offset = self.mul(column, self.common.b_line_bytes);
        let first = self.add(block.b, offset);
        let panel_bytes = self.mul_int(self.common.b_line_bytes, self.kernel.tile.nr as i64);
        let mut panels = vec![first];
        while panels.len() < shape.panels {
            let next = self.add(panels[panels.len() - 1], panel_bytes);
            panels.push(next);
        }
        Micro { shape, rows, panels }
    }

    /// Pointers to the rows of a tile. Rows that are not there are read as the last one that is.
    fn row_pointers(
        &mut self,
        shape: Shape,
        start: Value,
        row_bytes: Value,
        row: Value,
        rows: Value,
    ) -> Vec<Value> {
        let offset = self.mul(row, row_bytes);
        let mut pointer = self.add(start, offset);
        let mut pointers = vec![pointer];
        for index in 1..shape.rows {
            let number = self.int(index as i64);
            let exists = self.ins().icmp(IntCC::SignedLessThan, number, rows);
            let next = self.add(pointer, row_bytes);
            pointer = self.ins().select(exists, next, pointer);
            pointers.push(pointer);
        }
        pointers
    }
}
