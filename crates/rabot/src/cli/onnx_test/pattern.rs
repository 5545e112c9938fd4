//! Which names are meant.

/// Text that is in a name, or, if it has `*` or `?`, the form of the whole name or of its last part.
#[derive(Debug)]
pub(super) struct Pattern(Vec<char>);

impl Pattern {
    /// The pattern of this text.
    pub(super) fn new(text: &str) -> Self {
        Pattern(text.chars().collect())
    }

    /// True if the name is meant.
    pub(super) fn matches(&self, name: &str) -> bool {
        if !self.0.iter().any(|c| matches!(c, '*' | '?')) {
            return name.contains(&self.0.iter().collect::<String>());
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        self.is_form_of(name) || self.is_form_of(last)
    }

    /// Rows of a table: which beginnings of the pattern are forms of the beginning of the name read so far.
    fn is_form_of(&self, name: &str) -> bool {
        let mut row = vec![true];
        for &c in &self.0 {
            row.push(c == '*' && row.last() == Some(&true));
        }
        for letter in name.chars() {
            let mut next = vec![false];
            for (at, &c) in self.0.iter().enumerate() {
                let (here, above) = (row.get(at) == Some(&true), row.get(at + 1) == Some(&true));
                next.push(match c {
                    '*' => above || next.last() == Some(&true),
                    '?' => here,
                    c => here && c == letter,
                });
            }
            row = next;
        }
        row.last() == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let matches = |pattern: &str, name: &str| Pattern::new(pattern).matches(name);
        assert!(matches("abs", "node/test_abs"));
        assert!(!matches("abs", "node/test_add"));
        assert!(matches("test_a*", "node/test_abs"));
        assert!(matches("node/*s", "node/test_abs"));
        assert!(matches("test_a??", "test_abs"));
        assert!(!matches("test_a?", "test_abs"));
        assert!(!matches("abs*", "node/test_abs"));
        assert!(matches("*", ""));
    }
}
