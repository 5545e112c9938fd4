//! Expressions over outputs: `max_abs_err("y") < 1e-2 && argmax("logits") == argmax_ref("logits")`.
//!
//! ```text
//! or   = and { "||" and }          and  = not { "&&" not }        not = "!" not | compare
//! compare = sum [ ("<" | "<=" | ">" | ">=" | "==" | "!=") sum ]
//! sum  = term { ("+" | "-") term } term = sign { ("*" | "/") sign } sign = "-" sign | atom
//! atom = number | function "(" string ")" | "(" or ")"
//! ```

use crate::{Difference, Tensors};
use rabot_tensor::Tensor;

/// The functions, and what each gives.
const FUNCTIONS: [(&str, Function); 16] = [
    ("max_abs_err", |got, wanted| apart(got, wanted).map(|d| d.max_abs)),
    ("max_rel_err", |got, wanted| apart(got, wanted).map(|d| d.relative)),
    ("rms_err", |got, wanted| apart(got, wanted).map(|d| d.rms)),
    ("sqnr", |got, wanted| apart(got, wanted).map(|d| sqnr(&d))),
    ("cosine", |got, wanted| apart(got, wanted).map(|d| d.cosine.unwrap_or(0.0))),
    ("finite", |got, _| Ok(f64::from(got.to_f64s().iter().all(|v| v.is_finite())))),
    ("argmax", |got, _| Ok(argmax(got))),
    ("argmax_ref", |_, wanted| Ok(argmax(wanted))),
    ("max", |got, _| Ok(fold(got, f64::NEG_INFINITY, f64::max))),
    ("max_ref", |_, wanted| Ok(fold(wanted, f64::NEG_INFINITY, f64::max))),
    ("min", |got, _| Ok(fold(got, f64::INFINITY, f64::min))),
    ("min_ref", |_, wanted| Ok(fold(wanted, f64::INFINITY, f64::min))),
    ("mean", |got, _| Ok(mean(got))),
    ("mean_ref", |_, wanted| Ok(mean(wanted))),
    ("sum", |got, _| Ok(fold(got, 0.0, |a, b| a + b))),
    ("sum_ref", |_, wanted| Ok(fold(wanted, 0.0, |a, b| a + b))),
];

/// In dB: without end where nothing differs, and below everything where what differs is infinite or no number.
fn sqnr(difference: &Difference) -> f64 {
    let ratio = difference.sqnr_db.filter(|ratio| !ratio.is_nan());
    ratio.unwrap_or(if difference.rms == 0.0 { f64::INFINITY } else { f64::NEG_INFINITY })
}

/// Of an output and that of the original.
type Function = fn(&Tensor, &Tensor) -> Result<f64, String>;

/// Deepest nesting.
const DEEPEST: usize = 64;

/// The text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("check `{text}`, at byte {at}: expected {expected}")]
pub struct ExpressionError {
    /// The whole text.
    text: String,
    /// Where reading stopped.
    at: usize,
    /// What should be there.
    expected: String,
}

/// An expression that is true or false of outputs.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    root: Term,
}

