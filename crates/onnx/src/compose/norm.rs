//! Normalizations as sums, products and roots.
//!
//! Floats of less than 32 bits are normalized in f32 and rounded once, at the end.

use super::Row;
use super::emit::{Size, working, wrong};
use crate::dtype;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::{DType, Tensor};

pub(super) const TABLE: &[Row] = &[
    ("", "InstanceNormalization", instance),
    ("", "GroupNormalization", group),
    ("", "LayerNormalization", layer),
    ("", "RMSNormalization", rms),
    ("", "LpNormalization", lp),
    ("", "MeanVarianceNormalization", mean_variance),
    ("", "BatchNormalization", batch),
];

/// What a normalization of a tensor comes to.
struct Normalized {
    /// Mean 0, variance 1.
    value: Value,
    /// Mean, the axes as 1.
    mean: Value,
    /// `1 / √(variance + ε)`, the axes as 1.
    inverse: Value,
}

/// `(x − mean) / √(variance + ε)` along axes.
fn normalize(draft: &mut Draft<'_>, x: Value, axes: &[i64], epsilon: f32) -> Result<Normalized, Failure> {
    let mean = draft.reduce("ReduceMean", x, axes)?;
    let centered = draft.node("Sub", &[x, mean])?;
    let square = draft.node("Mul", &[centered, centered])?;
    let variance = draft.reduce("ReduceMean", square, axes)?;
    let epsilon = draft.number(draft.dtype_of(x), f64::from(epsilon));
    let sum = draft.node("Add", &[variance, epsilon])?;
    let root = draft.node("Sqrt", &[sum])?;
    let inverse = draft.node("Reciprocal", &[root])?;
    let value = draft.node("Div", &[centered, root])?;
    Ok(Normalized { value, mean, inverse })
}

/// `x · scale + bias`, both cast to the dtype of x and with dims of 1 put in.
fn scaled(
    draft: &mut Draft<'_>,
    x: Value,
    scale: Value,
    bias: Option<Value>,
    axes: &[i64],
) -> Result<Value, Failure> {
    let dtype = draft.dtype_of(x);
    let mut result = x;
    for (op, parameter) in [("Mul", Some(scale)), ("Add", bias)] {
        let Some(parameter) = parameter else { continue };
        let parameter = draft.cast(parameter, dtype)?;
        let parameter = draft.unsqueeze(parameter, axes.to_vec())?;
        result = draft.node(op, &[result, parameter])?;
    }
    Ok(result)
}

fn rank_at_least(draft: &Draft<'_>, value: Value, least: usize) -> Result<usize, Failure> {
    let rank = draft.rank_of(value)?;
    match rank >= least {
        true => Ok(rank),
        false => Err(Failure::unsupported(format!("an input of rank {rank}; expected at least {least}"))),
    }
}

/// An axis counted from the front.
fn front(axis: i64, rank: usize) -> Result<i64, Failure> {
    let counted = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match (0..rank as i64).contains(&counted) {
        true => Ok(counted),
        false => Err(Failure::unsupported(format!("axis {axis} of an input of rank {rank}"))),
    }
}

/// Each channel of each image by itself.
fn instance(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["epsilon"])?;
    draft.check_inputs(3)?;
    let epsilon = draft.attrs.float("epsilon", 1e-5).map_err(wrong)?;
    let (x, scale, bias) = (draft.operand(0, "input")?, draft.operand(1, "scale")?, draft.operand(2, "B")?);
    let (dtype, rank) = (draft.dtype_of(x), rank_at_least(&draft, x, 2)?);
    let wide = draft.cast(x, working(dtype))?;
    let axes: Vec<i64> = (2..rank as i64).collect();
    let normalized = normalize(&mut draft, wide, &axes, epsilon)?.value;
    let per_channel: Vec<i64> = (1..rank as i64 - 1).collect();
    let result = scaled(&mut draft, normalized, scale, Some(bias), &per_channel)?;
    let result = draft.cast(result, dtype)?;
    draft.finish_with(vec![Some(result)])
}

