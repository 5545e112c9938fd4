//! Operators that are expressions of others mean what they say.

mod common;

use common::*;
use rabot_ir::Op;
use rabot_onnx::wire::*;

/// An RNN of one hidden value: h = x + h / 2, over `steps` steps.
fn recurrent(steps: &str, lengths: Option<i64>, reverse: bool) -> ModelProto {
    let mut node = node("RNN", &["x", "w", "r", "", lengths.map_or("", |_| "n")], &["y", "h"]);
    let names = AttributeProto {
        name: "activations".to_owned(),
        r#type: attribute_type::STRINGS,
        strings: vec!["Affine".into()],
        ..AttributeProto::default()
    };
    node = with(with(node, names), int("hidden_size", 1));
    if reverse {
        node = with(node, text("direction", "reverse"));
    }
    let mut proto = single(14, &[value("x", FLOAT, &format!("{steps},1,1"))], node);
    let graph = proto.graph.as_mut().unwrap();
    graph.initializer = vec![tensor_f32("w", &[1, 1, 1], &[1.0]), tensor_f32("r", &[1, 1, 1], &[0.5])];
    graph.initializer.extend(lengths.map(|length| TensorProto {
        name: "n".to_owned(),
        dims: vec![1],
        data_type: 6,
        int32_data: vec![length as i32],
        ..TensorProto::default()
    }));
    proto
}

#[test]
fn recurrent_layers_are_steps_or_a_scan() {
    let x: (&str, &[usize], &[f64]) = ("x", &[3, 1, 1], &[4.0, 2.0, 8.0]);
    for steps in ["3", "steps"] {
        assert_eq!(run(&recurrent(steps, None, false), &[x]).to_f64s(), [4.0, 4.0, 10.0], "{steps}");
        assert_eq!(run(&recurrent(steps, None, true), &[x]).to_f64s(), [7.0, 6.0, 8.0], "{steps}");
        assert_eq!(run(&recurrent(steps, Some(2), false), &[x]).to_f64s(), [4.0, 4.0, 0.0], "{steps}");
        assert_eq!(run(&recurrent(steps, Some(2), true), &[x]).to_f64s(), [5.0, 2.0, 0.0], "{steps}");
        let imported = import(&recurrent(steps, None, false)).unwrap();
        let scans = imported.graph.node_ids().filter(|&id| matches!(imported.graph.node(id).op, Op::Scan(_)));
        assert_eq!(scans.count(), usize::from(steps == "steps"));
    }
    let none: (&str, &[usize], &[f64]) = ("x", &[0, 1, 1], &[]);
    assert_eq!(run(&recurrent("steps", None, false), &[none]).shape(), [0, 1, 1, 1]);
}

#[test]
fn recurrent_layers_refuse_what_they_do_not_know() {
    let mut proto = recurrent("3", None, false);
    let node = &mut proto.graph.as_mut().unwrap().node[0];
    node.attribute[0].strings = vec!["Gauss".into()];
    assert!(refused(&proto)[0].reason.contains("`Gauss`"));
    let node = &mut proto.graph.as_mut().unwrap().node[0];
    node.attribute[0].strings = vec!["ScaledTanh".into()];
    assert!(refused(&proto)[0].reason.contains("activation_alpha"));
    let node = &mut proto.graph.as_mut().unwrap().node[0];
    node.attribute[1] = int("hidden_size", 2);
    assert!(refused(&proto)[0].reason.contains("hidden_size 2"));
}

#[test]
fn transforms_of_known_length_are_products() {
    let transform = |length: &str, onesided: i64| {
        let node = with(node("DFT", &["x"], &["y"]), int("onesided", onesided));
        single(17, &[value("x", FLOAT, &format!("1,{length},1"))], node)
    };
    let x: (&str, &[usize], &[f64]) = ("x", &[1, 4, 1], &[1.0, 2.0, 3.0, 5.0]);
    for length in ["4", "n"] {
        let result = run(&transform(length, 1), &[x]);
        assert_eq!(result.shape(), [1, 3, 2]);
        let wanted = [11.0, 0.0, -2.0, 3.0, -3.0, 0.0];
        for (got, want) in result.to_f64s().iter().zip(wanted) {
            assert!((got - want).abs() < 1e-6, "{length}: {got} {want}");
        }
        let graph = import(&transform(length, 0)).unwrap().graph;
        let kept = graph.node_ids().any(|id| graph.node(id).op.name() == "DFT");
        assert_eq!(kept, length == "n");
    }
}

