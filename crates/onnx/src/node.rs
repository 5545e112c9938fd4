//! One node of the file: its operands, its attributes, and what it becomes.

use crate::error::{AttributeProblem, Failure, ImportError};
use crate::flex;
use crate::import::{Body, Converted, Env, Importer, Known, normalize_domain, value_name};
use crate::names::{differentiated, node_label};
use crate::types::value_type;
use crate::upgrade::{self, Draft};
use crate::wire::{AttributeProto, NodeProto, attribute_type as kind};
use bytes::Bytes;
use rabot_ir::{Attr, Attrs, Graph, GraphError, NodeId, Op, OpError, Value};
use rabot_tensor::{DType, Tensor};
use std::collections::HashSet;

/// An op that rabot has not, and what to do about it.
const HINTS: [(&str, &str, &str); 5] = [
    ("", "Loop", "unroll the loop when exporting"),
    ("", "Scan", "unroll the scan when exporting"),
    ("ai.onnx.training", "*", "export the model for inference"),
    ("ai.onnx.preview.training", "*", "export the model for inference"),
    ("com.microsoft", "*", "export the model without optimizations that are specific to ONNX Runtime"),
];

impl Converted {
    /// All outputs of a new node.
    pub(crate) fn of_node(graph: &Graph, node: NodeId) -> Self {
        let slots = 0..graph.node(node).outputs.len() as u32;
        Converted { outputs: slots.map(|slot| Known::Value(Value { node, slot })).collect(), named: false }
    }
}

impl<'a> Importer<'a> {
    /// Turns a node of the file into nodes of the graph.
    pub(crate) fn convert(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        env: &Env<'a>,
    ) -> Result<Converted, Failure> {
        let domain = normalize_domain(&node.domain);
        let id = (domain, node.op_type.as_str(), node.overload.as_str());
        if let Some(&function) = self.functions.get(&id) {
            return self.call(graph, body, node, (id, function), env);
        }
        let known = upgrade::is_known(domain, &node.op_type);
        if !domain.is_empty() && !known {
            return Err(unknown_op(domain, &node.op_type));
        }
        let opset = *env.opsets.get(domain).ok_or_else(|| ImportError::NoOpset {
            node: node_label(node),
            op: node.op_type.clone(),
            domain: if domain.is_empty() { "ai.onnx" } else { domain }.to_owned(),
        })?;
        match upgrade::qualified(domain, &node.op_type).as_str() {
            "Constant" => return self.constant(graph, body, node, env),
            "If" => return self.conditional(graph, body, node, env),
            "SequenceMap" => return self.sequence_map(graph, body, node, env),
            "Loop" | "Scan" => return self.rounds(graph, body, node, opset, env),
            "ai.onnx.preview.FlexAttention" if flex::holds_graphs(node) => {
                return self.flex_attention(graph, body, node, opset, env);
            }
            _ if !known => return Err(unknown_op(domain, &node.op_type)),
            _ => {}
        }
        let inputs = operands(body, node)?;
        let attrs = self.attributes(node, env)?;
        let source = format!("{}{}", env.prefix, node_label(node));
        let draft = Draft {
            name: self.names.unique(&source),
            source: source.into(),
            domain: domain.to_owned(),
            op: node.op_type.clone(),
            attrs,
            inputs,
            outputs: node.output.len(),
            opset,
            graph,
            names: &mut self.names,
            made: HashSet::new(),
        };
        upgrade::convert(draft)
    }

    /// `Constant` in all its forms.
    fn constant(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        env: &Env<'a>,
    ) -> Result<Converted, Failure> {
        let attributes = resolved_attributes(node, env)?;
        let value =
            attributes.into_iter().find(|(name, _)| name.starts_with("value") || *name == "sparse_value");
        let no_value = |problem| attribute_error(node, "value", problem);
        let (name, attribute) = value.ok_or_else(|| no_value(AttributeProblem::NoValue))?;
        let count = |values: usize| [values];
        let tensor = match self.attribute(node, name, attribute, env)? {
            Attr::Tensor(tensor) => tensor,
            Attr::Int(value) => Tensor::scalar(value),
            Attr::Float(value) => Tensor::scalar(value),
            Attr::Str(value) => Tensor::from_strings(&[], vec![value]),
            Attr::Ints(values) => Tensor::from_vec(&count(values.len()), values),
            Attr::Floats(values) => Tensor::from_vec(&count(values.len()), values),
            Attr::Strs(values) => Tensor::from_strings(&count(values.len()), values),
        };
        let output = node.output.first().map_or("", String::as_str);
        let value = graph.add_constant(&value_name(body, output, env), tensor);
        let source = format!("{}{}", env.prefix, node_label(node));
        graph.annotate(value.node, |node| node.sources.push(source.into()));
        Ok(Converted { outputs: vec![Known::Value(value)], named: true })
    }

