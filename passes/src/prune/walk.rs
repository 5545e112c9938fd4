//! Follows output channels through a graph.
//!
//! Every convolution and matrix product with constant weights starts a *space* of channels. A value has a place in a
//! space where one of its axes runs along the channels, each of them `inner` times in a row. Operators hand places
//! on; sums join spaces, for both operands must lose the same channels. Constants that lie along a space are noted to
//! be cut. A space that reaches something which cannot follow is frozen, with the reason.

use rabot_ir::ops::{Conv, Gemm};
use rabot_ir::{Dim, Fact, Graph, GraphError, NodeId, Op, Value};
use rabot_tensor::Tensor;
use std::collections::{BTreeSet, HashMap};

/// Where the channels of a space lie in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub space: usize,
    /// Axis that runs along the channels.
    pub axis: usize,
    /// Adjacent elements of the axis that belong to one channel.
    pub inner: usize,
}

/// What must change when channels of a space go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// A constant operand loses elements along an axis.
    Cut { node: NodeId, slot: usize, axis: usize, inner: usize },
    /// A depthwise convolution has as many groups as channels are left.
    Groups { node: NodeId },
    /// The target of a `Reshape` names the size of the axis.
    Target { node: NodeId, axis: usize, inner: usize },
    /// The indices of a `Gather` count the elements of all channels.
    Picks { node: NodeId, inner: usize, size: usize },
    /// So do the bounds of a `Slice`.
    Range { node: NodeId, axis: usize, inner: usize, size: usize },
    /// And the lengths of a `Split`.
    Parts { node: NodeId, axis: usize, inner: usize },
}

/// Channels that can only go together.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    /// Number of channels.
    pub size: usize,
    /// The layers that make them; their weights, and the axis of those along which the channels lie.
    pub producers: Vec<(NodeId, Value, usize)>,
    /// What must change.
    pub edits: Vec<Edit>,
    /// Why none of them may go.
    pub frozen: Option<String>,
    /// Channels that something reads; only where the walk asks for it.
    pub read: BTreeSet<usize>,
}

/// What a walk finds out besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Nothing: what takes some of the channels freezes them.
    Unasked,
    /// Which channels are read: those that are taken, and all that a layer reads.
    Taken,
    /// As `Taken`, but a layer reads no channel that it multiplies by zeros only.
    Nonzero,
}

/// All spaces of a graph.
pub(super) struct Walk<'g> {
    graph: &'g Graph,
    places: HashMap<Value, Place>,
    parents: Vec<usize>,
    spaces: Vec<Space>,
    reads: Reads,
    /// Layers that cannot lose channels, and why.
    pub unfit: Vec<(NodeId, String)>,
}

impl<'g> Walk<'g> {
    /// Follows the channels of every layer as far as they go.
    ///
    /// **Errors**: the graph has a cycle.
    pub fn new(graph: &'g Graph, reads: Reads) -> Result<Self, GraphError> {
        let mut walk = Walk {
            graph,
            places: HashMap::new(),
            parents: Vec::new(),
            spaces: Vec::new(),
            reads,
            unfit: Vec::new(),
        };
        for id in graph.topological()? {
            walk.visit(id);
        }
        for output in graph.outputs() {
            if let Some(place) = walk.places.get(&output.value).copied() {
                walk.freeze(place.space, format!("`{}` is an output of the graph", output.name));
            }
        }
        Ok(walk)
    }

    /// The spaces, joined ones once, in the order of their first layer.
    pub fn spaces(&self) -> Vec<&Space> {
        (0..self.spaces.len()).filter(|&at| self.parents[at] == at).map(|at| &self.spaces[at]).collect()
    }

    fn root(&self, mut space: usize) -> usize {
        while self.parents[space] != space {
            space = self.parents[space];
        }
        space
    }

    fn space(&mut self, space: usize) -> &mut Space {
        let root = self.root(space);
        &mut self.spaces[root]
    }

