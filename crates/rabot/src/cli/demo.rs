//! `rabot demo`: a small trained network, compiled in five ways.

use super::args::BuildArgs;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::Args;
use rabot::ir::Graph;
use rabot::onnx::import_bytes;
use rabot::rewrite::Step;
use rabot::{Compiled, Options, Session, Tensor, Tensors, npz};
use rabot_debug::count_kernels;
use serde::Serialize;
use std::time::{Duration, Instant};

const AFTER: &str = "The network reads handwritten digits; the test images were not seen in training. demo/README.md says how it was
trained and where the images come from. --pipeline adds a row of your own.

Examples:
  rabot demo
  rabot demo --digit 17
  rabot demo --target x86-64-v2 --pipeline fold,fuse,prune{sparsity=0.8},dce,group";

const MODEL: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits.onnx"));
const TEST: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits-test.npz"));
const CALIBRATION: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits-calibration.npz"));

/// Ways to prune, the most wanted first: that which makes tensors smaller is faster on any machine.
const PRUNE: [&str; 2] = ["prune{pattern=channel}", "prune"];
const QUANTIZE: &str = "quantize";

/// Points of accuracy that pruning may cost.
const MAX_LOSS: f64 = 1.0;

/// Times are taken in turns, so that a busy moment of the machine falls on all rows.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(20);

/// Width and height of an image.
const SIDE: usize = 8;

/// Compile a trained network in five ways, measure it, and let it read a digit
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    build: BuildArgs,

    /// The test image to read, from 0
    #[arg(long, value_name = "N", default_value = "0")]
    digit: usize,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One way to compile the network.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    pipeline: String,
    kernels: usize,
    weight_bytes: u64,
    compile_ms: f64,
    latency_us: f64,
    accuracy_percent: f64,
    passes: Vec<PassCount>,
    #[serde(skip)]
    session: Session,
}

#[derive(Serialize)]
struct PassCount {
    pass: String,
    applied: usize,
    skipped: usize,
}

/// What the network says of one image.
#[derive(Serialize)]
struct Reading {
    index: usize,
    answer: usize,
    probability: f64,
    label: i64,
    pixels: Vec<f32>,
}

/// The network and its data.
struct Demo<'a> {
    args: &'a DemoArgs,
    graph: Graph,
    options: Options,
    images: Tensor,
    labels: Vec<i64>,
}

/// Runs the demo.
///
/// **Errors**: there is no such target or image, or a pipeline that cannot be run.
pub(crate) fn run(args: &DemoArgs) -> Result<Status, Failure> {
    let demo = Demo::new(args)?;
    if args.digit >= demo.labels.len() {
        let last = demo.labels.len().saturating_sub(1);
        return Err(Failure::new(format!("--digit {}: the test images are 0 to {last}", args.digit)));
    }
    let progress = Progress::new("compiling");
    let mut rows = demo.rows()?;
    progress.now("taking times");
    demo.time(&mut rows)?;
    drop(progress);
    let fused =
        rows.iter().find(|row| row.name == "fused").ok_or_else(|| Failure::new("there is no fused row"))?;
    let reading = demo.read(fused)?;
    if args.json {
        let target = args.build.options()?.target;
        let images = demo.labels.len();
        let found = serde_json::json!({ "target": target, "images": images, "rows": rows, "digit": reading });
        output::print_json(&found)?;
    } else {
        output::print(&text(&rows, &reading, demo.labels.len()))?;
    }
    Ok(Status::Done)
}

impl<'a> Demo<'a> {
    fn new(args: &'a DemoArgs) -> Result<Self, Failure> {
        let mut options = args.build.options()?;
        options.calibration = vec![npz::read_npz_bytes(CALIBRATION, "digits-calibration.npz")?];
        let graph = import_bytes(MODEL.to_vec().into(), None, &options.limits)?.graph;
        let mut test = npz::read_npz_bytes(TEST, "digits-test.npz")?;
        let missing = |name: &str| Failure::new(format!("digits-test.npz holds no `{name}`"));
        let images = test.shift_remove("image").ok_or_else(|| missing("image"))?;
        let labels = test.shift_remove("label").ok_or_else(|| missing("label"))?.to_i64s();
        Ok(Demo { args, graph, options, images, labels })
    }

