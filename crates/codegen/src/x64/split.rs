//! f32 cut into pieces of bf16 for the tile unit.
//!
//! Each piece is what is left, rounded to bf16 (ties away from 0), so the pieces add up to the number. An infinity or NaN
//! is its first piece. What the numbers were is told by [`Found`]: with some of them, the tile unit would give wrong sums.

use super::LANES;
use super::asm::{Asm, AsmError, Gpr, Mem};
use iced_x86::Register;
use rabot_kernel::{LEAST_LARGEST, TILE_BYTES, TILE_ROWS};

/// What was found among the numbers, as bits of a word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// An infinity or NaN, or a number that bf16 would round to infinity.
    NotFinite = 1,
    /// A number other than 0.
    Some = 2,
    /// A number of at least [`LEAST_LARGEST`].
    Large = 4,
}

/// Pairs of terms of B: two rows of columns, 16 at a time, for 32 terms of the sum, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pairs {
    /// Pieces of an f32.
    pub pieces: usize,
    /// True if columns lie next to each other; else they are gathered.
    pub adjacent: bool,
}

/// Words of the argument of [`Pairs`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum PairWord {
    /// The first column of the first term, whether it is there or not.
    Source,
    /// Bytes from term to term.
    TermBytes,
    /// Number of terms.
    Terms,
    /// Where the first pair goes.
    Target,
    /// Bytes from pair to pair of the target.
    RowBytes,
    /// Blocks of 32 terms.
    Blocks,
    /// Vectors of columns.
    Vectors,
    /// Pointer to a word for each vector: the columns that are there, one bit each; the others are 0.
    Masks,
    /// Bytes from column to column, where they are gathered.
    ColumnBytes,
    /// Pointer to the word of what was found.
    Found,
    /// Factor of the numbers, an f32: a power of two.
    Scale,
}

impl PairWord {
    /// Its place in the list, in bytes.
    pub fn offset(self) -> i64 {
        8 * self as i64
    }
}

/// Rows of a panel of A whose terms are adjacent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rows {
    /// Pieces of an f32.
    pub pieces: usize,
}

/// Words of the argument of [`Rows`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowWord {
    /// The first row.
    Source,
    /// Bytes from row to row.
    RowBytes,
    /// Number of rows, at least 1.
    Rows,
    /// Terms of a row, at least 1.
    Terms,
    /// The panel.
    Target,
    /// Pointer to the word of what was found.
    Found,
    /// Factor of the numbers, an f32: a power of two.
    Scale,
}

impl RowWord {
    /// Its place in the list, in bytes.
    pub fn offset(self) -> i64 {
        8 * self as i64
    }
}

/// Words of an argument at most.
pub(crate) const WORDS: usize = 11;

/// The first number that bf16 rounds to infinity, as a word.
const TOO_LARGE: u32 = 0x7f7f_8000;

/// Half of the last place of bf16, as a word.
pub(super) const HALF_PLACE: u32 = 0x8000;

/// Numbers and what is left of them, their magnitudes, what is stored.
const VALUES: [usize; 2] = [0, 1];
const SPARE: [usize; 2] = [2, 3];
const OUT: usize = 4;
/// Constants, and the largest magnitudes.
const INFINITY: usize = 23;
const HALF: usize = 24;
const COLUMNS: usize = 25;
const ODD: usize = 26;
const LARGEST: usize = 27;
const MAGNITUDE: usize = 28;
const LIMIT: usize = 29;
const UPPER: usize = 30;
const SCALE: usize = 31;

/// Masks by number: of loads, of finite numbers (the loads are done by then), of those that are rounded and not cut off,
/// of gathers, of odd halves.
const PRESENT: usize = 1;
const LOADED: [usize; 2] = [2, 3];
const FINITE: [usize; 2] = [2, 3];
const ROUNDED: [usize; 2] = [4, 5];
const GATHERED: usize = 6;
const ODD_HALVES: usize = 7;

const ARGUMENT: Gpr = Register::RDI;
const SPARE_WORD: Gpr = Register::RAX;
const SPARE_32: Gpr = Register::EAX;

