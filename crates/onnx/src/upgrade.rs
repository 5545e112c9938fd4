//! Brings nodes of older operator sets to the form of the newest, and makes them nodes of the graph.
//!
//! What a table row can say is in the table; what changes the structure is in `legacy`.

use crate::compose;
use crate::error::Failure;
use crate::import::{Converted, Known};
use crate::legacy;
use crate::names::UniqueNames;
use crate::node::{failure_of, holds_floats, make_op};
use rabot_ir::{Attr, Attrs, Fact, Graph, NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};
use std::collections::HashSet;
use std::sync::Arc;

/// A node on its way from the file's form to rabot's.
pub(crate) struct Draft<'g> {
    /// Name in the graph, unique.
    pub(crate) name: String,
    /// Name in the model.
    pub(crate) source: Arc<str>,
    /// Domain of the op; empty for ONNX's own.
    pub(crate) domain: String,
    /// Name in its domain.
    pub(crate) op: String,
    pub(crate) attrs: Attrs,
    pub(crate) inputs: Vec<Option<Value>>,
    /// Number of outputs that the node names.
    pub(crate) outputs: usize,
    /// Version of the domain's operator set.
    pub(crate) opset: i64,
    pub(crate) graph: &'g mut Graph,
    pub(crate) names: &'g mut UniqueNames,
    /// Nodes made for it so far.
    pub(crate) made: HashSet<NodeId>,
}

impl Draft<'_> {
    /// What is known of an operand, if it is there.
    pub(crate) fn fact(&self, slot: usize) -> Option<&Fact> {
        self.inputs.get(slot).copied().flatten().map(|value| self.graph.fact(value))
    }

    /// What is known of an operand that must be there.
    pub(crate) fn required(&self, slot: usize) -> Result<&Fact, Failure> {
        self.fact(slot).ok_or_else(|| Failure::unsupported(format!("input {slot} is missing")))
    }

    /// A new constant, named after the node.
    pub(crate) fn constant(&mut self, label: &str, tensor: Tensor) -> Value {
        let name = self.names.unique(&format!("{}.{label}", self.name));
        self.graph.add_constant(&name, tensor)
    }

    /// A new constant list of integers.
    pub(crate) fn list(&mut self, label: &str, values: Vec<i64>) -> Value {
        self.constant(label, Tensor::from_vec(&[values.len()], values))
    }

    /// Sets an operand; those before it that do not exist are absent.
    pub(crate) fn set_input(&mut self, slot: usize, value: Option<Value>) {
        if self.inputs.len() <= slot {
            self.inputs.resize(slot + 1, None);
        }
        self.inputs[slot] = value;
    }

    /// An operand, if it is there.
    pub(crate) fn input(&self, slot: usize) -> Option<Value> {
        self.inputs.get(slot).copied().flatten()
    }

    /// **Errors**: the node has an attribute that is not among `known`.
    pub(crate) fn check_attrs(&self, known: &[&str]) -> Result<(), Failure> {
        match self.attrs.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => Err(Failure::unsupported(format!("attribute `{name}` is not known"))),
        }
    }

    /// Adds a node that comes before the last one.
    pub(crate) fn before(
        &mut self,
        op: &str,
        attrs: &Attrs,
        inputs: Vec<Option<Value>>,
    ) -> Result<Value, Failure> {
        let node = self.before_all(op, attrs, inputs)?;
        Ok(Value { node, slot: 0 })
    }

    /// As [`Draft::before`], for a node with several outputs.
    pub(crate) fn before_all(
        &mut self,
        op: &str,
        attrs: &Attrs,
        inputs: Vec<Option<Value>>,
    ) -> Result<NodeId, Failure> {
        self.before_op(make_op(op, attrs)?, inputs)
    }

    /// As [`Draft::before_all`], for an op that is made already.
    pub(crate) fn before_op(&mut self, op: Op, inputs: Vec<Option<Value>>) -> Result<NodeId, Failure> {
        let name = self.names.unique(&format!("{}.{}", self.name, op.name().to_lowercase()));
        self.add(op, inputs, &name)
    }

    /// The values of the outputs; `None` for one that the rule does not make.
    pub(crate) fn finish_with(mut self, values: Vec<Option<Value>>) -> Result<Converted, Failure> {
        let mut outputs = Vec::new();
        for (slot, value) in values.into_iter().enumerate() {
            // An output gets the name that the file gives it, which a value from elsewhere must not lose.
            let again = outputs.iter().any(|known| matches!(known, Known::Value(v) if Some(*v) == value));
            let known = match value {
                None if slot < self.outputs => {
                    return Err(Failure::unsupported(format!("output {slot}")));
                }
                None => Known::Absent,
                Some(value) if again || !self.made.contains(&value.node) => {
                    Known::Value(self.before("Identity", &Attrs::new(), vec![Some(value)])?)
                }
                Some(value) => Known::Value(value),
            };
            outputs.push(known);
        }
        Ok(Converted { outputs, named: false })
    }

    /// Adds the node that has the outputs.
    pub(crate) fn finish(mut self) -> Result<Converted, Failure> {
        while self.inputs.last() == Some(&None) {
            self.inputs.pop();
        }
        let op = make_op(&self.op, &self.attrs)?;
        let (inputs, name) = (std::mem::take(&mut self.inputs), std::mem::take(&mut self.name));
        let node = self.add(op, inputs, &name)?;
        Ok(Converted::of_node(self.graph, node))
    }

    fn add(&mut self, op: Op, inputs: Vec<Option<Value>>, name: &str) -> Result<NodeId, Failure> {
        let node = self.graph.add_node(op, inputs, name, vec![self.source.clone()]).map_err(failure_of)?;
        self.made.insert(node);
        Ok(node)
    }
}

