//! Rows: loops on vectors along the inner dim, one for each stage. Elementwise functions, softmax, norms, and reductions
//! of neighbours.
//!
//! A reduction has sixteen accumulators, element `i` goes to number `i % 16`; at the end, neighbours are combined. What
//! is the same for all columns is computed before them.

use super::asm::{Asm, AsmError, Mem};
use super::expr::{self, Fold};
use super::lanes::{Cell, Lanes, V, is_int};
use super::nest::{self, ARGUMENT, AT, Call, END, SPARE, Stream, Streams, VECTOR, Values};
use super::registers::{Places, Store, TAIL_MASK, VECTORS, is_from_memory};
use super::strided::{Halves, Reader};
use rabot_kernel::{Expr, ExprId, LoopKernel, Vectorize};

/// A stage on lanes.
struct Pass {
    lanes: Lanes,
    stores: Vec<Store>,
    halves: Halves,
    /// Accumulators before and after a vector of columns, and what combines them.
    sums: Vec<(V, V, Fold)>,
    /// Number of its first reduction.
    first: usize,
    /// Its columns among those of the call; `None` for a single point.
    columns: Option<usize>,
}

/// The code of a kernel's rows, and how it is called; `None` if there is none.
pub(crate) fn code(kernel: &LoopKernel) -> Option<(Vec<u8>, Call)> {
    if kernel.vectorize != Vectorize::Inner || kernel.stages.iter().any(|stage| stage.inner.len() > 1) {
        return None;
    }
    let lane = kernel.outer.len();
    let row = lane.checked_sub(1);
    let (mut streams, mut values) = (Streams::new(kernel, lane, row), Values { list: Vec::new() });
    let (mut passes, mut columns, mut slots) = (Vec::new(), Vec::new(), 0);
    for stage in 0..kernel.stages.len() {
        if !nest::reads_before_it_writes(kernel, stage) {
            return None;
        }
        let mut pass = pass(kernel, stage, &mut streams, &mut values, slots)?;
        if let [size] = kernel.stages[stage].inner[..] {
            pass.columns = Some(columns.len());
            columns.push(size);
        }
        slots += pass.sums.len();
        passes.push(pass);
    }
    let call =
        Call { row, inner: None, columns, pointers: streams.pointers.clone(), values: values.list, slots };
    let code = assemble(&streams, &call, &passes).ok()?;
    Some((code, call))
}

/// A stage, whose reductions have numbers from `first` on.
fn pass(
    kernel: &LoopKernel,
    index: usize,
    streams: &mut Streams<'_>,
    values: &mut Values,
    first: usize,
) -> Option<Pass> {
    let stage = &kernel.stages[index];
    let mut lanes = Lanes::default();
    let mut reader = Reader::default();
    reader.visit(streams, &stage.dag, 0, &[])?;
    let mut read = |lanes: &mut Lanes, id: ExprId| match &stage.dag[id].expr {
        Expr::Load { arg, access } => reader.load(lanes, streams, (*arg, access), 0, &[]),
        Expr::Reduced(number) => {
            let stream = streams.add(Stream::Slot(*number));
            Some(match is_int(stage.dag.dtype(id)) {
                true => lanes.uniform_cell(stream, Cell::I32),
                false => lanes.uniform(stream),
            })
        }
        _ => values.read(kernel, streams, lanes, index, id),
    };
    let results = expr::eval(&mut lanes, &stage.dag, &mut read);
    let mut sums = Vec::new();
    for reduction in &stage.reductions {
        let fold = Fold::of(stage, reduction).filter(|_| !stage.inner.is_empty())?;
        let old = lanes.given(fold.dtype);
        let new = fold.accumulate(&mut lanes, stage, reduction, &results, old)?;
        sums.push((old, new, fold));
    }
    let mut stores = Vec::new();
    for store in &stage.stores {
        let value = nest::stored(kernel, stage, &results, store)?;
        let parts = streams.store(&mut lanes, value, (store.arg, &store.access), 0, &[])?;
        // A single point has one word, columns have more.
        if parts.iter().any(|part| streams.is_one(part.stream) != stage.inner.is_empty()) {
            return None;
        }
        stores.extend(parts);
    }
    let halves = Halves::of(&reader, &stores)?;
    lanes.is_possible().then_some(Pass { lanes, stores, halves, sums, first, columns: None })
}

