//! Pruning: channels that nobody reads go, and, where asked for, weights that matter least.

mod channels;
mod cut;
pub mod dead;
pub mod magnitude;
mod mask;
mod walk;
