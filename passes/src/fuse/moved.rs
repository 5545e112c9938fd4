//! Rules of `fuse` that bring a scale or shift to the convolution whose channels it belongs to, past the transpose that
//! an exporter put between them; the rules of `affine` then fold it.

use rabot_ir::ops::Transpose;
use rabot_ir::{Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};

pub(super) const RULES: &[RuleInfo] = &[RuleInfo {
    name: "affine-before-transpose",
    identity: "f(transpose(W x, p), c) = transpose(f(W x, transpose(c, inverse of p)), p) for f of elements",
    lhs: &[
        "Mul(moved:Transpose(linear:Conv|ConvTranspose(_x, #_w, [_b])), #c)",
        "Div(moved:Transpose(linear:Conv|ConvTranspose(_x, #_w, [_b])), #c)",
        "Add(moved:Transpose(linear:Conv|ConvTranspose(_x, #_w, [_b])), #c)",
        "Sub(moved:Transpose(linear:Conv|ConvTranspose(_x, #_w, [_b])), #c)",
    ],
    uses: &["moved", "linear", "c"],
    apply: before_transpose,
    ..RuleInfo::BITWISE
}];

/// The axis of channels.
const CHANNEL: usize = 1;

fn before_transpose(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let root = Value { node: found.root, slot: 0 };
    let (moved, linear) = (rewriter.value(found, "moved")?, rewriter.value(found, "linear")?);
    let c = rewriter.tensor(found, "c")?;
    let rank = rewriter.fact(moved).rank();
    if rewriter.fact(root).shape() != rewriter.fact(moved).shape() {
        return Err(Skip::NoMatch);
    }
    let Op::Transpose(op) = &rewriter.node(moved).op else { return Err(Skip::NoMatch) };
    let perm = op.perm.clone().unwrap_or_else(|| (0..rank).rev().collect());
    let mut inverse = vec![0; rank];
    for (to, &from) in perm.iter().enumerate() {
        *inverse.get_mut(from).ok_or(Skip::NoMatch)? = to;
    }
    // Broadcasting puts axes of size 1 before those that are there.
    let missing = rank.checked_sub(c.rank()).ok_or(Skip::NoMatch)?;
    let shape = [&vec![1; missing][..], c.shape()].concat();
    let transpose = |perm: &[usize]| Op::Transpose(Transpose { perm: Some(perm.to_vec()) });
    let c = c.reshaped(&shape).ok().and_then(|c| transpose(&inverse).eval(&[Some(&c)]).ok()?.pop());
    let c = c.ok_or(Skip::NoMatch)?;
    if c.shape().iter().enumerate().any(|(axis, size)| axis != CHANNEL && *size != 1) {
        return Err(Skip::because("the constant varies not only along the channels"));
    }
    let c = rewriter.constant(c, "constant");
    let function = rewriter.node(root).op.clone();
    let result = rewriter.add(function, vec![Some(linear), Some(c)], "scaled")?;
    rewriter.add(transpose(&perm), vec![Some(result)], "transposed")
}