    fn freeze(&mut self, space: usize, reason: String) {
        self.space(space).frozen.get_or_insert(reason);
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a).min(self.root(b)), self.root(a).max(self.root(b)));
        if a == b {
            return;
        }
        let other = std::mem::take(&mut self.spaces[b]);
        let space = &mut self.spaces[a];
        space.producers.extend(other.producers);
        space.edits.extend(other.edits);
        space.frozen = space.frozen.take().or(other.frozen);
        space.read.extend(other.read);
        self.parents[b] = a;
    }

    fn name(&self, id: NodeId) -> String {
        format!("{} `{}`", self.graph.node(id).op.name(), self.graph.node(id).name)
    }

    fn operand(&self, id: NodeId, slot: usize) -> Option<Value> {
        self.graph.node(id).inputs.get(slot).copied().flatten()
    }

    fn fact(&self, id: NodeId, slot: usize) -> Option<&'g Fact> {
        self.operand(id, slot).map(|value| self.graph.fact(value))
    }

    /// The operands with a place: slot and place.
    fn placed(&self, id: NodeId) -> Vec<(usize, Place)> {
        let inputs = self.graph.node(id).inputs.iter().enumerate();
        inputs.filter_map(|(slot, input)| Some((slot, *self.places.get(&(*input)?)?))).collect()
    }

    /// True for an operand whose elements can be cut; an absent one too.
    fn is_constant(&self, id: NodeId, slot: usize) -> bool {
        self.fact(id, slot).is_none_or(|fact| fact.constant.is_some())
    }

    fn edit(&mut self, space: usize, edit: Edit) {
        self.space(space).edits.push(edit);
    }

    fn give(&mut self, id: NodeId, place: Place) {
        self.places.insert(Value { node: id, slot: 0 }, place);
    }

    fn start(&mut self, id: NodeId, size: usize, weights: Value, weights_axis: usize, axis: usize) -> usize {
        let space = self.spaces.len();
        self.parents.push(space);
        let producers = vec![(id, weights, weights_axis)];
        let edits = vec![Edit::Cut { node: id, slot: 1, axis: weights_axis, inner: 1 }];
        self.spaces.push(Space { size, producers, edits, frozen: None, read: BTreeSet::new() });
        self.give(id, Place { space, axis, inner: 1 });
        space
    }

    fn visit(&mut self, id: NodeId) {
        let placed = self.placed(id);
        let followed = match &self.graph.node(id).op {
            Op::Conv(op) => self.conv(id, op, &placed),
            Op::Gemm(op) => self.product(id, Some(op), &placed),
            Op::MatMul(_) => self.product(id, None, &placed),
            _ if placed.is_empty() => Ok(()),
            Op::Binary(_) | Op::Variadic(_) | Op::Where(_) | Op::Clip(_) => self.elementwise(id, &placed),
            Op::Unary(_) | Op::Cast(_) | Op::Identity(_) => {
                self.give(id, placed[0].1);
                Ok(())
            }
            Op::BatchNormalization(_) => self.batch_norm(id, &placed),
            Op::Shape(_) => self.shape(id, &placed),
            Op::Gather(_) | Op::Slice(_) | Op::Split(_) if self.reads != Reads::Unasked => {
                self.select(id, &placed)
            }
            _ => self.moved(id, &placed),
        };
        if let Err(reason) = followed {
            for (_, place) in placed {
                self.freeze(place.space, reason.clone());
            }
        }
    }

    /// Operators that hand on the channels of their first operand along another axis, or along the same.
    fn moved(&mut self, id: NodeId, placed: &[(usize, Place)]) -> Result<(), String> {
        let name = self.name(id);
        let refused = || format!("{name} cannot follow");
        let [(0, place)] = placed[..] else { return Err(refused()) };
        // Positions of maxima count all channels.
        if (1..self.graph.node(id).outputs.len() as u32).any(|slot| self.is_used(id, slot)) {
            return Err(refused());
        }
        let shape = |fact: Option<&'g Fact>| fact.map_or(&[][..], Fact::shape);
        let (from, to) = (shape(self.fact(id, 0)), self.graph.node(id).outputs[0].fact.shape());
        let moved = match &self.graph.node(id).op {
            Op::Pool(_) | Op::GlobalPool(_) if place.axis == 1 => Some(place),
            Op::Transpose(op) => {
                let axis = match &op.perm {
                    Some(perm) => perm.iter().position(|&axis| axis == place.axis),
                    None => (from.len() - 1).checked_sub(place.axis),
                };
                axis.map(|axis| Place { axis, ..place })
            }
            Op::Reduce(op) => {
                let reduced = op.reduced_axes(from.len(), self.fact(id, 1)).map_err(|_| refused())?;
                let before = reduced[..place.axis].iter().filter(|&&r| r && !op.keepdims).count();
                (!reduced[place.axis]).then_some(Place { axis: place.axis - before, ..place })
            }
            Op::Pad(_) if self.operand(id, 3).is_none() => {
                let pads = self.fact(id, 1).and_then(Fact::ints);
                let none = |pads: &Vec<i64>| {
                    [place.axis, place.axis + from.len()].iter().all(|&at| pads.get(at) == Some(&0))
                };
                pads.filter(none).map(|_| place)
            }
            Op::Resize(op) if op.axes.is_none() && self.operand(id, 3).is_none() => {
                let scales = self.operand(id, 2).and_then(|v| self.graph.constant(v)).map(|t| t.to_f64s());
                scales.filter(|s| s.get(place.axis) == Some(&1.0)).map(|_| place)
            }
            Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => reshaped(from, to, place),
            Op::Reshape(op) => match reshaped(from, to, place) {
                Some(moved) => Some(self.retarget(id, moved, op.allowzero)?),
                None => None,
            },
            _ => None,
        };
        let moved = moved.ok_or_else(refused)?;
        self.give(id, moved);
        Ok(())
    }

    /// A `Reshape` may name the size that changes.
    fn retarget(&mut self, id: NodeId, place: Place, allowzero: bool) -> Result<Place, String> {
        let reason = || format!("the target of {} is computed from sizes", self.name(id));
        let target = self.fact(id, 1).and_then(Fact::dims).ok_or_else(reason)?;
        let wanted = target.get(place.axis).and_then(Dim::as_const).ok_or_else(reason)?;
        if wanted == -1 || (wanted == 0 && !allowzero) {
            return Ok(place);
        }
        if self.fact(id, 1).is_none_or(|fact| fact.constant.is_none()) {
            return Err(reason());
        }
        self.edit(place.space, Edit::Target { node: id, axis: place.axis, inner: place.inner });
        Ok(place)
    }

    fn conv(&mut self, id: NodeId, op: &Conv, placed: &[(usize, Place)]) -> Result<(), String> {
        let name = self.name(id);
        let (Some(w), true) = (self.operand(id, 1), self.is_constant(id, 1)) else {
            self.unfit.push((id, "its weights are not constant".to_owned()));
            return Err(format!("the weights of {name} are not constant"));
        };
        let Some(&[out, channels]) = self.graph.constant(w).and_then(|w| w.shape().first_chunk::<2>()) else {
            return Err(format!("{name} has no channels"));
        };
        let x = match *placed {
            [] => None,
            [(0, place)] if place.axis == 1 && place.inner == 1 => Some(place),
            _ => return Err(format!("{name} cannot follow")),
        };
        if !self.is_constant(id, 2) {
            self.unfit.push((id, "its bias is not constant".to_owned()));
            return Err(format!("the bias of {name} is not constant"));
        }
        let bias = Edit::Cut { node: id, slot: 2, axis: 0, inner: 1 };
        let has_bias = self.operand(id, 2).is_some();
        if op.group == 1 {
            if let Some(place) = x {
                self.edit(place.space, Edit::Cut { node: id, slot: 1, axis: 1, inner: 1 });
                self.read_by(place, w, 1);
            }
            let space = self.start(id, out, w, 0, 1);
            if has_bias {
                self.edit(space, bias);
            }
            return Ok(());
        }
        if channels != 1 || out != op.group {
            self.unfit.push((id, format!("its channels are in {} groups", op.group)));
            return Err(format!("{name} has its channels in {} groups", op.group));
        }
        // Depthwise: each channel by itself, so it goes with its operand's.
        if let Some(place) = x {
            self.edit(place.space, Edit::Cut { node: id, slot: 1, axis: 0, inner: 1 });
            self.edit(place.space, Edit::Groups { node: id });
            if has_bias {
                self.edit(place.space, bias);
            }
            self.give(id, place);
        }
        Ok(())
    }

    fn product(&mut self, id: NodeId, gemm: Option<&Gemm>, placed: &[(usize, Place)]) -> Result<(), String> {
        let name = self.name(id);
        let matrix = self.operand(id, 1).and_then(|w| self.graph.constant(w)).filter(|w| w.rank() == 2);
        let (Some(w), Some(matrix)) = (self.operand(id, 1), matrix) else {
            self.unfit.push((id, "its weights are no constant matrix".to_owned()));
            return Err(format!("the weights of {name} are no constant matrix"));
        };
        let rank = self.fact(id, 0).map_or(0, Fact::rank);
        let (trans_a, trans_b) = gemm.map_or((false, false), |op| (op.trans_a, op.trans_b));
        let (depth_axis, column_axis) = if trans_b { (1, 0) } else { (0, 1) };
        match *placed {
            [] => {}
            [(0, place)] if !trans_a && place.axis + 1 == rank => {
                let inner = place.inner;
                self.edit(place.space, Edit::Cut { node: id, slot: 1, axis: depth_axis, inner });
                self.read_by(place, w, depth_axis);
            }
            _ => return Err(format!("{name} cannot follow")),
        }
        if !self.is_constant(id, 2) {
            self.unfit.push((id, "its bias is not constant".to_owned()));
            return Ok(());
        }
        let columns = matrix.shape()[column_axis];
        let output_rank = self.graph.node(id).outputs[0].fact.rank();
        let space = self.start(id, columns, w, column_axis, output_rank - 1);
        let bias = self.operand(id, 2).and_then(|c| self.graph.constant(c)).map(|c| c.shape().to_vec());
        if let Some(axis) = bias.and_then(|shape| shape.iter().rposition(|&dim| dim == columns))
            && columns > 1
        {
            self.edit(space, Edit::Cut { node: id, slot: 2, axis, inner: 1 });
        }
        Ok(())
    }

    fn is_used(&self, node: NodeId, slot: u32) -> bool {
        self.graph.use_count(Value { node, slot }) > 0
    }

    /// Notes the channels that a layer reads with its weights, along an axis of them.
    fn read_by(&mut self, place: Place, weights: Value, axis: usize) {
        let size = self.space(place.space).size;
        let read: BTreeSet<usize> = match (self.reads, self.graph.constant(weights)) {
            (Reads::Nonzero, Some(tensor)) => nonzero(tensor, axis, place.inner),
            _ => (0..size).collect(),
        };
        self.space(place.space).read.extend(read);
    }

    /// Operators that take some elements of an axis: those of the channels are noted, along others all are handed on.
    fn select(&mut self, id: NodeId, placed: &[(usize, Place)]) -> Result<(), String> {
        let name = self.name(id);
        let refused = || format!("{name} cannot follow");
        let [(0, place)] = placed[..] else { return Err(refused()) };
        let (node, rank) = (self.graph.node(id), self.fact(id, 0).map_or(0, Fact::rank));
        let size = self.space(place.space).size;
        let Place { axis, inner, .. } = place;
        let elements = size * inner;
        let (read, edit): (BTreeSet<usize>, Edit) = match &node.op {
            Op::Gather(op) => {
                let along = from_front(op.axis, rank).ok_or_else(refused)?;
                if along != axis {
                    let more = self.fact(id, 1).map_or(0, Fact::rank);
                    let axis = if along < axis { axis + more - 1 } else { axis };
                    self.give(id, Place { axis, ..place });
                    return Ok(());
                }
                let picks = self.operand(id, 1).and_then(|v| self.graph.constant(v)).ok_or_else(refused)?;
                let picks = picks.to_i64s().into_iter().map(|pick| from_front(pick, elements));
                let picks: BTreeSet<usize> = picks.collect::<Option<_>>().ok_or_else(refused)?;
                (picks, Edit::Picks { node: id, inner, size })
            }
            Op::Slice(_) => match range(self.graph, id, axis, elements).ok_or_else(refused)? {
                None => {
                    self.give(id, place);
                    return Ok(());
                }
                Some((_, range)) => (range.collect(), Edit::Range { node: id, axis, inner, size }),
            },
            Op::Split(op) => {
                let slots = 0..node.outputs.len() as u32;
                if from_front(op.axis, rank) != Some(axis) {
                    self.places.extend(slots.map(|slot| (Value { node: id, slot }, place)));
                    return Ok(());
                }
                let parts = parts(self.graph, id, axis).ok_or_else(refused)?;
                let used = slots.zip(parts).filter(|(slot, _)| self.is_used(id, *slot));
                (used.flat_map(|(_, part)| part).collect(), Edit::Parts { node: id, axis, inner })
            }
            _ => return Err(refused()),
        };
        let space = self.space(place.space);
        space.read.extend(read.into_iter().map(|element| element / inner));
        space.edits.push(edit);
        Ok(())
    }

    fn batch_norm(&mut self, id: NodeId, placed: &[(usize, Place)]) -> Result<(), String> {
        let [(0, place)] = placed[..] else { return Err(format!("{} cannot follow", self.name(id))) };
        if place.axis != 1 || !(1..5).all(|slot| self.is_constant(id, slot)) {
            return Err(format!("{} cannot follow", self.name(id)));
        }
        for slot in 1..5 {
            self.edit(place.space, Edit::Cut { node: id, slot, axis: 0, inner: place.inner });
        }
        self.give(id, place);
        Ok(())
    }

    /// Operands broadcast: those with channels must have them on the same axis of the result; constants along that
    /// axis are cut; what is the same for all channels stays.
    fn elementwise(&mut self, id: NodeId, placed: &[(usize, Place)]) -> Result<(), String> {
        let rank = self.graph.node(id).outputs[0].fact.rank();
        let missing = |slot: usize| rank - self.fact(id, slot).map_or(rank, Fact::rank);
        let (slot, first) = placed[0];
        let axis = first.axis + missing(slot);
        let size = self.space(first.space).size;
        let mut cuts = Vec::new();
        for slot in 0..self.graph.node(id).inputs.len() {
            let missing = rank - self.fact(id, slot).map_or(rank, Fact::rank);
            if let Some((_, place)) = placed.iter().find(|(at, _)| *at == slot) {
                let same = place.axis + missing == axis && place.inner == first.inner;
                if !same || self.space(place.space).size != size {
                    return Err(format!("the operands of {} have different channels", self.name(id)));
                }
                continue;
            }
            let Some(fact) = self.fact(id, slot) else { continue };
            let dim = axis.checked_sub(missing).and_then(|at| fact.shape().get(at));
            if dim.is_none_or(|dim| dim.is(1)) {
                continue;
            }
            if fact.constant.is_none() || dim.and_then(Dim::as_usize) != Some(size * first.inner) {
                return Err(format!("an operand of {} has channels that are not followed", self.name(id)));
            }
            cuts.push(Edit::Cut { node: id, slot, axis: axis - missing, inner: first.inner });
        }
        for (_, place) in &placed[1..] {
            self.join(first.space, place.space);
        }
        for cut in cuts {
            self.edit(first.space, cut);
        }
        self.give(id, Place { axis, ..first });
        Ok(())
    }

    /// The size of the channels' axis must not be read; those of others may be.
    fn shape(&mut self, id: NodeId, placed: &[(usize, Place)]) -> Result<(), String> {
        let Op::Shape(op) = &self.graph.node(id).op else { return Ok(()) };
        let [(0, place)] = placed[..] else { return Err(format!("{} cannot follow", self.name(id))) };
        let rank = self.fact(id, 0).map_or(0, Fact::rank) as i64;
        let start = (if op.start < 0 { op.start + rank } else { op.start }).clamp(0, rank);
        let count =
            self.graph.node(id).outputs[0].fact.shape().first().and_then(Dim::as_const).unwrap_or(rank);
        let read = place.axis as i64 - start;
        let sizes = Value { node: id, slot: 0 };
        let avoids = |user: NodeId, slot: usize| {
            let picks = self.fact(user, 1).and_then(Fact::ints);
            let gather = matches!(self.graph.node(user).op, Op::Gather(_)) && slot == 0;
            gather && picks.is_some_and(|p| p.iter().all(|&i| if i < 0 { i + count } else { i } != read))
        };
        let unread = !(0..count).contains(&read);
        if unread
            || (!self.graph.is_output(sizes) && self.graph.users(sizes).iter().all(|&(u, s)| avoids(u, s)))
        {
            return Ok(());
        }
        Err(format!("{} reads how many there are", self.name(id)))
    }
}

