//! Files that try to hurt whoever opens them.

use super::build::*;
use prost::Message;
use rabot::onnx::wire::*;

/// What is to happen to a file.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// `inspect`, `compile` and `run` are refused, with this in the message.
    Refused(&'static str),
    /// `run` and `run --reference` are refused with this; the other verbs may do their work.
    RunRefused(&'static str),
    /// Everything works.
    Works,
    /// Either way.
    Any,
}

use Expect::{Any, Refused, RunRefused, Works};

/// A file, made when it is asked for: some are large.
pub struct Case {
    pub name: &'static str,
    pub expect: Expect,
    pub make: fn() -> Vec<u8>,
}

/// All files.
pub const CASES: &[Case] = &[
    // Bytes that are no messages.
    Case { name: "empty", expect: Refused("no graph"), make: Vec::new },
    Case { name: "garbage", expect: Refused("not an ONNX model"), make: || vec![0xff; 1 << 16] },
    Case {
        name: "length-past-end",
        expect: Refused("not an ONNX model"),
        make: || vec![0x3a, 0xff, 0xff, 0x7f, 0],
    },
    Case { name: "length-2-63", expect: Refused("not an ONNX model"), make: length_2_63 },
    Case { name: "length-negative", expect: Refused("not an ONNX model"), make: length_negative },
    Case { name: "varint-11-bytes", expect: Refused("not an ONNX model"), make: || vec![0x80; 12] },
    Case { name: "packed-past-end", expect: Refused("not an ONNX model"), make: packed_past_end },
    Case { name: "deep-messages", expect: Refused("nested more than"), make: deep_messages },
    Case { name: "deep-types", expect: Refused("nested more than"), make: deep_types },
    Case { name: "many-empty-nodes", expect: Refused("--max-message-bytes"), make: many_empty_nodes },
    Case { name: "long-name", expect: Refused("--max-name-bytes"), make: long_name },
    Case { name: "long-attribute", expect: Refused("--max-message-bytes"), make: long_attribute },
    // Graphs and functions.
    Case { name: "recursive-function", expect: Refused("calls itself"), make: || functions(1, 1) },
    Case { name: "mutual-functions", expect: Refused("calls itself"), make: || functions(2, 1) },
    Case { name: "function-chain", expect: Refused("--max-nesting-depth"), make: || functions(100_000, 0) },
    Case { name: "billion-laughs", expect: Refused("--max-nodes"), make: billion_laughs },
    Case { name: "cycle", expect: Refused("depends on its own output"), make: cycle },
    Case { name: "same-output-name", expect: Refused("defined twice"), make: same_output },
    Case { name: "same-node-name", expect: Works, make: same_name },
    Case { name: "chain", expect: Works, make: || chain(50_000) },
    Case { name: "wide-concat", expect: Any, make: wide_concat },
    Case { name: "many-outputs", expect: Any, make: many_outputs },
    // Sizes.
    Case { name: "shape-overflow", expect: Refused("--max-tensor-bytes"), make: shape_overflow },
    Case { name: "input-overflow", expect: Any, make: input_overflow },
    Case { name: "zero-times-huge", expect: Any, make: zero_times_huge },
    Case { name: "strings-2-31", expect: Refused("strings"), make: strings_2_31 },
    Case { name: "data-missing", expect: Refused("needs"), make: data_missing },
    Case { name: "negative-dim", expect: Refused("negative"), make: || weights(&[-1, -1]) },
    Case {
        name: "constant-of-shape",
        expect: RunRefused("--max-memory"),
        make: || filled(&[1_000_000_000_000_000]),
    },
    Case {
        name: "constant-of-shape-square",
        expect: RunRefused("--max-memory"),
        make: || filled(&[1 << 25, 1 << 25]),
    },
    Case { name: "expand", expect: RunRefused("--max-memory"), make: || sized("Expand", &[1 << 50, 2, 3]) },
    Case { name: "tile", expect: RunRefused("--max-memory"), make: || sized("Tile", &[1 << 24, 1 << 24]) },
    Case { name: "pad", expect: RunRefused("--max-memory"), make: || sized("Pad", &[1 << 50, 0, 0, 0]) },
    Case { name: "range", expect: RunRefused("--max-memory"), make: range },
    Case { name: "one-hot", expect: RunRefused("--max-memory"), make: one_hot },
    Case { name: "resize", expect: Refused("expected 0 to"), make: || resize("Resize", 1e12) },
    Case { name: "resize-nan", expect: Any, make: || resize("Resize", f32::NAN) },
    Case { name: "upsample", expect: Refused("expected 0 to"), make: || upsample(1e12) },
    Case { name: "split-many", expect: Any, make: split_many },
    Case { name: "dims-squared", expect: Any, make: dims_squared },
    Case { name: "dims-polynomial", expect: Any, make: dims_polynomial },
    Case { name: "folding-a-product", expect: Any, make: folding_a_product },
    // Loops.
    Case { name: "loop-2-63", expect: RunRefused("rounds"), make: || looped(Some(i64::MAX)) },
    Case { name: "loop-endless", expect: RunRefused("rounds"), make: || looped(None) },
    // Sparse tensors.
    Case { name: "sparse-huge", expect: Refused("--max-sparse-bytes"), make: || sparse(&[1 << 40], &[0]) },
    Case { name: "sparse-index", expect: Refused("out of range"), make: || sparse(&[4], &[4]) },
    Case { name: "sparse-negative", expect: Refused("out of range"), make: || sparse(&[4], &[-1]) },
    Case {
        name: "sparse-overflow",
        expect: Refused("--max-sparse-bytes"),
        make: || sparse(&[1 << 40, 1 << 40], &[0]),
    },
];

fn length_2_63() -> Vec<u8> {
    vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]
}

