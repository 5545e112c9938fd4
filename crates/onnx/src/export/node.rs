//! A node in the form of an operator set.

use super::older;
use super::schema::{Mark, Parameter, Schemas, Version};
use super::types::plain_type;
use crate::data::tensor_proto;
use crate::dtype;
use crate::wire::{AttributeProto, attribute_type as kind};
use bytes::Bytes;
use rabot_ir::{Attr, Attrs, Fact, Form, Graph, Node, NodeId, Op, Value, ValueType};
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;

/// Attributes that say how rabot holds a node; files say the same in other ways.
const INTERNAL: [&str; 3] = ["num_outputs", "carried", "states"];

/// Attributes that are codes of dtypes, of operators without a schema.
const DTYPES: [&str; 4] = ["to", "dtype", "output_dtype", "output_type"];

/// An operand of a node in the file.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// A value of the graph.
    Value(Value),
    /// A new constant, with what it is called after the node's name.
    New(&'static str, Tensor),
}

/// A node on its way from rabot's form to that of an operator set.
pub(super) struct Draft<'g> {
    pub(super) graph: &'g Graph,
    pub(super) node: &'g Node,
    pub(super) domain: &'static str,
    pub(super) op: &'static str,
    /// Version of the domain's operator set.
    pub(super) opset: i64,
    pub(super) attrs: Attrs,
    pub(super) inputs: Vec<Option<Operand>>,
}

/// A node in the form of an operator set.
pub(super) struct Written {
    pub(super) domain: &'static str,
    pub(super) op: &'static str,
    pub(super) attrs: Vec<AttributeProto>,
    pub(super) inputs: Vec<Option<Operand>>,
    /// Outputs from this one on may be left out if nobody uses them.
    pub(super) required_outputs: usize,
}

/// Domain and name of an op.
pub(super) fn split_name(op: &Op) -> (&'static str, &'static str) {
    op.name().rsplit_once('.').unwrap_or(("", op.name()))
}

impl<'g> Draft<'g> {
    fn new(graph: &'g Graph, id: NodeId, opset: i64) -> Self {
        let node = graph.node(id);
        let (domain, op) = split_name(&node.op);
        // What nested graphs capture are no operands in a file.
        let own = if node.op.regions().is_empty() { node.inputs.len() } else { node.op.own_operands() };
        let inputs = node.inputs.iter().take(own).map(|input| input.map(Operand::Value)).collect();
        Draft { graph, node, domain, op, opset, attrs: node.op.attrs(), inputs }
    }

    /// What is known of an operand that is a value of the graph.
    pub(super) fn fact(&self, slot: usize) -> Option<&'g Fact> {
        match self.inputs.get(slot) {
            Some(Some(Operand::Value(value))) => Some(self.graph.fact(*value)),
            _ => None,
        }
    }

    /// True if the operand is given.
    pub(super) fn has(&self, slot: usize) -> bool {
        matches!(self.inputs.get(slot), Some(Some(_)))
    }

    /// Takes an operand out; those after it stay where they are.
    pub(super) fn take(&mut self, slot: usize) -> Option<Operand> {
        self.inputs.get_mut(slot).and_then(Option::take)
    }

    /// Sets an operand; those before it that do not exist are absent.
    pub(super) fn set(&mut self, slot: usize, operand: Operand) {
        if self.inputs.len() <= slot {
            self.inputs.resize(slot + 1, None);
        }
        self.inputs[slot] = Some(operand);
    }

    /// The integers of an operand, where they are known; `None` where it is not given.
    ///
    /// **Errors**: they are not known.
    pub(super) fn ints(&self, slot: usize, name: &str) -> Result<Option<Vec<i64>>, String> {
        match self.fact(slot) {
            None => Ok(None),
            Some(fact) => match fact.constant.as_ref().map(Tensor::to_i64s).or_else(|| fact.ints()) {
                Some(values) => Ok(Some(values)),
                None => Err(computed(name)),
            },
        }
    }

    fn type_of(&self, operand: &Operand) -> ValueType {
        match operand {
            Operand::Value(value) => self.graph.fact(*value).ty.clone(),
            Operand::New(_, tensor) => ValueType::unranked(tensor.dtype()),
        }
    }
}