    fn attributes(&mut self, node: &'a NodeProto, env: &Env<'a>) -> Result<Attrs, Failure> {
        self.attributes_but(node, &[], env)
    }

    /// The attributes of a node, without those named in `but`.
    pub(crate) fn attributes_but(
        &mut self,
        node: &'a NodeProto,
        but: &[&str],
        env: &Env<'a>,
    ) -> Result<Attrs, Failure> {
        let mut attrs = Attrs::new();
        for (name, attribute) in
            resolved_attributes(node, env)?.into_iter().filter(|(name, _)| !but.contains(name))
        {
            let value = self.attribute(node, name, attribute, env)?;
            attrs.set(name, value);
        }
        Ok(attrs)
    }

    fn attribute(
        &mut self,
        node: &NodeProto,
        name: &str,
        attribute: &AttributeProto,
        env: &Env<'a>,
    ) -> Result<Attr, Failure> {
        let wrong = |problem| attribute_error(node, name, problem);
        let text =
            |bytes: &Bytes| String::from_utf8(bytes.to_vec()).map_err(|_| wrong(AttributeProblem::Utf8));
        let label = || format!("{}{}.{name}", env.prefix, node_label(node));
        let unsupported = |what: &str| Err(Failure::unsupported(format!("attribute `{name}`: {what}")));
        match kind_of(attribute).ok_or_else(|| wrong(AttributeProblem::NoValue))? {
            kind::FLOAT => Ok(Attr::Float(attribute.f.unwrap_or(0.0))),
            kind::INT => Ok(Attr::Int(attribute.i.unwrap_or(0))),
            kind::STRING => Ok(Attr::Str(text(attribute.s.as_ref().unwrap_or(&Bytes::new()))?)),
            kind::FLOATS => Ok(Attr::Floats(attribute.floats.clone())),
            kind::INTS => Ok(Attr::Ints(attribute.ints.clone())),
            kind::STRINGS => Ok(Attr::Strs(attribute.strings.iter().map(text).collect::<Result<_, _>>()?)),
            kind::TENSOR => {
                let tensor = attribute.t.as_deref().ok_or_else(|| wrong(AttributeProblem::NoValue))?;
                Ok(Attr::Tensor(self.tensors.read(tensor, &label())?))
            }
            kind::SPARSE_TENSOR => {
                let tensor = attribute.sparse_tensor.as_deref();
                let tensor = tensor.ok_or_else(|| wrong(AttributeProblem::NoValue))?;
                Ok(Attr::Tensor(self.tensors.read_sparse(tensor, &label())?))
            }
            kind::GRAPH | kind::GRAPHS => unsupported("a graph"),
            kind::TENSORS | kind::SPARSE_TENSORS => unsupported("a list of tensors"),
            kind::TYPE_PROTO => match value_type(name, attribute.tp.as_deref(), self.limits) {
                Ok(ty) => Ok(Attr::Str(ty.to_string())),
                Err(problem) => unsupported(&problem),
            },
            kind::TYPE_PROTOS => unsupported("a list of types"),
            other => unsupported(&format!("kind {other} is not known")),
        }
    }
}

fn attribute_error(node: &NodeProto, name: &str, problem: AttributeProblem) -> ImportError {
    let (op, attribute) = (node.op_type.clone(), name.to_owned());
    ImportError::Attribute { node: node_label(node), op, attribute, problem }
}

