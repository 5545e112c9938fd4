//! `com.microsoft.Tokenizer`: cuts strings into tokens, by what they match or by what is between them.
//!
//! - `tokenexp`: tokens are the matches of a regular expression (`.`: single characters).
//! - `separators`: tokens are what is between matches of several expressions, one after the other (an empty one alone:
//!   single characters).
//!
//! Matches are leftmost and longest, in RE2's syntax. Tokens of fewer than `mincharnum` characters are dropped. With
//! `mark`, each row starts with U+0002 and ends with U+0003. Rows are filled up with `pad_value`.
//!
//! **Shapes**: `[c]` → `[c,longest]`; `[n,c]` → `[n,c,longest]`; of an operand without elements `[0]` and `[n,0]`.
//!
//! **Dtypes**: strings.
//!
//! **Opsets** (com.microsoft): 1.
//!
//! **Source**: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Tokenizer>

use super::super::util::{arity, known_attrs};
use super::super::{InferCx, OpDef, OpError};
use super::patterns::{Longest, Searcher};
use super::{padded, string_fact, string_tensor};
use crate::ops::ml::{refused, strs};
use crate::{Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// How tokens are found.
#[derive(Clone, Debug)]
enum Rule {
    Characters,
    Matches(Longest),
    Between(Vec<Longest>),
}

/// `com.microsoft.Tokenizer`: operand x.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    attrs: Attrs,
    rule: Rule,
    mark: bool,
    pad: String,
    least: usize,
}

impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.attrs == other.attrs
    }
}

/// The byte after the character at `at`.
fn after(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8)
}

impl Tokenizer {
    /// What searches the patterns of the rule.
    fn searchers(&self) -> Vec<Searcher<'_>> {
        match &self.rule {
            Rule::Characters => Vec::new(),
            Rule::Matches(pattern) => vec![pattern.searcher()],
            Rule::Between(separators) => separators.iter().map(Longest::searcher).collect(),
        }
    }

    fn tokens<'a>(&self, searchers: &mut [Searcher<'_>], text: &'a str) -> Vec<&'a str> {
        match (&self.rule, searchers) {
            (Rule::Characters, _) => text.char_indices().map(|(at, _)| &text[at..after(text, at)]).collect(),
            (Rule::Matches(_), [pattern, ..]) => self.matches(pattern, text),
            (_, separators) => {
                let mut parts = vec![text];
                for separator in separators {
                    parts = parts.into_iter().flat_map(|part| self.between(separator, part)).collect();
                }
                parts
            }
        }
    }

    fn long_enough(&self, token: &str) -> bool {
        token.chars().take(self.least).count() == self.least
    }

    fn matches<'a>(&self, pattern: &mut Searcher<'_>, text: &'a str) -> Vec<&'a str> {
        let mut tokens = Vec::new();
        let mut from = 0;
        while from <= text.len()
            && let Some((start, end)) = pattern.find(text, from)
        {
            let token = &text[start..end];
            if self.long_enough(token) {
                tokens.push(token);
                from = end;
            } else {
                from = after(text, start);
            }
        }
        tokens
    }

    fn between<'a>(&self, separator: &mut Searcher<'_>, text: &'a str) -> Vec<&'a str> {
        let mut tokens = Vec::new();
        let mut from = 0;
        let mut push = |token: &'a str| {
            if self.long_enough(token) {
                tokens.push(token);
            }
        };
        while from <= text.len()
            && let Some((start, end)) = separator.find(text, from)
        {
            push(&text[from..start]);
            // An empty separator takes a character with it, as in ONNX Runtime.
            from = if end > start { end } else { after(text, start) };
        }
        push(text.get(from..).unwrap_or_default());
        tokens
    }
}

