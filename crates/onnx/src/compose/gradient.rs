//! `Gradient`: derivatives of a part of the graph, as nodes, by reverse accumulation.
//!
//! The importer puts what the attributes name behind the operands: the values `xs`, `zs`, then `y`.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Gradient.html>

use super::Row;
use super::chain::Made;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Graph, Node, NodeId, Op, Value};
use std::collections::{HashMap, HashSet};

pub(super) const TABLE: &[Row] = &[("ai.onnx.preview.training", "Gradient", gradient)];

/// Operators of which the derivative is known here.
const KNOWN: &str = "Identity, Add, Sub, Mul, Div, Neg, Exp, Log, Sqrt, Sin, Cos, Tanh, Sigmoid, Relu, MatMul of matrices, \
                     ReduceSum and ReduceMean over all axes";

fn gradient(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["xs", "zs", "y"])?;
    let count = |name: &str| match draft.attrs.get(name) {
        Some(Attr::Strs(names)) => names.len(),
        _ => 0,
    };
    let (xs, zs) = (count("xs"), count("zs"));
    let all: Option<Vec<Value>> = draft.inputs.iter().copied().collect();
    let all = all.filter(|all| all.len() == 2 * (xs + zs) + 1 && xs > 0);
    let all = all.ok_or_else(|| Failure::unsupported("operands that are not one for each of xs and zs"))?;
    let (given, named) = all.split_at(xs + zs);
    let y = named[xs + zs];
    let tape = record(&mut draft, &named[..xs + zs], given, y)?;
    let mut sums: HashMap<Value, Value> = HashMap::new();
    let one = rabot_tensor::Tensor::from_f64s(draft.dtype_of(tape.y), &[1], &[1.0]);
    let seed = draft.filled_like(tape.y, one)?;
    sums.insert(tape.y, seed);
    for &id in tape.nodes.iter().rev() {
        let Some(&outer) = sums.get(&Value { node: id, slot: 0 }) else { continue };
        let node = draft.graph.node(id).clone();
        for (slot, operand) in node.inputs.iter().enumerate() {
            let Some(operand) = operand.filter(|value| tape.reached.contains(value)) else { continue };
            let part = derivative(&mut draft, &node, id, slot, outer)?;
            let part = sum_to(&mut draft, part, operand)?;
            let sum = match sums.get(&operand) {
                Some(&sum) => draft.plus(sum, part)?,
                None => part,
            };
            sums.insert(operand, sum);
        }
    }
    let mut results = Vec::new();
    for &x in &given[..xs] {
        let zero = rabot_tensor::Tensor::from_f64s(draft.dtype_of(x), &[1], &[0.0]);
        results.push(Some(match sums.get(&x) {
            Some(&sum) => sum,
            None => draft.filled_like(x, zero)?,
        }));
    }
    draft.finish_with(results)
}

/// The nodes from what is given to y.
struct Tape {
    /// Operands before users.
    nodes: Vec<NodeId>,
    /// Values that depend on what is given, which itself is among them.
    reached: HashSet<Value>,
    y: Value,
}

/// Finds the nodes between the named values and y. Where what is given is another value than the one named, they are
/// copied, and read what is given.
fn record(draft: &mut Draft<'_>, named: &[Value], given: &[Value], y: Value) -> Result<Tape, Failure> {
    let mut now: HashMap<Value, Value> = named.iter().copied().zip(given.iter().copied()).collect();
    let mut reached: HashSet<Value> = given.iter().copied().collect();
    let mut nodes = Vec::new();
    for id in ancestors(draft.graph, y)? {
        let node = draft.graph.node(id).clone();
        let slots = 0..node.outputs.len() as u32;
        let is_named = slots.clone().any(|slot| now.contains_key(&Value { node: id, slot }));
        let operands: Vec<Option<Value>> =
            node.inputs.iter().map(|input| input.map(|v| now.get(&v).copied().unwrap_or(v))).collect();
        if is_named || !operands.iter().flatten().any(|value| reached.contains(value)) {
            continue;
        }
        let own = if operands == node.inputs { id } else { draft.before_op(node.op.clone(), operands)? };
        for slot in slots {
            now.insert(Value { node: id, slot }, Value { node: own, slot });
            reached.insert(Value { node: own, slot });
        }
        nodes.push(own);
    }
    Ok(Tape { nodes, reached, y: now.get(&y).copied().unwrap_or(y) })
}

/// The nodes that a value depends on, operands before users.
fn ancestors(graph: &Graph, value: Value) -> Result<Vec<NodeId>, Failure> {
    let mut needed = HashSet::new();
    let mut stack = vec![value.node];
    while let Some(id) = stack.pop() {
        if needed.insert(id) {
            stack.extend(graph.node(id).inputs.iter().flatten().map(|v| v.node));
        }
    }
    let order = graph.topological().map_err(crate::node::failure_of)?;
    Ok(order.into_iter().filter(|id| needed.contains(id)).collect())
}

