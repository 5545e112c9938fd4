//! Wide x86-64 code: 512 bits, where Cranelift stops at 128.
//!
//! A *leaf* is a function that a kernel calls for its inner loops. Cranelift makes the kernel itself, with its loops
//! over blocks and tiles; leaves are emitted with iced-x86 and lie behind the kernel's code, so a kernel stays one
//! function of the module. A leaf takes one pointer to a list of words ([`Word`] numbers are those of its own) and gives
//! nothing back. It computes the same operations in the same order as Cranelift's code for an element does, so the
//! results have the same bits.

pub(crate) mod asm;
mod asm_tiles;
mod columns;
pub(crate) mod copy;
mod expr;
mod lanes;
pub(crate) mod map;
pub(crate) mod nest;
pub(crate) mod panel;
mod registers;
mod rows;
pub(crate) mod split;
mod strided;
pub(crate) mod sum;
pub(crate) mod tiles;
mod window;

use asm::AsmError;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use rabot_kernel::{LoopKernel, Vectorize};
use std::fmt::Write;

/// Namespace of leaves among external names; the index is that among the leaves of the kernel.
pub(crate) const NAMESPACE: u32 = 3;

/// Lanes of f32 in a vector of 512 bits.
pub(crate) const LANES: usize = 16;

/// Alignment of a leaf's code, in bytes.
pub(crate) const CODE_ALIGN: usize = 64;

/// What a leaf computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Leaf {
    /// The sums of a tile of a contraction.
    Sum(sum::Sum),
    /// Rows of a panel.
    Copy(copy::Copy),
    /// An elementwise function over rows.
    Map(map::Map),
    /// Rows of a loop kernel.
    Loop(Loop),
    /// The sums of a block of a contraction, on the tile unit.
    Products(tiles::Products),
    /// Sums of the tile unit times factors.
    Rescale(tiles::Rescale),
    /// Pieces of B for the tile unit.
    Pairs(split::Pairs),
    /// Pieces of A for the tile unit.
    Rows(split::Rows),
    /// Pieces of a constant B for the tile unit.
    Panel(panel::Panel),
    /// The tile unit is taken, or given back.
    Unit(tiles::Unit),
}

/// Rows of a loop kernel; its code is made once.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Loop(Vec<u8>);

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Loop {
    /// The leaf of a loop kernel, and how it is called; `None` if lanes do not have all that the kernel needs.
    pub fn new(kernel: &LoopKernel) -> Option<(Loop, nest::Call)> {
        let (code, call) = match kernel.vectorize {
            Vectorize::Outer => window::code(kernel).or_else(|| columns::code(kernel))?,
            Vectorize::Inner => rows::code(kernel)?,
            Vectorize::No => return None,
        };
        Some((Loop(code), call))
    }
}

impl Leaf {
    /// Its machine code, which may be placed anywhere.
    ///
    /// **Errors**: it cannot be encoded.
    pub fn assemble(&self) -> Result<Vec<u8>, AsmError> {
        match self {
            Leaf::Sum(sum) => sum.assemble(),
            Leaf::Copy(copy) => copy.assemble(),
            Leaf::Map(map) => map.assemble(),
            Leaf::Loop(Loop(code)) => Ok(code.clone()),
            Leaf::Products(products) => products.assemble(),
            Leaf::Rescale(rescale) => rescale.assemble(),
            Leaf::Pairs(pairs) => pairs.assemble(),
            Leaf::Rows(rows) => rows.assemble(),
            Leaf::Panel(panel) => panel.assemble(),
            Leaf::Unit(unit) => unit.assemble(),
        }
    }
}

/// The assembly of a leaf.
pub(crate) fn listing(leaf: &Leaf, code: &[u8]) -> String {
    let mut text = format!("\n; {leaf:?}\n");
    let mut formatter = GasFormatter::new();
    let mut line = String::new();
    for instruction in Decoder::new(64, code, DecoderOptions::NONE) {
        line.clear();
        formatter.format(&instruction, &mut line);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:6x}  {line}", instruction.ip());
    }
    text
}
