//! `rabot bisect`: which step breaks a check.

use super::args::ModelArgs;
use super::compare::{error, need_inputs};
use super::inputs::InputArgs;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::{Args, ValueEnum, ValueHint};
use rabot::{Profile, Tensors, npz};
use rabot_debug::bisect::{
    Bisection, Check, Engine, Expression, KernelCulprit, RewriteCulprit, Subject, bisect,
};
use std::path::{Path, PathBuf};
use std::process::Command;

const AFTER: &str = "Without --check and --metric, every output has to be that of the model as imported within what rounding explains.

A check is an expression over outputs: max_abs_err, max_rel_err, rms_err, sqnr, cosine, finite, argmax, max, min, mean
and sum of an output, argmax_ref, max_ref, min_ref, mean_ref and sum_ref of the original's; numbers, + - * /, comparisons,
&& || ! and parentheses. A metric is a program that gets two npz files, the outputs and those of the original, and prints
one number.

Exit code 1 if the check fails; what breaks it is told. `--without RULE@NODE` leaves a rewrite out, here from the start.

Examples:
  rabot bisect model.onnx --inputs in.npz
  rabot bisect model.onnx --inputs sets/ --check 'argmax(\"logits\") == argmax_ref(\"logits\")'
  rabot bisect model.onnx --inputs in.npz --calibrate data.npz --pipeline fold,fuse,quantize,dce,group \\
      --check 'sqnr(\"y\") > 30'
  rabot bisect model.onnx --inputs in.npz --metric ./accuracy.py --min 0.7";

/// Find the pass, the rewrite, the tensor, the parameter or the kernel that breaks a check
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct BisectArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    inputs: InputArgs,

    /// What outputs have to be like, as an expression
    #[arg(long, value_name = "EXPR", conflicts_with = "metric")]
    check: Option<String>,

    /// A program that prints a number for OUTPUTS.npz REFERENCE.npz
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::ExecutablePath)]
    metric: Option<PathBuf>,

    /// Smallest metric that is right
    #[arg(long, value_name = "NUMBER", requires = "metric", allow_negative_numbers = true)]
    min: Option<f64>,

    /// Largest metric that is right
    #[arg(long, value_name = "NUMBER", requires = "metric", allow_negative_numbers = true)]
    max: Option<f64>,

    /// What graphs are evaluated with in the search [default: the interpreter, if it takes less than a second]
    #[arg(long, value_name = "NAME")]
    engine: Option<EngineName>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineName {
    /// The reference
    Interpreter,
    /// Compiled programs
    Compiled,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Interpreter => Engine::Interpreter,
            EngineName::Compiled => Engine::Compiled,
        }
    }
}

/// Searches.
///
/// **Errors**: the model, its inputs or the check, or a model that fails the check as it is imported.
pub(crate) fn run(args: &BisectArgs) -> Result<Status, Failure> {
    let check = check_of(args)?;
    let mut options = args.model.options()?;
    let profile = Profile::by_name(&options.target)?;
    profile.runs_here()?;
    let pipeline = super::debug::pipeline_of(&options)?;
    let progress = Progress::new("importing");
    let model = args.model.import(&mut options)?;
    need_inputs(&args.inputs, &model.graph)?;
    let sets = args.inputs.sets()?;
    let inputs = sets.iter().map(|set| set.load(&model.graph)).collect::<Result<Vec<_>, _>>()?;
    progress.now("searching");
    let hook = std::panic::take_hook();
    // A pass that panics does so in every trial: once in the result is enough.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = bisect(Subject {
        graph: &model.graph,
        pipeline: &pipeline,
        calibration: &options.calibration,
        strict: options.strict,
        without: &options.without,
        engine: args.engine.map(Engine::from),
        inputs: &inputs,
        profile: &profile,
        check: &check,
        edit_plan: None,
    });
    std::panic::set_hook(hook);
    drop(progress);
    let found = outcome?;
    if args.json {
        let model = args.model.model.display().to_string();
        output::print_json(&serde_json::json!({
            "model": model, "pipeline": pipeline.to_string(), "bisection": found,
        }))?;
    } else {
        output::print(&text(&found))?;
    }
    Ok(if found.fails { Status::CheckFailed } else { Status::Done })
}

fn check_of(args: &BisectArgs) -> Result<Check, Failure> {
    if let Some(text) = &args.check {
        return Ok(Check::Expression(
            Expression::parse(text).map_err(|error| Failure::new(error.to_string()))?,
        ));
    }
    let Some(program) = args.metric.clone() else { return Ok(Check::Tolerance) };
    if args.min.is_none() && args.max.is_none() {
        let failure = Failure::new("--metric says nothing of what is right".to_owned());
        return Err(failure.with_help("give --min, --max, or both"));
    }
    let evaluate = move |outputs: &Tensors, reference: &Tensors| metric(&program, outputs, reference);
    Ok(Check::Metric {
        evaluate: Box::new(evaluate),
        min: args.min.unwrap_or(f64::NEG_INFINITY),
        max: args.max.unwrap_or(f64::INFINITY),
    })
}

