//! `rabot debug`: a pipeline pass by pass.

use super::args::ModelArgs;
use super::compare::{error, need_inputs};
use super::inputs::InputArgs;
use super::progress::Progress;
use super::report::Recording;
use super::stages::Stages;
use super::{Failure, Status, output};
use clap::{Args, ValueHint};
use rabot::rewrite::{Admit, Gate, PassCx, Pipeline};
use rabot::{Options, Profile};
use rabot_debug::ledger::Ledger;
use rabot_debug::{
    Difference, OutputError, PassVerdict, Predicted, Trace, TraceOptions, TraceRow, Verdict, trace,
};
use std::path::PathBuf;

const AFTER: &str = "After each pass the graph is evaluated by the interpreter, as far as it changed. `added` is the error that the pass
added to the outputs (the worst of them), relative to the largest magnitude, and RMS, SQNR and cosine are of the same;
`total` is against the original model. `injected at` is the value at which the pass itself made the largest error: its
own nodes, on the values of the graph before. A pass `holds` or `BREAKS` what it promises, or `EXCEEDS` what rounding
explains. The last row is the compiled program against the interpreter on the optimized graph. `predicted` is the time of
a run by a roofline model of the target. Exit code 1 if a pass or an output of the program is not as it should be.

In --diff, operands are named by the values that they are.

Examples:
  rabot debug model.onnx --inputs in.npz
  rabot debug model.onnx --random 1 --explain --time
  rabot debug model.onnx --inputs in.npz --print-after fuse
  rabot debug model.onnx --inputs in.npz --diff --values
  rabot debug model.onnx --inputs in.npz --ledger before.json
  rabot debug model.onnx --inputs in.npz --calibrate data.npz --pipeline fold,fuse,quantize,dce,group";

/// Values that are listed per pass.
const VALUES: usize = 20;

