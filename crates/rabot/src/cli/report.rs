//! `rabot report`: pages that hold what passes did, and several of them in one.

use super::{Failure, Status, output};
use clap::{Args, ValueHint};
use rabot::Tensors;
use rabot::ir::Graph;
use rabot::rewrite::Step;
use rabot_debug::report::{About, MAX_RUNS, Recorder, ReportData, VERSION, data_of, page};
use rabot_debug::{DebugError, Trace, TraceOptions};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const AFTER: &str = "A run is a page of `rabot debug --html`, or the output of `rabot debug --json`, which has no graphs. A page
also takes further runs by itself: drop their files on it.

Examples:
  rabot debug model.onnx --random 1 --html before.html
  rabot report before.html after.html --html both.html";

/// Put up to four runs of `rabot debug` into one page, to compare them
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct ReportArgs {
    /// Runs: pages of `rabot debug --html`, or outputs of `rabot debug --json`
    #[arg(value_name = "RUN", required = true, value_hint = ValueHint::FilePath)]
    runs: Vec<PathBuf>,

    /// The page to write
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath)]
    html: PathBuf,
}

/// Writes the page.
///
/// **Errors**: a file is no run, there are too many, or the page cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Result<Status, Failure> {
    let mut runs = Vec::new();
    for path in &args.runs {
        runs.extend(runs_of(path)?);
    }
    if runs.len() > MAX_RUNS {
        return Err(Failure::new(format!("{} runs are given; a page shows {MAX_RUNS}", runs.len())));
    }
    let json = serde_json::to_string(&serde_json::json!({ "version": VERSION, "runs": runs }))?;
    output::write_bytes(&args.html, page(&json).as_bytes())?;
    Ok(Status::Done)
}

/// What `rabot debug --html` keeps of each graph; nothing if no page is asked for.
pub(crate) struct Recording<'a> {
    page: Option<(&'a Path, Recorder)>,
    inputs: &'a Tensors,
    outcome: Result<(), DebugError>,
}

impl<'a> Recording<'a> {
    /// For a page, if there is to be one.
    pub fn new(page: Option<&'a Path>, inputs: &'a Tensors) -> Self {
        Recording { page: page.map(|path| (path, Recorder::new(inputs))), inputs, outcome: Ok(()) }
    }

    /// Sees the graph after a step.
    pub fn see(&mut self, step: Option<&Step>, graph: &Graph) {
        if let (Some((_, recorder)), Ok(())) = (&mut self.page, &self.outcome) {
            self.outcome = recorder.visit(step, graph);
        }
    }

    /// Writes the page.
    ///
    /// **Errors**: a graph could not be evaluated, the last one cannot be compiled, or the page not be written.
    pub fn write(
        self,
        trace: &Trace,
        model: &str,
        pipeline: &str,
        options: &TraceOptions,
    ) -> Result<(), Failure> {
        self.outcome?;
        let Some((path, recorder)) = self.page else { return Ok(()) };
        let about = About { model: model.to_owned(), pipeline: pipeline.to_owned() };
        let run = recorder.finish(trace, about, options, self.inputs)?;
        let json = serde_json::to_string(&ReportData { version: VERSION, runs: vec![run] })?;
        output::write_bytes(path, page(&json).as_bytes())
    }
}

/// The runs in a file.
fn runs_of(path: &Path) -> Result<Vec<Value>, Failure> {
    let about = |reason: String| {
        let failure = Failure::new(format!("`{}` is no run: {reason}", path.display()));
        failure.with_help("make one with `rabot debug MODEL --html FILE`")
    };
    let text = fs::read_to_string(path).map_err(|error| about(error.to_string()))?;
    let json = data_of(&text).unwrap_or(&text);
    let data: Value =
        serde_json::from_str(json).map_err(|error| about(format!("it is no JSON ({error})")))?;
    if data.get("trace").is_some_and(Value::is_object) {
        return Ok(vec![data]);
    }
    match data.get("version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => return Err(about(format!("its version is {version}, this is {VERSION}"))),
        None => return Err(about("it has neither `trace` nor `version`".to_owned())),
    }
    let runs = data.get("runs").and_then(Value::as_array).cloned().unwrap_or_default();
    if runs.is_empty() {
        return Err(about("there are no runs in it".to_owned()));
    }
    Ok(runs)
}
