//! Windows: loops on vectors along the last outer dim, with small stages that are unrolled. Depthwise convolutions and
//! pools, and what follows them.
//!
//! Several rows are done at once where they read the same elements. The taps of these rows are put in the order of the
//! elements that they read, so that each is loaded once; in a row they stay in their order.

use super::LANES;
use super::asm::{Asm, AsmError, Mem};
use super::expr::{self, Fold};
use super::lanes::{Lanes, Op, V};
use super::nest::{self, AT, Call, END, SPARE, Streams, VECTOR, Values};
use super::registers::{Places, Store, VECTORS};
use super::strided::{Halves, Reader};
use rabot_kernel::{Coord, Expr, ExprId, LoopKernel, Size, Vectorize};

/// Taps of a stage at most.
const MOST_TAPS: i64 = 64;

/// Operations of a block of rows at most.
const MOST_OPERATIONS: usize = 4096;

/// Rows that are done at once at most.
const MOST_ROWS: usize = 8;

/// The code of so many rows at once.
struct Block {
    rows: usize,
    lanes: Lanes,
    stores: Vec<Store>,
    halves: Halves,
    /// Reductions of a row.
    sums: usize,
}

/// Code under construction.
struct Builder<'k, 's> {
    kernel: &'k LoopKernel,
    streams: &'s mut Streams<'k>,
    values: &'s mut Values,
    lanes: Lanes,
    reader: Reader,
    /// For each row, the reductions so far.
    reduced: Vec<Vec<V>>,
}

/// The code of a kernel's rows, and how it is called; `None` if there is none.
pub(crate) fn code(kernel: &LoopKernel) -> Option<(Vec<u8>, Call)> {
    let lane = kernel.outer.len().checked_sub(1).filter(|_| kernel.vectorize == Vectorize::Outer)?;
    let row = lane.checked_sub(1);
    for (index, stage) in kernel.stages.iter().enumerate() {
        let written = |arg: usize| kernel.stages.iter().flat_map(|s| &s.stores).any(|s| s.arg == arg);
        let safe = stage.dag.nodes().iter().all(|node| match &node.expr {
            Expr::Load { arg, .. } => !written(*arg),
            _ => true,
        });
        if !(safe || kernel.stages.len() == 1 && nest::reads_before_it_writes(kernel, index)) {
            return None;
        }
    }
    let (mut streams, mut values) = (Streams::new(kernel, lane, row), Values { list: Vec::new() });
    let one = block(kernel, &mut streams, &mut values, 1)?;
    let mut blocks = Vec::new();
    for rows in row.map_or(vec![], |row| row_blocks(kernel.outer[row])) {
        let pointers = streams.pointers.len();
        match block(kernel, &mut streams, &mut values, rows) {
            Some(many) if is_shared(&one, &many) => blocks.push(many),
            // What one row needs comes first.
            _ => streams.pointers.truncate(pointers),
        }
    }
    blocks.push(one);
    let call = Call {
        row,
        inner: None,
        columns: vec![kernel.outer[lane]],
        pointers: streams.pointers.clone(),
        values: values.list,
        slots: 0,
    };
    let pinned = pins(&streams, &blocks[0]);
    (0..=pinned.len()).rev().find_map(|count| {
        let code = assemble(&streams, &call, &blocks, &pinned[..count]);
        code.ok().map(|code| (code, call.clone()))
    })
}

/// How many rows to do at once, where there are so many: as many as leave no rest, or little.
fn row_blocks(rows: Size) -> Vec<usize> {
    let Size::Const(rows) = rows else { return vec![4, 2] };
    let rows = usize::try_from(rows).unwrap_or(0);
    let most = match (4..=MOST_ROWS).rev().find(|most| rows.is_multiple_of(*most)) {
        Some(most) => most,
        None => rows.div_ceil(rows.div_ceil(MOST_ROWS).max(1)),
    };
    [most, rows % most.max(1)].into_iter().filter(|rows| *rows > 1).collect()
}

/// True if rows done together read less than one by one.
fn is_shared(one: &Block, many: &Block) -> bool {
    let loads = |block: &Block| {
        block
            .lanes
            .ops
            .iter()
            .filter(|(op, _)| matches!(op, Op::Load(_) | Op::LoadCell(..) | Op::LoadWhere(..)))
            .count()
    };
    loads(many) < loads(one) * many.rows
}

