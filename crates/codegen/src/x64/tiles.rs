//! Sums of products of bf16 on the tile unit (AMX).
//!
//! An f32 is cut into pieces of bf16 that add up to it. Of the nine products of three pieces each, the six largest are
//! summed: what is left out is less than a rounding of an f32. The tile unit sums 32 terms at a time before it adds
//! them to an accumulator, so the error is below that of a chain of multiply-adds.

use super::LANES;
use super::asm::{Asm, AsmError, Gpr, Mem};
use iced_x86::Register;
use rabot_kernel::{TILE_BYTES, TILE_ROWS};

/// Words of a leaf's argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// A: the first panel.
    A,
    /// Bytes from panel to panel of A.
    PanelBytes,
    /// B: the first pair of terms of the first column.
    B,
    /// Bytes from pair to pair of B.
    RowBytes,
    /// Blocks of terms.
    Blocks,
    /// Taps of a block.
    Taps,
    /// The list of the distances of taps in B, in bytes, one word each.
    Distances,
    /// Where the sums go: rows of [`TILE_ROW_BYTES`].
    Tile,
    /// What will be read soon: it is fetched into the second-level cache.
    Soon,
}

impl Word {
    /// Its place in the list, in bytes.
    pub fn offset(self) -> i64 {
        8 * self as i64
    }
}

/// Words of the argument.
pub(crate) const WORDS: usize = 9;

/// Bytes from row to row of the sums.
pub(crate) const TILE_ROW_BYTES: i64 = 128;

/// Bytes of a row of a tile.
const ROW: i64 = 64;

/// Pieces of A and of B whose products are summed, for so many pieces of each; from one to the next, one operand stays.
const PRODUCTS: [&[(usize, usize)]; 3] =
    [&[(0, 0)], &[(1, 0), (0, 0), (0, 1)], &[(2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0)]];

/// The sums of a block of C: `16·rows × 16·columns` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Products {
    /// Tiles of rows: 1 or 2.
    pub rows: usize,
    /// Tiles of columns: 1 or 2.
    pub columns: usize,
    /// Pieces of an f32: 1, 2 or 3.
    pub pieces: usize,
    /// Cache lines that are fetched ahead for each tap of a block of terms; see [`Word::Soon`].
    pub ahead: usize,
    /// True: added to the sums that are there.
    pub adds: bool,
    /// True: multiply-adds of the f32 that the pieces add up to, slow, but right for all that an f32 can be.
    pub exact: bool,
}

const ARGUMENT: Gpr = Register::RDI;
const A: [Gpr; 2] = [Register::RSI, Register::RDX];
const A_ROW: Gpr = Register::RAX;
const B_ROW: Gpr = Register::RCX;
const B: Gpr = Register::R8;
const PIECE: Gpr = Register::R9;
const B_PIECES: [Gpr; 3] = [Register::R10, Register::R11, Register::RBX];
const BLOCKS: Gpr = Register::RBP;
const DISTANCES: Gpr = Register::R12;
const TAPS: Gpr = Register::R13;
const TAP: Gpr = Register::R14;
const COUNT: Gpr = Register::R15;
const SAVED: [Gpr; 6] = [B_PIECES[2], BLOCKS, DISTANCES, TAPS, TAP, COUNT];

impl Products {
    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(&self) -> Result<Vec<u8>, AsmError> {
        let mut asm = Asm::new()?;
        SAVED.iter().try_for_each(|register| asm.push(*register))?;
        if self.exact {
            for tile in 0..self.rows {
                self.exact_rows(&mut asm, tile)?;
            }
        } else {
            self.on_tiles(&mut asm)?;
        }
        SAVED.iter().rev().try_for_each(|register| asm.pop(*register))?;
        asm.ret()?;
        asm.finish()
    }