impl OpDef for Tokenizer {
    const NAMES: &'static [&'static str] = &["com.microsoft.Tokenizer"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["mark", "mincharnum", "pad_value", "separators", "tokenexp"])?;
        let least = attrs.required_int("mincharnum")?;
        let least = usize::try_from(least).ok().filter(|&least| least > 0);
        let least =
            least.ok_or_else(|| refused("mincharnum", "out of range", "expected a positive number"))?;
        let rule = match strs(attrs, "separators")? {
            None => match attrs.str("tokenexp", "")?.as_str() {
                "" => return Err(OpError::MissingAttribute("separators` or `tokenexp".to_owned())),
                "." => Rule::Characters,
                pattern => Rule::Matches(Longest::new(pattern)?),
            },
            Some(separators) if separators.is_empty() => {
                return Err(refused("separators", "[]", "expected at least one"));
            }
            Some(separators) if separators == [""] => Rule::Characters,
            Some(separators) => Rule::Between(
                separators.iter().map(|pattern| Longest::new(pattern)).collect::<Result<_, _>>()?,
            ),
        };
        if matches!(rule, Rule::Characters) && least > 1 {
            return Err(refused("mincharnum", least, "tokens are single characters"));
        }
        let (mark, pad) = (attrs.required_int("mark")? != 0, attrs.str("pad_value", "")?);
        Ok(Tokenizer { attrs: attrs.clone(), rule, mark, pad, least })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        self.attrs.clone()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = string_fact(inputs, 0, "X")?;
        if !(1..=2).contains(&x.rank()) {
            return Err(OpError::Shape(format!("strings must have 1 or 2 dims, not {}", x.rank())));
        }
        let mut shape = x.shape().to_vec();
        shape.push(cx.fresh());
        Ok(vec![Fact::of_type(DType::String, shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (x, strings) = string_tensor(inputs, 0, "X")?;
        let mut rows: Vec<Vec<String>> = Vec::with_capacity(strings.len());
        let mut searchers = self.searchers();
        for text in strings {
            rows.push(self.tokens(&mut searchers, text).into_iter().map(str::to_owned).collect());
        }
        let mut longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        // Rows without any token have no marks either.
        if self.mark && longest > 0 {
            longest += 2;
            for row in &mut rows {
                row.insert(0, "\u{2}".to_owned());
                row.push("\u{3}".to_owned());
            }
        }
        Ok(vec![padded(x.shape(), rows, longest, &self.pad)?])
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{eval, with};
    use super::*;
    use crate::Attr;

    fn attrs(mark: i64, least: i64) -> Attrs {
        Attrs::new()
            .with("mark", Attr::Int(mark))
            .with("mincharnum", Attr::Int(least))
            .with("pad_value", Attr::Str("#".to_owned()))
    }

    fn run(attrs: Attrs, text: &[&str]) -> (Vec<usize>, Vec<String>) {
        let x = Tensor::from_strings(&[text.len()], text.iter().map(|&t| t.to_owned()).collect());
        let tokens = eval(&with("com.microsoft.Tokenizer", attrs), &[&x]).unwrap();
        (tokens.shape().to_vec(), tokens.strings().unwrap().to_vec())
    }

    #[test]
    fn tokens_are_matches_or_what_is_between() {
        let expression = attrs(0, 1).with("tokenexp", Attr::Str("[a-z]+".to_owned()));
        assert_eq!(
            run(expression, &["ab, c", "d"]),
            (vec![2, 2], ["ab", "c", "d", "#"].map(String::from).to_vec())
        );
        let separators = Attr::Strs(vec![",".to_owned(), "[ ]".to_owned()]);
        let between = attrs(0, 2).with("separators", separators);
        assert_eq!(run(between, &["ab, cd,e"]).1, ["ab", "cd"]);
        let characters = attrs(1, 1).with("separators", Attr::Strs(vec![String::new()]));
        assert_eq!(
            run(characters.clone(), &["aé", "b"]).1,
            ["\u{2}", "a", "é", "\u{3}", "\u{2}", "b", "\u{3}", "#"]
        );
        assert_eq!(run(characters, &["", ""]).0, [2, 0]);
    }

    #[test]
    fn rules_must_be_given() {
        assert!(crate::Op::from_attrs("com.microsoft.Tokenizer", &attrs(0, 1)).unwrap().is_err());
        let both = attrs(0, 2).with("tokenexp", Attr::Str(".".to_owned()));
        assert!(crate::Op::from_attrs("com.microsoft.Tokenizer", &both).unwrap().is_err());
    }
}
