//! `rabot ledger`: what moved between two runs of a pipeline.

use super::{Failure, Status, output};
use clap::{Args, Subcommand, ValueHint};
use rabot_debug::golden::Pack;
use rabot_debug::ledger::{self, Ledger, LedgerDiff, LedgerMove, Thresholds, Turn};
use std::fs;
use std::path::{Path, PathBuf};

const AFTER: &str = "A ledger says what each pass contributed: error added, constants, kernels, time. `rabot debug --ledger` writes one, and
golden packs hold one. What a pass adds is compared with what it added before, so that a pass that got worse shows at its
own place only; the last lines are totals. Exit code 1 if something got worse by more than its threshold.

Examples:
  rabot debug model.onnx --inputs in.npz --ledger before.json
  rabot debug model.onnx --inputs in.npz --ledger after.json
  rabot ledger diff before.json after.json
  rabot ledger diff golden/model after.json --max-time 25";

/// Compare what passes contributed in two runs
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    Diff(DiffArgs),
}

/// Print what moved from one ledger to another, pass by pass
#[derive(Args, Debug)]
struct DiffArgs {
    /// The ledger before: a file of `rabot debug --ledger`, or the folder of a golden pack
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    before: PathBuf,

    /// The ledger after
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    after: PathBuf,

    /// Error added that is worse: this many times as large
    #[arg(long, value_name = "FACTOR", default_value = "2", value_parser = positive)]
    max_error: f64,

    /// Growth in kernels and bytes that is worse: percent of the whole
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = positive)]
    max_size: f64,

    /// Growth in time that is worse: percent of the whole
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = positive)]
    max_time: f64,

    /// Show what moved within its threshold too
    #[arg(long)]
    all: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compares.
///
/// **Errors**: a ledger cannot be read.
pub(crate) fn run(args: &LedgerArgs) -> Result<Status, Failure> {
    let LedgerCommand::Diff(args) = &args.command;
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let thresholds =
        Thresholds { error: args.max_error, size: args.max_size / 100.0, time: args.max_time / 100.0 };
    let found = ledger::diff(&before, &after, thresholds);
    if args.json {
        output::print_json(&serde_json::json!({
            "before": args.before.display().to_string(),
            "after": args.after.display().to_string(),
            "diff": found,
        }))?;
    } else {
        output::print(&text(&before, &after, &found, args.all))?;
    }
    Ok(if found.passed { Status::Done } else { Status::CheckFailed })
}

fn positive(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
    value.ok_or_else(|| "expected a number from 0".to_owned())
}

/// Reads a ledger, or that of a golden pack.
///
/// **Errors**: there is none, or it is not valid.
fn read(path: &Path) -> Result<Ledger, Failure> {
    let about = path.display().to_string();
    let file = if path.is_dir() { path.join("golden.toml") } else { path.to_owned() };
    let text = fs::read_to_string(&file).map_err(|error| {
        let failure = Failure::new(format!("cannot read `{}`: {error}", file.display()));
        failure.with_help("name a file of `rabot debug --ledger`, or the folder of a golden pack")
    })?;
    if !path.is_dir() {
        return Ledger::parse(&text).map_err(|error| Failure::from(error).about(&about));
    }
    let pack = Pack::parse(&text).map_err(|error| Failure::from(error).about(&about))?;
    Ok(Ledger {
        format: ledger::FORMAT,
        model: pack.model,
        pipeline: pack.pipeline,
        target: pack.target,
        entries: pack.ledger,
    })
}

fn text(before: &Ledger, after: &Ledger, found: &LedgerDiff, all: bool) -> String {
    let mut text = String::new();
    for (what, old, new) in [
        ("pipeline", &before.pipeline, &after.pipeline),
        ("target", &before.target, &after.target),
        ("model", &before.model, &after.model),
    ] {
        if old != new {
            text.push_str(&format!("the {what} was {old} and is {new}\n"));
        }
    }
    let shown: Vec<&LedgerMove> = found.moves.iter().filter(|m| all || m.turn != Turn::Moved).collect();
    if !shown.is_empty() {
        let mut table = output::table(&["stage", "output", "metric", ">before", ">after", ">by", "turn"]);
        for m in shown {
            table.add_row(cells(m));
        }
        text.push_str(&format!("{table}\n"));
    }
    let count = |turn| found.moves.iter().filter(|m| m.turn == turn).count();
    let (worse, better, moved) = (count(Turn::Worse), count(Turn::Better), count(Turn::Moved));
    let verdict = if found.passed { "nothing got worse" } else { "WORSE" };
    text.push_str(&format!("{worse} worse, {better} better, {moved} moved within thresholds: {verdict}\n"));
    text
}

fn cells(m: &LedgerMove) -> [String; 7] {
    let number = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) if m.metric == "error" => super::compare::error(value),
        Some(value) if value.fract() == 0.0 => format!("{value}"),
        Some(value) => format!("{value:.4}"),
    };
    let by = m.after.unwrap_or(0.0) - m.before.unwrap_or(0.0);
    let turn = match m.turn {
        Turn::Better => "better",
        Turn::Moved => "moved",
        Turn::Worse => "WORSE",
    };
    [
        m.stage.clone(),
        m.output.clone().unwrap_or_default(),
        m.metric.to_owned(),
        number(m.before),
        number(m.after),
        number(Some(by)),
        turn.to_owned(),
    ]
}
