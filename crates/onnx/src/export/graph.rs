//! From a graph to its message.

use super::error::ExportError;
use super::names::{Names, Scopes};
use super::node::{self, Operand, Written};
use super::repeated::{self, Repeated, Small};
use super::schema::Schemas;
use super::types::Symbols;
use crate::data::tensor_proto;
use crate::model::{Model, Notes};
use crate::wire::{
    AttributeProto, GraphProto, NodeProto, StringStringEntryProto, ValueInfoProto, attribute_type as kind,
};
use bytes::Bytes;
use indexmap::IndexMap;
use rabot_ir::{Graph, Node, NodeId, Op, Value, ValueType};
use rabot_tensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A graph as a message, its initializers beside it.
pub(super) struct Body {
    pub(super) proto: GraphProto,
    pub(super) initializers: Vec<(String, Tensor)>,
}

/// What a file holds besides what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The types of values between nodes.
    pub(super) typed: bool,
    pub(super) repeated: Repeated,
}

/// What the graphs of a model share.
pub(super) struct Emitter<'m> {
    model: &'m Model,
    schemas: &'m Schemas,
    /// Versions of operator sets by domain.
    versions: &'m IndexMap<String, i64>,
    layout: Layout,
    symbols: Symbols,
    scopes: Scopes,
    /// Source nodes whose notes are written.
    noted: HashSet<Arc<str>>,
    /// Names of values whose shapes follow from what the graph computes.
    derived: HashSet<String>,
}

impl<'m> Emitter<'m> {
    pub(super) fn new(
        model: &'m Model,
        schemas: &'m Schemas,
        versions: &'m IndexMap<String, i64>,
        layout: Layout,
    ) -> Self {
        Emitter {
            model,
            schemas,
            versions,
            layout,
            symbols: Symbols::of(&model.graph),
            scopes: Scopes::default(),
            noted: HashSet::new(),
            derived: HashSet::new(),
        }
    }

    /// The model's graph.
    ///
    /// **Errors**: a node has no form in its operator set, or names cannot be kept.
    pub(super) fn main(&mut self) -> Result<Body, ExportError> {
        let model = self.model;
        let names = self.scopes.open_main(&model.graph)?;
        let mut body = self.graph(&model.graph, names, &model.graph.name)?;
        body.proto.doc_string = text_bytes(&model.graph_notes.doc);
        body.proto.metadata_props = entries(&model.graph_notes.metadata);
        Ok(body)
    }

    /// A graph whose names have been chosen.
    fn graph(&mut self, graph: &Graph, names: Names, name: &str) -> Result<Body, ExportError> {
        let order = graph.topological()?;
        let mut proto = GraphProto { name: name.to_owned(), ..GraphProto::default() };
        let mut fresh = Vec::new();
        let users = used_values(graph);
        for &id in &order {
            let node = graph.node(id);
            if matches!(node.op, Op::Input | Op::Constant(_)) {
                continue;
            }
            if let Some(stored) = self.stored(graph, id, &names) {
                fresh.push(stored);
                continue;
            }
            let (written, made) = self.node(graph, id, &names, &users)?;
            let derived = self.is_derived(graph, node, &names);
            for (output, name) in
                node.outputs.iter().zip(&written.output).filter(|(_, name)| !name.is_empty())
            {
                if derived {
                    self.derived.insert(name.clone());
                }
                if !names.is_output(name) && self.layout.typed {
                    proto.value_info.push(self.value_info(name, &output.fact.ty, derived));
                }
            }
            proto.node.push(written);
            fresh.extend(made);
        }
        for (source, name) in names.copies() {
            self.scopes.use_constant(source);
            proto.node.push(NodeProto {
                input: vec![source.clone()],
                output: vec![name.clone()],
                name: self.scopes.unique(&format!("Identity_{name}")),
                op_type: "Identity".to_owned(),
                ..NodeProto::default()
            });
        }
        for &input in graph.inputs().iter().take(names.own_inputs()) {
            let value = Value { node: input, slot: 0 };
            proto.input.push(self.symbols.input(names.of(value), &graph.fact(value).ty));
        }
        for (output, name) in graph.outputs().iter().zip(names.outputs()) {
            proto.output.push(self.output(graph, output.value, name));
        }
        let initializers = self.initializers(graph, &order, &names, &mut proto);
        Ok(Body { proto, initializers: initializers.into_iter().chain(fresh).collect() })
    }