/// Run the passes one by one; show size, time and the error each one adds
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct DebugArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    inputs: InputArgs,

    /// Compile and time the graph after each pass, not only after the last
    #[arg(long)]
    time: bool,

    /// List what each pass applied, and what it skipped and why
    #[arg(long)]
    explain: bool,

    /// List the values that each pass moved, with the error it injected and the error that it inherited
    #[arg(long)]
    values: bool,

    /// Print the graph as text after the passes with this name; `changed`: after each that changed something
    #[arg(long, value_name = "PASS|changed", conflicts_with = "json")]
    print_after: Option<String>,

    /// Print what each pass changed in the text of the graph
    #[arg(long, conflicts_with = "json")]
    diff: bool,

    /// Write what each pass contributed to a file, for `rabot ledger diff`
    #[arg(long, value_name = "FILE.json", value_hint = ValueHint::FilePath)]
    ledger: Option<PathBuf>,

    /// Write a page that shows the graph after every pass, with errors, times and kernels; it opens offline
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath)]
    html: Option<PathBuf>,

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
        threads: args.model.build.threads(),
        time: args.time,
        values: args.values || args.html.is_some(),
        ..TraceOptions::new(Profile::by_name(&options.target)?)
    };
    let calibration = (!options.calibration.is_empty()).then_some(&options.calibration[..]);
    let gate = Gate::new(Admit::WithoutAt(options.without.iter().cloned().collect()));
    let cx = PassCx { calibration, strict: options.strict, gate: Some(&gate), ..PassCx::default() };
    let mut stages = Stages::new(args.print_after.clone(), args.diff);
    let mut recording = Recording::new(args.html.as_deref(), &inputs);
    let found = trace(&model.graph, &pipeline, &cx, &inputs, &tracing, &mut |step, graph| {
        progress.now(step.map_or("import", |step| &step.pass).to_owned());
        progress.step();
        stages.see(step, graph);
        recording.see(step, graph);
    })?;
    rabot::all_left_out(&gate, &options)?;
    let name = args.model.model.display().to_string();
    let pipeline = pipeline.to_string();
    recording.write(&found, &name, &pipeline, &tracing)?;
    drop(progress);
    if let Some(path) = &args.ledger {
        let ledger = Ledger::of(&found, &name, &pipeline, &options.target);
        output::write_bytes(path, ledger.print()?.as_bytes())?;
    }
    if args.json {
        output::print_json(&serde_json::json!({ "model": name, "pipeline": pipeline, "trace": found }))?;
    } else {
        let mut printed = stages.into_text();
        printed.push_str(&text(&found, args));
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

/// The output with the largest error that a pass added, or that is left in all.
fn worst(row: &TraceRow, of: impl Fn(&OutputError) -> f64) -> Option<&OutputError> {
    row.outputs.iter().max_by(|a, b| of(a).total_cmp(&of(b)))
}

const HEADINGS: [&str; 14] = [
    "pass",
    ">rewrites",
    ">nodes",
    ">kernels",
    ">const bytes",
    ">pass ms",
    ">predicted ms",
    ">run ms",
    ">added",
    ">RMS",
    ">SQNR dB",
    ">1 - cosine",
    ">total",
    "verdict",
];

fn text(found: &Trace, args: &DebugArgs) -> String {
    let mut table = output::table(&HEADINGS);
    for row in &found.rows {
        table.add_row(cells(row));
    }
    table.add_row(compiled_cells(found));
    let mut text = format!("{table}\n");
    for row in &found.rows {
        if let PassVerdict::Breaks(why) | PassVerdict::Exceeds(why) = &row.verdict {
            text.push_str(&format!("{} {}: {why}\n", row.pass, row.verdict.name()));
        }
        if let Some(value) = &row.origin {
            let relative = error(value.injected.relative);
            text.push_str(&format!("{}: most is injected at `{}`, {relative}\n", row.pass, value.name));
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
    for row in comparison.outputs() {
        let (allowed, reason) = (error(row.tolerance), &row.tolerance_reason);
        text.push_str(&format!("output `{}` may be off by {allowed}: {reason}\n", row.name));
    }
    if args.values {
        found.rows.iter().for_each(|row| values(row, &mut text));
    }
    if args.explain {
        found.rows.iter().for_each(|row| explanation(row, &mut text));
    }
    text
}

/// The columns of a difference: relative, RMS, SQNR and cosine.
fn difference_cells(difference: Option<&Difference>) -> [String; 4] {
    let Some(difference) = difference else { return [const { String::new() }; 4].map(|_| "-".to_owned()) };
    let differs = !difference.is_equal();
    let or_dash = |value: Option<String>| value.filter(|_| differs).unwrap_or("-".to_owned());
    [
        error(difference.relative),
        error(difference.rms),
        or_dash(difference.sqnr_db.map(|db| format!("{db:.1}"))),
        or_dash(difference.cosine.map(|cosine| error(1.0 - cosine))),
    ]
}

fn predicted(predicted: Option<Predicted>) -> String {
    match predicted {
        None => "-".to_owned(),
        // Sizes that only data tell are left out.
        Some(p) if p.unknown > 0 => format!(">{:.3}", p.ms),
        Some(p) => format!("{:.3}", p.ms),
    }
}

fn cells(row: &TraceRow) -> Vec<String> {
    let added = worst(row, |output| output.added.relative).map(|output| &output.added);
    let added = difference_cells(added.filter(|_| row.verdict != PassVerdict::Reference));
    let total = worst(row, |output| output.total.relative).map(|output| output.total.relative);
    let verdict = match &row.verdict {
        PassVerdict::Changes(_) => row.exactness.clone(),
        // A pass that promises no bound, and did nothing to the outputs.
        PassVerdict::Holds if row.exactness.starts_with("changes") => "holds".to_owned(),
        verdict => format!("{} {}", verdict.name(), row.exactness).trim_end().to_owned(),
    };
    let mut cells = vec![
        row.pass.clone(),
        row.applied.len().to_string(),
        row.nodes.to_string(),
        row.kernels.to_string(),
        row.constants_bytes.to_string(),
        format!("{:.2}", row.pass_ms),
        predicted(row.predicted),
        row.measured.map_or("-".to_owned(), |m| format!("{:.3}", m.median_ms)),
    ];
    cells.extend(added);
    cells.extend([total.map_or("-".to_owned(), error), verdict]);
    cells
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
    let mut cells = vec![
        "compiled".to_owned(),
        blank(),
        blank(),
        measured.kernels.to_string(),
        blank(),
        format!("{:.2}", measured.compile_ms),
        predicted(found.compiled.predicted),
        format!("{:.3}", measured.median_ms),
    ];
    cells.extend(difference_cells(worst.map(|row| &row.difference)));
    cells.extend([blank(), verdict]);
    cells
}

/// The values that a pass moved, those with the largest error injected first.
fn values(row: &TraceRow, text: &mut String) {
    let mut moved: Vec<_> = row.values.iter().filter(|value| !value.added.is_equal()).collect();
    if moved.is_empty() {
        return;
    }
    moved.sort_by(|a, b| b.injected.relative.total_cmp(&a.injected.relative));
    let mut table =
        output::table(&["value", ">injected", ">inherited", ">added", ">total", ">total RMS", ">SQNR dB"]);
    for value in moved.iter().take(VALUES) {
        let db = value.total.sqnr_db.map_or("-".to_owned(), |db| format!("{db:.1}"));
        table.add_row([
            value.name.clone(),
            error(value.injected.relative),
            error(value.inherited.relative),
            error(value.added.relative),
            error(value.total.relative),
            error(value.total.rms),
            db,
        ]);
    }
    let (count, compared) = (moved.len(), row.values_compared);
    text.push_str(&format!("\n{}: {count} of {compared} values moved\n{table}\n", row.pass));
}

fn explanation(row: &TraceRow, text: &mut String) {
    if row.applied.is_empty() && row.skipped.is_empty() {
        return;
    }
    text.push_str(&format!("\n{}\n", row.pass));
    for (number, change) in (row.first_change..).zip(&row.applied) {
        let detail = if change.detail.is_empty() { String::new() } else { format!(": {}", change.detail) };
        text.push_str(&format!("  {number} applied {} at {}{detail}\n", change.rule, change.node));
    }
    for skip in &row.skipped {
        text.push_str(&format!("  skipped {} at {}: {}\n", skip.rule, skip.node, skip.reason));
    }
}
