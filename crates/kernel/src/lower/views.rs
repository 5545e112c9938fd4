//! Nodes that only change how a buffer is seen: no kernel, unless a reshape meets strides that it cannot keep.

use super::Lowering;
use super::view::View;
use rabot_ir::{Dim, NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};

impl Lowering<'_, '_, '_> {
    /// `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`.
    pub(super) fn lower_reshape(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        let Some(Some(input)) = node.inputs.first().copied() else { return };
        let shape = node.outputs[0].fact.shape().to_vec();
        let output = Value { node: id, slot: 0 };
        let source = self.view(input);
        let view = match source.reshape(&shape) {
            Some(view) => view,
            None => {
                let wanted = self.allocate(output);
                let (target, view) = match wanted.reshape(&source.shape) {
                    Some(target) => (target, wanted),
                    None => {
                        let dense = self.b.arena(source.dtype, &source.shape);
                        (dense.clone(), View::dense(dense.buffer, dense.dtype, &shape))
                    }
                };
                let origin = self.origin(&[id], &[output]);
                self.copy(&source, &target, origin);
                view
            }
        };
        self.views.insert(output, view);
    }

    /// `ConstantOfShape`: one element in memory, seen with strides of 0.
    pub(super) fn lower_splat(&mut self, id: NodeId, value: &Tensor) {
        let shape = self.graph.node(id).outputs[0].fact.shape();
        let element = View::dense(self.b.constant(value), value.dtype(), &[]);
        self.views.insert(Value { node: id, slot: 0 }, element.broadcast(shape));
    }

    /// True if every reader of a value loads it element by element, through transposes too, so that its dtype in memory
    /// is one with its dtype in the graph.
    fn only_loaded(&self, value: Value) -> bool {
        let loads = |(user, slot): (NodeId, usize)| match &self.graph.node(user).op {
            Op::MatMul(_) | Op::Gemm(_) => true,
            Op::Conv(_) => slot == 1,
            Op::Gather(_) => slot == 0,
            Op::Transpose(_) => self.only_loaded(Value { node: user, slot: 0 }),
            _ => false,
        };
        !self.graph.is_output(value) && self.graph.users(value).into_iter().all(loads)
    }

    /// A `Cast` that widens narrow weights for layers: they read the weights as they are and widen what they load.
    /// False if the node is another one.
    pub(super) fn lower_widening(&mut self, id: NodeId) -> bool {
        let (node, output) = (self.graph.node(id), Value { node: id, slot: 0 });
        let (Op::Cast(_), Some(Some(input))) = (&node.op, node.inputs.first().copied()) else { return false };
        let Some(weights) = &self.graph.fact(input).constant else { return false };
        let widens =
            matches!(weights.dtype(), DType::F16 | DType::BF16) && node.outputs[0].fact.dtype() == DType::F32;
        let taken = widens && self.only_loaded(output);
        if taken {
            let view = self.view(input);
            self.views.insert(output, view);
        }
        taken
    }

    /// `Transpose`, `Expand`, `Slice`, `Split`.
    pub(super) fn lower_view(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        let Some(Some(input)) = node.inputs.first().copied() else { return };
        let source = self.view(input);
        let shape = node.outputs[0].fact.shape().to_vec();
        let output = |slot: usize| Value { node: id, slot: slot as u32 };
        match &node.op {
            Op::Transpose(op) => {
                let perm = op.perm.clone().unwrap_or_else(|| (0..source.shape.len()).rev().collect());
                self.views.insert(output(0), source.transpose(&perm));
            }
            Op::Expand(_) => {
                self.views.insert(output(0), source.broadcast(&shape));
            }
            Op::Slice(_) => match self.slice_view(id, &source, &shape) {
                Some(view) => {
                    self.views.insert(output(0), view);
                }
                None => self.problem(id, "starts, ends, axes and steps must be known when compiling"),
            },
            Op::Split(op) => {
                let rank = source.shape.len();
                let axis = if op.axis < 0 { op.axis + rank as i64 } else { op.axis } as usize;
                let mut start = Dim::from(0);
                for slot in 0..self.graph.node(id).outputs.len() {
                    let size = self.graph.fact(output(slot)).shape()[axis].clone();
                    self.views.insert(output(slot), source.slice(axis, &start, 1, &size));
                    start = start + size;
                }
            }
            other => unreachable!("{} is not a view", other.name()),
        }
    }

    fn slice_view(&self, id: NodeId, source: &View, shape: &[Dim]) -> Option<View> {
        let operand = |slot: usize| self.graph.node(id).inputs.get(slot).copied().flatten();
        let starts = self.graph.fact(operand(1)?).dims()?;
        let rank = source.shape.len() as i64;
        let axes = match operand(3) {
            Some(axes) => self.graph.fact(axes).ints()?,
            None => (0..starts.len() as i64).collect(),
        };
        let steps = match operand(4) {
            Some(steps) => self.graph.fact(steps).ints()?,
            None => vec![1; starts.len()],
        };
        let mut view = source.clone();
        for ((start, axis), step) in starts.iter().zip(axes).zip(steps) {
            let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
            let dim = source.shape.get(axis)?.clone();
            // A forward slice may start just past the end, a backward one at the last element.
            let last = if step < 0 { dim.clone() - Dim::from(1) } else { dim.clone() };
            let start = match start.as_const() {
                Some(start) if start < 0 => (dim + Dim::from(start)).maximum(&Dim::from(0)),
                // Exporters write "to the end" as a large number.
                Some(start) if start >= 1_000_000_000 => last,
                _ => start.minimum(&last),
            };
            view = view.slice(axis, &start, step, &shape[axis]);
        }
        Some(view)
    }
}
