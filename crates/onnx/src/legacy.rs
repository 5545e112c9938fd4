//! Changes of structure from older operator sets to the newest, and ops that are composed of others.

use crate::dtype;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Dim, OpError};
use rabot_tensor::Tensor;

/// Binary ops that had the attributes `broadcast` and `axis` before opset 7.
const BROADCASTING: [&str; 11] =
    ["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"];

/// Makes the nodes of a draft whose attributes and operands are those of the newest opset.
pub(crate) fn convert(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let opset = draft.opset;
    match draft.op.as_str() {
        op if opset < 7 && BROADCASTING.contains(&op) => broadcast(&mut draft)?,
        "PRelu" if opset < 7 => channel_slope(&mut draft)?,
        "Upsample" => upsample(&mut draft)?,
        "Resize" => resize(&mut draft)?,
        "Split" => split(&mut draft)?,
        "Cast" => cast(&mut draft)?,
        "CastLike" => cast_like(&mut draft)?,
        // 1 asks for f32 accumulation, which every step of ours is at least as good as.
        "Range" if draft.attrs.get("stash_type") == Some(&Attr::Int(1)) => {
            draft.attrs.remove("stash_type");
        }
        "Softmax" | "LogSoftmax" if opset < 13 => return flat_softmax(draft),
        _ => {}
    }
    draft.finish()
}

fn wrong(error: OpError) -> Failure {
    Failure::unsupported(error.to_string())
}

/// With `broadcast` and `axis`, dims of the second operand lined up with those of the first from `axis` on.
fn broadcast(draft: &mut Draft<'_>) -> Result<(), Failure> {
    let enabled = draft.attrs.int("broadcast", 0).map_err(wrong)? != 0;
    let axis = draft.attrs.remove("axis");
    draft.attrs.remove("broadcast");
    let Some(Attr::Int(axis)) = axis.filter(|_| enabled) else { return Ok(()) };
    let (left, right) = (draft.required(0)?.rank() as i64, draft.required(1)?.rank() as i64);
    let axis = if axis < 0 { axis.saturating_add(left) } else { axis };
    let trailing = left.saturating_sub(axis).saturating_sub(right);
    if !(0..=left).contains(&axis) || trailing < 0 {
        return Err(Failure::unsupported(format!("axis {axis} with operands of rank {left} and {right}")));
    }
    if trailing > 0 {
        unsqueeze(draft, 1, (right..right + trailing).collect())?;
    }
    Ok(())
}

/// Puts dims of 1 into an operand.
fn unsqueeze(draft: &mut Draft<'_>, slot: usize, axes: Vec<i64>) -> Result<(), Failure> {
    let axes = draft.list("axes", axes);
    let operand = draft.inputs.get(slot).copied().flatten();
    let value = draft.before("Unsqueeze", &Attrs::new(), vec![operand, Some(axes)])?;
    draft.set_input(slot, Some(value));
    Ok(())
}

/// A slope of one dim was per channel, that is along axis 1.
fn channel_slope(draft: &mut Draft<'_>) -> Result<(), Failure> {
    let (rank, slope) = (draft.required(0)?.rank() as i64, draft.required(1)?);
    if slope.rank() == 1 && !slope.shape().iter().all(|dim| dim.is(1)) && rank > 2 {
        unsqueeze(draft, 1, (1..rank - 1).collect())?;
    }
    Ok(())
}

/// `Upsample` is `Resize` that rounds down.
fn upsample(draft: &mut Draft<'_>) -> Result<(), Failure> {
    if draft.opset < 7 {
        let height = draft.attrs.float("height_scale", 1.0).map_err(wrong)?;
        let width = draft.attrs.float("width_scale", 1.0).map_err(wrong)?;
        let scales = draft.constant("scales", Tensor::from_vec(&[4], vec![1.0, 1.0, height, width]));
        draft.set_input(1, Some(scales));
        draft.attrs.remove("height_scale");
        draft.attrs.remove("width_scale");
    }
    // Scales are at least 1, and positions are rounded down.
    if draft.attrs.str("mode", "nearest").map_err(wrong)? == "nearest" {
        draft.attrs.set("nearest_mode", Attr::Str("floor".to_owned()));
    }
    draft.op = "Resize".to_owned();
    draft.opset = 10;
    resize(draft)
}