#[derive(Clone, Debug)]
enum Term {
    Number(f64),
    Call(usize, String),
    Not(Box<Term>),
    Negative(Box<Term>),
    Binary(&'static str, Box<Term>, Box<Term>),
}

impl Expression {
    /// Reads an expression.
    ///
    /// **Errors**: where it cannot be read, and what is expected there.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        let mut reader = Reader { text, at: 0, depth: 0 };
        let root = reader.level(0)?;
        reader.space();
        if reader.at < text.len() {
            return Err(reader.error("an operator, or the end"));
        }
        Ok(Expression { text: text.to_owned(), root })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True if it is, of outputs and those of the original. Any number but 0 is true; NaN is false.
    ///
    /// **Errors**: an output that is not there, or is of another type than the original's.
    pub fn holds(&self, outputs: &Tensors, reference: &Tensors) -> Result<bool, String> {
        self.root.value(outputs, reference).map(is_true)
    }
}

fn is_true(value: f64) -> bool {
    value != 0.0 && !value.is_nan()
}

impl Term {
    fn value(&self, outputs: &Tensors, reference: &Tensors) -> Result<f64, String> {
        let of = |term: &Term| term.value(outputs, reference);
        Ok(match self {
            Term::Number(value) => *value,
            Term::Call(function, name) => {
                let both = outputs.get(name).zip(reference.get(name));
                let (got, wanted) = both.ok_or_else(|| {
                    let names: Vec<&str> = reference.keys().map(String::as_str).collect();
                    format!("there is no output `{name}`; there are {}", names.join(", "))
                })?;
                let (_, function) = FUNCTIONS.get(*function).ok_or("no such function")?;
                function(got, wanted)?
            }
            Term::Not(term) => f64::from(!is_true(of(term)?)),
            Term::Negative(term) => -of(term)?,
            Term::Binary(operator, left, right) => {
                let (a, b) = (of(left)?, of(right)?);
                match *operator {
                    "||" => f64::from(is_true(a) || is_true(b)),
                    "&&" => f64::from(is_true(a) && is_true(b)),
                    "<=" => f64::from(a <= b),
                    ">=" => f64::from(a >= b),
                    "==" => f64::from(a == b),
                    "!=" => f64::from(a != b),
                    "<" => f64::from(a < b),
                    ">" => f64::from(a > b),
                    "+" => a + b,
                    "-" => a - b,
                    "*" => a * b,
                    _ => a / b,
                }
            }
        })
    }
}

/// Operators, those that bind least first; longer ones go before what they begin with.
const LEVELS: [&[&str]; 5] =
    [&["||"], &["&&"], &["<=", ">=", "==", "!=", "<", ">"], &["+", "-"], &["*", "/"]];

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn error(&self, expected: &str) -> ExpressionError {
        ExpressionError { text: self.text.to_owned(), at: self.at, expected: expected.to_owned() }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn takes(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn level(&mut self, level: usize) -> Result<Term, ExpressionError> {
        let Some(operators) = LEVELS.get(level) else { return self.sign() };
        let mut left = self.level(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.takes(operator)) {
            let right = self.level(level + 1)?;
            left = Term::Binary(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn sign(&mut self) -> Result<Term, ExpressionError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error("less nesting"));
        }
        let term = if self.takes("!") {
            Term::Not(Box::new(self.sign()?))
        } else if self.takes("-") {
            Term::Negative(Box::new(self.sign()?))
        } else if self.takes("(") {
            let inner = self.level(0)?;
            if !self.takes(")") {
                return Err(self.error("`)`"));
            }
            inner
        } else {
            self.atom()?
        };
        self.depth -= 1;
        Ok(term)
    }

    fn atom(&mut self) -> Result<Term, ExpressionError> {
        self.space();
        let rest = self.rest();
        let length =
            rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or("");
        if word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return self.number();
        }
        let known = || FUNCTIONS.map(|(name, _)| name).join(", ");
        let Some(function) = FUNCTIONS.iter().position(|(name, _)| *name == word) else {
            return Err(self.error(&format!("a number or one of {}", known())));
        };
        self.at += length;
        if !self.takes("(") || !self.takes("\"") {
            return Err(self.error("`(\"OUTPUT\")`"));
        }
        let Some(end) = self.rest().find('"') else { return Err(self.error("a closing `\"`")) };
        let name = self.rest().get(..end).unwrap_or("").to_owned();
        self.at += end + 1;
        if !self.takes(")") {
            return Err(self.error("`)`"));
        }
        Ok(Term::Call(function, name))
    }

    fn number(&mut self) -> Result<Term, ExpressionError> {
        let mut end = 0;
        let mut before = ' ';
        for c in self.rest().chars() {
            let sign = (c == '-' || c == '+') && (before == 'e' || before == 'E');
            if !(c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || sign) {
                break;
            }
            end += c.len_utf8();
            before = c;
        }
        let value = self.rest().get(..end).and_then(|text| text.parse::<f64>().ok());
        let value = value.ok_or_else(|| self.error("a number"))?;
        self.at += end;
        Ok(Term::Number(value))
    }
}

fn apart(got: &Tensor, wanted: &Tensor) -> Result<Difference, String> {
    Difference::of(got, wanted).ok_or_else(|| {
        let ty = |t: &Tensor| format!("{}{:?}", t.dtype(), t.shape());
        format!("an output is {}, and {} in the original", ty(got), ty(wanted))
    })
}

fn fold(tensor: &Tensor, first: f64, function: fn(f64, f64) -> f64) -> f64 {
    tensor.to_f64s().into_iter().fold(first, function)
}

fn mean(tensor: &Tensor) -> f64 {
    fold(tensor, 0.0, |a, b| a + b) / tensor.len().max(1) as f64
}

/// Row-major index of the first largest element.
fn argmax(tensor: &Tensor) -> f64 {
    let values = tensor.to_f64s();
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if values.get(best).is_some_and(|most| value > most) {
            best = at;
        }
    }
    best as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> Result<bool, String> {
        let tensors = |values: [f32; 3]| {
            Tensors::from_iter([("y".to_owned(), Tensor::from_vec(&[3], values.to_vec()))])
        };
        let expression = Expression::parse(text).map_err(|error| error.to_string())?;
        expression.holds(&tensors([1.0, 2.5, -1.0]), &tensors([1.0, 2.0, -1.0]))
    }

    #[test]
    fn operators_bind_as_usual() {
        for text in [
            "max_abs_err(\"y\") == 0.5",
            "max_abs_err(\"y\") < 1e-2 || argmax(\"y\") == argmax_ref(\"y\")",
            "!(cosine(\"y\") < 0.9) && finite(\"y\")",
            "1 + 2 * 3 == 7 && -1 - 1 == -2 && 6 / 3 / 2 == 1",
            "max(\"y\") - max_ref(\"y\") <= 5.0e-1",
        ] {
            assert_eq!(holds(text), Ok(true), "{text}");
        }
        assert_eq!(holds("sqnr(\"y\") > 30"), Ok(false));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(holds("max_abs_err(\"z\") < 1").unwrap_err().contains("there is no output `z`"));
        assert!(holds("nothing(\"y\")").unwrap_err().contains("at byte 0: expected a number or one of"));
        for text in ["", "1 +", "(1", "1 2", "max(y)", "max(\"y"] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
        assert!(Expression::parse(&"(".repeat(10_000)).is_err());
    }
}
