//! Elementwise functions over rows: every element of the results is the same expression of the elements above it.

use super::asm::{Asm, AsmError, Gpr, Mem};
use super::lanes::Lanes;
use super::registers::{Places, Store};
use super::{LANES, expr};
use iced_x86::Register;
use rabot_kernel::{Dag, ExprId};
use rabot_tensor::DType;

/// A map over rows of f32: at each column of each row, the values of a DAG are stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Map {
    /// What is computed. Loads are of streams.
    pub dag: Dag,
    /// The stream of each load, and of the accumulator.
    pub reads: Vec<(ExprId, usize)>,
    /// Values, and the streams that they go to.
    pub stores: Vec<(ExprId, usize)>,
    /// Streams: true where a column is next to the one before, false where all columns are one element.
    pub streams: Vec<bool>,
}

/// Streams at most: a register each.
pub(crate) const MOST_STREAMS: usize = POINTERS.len();

/// Bytes of what precedes the streams in the argument: bytes of a row, and rows, which the leaf counts down.
pub(crate) const HEAD: i64 = 16;

/// Bytes of a stream in the argument: where it starts, and bytes from row to row.
pub(crate) const STREAM: i64 = 16;

const ARGUMENT: Gpr = Register::RDI;
const AT: Gpr = Register::RCX;
const END: Gpr = Register::RAX;
const SPARE: Gpr = Register::RDX;
const POOL: Gpr = Register::RBX;
const POINTERS: [Gpr; 10] = [
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

const VECTOR: i64 = LANES as i64 * 4;

impl Map {
    /// The expression on lanes, and where its values go; `None` if it has no code.
    fn lanes(&self) -> Option<(Lanes, Vec<Store>)> {
        let mut lanes = Lanes::default();
        let mut read = |lanes: &mut Lanes, id: ExprId| {
            if self.dag.dtype(id) != DType::F32 {
                return None;
            }
            let stream = self.reads.iter().find(|(read, _)| *read == id)?.1;
            let contiguous = *self.streams.get(stream)?;
            Some(if contiguous { lanes.load(stream) } else { lanes.uniform(stream) })
        };
        let values = expr::eval(&mut lanes, &self.dag, &mut read);
        let store = |(id, stream): &(ExprId, usize)| {
            let value = values.get(*id).copied().flatten().filter(|_| self.dag.dtype(*id) == DType::F32)?;
            Some(Store { value, stream: *stream, mask: None, cell: None })
        };
        let stores = self.stores.iter().map(store);
        let stores = stores.collect::<Option<Vec<_>>>()?;
        lanes.is_possible().then_some((lanes, stores))
    }

    /// True if there is code for it.
    pub fn is_possible(&self) -> bool {
        self.streams.len() <= MOST_STREAMS
            && self.stores.iter().all(|(_, stream)| self.streams.get(*stream) == Some(&true))
            && self.lanes().is_some()
            && self.assemble().is_ok()
    }

    /// Its machine code.
    ///
    /// **Errors**: it needs more registers than there are, or cannot be encoded.
    pub fn assemble(&self) -> Result<Vec<u8>, AsmError> {
        let (lanes, stores) = self.lanes().ok_or_else(AsmError::registers)?;
        let pool = lanes.constants();
        let constant = |bits: u32| {
            let at = pool.binary_search(&bits).unwrap_or(0);
            Mem::at(POOL, 4 * at as i64)
        };
        let pointers = POINTERS.get(..self.streams.len()).ok_or_else(AsmError::registers)?;
        let streams: Vec<Mem> = pointers
            .iter()
            .zip(&self.streams)
            .map(|(pointer, contiguous)| match contiguous {
                true => Mem::indexed(*pointer, AT, 1, 0),
                false => Mem::at(*pointer, 0),
            })
            .collect();
        let places = |cut: bool| Places::new(&streams, &constant, cut);
        let mut asm = Asm::new()?;
        let saved = enter(&mut asm, pointers)?;
        let [mut row, mut many, mut few, mut next, mut done, mut words] =
            std::array::from_fn(|_| asm.label());
        asm.address_of(POOL, words)?;
        let rows = Mem::at(ARGUMENT, 8);
        asm.compare_with_zero(rows)?;
        asm.jump_if_zero(done)?;
        asm.place(&mut row)?;
        asm.set_number(AT, VECTOR as i32)?;
        asm.compare_words(END, AT)?;
        asm.jump_if_less(few)?;
        asm.place(&mut many)?;
        asm.add_number(AT, -VECTOR)?;
        lanes.emit(&mut asm, &places(false), &stores)?;
        asm.add_number(AT, 2 * VECTOR)?;
        asm.compare_words(END, AT)?;
        asm.jump_if_not_less(many)?;
        asm.place(&mut few)?;
        asm.add_number(AT, -VECTOR)?;
        asm.compare_words(END, AT)?;
        asm.jump_if_zero(next)?;
        asm.tail(END, AT, 2, Mem::at(POOL, 4 * pool.len() as i64), SPARE)?;
        lanes.emit(&mut asm, &places(true), &stores)?;
        asm.place(&mut next)?;
        for (at, pointer) in pointers.iter().enumerate() {
            asm.add_word_at(*pointer, Mem::at(ARGUMENT, HEAD + STREAM * at as i64 + 8))?;
        }
        asm.count_down(rows)?;
        asm.jump_if_greater(row)?;
        asm.place(&mut done)?;
        saved.iter().rev().try_for_each(|register| asm.pop(*register))?;
        asm.ret()?;
        asm.place(&mut words)?;
        // The last word is the one that `tail` cuts.
        asm.words(&[pool.as_slice(), &[u32::MAX]].concat())?;
        asm.finish()
    }
}

/// Saves the caller's registers and loads the argument; gives what was saved.
fn enter(asm: &mut Asm, pointers: &[Gpr]) -> Result<Vec<Gpr>, AsmError> {
    let is_used = |register: &Gpr| *register == POOL || pointers.contains(register);
    let saved: Vec<Gpr> = SAVED.into_iter().filter(is_used).collect();
    saved.iter().try_for_each(|register| asm.push(*register))?;
    asm.load_word(END, Mem::at(ARGUMENT, 0))?;
    for (at, pointer) in pointers.iter().enumerate() {
        asm.load_word(*pointer, Mem::at(ARGUMENT, HEAD + STREAM * at as i64))?;
    }
    Ok(saved)
}