    fn load_words(&self, asm: &mut Asm) -> Result<(), AsmError> {
        let words = [
            (A[0], Word::A),
            (A[1], Word::PanelBytes),
            (B, Word::B),
            (B_ROW, Word::RowBytes),
            (BLOCKS, Word::Blocks),
            (TAPS, Word::Taps),
            (DISTANCES, Word::Distances),
        ];
        for (register, word) in words {
            asm.load_word(register, Mem::at(ARGUMENT, word.offset()))?;
        }
        asm.add_word(A[1], A[0])?;
        asm.copy_word(PIECE, B_ROW)?;
        asm.shift_left(PIECE, TILE_ROWS.ilog2())
    }

    /// A loop over the blocks and taps; `body` finds the pair of terms of the tap in the first of `B_PIECES`.
    fn loops(
        &self,
        asm: &mut Asm,
        a_bytes: i64,
        body: impl FnOnce(&mut Asm) -> Result<(), AsmError>,
    ) -> Result<(), AsmError> {
        let (mut block, mut tap, mut done) = (asm.label(), asm.label(), asm.label());
        asm.add_number(BLOCKS, 0)?;
        asm.jump_if_zero(done)?;
        asm.place(&mut block)?;
        asm.set_number(TAP, 0)?;
        asm.place(&mut tap)?;
        asm.load_word(B_PIECES[0], Mem::indexed(DISTANCES, TAP, 8, 0))?;
        asm.add_word(B_PIECES[0], B)?;
        body(asm)?;
        for a in A {
            asm.add_number(a, a_bytes)?;
        }
        asm.add_number(TAP, 1)?;
        asm.compare_words(TAP, TAPS)?;
        asm.jump_if_less(tap)?;
        for _ in 0..self.pieces {
            asm.add_word(B, PIECE)?;
        }
        asm.add_number(BLOCKS, -1)?;
        asm.jump_if_greater(block)?;
        asm.place(&mut done)
    }

    fn on_tiles(&self, asm: &mut Asm) -> Result<(), AsmError> {
        self.load_words(asm)?;
        asm.load_word(COUNT, Mem::at(ARGUMENT, Word::Soon.offset()))?;
        self.for_sums(
            asm,
            |asm, sum, at| if self.adds { asm.load_tile(sum, at) } else { asm.zero_tile(sum) },
        )?;
        asm.set_number(A_ROW, ROW as i32)?;
        self.loops(asm, (self.pieces * TILE_BYTES) as i64, |asm| {
            for piece in 1..self.pieces {
                asm.address(B_PIECES[piece], B_PIECES[piece - 1], PIECE, 1)?;
            }
            self.products(asm)
        })?;
        self.for_sums(asm, |asm, sum, at| asm.store_tile(at, sum))
    }

    /// Each tile of sums and its place in memory.
    fn for_sums(
        &self,
        asm: &mut Asm,
        mut visit: impl FnMut(&mut Asm, usize, Mem) -> Result<(), AsmError>,
    ) -> Result<(), AsmError> {
        asm.load_word(B_PIECES[0], Mem::at(ARGUMENT, Word::Tile.offset()))?;
        asm.set_number(A_ROW, TILE_ROW_BYTES as i32)?;
        for row in 0..self.rows {
            for column in 0..self.columns {
                let offset = (row * TILE_ROWS) as i64 * TILE_ROW_BYTES + column as i64 * ROW;
                visit(asm, 2 * row + column, Mem::indexed(B_PIECES[0], A_ROW, 1, offset))?;
            }
        }
        Ok(())
    }

