//! Nodes of older operator sets mean what they meant.

mod common;

use common::*;
use rabot_ir::Op;
use rabot_onnx::wire::*;
use rabot_tensor::{DType, Tensor};

/// Runs one node of `opset` on `x` and constant operands.
fn run_on(
    opset: i64,
    node: NodeProto,
    (shape, values): (&[usize], &[f64]),
    constants: &[TensorProto],
) -> (Vec<usize>, Vec<f64>) {
    let dims = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut proto = single(opset, &[value("x", FLOAT, &dims)], node);
    proto.graph.as_mut().unwrap().initializer = constants.to_vec();
    let result = run(&proto, &[("x", shape, values)]);
    (result.shape().to_vec(), result.to_f64s())
}

fn op(name: &str) -> NodeProto {
    node(name, &["x"], &["y"])
}

#[test]
fn attributes_became_operands() {
    let six: (&[usize], &[f64]) = (&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let (shape, _) = run_on(11, with(op("Unsqueeze"), ints("axes", &[0])), six, &[]);
    assert_eq!(shape, [1, 2, 3]);
    let one: (&[usize], &[f64]) = (&[1, 2], &[1.0, 2.0]);
    assert_eq!(run_on(1, with(op("Squeeze"), ints("axes", &[0])), one, &[]).0, [2]);
    let sum = with(with(op("ReduceSum"), ints("axes", &[1])), int("keepdims", 0));
    assert_eq!(run_on(11, sum, six, &[]).1, [6.0, 15.0]);
    assert_eq!(run_on(13, with(op("ReduceMax"), ints("axes", &[0])), six, &[]).1, [4.0, 5.0, 6.0]);
    let slice = with(with(op("Slice"), ints("starts", &[1])), ints("ends", &[3]));
    assert_eq!(run_on(9, with(slice, ints("axes", &[1])), six, &[]).1, [2.0, 3.0, 5.0, 6.0]);
    assert_eq!(run_on(1, with(op("Reshape"), ints("shape", &[3, -1])), six, &[]).0, [3, 2]);
    let clip = with(with(op("Clip"), float("min", 2.0)), float("max", 4.0));
    assert_eq!(run_on(6, clip, six, &[]).1, [2.0, 2.0, 3.0, 4.0, 4.0, 4.0]);
    let clip = with(with(op("Clip"), float("max", 4.0)), ints("consumed_inputs", &[0]));
    assert_eq!(run_on(1, clip, six, &[]).1, [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]);
    let pad = with(with(op("Pad"), ints("pads", &[0, 1, 0, 0])), float("value", 9.0));
    assert_eq!(run_on(2, pad, one, &[]).1, [9.0, 1.0, 2.0]);
    assert_eq!(run_on(1, with(op("Pad"), ints("paddings", &[0, 1, 0, 0])), one, &[]).1, [0.0, 1.0, 2.0]);
}

#[test]
fn split_counts_its_outputs() {
    let sizes = with(with(node("Split", &["x"], &["y", "z"]), ints("split", &[1, 2])), int("axis", 0));
    assert_eq!(run_on(11, sizes, (&[3], &[1.0, 2.0, 3.0]), &[]).1, [1.0]);
    let equal = node("Split", &["x"], &["y", "z"]);
    assert_eq!(run_on(13, equal.clone(), (&[4], &[1.0, 2.0, 3.0, 4.0]), &[]).1, [1.0, 2.0]);
    let refused = refused(&single(18, &[value("x", FLOAT, "4")], with(equal, int("num_outputs", 3))));
    assert!(refused[0].reason.contains("num_outputs = 3"));
}

#[test]
fn broadcasting_lined_dims_up_from_an_axis() {
    let add = |attributes: &[AttributeProto]| {
        attributes.iter().cloned().fold(node("Add", &["x", "b"], &["y"]), with)
    };
    let x: (&[usize], &[f64]) = (&[1, 2, 2], &[0.0; 4]);
    let b = [tensor_f32("b", &[2], &[1.0, 2.0])];
    let from_axis = add(&[int("broadcast", 1), int("axis", 1)]);
    assert_eq!(run_on(6, from_axis, x, &b).1, [1.0, 1.0, 2.0, 2.0]);
    assert_eq!(run_on(6, add(&[int("broadcast", 1)]), x, &b).1, [1.0, 2.0, 1.0, 2.0]);
    let slope = node("PRelu", &["x", "b"], &["y"]);
    assert_eq!(run_on(6, slope, (&[1, 2, 2], &[-1.0; 4]), &b).1, [-1.0, -1.0, -2.0, -2.0]);
}

#[test]
fn softmax_was_over_all_dims_from_its_axis_on() {
    let ones: (&[usize], &[f64]) = (&[2, 2, 2], &[0.0; 8]);
    assert_eq!(run_on(11, op("Softmax"), ones, &[]), (vec![2, 2, 2], vec![0.25; 8]));
    assert_eq!(run_on(13, op("Softmax"), ones, &[]).1, vec![0.5; 8]);
    assert_eq!(run_on(11, with(op("Softmax"), int("axis", -1)), ones, &[]).1, vec![0.5; 8]);
    // Where only one dim takes part, one node does it; so does a shape that is not known.
    let trailing = single(11, &[value("x", FLOAT, "n,4,1,1")], op("Softmax"));
    assert_eq!(import(&trailing).unwrap().graph.node_count(), 2);
    let dynamic = single(11, &[value("x", FLOAT, "n,m,2")], op("Softmax"));
    let graph = import(&dynamic).unwrap().graph;
    assert_eq!(graph.fact(graph.outputs()[0].value).ty.to_string(), "f32[n,m,2]");
    assert_eq!(run(&dynamic, &[("x", &[1, 2, 2], &[0.0; 4])]).to_f64s(), [0.25; 4]);
}

#[test]
fn resizing_rounded_down() {
    let x: (&[usize], &[f64]) = (&[1, 1, 1, 2], &[1.0, 2.0]);
    let scales = || tensor_f32("s", &[4], &[1.0, 1.0, 1.0, 2.0]);
    let doubled = (vec![1, 1, 1, 4], vec![1.0, 1.0, 2.0, 2.0]);
    assert_eq!(run_on(7, with(op("Upsample"), floats("scales", &[1.0, 1.0, 1.0, 2.0])), x, &[]), doubled);
    assert_eq!(run_on(1, with(op("Upsample"), float("width_scale", 2.0)), x, &[]), doubled);
    assert_eq!(run_on(9, node("Upsample", &["x", "s"], &["y"]), x, &[scales()]), doubled);
    assert_eq!(run_on(10, node("Resize", &["x", "s"], &["y"]), x, &[scales()]), doubled);
    // An empty list says that an operand is not used.
    let sizes =
        [tensor_f32("roi", &[0], &[]), tensor_f32("s", &[0], &[]), tensor_i64("z", &[4], &[1, 1, 1, 4])];
    let asymmetric = text("coordinate_transformation_mode", "asymmetric");
    let resize = with(node("Resize", &["x", "roi", "s", "z"], &["y"]), asymmetric);
    let resize = with(resize, text("nearest_mode", "floor"));
    assert_eq!(run_on(11, resize, x, &sizes), doubled);
}

#[test]
fn inference_forms() {
    let x: (&[usize], &[f64]) = (&[1, 1, 2], &[1.0, 3.0]);
    let ones = |name: &str| tensor_f32(name, &[1], &[1.0]);
    let constants = [ones("s"), ones("b"), ones("m"), ones("v")];
    let norm = || with(node("BatchNormalization", &["x", "s", "b", "m", "v"], &["y"]), float("epsilon", 0.0));
    assert_eq!(run_on(6, with(norm(), int("is_test", 1)), x, &constants).1, [1.0, 3.0]);
    assert_eq!(
        run_on(7, with(with(norm(), int("spatial", 1)), float("momentum", 0.9)), x, &constants).1,
        [1.0, 3.0]
    );
    // Of features, not of channels.
    let mut features = constants.clone();
    features[2] = tensor_f32("m", &[1, 2], &[1.0, 2.0]);
    assert_eq!(run_on(7, with(norm(), int("spatial", 0)), x, &features).1, [1.0, 2.0]);
    let dropout = node("Dropout", &["x", "", "t"], &["y"]);
    let training = |on: i32| TensorProto {
        data_type: BOOL,
        int32_data: vec![on],
        int64_data: vec![],
        ..tensor_i64("t", &[], &[])
    };
    assert_eq!(run_on(13, dropout.clone(), x, &[training(0)]).1, [1.0, 3.0]);
    // The first random numbers are 0.55 and 0.72: both elements stay, and are divided by one half.
    assert_eq!(run_on(13, dropout, x, &[training(1)]).1, [2.0, 6.0]);
}

#[test]
fn casts_had_names_and_have_codes() {
    let input = [value("x", FLOAT, "2")];
    for (opset, to) in [(1, text("to", "INT64")), (9, int("to", 7))] {
        let graph = import(&single(opset, &input, with(op("Cast"), to))).unwrap().graph;
        assert_eq!(graph.fact(graph.outputs()[0].value).dtype(), DType::I64);
    }
    let like = node("CastLike", &["x", "t"], &["y"]);
    let mut proto = single(15, &input, like);
    proto.graph.as_mut().unwrap().initializer = vec![tensor_i64("t", &[], &[0])];
    assert_eq!(run(&proto, &[("x", &[2], &[1.5, 2.0])]), Tensor::from_vec(&[2], vec![1i64, 2]));
}

#[test]
fn size_is_known_from_the_shape() {
    let graph = import(&single(13, &[value("x", FLOAT, "n,3")], op("Size"))).unwrap().graph;
    let size = graph.outputs()[0].value;
    assert!(matches!(graph.node(size.node).op, Op::Reduce(_)));
    let proto = single(13, &[value("x", FLOAT, "n,3")], op("Size"));
    assert_eq!(run(&proto, &[("x", &[2, 3], &[0.0; 6])]), Tensor::scalar(6i64));
}
