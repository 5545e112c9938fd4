//! Carries integers on: `DequantizeLinear` moves below operators that only move or compare elements, and vanishes
//! where a `QuantizeLinear` with the same parameters follows.
//!
//! None of this changes a bit: elements are moved as they are; the maximum of integers is that of the numbers they
//! stand for, since scales are positive; `(q · scale) / scale` rounds to q again, for |q| is at most 2⁸ and each of
//! the two f32 operations is off by a factor of 2⁻²⁴ at most.

use rabot_ir::ops::{PoolKind, UnaryOp};
use rabot_ir::{Graph, GraphError, NodeId, Op, Value};
use rabot_rewrite::{PassCx, Report, remove_dead, unique_name};
use rabot_tensor::{DType, Tensor};
use std::collections::HashSet;
use std::sync::Arc;

/// True for operators with one operand that carries data, whose result consists of elements of it.
pub(super) fn carries(op: &Op) -> bool {
    match op {
        Op::Pool(pool) => pool.kind == PoolKind::Max,
        Op::Reshape(_) | Op::Flatten(_) | Op::Transpose(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => true,
        Op::Identity(_) | Op::Slice(_) => true,
        _ => false,
    }
}

/// A `DequantizeLinear` with one scale and one zero point.
struct Dequantized {
    integers: Value,
    scale: Value,
    zero: Value,
}

/// Scale and zero point of a node with one of each.
fn parameters(graph: &Graph, id: NodeId) -> Option<(&Tensor, &Tensor)> {
    let [_, Some(scale), Some(zero)] = graph.node(id).inputs[..] else { return None };
    let (scale, zero) = (graph.constant(scale)?, graph.constant(zero)?);
    let positive =
        scale.dtype() == DType::F32 && scale.to_f64s().first().is_some_and(|&s| s > 0.0 && s.is_finite());
    (scale.len() == 1 && zero.len() == 1 && positive).then_some((scale, zero))
}

fn dequantized(graph: &Graph, value: Option<Value>) -> Option<Dequantized> {
    let node = value?.node;
    let (Op::DequantizeLinear(_), [Some(integers), Some(scale), Some(zero)]) =
        (&graph.node(node).op, &graph.node(node).inputs[..])
    else {
        return None;
    };
    parameters(graph, node)?;
    matches!(graph.fact(*integers).dtype(), DType::I8 | DType::U8).then_some(Dequantized {
        integers: *integers,
        scale: *scale,
        zero: *zero,
    })
}

/// Moves and cancels wherever it can be done.
///
/// **Errors**: an operator refuses integers.
pub(crate) fn carry(
    graph: &mut Graph,
    names: &mut HashSet<Arc<str>>,
    cx: &PassCx<'_>,
    report: &mut Report,
) -> Result<(), GraphError> {
    // Operands come first, so that one sweep moves as far as it goes.
    for id in graph.topological()? {
        if !graph.contains(id) {
            continue;
        }
        match &graph.node(id).op {
            Op::QuantizeLinear(_) => {
                drop_relu(graph, id, cx, report);
                cancel(graph, id, cx, report);
            }
            Op::Concat(_) => move_below(graph, names, id, cx, report)?,
            op if carries(op) => move_below(graph, names, id, cx, report)?,
            _ => {}
        }
    }
    Ok(())
}

/// `Quantize(Dequantize(q))` with the same parameters is `q`.
fn cancel(graph: &mut Graph, id: NodeId, cx: &PassCx<'_>, report: &mut Report) {
    let input = graph.node(id).inputs.first().copied().flatten();
    let Some(found) = dequantized(graph, input) else { return };
    let same = input.and_then(|input| Some(parameters(graph, id)? == parameters(graph, input.node)?));
    let output = Value { node: id, slot: 0 };
    let fits = same == Some(true) && graph.fact(output).dtype() == graph.fact(found.integers).dtype();
    if fits && cx.admits("stay-int8", &graph.node(id).name) {
        report.apply("stay-int8", graph.node(id).name.clone(), "no conversion to f32 and back");
        graph.replace_value(output, found.integers);
        remove_dead(graph, id);
    }
}

/// Where 0 is the lowest integer, saturation is a `Relu`.
fn drop_relu(graph: &mut Graph, id: NodeId, cx: &PassCx<'_>, report: &mut Report) {
    let Some(Some(input)) = graph.node(id).inputs.first().copied() else { return };
    let Op::Unary(op) = &graph.node(input.node).op else { return };
    let (Some(operand), true) = (graph.node(input.node).inputs[0], op.op == UnaryOp::Relu) else { return };
    let lowest = graph.fact(Value { node: id, slot: 0 }).dtype().int_range().map(|range| range.0);
    let zero = parameters(graph, id).and_then(|(_, zero)| zero.to_i64s().first().map(|&z| i128::from(z)));
    let fits = zero.is_some() && zero == lowest;
    if fits && cx.admits("relu-by-saturation", &graph.node(input.node).name) {
        report.apply("relu-by-saturation", graph.node(input.node).name.clone(), "");
        graph.set_input(id, 0, Some(operand));
        remove_dead(graph, input.node);
    }
}

/// `op(Dequantize(q))` becomes `Dequantize(op(q))`. All operands of a `Concat` must have the same parameters.
fn move_below(
    graph: &mut Graph,
    names: &mut HashSet<Arc<str>>,
    id: NodeId,
    cx: &PassCx<'_>,
    report: &mut Report,
) -> Result<(), GraphError> {
    let node = graph.node(id).clone();
    let data = if matches!(node.op, Op::Concat(_)) { node.inputs.len() } else { 1 };
    let found: Option<Vec<Dequantized>> =
        node.inputs.iter().take(data).map(|input| dequantized(graph, *input)).collect();
    let Some(found) = found else { return Ok(()) };
    let Some(Some(first)) = node.inputs.first().copied() else { return Ok(()) };
    let wanted = parameters(graph, first.node);
    let same = |input: &Option<Value>| input.is_some_and(|v| parameters(graph, v.node) == wanted);
    if !node.inputs.iter().take(data).all(same) {
        let reason = "its operands have different scales or zero points";
        report.skip("stay-int8", node.name.clone(), reason);
        return Ok(());
    }
    if !cx.admits("stay-int8", &node.name) {
        return Ok(());
    }
    let mut inputs = node.inputs.clone();
    for (input, found) in inputs.iter_mut().zip(&found) {
        *input = Some(found.integers);
    }
    let name = unique_name(names, &format!("{}/int8", node.name));
    let moved = graph.add_node(node.op.clone(), inputs, &name, node.sources.clone())?;
    let integers = Value { node: moved, slot: 0 };
    let below = graph.node(first.node).op.clone();
    let name = unique_name(names, &format!("{}/dequantized", node.name));
    let operands = vec![Some(integers), Some(found[0].scale), Some(found[0].zero)];
    let result = graph.add_node(below, operands, &name, node.sources.clone())?;
    graph.replace_value(Value { node: id, slot: 0 }, Value { node: result, slot: 0 });
    remove_dead(graph, id);
    graph.annotate(moved, |new| *new.name = node.name.clone());
    graph.annotate(result, |new| new.outputs[0].name = node.outputs[0].name.clone());
    report.apply("stay-int8", node.name, format!("{} on integers", node.op.name()));
    Ok(())
}
