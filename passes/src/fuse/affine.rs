//! Rules of `fuse` about scales and shifts: `s * (W x + b) + t = (s W) x + (s b + t)`, per output channel.
//!
//! Everything is computed in f64 and rounded once to the dtype of the weights.

use super::fusion::ROUNDED;
use super::scaled::scaled;
use rabot_ir::ops::{Binary, BinaryOp, Gemm};
use rabot_ir::{Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;

pub(super) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "fold-batch-norm",
        identity: "s (W x + b - mean) / sqrt(var + eps) + t: both are one scale and one shift per channel",
        lhs: &[
            "BatchNormalization(linear:Conv|ConvTranspose|Gemm(?x, #w, [?b]), #scale, #bias, #mean, #var)",
        ],
        uses: &["linear", "x", "w", "b", "scale", "bias", "mean", "var"],
        apply: |r, m| Affine::of_batch_norm(r, m).and_then(|affine| fold(r, m, &affine)),
        ..ROUNDED
    },
    RuleInfo {
        name: "fold-scale",
        identity: "c (W x + b) = (c W) x + c b",
        lhs: &["Mul(linear:Conv|ConvTranspose|Gemm(?x, #w, [?b]), #c)"],
        uses: &["linear", "x", "w", "b", "c"],
        apply: |r, m| Affine::of_constant(r, m, |c| (c, 0.0)).and_then(|affine| fold(r, m, &affine)),
        ..ROUNDED
    },
    RuleInfo {
        name: "fold-scale",
        identity: "c (W x + b) = (c W) x + c b",
        lhs: &["Mul(linear:MatMul(?x, #w), #c)"],
        uses: &["linear", "x", "w", "c"],
        apply: |r, m| Affine::of_constant(r, m, |c| (c, 0.0)).and_then(|affine| fold(r, m, &affine)),
        ..ROUNDED
    },
    RuleInfo {
        name: "fold-divisor",
        identity: "(W x + b) / c = (W / c) x + b / c",
        lhs: &["Div(linear:Conv|ConvTranspose|Gemm|MatMul(?x, #w, [?b]), #c)"],
        uses: &["linear", "x", "w", "b", "c"],
        apply: |r, m| Affine::of_constant(r, m, |c| (1.0 / c, 0.0)).and_then(|affine| fold(r, m, &affine)),
        ..ROUNDED
    },
    RuleInfo {
        name: "fold-shift",
        identity: "(W x + b) + c = W x + (b + c)",
        lhs: &["Add(linear:Conv|ConvTranspose|Gemm(?x, #w, [?b]), #c)"],
        uses: &["linear", "x", "w", "b", "c"],
        apply: |r, m| Affine::of_constant(r, m, |c| (1.0, c)).and_then(|affine| fold(r, m, &affine)),
        ..ROUNDED
    },
    RuleInfo {
        name: "fold-shift",
        identity: "(W x + b) - c = W x + (b - c)",
        lhs: &["Sub(linear:Conv|ConvTranspose|Gemm(?x, #w, [?b]), #c)"],
        uses: &["linear", "x", "w", "b", "c"],
        apply: |r, m| Affine::of_constant(r, m, |c| (1.0, -c)).and_then(|affine| fold(r, m, &affine)),
        ..ROUNDED
    },
    RuleInfo {
        name: "fold-gemm-factors",
        identity: "alpha A B + beta C = A (alpha B) + (beta C)",
        lhs: &["linear:Gemm(?x, #w, [?b])"],
        uses: &["linear", "x", "w", "b"],
        apply: gemm_factors,
        ..ROUNDED
    },
    RuleInfo {
        name: "scale-before-shift",
        identity: "(W x + a) c = (W x) c + a c",
        lhs: &["Mul(Add(linear:MatMul(_x, #_w), #a), #c)"],
        uses: &["linear", "a", "c"],
        apply: scale_before_shift,
        ..ROUNDED
    },
    RuleInfo {
        name: "scale-before-shift",
        identity: "((x a) + b) c = (x (a c)) + b c",
        lhs: &["Mul(Add(linear:Mul(_x, #_a), #a), #c)"],
        uses: &["linear", "a", "c"],
        apply: scale_before_shift,
        ..ROUNDED
    },
    RuleInfo {
        name: "batch-norm-to-mul-add",
        identity: "(x - mean) s / sqrt(var + eps) + t is one scale and one shift per channel",
        lhs: &["BatchNormalization(?x, #scale, #bias, #mean, #var)"],
        uses: &["x", "scale", "bias", "mean", "var"],
        apply: batch_norm_to_mul_add,
        ..ROUNDED
    },
    RuleInfo {
        name: "two-scales",
        identity: "(x a) b = x (a b)",
        lhs: &["Mul(Mul(?x, #a), #b)"],
        uses: &["x", "a", "b"],
        apply: |r, m| combine(r, m, BinaryOp::Mul, |a, b| a * b),
        ..ROUNDED
    },
    RuleInfo {
        name: "two-shifts",
        identity: "(x + a) + b = x + (a + b)",
        lhs: &["Add(Add(?x, #a), #b)"],
        uses: &["x", "a", "b"],
        apply: |r, m| combine(r, m, BinaryOp::Add, |a, b| a + b),
        ..ROUNDED
    },
];

