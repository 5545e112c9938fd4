//! What leaves of loop kernels have in common: where they read and write, and their argument.
//!
//! The argument begins with the number of rows, which the leaf counts down, and the columns of each loop. Then
//! come, for each pointer, where it starts and how many bytes it moves from row to row and from point to point; then values of f32, and room for
//! reductions, a word each.

use super::LANES;
use super::asm::{Asm, AsmError, Gpr, Mem};
use super::lanes::{Cell, Lanes, V, is_int};
use super::registers::Store;
use super::strided;
use iced_x86::Register;
use rabot_kernel::{Access, Coord, ExprId, LoopKernel, Size, Stage};
use rabot_tensor::DType;

/// A place in a buffer that moves from row to row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pointer {
    /// Argument of the kernel.
    pub arg: usize,
    /// Parameter that is the constant part of the index.
    pub offset: Option<usize>,
    /// Strides of outer coordinates, that of the row included, and of points.
    pub strides: Vec<(Coord, Size)>,
    /// Parameters, and how often each is part of the index: distances of taps.
    pub shift: Vec<(usize, i64)>,
}

impl Pointer {
    /// Its distance along a coordinate; `None` if it stays.
    pub fn step(&self, along: Option<Coord>) -> Option<Size> {
        self.strides.iter().find(|(coord, _)| Some(*coord) == along).map(|(_, stride)| *stride)
    }
}

/// How a kernel calls its leaf.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The coordinate of rows; the leaf does many of them.
    pub row: Option<Coord>,
    /// The coordinate of points that the leaf loops over.
    pub inner: Option<Coord>,
    /// Columns of each loop.
    pub columns: Vec<Size>,
    /// Pointers.
    pub pointers: Vec<Pointer>,
    /// Values of f32 that depend on parameters only: stage and node.
    pub values: Vec<(usize, ExprId)>,
    /// Reductions.
    pub slots: usize,
}

impl Call {
    /// Where the columns of a loop are in the argument.
    pub fn columns_at(&self, index: usize) -> i64 {
        8 + 8 * index as i64
    }

    /// Where a pointer is.
    pub fn pointer_at(&self, index: usize) -> i64 {
        self.columns_at(self.columns.len()) + 24 * index as i64
    }

    /// Where a value is.
    pub fn value_at(&self, index: usize) -> i64 {
        self.pointer_at(self.pointers.len()) + 8 * index as i64
    }

    /// Where a reduction goes.
    pub fn slot_at(&self, index: usize) -> i64 {
        self.value_at(self.values.len()) + 8 * index as i64
    }

    /// Bytes of the argument.
    pub fn bytes(&self) -> usize {
        self.slot_at(self.slots) as usize
    }
}

/// Which words of memory the lanes of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// One for all.
    Same,
    /// Neighbours.
    Next,
    /// Every second one.
    Second,
    /// One element of another type for all.
    SameOf(Cell),
    /// Neighbours of another type.
    NextOf(Cell),
    /// Every second one of bytes.
    SecondOf(Cell),
}

impl Step {
    /// True if all lanes are one element.
    pub fn is_same(self) -> bool {
        matches!(self, Step::Same | Step::SameOf(_))
    }

    /// Bytes of a vector.
    pub fn vector_bytes(self) -> i64 {
        match self {
            Step::Same | Step::Next | Step::Second => 4 * LANES as i64,
            Step::SameOf(cell) | Step::NextOf(cell) | Step::SecondOf(cell) => cell.bytes() * LANES as i64,
        }
    }
}

/// What code reads or writes at a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stream {
    /// Memory: a pointer, and bytes from there.
    Memory(usize, i64, Step),
    /// A value of the argument.
    Value(usize),
    /// A reduction.
    Slot(usize),
    /// A list of lane numbers.
    Table(Table),
}

/// Lists of lane numbers behind the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// 0, 2, 4 …
    Even,
    /// 1, 3, 5 …
    Odd,
    /// 0, 0, 1, 1 …
    Low,
    /// 8, 8, 9, 9 …
    High,
}

/// The streams of a leaf, each once.
pub(super) struct Streams<'k> {
    kernel: &'k LoopKernel,
    lane: Coord,
    row: Option<Coord>,
    /// The coordinate of points that are not unrolled.
    pub inner: Option<Coord>,
    pub pointers: Vec<Pointer>,
    pub list: Vec<Stream>,
}