/// Channels in groups; before opset 21, scale and bias are those of groups, not of channels.
fn group(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["epsilon", "num_groups", "stash_type"])?;
    draft.check_inputs(3)?;
    let epsilon = draft.attrs.float("epsilon", 1e-5).map_err(wrong)?;
    let groups = draft.attrs.required_int("num_groups").map_err(wrong)?;
    let (x, scale, bias) = (draft.operand(0, "X")?, draft.operand(1, "scale")?, draft.operand(2, "bias")?);
    let (dtype, rank) = (draft.dtype_of(x), rank_at_least(&draft, x, 2)?);
    let channels = draft.shape_of(x)?[1].clone();
    if groups < 1 || channels.as_const().is_some_and(|channels| channels % groups != 0) {
        return Err(Failure::unsupported(format!("num_groups = {groups} for {channels} channels")));
    }
    let stash = stash_dtype(&draft, dtype)?;
    let wide = draft.cast(x, stash)?;
    let grouped = draft.reshape(wide, &[Size::Of(x, 0), Size::Is(groups), Size::Rest])?;
    let mut result = normalize(&mut draft, grouped, &[2], epsilon)?.value;
    if draft.opset < 21 {
        result = scaled(&mut draft, result, scale, Some(bias), &[1])?;
    }
    let shape: Vec<Size> = (0..rank).map(|axis| Size::Of(x, axis)).collect();
    result = draft.reshape(result, &shape)?;
    if draft.opset >= 21 {
        let per_channel: Vec<i64> = (1..rank as i64 - 1).collect();
        result = scaled(&mut draft, result, scale, Some(bias), &per_channel)?;
    }
    let result = draft.cast(result, dtype)?;
    draft.finish_with(vec![Some(result)])
}

/// The dtype to normalize in: at least as precise as `stash_type` asks for.
fn stash_dtype(draft: &Draft<'_>, dtype: DType) -> Result<DType, Failure> {
    let stash = stash_type(draft)?;
    Ok(if stash == DType::F64 || dtype == DType::F64 { DType::F64 } else { DType::F32 })
}

/// The attribute `stash_type`.
fn stash_type(draft: &Draft<'_>) -> Result<DType, Failure> {
    let code = draft.attrs.int("stash_type", 1).map_err(wrong)?;
    match i32::try_from(code).ok().and_then(|code| dtype::from_code(code).ok()) {
        Some(stash @ (DType::F32 | DType::F64 | DType::F16 | DType::BF16)) => Ok(stash),
        _ => Err(Failure::unsupported(format!("stash_type = {code}, which is no float type"))),
    }
}

/// The op of the graph where only Y is asked for; else its parts, of which Mean and InvStdDev are two.
fn layer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis", "epsilon", "stash_type"])?;
    draft.check_inputs(3)?;
    let (axis, stash) = (draft.attrs.int("axis", -1).map_err(wrong)?, stash_type(&draft)?);
    if draft.outputs <= 1 {
        // Both ways of running it are at least as precise as any stash type.
        draft.attrs.remove("stash_type");
        return draft.finish();
    }
    let epsilon = draft.attrs.float("epsilon", 1e-5).map_err(wrong)?;
    let (x, scale, bias) = (draft.operand(0, "X")?, draft.operand(1, "Scale")?, draft.input(2));
    let (dtype, rank) = (draft.dtype_of(x), rank_at_least(&draft, x, 1)?);
    let axes: Vec<i64> = (front(axis, rank)?..rank as i64).collect();
    let work = stash_dtype(&draft, dtype)?;
    let wide = draft.cast(x, work)?;
    let normalized = normalize(&mut draft, wide, &axes, epsilon)?;
    let y = scaled(&mut draft, normalized.value, scale, bias, &[])?;
    let y = draft.cast(y, dtype)?;
    let mean = draft.cast(normalized.mean, stash)?;
    let inverse = draft.cast(normalized.inverse, stash)?;
    draft.finish_with(vec![Some(y), Some(mean), Some(inverse)])
}

/// `x / √(mean(x²) + ε) · scale`; the result has the dtype of the scale. The op of the graph where that is the dtype of
/// x too.
fn rms(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis", "epsilon", "stash_type"])?;
    draft.check_inputs(2)?;
    let axis = draft.attrs.int("axis", -1).map_err(wrong)?;
    let epsilon = draft.attrs.float("epsilon", 1e-5).map_err(wrong)?;
    let (x, scale) = (draft.operand(0, "X")?, draft.operand(1, "scale")?);
    let rank = rank_at_least(&draft, x, 1)?;
    let axes: Vec<i64> = (front(axis, rank)?..rank as i64).collect();
    if draft.dtype_of(x) == draft.dtype_of(scale) && stash_type(&draft)? != DType::F64 {
        draft.attrs.remove("stash_type");
        return draft.finish();
    }
    let (stash, result) = (stash_dtype(&draft, draft.dtype_of(x))?, draft.dtype_of(scale));
    let wide = draft.cast(x, stash)?;
    let square = draft.node("Mul", &[wide, wide])?;
    let mean = draft.reduce("ReduceMean", square, &axes)?;
    let epsilon = draft.number(stash, f64::from(epsilon));
    let sum = draft.node("Add", &[mean, epsilon])?;
    let root = draft.node("Sqrt", &[sum])?;
    let normalized = draft.node("Div", &[wide, root])?;
    let y = scaled(&mut draft, normalized, scale, None, &[])?;
    let y = draft.cast(y, result)?;
    draft.finish_with(vec![Some(y)])
}

