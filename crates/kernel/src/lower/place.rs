//! Where values are stored: at once where their readers want them, so that nobody has to move them.

use super::Lowering;
use super::view::View;
use rabot_ir::{Dim, NodeId, Op, Value};

/// Readers that are followed from one to the next, so that no chain of them exhausts the stack.
const MAX_READERS: usize = 64;

impl Lowering<'_, '_, '_> {
    /// The memory that readers of a value want it in: an output's buffer, a part of a concatenation's result, the
    /// inside of what a window reads with padding; also where a reshape or a transpose lies between.
    ///
    /// What comes of it is seen as a view by all other readers, so that they must be able to walk its strides.
    pub(super) fn placed(&mut self, value: Value) -> Option<View> {
        if self.followed >= MAX_READERS {
            return None;
        }
        self.followed += 1;
        let place = self.place_wanted(value);
        self.followed -= 1;
        place
    }

    fn place_wanted(&mut self, value: Value) -> Option<View> {
        if let Some(index) = self.graph.outputs().iter().position(|output| output.value == value) {
            let ty = &self.graph.fact(value).ty;
            let place = View::dense(self.outputs[index], ty.dtype, &ty.shape);
            return self.taken.insert(index).then_some(place);
        }
        let users = self.graph.users(value);
        if let Some(&(user, slot)) =
            users.iter().find(|(user, _)| matches!(self.graph.node(*user).op, Op::Concat(_)))
        {
            return self.part_of_concat(value, user, slot);
        }
        if let Some(inside) = self.inside_padding(value) {
            return Some(inside);
        }
        let [(user, 0)] = users[..] else { return None };
        let after = Value { node: user, slot: 0 };
        let shape = self.graph.fact(value).shape().to_vec();
        match &self.graph.node(user).op {
            Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => {
                self.placed(after)?.reshape(&shape)
            }
            Op::Transpose(op) => {
                let perm = op.perm.clone().unwrap_or_else(|| (0..shape.len()).rev().collect());
                let mut inverse = vec![0; perm.len()];
                for (position, &axis) in perm.iter().enumerate() {
                    *inverse.get_mut(axis)? = position;
                }
                Some(self.placed(after)?.transpose(&inverse))
            }
            _ => None,
        }
    }

    /// The part of a concatenation's result that a value becomes.
    fn part_of_concat(&mut self, value: Value, user: NodeId, slot: usize) -> Option<View> {
        let Op::Concat(op) = &self.graph.node(user).op else { return None };
        let axis = op.axis;
        let shape = self.graph.fact(value).shape();
        let axis_at = if axis < 0 { axis + shape.len() as i64 } else { axis } as usize;
        let contiguous = shape.iter().take(axis_at).all(|dim| dim.is(1));
        if !contiguous && !self.others_walk(value, user) {
            return None;
        }
        let output = Value { node: user, slot: 0 };
        let whole = match self.views.get(&output) {
            Some(view) => view.clone(),
            None => self.allocate(output),
        };
        self.concat_parts(user, axis, &whole).swap_remove(slot)
    }

    /// True if all readers of a value but one read it through strides as fast as without gaps.
    pub(super) fn others_walk(&self, value: Value, but: NodeId) -> bool {
        self.graph.users(value).iter().all(|&(user, _)| {
            let op = &self.graph.node(user).op;
            let walks = matches!(
                op,
                Op::Conv(_) | Op::Pool(_) | Op::GlobalPool(_) | Op::Reduce(_) | Op::Concat(_) | Op::MatMul(_)
            );
            user == but || walks || super::scalar::is_elementwise(op)
        })
    }

    /// The parts of a concatenation's result, by operand; `None` for an absent one.
    pub(super) fn concat_parts(&self, id: NodeId, axis: i64, whole: &View) -> Vec<Option<View>> {
        let axis = if axis < 0 { axis + whole.shape.len() as i64 } else { axis } as usize;
        let mut start = Dim::from(0);
        let mut parts = Vec::new();
        for input in &self.graph.node(id).inputs {
            parts.push(input.map(|value| {
                let shape = self.graph.fact(value).shape();
                let mut part = whole.slice(axis, &start, 1, &shape[axis]);
                start = start.clone() + shape[axis].clone();
                // The other dims are the same by the op's definition, but may be written differently.
                part.shape = shape.to_vec();
                part
            }));
        }
        parts
    }
}
