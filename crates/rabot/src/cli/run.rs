//! `rabot run`: outputs from inputs.

use super::args::ModelArgs;
use super::inputs::{InputArgs, InputSet};
use super::progress::Progress;
use super::summary::{HEADINGS, Summary};
use super::taps::{self, TapArgs, TapReport};
use super::{Failure, Status, output};
use clap::{Args, ValueHint};
use rabot::ir::{Graph, interp};
use rabot::{Session, Tensors};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

const AFTER: &str = "Examples:
  rabot run model.onnx --inputs in.npz --outputs out.npz
  rabot run model.onnx --inputs samples/ --outputs results/ --threads 2
  rabot run model.onnx --input image=cat.npy
  rabot run model.onnx --random 1 --dim batch=4
  rabot run model.onnx --inputs in.npz --reference
  rabot run model.onnx --inputs in.npz --tap /layer1/Conv_output_0 --taps inside.npz";

/// Run a model on inputs, write its outputs and show what is in them
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    inputs: InputArgs,

    /// Where outputs go: an npz file; a folder, if --inputs is one
    #[arg(long, value_name = "FILE.npz|DIR", value_hint = ValueHint::AnyPath)]
    outputs: Option<PathBuf>,

    /// Use the interpreter, node by node without passes (those of --pipeline apart), in place of compiled code
    #[arg(long)]
    reference: bool,

    #[command(flatten)]
    taps: TapArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What runs the model.
enum Engine {
    Compiled(Box<Session>),
    Interpreter(Graph),
    /// The program, the same one with taps, and the names of these.
    Tapped(Box<[Session; 2]>, Vec<String>),
}

impl Engine {
    fn run(&self, inputs: &Tensors) -> Result<Tensors, Failure> {
        match self {
            Engine::Compiled(session) => Ok(session.run(inputs)?),
            Engine::Interpreter(graph) => Ok(interp::run(graph, inputs)?),
            Engine::Tapped(sessions, _) => Ok(sessions[0].run(inputs)?),
        }
    }

    /// What taps see of the same inputs, if there are any.
    fn tap(
        &self,
        inputs: &Tensors,
        plain: &Tensors,
        target: Option<&Path>,
    ) -> Result<Option<TapReport>, Failure> {
        let Engine::Tapped(sessions, names) = self else { return Ok(None) };
        let tapped = sessions[1].run(inputs)?;
        taps::report(plain, &tapped, names, target).map(Some)
    }
}

#[derive(Serialize)]
struct Ran {
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<String>,
    run_ms: f64,
    outputs: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    taps: Option<TapReport>,
}

/// Runs a model.
///
/// **Errors**: the model, its inputs or the place for its outputs.
pub(crate) fn run(args: &RunArgs) -> Result<Status, Failure> {
    let mut options = args.model.options()?;
    if !args.reference {
        args.model.build.check_runs_here()?;
    }
    args.taps.wanted()?;
    let sets = args.inputs.sets()?;
    let folder = args.inputs.inputs.as_ref().is_some_and(|path| path.is_dir());
    check_place("--outputs", args.outputs.as_deref(), folder)?;
    check_place("--taps", args.taps.taps.as_deref(), folder)?;
    let progress = Progress::new("importing");
    let model = args.model.import(&mut options)?;
    if args.inputs.is_empty() && !model.graph.inputs().is_empty() {
        let failure = Failure::new("there are no inputs to run the model on");
        return Err(failure.with_help("give --inputs in.npz, --input NAME=file.npy, or --random SEED"));
    }
    // Read before compiling: a wrong file is told at once.
    let source = model.graph.clone();
    let mut first = match sets.first() {
        Some(set) => Some(set.load(&source)?),
        None => None,
    };
    progress.now("compiling");
    let engine = engine(args, model.graph, &options)?;
    drop(progress);
    let progress = Progress::counted("running", sets.len());
    let mut rans = Vec::with_capacity(sets.len());
    for set in &sets {
        let inputs = match first.take() {
            Some(inputs) => inputs,
            None => set.load(&source)?,
        };
        rans.push(one(args, &engine, set, &inputs, folder)?);
        progress.step();
    }
    drop(progress);
    show(args, &rans)?;
    let held = rans.iter().filter_map(|ran| ran.taps.as_ref()).all(|taps| taps.proof.holds());
    Ok(if held { Status::Done } else { Status::CheckFailed })
}

