//! `Attention` and `MultiHeadAttention`.
//!
//! What a mask hides gets `mask_filter_value` added to its score, as ONNX Runtime's CPU kernels have it; what comes later
//! than a query of a unidirectional layer gets the lowest number.

use super::DOMAIN;
use crate::compose::Row;
use crate::compose::attention::Heads;
use crate::compose::chain::Made;
use crate::compose::emit::{Size, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Dim, Value};
use rabot_tensor::DType;

pub(super) const TABLE: &[Row] =
    &[(DOMAIN, "Attention", attention), (DOMAIN, "MultiHeadAttention", multi_head)];

/// `[batch, positions, heads · size]` → `[batch, heads, positions, size]`.
pub(super) fn split_heads(draft: &mut Draft<'_>, value: Value, heads: i64) -> Made {
    let shape = draft.shape_of(value)?;
    let fits = |size: &Dim| size.as_const().is_none_or(|size| heads > 0 && size % heads == 0);
    if shape.len() != 3 || heads < 1 || !shape.last().is_some_and(fits) {
        return Err(Failure::unsupported(format!("{heads} heads of an operand of shape {shape:?}")));
    }
    let sizes = [Size::Of(value, 0), Size::Of(value, 1), Size::Is(heads), Size::Rest];
    let apart = draft.reshape(value, &sizes)?;
    draft.transpose(apart, &[0, 2, 1, 3])
}

/// The way back.
pub(super) fn join_heads(draft: &mut Draft<'_>, value: Value) -> Made {
    let rows = draft.transpose(value, &[0, 2, 1, 3])?;
    draft.reshape(rows, &[Size::Of(rows, 0), Size::Of(rows, 1), Size::Rest])
}

/// The attribute `scale`, of which 0 says that it is the default.
pub(super) fn scale(draft: &Draft<'_>) -> Result<Option<f32>, Failure> {
    let scale = draft.attrs.float("scale", 0.0).map_err(wrong)?;
    Ok(Some(scale).filter(|&scale| scale != 0.0))
}

/// The heads of a layer and what keeps queries from keys.
struct Layer {
    heads: Heads,
    mask: Option<Value>,
    bias: Option<Value>,
}

impl Layer {
    /// The result of all heads, side by side.
    fn result(&self, draft: &mut Draft<'_>) -> Made {
        let scale = scale(draft)?;
        let dtype = draft.dtype_of(self.heads.q);
        let mut scores = self.heads.scores(draft, scale)?;
        let work = draft.dtype_of(scores);
        if let Some(bias) = self.bias {
            let bias = draft.cast(bias, work)?;
            scores = draft.plus(scores, bias)?;
        }
        let filter = draft.float_attr("mask_filter_value", -10000.0)?;
        let mut hidden = match self.mask {
            None => None,
            Some(kept) => {
                let (zero, filter) = (draft.number(work, 0.0), draft.number(work, filter));
                Some(draft.node("Where", &[kept, zero, filter])?)
            }
        };
        if draft.flag("unidirectional", false)? {
            let seen = causal(draft, &self.heads)?;
            let lowest = if work == DType::F64 { f64::MIN } else { f64::from(f32::MIN) };
            let lowest = draft.number(work, lowest);
            let zero = draft.number(work, 0.0);
            hidden = Some(draft.node("Where", &[seen, hidden.unwrap_or(zero), lowest])?);
        }
        if let Some(hidden) = hidden {
            scores = draft.plus(scores, hidden)?;
        }
        let attrs = Attrs::new().with("axis", Attr::Int(-1));
        let probabilities = draft.node_with("Softmax", &attrs, &[scores])?;
        let mixed = self.heads.mix(draft, probabilities)?;
        let mixed = draft.cast(mixed, dtype)?;
        join_heads(draft, mixed)
    }
}

/// Where a key is not later than the query; queries are the last of all positions.
fn causal(draft: &mut Draft<'_>, heads: &Heads) -> Made {
    let (own, all) = (draft.dim(heads.q, 2)?, draft.dim(heads.k, 2)?);
    let before = draft.minus(all, own)?;
    let query = draft.positions(heads.q, 2)?;
    let query = draft.plus(query, before)?;
    let query = draft.unsqueeze(query, vec![1])?;
    let key = draft.positions(heads.k, 2)?;
    draft.node("LessOrEqual", &[key, query])
}

