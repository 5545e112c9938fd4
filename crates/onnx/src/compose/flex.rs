//! The parts of `FlexAttention`, between which a node may have graphs of its own.

use super::Row;
use super::attention::{Heads, optional_float, softmax_precision};
use super::emit::working;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};

pub(super) const TABLE: &[Row] = &[("ai.onnx.preview", "FlexAttention", flex_attention)];

/// Without graphs.
fn flex_attention(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let (heads, scores) = scores(&mut draft)?;
    let probabilities = probabilities(&mut draft, scores)?;
    mixed(draft, &heads, probabilities)
}

/// Heads, and their scores in the dtype in which probabilities are computed.
pub(crate) fn scores(draft: &mut Draft<'_>) -> Result<(Heads, Value), Failure> {
    draft.check_attrs(&["scale", "softmax_precision"])?;
    draft.check_inputs(3)?;
    let (q, k, v) = (draft.operand(0, "Q")?, draft.operand(1, "K")?, draft.operand(2, "V")?);
    let heads = Heads::new(draft, q, k, v)?;
    let precision = softmax_precision(draft)?.unwrap_or(working(draft.dtype_of(q)));
    let scale = optional_float(draft, "scale")?;
    let scores = heads.scores(draft, scale)?;
    Ok((heads, draft.cast(scores, precision)?))
}

/// Probabilities of scores.
pub(crate) fn probabilities(draft: &mut Draft<'_>, scores: Value) -> Result<Value, Failure> {
    draft.node_with("Softmax", &Attrs::new().with("axis", Attr::Int(-1)), &[scores])
}

/// The result, of the dtype of the operands.
pub(crate) fn mixed(mut draft: Draft<'_>, heads: &Heads, probabilities: Value) -> Result<Converted, Failure> {
    let dtype = draft.dtype_of(heads.v);
    let mixed = heads.mix(&mut draft, probabilities)?;
    let y = draft.cast(mixed, dtype)?;
    draft.finish_with(vec![Some(y)])
}
