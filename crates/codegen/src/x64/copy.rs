//! Rows of a panel, from pieces of memory that lie side by side.

use super::LANES;
use super::asm::{Asm, AsmError, Gpr, Mem};
use iced_x86::Register;

/// Copies rows of vectors: each vector is put together of pieces, whose lanes are told by masks; lanes in none are 0.
/// From row to row, all pieces move by the same distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Copy {
    /// Vectors of a row, next to each other in the target.
    pub vectors: usize,
    /// Pieces of a vector.
    pub pieces: usize,
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

impl Copy {
    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(&self) -> Result<Vec<u8>, AsmError> {
        let mut asm = Asm::new()?;
        let sources = SOURCES.get(..self.vectors * self.pieces).ok_or_else(AsmError::registers)?;
        let saved = sources.get(SAVED_FROM..).unwrap_or(&[]);
        saved.iter().try_for_each(|register| asm.push(*register))?;
        asm.load_word(ROWS, Mem::at(ARGUMENT, Word::Rows.offset()))?;
        asm.load_word(TARGET, Mem::at(ARGUMENT, Word::Target.offset()))?;
        asm.load_word(TARGET_STEP, Mem::at(ARGUMENT, Word::TargetStep.offset()))?;
        for (piece, source) in sources.iter().enumerate() {
            let at = Word::Pieces.offset() + 16 * piece as i64;
            asm.load_word(*source, Mem::at(ARGUMENT, at))?;
            asm.load_mask(piece + 1, Mem::at(ARGUMENT, at + 8))?;
        }
        asm.load_word(ARGUMENT, Mem::at(ARGUMENT, Word::SourceStep.offset()))?;
        asm.set_number(AT, 0)?;
        let (mut row, mut done) = (asm.label(), asm.label());
        asm.add_number(ROWS, 0)?;
        asm.jump_if_zero(done)?;
        asm.place(&mut row)?;
        for vector in 0..self.vectors {
            for piece in 0..self.pieces {
                let index = vector * self.pieces + piece;
                asm.load_where(vector, index + 1, Mem::indexed(sources[index], AT, 1, 0), piece > 0)?;
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
        asm.finish()
    }
}
