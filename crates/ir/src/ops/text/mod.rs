//! Operators on strings.

mod normalizer;
mod patterns;
mod strings;
mod tfidf;
mod tokenizer;

pub use normalizer::StringNormalizer;
pub use strings::{RegexFullMatch, StringConcat, StringSplit};
pub use tfidf::TfIdfVectorizer;
pub use tokenizer::Tokenizer;

use super::OpError;
use super::util::{expect_dtype, required, required_tensor};
use crate::Fact;
use rabot_tensor::{DType, Tensor};

/// The fact of an operand that must be of strings.
fn string_fact<'a>(
    inputs: &[Option<&'a Fact>],
    slot: usize,
    name: &'static str,
) -> Result<&'a Fact, OpError> {
    let fact = required(inputs, slot, name)?;
    expect_dtype(slot, fact.dtype(), "strings", |d| d == DType::String)?;
    Ok(fact)
}

/// An operand that must be of strings, and its elements.
fn string_tensor<'a>(
    inputs: &[Option<&'a Tensor>],
    slot: usize,
    name: &'static str,
) -> Result<(&'a Tensor, &'a [String]), OpError> {
    let tensor = required_tensor(inputs, slot, name)?;
    let strings = tensor.strings().ok_or_else(|| OpError::DType {
        slot,
        actual: tensor.dtype(),
        expected: "strings".to_owned(),
    })?;
    Ok((tensor, strings))
}

/// Rows of tokens as one tensor whose last dim is the longest row; shorter rows are filled up.
///
/// **Errors**: there is not enough memory.
fn padded(shape: &[usize], rows: Vec<Vec<String>>, longest: usize, fill: &str) -> Result<Tensor, OpError> {
    let shape = [shape, &[longest]].concat();
    let mut out: Vec<String> = super::movement::reserve(&shape)?;
    for row in rows {
        let missing = longest.saturating_sub(row.len());
        out.extend(row);
        out.extend(std::iter::repeat_n(fill.to_owned(), missing));
    }
    Ok(Tensor::from_strings(&shape, out))
}
