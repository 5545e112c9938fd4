//! Operands with padding around them.
//!
//! Windows read beyond the edge of their operand, so the operand lies inside a larger buffer whose *border* holds the
//! padding. Who makes the operand stores it inside the border where a window alone reads it; else it is copied there.
//! No step writes a border, so that it is filled once, when the plan is bound to sizes, and stays.

use super::Lowering;
use super::builder::{Builder, Origin};
use super::elementwise::Nest;
use super::frame::Frame;
use super::scalar::compute_dtype;
use super::view::View;
use super::window::reach;
use crate::{BufferId, Call, Dag, LoopKernel, Stage, Step, Storage, Store, Vectorize};
use rabot_ir::ops::PadMode;
use rabot_ir::{Dim, NodeId, Op, Value};
use std::collections::HashMap;

/// Padding of one axis: the axis, elements before, elements after.
pub(super) type Pad = (usize, Dim, Dim);

/// A buffer with an inside that steps write and a border that they do not.
pub(super) struct Border {
    /// The whole buffer.
    whole: View,
    /// What steps write of it.
    inside: View,
    /// What the rest holds, as a number of its dtype.
    fill: f64,
    /// What the call that fills it stands for.
    origin: Origin,
}

impl Border {
    /// True if one buffer can serve both at different times.
    fn is_like(&self, other: &Border) -> bool {
        self.whole.shape == other.whole.shape
            && self.whole.dtype == other.whole.dtype
            && self.inside.offset == other.inside.offset
            && self.inside.shape == other.inside.shape
            && self.inside.strides == other.inside.strides
            && self.fill.to_bits() == other.fill.to_bits()
    }
}

/// The part of an operand that padding keeps (negative padding before it cuts), and the shape with the padding.
fn outline(source: &View, pads: &[Pad]) -> (View, Vec<Dim>) {
    let zero = Dim::from(0);
    let (mut shape, mut kept) = (source.shape.clone(), source.clone());
    for (axis, begin, end) in pads {
        let cut = begin.minimum(&zero);
        let size = source.shape[*axis].clone() + cut.clone();
        kept = kept.slice(*axis, &-cut, 1, &size);
        shape[*axis] = size + begin.maximum(&zero) + end.clone();
    }
    (kept, shape)
}

/// Where an operand of the given shape lies in the whole buffer.
fn inside_of(whole: &View, pads: &[Pad], shape: &[Dim]) -> View {
    let mut inside = whole.clone();
    for (axis, begin, _) in pads {
        inside = inside.slice(*axis, &begin.maximum(&Dim::from(0)), 1, &shape[*axis]);
    }
    inside
}