/// Sets the registers that do not change; the scale is `scale` bytes from the start of the words.
fn constants(asm: &mut Asm, scale: i64) -> Result<(), AsmError> {
    asm.zero(LARGEST)?;
    asm.broadcast_number(MAGNITUDE, SPARE_WORD, 0x7fff_ffff)?;
    asm.broadcast_number(LIMIT, SPARE_WORD, TOO_LARGE)?;
    asm.broadcast_number(INFINITY, SPARE_WORD, f32::INFINITY.to_bits())?;
    asm.broadcast_number(UPPER, SPARE_WORD, 0xffff_0000)?;
    asm.broadcast_number(HALF, SPARE_WORD, HALF_PLACE)?;
    asm.broadcast(SCALE, Mem::at(ARGUMENT, scale))
}

/// Scales the numbers and looks at them. That they are scaled makes NaN keep that they are NaN in their upper halves.
fn look(asm: &mut Asm) -> Result<(), AsmError> {
    for (at, value) in VALUES.into_iter().enumerate() {
        asm.product(value, value, SCALE)?;
        asm.and(SPARE[at], value, MAGNITUDE)?;
        asm.largest_words(LARGEST, LARGEST, SPARE[at])?;
        asm.compare_words_below(ROUNDED[at], SPARE[at], LIMIT)?;
        asm.compare_words_below(FINITE[at], SPARE[at], INFINITY)?;
    }
    Ok(())
}

/// The numbers rounded to bf16, as f32; those are cut off that would become infinities.
fn round(asm: &mut Asm) -> Result<(), AsmError> {
    for (at, value) in VALUES.into_iter().enumerate() {
        asm.copy(SPARE[at], value)?;
        asm.add_words_where(SPARE[at], ROUNDED[at], value, HALF)?;
        asm.and(SPARE[at], SPARE[at], UPPER)?;
    }
    Ok(())
}

/// What rounding left; nothing of what is not finite.
fn rest(asm: &mut Asm) -> Result<(), AsmError> {
    for (at, value) in VALUES.into_iter().enumerate() {
        asm.difference_where(value, FINITE[at], value, SPARE[at])?;
    }
    Ok(())
}

/// Adds what was found to the word at the pointer at `from`.
fn report(asm: &mut Asm, from: i64) -> Result<(), AsmError> {
    asm.load_word(ARGUMENT, Mem::at(ARGUMENT, from))?;
    let all = [(Found::NotFinite, TOO_LARGE), (Found::Some, 1), (Found::Large, LEAST_LARGEST.to_bits())];
    for (found, least) in all {
        let mut none = asm.label();
        asm.broadcast_number(SPARE[0], SPARE_WORD, least)?;
        asm.compare_words_below(FINITE[0], LARGEST, SPARE[0])?;
        asm.complement_mask(FINITE[0])?;
        asm.mask_to_word(SPARE_32, FINITE[0])?;
        asm.add_number(SPARE_WORD, 0)?;
        asm.jump_if_zero(none)?;
        asm.or_number_at(Mem::at(ARGUMENT, 0), found as i32)?;
        asm.place(&mut none)?;
    }
    Ok(())
}

const SOURCE: Gpr = Register::RSI;
const TERM: Gpr = Register::RDX;
const TERMS: Gpr = Register::RCX;
const TARGET: Gpr = Register::R8;
const ROW: Gpr = Register::R9;
const PIECE: Gpr = Register::R10;
const BLOCKS: Gpr = Register::R11;
const PAIRS: Gpr = Register::RBX;
const VECTORS: Gpr = Register::RBP;
const MASKS: Gpr = Register::R12;
const FROM: Gpr = Register::R13;
const TO: Gpr = Register::R14;
const AT: Gpr = Register::R15;
/// Bytes of 16 columns, where they are gathered; the argument is on the stack then.
const COLUMN: Gpr = Register::RDI;
const SAVED: [Gpr; 6] = [PAIRS, VECTORS, MASKS, FROM, TO, AT];

