//! Regular expressions as RE2 understands them, which ONNX refers to: `\w`, `\d`, `\s` and `\b` know ASCII only, and
//! brackets have no operators for sets.
//!
//! **Source**: <https://github.com/google/re2/wiki/Syntax>

use super::super::OpError;
use regex::Regex;
use regex_automata::nfa::thompson::pikevm::{Cache, PikeVM};
use regex_automata::{Anchored, Input, MatchKind};

fn refused(pattern: &str, reason: impl ToString) -> OpError {
    let (name, value, reason) = ("pattern".to_owned(), pattern.to_owned(), reason.to_string());
    OpError::Attribute { name, value, reason }
}

/// The same pattern for Rust's syntax.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut bracket = false;
    // True where a bracket has just been opened: a `]` there is itself.
    let mut opened = false;
    while let Some(c) = chars.next() {
        let first = std::mem::replace(&mut opened, false);
        match c {
            '\\' => match chars.next() {
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('s') => out.push_str(r"[\t\n\f\r ]"),
                Some('S') => out.push_str(r"[^\t\n\f\r ]"),
                Some('b') if !bracket => out.push_str(r"(?-u:\b)"),
                Some('B') if !bracket => out.push_str(r"(?-u:\B)"),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if !bracket => {
                bracket = true;
                opened = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            // A class with a name, as `[:alpha:]`.
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                for part in chars.by_ref() {
                    out.push(part);
                    if part == ']' {
                        break;
                    }
                }
            }
            ']' if bracket && first => out.push_str(r"\]"),
            ']' if bracket => {
                bracket = false;
                out.push(']');
            }
            '[' | '&' | '~' if bracket => out.extend(['\\', c]),
            // Two of them would be a difference of sets; one is a range, or itself.
            '-' if bracket && chars.peek() == Some(&'-') => out.push_str(r"\-"),
            _ => out.push(c),
        }
    }
    out
}

/// A pattern that must match a whole string.
///
/// **Errors**: it is not valid, or too large.
pub(super) fn whole(pattern: &str) -> Result<Regex, OpError> {
    Regex::new(&format!(r"\A(?:{})\z", translate(pattern))).map_err(|error| refused(pattern, error))
}

/// A pattern that is searched for: the leftmost match, and of those the longest one.
#[derive(Clone, Debug)]
pub(super) struct Longest {
    /// Says where the leftmost match starts.
    start: Regex,
    /// Says where the longest match from there ends.
    end: PikeVM,
}

impl Longest {
    /// **Errors**: the pattern is not valid, or too large.
    pub(super) fn new(pattern: &str) -> Result<Self, OpError> {
        let translated = translate(pattern);
        let start = Regex::new(&translated).map_err(|error| refused(pattern, error))?;
        let config = PikeVM::config().match_kind(MatchKind::All);
        let end = PikeVM::builder().configure(config).build(&translated);
        Ok(Longest { start, end: end.map_err(|error| refused(pattern, error))? })
    }

    /// For searches one after the other.
    pub(super) fn searcher(&self) -> Searcher<'_> {
        Searcher { pattern: self, cache: self.end.create_cache() }
    }
}

/// A pattern with the memory that searching takes.
pub(super) struct Searcher<'a> {
    pattern: &'a Longest,
    cache: Cache,
}

impl Searcher<'_> {
    /// The bytes from and to which the next match from `from` on goes.
    pub(super) fn find(&mut self, text: &str, from: usize) -> Option<(usize, usize)> {
        let start = self.pattern.start.find_at(text, from)?;
        let input = Input::new(text).range(start.start()..).anchored(Anchored::Yes);
        let mut longest = self.pattern.end.find_iter(&mut self.cache, input);
        Some((start.start(), longest.next().map_or(start.end(), |found| found.end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_know_ascii_only() {
        assert!(whole(r"\w+@\w+\.\w{2,3}").unwrap().is_match("account@gmail.com"));
        assert!(!whole(r"\w+").unwrap().is_match("größe"));
        assert!(whole(r"[\w&&-]+").unwrap().is_match("a&-b"));
        assert!(whole(r"[]a]+").unwrap().is_match("]a"));
        assert!(whole(r"[[:alpha:]]+").unwrap().is_match("ab"));
        assert!(whole(r"[^\s[]+").unwrap().is_match("a]"));
        assert!(whole(r"a|ab").unwrap().is_match("ab"));
        assert!(whole(r"(").is_err());
    }

    #[test]
    fn the_longest_match_wins() {
        let find =
            |pattern: &str, text: &str, from| Longest::new(pattern).unwrap().searcher().find(text, from);
        assert_eq!(find("a|ab|abcd", "xabcx", 0), Some((1, 3)));
        assert_eq!(find("a|ab|abcd", "xabcx", 2), None);
        assert_eq!(find(r"\b\w\w+\b", "a bc d", 0), Some((2, 4)));
        assert_eq!(find("x*", "ab", 1), Some((1, 1)));
    }
}