/// Files of IR version 1 do not say of what kind an attribute is: the field that is there tells.
fn kind_of(attribute: &AttributeProto) -> Option<i32> {
    if attribute.r#type != kind::UNDEFINED {
        return Some(attribute.r#type);
    }
    let present = [
        (attribute.f.is_some(), kind::FLOAT),
        (attribute.i.is_some(), kind::INT),
        (attribute.s.is_some(), kind::STRING),
        (attribute.t.is_some(), kind::TENSOR),
        (attribute.g.is_some(), kind::GRAPH),
        (attribute.sparse_tensor.is_some(), kind::SPARSE_TENSOR),
        (!attribute.floats.is_empty(), kind::FLOATS),
        (!attribute.ints.is_empty(), kind::INTS),
        (!attribute.strings.is_empty(), kind::STRINGS),
    ];
    present.iter().find(|(present, _)| *present).map(|(_, kind)| *kind)
}

/// A node's attributes by name; those that refer to one of the enclosing function have the value of that.
pub(crate) fn resolved_attributes<'a>(
    node: &'a NodeProto,
    env: &Env<'a>,
) -> Result<Vec<(&'a str, &'a AttributeProto)>, ImportError> {
    let mut attributes: Vec<(&str, &AttributeProto)> = Vec::with_capacity(node.attribute.len());
    for attribute in &node.attribute {
        let name = attribute.name.as_str();
        if attributes.iter().any(|(other, _)| *other == name) {
            return Err(attribute_error(node, name, AttributeProblem::Twice));
        }
        match attribute.ref_attr_name.as_str() {
            "" => attributes.push((name, attribute)),
            // A caller that leaves out an optional attribute leaves it out here too.
            outer => attributes.extend(env.attrs.get(outer).map(|value| (name, *value))),
        }
    }
    Ok(attributes)
}

/// The node's operands, without absent ones at the end; then what its attributes name.
pub(crate) fn operands(body: &Body<'_>, node: &NodeProto) -> Result<Vec<Option<Value>>, Failure> {
    let mut inputs = Vec::with_capacity(node.input.len());
    for slot in 0..node.input.len() {
        inputs.push(match operand(body, node, slot)? {
            Known::Value(value) => Some(value),
            Known::Absent => None,
            Known::Poisoned => return Err(Failure::Poisoned),
        });
    }
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    for name in differentiated(node) {
        match body.values.get(name) {
            Some(Known::Value(value)) => inputs.push(Some(*value)),
            _ => return Err(Failure::Poisoned),
        }
    }
    Ok(inputs)
}

/// What the node's input at `slot` stands for.
pub(crate) fn operand(body: &Body<'_>, node: &NodeProto, slot: usize) -> Result<Known, ImportError> {
    match node.input.get(slot).map(String::as_str) {
        None | Some("") => Ok(Known::Absent),
        Some(name) => body.values.get(name).copied().ok_or_else(|| ImportError::UndefinedInput {
            node: node_label(node),
            op: node.op_type.clone(),
            input: name.to_owned(),
        }),
    }
}

fn unknown_op(domain: &str, op: &str) -> Failure {
    let hint = HINTS.iter().find(|row| row.0 == domain && (row.1 == op || row.1 == "*"));
    let reason = match domain {
        "" => "rabot has no such operator".to_owned(),
        _ => format!("rabot has no operators of domain `{domain}`, and the model has no such function"),
    };
    Failure::Unsupported { reason, hint: hint.map(|row| row.2) }
}

/// What an op refuses is either not supported or not valid.
pub(crate) fn failure_of(error: GraphError) -> Failure {
    match &error {
        GraphError::Op { error: reason, inputs, .. } => match &**reason {
            OpError::Unsupported(_) | OpError::DType { .. } | OpError::Attribute { .. } => {
                Failure::unsupported(format!("{reason} (inputs: {inputs})"))
            }
            _ => Failure::Invalid(error.into()),
        },
        _ => Failure::Invalid(error.into()),
    }
}

/// The node's op from its attributes. **Errors**: rabot has no such op, or not with these attributes.
pub(crate) fn make_op(op: &str, attrs: &Attrs) -> Result<Op, Failure> {
    match Op::from_attrs(op, attrs) {
        Some(made) => made.map_err(|error| Failure::unsupported(error.to_string())),
        None => Err(unknown_op("", op)),
    }
}

/// Dtypes that a float attribute can become a tensor of.
pub(crate) fn holds_floats(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}
