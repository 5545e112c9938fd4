//! `TfIdfVectorizer`: counts n-grams of a pool in rows of tokens.
//!
//! For n from `min_gram_length` to `max_gram_length` and for each number of skipped tokens up to `max_skip_count`, an
//! n-gram of the pool that is found adds 1 to its column, which `ngram_indexes` names. Single tokens are counted once.
//! TF gives the counts, IDF the weight of the n-gram (or 1) where the count is not 0, TFIDF count times weight.
//!
//! **Shapes**: `[c]` → `[columns]`; `[b,c]` → `[b,columns]`; columns are the largest of `ngram_indexes` plus 1.
//!
//! **Dtypes**: strings, i32 or i64; to f32.
//!
//! **Opsets**: 9.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__TfIdfVectorizer.html>

use super::super::movement::reserve;
use super::super::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use super::super::{InferCx, OpDef, OpError};
use crate::ops::ml::{implied_columns, refused, strs};
use crate::{Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Tf,
    Idf,
    TfIdf,
}

/// `TfIdfVectorizer`: operand x.
#[derive(Clone, Debug)]
pub struct TfIdfVectorizer {
    attrs: Attrs,
    mode: Mode,
    lengths: (usize, usize),
    skips: usize,
    pool: Pool,
    tokens: Tokens,
    columns: usize,
}

impl PartialEq for TfIdfVectorizer {
    fn eq(&self, other: &Self) -> bool {
        self.attrs == other.attrs
    }
}

/// The n-grams as a tree of tokens.
#[derive(Clone, Debug, Default)]
struct Pool {
    /// From a node and a token to the next node; the root is 0.
    next: HashMap<(u32, i64), u32>,
    /// Column and weight of the n-gram that ends at a node.
    grams: Vec<Option<(usize, f32)>>,
}

impl Pool {
    /// Adds an n-gram. **Errors**: it is there already.
    fn insert(&mut self, gram: &[i64], found: (usize, f32)) -> Result<(), OpError> {
        let mut at = 0u32;
        for &token in gram {
            let fresh = self.grams.len() as u32;
            at = *self.next.entry((at, token)).or_insert(fresh);
            if at == fresh {
                self.grams.push(None);
            }
        }
        match self.grams.get_mut(at as usize) {
            Some(place @ None) => {
                *place = Some(found);
                Ok(())
            }
            _ => Err(OpError::Value("an n-gram is twice in the pool".to_owned())),
        }
    }
}

fn count_of(attrs: &Attrs, name: &str) -> Result<usize, OpError> {
    let value = attrs.required_int(name)?;
    usize::try_from(value).map_err(|_| refused(name, value, "expected a number that is not negative"))
}

/// Number of each token of a pool of strings; `None` for a pool of integers.
type Tokens = Option<HashMap<String, i64>>;

/// The pool as numbers, and the number of each string.
fn pool_tokens(attrs: &Attrs) -> Result<(Vec<i64>, Tokens), OpError> {
    let strings = strs(attrs, "pool_strings")?.filter(|pool| !pool.is_empty());
    let numbers = attrs.ints("pool_int64s")?.filter(|pool| !pool.is_empty());
    match (strings, numbers) {
        (None, Some(numbers)) => Ok((numbers, None)),
        (Some(strings), None) => {
            let mut known: HashMap<String, i64> = HashMap::new();
            let mut numbers = Vec::with_capacity(strings.len());
            for text in strings {
                let fresh = known.len() as i64;
                numbers.push(*known.entry(text).or_insert(fresh));
            }
            Ok((numbers, Some(known)))
        }
        _ => Err(refused("pool_*", "none or both", "expected pool_strings or pool_int64s")),
    }
}

/// The n-grams of the pool that are long enough and not too long, with their columns.
fn read_pool(
    attrs: &Attrs,
    tokens: &[i64],
    columns: &[(usize, f32)],
    lengths: (usize, usize),
) -> Result<Pool, OpError> {
    let starts =
        attrs.ints("ngram_counts")?.ok_or_else(|| OpError::MissingAttribute("ngram_counts".to_owned()))?;
    let wrong =
        || refused("ngram_counts", format!("{starts:?}"), "expected where the n-grams of each length start");
    let mut bounds: Vec<usize> =
        starts.iter().map(|&s| usize::try_from(s).map_err(|_| wrong())).collect::<Result<_, _>>()?;
    bounds.push(tokens.len());
    let mut pool = Pool { grams: vec![None], ..Pool::default() };
    let mut columns = columns.iter();
    for (at, bound) in bounds.windows(2).enumerate() {
        let size = at + 1;
        let part = tokens.get(bound[0]..bound[1]).ok_or_else(wrong)?;
        if !part.len().is_multiple_of(size) {
            return Err(wrong());
        }
        for gram in part.chunks_exact(size) {
            let missing = || refused("ngram_indexes", "too few", "expected one for each n-gram of the pool");
            let column = columns.next().ok_or_else(missing)?;
            if (lengths.0..=lengths.1).contains(&size) {
                pool.insert(gram, *column)?;
            }
        }
    }
    Ok(pool)
}

