//! What is in a file, whether or not it can be imported.

use crate::dtype;
use crate::error::ImportError;
use crate::import::{decode, normalize_domain, opsets};
use crate::limits::Limits;
use crate::wire::{
    DimensionValue, GraphProto, ModelProto, NodeProto, TensorProto, TensorType, TypeValue, ValueInfoProto,
};
use bytes::Bytes;
use indexmap::IndexMap;
use std::collections::HashSet;
use std::path::Path;

/// Contents of a model file, as far as its messages tell without inference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Name of the graph.
    pub name: String,
    /// Version of the file format.
    pub ir_version: i64,
    /// Versions of the operator sets by domain; ONNX's own is the empty domain.
    pub opsets: IndexMap<String, i64>,
    /// Tool that wrote the file, and its version.
    pub producer: String,
    /// Inputs that have no initializer: name, and type as in `f32[batch,3]`.
    pub inputs: Vec<(String, String)>,
    /// Outputs: name and type.
    pub outputs: Vec<(String, String)>,
    /// How many nodes there are of each operator; those of nested graphs and of functions count once each.
    pub ops: IndexMap<String, usize>,
    /// Elements of the weights by dtype, in initializers and `Constant` nodes.
    pub weights: IndexMap<String, u64>,
    /// Bytes of the weights.
    pub weights_bytes: u64,
}

/// Reads the outline of a model file.
///
/// **Errors**: the file cannot be read, or holds no model.
pub fn outline_file(path: &Path, limits: &Limits) -> Result<Outline, ImportError> {
    let read = rabot_mmap::map_file(path);
    outline_bytes(read.map_err(|error| ImportError::Read { path: path.to_owned(), error })?, limits)
}

/// Reads the outline of a model.
///
/// **Errors**: the bytes hold no model.
pub fn outline_bytes(bytes: Bytes, limits: &Limits) -> Result<Outline, ImportError> {
    let proto = decode(bytes, limits)?;
    let graph = proto.graph.as_ref().ok_or(ImportError::NoGraph)?;
    let mut outline = head(&proto);
    outline.name = graph.name.clone();
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    let initialized: HashSet<&str> =
        graph.initializer.iter().chain(sparse).map(|t| t.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|input| !initialized.contains(input.name.as_str()));
    outline.inputs = inputs.map(|info| (info.name.clone(), type_text(info))).collect();
    outline.outputs = graph.output.iter().map(|info| (info.name.clone(), type_text(info))).collect();
    outline.graph(graph);
    for function in &proto.functions {
        outline.nodes(&function.node);
    }
    outline.ops.sort_keys();
    outline.weights.sort_keys();
    Ok(outline)
}

fn head(proto: &ModelProto) -> Outline {
    let opsets = opsets(&proto.opset_import, proto.ir_version);
    Outline {
        ir_version: proto.ir_version,
        opsets: opsets.into_iter().map(|(domain, version)| (domain.to_owned(), version)).collect(),
        producer: format!("{} {}", proto.producer_name, proto.producer_version).trim().to_owned(),
        ..Outline::default()
    }
}

impl Outline {
    fn graph(&mut self, graph: &GraphProto) {
        let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        graph.initializer.iter().chain(sparse).for_each(|tensor| self.tensor(tensor));
        self.nodes(&graph.node);
    }

    /// Recursion ends: messages nest at most as deep as the decoder allows.
    fn nodes(&mut self, nodes: &[NodeProto]) {
        for node in nodes {
            let domain = normalize_domain(&node.domain);
            let colons = if domain.is_empty() { "" } else { "::" };
            *self.ops.entry(format!("{domain}{colons}{}", node.op_type)).or_insert(0) += 1;
            for attribute in &node.attribute {
                attribute.g.iter().for_each(|graph| self.graph(graph));
                attribute.graphs.iter().for_each(|graph| self.graph(graph));
                attribute
                    .t
                    .iter()
                    .filter(|_| node.op_type == "Constant")
                    .for_each(|tensor| self.tensor(tensor));
            }
        }
    }

    fn tensor(&mut self, tensor: &TensorProto) {
        let dims = tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0));
        let elements = dims.fold(1u64, u64::saturating_mul);
        let known = self.weights.entry(dtype_text(tensor.data_type)).or_insert(0);
        *known = known.saturating_add(elements);
        let item_bytes = dtype::from_code(tensor.data_type).map_or(0, |dtype| dtype.size_bytes() as u64);
        self.weights_bytes = self.weights_bytes.saturating_add(elements.saturating_mul(item_bytes));
    }
}

fn dtype_text(code: i32) -> String {
    dtype::from_code(code).map_or_else(|problem| problem.to_string(), |dtype| dtype.name().to_owned())
}

fn type_text(info: &ValueInfoProto) -> String {
    match info.r#type.as_ref().and_then(|ty| ty.value.as_ref()) {
        Some(TypeValue::TensorType(tensor)) => tensor_text(tensor),
        Some(TypeValue::SparseTensorType(tensor)) => format!("sparse {}", tensor_text(tensor)),
        Some(TypeValue::SequenceType(_)) => "a sequence".to_owned(),
        Some(TypeValue::MapType(_)) => "a map".to_owned(),
        Some(TypeValue::OptionalType(_)) => "an optional".to_owned(),
        Some(TypeValue::OpaqueType(_)) => "opaque".to_owned(),
        None => "not given".to_owned(),
    }
}

fn tensor_text(tensor: &TensorType) -> String {
    let dims = tensor.shape.as_ref().map(|shape| {
        let dim = |value: &Option<DimensionValue>| match value {
            Some(DimensionValue::DimValue(size)) => size.to_string(),
            Some(DimensionValue::DimParam(name)) => name.clone(),
            None => "?".to_owned(),
        };
        shape.dim.iter().map(|d| dim(&d.value)).collect::<Vec<_>>().join(",")
    });
    format!("{}[{}]", dtype_text(tensor.elem_type), dims.unwrap_or_else(|| "...".to_owned()))
}
