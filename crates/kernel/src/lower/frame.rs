//! A kernel under construction: its arguments and run-time parameters.

use super::view::View;
use crate::{Access, Arg, BufferId, Coord, Size};
use rabot_ir::Dim;

/// Arguments and parameters of one call, collected while its kernel is described.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Kernel side of the arguments.
    pub args: Vec<Arg>,
    /// Call side of the arguments.
    pub buffers: Vec<BufferId>,
    /// Values of the parameters.
    pub params: Vec<Dim>,
}

impl Frame {
    /// The argument for a buffer, as read or written.
    pub fn arg(&mut self, view: &View, written: bool) -> usize {
        match self.buffers.iter().position(|&b| b == view.buffer) {
            Some(index) => {
                self.args[index].written |= written;
                index
            }
            None => {
                self.args.push(Arg { dtype: view.dtype, written });
                self.buffers.push(view.buffer);
                self.args.len() - 1
            }
        }
    }

    /// A size: baked in if it is known, else a parameter.
    pub fn size(&mut self, dim: &Dim) -> Size {
        if let Some(value) = dim.as_const() {
            return Size::Const(value);
        }
        match self.params.iter().position(|p| p == dim) {
            Some(index) => Size::Param(index),
            None => {
                self.params.push(dim.clone());
                Size::Param(self.params.len() - 1)
            }
        }
    }

    /// Sizes of several dims.
    pub fn sizes(&mut self, dims: &[Dim]) -> Vec<Size> {
        dims.iter().map(|dim| self.size(dim)).collect()
    }

    /// The access `offset + Σ coord·stride`; zero strides drop out.
    pub fn access(&mut self, offset: &Dim, strides: &[(Coord, Dim)]) -> Access {
        let mut access = Access::default();
        if !offset.is(0) {
            access.offset = Some(self.size(offset));
        }
        for (coord, stride) in strides {
            if !stride.is(0) {
                let stride = self.size(stride);
                access.strides.push((*coord, stride));
            }
        }
        access
    }
}
