//! Strided views of buffers: what reshape, transpose, slice, expand and split become.

use crate::{BufferId, Form};
use rabot_ir::Dim;
use rabot_tensor::DType;
use std::sync::Arc;

/// A strided window into a buffer. Strides and offset are in elements; a dim known to be 1 has stride 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// The buffer.
    pub buffer: BufferId,
    /// Element type.
    pub dtype: DType,
    /// Index of the first element.
    pub offset: Dim,
    /// Dims, outermost first.
    pub shape: Vec<Dim>,
    /// Distance of neighbours along each dim.
    pub strides: Vec<Dim>,
}

/// Row-major strides of a shape; 0 for dims known to be 1.
pub(super) fn dense_strides(shape: &[Dim]) -> Vec<Dim> {
    let mut strides = vec![Dim::from(0); shape.len()];
    let mut stride = Dim::from(1);
    for (dim, slot) in shape.iter().zip(&mut strides).rev() {
        if !dim.is(1) {
            *slot = stride.clone();
            stride = stride * dim.clone();
        }
    }
    strides
}

impl View {
    /// The whole of a buffer, row-major.
    pub fn dense(buffer: BufferId, dtype: DType, shape: &[Dim]) -> Self {
        let strides = dense_strides(shape);
        View { buffer, dtype, offset: Dim::from(0), shape: shape.to_vec(), strides }
    }

    /// The same memory as elements of a dtype that kernels load and store: those that they do not compute with are
    /// moved as integers of the same size, pairs of f64 as a last dim of two.
    pub fn carried(&self) -> Self {
        match self.dtype {
            dtype if dtype.is_short_float() => View { dtype: DType::U8, ..self.clone() },
            DType::C64 => View { dtype: DType::I64, ..self.clone() },
            DType::C128 => {
                let double = |dim: &Dim| dim.clone() * Dim::from(2);
                let mut shape = self.shape.clone();
                shape.push(Dim::from(2));
                let mut strides: Vec<Dim> = self.strides.iter().map(double).collect();
                strides.push(Dim::from(1));
                View { buffer: self.buffer, dtype: DType::I64, offset: double(&self.offset), shape, strides }
            }
            _ => self.clone(),
        }
    }

    /// Where a value is that is held so.
    pub fn form(&self, name: &Arc<str>) -> Form {
        let View { offset, shape, strides, .. } = self.clone();
        Form { name: name.clone(), offset, shape, strides }
    }

    /// True if the elements are in row-major order without gaps, from the start of the buffer.
    pub fn is_dense(&self) -> bool {
        self.offset.is(0) && self.strides == dense_strides(&self.shape)
    }

    /// The same elements with axes in another order.
    pub fn transpose(&self, perm: &[usize]) -> Self {
        let pick = |dims: &[Dim]| perm.iter().map(|&axis| dims[axis].clone()).collect();
        View { shape: pick(&self.shape), strides: pick(&self.strides), ..self.clone() }
    }

    /// Every `step`-th element from `start` along an axis; `size` of them.
    pub fn slice(&self, axis: usize, start: &Dim, step: i64, size: &Dim) -> Self {
        let mut view = self.clone();
        let stride = self.strides[axis].clone();
        view.offset = view.offset + start.clone() * stride.clone();
        view.strides[axis] = if size.is(1) { Dim::from(0) } else { stride * Dim::from(step) };
        view.shape[axis] = size.clone();
        view
    }

    /// The view broadcast to a shape (numpy's rule): new and stretched dims have stride 0.
    ///
    /// A dim that is not known to be 1 is taken to equal the target's; the plan's checks hold it to that.
    pub fn broadcast(&self, shape: &[Dim]) -> Self {
        let missing = shape.len().saturating_sub(self.shape.len());
        let mut strides = vec![Dim::from(0); shape.len()];
        for (axis, stride) in self.strides.iter().enumerate() {
            if !self.shape[axis].is(1) && !shape[missing + axis].is(1) {
                strides[missing + axis] = stride.clone();
            }
        }
        View { shape: shape.to_vec(), strides, ..self.clone() }
    }

    /// A vector spread over a shape, its elements along one axis.
    pub fn along(&self, axis: usize, shape: &[Dim]) -> Self {
        let mut strides = vec![Dim::from(0); shape.len()];
        if let (Some(slot), Some(stride)) = (strides.get_mut(axis), self.strides.first()) {
            *slot = stride.clone();
        }
        View { shape: shape.to_vec(), strides, ..self.clone() }
    }

