//! Operators that put elements in other places, as reshapes, transposes, slices and pads.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__DepthToSpace.html> and the pages of the other operators.

use super::Row;
use super::chain::Made;
use super::emit::wrong;
use super::extent::{Calc, Extent};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::Value;

pub(super) const TABLE: &[Row] = &[
    ("", "DepthToSpace", depth_to_space),
    ("", "SpaceToDepth", space_to_depth),
    ("", "Tile", tile),
    ("", "CenterCropPad", center_crop_pad),
    ("", "Scatter", scatter),
    ("", "TopK", top_k),
];

/// `blocksize`, and whether the order is depth, column, row (else column, row, depth).
fn blocks(draft: &Draft<'_>) -> Result<(i64, bool), Failure> {
    draft.check_attrs(&["blocksize", "mode"])?;
    let size = draft.attrs.required_int("blocksize").map_err(wrong)?;
    if !(1..=1 << 20).contains(&size) {
        return Err(Failure::unsupported(format!("blocksize = {size}")));
    }
    match draft.attrs.str("mode", "DCR").map_err(wrong)?.as_str() {
        "DCR" => Ok((size, true)),
        "CRD" => Ok((size, false)),
        other => Err(Failure::unsupported(format!("mode = {other}, expected DCR or CRD"))),
    }
}

/// The operand and its four sizes.
fn image(draft: &mut Draft<'_>) -> Result<(Value, [Extent; 4]), Failure> {
    let x = draft.operand(0, "input")?;
    match draft.rank_of(x)? {
        4 => {}
        rank => return Err(Failure::unsupported(format!("an input of rank {rank}, expected 4"))),
    }
    let mut sizes = [Extent::Known(0); 4];
    for (axis, size) in sizes.iter_mut().enumerate() {
        *size = draft.extent(x, axis)?;
    }
    Ok((x, sizes))
}

/// Blocks of channels become blocks of pixels.
fn depth_to_space(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let (size, depth_first) = blocks(&draft)?;
    let (x, [n, c, h, w]) = image(&mut draft)?;
    let block = Extent::Known(size);
    let rest = draft.calc(Calc::Div, c, Extent::Known(size * size))?;
    let (split, perm) = match depth_first {
        true => ([n, block, block, rest, h, w], [0, 3, 4, 1, 5, 2]),
        false => ([n, rest, block, block, h, w], [0, 1, 4, 2, 5, 3]),
    };
    let split = draft.reshape_to(x, &split)?;
    let moved = draft.transpose(split, &perm)?;
    let (height, width) = (draft.calc(Calc::Mul, h, block)?, draft.calc(Calc::Mul, w, block)?);
    let y = draft.reshape_to(moved, &[n, rest, height, width])?;
    draft.finish_with(vec![Some(y)])
}

/// Blocks of pixels become blocks of channels.
fn space_to_depth(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let (size, depth_first) = blocks(&draft)?;
    let (x, [n, c, h, w]) = image(&mut draft)?;
    let block = Extent::Known(size);
    let (height, width) = (draft.calc(Calc::Div, h, block)?, draft.calc(Calc::Div, w, block)?);
    let split = draft.reshape_to(x, &[n, c, height, block, width, block])?;
    let perm = if depth_first { [0, 3, 5, 1, 2, 4] } else { [0, 1, 3, 5, 2, 4] };
    let moved = draft.transpose(split, &perm)?;
    let depth = draft.calc(Calc::Mul, c, Extent::Known(size * size))?;
    let y = draft.reshape_to(moved, &[n, depth, height, width])?;
    draft.finish_with(vec![Some(y)])
}

