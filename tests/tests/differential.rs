//! Random graphs: the interpreter against compiled code, on every ISA level of this machine.
//!
//! Integers and booleans must be equal, NaN must be where NaN is. Floats may differ by rounding: random graphs have at
//! most eight rounding ops from an input to an output, each of which may add a few units in the last place of the
//! largest element (sums in another order, functions within some units), and which rewrites fold or reorder.

use rabot::{Program, Session};
use rabot_filetest::difference;
use rabot_ir::Graph;
use rabot_ir::interp::{self, Tensors};
use rabot_ir::testing::{drawn_ops, random_graph, random_graph_of, random_inputs};
use rabot_ir::text::print;
use rabot_rewrite::Exactness;
use rabot_target::Profile;
use rabot_tensor::{DType, Tensor};
use rabot_tests::{levels, optimized, program};

/// Rounding ops on a path of a random graph.
const DEPTH: f64 = 8.0;
/// Units in the last place of the largest element that each may add.
const ULPS: f64 = 16.0;
/// Graphs of all ops together; `RABOT_RANDOM_GRAPHS` is another number.
const SEEDS: u64 = 1000;
/// Sizes at which a symbolic program is run besides the one its graph was made with.
const SIZES: [usize; 2] = [1, 6];

/// Graphs of all ops.
fn seeds() -> u64 {
    let count = std::env::var("RABOT_RANDOM_GRAPHS").ok().and_then(|text| text.parse().ok());
    count.unwrap_or(SEEDS)
}

/// What floats of the dtype may differ by, as a factor of the largest magnitude; `cancels` is what values of that size
/// on the way may have cancelled to nothing.
fn allowed(dtype: DType, cancels: f64) -> Exactness {
    let epsilon = match dtype {
        DType::F64 => f64::EPSILON,
        DType::F16 => f64::powi(2.0, -10),
        DType::BF16 => f64::powi(2.0, -7),
        _ => f64::from(f32::EPSILON),
    };
    let rtol = DEPTH * ULPS * epsilon;
    Exactness::Rel { rtol, atol: rtol * cancels.max(f64::from(f32::MIN_POSITIVE)) }
}

fn compare(expected: &Tensors, actual: &Tensors, cancels: f64) -> Result<(), String> {
    for (name, expected) in expected {
        let actual = actual.get(name).ok_or_else(|| format!("output `{name}` is missing"))?;
        if let Some(text) = difference(expected, actual, allowed(expected.dtype(), cancels)) {
            return Err(format!("output `{name}`: {text}"));
        }
    }
    Ok(())
}

/// Runs on one, two and three threads, which must not change a bit.
fn run(program: &Program, inputs: &Tensors) -> Result<Tensors, String> {
    let on = |threads| {
        let session = Session::with_threads(program, threads).map_err(|e| e.to_string())?;
        session.run(inputs).map_err(|e| e.to_string())
    };
    let one: Tensors = on(1)?;
    let bits = |tensors: &Tensors| tensors.values().map(|t: &Tensor| t.bytes().to_vec()).collect::<Vec<_>>();
    for threads in [2, 3] {
        if bits(&on(threads)?) != bits(&one) {
            return Err(format!("{threads} threads give other bits than one"));
        }
    }
    Ok(one)
}

/// The inputs that came with the graph, and others of other sizes where it has symbols.
fn input_sets(graph: &Graph, inputs: &Tensors, seed: u64) -> Vec<(Tensors, Tensors)> {
    let mut sets = vec![inputs.clone()];
    if !graph.symbols().is_empty() {
        sets.extend(SIZES.iter().filter_map(|&size| random_inputs(graph, seed, &|_| Some(size)).ok()));
    }
    // What the interpreter refuses (an index out of range, an empty maximum) has no answer to compare with.
    let answered = sets.into_iter().filter_map(|inputs| {
        let expected = interp::run(graph, &inputs).ok()?;
        Some((inputs, expected))
    });
    answered.collect()
}

/// True if some size is known only when its node has run: such a graph is refused, and must be by that name.
fn depends_on_data(graph: &Graph) -> bool {
    let mut known = Vec::new();
    for &input in graph.inputs() {
        let dims = graph.node(input).outputs[0].fact.shape();
        dims.iter().for_each(|dim| dim.for_each_symbol(&mut |name| known.push(name.clone())));
    }
    let mut found = false;
    for id in graph.node_ids() {
        let dims = graph.node(id).outputs.iter().flat_map(|output| output.fact.shape());
        dims.for_each(|dim| dim.for_each_symbol(&mut |name| found |= !known.contains(name)));
    }
    found
}

fn check(level: &Profile, graph: &Graph, sets: &[(Tensors, Tensors)]) -> Result<(), String> {
    let graphs = [("as it is", graph.clone()), ("default pipeline", optimized(graph)?)];
    for (what, graph) in graphs {
        let place = |error: String| format!("{}, {what}: {error}", level.name);
        let program = match program(&graph, level) {
            Err(error) if error.contains("depends on data") && depends_on_data(&graph) => continue,
            other => other.map_err(place)?,
        };
        for (at, (inputs, expected)) in sets.iter().enumerate() {
            let actual = run(&program, inputs).map_err(|e| place(format!("inputs {at}: {e}")))?;
            // The graph's own inputs are such that no result is mostly error; at other sizes values of about 1 cancel.
            let cancels = if at == 0 { 0.0 } else { 1.0 };
            compare(expected, &actual, cancels).map_err(|e| {
                place(format!("inputs {at}: {e}\ninputs: {inputs:?}\ngraph compiled:\n{}", print(&graph)))
            })?;
        }
    }
    Ok(())
}

/// Tries every graph on every level; a few failures are enough to see.
fn all(graphs: impl Iterator<Item = (String, u64, (Graph, Tensors))>) {
    const SHOWN: usize = 5;
    let levels = levels();
    let mut failures = Vec::new();
    for (name, seed, (graph, inputs)) in graphs {
        let sets = input_sets(&graph, &inputs, seed);
        assert!(!sets.is_empty(), "{name}: the interpreter refuses\n{}", print(&graph));
        let failed = levels.iter().find_map(|level| check(level, &graph, &sets).err());
        failures.extend(failed.map(|error| format!("{name}: {error}\n{}", print(&graph))));
        if failures.len() >= SHOWN {
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn compiled_code_gives_what_the_interpreter_gives() {
    all((0..seeds()).map(|seed| (format!("seed {seed}"), seed, random_graph(seed, 8))));
}

/// Small graphs around one op each, so that none is missed.
#[test]
fn every_op_is_compiled() {
    let graphs = drawn_ops().flat_map(|op| {
        [1, 2, 3, 4, 5].map(|seed| (format!("{op}, seed {seed}"), seed, random_graph_of(seed, 2, &[op])))
    });
    all(graphs);
}