impl Pairs {
    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(&self) -> Result<Vec<u8>, AsmError> {
        let mut asm = Asm::new()?;
        SAVED.iter().try_for_each(|register| asm.push(*register))?;
        let words = [
            (SOURCE, PairWord::Source),
            (TERM, PairWord::TermBytes),
            (TERMS, PairWord::Terms),
            (TARGET, PairWord::Target),
            (ROW, PairWord::RowBytes),
            (BLOCKS, PairWord::Blocks),
            (VECTORS, PairWord::Vectors),
            (MASKS, PairWord::Masks),
        ];
        for (register, word) in words {
            asm.load_word(register, Mem::at(ARGUMENT, word.offset()))?;
        }
        asm.copy_word(PIECE, ROW)?;
        asm.shift_left(PIECE, TILE_ROWS.ilog2())?;
        asm.set_number(SPARE_WORD, 0xaaaa_aaaau32 as i32)?;
        asm.word_to_mask(ODD_HALVES, SPARE_32)?;
        constants(&mut asm, PairWord::Scale.offset())?;
        let mut lanes = asm.label();
        if !self.adjacent {
            asm.address_of(SPARE_WORD, lanes)?;
            asm.load(COLUMNS, Mem::at(SPARE_WORD, 0))?;
            asm.broadcast_word(ODD, Mem::at(ARGUMENT, PairWord::ColumnBytes.offset()))?;
            asm.product_words(COLUMNS, COLUMNS, ODD)?;
            asm.push(ARGUMENT)?;
            asm.load_word(COLUMN, Mem::at(ARGUMENT, PairWord::ColumnBytes.offset()))?;
            asm.shift_left(COLUMN, LANES.ilog2())?;
        }
        let (mut block, mut pair, mut done) = (asm.label(), asm.label(), asm.label());
        asm.add_number(BLOCKS, 0)?;
        asm.jump_if_zero(done)?;
        asm.place(&mut block)?;
        asm.set_number(PAIRS, TILE_ROWS as i32)?;
        asm.place(&mut pair)?;
        self.pair(&mut asm)?;
        asm.address(SOURCE, SOURCE, TERM, 2)?;
        asm.add_number(TERMS, -2)?;
        asm.add_word(TARGET, ROW)?;
        asm.add_number(PAIRS, -1)?;
        asm.jump_if_greater(pair)?;
        for _ in 1..self.pieces {
            asm.add_word(TARGET, PIECE)?;
        }
        asm.add_number(BLOCKS, -1)?;
        asm.jump_if_greater(block)?;
        asm.place(&mut done)?;
        if !self.adjacent {
            asm.pop(ARGUMENT)?;
        }
        report(&mut asm, PairWord::Found.offset())?;
        SAVED.iter().rev().try_for_each(|register| asm.pop(*register))?;
        asm.ret()?;
        asm.place(&mut lanes)?;
        asm.words(&std::array::from_fn::<u32, 16, _>(|lane| lane as u32))?;
        asm.finish()
    }

    /// A pair of terms, all columns.
    fn pair(&self, asm: &mut Asm) -> Result<(), AsmError> {
        let mut vector = asm.label();
        asm.copy_word(FROM, SOURCE)?;
        asm.copy_word(TO, TARGET)?;
        asm.set_number(AT, 0)?;
        asm.place(&mut vector)?;
        asm.load_mask(PRESENT, Mem::indexed(MASKS, AT, 8, 0))?;
        self.masks(asm, TERMS)?;
        for (at, value) in VALUES.into_iter().enumerate() {
            if self.adjacent {
                let index = (at > 0).then_some((TERM, 1));
                asm.load_where(value, LOADED[at], Mem { base: FROM, index, offset: 0 }, false)?;
                continue;
            }
            asm.zero(value)?;
            asm.copy_mask(GATHERED, LOADED[at])?;
            if at > 0 {
                asm.address(SPARE_WORD, FROM, TERM, 1)?;
            }
            asm.gather(value, GATHERED, if at > 0 { SPARE_WORD } else { FROM }, COLUMNS)?;
        }
        look(asm)?;
        for piece in 0..self.pieces {
            if piece > 0 {
                rest(asm)?;
            }
            round(asm)?;
            asm.shift_words_right_to(OUT, SPARE[0], 16)?;
            asm.copy_halves_where(OUT, ODD_HALVES, SPARE[1])?;
            let at = match piece {
                0 => Mem::at(TO, 0),
                piece => Mem::indexed(TO, PIECE, piece as u32, 0),
            };
            asm.store(at, OUT)?;
        }
        match self.adjacent {
            true => asm.add_number(FROM, 64)?,
            false => asm.add_word(FROM, COLUMN)?,
        }
        asm.add_number(TO, 64)?;
        asm.add_number(AT, 1)?;
        asm.compare_words(AT, VECTORS)?;
        asm.jump_if_less(vector)
    }