/// `y = scale * x + shift`, per channel; one element for all channels or one for each.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    /// `scale / sqrt(var + epsilon)` and `bias - mean * that`.
    ///
    /// **Source**: <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>
    fn of_batch_norm(rewriter: &Rewriter<'_>, found: &Match) -> Result<Self, Skip> {
        let Op::BatchNormalization(op) = &rewriter.graph().node(found.root).op else {
            return Err(Skip::NoMatch);
        };
        let read = |name| rewriter.tensor(found, name).map(|tensor| tensor.to_f64s());
        let (scale, bias, mean, var) = (read("scale")?, read("bias")?, read("mean")?, read("var")?);
        let epsilon = f64::from(op.epsilon);
        let scale: Vec<f64> = scale.iter().zip(&var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let shift = bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Ok(Affine { scale, shift })
    }

    /// Scale and shift that `of` makes of each element of the constant `c`, which must vary along channels only.
    fn of_constant(rewriter: &Rewriter<'_>, found: &Match, of: fn(f64) -> (f64, f64)) -> Result<Self, Skip> {
        let c = rewriter.tensor(found, "c")?;
        let linear = rewriter.value(found, "linear")?;
        let rank = rewriter.fact(linear).rank();
        let axis = match rewriter.node(linear).op {
            Op::Conv(_) | Op::ConvTranspose(_) => 1,
            _ => rank.checked_sub(1).ok_or(Skip::NoMatch)?,
        };
        if c.rank() > rank {
            return Err(Skip::NoMatch);
        }
        let before = rank - c.rank();
        let elsewhere = |(at, dim): (usize, &usize)| at + before != axis && *dim != 1;
        if c.shape().iter().enumerate().any(elsewhere) {
            return Err(Skip::because(format!("constant {:?} varies not only along axis {axis}", c.shape())));
        }
        let (scale, shift) = c.to_f64s().into_iter().map(of).unzip();
        Ok(Affine { scale, shift })
    }

    fn at(values: &[f64], channel: usize) -> f64 {
        if values.len() == 1 { values[0] } else { values[channel] }
    }

    fn scale(&self, channel: usize) -> f64 {
        Self::at(&self.scale, channel)
    }

    fn shift(&self, channel: usize) -> f64 {
        Self::at(&self.shift, channel)
    }

    fn is_scale_only(&self) -> bool {
        self.shift.iter().all(|&shift| shift == 0.0)
    }
}

/// Output channel of a block of weights, from its position.
type ChannelOf = Box<dyn Fn(usize) -> usize>;

/// How the weights of a linear node are laid out: consecutive blocks, each of one output channel. Their channels
/// repeat after `period` blocks.
struct Layout {
    channels: usize,
    block: usize,
    period: usize,
    channel_of: ChannelOf,
}

