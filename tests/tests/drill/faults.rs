//! Faults of passes: a real pass, and one of its rewrites done wrong.

use super::half::{put_after, scaled_conversion, times};
use rabot_ir::ops::{Transpose, UnaryOp};
use rabot_ir::{Graph, NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};

/// Does a rewrite wrong at its node; false if there is nothing to do wrong.
pub type Fault = fn(&mut Graph, NodeId) -> bool;

/// The faults of rewrites, by name.
pub const FAULTS: [(&str, Fault); 13] = [
    ("wrong constant", |graph, node| scale_operand(graph, node, 1.25)),
    ("wrong rounding", |graph, node| {
        let Some(tensor) = graph.constant(first(node)).cloned() else { return false };
        edit(graph, first(node), &tensor, |v| (v * 4.0).round() / 4.0)
    }),
    ("folded to a wrong constant", |graph, node| {
        let Some(tensor) = graph.constant(first(node)).cloned() else { return false };
        edit(graph, first(node), &tensor, |v| v * 1.1)
    }),
    ("swapped operands", |graph, node| {
        if !matches!(graph.node(node).op, Op::Binary(_) | Op::MatMul(_)) {
            return false;
        }
        let inputs = graph.node(node).inputs.clone();
        let ([a, b], true) = (&inputs[..], inputs.len() == 2) else { return false };
        graph.set_input(node, 0, *b);
        graph.set_input(node, 1, *a);
        graph.refresh_node(node).is_ok()
    }),
    ("dropped bias", |graph, node| {
        if !matches!(graph.node(node).op, Op::Conv(_) | Op::Gemm(_)) {
            return false;
        }
        let there = graph.node(node).inputs.get(2).copied().flatten().is_some();
        if there {
            graph.set_input(node, 2, None);
        }
        there
    }),
    ("dropped activation", |graph, node| matches!(graph.node(node).op, Op::Unary(_)) && bypass(graph, node)),
    ("wrong axis", |graph, node| {
        let Op::Softmax(op) = graph.node(node).op.clone() else { return false };
        graph.set_op(node, Op::Softmax(rabot_ir::ops::Softmax { axis: 0, ..op })).is_ok()
    }),
    ("wrong epsilon", |graph, node| {
        let Op::LayerNormalization(op) = graph.node(node).op.clone() else { return false };
        let op = rabot_ir::ops::LayerNormalization { epsilon: 0.5, ..op };
        graph.set_op(node, Op::LayerNormalization(op)).is_ok()
    }),
    ("approximated function", |graph, node| {
        let Op::Unary(mut op) = graph.node(node).op.clone() else { return false };
        op.op = match op.op {
            UnaryOp::Tanh => UnaryOp::Erf,
            UnaryOp::Erf => UnaryOp::Tanh,
            UnaryOp::Exp => UnaryOp::Softplus,
            _ => return false,
        };
        graph.set_op(node, Op::Unary(op)).is_ok()
    }),
    ("unequal nodes merged", |graph, node| {
        let fact = graph.fact(first(node)).clone();
        let order = graph.topological().unwrap_or_default();
        let earlier = order.iter().take_while(|&&id| id != node);
        let other = earlier
            .map(|&id| first(id))
            .filter(|&v| graph.constant(v).is_none())
            .find(|&v| graph.fact(v).dtype() == fact.dtype() && graph.fact(v).shape() == fact.shape());
        let Some(other) = other else { return false };
        graph.replace_value(first(node), other);
        true
    }),
    ("missing condition", |graph, node| {
        // A factor that was to be 1 is not.
        after(graph, node, 0.75)
    }),
    ("overflow", |graph, node| {
        let whole = matches!(graph.node(node).op, Op::Input) || graph.fact(first(node)).dtype() != DType::F32;
        if whole {
            return false;
        }
        let Some(large) = times(graph, first(node), 3e38) else { return false };
        let Some(larger) = times(graph, large, 1e3) else { return false };
        put_after(graph, first(node), large.node, larger);
        true
    }),
    ("wrong permutation", permuted),
];

/// The faults of quantized layers, by name.
pub const QUANTIZED: [(&str, Fault); 9] = [
    ("miscalibrated input scale", |graph, node| parameter(graph, node, 1, |v| v * 0.2)),
    ("wrong input zero point", |graph, node| parameter(graph, node, 2, |v| (v + 60.0).min(127.0))),
    ("miscalibrated output scale", |graph, node| parameter(graph, node, 6, |v| v * 0.2)),
    ("wrong output zero point", |graph, node| parameter(graph, node, 7, |v| (v + 60.0).min(127.0))),
    ("wrong weight scale", |graph, node| parameter(graph, node, 4, |v| v * 2.0)),
    ("clipped input range", |graph, node| shared(graph, node, 1, |v| v * 0.1)),
    ("shared input zero point", |graph, node| shared(graph, node, 2, |v| (v + 90.0).min(127.0))),
    ("clipped output range", |graph, node| shared(graph, node, 6, |v| v * 0.1)),
    ("shared output zero point", |graph, node| shared(graph, node, 7, |v| (v + 90.0).min(127.0))),
];

