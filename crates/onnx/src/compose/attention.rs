//! Attention as products and a softmax.
//!
//! Floats of less than 32 bits are computed in f32 and rounded where the specification has results of their dtype.
//! Query heads that share a head of keys and values are rows of one product, so that nothing is repeated.

use super::Row;
use super::emit::{Size, working, wrong};
use crate::dtype;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Dim, Value};
use rabot_tensor::{DType, Tensor};

pub(super) const TABLE: &[Row] = &[("", "Attention", attention)];

/// Queries, keys and values of all heads: batch, heads, positions, head size.
pub(crate) struct Heads {
    pub(super) q: Value,
    pub(super) k: Value,
    pub(super) v: Value,
    /// Heads of queries, and those of keys and values, where they are not as many.
    pub(super) shared: Option<(i64, i64)>,
}

impl Heads {
    /// Of values in that form.
    ///
    /// **Errors**: ranks other than 4; numbers of heads of which one is not a multiple of the other.
    pub(super) fn new(draft: &Draft<'_>, q: Value, k: Value, v: Value) -> Result<Self, Failure> {
        for value in [q, k, v] {
            let rank = draft.rank_of(value)?;
            if rank != 4 {
                return Err(Failure::unsupported(format!("an operand of rank {rank}, expected 4")));
            }
        }
        let (queries, keys) = (draft.shape_of(q)?[1].clone(), draft.shape_of(k)?[1].clone());
        let shared = match (queries == keys, queries.as_const(), keys.as_const()) {
            (true, _, _) => None,
            (false, Some(queries), Some(keys)) if keys > 0 && queries % keys == 0 => Some((queries, keys)),
            _ => {
                return Err(Failure::unsupported(format!(
                    "{queries} heads of queries for {keys} of keys; the one must be a multiple of the other"
                )));
            }
        };
        Ok(Heads { q, k, v, shared })
    }

    /// Rows of all heads that share keys as those of one.
    fn folded(&self, draft: &mut Draft<'_>, rows: Value) -> Result<Value, Failure> {
        match self.shared {
            None => Ok(rows),
            Some((_, keys)) => {
                draft.reshape(rows, &[Size::Of(rows, 0), Size::Is(keys), Size::Rest, Size::Of(rows, 3)])
            }
        }
    }

    /// The other way round; `last` tells the size of a row.
    fn unfolded(&self, draft: &mut Draft<'_>, rows: Value, last: Size) -> Result<Value, Failure> {
        match self.shared {
            None => Ok(rows),
            Some((queries, _)) => {
                draft.reshape(rows, &[Size::Of(self.q, 0), Size::Is(queries), Size::Of(self.q, 2), last])
            }
        }
    }

    /// `scale · q · kᵀ` in the working dtype. Without a scale it is one over the root of the head size.
    pub(super) fn scores(&self, draft: &mut Draft<'_>, scale: Option<f32>) -> Result<Value, Failure> {
        let work = working(draft.dtype_of(self.q));
        let (q, k) = (draft.cast(self.q, work)?, draft.cast(self.k, work)?);
        let size = draft.shape_of(self.q)?[3].as_const();
        let factor = match (scale, size) {
            (Some(scale), _) => draft.number(work, f64::from(scale)),
            (None, Some(size)) => draft.number(work, 1.0 / (size as f64).sqrt()),
            (None, None) => {
                let size = draft.dim(self.q, 3)?;
                let size = draft.cast(size, work)?;
                let root = draft.node("Sqrt", &[size])?;
                draft.node("Reciprocal", &[root])?
            }
        };
        let q = draft.node("Mul", &[q, factor])?;
        let q = self.folded(draft, q)?;
        let k = draft.transpose(k, &[0, 1, 3, 2])?;
        let scores = draft.node("MatMul", &[q, k])?;
        self.unfolded(draft, scores, Size::Of(self.k, 2))
    }

    /// `probabilities · v`.
    pub(super) fn mix(&self, draft: &mut Draft<'_>, probabilities: Value) -> Result<Value, Failure> {
        let v = draft.cast(self.v, draft.dtype_of(probabilities))?;
        let rows = self.folded(draft, probabilities)?;
        let mixed = draft.node("MatMul", &[rows, v])?;
        self.unfolded(draft, mixed, Size::Of(self.v, 3))
    }
}

