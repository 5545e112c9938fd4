//! Layer and RMS norms, and the means and roots they are made of.
//!
//! Group and instance norms, and batch norms in training form, are layer norms of a reshaped operand; the scale and
//! the bias of each channel stay behind them as `Mul` and `Add`, which kernels take along.

use super::{axes_of, number, reduction, root};
use crate::fuse::fusion::ROUNDED;
use rabot_ir::ops::{LayerNormalization, Reduce, ReduceOp, UnaryOp};
use rabot_ir::{Dim, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;

pub(super) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "one-over",
        identity: "1 / x = reciprocal(x)",
        lhs: &["Div(1, ?x)"],
        uses: &["x"],
        apply: |r, m| {
            let is_float = r.fact(r.value(m, "x")?).dtype().is_float();
            if is_float { super::unary(r, m, UnaryOp::Reciprocal) } else { Err(Skip::NoMatch) }
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "power-half",
        identity: "x^(1/2) = sqrt(x)",
        lhs: &["Pow(?x, 0.5)"],
        uses: &["x"],
        apply: |r, m| {
            let is_float = r.fact(r.value(m, "x")?).dtype().is_float();
            if is_float { super::unary(r, m, UnaryOp::Sqrt) } else { Err(Skip::NoMatch) }
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "power-half",
        identity: "x^(-1/2) = 1 / sqrt(x)",
        lhs: &["Pow(?x, -0.5)"],
        uses: &["x"],
        apply: |r, m| {
            if !r.fact(r.value(m, "x")?).dtype().is_float() {
                return Err(Skip::NoMatch);
            }
            let root = super::unary(r, m, UnaryOp::Sqrt)?;
            super::apply_unary(r, UnaryOp::Reciprocal, root)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "keep-dims",
        identity: "a reduced axis that is put back as 1 might as well have stayed",
        lhs: &["Reshape|Unsqueeze(reduced:ReduceMean|ReduceSum|ReduceMax|ReduceMin(?x, #axes), _shape)"],
        uses: &["reduced", "x", "axes"],
        apply: keep_dims,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "mean",
        identity: "sum(x) (1 / n) = mean(x)",
        lhs: &["Mul(sum:ReduceSum(?x, #axes), #c)"],
        uses: &["sum", "x", "axes", "c"],
        apply: |r, m| number(r, m, "c").and_then(|c| mean(r, m, c)),
        ..ROUNDED
    },
    RuleInfo {
        name: "mean",
        identity: "sum(x) / n = mean(x)",
        lhs: &["Div(sum:ReduceSum(?x, #axes), #c)"],
        uses: &["sum", "x", "axes", "c"],
        apply: |r, m| number(r, m, "c").and_then(|c| mean(r, m, 1.0 / c)),
        ..ROUNDED
    },
    RuleInfo {
        name: "l2-norm",
        identity: "sqrt(sum(x^2)) = |x|",
        lhs: &["Sqrt(sum:ReduceSum(Mul(?x, ?x), #axes))", "Sqrt(sum:ReduceSumSquare(?x, #axes))"],
        uses: &["sum", "x", "axes"],
        apply: |r, m| {
            let reduce = Reduce { op: ReduceOp::L2, ..reduction(r, r.value(m, "sum")?)?.clone() };
            let (x, axes) = (r.value(m, "x")?, r.value(m, "axes")?);
            r.add(Op::Reduce(reduce), vec![Some(x), Some(axes)], "norm")
        },
        ..ROUNDED
    },
    // Keras and tf2onnx: the scale is a factor of the inverse deviation.
    RuleInfo {
        name: "layer-norm",
        identity: "(x - mean) (s / sqrt(mean((x - mean)^2) + eps)); Ba, Kiros, Hinton, arXiv:1607.06450",
        lhs: &[
            "Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), Mul(Reciprocal(Sqrt(Add(var:ReduceMean(Pow(?d, 2), #axes2), #eps))), #scale))",
            "Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), Mul(Reciprocal(Sqrt(Add(var:ReduceMean(Mul(?d, ?d), #axes2), #eps))), #scale))",
        ],
        uses: &["x", "d", "mean", "var", "axes", "axes2", "eps", "scale"],
        apply: |r, m| layer_norm(r, m, Some("scale"), None),
        ..ROUNDED
    },
    // Keras: both products are taken apart, and the mean comes with the bias.
    RuleInfo {
        name: "layer-norm",
        identity: "x i + (b - mean i) with i = s / sqrt(mean((x - mean)^2) + eps)",
        lhs: &[
            "Add(Mul(?x, i:Mul(Reciprocal(Sqrt(Add(var:ReduceMean(Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), ?d), #axes2), #eps))), #scale)), Sub(#bias, Mul(?mean, ?i)))",
            "Add(Mul(?x, i:Mul(Reciprocal(Sqrt(Add(var:ReduceMean(Pow(Sub(?x, mean:ReduceMean(?x, #axes)), 2), #axes2), #eps))), #scale)), Sub(#bias, Mul(?mean, ?i)))",
        ],
        uses: &["x", "mean", "var", "axes", "axes2", "eps", "scale", "bias"],
        apply: |r, m| layer_norm(r, m, Some("scale"), Some("bias")),
        ..ROUNDED
    },
    RuleInfo {
        name: "layer-norm",
        identity: "(x - mean) / sqrt(mean((x - mean)^2) + eps); Ba, Kiros, Hinton, arXiv:1607.06450",
        lhs: &[
            "Div(d:Sub(?x, mean:ReduceMean(?x, #axes)), Sqrt(Add(var:ReduceMean(Pow(?d, 2), #axes2), #eps)))",
            "Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), Reciprocal(Sqrt(Add(var:ReduceMean(Pow(?d, 2), #axes2), #eps))))",
            "Div(d:Sub(?x, mean:ReduceMean(?x, #axes)), Sqrt(Add(var:ReduceMean(Mul(?d, ?d), #axes2), #eps)))",
            "Mul(d:Sub(?x, mean:ReduceMean(?x, #axes)), Reciprocal(Sqrt(Add(var:ReduceMean(Mul(?d, ?d), #axes2), #eps))))",
        ],
        uses: &["x", "d", "mean", "var", "axes", "axes2", "eps"],
        apply: |r, m| layer_norm(r, m, None, None),
        ..ROUNDED
    },
    RuleInfo {
        name: "rms-norm",
        identity: "x / sqrt(mean(x^2) + eps); Zhang, Sennrich, arXiv:1910.07467",
        lhs: &[
            "Mul(?x, Reciprocal(Sqrt(Add(var:ReduceMean(Mul(?x, ?x), #axes), #eps))))",
            "Mul(?x, Reciprocal(Sqrt(Add(var:ReduceMean(Pow(?x, 2), #axes), #eps))))",
            "Div(?x, Sqrt(Add(var:ReduceMean(Mul(?x, ?x), #axes), #eps)))",
            "Div(?x, Sqrt(Add(var:ReduceMean(Pow(?x, 2), #axes), #eps)))",
        ],
        uses: &["x", "var", "axes", "eps"],
        apply: rms_norm,
        ..ROUNDED
    },
    RuleInfo {
        name: "layer-norm-scale",
        identity: "a product with a normalization by ones is its scale",
        lhs: &["Mul(norm:LayerNormalization|RMSNormalization(?x, #ones), #scale)"],
        uses: &["x", "ones", "norm", "scale"],
        apply: norm_scale,
        ..ROUNDED
    },
    RuleInfo {
        name: "layer-norm-bias",
        identity: "a sum with a normalization without bias is its bias",
        lhs: &["Add(norm:LayerNormalization(?x, ?scale), #bias)"],
        uses: &["x", "scale", "norm", "bias"],
        apply: layer_norm_bias,
        ..ROUNDED
    },
];

fn keep_dims(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, reduced) = (rewriter.value(found, "x")?, rewriter.value(found, "reduced")?);
    let axes = rewriter.value(found, "axes")?;
    let reduce = reduction(rewriter, reduced)?.clone();
    if reduce.keepdims {
        return Err(Skip::NoMatch);
    }
    let wanted = rewriter.fact(root(found)).ty.clone();
    let kept = Reduce { keepdims: true, ..reduce };
    let kept = rewriter.add(Op::Reduce(kept), vec![Some(x), Some(axes)], "kept")?;
    if rewriter.fact(kept).ty == wanted { Ok(kept) } else { Err(Skip::NoMatch) }
}

/// The mean in the place of a sum times `factor`.
fn mean(rewriter: &mut Rewriter<'_>, found: &Match, factor: f64) -> Result<Value, Skip> {
    let (x, axes) = (rewriter.value(found, "x")?, rewriter.value(found, "axes")?);
    let reduce = reduction(rewriter, rewriter.value(found, "sum")?)?.clone();
    let shape = rewriter.fact(x).shape().to_vec();
    if !rewriter.fact(x).dtype().is_float() {
        return Err(Skip::NoMatch);
    }
    let mut count = 1.0;
    for axis in axes_of(rewriter, found, "axes", shape.len())? {
        let dim = usize::try_from(axis).ok().and_then(|axis| shape.get(axis)).ok_or(Skip::NoMatch)?;
        count *= dim.as_const().ok_or(Skip::NoMatch)? as f64;
    }
    // 1e-6: the factor is 1 / n rounded to f32.
    if (factor * count - 1.0).abs() > 1e-6 {
        return Err(Skip::NoMatch);
    }
    let reduce = Reduce { op: ReduceOp::Mean, ..reduce };
    rewriter.add(Op::Reduce(reduce), vec![Some(x), Some(axes)], "mean")
}

fn layer_norm(
    rewriter: &mut Rewriter<'_>,
    found: &Match,
    scale: Option<&str>,
    bias: Option<&str>,
) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let shape = rewriter.fact(x).shape().to_vec();
    let first = first_axis(rewriter, found, "axes", "mean", shape.len())?;
    if first_axis(rewriter, found, "axes2", "var", shape.len())? != first {
        return Err(Skip::because("mean and variance are taken over different axes"));
    }
    let epsilon = epsilon(rewriter, found)?;
    let mut operands = vec![Some(x)];
    operands.push(Some(match scale {
        Some(name) => parameter(rewriter, found, name, &shape[first..])?,
        None => ones(rewriter, x, &shape[first..]),
    }));
    if let Some(name) = bias {
        operands.push(Some(parameter(rewriter, found, name, &shape[first..])?));
    }
    let op = LayerNormalization { axis: first as i64 - shape.len() as i64, epsilon, centered: true };
    rewriter.add(Op::LayerNormalization(op), operands, "norm")
}

