//! Operators of the domain `com.microsoft`, which ONNX Runtime's optimizers and exporters write.
//!
//! **Source**: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>; where that is silent, what
//! its CPU kernels do.

mod activation;
mod attention;
mod bits;
mod grouped;
mod mirror;
mod norm;
mod product;
mod rotary;

use super::Row;

const DOMAIN: &str = "com.microsoft";

/// The tables of the families.
pub(super) const TABLES: [&[Row]; 8] = [
    activation::TABLE,
    attention::TABLE,
    bits::TABLE,
    grouped::TABLE,
    mirror::TABLE,
    norm::TABLE,
    product::TABLE,
    rotary::TABLE,
];
