//! Brings nodes from the form of the newest operator set to that of an older one: the inverse of `upgrade`.
//!
//! What was not there before, or took fewer dtypes, the schemas say; here is what was said in another way.

use super::node::{Draft, Operand, computed};
use rabot_ir::{Attr, Dim};
use rabot_tensor::Tensor;

/// How an operand was said before.
enum Before {
    /// As a list of integers.
    Ints(&'static str, usize),
    /// As an integer.
    Int(&'static str, usize),
    /// As a float.
    Float(&'static str, usize),
}

/// Ops, the opset from which on the row does not hold, and what was before.
///
/// **Source**: <https://github.com/onnx/onnx/blob/main/docs/Changelog.md>
const TABLE: &[(&[&str], i64, Before)] = &[
    (&["Squeeze", "Unsqueeze", "ReduceSum"], 13, Before::Ints("axes", 1)),
    (REDUCTIONS, 18, Before::Ints("axes", 1)),
    (&["Slice"], 10, Before::Ints("starts", 1)),
    (&["Slice"], 10, Before::Ints("ends", 2)),
    (&["Slice"], 10, Before::Ints("axes", 3)),
    (&["Split"], 13, Before::Ints("split", 1)),
    (&["Pad"], 11, Before::Ints("pads", 1)),
    (&["Pad"], 11, Before::Float("value", 2)),
    (&["Clip"], 11, Before::Float("min", 1)),
    (&["Clip"], 11, Before::Float("max", 2)),
    (&["TopK"], 10, Before::Int("k", 1)),
    (&["DFT"], 20, Before::Int("axis", 2)),
    (&["Dropout"], 12, Before::Float("ratio", 1)),
];

const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
];

/// Ops, an attribute, a value of it, and the opset that was the first to have it.
const VALUES: &[(&[&str], &str, &str, i64)] = &[
    (&["Pad"], "mode", "wrap", 19),
    (&["Resize"], "coordinate_transformation_mode", "half_pixel_symmetric", 19),
    (&["ScatterElements", "ScatterND"], "reduction", "max", 18),
    (&["ScatterElements", "ScatterND"], "reduction", "min", 18),
];

/// Changes the draft of an op of ONNX's own to the form of its opset.
///
/// **Errors**: in words, what could not be said then.
pub(super) fn apply(draft: &mut Draft<'_>) -> Result<(), String> {
    let opset = draft.opset;
    for (ops, name, value, first) in VALUES {
        let has = draft.attrs.get(name) == Some(&Attr::Str((*value).to_owned()));
        if has && opset < *first && ops.contains(&draft.op) {
            return Err(format!("`{name}` may not be `{value}`"));
        }
    }
    structure(draft)?;
    for (ops, before, was) in TABLE {
        if opset < *before && ops.contains(&draft.op) {
            undo(draft, was)?;
        }
    }
    if opset < 11 {
        count_axes_from_the_front(draft);
    }
    Ok(())
}

/// What a row of the table cannot say.
fn structure(draft: &mut Draft<'_>) -> Result<(), String> {
    let opset = draft.opset;
    match draft.op {
        op if op.starts_with("Reduce") => reduction(draft),
        "Split" => split(draft),
        "Slice" if opset < 10 => unit_steps(draft),
        "Pad" if opset < 18 => pad_axes(draft),
        "Resize" => resize(draft),
        "Softmax" | "LogSoftmax" | "Hardmax" if opset < 13 => softmax(draft),
        "Reshape" if opset < 14 => allow_zero(draft),
        "Gemm" if opset < 11 => gemm(draft),
        "Sum" | "Max" | "Min" | "Mean" if opset < 8 => same_shapes(draft),
        "QuantizeLinear" | "DequantizeLinear" if opset < 13 => one_scale(draft),
        "RoiAlign" if opset < 16 => output_half_pixel(draft),
        "GridSample" if opset < 20 => grid_modes(draft),
        "Dropout" if opset < 12 => inference(draft),
        "DFT" if opset < 20 => dft_axis(draft),
        "Scan" if opset < 9 => Err("scans go over a batch".to_owned()),
        _ => Ok(()),
    }
}

fn undo(draft: &mut Draft<'_>, was: &Before) -> Result<(), String> {
    match *was {
        Before::Ints(name, slot) => {
            if let Some(values) = draft.ints(slot, name)? {
                draft.attrs.set(name, Attr::Ints(values));
            }
            draft.take(slot);
        }
        Before::Int(name, slot) => {
            if let Some(values) = draft.ints(slot, name)? {
                let value = values.first().ok_or_else(|| format!("`{name}` is empty"))?;
                draft.attrs.set(name, Attr::Int(*value));
            }
            draft.take(slot);
        }
        Before::Float(name, slot) => {
            if let Some(fact) = draft.fact(slot) {
                let tensor = fact.constant.as_ref().ok_or_else(|| computed(name))?;
                let value = tensor.to_f64s().first().copied().ok_or_else(|| format!("`{name}` is empty"))?;
                if f64::from(value as f32) != value && !value.is_nan() {
                    return Err(format!("`{name}` is {value}, which is no f32"));
                }
                draft.attrs.set(name, Attr::Float(value as f32));
            }
            draft.take(slot);
        }
    }
    Ok(())
}

/// Negative axes count from the end only since opset 11.
fn count_axes_from_the_front(draft: &mut Draft<'_>) {
    let output = draft.node.outputs.first().map(|output| output.fact.rank());
    let rank = if draft.op == "Unsqueeze" { output } else { draft.fact(0).map(|fact| fact.rank()) };
    let Some(rank) = rank.map(|rank| rank as i64) else { return };
    let front = |axis: i64| if axis < 0 { axis + rank } else { axis };
    if let Some(Attr::Int(axis)) = draft.attrs.get("axis").cloned() {
        draft.attrs.set("axis", Attr::Int(front(axis)));
    }
    if let Some(Attr::Ints(axes)) = draft.attrs.get("axes").cloned() {
        draft.attrs.set("axes", Attr::Ints(axes.into_iter().map(front).collect()));
    }
}

/// Before the list of axes was an operand, there was no way to reduce nothing.
fn reduction(draft: &mut Draft<'_>) -> Result<(), String> {
    let first = if draft.op == "ReduceSum" { 13 } else { 18 };
    if draft.opset >= first {
        return Ok(());
    }
    let noop = draft.attrs.remove("noop_with_empty_axes").is_some_and(|value| value != Attr::Int(0));
    let axes = draft.ints(1, "axes")?.unwrap_or_default();
    if axes.is_empty() {
        // An empty list is not the same as none there.
        draft.take(1);
        if noop {
            return Err("`noop_with_empty_axes` is 1 without axes".to_owned());
        }
    }
    Ok(())
}

/// The number of parts is an attribute since opset 18, unless their lengths are given.
fn split(draft: &mut Draft<'_>) -> Result<(), String> {
    if draft.opset >= 18 {
        if draft.has(1) {
            draft.attrs.remove("num_outputs");
        }
        return Ok(());
    }
    if draft.has(1) {
        return Ok(());
    }
    // Equal parts; a length that has no equal parts is refused by whoever runs the file, instead of made smaller.
    let lengths = draft.node.outputs.iter().map(|output| {
        let rank = output.fact.rank() as i64;
        let axis = draft.attrs.int("axis", 0).ok()?;
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
        output.fact.shape().get(axis).and_then(Dim::as_const)
    });
    if let Some(lengths) = lengths.collect::<Option<Vec<i64>>>()
        && lengths.iter().any(|length| Some(length) != lengths.first())
    {
        let lengths = Tensor::from_vec(&[lengths.len()], lengths);
        match draft.opset < 13 {
            true => draft.attrs.set("split", Attr::Ints(lengths.to_i64s())),
            false => draft.set(1, Operand::New("split", lengths)),
        }
    }
    Ok(())
}

fn unit_steps(draft: &mut Draft<'_>) -> Result<(), String> {
    let steps = draft.ints(4, "steps")?.unwrap_or_default();
    if steps.iter().any(|&step| step != 1) {
        return Err(format!("steps {steps:?}"));
    }
    draft.take(4);
    Ok(())
}

/// Pads of some axes as pads of all.
fn pad_axes(draft: &mut Draft<'_>) -> Result<(), String> {
    let Some(axes) = draft.ints(3, "axes")? else { return Ok(()) };
    let pads = draft.ints(1, "pads")?.ok_or_else(|| "`pads` is absent".to_owned())?;
    let rank = draft.fact(0).map_or(0, |fact| fact.rank());
    let mut all = vec![0; 2 * rank];
    for (at, axis) in axes.iter().enumerate() {
        let axis = usize::try_from(if *axis < 0 { axis + rank as i64 } else { *axis }).ok();
        let (begin, end) = (pads.get(at), pads.get(axes.len() + at));
        let (Some(axis), Some(&begin), Some(&end)) = (axis.filter(|&axis| axis < rank), begin, end) else {
            return Err(format!("pads {pads:?} of axes {axes:?}"));
        };
        (all[axis], all[rank + axis]) = (begin, end);
    }
    draft.take(3);
    match draft.opset < 11 {
        true => {
            draft.take(1);
            draft.attrs.set("pads", Attr::Ints(all));
        }
        false => draft.set(1, Operand::New("pads", Tensor::from_vec(&[2 * rank], all))),
    }
    Ok(())
}

fn text(draft: &Draft<'_>, name: &str, default: &str) -> String {
    draft.attrs.str(name, default).unwrap_or_default()
}

/// Opsets 11 and 12 want all operands; before them there were two, and `Upsample` before that.
fn resize(draft: &mut Draft<'_>) -> Result<(), String> {
    if draft.opset < 18
        && let Some(Attr::Ints(axes)) = draft.attrs.get("axes").cloned()
    {
        let rank = draft.fact(0).map_or(0, |fact| fact.rank() as i64);
        if axes != (0..rank).collect::<Vec<_>>() {
            return Err(format!("`axes` = {axes:?}"));
        }
        draft.attrs.remove("axes");
    }
    match draft.opset {
        13.. => return Ok(()),
        11..13 => {
            for (slot, label) in [(1, "roi"), (2, "scales")] {
                if !draft.has(slot) {
                    draft.set(slot, Operand::New(label, Tensor::from_vec(&[0], Vec::<f32>::new())));
                }
            }
            return Ok(());
        }
        _ => {}
    }
    let scales = draft.fact(2).and_then(|fact| fact.constant.as_ref()).map(Tensor::to_f64s);
    let scales = scales.ok_or_else(|| "it takes constant scales only".to_owned())?;
    let (enlarges, shrinks) = (scales.iter().any(|&s| s > 1.0), scales.iter().any(|&s| s < 1.0));
    let rounding = if shrinks { "ceil" } else { "floor" };
    let mode = text(draft, "mode", "nearest");
    let coordinates = text(draft, "coordinate_transformation_mode", "half_pixel");
    let rounded = mode != "nearest" || text(draft, "nearest_mode", "round_prefer_floor") == rounding;
    if coordinates != "asymmetric" || !rounded || mode == "cubic" || (enlarges && shrinks) || draft.has(3) {
        return Err(format!("`{mode}` with coordinates `{coordinates}` and scales {scales:?}"));
    }
    draft.attrs.remove("coordinate_transformation_mode");
    draft.attrs.remove("nearest_mode");
    draft.inputs.truncate(3);
    draft.inputs.remove(1);
    if draft.opset < 10 {
        if shrinks {
            return Err(format!("scales {scales:?}"));
        }
        draft.op = "Upsample";
        if draft.opset < 9 {
            draft.take(1);
            draft.attrs.set("scales", Attr::Floats(scales.iter().map(|&scale| scale as f32).collect()));
        }
    }
    Ok(())
}

/// Softmax was over all dims from the axis on.
fn softmax(draft: &mut Draft<'_>) -> Result<(), String> {
    let axis = draft.attrs.int("axis", -1).unwrap_or(-1);
    let Some(fact) = draft.fact(0) else { return Ok(()) };
    let axis = if axis < 0 { axis + fact.rank() as i64 } else { axis };
    let after = usize::try_from(axis).ok().and_then(|axis| fact.shape().get(axis + 1..));
    if after.is_some_and(|dims| dims.iter().any(|dim| !dim.is(1))) {
        return Err(format!("it goes over all dims from axis {axis} on"));
    }
    draft.attrs.set("axis", Attr::Int(axis));
    Ok(())
}

/// A 0 in a shape was never a size.
fn allow_zero(draft: &mut Draft<'_>) -> Result<(), String> {
    let allowed = draft.attrs.int("allowzero", 0) == Ok(1);
    let shape = draft.fact(1);
    let none = |dims: Vec<Dim>| dims.iter().all(|dim| dim.as_const().is_some_and(|size| size != 0));
    if allowed && !shape.and_then(|shape| shape.dims()).is_some_and(none) {
        return Err("the shape may hold a size of 0 (`allowzero` is 1)".to_owned());
    }
    draft.attrs.remove("allowzero");
    Ok(())
}

/// C was not optional.
fn gemm(draft: &mut Draft<'_>) -> Result<(), String> {
    if let (false, Some(fact)) = (draft.has(2), draft.fact(0)) {
        let zero = Tensor::from_f64s(fact.dtype(), &[1], &[0.0]);
        draft.set(2, Operand::New("c", zero));
    }
    Ok(())
}

fn same_shapes(draft: &mut Draft<'_>) -> Result<(), String> {
    let shapes: Vec<_> = (0..draft.inputs.len()).filter_map(|slot| draft.fact(slot)).collect();
    match shapes.windows(2).all(|pair| pair[0].shape() == pair[1].shape()) {
        true => Ok(()),
        false => Err("it does not broadcast".to_owned()),
    }
}

/// Parameters were of the whole tensor; there was no axis.
fn one_scale(draft: &mut Draft<'_>) -> Result<(), String> {
    draft.attrs.remove("axis");
    match draft.fact(1).is_none_or(|scale| scale.ty.elements().is(1)) {
        true => Ok(()),
        false => Err("it takes one scale for the whole tensor".to_owned()),
    }
}

fn output_half_pixel(draft: &mut Draft<'_>) -> Result<(), String> {
    let mode = text(draft, "coordinate_transformation_mode", "half_pixel");
    draft.attrs.remove("coordinate_transformation_mode");
    match mode == "output_half_pixel" {
        true => Ok(()),
        false => Err(format!("`coordinate_transformation_mode` is `{mode}`")),
    }
}

/// The modes have had other names.
fn grid_modes(draft: &mut Draft<'_>) -> Result<(), String> {
    let older = match text(draft, "mode", "linear").as_str() {
        "linear" => "bilinear",
        "cubic" => "bicubic",
        _ => return Ok(()),
    };
    draft.attrs.set("mode", Attr::Str(older.to_owned()));
    Ok(())
}

/// Whether to train was not an operand.
fn inference(draft: &mut Draft<'_>) -> Result<(), String> {
    let training = draft.ints(2, "training_mode")?.is_some_and(|values| values.iter().any(|&v| v != 0));
    draft.take(2);
    draft.attrs.remove("seed");
    match training {
        true => Err("`training_mode` is true".to_owned()),
        false => Ok(()),
    }
}

/// The axis that is meant where none is given was another one.
fn dft_axis(draft: &mut Draft<'_>) -> Result<(), String> {
    if !draft.has(2)
        && let Some(rank) = draft.fact(0).map(|fact| fact.rank() as i64)
    {
        draft.attrs.set("axis", Attr::Int(rank - 2));
    }
    Ok(())
}