/// The faults of layers rounded to f16, by name.
pub const HALF: [(&str, Fault); 2] = [
    ("f16 overflow", |graph, node| scaled_conversion(graph, node, 65504.0)),
    ("f16 underflow", |graph, node| scaled_conversion(graph, node, 1e-10)),
];

/// The faults of layers whose weights are pruned, by name.
pub const PRUNED: [(&str, Fault); 2] = [
    ("weights scaled", |graph, node| scale_operand(graph, node, 1.5)),
    ("all weights pruned", |graph, node| scale_operand(graph, node, 0.0)),
];

fn first(node: NodeId) -> Value {
    Value { node, slot: 0 }
}

fn parameter(graph: &mut Graph, node: NodeId, slot: usize, change: fn(f64) -> f64) -> bool {
    if !matches!(graph.node(node).op, Op::QLinearConv(_) | Op::QLinearMatMul(_)) {
        return false;
    }
    let Some(value) = graph.node(node).inputs.get(slot).copied().flatten() else { return false };
    let Some(tensor) = graph.constant(value).cloned() else { return false };
    // Others that have the constant keep the right one.
    let values: Vec<f64> = tensor.to_f64s().into_iter().map(change).collect();
    let new = graph.add_constant("planted", Tensor::from_f64s(tensor.dtype(), tensor.shape(), &values));
    graph.set_input(node, slot, Some(new));
    true
}

/// Puts changed elements in the place of a constant.
fn edit(graph: &mut Graph, value: Value, tensor: &Tensor, change: impl Fn(f64) -> f64) -> bool {
    if !tensor.dtype().is_float() && tensor.dtype() != rabot_tensor::DType::I8 {
        return false;
    }
    let values: Vec<f64> = tensor.to_f64s().into_iter().map(change).collect();
    let new = Tensor::from_f64s(tensor.dtype(), tensor.shape(), &values);
    graph.set_op(value.node, Op::Constant(new)).is_ok()
}

fn scale_operand(graph: &mut Graph, node: NodeId, factor: f64) -> bool {
    let operands = graph.node(node).inputs.clone();
    for value in operands.into_iter().flatten() {
        if let Some(tensor) = graph.constant(value).filter(|t| t.dtype().is_float()).cloned() {
            let values: Vec<f64> = tensor.to_f64s().into_iter().map(|v| v * factor).collect();
            let new =
                graph.add_constant("planted", Tensor::from_f64s(tensor.dtype(), tensor.shape(), &values));
            let slot = graph.node(node).inputs.iter().position(|input| *input == Some(value)).unwrap_or(0);
            graph.set_input(node, slot, Some(new));
            return true;
        }
    }
    false
}

fn bypass(graph: &mut Graph, node: NodeId) -> bool {
    let Some(input) = graph.node(node).inputs.first().copied().flatten() else { return false };
    if graph.fact(input).shape() != graph.fact(first(node)).shape() {
        return false;
    }
    graph.replace_value(first(node), input);
    true
}

/// A factor after a node, under the name of its result.
fn after(graph: &mut Graph, node: NodeId, number: f32) -> bool {
    if graph.fact(first(node)).dtype() != DType::F32 || matches!(graph.node(node).op, Op::Input) {
        return false;
    }
    let Some(product) = times(graph, first(node), number) else { return false };
    put_after(graph, first(node), product.node, product);
    true
}

/// Other numbers in place of a permutation, where it leaves the shape as it is.
fn permuted(graph: &mut Graph, node: NodeId) -> bool {
    let Op::Transpose(op) = graph.node(node).op.clone() else { return false };
    let shape = graph.fact(first(node)).shape().to_vec();
    let axes: Vec<usize> = (0..shape.len()).collect();
    let perm = op.perm.unwrap_or_else(|| axes.iter().rev().copied().collect());
    let one = rabot_ir::Dim::from(1usize);
    let pair = axes
        .iter()
        .flat_map(|&a| axes.iter().map(move |&b| (a, b)))
        .find(|&(a, b)| a < b && shape[a] == shape[b] && shape[a] != one);
    let Some((a, b)) = pair else { return false };
    let mut other = perm;
    other.swap(a, b);
    graph.set_op(node, Op::Transpose(Transpose { perm: Some(other) })).is_ok()
}

/// Changes a scale or zero point of a layer for all that have it.
fn shared(graph: &mut Graph, node: NodeId, slot: usize, change: fn(f64) -> f64) -> bool {
    if !matches!(graph.node(node).op, Op::QLinearConv(_) | Op::QLinearMatMul(_)) {
        return false;
    }
    let Some(value) = graph.node(node).inputs.get(slot).copied().flatten() else { return false };
    let Some(tensor) = graph.constant(value).cloned() else { return false };
    let values: Vec<f64> = tensor.to_f64s().into_iter().map(change).collect();
    let new = graph.add_constant("planted", Tensor::from_f64s(tensor.dtype(), tensor.shape(), &values));
    graph.replace_value(value, new);
    true
}
