//! From operations on lanes to instructions: a linear scan over the registers.
//!
//! What comes from memory as it is (constants, words, vectors) is loaded where it is first needed. Its register is the
//! first to be given up where there are too few, and it is loaded again; all other values stay where they are.

use super::asm::{Asm, AsmError, Mem, zmm};
use super::lanes::{Cell, Kind, Lanes, Op, V};
use iced_x86::{Instruction, Register};

/// Vector registers.
pub(crate) const VECTORS: usize = 32;

/// Mask registers: k1 to k6. k0 means no mask, and k7 tells which lanes are there.
const MASKS: usize = 6;

/// The mask of the lanes that are there.
pub(crate) const TAIL: Register = Register::K7;

/// Its number.
pub(crate) const TAIL_MASK: usize = 7;

/// Where code reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    /// Of each stream.
    pub streams: &'a [Mem],
    /// Of a constant.
    pub constant: &'a dyn Fn(u32) -> Mem,
    /// Only the lanes of [`TAIL`] are there.
    pub cut: bool,
    /// Values that are in registers from the start, and stay there.
    pub given: &'a [(V, usize)],
    /// Values that are to be in registers at the end.
    pub keep: &'a [V],
    /// Vector registers that the code may use besides, from the first on.
    pub vectors: usize,
    /// Mask registers that it may use, from k1 on.
    pub masks: usize,
}

impl<'a> Places<'a> {
    /// Nothing given, nothing kept.
    pub fn new(streams: &'a [Mem], constant: &'a dyn Fn(u32) -> Mem, cut: bool) -> Places<'a> {
        Places { streams, constant, cut, given: &[], keep: &[], vectors: VECTORS, masks: MASKS }
    }

    /// Loads what comes from memory.
    ///
    /// **Errors**: it does not.
    pub(super) fn load(&self, asm: &mut Asm, op: Op, to: usize) -> Result<(), AsmError> {
        match op {
            Op::Const(0) => asm.zero(to),
            Op::Const(bits) => asm.broadcast(to, (self.constant)(bits)),
            Op::Uniform(stream) => asm.broadcast(to, self.streams[stream]),
            Op::Table(stream) => asm.load(to, self.streams[stream]),
            Op::Load(stream) => asm.load_lanes(to, self.streams[stream], self.cut),
            Op::LoadCell(stream, cell) => asm.load_cells(to, self.streams[stream], cell, self.cut),
            Op::UniformCell(stream, cell) => asm.broadcast_cell(to, self.streams[stream], cell),
            Op::LoadWhere(stream, mask) => asm.load_where(to, mask, self.streams[stream], false),
            _ => Err(AsmError::registers()),
        }
    }
}

/// A store of a value to a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store {
    /// What is stored.
    pub value: V,
    /// Where.
    pub stream: usize,
    /// The mask register of the lanes that are stored; none for those that are there.
    pub mask: Option<usize>,
    /// The type of memory, if it is not f32; bf16 are stored as integers.
    pub cell: Option<Cell>,
}

/// The code of a list of operations under construction.
struct Scan<'a> {
    lanes: &'a Lanes,
    asm: &'a mut Asm,
    places: &'a Places<'a>,
    /// Register of each value that has one.
    of: Vec<Option<usize>>,
    /// Operations that use each value, in order.
    uses: Vec<Vec<usize>>,
    vectors: Vec<usize>,
    masks: Vec<usize>,
}

