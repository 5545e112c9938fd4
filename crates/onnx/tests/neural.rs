//! Operators of neural networks that other operators stand for.

mod common;

use common::*;
use rabot_onnx::wire::*;

/// Runs one node of `opset` on `x` and constant operands.
fn run_on(opset: i64, node: NodeProto, x: (&str, &[usize], &[f64]), constants: &[TensorProto]) -> Vec<f64> {
    let mut proto = single(opset, &[value("x", FLOAT, x.0)], node);
    let graph = proto.graph.as_mut().unwrap();
    graph.initializer = constants.to_vec();
    graph.output = vec![output("y")];
    run(&proto, &[("x", x.1, x.2)]).to_f64s()
}

fn close(actual: &[f64], expected: &[f64]) {
    let near = actual.len() == expected.len()
        && actual.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
    assert!(near, "{actual:?}, expected {expected:?}");
}

const FOUR: (&str, &[usize], &[f64]) = ("n,2,k", &[1, 2, 2], &[1.0, 3.0, 10.0, 30.0]);

#[test]
fn groups_have_parameters_of_groups_then_of_channels() {
    let group = |outputs| {
        let normalized = node("GroupNormalization", &["x", "scale", "bias"], outputs);
        with(with(normalized, int("num_groups", 1)), float("epsilon", 0.0))
    };
    let one = [tensor_f32("scale", &[1], &[2.0]), tensor_f32("bias", &[1], &[1.0])];
    let x = ("n,2,k", FOUR.1, &[1.0, 1.0, 3.0, 3.0][..]);
    close(&run_on(18, group(&["y"]), x, &one), &[-1.0, -1.0, 3.0, 3.0]);
    let two = [tensor_f32("scale", &[2], &[2.0, 1.0]), tensor_f32("bias", &[2], &[0.0, 5.0])];
    close(&run_on(21, group(&["y"]), x, &two), &[-2.0, -2.0, 6.0, 6.0]);
    let inputs = ["x", "scale", "bias"].map(|name| value(name, FLOAT, "1,2"));
    let integers = with(group(&["y"]), int("stash_type", 7));
    assert!(refused(&single(21, &inputs, integers))[0].reason.contains("stash_type = 7"));
}

#[test]
fn batches_are_normalized_by_their_own_statistics_when_training() {
    let ones = |name: &str| tensor_f32(name, &[2], &[1.0, 1.0]);
    let constants = [ones("s"), tensor_f32("b", &[2], &[0.0, 0.0]), ones("m"), ones("v")];
    let training = |outputs: &[&str]| {
        let batch = node("BatchNormalization", &["x", "s", "b", "m", "v"], outputs);
        with(with(with(batch, int("training_mode", 1)), float("momentum", 0.5)), float("epsilon", 0.0))
    };
    close(&run_on(15, training(&["y"]), FOUR, &constants), &[-1.0, 1.0, -1.0, 1.0]);
    // Half of 1 and of the means 2 and 20.
    close(&run_on(15, training(&["n", "y"]), FOUR, &constants), &[1.5, 10.5]);
    let old = node("BatchNormalization", &["x", "s", "b", "m", "v"], &["n", "o", "p", "y"]);
    close(&run_on(7, old.clone(), FOUR, &constants), &[2.0, 20.0]);
    let tested = with(old, int("is_test", 1));
    let inputs = ["x", "s", "b", "m", "v"].map(|n| value(n, FLOAT, if n == "x" { "3,2" } else { "2" }));
    assert!(!refused(&single(6, &inputs, tested)).is_empty());
}

#[test]
fn losses_leave_out_what_is_ignored() {
    let scores = ("n,2", &[2usize, 2][..], &[0.5, 0.25, -4.0, -8.0][..]);
    let target = [tensor_i64("t", &[2], &[1, -1])];
    let loss = with(node("NegativeLogLikelihoodLoss", &["x", "t"], &["y"]), int("ignore_index", -1));
    close(&run_on(13, loss.clone(), scores, &target), &[-0.25]);
    close(&run_on(13, with(loss, text("reduction", "none")), scores, &target), &[-0.25, 0.0]);
}

#[test]
fn a_query_that_sees_no_key_is_zero() {
    let attention = with(node("Attention", &["x", "x", "x"], &["y"]), int("is_causal", 1));
    let attention = with(attention, int("left_window_size", 0));
    let x = ("b,1,s,1", &[1usize, 1, 2, 1][..], &[3.0, 5.0][..]);
    close(&run_on(25, attention.clone(), x, &[]), &[3.0, 5.0]);
    let mut masked = attention;
    masked.input.push("mask".to_owned());
    let mask = [tensor_f32("mask", &[2, 1], &[f32::NEG_INFINITY, 0.0])];
    close(
        &run_on(23, with(node("Attention", &["x", "x", "x", "mask"], &["y"]), int("is_causal", 1)), x, &mask),
        &[0.0, 4.999909],
    );
    let unknown = with(node("Attention", &["x", "x", "x"], &["y"]), int("left_window_size", 0));
    assert!(refused(&single(24, &[value("x", FLOAT, "1,1,2,1")], unknown))[0].reason.contains("not known"));
}

#[test]
fn graphs_of_flexible_attention_are_put_in_place() {
    let double = graph(&[value("s", FLOAT, "b,h,l,s")], &[node("Mul", &["s", "two"], &["d"])], &["d"]);
    let mut flex = with(node("FlexAttention", &["x", "x", "x"], &["y"]), graph_attr("prob_mod", double));
    flex.domain = "ai.onnx.preview".to_owned();
    let mut proto = single(26, &[value("x", FLOAT, "b,1,1,1")], flex);
    proto.opset_import.push(OperatorSetIdProto { domain: "ai.onnx.preview".to_owned(), version: 1 });
    proto.graph.as_mut().unwrap().initializer = vec![tensor_f32("two", &[], &[2.0])];
    assert_eq!(run(&proto, &[("x", &[1, 1, 1, 1], &[7.0])]).to_f64s(), [14.0]);
}
