//! Operators of the domain `ai.onnx.preview.training`: one step of an optimizer.
//!
//! **Source**: <https://onnx.ai/onnx/operators/index.html#ai-onnx-preview-training>

use super::Row;
use super::chain::Made;
use super::emit::wrong;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::Value;
use rabot_tensor::DType;

const DOMAIN: &str = "ai.onnx.preview.training";

pub(super) const TABLE: &[Row] =
    &[(DOMAIN, "Adagrad", adagrad), (DOMAIN, "Adam", adam), (DOMAIN, "Momentum", momentum)];

/// The operands after learning rate and count, by tensor that is optimized: each has `kinds` of them.
fn tensors(draft: &Draft<'_>, kinds: usize) -> Result<Vec<Vec<Value>>, Failure> {
    let rest = draft.inputs.len().saturating_sub(2);
    if rest == 0 || !rest.is_multiple_of(kinds) {
        let text = format!("{rest} operands after R and T, expected {kinds} for each tensor");
        return Err(Failure::unsupported(text));
    }
    let count = rest / kinds;
    let of =
        |tensor: usize| (0..kinds).map(|kind| draft.operand(2 + kind * count + tensor, "tensors")).collect();
    (0..count).map(of).collect()
}

/// All new tensors, then all of their first accumulators, and so on.
fn by_kind(draft: Draft<'_>, results: &[Vec<Value>]) -> Result<Converted, Failure> {
    let kinds = results.first().map_or(0, Vec::len);
    let all = (0..kinds).flat_map(|kind| results.iter().filter_map(move |of| of.get(kind).copied()));
    let all = all.map(Some).collect();
    draft.finish_with(all)
}

/// The gradient with that of the regularization: norm_coefficient · X + G.
fn regularized(draft: &mut Draft<'_>, x: Value, g: Value, coefficient: f64) -> Made {
    if coefficient == 0.0 {
        return Ok(g);
    }
    let norm = draft.scaled(x, coefficient)?;
    draft.plus(norm, g)
}

/// `then` where T > 0, else `otherwise`.
fn after_first(draft: &mut Draft<'_>, t: Value, then: Value, otherwise: Value) -> Made {
    let zero = draft.number(DType::I64, 0.0);
    let later = draft.node("Greater", &[t, zero])?;
    draft.node("Where", &[later, then, otherwise])
}

fn adagrad(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["decay_factor", "epsilon", "norm_coefficient"])?;
    let (rate, count) = (draft.operand(0, "R")?, draft.operand(1, "T")?);
    let decay = draft.float_attr("decay_factor", 0.0)?;
    let epsilon = draft.float_attr("epsilon", 1e-6)?;
    let norm = draft.float_attr("norm_coefficient", 0.0)?;
    let mut results = Vec::new();
    for of in tensors(&draft, 3)? {
        let [x, g, h] = of[..] else { continue };
        let dtype = draft.dtype_of(x);
        let r = draft.cast(rate, dtype)?;
        let t = draft.cast(count, dtype)?;
        let t = draft.scaled(t, decay)?;
        let divisor = draft.shifted(t, 1.0)?;
        let r = draft.over(r, divisor)?;
        let g = regularized(&mut draft, x, g, norm)?;
        let square = draft.times(g, g)?;
        let h = draft.plus(h, square)?;
        let root = draft.node("Sqrt", &[h])?;
        let root = draft.shifted(root, epsilon)?;
        let step = draft.times(r, g)?;
        let step = draft.over(step, root)?;
        results.push(vec![draft.minus(x, step)?, h]);
    }
    by_kind(draft, &results)
}

/// `keep · old + (1 − keep) · new`.
fn averaged(draft: &mut Draft<'_>, old: Value, new: Value, keep: f64) -> Made {
    let old = draft.scaled(old, keep)?;
    let new = draft.scaled(new, 1.0 - keep)?;
    draft.plus(old, new)
}

