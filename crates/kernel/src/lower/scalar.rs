//! Elementwise ops as scalar DAGs.

use crate::{BinaryFn, Dag, Expr, ExprId, UnaryFn};
use rabot_ir::Op;
use rabot_ir::ops::{BinaryOp, UnaryOp, VariadicOp};
use rabot_tensor::{DType, Tensor};

/// The dtype in which elements of a stored dtype are computed.
pub(super) fn compute_dtype(stored: DType) -> DType {
    match stored {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// True if the op is elementwise with broadcasting and has a scalar DAG for operands of this dtype.
pub(super) fn is_elementwise(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Variadic(_)
            | Op::Where(_)
            | Op::Clip(_)
            | Op::Cast(_)
            | Op::Identity(_)
            | Op::BatchNormalization(_)
    ) || is_quantization(op)
}

/// True for quantization and its inverse with parameters for the tensor or for an axis, not for blocks of it.
fn is_quantization(op: &Op) -> bool {
    match op {
        Op::QuantizeLinear(op) => op.block_size == 0,
        Op::DequantizeLinear(op) => op.block_size == 0,
        _ => false,
    }
}

/// True if kernels compute with elements of this dtype.
pub(super) fn is_compiled_dtype(dtype: DType) -> bool {
    use DType::*;
    dtype.is_int() || matches!(dtype, F32 | F64 | F16 | BF16 | Bool)
}

/// `max(lo, min(hi, x))`.
fn clamp(dag: &mut Dag, x: ExprId, lo: f64, hi: f64) -> ExprId {
    let dtype = dag.dtype(x);
    let (lo, hi) = (dag.constant(dtype, lo), dag.constant(dtype, hi));
    let upper = dag.binary(BinaryFn::Min, x, hi);
    dag.binary(BinaryFn::Max, upper, lo)
}

fn is_negative(dag: &mut Dag, x: ExprId) -> ExprId {
    let dtype = dag.dtype(x);
    let zero = dag.constant(dtype, 0.0);
    dag.binary(BinaryFn::Lt, x, zero)
}

/// `ln(1 + e^x)`, without overflow.
fn softplus(dag: &mut Dag, x: ExprId) -> ExprId {
    let zero = dag.constant(dag.dtype(x), 0.0);
    let positive = dag.binary(BinaryFn::Max, x, zero);
    let magnitude = dag.unary(UnaryFn::Abs, x);
    let negated = dag.unary(UnaryFn::Neg, magnitude);
    let exp = dag.unary(UnaryFn::Exp, negated);
    let log = log1p(dag, exp);
    dag.binary(BinaryFn::Add, positive, log)
}

/// `ln(1 + y)` for y from 0 to 1, to the last digits of small ones too: `ln(u) + (y - (u - 1)) / u`, where `u` is the
/// rounded sum. The difference is what rounding took from it, exactly.
fn log1p(dag: &mut Dag, y: ExprId) -> ExprId {
    let one = dag.constant(dag.dtype(y), 1.0);
    let sum = dag.binary(BinaryFn::Add, y, one);
    let kept = dag.binary(BinaryFn::Sub, sum, one);
    let lost = dag.binary(BinaryFn::Sub, y, kept);
    let correction = dag.binary(BinaryFn::Div, lost, sum);
    let log = dag.unary(UnaryFn::Log, sum);
    dag.binary(BinaryFn::Add, log, correction)
}

/// Below this magnitude, `e^x - 1` is a polynomial: half of ln 2.
const EXPM1_SMALL: f64 = 0.346_573_59;

/// `(e^x - 1 - x) / x²` on ±ln 2 / 2, highest power first.
///
/// **Source**: Cephes `expf` (S. Moshier).
const EXPM1: [f64; 6] =
    [1.987_569_15e-4, 1.398_199_950_7e-3, 8.333_451_907_3e-3, 4.166_579_589_4e-2, 1.666_666_545_9e-1, 0.5];

/// `e^x - 1`, to the last digits of small ones too.
fn expm1(dag: &mut Dag, x: ExprId) -> ExprId {
    let dtype = dag.dtype(x);
    if dtype == DType::F64 {
        return dag.unary(UnaryFn::Libm("expm1"), x);
    }
    let (one, limit) = (dag.constant(dtype, 1.0), dag.constant(dtype, EXPM1_SMALL));
    let exp = dag.unary(UnaryFn::Exp, x);
    let large = dag.binary(BinaryFn::Sub, exp, one);
    let [highest, others @ ..] = EXPM1;
    let mut sum = dag.constant(dtype, highest);
    for coefficient in others {
        let coefficient = dag.constant(dtype, coefficient);
        let product = dag.binary(BinaryFn::Mul, sum, x);
        sum = dag.binary(BinaryFn::Add, product, coefficient);
    }
    let square = dag.binary(BinaryFn::Mul, x, x);
    let curve = dag.binary(BinaryFn::Mul, sum, square);
    let small = dag.binary(BinaryFn::Add, x, curve);
    let magnitude = dag.unary(UnaryFn::Abs, x);
    let is_small = dag.binary(BinaryFn::Lt, magnitude, limit);
    dag.select(is_small, small, large)
}

/// `alpha * (e^(x / gamma) - 1)`.
fn scaled_expm1(dag: &mut Dag, x: ExprId, alpha: f64, gamma: f64) -> ExprId {
    let dtype = dag.dtype(x);
    let alpha = dag.constant(dtype, alpha);
    let scaled = if gamma == 1.0 {
        x
    } else {
        let gamma = dag.constant(dtype, gamma);
        dag.binary(BinaryFn::Div, x, gamma)
    };
    let less = expm1(dag, scaled);
    dag.binary(BinaryFn::Mul, alpha, less)
}

/// `x / 2 * (1 + erf(x / √2))`; or by tanh, as `x * sigmoid(2 z)`, which is `x / 2 * (1 + tanh(z))` without the sum that
/// cancels for negative x: `z = √(2/π) * (x + 0.044715 x³)`.
fn gelu(dag: &mut Dag, x: ExprId, tanh: bool) -> ExprId {
    let dtype = dag.dtype(x);
    let one = dag.constant(dtype, 1.0);
    if tanh {
        let cubic = dag.constant(dtype, 0.044715);
        let factor = dag.constant(dtype, 2.0 * (2.0 / std::f64::consts::PI).sqrt());
        let square = dag.binary(BinaryFn::Mul, x, x);
        let scaled = dag.binary(BinaryFn::Mul, square, cubic);
        let grown = dag.binary(BinaryFn::Add, scaled, one);
        let product = dag.binary(BinaryFn::Mul, grown, x);
        let argument = dag.binary(BinaryFn::Mul, product, factor);
        let gate = dag.unary(UnaryFn::Sigmoid, argument);
        return dag.binary(BinaryFn::Mul, x, gate);
    }
    let factor = dag.constant(dtype, std::f64::consts::FRAC_1_SQRT_2);
    let argument = dag.binary(BinaryFn::Mul, x, factor);
    let inner = dag.unary(UnaryFn::Erf, argument);
    let sum = dag.binary(BinaryFn::Add, inner, one);
    let half = dag.constant(dtype, 0.5);
    let halved = dag.binary(BinaryFn::Mul, x, half);
    dag.binary(BinaryFn::Mul, halved, sum)
}

/// -1, 0 or 1; NaN stays.
fn sign(dag: &mut Dag, x: ExprId) -> ExprId {
    let dtype = dag.dtype(x);
    let (zero, one) = (dag.constant(dtype, 0.0), dag.constant(dtype, 1.0));
    let positive = dag.binary(BinaryFn::Lt, zero, x);
    let upper = dag.select(positive, one, x);
    if dtype.is_unsigned_int() {
        return upper;
    }
    let minus_one = dag.constant(dtype, -1.0);
    let negative = is_negative(dag, x);
    dag.select(negative, minus_one, upper)
}

/// A function of one operand.
pub(super) fn unary(dag: &mut Dag, op: &UnaryOp, x: ExprId) -> ExprId {
    let dtype = dag.dtype(x);
    match *op {
        UnaryOp::Abs if dtype.is_unsigned_int() => x,
        UnaryOp::Abs => dag.unary(UnaryFn::Abs, x),
        UnaryOp::Neg => dag.unary(UnaryFn::Neg, x),
        UnaryOp::Ceil => dag.unary(UnaryFn::Ceil, x),
        UnaryOp::Floor => dag.unary(UnaryFn::Floor, x),
        UnaryOp::Round => dag.unary(UnaryFn::Round, x),
        UnaryOp::Sqrt => dag.unary(UnaryFn::Sqrt, x),
        UnaryOp::Reciprocal => dag.unary(UnaryFn::Reciprocal, x),
        UnaryOp::Exp => dag.unary(UnaryFn::Exp, x),
        UnaryOp::Log => dag.unary(UnaryFn::Log, x),
        UnaryOp::Sin => dag.unary(UnaryFn::Sin, x),
        UnaryOp::Cos => dag.unary(UnaryFn::Cos, x),
        UnaryOp::Tanh => dag.unary(UnaryFn::Tanh, x),
        UnaryOp::Sigmoid => dag.unary(UnaryFn::Sigmoid, x),
        UnaryOp::Erf => dag.unary(UnaryFn::Erf, x),
        UnaryOp::Not | UnaryOp::BitwiseNot => dag.unary(UnaryFn::Not, x),
        UnaryOp::IsNaN => dag.unary(UnaryFn::IsNaN, x),
        UnaryOp::Tan => dag.unary(UnaryFn::Libm("tan"), x),
        UnaryOp::Acos => dag.unary(UnaryFn::Libm("acos"), x),
        UnaryOp::Asin => dag.unary(UnaryFn::Libm("asin"), x),
        UnaryOp::Atan => dag.unary(UnaryFn::Libm("atan"), x),
        UnaryOp::Sinh => dag.unary(UnaryFn::Libm("sinh"), x),
        UnaryOp::Cosh => dag.unary(UnaryFn::Libm("cosh"), x),
        UnaryOp::Asinh => dag.unary(UnaryFn::Libm("asinh"), x),
        UnaryOp::Acosh => dag.unary(UnaryFn::Libm("acosh"), x),
        UnaryOp::Atanh => dag.unary(UnaryFn::Libm("atanh"), x),
        UnaryOp::Sign => sign(dag, x),
        UnaryOp::Softplus => softplus(dag, x),
        UnaryOp::Gelu { tanh } => gelu(dag, x, tanh),
        UnaryOp::Relu => {
            let zero = dag.constant(dtype, 0.0);
            dag.binary(BinaryFn::Max, x, zero)
        }
        UnaryOp::Softsign => softsign(dag, x),
        UnaryOp::Mish => mish(dag, x),
        UnaryOp::HardSwish => hard_swish(dag, x),
        UnaryOp::HardSigmoid { alpha, beta } => hard_sigmoid(dag, x, alpha as f64, beta as f64),
        UnaryOp::LeakyRelu { alpha } => {
            let alpha = dag.constant(dtype, alpha as f64);
            let (scaled, negative) = (dag.binary(BinaryFn::Mul, x, alpha), is_negative(dag, x));
            dag.select(negative, scaled, x)
        }
        UnaryOp::ThresholdedRelu { alpha } => thresholded_relu(dag, x, alpha as f64),
        UnaryOp::Elu { alpha } => {
            let (curve, negative) = (scaled_expm1(dag, x, alpha as f64, 1.0), is_negative(dag, x));
            dag.select(negative, curve, x)
        }
        UnaryOp::Celu { alpha } => {
            let curve = scaled_expm1(dag, x, alpha as f64, alpha as f64);
            let negative = is_negative(dag, x);
            dag.select(negative, curve, x)
        }
        UnaryOp::Selu { alpha, gamma } => selu(dag, x, alpha as f64, gamma as f64),
    }
}

fn softsign(dag: &mut Dag, x: ExprId) -> ExprId {
    let (one, magnitude) = (dag.constant(dag.dtype(x), 1.0), dag.unary(UnaryFn::Abs, x));
    let sum = dag.binary(BinaryFn::Add, one, magnitude);
    dag.binary(BinaryFn::Div, x, sum)
}

fn mish(dag: &mut Dag, x: ExprId) -> ExprId {
    let inner = softplus(dag, x);
    let tanh = dag.unary(UnaryFn::Tanh, inner);
    dag.binary(BinaryFn::Mul, x, tanh)
}

fn thresholded_relu(dag: &mut Dag, x: ExprId, alpha: f64) -> ExprId {
    let dtype = dag.dtype(x);
    let (alpha, zero) = (dag.constant(dtype, alpha), dag.constant(dtype, 0.0));
    let above = dag.binary(BinaryFn::Lt, alpha, x);
    dag.select(above, x, zero)
}

fn selu(dag: &mut Dag, x: ExprId, alpha: f64, gamma: f64) -> ExprId {
    let (curve, negative) = (scaled_expm1(dag, x, alpha, 1.0), is_negative(dag, x));
    let (joined, gamma) = (dag.select(negative, curve, x), dag.constant(dag.dtype(x), gamma));
    dag.binary(BinaryFn::Mul, joined, gamma)
}

fn hard_swish(dag: &mut Dag, x: ExprId) -> ExprId {
    let gate = hard_sigmoid(dag, x, 1.0 / 6.0, 0.5);
    dag.binary(BinaryFn::Mul, x, gate)
}

fn hard_sigmoid(dag: &mut Dag, x: ExprId, alpha: f64, beta: f64) -> ExprId {
    let dtype = dag.dtype(x);
    let (alpha, beta) = (dag.constant(dtype, alpha), dag.constant(dtype, beta));
    let scaled = dag.binary(BinaryFn::Mul, x, alpha);
    let line = dag.binary(BinaryFn::Add, scaled, beta);
    clamp(dag, line, 0.0, 1.0)
}

/// A function of two operands.
pub(super) fn binary(dag: &mut Dag, op: BinaryOp, a: ExprId, b: ExprId) -> ExprId {
    let simple = |dag: &mut Dag, function| dag.binary(function, a, b);
    match op {
        BinaryOp::Add => simple(dag, BinaryFn::Add),
        BinaryOp::Sub => simple(dag, BinaryFn::Sub),
        BinaryOp::Mul => simple(dag, BinaryFn::Mul),
        BinaryOp::Div => simple(dag, BinaryFn::Div),
        BinaryOp::And | BinaryOp::BitwiseAnd => simple(dag, BinaryFn::And),
        BinaryOp::Or | BinaryOp::BitwiseOr => simple(dag, BinaryFn::Or),
        BinaryOp::Xor | BinaryOp::BitwiseXor => simple(dag, BinaryFn::Xor),
        BinaryOp::Equal => simple(dag, BinaryFn::Eq),
        BinaryOp::Less => simple(dag, BinaryFn::Lt),
        BinaryOp::LessOrEqual => simple(dag, BinaryFn::Le),
        BinaryOp::Greater => dag.binary(BinaryFn::Lt, b, a),
        BinaryOp::GreaterOrEqual => dag.binary(BinaryFn::Le, b, a),
        BinaryOp::PRelu => {
            let (scaled, negative) = (dag.binary(BinaryFn::Mul, a, b), is_negative(dag, a));
            dag.select(negative, scaled, a)
        }
        BinaryOp::Pow => power(dag, a, b),
        BinaryOp::Mod { fmod } => modulo(dag, a, b, fmod),
    }
}

/// Largest integer power that is written out as products.
const MAX_POWER: i64 = 64;

/// True for an integer power that is written out as products.
pub(super) fn is_small_power(exponent: &Tensor) -> bool {
    exponent.len() == 1 && exponent.to_i64s().iter().all(|power| (0..=MAX_POWER).contains(power))
}

/// The base's dtype is the result's; integers to powers that are no integers go through f64.
fn power(dag: &mut Dag, base: ExprId, exponent: ExprId) -> ExprId {
    let dtype = dag.dtype(base);
    if let Some(mut left) = known_int(dag, exponent).filter(|_| dtype.is_int()) {
        let (mut result, mut square) = (dag.constant(dtype, 1.0), base);
        while left > 0 {
            if left & 1 == 1 {
                result = dag.binary(BinaryFn::Mul, result, square);
            }
            left >>= 1;
            if left > 0 {
                square = dag.binary(BinaryFn::Mul, square, square);
            }
        }
        return result;
    }
    let float = if dtype.is_float() { dtype } else { DType::F64 };
    let (base, exponent) = (dag.cast(float, base), dag.cast(float, exponent));
    let result = dag.binary(BinaryFn::Pow, base, exponent);
    dag.cast(dtype, result)
}

/// Sign of the dividend with `fmod`, else of the divisor.
fn modulo(dag: &mut Dag, a: ExprId, b: ExprId, fmod: bool) -> ExprId {
    let dtype = dag.dtype(a);
    let rest = dag.binary(BinaryFn::Rem, a, b);
    if fmod || dtype.is_unsigned_int() {
        return rest;
    }
    let zero = dag.constant(dtype, 0.0);
    let exact = dag.binary(BinaryFn::Eq, rest, zero);
    let (rest_negative, b_negative) = (is_negative(dag, rest), is_negative(dag, b));
    let differ = dag.binary(BinaryFn::Xor, rest_negative, b_negative);
    let sum = dag.binary(BinaryFn::Add, rest, b);
    let moved = dag.select(differ, sum, rest);
    dag.select(exact, rest, moved)
}

/// A function of any number of operands, from the left.
pub(super) fn variadic(dag: &mut Dag, op: VariadicOp, operands: &[ExprId]) -> ExprId {
    let function = match op {
        VariadicOp::Max => BinaryFn::Max,
        VariadicOp::Min => BinaryFn::Min,
        VariadicOp::Sum | VariadicOp::Mean => BinaryFn::Add,
    };
    let mut result = operands[0];
    for &operand in &operands[1..] {
        result = dag.binary(function, result, operand);
    }
    if op == VariadicOp::Mean {
        let count = dag.constant(dag.dtype(result), operands.len() as f64);
        result = dag.binary(BinaryFn::Div, result, count);
    }
    result
}

/// `saturate(round(x / scale) + zero_point)`, as an integer of dtype `to`; the same operations as the
/// interpreter's, so the same bits. The quotient is rounded to the dtype that comes with the scale.
pub(super) fn quantize(
    dag: &mut Dag,
    x: ExprId,
    (scale, precision): (ExprId, DType),
    zero_point: Option<ExprId>,
    to: DType,
) -> ExprId {
    // An i32 is rounded to f32 first.
    let (x, scale) = (dag.cast(DType::F32, x), dag.cast(DType::F32, scale));
    let round = match precision {
        DType::F16 => UnaryFn::RoundF16,
        DType::BF16 => UnaryFn::RoundBF16,
        _ => {
            let ratio = dag.binary(BinaryFn::Div, x, scale);
            return round_to_int(dag, ratio, zero_point, to);
        }
    };
    // 24 bits are more than twice those of the result: rounding to f32 on the way does not matter.
    let (x, scale) = (dag.unary(round, x), dag.unary(round, scale));
    let ratio = dag.binary(BinaryFn::Div, x, scale);
    let ratio = dag.unary(round, ratio);
    round_to_int(dag, ratio, zero_point, to)
}

/// `saturate(round(x) + zero_point)`. The conversion saturates, and `lo - zero_point` and `hi - zero_point` fit an
/// i32, so clamping before the zero point is added is the same and cannot overflow.
pub(super) fn round_to_int(dag: &mut Dag, x: ExprId, zero_point: Option<ExprId>, to: DType) -> ExprId {
    let (lo, hi) = to.int_range().unwrap_or((0, 0));
    let rounded = dag.unary(UnaryFn::Round, x);
    let integer = dag.cast(DType::I32, rounded);
    let bound = |dag: &mut Dag, value: i128| dag.constant(DType::I32, value as f64);
    let (lo, hi, zero_point) = match zero_point.map(|zero| (zero, known_int(dag, zero))) {
        None => (bound(dag, lo), bound(dag, hi), None),
        Some((_, Some(zero))) => {
            let zero = i128::from(zero);
            let shift = (zero != 0).then(|| bound(dag, zero));
            (bound(dag, lo - zero), bound(dag, hi - zero), shift)
        }
        Some((zero, None)) => {
            let zero = dag.cast(DType::I32, zero);
            let (lo, hi) = (bound(dag, lo), bound(dag, hi));
            (dag.binary(BinaryFn::Sub, lo, zero), dag.binary(BinaryFn::Sub, hi, zero), Some(zero))
        }
    };
    let upper = dag.binary(BinaryFn::Min, integer, hi);
    let clamped = dag.binary(BinaryFn::Max, upper, lo);
    let result = match zero_point {
        Some(zero) => dag.binary(BinaryFn::Add, clamped, zero),
        None => clamped,
    };
    dag.cast(to, result)
}

/// The value of an integer constant.
fn known_int(dag: &Dag, id: ExprId) -> Option<i64> {
    match (&dag[id].expr, dag.dtype(id).is_int()) {
        (Expr::Const(bits), true) => Some(*bits as i64),
        _ => None,
    }
}

/// `(x - zero_point) * scale` in f32.
pub(super) fn dequantize(dag: &mut Dag, x: ExprId, scale: ExprId, zero_point: Option<ExprId>) -> ExprId {
    let mut integer = dag.cast(DType::I32, x);
    if let Some(zero_point) = zero_point {
        // The difference of two i32 takes 33 bits.
        let wide = if dag.dtype(x) == DType::I32 { DType::I64 } else { DType::I32 };
        let (minuend, zero_point) = (dag.cast(wide, x), dag.cast(wide, zero_point));
        integer = dag.binary(BinaryFn::Sub, minuend, zero_point);
    }
    let float = dag.cast(dag.dtype(scale), integer);
    dag.binary(BinaryFn::Mul, float, scale)
}

/// `max(lo, min(hi, x))` with optional bounds.
pub(super) fn clip(dag: &mut Dag, x: ExprId, lo: Option<ExprId>, hi: Option<ExprId>) -> ExprId {
    let lower = lo.map_or(x, |lo| dag.binary(BinaryFn::Max, x, lo));
    hi.map_or(lower, |hi| dag.binary(BinaryFn::Min, lower, hi))
}

/// `(x - mean) / sqrt(var + epsilon) * scale + bias`; parameters in the order scale, bias, mean, var.
pub(super) fn batch_norm(dag: &mut Dag, x: ExprId, parameters: [ExprId; 4], epsilon: f32) -> ExprId {
    let [scale, bias, mean, var] = parameters;
    let dtype = dag.dtype(x);
    let epsilon = dag.constant(dtype, epsilon as f64);
    let sum = dag.binary(BinaryFn::Add, var, epsilon);
    let deviation = dag.unary(UnaryFn::Sqrt, sum);
    let factor = dag.binary(BinaryFn::Div, scale, deviation);
    let centred = dag.binary(BinaryFn::Sub, x, mean);
    let scaled = dag.binary(BinaryFn::Mul, centred, factor);
    dag.binary(BinaryFn::Add, scaled, bias)
}

/// A conversion as ONNX has it.
pub(super) fn cast(dag: &mut Dag, x: ExprId, to: DType) -> ExprId {
    let from = dag.dtype(x);
    match (from, to) {
        (DType::F64, DType::F16 | DType::BF16) => to_odd_f32(dag, x),
        (DType::I32 | DType::U32, DType::BF16) => {
            let wide = dag.cast(DType::F64, x);
            to_odd_f32(dag, wide)
        }
        (DType::I64 | DType::U64, DType::BF16) => {
            let wide = to_odd_f64(dag, x);
            to_odd_f32(dag, wide)
        }
        // Narrow integers take the low bits, as ONNX's own test data does.
        (DType::F32 | DType::F64, _) if to.is_int() && to.bits() < 8 => {
            let integer = dag.cast(DType::I64, x);
            dag.push(Expr::Cast(integer), to)
        }
        _ => dag.push(Expr::Cast(x), compute_dtype(to)),
    }
}

/// An f64 as f32, with the last bit set where it is not exact ("round to odd"): rounding that to 16 bits is the same as
/// rounding the f64 there at once.
fn to_odd_f32(dag: &mut Dag, x: ExprId) -> ExprId {
    let nearest = dag.push(Expr::Cast(x), DType::F32);
    let back = dag.cast(DType::F64, nearest);
    let bits = dag.push(Expr::Bitcast(nearest), DType::I32);
    let one = dag.constant(DType::I32, 1.0);
    // One step toward zero on the bits undoes a rounding away from zero, infinity included.
    let (size, own_size) = (dag.unary(UnaryFn::Abs, back), dag.unary(UnaryFn::Abs, x));
    let away = dag.binary(BinaryFn::Lt, own_size, size);
    let smaller = dag.binary(BinaryFn::Sub, bits, one);
    let truncated = dag.select(away, smaller, bits);
    let odd = dag.binary(BinaryFn::Or, truncated, one);
    let odd = dag.push(Expr::Bitcast(odd), DType::F32);
    let exact = dag.binary(BinaryFn::Eq, back, x);
    let nan = dag.unary(UnaryFn::IsNaN, x);
    let keep = dag.binary(BinaryFn::Or, exact, nan);
    dag.select(keep, nearest, odd)
}

/// A 64-bit integer as f64, where it has more than 53 bits with the last of those set unless the rest is 0.
fn to_odd_f64(dag: &mut Dag, x: ExprId) -> ExprId {
    let dtype = dag.dtype(x);
    let (low_bits, last) = (dag.constant(dtype, 2047.0), dag.constant(dtype, 2048.0));
    let zero = dag.constant(dtype, 0.0);
    let low = dag.binary(BinaryFn::And, x, low_bits);
    let kept = dag.binary(BinaryFn::Sub, x, low);
    let none = dag.binary(BinaryFn::Eq, low, zero);
    let marked = dag.binary(BinaryFn::Or, kept, last);
    let odd = dag.select(none, x, marked);
    let limit = dag.constant(dtype, 9_007_199_254_740_992.0);
    let above = dag.binary(BinaryFn::Le, limit, x);
    let large = match dtype.is_signed_int() {
        true => {
            let limit = dag.constant(dtype, -9_007_199_254_740_992.0);
            let below = dag.binary(BinaryFn::Le, x, limit);
            dag.binary(BinaryFn::Or, above, below)
        }
        false => above,
    };
    let value = dag.select(large, odd, x);
    dag.cast(DType::F64, value)
}
