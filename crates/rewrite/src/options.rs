//! Options of passes, as text: `{sparsity=0.8,pattern=2:4}`.

use indexmap::IndexMap;
use std::str::FromStr;

/// An option a pass takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionInfo {
    /// Name: `sparsity`.
    pub name: &'static str,
    /// Value where it is not given, as text.
    pub default: &'static str,
    /// What it means and which values it takes, in one line.
    pub summary: &'static str,
}

/// An option cannot be used as given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The pass has no such option.
    #[error("pass `{pass}` has no option `{option}`; it takes {known}")]
    Unknown {
        /// Name of the pass.
        pass: String,
        /// The name given.
        option: String,
        /// The names there are.
        known: String,
    },
    /// An option was given twice.
    #[error("pass `{pass}`: option `{option}` is given twice")]
    Duplicate {
        /// Name of the pass.
        pass: String,
        /// Name of the option.
        option: String,
    },
    /// The value is not one the option takes.
    #[error("pass `{pass}`: {option}={value}: {expected}")]
    Value {
        /// Name of the pass.
        pass: String,
        /// Name of the option.
        option: String,
        /// The value given.
        value: String,
        /// What the option takes: its summary.
        expected: String,
    },
}

/// The options of one pass in a pipeline: those given, and defaults for the rest.
#[derive(Clone, Debug)]
pub struct Options {
    pass: String,
    known: &'static [OptionInfo],
    given: IndexMap<String, String>,
}

impl Options {
    /// All defaults.
    pub fn new(pass: &str, known: &'static [OptionInfo]) -> Self {
        Options { pass: pass.to_owned(), known, given: IndexMap::new() }
    }

    /// Sets an option.
    ///
    /// **Errors**: the pass has no such option, or it is set already.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        if !self.known.iter().any(|info| info.name == name) {
            let names: Vec<&str> = self.known.iter().map(|info| info.name).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(OptionError::Unknown { pass: self.pass.clone(), option: name.to_owned(), known });
        }
        match self.given.insert(name.to_owned(), value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(OptionError::Duplicate { pass: self.pass.clone(), option: name.to_owned() }),
        }
    }

    /// The text of an option; its default where it was not given, empty if the pass declares no such option.
    pub fn text(&self, name: &str) -> &str {
        let default = self.known.iter().find(|info| info.name == name).map_or("", |info| info.default);
        self.given.get(name).map_or(default, String::as_str)
    }

    /// The value of an option.
    ///
    /// **Errors**: the text is no `T`.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<T, OptionError> {
        self.text(name).parse().map_err(|_| self.refuse(name))
    }

    /// The value of an option, if `accept` takes it.
    ///
    /// **Errors**: the text is no `T`, or `accept` says no.
    pub fn get_if<T: FromStr>(&self, name: &str, accept: impl Fn(&T) -> bool) -> Result<T, OptionError> {
        self.get(name).and_then(|value| if accept(&value) { Ok(value) } else { Err(self.refuse(name)) })
    }

    /// The error that says what an option takes.
    pub fn refuse(&self, name: &str) -> OptionError {
        let info = self.known.iter().find(|info| info.name == name);
        OptionError::Value {
            pass: self.pass.clone(),
            option: name.to_owned(),
            value: self.text(name).to_owned(),
            expected: info.map_or("no such option", |info| info.summary).to_owned(),
        }
    }
}

/// Options as pipelines spell them, defaults left out: `{sparsity=0.8}`, or nothing.
pub fn print_options(known: &[OptionInfo], values: &[(&str, String)]) -> String {
    let is_default = |name: &str, value: &str| known.iter().any(|i| i.name == name && i.default == value);
    let given = values.iter().filter(|(name, value)| !is_default(name, value));
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}