/// `x / ‖x‖` along an axis, 0 where the norm is 0.
fn lp(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis", "p"])?;
    draft.check_inputs(1)?;
    let op = match draft.attrs.int("p", 2).map_err(wrong)? {
        1 => "ReduceL1",
        2 => "ReduceL2",
        p => return Err(Failure::unsupported(format!("p = {p}; 1 and 2 are the norms that there are"))),
    };
    let x = draft.operand(0, "input")?;
    let axis = front(draft.attrs.int("axis", -1).map_err(wrong)?, rank_at_least(&draft, x, 1)?)?;
    let dtype = draft.dtype_of(x);
    let wide = draft.cast(x, working(dtype))?;
    let norm = draft.reduce(op, wide, &[axis])?;
    let zero = draft.number(working(dtype), 0.0);
    let nothing = draft.node("Equal", &[norm, zero])?;
    let quotient = draft.node("Div", &[wide, norm])?;
    let y = draft.node("Where", &[nothing, zero, quotient])?;
    let y = draft.cast(y, dtype)?;
    draft.finish_with(vec![Some(y)])
}

/// `(x − mean) / (√variance + 1e-9)`. Before opset 9 the axes were those of images, with the channels or without.
fn mean_variance(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_inputs(1)?;
    let x = draft.operand(0, "X")?;
    let (dtype, rank) = (draft.dtype_of(x), draft.rank_of(x)?);
    let mut by_variance = true;
    let axes: Vec<i64> = if draft.opset < 9 {
        draft.check_attrs(&["across_channels", "normalize_variance"])?;
        by_variance = draft.attrs.int("normalize_variance", 1).map_err(wrong)? != 0;
        let across = draft.attrs.int("across_channels", 0).map_err(wrong)? != 0;
        (if across { 1 } else { 2 }..rank as i64).collect()
    } else {
        draft.check_attrs(&["axes"])?;
        let axes = draft.attrs.ints("axes").map_err(wrong)?.unwrap_or_else(|| vec![0, 2, 3]);
        axes.into_iter().map(|axis| front(axis, rank)).collect::<Result<_, _>>()?
    };
    let wide = draft.cast(x, working(dtype))?;
    let mean = draft.reduce("ReduceMean", wide, &axes)?;
    let mut y = draft.node("Sub", &[wide, mean])?;
    if by_variance {
        let square = draft.node("Mul", &[y, y])?;
        let variance = draft.reduce("ReduceMean", square, &axes)?;
        let root = draft.node("Sqrt", &[variance])?;
        let least = draft.number(working(dtype), 1e-9);
        let deviation = draft.node("Add", &[root, least])?;
        y = draft.node("Div", &[y, deviation])?;
    }
    let y = draft.cast(y, dtype)?;
    draft.finish_with(vec![Some(y)])
}

/// How a batch normalization of any version is asked to work.
struct Batch {
    epsilon: f32,
    momentum: f32,
    training: bool,
    /// Statistics are those of channels, not of features.
    spatial: bool,
}

impl Batch {
    fn read(draft: &Draft<'_>) -> Result<Self, Failure> {
        let int = |name: &str, default: i64| draft.attrs.int(name, default).map_err(wrong);
        let training = match draft.opset {
            14.. => {
                draft.check_attrs(&["epsilon", "momentum", "training_mode"])?;
                int("training_mode", 0)? != 0
            }
            // The outputs that a node names tell which case of the specification it is.
            _ => {
                draft.check_attrs(&["epsilon", "momentum", "is_test", "spatial"])?;
                draft.outputs > 1 && int("is_test", 0)? == 0
            }
        };
        Ok(Batch {
            epsilon: draft.attrs.float("epsilon", 1e-5).map_err(wrong)?,
            momentum: draft.attrs.float("momentum", 0.9).map_err(wrong)?,
            training,
            spatial: draft.opset >= 9 || int("spatial", 1)? != 0,
        })
    }
}