    /// The products of a block of terms: sums in tiles 0 to 3, A in 4 and 5, B in 6 and 7.
    fn products(&self, asm: &mut Asm) -> Result<(), AsmError> {
        let products = PRODUCTS.get(self.pieces.wrapping_sub(1)).ok_or_else(AsmError::registers)?;
        let mut held = (usize::MAX, usize::MAX);
        let (mut lines, mut next) = (0..self.ahead as i64, 0..self.pieces * TILE_ROWS);
        let (ahead, soon) = (lines.end as usize, next.end);
        for &(a, b) in *products {
            // A few at a time: there are not many places for lines that are on their way. The panels of A are in the
            // second-level cache at best, whence tiles come at half the speed of products.
            for line in next.by_ref().take(soon.div_ceil(products.len())) {
                for panel in A.into_iter().take(self.rows) {
                    asm.prefetch(Mem::at(panel, (soon + line) as i64 * ROW))?;
                }
            }
            for line in lines.by_ref().take(ahead.div_ceil(products.len())) {
                asm.prefetch_second(Mem::at(COUNT, line * ROW))?;
            }
            if held.0 != a {
                for (row, panel) in A.into_iter().enumerate().take(self.rows) {
                    asm.load_tile(4 + row, Mem::indexed(panel, A_ROW, 1, (a * TILE_BYTES) as i64))?;
                }
            }
            if held.1 != b {
                for column in 0..self.columns {
                    let at = Mem::indexed(B_PIECES[b], B_ROW, 1, column as i64 * ROW);
                    asm.load_tile(6 + column, at)?;
                }
            }
            held = (a, b);
            for row in 0..self.rows {
                for column in 0..self.columns {
                    asm.multiply_tiles(2 * row + column, 4 + row, 6 + column)?;
                }
            }
        }
        asm.add_number(COUNT, self.ahead as i64 * ROW)
    }

    /// The rows of a tile one after the other: vector registers 0 and 1 hold the sums, 2 to 4 pieces of A, 5 to 7 of B.
    fn exact_rows(&self, asm: &mut Asm, tile: usize) -> Result<(), AsmError> {
        let mut row = asm.label();
        asm.set_number(COUNT, 0)?;
        asm.broadcast_number(UPPER, A_ROW, 0xffff_0000)?;
        asm.place(&mut row)?;
        self.load_words(asm)?;
        for a in A {
            asm.add_word(a, COUNT)?;
        }
        self.exact_sums(
            asm,
            tile,
            |asm, column, at| if self.adds { asm.load(column, at) } else { asm.zero(column) },
        )?;
        self.loops(asm, (self.pieces * TILE_BYTES) as i64, |asm| {
            let mut pair = asm.label();
            asm.set_number(A_ROW, 0)?;
            asm.place(&mut pair)?;
            for part in [Part::Even, Part::Odd] {
                self.exact_pair(asm, tile, part)?;
            }
            asm.add_word(B_PIECES[0], B_ROW)?;
            asm.add_number(A_ROW, 4)?;
            asm.compare_number(A_ROW, ROW as i32)?;
            asm.jump_if_less(pair)
        })?;
        self.exact_sums(asm, tile, |asm, column, at| asm.store(at, column))?;
        asm.add_number(COUNT, ROW)?;
        asm.compare_number(COUNT, (TILE_ROWS as i64 * ROW) as i32)?;
        asm.jump_if_less(row)
    }

    /// Each vector of sums of a row and its place in memory.
    fn exact_sums(
        &self,
        asm: &mut Asm,
        tile: usize,
        mut visit: impl FnMut(&mut Asm, usize, Mem) -> Result<(), AsmError>,
    ) -> Result<(), AsmError> {
        asm.load_word(B_PIECES[0], Mem::at(ARGUMENT, Word::Tile.offset()))?;
        asm.address(B_PIECES[0], B_PIECES[0], COUNT, 2)?;
        for column in 0..self.columns {
            let offset = (tile * TILE_ROWS) as i64 * TILE_ROW_BYTES + column as i64 * ROW;
            visit(asm, column, Mem::at(B_PIECES[0], offset))?;
        }
        Ok(())
    }

