//! What the unit tests of passes share: every case is checked for structure and for meaning.

use rabot_ir::interp::{self, Tensors};
use rabot_ir::text::{parse, print, random_tensor};
use rabot_ir::verify::verify;
use rabot_ir::{Fact, Graph, NodeId, Op, Value};
use rabot_rewrite::{Exactness, Pass, PassCx, Report};
use rabot_tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Runs a pass over a graph; the result must be valid and compute the same, as exactly as the pass says.
pub(crate) fn run(pass: &dyn Pass, text: &str) -> (Graph, Report) {
    let graph = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    run_graph(pass, graph)
}

/// As [`run`], on a graph that is not written as text.
pub(crate) fn run_graph(pass: &dyn Pass, mut graph: Graph) -> (Graph, Report) {
    let before = graph.clone();
    verify(&graph).unwrap_or_else(|errors| panic!("before: {errors}"));
    let report = pass.run(&mut graph, &PassCx::default()).unwrap_or_else(|error| panic!("{error}"));
    verify(&graph).unwrap_or_else(|errors| panic!("after {}: {errors}\n{}", pass.name(), print(&graph)));
    for seed in 0..3 {
        let inputs = random_inputs(&before, seed);
        let expected = interp::run(&before, &inputs).unwrap_or_else(|error| panic!("{error}"));
        let actual = interp::run(&graph, &inputs).unwrap_or_else(|error| panic!("{error}"));
        if let Err(difference) = compare(&expected, &actual, pass.exactness()) {
            panic!("{} changes {difference}\n{}\nbecame\n{}", pass.name(), print(&before), print(&graph));
        }
    }
    (graph, report)
}

/// Runs a pass and compares the result, names of nodes aside, with what it should become.
pub(crate) fn becomes(pass: &dyn Pass, before: &str, after: &str) -> Report {
    let (graph, report) = run(pass, before);
    let expected = parse(after).unwrap_or_else(|error| panic!("{error}\n{after}"));
    let (actual, expected) = (print(&anonymous(&graph)), print(&anonymous(&expected)));
    assert_eq!(actual, expected, "\nactual:\n{actual}\nexpected:\n{expected}\n{report:#?}");
    report
}

/// Runs the example in the header of a pass's file: two graphs, with a line `; becomes` between.
pub(crate) fn example(pass: &dyn Pass, source: &str) {
    let header: String =
        source.lines().map_while(|line| line.strip_prefix("//!")).map(|l| format!("{l}\n")).collect();
    let block = header.split("```").nth(1).and_then(|b| b.strip_prefix("text\n")).expect("a text block");
    let (before, after) = block.split_once("; becomes").expect("`; becomes`");
    becomes(pass, before, after);
}

/// The graph with nodes in the order in which outputs need them, named by position, and without sources.
fn anonymous(graph: &Graph) -> Graph {
    let mut new = Graph::new(&graph.name);
    let mut made: HashMap<NodeId, NodeId> = HashMap::new();
    for &id in graph.inputs() {
        let node = graph.node(id);
        made.insert(id, new.add_input(&node.name, node.outputs[0].fact.clone()).node);
    }
    let outputs = graph.outputs().iter().map(|o| o.value.node);
    // What no output needs comes last; it is there all the same.
    for id in outputs.chain(graph.topological().unwrap()) {
        copy(graph, id, &mut new, &mut made);
    }
    for output in graph.outputs() {
        let node = made[&output.value.node];
        new.add_output(&output.name, Value { node, slot: output.value.slot });
    }
    new
}

/// Copies a node after its operands, in their order.
fn copy(graph: &Graph, id: NodeId, new: &mut Graph, made: &mut HashMap<NodeId, NodeId>) {
    if made.contains_key(&id) {
        return;
    }
    let node = graph.node(id);
    for operand in node.inputs.iter().flatten() {
        copy(graph, operand.node, new, made);
    }
    let value = |v: Value| Value { node: made[&v.node], slot: v.slot };
    let inputs = node.inputs.iter().map(|input| input.map(value)).collect();
    let name = format!("v{}", made.len());
    let copied = match &node.op {
        Op::Constant(tensor) => new.add_constant(&name, tensor.clone()).node,
        op => {
            let mut op = op.clone();
            for region in op.regions_mut() {
                *region = anonymous(region);
            }
            new.add_node(op, inputs, &name, vec![]).unwrap()
        }
    };
    new.annotate(copied, |copied| *copied.group = node.group);
    made.insert(id, copied);
}

/// Random values for every input; each symbol is one small size.
pub(crate) fn random_inputs(graph: &Graph, seed: u64) -> Tensors {
    let sizes: BTreeMap<_, i64> = graph.symbols().into_iter().zip(2 + seed as i64..).collect();
    let value = |fact: &Fact, at: u64| -> Tensor {
        let dims = fact.shape().iter().map(|d| d.eval(&|name| sizes.get(name).copied()).unwrap() as usize);
        let shape: Vec<usize> = dims.collect();
        let (lo, hi) = match fact.dtype() {
            DType::Bool => (0.0, 2.0),
            dtype if dtype.is_unsigned_int() => (0.0, 9.0),
            _ => (-3.0, 3.0),
        };
        random_tensor(fact.dtype(), &shape, 97 * seed + at, lo, hi).unwrap()
    };
    let inputs = graph.inputs().iter().zip(0..);
    inputs
        .map(|(&id, at)| {
            let node = graph.node(id);
            (node.name.to_string(), value(&node.outputs[0].fact, at))
        })
        .collect()
}

/// Compares outputs under what a pass promises; the error says where they differ most.
pub(crate) fn compare(expected: &Tensors, actual: &Tensors, exactness: Exactness) -> Result<(), String> {
    let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    if names(expected) != names(actual) {
        return Err(format!("outputs from {:?} to {:?}", names(expected), names(actual)));
    }
    for (name, wanted) in expected {
        let got = &actual[name];
        let same = match exactness {
            Exactness::Bitwise => wanted == got,
            Exactness::Rel { rtol, atol } => {
                let pairs = wanted.to_f64s().into_iter().zip(got.to_f64s());
                let finite = wanted.to_f64s().into_iter().filter(|v| v.is_finite());
                let bound = atol + rtol * finite.map(f64::abs).fold(0.0, f64::max);
                let close =
                    |(a, b): (f64, f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= bound;
                wanted.shape() == got.shape() && pairs.into_iter().all(close)
            }
            other => return Err(format!("{other}, which this check cannot judge")),
        };
        if !same {
            return Err(format!("`{name}` from {wanted:?} to {got:?}"));
        }
    }
    Ok(())
}
