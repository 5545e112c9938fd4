//! Removes channels: cuts constants, and whatever names how many channels there are.

use super::walk::{self, Edit, Space};
use rabot_ir::ops::{Conv, Slice};
use rabot_ir::{Graph, GraphError, NodeId, Op, Value};
use rabot_rewrite::{remove_dead, unique_name};
use rabot_tensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Removes from a graph the channels of some spaces that are not to be kept; `keep` lists the others, in order.
///
/// **Errors**: an operator refuses what is left.
pub(super) fn apply(graph: &mut Graph, spaces: &[(Space, Vec<usize>)]) -> Result<(), GraphError> {
    let mut names = rabot_rewrite::taken_names(graph);
    let mut groups: HashMap<NodeId, usize> = HashMap::new();
    for (space, keep) in spaces {
        for edit in &space.edits {
            match *edit {
                Edit::Cut { node, slot, axis, inner } => {
                    change(graph, &mut names, node, slot, |tensor| cut(tensor, axis, keep, inner));
                }
                Edit::Target { node, axis, inner } => {
                    let size = (keep.len() * inner) as i64;
                    change(graph, &mut names, node, 1, |tensor| {
                        let mut target = tensor.to_i64s();
                        *target.get_mut(axis)? = size;
                        Some(Tensor::from_i64s(tensor.dtype(), tensor.shape(), &target))
                    });
                }
                Edit::Groups { node } => {
                    groups.insert(node, keep.len());
                }
                Edit::Picks { node, inner, size } => {
                    change(graph, &mut names, node, 1, |tensor| picks(tensor, keep, inner, size));
                }
                Edit::Range { node, axis, inner, size } => {
                    let Some(Some((at, range))) = walk::range(graph, node, axis, size * inner) else {
                        continue;
                    };
                    let back = moved_back(keep, range.start, inner);
                    for (slot, bound) in [(1, range.start), (2, range.end)] {
                        // Nothing is taken of what nobody reads.
                        let bound = if range.is_empty() { 0 } else { bound - back };
                        change(graph, &mut names, node, slot, |tensor| {
                            let mut bounds = tensor.to_i64s();
                            *bounds.get_mut(at)? = bound as i64;
                            Some(Tensor::from_i64s(tensor.dtype(), tensor.shape(), &bounds))
                        });
                    }
                }
                Edit::Parts { node, axis, inner } => split(graph, &mut names, node, axis, inner, keep)?,
            }
        }
    }
    // In order, since the number of groups is checked against operands that have lost channels too.
    for id in graph.topological()? {
        match (groups.get(&id), graph.node(id).op.clone()) {
            (Some(&group), Op::Conv(op)) => graph.set_op(id, Op::Conv(Conv { group, ..op }))?,
            _ => graph.refresh_node(id)?,
        }
    }
    Ok(())
}

/// How many elements before one go.
fn moved_back(keep: &[usize], element: usize, inner: usize) -> usize {
    let channel = element / inner.max(1);
    (channel - keep.iter().take_while(|&&kept| kept < channel).count()) * inner
}

/// Indices of elements that are kept, counted among these.
fn picks(indices: &Tensor, keep: &[usize], inner: usize, size: usize) -> Option<Tensor> {
    let moved = |index: i64| {
        let element = walk::from_front(index, size * inner)?;
        Some((element - moved_back(keep, element, inner)) as i64)
    };
    let moved: Vec<i64> = indices.to_i64s().into_iter().map(moved).collect::<Option<_>>()?;
    Some(Tensor::from_i64s(indices.dtype(), indices.shape(), &moved))
}

/// Puts slices in the place of the outputs of a `Split` that are used.
fn split(
    graph: &mut Graph,
    names: &mut HashSet<Arc<str>>,
    id: NodeId,
    axis: usize,
    inner: usize,
    keep: &[usize],
) -> Result<(), GraphError> {
    let node = graph.node(id).clone();
    let (Some(Some(whole)), Some(parts)) = (node.inputs.first().copied(), walk::parts(graph, id, axis))
    else {
        return Ok(());
    };
    for (slot, part) in parts.into_iter().enumerate() {
        let old = Value { node: id, slot: slot as u32 };
        if graph.use_count(old) == 0 {
            continue;
        }
        let back = if part.is_empty() { part.start } else { moved_back(keep, part.start, inner) };
        let name = graph.value_name(old).clone();
        let mut list = |value: usize, what: &str| {
            let name = unique_name(names, &format!("{name}/{what}"));
            Some(graph.add_constant(&name, Tensor::from_vec(&[1], vec![value as i64])))
        };
        let (starts, ends) = (list(part.start - back, "start"), list(part.end - back, "end"));
        let operands = vec![Some(whole), starts, ends, list(axis, "axis")];
        let name = unique_name(names, &format!("{name}/part"));
        let node = graph.add_node(Op::Slice(Slice), operands, &name, node.sources.clone())?;
        graph.replace_value(old, Value { node, slot: 0 });
    }
    remove_dead(graph, id);
    Ok(())
}

/// The kept channels of a tensor, each `inner` elements of the axis.
fn cut(tensor: &Tensor, axis: usize, keep: &[usize], inner: usize) -> Option<Tensor> {
    let (dim, mut shape) = (*tensor.shape().get(axis)?, tensor.shape().to_vec());
    let channel = inner * shape[axis + 1..].iter().product::<usize>() * tensor.dtype().size_bytes();
    let block = channel * dim / inner.max(1);
    let mut bytes = Vec::with_capacity(tensor.bytes().len());
    for outer in 0..shape[..axis].iter().product() {
        for &index in keep {
            let start = outer * block + index * channel;
            bytes.extend_from_slice(tensor.bytes().get(start..start + channel)?);
        }
    }
    shape[axis] = keep.len() * inner;
    Tensor::from_bytes(tensor.dtype(), &shape, bytes.into()).ok()
}

/// Puts a changed constant in the place of an operand; it takes the name over from a constant nobody else uses.
fn change(
    graph: &mut Graph,
    names: &mut HashSet<Arc<str>>,
    node: NodeId,
    slot: usize,
    change: impl FnOnce(&Tensor) -> Option<Tensor>,
) {
    let Some(Some(old)) = graph.node(node).inputs.get(slot).copied() else { return };
    let Some(tensor) = graph.constant(old).and_then(change) else { return };
    let maker = graph.node(old.node).clone();
    let name = unique_name(names, &format!("{}/pruned", graph.value_name(old)));
    let new: Value = graph.add_constant(&name, tensor);
    graph.set_input(node, slot, Some(new));
    remove_dead(graph, old.node);
    let gone = !graph.contains(old.node);
    graph.annotate(new.node, |new| {
        *new.sources = maker.sources.clone();
        if gone {
            *new.name = maker.name.clone();
            new.outputs[0].name = maker.outputs[0].name.clone();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_of_several_elements_are_kept_whole() {
        let tensor = Tensor::from_vec(&[2, 6, 1], (0..12u8).collect::<Vec<u8>>());
        let kept = cut(&tensor, 1, &[0, 2], 2).unwrap();
        assert_eq!(kept, Tensor::from_vec(&[2, 4, 1], vec![0u8, 1, 4, 5, 6, 7, 10, 11]));
        assert_eq!(cut(&tensor, 0, &[1], 1).unwrap().shape(), [1, 6, 1]);
        assert_eq!(cut(&tensor, 1, &[3], 2), None);
        assert_eq!(cut(&tensor, 3, &[0], 1), None);
    }
}