fn engine(args: &RunArgs, mut graph: Graph, options: &rabot::Options) -> Result<Engine, Failure> {
    if !args.reference {
        let compiled = rabot::compile_graph(graph, options)?;
        if let Some(wanted) = args.taps.wanted()? {
            let (tapped, names) = taps::compile(&compiled.graph, &wanted, options)?;
            let sessions = [args.model.session(&compiled.program)?, args.model.session(&tapped)?];
            return Ok(Engine::Tapped(Box::new(sessions), names));
        }
        return Ok(Engine::Compiled(Box::new(args.model.session(&compiled.program)?)));
    }
    if options.pipeline.is_some() {
        rabot::optimize(&mut graph, options, &mut |_, _| {})?;
    }
    Ok(Engine::Interpreter(graph))
}

/// Makes the folder for outputs, or finds that there is no place for them, before the work is done.
fn check_place(option: &str, path: Option<&Path>, folder: bool) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    if folder {
        return std::fs::create_dir_all(path)
            .map_err(|error| Failure::new(format!("cannot make folder `{}`: {error}", path.display())));
    }
    if path.is_dir() {
        let message = format!("{option} `{}` is a folder, but --inputs is none", path.display());
        return Err(Failure::new(message).with_help(format!("name an npz file, as {option} out.npz")));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(Failure::new(format!(
            "cannot write `{}`: there is no folder `{}`",
            path.display(),
            parent.display()
        )));
    }
    Ok(())
}

fn one(
    args: &RunArgs,
    engine: &Engine,
    set: &InputSet<'_>,
    inputs: &Tensors,
    folder: bool,
) -> Result<Ran, Failure> {
    let about = |failure: Failure| match &set.path {
        Some(path) => failure.about(&path.display().to_string()),
        None => failure,
    };
    let start = Instant::now();
    let outputs = engine.run(inputs).map_err(about)?;
    let run_ms = start.elapsed().as_secs_f64() * 1e3;
    let place = |path: &Option<PathBuf>| {
        path.as_ref().map(|path| match set.file_name() {
            Some(name) if folder => path.join(name),
            _ => path.clone(),
        })
    };
    let target = place(&args.outputs);
    let taps = engine.tap(inputs, &outputs, place(&args.taps.taps).as_deref()).map_err(about)?;
    if let Some(target) = &target {
        output::write_npz(target, &outputs)?;
    }
    let display = |path: &PathBuf| path.display().to_string();
    Ok(Ran {
        inputs: set.path.as_ref().map(display),
        written: target.as_ref().map(display),
        run_ms,
        outputs: outputs.iter().map(|(name, tensor)| Summary::of(name, tensor)).collect(),
        taps,
    })
}

fn show(args: &RunArgs, rans: &[Ran]) -> Result<(), Failure> {
    if args.json {
        let model = args.model.model.display().to_string();
        return output::print_json(&serde_json::json!({ "model": model, "runs": rans }));
    }
    let mut text = String::new();
    for ran in rans {
        if let (Some(inputs), true) = (&ran.inputs, rans.len() > 1) {
            text.push_str(&format!("{inputs}\n"));
        }
        let mut table = output::table(&HEADINGS);
        for summary in &ran.outputs {
            table.add_row(summary.cells());
        }
        text.push_str(&format!("{table}\n"));
        if let Some(written) = &ran.written {
            text.push_str(&format!("written to {written}\n"));
        }
        if let Some(taps) = &ran.taps {
            let mut table = output::table(&HEADINGS);
            for summary in &taps.values {
                table.add_row(summary.cells());
            }
            text.push_str(&format!("\ntaps\n{table}\n{}\n", taps::verdict(&taps.proof)));
            if let Some(written) = &taps.written {
                text.push_str(&format!("written to {written}\n"));
            }
        }
    }
    output::print(&text)
}