/// Pointers at most: a register each.
pub(super) const MOST_POINTERS: usize = POINTERS.len();

pub(super) const ARGUMENT: Gpr = Register::RDI;
/// The first column of a vector.
pub(super) const AT: Gpr = Register::RCX;
/// The number of columns.
pub(super) const END: Gpr = Register::RAX;
pub(super) const SPARE: Gpr = Register::RDX;
pub(super) const POOL: Gpr = Register::RBX;
pub(super) const POINTERS: [Gpr; 10] = [
    Register::RSI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
    Register::RBP,
];
/// Registers that belong to the caller, among those.
const SAVED: [Gpr; 6] =
    [Register::RBX, Register::R12, Register::R13, Register::R14, Register::R15, Register::RBP];

impl<'k> Streams<'k> {
    pub fn new(kernel: &'k LoopKernel, lane: Coord, row: Option<Coord>) -> Self {
        Streams { kernel, lane, row, inner: None, pointers: Vec::new(), list: Vec::new() }
    }

    /// The number of a stream.
    pub fn add(&mut self, stream: Stream) -> usize {
        let known = self.list.iter().position(|known| *known == stream);
        known.unwrap_or_else(|| {
            self.list.push(stream);
            self.list.len() - 1
        })
    }

    /// Where an access goes, so many rows on and at the coordinates `at`; `None` if there is no code for it.
    pub fn memory(
        &mut self,
        arg: usize,
        access: &Access,
        rows: i64,
        at: &[(Coord, i64)],
    ) -> Option<(usize, i64, Step)> {
        let cell = match self.kernel.args.get(arg)?.dtype {
            DType::F32 => None,
            dtype => Some(Cell::of(dtype)?),
        };
        if !access.dynamic.is_empty() {
            return None;
        }
        let (offset, mut index) = match access.offset {
            None => (None, 0),
            Some(Size::Const(value)) => (None, value),
            Some(Size::Param(param)) => (Some(param), 0),
        };
        let mut step = Step::Same;
        let mut pointer = Pointer { arg, offset, strides: Vec::new(), shift: Vec::new() };
        for &(coord, stride) in access.strides.iter().filter(|(_, stride)| *stride != Size::Const(0)) {
            if coord == self.lane {
                step = match stride {
                    Size::Const(1) => Step::Next,
                    Size::Const(2) => Step::Second,
                    _ => return None,
                };
                continue;
            }
            let known = at.iter().find(|(known, _)| *known == coord).map(|(_, value)| *value);
            let times = if Some(coord) == self.row { Some(rows) } else { known };
            if coord < self.kernel.outer.len() || Some(coord) == self.inner {
                pointer.strides.push((coord, stride));
            } else {
                times?;
            }
            match (stride, times.unwrap_or(0)) {
                (_, 0) => {}
                (Size::Const(stride), times) => index = stride.checked_mul(times)?.checked_add(index)?,
                (Size::Param(param), times) => match pointer.shift.iter_mut().find(|(p, _)| *p == param) {
                    Some((_, count)) => *count += times,
                    None => pointer.shift.push((param, times)),
                },
            }
        }
        let (size, step) = match (cell, step) {
            (None, step) => (4, step),
            (Some(cell), Step::Same) => (cell.bytes(), Step::SameOf(cell)),
            (Some(cell), Step::Next) => (cell.bytes(), Step::NextOf(cell)),
            (Some(cell @ (Cell::I8 | Cell::U8)), Step::Second) => (1, Step::SecondOf(cell)),
            (Some(_), _) => return None,
        };
        let bytes = i64::from(i32::try_from(index.checked_mul(size)?).ok()?);
        let number = self.pointer(pointer);
        (number < MOST_POINTERS).then_some((number, bytes, step))
    }

    /// The number of a pointer.
    fn pointer(&mut self, mut pointer: Pointer) -> usize {
        pointer.shift.retain(|(_, count)| *count != 0);
        pointer.shift.sort_unstable();
        pointer.strides.sort_unstable_by_key(|(coord, _)| *coord);
        let known = self.pointers.iter().position(|known| *known == pointer);
        known.unwrap_or_else(|| {
            self.pointers.push(pointer);
            self.pointers.len() - 1
        })
    }

