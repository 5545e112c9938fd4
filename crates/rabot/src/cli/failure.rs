//! Failures: one message, and how to go on.

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, ThemeCharacters, ThemeStyles};
use rabot::codegen::CodegenError;
use rabot::ir::interp::InterpError;
use rabot::onnx::{ExportError, ImportError};
use rabot::rewrite::PipelineError;
use rabot::{Error, RunError, TargetError};
use std::error::Error as StdError;
use std::fmt;
use std::io::{IsTerminal, Write};

/// Why a verb could not do its work: exit code 2.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    help: Option<String>,
}

impl Failure {
    /// A failure with this message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), help: None }
    }

    /// The same with a way out, which replaces one that is there.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, with what it is about in front, unless the message names it anyway.
    pub(crate) fn about(mut self, what: &str) -> Self {
        if !self.message.contains(what) {
            self.message = format!("{what}: {}", self.message);
        }
        self
    }

    /// Writes it to standard error. Nobody can be told where that fails.
    pub(crate) fn show(&self) {
        let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let text = self.render(color);
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn render(&self, color: bool) -> String {
        let styles = if color { ThemeStyles::ansi() } else { ThemeStyles::none() };
        let characters =
            ThemeCharacters { error: "error:".to_owned(), vbar: ' ', ..ThemeCharacters::unicode() };
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme { characters, styles });
        let handler = handler.with_wrap_lines(false).without_cause_chain().with_urls(false);
        let mut text = String::new();
        if handler.render_report(&mut text, &Shown(self)).is_err() {
            text = format!("error: {}\n", self.message);
        }
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        // The handler indents everything by two.
        lines.map(|line| line.replacen("  ", "", 1) + "\n").collect()
    }
}

/// A failure as miette sees it.
struct Shown<'a>(&'a Failure);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display + 'a>)
    }
}

impl<E: StdError + 'static> From<E> for Failure {
    /// The chain of the error's causes, each once, and the way out that is known for it.
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut help = help_for(&error);
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            help = help.or_else(|| help_for(inner));
            cause = inner.source();
        }
        Failure { message, help: help.map(str::to_owned) }
    }
}

const INPUTS: &str = "`rabot inspect MODEL` lists the inputs with their dtypes and shapes";
const PASSES: &str = "`rabot passes` lists the passes and their options";

/// Where values that are no tensors cannot go.
const FORMS: &str =
    "npz files hold tensors only; `rabot onnx-test` compares sequences, maps and optional values";

/// The way out of an error, where there is one.
fn help_for(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return match error {
            Error::Target(inner) => Some(target_help(inner)),
            Error::Pipeline(_) => Some(PASSES),
            Error::UnknownDim { .. } => Some("`rabot inspect MODEL` lists the symbolic dims"),
            Error::Import(inner) => import_help(inner),
            Error::Run(inner) => run_help(inner),
            Error::Codegen(CodegenError::NotHere(inner)) => Some(target_help(inner)),
            Error::Codegen(CodegenError::Symbolic { .. }) => Some("give every dim a size with --dim"),
            Error::Export(inner) => export_help(inner),
            Error::Reproducible { .. } => {
                Some("`rabot reduce` makes it smaller; please report it with that file")
            }
            Error::Snapshot { .. } => None,
            Error::NoRewrite { .. } => None,
            Error::Plan(_) | Error::Codegen(_) | Error::Graph(_) | Error::Pass(_) => None,
        };
    }
    if let Some(error) = error.downcast_ref::<RunError>() {
        return run_help(error);
    }
    if let Some(error) = error.downcast_ref::<TargetError>() {
        return Some(target_help(error));
    }
    if error.is::<PipelineError>() {
        return Some(PASSES);
    }
    match error.downcast_ref::<InterpError>() {
        Some(
            InterpError::MissingInput { .. }
            | InterpError::UnknownInput { .. }
            | InterpError::InputType { .. }
            | InterpError::InputForm { .. },
        ) => Some(INPUTS),
        Some(InterpError::OutputForm { .. }) => Some(FORMS),
        Some(InterpError::Op { .. } | InterpError::Graph(_)) | None => None,
    }
}

fn export_help(error: &ExportError) -> Option<&'static str> {
    match error {
        ExportError::Node { lowest: Some(_), .. } => {
            Some("without --opset, the lowest operator set that can say all of the model is taken")
        }
        ExportError::Node { .. } => {
            Some("`--pipeline ''` writes the model as it was imported, without passes")
        }
        ExportError::TooLarge { .. } => {
            Some("a smaller --external-data BYTES puts more into the file of weights")
        }
        ExportError::Opset { .. }
        | ExportError::Duplicate { .. }
        | ExportError::Location(_)
        | ExportError::Write { .. }
        | ExportError::Graph(_) => None,
    }
}

fn target_help(error: &TargetError) -> &'static str {
    match error {
        TargetError::Arch { .. } | TargetError::Missing { .. } => {
            "`rabot compile --emit obj` makes code for other machines; `rabot targets` says which targets run here"
        }
        TargetError::Unknown { .. } | TargetError::Parse { .. } | TargetError::Host(_) => {
            "`rabot targets` lists the targets and which of them run here"
        }
    }
}

fn import_help(error: &ImportError) -> Option<&'static str> {
    match error {
        ImportError::Read { .. } => Some("MODEL is the path of an ONNX file"),
        ImportError::Wire { .. } | ImportError::Decode(_) | ImportError::NoGraph => {
            Some("a model kept with Git LFS is a small text file until `git lfs pull` fetches it")
        }
        ImportError::Unsupported(_) => Some("`rabot ops` lists the operators that are supported"),
        _ => None,
    }
}

fn run_help(error: &RunError) -> Option<&'static str> {
    match error {
        RunError::MissingInput { .. }
        | RunError::UnknownInput { .. }
        | RunError::InputType { .. }
        | RunError::InputForm { .. } => Some(INPUTS),
        RunError::OutputForm { .. } => Some(FORMS),
        RunError::Size(_) | RunError::Memory { .. } | RunError::Budget { .. } => {
            Some("the dims of the inputs are too small or too large; --dim NAME=SIZE changes made-up ones")
        }
        RunError::Dims { .. } | RunError::Data { .. } | RunError::Host { .. } | RunError::Thread(_) => None,
    }
}

/// Text in the quotes that messages use.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("disk on fire");
        let failure = Failure::from(std::io::Error::other(inner)).with_help("pour water").about("x.npz");
        assert_eq!(failure.render(false), "error: x.npz: disk on fire\nhelp: pour water\n");
    }

    #[test]
    fn lists_stay_lists() {
        let text = Failure::new("2 nodes:\n  Foo `a`\n  Foo `b`").render(false);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.starts_with("error: 2 nodes:\n"), "{text}");
    }
}