fn length_negative() -> Vec<u8> {
    vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
}

fn packed_past_end() -> Vec<u8> {
    // The model's graph, a tensor (5), its f32 data (4): 4 GiB of it.
    wrapped(0x3a, &wrapped(0x2a, &[0x22, 0xff, 0xff, 0xff, 0xff, 0x0f]))
}

fn deep_messages() -> Vec<u8> {
    // Graph (7), then node (1), attribute (5), graph (6) in each other.
    wrapped(0x3a, &nested(100_000, &[0x0a, 0x2a, 0x32]))
}

fn deep_types() -> Vec<u8> {
    // An input (11) of a type (2) that is a sequence (4) of a type (1) that is a sequence …
    wrapped(0x3a, &wrapped(0x5a, &wrapped(0x12, &nested(100_000, &[0x22, 0x0a]))))
}

fn many_empty_nodes() -> Vec<u8> {
    wrapped(0x3a, &[0x0a, 0x00].repeat(2_000_000))
}

fn long_name() -> Vec<u8> {
    wrapped(0x3a, &wrapped(0x0a, &wrapped(0x1a, &vec![b'x'; 100_000_000])))
}

fn long_attribute() -> Vec<u8> {
    wrapped(0x3a, &wrapped(0x0a, &wrapped(0x2a, &wrapped(0x42, &vec![1; 100_000_000]))))
}

/// `count` functions of which each calls the next, and the last the first if `around` is 1.
fn functions(count: usize, around: usize) -> Vec<u8> {
    let mut proto = model(graph(&[value("x", FLOAT, &["2"])], vec![call("f0", "x", "y")], &["y"]));
    let next = |at: usize| match (at + 1 < count, around) {
        (true, _) => call(&format!("f{}", at + 1), "p", "r"),
        (false, 1) => call("f0", "p", "r"),
        (false, _) => node("Relu", &["p"], &["r"]),
    };
    proto.functions = (0..count).map(|at| function(&format!("f{at}"), vec![next(at)])).collect();
    proto.encode_to_vec()
}

fn billion_laughs() -> Vec<u8> {
    let mut proto = model(graph(&[value("x", FLOAT, &["2"])], vec![call("f0", "x", "y")], &["y"]));
    let body = |at: usize| match at {
        29 => vec![node("Relu", &["p"], &["r"])],
        _ => {
            let next = format!("f{}", at + 1);
            vec![call(&next, "p", "q"), call(&next, "q", "r")]
        }
    };
    proto.functions = (0..30).map(|at| function(&format!("f{at}"), body(at))).collect();
    proto.encode_to_vec()
}

fn cycle() -> Vec<u8> {
    simple(
        vec![node("Add", &["x", "b"], &["a"]), node("Relu", &["a"], &["b"]), node("Neg", &["b"], &["y"])],
        vec![],
    )
}

fn same_output() -> Vec<u8> {
    simple(vec![node("Relu", &["x"], &["y"]); 100_000], vec![])
}

fn same_name() -> Vec<u8> {
    let mut nodes = Vec::new();
    for at in 0..20_000 {
        let made = NodeProto { name: "n".to_owned(), ..node("Relu", &["x"], &[&format!("v{at}")]) };
        nodes.push(made);
    }
    nodes.push(node("Relu", &["v19999"], &["y"]));
    simple(nodes, vec![])
}