/// The number that a program prints for outputs and those of the original.
fn metric(program: &Path, outputs: &Tensors, reference: &Tensors) -> Result<f64, String> {
    let folder = std::env::temp_dir().join(format!("rabot-bisect-{}", std::process::id()));
    let about = |error: std::io::Error| format!("folder `{}`: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(about)?;
    let found = metric_in(&folder, program, outputs, reference);
    std::fs::remove_dir_all(&folder).map_err(about)?;
    found
}

fn metric_in(folder: &Path, program: &Path, outputs: &Tensors, reference: &Tensors) -> Result<f64, String> {
    let paths = [folder.join("outputs.npz"), folder.join("reference.npz")];
    for (path, tensors) in paths.iter().zip([outputs, reference]) {
        let about = |error: &dyn std::fmt::Display| format!("`{}`: {error}", path.display());
        let mut file = std::fs::File::create(path).map_err(|error| about(&error))?;
        npz::write_npz(&mut file, tensors).map_err(|error| about(&error))?;
    }
    let name = program.display();
    let ran = Command::new(program).args(&paths).output();
    let ran = ran.map_err(|error| format!("metric `{name}` cannot be started: {error}"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("metric `{name}` ended with {}: {}", ran.status, said.trim()));
    }
    let printed = String::from_utf8_lossy(&ran.stdout);
    let word = printed.split_whitespace().last().unwrap_or("");
    word.parse().map_err(|_| format!("metric `{name}` printed {:?}, which is no number", printed.trim()))
}

fn text(found: &Bisection) -> String {
    let mut text = String::new();
    if found.fails {
        text.push_str(&format!("the check fails; outputs are off by {}\n", error(found.error)));
    } else {
        text.push_str(&format!("the check holds; outputs are off by {}\n", error(found.error)));
    }
    found.rewrites.iter().for_each(|culprit| rewrite(culprit, found.changes, &mut text));
    found.kernels.iter().for_each(|culprit| kernel(culprit, &mut text));
    if !found.monotone {
        text.push_str("\nthe effect is not monotone: rewrites break the check only together\n");
    }
    if let Some(why) = &found.unexplained {
        text.push_str(&format!("\nnot explained: {why}\n"));
    }
    if let Some(remedy) = &found.remedy {
        let holds = if remedy.holds { "the check holds" } else { "the check still fails" };
        let (before, after) = (error(remedy.before), error(remedy.after));
        text.push_str(&format!("\nremedy: {}: error {before} → {after}, {holds}\n", remedy.text));
        let options: Vec<String> =
            remedy.without.iter().map(|rewrite| format!("--without '{rewrite}'")).collect();
        text.push_str(&format!("  {}\n", options.join(" ")));
    }
    let engine = match found.engine {
        Engine::Interpreter => "the interpreter",
        Engine::Compiled => "compiled programs",
    };
    text.push_str(&format!(
        "\n{} evaluations in {:.1} s, by {engine}: {}\n",
        found.evaluations, found.seconds, found.engine_reason
    ));
    text
}

fn rewrite(culprit: &RewriteCulprit, changes: usize, text: &mut String) {
    let RewriteCulprit { number, pass, rule, node, detail, .. } = culprit;
    text.push_str(&format!("\npass `{pass}`, rewrite {number} of {changes}: `{rule}` at `{node}`\n"));
    let mut line = |line: String| text.push_str(&format!("  {line}\n"));
    if !detail.is_empty() {
        line(detail.clone());
    }
    if !culprit.sources.is_empty() {
        line(format!("of {}", culprit.sources.join(", ")));
    }
    if culprit.sole {
        line("without it alone, the check holds".to_owned());
    }
    if !culprit.only_with.is_empty() {
        line(format!("only together with {}", culprit.only_with.join(", ")));
    }
    if let Some(why) = &culprit.failure {
        line(format!("with it the graph cannot be evaluated: {why}"));
    }
    if let Some(tensor) = &culprit.tensor {
        let how = if tensor.overflows { "overflows".to_owned() } else { error(tensor.difference.relative) };
        line(format!("first tensor that deviates: `{}` ({}), {how}", tensor.name, tensor.op));
    }
    if let Some(wrong) = &culprit.parameter {
        line(format!(
            "parameter `{}`, {}: {:?}, right is {:?} ({} differ); error {} with the right one",
            wrong.name,
            wrong.role,
            wrong.value,
            wrong.right,
            wrong.differing,
            error(wrong.error)
        ));
    }
}

fn kernel(culprit: &KernelCulprit, text: &mut String) {
    let KernelCulprit { kernel, within, value, sources, injected, shape, .. } = culprit;
    let part = within.as_ref().map_or(String::new(), |whole| format!(", a part of `{whole}`"));
    text.push_str(&format!("\nkernel `{kernel}`{part}, which writes `{value}` {shape:?}\n"));
    if !sources.is_empty() {
        text.push_str(&format!("  of {}\n", sources.join(", ")));
    }
    let tail = if culprit.in_tail { ", all after the last full vector" } else { "" };
    text.push_str(&format!(
        "  on the operands that it had, {} wrong elements, the first at {}{tail}; off by {}\n",
        culprit.wrong,
        culprit.first_wrong,
        error(injected.relative)
    ));
}
