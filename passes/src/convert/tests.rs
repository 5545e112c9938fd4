//! Tests of `convert`.

use super::*;
use crate::check::{compare, random_inputs};
use rabot_ir::interp::{self, Tensors};
use rabot_ir::text::{parse, print};
use rabot_ir::verify::verify;
use rabot_rewrite::{Admit, Gate};
use rabot_tensor::Tensor;

fn pass(text: &str) -> Box<dyn Pass> {
    let options = text.split(',').filter(|text| !text.is_empty()).map(|pair| pair.split_once('=').unwrap());
    let mut given = Options::new(NAME, OPTIONS);
    options.for_each(|(name, value)| given.set(name, value).unwrap());
    make(&given).unwrap()
}

/// Runs the pass; the result must be valid and within `tolerance` of the largest magnitude of each output.
fn converted(text: &str, before: &str, tolerance: f64) -> (Graph, Report) {
    let before = parse(before).unwrap_or_else(|error| panic!("{error}"));
    let mut graph = before.clone();
    let report = pass(text).run(&mut graph, &PassCx::default()).unwrap();
    verify(&graph).unwrap_or_else(|errors| panic!("{errors}\n{}", print(&graph)));
    for seed in 0..3 {
        near(&before, &graph, seed, tolerance);
    }
    (graph, report)
}

fn near(before: &Graph, after: &Graph, seed: u64, tolerance: f64) {
    let inputs = random_inputs(before, seed);
    let (wanted, got) = (interp::run(before, &inputs).unwrap(), interp::run(after, &inputs).unwrap());
    let exactness = Exactness::Rel { rtol: tolerance, atol: 0.0 };
    compare(&wanted, &got, exactness).unwrap_or_else(|error| panic!("{error}\n{}", print(after)));
}

fn ops(graph: &Graph) -> Vec<String> {
    let order = graph.topological().unwrap();
    let nodes = order.into_iter().map(|id| graph.node(id));
    let computed = nodes.filter(|node| !matches!(node.op, Op::Input | Op::Constant(_)));
    computed.map(|node| format!("{} {}", node.op.name(), node.outputs[0].fact.dtype())).collect()
}

#[test]
fn the_example_of_the_header() {
    let source = include_str!("mod.rs");
    let header: String =
        source.lines().map_while(|line| line.strip_prefix("//!")).map(|l| format!("{l}\n")).collect();
    let block = header.split("```").nth(1).and_then(|b| b.strip_prefix("text\n")).unwrap();
    let (before, after) = block.split_once("; becomes").unwrap();
    let mut graph = parse(before).unwrap();
    Convert::default().run(&mut graph, &PassCx::default()).unwrap();
    assert_eq!(ops(&graph), ops(&parse(after).unwrap()));
    near(&parse(before).unwrap(), &graph, 0, 2e-3);
}

/// Two products with a residual sum, a norm between, and a table.
const BLOCK: &str = r#"model "g"
    input %0 "ids" : i64[2,3]
    %1 = Constant rand(1, -1.0, 1.0) : f32[16,8]
    %2 = Constant rand(2, -1.0, 1.0) : f32[8,8]
    %3 = Constant rand(3, -1.0, 1.0) : f32[8]
    %4 = Constant [0, 2, 1] : i64[3]
    %5 = Gather(%1, %0) "table"
    %6 = MatMul(%5, %2) "first"
    %7 = Add(%6, %3) "bias"
    %8 = Add(%7, %5) "residual"
    %9 = LayerNormalization(%8, %3) "norm"
    %10 = Transpose(%9) {perm=[0,2,1]} "turn"
    %11 = MatMul(%2, %10) "second"
    %12 = ReduceSum(%11) "sum"
    output "y" = %12"#;

#[test]
fn norms_and_sums_stay_wide_and_views_follow() {
    let (graph, report) = converted("to=f16", BLOCK, 2e-2);
    let expected = [
        "Gather f16",
        "Cast f32",
        "MatMul f16",
        "Cast f32",
        "Add f32",
        "Add f32",
        "LayerNormalization f32",
        "Cast f16",
        "Transpose f16",
        "MatMul f16",
        "Cast f32",
        "ReduceSum f32",
    ];
    assert_eq!(ops(&graph), expected, "{report:#?}");
    let bytes = |graph: &Graph| rabot_rewrite::Stats::of(graph).constants_bytes;
    assert!(bytes(&graph) * 100 <= bytes(&parse(BLOCK).unwrap()) * 60, "{}", print(&graph));
}

