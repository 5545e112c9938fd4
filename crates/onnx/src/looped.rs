//! Loops and scans.

use crate::control::{captured_values, graph_attribute};
use crate::error::{Failure, ImportError};
use crate::import::{Body, Converted, Env, Importer};
use crate::names::{captures, node_label};
use crate::node::{failure_of, operands};
use crate::wire::{GraphProto, NodeProto};
use rabot_ir::ops::{Loop, Scan, widen};
use rabot_ir::{Attr, Attrs, Fact, Graph, Op, OpError, Value};

impl<'a> Importer<'a> {
    /// `Loop` or `Scan`: the body becomes a nested graph.
    pub(crate) fn rounds(
        &mut self,
        graph: &mut Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        opset: i64,
        env: &Env<'a>,
    ) -> Result<Converted, Failure> {
        let proto = graph_attribute(node, "body")?;
        let mut operands = operands(body, node)?;
        let label = self.names.unique(&format!("{}{}", env.prefix, node_label(node)));
        let source = format!("{}{}", env.prefix, node_label(node));
        let attrs = self.attributes_but(node, &["body"], env)?;
        let mut batched = false;
        let mut op = match node.op_type.as_str() {
            "Loop" => looped(proto, &attrs, &mut operands)?,
            _ if opset < 9 => {
                batched = true;
                first_scan(proto, &attrs, &mut operands)?
            }
            _ => scan(proto, &attrs, &operands)?,
        };
        if batched {
            let (rows, mut own) = rows(graph, &op, &operands)?;
            let captured = self.body_graph(graph, body, node, proto, &mut op, &mut own, &label, env)?;
            let Some(captured) = captured else { return Err(Failure::Poisoned) };
            return over_batch(graph, op, rows, operands, captured, (&label, &source));
        }
        let facts: Vec<Option<Fact>> = operands.iter().map(|o| o.map(|v| graph.fact(v).clone())).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        let mut own = op.own_input_facts(&facts).map_err(|error| refused(&error))?;
        let captured = self.body_graph(graph, body, node, proto, &mut op, &mut own, &label, env)?;
        let Some(captured) = captured else { return Err(Failure::Poisoned) };
        operands.extend(captured);
        let id = graph.add_node(op, operands, &label, vec![source.into()]).map_err(failure_of)?;
        Ok(Converted::of_node(graph, id))
    }

    /// Reads the body until the types of what is carried hold in every round; gives the captured operands.
    #[allow(clippy::too_many_arguments)]
    fn body_graph(
        &mut self,
        graph: &Graph,
        body: &Body<'a>,
        node: &'a NodeProto,
        proto: &'a GraphProto,
        op: &mut Op,
        own: &mut Vec<Fact>,
        label: &str,
        env: &Env<'a>,
    ) -> Result<Option<Vec<Option<Value>>>, Failure> {
        if proto.input.len() != own.len() {
            let text = format!("the body has {} inputs, expected {}", proto.input.len(), own.len());
            return Err(invalid(node, text).into());
        }
        let names = captures(proto);
        let carried = op.carried();
        loop {
            let (read, again) = self.attempt(|importer| {
                let read = importer.nested_graph(graph, body, &names, proto, own, label, env)?;
                let results = read.as_ref().map(Graph::output_facts).unwrap_or_default();
                let wider = match &read {
                    None => None,
                    Some(_) => widen(own, &results, &carried, label)
                        .map_err(|error| invalid(node, error.to_string()))?,
                };
                let again = wider.is_some();
                if let Some(facts) = wider {
                    *own = facts;
                }
                Ok((read, again))
            })?;
            if again {
                continue;
            }
            let Some(read) = read else { return Ok(None) };
            for region in op.regions_mut() {
                *region = read.clone();
            }
            return Ok(Some(captured_values(graph, body, &names)));
        }
    }
}

fn invalid(node: &NodeProto, problem: String) -> ImportError {
    ImportError::Body { node: node_label(node), op: node.op_type.clone(), problem }
}

fn refused(error: &OpError) -> Failure {
    Failure::unsupported(error.to_string())
}

fn looped(proto: &GraphProto, attrs: &Attrs, operands: &mut Vec<Option<Value>>) -> Result<Op, Failure> {
    if let Some((name, _)) = attrs.iter().next() {
        return Err(Failure::unsupported(format!("attribute `{name}` is not known")));
    }
    operands.resize(operands.len().max(2), None);
    let carried = operands.len() - 2;
    if proto.output.len() < 1 + carried {
        let text = format!("a body with {} outputs, fewer than carried values", proto.output.len());
        return Err(Failure::unsupported(text));
    }
    Ok(Op::Loop(Box::new(Loop { body: Graph::default(), carried })))
}

