//! `rabot debug`: a pipeline pass by pass.

use super::args::ModelArgs;
use super::compare::{error, need_inputs};
use super::inputs::InputArgs;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::Args;
use rabot::ir::Graph;
use rabot::rewrite::{PassCx, Pipeline, Step};
use rabot::{Options, Profile};
use rabot_debug::{OutputError, PassVerdict, Trace, TraceOptions, TraceRow, Verdict, trace};

const AFTER: &str = "After each pass the graph is evaluated by the interpreter. `added` is the error that the pass added to the
outputs (the worst of them), relative to the largest magnitude; `total` is that against the original model. A pass
`holds` or `BREAKS` what it promises. The last row is the compiled program against the interpreter on the optimized
graph. Exit code 1 if a pass breaks its promise or an output of the program is off by more than rounding explains.

Examples:
  rabot debug model.onnx --inputs in.npz
  rabot debug model.onnx --random 1 --explain --no-time
  rabot debug model.onnx --inputs in.npz --print-after fuse
  rabot debug model.onnx --inputs in.npz --calibrate data.npz --pipeline fold,fuse,quantize,dce,group";

/// Run the passes one by one; show size, time and the error each one adds
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct DebugArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    inputs: InputArgs,

    /// Do not compile and time the graph after each pass
    #[arg(long)]
    no_time: bool,

    /// List what each pass applied, and what it skipped and why
    #[arg(long)]
    explain: bool,

    /// Print the graph as text after the passes with this name; `changed`: after each that changed something
    #[arg(long, value_name = "PASS|changed", conflicts_with = "json")]
    print_after: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the pipeline.
///
/// **Errors**: the model, its inputs or a pass.
pub(crate) fn run(args: &DebugArgs) -> Result<Status, Failure> {
    let mut options = args.model.options()?;
    let pipeline = pipeline_of(&options)?;
    check_print_after(args, &pipeline)?;
    let progress = Progress::counted("importing", pipeline.passes().len() + 1);
    let model = args.model.import(&mut options)?;
    need_inputs(&args.inputs, &model.graph)?;
    let inputs = args.inputs.load_one(&model.graph)?;
    let tracing = TraceOptions {
        profile: Profile::by_name(&options.target)?,
        threads: args.model.build.threads(),
        time: !args.no_time,
    };
    let calibration = (!options.calibration.is_empty()).then_some(&options.calibration[..]);
    let mut printed = String::new();
    let found =
        trace(&model.graph, &pipeline, &PassCx { calibration, strict: options.strict, ..PassCx::default() }, &inputs, &tracing, &mut |step, graph| {
            progress.now(step.map_or("import", |step| &step.pass).to_owned());
            progress.step();
            print_graph(args, step, graph, &mut printed);
        })?;
    drop(progress);
    if args.json {
        let model = args.model.model.display().to_string();
        let pipeline = pipeline.to_string();
        output::print_json(&serde_json::json!({ "model": model, "pipeline": pipeline, "trace": found }))?;
    } else {
        printed.push_str(&text(&found, args.explain));
        output::print(&printed)?;
    }
    Ok(if found.passed { Status::Done } else { Status::CheckFailed })
}

/// The pipeline that options say.
///
/// **Errors**: its text is wrong.
pub(crate) fn pipeline_of(options: &Options) -> Result<Pipeline, Failure> {
    match &options.pipeline {
        None => Ok(rabot::passes::default_pipeline()),
        Some(text) => Ok(rabot::passes::pipeline(text)?),
    }
}

fn check_print_after(args: &DebugArgs, pipeline: &Pipeline) -> Result<(), Failure> {
    let Some(name) = args.print_after.as_deref().filter(|name| *name != "changed") else { return Ok(()) };
    if pipeline.passes().iter().any(|pass| pass.name() == name) {
        return Ok(());
    }
    let failure = Failure::new(format!("--print-after {name}: the pipeline {pipeline} has no such pass"));
    Err(failure.with_help("name one of its passes, or `changed`"))
}

fn print_graph(args: &DebugArgs, step: Option<&Step>, graph: &Graph, printed: &mut String) {
    let (Some(wanted), Some(step)) = (&args.print_after, step) else { return };
    let name = step.pass.split('{').next().unwrap_or_default();
    let changed = wanted == "changed" && !step.report.applied.is_empty();
    if changed || wanted == name {
        printed.push_str(&format!("; after {}\n{}\n", step.pass, rabot::ir::text::print(graph)));
    }
}

