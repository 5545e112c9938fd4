//! The sums of a tile: accumulators of 512 bits, held in registers over the whole sum.

use super::LANES;
use super::asm::{Asm, AsmError, Gpr, Mem};
use iced_x86::Register;

/// Words of a leaf's argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// The first panel of B.
    B,
    /// Bytes from panel to panel of B.
    PanelBytes,
    /// Terms of the sum.
    Steps,
    /// Where the accumulators go.
    Tile,
    /// The panel of A, or its rows, one word each.
    A,
}

impl Word {
    /// Its place in the list, in bytes.
    pub fn offset(self) -> i64 {
        8 * self as i64
    }
}

/// Words of the argument at most.
pub(crate) const WORDS: usize = 8;

/// Where A is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rows {
    /// From a panel with the words of so many rows per step.
    Panel(usize),
    /// From a pointer per row; the terms of a row are adjacent.
    Pointers,
}

/// How an element of B lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    /// f32.
    F32,
    /// f16, widened as it is read.
    F16,
    /// bf16, widened as it is read.
    BF16,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::BF16 => 2,
        }
    }
}

/// Terms of a chain of multiply-adds. The sum of more is that of their chains, which errs less: each chain begins at 0.
pub(crate) const CHAIN: i64 = 256;

/// `tile[r][c] = Σ_k A[r][k]·B[k][c]`, each element a chain of multiply-adds in the order of k, from 0, or the sum of
/// chains of [`CHAIN`] terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sum {
    /// Rows of the tile; with pointers, [`MOST_POINTERS`] at most.
    pub rows: usize,
    /// Panels of B; [`MOST_PANELS`] at most.
    pub panels: usize,
    /// Columns of a panel: a multiple of 16.
    pub columns: usize,
    /// Where A is read.
    pub a: Rows,
    /// Elements of B.
    pub b: Element,
    /// Bytes from row to row of the tile.
    pub tile_row: i64,
    /// True if there may be more terms than those of a chain.
    pub chains: bool,
}

/// Panels of B that a tile may have.
pub(crate) const MOST_PANELS: usize = 4;

/// Rows that may be read through pointers.
pub(crate) const MOST_POINTERS: usize = 4;

/// Registers of 512 bits.
const REGISTERS: usize = 32;

/// A register that holds a factor while there are multiply-adds.
const SPARE: usize = REGISTERS - 1;

/// Steps of the sum in one pass of the loop.
const UNROLL: usize = 4;

/// How far ahead B is fetched into the cache where each element of it is used only once or twice, in bytes.
const AHEAD: i64 = 1024;

const ARGUMENT: Gpr = Register::RDI;
const B: Gpr = Register::RSI;
const PANEL: Gpr = Register::RDX;
const STEPS: Gpr = Register::RCX;
const PANEL_3: Gpr = Register::RAX;
const A: [Gpr; MOST_POINTERS] = [Register::R8, Register::R9, Register::R10, Register::R11];
/// Where accumulators go, and the terms that are left, where there are several chains.
const TILE: Gpr = Register::RBX;
const LEFT: Gpr = Register::RBP;

impl Sum {
    /// Vectors of a row.
    fn vectors(&self) -> usize {
        self.panels * self.columns / LANES
    }

    /// True if there is code for it: accumulators, a row of B and two factors of A fit into the registers.
    pub fn is_possible(&self) -> bool {
        let rows = match self.a {
            Rows::Panel(_) => self.rows,
            Rows::Pointers => self.rows.min(MOST_POINTERS + 1),
        };
        let held = if self.reads_b_in_place() { 0 } else { self.vectors() };
        self.columns.is_multiple_of(LANES)
            && self.panels <= MOST_PANELS
            && rows == self.rows
            && (rows <= MOST_POINTERS || self.a != Rows::Pointers)
            && rows * self.vectors() + held + 2 <= REGISTERS
    }

    /// True if each vector of B is used so rarely that B should be fetched ahead.
    fn streams(&self) -> bool {
        self.rows <= 2
    }

    /// True if a vector of B is an operand in memory of each multiply-add.
    fn reads_b_in_place(&self) -> bool {
        self.streams() && self.b == Element::F32
    }

