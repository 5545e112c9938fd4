//! `StringNormalizer`: takes stop words out of a list of strings and changes the case of the others.
//!
//! **Shapes**: `[c]` or `[1,c]`; fewer strings where stop words are among them, but one empty string if none is left.
//!
//! **Dtypes**: strings.
//!
//! The case of letters is changed one by one, as Unicode has it without regard to language: a letter that would become
//! several stays as it is.
//!
//! **Opsets**: 10.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__StringNormalizer.html>

use super::super::util::{arity, known_attrs};
use super::super::{InferCx, OpDef, OpError};
use super::{string_fact, string_tensor};
use crate::ops::ml::{refused, strs};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};
use std::collections::HashSet;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    None,
    Lower,
    Upper,
}

impl Case {
    fn of(self, text: &str) -> String {
        // One letter for one: others would change the length, as `ß` to `SS`.
        let only = |c: char, mut mapped: Box<dyn Iterator<Item = char>>| match (mapped.next(), mapped.next())
        {
            (Some(one), None) => one,
            _ => c,
        };
        match self {
            Case::None => text.to_owned(),
            Case::Lower => text.chars().map(|c| only(c, Box::new(c.to_lowercase()))).collect(),
            Case::Upper => text.chars().map(|c| only(c, Box::new(c.to_uppercase()))).collect(),
        }
    }
}

/// `StringNormalizer`: operand x.
#[derive(Clone, Debug, PartialEq)]
pub struct StringNormalizer {
    case: Case,
    case_sensitive: bool,
    locale: String,
    stop_words: Vec<String>,
}

impl StringNormalizer {
    /// The case in which strings and stop words are compared.
    fn comparing(&self) -> Case {
        match (self.case_sensitive, self.case) {
            (true, _) => Case::None,
            (false, Case::Upper) => Case::Upper,
            (false, _) => Case::Lower,
        }
    }
}

impl OpDef for StringNormalizer {
    const NAMES: &'static [&'static str] = &["StringNormalizer"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["case_change_action", "is_case_sensitive", "locale", "stopwords"])?;
        let case = match attrs.str("case_change_action", "NONE")?.as_str() {
            "NONE" => Case::None,
            "LOWER" => Case::Lower,
            "UPPER" => Case::Upper,
            other => return Err(refused("case_change_action", other, "expected NONE, LOWER or UPPER")),
        };
        let locale = attrs.str("locale", "en_US")?;
        let language = locale.split(['_', '-', '.']).next().unwrap_or_default().to_lowercase();
        if matches!(language.as_str(), "tr" | "az" | "lt") {
            return Err(refused(
                "locale",
                locale,
                "letters have other cases in this language than in all others",
            ));
        }
        let case_sensitive = attrs.int("is_case_sensitive", 0)? != 0;
        Ok(StringNormalizer {
            case,
            case_sensitive,
            locale,
            stop_words: strs(attrs, "stopwords")?.unwrap_or_default(),
        })
    }
    fn name(&self) -> &'static str {
        "StringNormalizer"
    }
    fn attrs(&self) -> Attrs {
        let case = match self.case {
            Case::None => "NONE",
            Case::Lower => "LOWER",
            Case::Upper => "UPPER",
        };
        let attrs = Attrs::new()
            .with("case_change_action", Attr::Str(case.to_owned()))
            .with("is_case_sensitive", Attr::Int(self.case_sensitive.into()))
            .with("locale", Attr::Str(self.locale.clone()));
        if self.stop_words.is_empty() {
            attrs
        } else {
            attrs.with("stopwords", Attr::Strs(self.stop_words.clone()))
        }
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = string_fact(inputs, 0, "X")?;
        let count = match x.shape() {
            [count] | [_, count] if self.stop_words.is_empty() => count.clone(),
            [_] | [_, _] => cx.fresh(),
            shape => {
                return Err(OpError::Shape(format!("strings must have 1 or 2 dims, not {}", shape.len())));
            }
        };
        if x.rank() == 1 {
            return Ok(vec![Fact::of_type(DType::String, [count])]);
        }
        cx.require_equal(&x.shape()[0], &Dim::from(1))?;
        Ok(vec![Fact::of_type(DType::String, [Dim::from(1), count])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, strings) = string_tensor(inputs, 0, "X")?;
        let rows: &[usize] = match x.shape() {
            [_] => &[],
            [1, _] => &[1],
            shape => return Err(OpError::Shape(format!("strings {shape:?} are neither [c] nor [1,c]"))),
        };
        let comparing = self.comparing();
        let stop_words: HashSet<String> = self.stop_words.iter().map(|word| comparing.of(word)).collect();
        let kept =
            strings.iter().filter(|text| stop_words.is_empty() || !stop_words.contains(&comparing.of(text)));
        let mut out: Vec<String> = kept.map(|text| self.case.of(text)).collect();
        if out.is_empty() && !self.stop_words.is_empty() {
            out.push(String::new());
        }
        Ok(vec![Tensor::from_strings(&[rows, &[out.len()]].concat(), out)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{eval, with};
    use super::*;

    #[test]
    fn stop_words_go_and_cases_change() {
        let run = |case: &str, sensitive: i64, stop: &[&str], text: &[&str]| {
            let owned = |all: &[&str]| all.iter().map(|&t| t.to_owned()).collect::<Vec<String>>();
            let mut attrs = Attrs::new()
                .with("case_change_action", Attr::Str(case.to_owned()))
                .with("is_case_sensitive", Attr::Int(sensitive));
            if !stop.is_empty() {
                attrs.set("stopwords", Attr::Strs(owned(stop)));
            }
            let x = Tensor::from_strings(&[1, text.len()], owned(text));
            eval(&with("StringNormalizer", attrs), &[&x]).unwrap().strings().unwrap().to_vec()
        };
        assert_eq!(run("LOWER", 0, &["The"], &["THE", "Größe"]), ["größe"]);
        assert_eq!(run("UPPER", 1, &["the"], &["The", "the", "Größe"]), ["THE", "GRÖßE"]);
        assert_eq!(run("NONE", 0, &["a"], &["A", "a"]), [""]);
        assert_eq!(run("NONE", 1, &[], &["A", ""]), ["A", ""]);
        let turkish = Attrs::new().with("locale", Attr::Str("tr_TR".to_owned()));
        assert!(crate::Op::from_attrs("StringNormalizer", &turkish).unwrap().is_err());
    }
}
