//! Inputs that are out of range: compiled code and the interpreter refuse them, or both give the same, and neither reads
//! or writes outside of a tensor, panics or takes more memory than it may.

use prost::Message;
use rabot::{Options, Session, rewrite::Exactness};
use rabot_filetest::difference;
use rabot_ir::budget::{Budget, within};
use rabot_ir::interp::{self, Tensors};
use rabot_onnx::wire::*;
use rabot_onnx::{Limits, import_bytes};
use rabot_tensor::{DType, Tensor};

/// An operator, its attributes, and inputs that it takes.
struct Case {
    op: &'static str,
    ints: &'static [(&'static str, i64)],
    inputs: Vec<Tensor>,
    /// Inputs whose elements are replaced, one after the other, by what is out of range.
    control: &'static [usize],
}

fn case(
    op: &'static str,
    ints: &'static [(&'static str, i64)],
    inputs: Vec<Tensor>,
    control: &'static [usize],
) -> Case {
    Case { op, ints, inputs, control }
}

fn floats(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_f64s(DType::F32, shape, &(0..count).map(|i| i as f64 / 4.0).collect::<Vec<_>>())
}

fn list(values: &[i64]) -> Tensor {
    Tensor::from_i64s(DType::I64, &[values.len()], values)
}

fn numbers(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_i64s(DType::I64, shape, values)
}

fn scalar(value: i64) -> Tensor {
    numbers(&[], &[value])
}

// tidy: long, because it is a table.
fn cases() -> Vec<Case> {
    let x = || floats(&[3, 4]);
    let f = |value: f64| Tensor::from_f64s(DType::F32, &[], &[value]);
    vec![
        case("Gather", &[], vec![x(), list(&[0, 2])], &[1]),
        case("Gather", &[("axis", 1)], vec![x(), numbers(&[2, 2], &[0, 1, 2, 3])], &[1]),
        case("GatherElements", &[("axis", 1)], vec![x(), numbers(&[3, 1], &[0, 1, 2])], &[1]),
        case("GatherND", &[], vec![x(), numbers(&[2, 2], &[0, 1, 2, 3])], &[1]),
        case("ScatterElements", &[], vec![x(), numbers(&[1, 2], &[0, 1]), floats(&[1, 2])], &[1]),
        case("ScatterND", &[], vec![x(), numbers(&[2, 1], &[0, 2]), floats(&[2, 4])], &[1]),
        case("OneHot", &[], vec![list(&[0, 2]), scalar(3), floats(&[2])], &[0, 1]),
        case(
            "Slice",
            &[],
            vec![x(), list(&[0, 1]), list(&[3, 4]), list(&[0, 1]), list(&[1, 2])],
            &[1, 2, 3, 4],
        ),
        case("Pad", &[], vec![x(), list(&[1, 0, 0, 2]), f(1.0)], &[1]),
        case("Expand", &[], vec![floats(&[1, 4]), list(&[3, 4])], &[1]),
        case("Tile", &[], vec![x(), list(&[2, 1])], &[1]),
        case("Reshape", &[], vec![x(), list(&[4, 3])], &[1]),
        case("ConstantOfShape", &[], vec![list(&[2, 3])], &[0]),
        case("Range", &[], vec![scalar(0), scalar(8), scalar(3)], &[0, 1, 2]),
        case("Range", &[], vec![f(0.0), f(2.0), f(0.5)], &[0, 1, 2]),
        case("Resize", &[], vec![x(), floats(&[0]), Tensor::from_vec(&[2], vec![2f32, 1.5])], &[2]),
        case("Resize", &[], vec![x(), floats(&[0]), floats(&[0]), list(&[6, 2])], &[3]),
        case("Split", &[], vec![x(), list(&[1, 2])], &[1]),
        case("TopK", &[], vec![x(), list(&[2])], &[1]),
        case("CumSum", &[], vec![x(), scalar(1)], &[1]),
        case("Trilu", &[], vec![x(), scalar(1)], &[1]),
        case("Squeeze", &[], vec![floats(&[1, 3]), list(&[0])], &[1]),
        case("Unsqueeze", &[], vec![x(), list(&[0])], &[1]),
        case("ReduceSum", &[], vec![x(), list(&[1])], &[1]),
        case("ReverseSequence", &[], vec![x(), list(&[1, 2, 3, 1])], &[1]),
        case("CenterCropPad", &[], vec![x(), list(&[2, 6])], &[1]),
        case("Compress", &[("axis", 0)], vec![x(), Tensor::from_bools(&[3], &[true, false, true])], &[]),
        case("Col2Im", &[], vec![floats(&[1, 5, 5]), list(&[5, 5]), list(&[1, 5])], &[1, 2]),
        case("MaxUnpool", &[], vec![floats(&[1, 1, 2, 2]), numbers(&[1, 1, 2, 2], &[0, 3, 8, 7])], &[1]),
        case("BlackmanWindow", &[], vec![scalar(10)], &[0]),
        case("DFT", &[], vec![floats(&[1, 4, 1]), scalar(4), scalar(1)], &[1, 2]),
        case("Mod", &[], vec![list(&[7, 8]), list(&[3, 5])], &[0, 1]),
        case("Div", &[], vec![list(&[7, 8]), list(&[3, 5])], &[0, 1]),
        case("Pow", &[], vec![list(&[7, 8]), list(&[3, 5])], &[0, 1]),
        case("Abs", &[], vec![list(&[7, 8])], &[0]),
        case(
            "BitShift",
            &[],
            vec![Tensor::from_vec(&[2], vec![7u32, 8]), Tensor::from_vec(&[2], vec![3u32, 5])],
            &[1],
        ),
        case("Cast", &[("to", 7)], vec![x()], &[0]),
        case("Cast", &[("to", 2)], vec![x()], &[0]),
        case("ArgMax", &[], vec![x()], &[0]),
        case(
            "NonMaxSuppression",
            &[],
            vec![floats(&[1, 3, 4]), floats(&[1, 1, 3]), list(&[2]), floats(&[1]), floats(&[1])],
            &[0, 2, 3],
        ),
        case(
            "RoiAlign",
            &[("output_height", 2), ("output_width", 2)],
            vec![floats(&[1, 1, 4, 4]), Tensor::from_vec(&[1, 4], vec![0f32, 0.0, 3.0, 3.0]), list(&[0])],
            &[1, 2],
        ),
        case("GridSample", &[], vec![floats(&[1, 1, 3, 3]), floats(&[1, 2, 2, 2])], &[1]),
        case("AffineGrid", &[], vec![floats(&[1, 2, 3]), list(&[1, 1, 2, 2])], &[1]),
        case("NegativeLogLikelihoodLoss", &[], vec![x(), list(&[0, 1, 3])], &[1]),
        case(
            "DequantizeLinear",
            &[],
            vec![Tensor::from_vec(&[2, 2], vec![1u8, 2, 3, 4]), f(0.5), Tensor::scalar(1u8)],
            &[1],
        ),
        case("QuantizeLinear", &[], vec![x(), f(0.5), Tensor::scalar(1u8)], &[0, 1]),
    ]
}

