//! Losses of classifications.

use super::Row;
use super::emit::{working, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};

pub(super) const TABLE: &[Row] =
    &[("", "NegativeLogLikelihoodLoss", likelihood), ("", "SoftmaxCrossEntropyLoss", cross_entropy)];

/// The loss of log probabilities.
fn likelihood(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let x = draft.operand(0, "input")?;
    let dtype = draft.dtype_of(x);
    let wide = draft.cast(x, working(dtype))?;
    let loss = loss(&mut draft, wide)?;
    let loss = draft.cast(loss, dtype)?;
    draft.finish_with(vec![Some(loss)])
}

/// The loss of scores, and their log probabilities.
fn cross_entropy(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let x = draft.operand(0, "scores")?;
    let dtype = draft.dtype_of(x);
    let wide = draft.cast(x, working(dtype))?;
    let log = draft.node_with("LogSoftmax", &Attrs::new().with("axis", Attr::Int(1)), &[wide])?;
    let loss = loss(&mut draft, log)?;
    let (loss, log) = (draft.cast(loss, dtype)?, draft.cast(log, dtype)?);
    draft.finish_with(vec![Some(loss), Some(log)])
}

/// `−x[class]` of each element, weighted, and their mean or sum.
fn loss(draft: &mut Draft<'_>, x: Value) -> Result<Value, Failure> {
    draft.check_attrs(&["ignore_index", "reduction"])?;
    draft.check_inputs(3)?;
    let reduction = draft.attrs.str("reduction", "mean").map_err(wrong)?;
    let target = draft.operand(1, "target")?;
    let (work, index) = (draft.dtype_of(x), draft.dtype_of(target));
    let zero = draft.number(work, 0.0);
    let ignored = match draft.attrs.get("ignore_index") {
        None => None,
        Some(_) => {
            let class = draft.attrs.int("ignore_index", 0).map_err(wrong)?;
            let class = draft.integer(index, class);
            Some(draft.node("Equal", &[target, class])?)
        }
    };
    // What is ignored may be no class at all.
    let class = match ignored {
        None => target,
        Some(ignored) => {
            let first = draft.integer(index, 0);
            draft.node("Where", &[ignored, first, target])?
        }
    };
    let column = draft.unsqueeze(class, vec![1])?;
    let taken = draft.node_with("GatherElements", &Attrs::new().with("axis", Attr::Int(1)), &[x, column])?;
    let axes = draft.list("axes", vec![1]);
    let taken = draft.node("Squeeze", &[taken, axes])?;
    let mut each = draft.node("Neg", &[taken])?;
    let weight = weights(draft, class, ignored, zero)?;
    if let Some(weight) = weight {
        each = draft.node("Mul", &[each, weight])?;
    }
    if let Some(ignored) = ignored {
        each = draft.node("Where", &[ignored, zero, each])?;
    }
    match (reduction.as_str(), weight) {
        ("none", _) => Ok(each),
        ("sum", _) => draft.reduce_all("ReduceSum", each),
        ("mean", None) => draft.reduce_all("ReduceMean", each),
        ("mean", Some(weight)) => {
            let (sum, all) = (draft.reduce_all("ReduceSum", each)?, draft.reduce_all("ReduceSum", weight)?);
            draft.node("Div", &[sum, all])
        }
        (other, _) => {
            Err(Failure::unsupported(format!("reduction = `{other}`; expected `none`, `mean` or `sum`")))
        }
    }
}

/// The weight of each element, if they are not all 1.
fn weights(
    draft: &mut Draft<'_>,
    class: Value,
    ignored: Option<Value>,
    zero: Value,
) -> Result<Option<Value>, Failure> {
    let work = draft.dtype_of(zero);
    let weight = match draft.input(2) {
        None if ignored.is_none() => return Ok(None),
        None => draft.number(work, 1.0),
        Some(weights) => {
            let weights = draft.cast(weights, work)?;
            draft.node_with("Gather", &Attrs::new().with("axis", Attr::Int(0)), &[weights, class])?
        }
    };
    match ignored {
        None => Ok(Some(weight)),
        Some(ignored) => Ok(Some(draft.node("Where", &[ignored, zero, weight])?)),
    }
}
