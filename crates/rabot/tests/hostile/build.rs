//! Model files, as messages or as raw bytes.

use bytes::Bytes;
use prost::Message;
use rabot::onnx::wire::*;

pub const FLOAT: i32 = 1;
pub const INT64: i32 = 7;
pub const STRING: i32 = 8;
pub const BOOL: i32 = 9;

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        op_type: op.to_owned(),
        name: format!("n_{}", outputs.first().unwrap_or(&"")),
        input: owned(inputs),
        output: owned(outputs),
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

pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(Bytes::copy_from_slice(value.as_bytes())), ..attr(name, attribute_type::STRING) }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attr(name, attribute_type::INTS) }
}

pub fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto { floats: values.to_vec(), ..attr(name, attribute_type::FLOATS) }
}

pub fn graph_attr(name: &str, value: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(value)), ..attr(name, attribute_type::GRAPH) }
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

pub fn tensor_f32(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: FLOAT,
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

pub fn tensor_bool(name: &str, value: bool) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: BOOL,
        int32_data: vec![i32::from(value)],
        ..TensorProto::default()
    }
}

pub fn value(name: &str, elem_type: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = |text: &&str| {
        let named = || DimensionValue::DimParam((*text).to_owned());
        Dimension {
            value: Some(text.parse().map_or_else(|_| named(), DimensionValue::DimValue)),
            ..Dimension::default()
        }
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = TensorType { elem_type, shape: Some(shape) };
    let ty = TypeProto { value: Some(TypeValue::TensorType(tensor)), denotation: String::new() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(ty), ..ValueInfoProto::default() }
}

pub fn graph(inputs: &[ValueInfoProto], nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    let output = |name: &&str| ValueInfoProto { name: (*name).to_owned(), ..ValueInfoProto::default() };
    GraphProto {
        name: "hostile".to_owned(),
        input: inputs.to_vec(),
        node: nodes,
        output: outputs.iter().map(output).collect(),
        ..GraphProto::default()
    }
}

pub fn model(graph: GraphProto) -> ModelProto {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
    ModelProto {
        ir_version: 8,
        opset_import: vec![opset("", 18), opset("local", 1)],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// A model of nodes from `x`, an f32 of two dims, to `y`.
pub fn simple(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> Vec<u8> {
    let mut graph = graph(&[value("x", FLOAT, &["2", "3"])], nodes, &["y"]);
    graph.initializer = constants;
    model(graph).encode_to_vec()
}

pub fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: name.to_owned(),
        domain: "local".to_owned(),
        input: vec!["p".to_owned()],
        output: vec!["r".to_owned()],
        node: nodes,
        opset_import: model(GraphProto::default()).opset_import,
        ..FunctionProto::default()
    }
}

pub fn call(name: &str, input: &str, output: &str) -> NodeProto {
    NodeProto { domain: "local".to_owned(), ..node(name, &[input], &[output]) }
}

/// A field of bytes around bytes.
pub fn wrapped(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut outer = vec![tag];
    prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
    outer.extend_from_slice(bytes);
    outer
}

/// Messages in each other, `levels` times the tags of `around`, outermost first; made from the inside out.
pub fn nested(levels: usize, around: &[u8]) -> Vec<u8> {
    let mut reversed: Vec<u8> = Vec::new();
    for _ in 0..levels {
        for tag in around.iter().rev() {
            let mut length = Vec::new();
            prost::encoding::encode_varint(reversed.len() as u64, &mut length);
            reversed.extend(length.iter().rev());
            reversed.push(*tag);
        }
    }
    reversed.reverse();
    reversed
}
