use super::*;
use rabot_ir::text::{parse, print, random_tensor};
use rabot_ir::verify::verify;
use rabot_tensor::DType;

const TEXT: &str = "model \"m\" input %0 \"x\" : f32[n,32]
    %1 = Constant rand(1, -1.0, 1.0) : f32[32,32] \"w1\"
    %2 = MatMul(%0, %1) \"a\"
    %3 = Relu(%2) \"b\"
    %4 = Constant rand(2, -1.0, 1.0) : f32[32,32] \"w2\"
    %5 = MatMul(%3, %4) \"c\"
    %6 = Tanh(%5) \"d\"
    %7 = Add(%6, %3) \"e\"
    %8 = Softmax(%7) \"f\"
    output \"y\" = %8";

fn case() -> Case {
    let x = random_tensor(DType::F32, &[6, 32], 5, -1.0, 1.0).unwrap();
    Case { graph: parse(TEXT).unwrap(), inputs: Tensors::from_iter([("x".to_owned(), x)]) }
}

fn has(case: &Case, op: &str) -> bool {
    case.graph.node_ids().any(|id| case.graph.node(id).op.name() == op)
}

fn runs(case: &Case) -> bool {
    verify(&case.graph).is_ok() && interp::run(&case.graph, &case.inputs).is_ok()
}

#[test]
fn one_node_is_left_of_what_one_node_breaks() {
    let fails = |case: &Case| (runs(case) && has(case, "Tanh")).then(|| "tanh".to_owned());
    let reduced = reduce(&case(), &fails, Effort::default()).unwrap();
    assert_eq!(reduced.after.nodes, 1, "{}", print(&reduced.case.graph));
    assert_eq!(reduced.after.elements, 1, "{}", print(&reduced.case.graph));
    assert_eq!((reduced.failure.as_str(), reduced.stopped), ("tanh", false));
}

#[test]
fn nodes_that_only_fail_together_stay_together() {
    let fails = |case: &Case| {
        let pair = runs(case) && has(case, "MatMul") && has(case, "Softmax");
        let wide = case.graph.node_ids().any(|id| match &case.graph.node(id).op {
            Op::Constant(tensor) => tensor.shape().first().is_some_and(|&rows| rows >= 7),
            _ => false,
        });
        (pair && wide).then(|| "pair".to_owned())
    };
    let reduced = reduce(&case(), &fails, Effort::default()).unwrap();
    assert_eq!(reduced.after.nodes, 2, "{}", print(&reduced.case.graph));
    let graph = &reduced.case.graph;
    let weights = graph.node_ids().find_map(|id| match &graph.node(id).op {
        Op::Constant(tensor) => Some(tensor.clone()),
        _ => None,
    });
    assert_eq!(weights.map(|w| w.shape().to_vec()), Some(vec![7, 7]), "as small as still fails");
}

#[test]
fn another_failure_is_not_taken_for_this_one() {
    let fails = |case: &Case| {
        let name = if has(case, "Softmax") { "softmax" } else { "other" };
        runs(case).then(|| name.to_owned())
    };
    let reduced = reduce(&case(), &fails, Effort::default()).unwrap();
    assert!(has(&reduced.case, "Softmax") && reduced.after.nodes == 1);
}

#[test]
fn a_model_that_does_not_fail_is_told() {
    let error = reduce(&case(), &|_| None, Effort::default()).unwrap_err();
    assert!(error.to_string().contains("does not fail"), "{error}");
}
