//! What the tests of the whole share: the ISA levels of this machine, graphs as compiled code, plans as text.

#![forbid(unsafe_code)]

mod compiled;
mod levels;
mod listing;

pub use compiled::{Compiled, optimized, program};
pub use levels::levels;
pub use listing::listing;