/// The attribute `softmax_precision`.
pub(super) fn softmax_precision(draft: &Draft<'_>) -> Result<Option<DType>, Failure> {
    if draft.attrs.get("softmax_precision").is_none() {
        return Ok(None);
    }
    let code = draft.attrs.int("softmax_precision", 0).map_err(wrong)?;
    match i32::try_from(code).ok().and_then(|code| dtype::from_code(code).ok()) {
        Some(precision @ (DType::F32 | DType::F64 | DType::F16 | DType::BF16)) => Ok(Some(precision)),
        _ => Err(Failure::unsupported(format!("softmax_precision = {code}, which is no float type"))),
    }
}

/// A float attribute that may be absent.
pub(super) fn optional_float(draft: &Draft<'_>, name: &str) -> Result<Option<f32>, Failure> {
    draft.attrs.get(name).map(|_| draft.attrs.float(name, 0.0).map_err(wrong)).transpose()
}

/// What the attributes say.
struct Settings {
    causal: bool,
    /// Positions before and after its own that a query sees.
    window: [Option<i64>; 2],
    softcap: f32,
    scale: Option<f32>,
    precision: Option<DType>,
    /// Which of the intermediate results the fourth output is.
    mode: i64,
}

impl Settings {
    fn read(draft: &Draft<'_>) -> Result<Self, Failure> {
        let known = [
            "is_causal",
            "kv_num_heads",
            "q_num_heads",
            "qk_matmul_output_mode",
            "scale",
            "softcap",
            "softmax_precision",
            "left_window_size",
            "right_window_size",
        ];
        draft.check_attrs(if draft.opset < 25 { &known[..7] } else { &known })?;
        draft.check_inputs(if draft.opset < 24 { 6 } else { 7 })?;
        let int = |name: &str, default: i64| draft.attrs.int(name, default).map_err(wrong);
        let side = |name: &str| match int(name, -1)? {
            -1 => Ok(None),
            size if size >= 0 => Ok(Some(size)),
            size => Err(Failure::unsupported(format!("{name} = {size}; expected -1 or more"))),
        };
        let mode = int("qk_matmul_output_mode", 0)?;
        if !(0..=3).contains(&mode) {
            return Err(Failure::unsupported(format!("qk_matmul_output_mode = {mode}; expected 0 to 3")));
        }
        Ok(Settings {
            causal: int("is_causal", 0)? != 0,
            window: [side("left_window_size")?, side("right_window_size")?],
            softcap: draft.attrs.float("softcap", 0.0).map_err(wrong)?,
            scale: optional_float(draft, "scale")?,
            precision: softmax_precision(draft)?,
            mode,
        })
    }
}

/// What keeps queries from keys.
struct Masks {
    /// True where a query sees a key.
    allowed: Option<Value>,
    /// Added to the scores.
    bias: Option<Value>,
    /// Queries may see no key at all.
    may_be_empty: bool,
}

fn attention(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let settings = Settings::read(&draft)?;
    let (q, k, v) = (draft.operand(0, "Q")?, draft.operand(1, "K")?, draft.operand(2, "V")?);
    let dtype = draft.dtype_of(q);
    let flat = draft.rank_of(q)? == 3;
    let [q, mut k, mut v] = if flat { split_heads(&mut draft, q, k, v)? } else { [q, k, v] };
    let past = [draft.input(4), draft.input(5)];
    match past {
        [Some(keys), Some(values)] => {
            k = draft.concat(2, &[keys, k])?;
            v = draft.concat(2, &[values, v])?;
        }
        [None, None] => {}
        _ => return Err(Failure::unsupported("one of past_key and past_value without the other")),
    }
    let heads = Heads::new(&draft, q, k, v)?;
    let raw = heads.scores(&mut draft, settings.scale)?;
    let capped = softcap(&mut draft, raw, settings.softcap)?;
    let masks = masks(&mut draft, &settings, &heads, working(dtype))?;
    let masked = masks.apply(&mut draft, capped)?;
    let probabilities = softmax(&mut draft, &masks, masked, settings.precision)?;
    let mixed = heads.mix(&mut draft, probabilities)?;
    let mut y = draft.cast(mixed, dtype)?;
    if flat {
        let rows = draft.transpose(y, &[0, 2, 1, 3])?;
        y = draft.reshape(rows, &[Size::Of(q, 0), Size::Of(q, 2), Size::Rest])?;
    }
    let mut outputs = vec![Some(y), Some(k), Some(v)];
    if draft.outputs > 3 {
        let shown = [raw, capped, masked, probabilities][settings.mode as usize];
        outputs.push(Some(draft.cast(shown, dtype)?));
    }
    outputs.truncate(draft.outputs.max(1));
    draft.finish_with(outputs)
}