impl TfIdfVectorizer {
    /// Adds what is found in a row of tokens, of which `None` are in no n-gram, to its columns.
    fn count(&self, row: &[Option<i64>], counts: &mut [f64]) {
        let (mut least, most) = self.lengths;
        for step in 1..=self.skips.saturating_add(1) {
            // Steps that lead out of the row from the first token find nothing, nor do larger ones.
            if least > 1 && step >= row.len() {
                break;
            }
            for start in 0..row.len() {
                let mut at = 0u32;
                let tokens = row[start..].iter().step_by(step).take(most);
                for (size, token) in (1..).zip(tokens) {
                    let Some(&next) = token.and_then(|token| self.pool.next.get(&(at, token))) else { break };
                    at = next;
                    let gram = self.pool.grams.get(at as usize).copied().flatten().filter(|_| size >= least);
                    let Some((column, weight)) = gram else { continue };
                    let Some(count) = counts.get_mut(column) else { continue };
                    *count = match self.mode {
                        Mode::Tf => *count + 1.0,
                        Mode::Idf => f64::from(weight),
                        Mode::TfIdf => *count + f64::from(weight),
                    };
                }
            }
            // Skipping changes nothing about single tokens.
            if least == 1 {
                least = 2;
                if most < 2 {
                    break;
                }
            }
        }
    }

    fn expect(&self, dtype: DType) -> Result<(), OpError> {
        match self.tokens {
            Some(_) => expect_dtype(0, dtype, "strings, as the pool", |d| d == DType::String),
            None => {
                expect_dtype(0, dtype, "i32 or i64, as the pool", |d| matches!(d, DType::I32 | DType::I64))
            }
        }
    }
}

