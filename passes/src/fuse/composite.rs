//! Rules of `fuse` that recognize one operator in the many that exporters write for it.

use super::fusion::ROUNDED;
use rabot_ir::ops::{LayerNormalization, Unary, UnaryOp};
use rabot_ir::{Dim, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;

pub(super) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "gelu",
        identity: "0.5 x (1 + erf(x / sqrt 2)); Hendrycks, Gimpel, arXiv:1606.08415",
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Gelu { tanh: false }),
        lhs: &[
            "Mul(Mul(?x, Add(Erf(Div(?x, 1.4142135623730951)), 1)), 0.5)",
            "Mul(Mul(?x, 0.5), Add(Erf(Div(?x, 1.4142135623730951)), 1))",
            "Mul(?x, Mul(Add(Erf(Div(?x, 1.4142135623730951)), 1), 0.5))",
            "Mul(Mul(?x, Add(Erf(Mul(?x, 0.7071067811865476)), 1)), 0.5)",
            "Mul(Mul(?x, 0.5), Add(Erf(Mul(?x, 0.7071067811865476)), 1))",
            "Mul(?x, Mul(Add(Erf(Mul(?x, 0.7071067811865476)), 1), 0.5))",
        ],
        ..ROUNDED
    },
    RuleInfo {
        name: "gelu-tanh",
        identity: "0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); Hendrycks, Gimpel, arXiv:1606.08415",
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Gelu { tanh: true }),
        lhs: &[
            "Mul(Mul(?x, 0.5), Add(Tanh(Mul(Add(?x, Mul(Pow(?x, 3), 0.044715)), 0.7978845608028654)), 1))",
            "Mul(Mul(?x, Add(Tanh(Mul(Add(?x, Mul(Pow(?x, 3), 0.044715)), 0.7978845608028654)), 1)), 0.5)",
            "Mul(?x, Mul(Add(Tanh(Mul(Add(?x, Mul(Pow(?x, 3), 0.044715)), 0.7978845608028654)), 1), 0.5))",
            "Mul(Mul(?x, 0.5), Add(Tanh(Mul(Add(?x, Mul(Mul(Mul(?x, ?x), ?x), 0.044715)), 0.7978845608028654)), 1))",
            "Mul(?x, Mul(Add(Tanh(Mul(Add(?x, Mul(Mul(Mul(?x, ?x), ?x), 0.044715)), 0.7978845608028654)), 1), 0.5))",
            "Mul(Mul(?x, 0.5), Add(Tanh(Mul(Add(?x, Mul(?x, Mul(?x, Mul(?x, 0.044715)))), 0.7978845608028654)), 1))",
            "Mul(?x, Mul(Add(Tanh(Mul(Add(?x, Mul(?x, Mul(?x, Mul(?x, 0.044715)))), 0.7978845608028654)), 1), 0.5))",
        ],
        ..ROUNDED
    },
    RuleInfo {
        name: "hard-swish",
        identity: "x max(0, min(1, x / 6 + 1 / 2)); https://onnx.ai/onnx/operators/onnx__HardSwish.html",
        uses: &["x", "gate"],
        apply: hard_swish,
        lhs: &["Mul(?x, gate:HardSigmoid(?x))"],
        ..ROUNDED
    },
    RuleInfo {
        name: "hard-swish",
        identity: "x max(0, min(1, x / 6 + 1 / 2)); https://onnx.ai/onnx/operators/onnx__HardSwish.html",
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::HardSwish),
        lhs: &[
            "Div(Mul(?x, Clip(Add(?x, 3), 0, 6)), 6)",
            "Mul(?x, Div(Clip(Add(?x, 3), 0, 6), 6))",
            "Mul(Mul(?x, Clip(Add(?x, 3), 0, 6)), 0.16666666666666666)",
            "Mul(?x, Mul(Clip(Add(?x, 3), 0, 6), 0.16666666666666666))",
        ],
        ..ROUNDED
    },
    RuleInfo {
        name: "layer-norm",
        identity: "(x - mean) / sqrt(mean((x - mean)^2) + eps); Ba, Kiros, Hinton, arXiv:1607.06450",
        uses: &["x", "d", "mean", "var", "axes", "axes2", "eps", "scale"],
        apply: |r, m| layer_norm(r, m, Some("scale")),
        lhs: &[
            "Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), Mul(Reciprocal(Sqrt(Add(var:ReduceMean(Pow(?d, 2), #axes2), #eps))), #scale))",
            "Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), Mul(Reciprocal(Sqrt(Add(var:ReduceMean(Mul(?d, ?d), #axes2), #eps))), #scale))",
        ],
        ..ROUNDED
    },
    RuleInfo {
        name: "layer-norm",
        identity: "(x - mean) / sqrt(mean((x - mean)^2) + eps); Ba, Kiros, Hinton, arXiv:1607.06450",
        uses: &["x", "d", "mean", "var", "axes", "axes2", "eps"],
        apply: |r, m| layer_norm(r, m, None),
        lhs: &[
            "Div(d:Sub(?x, mean:ReduceMean(?x, #axes)), Sqrt(Add(var:ReduceMean(Pow(?d, 2), #axes2), #eps)))",
            "Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), Reciprocal(Sqrt(Add(var:ReduceMean(Pow(?d, 2), #axes2), #eps))))",
            "Div(d:Sub(?x, mean:ReduceMean(?x, #axes)), Sqrt(Add(var:ReduceMean(Mul(?d, ?d), #axes2), #eps)))",
            "Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), Reciprocal(Sqrt(Add(var:ReduceMean(Mul(?d, ?d), #axes2), #eps))))",
        ],
        ..ROUNDED
    },
    RuleInfo {
        name: "layer-norm-scale",
        identity: "a product with a normalization by ones is its scale",
        uses: &["x", "ones", "norm", "scale"],
        apply: layer_norm_scale,
        lhs: &["Mul(norm:LayerNormalization(?x, #ones), #scale)"],
        ..ROUNDED
    },
    RuleInfo {
        name: "layer-norm-bias",
        identity: "a sum with a normalization without bias is its bias",
        uses: &["x", "scale", "norm", "bias"],
        apply: layer_norm_bias,
        lhs: &["Add(norm:LayerNormalization(?x, ?scale), #bias)"],
        ..ROUNDED
    },
];

