//! Activations: Gelu, Sigmoid, HardSwish and their like.

use super::{apply_unary, binary, number, root, scalar, unary};
use crate::fuse::fusion::ROUNDED;
use rabot_ir::ops::{BinaryOp, Clip, UnaryOp};
use rabot_ir::{Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::DType;

/// `√(2 / π)` and the factor of the cube in the approximation of Gelu by tanh.
const GELU_FACTORS: [f64; 2] = [0.797_884_560_802_865_4, 0.044715];

pub(super) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "gelu-argument",
        identity: "x / sqrt 2 = x (1 / sqrt 2), inside erf",
        lhs: &["Erf(Div(?x, 1.4142135623730951))"],
        uses: &["x"],
        apply: |r, m| {
            let x = r.value(m, "x")?;
            let factor = scalar(r, x, std::f64::consts::FRAC_1_SQRT_2, "factor");
            let argument = binary(r, BinaryOp::Mul, x, factor)?;
            apply_unary(r, UnaryOp::Erf, argument)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "gelu",
        identity: "0.5 x (1 + erf(x / sqrt 2)); Hendrycks, Gimpel, arXiv:1606.08415",
        lhs: &[
            "Mul(Mul(?x, Add(Erf(Mul(?x, 0.7071067811865476)), 1)), 0.5)",
            "Mul(Mul(?x, 0.5), Add(Erf(Mul(?x, 0.7071067811865476)), 1))",
            "Mul(?x, Mul(Add(Erf(Mul(?x, 0.7071067811865476)), 1), 0.5))",
            "Mul(?x, Add(Mul(Erf(Mul(?x, 0.7071067811865476)), 0.5), 0.5))",
        ],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Gelu { tanh: false }),
        ..ROUNDED
    },
    // The spellings are those of torch, of Keras, of paddle and of ONNX Runtime's FastGelu.
    RuleInfo {
        name: "gelu-argument",
        identity: "k (x + c x^3) = k x (1 + c x^2) = x (k + k c x^2), inside tanh",
        lhs: &[
            "Tanh(Mul(Add(?x, Mul(Mul(Mul(?x, ?x), ?x), 0.044715)), 0.7978845608028654))",
            "Tanh(Mul(Add(?x, Mul(?x, Mul(?x, Mul(?x, 0.044715)))), 0.7978845608028654))",
            "Tanh(Mul(Mul(?x, 0.7978845608028654), Add(Mul(Mul(?x, ?x), 0.044715), 1)))",
            "Tanh(Mul(Mul(?x, 0.7978845608028654), Add(Mul(?x, Mul(?x, 0.044715)), 1)))",
            "Tanh(Mul(?x, Mul(Add(Mul(Mul(?x, ?x), 0.044715), 1), 0.7978845608028654)))",
            "Tanh(Mul(Mul(?x, Add(Mul(Mul(?x, ?x), 0.044715), 1)), 0.7978845608028654))",
            "Tanh(Mul(?x, Add(Mul(Mul(?x, ?x), 0.035677408136300125), 0.7978845608028654)))",
        ],
        uses: &["x"],
        apply: gelu_argument,
        ..ROUNDED
    },
    RuleInfo {
        name: "gelu-tanh",
        identity: "0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); Hendrycks, Gimpel, arXiv:1606.08415",
        lhs: &[
            "Mul(Mul(?x, 0.5), Add(Tanh(Mul(Add(?x, Mul(Pow(?x, 3), 0.044715)), 0.7978845608028654)), 1))",
            "Mul(Mul(?x, Add(Tanh(Mul(Add(?x, Mul(Pow(?x, 3), 0.044715)), 0.7978845608028654)), 1)), 0.5)",
            "Mul(?x, Mul(Add(Tanh(Mul(Add(?x, Mul(Pow(?x, 3), 0.044715)), 0.7978845608028654)), 1), 0.5))",
            "Mul(?x, Add(Mul(Tanh(Mul(Add(?x, Mul(Pow(?x, 3), 0.044715)), 0.7978845608028654)), 0.5), 0.5))",
        ],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Gelu { tanh: true }),
        ..ROUNDED
    },
    RuleInfo {
        name: "sigmoid",
        identity: "1 / (1 + e^-x) = (1 + tanh(x / 2)) / 2",
        lhs: &["Reciprocal(Add(Exp(Neg(?x)), 1))"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Sigmoid),
        ..ROUNDED
    },
    RuleInfo {
        name: "sigmoid",
        identity: "1 / (1 + e^-x) = e^x / (1 + e^x)",
        lhs: &["Div(1, Add(Exp(Neg(?x)), 1))", "Div(e:Exp(?x), Add(?e, 1))"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Sigmoid),
        ..ROUNDED
    },
    RuleInfo {
        name: "sigmoid",
        identity: "(1 + tanh(x / 2)) / 2 = 1 / (1 + e^-x)",
        lhs: &["Mul(Add(Tanh(Mul(?x, 0.5)), 1), 0.5)"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Sigmoid),
        ..ROUNDED
    },
    RuleInfo {
        name: "sigmoid",
        identity: "tanh(x / 2) / 2 + 1 / 2 = 1 / (1 + e^-x)",
        lhs: &["Add(Mul(Tanh(Mul(?x, 0.5)), 0.5), 0.5)"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Sigmoid),
        ..ROUNDED
    },
    RuleInfo {
        name: "silu",
        identity: "x / (1 + e^-x) = x sigmoid(x); Elfwing, Uchibe, Doya, arXiv:1702.03118",
        lhs: &["Div(?x, Add(Exp(Neg(?x)), 1))"],
        uses: &["x"],
        apply: |r, m| {
            let (x, gate) = (r.value(m, "x")?, unary(r, m, UnaryOp::Sigmoid)?);
            binary(r, BinaryOp::Mul, x, gate)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "softplus",
        identity: "softplus(x) = ln(1 + e^x)",
        lhs: &["Log(Add(Exp(?x), 1))"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Softplus),
        ..ROUNDED
    },
    RuleInfo {
        name: "softplus",
        identity: "max(x, 0) + softplus(-|x|) = softplus(x)",
        lhs: &["Add(Relu(?x), Softplus(Neg(Abs(?x))))"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Softplus),
        ..ROUNDED
    },
    RuleInfo {
        name: "mish",
        identity: "mish(x) = x tanh(softplus(x)); Misra, arXiv:1908.08681",
        lhs: &["Mul(?x, Tanh(Softplus(?x)))"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Mish),
        ..ROUNDED
    },
    RuleInfo {
        name: "relu",
        identity: "max(x, 0) = relu(x)",
        lhs: &["Max(?x, 0)"],
        uses: &["x"],
        apply: |r, m| {
            let is_float = r.fact(r.value(m, "x")?).dtype().is_float();
            if is_float { unary(r, m, UnaryOp::Relu) } else { Err(Skip::NoMatch) }
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "clip",
        identity: "min(relu(x), c) = clip(x, 0, c) for c >= 0",
        lhs: &["Min(Relu(?x), #hi)"],
        uses: &["x", "hi"],
        apply: |r, m| number(r, m, "hi").and_then(|hi| clip(r, m, 0.0, hi)),
        ..ROUNDED
    },
    RuleInfo {
        name: "clip",
        identity: "clip(relu(x), 0, c) = clip(x, 0, c) for c >= 0",
        lhs: &["Clip(Relu(?x), 0, #hi)"],
        uses: &["x", "hi"],
        apply: |r, m| number(r, m, "hi").and_then(|hi| clip(r, m, 0.0, hi)),
        ..ROUNDED
    },
    RuleInfo {
        name: "clip",
        identity: "min(max(x, a), b) = clip(x, a, b) for a <= b",
        lhs: &["Min(Max(?x, #lo), #hi)"],
        uses: &["x", "lo", "hi"],
        apply: |r, m| clip(r, m, number(r, m, "lo")?, number(r, m, "hi")?),
        ..ROUNDED
    },
    RuleInfo {
        name: "clip",
        identity: "max(min(x, b), a) = clip(x, a, b) for a <= b",
        lhs: &["Max(Min(?x, #hi), #lo)"],
        uses: &["x", "lo", "hi"],
        apply: |r, m| clip(r, m, number(r, m, "lo")?, number(r, m, "hi")?),
        ..ROUNDED
    },
    RuleInfo {
        name: "hard-sigmoid",
        identity: "clip(x + 3, 0, 6) / 6 = max(0, min(1, x / 6 + 1 / 2))",
        lhs: &["Div(Clip(Add(?x, 3), 0, 6), 6)"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }),
        ..ROUNDED
    },
    RuleInfo {
        name: "hard-sigmoid",
        identity: "clip(x + 3, 0, 6) (1 / 6) = max(0, min(1, x / 6 + 1 / 2))",
        lhs: &["Mul(Clip(Add(?x, 3), 0, 6), 0.16666666666666666)"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }),
        ..ROUNDED
    },
    RuleInfo {
        name: "hard-sigmoid",
        identity: "clip(a x + b, 0, 1) = max(0, min(1, a x + b))",
        lhs: &["Clip(Add(Mul(?x, #alpha), #beta), 0, 1)"],
        uses: &["x", "alpha", "beta"],
        apply: |r, m| {
            // In shorter floats the product and the sum are rounded visibly, one by one.
            if !matches!(r.fact(r.value(m, "x")?).dtype(), DType::F32 | DType::F64) {
                return Err(Skip::NoMatch);
            }
            let (alpha, beta) = (number(r, m, "alpha")? as f32, number(r, m, "beta")? as f32);
            unary(r, m, UnaryOp::HardSigmoid { alpha, beta })
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "hard-swish",
        identity: "x max(0, min(1, x / 6 + 1 / 2)); https://onnx.ai/onnx/operators/onnx__HardSwish.html",
        lhs: &["Mul(?x, gate:HardSigmoid(?x))"],
        uses: &["x", "gate"],
        apply: hard_swish,
        ..ROUNDED
    },
    RuleInfo {
        name: "hard-swish",
        identity: "x clip(x + 3, 0, 6) / 6 = hard_swish(x)",
        lhs: &[
            "Div(Mul(?x, Clip(Add(?x, 3), 0, 6)), 6)",
            "Mul(Mul(?x, Clip(Add(?x, 3), 0, 6)), 0.16666666666666666)",
        ],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::HardSwish),
        ..ROUNDED
    },
    RuleInfo {
        name: "leaky-relu",
        identity: "max(x, a x) is x for x >= 0 and a x below, for 0 <= a <= 1",
        lhs: &["Max(?x, Mul(?x, #a))"],
        uses: &["x", "a"],
        apply: leaky_relu,
        ..ROUNDED
    },
    RuleInfo {
        name: "leaky-relu",
        identity: "x for x > 0 and a x below",
        lhs: &["Where(Greater|GreaterOrEqual(?x, 0), ?x, Mul(?x, #a))"],
        uses: &["x", "a"],
        apply: |r, m| {
            let alpha = number(r, m, "a")? as f32;
            unary(r, m, UnaryOp::LeakyRelu { alpha })
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "leaky-relu",
        identity: "relu(x) - a relu(-x) is x for x >= 0 and a x below",
        lhs: &["Sub(Relu(?x), Mul(Relu(Neg(?x)), #a))"],
        uses: &["x", "a"],
        apply: |r, m| {
            let alpha = number(r, m, "a")? as f32;
            unary(r, m, UnaryOp::LeakyRelu { alpha })
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "elu",
        identity: "x for x > 0 and e^x - 1 below",
        lhs: &["Where(Greater|GreaterOrEqual(?x, 0), ?x, Sub(Exp(?x), 1))"],
        uses: &["x"],
        apply: |r, m| unary(r, m, UnaryOp::Elu { alpha: 1.0 }),
        ..ROUNDED
    },
];

/// The argument of Gelu's tanh as torch writes it, which [`RULES`] recognize: `k (x + c x³)` with a power.
fn gelu_argument(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let [factor, cubic] = GELU_FACTORS.map(|value| scalar(rewriter, x, value, "factor"));
    let three = scalar(rewriter, x, 3.0, "three");
    let cube = binary(rewriter, BinaryOp::Pow, x, three)?;
    let term = binary(rewriter, BinaryOp::Mul, cube, cubic)?;
    let sum = binary(rewriter, BinaryOp::Add, x, term)?;
    let argument = binary(rewriter, BinaryOp::Mul, sum, factor)?;
    apply_unary(rewriter, UnaryOp::Tanh, argument)
}

fn clip(rewriter: &mut Rewriter<'_>, found: &Match, lo: f64, hi: f64) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    // The verdict on NaN bounds is that of the operators, which differ.
    if lo.is_nan() || hi.is_nan() || lo > hi || !rewriter.fact(x).dtype().is_float() {
        return Err(Skip::because(format!("bounds {lo} and {hi} are not in order")));
    }
    if rewriter.fact(x).ty != rewriter.fact(root(found)).ty {
        return Err(Skip::NoMatch);
    }
    let (lo, hi) = (scalar(rewriter, x, lo, "min"), scalar(rewriter, x, hi, "max"));
    rewriter.add(Op::Clip(Clip), vec![Some(x), Some(lo), Some(hi)], "clip")
}

fn hard_swish(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let gate = rewriter.value(found, "gate")?;
    let Op::Unary(rabot_ir::ops::Unary { op: UnaryOp::HardSigmoid { alpha, beta } }) = rewriter.node(gate).op
    else {
        return Err(Skip::NoMatch);
    };
    // Exporters write 1/6 with six or seven digits.
    if (alpha - 1.0 / 6.0).abs() > 1e-6 || beta != 0.5 {
        return Err(Skip::because(format!("alpha = {alpha} and beta = {beta} are not 1/6 and 1/2")));
    }
    unary(rewriter, found, UnaryOp::HardSwish)
}

fn leaky_relu(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let alpha = number(rewriter, found, "a")?;
    if !(0.0..=1.0).contains(&alpha) {
        return Err(Skip::because(format!("max(x, {alpha} x) is no LeakyRelu: {alpha} is not in 0..=1")));
    }
    unary(rewriter, found, UnaryOp::LeakyRelu { alpha: alpha as f32 })
}
