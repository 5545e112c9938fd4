//! Rules of `fuse` about what comes before a convolution or a product: padding, and scales of columns.

use super::fusion::ROUNDED;
use rabot_ir::ops::{AutoPad, Conv, MatMul, Pad, PadMode};
use rabot_ir::{Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;

pub(super) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "pad-into-convolution",
        identity: "a convolution of an image with a border of zeros pads it by itself",
        lhs: &["layer:Conv(pad:Pad(?x, #pads, [#value], [#axes]), ?w, [?b])"],
        uses: &["layer", "pad", "x", "pads", "value", "axes", "w", "b"],
        apply: pad_into_convolution,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "scale-into-rows",
        identity: "(x c) W = x (diag(c) W)",
        lhs: &["MatMul(Mul(?x, #c), #w)"],
        uses: &["x", "c", "w"],
        apply: scale_into_rows,
        ..ROUNDED
    },
];

fn pad_into_convolution(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, w) = (rewriter.value(found, "x")?, rewriter.value(found, "w")?);
    let Op::Pad(Pad { mode: PadMode::Constant }) = rewriter.node(rewriter.value(found, "pad")?).op else {
        return Err(Skip::because("the border is not one of zeros"));
    };
    let Op::Conv(Conv { mut window, group }) = rewriter.node(rewriter.value(found, "layer")?).op.clone()
    else {
        return Err(Skip::NoMatch);
    };
    if found.get("value").is_some() && rewriter.tensor(found, "value")?.to_f64s().iter().any(|&v| v != 0.0) {
        return Err(Skip::because("the border is not one of zeros"));
    }
    if !matches!(window.auto_pad, AutoPad::NotSet | AutoPad::Valid) {
        return Err(Skip::because("the convolution pads by the size of its operand"));
    }
    let rank = rewriter.fact(x).rank();
    let pads = rewriter.tensor(found, "pads")?.to_i64s();
    let axes: Vec<i64> = match found.get("axes") {
        None => (0..rank as i64).collect(),
        Some(_) => rewriter.tensor(found, "axes")?.to_i64s(),
    };
    let spatial = rank.checked_sub(2).ok_or(Skip::NoMatch)?;
    let own = if window.auto_pad == AutoPad::Valid { vec![] } else { std::mem::take(&mut window.pads) };
    let mut all = if own.is_empty() { vec![0; 2 * spatial] } else { own };
    if pads.len() != 2 * axes.len() || all.len() != 2 * spatial {
        return Err(Skip::NoMatch);
    }
    for (at, &axis) in axes.iter().enumerate() {
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        for (side, pad) in [pads[at], pads[at + axes.len()]].into_iter().enumerate() {
            let place = usize::try_from(axis - 2).ok().filter(|&place| place < spatial);
            match place {
                _ if pad == 0 => {}
                Some(place) if pad > 0 => all[place + side * spatial] += pad,
                _ => return Err(Skip::because(format!("it pads axis {axis} by {pad}"))),
            }
        }
    }
    window.pads = all;
    window.auto_pad = AutoPad::NotSet;
    let operands = [Some(x), Some(w)].into_iter().chain(found.get("b").map(Some)).collect();
    rewriter.add(Op::Conv(Conv { window, group }), operands, "padded")
}

/// `c` is one element, or one for each row of the weights.
fn scale_into_rows(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let (c, w) = (rewriter.tensor(found, "c")?, rewriter.tensor(found, "w")?);
    let &[rows, columns] = w.shape() else { return Err(Skip::NoMatch) };
    let along_rows = c.len() == 1 || c.len() == rows && c.shape().last() == Some(&rows);
    let rank = rewriter.fact(x).rank();
    if !along_rows || c.rank() > rank || !w.dtype().is_float() || rewriter.graph().constant(x).is_some() {
        return Err(Skip::NoMatch);
    }
    // A product that broadcasts x makes it larger.
    if rewriter.fact(x).shape().last().is_none_or(|dim| dim.as_usize() != Some(rows)) {
        return Err(Skip::NoMatch);
    }
    let (factors, weights) = (c.to_f64s(), w.to_f64s());
    let factor = |row: usize| factors[if factors.len() == 1 { 0 } else { row }];
    let scaled: Vec<f64> =
        weights.iter().enumerate().map(|(at, w)| w * factor(at / columns.max(1))).collect();
    let scaled = Tensor::from_f64s(w.dtype(), w.shape(), &scaled);
    if scaled.to_f64s().iter().any(|v| !v.is_finite()) {
        return Err(Skip::because("a folded weight is not finite"));
    }
    let scaled = rewriter.constant(scaled, "weights");
    rewriter.add(Op::MatMul(MatMul), vec![Some(x), Some(scaled)], "folded")
}

#[cfg(test)]
mod tests {
    use crate::check::{becomes, run};
    use crate::fuse::fusion::Fuse;

    #[test]
    fn zeros_around_an_image() {
        becomes(
            &Fuse,
            r#"model "g"
            input %0 "x" : f32[1,1,n,4]
            %1 = Constant [0, 0, 1, 0, 0, 0, 1, 2] : i64[8]
            %2 = Pad(%0, %1) {mode="constant"}
            %3 = Constant [1.0, 2.0, 3.0, 4.0] : f32[1,1,2,2]
            %4 = Conv(%2, %3) {pads=[0,1,0,0]}
            output "y" = %4"#,
            r#"model "g"
            input %0 "x" : f32[1,1,n,4]
            %1 = Constant [1.0, 2.0, 3.0, 4.0] : f32[1,1,2,2]
            %2 = Conv(%0, %1) {pads=[1,1,1,2]}
            output "y" = %2"#,
        );
    }

    #[test]
    fn other_borders_stay() {
        for (channels, pad) in [
            (1, "%1 = Constant [0, 0, 1, 0, 0, 0, 1, 2] : i64[8]\n%2 = Pad(%0, %1) {mode=\"edge\"}"),
            (2, "%1 = Constant [0, 1, 1, 0, 0, 0, 1, 2] : i64[8]\n%2 = Pad(%0, %1) {mode=\"constant\"}"),
            (1, "%1 = Constant [0, 0, -1, 0, 0, 0, 1, 2] : i64[8]\n%2 = Pad(%0, %1) {mode=\"constant\"}"),
        ] {
            let text = format!(
                "model \"g\"\ninput %0 \"x\" : f32[1,1,4,4]\n{pad}
                %3 = Constant rand(1, -1.0, 1.0) : f32[1,{channels},2,2]\n%4 = Conv(%2, %3)\noutput \"y\" = %4"
            );
            let (_, report) = run(&Fuse, &text);
            assert!(report.applied.is_empty(), "{pad}");
        }
    }

    #[test]
    fn scales_of_columns() {
        becomes(
            &Fuse,
            r#"model "g"
            input %0 "x" : f32[n,2]
            %1 = Constant [2.0, 10.0] : f32[2]
            %2 = Mul(%0, %1)
            %3 = Constant [1.0, 2.0, 3.0, 4.0] : f32[2,2]
            %4 = MatMul(%2, %3)
            output "y" = %4"#,
            r#"model "g"
            input %0 "x" : f32[n,2]
            %1 = Constant [2.0, 4.0, 30.0, 40.0] : f32[2,2]
            %2 = MatMul(%0, %1)
            output "y" = %2"#,
        );
    }
}