    /// The stores of a value, so many rows on and at a point; `None` if there is no code for them.
    pub fn store(
        &mut self,
        lanes: &mut Lanes,
        value: V,
        to: (usize, &Access),
        rows: i64,
        at: &[(Coord, i64)],
    ) -> Option<Vec<Store>> {
        let (pointer, bytes, step) = self.memory(to.0, to.1, rows, at)?;
        match step {
            Step::Second => Some(strided::spread(lanes, self, value, pointer, bytes).to_vec()),
            Step::SecondOf(_) => None,
            _ => Some(vec![self.store_at(lanes, value, (pointer, bytes, step))]),
        }
    }

    /// The store of a value at a place whose elements are neighbours, or one.
    pub fn store_at(&mut self, lanes: &mut Lanes, value: V, place: (usize, i64, Step)) -> Store {
        let stream = self.add(Stream::Memory(place.0, place.1, place.2));
        let cell = match place.2 {
            Step::SameOf(cell) | Step::NextOf(cell) | Step::SecondOf(cell) => Some(cell),
            Step::Same | Step::Next | Step::Second => None,
        };
        let value = if cell == Some(Cell::BF16) { lanes.bf16_bits(value) } else { value };
        Store { value, stream, mask: None, cell }
    }

    /// The load of a place whose elements are neighbours, or one.
    pub fn load_at(&mut self, lanes: &mut Lanes, stream: usize) -> V {
        match self.list[stream] {
            Stream::Memory(_, _, Step::Next | Step::Second) => lanes.load(stream),
            Stream::Memory(_, _, Step::SameOf(cell)) => lanes.uniform_cell(stream, cell),
            Stream::Memory(_, _, Step::NextOf(cell)) => lanes.load_cell(stream, cell),
            _ => lanes.uniform(stream),
        }
    }

    /// True if the lanes of a stream are one element.
    pub fn is_one(&self, stream: usize) -> bool {
        matches!(self.list[stream], Stream::Memory(_, _, step) if step.is_same())
    }

    /// True if a stream is the same in all rows.
    pub fn is_fixed(&self, stream: usize) -> bool {
        match self.list[stream] {
            Stream::Memory(pointer, _, step) => {
                step.is_same() && self.pointers[pointer].step(self.row).is_none()
            }
            Stream::Value(_) | Stream::Table(_) => true,
            Stream::Slot(_) => false,
        }
    }

    /// Where the streams are in memory; tables lie `tables` bytes into the pool.
    pub fn places(&self, call: &Call, tables: i64) -> Vec<Mem> {
        let place = |stream: &Stream| match *stream {
            Stream::Memory(pointer, bytes, step) => match step {
                Step::Same | Step::SameOf(_) => Mem::at(POINTERS[pointer], bytes),
                Step::NextOf(cell) | Step::SecondOf(cell) => {
                    Mem::indexed(POINTERS[pointer], AT, cell.bytes() as u32, bytes)
                }
                Step::Next => Mem::indexed(POINTERS[pointer], AT, 4, bytes),
                Step::Second => Mem::indexed(POINTERS[pointer], AT, 8, bytes),
            },
            Stream::Value(index) => Mem::at(ARGUMENT, call.value_at(index)),
            Stream::Slot(index) => Mem::at(ARGUMENT, call.slot_at(index)),
            Stream::Table(table) => Mem::at(POOL, tables + 64 * table as i64),
        };
        self.list.iter().map(place).collect()
    }
}

/// True if a stage reads nothing that the kernel writes while it is not certain that it reads it first.
pub(super) fn reads_before_it_writes(kernel: &LoopKernel, stage: usize) -> bool {
    let stage = &kernel.stages[stage];
    let loads = stage.dag.nodes().iter().filter_map(|node| match &node.expr {
        rabot_kernel::Expr::Load { arg, access } => Some((*arg, access)),
        _ => None,
    });
    loads.into_iter().all(|(arg, access)| {
        let mut own = stage.stores.iter().filter(|store| store.arg == arg);
        own.all(|store| store.access == *access && stage.stores.len() == 1)
    })
}

/// The constants of code, in the order in which they lie in its pool.
pub(super) fn pool_of<'l>(lists: impl Iterator<Item = &'l Lanes>) -> Vec<u32> {
    let mut pool: Vec<u32> = lists.flat_map(Lanes::constants).collect();
    pool.sort_unstable();
    pool.dedup();
    pool
}