/// What stays in registers over all rows, the most wanted first.
fn pins(streams: &Streams<'_>, block: &Block) -> Vec<Op> {
    let fixed = |op: &Op| match *op {
        Op::Uniform(stream) | Op::UniformCell(stream, _) | Op::Table(stream) => streams.is_fixed(stream),
        _ => false,
    };
    let words = block.lanes.ops.iter().map(|(op, _)| *op).filter(fixed);
    let constants = block.lanes.ops.iter().map(|(op, _)| *op).filter(|op| matches!(op, Op::Const(_)));
    // Sums, and an element.
    let sums: usize = block.rows * block.sums + 1;
    let mut pins: Vec<Op> = Vec::new();
    for op in words.chain(constants) {
        if !pins.contains(&op) {
            pins.push(op);
        }
    }
    pins.truncate(VECTORS.saturating_sub(sums));
    pins
}

/// The operations of a block of rows.
fn block<'k>(
    kernel: &'k LoopKernel,
    streams: &mut Streams<'k>,
    values: &mut Values,
    count: usize,
) -> Option<Block> {
    let mut builder = Builder {
        kernel,
        streams,
        values,
        lanes: Lanes::default(),
        reader: Reader::default(),
        reduced: vec![Vec::new(); count],
    };
    for stage in &kernel.stages {
        for point in taps(kernel, &stage.inner)? {
            for row in 0..count {
                builder.reader.visit(builder.streams, &stage.dag, row as i64, &point)?;
            }
        }
    }
    let mut stores = Vec::new();
    for stage in 0..kernel.stages.len() {
        builder.stage(stage, count, &mut stores)?;
    }
    let Builder { lanes, reader, .. } = builder;
    let possible = lanes.is_possible() && lanes.ops.len() <= MOST_OPERATIONS;
    let halves = Halves::of(&reader, &stores)?;
    let sums = kernel.stages.iter().map(|stage| stage.reductions.len()).sum();
    possible.then_some(Block { rows: count, lanes, stores, halves, sums })
}

/// All points of small inner dims, in order; `None` if there are too many, or they are not known.
fn taps(kernel: &LoopKernel, inner: &[Size]) -> Option<Vec<Vec<(Coord, i64)>>> {
    let mut points = vec![Vec::new()];
    for (index, size) in inner.iter().enumerate() {
        let Size::Const(extent) = *size else { return None };
        if extent < 0 || extent.checked_mul(points.len() as i64)? > MOST_TAPS {
            return None;
        }
        let extend = |point: &Vec<(Coord, i64)>| {
            let point = point.clone();
            (0..extent).map(move |at| [point.as_slice(), &[(kernel.inner_coord(index), at)]].concat())
        };
        points = points.iter().flat_map(extend).collect();
    }
    Some(points)
}

impl Builder<'_, '_> {
    /// Where the first of the rows reads at a point, for the order of points.
    fn place(&mut self, stage: usize, row: usize, point: &[(Coord, i64)]) -> (usize, i64) {
        let nodes = self.kernel.stages[stage].dag.nodes();
        let mut first = (0, 0);
        for node in nodes {
            if let Expr::Load { arg, access } = &node.expr
                && let Some((pointer, bytes, step)) = self.streams.memory(*arg, access, row as i64, point)
                && !step.is_same()
            {
                first = (pointer, bytes);
                break;
            }
        }
        first
    }

    /// A stage at all its points, of all rows.
    fn stage(&mut self, index: usize, rows: usize, stores: &mut Vec<Store>) -> Option<()> {
        let stage = &self.kernel.stages[index];
        let points = taps(self.kernel, &stage.inner)?;
        let mut sums: Vec<Vec<V>> = vec![Vec::new(); rows];
        for reduction in &stage.reductions {
            let start = Fold::of(stage, reduction)?.start(&mut self.lanes);
            sums.iter_mut().for_each(|list| list.push(start));
        }
        let mut order: Vec<((usize, i64), usize, usize)> = Vec::new();
        for row in 0..rows {
            // Points of a row stay in order, also where their places do not rise.
            let mut least = (0, i64::MIN);
            for (number, point) in points.iter().enumerate() {
                least = least.max(self.place(index, row, point));
                order.push((least, row, number));
            }
        }
        order.sort_unstable();
        for (_, row, number) in order {
            let point = &points[number];
            let values = self.eval(index, row, point);
            for (reduction, sum) in stage.reductions.iter().zip(&mut sums[row]) {
                let fold = Fold::of(stage, reduction)?;
                *sum = fold.accumulate(&mut self.lanes, stage, reduction, &values, *sum)?;
            }
            for store in &stage.stores {
                let value = nest::stored(self.kernel, stage, &values, store)?;
                let to = (store.arg, &store.access);
                let parts = self.streams.store(&mut self.lanes, value, to, row as i64, point)?;
                if parts.iter().any(|part| self.streams.is_one(part.stream)) {
                    return None;
                }
                stores.extend(parts);
            }
        }
        for (reduced, sums) in self.reduced.iter_mut().zip(sums) {
            reduced.extend(sums);
        }
        Some(())
    }