    fn rows(&self) -> Result<Vec<Row>, Failure> {
        let with = rabot::passes::default_pipeline_with;
        let mut rows = vec![
            self.row("f32", String::new())?,
            self.row("fused", with(""))?,
            self.row("int8", with(QUANTIZE))?,
        ];
        let prune = self.pruning(&mut rows)?;
        rows.push(self.row("both", with(&format!("{prune},{QUANTIZE}")))?);
        if let Some(pipeline) = &self.args.build.pipeline {
            rows.push(self.row("yours", pipeline.clone())?);
        }
        Ok(rows)
    }

    /// Adds the row of the first way to prune that costs no more than it may and makes the network smaller, or of the
    /// last one.
    fn pruning(&self, rows: &mut Vec<Row>) -> Result<&'static str, Failure> {
        let (accuracy, bytes) = rows.first().map_or((0.0, 0), |row| (row.accuracy_percent, row.weight_bytes));
        let mut last = None;
        for prune in PRUNE {
            let row = self.row("pruned", rabot::passes::default_pipeline_with(prune))?;
            let good = row.accuracy_percent >= accuracy - MAX_LOSS && row.weight_bytes < bytes * 9 / 10;
            last = Some((prune, row));
            if good {
                break;
            }
        }
        let (prune, row) = last.ok_or_else(|| Failure::new("there is no way to prune"))?;
        rows.push(row);
        Ok(prune)
    }

    fn row(&self, name: &'static str, pipeline: String) -> Result<Row, Failure> {
        let options = Options { pipeline: Some(pipeline.clone()), ..self.options.clone() };
        let start = Instant::now();
        let Compiled { program, graph, steps } = rabot::compile_graph(self.graph.clone(), &options)?;
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        let session = Session::with_threads(&program, self.args.build.threads())?;
        let logits = logits(&session, &self.images)?;
        let answers = logits.chunks(classes(&logits, self.labels.len())).map(|row| largest(row) as i64);
        let right = answers.zip(&self.labels).filter(|(answer, label)| answer == *label).count();
        Ok(Row {
            name,
            pipeline,
            kernels: count_kernels(&program),
            weight_bytes: rabot::rewrite::Stats::of(&graph).constants_bytes,
            compile_ms,
            latency_us: 0.0,
            accuracy_percent: 100.0 * right as f64 / self.labels.len().max(1) as f64,
            passes: steps.iter().map(PassCount::of).collect(),
            session,
        })
    }

    /// Takes the median time for one image.
    fn time(&self, rows: &mut [Row]) -> Result<(), Failure> {
        let inputs = Tensors::from_iter([("image".to_owned(), self.image(self.args.digit)?)]);
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); rows.len()];
        for turn in 0..=TURNS {
            for (row, times) in rows.iter().zip(&mut times) {
                let start = Instant::now();
                while start.elapsed() < TURN {
                    let run = Instant::now();
                    row.session.run_with(&inputs, &mut |_, _| {})?;
                    times.push(run.elapsed().as_secs_f64() * 1e6);
                }
                if turn == 0 {
                    // Caches and predictors are cold.
                    times.clear();
                }
            }
        }
        for (row, mut times) in rows.iter_mut().zip(times) {
            times.sort_by(f64::total_cmp);
            row.latency_us = times.get(times.len() / 2).copied().unwrap_or(0.0);
        }
        Ok(())
    }

    /// One image, as a batch of one.
    fn image(&self, index: usize) -> Result<Tensor, Failure> {
        let pixels = self.images.to_slice::<f32>()?;
        let pixels = pixels.chunks(SIDE * SIDE).nth(index);
        let pixels = pixels.filter(|pixels| pixels.len() == SIDE * SIDE);
        let pixels = pixels.ok_or_else(|| Failure::new(format!("there is no test image {index}")))?;
        Ok(Tensor::from_vec(&[1, 1, SIDE, SIDE], pixels.to_vec()))
    }

    fn read(&self, row: &Row) -> Result<Reading, Failure> {
        let index = self.args.digit;
        let image = self.image(index)?;
        let logits = logits(&row.session, &image)?;
        let answer = largest(&logits);
        let highest = logits.get(answer).copied().unwrap_or(0.0);
        let sum: f64 = logits.iter().map(|logit| (logit - highest).exp()).sum();
        let label = self.labels.get(index).copied().unwrap_or(-1);
        let pixels = image.to_slice::<f32>()?.to_vec();
        Ok(Reading { index, answer, probability: 1.0 / sum, label, pixels })
    }
}