/// An index or an axis counted from the front, if it is within `0..size`.
pub(super) fn from_front(index: i64, size: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(size as i64)? } else { index };
    usize::try_from(index).ok().filter(|&index| index < size)
}

/// What a `Slice` takes along an axis of so many elements, and where its lists have that axis; `Some(None)` if it takes
/// all, `None` if it goes backward or that is not known.
pub(super) fn range(
    graph: &Graph,
    id: NodeId,
    axis: usize,
    elements: usize,
) -> Option<Option<(usize, std::ops::Range<usize>)>> {
    let operand = |slot: usize| graph.node(id).inputs.get(slot).copied().flatten();
    let list = |slot: usize| graph.constant(operand(slot)?).map(Tensor::to_i64s);
    let rank = graph.fact(operand(0)?).rank();
    let (starts, ends) = (list(1)?, list(2)?);
    let axes = if operand(3).is_some() { list(3)? } else { (0..starts.len() as i64).collect() };
    let steps = if operand(4).is_some() { list(4)? } else { vec![1; starts.len()] };
    let axes: Vec<usize> = axes.into_iter().map(|axis| from_front(axis, rank)).collect::<Option<_>>()?;
    let Some(at) = axes.iter().position(|&other| other == axis) else { return Some(None) };
    let clamped = |bound: i64| {
        let bound = if bound < 0 { bound.saturating_add(elements as i64) } else { bound };
        bound.clamp(0, elements as i64) as usize
    };
    let (start, end) = (clamped(*starts.get(at)?), clamped(*ends.get(at)?));
    (*steps.get(at)? > 0).then(|| Some((at, start..end.max(start))))
}