/// `Scan` since opset 9.
fn scan(proto: &GraphProto, attrs: &Attrs, operands: &[Option<Value>]) -> Result<Op, Failure> {
    let scans = attrs.required_int("num_scan_inputs").map_err(|error| refused(&error))?;
    let scans = usize::try_from(scans).ok().filter(|&scans| scans <= operands.len()).ok_or_else(|| {
        Failure::unsupported(format!("num_scan_inputs = {scans} with {} inputs", operands.len()))
    })?;
    let states = operands.len() - scans;
    let outputs = proto.output.len().checked_sub(states);
    let outputs = outputs.ok_or_else(|| Failure::unsupported("a body with fewer outputs than states"))?;
    let mut all = attrs.clone();
    all.set("states", Attr::Int(states as i64));
    for (name, count) in [
        ("scan_input_axes", scans),
        ("scan_input_directions", scans),
        ("scan_output_axes", outputs),
        ("scan_output_directions", outputs),
    ] {
        if all.get(name).is_none() {
            all.set(name, Attr::Ints(vec![0; count]));
        }
    }
    let scan = Scan::from_attrs(&all).map_err(|error| refused(&error))?;
    if scan.outputs.len() != outputs {
        return Err(Failure::unsupported(format!("{} axes for {outputs} scan outputs", scan.outputs.len())));
    }
    Ok(Op::Scan(Box::new(scan)))
}

/// `Scan` of opset 8: the first operand gives the lengths in a batch, and axis 0 of all others is the batch.
fn first_scan(proto: &GraphProto, attrs: &Attrs, operands: &mut Vec<Option<Value>>) -> Result<Op, Failure> {
    if operands.is_empty() || operands.remove(0).is_some() {
        return Err(Failure::unsupported("lengths of sequences (the operand sequence_lens of opset 8)"));
    }
    let mut newer = attrs.clone();
    if let Some(directions) = newer.remove("directions") {
        newer.set("scan_input_directions", directions);
    }
    scan(proto, &newer, operands)
}

/// A value without its first dim.
fn row(fact: &Fact) -> Result<Fact, Failure> {
    match fact.shape() {
        [_, rest @ ..] => Ok(Fact::of_type(fact.dtype(), rest)),
        [] => Err(Failure::unsupported(format!("a batch of {}", fact.ty))),
    }
}

/// Facts of the operands, and of the body's inputs, for one row of a batch.
fn rows(graph: &Graph, op: &Op, operands: &[Option<Value>]) -> Result<(Vec<Fact>, Vec<Fact>), Failure> {
    let missing = || Failure::unsupported("an operand is missing");
    let states = op.carried().len();
    let mut of_operands = Vec::new();
    let mut of_inputs = Vec::new();
    for (at, operand) in operands.iter().enumerate() {
        let fact = row(graph.fact(operand.ok_or_else(missing)?))?;
        of_inputs.push(if at < states { fact.clone() } else { row(&fact)? });
        of_operands.push(fact);
    }
    Ok((of_operands, of_inputs))
}

/// A scan of each row of a batch, as a scan along the batch.
fn over_batch(
    graph: &mut Graph,
    op: Op,
    rows: Vec<Fact>,
    mut operands: Vec<Option<Value>>,
    captured: Vec<Option<Value>>,
    (label, source): (&str, &str),
) -> Result<Converted, Failure> {
    let mut body = Graph::new(label);
    let mut inner = Vec::new();
    let scanned = rows.len();
    let facts = captured.iter().flatten().map(|value| graph.fact(*value).clone());
    for (at, fact) in rows.into_iter().chain(facts).enumerate() {
        inner.push(Some(body.add_input(&format!("{label}.row{at}"), fact)));
    }
    let id = body.add_node(op, inner, &format!("{label}.row"), vec![source.into()]).map_err(failure_of)?;
    let results = body.node(id).outputs.len();
    for slot in 0..results {
        body.add_output(&format!("{label}.{slot}"), Value { node: id, slot: slot as u32 });
    }
    let along = |count: usize| vec![(0, false); count];
    let outer = Scan { body, states: 0, inputs: along(scanned), outputs: along(results) };
    operands.extend(captured);
    let id = graph
        .add_node(Op::Scan(Box::new(outer)), operands, label, vec![source.into()])
        .map_err(failure_of)?;
    Ok(Converted::of_node(graph, id))
}
