//! Attributes: the form in which both the ONNX importer and the text parser hand over what an op needs.

use crate::ops::OpError;
use indexmap::IndexMap;
use rabot_tensor::Tensor;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// A 64-bit integer.
    Int(i64),
    /// A 32-bit float, as ONNX has it.
    Float(f32),
    /// A UTF-8 string.
    Str(String),
    /// A constant tensor.
    Tensor(Tensor),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of floats.
    Floats(Vec<f32>),
    /// A list of strings.
    Strs(Vec<String>),
}

/// Attributes by name, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attrs(IndexMap<String, Attr>);

impl Attrs {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an attribute; for building in a chain.
    pub fn with(mut self, name: &str, value: Attr) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &str, value: Attr) {
        self.0.insert(name.to_owned(), value);
    }

    /// Takes an attribute out.
    pub fn remove(&mut self, name: &str) -> Option<Attr> {
        self.0.shift_remove(name)
    }

    /// An attribute, if present.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.get(name)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attr)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An integer, or `default` where absent. **Errors**: another kind of value.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, OpError> {
        match self.get(name) {
            None => Ok(default),
            Some(Attr::Int(value)) => Ok(*value),
            Some(other) => Err(wrong(name, other, "an integer")),
        }
    }

    /// An integer that must be there. **Errors**: absent or another kind of value.
    pub fn required_int(&self, name: &str) -> Result<i64, OpError> {
        self.get(name).ok_or_else(|| OpError::MissingAttribute(name.to_owned()))?;
        self.int(name, 0)
    }

    /// A float, or `default` where absent. **Errors**: another kind of value.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, OpError> {
        match self.get(name) {
            None => Ok(default),
            Some(Attr::Float(value)) => Ok(*value),
            Some(Attr::Int(value)) => Ok(*value as f32),
            Some(other) => Err(wrong(name, other, "a float")),
        }
    }

    /// A string, or `default` where absent. **Errors**: another kind of value.
    pub fn str(&self, name: &str, default: &str) -> Result<String, OpError> {
        match self.get(name) {
            None => Ok(default.to_owned()),
            Some(Attr::Str(value)) => Ok(value.clone()),
            Some(other) => Err(wrong(name, other, "a string")),
        }
    }

    /// A list of integers, or `None` where absent. **Errors**: another kind of value.
    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, OpError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Ints(values)) => Ok(Some(values.clone())),
            Some(other) => Err(wrong(name, other, "a list of integers")),
        }
    }

    /// A list of floats, or `None` where absent. **Errors**: another kind of value.
    pub fn floats(&self, name: &str) -> Result<Option<Vec<f32>>, OpError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Floats(values)) => Ok(Some(values.clone())),
            Some(other) => Err(wrong(name, other, "a list of floats")),
        }
    }
}

impl FromIterator<(String, Attr)> for Attrs {
    fn from_iter<I: IntoIterator<Item = (String, Attr)>>(attrs: I) -> Self {
        Attrs(attrs.into_iter().collect())
    }
}

fn wrong(name: &str, value: &Attr, expected: &str) -> OpError {
    OpError::Attribute {
        name: name.to_owned(),
        value: format!("{value:?}"),
        reason: format!("expected {expected}"),
    }
}