/// The function of `x` in the place of the whole match.
fn unary(rewriter: &mut Rewriter<'_>, found: &Match, op: UnaryOp) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    rewriter.add(Op::Unary(Unary { op }), vec![Some(x)], "function")
}

fn hard_swish(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let gate = rewriter.value(found, "gate")?;
    let Op::Unary(Unary { op: UnaryOp::HardSigmoid { alpha, beta } }) = rewriter.node(gate).op else {
        return Err(Skip::NoMatch);
    };
    // Exporters write 1/6 with six or seven digits.
    if (alpha - 1.0 / 6.0).abs() > 1e-6 || beta != 0.5 {
        return Err(Skip::because(format!("alpha = {alpha} and beta = {beta} are not 1/6 and 1/2")));
    }
    unary(rewriter, found, UnaryOp::HardSwish)
}

fn layer_norm(rewriter: &mut Rewriter<'_>, found: &Match, scale: Option<&str>) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let (shape, dtype) = (rewriter.fact(x).shape().to_vec(), rewriter.fact(x).dtype());
    let first = first_axis(rewriter, found, "axes", "mean", shape.len())?;
    if first_axis(rewriter, found, "axes2", "var", shape.len())? != first {
        return Err(Skip::because("mean and variance are taken over different axes"));
    }
    let epsilon = rewriter.tensor(found, "eps")?;
    let [epsilon] = epsilon.to_f64s()[..] else {
        return Err(Skip::because(format!("epsilon has shape {:?}", epsilon.shape())));
    };
    let scale = match scale {
        Some(name) => parameter(rewriter, found, name, &shape[first..])?,
        None => {
            let dims = known_dims(&shape[first..])?;
            let ones = vec![1.0; dims.iter().product()];
            rewriter.constant(Tensor::from_f64s(dtype, &dims, &ones), "scale")
        }
    };
    let op = LayerNormalization { axis: first as i64 - shape.len() as i64, epsilon: epsilon as f32 };
    rewriter.add(Op::LayerNormalization(op), vec![Some(x), Some(scale)], "norm")
}

