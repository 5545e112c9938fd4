//! Rules about borders and broadcasting: pads that meet, pads that a window has itself, expansions.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,1,3,3]
//! %1 = Constant [0, 0, 1, 0, 0, 0, 0, 0] : i64[8]
//! %2 = Pad(%0, %1) {mode="constant"}
//! %3 = Constant [1, 1] : i64[2]
//! %4 = Constant [0.0] : f32[]
//! %5 = Constant [-1] : i64[1]
//! %6 = Pad(%2, %3, %4, %5) {mode="constant"}
//! %7 = Constant [1.0, 2.0, 3.0, 4.0] : f32[1,1,2,2]
//! %8 = Conv(%6, %7) {pads=[0,0,1,0]}
//! output "y" = %8
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,1,3,3]
//! %1 = Constant [1.0, 2.0, 3.0, 4.0] : f32[1,1,2,2]
//! %2 = Conv(%0, %1) {pads=[1,1,1,1]}
//! output "y" = %2
//! ```

use super::parts::axis_of;
use super::root;
use rabot_ir::ops::{AutoPad, Pad, PadMode, PoolKind, Window};
use rabot_ir::{Op, Value};
use rabot_rewrite::{Exactness, Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::{DType, Tensor};

pub(in crate::canonicalize) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "pad-of-pad",
        identity: "pad(pad(x, p, v), q, v) = pad(x, p + q, v), where nothing is cut off",
        lhs: &["Pad(inner:Pad(?x, #p, [#v], [#a]), #q, [#w], [#b])"],
        uses: &["inner", "x", "p", "v", "a", "q", "w", "b"],
        apply: pad_of_pad,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "pad-into-conv",
        identity: "a convolution of x with a border of 0 has the border as its own padding, for finite weights",
        lhs: &["Conv(pad:Pad(?x, #p, [#v], [#a]), #w, [?bias])"],
        uses: &["pad", "x", "p", "v", "a", "w", "bias"],
        apply: pad_into_conv,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "pad-into-max",
        identity: "a maximum over x with a border of -inf is a maximum with padding",
        lhs: &["MaxPool(pad:Pad(?x, #p, [#v], [#a]))"],
        uses: &["pad", "x", "p", "v", "a"],
        apply: pad_into_pool,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "expand-of-expand",
        identity: "expand(expand(x, s), t) = expand(x, t), where t is the whole shape",
        lhs: &["Expand(Expand(?x, _shape), ?target)"],
        uses: &["x", "target"],
        apply: expand_of_expand,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "expand-then-broadcast",
        identity: "expand(x) op y = x op y, where broadcasting does what the expand did",
        lhs: &[
            "Add|Mul|And|Or|Xor|Max|Min|Sum(Expand(?x, _shape), ?y)",
            "Sub|Div|Pow|Mod|Equal|Less|LessOrEqual|Greater|GreaterOrEqual|Mean(Expand(?x, _shape), ?y)",
        ],
        uses: &["x", "y"],
        apply: |r, m| broadcast(r, m, &["x", "y"]),
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "broadcast-with-expand",
        identity: "x op expand(y) = x op y, where broadcasting does what the expand did",
        lhs: &["Sub|Div|Pow|Mod|Equal|Less|LessOrEqual|Greater|GreaterOrEqual|Mean(?x, Expand(?y, _shape))"],
        uses: &["x", "y"],
        apply: |r, m| broadcast(r, m, &["x", "y"]),
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "expand-in-where",
        identity: "where(c, x, y) broadcasts its operands as expand does",
        lhs: &[
            "Where(Expand(?c, _shape), ?x, ?y)",
            "Where(?c, Expand(?x, _shape), ?y)",
            "Where(?c, ?x, Expand(?y, _shape))",
        ],
        uses: &["c", "x", "y"],
        apply: |r, m| broadcast(r, m, &["c", "x", "y"]),
        shared: true,
        ..RuleInfo::BITWISE
    },
];

/// Rules of `fuse`, as they may change the sign of a zero: the sum of -0 and a border of 0 is 0.
pub(crate) const SIGN_OF_ZERO: &[RuleInfo] = &[RuleInfo {
    name: "pad-into-average",
    identity: "a mean over x with a border of 0 is a mean that counts padding",
    lhs: &["AveragePool(pad:Pad(?x, #p, [#v], [#a]))"],
    uses: &["pad", "x", "p", "v", "a"],
    apply: pad_into_pool,
    exactness: Exactness::Rel { rtol: 0.0, atol: 0.0 },
    ..RuleInfo::BITWISE
}];

fn broadcast(rewriter: &mut Rewriter<'_>, found: &Match, names: &[&str]) -> Result<Value, Skip> {
    let operands =
        names.iter().map(|name| rewriter.value(found, name).map(Some)).collect::<Result<_, _>>()?;
    let op = rewriter.node(root(found)).op.clone();
    let wanted = rewriter.fact(root(found)).ty.clone();
    let new = rewriter.add(op, operands, "broadcast")?;
    // Without the Expand the result may be smaller.
    if rewriter.fact(new).ty == wanted { Ok(new) } else { Err(Skip::NoMatch) }
}

