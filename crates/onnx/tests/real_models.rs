//! Every model of the zoo that has been fetched: it imports, and inference leaves no dim open.

mod zoo;

use rabot_ir::Graph;
use rabot_onnx::{Limits, import_file};
use std::collections::BTreeSet;
use std::sync::Arc;

fn input_symbols(graph: &Graph) -> BTreeSet<Arc<str>> {
    let mut symbols = BTreeSet::new();
    for &input in graph.inputs() {
        for dim in graph.node(input).outputs.iter().flat_map(|output| output.fact.shape()) {
            dim.for_each_symbol(&mut |name| {
                symbols.insert(name.clone());
            });
        }
    }
    symbols
}

fn check_symbols(model: &str, graph: &Graph, given: &BTreeSet<Arc<str>>) {
    for symbol in graph.symbols() {
        assert!(
            given.contains(&symbol),
            "{model}: dim {symbol} of `{}` is not known from the inputs",
            graph.name
        );
    }
    for id in graph.node_ids() {
        for (_, region) in graph.node(id).op.regions() {
            check_symbols(model, region, given);
        }
    }
}

#[test]
fn they_import_and_inference_leaves_no_dim_open() {
    for (name, path) in zoo::models() {
        let mut graph = match import_file(&path, &Limits::default()) {
            Ok(model) => model.graph,
            Err(error) => panic!("{name}: {error}"),
        };
        let types = |graph: &Graph| graph.output_facts().into_iter().map(|fact| fact.ty).collect::<Vec<_>>();
        let before = types(&graph);
        graph.refresh().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(types(&graph), before, "{name}: inference again gives other types");
        rabot_ir::verify::verify(&graph).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        check_symbols(&name, &graph, &input_symbols(&graph));
    }
}
