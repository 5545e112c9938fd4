//! Scalar DAGs on lanes: f32 and bools.

use super::lanes::{Lanes, V};
use crate::clif::functions::{POWERS, special_power};
use crate::clif::math;
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::FloatCC;
use rabot_kernel::{BinaryFn, Dag, Expr, ExprId, ReduceFn, Reduction, Stage, UnaryFn};
use rabot_tensor::DType;

/// The values of all nodes of a DAG; `None` where an operation has no code on lanes. `read` gives the value of a load,
/// of a reduction, of the accumulator, and of what lanes do not hold.
pub(crate) fn eval(
    lanes: &mut Lanes,
    dag: &Dag,
    read: &mut dyn FnMut(&mut Lanes, ExprId) -> Option<V>,
) -> Vec<Option<V>> {
    let mut memo: Vec<Option<V>> = vec![None; dag.nodes().len()];
    for (id, node) in dag.nodes().iter().enumerate() {
        if !matches!(node.dtype, DType::F32 | DType::Bool) {
            // What needs it fails.
            continue;
        }
        let of = |operand: ExprId| memo.get(operand).copied().flatten();
        memo[id] = match &node.expr {
            Expr::Load { .. } | Expr::Accumulator | Expr::Reduced(_) => read(lanes, id),
            Expr::Const(bits) if node.dtype == DType::F32 => Some(lanes.f32(f32::from_bits(*bits as u32))),
            Expr::Unary(function, a) => of(*a).and_then(|a| unary(lanes, *function, node.dtype, a)),
            Expr::Binary(function, a, b) => {
                let from = dag.dtype(*a);
                match (*function, constant(dag, *a), constant(dag, *b)) {
                    (BinaryFn::Pow, _, Some(exponent)) => of(*a).and_then(|a| power(lanes, a, exponent)),
                    (function, known_a, known_b) => of(*a)
                        .zip(of(*b))
                        .and_then(|(a, b)| binary(lanes, function, from, [a, b], [known_a, known_b])),
                }
            }
            Expr::MulAdd(a, b, c) => match (of(*a), of(*b), of(*c)) {
                (Some(a), Some(b), Some(c)) => Some(lanes.mul_add(a, b, c)),
                _ => None,
            },
            Expr::Select(condition, a, b) if node.dtype == DType::F32 => {
                match (of(*condition), of(*a), of(*b)) {
                    (Some(condition), Some(a), Some(b)) => Some(lanes.select(condition, a, b)),
                    _ => None,
                }
            }
            Expr::Cast(a) if node.dtype == DType::F32 && dag.dtype(*a) == DType::Bool => of(*a).map(|a| {
                let one = lanes.f32(1.0);
                lanes.or_zero(a, one)
            }),
            Expr::Cast(_) if node.dtype == DType::F32 => read(lanes, id),
            _ => None,
        };
    }
    memo
}

/// A reduction of f32 with one value more.
pub(crate) fn accumulate(
    lanes: &mut Lanes,
    stage: &Stage,
    reduction: &Reduction,
    values: &[Option<V>],
    old: V,
) -> Option<V> {
    let of = |id: ExprId| values.get(id).copied().flatten();
    match (reduction.function, &stage.dag[reduction.value].expr) {
        (ReduceFn::Sum, &Expr::Binary(BinaryFn::Mul, a, b)) => Some(lanes.mul_add(of(a)?, of(b)?, old)),
        _ => Some(combine(lanes, reduction.function, of(reduction.value)?, old)),
    }
}

/// Two values of a reduction of f32 as one.
pub(crate) fn combine(lanes: &mut Lanes, function: ReduceFn, a: V, b: V) -> V {
    match function {
        ReduceFn::Sum => lanes.add(a, b),
        ReduceFn::Prod => lanes.mul(a, b),
        ReduceFn::Max => lanes.extreme(true, a, b),
        ReduceFn::Min => lanes.extreme(false, a, b),
    }
}

