//! Imports models and prints what came of them: nodes, the type of each output, and dims that only running tells.

use rabot_ir::Graph;
use rabot_onnx::{Limits, import_file};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let start = Instant::now();
        match import_file(Path::new(&path), &Limits::default()) {
            Ok(model) => {
                println!("{path}: {} nodes, {:.1?}", model.graph.node_count(), start.elapsed());
                report(model.graph);
            }
            Err(error) => {
                println!("{path}: {error}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn report(mut graph: Graph) {
    for output in graph.outputs() {
        println!("  {}: {}", output.name, graph.fact(output.value).ty);
    }
    if let Err(error) = graph.refresh() {
        println!("  inference again: {error}");
    }
    let mut given = BTreeSet::new();
    for &input in graph.inputs() {
        for dim in graph.node(input).outputs.iter().flat_map(|output| output.fact.shape()) {
            dim.for_each_symbol(&mut |name| {
                given.insert(name.clone());
            });
        }
    }
    report_dims(&graph, &given);
}

/// Dims that are not known from the inputs, and what is left to check when the model runs.
fn report_dims(graph: &Graph, given: &BTreeSet<Arc<str>>) {
    for symbol in graph.symbols().into_iter().filter(|name| !given.contains(name)) {
        println!("  not known from the inputs: {symbol}");
    }
    for id in graph.node_ids() {
        let node = graph.node(id);
        for (a, b) in &node.equal {
            println!("  to be checked when run, by {} `{}`: {a} = {b}", node.op.name(), node.name);
        }
        for (_, region) in node.op.regions() {
            report_dims(region, given);
        }
    }
}