impl Lowering<'_, '_, '_> {
    /// The operand with padding around it. Its producer may have left room for that; else it is copied.
    pub(super) fn padded(&mut self, id: NodeId, source: &View, pads: &[Pad], fill: f64) -> View {
        if pads.iter().all(|(_, begin, end)| begin.is(0) && end.is(0)) {
            return source.clone();
        }
        let (kept, shape) = outline(source, pads);
        if let Some(border) = self.b.borders.get(&kept.buffer)
            && border.fill.to_bits() == fill.to_bits()
            && border.whole.shape == shape
            && inside_of(&border.whole, pads, &kept.shape) == kept
        {
            return border.whole.clone();
        }
        let copied = |(from, buffer, bits): &&(View, BufferId, u64)| {
            let same = self.b.borders.get(buffer).is_some_and(|border| {
                border.whole.shape == shape && inside_of(&border.whole, pads, &kept.shape) == border.inside
            });
            *from == kept && *bits == fill.to_bits() && same
        };
        if let Some((_, buffer, _)) = self.padded_copies.iter().find(copied)
            && let Some(border) = self.b.borders.get(buffer)
        {
            return border.whole.clone();
        }
        let inside = |whole: &View| inside_of(whole, pads, &kept.shape);
        let (whole, inside) = self.bordered(id, &View { shape, ..source.clone() }, inside, fill);
        let mut origin = self.padding_origin(id);
        // All of the operand is in the copy if nothing was cut off.
        let whole_operand = kept == *source;
        let shown = origin.values.first().cloned().filter(|_| whole_operand);
        origin.forms = shown.map(|name| (name.clone(), inside.form(&name))).into_iter().collect();
        self.padded_copies.push((kept.clone(), whole.buffer, fill.to_bits()));
        self.copy(&kept, &inside, origin);
        whole
    }

    /// What calls that pad an operand of a node stand for.
    fn padding_origin(&self, id: NodeId) -> Origin {
        let mut origin = self.origin(&[id], &[]);
        origin.values = vec![format!("{} (padded)", self.graph.node(id).name).into()];
        origin
    }

    /// A buffer of the dtype and shape of `like` with a border around `inside`.
    pub(super) fn bordered(
        &mut self,
        id: NodeId,
        like: &View,
        inside: impl FnOnce(&View) -> View,
        fill: f64,
    ) -> (View, View) {
        let whole = self.b.arena(like.dtype, &like.shape);
        let inside = inside(&whole);
        let border =
            Border { whole: whole.clone(), inside: inside.clone(), fill, origin: self.padding_origin(id) };
        self.b.borders.insert(whole.buffer, border);
        (whole, inside)
    }

    /// Room for a value inside the padding that a reader asks for.
    pub(super) fn inside_padding(&mut self, value: Value) -> Option<View> {
        let users = self.graph.users(value);
        let wants =
            |&(user, slot): &(NodeId, usize)| Some((user, self.padding_of(user).filter(|_| slot == 0)?));
        let (user, (pads, fill)) = users.iter().find_map(wants)?;
        if self.graph.is_output(value) || !self.others_walk_lines(value, user) {
            return None;
        }
        let zero = Dim::from(0);
        let padded = pads.iter().any(|(_, begin, end)| !begin.is(0) || !end.is(0));
        if !padded || pads.iter().any(|(_, begin, _)| !begin.minimum(&zero).is(0)) {
            return None;
        }
        let ty = self.graph.fact(value).ty.clone();
        let (_, shape) = outline(&View::dense(0, ty.dtype, &ty.shape), &pads);
        let like = View::dense(0, ty.dtype, &shape);
        let (_, inside) = self.bordered(user, &like, |whole| inside_of(whole, &pads, &ty.shape), fill);
        Some(inside)
    }

    /// True if all readers of a value but one go through it line by line anyway.
    fn others_walk_lines(&self, value: Value, but: NodeId) -> bool {
        self.graph.users(value).iter().all(|&(user, _)| {
            let op = &self.graph.node(user).op;
            let window = matches!(op, Op::Pool(_) | Op::GlobalPool(_) | Op::Reduce(_));
            user == but
                || window
                || super::scalar::is_elementwise(op)
                || self.depthwise_geometry(user).is_some()
        })
    }

    /// The padding with which a node reads its first operand, and what it is filled with.
    fn padding_of(&self, id: NodeId) -> Option<(Vec<Pad>, f64)> {
        let node = self.graph.node(id);
        if !self.has_compiled_dtypes(id) {
            return None;
        }
        let input = self.graph.fact(self.operand(id, 0)?);
        let result = node.outputs[0].fact.shape();
        match &node.op {
            Op::Pool(pool) if pool.indices.is_none() => {
                let geometry = pool.geometry(&input.shape()[2..]).ok()?;
                let fill = super::window::pool_fill(pool, input.dtype());
                Some((reach(&geometry, &input.shape()[2..], result), fill))
            }
            Op::Lrn(lrn) => Some((super::window::lrn_pads(lrn), 0.0)),
            Op::Conv(_) => {
                let geometry = self.depthwise_geometry(id)?;
                Some((reach(&geometry, &input.shape()[2..], result), 0.0))
            }
            Op::Pad(op) if op.mode == PadMode::Constant => self.border_of_pad(id),
            _ => None,
        }
    }

    /// The border that a `Pad` is: nothing is cut off, the value is known, and nobody wants the result elsewhere.
    pub(super) fn border_of_pad(&self, id: NodeId) -> Option<(Vec<Pad>, f64)> {
        let output = Value { node: id, slot: 0 };
        let elsewhere = self
            .graph
            .users(output)
            .iter()
            .any(|(user, _)| matches!(self.graph.node(*user).op, Op::Concat(_) | Op::Transpose(_)));
        if elsewhere || self.graph.is_output(output) || self.views.contains_key(&output) {
            return None;
        }
        let rank = self.graph.fact(self.operand(id, 0)?).rank();
        let pads = self.pads_of(id, rank)?;
        let known = |dim: &Dim| dim.as_const().is_some_and(|size| size >= 0);
        if !pads.iter().all(|(begin, end)| known(begin) && known(end)) {
            return None;
        }
        let fill = match self.operand(id, 2) {
            None => 0.0,
            Some(value) => *self.graph.constant(value)?.to_f64s().first()?,
        };
        let pads = pads.into_iter().enumerate().map(|(axis, (begin, end))| (axis, begin, end));
        Some((pads.filter(|(_, begin, end)| !begin.is(0) || !end.is(0)).collect(), fill))
    }
}

