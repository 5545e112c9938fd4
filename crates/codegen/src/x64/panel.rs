//! A panel of a constant B cut into pieces of bf16 for the tile unit.
//!
//! As [`super::split`] cuts numbers, but these are known to be finite, and all are there.

use super::asm::{Asm, AsmError, Gpr, Mem, Zmm};
use super::split::HALF_PLACE;
use iced_x86::Register;
use rabot_kernel::{TILE_BYTES, TILE_ROWS};

/// Blocks of terms of a panel, in f32, cut into pieces of pairs of terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Panel {
    /// Pieces of an f32.
    pub pieces: usize,
}

/// Words of the argument of [`Panel`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum PanelWord {
    /// The first block.
    Source,
    /// Where its pieces go.
    Target,
    /// Number of blocks.
    Blocks,
}

impl PanelWord {
    /// Its place in the list, in bytes.
    pub fn offset(self) -> i64 {
        8 * self as i64
    }
}

const VECTOR_BYTES: i64 = 64;

/// Vectors of two terms, those of the first one and those of the second one, and what becomes of them.
const TERMS: [[Zmm; 2]; 2] = [[0, 1], [2, 3]];
const ROUNDED: usize = 4;
const OUT: Zmm = 8;
const HALF: Zmm = 30;
const UPPER: Zmm = 31;

const ARGUMENT: Gpr = Register::RDI;
const SOURCE: Gpr = Register::RSI;
const TARGET: Gpr = Register::RDX;
const BLOCKS: Gpr = Register::RCX;
const PAIRS: Gpr = Register::RAX;

/// Bytes of a piece of a block: two tiles, row by row.
const PIECE_BYTES: i64 = 2 * TILE_BYTES as i64;

impl Panel {
    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(self) -> Result<Vec<u8>, AsmError> {
        let mut asm = Asm::new()?;
        let words = [(SOURCE, PanelWord::Source), (TARGET, PanelWord::Target), (BLOCKS, PanelWord::Blocks)];
        for (register, word) in words {
            asm.load_word(register, Mem::at(ARGUMENT, word.offset()))?;
        }
        asm.broadcast_number(UPPER, PAIRS, 0xffff_0000)?;
        asm.broadcast_number(HALF, PAIRS, HALF_PLACE)?;
        let (mut block, mut pair, mut done) = (asm.label(), asm.label(), asm.label());
        asm.add_number(BLOCKS, 0)?;
        asm.jump_if_zero(done)?;
        asm.place(&mut block)?;
        asm.set_number(PAIRS, TILE_ROWS as i32)?;
        asm.place(&mut pair)?;
        self.pair(&mut asm)?;
        asm.add_number(SOURCE, 4 * VECTOR_BYTES)?;
        asm.add_number(TARGET, 2 * VECTOR_BYTES)?;
        asm.add_number(PAIRS, -1)?;
        asm.jump_if_greater(pair)?;
        asm.add_number(TARGET, (self.pieces as i64 - 1) * PIECE_BYTES)?;
        asm.add_number(BLOCKS, -1)?;
        asm.jump_if_greater(block)?;
        asm.place(&mut done)?;
        asm.ret()?;
        asm.finish()
    }

    /// A pair of terms, all columns.
    fn pair(self, asm: &mut Asm) -> Result<(), AsmError> {
        for value in TERMS.as_flattened() {
            asm.load(*value, Mem::at(SOURCE, *value as i64 * VECTOR_BYTES))?;
        }
        for piece in 0..self.pieces {
            for &value in TERMS.as_flattened() {
                let rounded = ROUNDED + value;
                if piece > 0 {
                    asm.difference(value, value, rounded)?;
                }
                asm.add_words(rounded, value, HALF)?;
                asm.and(rounded, rounded, UPPER)?;
            }
            for (at, (first, second)) in TERMS[0].into_iter().zip(TERMS[1]).enumerate() {
                asm.shift_words_right_to(OUT + at, ROUNDED + first, 16)?;
                asm.or(OUT + at, OUT + at, ROUNDED + second)?;
                let to = piece as i64 * PIECE_BYTES + at as i64 * VECTOR_BYTES;
                asm.store(Mem::at(TARGET, to), OUT + at)?;
            }
        }
        Ok(())
    }
}
