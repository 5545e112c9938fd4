//! `rabot bench`: how long a model takes.

use super::args::ModelArgs;
use super::inputs::{InputArgs, fill_random};
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::Args;
use rabot::{Session, Tensors};
use serde::Serialize;
use std::time::{Duration, Instant};

const AFTER: &str = "Without --inputs, --input or --random the inputs are made up, and symbolic dims that --dim does not give are 1.
compile_ms is the time from the file to a session that can run, load_ms the part of it that reads the file.

Examples:
  rabot bench model.onnx
  rabot bench model.onnx --dim batch=8 --threads 2 --seconds 5 --json
  rabot bench model.onnx --inputs in.npz --target x86-64-v3";

/// Runs that are made however long they take.
const MIN_RUNS: usize = 3;

/// Most runs whose times are kept.
const MAX_RUNS: usize = 1 << 20;

/// Measure compile time, run time and memory of a model
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    inputs: InputArgs,

    /// How long to run, in seconds
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_seconds, allow_negative_numbers = true)]
    seconds: f64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Measured {
    model: String,
    target: String,
    threads: usize,
    compile_ms: f64,
    load_ms: f64,
    median_ms: f64,
    p99_ms: f64,
    min_ms: f64,
    runs: usize,
    /// Most memory the process has had; absent where the system does not tell.
    peak_rss_mb: Option<f64>,
}

/// Measures a model.
///
/// **Errors**: the model or its inputs.
pub(crate) fn run(args: &BenchArgs) -> Result<Status, Failure> {
    let mut options = args.model.options()?;
    args.model.build.check_runs_here()?;
    let progress = Progress::new("compiling");
    let start = Instant::now();
    let model = args.model.import(&mut options)?;
    let load = start.elapsed();
    // Reading inputs is no part of compiling.
    let inputs = if args.inputs.is_empty() {
        let mut inputs = Tensors::new();
        fill_random(&model.graph, &mut inputs, 0)?;
        inputs
    } else {
        args.inputs.load_one(&model.graph)?
    };
    let resumed = Instant::now();
    let compiled = rabot::compile_graph(model.graph, &options)?;
    let session = args.model.session(&compiled.program)?;
    let compile = load + resumed.elapsed();
    progress.now("running");
    // Once warm, a session allocates nothing; the list of times below would count.
    session.run_with(&inputs, &mut |_, _| {})?;
    let peak_rss_mb = peak_rss_mb();
    let times = measure(&session, &inputs, Duration::from_secs_f64(args.seconds))?;
    drop(progress);
    let measured = Measured {
        model: args.model.model.display().to_string(),
        target: options.target.clone(),
        threads: args.model.build.threads(),
        compile_ms: ms(compile),
        load_ms: ms(load),
        median_ms: ms(quantile(&times, 0.5)),
        p99_ms: ms(quantile(&times, 0.99)),
        min_ms: ms(quantile(&times, 0.0)),
        runs: times.len(),
        peak_rss_mb,
    };
    if args.json {
        output::print_json(&measured)?;
    } else {
        output::print(&text(&measured))?;
    }
    Ok(Status::Done)
}

/// Times of runs of a warm session, sorted.
fn measure(session: &Session, inputs: &Tensors, limit: Duration) -> Result<Vec<Duration>, Failure> {
    // Reading an output keeps nothing from being computed and copies nothing.
    let mut read = |_: usize, bytes: &[u8]| {
        std::hint::black_box(bytes);
    };
    let mut times = Vec::with_capacity(MAX_RUNS);
    let start = Instant::now();
    while times.len() < MIN_RUNS || (start.elapsed() < limit && times.len() < MAX_RUNS) {
        let begin = Instant::now();
        session.run_with(inputs, &mut read)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// The time that a share of the runs did not exceed; the nearest one measured.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    // Nanoseconds are as fine as clocks are.
    (time.as_secs_f64() * 1e9).round() / 1e6
}

/// Most memory that the process has had, in 2^20 bytes, as Linux tells it.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}

fn text(measured: &Measured) -> String {
    let mut table = output::table(&["", ">value"]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("compile_ms", format!("{:.1}", measured.compile_ms));
    row("load_ms", format!("{:.1}", measured.load_ms));
    row("median_ms", format!("{:.4}", measured.median_ms));
    row("p99_ms", format!("{:.4}", measured.p99_ms));
    row("min_ms", format!("{:.4}", measured.min_ms));
    row("runs", measured.runs.to_string());
    row("peak_rss_mb", measured.peak_rss_mb.map_or_else(|| "-".to_owned(), |mb| format!("{mb:.1}")));
    format!("{}, target {}, threads {}\n\n{table}\n", measured.model, measured.target, measured.threads)
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "expected a number of seconds from 0 to 86400".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(ms(quantile(&times, 0.0)), 1.0);
        assert_eq!(ms(quantile(&times, 0.99)), 99.0);
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
