//! Lists of cases that are known not to pass.

use super::Failure;
use std::collections::BTreeSet;
use std::path::Path;

/// Names that are on the list and have not been met yet.
#[derive(Debug, Default)]
pub(super) struct Allowed(BTreeSet<String>);

impl Allowed {
    /// Reads a list: a name, a tab and the reason on each line; empty lines and those that begin with `#` are left out.
    ///
    /// **Errors**: the file cannot be read, a line has no reason, or a name is there twice.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let about = |message: String| Failure::new(format!("`{}`: {message}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| about(error.to_string()))?;
        Self::parse(&text).map_err(about)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut names = BTreeSet::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, reason) = line.split_once('\t').unwrap_or((line, ""));
            if reason.trim().is_empty() {
                return Err(format!("line {}: expected a name, a tab and the reason", number + 1));
            }
            if !names.insert(name.to_owned()) {
                return Err(format!("line {}: `{name}` is listed twice", number + 1));
            }
        }
        Ok(Allowed(names))
    }

    /// True if the name is on the list; it is taken off it.
    pub(super) fn take(&mut self, name: &str) -> bool {
        self.0.remove(name)
    }

    /// The names that have not been taken off.
    pub(super) fn left(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let mut list = Allowed::parse("# why\n\nnode/a\tdraws numbers\nnode/b\tno such op\n").unwrap();
        assert!(list.take("node/a"));
        assert!(!list.take("node/c"));
        assert_eq!(list.left().collect::<Vec<_>>(), ["node/b"]);
        assert!(Allowed::parse("node/a\n").unwrap_err().contains("line 1"));
        assert!(Allowed::parse("a\tx\na\ty\n").unwrap_err().contains("twice"));
    }
}
