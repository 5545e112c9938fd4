//! `SequenceMap`: a loop over the elements of lists.

use crate::control::{captured_values, graph_attribute};
use crate::error::Failure;
use crate::import::{Body, Converted, Env, Importer, Known};
use crate::names::{captures, node_label};
use crate::node::{failure_of, make_op, operand};
use crate::types::value_type;
use crate::wire::{GraphProto, NodeProto};
use rabot_ir::ops::Loop;
use rabot_ir::{Attr, Attrs, Fact, Form, Graph, Op, Value, ValueType};
use rabot_tensor::DType;

impl<'a> Importer<'a> {
    /// A loop of which each round applies the body to one element of each list and appends the results to lists.
    pub(crate) fn sequence_map(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        env: &Env<'a>,
    ) -> Result<Converted, Failure> {
        let proto = graph_attribute(node, "body")?;
        let mut operands = Vec::new();
        for slot in 0..node.input.len() {
            match operand(body, node, slot)? {
                Known::Value(value) => operands.push(value),
                Known::Absent => return Err(Failure::unsupported(format!("input {slot} is missing"))),
                Known::Poisoned => return Err(Failure::Poisoned),
            }
        }
        let first = operands.first().copied().ok_or_else(|| Failure::unsupported("no input"))?;
        if operands.len() != proto.input.len() {
            let text = format!("a body of {} inputs for {}", proto.input.len(), operands.len());
            return Err(Failure::unsupported(text));
        }
        let label = self.names.unique(&format!("{}{}", env.prefix, node_label(node)));
        let source: std::sync::Arc<str> = format!("{}{}", env.prefix, node_label(node)).into();
        let dtypes = self.element_dtypes(proto)?;
        let mut add = |graph: &mut Graph, op: &str, attrs: &Attrs, inputs: Vec<Value>, part: &str| {
            let inputs = inputs.into_iter().map(Some).collect();
            let name = self.names.unique(&format!("{label}.{part}"));
            let id = graph.add_node(make_op(op, attrs)?, inputs, &name, vec![source.clone()]);
            Ok::<Value, Failure>(Value { node: id.map_err(failure_of)?, slot: 0 })
        };
        let trips = add(graph, "SequenceLength", &Attrs::new(), vec![first], "length")?;
        let mut inputs = vec![Some(trips), None];
        for (at, dtype) in dtypes.into_iter().enumerate() {
            let attrs = Attrs::new().with("dtype", Attr::Str(dtype.name().to_owned()));
            inputs.push(Some(add(graph, "SequenceEmpty", &attrs, Vec::new(), &format!("empty{at}"))?));
        }
        let carried = inputs.len() - 2;
        let names = captures(proto);
        inputs.extend(operands.iter().copied().map(Some));
        inputs.extend(captured_values(graph, body, &names));
        let round = self.map_round(graph, body, (proto, &operands), &inputs[2..2 + carried], &label, env)?;
        let op = Op::Loop(Box::new(Loop { body: round, carried }));
        let id = graph.add_node(op, inputs, &label, vec![source]).map_err(failure_of)?;
        Ok(Converted::of_node(graph, id))
    }

    fn element_dtypes(&self, proto: &GraphProto) -> Result<Vec<DType>, Failure> {
        let dtype = |output: &crate::wire::ValueInfoProto| {
            let ty = value_type(&output.name, output.r#type.as_ref(), self.limits);
            let ty =
                ty.map_err(|problem| Failure::unsupported(format!("output `{}`: {problem}", output.name)))?;
            match ty.form {
                Form::Tensor | Form::Unranked => Ok(ty.dtype),
                _ => Err(Failure::unsupported(format!("a body that gives {ty}"))),
            }
        };
        proto.output.iter().map(dtype).collect()
    }

    /// One round: elements of the lists, the body, and its results at the end of the lists made so far.
    fn map_round(
        &mut self,
        graph: &Graph,
        body: &Body<'a>,
        (proto, operands): (&'a GraphProto, &[Value]),
        empties: &[Option<Value>],
        label: &str,
        env: &Env<'a>,
    ) -> Result<Graph, Failure> {
        let mut round = Graph::new(label);
        let at = round.add_input(&format!("{label}.round"), Fact::of_type(DType::I64, []));
        let go_on = round.add_input(&format!("{label}.go_on"), Fact::of_type(DType::Bool, []));
        let mut lists = Vec::new();
        for (slot, empty) in empties.iter().flatten().enumerate() {
            lists.push(round.add_input(&format!("{label}.list{slot}"), graph.fact(*empty).clone()));
        }
        let mut inner = Body::default();
        for (slot, (input, operand)) in proto.input.iter().zip(operands).enumerate() {
            let fact = graph.fact(*operand);
            let is_list = matches!(fact.ty, ValueType { form: Form::Sequence(_), .. });
            let value = round.add_input(&format!("{label}.operand{slot}"), fact.clone());
            let value = if is_list {
                let op = make_op("SequenceAt", &Attrs::new())?;
                let name = self.names.unique(&format!("{label}.at{slot}"));
                let id = round.add_node(op, vec![Some(value), Some(at)], &name, vec![label.into()]);
                Value { node: id.map_err(failure_of)?, slot: 0 }
            } else {
                value
            };
            inner.values.insert(&input.name, Known::Value(value));
        }
        capture(graph, body, proto, &mut round, &mut inner);
        let prefix = format!("{label}/");
        let inner_env = Env { opsets: env.opsets.clone(), attrs: env.attrs.clone(), prefix };
        let outputs = proto.output.iter().map(|output| output.name.as_str());
        self.nested(label, |importer| {
            importer.initializers(&mut round, &mut inner, proto, &inner_env)?;
            importer.body(&mut round, &mut inner, &proto.node, outputs, &inner_env)
        })?;
        round.add_output(&format!("{label}.more"), go_on);
        for (slot, (output, list)) in proto.output.iter().zip(lists).enumerate() {
            let Some(Known::Value(result)) = inner.values.get(output.name.as_str()).copied() else {
                return Err(Failure::Poisoned);
            };
            let op = make_op("SequenceInsert", &Attrs::new())?;
            let name = self.names.unique(&format!("{label}.insert{slot}"));
            let id = round.add_node(op, vec![Some(list), Some(result)], &name, vec![label.into()]);
            let value = Value { node: id.map_err(failure_of)?, slot: 0 };
            round.add_output(&format!("{label}.longer{slot}"), value);
        }
        Ok(round)
    }
}

/// What the body takes from outside, as inputs and constants of the round.
fn capture<'a>(
    graph: &Graph,
    body: &Body<'a>,
    proto: &'a GraphProto,
    round: &mut Graph,
    inner: &mut Body<'a>,
) {
    for name in captures(proto) {
        let known = match body.values.get(name) {
            Some(Known::Value(value)) => Known::Value(match &graph.node(value.node).op {
                Op::Constant(tensor) => round.add_constant(graph.value_name(*value), tensor.clone()),
                _ => round.add_input(graph.value_name(*value), graph.fact(*value).clone()),
            }),
            Some(other) => *other,
            None => continue,
        };
        inner.values.insert(name, known);
    }
}
