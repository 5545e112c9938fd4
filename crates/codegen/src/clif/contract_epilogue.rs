//! From accumulators to results: the epilogue of a tile.
//!
//! The tile lies on the stack. Rows are done one by one; in a row, whole vectors first, then the elements that are
//! left: the same primitive operations on lanes and on scalars, so the same bits wherever a tile is cut.

use crate::clif::contract_build::{Contraction, WORD};
use crate::clif::expr::{CoordValue, Memo, Point, Val, eval, store};
use crate::error::KernelError;
use cranelift_codegen::ir::Value;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::InstBuilder;

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

impl Contraction<'_, '_, '_> {
    /// Emits the epilogue of a tile for the batch coordinates `batch`; rows of the tile are `tile_row` bytes apart.
    pub fn epilogue(&mut self, batch: &[Value], corner: Corner, tile_row: i64) -> Result<(), KernelError> {
        let zero = self.int(0);
        let mut result = Ok(());
        self.for_range(zero, corner.rows, 1, |c, row| {
            let offset = c.mul_int(row, tile_row);
            let tile = c.add(c.common.tile, offset);
            let row = c.add(corner.row, row);
            result = c.epilogue_row(batch, corner, row, tile);
        });
        result
    }

    fn epilogue_row(
        &mut self,
        batch: &[Value],
        corner: Corner,
        row: Value,
        tile: Value,
    ) -> Result<(), KernelError> {
        let lanes = self.lanes() as i64;
        let zero = self.int(0);
        let done = self.variable(zero);
        let mut result = Ok(());
        for (wide, step) in [(true, lanes), (false, 1)] {
            if wide && lanes == 1 {
                continue;
            }
            let last = self.add_int(corner.columns, 1 - step);
            self.repeat_while(
                |c| {
                    let at = c.get(done);
                    c.ins().icmp(IntCC::SignedLessThan, at, last)
                },
                |c| {
                    let at = c.get(done);
                    if let Err(error) = c.epilogue_element(batch, corner, row, tile, at, wide) {
                        result = Err(error);
                    }
                    let next = c.add_int(at, step);
                    c.set(done, next);
                },
            );
        }
        result
    }

    /// One vector or one element, `at` columns from the corner.
    fn epilogue_element(
        &mut self,
        batch: &[Value],
        corner: Corner,
        row: Value,
        tile: Value,
        at: Value,
        wide: bool,
    ) -> Result<(), KernelError> {
        let offset = self.mul_int(at, WORD);
        let address = self.add(tile, offset);
        let ty = self.accumulator_type();
        let ty = if wide { ty } else { ty.lane_type() };
        let value = self.load(ty, address, 0);
        let column = self.add(corner.column, at);
        let coords = batch.iter().chain([&row, &column]).map(|value| CoordValue::variable(*value));
        let point = Point {
            coords: coords.collect(),
            lane: wide.then(|| self.kernel.column()),
            reduced: Vec::new(),
            accumulator: Some(if wide { Val::Vector(value) } else { Val::Uniform(value) }),
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
