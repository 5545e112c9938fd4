//! Small models, written as messages.
#![allow(dead_code, reason = "each test file uses some of it")]

use bytes::Bytes;
use prost::Message;
use rabot_ir::interp::{self, Tensors};
use rabot_onnx::wire::*;
use rabot_onnx::{ImportError, Limits, Model, UnsupportedNode, import_bytes};
use rabot_tensor::{DType, Tensor};

pub const FLOAT: i32 = 1;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        name: format!("n_{}", outputs.first().unwrap_or(&"")),
        input: strings(inputs),
        output: strings(outputs),
        ..NodeProto::default()
    }
}

pub fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn attr(name: &str, r#type: i32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type, ..AttributeProto::default() }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attr(name, attribute_type::INT) }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attr(name, attribute_type::FLOAT) }
}

pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(Bytes::copy_from_slice(value.as_bytes())), ..attr(name, attribute_type::STRING) }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attr(name, attribute_type::INTS) }
}

pub fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto { floats: values.to_vec(), ..attr(name, attribute_type::FLOATS) }
}

pub fn tensor_attr(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(Box::new(value)), ..attr(name, attribute_type::TENSOR) }
}

pub fn graph_attr(name: &str, value: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(value)), ..attr(name, attribute_type::GRAPH) }
}

pub fn reference(name: &str, outer: &str, r#type: i32) -> AttributeProto {
    AttributeProto { ref_attr_name: outer.to_owned(), ..attr(name, r#type) }
}

pub fn tensor_f32(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: FLOAT,
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

pub fn tensor_i64(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: INT64,
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// `dims` as in the text form of shapes: `"2,batch,?"`; a dim `_` has no value.
pub fn value(name: &str, elem_type: i32, dims: &str) -> ValueInfoProto {
    let dim = |text: &str| {
        let value = match text {
            "_" => None,
            _ => Some(
                text.parse()
                    .map_or_else(|_| DimensionValue::DimParam(text.to_owned()), DimensionValue::DimValue),
            ),
        };
        Dimension { value, denotation: String::new() }
    };
    let shape = TensorShapeProto { dim: dims.split(',').filter(|d| !d.is_empty()).map(dim).collect() };
    let tensor = TensorType { elem_type, shape: Some(shape) };
    let ty = TypeProto { value: Some(TypeValue::TensorType(tensor)), denotation: String::new() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(ty), ..ValueInfoProto::default() }
}

pub fn output(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: name.to_owned(), ..ValueInfoProto::default() }
}

pub fn graph(inputs: &[ValueInfoProto], nodes: &[NodeProto], outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: "test".to_owned(),
        input: inputs.to_vec(),
        node: nodes.to_vec(),
        output: outputs.iter().map(|name| output(name)).collect(),
        ..GraphProto::default()
    }
}

pub fn model(opset: i64, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

pub fn import(model: &ModelProto) -> Result<Model, ImportError> {
    import_bytes(Bytes::from(model.encode_to_vec()), None, &Limits::default())
}

/// One node between inputs and outputs.
pub fn single(opset: i64, inputs: &[ValueInfoProto], node: NodeProto) -> ModelProto {
    let outputs = node.output.clone();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    model(opset, graph(inputs, &[node], &outputs))
}

/// The nodes refused, or a panic if there was none.
pub fn refused(model: &ModelProto) -> Vec<UnsupportedNode> {
    match import(model) {
        Err(ImportError::Unsupported(nodes)) => nodes.0,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing was refused"),
    }
}

/// Evaluates a model on f32 inputs; gives the first output.
pub fn run(model: &ModelProto, inputs: &[(&str, &[usize], &[f64])]) -> Tensor {
    run_with(
        model,
        inputs
            .iter()
            .map(|(name, shape, values)| ((*name).to_owned(), Tensor::from_f64s(DType::F32, shape, values))),
    )
}

pub fn run_with(model: &ModelProto, inputs: impl Iterator<Item = (String, Tensor)>) -> Tensor {
    let imported = import(model).unwrap_or_else(|error| panic!("{error}"));
    let inputs: Tensors = inputs.collect();
    let outputs = interp::run(&imported.graph, &inputs).unwrap_or_else(|error| panic!("{error}"));
    outputs.into_iter().next().map(|(_, tensor)| tensor).expect("the model has an output")
}
