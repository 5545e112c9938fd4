//! Normalizations with what was fused into them.

use super::DOMAIN;
use crate::compose::Row;
use crate::compose::chain::Made;
use crate::compose::emit::{Size, working};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::DType;

pub(super) const TABLE: &[Row] = &[
    // Files that ONNX Runtime writes have it in ONNX's domain.
    ("", "SimplifiedLayerNormalization", simplified),
    (DOMAIN, "SimplifiedLayerNormalization", simplified),
    (DOMAIN, "SkipLayerNormalization", skip_layer),
    (DOMAIN, "SkipSimplifiedLayerNormalization", skip_simplified),
    (DOMAIN, "EmbedLayerNormalization", embed_layer),
];

/// Mean, and one over the root of the mean of squares of what is left, over the axes from `axis` on.
fn statistics(
    draft: &mut Draft<'_>,
    x: Value,
    axes: &[i64],
    epsilon: f64,
    centered: bool,
) -> Result<(Value, Value), Failure> {
    let work = working(draft.dtype_of(x));
    let wide = draft.cast(x, work)?;
    let mean = draft.reduce("ReduceMean", wide, axes)?;
    let from = if centered { draft.minus(wide, mean)? } else { wide };
    let square = draft.times(from, from)?;
    let variance = draft.reduce("ReduceMean", square, axes)?;
    let variance = draft.shifted(variance, epsilon)?;
    let deviation = draft.node("Sqrt", &[variance])?;
    Ok((mean, draft.node("Reciprocal", &[deviation])?))
}

/// x over the root of its mean square, times scale; and one over that root.
fn rms(
    draft: &mut Draft<'_>,
    x: Value,
    scale: Value,
    axes: &[i64],
    epsilon: f64,
) -> Result<(Value, Value), Failure> {
    let (_, inverse) = statistics(draft, x, axes, epsilon, false)?;
    let work = draft.dtype_of(inverse);
    let (wide, wide_scale) = (draft.cast(x, work)?, draft.cast(scale, work)?);
    let unit = draft.times(wide, inverse)?;
    let scaled = draft.times(unit, wide_scale)?;
    let result = draft.dtype_of(scale);
    Ok((draft.cast(scaled, result)?, inverse))
}

fn simplified(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis", "epsilon", "stash_type"])?;
    draft.check_inputs(2)?;
    let (x, scale) = (draft.operand(0, "X")?, draft.operand(1, "scale")?);
    let rank = draft.rank_of(x)? as i64;
    let axis = draft.int_attr("axis", -1)?;
    let first = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if !(0..rank).contains(&first) {
        return Err(Failure::unsupported(format!("axis {axis} of an input of rank {rank}")));
    }
    let epsilon = draft.float_attr("epsilon", 1e-5)?;
    let axes: Vec<i64> = (first..rank).collect();
    let (y, inverse) = rms(&mut draft, x, scale, &axes, epsilon)?;
    draft.finish_with(vec![Some(y), Some(inverse)])
}

/// The sum of the operands that are there.
fn total(draft: &mut Draft<'_>, input: Value, others: &[Option<Value>]) -> Made {
    let mut sum = input;
    for &other in others.iter().flatten() {
        sum = draft.plus(sum, other)?;
    }
    Ok(sum)
}

fn layer_normalized(
    draft: &mut Draft<'_>,
    x: Value,
    gamma: Value,
    beta: Option<Value>,
    epsilon: f64,
) -> Made {
    let attrs = Attrs::new().with("axis", Attr::Int(-1)).with("epsilon", Attr::Float(epsilon as f32));
    draft.before("LayerNormalization", &attrs, vec![Some(x), Some(gamma), beta])
}

fn skip_layer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["epsilon"])?;
    draft.check_inputs(5)?;
    let epsilon = draft.float_attr("epsilon", 1e-12)?;
    let input = draft.operand(0, "input")?;
    let (skip, gamma) = (draft.operand(1, "skip")?, draft.operand(2, "gamma")?);
    let (beta, bias) = (draft.input(3), draft.input(4));
    let sum = total(&mut draft, input, &[Some(skip), bias])?;
    let y = layer_normalized(&mut draft, sum, gamma, beta, epsilon)?;
    let mut outputs = vec![Some(y)];
    if draft.outputs > 1 {
        let (mean, inverse) = statistics(&mut draft, sum, &[-1], epsilon, true)?;
        outputs.extend([Some(mean), Some(inverse), Some(sum)]);
    }
    draft.finish_with(outputs)
}

fn skip_simplified(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["epsilon"])?;
    draft.check_inputs(4)?;
    let epsilon = draft.float_attr("epsilon", 1e-12)?;
    let input = draft.operand(0, "input")?;
    let (skip, gamma) = (draft.operand(1, "skip")?, draft.operand(2, "gamma")?);
    let bias = draft.input(3);
    let sum = total(&mut draft, input, &[Some(skip), bias])?;
    let (y, inverse) = rms(&mut draft, sum, gamma, &[-1], epsilon)?;
    let mut outputs = vec![Some(y)];
    if draft.outputs > 1 {
        let work = draft.dtype_of(inverse);
        let wide = draft.cast(sum, work)?;
        let mean = draft.reduce("ReduceMean", wide, &[-1])?;
        outputs.extend([Some(mean), Some(inverse), Some(sum)]);
    }
    draft.finish_with(outputs)
}

fn embed_layer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["epsilon", "mask_index_type"])?;
    draft.check_inputs(9)?;
    let epsilon = draft.float_attr("epsilon", 1e-12)?;
    let ids = draft.operand(0, "input_ids")?;
    let (gamma, beta) = (draft.operand(5, "gamma")?, draft.operand(6, "beta")?);
    let rows = Attrs::new().with("axis", Attr::Int(0));
    let words = draft.operand(2, "word_embedding")?;
    let mut sum = draft.node_with("Gather", &rows, &[words, ids])?;
    let places = draft.operand(3, "position_embedding")?;
    let positions = match draft.input(8) {
        Some(positions) => positions,
        None => draft.positions(ids, 1)?,
    };
    let places = draft.node_with("Gather", &rows, &[places, positions])?;
    sum = draft.plus(sum, places)?;
    match (draft.input(1), draft.input(4)) {
        (Some(segments), Some(table)) => {
            let kinds = draft.node_with("Gather", &rows, &[table, segments])?;
            sum = draft.plus(sum, kinds)?;
        }
        (None, None) => {}
        _ => return Err(Failure::unsupported("one of segment_ids and segment_embedding without the other")),
    }
    let y = layer_normalized(&mut draft, sum, gamma, Some(beta), epsilon)?;
    let index = match draft.input(7) {
        None => draft.filled(DType::I32, 0.0, &[Size::Of(ids, 0)])?,
        Some(mask) => {
            let one = draft.scalar_like(mask, 1.0);
            let words = draft.node("Equal", &[mask, one])?;
            let words = draft.cast(words, DType::I32)?;
            let count = draft.reduce("ReduceSum", words, &[1])?;
            draft.squeezed(count, &[1])?
        }
    };
    draft.finish_with(vec![Some(y), Some(index), Some(sum)])
}
