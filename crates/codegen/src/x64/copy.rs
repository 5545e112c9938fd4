//! Rows of a panel, from pieces of memory that lie side by side.

use super::LANES;
use super::asm::{Asm, AsmError, Gpr, Mem, Zmm};
use iced_x86::Register;

/// Copies rows of vectors: each vector is put together of pieces, whose lanes are told by masks; lanes in none are 0.
/// The lanes of a piece are next to each other in memory, or a few elements apart. From row to row, all pieces move by
/// the same distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Copy {
    /// Vectors of a row, next to each other in the target.
    pub vectors: usize,
    /// Pieces of a vector.
    pub pieces: usize,
    /// Elements from lane to lane of a piece, from 1 to [`MOST_STEP`].
    pub step: usize,
}

/// Words of a leaf's argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// Number of rows.
    Rows,
    /// Where the first row goes.
    Target,
    /// Bytes from row to row of the target.
    TargetStep,
    /// Bytes from row to row of the source.
    SourceStep,
    /// Address (of lane 0, whether it is there or not) and mask of each piece, vector by vector.
    Pieces,
}

impl Word {
    /// Its place in the list, in bytes.
    pub fn offset(self) -> i64 {
        8 * self as i64
    }
}

/// Pieces of all vectors at most: a mask register each.
pub(crate) const MOST_PIECES: usize = 7;

/// Elements from lane to lane at most.
pub(crate) const MOST_STEP: usize = 4;

/// Words of the argument at most.
pub(crate) const WORDS: usize = Word::Pieces as usize + 2 * MOST_PIECES;

const ARGUMENT: Gpr = Register::RDI;
const TARGET: Gpr = Register::RSI;
const TARGET_STEP: Gpr = Register::RDX;
const ROWS: Gpr = Register::RCX;
const AT: Gpr = Register::RAX;
const SOURCES: [Gpr; MOST_PIECES] =
    [Register::R8, Register::R9, Register::R10, Register::R11, Register::RBX, Register::RBP, Register::R12];
/// Of those, the ones from here on belong to the caller.
const SAVED_FROM: usize = 4;

/// Index of each lane in memory, for pieces whose lanes are apart.
const INDEX: Zmm = 31;
/// The two halves of a piece of every second element.
const HALVES: [Zmm; 2] = [29, 30];
/// What they make.
const CHOSEN: Zmm = 28;
/// Every second lane of 16.
const EVEN_LANES: i32 = 0x5555;
/// The mask that a gather uses up.
const GATHERED: usize = 7;

impl Copy {
    /// Pieces of a row at most: each takes the masks of the loads that make it.
    pub fn most_pieces(step: usize) -> usize {
        match step {
            1 => MOST_PIECES,
            2 => MOST_PIECES / 2,
            _ => MOST_PIECES - 1,
        }
    }

    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(&self) -> Result<Vec<u8>, AsmError> {
        let mut asm = Asm::new()?;
        let pieces = self.vectors * self.pieces;
        let sources = SOURCES.get(..pieces).filter(|_| pieces <= Self::most_pieces(self.step));
        let sources = sources.ok_or_else(AsmError::registers)?;
        let saved = sources.get(SAVED_FROM..).unwrap_or(&[]);
        let mut index = asm.label();
        saved.iter().try_for_each(|register| asm.push(*register))?;
        if self.step > 1 {
            asm.address_of(AT, index)?;
            asm.load(INDEX, Mem::at(AT, 0))?;
        }
        asm.load_word(TARGET, Mem::at(ARGUMENT, Word::Target.offset()))?;
        for (piece, source) in sources.iter().enumerate() {
            let at = Word::Pieces.offset() + 16 * piece as i64;
            asm.load_word(*source, Mem::at(ARGUMENT, at))?;
            self.load_masks(&mut asm, piece, Mem::at(ARGUMENT, at + 8))?;
        }
        asm.load_word(TARGET_STEP, Mem::at(ARGUMENT, Word::TargetStep.offset()))?;
        asm.load_word(ROWS, Mem::at(ARGUMENT, Word::Rows.offset()))?;
        asm.load_word(ARGUMENT, Mem::at(ARGUMENT, Word::SourceStep.offset()))?;
        asm.set_number(AT, 0)?;
        let (mut row, mut done) = (asm.label(), asm.label());
        asm.add_number(ROWS, 0)?;
        asm.jump_if_zero(done)?;
        asm.place(&mut row)?;
        for vector in 0..self.vectors {
            for piece in 0..self.pieces {
                let index = vector * self.pieces + piece;
                self.add_piece(&mut asm, vector, index, sources[index], piece > 0)?;
            }
            asm.store(Mem::at(TARGET, (vector * LANES * 4) as i64), vector)?;
        }
        asm.add_word(AT, ARGUMENT)?;
        asm.add_word(TARGET, TARGET_STEP)?;
        asm.add_number(ROWS, -1)?;
        asm.jump_if_greater(row)?;
        asm.place(&mut done)?;
        saved.iter().rev().try_for_each(|register| asm.pop(*register))?;
        asm.ret()?;
        if self.step > 1 {
            // Gathers count bytes, the choice from two vectors words.
            let unit = if self.step == 2 { 1 } else { 4 };
            let words: Vec<u32> = (0..LANES).map(|lane| (lane * self.step * unit) as u32).collect();
            asm.place(&mut index)?;
            asm.words(&words)?;
        }
        asm.finish()
    }

    /// Loads the mask of a piece, or spreads it over the two vectors that its lanes are taken from.
    fn load_masks(&self, asm: &mut Asm, piece: usize, from: Mem) -> Result<(), AsmError> {
        if self.step != 2 {
            return asm.load_mask(piece + 1, from);
        }
        let (bits, even) = (ROWS, TARGET_STEP);
        asm.set_number(even, EVEN_LANES)?;
        asm.load_word(AT, from)?;
        for half in 0..2 {
            asm.spread_bits(bits, AT, even)?;
            asm.set_mask(2 * piece + half + 1, bits)?;
            asm.shift_right(AT, LANES as u32 / 2)?;
        }
        Ok(())
    }

    /// Adds the lanes of a piece to a vector, whose other lanes become 0 with its first piece. Gathers take no index
    /// besides their lanes', so their sources move on.
    fn add_piece(
        &self,
        asm: &mut Asm,
        vector: Zmm,
        piece: usize,
        source: Gpr,
        keep: bool,
    ) -> Result<(), AsmError> {
        match self.step {
            1 => asm.load_where(vector, piece + 1, Mem::indexed(source, AT, 1, 0), keep),
            2 => {
                let [low, high] = HALVES;
                for (half, to) in HALVES.into_iter().enumerate() {
                    let from = Mem::indexed(source, AT, 1, (half * LANES * 4) as i64);
                    asm.load_where(to, 2 * piece + half + 1, from, false)?;
                }
                let chosen = if keep { CHOSEN } else { vector };
                asm.copy(chosen, INDEX)?;
                asm.pick(chosen, low, high)?;
                if keep { asm.or(vector, vector, chosen) } else { Ok(()) }
            }
            _ => {
                if !keep {
                    asm.zero(vector)?;
                }
                asm.copy_mask(GATHERED, piece + 1)?;
                asm.gather(vector, GATHERED, source, INDEX)?;
                asm.add_word(source, ARGUMENT)
            }
        }
    }
}
