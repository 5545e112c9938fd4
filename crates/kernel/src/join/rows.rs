//! Chains in blocks of rows: where a matrix that is handed on, as the scores of an attention, does not stay in the cache
//! whole, its rows do, some at a time.

use super::chain::{items_per_step, regions_fit};
use super::order::Unit;
use super::region::{Map, Region, exact, have_same_lead, row_regions, value, with_lead};
use crate::{
    BufferId, Call, ContractKernel, HandedOn, KernelDesc, Operand, Plan, RowSteps, SCRATCH_ALIGN_BYTES, Size,
    Storage, TILE_COLUMNS, tile_scratch_bytes,
};
use rabot_ir::Dim;
use std::collections::{BTreeSet, HashMap};

/// Bytes of matrices that are handed on which stay in the cache whole.
const WHOLE_BYTES: i64 = 1 << 20;

/// Bytes that belong to the rows of a block: a part of the second-level cache, beside what all rows need.
const BLOCK_BYTES: i64 = 512 << 10;

/// Bytes of an f32 in pieces.
const PIECES_BYTES: i64 = 6;

/// A chain in blocks of rows.
pub(super) struct RowBlocks {
    /// Matrices, their rows, and the rows of a block.
    matrices: Dim,
    rows: i64,
    block: i64,
    /// The parts of the chain.
    pub parts: Vec<RowPart>,
    /// Buffers that are handed on, and their bytes of a row.
    handed_on: Vec<(BufferId, i64)>,
}

/// A part of such a chain.
pub(super) struct RowPart {
    /// The kernel, where it is another for blocks of rows.
    pub kernel: Option<ContractKernel>,
    /// Its work items.
    pub count: Dim,
    /// Its work items in a block of rows.
    pub per: i64,
    /// Its work items in a matrix.
    items: i64,
    scratch_bytes: i64,
}

impl RowBlocks {
    /// How calls that share the outermost dims `lead` go in blocks of rows, if that keeps more in the cache.
    pub fn new(plan: &Plan, uses: &HashMap<BufferId, usize>, units: &[&Unit], lead: &[Dim]) -> Option<Self> {
        let rows = rows_of_products(plan, units)?;
        let by_row = [lead, &[Dim::from(rows)]].concat();
        let kernels = units.iter().map(|unit| plan.kernels.get(unit.call.kernel));
        let is_constant =
            |region: &Region| matches!(plan.buffers[region.buffer].storage, Storage::Constant(_));
        let regions: Vec<Vec<Region>> = units
            .iter()
            .zip(kernels)
            .map(|(unit, kernel)| {
                let mut regions = row_regions(kernel?, &unit.call);
                regions.retain(|region| !is_constant(region));
                Some(regions)
            })
            .collect::<Option<_>>()?;
        let slices: Vec<&[Region]> = regions.iter().map(Vec::as_slice).collect();
        let same = |a: &Map, b: &Map| match (with_lead(a, &by_row), with_lead(b, &by_row)) {
            (Some(a), Some(b)) => have_same_lead(&a, &b),
            _ => false,
        };
        if !regions_fit(&slices, same) {
            return None;
        }
        let handed_on = handed_on(plan, uses, units, &regions, &by_row)?;
        let row_bytes: i64 = handed_on.iter().map(|(_, bytes)| bytes).sum();
        if rows * row_bytes <= WHOLE_BYTES {
            return None;
        }
        let pieces: i64 = units.iter().filter_map(|unit| terms(plan, unit)).map(|k| k * PIECES_BYTES).sum();
        let unit = TILE_COLUMNS as i64;
        let block = (BLOCK_BYTES / (row_bytes + pieces) / unit * unit).clamp(unit, rows.max(unit));
        let block = block / unit * unit;
        let parts = units.iter().map(|unit| row_part(plan, unit, lead, rows, block));
        let parts: Vec<RowPart> = parts.collect::<Option<_>>()?;
        Some(RowBlocks { matrices: lead.iter().product(), rows, block, parts, handed_on })
    }

    fn blocks(&self) -> i64 {
        (self.rows + self.block - 1) / self.block
    }

    /// Work items of the chain.
    pub fn steps(&self) -> Dim {
        self.matrices.clone() * Dim::from(self.blocks())
    }

    /// Buffers that need no memory of their own.
    pub fn private(&self) -> impl Iterator<Item = BufferId> {
        self.handed_on.iter().map(|(buffer, _)| *buffer)
    }

    /// What the kernel of the chain, whose call this is, needs to know; sets the call's scratch memory.
    pub fn row_steps(&self, call: &mut Call) -> RowSteps {
        let aligned = |bytes: i64| (bytes as usize).next_multiple_of(SCRATCH_ALIGN_BYTES) as i64;
        let mut end = 0;
        let mut take = |bytes: i64| {
            let start = end;
            end += aligned(bytes);
            Size::Const(start)
        };
        let scratch = self.parts.iter().map(|part| take(part.scratch_bytes)).collect();
        let mut handed_on = Vec::new();
        for &(buffer, row_bytes) in &self.handed_on {
            // Vectors may read behind the last element.
            let start = take(self.block * row_bytes + SCRATCH_ALIGN_BYTES as i64);
            let args = call.args.iter().enumerate().filter(|(_, other)| **other == buffer);
            handed_on.extend(args.map(|(arg, _)| HandedOn { arg, start, row_bytes: Size::Const(row_bytes) }));
        }
        call.scratch_bytes = Dim::from(end);
        RowSteps {
            steps: Size::Const(self.blocks()),
            rows: Size::Const(self.rows),
            block: Size::Const(self.block),
            items: self.parts.iter().map(|part| Size::Const(part.items)).collect(),
            scratch,
            handed_on,
        }
    }
}

