//! Smaller tensors: fewer elements, simpler contents.

use super::Case;
use rabot_ir::{Fact, Graph, NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};
use std::collections::BTreeSet;

/// Sizes of axes of inputs and constants, those above 1.
pub(super) fn sizes(case: &Case) -> BTreeSet<usize> {
    let constants = case.graph.node_ids().filter_map(|id| match &case.graph.node(id).op {
        Op::Constant(tensor) => Some(tensor.shape().to_vec()),
        _ => None,
    });
    let inputs = case.inputs.values().map(|tensor| tensor.shape().to_vec());
    constants.chain(inputs).flatten().filter(|&size| size > 1).collect()
}

/// The case with every axis of size `old` cut to `new`: of inputs, of constants, and in lists of integers, which may be
/// shapes. `None` if nothing has that size or the graph does not fit together any more.
pub(super) fn resize(case: &Case, old: usize, new: usize) -> Option<Case> {
    let mut changed = false;
    let mut cut = |tensor: &Tensor| -> Option<Tensor> {
        let cut = cut(tensor, old, new)?;
        changed |= cut.is_some();
        Some(cut.unwrap_or_else(|| tensor.clone()))
    };
    let mut inputs = case.inputs.clone();
    for tensor in inputs.values_mut() {
        *tensor = cut(tensor)?;
    }
    let mut graph = Graph::new(&case.graph.name);
    let mut made = std::collections::HashMap::new();
    for id in case.graph.topological().ok()? {
        let node = case.graph.node(id);
        let id_of = |v: &Value| made.get(&v.node).map(|&node| Value { node, slot: v.slot });
        let value = match &node.op {
            Op::Input => {
                let tensor = inputs.get(&*node.name)?;
                let shape = tensor.shape().iter().map(|&dim| dim.into()).collect::<Vec<_>>();
                graph.add_input(&node.name, Fact::of_type(tensor.dtype(), shape)).node
            }
            Op::Constant(tensor) => graph.add_constant(&node.name, cut(tensor)?).node,
            _ => {
                let operands = node.inputs.iter().map(|input| input.as_ref().and_then(id_of)).collect();
                graph.add_copy(node, operands)
            }
        };
        made.insert(id, value);
    }
    for output in case.graph.outputs() {
        let node = *made.get(&output.value.node)?;
        graph.add_output(&output.name, Value { node, slot: output.value.slot });
    }
    let order = case.graph.inputs().iter().filter_map(|id| made.get(id).copied()).collect();
    graph.set_input_order(order);
    (changed && graph.refresh().is_ok()).then_some(Case { graph, inputs })
}

/// The first `new` elements along each axis of size `old`; `Some(None)` if it has none, `None` if it cannot be cut.
fn cut(tensor: &Tensor, old: usize, new: usize) -> Option<Option<Tensor>> {
    let shape: Vec<usize> = tensor.shape().iter().map(|&dim| if dim == old { new } else { dim }).collect();
    let integers = tensor.dtype() == DType::I64 && tensor.rank() <= 1;
    let names_size = integers && tensor.to_i64s().contains(&(old as i64));
    if shape == tensor.shape() && !names_size {
        return Some(None);
    }
    if tensor.dtype() == DType::String || tensor.dtype().size_bytes() == 0 {
        return None;
    }
    let strides: Vec<usize> =
        (0..tensor.rank()).map(|axis| tensor.shape()[axis + 1..].iter().product()).collect();
    let count: usize = shape.iter().product();
    let place = |mut index: usize| {
        let mut from = 0;
        for axis in (0..shape.len()).rev() {
            from += index % shape[axis] * strides[axis];
            index /= shape[axis];
        }
        from
    };
    if tensor.dtype().is_float() {
        let all = tensor.to_f64s();
        let values: Vec<f64> =
            (0..count).map(|index| all.get(place(index)).copied().unwrap_or(0.0)).collect();
        return Some(Some(Tensor::from_f64s(tensor.dtype(), &shape, &values)));
    }
    let renamed = |value: i64| if names_size && value == old as i64 { new as i64 } else { value };
    let all = tensor.to_i64s();
    let values: Vec<i64> =
        (0..count).map(|index| renamed(all.get(place(index)).copied().unwrap_or(0))).collect();
    Some(Some(Tensor::from_i64s(tensor.dtype(), &shape, &values)))
}

/// Simpler contents of the same type, the simplest first; none for strings and for integers, which may be shapes.
pub(super) fn simpler(tensor: &Tensor) -> Vec<Tensor> {
    if !tensor.dtype().is_float() || tensor.is_empty() {
        return Vec::new();
    }
    let values = tensor.to_f64s();
    let of = |values: Vec<f64>| Tensor::from_f64s(tensor.dtype(), tensor.shape(), &values);
    let splat = |value: f64| of(vec![value; values.len()]);
    let few_bits = |v: &f64| if v.is_finite() { (v * 8.0).round() / 8.0 } else { *v };
    let largest = values.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
    let candidates = [
        splat(0.0),
        splat(1.0),
        splat(values[0]),
        splat(largest),
        of(values.iter().map(|v| v.round()).collect()),
        of(values.iter().map(few_bits).collect()),
    ];
    candidates.into_iter().filter(|candidate| candidate != tensor).collect()
}

/// The elements that text has to write out.
pub(super) fn written_elements(tensor: &Tensor) -> usize {
    let width = tensor.dtype().size_bytes().max(1);
    let mut elements = tensor.bytes().chunks(width);
    match elements.next() {
        Some(first) if tensor.dtype() != DType::String && elements.all(|element| element == first) => 1,
        _ => tensor.len(),
    }
}

/// The case with other contents of a constant.
pub(super) fn with_constant(case: &Case, id: NodeId, tensor: Tensor) -> Option<Case> {
    let mut case = case.clone();
    case.graph.set_op(id, Op::Constant(tensor)).ok()?;
    case.graph.refresh().ok()?;
    Some(case)
}