impl Builder<'_> {
    /// Fills a view with one constant, given as a number of its dtype.
    pub(super) fn fill(&mut self, target: &View, value: f64, origin: Origin) {
        let nest = Nest::new(&target.shape, &[target]);
        let mut frame = Frame::default();
        let (outer, inner, items) = nest.extents(&mut frame);
        let mut dag = Dag::default();
        let value = dag.constant(compute_dtype(target.dtype), value);
        let access = frame.access(&target.offset, &nest.domain.strides(target));
        let store = Store { arg: frame.arg(target, true), access, value };
        let vectorize = if inner.is_empty() { Vectorize::No } else { Vectorize::Inner };
        let stages = vec![Stage { inner, dag, reductions: vec![], stores: vec![store] }];
        let kernel = LoopKernel { args: frame.args.clone(), outer, items: nest.items, stages, vectorize };
        self.call_loop(kernel, frame, items, origin);
    }

    /// Gives each buffer with a border a place of its own for the whole run, shared by those of the same form that
    /// live at different times, and plans the calls that fill them. The lives of buffers must be known.
    pub(super) fn finish_borders(&mut self) {
        let life = |builder: &Self, buffer: BufferId| match builder.plan.buffers[buffer].storage {
            Storage::Arena { first, last } if first != usize::MAX => Some((first, last)),
            _ => None,
        };
        let mut borders: Vec<((usize, usize), Border)> = std::mem::take(&mut self.borders)
            .into_values()
            .filter_map(|border| Some((life(self, border.whole.buffer)?, border)))
            .collect();
        borders.sort_by_key(|((first, _), border)| (*first, border.whole.buffer));
        let mut kept: Vec<(usize, Border)> = Vec::new();
        let mut places = HashMap::new();
        for ((first, last), border) in borders {
            match kept.iter_mut().find(|(end, other)| *end < first && other.is_like(&border)) {
                Some((end, other)) => {
                    *end = last;
                    places.insert(border.whole.buffer, other.whole.buffer);
                }
                None => kept.push((last, border)),
            }
        }
        rename(&mut self.plan.steps, &places);
        let unused = Storage::Arena { first: usize::MAX, last: 0 };
        for buffer in places.keys() {
            self.plan.buffers[*buffer].storage = unused;
        }
        for (_, border) in kept {
            self.plan.buffers[border.whole.buffer].storage = Storage::Arena { first: 0, last: usize::MAX };
            self.fill(&border.whole, border.fill, border.origin);
        }
        let calls = std::mem::take(&mut self.steps).into_iter().filter_map(|step| match step {
            Step::Call(call) => Some(call),
            _ => None,
        });
        self.plan.init = calls.collect::<Vec<Call>>();
    }
}

/// Puts other buffers in the place of some.
fn rename(steps: &mut [Step], places: &HashMap<BufferId, BufferId>) {
    let change = |buffer: &mut BufferId| *buffer = places.get(buffer).copied().unwrap_or(*buffer);
    for step in steps {
        match step {
            Step::Call(call) => call.args.iter_mut().for_each(change),
            Step::Host(call) => {
                call.inputs.iter_mut().flatten().for_each(|(buffer, _)| change(buffer));
                call.outputs.iter_mut().for_each(|(buffer, _)| change(buffer));
            }
            Step::If { condition, then_steps, else_steps } => {
                change(condition);
                rename(then_steps, places);
                rename(else_steps, places);
            }
        }
    }
}
