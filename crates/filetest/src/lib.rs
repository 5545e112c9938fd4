//! Golden files: `.rbt` text that starts with what is to be tested.
//!
//! | first lines | what is checked |
//! |---|---|
//! | `; test roundtrip` | the text without comment lines is what the printer gives back |
//! | `; test verify` | the verifier finds exactly the errors that are written as `; error: text`, on the line of the node or, for errors that have no node, on a line of its own; none written: the graph is valid |
//! | `; test run` | the interpreter and every backend give `; expect y = …` for `; input x = …`; an input after an expectation starts another case |
//! | `; test pass PIPELINE` | the graph after the pipeline is the expected text, and gives the same outputs within the exactness of its passes |
//! | `; test lower` | the kernels of the graph are the expected text |
//! | `; test error` | the text cannot be read, and the message is the expected text |
//!
//! Values are written as constants of the text are: `[1, 2] : i64[2]`, `rand(1, -1, 1) : f32[4,4]`.
//! Expected text stands at the end, after a line `; ---`, each line as a comment. `; dim n = 4` binds a symbol and
//! `; tolerance 1e-4` widens the comparison of floats, as a factor of the largest magnitude of the tensor.
//! `; refused TEXT` says that backends refuse the graph, with a message that contains the text.
//! `; set %3.0 = %5#1` and `; set output 0 = %2` edit the graph of a `verify` test, for what no text can say.
//!
//! With `RABOT_BLESS=1` in the environment, expected text that differs is rewritten; numbers never are.

#![forbid(unsafe_code)]

mod commands;
mod compare;
mod file;

pub use compare::difference;

use file::{Command, GoldenFile};
use rabot_ir::Graph;
use rabot_ir::interp::Tensors;
use rabot_rewrite::Exactness;
use std::fmt;
use std::path::{Path, PathBuf};

/// Most lines of a golden file: one that is longer is about more than one thing.
pub const MAX_LINES: usize = 150;

/// The command that rewrites expected texts.
pub const BLESS_COMMAND: &str = "RABOT_BLESS=1 cargo test -p rabot-tests golden";

/// Something that evaluates graphs: compiled code, in some configuration.
pub trait Backend {
    /// Evaluates the graph.
    ///
    /// **Errors**: it cannot be compiled or run, in words.
    fn run(&self, graph: &Graph, inputs: &Tensors) -> Result<Tensors, String>;
}

/// What a pipeline did to a graph.
#[derive(Clone, Debug)]
pub struct PassOutcome {
    /// The least exact of its passes.
    pub exactness: Exactness,
    /// What is to be compared besides the graph: what was skipped and why, say. May be empty.
    pub report: String,
}

/// Something that runs pipelines of passes.
pub trait Passes {
    /// Applies a pipeline, given as text.
    ///
    /// **Errors**: the text is no pipeline, or a pass fails, in words.
    fn apply(&self, pipeline: &str, graph: &mut Graph) -> Result<PassOutcome, String>;
}

/// Something that lists the kernels of a graph.
pub trait Lower {
    /// The kernels as text that does not depend on the machine.
    ///
    /// **Errors**: the graph cannot be lowered, in words.
    fn lower(&self, graph: &Graph) -> Result<String, String>;
}

/// What golden files are tested with. What is absent is skipped, and said so.
#[derive(Default)]
pub struct Backends<'a> {
    /// Evaluators with a name each, beside the interpreter.
    pub compiled: Vec<(&'a str, &'a dyn Backend)>,
    /// For `test pass`.
    pub passes: Option<&'a dyn Passes>,
    /// For `test lower`.
    pub lower: Option<&'a dyn Lower>,
}

impl fmt::Debug for Backends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.compiled.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Backends")
            .field("compiled", &names)
            .field("passes", &self.passes.is_some())
            .field("lower", &self.lower.is_some())
            .finish()
    }
}

/// How one test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not run, for this reason.
    Skipped(String),
    /// Not as expected: what differs, and how to accept it.
    Failed(String),
    /// The expected text was rewritten.
    Blessed,
}

/// One `; test` line of one file, and how it went.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The file.
    pub path: PathBuf,
    /// The command, as written.
    pub command: String,
    /// How it went.
    pub outcome: Outcome,
}

impl fmt::Display for CaseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.path.display(), self.command)?;
        match &self.outcome {
            Outcome::Passed => write!(f, "ok"),
            Outcome::Blessed => write!(f, "blessed"),
            Outcome::Skipped(reason) => write!(f, "skipped: {reason}"),
            Outcome::Failed(message) => write!(f, "FAILED\n{message}"),
        }
    }
}

/// Runs every `.rbt` file below a folder, in order of their paths; blesses if `RABOT_BLESS=1`.
pub fn run_dir(dir: &Path, backends: &Backends<'_>) -> Vec<CaseResult> {
    let bless = std::env::var("RABOT_BLESS").is_ok_and(|value| value == "1");
    let mut paths = Vec::new();
    let mut results = Vec::new();
    if let Err(error) = collect(dir, &mut paths) {
        results.push(failed(dir, "read", format!("cannot read the folder: {error}")));
    }
    paths.sort();
    results.extend(paths.iter().flat_map(|path| run_file(path, backends, bless)));
    results
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|e| e == "rbt") {
            paths.push(path);
        }
    }
    Ok(())
}

fn failed(path: &Path, command: &str, message: String) -> CaseResult {
    let outcome = Outcome::Failed(message);
    CaseResult { path: path.to_owned(), command: command.to_owned(), outcome }
}

/// Runs the tests of one file.
pub fn run_file(path: &Path, backends: &Backends<'_>, bless: bool) -> Vec<CaseResult> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return vec![failed(path, "read", format!("cannot read the file: {error}"))],
    };
    let file = match GoldenFile::parse(&text) {
        Ok(file) => file,
        Err(error) => return vec![failed(path, "read", error.to_string())],
    };
    let case = |command: &Command| {
        let outcome = match commands::run(&file, command, backends) {
            commands::Checked::Passed => Outcome::Passed,
            commands::Checked::Skipped(reason) => Outcome::Skipped(reason),
            commands::Checked::Failed(message) => Outcome::Failed(message),
            commands::Checked::Differs { rewritten: Some(text), .. } if bless => {
                match std::fs::write(path, text) {
                    Ok(()) => Outcome::Blessed,
                    Err(error) => Outcome::Failed(format!("cannot write the file: {error}")),
                }
            }
            commands::Checked::Differs { diff, .. } => {
                Outcome::Failed(format!("{diff}\nif the new text is right: {BLESS_COMMAND}"))
            }
        };
        CaseResult { path: path.to_owned(), command: command.to_string(), outcome }
    };
    file.commands.iter().map(case).collect()
}

#[cfg(test)]
mod tests;