/// Batch, positions, heads · head size → batch, heads, positions, head size.
fn split_heads(draft: &mut Draft<'_>, q: Value, k: Value, v: Value) -> Result<[Value; 3], Failure> {
    let queries = draft.attrs.required_int("q_num_heads").map_err(wrong)?;
    let keys = draft.attrs.required_int("kv_num_heads").map_err(wrong)?;
    let mut split = [q, k, v];
    for (value, heads) in split.iter_mut().zip([queries, keys, keys]) {
        let shape = draft.shape_of(*value)?;
        let fits = |size: &Dim| size.as_const().is_none_or(|size| heads > 0 && size % heads == 0);
        if shape.len() != 3 || heads < 1 || !fits(&shape[2]) {
            return Err(Failure::unsupported(format!("{heads} heads of an operand of shape {shape:?}")));
        }
        let apart = [Size::Of(*value, 0), Size::Of(*value, 1), Size::Is(heads), Size::Rest];
        let apart = draft.reshape(*value, &apart)?;
        *value = draft.transpose(apart, &[0, 2, 1, 3])?;
    }
    Ok(split)
}

/// `cap · tanh(x / cap)`, or x where there is no cap.
fn softcap(draft: &mut Draft<'_>, x: Value, cap: f32) -> Result<Value, Failure> {
    if cap <= 0.0 {
        return Ok(x);
    }
    let cap = draft.number(draft.dtype_of(x), f64::from(cap));
    let ratio = draft.node("Div", &[x, cap])?;
    let bent = draft.node("Tanh", &[ratio])?;
    draft.node("Mul", &[bent, cap])
}

fn masks(draft: &mut Draft<'_>, settings: &Settings, heads: &Heads, work: DType) -> Result<Masks, Failure> {
    let mut masks = Masks { allowed: None, bias: None, may_be_empty: false };
    if let Some(mask) = draft.input(3) {
        masks.may_be_empty = true;
        let mask = lengthened(draft, mask, heads.k)?;
        match draft.dtype_of(mask) {
            DType::Bool => masks.allowed = Some(mask),
            _ => masks.bias = Some(draft.cast(mask, work)?),
        }
    }
    let valid = draft.input(6);
    let past = draft.input(4);
    if valid.is_some() && past.is_some() {
        return Err(Failure::unsupported("nonpad_kv_seqlen together with past_key"));
    }
    if settings.causal || settings.window != [None, None] {
        masks.may_be_empty |= settings.window != [None, None];
        let distance = distance(draft, heads, past, valid)?;
        let zero = draft.integer(DType::I64, 0);
        if settings.causal {
            let seen = draft.node("GreaterOrEqual", &[distance, zero])?;
            masks.also(draft, seen)?;
        }
        if let Some(left) = settings.window[0] {
            let left = draft.integer(DType::I64, left);
            let seen = draft.node("LessOrEqual", &[distance, left])?;
            masks.also(draft, seen)?;
        }
        if let Some(right) = settings.window[1] {
            let right = draft.integer(DType::I64, right.saturating_neg());
            let seen = draft.node("GreaterOrEqual", &[distance, right])?;
            masks.also(draft, seen)?;
        }
    }
    if let Some(valid) = valid {
        masks.may_be_empty = true;
        let key = draft.positions(heads.k, 2)?;
        let valid = draft.unsqueeze(valid, vec![1, 2, 3])?;
        let seen = draft.node("Less", &[key, valid])?;
        masks.also(draft, seen)?;
    }
    Ok(masks)
}