impl Lanes {
    /// Emits the operations that `stores` and `places.keep` need, then stores. Gives the
    /// registers of what is kept.
    ///
    /// **Errors**: more values are alive at once than there are registers.
    pub fn emit(&self, asm: &mut Asm, places: &Places<'_>, stores: &[Store]) -> Result<Vec<usize>, AsmError> {
        let given = |value: V| places.given.iter().any(|(known, _)| *known == value);
        let count = self.ops.len();
        let mut uses: Vec<Vec<usize>> = vec![Vec::new(); count];
        let mut needed = vec![false; count];
        for value in stores.iter().map(|store| store.value).chain(places.keep.iter().copied()) {
            uses[value].push(count);
            needed[value] = true;
        }
        for at in (0..count).rev().filter(|&at| !given(at)) {
            if needed[at] {
                for operand in Self::operands(self.ops[at].0).into_iter().flatten() {
                    needed[operand] = true;
                    uses[operand].push(at);
                }
            }
        }
        uses.iter_mut().for_each(|list| list.reverse());
        let taken = |register: &usize| places.given.iter().any(|(_, held)| held == register);
        let mut scan = Scan {
            lanes: self,
            asm,
            places,
            of: vec![None; count],
            uses,
            vectors: (0..places.vectors).rev().filter(|register| !taken(register)).collect(),
            masks: (1..=places.masks).rev().collect(),
        };
        for &(value, register) in places.given {
            scan.of[value] = Some(register);
        }
        for at in (0..count).filter(|&at| needed[at] && !given(at)) {
            if !is_from_memory(self.ops[at].0) {
                scan.operation(at)?;
            }
        }
        for store in stores {
            let from = scan.register(store.value, count, &[])?;
            let to = places.streams[store.stream];
            match store.mask {
                Some(mask) => scan.asm.store_where(to, mask, from)?,
                None => match store.cell {
                    None | Some(Cell::I32) => scan.asm.store_lanes(to, from, places.cut)?,
                    Some(Cell::F16) => scan.asm.store_f16(to, from, places.cut)?,
                    Some(Cell::I8 | Cell::U8) => scan.asm.store_low_bytes(to, from, places.cut)?,
                    Some(_) => scan.asm.store_low_halves(to, from, places.cut)?,
                },
            }
        }
        let mut kept = Vec::new();
        for &value in places.keep {
            kept.push(scan.register(value, count, places.keep)?);
        }
        Ok(kept)
    }
}

/// True for what is loaded where it is first needed, and again where it has lost its register.
pub(super) fn is_from_memory(op: Op) -> bool {
    let is_uniform = matches!(op, Op::Const(_) | Op::Uniform(_) | Op::UniformCell(..) | Op::Table(_));
    is_uniform || matches!(op, Op::Load(_) | Op::LoadCell(..) | Op::LoadWhere(..))
}