fn layout(op: &Op, weights: &[usize]) -> Result<Layout, Skip> {
    let (channels, block, period, channel_of): (usize, usize, usize, ChannelOf) = match (op, weights) {
        // [out, in / group, taps...]
        (Op::Conv(_), [out, rest @ ..]) => (*out, rest.iter().product(), *out, Box::new(|at| at)),
        // [in, out / group, taps...]: the rows of group g make its block of output channels.
        (Op::ConvTranspose(conv), [input, out, taps @ ..]) => {
            let (rows, out) = ((input / conv.group.max(1)).max(1), (*out).max(1));
            let channel = move |at: usize| at / out / rows * out + at % out;
            (out * conv.group, taps.iter().product(), input * out, Box::new(channel))
        }
        (Op::Gemm(Gemm { trans_b: true, .. }), [out, k]) => (*out, *k, *out, Box::new(|at| at)),
        (Op::Gemm(_) | Op::MatMul(_), [_, out]) => (*out, 1, *out, Box::new(|at| at)),
        _ => {
            let name = op.name();
            return Err(Skip::because(format!("weights {weights:?} of {name} have no channel axis here")));
        }
    };
    Ok(Layout { channels, block: block.max(1), period, channel_of })
}

/// Replaces `affine(linear(x))` by the linear node with other weights and bias.
fn fold(rewriter: &mut Rewriter<'_>, found: &Match, affine: &Affine) -> Result<Value, Skip> {
    let linear = rewriter.value(found, "linear")?;
    let (x, weights) = (rewriter.value(found, "x")?, rewriter.tensor(found, "w")?);
    if !weights.dtype().is_float() {
        return Err(Skip::NoMatch);
    }
    let mut op = rewriter.node(linear).op.clone();
    let (alpha, beta) = match &mut op {
        Op::Gemm(gemm) => (std::mem::replace(&mut gemm.alpha, 1.0), std::mem::replace(&mut gemm.beta, 1.0)),
        _ => (1.0, 1.0),
    };
    let layout = layout(&op, weights.shape())?;
    let count = layout.channels;
    let fits = |values: &[f64]| values.len() == 1 || values.len() == count;
    if !fits(&affine.scale) || !fits(&affine.shift) {
        return Err(Skip::because(format!("{} scales for {count} channels", affine.scale.len())));
    }
    let bias = bias_per_channel(rewriter, found, count)?;
    let factors = (0..layout.period).map(|at| f64::from(alpha) * affine.scale((layout.channel_of)(at)));
    let factors: Vec<f64> = factors.collect();
    let shifted = (0..count).map(|channel| {
        let bias = bias.as_ref().map_or(0.0, |bias| f64::from(beta) * Affine::at(bias, channel));
        affine.scale(channel) * bias + affine.shift(channel)
    });
    let new_bias: Vec<f64> = shifted.collect();
    let new_bias = Tensor::from_f64s(weights.dtype(), &[count], &new_bias);
    let Some(new_weights) = scaled(&weights, layout.block, &factors) else {
        return Err(Skip::because("a folded weight is not finite"));
    };
    if !is_finite(&new_bias) {
        return Err(Skip::because("a folded bias is not finite"));
    }
    let mut operands = vec![Some(x), Some(rewriter.constant(new_weights, "weights"))];
    match (&op, bias.is_none() && affine.is_scale_only()) {
        (_, true) => {}
        (Op::MatMul(_), false) => return Err(Skip::NoMatch),
        (_, false) => operands.push(Some(rewriter.constant(new_bias, "bias"))),
    }
    rewriter.add(op, operands, "folded")
}