/// Where keys are kept, to broadcast over `[batch, heads, queries, keys]`.
fn kept(draft: &mut Draft<'_>, mask: Value, heads: &Heads) -> Made {
    let rank = draft.rank_of(mask)?;
    if rank == 1 {
        return within(draft, mask, heads);
    }
    let zero = draft.scalar_like(mask, 0.0);
    let shown = match rank {
        2 => draft.unsqueeze(mask, vec![1, 2])?,
        3 => draft.unsqueeze(mask, vec![1])?,
        4 => {
            // Of all positions that there may be: the rows of the queries, which are the last, and the keys so far.
            let (own, all) = (draft.dims(heads.q, 2, 3)?, draft.dims(heads.k, 2, 3)?);
            let start = draft.minus(all, own)?;
            let (first, rows, columns) =
                (draft.list("start", vec![0]), draft.list("axis", vec![2]), draft.list("axis", vec![3]));
            let part = draft.node("Slice", &[mask, start, all, rows])?;
            draft.node("Slice", &[part, first, all, columns])?
        }
        _ => return Err(Failure::unsupported(format!("a mask of rank {rank}"))),
    };
    let hidden = draft.node("Equal", &[shown, zero])?;
    draft.node("Not", &[hidden])
}

/// Keys before an end, and from a start on if there are twice as many numbers as rows of the batch.
fn within(draft: &mut Draft<'_>, mask: Value, heads: &Heads) -> Made {
    let (numbers, batch) = (draft.shape_of(mask)?, draft.shape_of(heads.q)?);
    let (Some(numbers), Some(batch)) = (numbers.first(), batch.first()) else {
        return Err(Failure::unsupported("a mask without numbers"));
    };
    let key = draft.positions(heads.k, 2)?;
    let mask = draft.cast(mask, DType::I64)?;
    let twice = batch.clone() + batch.clone();
    if numbers == batch {
        let end = draft.unsqueeze(mask, vec![1, 2, 3])?;
        return draft.node("Less", &[key, end]);
    }
    if *numbers != twice {
        let text = format!("a mask of {numbers} numbers for a batch of {batch}, expected {batch} or {twice}");
        return Err(Failure::unsupported(text));
    }
    let pairs = draft.reshape(mask, &[Size::Is(2), Size::Rest])?;
    let (end, start) = (draft.at(pairs, 0, 0)?, draft.at(pairs, 0, 1)?);
    let (end, start) = (draft.unsqueeze(end, vec![1, 2, 3])?, draft.unsqueeze(start, vec![1, 2, 3])?);
    let (before, after) = (draft.node("Less", &[key, end])?, draft.node("GreaterOrEqual", &[key, start])?);
    draft.node("And", &[before, after])
}

fn attention(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let known = [
        "do_rotary",
        "mask_filter_value",
        "num_heads",
        "past_present_share_buffer",
        "qkv_hidden_sizes",
        "rotary_embedding_dim",
        "scale",
        "unidirectional",
    ];
    draft.check_attrs(&known)?;
    draft.check_inputs(6)?;
    for name in ["do_rotary", "past_present_share_buffer"] {
        if draft.flag(name, false)? {
            return Err(Failure::unsupported(format!("{name} = 1")));
        }
    }
    let count = draft.attrs.required_int("num_heads").map_err(wrong)?;
    let (input, weights) = (draft.operand(0, "input")?, draft.operand(1, "weights")?);
    let mut projected = draft.matmul(input, weights)?;
    if let Some(bias) = draft.input(2) {
        projected = draft.plus(projected, bias)?;
    }
    let sizes = hidden_sizes(&draft, weights)?;
    let mut split = Vec::new();
    for part in draft.parts(projected, 2, &sizes)? {
        split.push(split_heads(&mut draft, part, count)?);
    }
    if let Some(past) = draft.input(4) {
        for (at, value) in split.iter_mut().skip(1).enumerate() {
            let before = draft.at(past, 0, at as i64)?;
            *value = draft.concat(2, &[before, *value])?;
        }
    }
    let mut outputs = Vec::new();
    let [q, k, v] = split[..] else { return Err(Failure::unsupported("other than three parts")) };
    let heads = Heads::new(&draft, q, k, v)?;
    let mask = match draft.input(3) {
        None => None,
        Some(mask) => Some(kept(&mut draft, mask, &heads)?),
    };
    let layer = Layer { heads, mask, bias: draft.input(5) };
    outputs.push(Some(layer.result(&mut draft)?));
    if draft.outputs > 1 {
        let (keys, values) = (draft.unsqueeze(k, vec![0])?, draft.unsqueeze(v, vec![0])?);
        outputs.push(Some(draft.concat(0, &[keys, values])?));
    }
    draft.finish_with(outputs)
}

/// Columns of the weights that make queries, keys and values.
fn hidden_sizes(draft: &Draft<'_>, weights: Value) -> Result<Vec<i64>, Failure> {
    match draft.attrs.ints("qkv_hidden_sizes").map_err(wrong)? {
        Some(sizes) if sizes.len() == 3 => Ok(sizes),
        Some(sizes) => Err(Failure::unsupported(format!("qkv_hidden_sizes {sizes:?}, expected three"))),
        None => match draft.known_length(weights, 1) {
            Some(width) if width % 3 == 0 => Ok(vec![width / 3; 3]),
            width => Err(Failure::unsupported(format!(
                "weights of {width:?} columns, expected three times as many as hidden"
            ))),
        },
    }
}