    fn eval(&mut self, stage: usize, row: usize, point: &[(Coord, i64)]) -> Vec<Option<V>> {
        let mut lanes = std::mem::take(&mut self.lanes);
        let dag = &self.kernel.stages[stage].dag;
        let values = expr::eval(&mut lanes, dag, &mut |lanes, id| self.read(lanes, stage, id, row, point));
        self.lanes = lanes;
        values
    }

    fn read(
        &mut self,
        lanes: &mut Lanes,
        stage: usize,
        id: ExprId,
        row: usize,
        point: &[(Coord, i64)],
    ) -> Option<V> {
        match &self.kernel.stages[stage].dag[id].expr {
            Expr::Reduced(number) => self.reduced[row].get(*number).copied(),
            Expr::Load { arg, access } => {
                self.reader.load(lanes, self.streams, (*arg, access), row as i64, point)
            }
            _ => self.values.read(self.kernel, self.streams, lanes, stage, id),
        }
    }
}

/// The code, with the values of some operations in registers throughout.
fn assemble(streams: &Streams<'_>, call: &Call, blocks: &[Block], pins: &[Op]) -> Result<Vec<u8>, AsmError> {
    let pool = nest::pool_of(blocks.iter().map(|block| &block.lanes));
    let constant = |bits: u32| Mem::at(nest::POOL, 4 * pool.binary_search(&bits).unwrap_or(0) as i64);
    let places = streams.places(call, nest::tables_at(&pool));
    let places = Places { vectors: VECTORS - pins.len(), ..Places::new(&places, &constant, false) };
    let mut asm = Asm::new()?;
    let saved = nest::enter(&mut asm, call)?;
    let mut words = asm.label();
    asm.address_of(nest::POOL, words)?;
    asm.load_word(END, Mem::at(nest::ARGUMENT, call.columns_at(0)))?;
    for (index, op) in pins.iter().enumerate() {
        places.load(&mut asm, *op, VECTORS - 1 - index)?;
    }
    for block in blocks {
        block.rows(&mut asm, call, places, pins, nest::ones(&pool))?;
    }
    nest::leave(&mut asm, &saved)?;
    asm.place(&mut words)?;
    asm.words(&nest::pool_words(&pool))?;
    asm.finish()
}

impl Block {
    /// The loop over its rows, while there are enough of them.
    fn rows(
        &self,
        asm: &mut Asm,
        call: &Call,
        places: Places<'_>,
        pins: &[Op],
        ones: Mem,
    ) -> Result<(), AsmError> {
        let register = |op: &Op| pins.iter().position(|pin| pin == op).map(|index| VECTORS - 1 - index);
        let ops = self.lanes.ops.iter().enumerate();
        let given: Vec<(V, usize)> = ops.filter_map(|(at, (op, _))| Some((at, register(op)?))).collect();
        let masks = self.halves.masks(places.masks);
        let places = Places { given: &given, masks, ..places };
        let count = Mem::at(nest::ARGUMENT, 0);
        let [mut row, mut many, mut few, mut next, mut done] = std::array::from_fn(|_| asm.label());
        asm.place(&mut row)?;
        asm.compare_at(count, self.rows as i32)?;
        asm.jump_if_less(done)?;
        let [has_whole, has_rest] = match call.columns[0] {
            Size::Const(columns) => [columns >= LANES as i64, columns % LANES as i64 != 0],
            Size::Param(_) => [true; 2],
        };
        asm.set_number(AT, VECTOR as i32)?;
        if has_whole {
            asm.compare_words(END, AT)?;
            asm.jump_if_less(few)?;
            self.halves.whole(asm)?;
            asm.place(&mut many)?;
            asm.add_number(AT, -VECTOR)?;
            self.lanes.emit(asm, &places, &self.stores)?;
            asm.add_number(AT, 2 * VECTOR)?;
            asm.compare_words(END, AT)?;
            asm.jump_if_not_less(many)?;
            asm.place(&mut few)?;
        }
        if has_rest {
            asm.add_number(AT, -VECTOR)?;
            asm.compare_words(END, AT)?;
            asm.jump_if_zero(next)?;
            self.halves.cut(asm, ones)?;
            asm.tail(END, AT, 0, ones, SPARE)?;
            self.lanes.emit(asm, &Places { cut: true, ..places }, &self.stores)?;
        }
        asm.separate()?;
        asm.place(&mut next)?;
        nest::next_rows(asm, call, self.rows)?;
        asm.subtract_at(count, self.rows as i32)?;
        asm.jump(row)?;
        asm.place(&mut done)?;
        asm.separate()
    }
}