/// Words behind the constants of the pool: all ones, then tables of lane numbers.
pub(super) fn pool_words(pool: &[u32]) -> Vec<u32> {
    let lanes = 0..LANES as u32;
    let tables = [|lane| 2 * lane, |lane| 2 * lane + 1, |lane| lane / 2, |lane| 8 + lane / 2];
    let tables = tables.into_iter().flat_map(|number: fn(u32) -> u32| lanes.clone().map(number));
    pool.iter().copied().chain([u32::MAX]).chain(tables).collect()
}

/// The word of all ones behind a pool.
pub(super) fn ones(pool: &[u32]) -> Mem {
    Mem::at(POOL, 4 * pool.len() as i64)
}

/// Bytes from the start of a pool to its tables.
pub(super) fn tables_at(pool: &[u32]) -> i64 {
    4 * (pool.len() as i64 + 1)
}

/// Columns of a vector.
pub(super) const VECTOR: i64 = LANES as i64;

/// The value of a store, if lanes hold it as memory does: floats for floats, integers for integers, cut where they are
/// longer.
pub(super) fn stored(
    kernel: &LoopKernel,
    stage: &Stage,
    values: &[Option<V>],
    store: &rabot_kernel::Store,
) -> Option<V> {
    let (from, to) = (stage.dag.dtype(store.value), kernel.args.get(store.arg)?.dtype);
    let fits = if from == DType::F32 { !is_int(to) } else { is_int(from) && is_int(to) };
    values.get(store.value).copied().flatten().filter(|_| fits)
}

/// Saves the caller's registers and loads the pointers; gives what was saved.
pub(super) fn enter(asm: &mut Asm, call: &Call) -> Result<Vec<Gpr>, AsmError> {
    let pointers = POINTERS.get(..call.pointers.len()).ok_or_else(AsmError::registers)?;
    let is_used = |register: &Gpr| *register == POOL || pointers.contains(register);
    let saved: Vec<Gpr> = SAVED.into_iter().filter(is_used).collect();
    saved.iter().try_for_each(|register| asm.push(*register))?;
    for (index, pointer) in pointers.iter().enumerate() {
        asm.load_word(*pointer, Mem::at(ARGUMENT, call.pointer_at(index)))?;
    }
    Ok(saved)
}

/// Restores them and ends the function.
pub(super) fn leave(asm: &mut Asm, saved: &[Gpr]) -> Result<(), AsmError> {
    saved.iter().rev().try_for_each(|register| asm.pop(*register))?;
    asm.ret()
}

/// Moves the pointers so many rows on.
pub(super) fn next_rows(asm: &mut Asm, call: &Call, rows: usize) -> Result<(), AsmError> {
    for (index, (pointer, register)) in call.pointers.iter().zip(POINTERS).enumerate() {
        let step = Mem::at(ARGUMENT, call.pointer_at(index) + 8);
        match (pointer.step(call.row), rows) {
            (None, _) => {}
            (Some(_), 1) => asm.add_word_at(register, step)?,
            (Some(_), _) => {
                asm.multiply_word_at(SPARE, step, rows as i32)?;
                asm.add_word(register, SPARE)?;
            }
        }
    }
    Ok(())
}

/// Values of nodes that are the same for the whole kernel, but not held in lanes: casts of sizes.
pub(super) struct Values {
    /// Stage and node of each.
    pub list: Vec<(usize, ExprId)>,
}

impl Values {
    /// The value of a node, if it depends on parameters only.
    pub fn read(
        &mut self,
        kernel: &LoopKernel,
        streams: &mut Streams<'_>,
        lanes: &mut Lanes,
        stage: usize,
        id: ExprId,
    ) -> Option<V> {
        use rabot_kernel::Expr;
        let dag = &kernel.stages[stage].dag;
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            match &dag[id].expr {
                Expr::Const(_) | Expr::Size(_) => {}
                Expr::Cast(a) | Expr::Bitcast(a) | Expr::Unary(_, a) => waiting.push(*a),
                Expr::Binary(_, a, b) => waiting.extend([*a, *b]),
                _ => return None,
            }
        }
        let known = self.list.iter().position(|known| *known == (stage, id));
        let index = known.unwrap_or_else(|| {
            self.list.push((stage, id));
            self.list.len() - 1
        });
        Some(lanes.uniform(streams.add(Stream::Value(index))))
    }
}