    /// Ends a graph: its constants that are used, of which some are nodes instead.
    fn initializers(
        &mut self,
        graph: &Graph,
        order: &[NodeId],
        names: &Names,
        proto: &mut GraphProto,
    ) -> Vec<(String, Tensor)> {
        let can_compute = self.versions.get("").is_some_and(|&opset| opset >= repeated::FIRST_OPSET);
        let mut made = Vec::new();
        let mut initializers = Vec::new();
        let mut shapes: HashMap<Vec<usize>, String> = HashMap::new();
        for &id in order {
            let Op::Constant(tensor) = &graph.node(id).op else { continue };
            let name = names.of(Value { node: id, slot: 0 });
            if !self.scopes.uses(name) {
                continue;
            }
            let computed = can_compute && self.layout.repeated.computes(tensor.bytes().len() as u64);
            let Some(small) = computed.then(|| repeated::small(tensor)).flatten() else {
                initializers.push((name.to_owned(), tensor.clone()));
                continue;
            };
            let shape = tensor.shape().to_vec();
            let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
            let shape_name = shapes.entry(shape).or_insert_with(|| {
                let name = self.scopes.unique("shape");
                initializers.push((name.clone(), Tensor::from_vec(&[dims.len()], dims)));
                name
            });
            let shape_name = shape_name.clone();
            made.push(match small {
                Small::Element(element) => repeated::constant_of_shape(shape_name, name, &element),
                Small::Rows(rows) => {
                    let small_name = self.scopes.unique(&format!("{name}.rows"));
                    initializers.push((small_name.clone(), rows));
                    repeated::expand(small_name, shape_name, name)
                }
            });
        }
        proto.node.splice(0..0, made);
        self.scopes.close();
        initializers
    }

    /// The result of a node that is stored in its place, with its name.
    fn stored(&mut self, graph: &Graph, id: NodeId, names: &Names) -> Option<(String, Tensor)> {
        let name = names.of(Value { node: id, slot: 0 });
        let bytes = repeated::result_bytes(graph, id)?;
        if names.is_output(name) || !self.layout.repeated.stores(bytes) {
            return None;
        }
        Some((name.to_owned(), repeated::result(graph, id)?))
    }

    /// The type of a value between nodes.
    ///
    /// A shape that follows from what the graph computes is left out: rabot tracks such values, others do not, and what
    /// they fuse depends on what they know. So they do with this file what they would do with the original.
    fn value_info(&self, name: &str, ty: &ValueType, derived: bool) -> ValueInfoProto {
        match derived && ty.is_tensor() {
            true => self.symbols.value(name, &ValueType::unranked(ty.dtype)),
            false => self.symbols.value(name, ty),
        }
    }

    /// True if shapes of a node's outputs follow from values that the graph computes.
    fn is_derived(&self, graph: &Graph, node: &Node, names: &Names) -> bool {
        // The first operand whose contents may make a shape.
        let first = match &node.op {
            Op::Binary(_) | Op::Variadic(_) | Op::Where(_) | Op::Gather(_) | Op::Concat(_) => usize::MAX,
            Op::ConstantOfShape(_) | Op::Range(_) => 0,
            op if !op.regions().is_empty() => return true,
            _ => 1,
        };
        node.inputs.iter().enumerate().filter_map(|(slot, input)| input.map(|value| (slot, value))).any(
            |(slot, value)| {
                let is_constant = matches!(graph.node(value.node).op, Op::Constant(_));
                let makes_shape = slot >= first && graph.fact(value).dims().is_some() && !is_constant;
                makes_shape || self.derived.contains(names.of(value))
            },
        )
    }

    fn output(&mut self, graph: &Graph, value: Value, name: &str) -> ValueInfoProto {
        self.scopes.use_constant(name);
        let is_input = matches!(graph.node(value.node).op, Op::Input);
        let ty = &graph.fact(value).ty;
        if is_input && graph.value_name(value).as_ref() == name {
            self.symbols.input(name, ty)
        } else {
            self.symbols.value(name, ty)
        }
    }

