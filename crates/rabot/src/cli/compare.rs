//! `rabot compare`: the compiled program against the interpreter.

use super::args::ModelArgs;
use super::inputs::InputArgs;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::Args;
use rabot_debug::{Comparison, Row, Verdict, compare};

const AFTER: &str =
    "Both run the same optimized graph; every tensor that a kernel writes and the graph has is compared, worst
first. `relative` is max|a-b| / max|b|, `allowed` what rounding explains: 16 * 2^-24 * sqrt(roundings on the longest
path from the inputs) for f32. The factor is larger where a second evaluation, with inputs moved by 2^-18, shows that
the model amplifies errors more; quantized and narrow types add their steps. Exit code 1 if an output exceeds it.

Examples:
  rabot compare model.onnx --inputs in.npz
  rabot compare model.onnx --random 1 --target x86-64-v2 --all";

/// Rows that are shown unless all are asked for.
const ROWS: usize = 20;

/// Compare compiled code with the interpreter, tensor by tensor
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    inputs: InputArgs,

    /// Show all tensors, not only the worst
    #[arg(long)]
    all: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compares.
///
/// **Errors**: the model or its inputs.
pub(crate) fn run(args: &CompareArgs) -> Result<Status, Failure> {
    let mut options = args.model.options()?;
    let progress = Progress::new("importing");
    let model = args.model.import(&mut options)?;
    need_inputs(&args.inputs, &model.graph)?;
    let inputs = args.inputs.load_one(&model.graph)?;
    progress.now("compiling");
    let compiled = rabot::compile_graph(model.graph, &options)?;
    progress.now("running both");
    let session = args.model.session(&compiled.program)?;
    let found = compare(&compiled.graph, &session, &inputs)?;
    drop(progress);
    if args.json {
        let model = args.model.model.display().to_string();
        output::print_json(&serde_json::json!({ "model": model, "comparison": found }))?;
    } else {
        output::print(&text(&found, if args.all { usize::MAX } else { ROWS }))?;
    }
    Ok(if found.passed { Status::Done } else { Status::CheckFailed })
}

/// Says what to do where a model with inputs is given none.
///
/// **Errors**: nothing says what the inputs are.
pub(crate) fn need_inputs(inputs: &InputArgs, graph: &rabot::ir::Graph) -> Result<(), Failure> {
    if inputs.is_empty() && !graph.inputs().is_empty() {
        let failure = Failure::new("there are no inputs to run the model on");
        return Err(failure.with_help("give --inputs in.npz, --input NAME=file.npy, or --random SEED"));
    }
    Ok(())
}

fn text(found: &Comparison, limit: usize) -> String {
    let mut table = output::table(&[
        "tensor",
        "dtype",
        "shape",
        ">max |a-b|",
        ">max |b|",
        ">relative",
        ">allowed",
        "verdict",
        "kernel of",
    ]);
    // Outputs are always shown.
    let shown = found.rows.iter().enumerate().filter(|(at, row)| *at < limit || row.output);
    for (_, row) in shown {
        table.add_row(cells(row));
    }
    let mut text = format!("{table}\n");
    let count = |verdict| found.rows.iter().filter(|row| row.verdict == verdict).count();
    text.push_str(&format!(
        "{} tensors: {} equal, {} within what rounding explains, {} with flipped integers, {} beyond\n",
        found.rows.len(),
        count(Verdict::Equal),
        count(Verdict::Within),
        count(Verdict::Flipped),
        count(Verdict::Exceeds),
    ));
    if !found.skipped.is_empty() {
        let first = found.skipped.first().map_or(String::new(), |s| format!("`{}`: {}", s.name, s.reason));
        text.push_str(&format!("{} buffers not comparable, as {first}\n", found.skipped.len()));
    }
    text.push_str(&format!(
        "{} values are in no buffer: constants, inputs, and what is fused away\n",
        found.not_written
    ));
    let outputs =
        if found.passed { "all outputs are right" } else { "OUTPUTS DIFFER by more than rounding explains" };
    text.push_str(outputs);
    text.push('\n');
    text
}

fn cells(row: &Row) -> [String; 9] {
    let difference = &row.difference;
    let verdict = match row.verdict {
        Verdict::Flipped => format!("flipped {} of {}", difference.differing, difference.elements),
        verdict => verdict.name().to_owned(),
    };
    [
        if row.output { format!("{} (output)", row.name) } else { row.name.clone() },
        row.dtype.clone(),
        format!("{:?}", row.shape),
        error(difference.max_abs),
        error(difference.max_reference),
        error(difference.relative),
        error(row.tolerance),
        verdict,
        sources(&row.sources),
    ]
}

/// An error or magnitude in three digits.
pub(crate) fn error(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.2e}") }
}

/// The last characters of a long name: names of one model often begin alike.
fn ending(name: &str) -> String {
    const LONGEST: usize = 40;
    let left_out = name.chars().count().saturating_sub(LONGEST);
    let end: String = name.chars().skip(left_out).collect();
    if left_out > 0 { format!("…{end}") } else { end }
}

/// The first names, and how many more there are.
fn sources(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(3).map(|name| ending(name)).collect();
    let more = names.len().saturating_sub(3);
    let more = if more > 0 { format!(" +{more}") } else { String::new() };
    format!("{}{more}", shown.join(" "))
}