    /// The same elements under another shape, if no copy is needed for that.
    pub fn reshape(&self, shape: &[Dim]) -> Option<Self> {
        if self.strides == dense_strides(&self.shape) {
            return Some(View { shape: shape.to_vec(), strides: dense_strides(shape), ..self.clone() });
        }
        let old: Vec<usize> = (0..self.shape.len()).filter(|&a| !self.shape[a].is(1)).collect();
        let new: Vec<usize> = (0..shape.len()).filter(|&a| !shape[a].is(1)).collect();
        let mut strides = vec![Dim::from(0); shape.len()];
        let (mut from, mut to) = (0, 0);
        while from < old.len() || to < new.len() {
            // The shortest runs of old and new dims with the same number of elements.
            let (from_start, to_start) = (from, to);
            let mut old_size = self.shape[*old.get(from)?].clone();
            let mut new_size = shape[*new.get(to)?].clone();
            (from, to) = (from + 1, to + 1);
            while old_size != new_size {
                match (old_size.as_const(), new_size.as_const()) {
                    (Some(a), Some(b)) if a < b => {
                        old_size = old_size * self.shape[*old.get(from)?].clone();
                        from += 1;
                    }
                    (Some(_), Some(_)) => {
                        new_size = new_size * shape[*new.get(to)?].clone();
                        to += 1;
                    }
                    // Symbolic: what divides the other is the smaller one.
                    _ if new_size.floor_div(&old_size) * old_size.clone() == new_size => {
                        old_size = old_size * self.shape[*old.get(from)?].clone();
                        from += 1;
                    }
                    _ => {
                        new_size = new_size * shape[*new.get(to)?].clone();
                        to += 1;
                    }
                }
            }
            for pair in old[from_start..from].windows(2) {
                let inner = self.strides[pair[1]].clone() * self.shape[pair[1]].clone();
                if self.strides[pair[0]] != inner {
                    return None;
                }
            }
            let mut stride = self.strides[old[from - 1]].clone();
            for &axis in new[to_start..to].iter().rev() {
                strides[axis] = stride.clone();
                stride = stride * shape[axis].clone();
            }
        }
        Some(View { shape: shape.to_vec(), strides, ..self.clone() })
    }
}

/// Runs of adjacent dims that every view walks with one stride, so that one loop does for each run.
///
/// `cuts` are axes at which a new run must start. Dims known to be 1 vanish. The views must have the shape.
pub(super) fn mergeable_runs(shape: &[Dim], views: &[&View], cuts: &[usize]) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let mut cut = true;
    for (axis, size) in shape.iter().enumerate() {
        cut |= cuts.contains(&axis);
        if size.is(1) {
            continue;
        }
        let joins = !cut
            && runs.last().and_then(|run| run.last()).is_some_and(|&outer| {
                views.iter().all(|v| v.strides[outer] == v.strides[axis].clone() * size.clone())
            });
        match runs.last_mut() {
            Some(run) if joins => run.push(axis),
            _ => runs.push(vec![axis]),
        }
        cut = false;
    }
    runs
}

/// Number of elements of a run of dims.
pub(super) fn run_size(shape: &[Dim], run: &[usize]) -> Dim {
    run.iter().map(|&axis| &shape[axis]).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(sizes: &[i64]) -> Vec<Dim> {
        sizes.iter().map(|&s| Dim::from(s)).collect()
    }

    #[test]
    fn transposed_heads_split_but_do_not_merge() {
        let heads = View::dense(0, DType::F32, &dims(&[2, 7, 3, 4])).transpose(&[0, 2, 1, 3]);
        assert_eq!(heads.strides, dims(&[84, 4, 12, 1]));
        assert!(heads.reshape(&dims(&[2, 3, 28])).is_none());
        let split = heads.reshape(&dims(&[2, 3, 7, 2, 2])).unwrap();
        assert_eq!(split.strides, dims(&[84, 4, 12, 2, 1]));
    }

    #[test]
    fn symbolic_dims_reshape() {
        let n = Dim::symbol("n");
        let view = View::dense(0, DType::F32, &[n.clone(), Dim::from(6), Dim::from(5)]).slice(
            2,
            &Dim::from(1),
            1,
            &Dim::from(4),
        );
        let merged = view.reshape(&[n.clone() * Dim::from(6), Dim::from(4)]).unwrap();
        assert_eq!(merged.strides, dims(&[5, 1]));
        assert!(view.reshape(&[n, Dim::from(24)]).is_none());
    }

    #[test]
    fn runs_merge_only_where_all_views_agree() {
        let shape = dims(&[2, 3, 4]);
        let whole = View::dense(0, DType::F32, &shape);
        let row = View::dense(1, DType::F32, &dims(&[4])).broadcast(&shape);
        assert_eq!(mergeable_runs(&shape, &[&whole], &[]), [[0, 1, 2]]);
        assert_eq!(mergeable_runs(&shape, &[&whole, &row], &[]), [vec![0, 1], vec![2]]);
        assert_eq!(mergeable_runs(&shape, &[&whole], &[2]), [vec![0, 1], vec![2]]);
    }
}
