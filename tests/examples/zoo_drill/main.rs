//! The fault drill on models of the zoo: faults are planted in passes and kernels, and bisecting has to name each one.
//!
//! ```text
//! cargo run --release -p rabot-tests --example zoo_drill [MODEL…]
//! ```
//!
//! Models and inputs are those of the cache, `$RABOT_ZOO` or `~/.cache/rabot-zoo`; one that is not there is told and left
//! out. Every fault is switched on by a wrapper of the drill in `tests/tests/drill`; the product has none of it.

#[path = "../../tests/drill/faults.rs"]
mod faults;
#[path = "../../tests/drill/half.rs"]
mod half;
#[path = "../../tests/drill/kernels.rs"]
mod kernels;
#[path = "../../tests/drill/plant.rs"]
mod plant;
#[path = "../../tests/drill/rewrites.rs"]
mod rewrites;

use faults::{FAULTS, HALF, PRUNED, QUANTIZED};
use kernels::{KERNELS, kernel_faults};
use plant::{Model, Row, judge, near_right};
use rabot::npz::read_npz;
use rabot_debug::bisect::Check;
use rabot_passes::{DEFAULT_PIPELINE, default_pipeline_with};
use rewrites::{Kind, rewrites};
use std::path::{Path, PathBuf};

/// Faults of rewrites, of kernels and of layers in integers that are planted in each model: the next ones of the lists in
/// turn, whether the models before take part or not.
const EACH: (usize, usize, usize) = (4, 1, 4);

/// Kinds of pipelines that a model is drilled with besides the default one.
#[derive(Clone, Copy, Default)]
struct Also {
    int8: bool,
    half: bool,
    prune: bool,
}

const NONE: Also = Also { int8: false, half: false, prune: false };

const MODELS: [(&str, Also); 9] = [
    ("digits", Also { int8: true, half: true, prune: true }),
    ("efficientnet-lite0", Also { int8: true, ..NONE }),
    ("magika", Also { half: true, ..NONE }),
    ("silero-vad", NONE),
    ("minilm-l6-v2", Also { half: true, ..NONE }),
    ("ssd-mobilenet-v2-coco", NONE),
    ("whisper-tiny-en-encoder", NONE),
    ("ppocrv4-rec", NONE),
    ("openwakeword-embedding", Also { int8: true, prune: true, ..NONE }),
];

fn zoo() -> PathBuf {
    let given = std::env::var_os("RABOT_ZOO").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/rabot-zoo");
    given.unwrap_or_else(home)
}

/// A model of the cache; `None` if it, or inputs for it, are not there.
fn load(name: &str) -> Option<Model> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(format!("{name}.onnx"));
    let cached = zoo().join("models").join(name).join("model.onnx");
    let path = if demo.exists() { demo } else { cached };
    let inputs = zoo().join("checks").join(name).join("inputs-0.npz");
    if !path.exists() || !inputs.exists() {
        return None;
    }
    let graph = rabot::import(&path, &rabot::Options::default()).unwrap().graph;
    let mut inputs = read_npz(&inputs).unwrap();
    inputs.retain(|name, _| graph.inputs().iter().any(|&id| *graph.node(id).name == **name));
    Some(Model { name: name.to_owned(), graph, inputs: vec![inputs] })
}

/// The next few of a list that is gone through again and again.
fn next<T: Clone>(list: &[T], from: &mut usize, count: usize) -> Vec<T> {
    let taken = list.iter().cycle().skip(*from).take(count.min(list.len())).cloned().collect();
    *from = (*from + count) % list.len();
    taken
}

/// Where a model begins in the lists: its number in [`MODELS`] and among those in integers.
fn turns(at: usize) -> [usize; 3] {
    let integers = MODELS.iter().take(at).filter(|(_, also)| also.int8).count();
    [at * EACH.0 % FAULTS.len(), at * EACH.1 % KERNELS.len(), integers * EACH.2 % QUANTIZED.len()]
}

fn drill(model: &Model, also: Also, mut turns: [usize; 3], rows: &mut Vec<Row>) {
    // Each fault that has no place in this model gives way to the next.
    let (enough, mut tries) = (rows.len() + EACH.0, 0);
    while rows.len() < enough && tries < FAULTS.len() {
        let fault = next(&FAULTS, &mut turns[0], 1);
        rewrites(model, DEFAULT_PIPELINE, &fault, Kind::Any, &Check::Tolerance, 1, rows);
        tries += 1;
    }
    let (enough, mut tries) = (rows.len() + EACH.1, 0);
    while rows.len() < enough && tries < KERNELS.len() {
        kernel_faults(model, &next(&KERNELS, &mut turns[1], 1), 1, rows);
        tries += 1;
    }
    if also.int8 {
        let int8 = default_pipeline_with("quantize");
        let check = near_right(model, &int8, 3.0);
        let faults = next(&QUANTIZED, &mut turns[2], EACH.2);
        rewrites(model, &int8, &faults, Kind::Parameter, &check, 1, rows);
    }
    if also.half {
        let half = DEFAULT_PIPELINE.replace(",group", ",half,group");
        rewrites(model, &half, &HALF, Kind::Rule("half"), &near_right(model, &half, 6.0), 1, rows);
    }
    if also.prune {
        let pruned = default_pipeline_with("prune{sparsity=0.3}");
        rewrites(model, &pruned, &PRUNED, Kind::Pass("prune"), &near_right(model, &pruned, 3.0), 1, rows);
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut rows = Vec::new();
    for (at, (name, also)) in MODELS.into_iter().enumerate() {
        if !wanted.is_empty() && !wanted.iter().any(|other| other == name) {
            continue;
        }
        let Some(model) = load(name) else {
            println!("skipped: {name} is not in {}", zoo().display());
            continue;
        };
        // Places go by the number of faults in this model, so that it is drilled the same alone and among others.
        let mut own = Vec::new();
        drill(&model, also, turns(at), &mut own);
        println!("{name}: {} faults", own.len());
        rows.append(&mut own);
    }
    if wanted.is_empty() {
        judge(&rows, 40);
    } else {
        judge(&rows, wanted.len());
    }
}
