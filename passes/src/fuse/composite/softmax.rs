//! Softmax and its logarithm.

use super::{axes_of, reduction, root};
use crate::fuse::fusion::ROUNDED;
use rabot_ir::ops::Softmax;
use rabot_ir::{Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};

pub(super) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "max-of-lowest",
        identity: "max(x, -inf) = x",
        lhs: &["Max(?x, #c)"],
        uses: &["x", "c"],
        apply: |r, m| {
            let (x, lowest) = (r.value(m, "x")?, r.tensor(m, "c")?);
            let same = r.fact(x).ty == r.fact(root(m)).ty && lowest.dtype().is_float() && lowest.len() == 1;
            let is_lowest = same && lowest.to_f64s().iter().all(|&v| v == f64::NEG_INFINITY);
            if is_lowest { Ok(x) } else { Err(Skip::NoMatch) }
        },
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "softmax",
        identity: "e^(x - max) / sum(e^(x - max)) = softmax(x)",
        lhs: &[
            "Div(e:Exp(Sub(?x, max:ReduceMax(?x, #axes))), sum:ReduceSum(?e, #axes2))",
            "Mul(e:Exp(Sub(?x, max:ReduceMax(?x, #axes))), Reciprocal(sum:ReduceSum(?e, #axes2)))",
        ],
        uses: &["x", "max", "axes", "sum", "axes2"],
        apply: |r, m| softmax(r, m, &[("max", "axes"), ("sum", "axes2")], false),
        ..ROUNDED
    },
    RuleInfo {
        name: "softmax",
        identity: "e^x / sum(e^x) = softmax(x)",
        lhs: &[
            "Div(e:Exp(?x), sum:ReduceSum(?e, #axes))",
            "Mul(e:Exp(?x), Reciprocal(sum:ReduceSum(?e, #axes)))",
        ],
        uses: &["x", "sum", "axes"],
        apply: |r, m| softmax(r, m, &[("sum", "axes")], false),
        ..ROUNDED
    },
    RuleInfo {
        name: "log-softmax",
        identity: "(x - max) - ln(sum(e^(x - max))) = ln(softmax(x))",
        lhs: &["Sub(d:Sub(?x, max:ReduceMax(?x, #axes)), Log(sum:ReduceSum(Exp(?d), #axes2)))"],
        uses: &["x", "max", "axes", "sum", "axes2"],
        apply: |r, m| softmax(r, m, &[("max", "axes"), ("sum", "axes2")], true),
        ..ROUNDED
    },
    RuleInfo {
        name: "log-softmax",
        identity: "x - ln(sum(e^x)) = ln(softmax(x))",
        lhs: &["Sub(?x, sum:ReduceLogSumExp(?x, #axes))", "Sub(?x, Log(sum:ReduceSum(Exp(?x), #axes)))"],
        uses: &["x", "sum", "axes"],
        apply: |r, m| softmax(r, m, &[("sum", "axes")], true),
        ..ROUNDED
    },
    RuleInfo {
        name: "log-softmax",
        identity: "ln(softmax(x)) = log_softmax(x)",
        lhs: &["Log(n:Softmax(?x))"],
        uses: &["n", "x"],
        apply: |r, m| {
            let (x, node) = (r.value(m, "x")?, r.value(m, "n")?);
            let Op::Softmax(Softmax { axis, log: false }) = r.node(node).op else {
                return Err(Skip::NoMatch);
            };
            r.add(Op::Softmax(Softmax { axis, log: true }), vec![Some(x)], "softmax")
        },
        ..ROUNDED
    },
];

/// A softmax of `x`, if all these reductions are over the same single axis, which stays as 1.
fn softmax(
    rewriter: &mut Rewriter<'_>,
    found: &Match,
    reductions: &[(&str, &str)],
    log: bool,
) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let rank = rewriter.fact(x).rank();
    let mut single = None;
    for (name, axes) in reductions {
        let axes = axes_of(rewriter, found, axes, rank)?;
        let [axis] = axes[..] else {
            return Err(Skip::because(format!("it sums over axes {axes:?}, not over one")));
        };
        let keeps = reduction(rewriter, rewriter.value(found, name)?)?.keepdims;
        if single.is_some_and(|single| single != axis) || !(keeps || rank == 1) {
            return Err(Skip::because("maximum and sum are not taken over one axis that stays as 1"));
        }
        single = Some(axis);
    }
    let axis = single.ok_or(Skip::NoMatch)? - rank as i64;
    rewriter.add(Op::Softmax(Softmax { axis, log }), vec![Some(x)], "softmax")
}
