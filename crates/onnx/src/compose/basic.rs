//! Small operators of ONNX's own domain.

use super::Row;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs};

pub(super) const TABLE: &[Row] = &[("", "Size", size)];

/// The number of elements is the product of the shape.
fn size(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    let data = draft.inputs.first().copied().flatten();
    let shape = draft.before("Shape", &Attrs::new(), vec![data])?;
    let product =
        draft.before("ReduceProd", &Attrs::new().with("keepdims", Attr::Int(0)), vec![Some(shape)])?;
    draft.finish_with(vec![Some(product)])
}
