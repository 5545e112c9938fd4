//! Rules of `fuse` that recognize one operator in the many that exporters write for it, one file a family.
//!
//! A spelling is first brought to a normal form where that saves variants (a mean written as a sum, the argument of a
//! Gelu's erf), then recognized. Operands are rewritten before their users, so one sweep does both.
//!
//! What no operator stands for has a *canonical form*, which grouping and the planner look for:
//!
//! | what | form |
//! |---|---|
//! | SiLU, and Gelu by a sigmoid | `Mul(x, Sigmoid(x))`, `Mul(x, Sigmoid(Mul(x, 1.702)))`: one elementwise chain |
//! | scale of attention | in the weights of the queries where these are constant, else `Mul` right behind `q · kᵀ` |
//! | mask of attention | `Add` or `Where` between that and `Softmax` |
//! | attention | `MatMul(q, kᵀ)` · `Mul` · `Add` or `Where` · `Softmax(axis=-1)` · `MatMul(_, v)`; each used once |
//! | heads that share keys | the same on 5 dims: q `[b, heads of k, shared, s, d]`, kᵀ `[b, heads of k, 1, d, t]`, v likewise; batch dims broadcast, and only the last product is reshaped back |
//! | rotary embedding | `Add(Mul(y, cos), Mul(Slice(y, step -1), ±sin))` on pairs: y is x with its last dim split in `[2, d/2]` (halves) or `[d/2, 2]` (interleaved), and reversed along the 2 |
//! | cache of keys and values | `Concat(past, new)` along positions, as exporters write it |

mod activation;
mod attention;
mod norm;
mod rotary;
mod softmax;

use rabot_ir::ops::{Binary, BinaryOp, Reduce, Reshape, Unary, UnaryOp};
use rabot_ir::{Dim, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;

/// Every rule: what is recognized by constants that other rules would fold comes first.
pub(super) fn rules() -> Vec<RuleInfo> {
    [activation::RULES, norm::RULES, softmax::RULES, rotary::RULES, attention::RULES].concat()
}

/// The function of `x` in the place of the whole match.
fn unary(rewriter: &mut Rewriter<'_>, found: &Match, op: UnaryOp) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    apply_unary(rewriter, op, x)
}

fn apply_unary(rewriter: &mut Rewriter<'_>, op: UnaryOp, x: Value) -> Result<Value, Skip> {
    rewriter.add(Op::Unary(Unary { op }), vec![Some(x)], "function")
}

fn binary(rewriter: &mut Rewriter<'_>, op: BinaryOp, a: Value, b: Value) -> Result<Value, Skip> {
    rewriter.add(Op::Binary(Binary { op }), vec![Some(a), Some(b)], "binary")
}

/// The one element of a constant.
fn number(rewriter: &Rewriter<'_>, found: &Match, name: &str) -> Result<f64, Skip> {
    let tensor = rewriter.tensor(found, name)?;
    match tensor.len() {
        1 => tensor.to_f64s().first().copied().ok_or(Skip::NoMatch),
        _ => Err(Skip::NoMatch),
    }
}

/// A constant of the dtype of `like`, of rank 0.
fn scalar(rewriter: &mut Rewriter<'_>, like: Value, value: f64, part: &str) -> Value {
    let dtype = rewriter.fact(like).dtype();
    rewriter.constant(Tensor::from_f64s(dtype, &[], &[value]), part)
}

fn root(found: &Match) -> Value {
    Value { node: found.root, slot: 0 }
}

/// The reduction that makes a value.
fn reduction<'a>(rewriter: &'a Rewriter<'_>, value: Value) -> Result<&'a Reduce, Skip> {
    match &rewriter.node(value).op {
        Op::Reduce(reduce) => Ok(reduce),
        _ => Err(Skip::NoMatch),
    }
}

/// The axes of a constant, counted from the front, in order.
fn axes_of(rewriter: &Rewriter<'_>, found: &Match, name: &str, rank: usize) -> Result<Vec<i64>, Skip> {
    let rank = rank as i64;
    let axes = rewriter.tensor(found, name)?.to_i64s();
    let mut axes: Vec<i64> = axes.iter().map(|&axis| if axis < 0 { axis + rank } else { axis }).collect();
    axes.sort_unstable();
    Ok(axes)
}

/// `value` reshaped to `dims`, of which those that are not known must be in the same place as before, but for one.
fn reshape_to(rewriter: &mut Rewriter<'_>, value: Value, dims: &[Dim], part: &str) -> Result<Value, Skip> {
    let from = rewriter.fact(value).shape().to_vec();
    if from == dims {
        return Ok(value);
    }
    let mut inferred = false;
    let mut target = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.iter().enumerate() {
        target.push(match dim.as_const() {
            Some(0) => return Err(Skip::NoMatch),
            Some(size) => size,
            // 0 stands for the dim of the operand.
            None if from.get(axis) == Some(dim) => 0,
            None if !std::mem::replace(&mut inferred, true) => -1,
            None => {
                return Err(Skip::because(format!(
                    "{from:?} to {dims:?} needs a shape computed at run time"
                )));
            }
        });
    }
    let shape = rewriter.constant(Tensor::from_vec(&[target.len()], target), "shape");
    rewriter.add(Op::Reshape(Reshape { allowzero: false }), vec![Some(value), Some(shape)], part)
}

#[cfg(test)]
mod tests;
