//! Operators that nodes of other operators stand for: one file a family, each with a table of its operators.
//!
//! A rule gets the node as a [`Draft`] in the form of its own operator set, and gives the values of its outputs.

mod attention;
mod basic;
mod chain;
mod dropout;
mod einsum;
mod elementwise;
mod emit;
mod extent;
pub(crate) mod flex;
mod gradient;
mod loss;
mod masks;
mod microsoft;
mod microsoft_quantized;
mod ml;
mod movement;
mod norm;
mod quantized;
mod random;
mod recurrent;
mod rotary;
mod signal;
mod training;
mod vision;

use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;

/// Makes the nodes that stand for one.
pub(crate) type Rule = fn(Draft<'_>) -> Result<Converted, Failure>;

/// Domain (empty for ONNX's own), operator and rule.
pub(crate) type Row = (&'static str, &'static str, Rule);

/// The tables of all families.
const TABLES: &[&[Row]] = &[
    basic::TABLE,
    norm::TABLE,
    attention::TABLE,
    flex::TABLE,
    gradient::TABLE,
    microsoft_quantized::TABLE,
    quantized::TABLE,
    rotary::TABLE,
    dropout::TABLE,
    loss::TABLE,
    vision::TABLE,
    random::TABLE,
    recurrent::TABLE,
    signal::TABLE,
    training::TABLE,
    movement::TABLE,
    masks::TABLE,
    ml::TABLE,
    elementwise::TABLE,
    einsum::TABLE,
];

/// The rule for an operator.
pub(crate) fn find(domain: &str, op: &str) -> Option<Rule> {
    rows().find(|row| row.0 == domain && row.1 == op).map(|row| row.2)
}

/// All rows.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().chain(&microsoft::TABLES).copied().flatten()
}