impl PassCount {
    fn of(step: &Step) -> Self {
        let report = &step.report;
        PassCount { pass: step.pass.clone(), applied: report.applied.len(), skipped: report.skipped.len() }
    }
}

fn logits(session: &Session, images: &Tensor) -> Result<Vec<f64>, Failure> {
    let inputs = Tensors::from_iter([("image".to_owned(), images.clone())]);
    let outputs = session.run(&inputs)?;
    let logits = outputs.get("logits").ok_or_else(|| Failure::new("the network has no output `logits`"))?;
    Ok(logits.to_f64s())
}

fn classes(logits: &[f64], images: usize) -> usize {
    (logits.len() / images.max(1)).max(1)
}

/// Index of the largest element.
fn largest(row: &[f64]) -> usize {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(index, _)| index)
}

fn text(rows: &[Row], reading: &Reading, images: usize) -> String {
    let mut table = output::table(&["network", ">kernels", ">weight bytes", ">µs per image", ">accuracy %"]);
    for row in rows {
        table.add_row([
            row.name.to_owned(),
            row.kernels.to_string(),
            row.weight_bytes.to_string(),
            format!("{:.1}", row.latency_us),
            format!("{:.2}", row.accuracy_percent),
        ]);
    }
    let mut text = format!("{table}\n\n");
    text.push_str(&format!("accuracy on {images} test images; time of one image, median\n\n"));
    for row in rows {
        text.push_str(&format!("{:<7}compiled in {:.1} ms; {}\n", row.name, row.compile_ms, did(row)));
    }
    text.push_str(&format!("\ntest image {}:\n\n{}\n", reading.index, drawing(&reading.pixels)));
    let right = if reading.answer as i64 == reading.label { "right" } else { "wrong" };
    text.push_str(&format!(
        "The model says {} with {:.2} % probability. It is {}: {right}.\n",
        reading.answer,
        100.0 * reading.probability,
        reading.label
    ));
    text
}

/// What the passes of a row did, in words.
fn did(row: &Row) -> String {
    if row.passes.is_empty() {
        return "no passes".to_owned();
    }
    let active = row.passes.iter().filter(|pass| pass.applied > 0);
    let counts: Vec<String> = active.map(|pass| format!("{} {}", pass.pass, pass.applied)).collect();
    if counts.is_empty() {
        "no pass changed anything".to_owned()
    } else {
        format!("changes: {}", counts.join(", "))
    }
}

/// An image in characters, each pixel two wide.
fn drawing(pixels: &[f32]) -> String {
    const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
    let shade = |pixel: &f32| {
        let level = (pixel.clamp(0.0, 1.0) * (SHADES.len() - 1) as f32).round() as usize;
        SHADES.get(level).copied().unwrap_or(' ')
    };
    let line = |row: &[f32]| {
        let text: String = row.iter().map(shade).flat_map(|c| [c, c]).collect();
        format!("    {}\n", text.trim_end())
    };
    pixels.chunks(SIDE).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_two_characters_wide() {
        let mut pixels = vec![0.0; SIDE * SIDE];
        (pixels[1], pixels[2], pixels[9]) = (1.0, 0.5, 0.25);
        let drawn = drawing(&pixels);
        assert_eq!(drawn.lines().count(), SIDE);
        assert!(drawn.starts_with("      ██▒▒\n      ░░\n"), "{drawn}");
    }

    #[test]
    fn the_largest_logit_is_the_answer() {
        assert_eq!(largest(&[0.5, -1.0, 3.0, 2.0]), 2);
        assert_eq!(classes(&[0.0; 20], 2), 10);
    }
}