/// The output with the largest error that a pass added, or that is left in all.
fn worst(row: &TraceRow, of: impl Fn(&OutputError) -> f64) -> Option<&OutputError> {
    row.outputs.iter().max_by(|a, b| of(a).total_cmp(&of(b)))
}

fn text(found: &Trace, explain: bool) -> String {
    let mut table = output::table(&[
        "pass",
        ">applied",
        ">skipped",
        ">nodes",
        ">kernels",
        ">const bytes",
        ">pass ms",
        ">run ms",
        ">added max",
        ">added rel",
        ">SQNR dB",
        ">total rel",
        "verdict",
    ]);
    for row in &found.rows {
        table.add_row(cells(row));
    }
    table.add_row(compiled_cells(found));
    let mut text = format!("{table}\n");
    for row in &found.rows {
        if let PassVerdict::Breaks(why) = &row.verdict {
            text.push_str(&format!("{} BREAKS its promise: {why}\n", row.pass));
            if let Some(value) = &row.origin {
                let relative = error(value.total.relative);
                text.push_str(&format!("  it begins at `{}`, off by {relative}\n", value.name));
            }
        }
        if let Some(why) = &row.not_measured {
            text.push_str(&format!("after {} it cannot be timed: {why}\n", row.pass));
        }
    }
    let comparison = &found.compiled.comparison;
    for row in comparison.outputs().filter(|row| row.verdict == Verdict::Exceeds) {
        let (relative, allowed) = (error(row.difference.relative), error(row.tolerance));
        text.push_str(&format!("compiled output `{}` is off by {relative}, allowed {allowed}\n", row.name));
    }
    if explain {
        found.rows.iter().for_each(|row| explanation(row, &mut text));
    }
    text
}

fn cells(row: &TraceRow) -> Vec<String> {
    let added = worst(row, |output| output.added.relative).map(|output| output.added);
    let total = worst(row, |output| output.total.relative).map(|output| output.total.relative);
    let added = added.filter(|_| row.verdict != PassVerdict::Reference);
    vec![
        row.pass.clone(),
        row.applied.len().to_string(),
        row.skipped.len().to_string(),
        row.nodes.to_string(),
        row.kernels.to_string(),
        row.constants_bytes.to_string(),
        format!("{:.2}", row.pass_ms),
        row.measured.map_or("-".to_owned(), |m| format!("{:.3}", m.median_ms)),
        added.map_or("-".to_owned(), |d| error(d.max_abs)),
        added.map_or("-".to_owned(), |d| error(d.relative)),
        added.and_then(|d| d.sqnr_db).map_or("-".to_owned(), |db| format!("{db:.1}")),
        total.map_or("-".to_owned(), error),
        match &row.verdict {
            PassVerdict::Changes(_) => row.exactness.clone(),
            verdict => format!("{} {}", verdict.name(), row.exactness).trim_end().to_owned(),
        },
    ]
}

fn compiled_cells(found: &Trace) -> Vec<String> {
    let measured = &found.compiled.measured;
    let outputs: Vec<_> = found.compiled.comparison.outputs().collect();
    let worst = outputs.iter().max_by(|a, b| a.difference.relative.total_cmp(&b.difference.relative));
    let verdict = if outputs.iter().any(|row| row.verdict == Verdict::Exceeds) {
        "EXCEEDS".to_owned()
    } else {
        worst.map_or("equal".to_owned(), |row| {
            format!("{}, allowed {}", row.verdict.name(), error(row.tolerance))
        })
    };
    let blank = || "-".to_owned();
    let of = |value: Option<f64>| value.map_or_else(blank, error);
    vec![
        "compiled".to_owned(),
        blank(),
        blank(),
        blank(),
        measured.kernels.to_string(),
        blank(),
        format!("{:.2}", measured.compile_ms),
        format!("{:.3}", measured.median_ms),
        of(worst.map(|row| row.difference.max_abs)),
        of(worst.map(|row| row.difference.relative)),
        worst.and_then(|row| row.difference.sqnr_db).map_or_else(blank, |db| format!("{db:.1}")),
        blank(),
        verdict,
    ]
}

fn explanation(row: &TraceRow, text: &mut String) {
    if row.applied.is_empty() && row.skipped.is_empty() {
        return;
    }
    text.push_str(&format!("\n{}\n", row.pass));
    for change in &row.applied {
        let detail = if change.detail.is_empty() { String::new() } else { format!(": {}", change.detail) };
        text.push_str(&format!("  applied {} at {}{detail}\n", change.rule, change.node));
    }
    for skip in &row.skipped {
        text.push_str(&format!("  skipped {} at {}: {}\n", skip.rule, skip.node, skip.reason));
    }
}