#[test]
fn bf16_and_weights_only() {
    converted("to=bf16", BLOCK, 2e-1);
    let (graph, report) = converted("what=weights", BLOCK, 1e-2);
    assert_eq!(report.applied.len(), 2, "{report:#?}");
    assert_eq!(ops(&graph).iter().filter(|op| *op == "Cast f32").count(), 2);
    assert!(ops(&graph).contains(&"MatMul f32".to_owned()));
}

const CHAIN: &str = r#"model "g"
    input %0 "x" : f32[2,4]
    %1 = Constant rand(1, -1.0, 1.0) : f32[4,4]
    %2 = MatMul(%0, %1) "a"
    %3 = Relu(%2) "b"
    %4 = MatMul(%3, %1) "c"
    output "y" = %4"#;

#[test]
fn patterns_of_keep_name_operators_and_nodes() {
    let kept = |keep: &str| {
        let (_, report) = converted(&format!("keep={keep}"), CHAIN, 1e-2);
        report.skipped.iter().map(|skip| skip.node.clone()).collect::<Vec<_>>()
    };
    assert_eq!(kept("MatMul"), ["a", "c"]);
    assert_eq!(kept("a"), ["a"]);
    assert_eq!(kept("a|Rel*"), ["a"], "`b` has no narrow operand then");
    assert!(kept("nothing").is_empty());
    assert!(matches("a*c*e", "abcde") && !matches("a*c*e", "abde") && !matches("ab", "abc"));
    assert!(matches("*", "") && matches("/l.0/*", "/l.0/q") && !matches("a*a", "a"));
}

#[test]
fn constants_that_do_not_fit_keep_their_layer_wide() {
    let large = CHAIN.replace("rand(1, -1.0, 1.0) : f32[4,4]", "rand(1, 7e4, 8e4) : f32[4,4]");
    let (graph, report) = converted("to=f16", &large, 1e-6);
    assert_eq!(print(&graph), print(&parse(&large).unwrap()));
    assert!(report.skipped.iter().all(|skip| skip.reason.contains("overflows f16")), "{report:#?}");
    assert_eq!(report.skipped.len(), 2);
    let small = CHAIN.replace("rand(1, -1.0, 1.0) : f32[4,4]", "rand(1, -1e-6, 1e-6) : f32[4,4]");
    let (_, report) = converted("to=f16", &small, 1e-6);
    assert!(report.skipped.iter().all(|skip| skip.reason.contains("denormal")), "{report:#?}");
    // bf16 has the range of f32.
    assert!(converted("to=bf16", &large, 5e-2).1.skipped.is_empty());
    assert!(converted("to=bf16", &small, 5e-2).1.skipped.is_empty());
}

#[test]
fn values_that_overflow_on_calibration_inputs_keep_their_nodes_wide() {
    let mut graph = parse(CHAIN).unwrap();
    let x = Tensor::from_vec(&[2, 4], vec![9e4f32; 8]);
    let sets = [Tensors::from_iter([("x".to_owned(), x)])];
    let cx = PassCx { calibration: Some(&sets), ..PassCx::default() };
    let report = pass("to=f16").run(&mut graph, &cx).unwrap();
    assert!(report.skipped[0].reason.contains("`x` reaches 9.000e4"), "{report:#?}");
}

#[test]
fn inputs_and_outputs_may_change_their_types() {
    let mut graph = parse(CHAIN).unwrap();
    pass("io=convert").run(&mut graph, &PassCx::default()).unwrap();
    verify(&graph).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(ops(&graph), ["MatMul f16", "Relu f16", "MatMul f16"]);
    let text = "convert{to=bf16,keep=Conv|/a*,io=convert}";
    assert_eq!(crate::pipeline(text).unwrap().to_string(), text);
    let error = crate::pipeline("convert{what=weights,io=convert}").unwrap_err().to_string();
    assert!(error.contains("what=all only"), "{error}");
}

#[test]
fn any_part_of_the_changes_gives_a_valid_graph() {
    for most in 0..8 {
        let gate = Gate::new(Admit::First(most));
        let before = parse(BLOCK).unwrap();
        let mut graph = before.clone();
        let report =
            pass("to=f16").run(&mut graph, &PassCx { gate: Some(&gate), ..PassCx::default() }).unwrap();
        verify(&graph).unwrap_or_else(|errors| panic!("{errors}\n{}", print(&graph)));
        assert_eq!(report.applied.len(), gate.admitted().len());
        near(&before, &graph, 0, 2e-2);
    }
}

#[test]
fn a_node_without_narrow_neighbours_is_left() {
    let text = r#"model "g"
        input %0 "x" : f32[2,4]
        %1 = Relu(%0)
        %2 = Softmax(%1)
        output "y" = %2"#;
    let (graph, _) = converted("to=f16", text, 0.0);
    assert_eq!(print(&graph), print(&parse(text).unwrap()));
}