/// The last steps of reductions: each accumulator with its neighbours.
fn totals(pass: &Pass) -> (Lanes, Vec<V>, Vec<V>) {
    let mut lanes = Lanes::default();
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for &(_, _, fold) in &pass.sums {
        let mut sum = lanes.given(fold.dtype);
        from.push(sum);
        // Neighbouring groups of four, then pairs of groups; then lanes in the same way.
        for (blocks, within) in [(0xb1, 0xe4), (0x4e, 0xe4), (0xe4, 0xb1), (0xe4, 0x4e)] {
            let other = lanes.permute(sum, blocks, within);
            sum = fold.combine(&mut lanes, sum, other);
        }
        to.push(sum);
    }
    (lanes, from, to)
}

fn assemble(streams: &Streams<'_>, call: &Call, passes: &[Pass]) -> Result<Vec<u8>, AsmError> {
    let starts: Vec<Lanes> = passes.iter().map(identities).collect();
    let totals: Vec<(Lanes, Vec<V>, Vec<V>)> = passes.iter().map(totals).collect();
    let lists = passes.iter().map(|pass| &pass.lanes).chain(&starts);
    let pool = nest::pool_of(lists.chain(totals.iter().map(|(lanes, ..)| lanes)));
    let constant = |bits: u32| Mem::at(nest::POOL, 4 * pool.binary_search(&bits).unwrap_or(0) as i64);
    let places = streams.places(call, nest::tables_at(&pool));
    let places = Places::new(&places, &constant, false);
    let mut asm = Asm::new()?;
    let saved = nest::enter(&mut asm, call)?;
    let (mut words, mut row, mut done) = (asm.label(), asm.label(), asm.label());
    asm.address_of(nest::POOL, words)?;
    let count = Mem::at(ARGUMENT, 0);
    asm.compare_with_zero(count)?;
    asm.jump_if_zero(done)?;
    asm.place(&mut row)?;
    for (pass, totals) in passes.iter().zip(&totals) {
        pass.emit(&mut asm, call, places, nest::ones(&pool), totals)?;
    }
    nest::next_rows(&mut asm, call, 1)?;
    asm.count_down(count)?;
    asm.jump_if_greater(row)?;
    asm.place(&mut done)?;
    nest::leave(&mut asm, &saved)?;
    asm.place(&mut words)?;
    asm.words(&nest::pool_words(&pool))?;
    asm.finish()
}

/// A list that names the constants at which reductions start.
fn identities(pass: &Pass) -> Lanes {
    let mut lanes = Lanes::default();
    for (_, _, fold) in &pass.sums {
        fold.start(&mut lanes);
    }
    lanes
}

