//! Any bytes give a model or an error: never a panic, and never memory that the file's size does not justify.

mod common;

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use prost::Message;
use rabot_ir::{Attr, Attrs, Op};
use rabot_onnx::wire::*;
use rabot_onnx::{ImportError, Limits, import_bytes};

fn import_any(bytes: Vec<u8>) -> Result<(), ImportError> {
    let limits = Limits { tensor_bytes: 1 << 20, sparse_bytes: 1 << 16, ..Limits::default() };
    import_bytes(Bytes::from(bytes), None, &limits).map(drop)
}

/// A model with a branch, a function, weights and a chain of shape arithmetic.
fn rich_model() -> ModelProto {
    let branch = |op: &str| graph(&[], &[node(op, &["a"], &["r"])], &["r"]);
    let conditional = with(node("If", &["c"], &["i"]), graph_attr("then_branch", branch("Relu")));
    let conditional = with(conditional, graph_attr("else_branch", branch("Neg")));
    let conv =
        with(with(node("Conv", &["x", "w"], &["a"]), ints("pads", &[1, 1, 1, 1])), ints("strides", &[2, 2]));
    let call = NodeProto { domain: "local".to_owned(), ..node("F", &["i"], &["f"]) };
    let nodes = [
        conv,
        conditional,
        with(call, float("slope", 0.5)),
        node("Shape", &["f"], &["s"]),
        node("Gather", &["s", "zero"], &["g"]),
        with(node("Concat", &["g", "rest"], &["t"]), int("axis", 0)),
        node("Reshape", &["f", "t"], &["y"]),
        with(node("Softmax", &["y"], &["z"]), int("axis", 1)),
    ];
    let mut body = graph(&[value("x", FLOAT, "n,2,h,8"), value("c", BOOL, "")], &nodes, &["z"]);
    body.initializer = vec![
        tensor_f32("w", &[3, 2, 3, 3], &[0.5; 54]),
        tensor_i64("zero", &[1], &[0]),
        tensor_i64("rest", &[2], &[-1, 4]),
    ];
    let slope = reference("alpha", "slope", attribute_type::FLOAT);
    let mut proto = model(12, body);
    proto.functions = vec![FunctionProto {
        name: "F".to_owned(),
        domain: "local".to_owned(),
        input: strings(&["p"]),
        output: strings(&["r"]),
        attribute: strings(&["slope"]),
        node: vec![with(node("LeakyRelu", &["p"], &["r"]), slope)],
        ..FunctionProto::default()
    }];
    proto
}

/// One edit of a file's bytes.
#[derive(Clone, Debug)]
enum Edit {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Truncate(usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 12));
    let edit = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        at().prop_map(Edit::Remove),
        at().prop_map(Edit::Truncate),
    ];
    prop::collection::vec(edit, 1..6)
}

fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let len = bytes.len().max(1);
        match *edit {
            Edit::Set(at, byte) => bytes.iter_mut().skip(at % len).take(1).for_each(|b| *b = byte),
            Edit::Insert(at, byte) => bytes.insert((at % len).min(bytes.len()), byte),
            Edit::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at % len)),
            Edit::Remove(_) => {}
            Edit::Truncate(at) => bytes.truncate(at % len),
        }
    }
    bytes
}

/// A number that is small most of the time, and sometimes an extreme.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => -4i64..9,
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX, 1 << 31, -(1 << 31), 1 << 62, 1_000_000_007]),
    ]
}

const LISTS: [&str; 12] = [
    "axes",
    "perm",
    "pads",
    "strides",
    "dilations",
    "kernel_shape",
    "output_padding",
    "output_shape",
    "starts",
    "ends",
    "split",
    "shape",
];
const NUMBERS: [&str; 17] = [
    "axis",
    "group",
    "to",
    "keepdims",
    "allowzero",
    "block_size",
    "num_outputs",
    "start",
    "end",
    "ceil_mode",
    "size",
    "output_dtype",
    "select_last_index",
    "noop_with_empty_axes",
    "storage_order",
    "broadcast",
    "transA",
];

