//! Evaluation of a graph that has much in common with the one before it.
//!
//! A node with the name, operator and operands that it had before has the results that it had before: they are taken
//! from there, so that a pass which changes little costs little.

use rabot_ir::interp::{Data, InterpError, bind, run_node};
use rabot_ir::{Datum, Graph, NodeId, Op, Value};
use rabot_tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// The values of a graph.
#[derive(Default)]
pub(super) struct Evaluated {
    /// Values in the order of evaluation: name, and the value itself.
    pub order: Vec<(Arc<str>, Datum)>,
    /// Nodes by name, where one has it.
    nodes: HashMap<Arc<str>, Known>,
}

struct Known {
    op: Op,
    operands: Vec<Option<Datum>>,
    results: Vec<Datum>,
}

/// Evaluates a graph on inputs.
///
/// **Errors**: as those of the interpreter.
pub(super) fn evaluate(graph: &Graph, inputs: &Data, before: &Evaluated) -> Result<Evaluated, InterpError> {
    let bound = bind(graph, inputs)?;
    let mut values: HashMap<Value, Datum> = HashMap::new();
    let mut found = Evaluated::default();
    for id in graph.topological()? {
        let node = graph.node(id);
        let operands: Vec<Option<Datum>> =
            node.inputs.iter().map(|input| input.and_then(|value| values.get(&value).cloned())).collect();
        let known = before.nodes.get(&node.name).filter(|known| same(known, &node.op, &operands));
        let results = match (&node.op, known) {
            (Op::Input, _) => input(graph, id, &bound).into_iter().collect(),
            (_, Some(known)) => known.results.clone(),
            (_, None) => {
                let operands: Vec<Option<&Datum>> = operands.iter().map(Option::as_ref).collect();
                let known = before.nodes.get(&node.name).map_or(&[][..], |known| &known.results);
                share(run_node(node, &operands)?, known)
            }
        };
        for (slot, (output, datum)) in node.outputs.iter().zip(&results).enumerate() {
            values.insert(Value { node: id, slot: slot as u32 }, datum.clone());
            found.order.push((output.name.clone(), datum.clone()));
        }
        found.nodes.insert(node.name.clone(), Known { op: node.op.clone(), operands, results });
    }
    Ok(found)
}

fn input(graph: &Graph, id: NodeId, bound: &[Option<Datum>]) -> Option<Datum> {
    let position = graph.inputs().iter().position(|&input| input == id);
    position.and_then(|at| bound.get(at).cloned().flatten())
}

/// Takes what has the bits of a result that is held already from there, so that what follows is known to be as before.
fn share(results: Vec<Datum>, known: &[Datum]) -> Vec<Datum> {
    let old = |slot: usize, datum: &Datum| match (datum, known.get(slot)) {
        (Datum::Tensor(new), Some(Datum::Tensor(old))) => {
            let equal = new.dtype() == old.dtype() && new.shape() == old.shape() && new.strings().is_none();
            (equal && new.bytes() == old.bytes()).then(|| Datum::Tensor(old.clone()))
        }
        _ => None,
    };
    results.into_iter().enumerate().map(|(slot, datum)| old(slot, &datum).unwrap_or(datum)).collect()
}

fn same(known: &Known, op: &Op, operands: &[Option<Datum>]) -> bool {
    let pair = |(a, b): (&Option<Datum>, &Option<Datum>)| match (a, b) {
        (Some(Datum::Tensor(a)), Some(Datum::Tensor(b))) => shared(a, b),
        (None, None) => true,
        _ => false,
    };
    let same_op = match (&known.op, op) {
        (Op::Constant(a), Op::Constant(b)) => shared(a, b),
        (a, b) => a.name() == b.name() && a.regions().is_empty() && a == b,
    };
    same_op && known.operands.len() == operands.len() && known.operands.iter().zip(operands).all(pair)
}

/// True if two tensors are the same memory.
pub(super) fn shared(a: &Tensor, b: &Tensor) -> bool {
    a.dtype() == b.dtype()
        && a.shape() == b.shape()
        && a.strings().is_none()
        && std::ptr::eq(a.bytes(), b.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::text::parse;

    #[test]
    fn what_is_as_before_is_taken_from_there() {
        let text = |factor: f32, name: &str| {
            let text = format!(
                "model \"m\" input %0 \"x\" : f32[2]\n%1 = Constant [{factor:?}] : f32[1] \"c\"\n\
                 %2 = Relu(%0) \"a\"\n%3 = Mul(%2, %1) \"{name}\"\n%4 = Relu(%3) \"d\"\noutput \"y\" = %4"
            );
            parse(&text).unwrap()
        };
        let x = Datum::Tensor(Tensor::from_vec(&[2], vec![1.0f32, -1.0]));
        let inputs = Data::from_iter([("x".to_owned(), x)]);
        let value = |found: &Evaluated, name: &str| match found.order.iter().find(|(n, _)| &**n == name) {
            Some((_, Datum::Tensor(tensor))) => tensor.clone(),
            _ => panic!("{name}"),
        };
        let first = evaluate(&text(2.0, "b"), &inputs, &Evaluated::default()).unwrap();
        let second = evaluate(&text(3.0, "b"), &inputs, &first).unwrap();
        assert!(shared(&value(&first, "a"), &value(&second, "a")));
        assert_eq!(value(&second, "d").to_f64s(), [3.0, 0.0]);
        // The same product under another name: what reads it is evaluated again.
        let third = evaluate(&text(3.0, "other"), &inputs, &second).unwrap();
        assert!(shared(&value(&second, "d"), &value(&third, "d")));
    }
}