/// The bias of a linear node, one element or one a channel; `None` if it has none.
fn bias_per_channel(rewriter: &Rewriter<'_>, found: &Match, count: usize) -> Result<Option<Vec<f64>>, Skip> {
    let Some(bias) = found.get("b") else { return Ok(None) };
    let tensor = rewriter.graph().constant(bias).ok_or_else(|| {
        Skip::because(format!("the bias `{}` is not constant", rewriter.graph().value_name(bias)))
    })?;
    // Gemm's C may be [n], [1, n], [1, 1] or a scalar; [m, n] is no bias.
    if tensor.len() != 1 && (tensor.len() != count || tensor.shape().last() != Some(&count)) {
        return Err(Skip::because(format!("the bias {:?} is not one value a channel", tensor.shape())));
    }
    Ok(Some(tensor.to_f64s()))
}

/// Whether no element is infinite or not a number.
pub(super) fn is_finite(tensor: &Tensor) -> bool {
    match tensor.to_slice::<f32>() {
        Ok(values) => values.iter().all(|v| v.is_finite()),
        Err(_) => tensor.to_f64s().iter().all(|v| v.is_finite()),
    }
}

fn gemm_factors(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let linear = rewriter.value(found, "linear")?;
    let Op::Gemm(gemm) = &rewriter.node(linear).op else { return Err(Skip::NoMatch) };
    if gemm.alpha == 1.0 && (gemm.beta == 1.0 || found.get("b").is_none()) {
        return Err(Skip::NoMatch);
    }
    fold(rewriter, found, &Affine { scale: vec![1.0], shift: vec![0.0] })
}

fn scale_before_shift(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let linear = rewriter.value(found, "linear")?;
    let (a, c) = (rewriter.tensor(found, "a")?, rewriter.value(found, "c")?);
    let is_product = matches!(rewriter.node(linear).op, Op::MatMul(_));
    if is_product {
        Affine::of_constant(rewriter, found, |c| (c, 0.0))?;
    }
    let factors = rewriter.tensor(found, "c")?;
    if !factors.dtype().is_float() || factors.len() > a.len() && !is_product {
        return Err(Skip::NoMatch);
    }
    let product = rewriter.add(binary(BinaryOp::Mul), vec![Some(linear), Some(c)], "scaled")?;
    let shift = binary(BinaryOp::Mul).eval(&[Some(&a), Some(&factors)]).ok().and_then(|mut t| t.pop());
    let shift = rewriter.constant(shift.ok_or(Skip::NoMatch)?, "shift");
    rewriter.add(binary(BinaryOp::Add), vec![Some(product), Some(shift)], "shifted")
}

fn binary(op: BinaryOp) -> Op {
    Op::Binary(Binary { op })
}

fn batch_norm_to_mul_add(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let affine = Affine::of_batch_norm(rewriter, found)?;
    let (rank, dtype) = (rewriter.fact(x).rank(), rewriter.fact(x).dtype());
    // Channels are axis 1: [c, 1, 1, ...].
    let mut shape = vec![1; rank.saturating_sub(1)];
    match shape.first_mut() {
        Some(first) => *first = affine.scale.len(),
        None => return Err(Skip::NoMatch),
    }
    let constants = [(&affine.scale, "scale"), (&affine.shift, "shift")];
    if constants.iter().any(|(values, _)| values.iter().any(|v| !v.is_finite())) {
        return Err(Skip::because("a folded scale or shift is not finite"));
    }
    let [scale, shift] =
        constants.map(|(values, part)| rewriter.constant(Tensor::from_f64s(dtype, &shape, values), part));
    let product = rewriter.add(binary(BinaryOp::Mul), vec![Some(x), Some(scale)], "scaled")?;
    rewriter.add(binary(BinaryOp::Add), vec![Some(product), Some(shift)], "shifted")
}