fn attribute() -> impl Strategy<Value = AttributeProto> {
    let list = (prop::sample::select(LISTS.to_vec()), prop::collection::vec(number(), 0..5));
    let single = (prop::sample::select(NUMBERS.to_vec()), number());
    prop_oneof![
        list.prop_map(|(name, values)| ints(name, &values)),
        single.prop_map(|(name, value)| int(name, value)),
        prop::sample::select(vec!["SAME_UPPER", "VALID", "x"]).prop_map(|value| text("auto_pad", value)),
        prop::sample::select(vec!["linear", "reflect", "edge", "x"]).prop_map(|value| text("mode", value)),
        (number(), prop::collection::vec(number(), 0..2))
            .prop_map(|(value, dims)| tensor_attr("value", tensor_i64("", &dims, &[value]))),
    ]
}

/// False where the op would be refused for an attribute it does not have, before anything else is looked at.
fn has_attribute(op: &str, attribute: &AttributeProto) -> bool {
    let value = match attribute.r#type {
        attribute_type::INT => Attr::Int(0),
        attribute_type::STRING => Attr::Str(String::new()),
        _ => Attr::Ints(Vec::new()),
    };
    match Op::from_attrs(op, &Attrs::new().with(&attribute.name, value)) {
        Some(Err(error)) => !error.to_string().contains("no such attribute"),
        _ => true,
    }
}

/// One node of any op, on operands of many ranks and dtypes, with lists of any numbers as constants.
fn any_node() -> impl Strategy<Value = ModelProto> {
    let mut ops = Op::names();
    ops.extend(["Dropout", "Upsample", "CastLike", "Size"]);
    let operand = prop::sample::select(vec![
        "x4", "x4", "x3", "x2", "x1", "x0", "e", "i", "b", "u", "k", "k", "l", "l", "m", "f", "sc", "st", "",
    ]);
    let list = || prop::collection::vec(number(), 0..5);
    (
        prop::sample::select(ops),
        prop::collection::vec(operand, 0..5),
        prop::collection::vec(attribute(), 0..3),
        1i64..24,
        1usize..4,
        (list(), list(), list(), number()),
    )
        .prop_map(|(op, operands, attributes, opset, outputs, (k, l, m, scalar))| {
            let outputs = &["y", "y1", "y2"][..outputs];
            let mut only = attributes;
            only.sort_by(|a, b| a.name.cmp(&b.name));
            only.dedup_by(|a, b| a.name == b.name);
            only.retain(|attribute| opset < 18 || has_attribute(op, attribute));
            let node = only.into_iter().fold(node(op, &operands, outputs), with);
            let inputs = [
                value("x4", FLOAT, "n,3,h,8"),
                value("x3", FLOAT, "n,3,h"),
                value("x2", FLOAT, "3,m"),
                value("x1", FLOAT, "n"),
                value("x0", FLOAT, ""),
                value("e", FLOAT, "0,3,4,4"),
                value("i", INT64, "2,n"),
                value("b", BOOL, "3,m"),
                value("u", 2, "n,3,h,8"),
                value("st", 8, "n"),
            ];
            let mut body = graph(&inputs, &[node], &["y"]);
            let list = |name: &str, values: &[i64]| tensor_i64(name, &[values.len() as i64], values);
            body.initializer = vec![
                list("k", &k),
                list("l", &l),
                list("m", &m),
                tensor_f32("f", &[4], &[1.0, 1.0, 2.0, f32::NAN]),
                tensor_i64("sc", &[], &[scalar]),
            ];
            model(opset, body)
        })
}

/// `PROPTEST_CASES` asks for more or fewer.
fn cases() -> ProptestConfig {
    let default = ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig { cases: 2_000, ..default },
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = import_any(bytes);
    }

    #[test]
    fn edited_models_never_panic(edits in edits()) {
        let _ = import_any(edited(rich_model().encode_to_vec(), &edits));
    }

    #[test]
    fn nodes_of_any_op_never_panic(proto in any_node()) {
        let _ = import_any(proto.encode_to_vec());
    }
}

#[test]
fn the_model_that_is_edited_imports() {
    import_any(rich_model().encode_to_vec()).unwrap();
}

#[test]
fn deep_nesting_is_an_error_not_a_stack_overflow() {
    // Attribute in node in graph in attribute, put together from the inside out.
    let mut bytes = Vec::new();
    for _ in 0..5_000 {
        for tag in [0x32u8, 0x2a, 0x0a] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            bytes.splice(0..0, outer);
        }
    }
    let mut file = vec![0x3a];
    prost::encoding::encode_varint(bytes.len() as u64, &mut file);
    file.extend(bytes);
    assert!(matches!(import_any(file), Err(ImportError::Wire { .. })));
}
