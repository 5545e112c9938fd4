//! Tokens of `.rbt` text, and the errors that point into it.

use super::error::{ParseError, ParseErrorKind};

/// One token. Newlines and comments (`;` to the end of the line) separate tokens and mean nothing else.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A word: letters, digits, `_` and `.`, not starting with a digit.
    Word(&'a str),
    /// A number without its sign: `12`, `1.5e-7`, `0x7fc00000`.
    Number(&'a str),
    /// A string in double quotes, unescaped.
    Text(String),
    /// A name in backquotes, unescaped.
    Quoted(String),
    /// `%12`.
    Value(u32),
    /// Any other character that the grammar knows.
    Punct(char),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// The token in words, for error messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Word(word) | Token::Number(word) => format!("`{word}`"),
            Token::Text(text) => format!("{text:?}"),
            Token::Quoted(text) => format!("`{text}`"),
            Token::Value(number) => format!("`%{number}`"),
            Token::Punct(character) => format!("`{character}`"),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

/// Splits text into tokens, one at a time.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Where the last token ended.
    end: usize,
    /// A byte offset and its line: where the last count of newlines ended.
    counted: (usize, usize),
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Lexer { text, at: 0, end: 0, counted: (0, 1) }
    }

    /// An error at a byte offset.
    pub(super) fn error(&self, offset: usize, kind: ParseErrorKind) -> ParseError {
        ParseError::at(self.text, offset, kind)
    }

    /// Line of a byte offset, from 1. Offsets that grow from call to call keep the whole linear.
    pub(super) fn line(&mut self, offset: usize) -> usize {
        if offset < self.counted.0 {
            self.counted = (0, 1);
        }
        let (from, line) = self.counted;
        let between = self.text.as_bytes().get(from..offset).unwrap_or_default();
        self.counted = (offset, line + between.iter().filter(|&&b| b == b'\n').count());
        self.counted.1
    }

    /// The next token and the byte offset where it starts. The end of the text is right behind the last token.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize), ParseError> {
        self.skip_blank();
        let start = self.at;
        let Some(first) = self.peek() else { return Ok((Token::End, self.end)) };
        let token = match first {
            'a'..='z' | 'A'..='Z' | '_' => Token::Word(self.take_while(is_word)),
            '0'..='9' => Token::Number(self.number()),
            '"' => Token::Text(self.quoted('"')?),
            '`' => Token::Quoted(self.quoted('`')?),
            '%' => {
                self.at += 1;
                let digits = self.take_while(|c| c.is_ascii_digit());
                let number = digits.parse().map_err(|_| self.error(start, ParseErrorKind::BadValueNumber))?;
                Token::Value(number)
            }
            '(' | ')' | '[' | ']' | '{' | '}' | ',' | ':' | '=' | '#' | '@' | '+' | '-' | '*' => {
                self.at += 1;
                Token::Punct(first)
            }
            other => return Err(self.error(start, ParseErrorKind::BadCharacter(other))),
        };
        self.end = self.at;
        Ok((token, start))
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if self.peek() != Some(';') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// Digits, letters and dots, and a sign after the `e` of an exponent.
    fn number(&mut self) -> &'a str {
        let start = self.at;
        let hex = self.text.get(start..).is_some_and(|rest| rest.starts_with("0x"));
        loop {
            let part = self.take_while(is_word);
            let exponent = !hex && part.ends_with(['e', 'E']);
            if !(exponent && matches!(self.peek(), Some('+' | '-'))) {
                return self.text.get(start..self.at).unwrap_or_default();
            }
            self.at += 1;
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, ParseError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let here = self.at;
            let Some(character) = self.peek() else {
                return Err(self.error(start, ParseErrorKind::Unterminated(quote)));
            };
            self.at += character.len_utf8();
            match character {
                '\\' => text.push(self.escape(here)?),
                '\n' => return Err(self.error(start, ParseErrorKind::Unterminated(quote))),
                c if c == quote => return Ok(text),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self, start: usize) -> Result<char, ParseError> {
        let bad = |lexer: &Self| lexer.error(start, ParseErrorKind::BadEscape);
        let letter = self.peek().ok_or_else(|| bad(self))?;
        self.at += letter.len_utf8();
        match letter {
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            '\\' | '"' | '`' => Ok(letter),
            'u' => {
                let digits = self.take_while(|c| c == '{' || c.is_ascii_hexdigit());
                let code = digits.strip_prefix('{').and_then(|d| u32::from_str_radix(d, 16).ok());
                let character = code.and_then(char::from_u32).ok_or_else(|| bad(self))?;
                if self.peek() != Some('}') {
                    return Err(bad(self));
                }
                self.at += 1;
                Ok(character)
            }
            _ => Err(bad(self)),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// `text` with everything escaped that cannot stand between these quotes on one line.
pub(crate) fn escape(text: &str, quote: char) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\\' => escaped.push_str("\\\\"),
            c if c == quote => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push_str(&format!("\\u{{{:x}}}", c as u32)),
            c => escaped.push(c),
        }
    }
    escaped
}
