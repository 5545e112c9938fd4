//! `rabot reduce`: the smallest model that still fails.

use super::args::ModelArgs;
use super::inputs::InputArgs;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::{Args, ValueHint};
use rabot::ir::text::print;
use rabot::onnx::{ExportOptions, Model};
use rabot::{Options, Profile, snapshot};
use rabot_debug::bisect::Expression;
use rabot_debug::reduce::{Case, Demands, Effort, Reduced, failure_of, reduce};
use std::path::{Path, PathBuf};
use std::time::Duration;

const AFTER: &str = "A model fails if a pass panics, leaves an invalid graph or moves outputs further than it promises, if it cannot
be compiled, or if compiled outputs are off by more than rounding explains. With --check, it fails if the check holds for
the model and is false for the compiled outputs; `rabot bisect --help` tells what a check is. What is left fails in the
same way. Passes that calibrate do so on the inputs.

DIR gets model.onnx, inputs.npz, model.rbt (with model.blobs for long constants) and `command`, which shows the failure.

Examples:
  rabot reduce model.onnx --inputs in.npz -o reduced
  rabot reduce model.onnx --inputs in.npz --pipeline quantize --check 'sqnr(\"y\") > 30' -o reduced
  rabot reduce rabot-reproducer-fuse.rbt --random 1 --pipeline fuse -o reduced";

/// Shrink a model and its inputs to the smallest that still fails: nodes, sizes, weights
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct ReduceArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    inputs: InputArgs,

    /// Folder for what is left; it is made if it is not there
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    output: PathBuf,

    /// What compiled outputs have to be like, as an expression; nothing else is a failure then
    #[arg(long, value_name = "EXPR")]
    check: Option<String>,

    /// Most cases to try
    #[arg(long, value_name = "N", default_value_t = Effort::default().tries)]
    tries: usize,

    /// Try no new case after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Effort::default().time.as_secs())]
    seconds: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reduces a model.
///
/// **Errors**: the model or its inputs, a model that does not fail, or a folder that cannot be written.
pub(crate) fn run(args: &ReduceArgs) -> Result<Status, Failure> {
    let check = args.check.as_deref().map(Expression::parse).transpose();
    let check = check.map_err(|error| Failure::new(error.to_string()))?;
    let mut options = args.model.options()?;
    let profile = Profile::by_name(&options.target)?;
    profile.runs_here()?;
    let pipeline = super::debug::pipeline_of(&options)?;
    let progress = Progress::new("importing");
    let mut model = args.model.import(&mut options)?;
    super::compare::need_inputs(&args.inputs, &model.graph)?;
    let inputs = args.inputs.load_one(&model.graph)?;
    progress.now("reducing");
    let case = Case { graph: model.graph.clone(), inputs };
    let effort = Effort { tries: args.tries, time: Duration::from_secs(args.seconds) };
    let demands = Demands { strict: options.strict, without: &options.without, check: check.as_ref() };
    let hook = std::panic::take_hook();
    // A pass that panics does so in every case: once in the report is enough.
    std::panic::set_hook(Box::new(|_| {}));
    let fails = |case: &Case| failure_of(case, &pipeline, &profile, &demands);
    let outcome = reduce(&case, &fails, effort);
    std::panic::set_hook(hook);
    drop(progress);
    let reduced = outcome?;
    model.graph = reduced.case.graph.clone();
    let command = command(&options, &pipeline.to_string(), check.as_ref());
    let written = write(&args.output, &model, &reduced, &command)?;
    show(args, &reduced, &written, &command)?;
    Ok(Status::Done)
}

/// What shows the failure.
fn command(options: &Options, pipeline: &str, check: Option<&Expression>) -> String {
    let verb = if check.is_some() { "bisect" } else { "debug" };
    let mut words = format!("rabot {verb} model.onnx --inputs inputs.npz --target {}", options.target);
    words.push_str(&format!(" --pipeline {}", quoted(pipeline)));
    if options.strict {
        words.push_str(" --strict");
    }
    for (rule, node) in &options.without {
        words.push_str(&format!(" --without {}", quoted(&format!("{rule}@{node}"))));
    }
    if !options.calibration.is_empty() {
        words.push_str(" --calibrate inputs.npz");
    }
    if let Some(check) = check {
        words.push_str(&format!(" --check {}", quoted(check.text())));
    }
    words
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Writes everything, and gives the files. A graph that ONNX has no form for is left as `.rbt`.
fn write(folder: &Path, model: &Model, reduced: &Reduced, command: &str) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::new(format!("cannot make folder `{}`: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let path = |name: &str| folder.join(name);
    let mut written = vec![path("model.rbt"), path("inputs.npz"), path("command")];
    let header = format!("{}\n{command}", reduced.failure);
    snapshot::write(&path("model.rbt"), &reduced.case.graph, &header)?;
    output::write_npz(&path("inputs.npz"), &reduced.case.inputs)?;
    let command = match rabot::export(model, path("model.onnx"), &ExportOptions::default()) {
        Ok((_, files)) => {
            written.extend(files);
            command.to_owned()
        }
        Err(error) => {
            output::note(&format!("there is no model.onnx: {error}"));
            command.replace("model.onnx", "model.rbt")
        }
    };
    output::write_bytes(&path("command"), format!("{command}\n").as_bytes())?;
    Ok(written)
}

fn show(args: &ReduceArgs, reduced: &Reduced, written: &[PathBuf], command: &str) -> Result<(), Failure> {
    let (before, after) = (reduced.before, reduced.after);
    if args.json {
        return output::print_json(&serde_json::json!({
            "failure": reduced.failure, "before": before, "after": after, "tries": reduced.tries,
            "stopped": reduced.stopped, "written": written, "command": command,
        }));
    }
    let text = print(&reduced.case.graph);
    let graph = if text.lines().count() <= 30 { text } else { String::new() };
    let stopped = if reduced.stopped { "; the effort was used up, so more might go" } else { "" };
    output::print(&format!(
        "{}\n{} → {} nodes, {} → {} elements, in {} tries{stopped}\n\n{graph}\nin `{}`: {}\n{command}\n",
        reduced.failure,
        before.nodes,
        after.nodes,
        before.elements,
        after.elements,
        reduced.tries,
        args.output.display(),
        written.iter().filter_map(|path| path.file_name()?.to_str()).collect::<Vec<_>>().join(", "),
    ))
}