/// The scale of a layer norm that has none so far.
fn layer_norm_scale(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    if rewriter.tensor(found, "ones")?.to_f64s().iter().any(|&v| v != 1.0) {
        return Err(Skip::because("the normalization has a scale already"));
    }
    let (op, normalized) = norm(rewriter, found)?;
    let (x, scale) = (rewriter.value(found, "x")?, parameter(rewriter, found, "scale", &normalized)?);
    rewriter.add(op, vec![Some(x), Some(scale)], "norm")
}

fn layer_norm_bias(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (op, normalized) = norm(rewriter, found)?;
    let bias = parameter(rewriter, found, "bias", &normalized)?;
    let (x, scale) = (rewriter.value(found, "x")?, rewriter.value(found, "scale")?);
    rewriter.add(op, vec![Some(x), Some(scale), Some(bias)], "norm")
}

/// The layer norm of a match, and the dims it normalizes.
fn norm(rewriter: &Rewriter<'_>, found: &Match) -> Result<(Op, Vec<Dim>), Skip> {
    let value = rewriter.value(found, "norm")?;
    let op = rewriter.node(value).op.clone();
    let Op::LayerNormalization(LayerNormalization { axis, .. }) = op else { return Err(Skip::NoMatch) };
    let shape = rewriter.fact(value).shape();
    let first = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let normalized = usize::try_from(first).ok().and_then(|first| shape.get(first..));
    Ok((op, normalized.ok_or(Skip::NoMatch)?.to_vec()))
}

fn known_dims(dims: &[Dim]) -> Result<Vec<usize>, Skip> {
    let known: Option<Vec<usize>> = dims.iter().map(Dim::as_usize).collect();
    known.ok_or_else(|| Skip::because(format!("the normalized shape {dims:?} is not known")))
}

/// The first of the reduced axes, if they are the last ones and stay as 1.
fn first_axis(
    rewriter: &Rewriter<'_>,
    found: &Match,
    axes: &str,
    mean: &str,
    rank: usize,
) -> Result<usize, Skip> {
    let keeps = match &rewriter.node(rewriter.value(found, mean)?).op {
        Op::Reduce(reduce) => reduce.keepdims,
        _ => return Err(Skip::NoMatch),
    };
    let rank = rank as i64;
    let axes = rewriter.tensor(found, axes)?.to_i64s();
    let mut axes: Vec<i64> = axes.iter().map(|&axis| if axis < 0 { axis + rank } else { axis }).collect();
    axes.sort_unstable();
    let first = *axes.first().ok_or(Skip::NoMatch)?;
    if !keeps || first < 0 || !axes.iter().copied().eq(first..rank) {
        return Err(Skip::because(format!("the mean over axes {axes:?} is not over the last ones")));
    }
    usize::try_from(first).map_err(|_| Skip::NoMatch)
}

/// A constant of exactly the normalized shape, from one with leading ones.
fn parameter(
    rewriter: &mut Rewriter<'_>,
    found: &Match,
    name: &str,
    normalized: &[Dim],
) -> Result<Value, Skip> {
    let tensor = rewriter.tensor(found, name)?;
    let wanted = known_dims(normalized)?;
    if tensor.shape() == wanted {
        return rewriter.value(found, name);
    }
    let extra = tensor.rank().saturating_sub(wanted.len());
    if tensor.shape()[..extra].iter().all(|&dim| dim == 1) && tensor.shape()[extra..] == wanted[..] {
        let reshaped: Tensor = tensor.reshaped(&wanted).map_err(|e| Skip::because(e.to_string()))?;
        return Ok(rewriter.constant(reshaped, name));
    }
    Err(Skip::because(format!("`{name}` has shape {:?}, not {wanted:?}", tensor.shape())))
}

#[cfg(test)]
mod tests {
    use crate::check::{becomes, run};
    use crate::fuse::fusion::Fuse;
    use rabot_rewrite::Stats;