    /// Its machine code.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(&self) -> Result<Vec<u8>, AsmError> {
        let mut asm = Asm::new()?;
        if self.chains {
            asm.push(TILE)?;
            asm.push(LEFT)?;
        }
        asm.load_word(B, Mem::at(ARGUMENT, Word::B.offset()))?;
        asm.load_word(PANEL, Mem::at(ARGUMENT, Word::PanelBytes.offset()))?;
        asm.load_word(STEPS, Mem::at(ARGUMENT, Word::Steps.offset()))?;
        for (row, pointer) in self.pointers().iter().enumerate() {
            asm.load_word(*pointer, Mem::at(ARGUMENT, Word::A.offset() + 8 * row as i64))?;
        }
        if self.panels > 3 {
            asm.address(PANEL_3, PANEL, PANEL, 2)?;
        }
        if self.chains {
            self.sum_of_chains(&mut asm)?;
            asm.pop(LEFT)?;
            asm.pop(TILE)?;
        } else {
            self.chain(&mut asm)?;
            asm.load_word(B, Mem::at(ARGUMENT, Word::Tile.offset()))?;
            self.for_accumulators(|accumulator, offset| asm.store(Mem::at(B, offset), accumulator))?;
        }
        asm.ret()?;
        asm.finish()
    }

    /// Chain after chain, each added to the tile.
    fn sum_of_chains(&self, asm: &mut Asm) -> Result<(), AsmError> {
        let (mut next, mut short) = (asm.label(), asm.label());
        asm.load_word(TILE, Mem::at(ARGUMENT, Word::Tile.offset()))?;
        asm.copy_word(LEFT, STEPS)?;
        asm.zero(SPARE)?;
        self.for_accumulators(|_, offset| asm.store(Mem::at(TILE, offset), SPARE))?;
        asm.place(&mut next)?;
        asm.copy_word(STEPS, LEFT)?;
        asm.compare_number(STEPS, CHAIN as i32)?;
        asm.jump_if_less(short)?;
        asm.set_number(STEPS, CHAIN as i32)?;
        asm.place(&mut short)?;
        self.chain(asm)?;
        self.for_accumulators(|accumulator, offset| {
            asm.load(SPARE, Mem::at(TILE, offset))?;
            asm.sum(accumulator, SPARE, accumulator)?;
            asm.store(Mem::at(TILE, offset), accumulator)
        })?;
        asm.add_number(LEFT, -CHAIN)?;
        asm.jump_if_greater(next)
    }

    /// Each accumulator and its place in the tile.
    fn for_accumulators(
        &self,
        mut visit: impl FnMut(usize, i64) -> Result<(), AsmError>,
    ) -> Result<(), AsmError> {
        for row in 0..self.rows {
            for vector in 0..self.vectors() {
                let offset = row as i64 * self.tile_row + (vector * LANES * 4) as i64;
                visit(row * self.vectors() + vector, offset)?;
            }
        }
        Ok(())
    }

    /// Multiply-adds of so many terms as `STEPS` holds, from 0 on.
    fn chain(&self, asm: &mut Asm) -> Result<(), AsmError> {
        for accumulator in 0..self.rows * self.vectors() {
            asm.zero(accumulator)?;
        }
        let (mut body, mut rest, mut one, mut done) = (asm.label(), asm.label(), asm.label(), asm.label());
        asm.add_number(STEPS, -(UNROLL as i64))?;
        asm.jump_if_less(rest)?;
        asm.place(&mut body)?;
        self.steps(asm, UNROLL)?;
        asm.add_number(STEPS, -(UNROLL as i64))?;
        asm.jump_if_not_less(body)?;
        asm.place(&mut rest)?;
        asm.add_number(STEPS, UNROLL as i64)?;
        asm.jump_if_zero(done)?;
        asm.place(&mut one)?;
        self.steps(asm, 1)?;
        asm.add_number(STEPS, -1)?;
        asm.jump_if_greater(one)?;
        asm.place(&mut done)
    }

    fn pointers(&self) -> &'static [Gpr] {
        match self.a {
            Rows::Panel(_) => &A[..1],
            Rows::Pointers => &A[..self.rows.min(MOST_POINTERS)],
        }
    }

    /// A vector of B, so many steps on.
    fn b(&self, step: usize, vector: usize) -> Mem {
        let per_panel = self.columns / LANES;
        let (panel, at) = (vector / per_panel, vector % per_panel);
        let offset = ((step * self.columns + at * LANES) * self.b.bytes()) as i64;
        match panel {
            0 => Mem::at(B, offset),
            1 => Mem::indexed(B, PANEL, 1, offset),
            2 => Mem::indexed(B, PANEL, 2, offset),
            _ => Mem::indexed(B, PANEL_3, 1, offset),
        }
    }

    /// A word of A, so many steps on.
    fn factor(&self, step: usize, row: usize) -> Mem {
        match self.a {
            Rows::Panel(mr) => Mem::at(A[0], (step * mr + row) as i64 * 4),
            Rows::Pointers => Mem::at(A[row], step as i64 * 4),
        }
    }

    fn steps(&self, asm: &mut Asm, count: usize) -> Result<(), AsmError> {
        let vectors = self.vectors();
        let (first_b, factor) = (REGISTERS - 2 - vectors.min(REGISTERS - 2), REGISTERS - 2);
        for step in 0..count {
            for vector in 0..vectors {
                let at = self.b(step, vector);
                if self.streams() {
                    asm.prefetch(Mem { offset: at.offset + AHEAD, ..at })?;
                }
                match self.b {
                    Element::F32 if self.reads_b_in_place() => {}
                    Element::F32 => asm.load(first_b + vector, at)?,
                    Element::F16 => asm.load_f16(first_b + vector, at)?,
                    Element::BF16 => asm.load_bf16(first_b + vector, at)?,
                }
            }
            for row in 0..self.rows {
                let from = self.factor(step, row);
                if vectors == 1 && !self.reads_b_in_place() {
                    asm.multiply_add_at(row, first_b, from, true)?;
                    continue;
                }
                let factor = factor + row % 2;
                asm.broadcast(factor, from)?;
                for vector in 0..vectors {
                    let sum = row * vectors + vector;
                    if self.reads_b_in_place() {
                        asm.multiply_add_at(sum, factor, self.b(step, vector), false)?;
                    } else {
                        asm.multiply_add(sum, factor, first_b + vector)?;
                    }
                }
            }
        }
        let a_bytes = match self.a {
            Rows::Panel(mr) => (count * mr * 4) as i64,
            Rows::Pointers => count as i64 * 4,
        };
        for pointer in self.pointers() {
            asm.add_number(*pointer, a_bytes)?;
        }
        asm.add_number(B, (count * self.columns * self.b.bytes()) as i64)
    }
}