/// Before opset 11 the operands were X and scales. Since then an empty list says that an operand is not used.
fn resize(draft: &mut Draft<'_>) -> Result<(), Failure> {
    if draft.opset < 11 {
        let nearest = draft.attrs.str("mode", "nearest").map_err(wrong)? == "nearest";
        if nearest && draft.attrs.get("nearest_mode").is_none() {
            let rounding = nearest_rounding(draft)?;
            draft.attrs.set("nearest_mode", Attr::Str(rounding.to_owned()));
        } else if draft.attrs.get("mode") == Some(&Attr::Str("bilinear".to_owned())) {
            draft.attrs.set("mode", Attr::Str("linear".to_owned()));
        }
        let scales = draft.inputs.get(1).copied().flatten();
        draft.inputs.truncate(1);
        draft.set_input(2, scales);
        return Ok(());
    }
    for slot in [1, 2] {
        if draft.fact(slot).is_some_and(|fact| fact.shape().iter().any(|dim| dim.is(0))) {
            draft.set_input(slot, None);
        }
    }
    if draft.attrs.str("coordinate_transformation_mode", "").map_err(wrong)? != "tf_crop_and_resize" {
        draft.set_input(1, None);
    }
    Ok(())
}

/// Before opset 11, ONNX Runtime rounds down when enlarging and up when shrinking.
fn nearest_rounding(draft: &Draft<'_>) -> Result<&'static str, Failure> {
    let scales = draft.required(1)?.constant.as_ref().map(Tensor::to_f64s);
    let scales = scales.ok_or_else(|| {
        Failure::unsupported("nearest resizing before opset 11 by scales that are not constant")
    })?;
    match (scales.iter().any(|&s| s > 1.0), scales.iter().any(|&s| s < 1.0)) {
        (_, false) => Ok("floor"),
        (false, true) => Ok("ceil"),
        (true, true) => Err(Failure::unsupported(format!("enlarging and shrinking at once: {scales:?}"))),
    }
}

fn split(draft: &mut Draft<'_>) -> Result<(), Failure> {
    let parts = draft.outputs as i64;
    let stated = draft.attrs.int("num_outputs", parts).map_err(wrong)?;
    if stated != parts {
        return Err(Failure::unsupported(format!(
            "num_outputs = {stated}, but the node has {parts} outputs"
        )));
    }
    draft.attrs.set("num_outputs", Attr::Int(parts));
    Ok(())
}

/// Before opset 6 the target was a name.
fn cast(draft: &mut Draft<'_>) -> Result<(), Failure> {
    if let Some(Attr::Str(name)) = draft.attrs.get("to") {
        let code = dtype::code_of_name(&name.to_uppercase());
        let code = code.ok_or_else(|| Failure::unsupported(format!("cast to `{name}`")))?;
        draft.attrs.set("to", Attr::Int(i64::from(code)));
    }
    if draft.attrs.get("round_mode") == Some(&Attr::Str("up".to_owned())) {
        draft.attrs.remove("round_mode");
    }
    Ok(())
}

/// A cast to the dtype of the second operand.
fn cast_like(draft: &mut Draft<'_>) -> Result<(), Failure> {
    let code = dtype::code(draft.required(1)?.dtype());
    draft.inputs.truncate(1);
    draft.op = "Cast".to_owned();
    draft.attrs.set("to", Attr::Int(i64::from(code)));
    cast(draft)
}

/// Before opset 13, softmax was over all dims from `axis` on, taken as one.
fn flat_softmax(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let axis = draft.attrs.int("axis", 1).map_err(wrong)?;
    let shape = draft.required(0)?.shape().to_vec();
    let rank = shape.len() as i64;
    let first = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if !(0..rank.max(1)).contains(&first) {
        return Err(Failure::unsupported(format!("axis {axis} of an input of rank {rank}")));
    }
    // Dims of 1 take no part: with at most one other dim left, this is what softmax is now.
    let joined: Vec<i64> = (first..rank).filter(|&at| !shape[at as usize].is(1)).collect();
    if joined.len() <= 1 {
        let axis = joined.first().copied().unwrap_or(first);
        draft.attrs.set("axis", Attr::Int(axis));
        return draft.finish();
    }
    let data = draft.inputs.first().copied().flatten();
    let known: Option<Vec<i64>> = shape.iter().map(Dim::as_const).collect();
    let target = match known {
        Some(dims) => draft.list("shape", dims),
        None => draft.before("Shape", &Attrs::new(), vec![data])?,
    };
    let flat = draft.before("Flatten", &Attrs::new().with("axis", Attr::Int(first)), vec![data])?;
    let op = draft.op.clone();
    let softmax = draft.before(&op, &Attrs::new().with("axis", Attr::Int(1)), vec![Some(flat)])?;
    draft.op = "Reshape".to_owned();
    // A dim of 0 is one, and does not stand for the flat dim.
    draft.attrs = Attrs::new().with("allowzero", Attr::Int(1));
    draft.inputs = vec![Some(softmax), Some(target)];
    draft.finish()
}
