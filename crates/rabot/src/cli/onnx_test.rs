//! `rabot onnx-test`: cases in the layout of ONNX's test suite.

mod allowed;
mod pattern;
mod work;

use super::{Failure, Status, output};
use allowed::Allowed;
use clap::{Args, ValueHint};
use pattern::Pattern;
use rabot::conformance::{self, Case, Outcome, Settings, Verdict};
use rabot::{Options, Profile};
use std::num::NonZeroUsize;
use std::path::PathBuf;

const AFTER: &str = "Examples:
  rabot onnx-test suite/node/test_abs
  rabot onnx-test suite --filter 'test_reduce_*' --filter softmax
  rabot onnx-test suite --reference --json
  rabot onnx-test suite --allow exceptions.txt

A case is a folder with model.onnx and test_data_set_0/input_0.pb, output_0.pb and so on. Floating-point outputs may be
off by what its tolerance.json says, {\"rtol\": 1e-3, \"atol\": 1e-7} if it has none.";

/// Run cases in the layout of ONNX's test suite and compare their outputs with those expected
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct OnnxTestArgs {
    /// Folders: cases, or folders of cases
    #[arg(value_name = "DIR", required = true, value_hint = ValueHint::DirPath)]
    folders: Vec<PathBuf>,

    /// Use the interpreter, node by node without passes, in place of compiled code
    #[arg(long)]
    reference: bool,

    /// Run only cases with this in their names, or whose names are of this form, as test_add*; several times: any
    #[arg(long, value_name = "TEXT|PATTERN")]
    filter: Vec<String>,

    /// A list of cases that are known not to pass: a name, a tab and the reason on each line. The others must pass,
    /// and these must not
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    allow: Option<PathBuf>,

    /// Machine to compile for: host, x86-64-v2, x86-64-v3, x86-64-v4, x86-64-amx, aarch64, riscv64
    #[arg(long, value_name = "NAME", default_value = "host")]
    target: String,

    /// Cases to run at a time [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Relative tolerance, in place of that of each case
    #[arg(long, value_name = "NUMBER", value_parser = parse_tolerance)]
    rtol: Option<f64>,

    /// Absolute tolerance, in place of that of each case
    #[arg(long, value_name = "NUMBER", value_parser = parse_tolerance)]
    atol: Option<f64>,

    /// Print no lines for cases that pass and for those that are listed
    #[arg(long)]
    quiet: bool,

    /// Print a JSON object on each line: name, status (pass, fail or unsupported), reason, max_ulp
    #[arg(long)]
    json: bool,
}

fn parse_tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number that is not negative, as 1e-3".to_owned())
}

/// Runs the cases.
///
/// **Errors**: a folder holds no cases, the list cannot be read, or code for the target does not run here.
pub(crate) fn run(args: &OnnxTestArgs) -> Result<Status, Failure> {
    let profile = Profile::by_name(&args.target)?;
    if !args.reference {
        profile.runs_here()?;
    }
    let mut allowed = match &args.allow {
        Some(path) => Allowed::read(path)?,
        None => Allowed::default(),
    };
    let patterns: Vec<Pattern> = args.filter.iter().map(|text| Pattern::new(text)).collect();
    let wanted = |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name));
    let mut cases = Vec::new();
    for folder in &args.folders {
        cases.extend(conformance::find_cases(folder)?.into_iter().filter(|case| wanted(&case.name)));
    }
    if cases.is_empty() {
        return Err(Failure::new("no case has a name that --filter asks for"));
    }
    let settings = Settings {
        reference: args.reference,
        options: Options { target: args.target.clone(), ..Options::default() },
        rtol: args.rtol,
        atol: args.atol,
    };
    let mut counts = Counts::default();
    let mut printed = Ok(());
    work::in_order(
        &cases,
        jobs(args),
        |case| conformance::run_case(case, &settings),
        |outcome| {
            let is_allowed = allowed.take(&outcome.name);
            counts.add(&outcome, is_allowed);
            if printed.is_ok() {
                printed = show(args, &outcome, is_allowed);
            }
        },
    )?;
    printed?;
    counts.gone = allowed.left().filter(|name| wanted(name)).map(str::to_owned).collect();
    finish(args, &cases, &counts)
}

fn jobs(args: &OnnxTestArgs) -> usize {
    let all = || std::thread::available_parallelism().ok();
    args.jobs.or_else(all).map_or(1, NonZeroUsize::get)
}

/// What has been seen so far.
#[derive(Default)]
struct Counts {
    pass: usize,
    fail: usize,
    unsupported: usize,
    /// Of those that did not pass, how many are on the list.
    allowed: usize,
    /// On the list, but passed.
    stale: Vec<String>,
    /// On the list, but not there.
    gone: Vec<String>,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome, is_allowed: bool) {
        match outcome.status {
            Verdict::Pass => self.pass += 1,
            Verdict::Fail => self.fail += 1,
            Verdict::Unsupported => self.unsupported += 1,
        }
        match (outcome.status, is_allowed) {
            (Verdict::Pass, true) => self.stale.push(outcome.name.clone()),
            (_, true) => self.allowed += 1,
            (_, false) => {}
        }
    }
}

fn show(args: &OnnxTestArgs, outcome: &Outcome, is_allowed: bool) -> Result<(), Failure> {
    if args.quiet && (is_allowed || outcome.status == Verdict::Pass) {
        return Ok(());
    }
    if args.json {
        return output::print(&(serde_json::to_string(outcome)? + "\n"));
    }
    let status = match outcome.status {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Unsupported => "unsupported",
    };
    let ulp = outcome.max_ulp.map_or_else(|| "-".to_owned(), |ulp| ulp.to_string());
    let mut line = format!("{status:<11} {:<70} max ulp {ulp}", outcome.name);
    if let Some(reason) = &outcome.reason {
        // One line a case, whatever the message.
        let words: Vec<&str> = reason.split_whitespace().collect();
        line.push_str(&format!("{} {}", if is_allowed { " (listed)" } else { "" }, words.join(" ")));
    }
    output::print(&(line + "\n"))
}

fn finish(args: &OnnxTestArgs, cases: &[Case], counts: &Counts) -> Result<Status, Failure> {
    let Counts { pass, fail, unsupported, allowed, stale, gone } = counts;
    let mut text = format!("{} cases: {pass} pass, {fail} fail, {unsupported} unsupported", cases.len());
    if args.allow.is_some() {
        text.push_str(&format!("; {allowed} of those that do not pass are listed"));
    }
    for name in stale {
        text.push_str(&format!("\nlisted as not passing, but passes: {name}"));
    }
    for name in gone {
        text.push_str(&format!("\nlisted as not passing, but there is no such case: {name}"));
    }
    if args.json {
        // Standard output has an object a line and nothing else.
        output::note(&text);
    } else {
        output::print(&(text + "\n"))?;
    }
    let as_it_should_be = fail + unsupported == *allowed && stale.is_empty() && gone.is_empty();
    Ok(if as_it_should_be { Status::Done } else { Status::CheckFailed })
}