/// An operand that must be constant is not.
pub(super) fn computed(name: &str) -> String {
    format!("`{name}` is computed by the graph, and is an attribute there")
}

/// The node in the form of an operator set of its domain.
///
/// **Errors**: in words, why it has none.
pub(super) fn write(graph: &Graph, id: NodeId, opset: i64, schemas: &Schemas) -> Result<Written, String> {
    let mut draft = Draft::new(graph, id, opset);
    if draft.domain.is_empty() {
        older::apply(&mut draft)?;
    }
    while matches!(draft.inputs.last(), Some(None)) {
        draft.inputs.pop();
    }
    if !schemas.has_domain(draft.domain) {
        let attrs = draft.attrs.iter().filter(|(name, _)| !INTERNAL.contains(name));
        let attrs = attrs.map(|(name, attr)| attribute(name, attr, None)).collect::<Result<_, _>>()?;
        return Ok(Written {
            domain: draft.domain,
            op: draft.op,
            attrs,
            inputs: draft.inputs,
            required_outputs: usize::MAX,
        });
    }
    let version = schemas.find(draft.domain, draft.op, opset);
    let version = version.ok_or_else(|| "there is no such operator".to_owned())?;
    if version.deprecated {
        return Err(format!("it is deprecated since {}", version.since));
    }
    check_operands(&draft, version)?;
    let attrs = attributes(&draft, version, schemas)?;
    let internal = draft.attrs.get("num_outputs").is_some();
    let required_outputs = match version.outputs.iter().any(Parameter::is_repeated) || internal {
        true => usize::MAX,
        false => version.outputs.iter().filter(|output| output.mark == Mark::Once).count(),
    };
    Ok(Written { domain: draft.domain, op: draft.op, attrs, inputs: draft.inputs, required_outputs })
}

/// **Errors**: an operand is missing, or one too many, or of a type that the version does not take.
fn check_operands(draft: &Draft<'_>, version: &Version) -> Result<(), String> {
    let mut seen: HashMap<&str, DType> = HashMap::new();
    let mut check = |parameter: &Parameter, ty: &ValueType, what: &str, at: usize| {
        if !parameter.takes(ty) {
            return Err(format!("{what} {at} may not be {ty}"));
        }
        let free = parameter.variable == "-" || parameter.mark == Mark::RepeatedFreely || !ty.is_tensor();
        match seen.insert(parameter.variable, ty.dtype).filter(|other| *other != ty.dtype && !free) {
            Some(other) => Err(format!("{what} {at} is {ty} beside {other}, and must be of the same dtype")),
            None => Ok(()),
        }
    };
    for (at, operand) in draft.inputs.iter().enumerate() {
        let last = version.inputs.last().filter(|last| last.is_repeated());
        let parameter = version.inputs.get(at).or(last);
        match (parameter, operand) {
            (None, _) => return Err(format!("it takes no more than {} inputs", version.inputs.len())),
            (Some(parameter), Some(operand)) => check(parameter, &draft.type_of(operand), "input", at)?,
            (Some(parameter), None) if parameter.mark == Mark::Once => {
                return Err(format!("input {at} may not be absent"));
            }
            (Some(_), None) => {}
        }
    }
    let required = version.inputs.iter().rposition(|input| input.mark == Mark::Once).map_or(0, |at| at + 1);
    if draft.inputs.len() < required {
        return Err(format!("input {} may not be absent", draft.inputs.len()));
    }
    for (at, output) in draft.node.outputs.iter().enumerate() {
        let last = version.outputs.last().filter(|last| last.is_repeated());
        let parameter = version.outputs.get(at).or(last);
        let parameter = parameter.ok_or_else(|| format!("it has no more than {at} outputs"))?;
        check(parameter, &output.fact.ty, "output", at)?;
    }
    Ok(())
}