    /// A node, and the constants made for it.
    fn node(
        &mut self,
        graph: &Graph,
        id: NodeId,
        names: &Names,
        users: &HashSet<Value>,
    ) -> Result<(NodeProto, Vec<(String, Tensor)>), ExportError> {
        let node = graph.node(id);
        let written = self.written(graph, id)?;
        let mut made = Vec::new();
        let mut input = Vec::with_capacity(written.inputs.len());
        for operand in written.inputs {
            input.push(match operand {
                None => String::new(),
                Some(Operand::Value(value)) => {
                    self.scopes.use_constant(names.of(value));
                    names.of(value).to_owned()
                }
                Some(Operand::New(label, tensor)) => {
                    let name = self.scopes.unique(&format!("{}.{label}", node.name));
                    made.push((name.clone(), tensor));
                    name
                }
            });
        }
        let mut output: Vec<String> = Vec::with_capacity(node.outputs.len());
        for (slot, known) in node.outputs.iter().enumerate() {
            let value = Value { node: id, slot: slot as u32 };
            // The name that an output has anyway says nothing.
            let unnamed = slot >= written.required_outputs && *known.name == *format!("{}:{slot}", node.name);
            let leave_out = unnamed && !users.contains(&value);
            output.push(if leave_out { String::new() } else { names.of(value).to_owned() });
        }
        while output.last().is_some_and(String::is_empty) {
            output.pop();
        }
        let mut attribute = written.attrs;
        for (word, region) in node.op.regions() {
            attribute.push(self.region(node, word, region, names)?);
        }
        let notes = self.notes(node);
        let proto = NodeProto {
            input,
            output,
            name: node.name.to_string(),
            op_type: written.op.to_owned(),
            attribute,
            doc_string: text_bytes(&notes.doc),
            domain: written.domain.to_owned(),
            metadata_props: entries(&notes.metadata),
            ..NodeProto::default()
        };
        Ok((proto, made))
    }

    /// The node in the form of its operator set.
    fn written(&self, graph: &Graph, id: NodeId) -> Result<Written, ExportError> {
        let node = graph.node(id);
        let (domain, op) = node::split_name(&node.op);
        let opset = self.versions.get(domain).copied().unwrap_or(1);
        node::write(graph, id, opset, self.schemas).map_err(|reason| {
            let newest = self.schemas.newest(domain);
            let later = opset.saturating_add(1)..=newest;
            let mut later = later.filter(|&later| node::write(graph, id, later, self.schemas).is_ok());
            ExportError::Node {
                node: node.name.to_string(),
                op: op.to_owned(),
                domain: domain.to_owned(),
                opset,
                reason,
                lowest: later.next(),
            }
        })
    }

    /// A nested graph as an attribute.
    fn region(
        &mut self,
        node: &Node,
        word: &str,
        region: &Graph,
        names: &Names,
    ) -> Result<AttributeProto, ExportError> {
        let operands = node.inputs.iter().skip(node.op.own_operands());
        let captured: Vec<String> =
            operands.map(|operand| operand.map_or("", |value| names.of(value)).to_owned()).collect();
        captured.iter().for_each(|name| self.scopes.use_constant(name));
        let inner = self.scopes.open_nested(region, node.op.own_inputs(), &captured)?;
        let mut body = self.graph(region, inner, &region.name)?;
        if body.proto.name.is_empty() {
            // A file's graphs all have names.
            body.proto.name = format!("{}.{word}", node.name);
        }
        let tensors = body.initializers.iter().map(|(name, tensor)| tensor_proto(name, tensor));
        body.proto.initializer = tensors.collect();
        let name = if word == "body" { "body".to_owned() } else { format!("{word}_branch") };
        Ok(AttributeProto {
            name,
            g: Some(Box::new(body.proto)),
            r#type: kind::GRAPH,
            ..AttributeProto::default()
        })
    }

    /// What is noted of the source nodes that this one stands for, and no other before it.
    fn notes(&mut self, node: &Node) -> Notes {
        let mut notes = Notes::default();
        for source in &node.sources {
            let Some(found) = self.model.node_notes.get(source.as_ref()) else { continue };
            if !self.noted.insert(source.clone()) {
                continue;
            }
            if !notes.doc.is_empty() && !found.doc.is_empty() {
                notes.doc.push('\n');
            }
            notes.doc.push_str(&found.doc);
            notes.metadata.extend(found.metadata.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        notes
    }
}

/// All values that are operands or outputs.
fn used_values(graph: &Graph) -> HashSet<Value> {
    let operands = graph.node_ids().flat_map(|id| graph.node(id).inputs.iter().flatten().copied());
    operands.chain(graph.outputs().iter().map(|output| output.value)).collect()
}

/// Text as a field of a message.
pub(super) fn text_bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Notes as fields of a message.
pub(super) fn entries(metadata: &IndexMap<String, String>) -> Vec<StringStringEntryProto> {
    let entry =
        |(key, value): (&String, &String)| StringStringEntryProto { key: key.clone(), value: value.clone() };
    metadata.iter().map(entry).collect()
}
