//! The text of a graph from pass to pass.

use rabot::ir::text::print;
use rabot::ir::{Graph, NodeId};
use rabot::rewrite::Step;
use similar::TextDiff;
use std::sync::Arc;

/// Lines around a change.
const CONTEXT: usize = 2;

/// Keeps the texts that are asked for.
pub(crate) struct Stages {
    print_after: Option<String>,
    diff: bool,
    /// Name and text of the graph before, with values by name; kept for differences.
    before: Option<(String, String)>,
    printed: String,
}

impl Stages {
    /// Prints the graph after the passes of this name (`changed`: those that changed something), and differences.
    pub(crate) fn new(print_after: Option<String>, diff: bool) -> Self {
        Stages { print_after, diff, before: None, printed: String::new() }
    }

    /// Sees the graph after a step.
    pub(crate) fn see(&mut self, step: Option<&Step>, graph: &Graph) {
        if let (Some(wanted), Some(step)) = (&self.print_after, step) {
            let name = step.pass.split('{').next().unwrap_or_default();
            let changed = wanted == "changed" && !step.report.applied.is_empty();
            if changed || wanted == name {
                self.printed.push_str(&format!("; after {}\n{}\n", step.pass, print(graph)));
            }
        }
        if self.diff {
            let name = step.map_or("import", |step| &step.pass);
            let now = by_name(graph);
            if let Some((before_name, before)) = &self.before
                && *before != now
            {
                let diff = TextDiff::from_lines(before, &now);
                let mut unified = diff.unified_diff();
                let unified = unified.context_radius(CONTEXT).header(before_name, name);
                self.printed.push_str(&format!("{unified}\n"));
            }
            self.before = Some((name.to_owned(), now));
        }
    }

    /// All that was asked for.
    pub(crate) fn into_text(self) -> String {
        self.printed
    }
}

/// The text of a graph with its values called by their names in the place of numbers, which change with every node that
/// comes or goes. Nested graphs, whose lines are indented, have numbers of their own and keep them.
fn by_name(graph: &Graph) -> String {
    let order = graph.topological().unwrap_or_default();
    let name = |id: &NodeId| graph.node(*id).outputs.first().map(|output| output.name.clone());
    let names: Vec<Option<Arc<str>>> = order.iter().map(name).collect();
    let mut lines = String::new();
    for line in print(graph).lines() {
        let renamed = if line.starts_with(' ') { line.to_owned() } else { renamed(line, &names) };
        lines.push_str(&renamed);
        lines.push('\n');
    }
    lines
}

/// A line with `%12` as `%name`.
fn renamed(line: &str, names: &[Option<Arc<str>>]) -> String {
    let mut found = String::with_capacity(line.len());
    let mut quoted = false;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        found.push(c);
        match c {
            '\\' if quoted => found.extend(rest.next()),
            '"' => quoted = !quoted,
            '%' if !quoted => {
                let mut number = String::new();
                while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                    number.push(digit);
                }
                let name = number.parse().ok().and_then(|at: usize| names.get(at).cloned().flatten());
                found.push_str(name.as_deref().unwrap_or(&number));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_names() {
        let text = "model \"m\" input %0 \"x\" : f32[4] %1 = Relu(%0) \"a\" %2 = Exp(%1) \"with %1\" output \"y\" = %2";
        let named = by_name(&rabot::ir::text::parse(text).unwrap());
        assert!(named.contains("%a = Relu(%x) : f32[4] \"a\""), "{named}");
        assert!(named.contains("%with %1 = Exp(%a) : f32[4] \"with %1\""), "{named}");
        assert!(named.contains("output \"y\" = %with %1"), "{named}");
    }
}
