//! What models become, and what is said of those that cannot be read.

mod common;

use bytes::Bytes;
use common::*;
use prost::Message;
use rabot_ir::{Op, Value};
use rabot_onnx::wire::*;
use rabot_onnx::{ImportError, Limits, import_bytes, import_file};
use rabot_tensor::Tensor;

fn message(model: &ModelProto) -> String {
    import(model).err().map_or_else(|| panic!("imported"), |error| error.to_string())
}

#[test]
fn names_dims_and_metadata_are_kept() {
    let input = value("x", FLOAT, "batch,3,_,?,-1");
    let mut proto = single(17, &[input], node("Relu", &["x"], &["y"]));
    proto.producer_name = "test".into();
    proto.metadata_props = vec![StringStringEntryProto { key: "k".into(), value: "v".into() }];
    let model = import(&proto).unwrap();
    let out = &model.graph.outputs()[0];
    assert_eq!((&*out.name, &**model.graph.value_name(out.value)), ("y", "y"));
    assert_eq!(model.graph.fact(out.value).ty.to_string(), "f32[batch,3,x.dim2,x.dim3,x.dim4]");
    let relu = model.graph.node(out.value.node);
    assert_eq!((&*relu.name, &*relu.sources[0]), ("n_y", "n_y"));
    assert_eq!((model.opsets[""], model.ir_version, model.producer_name.as_str()), (17, 8, "test"));
    assert_eq!(model.metadata["k"], "v");
}

#[test]
fn nodes_of_one_name_get_different_ones() {
    let mut nodes =
        [node("Relu", &["x"], &["a"]), node("Relu", &["a"], &["b"]), node("Relu", &["b"], &["y"])];
    nodes[0].name = "same".into();
    nodes[1].name = "same".into();
    nodes[2].name = String::new();
    let model = import(&model(17, graph(&[value("x", FLOAT, "n")], &nodes, &["y"]))).unwrap();
    let names: Vec<_> =
        model.graph.topological().unwrap().iter().map(|&id| model.graph.node(id).name.clone()).collect();
    assert_eq!(names.iter().map(|n| &**n).collect::<Vec<_>>(), ["x", "same", "same_1", "Relu_y"]);
}