    /// One term of a pair, all columns.
    fn exact_pair(&self, asm: &mut Asm, tile: usize, part: Part) -> Result<(), AsmError> {
        for piece in (0..self.pieces).rev() {
            let at = Mem::indexed(A[tile], A_ROW, 1, (piece * TILE_BYTES) as i64);
            asm.broadcast(2 + piece, at)?;
            widen(asm, 2 + piece, part)?;
        }
        add_pieces(asm, 2, self.pieces)?;
        for column in 0..self.columns {
            for piece in 0..self.pieces {
                let offset = column as i64 * ROW;
                let at = match piece {
                    0 => Mem::at(B_PIECES[0], offset),
                    piece => Mem::indexed(B_PIECES[0], PIECE, piece as u32, offset),
                };
                asm.load(5 + piece, at)?;
                widen(asm, 5 + piece, part)?;
            }
            add_pieces(asm, 5, self.pieces)?;
            asm.multiply_add(column, 2, 5)?;
        }
        Ok(())
    }
}

/// A term of a pair.
#[derive(Clone, Copy)]
enum Part {
    Even,
    Odd,
}

/// The mask of the upper halves.
const UPPER: usize = 31;

/// A bf16 of each pair as f32.
fn widen(asm: &mut Asm, vector: usize, part: Part) -> Result<(), AsmError> {
    match part {
        Part::Even => asm.shift_words_left(vector, 16),
        Part::Odd => asm.and(vector, vector, UPPER),
    }
}

/// The sum of pieces, which is exact from the last one on.
fn add_pieces(asm: &mut Asm, first: usize, pieces: usize) -> Result<(), AsmError> {
    (1..pieces).rev().try_for_each(|piece| asm.sum(first + piece - 1, first + piece - 1, first + piece))
}

/// Words of the argument of [`Rescale`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum RescaleWord {
    /// The sums.
    Tile,
    /// Factors, an f32 each.
    Factors,
}

impl RescaleWord {
    /// Its place in the list, in bytes.
    pub fn offset(self) -> i64 {
        8 * self as i64
    }
}

/// Multiplies the sums of 32 × 32 elements by two factors, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rescale;

impl Rescale {
    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(self) -> Result<Vec<u8>, AsmError> {
        let mut asm = Asm::new()?;
        let mut vector = asm.label();
        asm.load_word(B, Mem::at(ARGUMENT, RescaleWord::Tile.offset()))?;
        asm.set_number(A_ROW, 2 * TILE_ROW_BYTES as i32 * TILE_ROWS as i32 / ROW as i32)?;
        asm.place(&mut vector)?;
        asm.load(0, Mem::at(B, 0))?;
        for factor in 0..2 {
            asm.product_with(0, 0, Mem::at(ARGUMENT, RescaleWord::Factors.offset() + 8 * factor))?;
        }
        asm.store(Mem::at(B, 0), 0)?;
        asm.add_number(B, ROW)?;
        asm.add_number(A_ROW, -1)?;
        asm.jump_if_greater(vector)?;
        asm.ret()?;
        asm.finish()
    }
}

/// Makes the tile unit ready for tiles of 16 rows of 64 bytes, or gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    /// Before the first product.
    Take,
    /// After the last one.
    GiveBack,
}

/// Tiles, and the bytes of their description.
const TILES: usize = 8;
const DESCRIPTION: usize = 64;

impl Unit {
    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(self) -> Result<Vec<u8>, AsmError> {
        let mut asm = Asm::new()?;
        match self {
            Unit::Take => {
                let mut bytes = [0u8; DESCRIPTION];
                // Palette 1; bytes of a row at 16, two bytes each; rows at 48.
                bytes[0] = 1;
                for tile in 0..TILES {
                    bytes[16 + 2 * tile] = ROW as u8;
                    bytes[48 + tile] = TILE_ROWS as u8;
                }
                let mut description = asm.label();
                asm.address_of(A_ROW, description)?;
                asm.configure_tiles(Mem::at(A_ROW, 0))?;
                asm.ret()?;
                asm.place(&mut description)?;
                let words: Vec<u32> =
                    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
                asm.words(&words)?;
            }
            Unit::GiveBack => {
                asm.release_tiles()?;
                asm.ret()?;
            }
        }
        asm.finish()
    }
}

const _: () = assert!(LANES * 4 == ROW as usize && TILE_BYTES == TILE_ROWS * ROW as usize);