/// Queries, keys and values as heads, however they are packed.
fn unpacked(draft: &mut Draft<'_>, count: i64) -> Result<[Value; 3], Failure> {
    let query = draft.operand(0, "query")?;
    let bias = match draft.input(3) {
        None => [None; 3],
        Some(bias) => biases(draft, bias, query)?,
    };
    let rank = |draft: &Draft<'_>, slot: usize| draft.fact(slot).map(rabot_ir::Fact::rank);
    let flat = match (draft.rank_of(query)?, rank(draft, 1), rank(draft, 2)) {
        (5, None, None) => return packed(draft, query, 3, bias).map(|parts| [parts[0], parts[1], parts[2]]),
        (3, Some(5), None) => {
            let key = draft.operand(1, "key")?;
            let pair = packed(draft, key, 2, [bias[1], bias[2], None])?;
            let query = biased(draft, query, bias[0])?;
            return Ok([split_heads(draft, query, count)?, pair[0], pair[1]]);
        }
        // Keys and values that are heads already are those of another layer.
        (3, Some(4), Some(4)) => {
            let query = biased(draft, query, bias[0])?;
            let query = split_heads(draft, query, count)?;
            return Ok([query, draft.operand(1, "key")?, draft.operand(2, "value")?]);
        }
        (3, Some(3), Some(3)) => [query, draft.operand(1, "key")?, draft.operand(2, "value")?],
        (q, k, v) => {
            return Err(Failure::unsupported(format!("query, key and value of ranks {q}, {k:?} and {v:?}")));
        }
    };
    let mut split = flat;
    for (value, bias) in split.iter_mut().zip(bias) {
        let sum = biased(draft, *value, bias)?;
        *value = split_heads(draft, sum, count)?;
    }
    Ok(split)
}

/// The bias of queries, keys and values: as wide as each of them.
fn biases(draft: &mut Draft<'_>, bias: Value, query: Value) -> Result<[Option<Value>; 3], Failure> {
    let unknown = || Failure::unsupported("a bias with widths that are not known");
    let total = draft.known_length(bias, 0).ok_or_else(unknown)?;
    let hidden = match draft.rank_of(query)? {
        3 => draft.known_length(query, 2).ok_or_else(unknown)?,
        _ => total / 3,
    };
    let values =
        total.checked_sub(hidden.saturating_mul(2)).filter(|&width| width > 0).ok_or_else(unknown)?;
    let parts = draft.parts(bias, 0, &[hidden, hidden, values])?;
    Ok([Some(parts[0]), Some(parts[1]), Some(parts[2])])
}

fn biased(draft: &mut Draft<'_>, value: Value, bias: Option<Value>) -> Made {
    match bias {
        None => Ok(value),
        Some(bias) => draft.plus(value, bias),
    }
}

/// `[batch, positions, heads, parts, size]` → each part as heads.
fn packed(
    draft: &mut Draft<'_>,
    value: Value,
    parts: i64,
    bias: [Option<Value>; 3],
) -> Result<Vec<Value>, Failure> {
    if draft.known_length(value, 3) != Some(parts) {
        return Err(Failure::unsupported(format!("a packed operand without {parts} parts")));
    }
    let mut made = Vec::new();
    for (part, bias) in (0..parts).zip(bias) {
        let mut one = draft.at(value, 3, part)?;
        if let Some(bias) = bias {
            let bias = draft.reshape(bias, &[Size::Of(one, 2), Size::Of(one, 3)])?;
            one = draft.plus(one, bias)?;
        }
        made.push(draft.transpose(one, &[0, 2, 1, 3])?);
    }
    Ok(made)
}

fn multi_head(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["mask_filter_value", "num_heads", "scale", "unidirectional"])?;
    draft.check_inputs(8)?;
    if draft.outputs > 3 {
        return Err(Failure::unsupported("the fourth output (qk)"));
    }
    let count = draft.attrs.required_int("num_heads").map_err(wrong)?;
    let [q, mut k, mut v] = unpacked(&mut draft, count)?;
    match (draft.input(6), draft.input(7)) {
        (Some(keys), Some(values)) => {
            k = draft.concat(2, &[keys, k])?;
            v = draft.concat(2, &[values, v])?;
        }
        (None, None) => {}
        _ => return Err(Failure::unsupported("one of past_key and past_value without the other")),
    }
    let heads = Heads::new(&draft, q, k, v)?;
    let mask = match draft.input(4) {
        None => None,
        Some(mask) => Some(kept(&mut draft, mask, &heads)?),
    };
    let layer = Layer { heads, mask, bias: draft.input(5) };
    let y = layer.result(&mut draft)?;
    draft.finish_with(vec![Some(y), Some(k), Some(v)])
}