/// R · √(1 − βᵀ) / (1 − αᵀ) where T > 0, else R.
fn adjusted_rate(draft: &mut Draft<'_>, rate: Value, count: Value, alpha: f64, beta: f64) -> Made {
    let t = draft.cast(count, DType::F64)?;
    let mut corrections = Vec::new();
    for factor in [alpha, beta] {
        let factor = draft.number(DType::F64, factor);
        let power = draft.node("Pow", &[factor, t])?;
        let one = draft.number(DType::F64, 1.0);
        corrections.push(draft.minus(one, power)?);
    }
    let [below, above] = corrections[..] else {
        return Err(Failure::unsupported("no corrections"));
    };
    let above = draft.node("Sqrt", &[above])?;
    let wide = draft.cast(rate, DType::F64)?;
    let above = draft.times(wide, above)?;
    let later = draft.over(above, below)?;
    after_first(draft, count, later, wide)
}

fn adam(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["alpha", "beta", "epsilon", "norm_coefficient", "norm_coefficient_post"])?;
    let (rate, count) = (draft.operand(0, "R")?, draft.operand(1, "T")?);
    let (alpha, beta) = (draft.float_attr("alpha", 0.9)?, draft.float_attr("beta", 0.999)?);
    let epsilon = draft.float_attr("epsilon", 1e-6)?;
    let norm = draft.float_attr("norm_coefficient", 0.0)?;
    let post = draft.float_attr("norm_coefficient_post", 0.0)?;
    let rate = adjusted_rate(&mut draft, rate, count, alpha, beta)?;
    let mut results = Vec::new();
    for of in tensors(&draft, 4)? {
        let [x, g, v, h] = of[..] else { continue };
        let dtype = draft.dtype_of(x);
        let r = draft.cast(rate, dtype)?;
        let g = regularized(&mut draft, x, g, norm)?;
        let v = averaged(&mut draft, v, g, alpha)?;
        let square = draft.times(g, g)?;
        let h = averaged(&mut draft, h, square, beta)?;
        let root = draft.node("Sqrt", &[h])?;
        let root = draft.shifted(root, epsilon)?;
        let step = draft.times(r, v)?;
        let step = draft.over(step, root)?;
        let x = draft.minus(x, step)?;
        results.push(vec![draft.scaled(x, 1.0 - post)?, v, h]);
    }
    by_kind(draft, &results)
}

fn momentum(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["alpha", "beta", "mode", "norm_coefficient"])?;
    for name in ["alpha", "beta", "mode", "norm_coefficient"] {
        if draft.attrs.get(name).is_none() {
            return Err(Failure::unsupported(format!("attribute `{name}` is missing")));
        }
    }
    let (rate, count) = (draft.operand(0, "R")?, draft.operand(1, "T")?);
    let (alpha, beta) = (draft.float_attr("alpha", 0.0)?, draft.float_attr("beta", 0.0)?);
    let norm = draft.float_attr("norm_coefficient", 0.0)?;
    let nesterov = match draft.attrs.str("mode", "").map_err(wrong)?.as_str() {
        "nesterov" => true,
        "standard" => false,
        other => return Err(Failure::unsupported(format!("mode `{other}`, expected nesterov or standard"))),
    };
    let mut results = Vec::new();
    for of in tensors(&draft, 3)? {
        let [x, g, v] = of[..] else { continue };
        let dtype = draft.dtype_of(x);
        let g = regularized(&mut draft, x, g, norm)?;
        let (later, first) = (draft.number(dtype, beta), draft.number(dtype, 1.0));
        let beta = after_first(&mut draft, count, later, first)?;
        let old = draft.scaled(v, alpha)?;
        let new = draft.times(beta, g)?;
        let v = draft.plus(old, new)?;
        let direction = match nesterov {
            true => {
                let ahead = draft.scaled(v, alpha)?;
                draft.plus(g, ahead)?
            }
            false => v,
        };
        let rate = draft.cast(rate, dtype)?;
        let step = draft.times(rate, direction)?;
        results.push(vec![draft.minus(x, step)?, v]);
    }
    by_kind(draft, &results)
}
