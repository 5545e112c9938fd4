//! Writes random models, and what rabot computes with them in three ways, for `tests/onnx/random_graphs.py`.
//!
//! ```text
//! cargo run -p rabot-tests --example random_models -- --count 100 --seed 1 --out DIR
//! ```
//!
//! Model SEED is `DIR/SEED.onnx`, with `DIR/SEED.npz` beside it:
//!
//! - `inputs/NAME`: an input;
//! - `O0/NAME`: an output, by the interpreter from the graph as it is;
//! - `tolerance/NAME`: how far rounding can move that output, relative to its largest element (see
//!   `rabot_debug::tolerance`);
//! - `O3/NAME`: the output by the interpreter after the default pipeline;
//! - `compiled/NAME`: the output of the compiled program.
//!
//! Models are drawn until one holds only what other programs run: no `BitCast`, which ONNX Runtime lacks, no tensors of
//! 2 or 4 bits, which numpy lacks, and no form of an operator that is rabot's own.
//!
//! What differs by more than the tolerance between the three is printed, and the exit code is 1 then. A graph has 5 to
//! 40 operators.

use rabot::npz::write_npz;
use rabot_debug::tolerance::{self, Tolerance};
use rabot_debug::{Difference, Verdict};
use rabot_ir::interp::{self, Tensors};
use rabot_ir::testing::random_graph;
use rabot_ir::text::{SplitMix64, print};
use rabot_ir::{Graph, Op};
use rabot_onnx::{ExportOptions, Model, export_file};
use rabot_target::Profile;
use rabot_tensor::{DType, Tensor};
use rabot_tests::{optimized, program};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Fewest and most operators of a graph, about.
const SIZES: (usize, usize) = (5, 40);

struct Arguments {
    count: u64,
    seed: u64,
    out: PathBuf,
}

fn arguments() -> Result<Arguments, String> {
    let (mut count, mut seed, mut out) = (100, 1, None);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}"));
        match flag.as_str() {
            "--count" => count = number()?,
            "--seed" => seed = number()?,
            "--out" => out = Some(PathBuf::from(&value)),
            _ => return Err(format!("{flag}: there are --count N, --seed S and --out DIR")),
        }
    }
    Ok(Arguments { count, seed, out: out.ok_or("--out DIR says where the models go")? })
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Writes all models; gives how many of them rabot computes differently in two ways.
fn run() -> Result<usize, String> {
    let Arguments { count, seed, out } = arguments()?;
    std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let profile = Profile::by_name("host").map_err(|error| error.to_string())?;
    let mut wrong = 0;
    for seed in seed..seed.saturating_add(count) {
        let (graph, inputs) = draw(seed)?;
        for line in one(&graph, &inputs, &profile, &out.join(seed.to_string()))? {
            wrong += 1;
            println!("{seed}: {line}");
        }
    }
    println!("{count} models, {wrong} disagreements of rabot with itself");
    Ok(wrong)
}

/// The graph of a seed.
///
/// **Errors**: none of many draws is fit for other programs.
fn draw(seed: u64) -> Result<(Graph, Tensors), String> {
    const DRAWS: u64 = 100;
    let size = SIZES.0 + SplitMix64::new(seed ^ 0x5eed).below(SIZES.1 - SIZES.0 + 1);
    let mut draws = (0..DRAWS).map(|draw| random_graph(seed.wrapping_add(draw << 32), size));
    let found = draws.find(|(graph, _)| is_common(graph));
    found.ok_or_else(|| format!("seed {seed}: none of {DRAWS} graphs is one that other programs run"))
}

/// True if other programs run all of a graph.
fn is_common(graph: &Graph) -> bool {
    let is_common_type = |dtype: DType| {
        !matches!(dtype, DType::I2 | DType::U2 | DType::I4 | DType::U4 | DType::F4E2M1)
            && !matches!(dtype, DType::F6E2M3 | DType::F6E3M2)
    };
    graph.node_ids().all(|id| {
        let node = graph.node(id);
        let own_form = matches!(node.op, Op::QLinearMatMul(_)) && node.inputs.len() > 8;
        !matches!(node.op, Op::BitCast(_))
            && !own_form
            && node.outputs.iter().all(|output| is_common_type(output.fact.dtype()))
            && node.op.regions().into_iter().all(|(_, region)| is_common(region))
    })
}

/// Writes one model and its numbers; gives what differs.
fn one(graph: &Graph, inputs: &Tensors, profile: &Profile, stem: &Path) -> Result<Vec<String>, String> {
    let failed = |what: &str, error: String| format!("{}: {what}: {error}\n{}", stem.display(), print(graph));
    let model = Model::of_graph(graph.clone());
    let options = ExportOptions::default();
    export_file(&model, &stem.with_extension("onnx"), &options)
        .map_err(|e| failed("export", e.to_string()))?;
    let expected = interp::run(graph, inputs).map_err(|e| failed("interpreter", e.to_string()))?;
    let tolerances = tolerance::for_outputs(graph, inputs).map_err(|e| failed("tolerance", e.to_string()))?;
    let mut stored = Tensors::new();
    let mut store = |group: &str, tensors: &Tensors| {
        stored.extend(tensors.iter().map(|(name, tensor)| (format!("{group}/{name}"), tensor.clone())));
    };
    store("inputs", inputs);
    store("O0", &expected);
    let relative = |name: &String| tolerances.get(name).copied().unwrap_or_default().relative();
    store("tolerance", &expected.keys().map(|name| (name.clone(), Tensor::scalar(relative(name)))).collect());
    let mut lines = Vec::new();
    let fast = optimized(graph).map_err(|e| failed("pipeline", e))?;
    let ways: [(&str, Result<Tensors, String>); 2] = [
        ("O3", interp::run(&fast, inputs).map_err(|e| e.to_string())),
        ("compiled", compiled(&fast, inputs, profile)),
    ];
    for (way, found) in ways {
        match found {
            Ok(found) => {
                lines
                    .extend(differences(&expected, &found, &tolerances).map(|line| format!("{way}: {line}")));
                store(way, &found);
            }
            Err(error) => lines.push(format!("{way}: {error}")),
        }
    }
    let path = stem.with_extension("npz");
    let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    write_npz(BufWriter::new(file), &stored).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(lines)
}

fn compiled(graph: &Graph, inputs: &Tensors, profile: &Profile) -> Result<Tensors, String> {
    let program = program(graph, profile)?;
    let session = rabot::Session::new(&program).map_err(|error| error.to_string())?;
    session.run(inputs).map_err(|error| error.to_string())
}

/// What differs by more than the tolerance, in words.
fn differences<'a>(
    expected: &'a Tensors,
    found: &'a Tensors,
    tolerances: &'a BTreeMap<String, Tolerance>,
) -> impl Iterator<Item = String> + 'a {
    expected.iter().filter_map(move |(name, expected)| {
        let Some(found) = found.get(name) else { return Some(format!("{name} is missing")) };
        let Some(difference) = Difference::of(found, expected) else {
            return Some(format!("{name} is {}{:?}", found.dtype(), found.shape()));
        };
        let tolerance = tolerances.get(name).copied().unwrap_or_default();
        let exceeds = tolerance.judge(expected.dtype(), &difference) == Verdict::Exceeds;
        exceeds.then(|| {
            let (off, allowed) = (difference.max_abs, tolerance.relative() * difference.max_reference);
            format!("{name} is off by {off:e}, and {allowed:e} is allowed")
        })
    })
}