    #[test]
    fn layer_norm_as_torch_writes_it() {
        let report = becomes(
            &Fuse,
            r#"model "g"
            input %0 "x" : f32[n,4]
            %1 = Constant [-1] : i64[1]
            %2 = ReduceMean(%0, %1)
            %3 = Sub(%0, %2)
            %4 = Constant [2.0] : f32[]
            %5 = Pow(%3, %4)
            %6 = Constant [-1] : i64[1]
            %7 = ReduceMean(%5, %6)
            %8 = Constant [0.5] : f32[]
            %9 = Add(%7, %8)
            %10 = Sqrt(%9)
            %11 = Div(%3, %10)
            %12 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]
            %13 = Mul(%11, %12)
            %14 = Constant [4.0, 3.0, 2.0, 1.0] : f32[1,4]
            %15 = Add(%13, %14)
            output "y" = %15"#,
            r#"model "g"
            input %0 "x" : f32[n,4]
            %1 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]
            %2 = Constant [4.0, 3.0, 2.0, 1.0] : f32[4]
            %3 = LayerNormalization(%0, %1, %2) {axis=-1, epsilon=0.5}
            output "y" = %3"#,
        );
        let rules: Vec<&str> = report.applied.iter().map(|applied| applied.rule).collect();
        assert_eq!(rules, ["layer-norm", "layer-norm-scale", "layer-norm-bias"]);
    }

    #[test]
    fn a_mean_over_inner_axes_is_no_layer_norm() {
        let (_, report) = run(
            &Fuse,
            r#"model "g"
            input %0 "x" : f32[4,4]
            %1 = Constant [0] : i64[1]
            %2 = ReduceMean(%0, %1)
            %3 = Sub(%0, %2)
            %4 = Mul(%3, %3)
            %5 = ReduceMean(%4, %1)
            %6 = Constant [0.5] : f32[]
            %7 = Add(%5, %6)
            %8 = Sqrt(%7)
            %9 = Div(%3, %8)
            %10 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]
            %11 = Mul(%9, %10)
            output "y" = %11"#,
        );
        assert!(report.applied.is_empty());
        assert_eq!(report.skipped[0].reason, "the mean over axes [0] is not over the last ones");
    }

    #[test]
    fn gelu_in_its_spellings() {
        let gelu = |body: &str| {
            let text = format!("model \"g\"\ninput %0 \"x\" : f32[n,4]\n{body}\noutput \"y\" = %9");
            let (graph, report) = run(&Fuse, &text);
            (Stats::of(&graph).nodes, report.applied.first().map(|applied| applied.rule))
        };
        let erf =
            "%1 = Constant [1.4142135] : f32[]\n%2 = Div(%0, %1)\n%3 = Erf(%2)\n%4 = Constant [1.0] : f32[]
            %5 = Add(%3, %4)\n%6 = Constant [0.5] : f32[]\n";
        assert_eq!(gelu(&format!("{erf}%7 = Mul(%0, %5)\n%9 = Mul(%7, %6)")), (1, Some("gelu")));
        assert_eq!(gelu(&format!("{erf}%7 = Mul(%6, %0)\n%9 = Mul(%7, %5)")), (1, Some("gelu")));
        assert_eq!(gelu(&format!("{erf}%7 = Mul(%6, %5)\n%9 = Mul(%7, %0)")), (1, Some("gelu")));
        let tanh = "%1 = Constant [0.044715] : f32[]\n%2 = Mul(%1, %0)\n%3 = Mul(%0, %2)\n%4 = Mul(%0, %3)
            %5 = Add(%0, %4)\n%6 = Constant [0.7978846] : f32[]\n%7 = Mul(%6, %5)\n%8 = Tanh(%7)
            %10 = Constant [1.0] : f32[1,1]\n%11 = Add(%10, %8)\n%12 = Constant [0.5] : f32[]\n%13 = Mul(%12, %11)
            %9 = Mul(%0, %13)";
        assert_eq!(gelu(tanh), (1, Some("gelu-tanh")));
    }

    #[test]
    fn hard_swish_in_its_spellings() {
        for body in [
            "%1 = HardSigmoid(%0) {alpha=0.16666667, beta=0.5}\n%9 = Mul(%1, %0)",
            "%1 = Constant [3.0] : f32[1]\n%2 = Add(%0, %1)\n%3 = Constant [0.0] : f32[]
             %4 = Constant [6.0] : f32[]\n%5 = Clip(%2, %3, %4)\n%6 = Mul(%0, %5)\n%9 = Div(%6, %4)",
        ] {
            let (graph, _) =
                run(&Fuse, &format!("model \"g\"\ninput %0 \"x\" : f32[n]\n{body}\noutput \"y\" = %9"));
            assert_eq!(graph.node(graph.outputs()[0].value.node).op.name(), "HardSwish");
        }
    }
}
