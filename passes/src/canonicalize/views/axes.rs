//! Operators that do the same whatever the order of the axes: what changes about them when the order does.

use super::parts::axis_of;
use rabot_ir::ops::{Concat, ReduceOp, Resize, Softmax, Split};
use rabot_ir::{Graph, NodeId, Op, Value};
use rabot_tensor::Tensor;

/// An operator for operands whose axes are in another order.
pub(super) struct Moved {
    /// With the axis that it names.
    pub(super) op: Op,
    /// Operands that name axes, or have a number for each.
    pub(super) constants: Vec<(usize, Tensor)>,
}

/// True for operators whose every element depends on the elements at its place in the operands, with broadcasting.
fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Variadic(_) | Op::Where(_) | Op::Clip(_) | Op::Cast(_))
}

/// How many of the first operands of an operator have the axes of its result.
pub(super) fn data_operands(op: &Op) -> usize {
    if is_elementwise(op) || matches!(op, Op::Concat(_)) { usize::MAX } else { 1 }
}

/// The operands that have the axes of the result.
pub(super) fn data(graph: &Graph, id: NodeId) -> impl Iterator<Item = Value> {
    let node = graph.node(id);
    node.inputs.iter().take(data_operands(&node.op)).flatten().copied()
}

/// The operator of a node for operands whose axis `i` is axis `perm[i]` of those it has; its result then has the same
/// order. `None` where it does not do the same, or what it does with which axis is not known.
pub(super) fn moved(graph: &Graph, id: NodeId, perm: &[usize]) -> Option<Moved> {
    let node = graph.node(id);
    let rank = perm.len();
    if !node.outputs.iter().all(|output| output.fact.ty.is_tensor() && output.fact.rank() == rank) {
        return None;
    }
    let to = |axis: i64| {
        let axis = axis_of(axis, rank)?;
        perm.iter().position(|&from| from == axis).map(|axis| axis as i64)
    };
    let operand = |slot: usize| node.inputs.get(slot).copied().flatten();
    let op = match &node.op {
        op if is_elementwise(op) => op.clone(),
        Op::Concat(op) => Op::Concat(Concat { axis: to(op.axis)? }),
        Op::Split(op) => Op::Split(Split { axis: to(op.axis)?, ..op.clone() }),
        Op::Softmax(op) => Op::Softmax(Softmax { axis: to(op.axis)?, ..op.clone() }),
        Op::Slice(_) => {
            let axes: Vec<i64> = match operand(3) {
                Some(axes) => graph.constant(axes)?.to_i64s(),
                None => (0..graph.constant(operand(1)?)?.len() as i64).collect(),
            };
            return list(&node.op, 3, axes.into_iter().map(to));
        }
        Op::Reduce(op) if op.keepdims => {
            let axes = operand(1).and_then(|axes| graph.constant(axes)).map(Tensor::to_i64s);
            // All axes, or none, whatever they are called.
            let Some(axes) = axes.filter(|axes| !axes.is_empty()) else {
                let all = operand(1).is_none() && (op.noop_with_empty_axes || is_any_order(op.op));
                return all.then(|| Moved { op: node.op.clone(), constants: vec![] });
            };
            let mut axes: Vec<usize> = axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Option<_>>()?;
            axes.sort_unstable();
            let moved: Option<Vec<i64>> = axes.iter().map(|&axis| to(axis as i64)).collect();
            // A sum is rounded otherwise in another order.
            if !is_any_order(op.op) && !moved?.is_sorted() {
                return None;
            }
            return list(&node.op, 1, axes.into_iter().map(|axis| to(axis as i64)));
        }
        Op::Pad(_) => return pads(graph, id, perm),
        Op::Resize(op) => return resize(graph, id, op, perm),
        _ => return None,
    };
    Some(Moved { op, constants: vec![] })
}

/// True for reductions that are the same in any order of elements.
pub(super) fn is_any_order(op: ReduceOp) -> bool {
    matches!(op, ReduceOp::Max | ReduceOp::Min)
}

fn list(op: &Op, slot: usize, values: impl Iterator<Item = Option<i64>>) -> Option<Moved> {
    let values: Vec<i64> = values.collect::<Option<_>>()?;
    Some(Moved { op: op.clone(), constants: vec![(slot, Tensor::from_vec(&[values.len()], values))] })
}

/// Borders of all axes, in the new order.
fn pads(graph: &Graph, id: NodeId, perm: &[usize]) -> Option<Moved> {
    let node = graph.node(id);
    let operand = |slot: usize| node.inputs.get(slot).copied().flatten();
    let pads = graph.constant(operand(1)?)?.to_i64s();
    let axes: Vec<usize> = match operand(3) {
        Some(axes) => {
            let axes = graph.constant(axes)?.to_i64s();
            axes.iter().map(|&axis| axis_of(axis, perm.len())).collect::<Option<_>>()?
        }
        None => (0..perm.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return None;
    }
    let (before, after) = pads.split_at(axes.len());
    let of = |list: &[i64], axis: usize| {
        axes.iter().position(|&named| named == axis).and_then(|at| list.get(at)).copied().unwrap_or(0)
    };
    let ordered = |list: &[i64]| perm.iter().map(|&axis| of(list, axis)).collect::<Vec<_>>();
    let pads = [ordered(before), ordered(after)].concat();
    let mut constants = vec![(1, Tensor::from_vec(&[pads.len()], pads))];
    if operand(3).is_some() {
        let all: Vec<i64> = (0..perm.len() as i64).collect();
        constants.push((3, Tensor::from_vec(&[all.len()], all)));
    }
    Some(Moved { op: node.op.clone(), constants })
}

/// Scales or sizes of all axes, in the new order.
fn resize(graph: &Graph, id: NodeId, op: &Resize, perm: &[usize]) -> Option<Moved> {
    let node = graph.node(id);
    let operand = |slot: usize| node.inputs.get(slot).copied().flatten();
    let has_region = operand(1).is_some_and(|roi| !graph.fact(roi).shape().iter().any(|dim| dim.is(0)));
    if op.axes.is_some() || has_region {
        return None;
    }
    let from = graph.fact(operand(0)?).shape();
    let resized: Vec<usize> = (0..perm.len())
        .filter(|&at| from[perm[at]] != node.outputs[0].fact.shape()[perm[at]])
        .map(|at| perm[at])
        .collect();
    // Interpolation is rounded otherwise along other axes first.
    if op.mode != "nearest" && !resized.is_sorted() {
        return None;
    }
    let slot = if operand(2).is_some_and(|scales| !graph.fact(scales).shape().iter().any(|dim| dim.is(0))) {
        2
    } else {
        3
    };
    let values = graph.constant(operand(slot)?)?;
    if values.len() != perm.len() {
        return None;
    }
    let ordered: Vec<f64> = {
        let values = values.to_f64s();
        perm.iter().map(|&axis| values[axis]).collect()
    };
    let tensor = Tensor::from_f64s(values.dtype(), &[ordered.len()], &ordered);
    Some(Moved { op: node.op.clone(), constants: vec![(slot, tensor)] })
}
