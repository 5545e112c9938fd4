//! Pruning: weights that matter least are removed.

mod channels;
mod cut;
pub mod dead;
pub mod magnitude;
mod mask;
mod walk;
