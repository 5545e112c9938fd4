//! What the fuzz targets do with bytes. The tests of the workspace call the same functions on the corpus and on past
//! findings, so this file depends on nothing that only a fuzzer has.

#![forbid(unsafe_code)]

use prost::Message;
use rabot::debug::{Difference, Verdict, tolerance};
use rabot::ir::interp::{self, Tensors};
use rabot::ir::testing::{random_graph, random_graph_of};
use rabot::ir::verify::verify;
use rabot::ir::{Form, Graph, Op, ValueType, text};
use rabot::onnx::wire::ModelProto;
use rabot::onnx::{Limits, import_bytes, outline_bytes, read_datum, read_tensor};
use rabot::passes::default_pipeline;
use rabot::rewrite::{Exactness, PassCx};
use rabot::{DType, Options, Profile, Program, Session, Tensor, npz};
use rabot_filetest::difference;

/// Does something with bytes; panics where that goes wrong.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("wire", wire),
    ("import", import),
    ("compile", compile),
    ("text", text),
    ("npz", npz),
    ("pb", pb),
    ("differential", differential),
];

/// Small enough that no input of a fuzzer takes long.
fn limits() -> Limits {
    Limits {
        file_bytes: 1 << 20,
        nodes: 2_000,
        nesting_depth: 16,
        tensor_bytes: 1 << 20,
        sparse_bytes: 1 << 16,
        ..Limits::default()
    }
}

/// Bytes as a model file: what can be decoded is what is written again.
///
/// **Panics** if a message is not the same after it was written and read.
pub fn wire(data: &[u8]) {
    if outline_bytes(data.to_vec().into(), &limits()).is_err() {
        return;
    }
    let first = ModelProto::decode(data).expect("an outline was made of it");
    let bytes = first.encode_to_vec();
    let again = ModelProto::decode(&bytes[..]).expect("it was just written");
    // NaN is not equal to itself: bytes are compared.
    assert_eq!(again.encode_to_vec(), bytes);
}

/// Bytes as a model: what is imported is a valid graph.
///
/// **Panics** if the graph is not valid.
pub fn import(data: &[u8]) {
    drop(imported(data));
}

fn imported(data: &[u8]) -> Option<Graph> {
    let model = import_bytes(data.to_vec().into(), None, &limits()).ok()?;
    verify(&model.graph).unwrap_or_else(|problems| panic!("{problems}"));
    Some(model.graph)
}

/// Bytes as a model that goes through all passes and is planned.
///
/// **Panics** if a pass leaves a graph that is not valid.
pub fn compile(data: &[u8]) {
    let Some(mut graph) = imported(data) else { return };
    if rabot::optimize(&mut graph, &Options::default(), &mut |_, _| {}).is_err() {
        return;
    }
    let Ok(profile) = Profile::by_name("x86-64-v3") else { return };
    drop(rabot::lower(&graph, &profile));
}

/// Bytes as `.rbt` text: what can be read is what is printed and read again.
///
/// **Panics** if a graph is not the same after it was printed and read.
pub fn text(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(first) = text::parse(source) else { return };
    let printed = text::print(&first);
    let again = text::parse_module(&printed, &text::blobs(&first));
    let again = again.unwrap_or_else(|error| panic!("{error}\n{printed}")).graph;
    assert_eq!(text::print(&again), printed);
}

/// Bytes as an npz file.
pub fn npz(data: &[u8]) {
    drop(npz::read_npz_bytes(data, "fuzz.npz"));
}

/// Bytes as a value in a file of its own; the first byte says of which type.
pub fn pb(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let (bytes, limits) = (rest.to_vec(), limits());
    let tensor = ValueType::unranked(DType::F32);
    let ty = match kind % 5 {
        0 => return drop(read_tensor(bytes.into(), "fuzz.pb", &limits)),
        1 => ValueType::sequence(tensor),
        2 => ValueType::optional(tensor),
        3 => ValueType::map(DType::I64, tensor),
        _ => ValueType::optional(ValueType::sequence(tensor)),
    };
    debug_assert!(ty.form != Form::Tensor);
    drop(read_datum(bytes.into(), &ty, "fuzz.pb", &limits));
}

/// What may differ between two evaluations of a random graph: see `tests/tests/differential.rs`.
const ROUNDING: f64 = 8.0 * 16.0;

/// Bytes as choices: 8 of them seed a valid graph, one says how large it is, one which op is in it. The interpreter
/// and compiled code must give the same, with passes and without.
///
/// **Panics** if they do not.
pub fn differential(data: &[u8]) {
    let Some((seed, [size, op, ..])) = data.split_first_chunk::<8>() else { return };
    let (seed, size) = (u64::from_le_bytes(*seed), usize::from(size % 12) + 1);
    let (graph, inputs) = match drawn_ops().get(usize::from(*op)) {
        Some(name) => random_graph_of(seed, size.min(3), &[name]),
        None => random_graph(seed, size),
    };
    let Ok(expected) = interp::run(&graph, &inputs) else { return };
    let profile = Profile::by_name("host").unwrap_or_else(|error| panic!("{error}"));
    let mut passed = graph.clone();
    let piped = default_pipeline().run(&mut passed, &PassCx::default(), &mut |_, _| {});
    piped.unwrap_or_else(|error| panic!("{error}\n{}", text::print(&graph)));
    for graph in [&graph, &passed] {
        if let Err(problem) = same(graph, &profile, &inputs, &expected) {
            panic!("{problem}\n{}", text::print(graph));
        }
    }
}

/// Ops that random graphs are made of.
fn drawn_ops() -> Vec<&'static str> {
    let drawn = include_str!("../../crates/ir/src/testing/drawn.txt");
    let names = Op::names();
    names.into_iter().filter(|name| drawn.lines().any(|line| line == *name)).collect()
}

fn same(graph: &Graph, profile: &Profile, inputs: &Tensors, expected: &Tensors) -> Result<(), String> {
    let plan = rabot::lower(graph, profile).map_err(|error| error.to_string())?;
    let program = Program::new(plan, profile).map_err(|error| error.to_string())?;
    let session = Session::with_threads(&program, 2).map_err(|error| error.to_string())?;
    let actual = session.run(inputs).map_err(|error| error.to_string())?;
    for (name, expected) in expected {
        let actual = actual.get(name).ok_or_else(|| format!("output `{name}` is missing"))?;
        if let Some(text) = difference(expected, actual, allowed(expected))
            && !is_explained(graph, inputs, name, actual, expected)?
        {
            return Err(format!("output `{name}`: {text}"));
        }
    }
    Ok(())
}

/// True if rounding can move an output that far: a sum whose terms cancel is worse conditioned than random graphs are
/// made to be.
fn is_explained(
    graph: &Graph,
    inputs: &Tensors,
    name: &str,
    actual: &Tensor,
    expected: &Tensor,
) -> Result<bool, String> {
    let tolerances = tolerance::for_outputs(graph, inputs).map_err(|error| error.to_string())?;
    let judged = tolerances.get(name).zip(Difference::of(actual, expected));
    Ok(judged.is_some_and(|(tolerance, off)| tolerance.judge(expected.dtype(), &off) != Verdict::Exceeds))
}

fn allowed(tensor: &Tensor) -> Exactness {
    let epsilon = match tensor.dtype() {
        DType::F64 => f64::EPSILON,
        DType::F16 => f64::powi(2.0, -10),
        DType::BF16 => f64::powi(2.0, -7),
        _ => f64::from(f32::EPSILON),
    };
    Exactness::Rel { rtol: ROUNDING * epsilon, atol: ROUNDING * epsilon * f64::from(f32::MIN_POSITIVE) }
}