#[test]
fn initializers_share_the_file_and_win_over_inputs() {
    let mut proto =
        single(17, &[value("x", FLOAT, "2"), value("w", FLOAT, "2")], node("Add", &["x", "w"], &["y"]));
    let raw = [1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let weights =
        TensorProto { raw_data: Some(raw.into()), float_data: vec![], ..tensor_f32("w", &[2], &[]) };
    proto.graph.as_mut().unwrap().initializer.push(weights);
    let file = Bytes::from(proto.encode_to_vec());
    let model = import_bytes(file.clone(), None, &Limits::default()).unwrap();
    assert_eq!(model.graph.inputs().len(), 1);
    let constant =
        model.graph.node_ids().find_map(|node| model.graph.constant(Value { node, slot: 0 })).unwrap();
    assert_eq!(constant.to_f64s(), [1.0, 2.0]);
    assert!(file.as_ptr_range().contains(&constant.bytes().as_ptr()));
}

#[test]
fn nodes_may_come_in_any_order() {
    let nodes = [node("Relu", &["a"], &["y"]), node("Neg", &["x"], &["a"])];
    let proto = model(17, graph(&[value("x", FLOAT, "2")], &nodes, &["y"]));
    assert_eq!(run(&proto, &[("x", &[2], &[1.0, -2.0])]).to_f64s(), [0.0, 2.0]);
}

#[test]
fn errors_name_the_node_and_the_value() {
    let x = || [value("x", FLOAT, "2")];
    let of = |nodes: &[NodeProto], outputs: &[&str]| message(&model(17, graph(&x(), nodes, outputs)));
    let relu = |input: &str, output: &str| node("Relu", &[input], &[output]);
    assert_eq!(of(&[relu("q", "y")], &["y"]), "Relu `n_y`: nothing makes its input `q`");
    assert_eq!(of(&[relu("x", "y")], &["z"]), "nothing makes output `z` of graph `test`");
    assert_eq!(of(&[relu("b", "a"), relu("a", "b")], &["a"]), "Relu `n_a` depends on its own output");
    let twice = "value `y` is defined twice: by Relu `n_y` and by Relu `n_y`";
    assert_eq!(of(&[relu("x", "y"), relu("x", "y")], &["y"]), twice);
    let twice = "value `x` is defined twice: by an input or initializer and by Relu `n_x`";
    assert_eq!(of(&[relu("x", "x")], &["x"]), twice);
    let error = of(&[with(relu("x", "y"), ints("k", &[1]))], &["y"]);
    assert!(error.contains("Relu `n_y` (opset 17)") && error.contains("`k`"), "{error}");
    let no_opset = ModelProto { opset_import: vec![], ..single(1, &x(), relu("x", "y")) };
    assert!(message(&no_opset).contains("imports no operator set"));
    assert!(import(&ModelProto { ir_version: 2, ..no_opset }).is_ok());
    assert_eq!(message(&ModelProto::default()), "the file holds no graph: it is empty or no ONNX model");
    let newer = single(99, &x(), relu("x", "y"));
    assert!(message(&newer).contains("newer than"), "{}", message(&newer));
    let newer = ModelProto { ir_version: 15, ..single(17, &x(), relu("x", "y")) };
    assert!(message(&newer).contains("IR version is 15"), "{}", message(&newer));
    let error = of(&[relu("x", "y")], &["y", "y"]);
    assert!(error.starts_with("value `y` is defined twice"), "{error}");
}

#[test]
fn everything_unsupported_is_listed_and_its_users_are_not() {
    let mut foreign = node("Nonsense", &["x"], &["c"]);
    foreign.domain = "com.microsoft".into();
    let nodes = [
        node("Frobnicate", &["x"], &["a"]),
        node("Relu", &["a"], &["b"]),
        foreign,
        node("Twiddle", &["b", "c"], &["y"]),
        with(node("Cast", &["x"], &["z"]), int("to", 14)),
    ];
    let inputs = [value("x", FLOAT, "2"), value("s", 99, "2")];
    let refused = refused(&model(17, graph(&inputs, &nodes, &["y", "z", "s"])));
    let ops: Vec<&str> = refused.iter().map(|node| node.op.as_str()).collect();
    assert_eq!(ops, ["Input", "Frobnicate", "Nonsense", "Twiddle", "Cast"]);
    assert_eq!(refused[2].domain, "com.microsoft");
    assert!(refused[2].hint.as_deref().unwrap().contains("ONNX Runtime"));
}

#[test]
fn outputs_that_do_not_exist_count_only_where_used() {
    let relu = || node("Relu", &["x"], &["y", "mask"]);
    let inputs = [value("x", FLOAT, "2")];
    let unused = model(9, graph(&inputs, &[relu()], &["y"]));
    assert_eq!(run(&unused, &[("x", &[2], &[1.0, 2.0])]).to_f64s(), [1.0, 2.0]);
    let used = refused(&model(9, graph(&inputs, &[relu()], &["y", "mask"])));
    assert!(used[0].reason.contains("output 1 (`mask`)"), "{}", used[0].reason);
}

#[test]
fn constants_have_many_forms() {
    let of = |attribute: AttributeProto| {
        let node = with(node("Constant", &[], &["y"]), attribute);
        run_with(&single(13, &[], node), std::iter::empty())
    };
    assert_eq!(of(int("value_int", 3)), Tensor::scalar(3i64));
    assert_eq!(of(float("value_float", 1.5)), Tensor::scalar(1.5f32));
    assert_eq!(of(ints("value_ints", &[1, 2])), Tensor::from_vec(&[2], vec![1i64, 2]));
    assert_eq!(of(floats("value_floats", &[])), Tensor::from_vec::<f32>(&[0], vec![]));
    assert_eq!(of(text("value_string", "a")), Tensor::from_strings(&[], vec!["a".into()]));
    assert_eq!(
        of(tensor_attr("value", tensor_f32("", &[1, 1], &[4.0]))),
        Tensor::from_vec(&[1, 1], vec![4f32])
    );
    let sparse = SparseTensorProto {
        values: Some(tensor_f32("", &[1], &[7.0])),
        indices: Some(tensor_i64("", &[1], &[1])),
        dims: vec![3],
    };
    let attribute = AttributeProto {
        name: "sparse_value".into(),
        r#type: attribute_type::SPARSE_TENSOR,
        sparse_tensor: Some(Box::new(sparse)),
        ..AttributeProto::default()
    };
    assert_eq!(of(attribute).to_f64s(), [0.0, 7.0, 0.0]);
    // As the first files had it: no kind.
    let attribute = AttributeProto { r#type: 0, ..tensor_attr("value", tensor_i64("", &[], &[5])) };
    assert_eq!(of(attribute), Tensor::scalar(5i64));
}

fn scale_by(op: &str) -> GraphProto {
    GraphProto {
        initializer: vec![tensor_f32("two", &[], &[2.0])],
        ..graph(&[], &[node(op, &["a", "two"], &["branch_out"])], &["branch_out"])
    }
}

fn conditional(condition: &str) -> NodeProto {
    let node = with(node("If", &[condition], &["y"]), graph_attr("then_branch", scale_by("Mul")));
    with(node, graph_attr("else_branch", scale_by("Add")))
}

#[test]
fn branches_capture_outer_values() {
    let inputs = [value("x", FLOAT, "n"), value("c", BOOL, "")];
    let proto = model(17, graph(&inputs, &[node("Neg", &["x"], &["a"]), conditional("c")], &["y"]));
    let imported = import(&proto).unwrap();
    let conditional = imported.graph.node(imported.graph.outputs()[0].value.node);
    assert_eq!(conditional.inputs.len(), 2);
    assert_eq!(imported.graph.fact(imported.graph.outputs()[0].value).ty.to_string(), "f32[n]");
    for (condition, expected) in [(true, [-2.0, -6.0]), (false, [1.0, -1.0])] {
        let x = Tensor::from_f64s(rabot_tensor::DType::F32, &[2], &[1.0, 3.0]);
        let inputs = [("x".to_owned(), x), ("c".to_owned(), Tensor::from_bools(&[], &[condition]))];
        assert_eq!(run_with(&proto, inputs.into_iter()).to_f64s(), expected);
    }
}

#[test]
fn a_constant_condition_leaves_one_branch() {
    let mut body = graph(&[value("a", FLOAT, "2")], &[conditional("c")], &["y"]);
    let one = TensorProto { int32_data: vec![1], ..tensor_i64("c", &[], &[]) };
    body.initializer = vec![TensorProto { data_type: BOOL, ..one }];
    let proto = model(17, body);
    let graph = import(&proto).unwrap().graph;
    assert!(graph.node_ids().all(|id| !matches!(graph.node(id).op, Op::If(_))));
    assert_eq!(&**graph.value_name(graph.outputs()[0].value), "y");
    assert_eq!(run(&proto, &[("a", &[2], &[1.0, 3.0])]).to_f64s(), [2.0, 6.0]);
}

#[test]
fn branches_nest() {
    let inner = graph(&[], &[conditional("c")], &["y"]);
    let nodes = [
        with(
            with(node("If", &["c"], &["z"]), graph_attr("then_branch", inner.clone())),
            graph_attr("else_branch", inner),
        ),
        node("Neg", &["x"], &["a"]),
    ];
    let inputs = [value("x", FLOAT, "2"), value("c", BOOL, "")];
    let proto = model(17, graph(&inputs, &nodes, &["z"]));
    let x = Tensor::from_f64s(rabot_tensor::DType::F32, &[2], &[1.0, 3.0]);
    let inputs = [("x".to_owned(), x), ("c".to_owned(), Tensor::from_bools(&[], &[true]))];
    assert_eq!(run_with(&proto, inputs.into_iter()).to_f64s(), [-2.0, -6.0]);
}

#[test]
fn what_branches_do_not_support_is_listed_too() {
    let branch = |op: &str| graph(&[], &[node(op, &["x"], &["r"])], &["r"]);
    let both = with(node("If", &["c"], &["y"]), graph_attr("then_branch", branch("Frobnicate")));
    let both = with(both, graph_attr("else_branch", branch("Twiddle")));
    let inputs = [value("x", FLOAT, "2"), value("c", BOOL, "")];
    let refused = refused(&model(17, graph(&inputs, &[both], &["y"])));
    assert_eq!(refused.iter().map(|node| node.op.as_str()).collect::<Vec<_>>(), ["Frobnicate", "Twiddle"]);
}

#[test]
fn graphs_nest_as_deep_as_messages_can() {
    let shallow = || graph(&[], &[node("Neg", &["x"], &["r"])], &["r"]);
    let mut inner = shallow();
    for _ in 0..30 {
        let both = with(node("If", &["c"], &["r"]), graph_attr("then_branch", inner));
        inner = graph(&[], &[with(both, graph_attr("else_branch", shallow()))], &["r"]);
    }
    inner.input = vec![value("x", FLOAT, "2"), value("c", BOOL, "")];
    assert!(import(&model(17, inner)).is_ok());
}

#[test]
fn made_up_dims_do_not_meet_given_ones() {
    // The result of `Range` has a dim that only running tells, named after the node.
    let range = node("Range", &["i", "j", "k"], &["y"]);
    let inputs = ["i", "j", "k"].map(|name| value(name, INT64, ""));
    let given = value("x", FLOAT, "n_y.0");
    let nodes = [range, node("Relu", &["x"], &["z"])];
    let proto = model(17, graph(&[&inputs[..], &[given]].concat(), &nodes, &["y", "z"]));
    let facts = import(&proto).unwrap().graph.output_facts();
    assert_ne!(facts[0].shape(), facts[1].shape());
}

fn function(name: &str, nodes: &[NodeProto]) -> FunctionProto {
    FunctionProto {
        name: name.to_owned(),
        domain: "local".to_owned(),
        input: strings(&["p", "q"]),
        output: strings(&["r"]),
        attribute: strings(&["slope"]),
        node: nodes.to_vec(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..FunctionProto::default()
    }
}

fn call(name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto { domain: "local".to_owned(), ..node(name, inputs, &[output]) }
}

fn leaky() -> FunctionProto {
    let slope = reference("alpha", "slope", attribute_type::FLOAT);
    function("F", &[with(node("LeakyRelu", &["p"], &["t"]), slope), node("Neg", &["t"], &["r"])])
}

#[test]
fn functions_are_inlined_with_their_attributes() {
    let mut wrapper = function(
        "G",
        &[
            with(call("F", &["p", ""], "s"), reference("slope", "slope", attribute_type::FLOAT)),
            call("F", &["s"], "r"),
        ],
    );
    wrapper.attribute_proto = vec![float("slope", 0.5)];
    let x = [value("x", FLOAT, "2")];
    let run_calls = |calls: &[NodeProto], outputs: &[&str]| {
        let mut proto = model(17, graph(&x, calls, outputs));
        proto.functions = vec![leaky(), wrapper.clone()];
        let imported = import(&proto).unwrap().graph;
        let last = imported.outputs()[0].value;
        assert_eq!(&**imported.value_name(last), "y");
        run(&proto, &[("x", &[2], &[-1.0, 4.0])]).to_f64s()
    };
    assert_eq!(run_calls(&[with(call("F", &["x"], "y"), float("slope", 0.25))], &["y"]), [0.25, -4.0]);
    // Without the attribute, the op's own default holds.
    let default = run_calls(&[call("F", &["x"], "y")], &["y"]);
    assert!((default[0] - 0.01).abs() < 1e-6);
    assert_eq!(run_calls(&[call("G", &["x"], "y")], &["y"])[0], -0.5);
    // Called twice, nodes and values get different names.
    run_calls(&[call("F", &["x"], "a"), call("F", &["a"], "y")], &["y"]);
}

#[test]
fn functions_that_call_themselves_or_fan_out_are_refused() {
    let inputs = [value("x", FLOAT, "2")];
    let mut proto = single(17, &inputs, call("A", &["x"], "y"));
    proto.functions =
        vec![function("A", &[call("B", &["p"], "r")]), function("B", &[call("A", &["p"], "r")])];
    assert!(matches!(import(&proto), Err(ImportError::Recursion(_))));
    // Each calls the next twice: 2^40 nodes if nobody counted.
    proto.functions = (0..40)
        .map(|level| {
            let next = format!("F{}", level + 1);
            function(&format!("F{level}"), &[call(&next, &["p"], "s"), call(&next, &["s"], "r")])
        })
        .collect();
    proto.functions.push(function("F40", &[node("Neg", &["p"], &["r"])]));
    proto.graph.as_mut().unwrap().node[0].op_type = "F0".into();
    let limits = Limits { nodes: 10_000, ..Limits::default() };
    let imported = import_bytes(proto.encode_to_vec().into(), None, &limits);
    assert!(matches!(imported, Err(ImportError::Limit { field: "nodes", .. })));
}

#[test]
fn nesting_has_a_limit() {
    let limits = Limits { nesting_depth: 3, ..Limits::default() };
    let nest = |levels: usize| {
        let mut inner = graph(&[], &[node("Neg", &["x"], &["r"])], &["r"]);
        for _ in 0..levels {
            let branch = || graph_attr("then_branch", inner.clone());
            let both = with(
                with(node("If", &["c"], &["r"]), branch()),
                AttributeProto { name: "else_branch".into(), ..branch() },
            );
            inner = graph(&[], &[both], &["r"]);
        }
        inner.input = vec![value("x", FLOAT, "2"), value("c", BOOL, "")];
        import_bytes(model(17, inner).encode_to_vec().into(), None, &limits)
    };
    assert!(nest(3).is_ok());
    assert!(matches!(nest(4), Err(ImportError::Limit { field: "nesting_depth", .. })));
}

#[test]
fn files_are_read_and_their_data_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(folder.path().join("m.data"), [0, 0, 0, 0, 0, 0, 128, 63]).unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
    let weights = TensorProto {
        data_location: DATA_LOCATION_EXTERNAL,
        external_data: vec![entry("location", "m.data"), entry("offset", "4"), entry("length", "4")],
        float_data: vec![],
        ..tensor_f32("w", &[1], &[])
    };
    let mut proto = single(17, &[value("x", FLOAT, "1")], node("Add", &["x", "w"], &["y"]));
    proto.graph.as_mut().unwrap().initializer.push(weights);
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    let graph = import_file(&path, &Limits::default()).unwrap().graph;
    assert!(
        graph
            .node_ids()
            .any(|node| graph.constant(Value { node, slot: 0 }) == Some(&Tensor::from_vec(&[1], vec![1f32])))
    );
    assert!(message(&proto).contains("did not come from a folder"));

    let absent = import_file(&folder.path().join("absent"), &Limits::default()).unwrap_err();
    assert!(absent.to_string().contains("absent"));
    assert!(
        import_file(folder.path(), &Limits::default())
            .unwrap_err()
            .to_string()
            .contains("not a regular file")
    );
    let small = Limits { file_bytes: 3, ..Limits::default() };
    assert!(matches!(import_file(&path, &small), Err(ImportError::Limit { field: "file_bytes", .. })));
    std::fs::write(&path, "<html>not a model</html>").unwrap();
    assert!(import_file(&path, &Limits::default()).unwrap_err().to_string().starts_with("not an ONNX model"));
}
