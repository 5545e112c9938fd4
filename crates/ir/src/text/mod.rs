//! `.rbt` text: a graph that people can read, write and compare, and that reads back as the same graph.
//!
//! ```text
//! model "tiny"
//! input %0 "x" : f32[batch,4]
//! %1 = Constant [0.5, -1.0, 0x7f800000, 2.0] : f32[4] "w"
//! %2 = Mul(%0, %1) : f32[batch,4] "scale" group=1
//! %3:2 = Split(%2) {axis=1, num_outputs=2} : f32[batch,2], f32[batch,2] "halves"
//! %4 = Clip(%3#1, %5, _) : f32[batch,2]            ; `_` is an absent optional operand
//! output "y" = %4
//! ```
//!
//! - A comment runs from `;` to the end of the line. Line breaks mean nothing.
//! - Values are numbered; the printer numbers them in topological order, ties by node id. `%3#1` is the second
//!   output of a node with several, whose count stands as `%3:2`.
//! - Types are mandatory on inputs and constants. On other nodes they may be left out by hand; where they stand,
//!   they must be what inference gives.
//! - Dims are what [`Dim`](crate::Dim) displays: `2*n + floordiv(m - 1, 2) + 1`, odd names in backquotes.
//! - Contents of a constant: a flat list `[…]` (at most 64 elements on print), `splat(v)`,
//!   `rand(seed, lo, hi)` (read, never printed; see [`random_tensor`]) or `@blob("blake3:…")` with the contents in
//!   a [`BlobStore`]. Floats are shortest decimals; NaN, infinities and 8-bit floats are bit patterns (`0x7fc00000`).
//!   Strings are always written out.
//! - Attributes: `1`, `1.0`, `"text"`, lists of these, tensors as `f32[2] [1.0, 2.0]`. A number is a float if it has
//!   a point, an exponent or is a bit pattern. Empty lists are of integers; `floats[]` and `strs[]` are the others.
//! - After the types may stand, in this order: the node's name (`v3` for `%3` if absent), `values=["a", "b"]` (names
//!   of the outputs; derived from the node's name if absent), `sources=["n"]` (a named node's own name if absent),
//!   `group=3`.
//! - A conditional ends in `then "name" { … } else "name" { … }`; each block is a graph of its own with its own
//!   numbers, whose inputs are the operands after the condition.
//! - `inputs(%1, %0)` gives the order of the inputs where it is not that of their statements.

mod cursor;
mod error;
mod lexer;
mod literal;
mod parse;
mod print;
mod random;

pub(crate) use lexer::escape;

pub use error::{ParseError, ParseErrorKind};
pub use parse::{Module, parse, parse_module, parse_type};
pub use print::{blobs, print};
pub use random::{SplitMix64, random_tensor};

use bytes::Bytes;
use std::collections::HashMap;

/// Where the contents of constants are that the text only names.
pub trait BlobStore {
    /// The bytes whose hash (`blake3:` and hex digits) is given, if they are there.
    fn get(&self, hash: &str) -> Option<Bytes>;
}

/// A store with nothing in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlobs;

impl BlobStore for NoBlobs {
    fn get(&self, _hash: &str) -> Option<Bytes> {
        None
    }
}

/// Contents held in memory, by hash.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlobs(HashMap<String, Bytes>);

impl MemoryBlobs {
    fn insert(&mut self, hash: String, bytes: &[u8]) {
        self.0.entry(hash).or_insert_with(|| Bytes::copy_from_slice(bytes));
    }

    /// Hashes and contents, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(hash, bytes)| (hash.as_str(), bytes))
    }
}

impl BlobStore for MemoryBlobs {
    fn get(&self, hash: &str) -> Option<Bytes> {
        self.0.get(hash).cloned()
    }
}

#[cfg(test)]
mod tests;
