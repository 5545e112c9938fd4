//! Columns: loops on vectors along the last outer dim, each of which goes through the inner dim of every stage.
//! Reductions, softmax and norms of what are no neighbours.
//!
//! Several vectors of columns are in flight, so that sums do not wait for each other.

use super::asm::{Asm, AsmError, Mem};
use super::expr::{self, Fold};
use super::lanes::{Lanes, V};
use super::nest::{self, ARGUMENT, AT, Call, END, POINTERS, SPARE, Step, Stream, Streams, VECTOR, Values};
use super::registers::{Places, Store, VECTORS};
use rabot_kernel::{Access, Expr, ExprId, LoopKernel, Vectorize};
use std::collections::HashMap;

/// Vectors of columns in flight, most first.
const FLIGHTS: [usize; 3] = [4, 2, 1];

/// Accumulators at most: as many registers are left.
const MOST_SUMS: usize = 16;

/// A stage on so many vectors.
struct Pass {
    lanes: Lanes,
    stores: Vec<Store>,
    /// Accumulators before and after a point, and what combines them, for each vector in turn.
    sums: Vec<(V, V, Fold)>,
    /// Results of reductions of earlier stages, and their registers.
    reduced: Vec<(V, usize)>,
    /// Number of its first reduction.
    first: usize,
    /// Its points among the sizes of the call; `None` for a single point.
    points: Option<usize>,
}

/// The code of a kernel's rows, and how it is called; `None` if there is none.
pub(crate) fn code(kernel: &LoopKernel) -> Option<(Vec<u8>, Call)> {
    let lane = kernel.outer.len().checked_sub(1).filter(|_| kernel.vectorize == Vectorize::Outer)?;
    let safe = |stage: usize| nest::reads_before_it_writes(kernel, stage);
    if kernel.stages.iter().any(|stage| stage.inner.len() > 1) || !(0..kernel.stages.len()).all(safe) {
        return None;
    }
    let row = lane.checked_sub(1);
    let mut streams = Streams::new(kernel, lane, row);
    streams.inner = Some(kernel.outer.len());
    let mut values = Values { list: Vec::new() };
    let total: usize = kernel.stages.iter().map(|stage| stage.reductions.len()).sum();
    let most = FLIGHTS.into_iter().find(|flights| flights * total <= MOST_SUMS)?;
    let mut blocks = Vec::new();
    for flights in FLIGHTS.into_iter().filter(|&flights| flights == most || flights == 1) {
        blocks.push((flights, passes(kernel, &mut streams, &mut values, flights)?));
    }
    let sizes = kernel.stages.iter().filter_map(|stage| stage.inner.first().copied());
    let call = Call {
        row,
        inner: streams.inner,
        columns: [kernel.outer[lane]].into_iter().chain(sizes).collect(),
        pointers: streams.pointers.clone(),
        values: values.list,
        slots: 0,
    };
    let code = assemble(&streams, &call, &blocks).ok()?;
    Some((code, call))
}

/// The stages on so many vectors.
fn passes<'k>(
    kernel: &'k LoopKernel,
    streams: &mut Streams<'k>,
    values: &mut Values,
    flights: usize,
) -> Option<Vec<Pass>> {
    let (mut passes, mut first, mut looped) = (Vec::new(), 0, 0);
    for (index, stage) in kernel.stages.iter().enumerate() {
        let mut pass = pass(kernel, index, streams, values, flights, first)?;
        if !stage.inner.is_empty() {
            looped += 1;
            pass.points = Some(looped);
        }
        first += stage.reductions.len();
        passes.push(pass);
    }
    Some(passes)
}

/// The register of a reduction, for a vector in flight.
fn register(number: usize, flight: usize, flights: usize) -> usize {
    VECTORS - 1 - (number * flights + flight)
}