/// The op of the graph, with the statistics that are given or, when training, those of the batch.
fn batch(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let batch = Batch::read(&draft)?;
    draft.check_inputs(5)?;
    let operands: Vec<Value> = ["X", "scale", "B", "mean", "var"]
        .iter()
        .enumerate()
        .map(|(slot, name)| draft.operand(slot, name))
        .collect::<Result<_, _>>()?;
    let attrs = Attrs::new().with("epsilon", Attr::Float(batch.epsilon));
    if !batch.training && batch.spatial {
        draft.attrs = attrs;
        return draft.finish();
    }
    let x = operands[0];
    let rank = rank_at_least(&draft, x, 1)? as i64;
    let (mut mean, mut variance) = (operands[3], operands[4]);
    let mut outputs = Vec::new();
    if batch.training {
        let axes: Vec<i64> = match batch.spatial {
            true => (0..rank).filter(|&axis| axis != 1).collect(),
            false => vec![0],
        };
        let current = statistics(&mut draft, x, &axes, rank == 1)?;
        for (slot, value) in [(3, current[0]), (4, current[1])] {
            outputs.push(Some(running(&mut draft, operands[slot], value, batch.momentum)?));
        }
        [mean, variance] = current;
        if draft.opset < 14 {
            for value in current {
                outputs.push(Some(draft.cast(value, draft.dtype_of(operands[3]))?));
            }
        }
    }
    let y = match batch.spatial {
        true => {
            draft.node_with("BatchNormalization", &attrs, &[x, operands[1], operands[2], mean, variance])?
        }
        false => by_feature(&mut draft, [x, operands[1], operands[2], mean, variance], batch.epsilon)?,
    };
    outputs.insert(0, Some(y));
    draft.finish_with(outputs)
}

/// Mean and variance over axes, which are gone, in the working dtype. A list of numbers is of one channel.
fn statistics(draft: &mut Draft<'_>, x: Value, axes: &[i64], one: bool) -> Result<[Value; 2], Failure> {
    let wide = draft.cast(x, working(draft.dtype_of(x)))?;
    let mean = draft.reduce("ReduceMean", wide, axes)?;
    let centered = draft.node("Sub", &[wide, mean])?;
    let square = draft.node("Mul", &[centered, centered])?;
    let variance = draft.reduce("ReduceMean", square, axes)?;
    if one {
        return Ok([mean, variance]);
    }
    let axes = draft.list("axes", axes.to_vec());
    Ok([draft.node("Squeeze", &[mean, axes])?, draft.node("Squeeze", &[variance, axes])?])
}

/// `before · momentum + now · (1 − momentum)`.
fn running(draft: &mut Draft<'_>, before: Value, now: Value, momentum: f32) -> Result<Value, Failure> {
    let (dtype, work) = (draft.dtype_of(before), draft.dtype_of(now));
    let before = draft.cast(before, work)?;
    let momentum = f64::from(momentum);
    let (old, new) = (draft.number(work, momentum), draft.number(work, 1.0 - momentum));
    let kept = draft.node("Mul", &[before, old])?;
    let added = draft.node("Mul", &[now, new])?;
    let sum = draft.node("Add", &[kept, added])?;
    draft.cast(sum, dtype)
}

/// `(x − mean) / √(variance + ε) · scale + B`, all of them of the shape of one image.
fn by_feature(draft: &mut Draft<'_>, operands: [Value; 5], epsilon: f32) -> Result<Value, Failure> {
    let dtype = draft.dtype_of(operands[0]);
    let mut wide = operands;
    for value in &mut wide {
        *value = draft.cast(*value, working(dtype))?;
    }
    let [x, scale, bias, mean, variance] = wide;
    let epsilon = draft.constant("epsilon", Tensor::from_f64s(working(dtype), &[], &[f64::from(epsilon)]));
    let centered = draft.node("Sub", &[x, mean])?;
    let sum = draft.node("Add", &[variance, epsilon])?;
    let root = draft.node("Sqrt", &[sum])?;
    let normalized = draft.node("Div", &[centered, root])?;
    let product = draft.node("Mul", &[normalized, scale])?;
    let y = draft.node("Add", &[product, bias])?;
    draft.cast(y, dtype)
}
