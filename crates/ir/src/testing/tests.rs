use super::*;
use crate::text::{blobs, parse_module, print};
use crate::verify::verify;
use proptest::prelude::*;
use std::collections::BTreeSet;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_graphs_are_valid_and_typed(seed: u64, size in 1usize..16) {
        let (graph, inputs) = random_graph(seed, size);
        prop_assert_eq!(verify(&graph), Ok(()));
        if let Err(error) = run_checked(&graph, &inputs) {
            prop_assert!(false, "{}\n{}", error, print(&graph));
        }
    }

    #[test]
    fn text_of_random_graphs_round_trips(seed: u64, size in 1usize..16) {
        let (mut graph, _) = random_graph(seed, size);
        annotate(&mut graph, seed);
        let text = print(&graph);
        let read = match parse_module(&text, &blobs(&graph)) {
            Ok(module) => module.graph,
            Err(error) => return Err(TestCaseError::fail(format!("{error}\n{text}"))),
        };
        prop_assert_eq!(&read, &graph, "{}", text);
        prop_assert_eq!(print(&read), text);
        prop_assert_eq!(annotations(&read), annotations(&graph));
    }
}

/// Puts odd names, sources and groups on some nodes.
fn annotate(graph: &mut Graph, seed: u64) {
    let mut rng = crate::text::SplitMix64::new(seed);
    let nodes: Vec<_> = graph.node_ids().collect();
    for (id, group) in nodes.into_iter().zip(0u32..) {
        if rng.chance(0.7) {
            continue;
        }
        graph.annotate(id, |node| {
            *node.group = Some(group);
            node.sources.push("a \"b\"\n\\".into());
            if let Some(output) = node.outputs.last_mut() {
                output.name = "odd/name:0".into();
            }
        });
    }
}

/// What equality of graphs does not look at.
fn annotations(graph: &Graph) -> Vec<String> {
    let nodes = graph.topological().unwrap().into_iter().map(|id| {
        let node = graph.node(id);
        format!("{:?} {:?}", node.sources, node.equal)
    });
    let inputs = graph.inputs().iter().map(|&id| graph.node(id).name.to_string());
    nodes.chain(inputs).chain([graph.name.clone()]).collect()
}

#[test]
fn every_op_occurs() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let (graph, _) = random_graph(seed, 12);
        seen.extend(graph.node_ids().map(|id| graph.node(id).op.name()));
    }
    // Ops without a kernel are the interpreter's own work in compiled programs too: their goldens check them.
    let compiled = super::drawn_ops().chain(["Input", "Constant", "If"]);
    let missing: Vec<&str> = compiled.filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_seed_always_gives_the_same() {
    let (a, b) = (random_graph(5, 10), random_graph(5, 10));
    assert_eq!(print(&a.0), print(&b.0));
    assert_eq!(a.1, b.1);
}

#[test]
fn random_inputs_fit_their_types() {
    let text = "model \"m\" input %0 \"x\" : f32[n,2] input %1 \"i\" : i64[m] output \"y\" = %0";
    let graph = crate::text::parse(text).unwrap();
    let inputs = random_inputs(&graph, 1, &|name| (name == "n").then_some(5)).unwrap();
    assert_eq!(inputs["x"].shape(), [5, 2]);
    assert_eq!(inputs["i"].shape(), [2]);
    assert!(run_checked(&graph, &inputs).is_ok());
}