/// A stage, whose reductions have numbers from `first` on.
fn pass(
    kernel: &LoopKernel,
    index: usize,
    streams: &mut Streams<'_>,
    values: &mut Values,
    flights: usize,
    first: usize,
) -> Option<Pass> {
    let stage = &kernel.stages[index];
    let mut lanes = Lanes::default();
    let mut loaded: HashMap<usize, V> = HashMap::new();
    let (mut reduced, mut sums, mut stores) = (Vec::new(), Vec::new(), Vec::new());
    for flight in 0..flights {
        let mut read = |lanes: &mut Lanes, id: ExprId| match &stage.dag[id].expr {
            Expr::Load { arg, access } => {
                let (pointer, bytes, step) = streams.flight(*arg, access, flight)?;
                let stream = streams.add(Stream::Memory(pointer, bytes, step));
                Some(*loaded.entry(stream).or_insert_with(|| streams.load_at(lanes, stream)))
            }
            Expr::Reduced(number) => {
                let value = lanes.given(stage.dag.dtype(id));
                reduced.push((value, register(*number, flight, flights)));
                Some(value)
            }
            _ => values.read(kernel, streams, lanes, index, id),
        };
        let results = expr::eval(&mut lanes, &stage.dag, &mut read);
        for reduction in &stage.reductions {
            let fold = Fold::of(stage, reduction)?;
            let old = lanes.given(fold.dtype);
            let new = fold.accumulate(&mut lanes, stage, reduction, &results, old)?;
            sums.push((old, new, fold));
        }
        for store in &stage.stores {
            let place = streams.flight(store.arg, &store.access, flight)?;
            if place.2.is_same() {
                return None;
            }
            let value = nest::stored(kernel, stage, &results, store)?;
            stores.push(streams.store_at(&mut lanes, value, place));
        }
    }
    lanes.is_possible().then_some(Pass { lanes, stores, sums, reduced, first, points: None })
}

impl Streams<'_> {
    /// Where an access goes for a vector in flight.
    fn flight(&mut self, arg: usize, access: &Access, flight: usize) -> Option<(usize, i64, Step)> {
        let (pointer, bytes, step) = self.memory(arg, access, 0, &[])?;
        let bytes = if step.is_same() { bytes } else { bytes + step.vector_bytes() * flight as i64 };
        let is_second = matches!(step, Step::Second | Step::SecondOf(_));
        (!is_second).then_some((pointer, bytes, step))
    }
}

fn assemble(streams: &Streams<'_>, call: &Call, blocks: &[(usize, Vec<Pass>)]) -> Result<Vec<u8>, AsmError> {
    let mut starts = Lanes::default();
    for pass in blocks.iter().flat_map(|(_, passes)| passes) {
        for (_, _, fold) in &pass.sums {
            fold.start(&mut starts);
        }
    }
    let lists = blocks.iter().flat_map(|(_, passes)| passes).map(|pass| &pass.lanes);
    let pool = nest::pool_of(lists.chain([&starts]));
    let constant = |bits: u32| Mem::at(nest::POOL, 4 * pool.binary_search(&bits).unwrap_or(0) as i64);
    let places = streams.places(call, nest::tables_at(&pool));
    let places = Places::new(&places, &constant, false);
    let mut asm = Asm::new()?;
    let saved = nest::enter(&mut asm, call)?;
    let [mut words, mut row, mut done, mut next] = std::array::from_fn(|_| asm.label());
    asm.address_of(nest::POOL, words)?;
    asm.load_word(END, Mem::at(ARGUMENT, call.columns_at(0)))?;
    let count = Mem::at(ARGUMENT, 0);
    asm.compare_with_zero(count)?;
    asm.jump_if_zero(done)?;
    asm.place(&mut row)?;
    asm.set_number(AT, 0)?;
    for (flights, passes) in blocks {
        let bytes = VECTOR * *flights as i64;
        let (mut many, mut few) = (asm.label(), asm.label());
        asm.place(&mut many)?;
        asm.copy_word(SPARE, END)?;
        asm.subtract_word(SPARE, AT)?;
        asm.add_number(SPARE, -bytes)?;
        asm.jump_if_less(few)?;
        all(&mut asm, call, places, passes, *flights)?;
        asm.add_number(AT, bytes)?;
        asm.jump(many)?;
        asm.place(&mut few)?;
        asm.separate()?;
    }
    asm.compare_words(END, AT)?;
    asm.jump_if_zero(next)?;
    asm.tail(END, AT, 0, nest::ones(&pool), SPARE)?;
    if let Some((flights, passes)) = blocks.last() {
        all(&mut asm, call, Places { cut: true, ..places }, passes, *flights)?;
    }
    asm.place(&mut next)?;
    for (index, _) in call.pointers.iter().enumerate().filter(|(_, p)| p.step(call.row).is_some()) {
        let start = call.pointer_at(index);
        asm.add_word_at(POINTERS[index], Mem::at(ARGUMENT, start + 8))?;
        asm.store_word(Mem::at(ARGUMENT, start), POINTERS[index])?;
    }
    asm.count_down(count)?;
    asm.jump_if_greater(row)?;
    asm.place(&mut done)?;
    nest::leave(&mut asm, &saved)?;
    asm.place(&mut words)?;
    asm.words(&nest::pool_words(&pool))?;
    asm.finish()
}