fn rms_norm(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let shape = rewriter.fact(x).shape().to_vec();
    let first = first_axis(rewriter, found, "axes", "var", shape.len())?;
    let epsilon = epsilon(rewriter, found)?;
    let ones = ones(rewriter, x, &shape[first..]);
    let op = LayerNormalization { axis: first as i64 - shape.len() as i64, epsilon, centered: false };
    rewriter.add(Op::LayerNormalization(op), vec![Some(x), Some(ones)], "norm")
}

fn epsilon(rewriter: &Rewriter<'_>, found: &Match) -> Result<f32, Skip> {
    let epsilon = rewriter.tensor(found, "eps")?;
    match epsilon.to_f64s()[..] {
        [epsilon] => Ok(epsilon as f32),
        _ => Err(Skip::because(format!("epsilon has shape {:?}", epsilon.shape()))),
    }
}

/// A scale that changes nothing: one for each element, or one for all where their number is not known.
fn ones(rewriter: &mut Rewriter<'_>, x: Value, normalized: &[Dim]) -> Value {
    let dims = known_dims(normalized).unwrap_or_else(|_| vec![1]);
    let ones = vec![1.0; dims.iter().product()];
    let dtype = rewriter.fact(x).dtype();
    rewriter.constant(Tensor::from_f64s(dtype, &dims, &ones), "scale")
}

/// The scale of a norm that has none so far.
fn norm_scale(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
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

/// The norm of a match, and the dims it normalizes.
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
    let keeps = reduction(rewriter, rewriter.value(found, mean)?)?.keepdims;
    let axes = axes_of(rewriter, found, axes, rank)?;
    let first = *axes.first().ok_or(Skip::NoMatch)?;
    if !keeps || first < 0 || !axes.iter().copied().eq(first..rank as i64) {
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