/// The elements of an axis that each output of a `Split` has.
pub(super) fn parts(graph: &Graph, id: NodeId, axis: usize) -> Option<Vec<std::ops::Range<usize>>> {
    let mut end = 0;
    let outputs = graph.node(id).outputs.iter();
    let part = outputs.map(|output| {
        let start = end;
        end += output.fact.shape().get(axis)?.as_usize()?;
        Some(start..end)
    });
    part.collect()
}

/// The channels, each `inner` elements of an axis, for which not all weights are zeros.
fn nonzero(weights: &Tensor, axis: usize, inner: usize) -> BTreeSet<usize> {
    let behind: usize = weights.shape().iter().skip(axis + 1).product();
    let along = weights.shape().get(axis).copied().unwrap_or(1);
    let values = weights.to_f64s().into_iter().enumerate().filter(|(_, value)| *value != 0.0);
    values.map(|(at, _)| at / behind.max(1) % along.max(1) / inner.max(1)).collect()
}

/// The place after a reshape that keeps what comes before the channels and joins them with dims that follow.
fn reshaped(from: &[Dim], to: &[Dim], place: Place) -> Option<Place> {
    let product = |dims: &[Dim]| dims.iter().product::<Dim>();
    let channels = from.get(place.axis)?.as_usize()?;
    for axis in 0..to.len() {
        if product(&to[..axis]) != product(&from[..place.axis]) {
            continue;
        }
        for end in place.axis + 1..=from.len() {
            let joined = product(&from[place.axis + 1..end]).as_usize();
            let fits = joined.and_then(|joined| to[axis].as_usize().map(|to| to == channels * joined));
            if fits == Some(true) && product(&to[axis + 1..]) == product(&from[end..]) {
                return joined.map(|joined| Place { axis, inner: place.inner * joined, ..place });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_that_keep_channels_together() {
        let n = Dim::symbol("n");
        let dims = |sizes: &[i64]| -> Vec<Dim> {
            [n.clone()].into_iter().chain(sizes.iter().map(|&s| Dim::from(s))).collect()
        };
        let place = Place { space: 0, axis: 1, inner: 1 };
        let of =
            |from: &[i64], to: &[i64]| reshaped(&dims(from), &dims(to), place).map(|p| (p.axis, p.inner));
        assert_eq!(of(&[8, 2, 3], &[48]), Some((1, 6)));
        assert_eq!(of(&[8, 2, 3], &[16, 3]), Some((1, 2)));
        assert_eq!(of(&[8, 2, 3], &[8, 6]), Some((1, 1)));
        assert_eq!(of(&[8, 1, 1], &[8]), Some((1, 1)));
        assert_eq!(of(&[8], &[1, 8]), Some((2, 1)));
        assert_eq!(of(&[8, 3], &[2, 4, 3]), None);
        assert_eq!(of(&[8, 3], &[3, 8]), None);
    }
}
