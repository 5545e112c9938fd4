//! The parts of a golden file: what to test, on what values, and what to expect.

use crate::MAX_LINES;
use rabot_ir::interp::Tensors;
use rabot_ir::{Op, text};
use rabot_tensor::Tensor;
use std::collections::HashMap;
use std::fmt;

/// The line before the expected text.
const SEPARATOR: &str = "; ---";

/// A golden file that does not say clearly what it wants.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error(
        "line {line}: {text:?} is no test; known are roundtrip, verify, run, pass PIPELINE, lower, error"
    )]
    UnknownTest { line: usize, text: String },
    #[error("line {line}: cannot read {text:?}: {reason}")]
    Directive { line: usize, text: String, reason: String },
    #[error("the file has no `; test` line")]
    NoTest,
    #[error("the file has {0} lines, at most {MAX_LINES} are allowed: split it")]
    TooLong(usize),
    #[error("the file has several tests with expected text")]
    SeveralExpectations,
}

/// What a `; test` line asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Roundtrip,
    Verify,
    Run,
    Pass(String),
    Lower,
    Error,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Roundtrip => write!(f, "test roundtrip"),
            Command::Verify => write!(f, "test verify"),
            Command::Run => write!(f, "test run"),
            Command::Pass(pipeline) => write!(f, "test pass {pipeline}"),
            Command::Lower => write!(f, "test lower"),
            Command::Error => write!(f, "test error"),
        }
    }
}

/// Inputs and the outputs expected for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunCase {
    pub(crate) line: usize,
    pub(crate) inputs: Tensors,
    pub(crate) expected: Tensors,
}

/// `; error: text` and whether it stands on the line of a statement.
#[derive(Clone, Debug)]
pub(crate) struct ExpectedError {
    pub(crate) line: usize,
    pub(crate) on_statement: bool,
    pub(crate) text: String,
}

/// What a `; set` line changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Operand { node: u32, slot: usize },
    Output(usize),
}

/// `; set %3.0 = %5#1` or `; set output 0 = %5#1`.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) target: Target,
    pub(crate) node: u32,
    pub(crate) slot: u32,
}

/// A golden file in its parts.
#[derive(Debug)]
pub(crate) struct GoldenFile {
    /// Everything before the expected text: what the parser reads.
    pub(crate) text: String,
    pub(crate) commands: Vec<Command>,
    pub(crate) cases: Vec<RunCase>,
    pub(crate) errors: Vec<ExpectedError>,
    pub(crate) edits: Vec<Edit>,
    pub(crate) dims: HashMap<String, usize>,
    pub(crate) tolerance: Option<f64>,
    /// Part of the message with which backends refuse the graph.
    pub(crate) refused: Option<String>,
    /// The expected text, without the comment signs.
    pub(crate) expected: String,
}