/// What an operand of a node adds to its own derivative, before broadcasting is undone.
fn derivative(draft: &mut Draft<'_>, node: &Node, id: NodeId, slot: usize, outer: Value) -> Made {
    let result = Value { node: id, slot: 0 };
    let operand = |at: usize| {
        let missing = || Failure::unsupported(format!("{} without input {at}", node.op.name()));
        node.inputs.get(at).copied().flatten().ok_or_else(missing)
    };
    let x = operand(slot)?;
    match (node.op.name(), slot) {
        ("Identity" | "Add" | "Sum", _) | ("Sub", 0) => Ok(outer),
        ("Neg", _) | ("Sub", _) => draft.node("Neg", &[outer]),
        ("Mul", _) => {
            let other = operand(1 - slot)?;
            draft.times(outer, other)
        }
        ("Div", 0) => {
            let divisor = operand(1)?;
            draft.over(outer, divisor)
        }
        ("Div", _) => {
            let product = draft.times(outer, result)?;
            let quotient = draft.over(product, x)?;
            draft.node("Neg", &[quotient])
        }
        ("MatMul", _) => matmul(draft, (operand(0)?, operand(1)?), slot, outer),
        ("ReduceSum" | "ReduceMean", 0) => reduction(draft, node, x, outer),
        (op, _) => unary(draft, op, x, result, outer),
    }
}

fn unary(draft: &mut Draft<'_>, op: &str, x: Value, result: Value, outer: Value) -> Made {
    match op {
        "Exp" => draft.times(outer, result),
        "Log" => draft.over(outer, x),
        "Sqrt" => {
            let half = draft.scaled(outer, 0.5)?;
            draft.over(half, result)
        }
        "Sin" => {
            let cosine = draft.node("Cos", &[x])?;
            draft.times(outer, cosine)
        }
        "Cos" => {
            let sine = draft.node("Sin", &[x])?;
            let product = draft.times(outer, sine)?;
            draft.node("Neg", &[product])
        }
        "Tanh" => {
            let square = draft.times(result, result)?;
            let part = draft.times(outer, square)?;
            draft.minus(outer, part)
        }
        "Sigmoid" => {
            let square = draft.times(result, result)?;
            let slope = draft.minus(result, square)?;
            draft.times(outer, slope)
        }
        "Relu" => {
            let slope = draft.node("Sign", &[result])?;
            draft.times(outer, slope)
        }
        other => Err(Failure::unsupported(format!("the derivative of {other}; known are those of {KNOWN}"))),
    }
}

fn matmul(draft: &mut Draft<'_>, (a, b): (Value, Value), slot: usize, outer: Value) -> Made {
    if draft.rank_of(a)? != 2 || draft.rank_of(b)? != 2 {
        return Err(Failure::unsupported("the derivative of MatMul of other ranks than 2"));
    }
    if slot == 0 {
        let b = draft.transpose(b, &[1, 0])?;
        draft.matmul(outer, b)
    } else {
        let a = draft.transpose(a, &[1, 0])?;
        draft.matmul(a, outer)
    }
}

/// A reduction over all axes hands the same to each element.
fn reduction(draft: &mut Draft<'_>, node: &Node, x: Value, outer: Value) -> Made {
    let Op::Reduce(_) = &node.op else { return Err(Failure::unsupported("a reduction of another kind")) };
    let all = node.inputs.len() == 1 && node.op.attrs().get("noop_with_empty_axes") != Some(&Attr::Int(1));
    if !all {
        return Err(Failure::unsupported(format!("the derivative of {} over some axes", node.op.name())));
    }
    let shape = draft.node_with("Shape", &Attrs::new(), &[x])?;
    let one = draft.list("one", vec![1]);
    let scalar = draft.node("Reshape", &[outer, one])?;
    let spread = draft.node("Expand", &[scalar, shape])?;
    if node.op.name() == "ReduceSum" {
        return Ok(spread);
    }
    let count = draft.node_with("ReduceProd", &Attrs::new().with("keepdims", Attr::Int(0)), &[shape])?;
    let dtype = draft.dtype_of(x);
    let count = draft.cast(count, dtype)?;
    draft.over(spread, count)
}

/// Undoes broadcasting: sums over the axes along which an operand was repeated.
fn sum_to(draft: &mut Draft<'_>, value: Value, operand: Value) -> Made {
    let (from, to) = (draft.shape_of(value)?, draft.shape_of(operand)?);
    let extra = from.len().saturating_sub(to.len());
    let mut axes: Vec<i64> = (0..extra as i64).collect();
    for (at, dim) in to.iter().enumerate() {
        let wide = &from[extra + at];
        if dim.is(1) && !wide.is(1) {
            axes.push((extra + at) as i64);
        } else if dim != wide {
            let text = format!("the derivative of a broadcast of {dim} to {wide}");
            return Err(Failure::unsupported(text));
        }
    }
    if axes.is_empty() {
        return Ok(value);
    }
    let kept = draft.reduce("ReduceSum", value, &axes)?;
    if extra == 0 {
        return Ok(kept);
    }
    draft.squeezed(kept, &(0..extra as i64).collect::<Vec<_>>())
}