impl Scan<'_> {
    fn is_given(&self, value: V) -> bool {
        self.places.given.iter().any(|(known, _)| *known == value)
    }

    /// The next use of a value from an operation on.
    fn next_use(&self, value: V, at: usize) -> Option<usize> {
        let list = &self.uses[value];
        list.get(list.partition_point(|&used| used < at)).copied()
    }

    /// A free register; where there is none, that of the value from memory that is needed last. Those of `locked` stay.
    fn take(&mut self, kind: Kind, at: usize, locked: &[V]) -> Result<usize, AsmError> {
        let free = if kind == Kind::Mask { &mut self.masks } else { &mut self.vectors };
        if let Some(register) = free.pop() {
            return Ok(register);
        }
        if kind == Kind::Mask {
            return Err(AsmError::registers());
        }
        let loses = |&value: &V| {
            self.of[value].is_some()
                && is_from_memory(self.lanes.ops[value].0)
                && !locked.contains(&value)
                && !self.is_given(value)
        };
        let values = (0..self.of.len()).filter(loses);
        let value = values.max_by_key(|&value| self.next_use(value, at)).ok_or_else(AsmError::registers)?;
        self.of[value].take().ok_or_else(AsmError::registers)
    }

    fn release(&mut self, value: V) {
        if self.is_given(value) {
            return;
        }
        if let Some(register) = self.of[value].take() {
            let kind = self.lanes.ops[value].1;
            if kind == Kind::Mask { &mut self.masks } else { &mut self.vectors }.push(register);
        }
    }

    /// The register of a value, which is loaded if it comes from memory.
    fn register(&mut self, value: V, at: usize, locked: &[V]) -> Result<usize, AsmError> {
        if let Some(register) = self.of[value] {
            return Ok(register);
        }
        let (op, kind) = self.lanes.ops[value];
        let register = self.take(kind, at, locked)?;
        self.places.load(self.asm, op, register)?;
        self.of[value] = Some(register);
        Ok(register)
    }

    /// Emits one operation.
    fn operation(&mut self, at: usize) -> Result<(), AsmError> {
        let (op, kind) = self.lanes.ops[at];
        let operands = Lanes::operands(op);
        let locked: Vec<V> = operands.into_iter().flatten().collect();
        let mut r = [0; 3];
        for (register, operand) in r.iter_mut().zip(operands) {
            if let Some(operand) = operand {
                *register = self.register(operand, at, &locked)?;
            }
        }
        let to = match op {
            Op::MulAdd { .. } => {
                let to = self.fused(at, r)?;
                self.free(&locked, at);
                to
            }
            Op::Pick { .. } => {
                let to = self.take(kind, at, &locked)?;
                self.asm.copy(to, r[2])?;
                self.asm.pick(to, r[0], r[1])?;
                self.free(&locked, at);
                to
            }
            _ => {
                self.free(&locked, at);
                let to = self.take(kind, at, &locked)?;
                self.simple(op, kind, to, r)?;
                to
            }
        };
        self.of[at] = Some(to);
        Ok(())
    }

    /// Emits an operation whose result may be where an operand is.
    fn simple(&mut self, op: Op, kind: Kind, to: usize, r: [usize; 3]) -> Result<(), AsmError> {
        let asm = &mut *self.asm;
        match op {
            Op::Two(code, ..) => asm.add(Instruction::with3(
                code,
                kind.register(to),
                kind.register(r[0]),
                kind.register(r[1]),
            )?),
            Op::One(code, _) => asm.add(Instruction::with2(code, kind.register(to), kind.register(r[0]))?),
            Op::Number(code, _, number) => asm.add(Instruction::with3(code, zmm(to), zmm(r[0]), number)?),
            Op::Compare(code, _, _, number) => {
                asm.add(Instruction::with4(code, kind.register(to), zmm(r[0]), zmm(r[1]), number)?)
            }
            Op::RoundF16(_) => asm.round_f16(to, r[0]),
            Op::Select(..) => asm.blend(to, r[0], r[1], r[2]),
            Op::OrZero(..) => asm.copy_where(to, r[0], r[1]),
            _ => Err(AsmError::registers()),
        }
    }

    /// A multiply-add of registers; gives that of its result. One operand is overwritten: the sum, or a factor, if it is
    /// not used again, else a copy of the sum.
    fn fused(&mut self, at: usize, r: [usize; 3]) -> Result<usize, AsmError> {
        let Op::MulAdd { negate, a, b, c } = self.lanes.ops[at].0 else { return Err(AsmError::registers()) };
        let dies = |v: V, others: [V; 2]| {
            !self.is_given(v) && self.next_use(v, at + 1).is_none() && !others.contains(&v)
        };
        let (to, over) = if dies(c, [a, b]) {
            self.asm.multiply_add_to(negate, r[2], r[0], r[1])?;
            (r[2], c)
        } else if dies(a, [b, c]) {
            self.asm.multiply_add_over(negate, r[0], r[1], r[2])?;
            (r[0], a)
        } else if dies(b, [a, c]) {
            self.asm.multiply_add_over(negate, r[1], r[0], r[2])?;
            (r[1], b)
        } else {
            let to = self.take(Kind::Float, at, &[a, b, c])?;
            self.asm.copy(to, r[2])?;
            self.asm.multiply_add_to(negate, to, r[0], r[1])?;
            return Ok(to);
        };
        self.of[over] = None;
        Ok(to)
    }

    /// Frees the registers of values that are not used again.
    fn free(&mut self, values: &[V], at: usize) {
        for &value in values {
            if self.next_use(value, at + 1).is_none() {
                self.release(value);
            }
        }
    }
}