impl GoldenFile {
    pub(crate) fn parse(text: &str) -> Result<Self, FileError> {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            return Err(FileError::TooLong(lines));
        }
        let separator = text.lines().position(|line| line == SEPARATOR);
        let body: Vec<&str> = text.lines().take(separator.unwrap_or(usize::MAX)).collect();
        let after = separator.map_or(usize::MAX, |at| at + 1);
        let expected = text.lines().skip(after).map(|line| {
            let bare = line.strip_prefix("; ").or_else(|| line.strip_prefix(';'));
            format!("{}\n", bare.unwrap_or(line))
        });
        let mut file = GoldenFile {
            text: body.iter().map(|line| format!("{line}\n")).collect(),
            commands: Vec::new(),
            cases: Vec::new(),
            errors: Vec::new(),
            edits: Vec::new(),
            dims: HashMap::new(),
            tolerance: None,
            refused: None,
            expected: expected.collect(),
        };
        for (index, line) in body.iter().enumerate() {
            file.line(index + 1, line)?;
        }
        let with_text = |c: &&Command| matches!(c, Command::Pass(_) | Command::Lower | Command::Error);
        if file.commands.is_empty() {
            return Err(FileError::NoTest);
        }
        if file.commands.iter().filter(with_text).count() > 1 {
            return Err(FileError::SeveralExpectations);
        }
        Ok(file)
    }

    /// Reads what a line says to the tester, if anything.
    fn line(&mut self, number: usize, line: &str) -> Result<(), FileError> {
        let mut parts = line.split("; error: ");
        let on_statement = parts.next().is_some_and(|statement| !statement.trim().is_empty());
        let errors =
            parts.map(|text| ExpectedError { line: number, on_statement, text: text.trim().to_owned() });
        let before = self.errors.len();
        self.errors.extend(errors);
        if self.errors.len() > before {
            return Ok(());
        }
        let Some((word, rest)) = line.strip_prefix("; ").and_then(|l| l.split_once(' ')) else {
            return Ok(());
        };
        let wrong = |reason: String| FileError::Directive { line: number, text: line.to_owned(), reason };
        match word {
            "test" => {
                let unknown = FileError::UnknownTest { line: number, text: rest.to_owned() };
                self.commands.push(command(rest).ok_or(unknown)?);
            }
            "input" => {
                let (name, tensor) = binding(rest).map_err(wrong)?;
                if self.cases.last().is_none_or(|case| !case.expected.is_empty()) {
                    self.cases.push(RunCase { line: number, ..RunCase::default() });
                }
                if let Some(case) = self.cases.last_mut() {
                    case.inputs.insert(name, tensor);
                }
            }
            "expect" => {
                let (name, tensor) = binding(rest).map_err(wrong)?;
                if self.cases.is_empty() {
                    self.cases.push(RunCase { line: number, ..RunCase::default() });
                }
                if let Some(case) = self.cases.last_mut() {
                    case.expected.insert(name, tensor);
                }
            }
            "dim" => {
                let parts = rest.split_once(" = ").and_then(|(n, v)| Some((n, v.parse().ok()?)));
                let (name, value) = parts.ok_or_else(|| wrong("expected `; dim NAME = SIZE`".to_owned()))?;
                self.dims.insert(name.to_owned(), value);
            }
            "tolerance" => {
                let value = rest.parse().map_err(|_| wrong("expected a number".to_owned()))?;
                self.tolerance = Some(value);
            }
            "refused" => self.refused = Some(rest.trim().to_owned()),
            "set" => {
                let reason = "expected `; set %3.0 = %5#1` or `; set output 0 = %5#1`".to_owned();
                self.edits.push(edit(rest).ok_or_else(|| wrong(reason))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The file with another expected text.
    pub(crate) fn with_expected(&self, expected: &str) -> String {
        let comments = expected.lines().map(|line| {
            let space = if line.is_empty() { "" } else { " " };
            format!(";{space}{line}\n")
        });
        format!("{}{SEPARATOR}\n{}", self.text, comments.collect::<String>())
    }

    /// The text without its comment lines.
    pub(crate) fn bare_text(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.starts_with(';'));
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// The file with another graph under its first comment lines; `None` if there are comments further down, which
    /// would be lost.
    pub(crate) fn with_bare_text(&self, text: &str) -> Option<String> {
        let header: Vec<&str> = self.text.lines().take_while(|line| line.starts_with(';')).collect();
        let others = self.text.lines().skip(header.len()).any(|line| line.starts_with(';'));
        (!others && self.expected.is_empty())
            .then(|| header.iter().map(|line| format!("{line}\n")).chain([text.to_owned()]).collect())
    }
}

fn command(text: &str) -> Option<Command> {
    match text.split_once(' ') {
        None => match text {
            "roundtrip" => Some(Command::Roundtrip),
            "verify" => Some(Command::Verify),
            "run" => Some(Command::Run),
            "lower" => Some(Command::Lower),
            "error" => Some(Command::Error),
            _ => None,
        },
        Some(("pass", pipeline)) => Some(Command::Pass(pipeline.trim().to_owned())),
        Some(_) => None,
    }
}

/// `x = [1, 2] : f32[2]`.
fn binding(text: &str) -> Result<(String, Tensor), String> {
    let (name, literal) = text.split_once(" = ").ok_or("expected NAME = CONTENTS : TYPE")?;
    let graph = text::parse(&format!("model \"\"\n%0 = Constant {literal}\n")).map_err(|e| e.to_string())?;
    let constant = graph.node_ids().find_map(|id| match &graph.node(id).op {
        Op::Constant(tensor) => Some(tensor.clone()),
        _ => None,
    });
    constant.map(|tensor| (name.to_owned(), tensor)).ok_or_else(|| "no constant".to_owned())
}

fn edit(text: &str) -> Option<Edit> {
    let (target, value) = text.split_once(" = ")?;
    let (node, slot) = value.split_once('#').unwrap_or((value, "0"));
    let target = match target.strip_prefix("output ") {
        Some(index) => Target::Output(index.parse().ok()?),
        None => {
            let (node, slot) = target.strip_prefix('%')?.split_once('.')?;
            Target::Operand { node: node.parse().ok()?, slot: slot.parse().ok()? }
        }
    };
    Some(Edit { target, node: node.strip_prefix('%')?.parse().ok()?, slot: slot.parse().ok()? })
}