/// What a reduction of f32 starts at.
pub(crate) fn identity(function: ReduceFn) -> f32 {
    match function {
        ReduceFn::Sum => 0.0,
        ReduceFn::Prod => 1.0,
        ReduceFn::Max => f32::NEG_INFINITY,
        ReduceFn::Min => f32::INFINITY,
    }
}

/// A constant of f32.
fn constant(dag: &Dag, id: ExprId) -> Option<f32> {
    match (&dag[id].expr, dag[id].dtype) {
        (Expr::Const(bits), DType::F32) => Some(f32::from_bits(*bits as u32)),
        _ => None,
    }
}

fn power(o: &mut Lanes, x: V, exponent: f32) -> Option<V> {
    let (_, power) = POWERS.iter().find(|(known, _)| *known == f64::from(exponent))?;
    let one = o.f32(1.0);
    Some(special_power(o, *power, one, x))
}

fn reciprocal(o: &mut Lanes, x: V) -> V {
    let one = o.f32(1.0);
    o.div(one, x)
}

fn unary(o: &mut Lanes, function: UnaryFn, dtype: DType, x: V) -> Option<V> {
    Some(match function {
        UnaryFn::Not if dtype == DType::Bool => o.not(x),
        UnaryFn::IsNaN => o.compare(FloatCC::Unordered, x, x),
        _ if dtype != DType::F32 => return None,
        UnaryFn::Abs => o.abs(x),
        UnaryFn::Neg => o.neg(x),
        UnaryFn::Sqrt => o.sqrt(x),
        UnaryFn::Reciprocal => reciprocal(o, x),
        UnaryFn::Exp => math::exp(o, x),
        UnaryFn::Log => math::log(o, x),
        UnaryFn::Tanh => math::tanh(o, x),
        UnaryFn::Sigmoid => math::sigmoid(o, x),
        UnaryFn::Erf => math::erf(o, x),
        UnaryFn::Round => o.round(x, 0),
        UnaryFn::Floor => o.round(x, 1),
        UnaryFn::Ceil => o.round(x, 2),
        UnaryFn::RoundF16 => o.round_f16(x),
        UnaryFn::RoundBF16 => o.round_bf16(x),
        UnaryFn::Sin | UnaryFn::Cos | UnaryFn::Not | UnaryFn::Libm(_) => return None,
    })
}

fn binary(o: &mut Lanes, function: BinaryFn, from: DType, x: [V; 2], known: [Option<f32>; 2]) -> Option<V> {
    let [a, b] = x;
    if from == DType::Bool {
        return Some(match function {
            BinaryFn::And | BinaryFn::Min | BinaryFn::Mul => o.and(a, b),
            BinaryFn::Or | BinaryFn::Max | BinaryFn::Add => o.or(a, b),
            BinaryFn::Xor => o.xor_masks(a, b),
            _ => return None,
        });
    }
    let is_number = known.map(|value| value.is_some_and(|value| !value.is_nan()));
    Some(match function {
        BinaryFn::Add => o.add(a, b),
        BinaryFn::Sub => o.sub(a, b),
        BinaryFn::Mul => o.mul(a, b),
        BinaryFn::Div => o.div(a, b),
        BinaryFn::Min | BinaryFn::Max => {
            let larger = function == BinaryFn::Max;
            match is_number {
                [_, true] => second(o, larger, b, a),
                [true, _] => second(o, larger, a, b),
                _ => o.extreme(larger, a, b),
            }
        }
        BinaryFn::Eq => o.compare(FloatCC::Equal, a, b),
        BinaryFn::Lt => o.compare(FloatCC::LessThan, a, b),
        BinaryFn::Le => o.compare(FloatCC::LessThanOrEqual, a, b),
        BinaryFn::Rem | BinaryFn::Pow | BinaryFn::And | BinaryFn::Or | BinaryFn::Xor => return None,
    })
}

fn second(o: &mut Lanes, larger: bool, a: V, b: V) -> V {
    if larger { o.max_or_second(a, b) } else { o.min_or_second(a, b) }
}