const INTEGERS: [i64; 11] =
    [-1, -2, 4, 5, 1000, -1000, 1 << 31, 1_000_000_000_000_000, i64::MAX, i64::MIN, i64::MIN + 1];
const FLOATS: [f64; 7] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e30, 1e-38];

/// The tensor with its first, or its last, element replaced by each number that may be out of range.
fn spoiled(tensor: &Tensor) -> Vec<Tensor> {
    let mut all = Vec::new();
    for at in [0, tensor.len().saturating_sub(1)] {
        if tensor.is_empty() {
            continue;
        }
        if tensor.dtype().is_int() {
            for value in INTEGERS {
                let mut values = tensor.to_i64s();
                values[at] = value;
                all.push(Tensor::from_i64s(tensor.dtype(), tensor.shape(), &values));
            }
        } else {
            for value in FLOATS {
                let mut values = tensor.to_f64s();
                values[at] = value;
                all.push(Tensor::from_f64s(tensor.dtype(), tensor.shape(), &values));
            }
        }
    }
    all
}

fn code(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::U32 => 12,
        other => panic!("{other}"),
    }
}

/// A model of one node, of which all dims are unknown where `symbolic`.
fn model(case: &Case, symbolic: bool) -> Vec<u8> {
    let input = |(at, tensor): (usize, &Tensor)| {
        let dim = |(axis, &size): (usize, &usize)| {
            let value = match symbolic && at == 0 {
                true => DimensionValue::DimParam(format!("d{axis}")),
                false => DimensionValue::DimValue(size as i64),
            };
            Dimension { value: Some(value), ..Dimension::default() }
        };
        let shape = TensorShapeProto { dim: tensor.shape().iter().enumerate().map(dim).collect() };
        let ty = TypeValue::TensorType(TensorType { elem_type: code(tensor.dtype()), shape: Some(shape) });
        let ty = TypeProto { value: Some(ty), ..TypeProto::default() };
        ValueInfoProto { name: format!("x{at}"), r#type: Some(ty), ..ValueInfoProto::default() }
    };
    let mut attribute: Vec<AttributeProto> = Vec::new();
    for (name, value) in case.ints {
        let (name, i, kind) = ((*name).to_owned(), Some(*value), attribute_type::INT);
        attribute.push(AttributeProto { name, i, r#type: kind, ..AttributeProto::default() });
    }
    if case.op == "MaxUnpool" {
        let (name, kind) = ("kernel_shape".to_owned(), attribute_type::INTS);
        attribute.push(AttributeProto { name, ints: vec![2, 2], r#type: kind, ..AttributeProto::default() });
    }
    if case.op == "BitShift" {
        let (name, s, kind) = ("direction".to_owned(), Some("LEFT".into()), attribute_type::STRING);
        attribute.push(AttributeProto { name, s, r#type: kind, ..AttributeProto::default() });
    }
    let outputs: Vec<String> = match case.op {
        "Split" | "TopK" => vec!["y".to_owned(), "z".to_owned()],
        _ => vec!["y".to_owned()],
    };
    let node = NodeProto {
        op_type: case.op.to_owned(),
        input: (0..case.inputs.len()).map(|at| format!("x{at}")).collect(),
        output: outputs.clone(),
        attribute,
        ..NodeProto::default()
    };
    let output = |name: &String| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() };
    let graph = GraphProto {
        name: "hostile".to_owned(),
        node: vec![node],
        input: case.inputs.iter().enumerate().map(input).collect(),
        output: outputs.iter().map(output).collect(),
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 21 }];
    ModelProto { ir_version: 10, opset_import, graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
}

/// Runs one case on every set of inputs; what is wrong, if anything.
fn check(case: &Case, symbolic: bool, problems: &mut Vec<String>) {
    let name = format!("{}{}", case.op, if symbolic { ", symbolic" } else { "" });
    let imported = import_bytes(model(case, symbolic).into(), None, &Limits::default());
    let graph = match imported {
        Ok(model) => model.graph,
        Err(error) => return problems.push(format!("{name}: {error}")),
    };
    let compiled = rabot::compile_graph(graph.clone(), &Options::default());
    let session = match &compiled {
        Ok(compiled) => Session::new(&compiled.program).ok(),
        Err(error) => return problems.push(format!("{name}: {error}")),
    };
    let Some(session) = session else { return problems.push(format!("{name}: no session")) };
    let mut sets = vec![case.inputs.clone()];
    for &at in case.control {
        for tensor in spoiled(&case.inputs[at]) {
            let mut inputs = case.inputs.clone();
            inputs[at] = tensor;
            sets.push(inputs);
        }
    }
    for (index, set) in sets.into_iter().enumerate() {
        let inputs: Tensors = set.into_iter().enumerate().map(|(at, t)| (format!("x{at}"), t)).collect();
        let expected = interp::run(&graph, &inputs).map_err(|error| error.to_string());
        let actual = session.run(&inputs).map_err(|error| error.to_string());
        match (&expected, &actual) {
            (Err(error), _) if index == 0 => problems.push(format!("{name}: {error}")),
            (Err(_), Err(_)) => {}
            (Ok(expected), Ok(actual)) => {
                for (output, tensor) in expected {
                    let exactness = Exactness::Rel { rtol: 1e-5, atol: 1e-30 };
                    let found = match actual.get(output) {
                        Some(actual) => difference(tensor, actual, exactness),
                        None => Some("missing".to_owned()),
                    };
                    problems.extend(found.map(|text| format!("{name}, {inputs:?}: {output}: {text}")));
                }
            }
            (Ok(_), Err(error)) => problems.push(format!("{name}, {inputs:?}: compiled only: {error}")),
            (Err(error), Ok(_)) => problems.push(format!("{name}, {inputs:?}: interpreter only: {error}")),
        }
    }
}

#[test]
fn inputs_out_of_range_are_refused_by_both_or_by_none() {
    let budget = Budget { bytes: 64 << 20, ..Budget::default() };
    let mut problems = Vec::new();
    within(budget, || {
        for case in cases() {
            check(&case, false, &mut problems);
            check(&case, true, &mut problems);
        }
    });
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