/// All stages at a block of columns.
fn all(
    asm: &mut Asm,
    call: &Call,
    places: Places<'_>,
    passes: &[Pass],
    flights: usize,
) -> Result<(), AsmError> {
    let held: usize = passes.iter().map(|pass| pass.sums.len()).sum();
    let places = Places { vectors: VECTORS - held, ..places };
    passes.iter().try_for_each(|pass| pass.emit(asm, call, places, flights))
}

impl Pass {
    fn emit(&self, asm: &mut Asm, call: &Call, places: Places<'_>, flights: usize) -> Result<(), AsmError> {
        let per = self.sums.len() / flights;
        let sums: Vec<(V, usize)> = self
            .sums
            .iter()
            .enumerate()
            .map(|(at, sum)| (sum.0, register(self.first + at % per.max(1), at / per.max(1), flights)))
            .collect();
        for ((_, _, fold), (_, register)) in self.sums.iter().zip(&sums) {
            let bits = fold.identity();
            if bits == 0 { asm.zero(*register)? } else { asm.broadcast(*register, (places.constant)(bits))? }
        }
        let given: Vec<(V, usize)> = self.reduced.iter().copied().chain(sums.iter().copied()).collect();
        let keep: Vec<V> = self.sums.iter().map(|sum| sum.1).collect();
        let places = Places { given: &given, keep: &keep, ..places };
        let Some(points) = self.points else {
            let kept = self.lanes.emit(asm, &places, &self.stores)?;
            return copy_all(asm, &kept, &sums);
        };
        let [mut point, mut done] = std::array::from_fn(|_| asm.label());
        asm.load_word(SPARE, Mem::at(ARGUMENT, call.columns_at(points)))?;
        asm.add_number(SPARE, 0)?;
        asm.jump_if_zero(done)?;
        asm.place(&mut point)?;
        let kept = self.lanes.emit(asm, &places, &self.stores)?;
        copy_all(asm, &kept, &sums)?;
        let moving = call.pointers.iter().enumerate().filter(|(_, p)| p.step(call.inner).is_some());
        for (index, _) in moving.clone() {
            asm.add_word_at(POINTERS[index], Mem::at(ARGUMENT, call.pointer_at(index) + 16))?;
        }
        asm.add_number(SPARE, -1)?;
        asm.jump_if_greater(point)?;
        asm.place(&mut done)?;
        asm.separate()?;
        for (index, _) in moving {
            asm.load_word(POINTERS[index], Mem::at(ARGUMENT, call.pointer_at(index)))?;
        }
        Ok(())
    }
}

fn copy_all(asm: &mut Asm, from: &[usize], to: &[(V, usize)]) -> Result<(), AsmError> {
    from.iter().zip(to).try_for_each(|(from, (_, to))| asm.copy(*to, *from))
}