impl OpDef for TfIdfVectorizer {
    const NAMES: &'static [&'static str] = &["TfIdfVectorizer"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let known = [
            "max_gram_length",
            "max_skip_count",
            "min_gram_length",
            "mode",
            "ngram_counts",
            "ngram_indexes",
            "pool_int64s",
            "pool_strings",
            "weights",
        ];
        known_attrs(attrs, &known)?;
        let mode = match attrs.str("mode", "")?.as_str() {
            "TF" => Mode::Tf,
            "IDF" => Mode::Idf,
            "TFIDF" => Mode::TfIdf,
            other => return Err(refused("mode", other, "expected TF, IDF or TFIDF")),
        };
        let lengths = (count_of(attrs, "min_gram_length")?, count_of(attrs, "max_gram_length")?);
        if lengths.0 == 0 || lengths.0 > lengths.1 {
            return Err(refused("min_gram_length", lengths.0, "expected 1 to max_gram_length"));
        }
        let skips = count_of(attrs, "max_skip_count")?;
        let indexes = attrs.ints("ngram_indexes")?.unwrap_or_default();
        // Of n columns, the last one is n - 1.
        let columns = indexes
            .iter()
            .map(|&column| implied_columns("ngram_indexes", column.saturating_add(1)).map(|count| count - 1));
        let columns: Vec<usize> = columns.collect::<Result<_, _>>()?;
        let (numbers, tokens) = pool_tokens(attrs)?;
        let count = columns.iter().max().map_or(0, |largest| largest + 1);
        let weights = attrs.floats("weights")?.unwrap_or_default();
        if !weights.is_empty() && weights.len() != columns.len() {
            let found = format!("{} values", weights.len());
            return Err(refused("weights", found, "expected one for each of ngram_indexes"));
        }
        let weight = |at: usize| weights.get(at).copied().unwrap_or(1.0);
        let grams: Vec<(usize, f32)> =
            columns.into_iter().enumerate().map(|(at, c)| (c, weight(at))).collect();
        let pool = read_pool(attrs, &numbers, &grams, lengths)?;
        Ok(TfIdfVectorizer { attrs: attrs.clone(), mode, lengths, skips, pool, tokens, columns: count })
    }
    fn name(&self) -> &'static str {
        "TfIdfVectorizer"
    }
    fn attrs(&self) -> Attrs {
        self.attrs.clone()
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        self.expect(x.dtype())?;
        let columns = Dim::from(self.columns);
        match x.shape() {
            [] | [_] => Ok(vec![Fact::of_type(DType::F32, [columns])]),
            [rows, _] => Ok(vec![Fact::of_type(DType::F32, [rows.clone(), columns])]),
            shape => Err(OpError::Shape(format!("tokens must have 1 or 2 dims, not {}", shape.len()))),
        }
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        self.expect(x.dtype())?;
        let (rows, length, outer): (usize, usize, &[usize]) = match x.shape() {
            [] => (1, 1, &[]),
            [length] => (1, *length, &[]),
            shape @ [rows, length] => (*rows, *length, &shape[..1]),
            shape => {
                return Err(OpError::Shape(format!("tokens must have 1 or 2 dims, not {}", shape.len())));
            }
        };
        let tokens: Vec<Option<i64>> = match (&self.tokens, x.strings()) {
            (Some(known), Some(strings)) => strings.iter().map(|text| known.get(text).copied()).collect(),
            _ => x.to_i64s().into_iter().map(Some).collect(),
        };
        let mut counts: Vec<f64> = reserve(&[rows, self.columns])?;
        counts.resize(rows * self.columns, 0.0);
        if self.columns > 0 {
            for (row, counts) in counts.chunks_exact_mut(self.columns).enumerate() {
                self.count(tokens.get(row * length..(row + 1) * length).unwrap_or_default(), counts);
            }
        }
        Ok(vec![Tensor::from_f64s(DType::F32, &[outer, &[self.columns]].concat(), &counts)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{eval, with};
    use super::*;
    use crate::Attr;

    fn attrs(mode: &str, lengths: (i64, i64), skips: i64) -> Attrs {
        Attrs::new()
            .with("mode", Attr::Str(mode.to_owned()))
            .with("min_gram_length", Attr::Int(lengths.0))
            .with("max_gram_length", Attr::Int(lengths.1))
            .with("max_skip_count", Attr::Int(skips))
            .with("ngram_counts", Attr::Ints(vec![0, 2]))
            .with("ngram_indexes", Attr::Ints(vec![2, 0, 1]))
            .with("pool_strings", Attr::Strs(["a", "b", "a", "b"].map(String::from).to_vec()))
    }

    fn run(attrs: Attrs) -> Vec<f64> {
        let x = Tensor::from_strings(&[4], ["a", "c", "b", "a"].map(String::from).to_vec());
        eval(&with("TfIdfVectorizer", attrs), &[&x]).unwrap().to_f64s()
    }

    #[test]
    fn grams_are_counted_and_weighed() {
        // Columns: b, "a b", a. The pair is there only with one token skipped.
        assert_eq!(run(attrs("TF", (1, 2), 0)), [1.0, 0.0, 2.0]);
        assert_eq!(run(attrs("TF", (1, 2), 1)), [1.0, 1.0, 2.0]);
        assert_eq!(run(attrs("TF", (2, 2), 5)), [0.0, 1.0, 0.0]);
        let weights = Attr::Floats(vec![0.5, 2.0, 3.0]);
        assert_eq!(run(attrs("IDF", (1, 2), 0).with("weights", weights.clone())), [2.0, 0.0, 0.5]);
        assert_eq!(run(attrs("TFIDF", (1, 1), 0).with("weights", weights)), [2.0, 0.0, 1.0]);
        assert_eq!(run(attrs("IDF", (1, 1), 0)), [1.0, 0.0, 1.0]);
    }

    #[test]
    fn lists_must_fit_together() {
        let made = |attrs: Attrs| crate::Op::from_attrs("TfIdfVectorizer", &attrs).unwrap();
        assert!(made(attrs("TF", (1, 2), 0).with("ngram_counts", Attr::Ints(vec![0, 9]))).is_err());
        assert!(made(attrs("TF", (1, 2), 0).with("ngram_counts", Attr::Ints(vec![0, 3]))).is_err());
        assert!(made(attrs("TF", (1, 2), 0).with("ngram_indexes", Attr::Ints(vec![0]))).is_err());
        assert!(made(attrs("TF", (0, 2), 0)).is_err());
        assert!(made(attrs("BM25", (1, 2), 0)).is_err());
    }
}