/// The product of the tile unit that a unit is.
fn product<'p>(plan: &'p Plan, unit: &Unit) -> Option<&'p ContractKernel> {
    match plan.kernels.get(unit.call.kernel) {
        Some(KernelDesc::Contract(kernel)) => Some(kernel),
        _ => None,
    }
}

/// Terms of the sums of a product.
fn terms(plan: &Plan, unit: &Unit) -> Option<i64> {
    value(&unit.call, product(plan, unit)?.k)?.as_const()
}

/// The rows of all products, if they are products of the tile unit of as many rows, whose operands are cut as they run.
fn rows_of_products(plan: &Plan, units: &[&Unit]) -> Option<i64> {
    let mut rows = None;
    for unit in units.iter().filter(|unit| unit.is_contract) {
        let kernel = product(plan, unit)?;
        let is_cut = [&kernel.a, &kernel.b].iter().all(|o| matches!(o, Operand::Strided { .. }));
        let m = value(&unit.call, kernel.m)?.as_const()?;
        if !is_cut || kernel.tiles.is_none() || *rows.get_or_insert(m) != m {
            return None;
        }
        terms(plan, unit)?;
    }
    rows.filter(|rows| *rows > 0)
}

/// The buffers that units hand on, each with the bytes of a row. `None` unless all of them are dense, row after row, and
/// nothing else touches them.
fn handed_on(
    plan: &Plan,
    uses: &HashMap<BufferId, usize>,
    units: &[&Unit],
    regions: &[Vec<Region>],
    by_row: &[Dim],
) -> Option<Vec<(BufferId, i64)>> {
    let written: BTreeSet<BufferId> =
        regions.iter().flatten().filter(|region| region.written).map(|region| region.buffer).collect();
    let touches = |unit: &[Region], buffer: BufferId| unit.iter().any(|region| region.buffer == buffer);
    let mut found = Vec::new();
    for buffer in written {
        if regions.iter().filter(|unit| touches(unit, buffer)).count() < 2 {
            continue;
        }
        let own = units.iter().flat_map(|unit| &unit.call.args).filter(|arg| **arg == buffer).count();
        let is_private = uses.get(&buffer) == Some(&own);
        if !is_private || !matches!(plan.buffers[buffer].storage, Storage::Arena { .. }) {
            return None;
        }
        let mut widths = BTreeSet::new();
        for region in regions.iter().flatten().filter(|region| region.buffer == buffer) {
            widths.insert(row_width(region.map.as_ref()?, by_row)?);
        }
        let &[width] = widths.into_iter().collect::<Vec<_>>().as_slice() else { return None };
        found.push((buffer, width * plan.buffers[buffer].dtype.size_bytes() as i64));
    }
    (!found.is_empty()).then_some(found)
}

/// Elements from row to row, if each matrix follows the one before it.
fn row_width(map: &Map, by_row: &[Dim]) -> Option<i64> {
    let map = with_lead(map, by_row)?;
    let width = map.lead.last()?.stride.as_const()?;
    let is_dense = map.lead.windows(2).all(|axes| {
        axes[0].stride == axes[1].stride.clone() * axes[1].extent.clone() || axes[0].extent.is(1)
    });
    (is_dense && map.offset.is(0) && width > 0).then_some(width)
}

fn row_part(plan: &Plan, unit: &Unit, lead: &[Dim], rows: i64, block: i64) -> Option<RowPart> {
    let call = &unit.call;
    let Some(kernel) = product(plan, unit) else {
        let items = items_per_step(unit, lead)?.as_const()?;
        let per_row = exact(&Dim::from(items), &Dim::from(rows))?.as_const()?;
        let scratch_bytes = call.scratch_bytes.as_const()?;
        let count = call.items.clone();
        return Some(RowPart { kernel: None, count, per: per_row * block, items, scratch_bytes });
    };
    let mut kernel = kernel.clone();
    kernel.tile.rows = usize::try_from(block).ok()?;
    kernel.keeps_b = true;
    let columns = value(call, kernel.n)?.as_const()?;
    let per = Dim::from(columns).ceil_div(&Dim::from(kernel.tile.columns)).as_const()?;
    let items = per * ((rows + block - 1) / block);
    let k = value(call, kernel.k)?;
    let pieces = kernel.tiles?.pieces;
    let scratch_bytes = tile_scratch_bytes(&kernel, pieces, &k, &Dim::from(1)).as_const()?;
    let count = lead.iter().product::<Dim>() * Dim::from(items);
    Some(RowPart { kernel: Some(kernel), count, per, items, scratch_bytes })
}