fn chain(length: usize) -> Vec<u8> {
    let mut nodes = vec![node("Relu", &["x"], &["v0"])];
    nodes.extend((1..length).map(|at| node("Neg", &[&format!("v{}", at - 1)], &[&format!("v{at}")])));
    nodes.push(node("Relu", &[&format!("v{}", length - 1)], &["y"]));
    simple(nodes, vec![])
}

fn wide_concat() -> Vec<u8> {
    simple(vec![with(node("Concat", &["x"; 100_000], &["y"]), int("axis", 0))], vec![])
}

fn many_outputs() -> Vec<u8> {
    let names: Vec<String> = (0..100_000).map(|at| format!("y{at}")).collect();
    let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
    let split = with(node("Split", &["x"], &outputs), int("num_outputs", 100_000));
    let inputs = [value("x", FLOAT, &["100000"])];
    model(graph(&inputs, vec![split], &["y0"])).encode_to_vec()
}

fn weights(dims: &[i64]) -> Vec<u8> {
    simple(vec![node("Add", &["x", "w"], &["y"])], vec![tensor_f32("w", dims, &[1.0])])
}

fn shape_overflow() -> Vec<u8> {
    weights(&[1 << 33, 1 << 33])
}

fn input_overflow() -> Vec<u8> {
    let huge = (1i64 << 40).to_string();
    let inputs = [value("x", FLOAT, &[&huge, &huge])];
    let nodes =
        vec![node("Exp", &["x"], &["e"]), with(node("ReduceSum", &["e"], &["y"]), int("keepdims", 0))];
    model(graph(&inputs, nodes, &["y"])).encode_to_vec()
}

fn zero_times_huge() -> Vec<u8> {
    let huge = (1i64 << 40).to_string();
    let inputs = [value("x", FLOAT, &["0", &huge, &huge])];
    let nodes =
        vec![node("Exp", &["x"], &["e"]), with(node("Transpose", &["e"], &["y"]), ints("perm", &[2, 0, 1]))];
    model(graph(&inputs, nodes, &["y"])).encode_to_vec()
}

fn strings_2_31() -> Vec<u8> {
    let tensor = TensorProto { data_type: STRING, ..tensor_i64("w", &[1 << 31], &[]) };
    let mut graph = graph(&[], vec![node("Identity", &["w"], &["y"])], &["y"]);
    graph.initializer = vec![tensor];
    model(graph).encode_to_vec()
}

fn data_missing() -> Vec<u8> {
    weights(&[1 << 31])
}

/// A `ConstantOfShape`, and the largest of its elements with those of `x`.
fn filled(shape: &[i64]) -> Vec<u8> {
    let nodes = vec![
        node("ConstantOfShape", &["s"], &["c"]),
        node("Exp", &["c"], &["e"]),
        with(node("ReduceMax", &["x"], &["m"]), int("keepdims", 0)),
        node("Add", &["e", "m"], &["y"]),
    ];
    simple(nodes, vec![tensor_i64("s", &[shape.len() as i64], shape)])
}

/// An op that takes `x` and a list of sizes, and one more, so that the sizes are not those of an output.
fn sized(op: &str, sizes: &[i64]) -> Vec<u8> {
    let nodes = vec![node(op, &["x", "s"], &["e"]), node("Exp", &["e"], &["y"])];
    simple(nodes, vec![tensor_i64("s", &[sizes.len() as i64], sizes)])
}

fn range() -> Vec<u8> {
    let scalar = |name: &str, value: i64| tensor_i64(name, &[], &[value]);
    let nodes = vec![
        node("Range", &["a", "b", "c"], &["r"]),
        with(node("Cast", &["r"], &["f"]), int("to", 1)),
        with(node("ReduceMax", &["x"], &["m"]), int("keepdims", 0)),
        node("Add", &["f", "m"], &["y"]),
    ];
    simple(nodes, vec![scalar("a", 0), scalar("b", 1_000_000_000_000_000), scalar("c", 1)])
}

fn one_hot() -> Vec<u8> {
    let nodes =
        vec![with(node("Cast", &["x"], &["i"]), int("to", 7)), node("OneHot", &["i", "d", "v"], &["y"])];
    simple(nodes, vec![tensor_i64("d", &[], &[1 << 48]), tensor_f32("v", &[2], &[0.0, 1.0])])
}

fn resize(op: &str, scale: f32) -> Vec<u8> {
    let nodes = vec![with(node(op, &["x", "", "s"], &["y"]), text("mode", "nearest"))];
    simple(nodes, vec![tensor_f32("s", &[2], &[scale, 2.0])])
}

fn upsample(scale: f32) -> Vec<u8> {
    let upsample = with(node("Upsample", &["x"], &["y"]), floats("scales", &[scale, 2.0]));
    let mut proto = model(graph(&[value("x", FLOAT, &["2", "3"])], vec![upsample], &["y"]));
    proto.opset_import[0].version = 8;
    proto.encode_to_vec()
}