/// Operators of which the newest form is another one.
const OLDER: [&str; 2] = ["Upsample", "CastLike"];

/// Name of an operator in the graph: that of its domain before it, unless that is ONNX's own.
pub(crate) fn qualified(domain: &str, op: &str) -> String {
    if domain.is_empty() { op.to_owned() } else { format!("{domain}.{op}") }
}

/// True if the importer can turn nodes of this op into nodes of the graph.
pub(crate) fn is_known(domain: &str, op: &str) -> bool {
    (domain.is_empty() && OLDER.contains(&op))
        || compose::find(domain, op).is_some()
        || (domain.is_empty() && ["Loop", "Scan", "SequenceMap"].contains(&op))
        || Op::names().contains(&qualified(domain, op).as_str())
}

/// Operators that can be imported, sorted, those of other domains with the domain before the name; and whether other
/// operators stand for them in the graph.
pub fn supported_ops() -> Vec<(String, bool)> {
    let own =
        Op::names().into_iter().chain(["If", "Loop", "Scan", "SequenceMap"]).map(|op| (op.to_owned(), false));
    let older = OLDER.into_iter().chain(["Constant"]).map(|op| (op.to_owned(), true));
    let composed = compose::rows().map(|(domain, op, _)| (qualified(domain, op), true));
    let mut ops: Vec<(String, bool)> = own.chain(older).chain(composed).collect();
    ops.sort_unstable();
    // An op that has a form of its own may be composed where that form does not fit.
    ops.dedup_by(|a, b| a.0 == b.0);
    ops
}

