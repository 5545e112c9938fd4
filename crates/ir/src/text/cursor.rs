//! A token stream with one token of lookahead, and the small parts of the grammar: dims, types, elements, attributes.

use super::BlobStore;
use super::error::{ParseError, ParseErrorKind};
use super::lexer::{Lexer, Token};
use super::literal::{Scalar, hash_bytes};
use super::random::random_tensor;
use crate::{Attr, Attrs, Dim, ValueType};
use rabot_tensor::{DType, Tensor};

/// Deepest nesting of functions in a dim.
const MAX_TYPE_DEPTH: usize = 32;

/// Deepest nesting of functions in a dim.
const MAX_DIM_DEPTH: usize = 64;
/// Most factors of a product in a dim, and most terms of what they multiply out to.
const MAX_DIM_TERMS: usize = 256;
/// Most elements that all `splat` and `rand` of a text make together: a short text must not fill the memory.
const MAX_GENERATED: usize = 1 << 26;

/// The contents of a constant, before its type is known.
pub(super) enum Literal<'a> {
    List(Vec<(Scalar<'a>, usize)>),
    Splat(Scalar<'a>, usize),
    Rand { seed: u64, lo: f64, hi: f64 },
    Blob(String),
}

/// Reads tokens; `token` is the next one and `start` the offset where it starts.
pub(super) struct Cursor<'a> {
    lexer: Lexer<'a>,
    blobs: &'a dyn BlobStore,
    pub(super) token: Token<'a>,
    pub(super) start: usize,
    generated: usize,
}

type Result<T> = std::result::Result<T, ParseError>;

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, blobs: &'a dyn BlobStore) -> Result<Self> {
        let mut lexer = Lexer::new(text);
        let (token, start) = lexer.next()?;
        Ok(Cursor { lexer, blobs, token, start, generated: 0 })
    }

    pub(super) fn error(&self, offset: usize, kind: ParseErrorKind) -> ParseError {
        self.lexer.error(offset, kind)
    }

    pub(super) fn line(&mut self, offset: usize) -> usize {
        self.lexer.line(offset)
    }

    pub(super) fn expected<T>(&self, expected: &str) -> Result<T> {
        let found = self.token.describe();
        Err(self.error(self.start, ParseErrorKind::Expected { expected: expected.to_owned(), found }))
    }

    pub(super) fn advance(&mut self) -> Result<Token<'a>> {
        let (next, start) = self.lexer.next()?;
        self.start = start;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// Takes the character if it is next.
    pub(super) fn eat(&mut self, character: char) -> Result<bool> {
        let is = self.token == Token::Punct(character);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    pub(super) fn expect(&mut self, character: char) -> Result<()> {
        if self.eat(character)? { Ok(()) } else { self.expected(&format!("`{character}`")) }
    }

    /// Takes the word if it is next.
    pub(super) fn eat_word(&mut self, word: &str) -> Result<bool> {
        let is = self.token == Token::Word(word);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.eat_word(word)? { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.token {
            Token::Word(word) => self.advance().map(|_| word),
            _ => self.expected(what),
        }
    }

    pub(super) fn text(&mut self, what: &str) -> Result<String> {
        match &mut self.token {
            Token::Text(text) => {
                let text = std::mem::take(text);
                self.advance()?;
                Ok(text)
            }
            _ => self.expected(what),
        }
    }

    pub(super) fn value_number(&mut self) -> Result<u32> {
        match self.token {
            Token::Value(number) => self.advance().map(|_| number),
            _ => self.expected("a value such as `%0`"),
        }
    }

    /// A number without sign, of any integer type.
    pub(super) fn unsigned<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        match self.token {
            Token::Number(digits) if digits.parse::<T>().is_ok() => match digits.parse() {
                Ok(number) => self.advance().map(|_| number),
                Err(_) => self.expected(what),
            },
            _ => self.expected(what),
        }
    }

    /// `item, item, …` up to the closing character, which is taken too.
    pub(super) fn list<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(close)? {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close)? {
                return Ok(items);
            }
            if !self.eat(',')? {
                return self.expected(&format!("`,` or `{close}`"));
            }
        }
    }

    /// `[ "a", "b" ]`.
    pub(super) fn texts(&mut self) -> Result<Vec<String>> {
        self.expect('[')?;
        self.list(']', |cursor| cursor.text("a string"))
    }

    /// `f32[batch,3]`.
    pub(super) fn ty(&mut self) -> Result<ValueType> {
        self.nested_ty(0)
    }

    fn nested_ty(&mut self, depth: usize) -> Result<ValueType> {
        if depth > MAX_TYPE_DEPTH {
            return Err(self.limit("nested types", MAX_TYPE_DEPTH));
        }
        for (word, make) in [
            ("sequence", ValueType::sequence as fn(ValueType) -> ValueType),
            ("optional", ValueType::optional),
        ] {
            if self.eat_word(word)? {
                self.expect('(')?;
                let element = self.nested_ty(depth + 1)?;
                self.expect(')')?;
                return Ok(make(element));
            }
        }
        if self.eat_word("map")? {
            self.expect('(')?;
            let key = self.dtype()?;
            self.expect(',')?;
            let value = self.nested_ty(depth + 1)?;
            self.expect(')')?;
            return Ok(ValueType::map(key, value));
        }
        let dtype = self.dtype()?;
        self.expect('[')?;
        if self.eat('*')? {
            self.expect(']')?;
            return Ok(ValueType::unranked(dtype));
        }
        let shape = self.list(']', |cursor| {
            let start = cursor.start;
            let dim = cursor.dim(0)?;
            if dim.as_const().is_some_and(|d| d < 0) {
                let (expected, found) = ("a dim that is not negative".to_owned(), format!("`{dim}`"));
                return Err(cursor.error(start, ParseErrorKind::Expected { expected, found }));
            }
            Ok(dim)
        })?;
        Ok(ValueType::new(dtype, shape))
    }

    fn dtype(&mut self) -> Result<DType> {
        let start = self.start;
        let found = self.token.describe();
        self.word("a type such as `f32[2,3]`")?.parse::<DType>().map_err(|_| {
            let expected = "a type such as `f32[2,3]`".to_owned();
            self.error(start, ParseErrorKind::Expected { expected, found })
        })
    }

    /// Types after `:`, if there are any.
    pub(super) fn types(&mut self) -> Result<Option<Vec<ValueType>>> {
        if !self.eat(':')? {
            return Ok(None);
        }
        let mut types = vec![self.ty()?];
        while self.eat(',')? {
            types.push(self.ty()?);
        }
        Ok(Some(types))
    }

    /// A sum of products, in the form that [`Dim`] displays.
    pub(super) fn dim(&mut self, depth: usize) -> Result<Dim> {
        if depth > MAX_DIM_DEPTH {
            return Err(self.limit("nested functions in a dim", MAX_DIM_DEPTH));
        }
        let mut sum = Dim::from(0);
        let mut negative = self.eat('-')?;
        loop {
            let product = self.dim_product(depth)?;
            sum = if negative { sum - product } else { sum + product };
            self.check_dim(&sum)?;
            negative = match self.token {
                Token::Punct('+') => false,
                Token::Punct('-') => true,
                _ => return Ok(sum),
            };
            self.advance()?;
        }
    }

    fn dim_product(&mut self, depth: usize) -> Result<Dim> {
        let mut product = self.dim_factor(depth)?;
        let mut factors = 1;
        while self.eat('*')? {
            factors += 1;
            if factors > MAX_DIM_TERMS {
                return Err(self.limit("factors in a dim", MAX_DIM_TERMS));
            }
            product = product * self.dim_factor(depth)?;
            self.check_dim(&product)?;
        }
        Ok(product)
    }

    fn dim_factor(&mut self, depth: usize) -> Result<Dim> {
        match self.token {
            Token::Number(_) => Ok(Dim::from(self.unsigned::<i64>("an integer below 2^63")?)),
            Token::Quoted(ref mut name) => {
                let name = std::mem::take(name);
                self.advance()?;
                Ok(Dim::symbol(name))
            }
            Token::Word(name @ ("floordiv" | "max" | "min")) => {
                self.advance()?;
                self.expect('(')?;
                let left = self.dim(depth + 1)?;
                self.expect(',')?;
                let right = self.dim(depth + 1)?;
                self.expect(')')?;
                Ok(match name {
                    "floordiv" => left.floor_div(&right),
                    "max" => left.maximum(&right),
                    _ => left.minimum(&right),
                })
            }
            Token::Word(name) => self.advance().map(|_| Dim::symbol(name)),
            _ => self.expected("a dim: a number, a name, floordiv(a, b), max(a, b) or min(a, b)"),
        }
    }

    fn check_dim(&self, dim: &Dim) -> Result<()> {
        if dim.terms().len() > MAX_DIM_TERMS {
            return Err(self.limit("terms in a dim", MAX_DIM_TERMS));
        }
        Ok(())
    }

    pub(super) fn limit(&self, what: &'static str, limit: usize) -> ParseError {
        self.error(self.start, ParseErrorKind::Limit { what, limit })
    }

    /// One element, and where it starts.
    fn scalar(&mut self) -> Result<(Scalar<'a>, usize)> {
        let start = self.start;
        let negative = self.eat('-')?;
        let scalar = match &mut self.token {
            Token::Number(text) => Scalar::Number { negative, text },
            Token::Word("true") if !negative => Scalar::Bool(true),
            Token::Word("false") if !negative => Scalar::Bool(false),
            Token::Text(text) if !negative => Scalar::Text(std::mem::take(text)),
            _ => return self.expected("a number, true, false or a string"),
        };
        self.advance()?;
        Ok((scalar, start))
    }

    /// Contents of a constant in one of the four forms.
    pub(super) fn literal(&mut self) -> Result<Literal<'a>> {
        if self.eat('[')? {
            return Ok(Literal::List(self.list(']', Self::scalar)?));
        }
        if self.eat('@')? {
            self.expect_word("blob")?;
            self.expect('(')?;
            let hash = self.text("the hash of the contents")?;
            self.expect(')')?;
            return Ok(Literal::Blob(hash));
        }
        if self.eat_word("splat")? {
            self.expect('(')?;
            let (scalar, start) = self.scalar()?;
            self.expect(')')?;
            return Ok(Literal::Splat(scalar, start));
        }
        if self.eat_word("rand")? {
            self.expect('(')?;
            let seed = self.unsigned::<u64>("a seed")?;
            self.expect(',')?;
            let lo = self.finite()?;
            self.expect(',')?;
            let hi = self.finite()?;
            self.expect(')')?;
            return Ok(Literal::Rand { seed, lo, hi });
        }
        self.expected("contents: `[…]`, `splat(v)`, `rand(seed, lo, hi)` or `@blob(\"…\")`")
    }

    fn finite(&mut self) -> Result<f64> {
        let (scalar, start) = self.scalar()?;
        scalar.to_f64().ok_or_else(|| self.element_error(&scalar, DType::F64, start))
    }

    fn element_error(&self, scalar: &Scalar<'_>, dtype: DType, start: usize) -> ParseError {
        let (text, dtype) = (scalar.describe(), dtype.to_string());
        self.error(start, ParseErrorKind::Element { text, dtype })
    }

    /// The tensor of this type with these contents. `start` is where the constant is written.
    pub(super) fn tensor(&mut self, ty: &ValueType, literal: Literal<'a>, start: usize) -> Result<Tensor> {
        let symbolic = || ParseErrorKind::SymbolicConstant(ty.to_string());
        let shape = ty.static_shape().ok_or_else(|| self.error(start, symbolic()))?;
        let dtype = ty.dtype;
        let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        let limit = ParseErrorKind::Limit { what: "elements in a constant", limit: usize::MAX };
        let len = len.ok_or_else(|| self.error(start, limit))?;
        let len = if shape.contains(&0) { 0 } else { len };
        match literal {
            Literal::List(elements) => {
                if elements.len() != len {
                    let (ty, actual) = (ty.to_string(), elements.len());
                    let kind = ParseErrorKind::ElementCount { ty, expected: len, actual };
                    return Err(self.error(start, kind));
                }
                self.encode(dtype, &shape, elements)
            }
            Literal::Splat(scalar, at) => {
                self.count_generated(len, start)?;
                if let (Scalar::Text(text), DType::String) = (&scalar, dtype) {
                    return Ok(Tensor::from_strings(&shape, vec![text.clone(); len]));
                }
                let element = scalar.encode(dtype).ok_or_else(|| self.element_error(&scalar, dtype, at))?;
                Ok(Tensor::from_raw(dtype, &shape, element.repeat(len)))
            }
            Literal::Rand { seed, lo, hi } => {
                self.count_generated(len, start)?;
                random_tensor(dtype, &shape, seed, lo, hi)
                    .map_err(|reason| self.error(start, ParseErrorKind::Rand(reason)))
            }
            Literal::Blob(hash) => self.blob(dtype, &shape, hash, start),
        }
    }

    fn count_generated(&mut self, len: usize, start: usize) -> Result<()> {
        self.generated = self.generated.saturating_add(len);
        if self.generated > MAX_GENERATED {
            let (what, limit) = ("elements made by splat and rand", MAX_GENERATED);
            return Err(self.error(start, ParseErrorKind::Limit { what, limit }));
        }
        Ok(())
    }

    fn encode(&self, dtype: DType, shape: &[usize], elements: Vec<(Scalar<'a>, usize)>) -> Result<Tensor> {
        if dtype == DType::String {
            let texts = elements.into_iter().map(|(scalar, at)| match scalar {
                Scalar::Text(text) => Ok(text),
                other => Err(self.element_error(&other, dtype, at)),
            });
            return Ok(Tensor::from_strings(shape, texts.collect::<Result<_>>()?));
        }
        let mut bytes = Vec::with_capacity(elements.len() * dtype.size_bytes());
        for (scalar, at) in elements {
            let element = scalar.encode(dtype).ok_or_else(|| self.element_error(&scalar, dtype, at))?;
            bytes.extend(element);
        }
        Ok(Tensor::from_raw(dtype, shape, bytes))
    }

    fn blob(&self, dtype: DType, shape: &[usize], hash: String, start: usize) -> Result<Tensor> {
        let Some(bytes) = self.blobs.get(&hash) else {
            return Err(self.error(start, ParseErrorKind::BlobMissing(hash)));
        };
        let actual = hash_bytes(&bytes);
        if actual != hash {
            let reason = format!("the store gives contents with the hash {actual:?}");
            return Err(self.error(start, ParseErrorKind::BlobWrong { hash, reason }));
        }
        Tensor::from_bytes(dtype, shape, bytes)
            .map_err(|error| self.error(start, ParseErrorKind::BlobWrong { hash, reason: error.to_string() }))
    }

    /// `{name=value, …}`.
    pub(super) fn attrs(&mut self) -> Result<Attrs> {
        let mut attrs = Attrs::new();
        let entries = self.list('}', |cursor| {
            let start = cursor.start;
            let name = cursor.word("the name of an attribute")?;
            cursor.expect('=')?;
            Ok((name, cursor.attr(name)?, start))
        })?;
        for (name, value, start) in entries {
            if attrs.get(name).is_some() {
                return Err(self.error(start, ParseErrorKind::DuplicateAttribute(name.to_owned())));
            }
            attrs.set(name, value);
        }
        Ok(attrs)
    }

    fn attr(&mut self, name: &str) -> Result<Attr> {
        let start = self.start;
        if self.eat('[')? {
            let items = self.list(']', Self::scalar)?;
            return self.attr_list(items);
        }
        if self.eat_word("floats")? {
            self.expect('[')?;
            return self.expect(']').map(|()| Attr::Floats(Vec::new()));
        }
        if self.eat_word("strs")? {
            self.expect('[')?;
            return self.expect(']').map(|()| Attr::Strs(Vec::new()));
        }
        if matches!(self.token, Token::Word(word) if word.parse::<DType>().is_ok()) {
            let ty = self.ty()?;
            let literal = self.literal()?;
            return self.tensor(&ty, literal, start).map(Attr::Tensor);
        }
        let (scalar, at) = self.scalar()?;
        let wrong = |dtype| self.element_error(&scalar, dtype, at);
        match &scalar {
            Scalar::Text(text) => Ok(Attr::Str(text.clone())),
            Scalar::Bool(_) => {
                let (expected, found) = (format!("0 or 1 for `{name}`"), scalar.describe());
                Err(self.error(at, ParseErrorKind::Expected { expected, found }))
            }
            Scalar::Number { .. } if scalar.is_float() => {
                scalar.to_f32().map(Attr::Float).ok_or_else(|| wrong(DType::F32))
            }
            Scalar::Number { .. } => scalar.to_i64().map(Attr::Int).ok_or_else(|| wrong(DType::I64)),
        }
    }

    /// A list is of the kind of its elements; one float makes all of them floats.
    fn attr_list(&self, items: Vec<(Scalar<'a>, usize)>) -> Result<Attr> {
        if items.iter().any(|(scalar, _)| matches!(scalar, Scalar::Text(_))) {
            let texts = items.into_iter().map(|(scalar, at)| match scalar {
                Scalar::Text(text) => Ok(text),
                other => Err(self.element_error(&other, DType::String, at)),
            });
            return texts.collect::<Result<_>>().map(Attr::Strs);
        }
        if items.iter().any(|(scalar, _)| scalar.is_float()) {
            let floats =
                items.iter().map(|(s, at)| s.to_f32().ok_or_else(|| self.element_error(s, DType::F32, *at)));
            return floats.collect::<Result<_>>().map(Attr::Floats);
        }
        let ints =
            items.iter().map(|(s, at)| s.to_i64().ok_or_else(|| self.element_error(s, DType::I64, *at)));
        ints.collect::<Result<_>>().map(Attr::Ints)
    }
}