#[test]
fn random_numbers_without_a_seed_are_those_of_the_name() {
    let like = |outputs: &[&str]| {
        let nodes: Vec<NodeProto> =
            outputs.iter().map(|output| node("RandomUniformLike", &["x"], &[output])).collect();
        model(22, graph(&[value("x", FLOAT, "8")], &nodes, &outputs[..1]))
    };
    let x: (&str, &[usize], &[f64]) = ("x", &[8], &[0.0; 8]);
    let (a, b) = (run(&like(&["a"]), &[x]), run(&like(&["b"]), &[x]));
    assert_eq!(a, run(&like(&["a", "b"]), &[x]), "other nodes change nothing");
    assert_ne!(a, b, "nodes are independent of each other");
    let mut always = single(15, &[value("x", FLOAT, "4")], node("Bernoulli", &["x"], &["y"]));
    let draws = run(&always, &[("x", &[4], &[0.0, 1.0, 1.0, 0.0])]);
    assert_eq!(draws.to_f64s(), [0.0, 1.0, 1.0, 0.0]);
    always.graph.as_mut().unwrap().node[0].attribute.push(int("seeds", 1));
    assert!(refused(&always)[0].reason.contains("`seeds`"));
}

/// A node of `com.microsoft`.
fn microsoft(inputs: &[ValueInfoProto], mut node: NodeProto) -> ModelProto {
    node.domain = "com.microsoft".to_owned();
    let mut proto = single(21, inputs, node);
    let id = OperatorSetIdProto { domain: "com.microsoft".to_owned(), version: 1 };
    proto.opset_import.push(id);
    proto
}

#[test]
fn weights_of_few_bits_are_unpacked() {
    let sizes = [("K", 16), ("N", 1), ("bits", 4), ("block_size", 16)];
    let node = sizes.iter().fold(node("MatMulNBits", &["x", "b", "s"], &["y"]), |node, &(name, size)| {
        with(node, int(name, size))
    });
    let mut proto = microsoft(&[value("x", FLOAT, "1,16")], node);
    let packed = TensorProto {
        name: "b".to_owned(),
        dims: vec![1, 1, 8],
        data_type: 2,
        int32_data: vec![0xf8, 0x98, 0x88, 0x88, 0x88, 0x88, 0x88, 0x08],
        ..TensorProto::default()
    };
    proto.graph.as_mut().unwrap().initializer = vec![packed, tensor_f32("s", &[1, 1], &[0.5])];
    // 8 is zero: 0xf is 7 at place 1, 9 is 1 at place 3, 0 is -8 at place 15.
    let x: Vec<f64> = (0..16).map(f64::from).collect();
    assert_eq!(run(&proto, &[("x", &[1, 16], &x)]).to_f64s(), [0.5 * (7.0 + 3.0 - 8.0 * 15.0)]);
    let mut short = proto.clone();
    short.graph.as_mut().unwrap().initializer[0].int32_data.pop();
    assert!(import(&short).is_err());
    proto.graph.as_mut().unwrap().node[0].attribute[0] = int("K", 64);
    assert!(refused(&proto)[0].reason.contains("expected 32 bytes"));
}

#[test]
fn what_is_not_known_of_other_domains_is_refused() {
    let inputs = [value("x", FLOAT, "1,4,8")];
    let shared = with(node("Attention", &["x", "w"], &["y"]), int("num_heads", 2));
    let mut proto = microsoft(&inputs, with(shared, int("past_present_share_buffer", 1)));
    proto.graph.as_mut().unwrap().initializer = vec![tensor_f32("w", &[8, 24], &[0.0; 192])];
    assert!(refused(&proto)[0].reason.contains("past_present_share_buffer"));
    let mut gradient = single(21, &inputs, node("Gradient", &["x"], &["y"]));
    gradient.graph.as_mut().unwrap().node[0].domain = "ai.onnx.preview.training".to_owned();
    let id = OperatorSetIdProto { domain: "ai.onnx.preview.training".to_owned(), version: 1 };
    gradient.opset_import.push(id);
    assert!(refused(&gradient)[0].reason.contains("one for each of xs"));
}