    /// The masks of the two terms of a pair: those that are not there are 0.
    fn masks(&self, asm: &mut Asm, terms: Gpr) -> Result<(), AsmError> {
        let mut ready = asm.label();
        asm.copy_mask(LOADED[0], PRESENT)?;
        asm.copy_mask(LOADED[1], PRESENT)?;
        asm.compare_number(terms, 2)?;
        asm.jump_if_not_less(ready)?;
        asm.clear_mask(LOADED[1])?;
        asm.compare_number(terms, 1)?;
        asm.jump_if_zero(ready)?;
        asm.clear_mask(LOADED[0])?;
        asm.place(&mut ready)
    }
}

impl Rows {
    const AT: Gpr = Register::R10;
    const TO: Gpr = Register::R11;
    const LEFT: Gpr = Register::RBX;
    const ALL: Gpr = Register::RBP;

    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(&self) -> Result<Vec<u8>, AsmError> {
        const SOURCE: Gpr = Register::RSI;
        const ROW: Gpr = Register::RDX;
        const ROWS: Gpr = Register::RCX;
        const TERMS: Gpr = Register::R8;
        const TARGET: Gpr = Register::R9;
        let mut asm = Asm::new()?;
        asm.push(Self::LEFT)?;
        asm.push(Self::ALL)?;
        let words = [
            (SOURCE, RowWord::Source),
            (ROW, RowWord::RowBytes),
            (ROWS, RowWord::Rows),
            (TERMS, RowWord::Terms),
            (TARGET, RowWord::Target),
        ];
        for (register, word) in words {
            asm.load_word(register, Mem::at(ARGUMENT, word.offset()))?;
        }
        constants(&mut asm, RowWord::Scale.offset())?;
        let mut odd = asm.label();
        asm.address_of(SPARE_WORD, odd)?;
        asm.load(ODD, Mem::at(SPARE_WORD, 0))?;
        let (mut row, mut block) = (asm.label(), asm.label());
        asm.place(&mut row)?;
        asm.copy_word(Self::AT, SOURCE)?;
        asm.copy_word(Self::TO, TARGET)?;
        asm.copy_word(Self::LEFT, TERMS)?;
        asm.place(&mut block)?;
        self.terms(&mut asm)?;
        asm.jump_if_greater(block)?;
        asm.add_word(SOURCE, ROW)?;
        asm.add_number(TARGET, 64)?;
        asm.add_number(ROWS, -1)?;
        asm.jump_if_greater(row)?;
        report(&mut asm, RowWord::Found.offset())?;
        asm.pop(Self::ALL)?;
        asm.pop(Self::LEFT)?;
        asm.ret()?;
        asm.place(&mut odd)?;
        let word = |at: u32| (2 * (2 * at) + 1) | (2 * (2 * at + 1) + 1) << 16;
        asm.words(&std::array::from_fn::<u32, 16, _>(|at| word(at as u32)))?;
        asm.finish()
    }
    /// 32 terms of a row; sets the flags by how many are left.
    fn terms(&self, asm: &mut Asm) -> Result<(), AsmError> {
        asm.lowest_bits(SPARE_WORD, Self::LEFT, Self::ALL)?;
        asm.word_to_mask(LOADED[0], SPARE_32)?;
        asm.shift_mask_right(LOADED[1], LOADED[0], 16)?;
        for (at, value) in VALUES.into_iter().enumerate() {
            asm.load_where(value, LOADED[at], Mem::at(Self::AT, at as i64 * 64), false)?;
        }
        look(asm)?;
        for piece in 0..self.pieces {
            if piece > 0 {
                rest(asm)?;
            }
            round(asm)?;
            asm.copy(OUT, ODD)?;
            asm.pick_halves(OUT, SPARE[0], SPARE[1])?;
            asm.store(Mem::at(Self::TO, (piece * TILE_BYTES) as i64), OUT)?;
        }
        asm.add_number(Self::AT, 128)?;
        asm.add_number(Self::TO, (self.pieces * TILE_BYTES) as i64)?;
        asm.add_number(Self::LEFT, -32)
    }
}