impl Pass {
    fn emit(
        &self,
        asm: &mut Asm,
        call: &Call,
        places: Places<'_>,
        ones: Mem,
        totals: &(Lanes, Vec<V>, Vec<V>),
    ) -> Result<(), AsmError> {
        let Some(columns) = self.columns else {
            // One point: lane 0.
            asm.set_number(SPARE, 1)?;
            asm.set_mask(TAIL_MASK, SPARE)?;
            self.lanes.emit(asm, &Places { cut: true, ..places }, &self.stores)?;
            return Ok(());
        };
        let sums: Vec<(V, usize)> =
            self.sums.iter().enumerate().map(|(index, (old, ..))| (*old, VECTORS - 1 - index)).collect();
        let held = VECTORS.checked_sub(sums.len()).ok_or_else(AsmError::registers)?;
        let places = Places { vectors: held, ..places };
        let wanted = self.hoisted();
        // The longest list that leaves enough registers for the columns.
        let least = wanted.iter().filter(|(_, is_computed)| *is_computed).count();
        let count = (least..=wanted.len()).rev().find(|&count| {
            let mut trial = match Asm::new() {
                Ok(asm) => asm,
                Err(_) => return false,
            };
            self.columns(&mut trial, places, ones, &sums, &wanted[..count]).is_ok()
        });
        let count = count.ok_or_else(AsmError::registers)?;
        asm.load_word(END, Mem::at(ARGUMENT, call.columns_at(columns)))?;
        for ((_, _, fold), (_, register)) in self.sums.iter().zip(&sums) {
            let bits = fold.identity();
            if bits == 0 { asm.zero(*register)? } else { asm.broadcast(*register, (places.constant)(bits))? }
        }
        self.columns(asm, places, ones, &sums, &wanted[..count])?;
        let (lanes, from, to) = totals;
        let given: Vec<(V, usize)> =
            from.iter().zip(&sums).map(|(value, (_, register))| (*value, *register)).collect();
        let kept = lanes.emit(asm, &Places { given: &given, keep: to, ..places }, &[])?;
        for (index, register) in kept.into_iter().enumerate() {
            asm.store_one(Mem::at(ARGUMENT, call.slot_at(self.first + index)), register)?;
        }
        Ok(())
    }

    /// What may be computed or loaded before the columns, and whether it is computed; that comes first.
    fn hoisted(&self) -> Vec<(V, bool)> {
        let uniform = self.lanes.uniform_values();
        let mut found: Vec<(V, bool)> = Vec::new();
        let results = self.stores.iter().map(|store| store.value).chain(self.sums.iter().map(|sum| sum.1));
        let operands = (0..self.lanes.ops.len())
            .filter(|&at| !uniform[at])
            .flat_map(|at| Lanes::operands(self.lanes.ops[at].0).into_iter().flatten());
        for value in results.chain(operands).filter(|&value| uniform[value]) {
            let entry = (value, !is_from_memory(self.lanes.ops[value].0));
            if !found.contains(&entry) {
                found.push(entry);
            }
        }
        found.sort_by_key(|(_, is_computed)| !is_computed);
        found.truncate(VECTORS - 4);
        found
    }

    /// The loop over columns.
    fn columns(
        &self,
        asm: &mut Asm,
        places: Places<'_>,
        ones: Mem,
        sums: &[(V, usize)],
        hoisted: &[(V, bool)],
    ) -> Result<(), AsmError> {
        let keep: Vec<V> = hoisted.iter().map(|(value, _)| *value).collect();
        let registers = self.lanes.emit(asm, &Places { keep: &keep, ..places }, &[])?;
        let given: Vec<(V, usize)> = keep.into_iter().zip(registers).chain(sums.iter().copied()).collect();
        let keep: Vec<V> = self.sums.iter().map(|sum| sum.1).collect();
        let masks = self.halves.masks(places.masks);
        let places = Places { given: &given, keep: &keep, masks, ..places };
        let [mut many, mut few, mut done] = std::array::from_fn(|_| asm.label());
        asm.set_number(AT, VECTOR as i32)?;
        asm.compare_words(END, AT)?;
        asm.jump_if_less(few)?;
        self.halves.whole(asm)?;
        asm.place(&mut many)?;
        asm.add_number(AT, -VECTOR)?;
        let kept = self.lanes.emit(asm, &places, &self.stores)?;
        for (register, (_, sum)) in kept.into_iter().zip(sums) {
            asm.copy(*sum, register)?;
        }
        asm.add_number(AT, 2 * VECTOR)?;
        asm.compare_words(END, AT)?;
        asm.jump_if_not_less(many)?;
        asm.place(&mut few)?;
        asm.add_number(AT, -VECTOR)?;
        asm.compare_words(END, AT)?;
        asm.jump_if_zero(done)?;
        self.halves.cut(asm, ones)?;
        asm.tail(END, AT, 0, ones, SPARE)?;
        let kept = self.lanes.emit(asm, &Places { cut: true, ..places }, &self.stores)?;
        for (register, (_, sum)) in kept.into_iter().zip(sums) {
            asm.copy_tail(*sum, register)?;
        }
        asm.place(&mut done)
    }
}
