//! From accumulators to results: the epilogue of a tile.
//!
//! The tile lies on the stack. Its columns are done in vectors first, then one by one where the tile is cut; each
//! goes down all rows. Lanes and scalars take the same primitive operations, so the bits are the same wherever a
//! tile is cut.

use crate::clif::access::ByteStride;
use crate::clif::contract_build::{Contraction, WORD};
use crate::clif::contract_leaf::Epilogue;
use crate::clif::expr::{CoordValue, Memo, Point, Val, eval, store};
use crate::error::KernelError;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;
use rabot_kernel::{Access, Expr, Size};

/// Part of C that lies in the tile.
#[derive(Clone, Copy)]
pub(super) struct Corner {
    /// Number of the first row.
    pub row: Value,
    /// Number of the first column.
    pub column: Value,
    /// Valid rows.
    pub rows: Value,
    /// Valid columns.
    pub columns: Value,
}

/// A vector or an element of the tile.
struct Element {
    row: CoordValue,
    column: Value,
    line: Option<Value>,
    /// Where its accumulators lie.
    address: Value,
    wide: bool,
}

impl Contraction<'_, '_, '_> {
    /// Emits the epilogue of a tile for the batch coordinates `batch`; rows of the tile are `tile_row` bytes apart.
    pub fn epilogue(&mut self, batch: &[Value], corner: Corner, tile_row: i64) -> Result<(), KernelError> {
        let wide = self.wide_epilogue();
        if let Some(width) = self.kernel.line {
            return match wide {
                Some(leaf) => {
                    self.wide_epilogue_in_lines(&leaf, batch, corner, tile_row, width);
                    Ok(())
                }
                None => self.epilogue_in_lines(batch, corner, tile_row, width),
            };
        }
        if let Some(leaf) = wide {
            let start = self.int(0);
            self.call_epilogue(&leaf, batch, corner, start, None, tile_row);
            return Ok(());
        }
        let lanes = self.lanes() as i64;
        let zero = self.int(0);
        let done = self.variable(zero);
        let mut result = Ok(());
        for (wide, step) in [(true, lanes), (false, 1)] {
            if wide && lanes == 1 {
                continue;
            }
            let end = self.add_int(corner.columns, 1 - step);
            self.repeat_while(
                |c| {
                    let at = c.get(done);
                    c.ins().icmp(IntCC::SignedLessThan, at, end)
                },
                |c| {
                    let at = c.get(done);
                    if let Err(error) = c.epilogue_column(batch, corner, at, None, tile_row, wide) {
                        result = Err(error);
                    }
                    let next = c.add_int(at, step);
                    c.set(done, next);
                },
            );
        }
        result
    }

    /// As `epilogue` for columns in lines of `width`: a vector of columns lies in one line, so that it is contiguous
    /// also where there are gaps between lines.
    fn epilogue_in_lines(
        &mut self,
        batch: &[Value],
        corner: Corner,
        tile_row: i64,
        width: Size,
    ) -> Result<(), KernelError> {
        let lanes = self.lanes() as i64;
        let zero = self.int(0);
        let (done, step) = (self.variable(zero), self.variable(zero));
        let mut result = Ok(());
        self.repeat_while(
            |c| {
                let at = c.get(done);
                c.ins().icmp(IntCC::SignedLessThan, at, corner.columns)
            },
            |c| {
                let at = c.get(done);
                let (line, end) = c.rest_of_line(corner, at, width);
                let last = c.add_int(at, lanes);
                let fits = c.ins().icmp(IntCC::SignedLessThanOrEqual, last, end);
                let (mut many, mut one) = (Ok(()), Ok(()));
                c.if_else(
                    fits,
                    |c| {
                        many = c.epilogue_column(batch, corner, at, Some(line), tile_row, lanes > 1);
                        let count = c.int(lanes);
                        c.set(step, count);
                    },
                    |c| {
                        one = c.epilogue_column(batch, corner, at, Some(line), tile_row, false);
                        let count = c.int(1);
                        c.set(step, count);
                    },
                );
                result = many.and(one);
                let step = c.get(step);
                c.advance(done, step);
            },
        );
        result
    }

    /// As `epilogue` by a leaf, for the columns of one line after the other.
    fn wide_epilogue_in_lines(
        &mut self,
        leaf: &Epilogue,
        batch: &[Value],
        corner: Corner,
        tile_row: i64,
        width: Size,
    ) {
        let zero = self.int(0);
        let done = self.variable(zero);
        self.repeat_while(
            |c| {
                let at = c.get(done);
                c.ins().icmp(IntCC::SignedLessThan, at, corner.columns)
            },
            |c| {
                let at = c.get(done);
                let (line, end) = c.rest_of_line(corner, at, width);
                let column = c.add(corner.column, at);
                let columns = c.ins().isub(end, at);
                c.call_epilogue(leaf, batch, Corner { column, columns, ..corner }, at, Some(line), tile_row);
                c.set(done, end);
            },
        );
    }

    /// The line of the column `at` columns from the corner, and how many columns from there the line, or the tile, ends.
    fn rest_of_line(&mut self, corner: Corner, at: Value, width: Size) -> (Value, Value) {
        let column = self.add(corner.column, at);
        let line = self.line_of(column, width);
        let extent = self.size(width);
        let start = self.mul(line, extent);
        let end = self.add(start, extent);
        let end = self.ins().isub(end, corner.column);
        (line, self.min(end, corner.columns))
    }

    /// The line of a column: `column / width`.
    fn line_of(&mut self, column: Value, width: Size) -> Value {
        if let (Size::Const(width), Size::Const(columns)) = (width, self.kernel.n)
            && width > 0
            && columns > 0
            && width.checked_mul(columns).is_some_and(|product| product < 1 << 32)
        {
            // The factor is less than `width / 2^32` of its value too large, which adds less than 1 / width to the
            // quotient of any column: exact.
            let factor = (1i64 << 32).div_euclid(width) + i64::from((1i64 << 32) % width != 0);
            let scaled = self.mul_int(column, factor);
            let bits = self.int(32);
            return self.ins().ushr(scaled, bits);
        }
        let width = self.size(width);
        self.ins().udiv(column, width)
    }

    /// All rows of a vector of columns, or of one column, `at` columns from the corner.
    fn epilogue_column(
        &mut self,
        batch: &[Value],
        corner: Corner,
        at: Value,
        line: Option<Value>,
        tile_row: i64,
        wide: bool,
    ) -> Result<(), KernelError> {
        let column = self.add(corner.column, at);
        let offset = self.mul_int(at, WORD);
        let first = self.add(self.common.tile, offset);
        let bytes = self.mul_int(corner.rows, tile_row);
        let end = self.add(first, bytes);
        let row = self.variable(corner.row);
        let running: Vec<(ByteStride, Variable)> = self
            .row_strides()?
            .into_iter()
            .map(|stride| {
                let product = stride.times(self.cx, corner.row);
                (stride, self.variable(product))
            })
            .collect();
        let mut result = Ok(());
        self.for_range(first, end, tile_row, |c, address| {
            let mut coord = CoordValue::variable(c.get(row));
            coord.running = running.iter().map(|&(stride, product)| (stride, c.get(product))).collect();
            result = c.epilogue_element(batch, Element { row: coord, column, line, address, wide });
            for &(stride, product) in &running {
                let stride = stride.value(c.cx);
                c.advance(product, stride);
            }
            let at = c.get(row);
            let next = c.add_int(at, 1);
            c.set(row, next);
        });
        result
    }

    /// The distances of rows in memory, each once.
    fn row_strides(&self) -> Result<Vec<ByteStride>, KernelError> {
        let kernel = self.kernel;
        let loads = kernel.epilogue.nodes().iter().filter_map(|node| match &node.expr {
            Expr::Load { arg, access } => Some((*arg, access)),
            _ => None,
        });
        let accesses: Vec<(usize, &Access)> =
            loads.chain(kernel.stores.iter().map(|store| (store.arg, &store.access))).collect();
        let mut strides = Vec::new();
        for (arg, access) in accesses {
            for &(coord, stride) in &access.strides {
                let bytes = ByteStride::new(stride, self.cx.arg(arg)?.dtype);
                if coord == kernel.row()
                    && stride != Size::Const(0)
                    && !bytes.is_scale()
                    && !strides.contains(&bytes)
                {
                    strides.push(bytes);
                }
            }
        }
        Ok(strides)
    }

    fn epilogue_element(&mut self, batch: &[Value], element: Element) -> Result<(), KernelError> {
        let ty = self.accumulator_type();
        let ty = if element.wide { ty } else { ty.lane_type() };
        let value = self.load(ty, element.address, 0);
        let batch = batch.iter().map(|value| CoordValue::variable(*value));
        let point = Point {
            coords: batch
                .chain([element.row, CoordValue::variable(element.column)])
                .chain(element.line.map(CoordValue::variable))
                .collect(),
            lane: element.wide.then(|| self.kernel.column()),
            reduced: Vec::new(),
            accumulator: Some(if element.wide { Val::Vector(value) } else { Val::Uniform(value) }),
        };
        let (dag, stores) = (&self.kernel.epilogue, &self.kernel.stores);
        let mut memo = Memo::new(dag);
        let roots: Vec<_> = stores.iter().map(|store| store.value).collect();
        eval(self.cx, dag, &point, &mut memo, &roots)?;
        for each in stores {
            store(self.cx, dag, &point, &mut memo, each)?;
        }
        Ok(())
    }
}