/// How a row of the table changes a node.
enum Change {
    /// A list of integers becomes an operand.
    Ints(&'static str, usize),
    /// A float becomes a scalar operand of the first operand's dtype.
    Float(&'static str, usize),
    /// A list of floats becomes an operand of f32.
    Floats(&'static str, usize),
    /// The attribute has another name now.
    Rename(&'static str, &'static str),
    /// The attribute means nothing to inference.
    Drop(&'static str),
    /// The default was another one.
    DefaultInt(&'static str, i64),
    /// The default was another one.
    DefaultFloat(&'static str, f32),
    /// The default was another one, or there was no choice.
    DefaultStr(&'static str, &'static str),
}

/// Ops, the opset from which on the row does not hold, and the change. Rows hold from top to bottom.
///
/// **Source**: <https://github.com/onnx/onnx/blob/main/docs/Changelog.md>
const TABLE: &[(&[&str], i64, Change)] = &[
    (&[], 6, Change::Drop("consumed_inputs")),
    (&["Squeeze", "Unsqueeze", "ReduceSum"], 13, Change::Ints("axes", 1)),
    (REDUCTIONS, 18, Change::Ints("axes", 1)),
    (&["Reshape"], 5, Change::Ints("shape", 1)),
    (&["Slice"], 10, Change::Ints("starts", 1)),
    (&["Slice"], 10, Change::Ints("ends", 2)),
    (&["Slice"], 10, Change::Ints("axes", 3)),
    (&["Split"], 13, Change::Ints("split", 1)),
    (&["Concat"], 4, Change::DefaultInt("axis", 1)),
    (&["Pad"], 2, Change::Rename("paddings", "pads")),
    (&["Pad"], 11, Change::Ints("pads", 1)),
    (&["Pad"], 11, Change::Float("value", 2)),
    (&["Clip"], 11, Change::Float("min", 1)),
    (&["Clip"], 11, Change::Float("max", 2)),
    (&["Upsample"], 9, Change::Floats("scales", 1)),
    (&["Upsample"], 10, Change::DefaultStr("coordinate_transformation_mode", "asymmetric")),
    (&["Resize"], 11, Change::DefaultStr("coordinate_transformation_mode", "asymmetric")),
    (&["Softmax", "LogSoftmax"], 13, Change::DefaultInt("axis", 1)),
    (&["Selu"], 6, Change::DefaultFloat("alpha", 1.6732)),
    (&["Selu"], 6, Change::DefaultFloat("gamma", 1.0507)),
    (&["Gemm"], 7, Change::Drop("broadcast")),
];

/// Reductions whose `axes` became an operand with opset 18. (`ReduceSum` was first, with 13.)
const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
];

/// Makes the nodes that a draft stands for.
pub(crate) fn convert(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    for (ops, before, change) in TABLE {
        if draft.domain.is_empty()
            && draft.opset < *before
            && (ops.is_empty() || ops.contains(&draft.op.as_str()))
        {
            apply(&mut draft, change)?;
        }
    }
    if let Some(rule) = compose::find(&draft.domain, &draft.op) {
        return rule(draft);
    }
    if !draft.domain.is_empty() {
        draft.op = qualified(&draft.domain, &draft.op);
        return draft.finish();
    }
    legacy::convert(draft)
}

fn apply(draft: &mut Draft<'_>, change: &Change) -> Result<(), Failure> {
    let attribute = |error: rabot_ir::OpError| Failure::unsupported(error.to_string());
    match *change {
        Change::Ints(name, slot) => {
            if let Some(values) = draft.attrs.ints(name).map_err(attribute)? {
                let value = draft.list(name, values);
                draft.set_input(slot, Some(value));
            }
            draft.attrs.remove(name);
        }
        Change::Floats(name, slot) => {
            if let Some(values) = draft.attrs.floats(name).map_err(attribute)? {
                let value = draft.constant(name, Tensor::from_vec(&[values.len()], values));
                draft.set_input(slot, Some(value));
            }
            draft.attrs.remove(name);
        }
        Change::Float(name, slot) => {
            if draft.attrs.get(name).is_some() {
                let value = draft.attrs.float(name, 0.0).map_err(attribute)?;
                let tensor = float_scalar(draft.required(0)?.dtype(), value)
                    .ok_or_else(|| Failure::unsupported(format!("attribute `{name}` with such an input")))?;
                let value = draft.constant(name, tensor);
                draft.set_input(slot, Some(value));
            }
            draft.attrs.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(value) = draft.attrs.remove(from) {
                draft.attrs.set(to, value);
            }
        }
        Change::Drop(name) => {
            draft.attrs.remove(name);
        }
        Change::DefaultInt(name, value) => default(draft, name, Attr::Int(value)),
        Change::DefaultFloat(name, value) => default(draft, name, Attr::Float(value)),
        Change::DefaultStr(name, value) => default(draft, name, Attr::Str(value.to_owned())),
    }
    Ok(())
}

fn default(draft: &mut Draft<'_>, name: &str, value: Attr) {
    if draft.attrs.get(name).is_none() {
        draft.attrs.set(name, value);
    }
}

fn float_scalar(dtype: DType, value: f32) -> Option<Tensor> {
    holds_floats(dtype).then(|| Tensor::from_f64s(dtype, &[], &[f64::from(value)]))
}
