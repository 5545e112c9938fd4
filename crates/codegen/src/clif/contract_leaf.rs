//! Contractions on machines with vectors of 512 bits: tiles whose sums a leaf takes.

use crate::clif::context::CodeTarget;
use crate::clif::contract_build::Contraction;
use crate::clif::contract_epilogue::Corner;
use crate::clif::contract_micro::{Micro, Rows, Shape};
use crate::x64::map::{self, Map};
use crate::x64::sum::{self, MOST_PANELS, Sum, Word};
use crate::x64::{LANES, Leaf};
use cranelift_codegen::ir::{InstBuilder, Value};
use rabot_kernel::{Access, ContractKernel, Expr, Size};
use rabot_tensor::DType;

/// Accumulators of 512 bits that hide the latency of a multiply-add.
const FEW_ROWS_VECTORS: usize = 8;

/// True if leaves take the sums of a kernel.
pub(super) fn is_wide(kernel: &ContractKernel, target: CodeTarget) -> bool {
    target.wide && kernel.accumulator == DType::F32 && kernel.tile.nr.is_multiple_of(LANES)
}

/// Panels of a tile of few rows.
pub(super) fn few_rows_panels(rows: usize, columns: usize) -> usize {
    (FEW_ROWS_VECTORS * LANES / (rows * columns)).min(MOST_PANELS)
}

impl Contraction<'_, '_, '_> {
    /// The leaf that takes the sums of a tile, if one can.
    pub fn leaf_of(&self, micro: &Micro, tile_row: i64) -> Option<Sum> {
        let Shape { rows, panels } = micro.shape;
        let a = match &micro.rows {
            Rows::Panel(_) => sum::Rows::Panel(self.kernel.tile.mr),
            Rows::Pointers(_) => sum::Rows::Pointers,
        };
        let b = match self.narrow_b() {
            Some(DType::F16) => sum::Element::F16,
            Some(_) => sum::Element::BF16,
            None => sum::Element::F32,
        };
        let (columns, chains) = (self.kernel.tile.nr, self.has_chains());
        let leaf = Sum { rows, panels, columns, a, b, tile_row, chains };
        Some(leaf).filter(|leaf| is_wide(self.kernel, self.cx.target) && leaf.is_possible())
    }

    /// Calls it.
    pub fn call_sum(&mut self, micro: &Micro, leaf: Sum) {
        let words = self.stack(8 * sum::WORDS);
        let first = micro.panels[0];
        let panel_bytes = match micro.panels.get(1) {
            Some(&second) => self.ins().isub(second, first),
            None => self.int(0),
        };
        let (steps, tile) = (self.common.steps, self.common.tile);
        let put = |c: &mut Self, word: Word, value: Value| c.store(value, words, word.offset());
        put(self, Word::B, first);
        put(self, Word::PanelBytes, panel_bytes);
        put(self, Word::Steps, steps);
        put(self, Word::Tile, tile);
        let pointers: &[Value] = match &micro.rows {
            Rows::Panel(start) => std::slice::from_ref(start),
            Rows::Pointers(pointers) => pointers,
        };
        for (row, pointer) in pointers.iter().enumerate() {
            self.store(*pointer, words, Word::A.offset() + 8 * row as i64);
        }
        self.cx.call_leaf(Leaf::Sum(leaf), words);
    }
}

/// The epilogue of a kernel as a map over the rows of a tile.
#[derive(Clone)]
pub(super) struct Epilogue {
    map: Map,
    /// Argument and access of each stream but the first, which is the tile.
    accesses: Vec<(usize, Access)>,
}

impl Contraction<'_, '_, '_> {
    /// The epilogue as a leaf, if one can take it.
    pub fn wide_epilogue(&self) -> Option<Epilogue> {
        let kernel = self.kernel;
        if !is_wide(kernel, self.cx.target) {
            return None;
        }
        let mut streams = vec![true];
        let mut accesses = Vec::new();
        let mut stream = |arg: usize, access: &Access| {
            let is_float = self.cx.args.get(arg)?.dtype == DType::F32;
            let stride = access.strides.iter().find(|(coord, _)| *coord == kernel.column());
            let contiguous = match stride {
                None | Some((_, Size::Const(0))) => false,
                Some((_, Size::Const(1))) => true,
                Some(_) => return None,
            };
            if !is_float || !access.dynamic.is_empty() {
                return None;
            }
            streams.push(contiguous);
            accesses.push((arg, access.clone()));
            Some(streams.len() - 1)
        };
        let mut reads = Vec::new();
        for (id, node) in kernel.epilogue.nodes().iter().enumerate() {
            match &node.expr {
                Expr::Accumulator => reads.push((id, 0)),
                Expr::Load { arg, access } => reads.push((id, stream(*arg, access)?)),
                _ => {}
            }
        }
        let stores = kernel.stores.iter().map(|store| Some((store.value, stream(store.arg, &store.access)?)));
        let stores = stores.collect::<Option<Vec<_>>>()?;
        let map = Map { dag: kernel.epilogue.clone(), reads, stores, streams };
        map.is_possible().then_some(Epilogue { map, accesses })
    }

    /// Calls it for `corner.columns` columns, `at` columns from the start of the tile.
    pub fn call_epilogue(
        &mut self,
        epilogue: &Epilogue,
        batch: &[Value],
        corner: Corner,
        at: Value,
        line: Option<Value>,
        tile_row: i64,
    ) {
        let kernel = self.kernel;
        let words = self.stack(map::HEAD as usize + map::STREAM as usize * map::MOST_STREAMS);
        let row_bytes = self.mul_int(corner.columns, F32_BYTES);
        self.store(row_bytes, words, 0);
        self.store(corner.rows, words, 8);
        let offset = self.mul_int(at, F32_BYTES);
        let tile = self.add(self.common.tile, offset);
        let tile_row = self.int(tile_row);
        self.store(tile, words, map::HEAD);
        self.store(tile_row, words, map::HEAD + 8);
        let coords: Vec<Value> =
            batch.iter().copied().chain([corner.row, corner.column]).chain(line).collect();
        for (index, (arg, access)) in (1..).zip(&epilogue.accesses) {
            let terms: Vec<(Value, Size)> = access
                .strides
                .iter()
                .filter_map(|(coord, stride)| Some((*coords.get(*coord)?, *stride)))
                .collect();
            let element = self.element(access.offset, &terms);
            let offset = self.mul_int(element, F32_BYTES);
            let Some(pointer) = self.cx.args.get(*arg).map(|arg| arg.pointer) else { continue };
            let start = self.add(pointer, offset);
            let stride = access.strides.iter().find(|(coord, _)| *coord == kernel.row());
            let stride = self.size(stride.map_or(Size::Const(0), |(_, stride)| *stride));
            let stride = self.mul_int(stride, F32_BYTES);
            self.store(start, words, map::HEAD + map::STREAM * index);
            self.store(stride, words, map::HEAD + map::STREAM * index + 8);
        }
        self.cx.call_leaf(Leaf::Map(epilogue.map.clone()), words);
    }
}

/// Bytes of an element.
const F32_BYTES: i64 = 4;