fn expand_of_expand(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    broadcast(rewriter, found, &["x", "target"])
}

/// What a Pad with constants adds before and after each axis.
struct Border {
    by_axis: Vec<(i64, i64)>,
    /// The element it is made of, as bytes and as a number.
    value: Tensor,
}

/// The border of `pad`, of whose operands the pattern binds `pads`, and perhaps `value` and `axes`.
fn border(
    rewriter: &Rewriter<'_>,
    found: &Match,
    pad: Value,
    [pads, value, axes]: [&str; 3],
) -> Result<Border, Skip> {
    let Op::Pad(Pad { mode: PadMode::Constant }) = rewriter.node(pad).op else { return Err(Skip::NoMatch) };
    let fact = rewriter.fact(pad);
    if fact.dtype() == DType::String {
        return Err(Skip::NoMatch);
    }
    let pads = rewriter.tensor(found, pads)?.to_i64s();
    let axes = match found.get(axes) {
        Some(_) => rewriter.tensor(found, axes)?.to_i64s(),
        None => (0..fact.rank() as i64).collect(),
    };
    let mut by_axis = vec![(0, 0); fact.rank()];
    for (at, &axis) in axes.iter().enumerate() {
        let amounts = axis_of(axis, fact.rank()).and_then(|axis| by_axis.get_mut(axis));
        let both = pads.get(at).zip(pads.get(at + axes.len()));
        let (Some(amounts), Some((&before, &after))) = (amounts, both) else { return Err(Skip::NoMatch) };
        *amounts = (before, after);
    }
    // What is cut off is not there to be looked at any more.
    if by_axis.iter().any(|&(before, after)| before < 0 || after < 0) {
        return Err(Skip::NoMatch);
    }
    let value = match found.get(value) {
        Some(_) => rewriter.tensor(found, value)?,
        None => Tensor::zeros(fact.dtype(), &[]),
    };
    Ok(Border { by_axis, value })
}

fn pad_of_pad(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, inner) = (rewriter.value(found, "x")?, rewriter.value(found, "inner")?);
    let inner = border(rewriter, found, inner, ["p", "v", "a"])?;
    let outer = border(rewriter, found, root(found), ["q", "w", "b"])?;
    // As bytes: 0 and -0 are two borders.
    if inner.value.bytes() != outer.value.bytes() {
        return Err(Skip::because("the two borders are of different values"));
    }
    let sums = || inner.by_axis.iter().zip(&outer.by_axis);
    let before = sums().map(|(a, b)| a.0.checked_add(b.0));
    let pads: Option<Vec<i64>> = before.chain(sums().map(|(a, b)| a.1.checked_add(b.1))).collect();
    let pads = pads.ok_or(Skip::NoMatch)?;
    let pads = rewriter.constant(Tensor::from_vec(&[pads.len()], pads), "pads");
    let value = found.get("v").or(found.get("w"));
    let operands = [Some(x), Some(pads)].into_iter().chain(value.map(Some)).collect();
    rewriter.add(Op::Pad(Pad { mode: PadMode::Constant }), operands, "pad")
}

/// The window with a border added to its padding; `None` if the border is not one of spatial axes alone, or if the
/// padding depends on the size of the operand.
fn padded(window: &Window, border: &Border) -> Option<Window> {
    let (planes, spatial) = border.by_axis.split_at_checked(2)?;
    let known = matches!(window.auto_pad, AutoPad::NotSet | AutoPad::Valid);
    if !known || planes.iter().any(|&amounts| amounts != (0, 0)) {
        return None;
    }
    let own = |at: usize| match window.auto_pad {
        AutoPad::NotSet => window.pads.get(at).copied().unwrap_or(0),
        _ => 0,
    };
    let amounts = spatial.iter().map(|amounts| amounts.0).chain(spatial.iter().map(|amounts| amounts.1));
    let pads = amounts.enumerate().map(|(at, amount)| own(at).checked_add(amount));
    Some(Window { pads: pads.collect::<Option<_>>()?, auto_pad: AutoPad::NotSet, ..window.clone() })
}

fn pad_into_conv(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, pad, w) =
        (rewriter.value(found, "x")?, rewriter.value(found, "pad")?, rewriter.value(found, "w")?);
    let border = border(rewriter, found, pad, ["p", "v", "a"])?;
    let Op::Conv(mut op) = rewriter.node(root(found)).op.clone() else { return Err(Skip::NoMatch) };
    op.window = padded(&op.window, &border).ok_or(Skip::NoMatch)?;
    if border.value.to_f64s() != [0.0] {
        return Err(Skip::because("the border is not 0"));
    }
    // 0 times a weight is not 0 for these.
    if !rewriter.tensor(found, "w")?.to_f64s().iter().all(|weight| weight.is_finite()) {
        return Err(Skip::because("a weight is not finite"));
    }
    let operands = [Some(x), Some(w)].into_iter().chain(found.get("bias").map(Some)).collect();
    rewriter.add(Op::Conv(op), operands, "conv")
}

