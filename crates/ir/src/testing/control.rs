//! Recipe for conditionals.

use super::builder::{Builder, Item, Rounding};
use crate::ops::If;
use crate::{Attr, Attrs, Fact, Graph, GraphError, Op, Value};
use rabot_tensor::{DType, Tensor};

pub(super) fn conditional(b: &mut Builder, _name: &'static str) -> Option<()> {
    let condition = if b.rng.chance(0.3) {
        let tensor = Tensor::from_bools(&[], &[b.rng.chance(0.5)]);
        b.constant(tensor)
    } else {
        b.fresh(DType::Bool, &[])
    };
    let x = b.item(DType::F32, 0, 4);
    let y = b.partner(&x, DType::F32, false);
    let captured = [&x, &y].map(|item| b.graph.fact(item.value).clone());
    let mut branch = |name: &str| branch(b, name, &captured);
    let op = If { then_branch: branch("then"), else_branch: branch("else") };
    let operands: [Option<&Item>; 3] = [Some(&condition), Some(&x), Some(&y)];
    b.node_of(Op::If(Box::new(op)), &operands, Rounding::Some).map(drop)
}

/// A few nodes over two captured values; the result has the rank of the first.
fn branch(b: &mut Builder, name: &str, captured: &[Fact; 2]) -> Graph {
    let mut graph = Graph::new(name);
    let inputs = captured.each_ref().map(|fact| graph.add_input("captured", fact.clone()));
    for (at, input) in inputs.iter().enumerate() {
        let unique = format!("captured_{at}");
        graph.annotate(input.node, |node| {
            *node.name = unique.as_str().into();
            if let Some(output) = node.outputs.first_mut() {
                output.name = unique.as_str().into();
            }
        });
    }
    let [x, y] = inputs;
    let mut result = x;
    for step in 0..1 + b.rng.below(3) {
        let (op, operands) = match b.rng.below(5) {
            0 => ("Add", vec![result, y]),
            1 => ("Mul", vec![result, y]),
            2 => ("Relu", vec![result]),
            3 => ("Neg", vec![result]),
            _ => ("Tanh", vec![result]),
        };
        result = add(&mut graph, op, Attrs::new(), operands, &format!("{name}_{step}"));
    }
    // Sometimes a branch gives another shape than its sibling.
    if captured[0].rank() > 0 && b.rng.chance(0.3) {
        let attrs = Attrs::new().with("axis", Attr::Int(0));
        result = add(&mut graph, "Concat", attrs, vec![result, result], &format!("{name}_twice"));
    }
    graph.add_output(name, result);
    graph
}

fn add(graph: &mut Graph, op: &str, attrs: Attrs, operands: Vec<Value>, name: &str) -> Value {
    let op = match Op::from_attrs(op, &attrs) {
        Some(Ok(op)) => op,
        Some(Err(error)) => panic!("{op}: {error}"),
        None => panic!("no op `{op}`"),
    };
    let added: Result<_, GraphError> =
        graph.add_node(op, operands.into_iter().map(Some).collect(), name, vec![name.into()]);
    match added {
        Ok(node) => Value { node, slot: 0 },
        Err(error) => panic!("{error}"),
    }
}
