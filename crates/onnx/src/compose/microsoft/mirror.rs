//! Operators that equal ONNX's own, or nearly.

use super::DOMAIN;
use crate::compose::Row;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::{self, Draft};
use rabot_ir::Dim;

pub(super) const TABLE: &[Row] = &[
    (DOMAIN, "ExpandDims", expand_dims),
    (DOMAIN, "GatherND", same),
    (DOMAIN, "LayerNormalization", same),
    (DOMAIN, "Pad", pad),
    (DOMAIN, "Range", range),
    (DOMAIN, "Trilu", same),
];

/// The operator set whose operators these are.
const OPSET: i64 = 22;

/// The op of the same name of ONNX's own domain.
fn same(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.domain.clear();
    draft.opset = OPSET;
    upgrade::convert(draft)
}

/// The axis is an operand of one element.
fn expand_dims(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    let axis = draft.fact(1).and_then(|fact| fact.ints());
    let Some([axis]) = axis.as_deref() else {
        return Err(Failure::unsupported("an axis that is not a constant integer"));
    };
    let axes = draft.list("axes", vec![*axis]);
    draft.set_input(1, Some(axes));
    draft.op = "Unsqueeze".to_owned();
    same(draft)
}

/// The list of pads may be a matrix of one row.
fn pad(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let pads = draft.operand(1, "pads")?;
    let shape = draft.shape_of(pads)?;
    if let [one, _] = shape.as_slice()
        && one.as_const() == Dim::from(1).as_const()
    {
        let flat = draft.squeezed(pads, &[0])?;
        draft.set_input(1, Some(flat));
    }
    same(draft)
}

/// The step may be left out.
fn range(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    if draft.input(2).is_none() {
        let dtype = draft.dtype_of(draft.operand(0, "start")?);
        let step = draft.number(dtype, 1.0);
        draft.set_input(2, Some(step));
    }
    same(draft)
}