/// The mask with as many keys as there are: what it does not cover is not seen. Since opset 24.
fn lengthened(draft: &mut Draft<'_>, mask: Value, k: Value) -> Result<Value, Failure> {
    let shape = draft.shape_of(mask)?;
    let Some((last, axis)) = shape.last().zip(shape.len().checked_sub(1)) else { return Ok(mask) };
    let keys = draft.shape_of(k)?[2].clone();
    if *last == keys || draft.opset < 24 {
        return Ok(mask);
    }
    let (covered, all) = (draft.dims(mask, axis, axis + 1)?, draft.dims(k, 2, 3)?);
    let missing = draft.node("Sub", &[all, covered])?;
    let none = draft.list("pads", vec![0; 2 * axis + 1]);
    let pads = draft.concat(0, &[none, missing])?;
    let dtype = draft.dtype_of(mask);
    let unseen = match dtype {
        DType::Bool => draft.constant("unseen", Tensor::from_bools(&[], &[false])),
        dtype if dtype.is_int() => {
            return Err(Failure::unsupported(format!("a mask of {dtype} that is shorter than the keys")));
        }
        dtype => draft.number(dtype, f64::NEG_INFINITY),
    };
    draft.node("Pad", &[mask, pads, unseen])
}

/// How far each query is behind each key: its position, with the keys before it counted, minus the key's.
fn distance(
    draft: &mut Draft<'_>,
    heads: &Heads,
    past: Option<Value>,
    valid: Option<Value>,
) -> Result<Value, Failure> {
    let mut query = draft.positions(heads.q, 2)?;
    query = draft.unsqueeze(query, vec![1])?;
    let key = draft.positions(heads.k, 2)?;
    if let Some(past) = past {
        let before = draft.dim(past, 2)?;
        query = draft.node("Add", &[query, before])?;
    } else if let Some(valid) = valid {
        let own = draft.dim(heads.q, 2)?;
        let before = draft.node("Sub", &[valid, own])?;
        let before = draft.unsqueeze(before, vec![1, 2, 3])?;
        query = draft.node("Add", &[query, before])?;
    }
    draft.node("Sub", &[query, key])
}

impl Masks {
    /// Only keys that are seen by this too.
    fn also(&mut self, draft: &mut Draft<'_>, seen: Value) -> Result<(), Failure> {
        self.allowed = Some(match self.allowed {
            None => seen,
            Some(before) => draft.node("And", &[before, seen])?,
        });
        Ok(())
    }

    /// Scores with the mask added, and −∞ for what is not seen.
    fn apply(&self, draft: &mut Draft<'_>, scores: Value) -> Result<Value, Failure> {
        let mut masked = scores;
        if let Some(bias) = self.bias {
            masked = draft.node("Add", &[masked, bias])?;
        }
        self.seen(draft, masked)
    }

    /// −∞ for what is not seen.
    fn seen(&self, draft: &mut Draft<'_>, values: Value) -> Result<Value, Failure> {
        let Some(allowed) = self.allowed else { return Ok(values) };
        let unseen = draft.number(draft.dtype_of(values), f64::NEG_INFINITY);
        draft.node("Where", &[allowed, values, unseen])
    }
}

/// Probabilities; those of a query that sees no key are 0.
fn softmax(
    draft: &mut Draft<'_>,
    masks: &Masks,
    scores: Value,
    precision: Option<DType>,
) -> Result<Value, Failure> {
    let work = draft.dtype_of(scores);
    let scores = draft.cast(scores, precision.unwrap_or(work))?;
    let probabilities = draft.node_with("Softmax", &Attrs::new().with("axis", Attr::Int(-1)), &[scores])?;
    let probabilities = draft.cast(probabilities, work)?;
    if !masks.may_be_empty {
        return Ok(probabilities);
    }
    let zero = draft.number(work, 0.0);
    let bias = masks.bias.unwrap_or(zero);
    let bias = masks.seen(draft, bias)?;
    let most = draft.reduce("ReduceMax", bias, &[-1])?;
    let lowest = draft.number(work, f64::NEG_INFINITY);
    let empty = draft.node("Equal", &[most, lowest])?;
    draft.node("Where", &[empty, zero, probabilities])
}