/// `(x op a) op b` as `x op (a op b)`, where the constants together are no larger than the larger one.
fn combine(
    rewriter: &mut Rewriter<'_>,
    found: &Match,
    op: BinaryOp,
    f: fn(f64, f64) -> f64,
) -> Result<Value, Skip> {
    let (x, a, b) = (rewriter.value(found, "x")?, rewriter.tensor(found, "a")?, rewriter.tensor(found, "b")?);
    if !a.dtype().is_float() || rewriter.graph().constant(x).is_some() {
        return Err(Skip::NoMatch);
    }
    let combined = if a.shape() == b.shape() || b.len() == 1 && b.rank() <= a.rank() {
        let factors = b.to_f64s();
        let values = a.to_f64s().into_iter().enumerate().map(|(at, v)| f(v, Affine::at(&factors, at)));
        Tensor::from_f64s(a.dtype(), a.shape(), &values.collect::<Vec<f64>>())
    } else if a.len() == 1 && a.rank() <= b.rank() {
        let factor = a.to_f64s()[0];
        let values = b.to_f64s().into_iter().map(|v| f(factor, v));
        Tensor::from_f64s(b.dtype(), b.shape(), &values.collect::<Vec<f64>>())
    } else {
        return Err(Skip::because(format!("constants {:?} and {:?} differ in shape", a.shape(), b.shape())));
    };
    if !is_finite(&combined) {
        return Err(Skip::because("the combined constant is not finite"));
    }
    let combined = rewriter.constant(combined, "combined");
    rewriter.add(binary(op), vec![Some(x), Some(combined)], "once")
}

#[cfg(test)]
mod tests {
    use crate::check::{becomes, run};
    use crate::fuse::fusion::Fuse;

    /// Ops left when `body` (a graph of x : f32[2,4,5,5]) is fused.
    fn ops(body: &str) -> Vec<String> {
        let (graph, _) = run(&Fuse, &format!("model \"g\"\ninput %0 \"x\" : f32[2,4,5,5]\n{body}"));
        let nodes = graph.topological().unwrap();
        let names = nodes.iter().map(|&id| graph.node(id).op.name().to_owned());
        names.filter(|name| name != "Input" && name != "Constant").collect()
    }

    const NORM: &str = r#"
        %10 = Constant rand(1, 0.5, 2.0) : f32[6]
        %11 = Constant rand(2, -1.0, 1.0) : f32[6]
        %12 = Constant rand(3, -1.0, 1.0) : f32[6]
        %13 = Constant rand(4, 0.1, 2.0) : f32[6]"#;

    #[test]
    fn batch_norm_after_grouped_convolution_with_bias() {
        let body = format!(
            r#"{NORM}
            %1 = Constant rand(5, -1.0, 1.0) : f32[6,2,3,3]
            %2 = Constant rand(6, -1.0, 1.0) : f32[6]
            %3 = Conv(%0, %1, %2) {{group=2}}
            %4 = BatchNormalization(%3, %10, %11, %12, %13)
            output "y" = %4"#
        );
        assert_eq!(ops(&body), ["Conv"]);
    }

    #[test]
    fn batch_norm_after_grouped_transposed_convolution() {
        let body = format!(
            r#"{NORM}
            %1 = Constant rand(5, -1.0, 1.0) : f32[4,3,2,2]
            %3 = ConvTranspose(%0, %1) {{group=2, strides=[2,2]}}
            %4 = BatchNormalization(%3, %10, %11, %12, %13)
            output "y" = %4"#
        );
        assert_eq!(ops(&body), ["ConvTranspose"]);
    }

    #[test]
    fn scales_and_shifts_after_a_convolution() {
        let body = r#"
            %1 = Constant rand(5, -1.0, 1.0) : f32[6,4,1,1]
            %2 = Conv(%0, %1)
            %3 = Constant rand(6, -1.0, 1.0) : f32[6,1,1]
            %4 = Mul(%3, %2)
            %5 = Constant rand(7, -1.0, 1.0) : f32[1,6,1,1]
            %6 = Add(%4, %5)
            %7 = Constant [3.0] : f32[1]
            %8 = Div(%6, %7)
            %9 = Sub(%8, %3)
            output "y" = %9"#;
        assert_eq!(ops(body), ["Conv"]);
        let along_width = r#"
            %1 = Constant rand(5, -1.0, 1.0) : f32[6,4,1,1]
            %2 = Conv(%0, %1)
            %3 = Constant rand(6, -1.0, 1.0) : f32[5]
            %4 = Mul(%3, %2)
            output "y" = %4"#;
        assert_eq!(ops(along_width), ["Conv", "Mul"]);
    }

