//! `RegexFullMatch`, `StringConcat`, `StringSplit`.
//!
//! - `RegexFullMatch(x)`: true where all of a string matches the pattern (RE2's syntax).
//! - `StringConcat(x, y)`: one after the other, with numpy's broadcasting.
//! - `StringSplit(x)`: parts between delimiters and their number; without a delimiter, between runs of white space.
//!   Rows are filled up with empty strings. At most `maxsplit` delimiters are used.
//!
//! **Shapes**: `StringSplit` `[a…]` → `[a…,longest]` and `[a…]`.
//!
//! **Dtypes**: strings; to bool and i64.
//!
//! **Opsets**: 20.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__RegexFullMatch.html>,
//! <https://onnx.ai/onnx/operators/onnx__StringConcat.html>, <https://onnx.ai/onnx/operators/onnx__StringSplit.html>

use super::super::movement::{Walk, broadcast_shape, reserve};
use super::super::util::{arity, known_attrs};
use super::super::{InferCx, OpDef, OpError};
use super::{padded, patterns, string_fact, string_tensor};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};
use regex::Regex;

/// `RegexFullMatch`: operand x.
#[derive(Clone, Debug)]
pub struct RegexFullMatch {
    pattern: String,
    regex: Regex,
}

impl PartialEq for RegexFullMatch {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl OpDef for RegexFullMatch {
    const NAMES: &'static [&'static str] = &["RegexFullMatch"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["pattern"])?;
        let pattern = attrs.str("pattern", "")?;
        let regex = patterns::whole(&pattern)?;
        Ok(RegexFullMatch { pattern, regex })
    }
    fn name(&self) -> &'static str {
        "RegexFullMatch"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("pattern", Attr::Str(self.pattern.clone()))
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = string_fact(inputs, 0, "X")?;
        Ok(vec![Fact::of_type(DType::Bool, x.shape().to_vec())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, strings) = string_tensor(inputs, 0, "X")?;
        let matches: Vec<bool> = strings.iter().map(|text| self.regex.is_match(text)).collect();
        Ok(vec![Tensor::from_bools(x.shape(), &matches)])
    }
}

/// `StringConcat`: operands x, y.
#[derive(Clone, Debug, PartialEq)]
pub struct StringConcat;

impl OpDef for StringConcat {
    const NAMES: &'static [&'static str] = &["StringConcat"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(StringConcat)
    }
    fn name(&self) -> &'static str {
        "StringConcat"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (x, y) = (string_fact(inputs, 0, "X")?, string_fact(inputs, 1, "Y")?);
        Ok(vec![Fact::of_type(DType::String, cx.broadcast(&[x.shape(), y.shape()])?)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let ((x, left), (y, right)) = (string_tensor(inputs, 0, "X")?, string_tensor(inputs, 1, "Y")?);
        let shape = broadcast_shape(&[x.shape(), y.shape()])?;
        let mut out: Vec<String> = reserve(&shape)?;
        Walk::broadcast([x.shape(), y.shape()], &shape).rows([0; 2], |at, step, len| {
            out.extend((0..len as isize).map(|k| {
                let index = |n: usize| (at[n] + k * step[n]) as usize;
                format!("{}{}", left[index(0)], right[index(1)])
            }));
        });
        Ok(vec![Tensor::from_strings(&shape, out)])
    }
}

/// `StringSplit`: operand x; results parts and their number.
#[derive(Clone, Debug, PartialEq)]
pub struct StringSplit {
    /// Empty for runs of white space.
    delimiter: String,
    /// Most delimiters to use.
    most: Option<usize>,
}

/// White space as Python has it: also the separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