/// Each axis becomes two, of which the first is expanded. Before opset 6 only one axis was repeated.
fn tile(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    let x = draft.operand(0, "input")?;
    let rank = draft.rank_of(x)?;
    let mut repeats = vec![Extent::Known(1); rank];
    let counts = draft.operand(1, "repeats")?;
    if draft.opset < 6 {
        let axis = draft.required(2)?.constant.as_ref().and_then(|axis| axis.to_i64s().first().copied());
        let axis = axis.ok_or_else(|| Failure::unsupported("repeats of an axis that is not constant"))?;
        let axis = draft.front_axis(axis, rank)?;
        let list = draft.list("one", vec![1]);
        let counts = draft.node("Reshape", &[counts, list])?;
        let counts = draft.cast(counts, rabot_tensor::DType::I64)?;
        repeats[axis] = draft.extent_at(counts, 0)?;
    } else {
        let length = draft.shape_of(counts)?;
        if length.len() != 1 || length.iter().any(|l| l.as_const().is_some_and(|l| l != rank as i64)) {
            return Err(Failure::unsupported(format!(
                "repeats of shape {length:?} for an input of rank {rank}"
            )));
        }
        for (axis, repeat) in repeats.iter_mut().enumerate() {
            *repeat = draft.extent_at(counts, axis)?;
        }
    }
    let y = tiled(&mut draft, x, &repeats)?;
    draft.finish_with(vec![Some(y)])
}

fn tiled(draft: &mut Draft<'_>, x: Value, repeats: &[Extent]) -> Made {
    let (mut single, mut repeated, mut joined) = (Vec::new(), Vec::new(), Vec::new());
    for (axis, &repeat) in repeats.iter().enumerate() {
        let size = draft.extent(x, axis)?;
        if !matches!(repeat, Extent::Known(1)) {
            single.push(Extent::Known(1));
            repeated.push(repeat);
        }
        single.push(size);
        repeated.push(size);
        joined.push(draft.calc(Calc::Mul, size, repeat)?);
    }
    if single.len() == repeats.len() {
        return Ok(x);
    }
    let split = draft.reshape_to(x, &single)?;
    let target = draft.extent_list(&repeated)?;
    let expanded = draft.node("Expand", &[split, target])?;
    draft.reshape_to(expanded, &joined)
}

/// A slice of the middle where an axis is too long, zeros around it where it is too short.
fn center_crop_pad(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axes"])?;
    let (x, shape) = (draft.operand(0, "input_data")?, draft.operand(1, "shape")?);
    let rank = draft.rank_of(x)?;
    let axes = draft.attrs.ints("axes").map_err(wrong)?;
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    if draft.shape_of(shape)?.iter().any(|l| l.as_const().is_some_and(|l| l != axes.len() as i64)) {
        return Err(Failure::unsupported(format!(
            "a shape for {} axes, which is of another length",
            axes.len()
        )));
    }
    let (mut starts, mut ends, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (zero, two) = (Extent::Known(0), Extent::Known(2));
    for (index, &axis) in axes.iter().enumerate() {
        let axis = draft.front_axis(axis, rank)?;
        let (have, want) = (draft.extent(x, axis)?, draft.extent_at(shape, index)?);
        let over = draft.calc(Calc::Sub, have, want)?;
        let over = draft.calc(Calc::Max, over, zero)?;
        let start = draft.calc(Calc::Div, over, two)?;
        let kept = draft.calc(Calc::Min, have, want)?;
        starts.push(start);
        ends.push(draft.calc(Calc::Add, start, kept)?);
        let missing = draft.calc(Calc::Sub, want, have)?;
        let missing = draft.calc(Calc::Max, missing, zero)?;
        let left = draft.calc(Calc::Div, missing, two)?;
        before.push(left);
        after.push(draft.calc(Calc::Sub, missing, left)?);
    }
    let axes = draft.list("axes", axes);
    let (starts, ends) = (draft.extent_list(&starts)?, draft.extent_list(&ends)?);
    let cropped = draft.node("Slice", &[x, starts, ends, axes])?;
    let pads = draft.extent_list(&[before, after].concat())?;
    let y = draft.before("Pad", &Default::default(), vec![Some(cropped), Some(pads), None, Some(axes)])?;
    draft.finish_with(vec![Some(y)])
}

/// The older name of `ScatterElements`.
fn scatter(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis"])?;
    draft.op = "ScatterElements".to_owned();
    draft.finish()
}

/// Before opset 10 the count was an attribute.
fn top_k(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    if draft.opset < 10 {
        let count = draft.attrs.required_int("k").map_err(wrong)?;
        draft.attrs.remove("k");
        let count = draft.list("k", vec![count]);
        draft.set_input(1, Some(count));
    }
    draft.finish()
}