    #[test]
    fn batch_norm_alone_becomes_a_product_and_a_sum() {
        let body = r#"
            %1 = Constant rand(1, 0.5, 2.0) : f32[4]
            %2 = Constant rand(2, -1.0, 1.0) : f32[4]
            %3 = Relu(%0)
            %4 = BatchNormalization(%3, %1, %2, %2, %1)
            output "y" = %4"#;
        assert_eq!(ops(body), ["Relu", "Mul", "Add"]);
    }

    #[test]
    fn gemm_takes_factors_and_batch_norm() {
        let report = becomes(
            &Fuse,
            r#"model "g"
            input %0 "x" : f32[n,2]
            %1 = Constant [1.0, 2.0, 3.0, 4.0] : f32[2,2]
            %2 = Constant [1.0, -1.0] : f32[1,2]
            %3 = Gemm(%0, %1, %2) {alpha=0.5, beta=2.0, transB=1}
            %4 = Constant [2.0, 1.0] : f32[2]
            %5 = Constant [0.0, 0.0] : f32[2]
            %6 = Constant [1.0, 4.0] : f32[2]
            %7 = BatchNormalization(%3, %4, %5, %5, %6) {epsilon=0.0}
            output "y" = %7"#,
            r#"model "g"
            input %0 "x" : f32[n,2]
            %1 = Constant [1.0, 2.0, 0.75, 1.0] : f32[2,2]
            %2 = Constant [4.0, -1.0] : f32[2]
            %3 = Gemm(%0, %1, %2) {transB=1}
            output "y" = %3"#,
        );
        assert_eq!(report.applied.len(), 2);
    }

    #[test]
    fn matmul_takes_scales_through_a_shift() {
        becomes(
            &Fuse,
            r#"model "g"
            input %0 "x" : f32[n,2]
            %1 = Constant [1.0, 2.0, 3.0, 4.0] : f32[2,2]
            %2 = Constant [1.0, -1.0] : f32[2]
            %3 = MatMul(%0, %1)
            %4 = Add(%3, %2)
            %5 = Constant [2.0, 10.0] : f32[2]
            %6 = Mul(%4, %5)
            output "y" = %6"#,
            r#"model "g"
            input %0 "x" : f32[n,2]
            %1 = Constant [2.0, 20.0, 6.0, 40.0] : f32[2,2]
            %2 = Constant [2.0, -10.0] : f32[2]
            %3 = MatMul(%0, %1)
            %4 = Add(%3, %2)
            output "y" = %4"#,
        );
    }

    #[test]
    fn a_convolution_used_twice_is_left_alone() {
        let (graph, report) = run(
            &Fuse,
            r#"model "g"
            input %0 "x" : f32[2,1,3]
            %1 = Constant [1.0, 2.0] : f32[2,1,1]
            %2 = Conv(%0, %1)
            %3 = Constant [3.0] : f32[1]
            %4 = Mul(%2, %3)
            %5 = Relu(%2)
            output "y" = %4
            output "z" = %5"#,
        );
        assert_eq!((graph.node_count(), report.applied.len()), (6, 0));
        assert_eq!(report.skipped[0].reason, "`v2` is used by `v5` too");
    }

    #[test]
    fn weights_that_would_overflow_stay() {
        let (_, report) = run(
            &Fuse,
            r#"model "g"
            input %0 "x" : f32[2,1,3]
            %1 = Constant [1e30, 2.0] : f32[2,1,1]
            %2 = Conv(%0, %1)
            %3 = Constant [1e30] : f32[1]
            %4 = Mul(%2, %3)
            output "y" = %4"#,
        );
        assert_eq!(report.skipped[0].reason, "a folded weight is not finite");
    }
}