impl StringSplit {
    fn parts(&self, text: &str) -> Vec<String> {
        let most = self.most.unwrap_or(usize::MAX);
        if !self.delimiter.is_empty() {
            return text.splitn(most.saturating_add(1), &self.delimiter).map(str::to_owned).collect();
        }
        let mut parts = Vec::new();
        let mut rest = text.trim_start_matches(is_space);
        while !rest.is_empty() {
            let end = if parts.len() < most { rest.find(is_space) } else { None };
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            parts.push(part.to_owned());
            rest = after.trim_start_matches(is_space);
        }
        parts
    }
}

impl OpDef for StringSplit {
    const NAMES: &'static [&'static str] = &["StringSplit"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["delimiter", "maxsplit"])?;
        // A negative number is no limit, as in Python.
        let most = attrs.get("maxsplit").map(|_| attrs.required_int("maxsplit")).transpose()?;
        let most = most.and_then(|most| usize::try_from(most).ok());
        Ok(StringSplit { delimiter: attrs.str("delimiter", "")?, most })
    }
    fn name(&self) -> &'static str {
        "StringSplit"
    }
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("delimiter", Attr::Str(self.delimiter.clone()));
        match self.most {
            None => attrs,
            Some(most) => attrs.with("maxsplit", Attr::Int(most as i64)),
        }
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = string_fact(inputs, 0, "X")?;
        let mut shape = x.shape().to_vec();
        let counts = Fact::of_type(DType::I64, shape.clone());
        shape.push(cx.fresh());
        Ok(vec![Fact::of_type(DType::String, shape), counts])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, strings) = string_tensor(inputs, 0, "X")?;
        let rows: Vec<Vec<String>> = strings.iter().map(|text| self.parts(text)).collect();
        let counts: Vec<i64> = rows.iter().map(|row| row.len() as i64).collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        Ok(vec![padded(x.shape(), rows, longest, "")?, Tensor::from_vec(x.shape(), counts)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{eval, infer, plain, with};
    use super::*;

    fn strings(shape: &[usize], values: &[&str]) -> Tensor {
        Tensor::from_strings(shape, values.iter().map(|&text| text.to_owned()).collect())
    }

    #[test]
    fn strings_are_joined_with_broadcasting() {
        let joined =
            eval(&plain("StringConcat"), &[&strings(&[2, 1], &["a", "b"]), &strings(&[2], &["x", ""])]);
        assert_eq!(joined.unwrap(), strings(&[2, 2], &["ax", "a", "bx", "b"]));
    }

    #[test]
    fn strings_are_split_as_python_does() {
        let split = |delimiter: &str, most: Option<i64>, text: &str| {
            let mut attrs = Attrs::new().with("delimiter", Attr::Str(delimiter.to_owned()));
            if let Some(most) = most {
                attrs.set("maxsplit", Attr::Int(most));
            }
            eval(&with("StringSplit", attrs), &[&strings(&[1], &[text])]).unwrap().strings().unwrap().to_vec()
        };
        assert_eq!(split("", None, "  a \t b\n"), ["a", "b"]);
        assert_eq!(split("", Some(1), " a  b c "), ["a", "b c "]);
        assert_eq!(split("", Some(0), " a "), ["a "]);
        assert!(split("", None, " ").is_empty());
        assert_eq!(split(",", None, "a,,b"), ["a", "", "b"]);
        assert_eq!(split(",", Some(1), "a,,b"), ["a", ",b"]);
        assert_eq!(split(",", None, ""), [""]);
    }

    #[test]
    fn patterns_must_be_valid_and_operands_strings() {
        let bad = Attrs::new().with("pattern", Attr::Str("(".to_owned()));
        assert!(crate::Op::from_attrs("RegexFullMatch", &bad).unwrap().is_err());
        let digits = with("RegexFullMatch", Attrs::new().with("pattern", Attr::Str(r"\d+".to_owned())));
        let matches = eval(&digits, &[&strings(&[3], &["12", "1a", ""])]).unwrap();
        assert_eq!(matches, Tensor::from_bools(&[3], &[true, false, false]));
        assert!(infer(&digits, &[&Fact::of_type(DType::F32, [])]).is_err());
    }
}