fn attributes(
    draft: &Draft<'_>,
    version: &Version,
    schemas: &Schemas,
) -> Result<Vec<AttributeProto>, String> {
    let newest = schemas.versions(draft.domain, draft.op).last();
    let newest_default = |name: &str| {
        newest.and_then(|newest| newest.attrs.iter().find(|known| known.name == name)?.default())
    };
    let mut written = Vec::new();
    for (name, attr) in draft.attrs.iter() {
        match version.attrs.iter().find(|known| known.name == name) {
            Some(known) if (known.name, known.kind) == ("seed", b'f') => written.extend(seed(attr)),
            Some(known) if known.kind == b'y' => written.push(element_type(draft, name)?),
            Some(known) => written.push(attribute(name, attr, Some(known.kind))?),
            None if INTERNAL.contains(&name) => {}
            // What could not be said before was not different before.
            None if newest_default(name).as_ref() == Some(attr) => {}
            None => return Err(format!("there is no attribute `{name}`, which is {attr:?}")),
        }
    }
    for known in &version.attrs {
        if draft.attrs.get(known.name).is_some() || known.kind == b'g' {
            continue;
        }
        if known.required {
            return Err(format!("attribute `{}` must be given", known.name));
        }
        if let Some(default) = newest_default(known.name)
            && Some(&default) != known.default().as_ref()
        {
            written.push(attribute(known.name, &default, Some(known.kind))?);
        }
    }
    Ok(written)
}

/// The seed of a random tensor, of which rabot holds the bits. A larger one is no file's: it was made from the node's
/// name, which the file has.
fn seed(attr: &Attr) -> Option<AttributeProto> {
    let Attr::Int(bits) = attr else { return None };
    let value = f32::from_bits(u32::try_from(*bits).ok()?);
    let (name, r#type) = ("seed".to_owned(), kind::FLOAT);
    Some(AttributeProto { name, f: Some(value), r#type, ..AttributeProto::default() })
}

/// The type that an optional value has where it is one, which the node's output knows.
fn element_type(draft: &Draft<'_>, name: &str) -> Result<AttributeProto, String> {
    match draft.node.outputs.first().map(|output| &output.fact.ty.form) {
        Some(Form::Optional(element)) => Ok(AttributeProto {
            name: name.to_owned(),
            tp: Some(Box::new(plain_type(element))),
            r#type: kind::TYPE_PROTO,
            ..AttributeProto::default()
        }),
        _ => Err(format!("attribute `{name}` of an output that is not optional")),
    }
}

/// An attribute of the kind that the schema has, if there is one.
///
/// **Errors**: in words, why it is none.
fn attribute(name: &str, attr: &Attr, wanted: Option<u8>) -> Result<AttributeProto, String> {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    let is_dtype = wanted.is_none() && DTYPES.contains(&name);
    let found = match (attr, wanted) {
        (Attr::Str(text), Some(b'i')) => {
            let dtype = text.parse::<DType>().map_err(|error| format!("attribute `{name}`: {error}"))?;
            (proto.i, proto.r#type) = (Some(i64::from(dtype::code(dtype))), kind::INT);
            b'i'
        }
        (Attr::Str(text), None) if is_dtype && text.parse::<DType>().is_ok() => {
            let code = text.parse::<DType>().map_or(0, dtype::code);
            (proto.i, proto.r#type) = (Some(i64::from(code)), kind::INT);
            b'i'
        }
        (Attr::Int(value), Some(b'f')) => {
            (proto.f, proto.r#type) = (Some(*value as f32), kind::FLOAT);
            b'f'
        }
        (Attr::Int(value), _) => {
            (proto.i, proto.r#type) = (Some(*value), kind::INT);
            b'i'
        }
        (Attr::Float(value), _) => {
            (proto.f, proto.r#type) = (Some(*value), kind::FLOAT);
            b'f'
        }
        (Attr::Str(text), _) => {
            (proto.s, proto.r#type) = (Some(bytes(text)), kind::STRING);
            b's'
        }
        (Attr::Tensor(tensor), _) => {
            (proto.t, proto.r#type) = (Some(Box::new(tensor_proto("", tensor))), kind::TENSOR);
            b't'
        }
        (Attr::Ints(values), _) => {
            (proto.ints, proto.r#type) = (values.clone(), kind::INTS);
            b'I'
        }
        (Attr::Floats(values), _) => {
            (proto.floats, proto.r#type) = (values.clone(), kind::FLOATS);
            b'F'
        }
        (Attr::Strs(texts), _) => {
            (proto.strings, proto.r#type) = (texts.iter().map(bytes).collect(), kind::STRINGS);
            b'S'
        }
    };
    match wanted.is_none_or(|wanted| wanted == found) {
        true => Ok(proto),
        false => Err(format!("attribute `{name}` is {attr:?}, which is of another kind there")),
    }
}
