//! Steps of a recurrent layer as a `Scan`.

use super::cells::Step;
use super::{Direction, Layer, goes_on, masked};
use crate::error::Failure;
use crate::node::failure_of;
use crate::upgrade::Draft;
use rabot_ir::ops::Scan;
use rabot_ir::{Attrs, Dim, Fact, Graph, Op, Value};
use rabot_tensor::DType;
use std::collections::HashSet;

/// The body of a scan while it is made.
struct Body<'d> {
    draft: Draft<'d>,
    /// Values outside that come in after the body's own inputs.
    captured: Vec<Value>,
}

impl Body<'_> {
    /// An input of the body, for a value of this type outside.
    fn own(&mut self, label: &str, fact: &Fact) -> Value {
        let name = self.draft.names.unique(&format!("{}.{label}", self.draft.name));
        self.draft.graph.add_input(&name, Fact::of(fact.ty.clone()))
    }

    /// A value from outside; constants get a node of their own, of which the data are shared.
    fn capture(&mut self, outer: Value, fact: &Fact) -> Value {
        match &fact.constant {
            Some(tensor) => self.draft.constant("captured", tensor.clone()),
            None => {
                self.captured.push(outer);
                self.own("captured", fact)
            }
        }
    }
}

/// One direction as a scan over the sequence.
pub(super) fn scanned(
    draft: &mut Draft<'_>,
    layer: &Layer,
    step: &Step<'_>,
    input: Value,
    states: Vec<Value>,
    reverse: bool,
) -> Result<Direction, Failure> {
    let numbers = match layer.lengths {
        None => None,
        Some(_) => Some(numbers(draft, input)?),
    };
    let scans: Vec<Value> = std::iter::once(input).chain(numbers).collect();
    let slice = |fact: &Fact| Fact::of_type(fact.dtype(), fact.shape().get(1..).unwrap_or(&[] as &[Dim]));
    let own: Vec<Fact> = states
        .iter()
        .map(|&state| draft.graph.fact(state).clone())
        .chain(scans.iter().map(|&scan| slice(draft.graph.fact(scan))))
        .collect();
    let (body, captured) = body(draft, layer, step, &own, states.len())?;
    let scan = Scan {
        body,
        states: states.len(),
        inputs: vec![(0, reverse); scans.len()],
        outputs: vec![(0, reverse)],
    };
    let operands = states.iter().chain(&scans).chain(&captured).copied().map(Some).collect();
    let name = draft.names.unique(&format!("{}.scan", draft.name));
    let node = draft
        .graph
        .add_node(Op::Scan(Box::new(scan)), operands, &name, vec![draft.source.clone()])
        .map_err(failure_of)?;
    draft.made.insert(node);
    let slot = |slot: usize| Value { node, slot: slot as u32 };
    Ok(Direction { all: slot(states.len()), last: (0..states.len()).map(slot).collect() })
}

/// The number of each step (i32).
fn numbers(draft: &mut Draft<'_>, input: Value) -> Result<Value, Failure> {
    let positions = draft.positions(input, 0)?;
    draft.cast(positions, DType::I32)
}

/// One step as a graph, and the values outside that it captures.
fn body(
    outer: &mut Draft<'_>,
    layer: &Layer,
    step: &Step<'_>,
    own: &[Fact],
    states: usize,
) -> Result<(Graph, Vec<Value>), Failure> {
    let mut graph = Graph::default();
    let mut step =
        Step { cell: step.cell.clone(), activations: step.activations, clip: step.clip, hidden: step.hidden };
    let captured_facts: Vec<(Value, Fact)> = step
        .captured()
        .iter()
        .map(|value| **value)
        .chain(layer.lengths)
        .map(|value| (value, outer.graph.fact(value).clone()))
        .collect();
    let draft = Draft {
        name: outer.names.unique(&format!("{}.step", outer.name)),
        source: outer.source.clone(),
        domain: outer.domain.clone(),
        op: outer.op.clone(),
        attrs: Attrs::new(),
        inputs: Vec::new(),
        outputs: states + 1,
        opset: outer.opset,
        graph: &mut graph,
        names: outer.names,
        made: HashSet::new(),
    };
    let mut body = Body { draft, captured: Vec::new() };
    let inputs: Vec<Value> = own.iter().map(|fact| body.own("own", fact)).collect();
    let mut inner: Vec<Value> =
        captured_facts.iter().map(|(value, fact)| body.capture(*value, fact)).collect();
    let lengths = layer.lengths.and_then(|_| inner.pop());
    for (place, value) in step.captured().into_iter().zip(inner) {
        *place = value;
    }
    let Body { mut draft, captured } = body;
    let old = &inputs[..states];
    let mask = match (lengths, inputs.get(states + 1)) {
        (Some(lengths), Some(&number)) => Some(goes_on(&mut draft, lengths, number)?),
        _ => None,
    };
    let new = step.make(&mut draft, inputs[states], old)?;
    let (next, given) = masked(&mut draft, mask, old, new)?;
    for (index, value) in next.into_iter().chain([given]).enumerate() {
        // Each output has a name and a value of its own.
        let value = draft.node("Identity", &[value])?;
        draft.graph.add_output(&format!("{}.result{index}", draft.name), value);
    }
    Ok((graph, captured))
}