fn pad_into_pool(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, pad) = (rewriter.value(found, "x")?, rewriter.value(found, "pad")?);
    let border = border(rewriter, found, pad, ["p", "v", "a"])?;
    let Op::Pool(mut op) = rewriter.node(root(found)).op.clone() else { return Err(Skip::NoMatch) };
    let window = padded(&op.window, &border).ok_or(Skip::NoMatch)?;
    // Windows that begin in padding are dropped with `ceil_mode`, and those in a border are not. A window that lies in
    // padding alone has no element, so it must not be wider than the window. Indices count the border's elements.
    let narrow = |(at, &pad): (usize, &i64)| {
        op.window.kernel_shape.get(at % op.window.kernel_shape.len().max(1)).is_some_and(|&k| pad < k as i64)
    };
    let dilated = op.window.dilations.iter().any(|&d| d != 1);
    if op.ceil_mode || op.indices.is_some() || dilated || !window.pads.iter().enumerate().all(narrow) {
        return Err(Skip::because("its own padding would not do the same"));
    }
    let value = border.value.to_f64s();
    match op.kind {
        PoolKind::Max if value == [f64::NEG_INFINITY] => {}
        PoolKind::Average if value == [0.0] => {
            let pads_itself =
                op.window.auto_pad == AutoPad::NotSet && op.window.pads.iter().any(|&pad| pad != 0);
            if pads_itself && !op.count_include_pad {
                return Err(Skip::because("the mean does not count its own padding"));
            }
            op.count_include_pad = true;
        }
        PoolKind::Max | PoolKind::Average => {
            return Err(Skip::because(format!("a border of {value:?} is no padding of this pool")));
        }
    }
    op.window = window;
    rewriter.add(Op::Pool(op), vec![Some(x)], "pool")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonicalize::algebra::Algebra;
    use crate::check::{example, run, run_graph};
    use crate::fuse::fusion::Fuse;
    use rabot_ir::text::parse;
    use rabot_rewrite::Pass;

    #[test]
    fn pads_meet_and_become_padding() {
        example(&Algebra, include_str!("pads.rs"));
    }

    /// Rules that apply to a pool over a plane with a border of `value`.
    fn applied(value: f32, pool: &str) -> usize {
        let text = format!(
            r#"model "g"
            input %0 "x" : f32[1,1,4,4]
            %1 = Constant [0, 0, 1, 1, 0, 0, 1, 1] : i64[8]
            %2 = Pad(%0, %1, _) {{mode="constant"}}
            %3 = {pool}
            output "y" = %3"#
        );
        let mut graph = parse(&text).unwrap();
        let border = graph.add_constant("border", Tensor::scalar(value));
        let pad = graph.node_ids().find(|&id| matches!(graph.node(id).op, Op::Pad(_))).unwrap();
        graph.set_input(pad, 2, Some(border));
        let pass: &dyn Pass = if pool.starts_with("Max") { &Algebra } else { &Fuse };
        run_graph(pass, graph).1.applied.len()
    }

    #[test]
    fn a_pool_takes_what_is_its_own_padding_only() {
        assert_eq!(applied(0.0, "AveragePool(%2) {kernel_shape=[3,3]}"), 1);
        assert_eq!(applied(1.0, "AveragePool(%2) {kernel_shape=[3,3]}"), 0);
        assert_eq!(applied(0.0, "AveragePool(%2) {kernel_shape=[3,3], pads=[1,1,0,0]}"), 0);
        assert_eq!(
            applied(0.0, "AveragePool(%2) {kernel_shape=[3,3], pads=[1,1,0,0], count_include_pad=1}"),
            1
        );
        assert_eq!(applied(0.0, "AveragePool(%2) {kernel_shape=[1,1]}"), 0);
        assert_eq!(applied(f32::NEG_INFINITY, "MaxPool(%2) {kernel_shape=[2,2]}"), 1);
        assert_eq!(applied(f32::NEG_INFINITY, "MaxPool(%2) {kernel_shape=[2,2], ceil_mode=1}"), 0);
        assert_eq!(applied(0.0, "MaxPool(%2) {kernel_shape=[2,2]}"), 0);
    }

    #[test]
    fn borders_of_other_values_stay() {
        let text = |second: &str| {
            format!(
                r#"model "g"
                input %0 "x" : f32[2]
                %1 = Constant [1, 0] : i64[2]
                %2 = Pad(%0, %1) {{mode="constant"}}
                %3 = Constant [{second}] : f32[]
                %4 = Pad(%2, %1, %3) {{mode="constant"}}
                output "y" = %4"#
            )
        };
        assert_eq!(run(&Algebra, &text("0.0")).1.applied.len(), 1);
        assert_eq!(run(&Algebra, &text("-0.0")).1.applied.len(), 0);
    }
}
