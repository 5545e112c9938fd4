//! `GroupQueryAttention`: attention over a cache that rows of a batch fill to different lengths.
//!
//! Row `b` has `seqlens_k[b] + 1` keys after this call. Its new keys come behind those that were there before: none if the
//! call is a first prompt (as many queries as `total_sequence_length`), else all but as many as there are queries. Behind
//! the last new key, a cache of the longest row's length holds zeros.

use super::DOMAIN;
use super::attention::{join_heads, scale, split_heads};
use super::rotary::Turn;
use crate::compose::Row;
use crate::compose::attention::Heads;
use crate::compose::chain::Made;
use crate::compose::emit::{Size, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::DType;

pub(super) const TABLE: &[Row] = &[(DOMAIN, "GroupQueryAttention", grouped)];

const KNOWN: [&str; 17] = [
    "causal",
    "do_rotary",
    "k_norm_epsilon",
    "k_quant_type",
    "kv_cache_bit_width",
    "kv_num_heads",
    "local_window_size",
    "num_heads",
    "q_norm_epsilon",
    "qk_norm_epsilon",
    "qk_output",
    "rotary_interleaved",
    "scale",
    "sliding_window_cache",
    "smooth_softmax",
    "softcap",
    "v_quant_type",
];

/// What cannot be: a quantized cache, normalized heads, chunks with padding.
fn check(draft: &Draft<'_>) -> Result<(), Failure> {
    draft.check_attrs(&KNOWN)?;
    for name in ["kv_cache_bit_width", "qk_output", "sliding_window_cache"] {
        if draft.int_attr(name, 0)? != 0 {
            return Err(Failure::unsupported(format!("attribute `{name}`")));
        }
    }
    for name in ["k_quant_type", "v_quant_type"] {
        if draft.attrs.str(name, "NONE").map_err(wrong)? != "NONE" {
            return Err(Failure::unsupported("a quantized cache"));
        }
    }
    match draft.inputs.len() > 12 || draft.outputs > 3 {
        true => Err(Failure::unsupported("inputs after head_sink, or the output of products")),
        false => Ok(()),
    }
}

/// The new queries, keys and values as heads.
fn new_heads(draft: &mut Draft<'_>) -> Result<[Value; 3], Failure> {
    let queries = draft.attrs.required_int("num_heads").map_err(wrong)?;
    let keys = draft.attrs.required_int("kv_num_heads").map_err(wrong)?;
    let query = draft.operand(0, "query")?;
    let parts = match (draft.input(1), draft.input(2)) {
        (Some(key), Some(value)) => vec![query, key, value],
        (None, None) => {
            let heads = keys.checked_mul(2).and_then(|both| both.checked_add(queries)).unwrap_or(0);
            let width = draft.known_length(query, 2).filter(|width| heads > 0 && width % heads == 0);
            let size = width.ok_or_else(|| Failure::unsupported("a packed query of such a width"))? / heads;
            draft.parts(query, 2, &[queries * size, keys * size, keys * size])?
        }
        _ => return Err(Failure::unsupported("one of key and value without the other")),
    };
    let mut split = Vec::new();
    for (part, heads) in parts.into_iter().zip([queries, keys, keys]) {
        split.push(split_heads(draft, part, heads)?);
    }
    Ok([split[0], split[1], split[2]])
}

/// How many keys each row of the batch has before and after this call: `[batch]`, i64.
#[derive(Clone, Copy)]
struct Counts {
    before: Value,
    after: Value,
}

fn counts(draft: &mut Draft<'_>, q: Value) -> Result<Counts, Failure> {
    let (lengths, total) = (draft.operand(5, "seqlens_k")?, draft.operand(6, "total_sequence_length")?);
    let lengths = draft.cast(lengths, DType::I64)?;
    let lengths = draft.reshape(lengths, &[Size::Rest])?;
    let own = draft.dim(q, 2)?;
    let total = scalar(draft, total)?;
    let first = draft.node("Equal", &[own, total])?;
    let one = draft.integer(DType::I64, 1);
    let after = draft.plus(lengths, one)?;
    let rest = draft.minus(after, own)?;
    let zero = draft.integer(DType::I64, 0);
    Ok(Counts { before: draft.node("Where", &[first, zero, rest])?, after })
}

/// An integer operand of one element as a scalar of i64.
fn scalar(draft: &mut Draft<'_>, value: Value) -> Made {
    let wide = draft.cast(value, DType::I64)?;
    match draft.rank_of(wide)? {
        0 => Ok(wide),
        rank => draft.squeezed(wide, &(0..rank as i64).collect::<Vec<_>>()),
    }
}

/// New keys or values behind the old ones of each row, as long as the longest row or the cache.
fn appended(draft: &mut Draft<'_>, past: Option<Value>, new: Value, counts: Counts) -> Made {
    let total = draft.operand(6, "total_sequence_length")?;
    let total = scalar(draft, total)?;
    let own = draft.dim(new, 2)?;
    let (all, old) = match past {
        None => (new, draft.integer(DType::I64, 0)),
        Some(past) => (draft.concat(2, &[past, new])?, draft.dim(past, 2)?),
    };
    // Place `t` holds an old key below the number of those of the row, else a new one.
    let length = draft.node("Max", &[total, old])?;
    let (zero, one) = (draft.integer(DType::I64, 0), draft.integer(DType::I64, 1));
    let places = draft.node("Range", &[zero, length, one])?;
    let column = draft.unsqueeze(counts.before, vec![1])?;
    let is_old = draft.node("Less", &[places, column])?;
    let offset = draft.minus(places, column)?;
    let last = draft.minus(own, one)?;
    let offset = draft.node("Min", &[offset, last])?;
    let fresh = draft.plus(offset, old)?;
    let from = draft.node("Where", &[is_old, places, fresh])?;
    // Rows of the batch one after the other: `[batch · stored, heads, size]`.
    let rows = draft.transpose(all, &[0, 2, 1, 3])?;
    let stored = draft.dim(rows, 1)?;
    let batch = draft.positions(rows, 0)?;
    let base = draft.times(batch, stored)?;
    let base = draft.unsqueeze(base, vec![1])?;
    let index = draft.plus(from, base)?;
    let flat = draft.reshape(rows, &[Size::Rest, Size::Of(rows, 2), Size::Of(rows, 3)])?;
    let picked = draft.node_with("Gather", &Attrs::new().with("axis", Attr::Int(0)), &[flat, index])?;
    // The new keys of a first prompt are stored whole, though rows may use fewer.
    let end = draft.plus(counts.before, own)?;
    let end = draft.unsqueeze(end, vec![1])?;
    let used = draft.node("Less", &[places, end])?;
    let used = draft.unsqueeze(used, vec![2, 3])?;
    let zero = draft.scalar_like(picked, 0.0);
    let picked = draft.node("Where", &[used, picked, zero])?;
    draft.transpose(picked, &[0, 2, 1, 3])
}

/// Places of the queries: `[batch, positions]`.
fn places(draft: &mut Draft<'_>, q: Value, before: Value) -> Made {
    let own = draft.positions(q, 2)?;
    let column = draft.unsqueeze(before, vec![1])?;
    draft.plus(own, column)
}

/// Where queries see keys, `[batch, 1, queries, keys]`.
fn seen(draft: &mut Draft<'_>, heads: &Heads, places: Value, counts: Counts) -> Made {
    let window = draft.int_attr("local_window_size", -1)?;
    let key = draft.positions(heads.k, 2)?;
    let end = draft.unsqueeze(counts.after, vec![1, 2, 3])?;
    let used = draft.node("Less", &[key, end])?;
    if !draft.flag("causal", true)? {
        return Ok(used);
    }
    let query = draft.unsqueeze(places, vec![1, 3])?;
    let earlier = draft.node("LessOrEqual", &[key, query])?;
    let seen = draft.node("And", &[used, earlier])?;
    if window < 1 {
        return Ok(seen);
    }
    let window = draft.integer(DType::I64, window);
    let oldest = draft.minus(query, window)?;
    let near = draft.node("Greater", &[key, oldest])?;
    draft.node("And", &[seen, near])
}

fn grouped(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    check(&draft)?;
    let [mut q, mut k, v] = new_heads(&mut draft)?;
    let counts = counts(&mut draft, q)?;
    let places = places(&mut draft, q, counts.before)?;
    if draft.flag("do_rotary", false)? {
        let tables = [draft.operand(7, "cos_cache")?, draft.operand(8, "sin_cache")?];
        let positions = draft.input(9).unwrap_or(places);
        let interleaved = draft.flag("rotary_interleaved", false)?;
        let turn = Turn::new(&mut draft, tables, positions, interleaved)?;
        (q, k) = (turn.of(&mut draft, q)?, turn.of(&mut draft, k)?);
    }
    let past = [draft.input(3), draft.input(4)];
    let k = appended(&mut draft, past[0], k, counts)?;
    let v = appended(&mut draft, past[1], v, counts)?;
    let dtype = draft.dtype_of(q);
    let heads = Heads::new(&draft, q, k, v)?;
    let factor = scale(&draft)?;
    let mut scores = heads.scores(&mut draft, factor)?;
    let cap = draft.float_attr("softcap", 0.0)?;
    if cap > 0.0 {
        let cap = draft.scalar_like(scores, cap);
        let bent = draft.over(scores, cap)?;
        let bent = draft.node("Tanh", &[bent])?;
        scores = draft.times(bent, cap)?;
    }
    let work = draft.dtype_of(scores);
    if let Some(bias) = draft.input(10) {
        let bias = draft.cast(bias, work)?;
        scores = draft.plus(scores, bias)?;
    }
    let seen = seen(&mut draft, &heads, places, counts)?;
    let unseen = draft.number(work, f64::NEG_INFINITY);
    let scores = draft.node("Where", &[seen, scores, unseen])?;
    let probabilities = softmax(&mut draft, scores)?;
    let mixed = heads.mix(&mut draft, probabilities)?;
    let mixed = draft.cast(mixed, dtype)?;
    let y = join_heads(&mut draft, mixed)?;
    draft.finish_with(vec![Some(y), Some(k), Some(v)])
}

/// Probabilities; with a sink, a number of each head counts as one more score that takes its part and gives nothing.
fn softmax(draft: &mut Draft<'_>, scores: Value) -> Made {
    let work = draft.dtype_of(scores);
    let sink = match (draft.input(11), draft.flag("smooth_softmax", false)?) {
        (Some(sink), _) => {
            let sink = draft.cast(sink, work)?;
            Some(draft.unsqueeze(sink, vec![0, 2, 3])?)
        }
        (None, true) => Some(draft.number(work, 0.0)),
        (None, false) => None,
    };
    let attrs = Attrs::new().with("axis", Attr::Int(-1));
    let Some(sink) = sink else { return draft.node_with("Softmax", &attrs, &[scores]) };
    let sizes: Vec<Size> = (0..3).map(|axis| Size::Of(scores, axis)).chain([Size::Is(1)]).collect();
    let shape = draft.sizes(&sizes)?;
    let sink = draft.node("Expand", &[sink, shape])?;
    let all = draft.concat(3, &[sink, scores])?;
    let all = draft.node_with("Softmax", &attrs, &[all])?;
    draft.slice(all, 3, (1, i64::MAX, 1))
}