fn split_many() -> Vec<u8> {
    simple(vec![with(node("Split", &["x"], &["y"]), int("num_outputs", 1_000_000_000))], vec![])
}

/// A dim that is squared forty times: n, n·n, …
fn dims_squared() -> Vec<u8> {
    let mut nodes = Vec::new();
    for at in 0..40 {
        let (from, flat, row, column, to) =
            (format!("v{at}"), format!("f{at}"), format!("r{at}"), format!("c{at}"), format!("v{}", at + 1));
        nodes.push(node("Reshape", &[&from, "flat"], &[&flat]));
        nodes.push(node("Reshape", &[&flat, "row"], &[&row]));
        nodes.push(node("Reshape", &[&flat, "column"], &[&column]));
        nodes.push(node("Mul", &[&row, &column], &[&to]));
    }
    nodes.push(node("Relu", &["v40"], &["y"]));
    let mut graph = graph(&[value("v0", FLOAT, &["n"])], nodes, &["y"]);
    graph.initializer = vec![
        tensor_i64("flat", &[1], &[-1]),
        tensor_i64("row", &[2], &[1, -1]),
        tensor_i64("column", &[2], &[-1, 1]),
    ];
    model(graph).encode_to_vec()
}

/// Sums of many dims, multiplied: (a + b + …)·(a + b + …)·…
fn dims_polynomial() -> Vec<u8> {
    let names: Vec<String> = (0..60).map(|at| format!("x{at}")).collect();
    let inputs: Vec<ValueInfoProto> =
        names.iter().enumerate().map(|(at, name)| value(name, FLOAT, &[&format!("n{at}")])).collect();
    let operands: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut nodes = vec![with(node("Concat", &operands, &["v0"]), int("axis", 0))];
    for at in 0..6 {
        let (from, row, column, product, to) =
            (format!("v{at}"), format!("r{at}"), format!("c{at}"), format!("p{at}"), format!("v{}", at + 1));
        nodes.push(node("Reshape", &[&from, "row"], &[&row]));
        nodes.push(node("Reshape", &[&from, "column"], &[&column]));
        nodes.push(node("Mul", &[&row, &column], &[&product]));
        nodes.push(node("Reshape", &[&product, "flat"], &[&to]));
    }
    nodes.push(node("Relu", &["v6"], &["y"]));
    let mut graph = graph(&inputs, nodes, &["y"]);
    graph.initializer = vec![
        tensor_i64("flat", &[1], &[-1]),
        tensor_i64("row", &[2], &[1, -1]),
        tensor_i64("column", &[2], &[-1, 1]),
    ];
    model(graph).encode_to_vec()
}

/// A product of constants of a few bytes each, which the interpreter takes minutes for.
fn folding_a_product() -> Vec<u8> {
    let nodes = vec![
        node("ConstantOfShape", &["s"], &["a"]),
        node("ConstantOfShape", &["t"], &["b"]),
        node("MatMul", &["a", "b"], &["c"]),
        with(node("ReduceMax", &["c"], &["m"]), int("keepdims", 0)),
        node("Add", &["x", "m"], &["y"]),
    ];
    simple(nodes, vec![tensor_i64("s", &[2], &[512, 8000]), tensor_i64("t", &[2], &[8000, 512])])
}

fn looped(trips: Option<i64>) -> Vec<u8> {
    let inputs = [value("i", INT64, &[]), value("go", BOOL, &[]), value("v", FLOAT, &["2", "3"])];
    let body = vec![node("Identity", &["go"], &["on"]), node("Neg", &["v"], &["w"])];
    let body = graph(&inputs, body, &["on", "w"]);
    let trip = if trips.is_some() { "trips" } else { "" };
    let mut constants = vec![tensor_bool("yes", true)];
    constants.extend(trips.map(|trips| tensor_i64("trips", &[], &[trips])));
    simple(vec![with(node("Loop", &[trip, "yes", "x"], &["y"]), graph_attr("body", body))], constants)
}

fn sparse(dims: &[i64], indices: &[i64]) -> Vec<u8> {
    let mut graph = graph(&[value("x", FLOAT, &["1"])], vec![node("Add", &["x", "w"], &["y"])], &["y"]);
    let count = indices.len() as i64;
    graph.sparse_initializer = vec![SparseTensorProto {
        values: Some(tensor_f32("w", &[count], &vec![1.0; indices.len()])),
        indices: Some(tensor_i64("", &[count], indices)),
        dims: dims.to_vec(),
    }];
    model(graph).encode_to_vec()
}
