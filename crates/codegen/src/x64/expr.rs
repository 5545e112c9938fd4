//! Scalar DAGs on lanes: f32, bools, and integers of up to 32 bits but u32.

use super::lanes::{Lanes, V, is_int};
use crate::clif::functions::{POWERS, special_power};
use crate::clif::math;
use crate::prim::Prim;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
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
        if !matches!(node.dtype, DType::F32 | DType::Bool) && !is_int(node.dtype) {
            // What needs it fails.
            continue;
        }
        let of = |operand: ExprId| memo.get(operand).copied().flatten();
        memo[id] = match &node.expr {
            Expr::Load { .. } | Expr::Accumulator | Expr::Reduced(_) => read(lanes, id),
            Expr::Const(bits) if node.dtype == DType::F32 => Some(lanes.f32(f32::from_bits(*bits as u32))),
            Expr::Const(bits) if is_int(node.dtype) => {
                let value = lanes.i32(*bits as u32 as i32);
                Some(lanes.wrap(node.dtype, value))
            }
            Expr::Unary(function, a) => of(*a).and_then(|a| unary(lanes, *function, node.dtype, a)),
            Expr::Binary(function, a, b) => {
                let from = dag.dtype(*a);
                match (*function, constant(dag, *a), constant(dag, *b)) {
                    (BinaryFn::Pow, _, Some(exponent)) => of(*a).and_then(|a| power(lanes, a, exponent)),
                    (function, ..) if is_int(from) => {
                        of(*a).zip(of(*b)).and_then(|(a, b)| binary_int(lanes, function, node.dtype, a, b))
                    }
                    (function, known_a, known_b) => of(*a)
                        .zip(of(*b))
                        .and_then(|(a, b)| binary(lanes, function, from, [a, b], [known_a, known_b])),
                }
            }
            Expr::MulAdd(a, b, c) if node.dtype == DType::F32 => match (of(*a), of(*b), of(*c)) {
                (Some(a), Some(b), Some(c)) => Some(lanes.mul_add(a, b, c)),
                _ => None,
            },
            Expr::Select(condition, a, b) if node.dtype != DType::Bool => {
                match (of(*condition), of(*a), of(*b)) {
                    (Some(condition), Some(a), Some(b)) => Some(lanes.select(condition, a, b)),
                    _ => None,
                }
            }
            Expr::Cast(a) => {
                let known = of(*a).and_then(|value| cast(lanes, dag.dtype(*a), node.dtype, value));
                known.or_else(|| (node.dtype == DType::F32).then(|| read(lanes, id)).flatten())
            }
            _ => None,
        };
    }
    memo
}

/// How a reduction combines values of a dtype.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold {
    function: ReduceFn,
    /// The dtype of its values.
    pub dtype: DType,
}

impl Fold {
    /// That of a reduction, if lanes hold its dtype.
    pub fn of(stage: &Stage, reduction: &Reduction) -> Option<Fold> {
        let dtype = stage.dag.nodes().get(reduction.value)?.dtype;
        let fold = Fold { function: reduction.function, dtype };
        (dtype == DType::F32 || is_int(dtype)).then_some(fold)
    }

    /// The bits of what it starts at.
    pub fn identity(self) -> u32 {
        let (low, high) = self.dtype.int_range().unwrap_or((0, 0));
        match (self.function, self.dtype == DType::F32) {
            (ReduceFn::Sum, true) => 0.0f32.to_bits(),
            (ReduceFn::Prod, true) => 1.0f32.to_bits(),
            (ReduceFn::Max, true) => f32::NEG_INFINITY.to_bits(),
            (ReduceFn::Min, true) => f32::INFINITY.to_bits(),
            (ReduceFn::Sum, false) => 0,
            (ReduceFn::Prod, false) => 1,
            (ReduceFn::Max, false) => low as u32,
            (ReduceFn::Min, false) => high as u32,
        }
    }

    /// What it starts at.
    pub fn start(self, lanes: &mut Lanes) -> V {
        let bits = self.identity();
        if self.dtype == DType::F32 { lanes.f32(f32::from_bits(bits)) } else { lanes.i32(bits as i32) }
    }

    /// Two values as one.
    pub fn combine(self, lanes: &mut Lanes, a: V, b: V) -> V {
        let is_float = self.dtype == DType::F32;
        let value = match self.function {
            ReduceFn::Sum => lanes.add(a, b),
            ReduceFn::Prod => lanes.mul(a, b),
            ReduceFn::Max | ReduceFn::Min => {
                let larger = self.function == ReduceFn::Max;
                return if is_float { lanes.extreme(larger, a, b) } else { lanes.extreme_int(larger, a, b) };
            }
        };
        if is_float { value } else { lanes.wrap(self.dtype, value) }
    }

    /// A reduction with one value more.
    pub fn accumulate(
        self,
        lanes: &mut Lanes,
        stage: &Stage,
        reduction: &Reduction,
        values: &[Option<V>],
        old: V,
    ) -> Option<V> {
        let of = |id: ExprId| values.get(id).copied().flatten();
        match (reduction.function, &stage.dag[reduction.value].expr) {
            (ReduceFn::Sum, &Expr::Binary(BinaryFn::Mul, a, b)) if self.dtype == DType::F32 => {
                Some(lanes.mul_add(of(a)?, of(b)?, old))
            }
            _ => Some(self.combine(lanes, of(reduction.value)?, old)),
        }
    }
}

/// A constant of f32.
fn constant(dag: &Dag, id: ExprId) -> Option<f32> {
    match (&dag[id].expr, dag[id].dtype) {
        (Expr::Const(bits), DType::F32) => Some(f32::from_bits(*bits as u32)),
        _ => None,
    }
}

/// A conversion; `None` if it has no code.
fn cast(o: &mut Lanes, from: DType, to: DType, x: V) -> Option<V> {
    Some(match (from, to) {
        _ if from == to => x,
        (DType::Bool, DType::F32) => {
            let one = o.f32(1.0);
            o.or_zero(x, one)
        }
        (DType::Bool, _) if is_int(to) => {
            let (one, zero) = (o.i32(1), o.i32(0));
            o.select(x, one, zero)
        }
        (DType::F32, DType::Bool) => {
            let zero = o.f32(0.0);
            o.compare(FloatCC::NotEqual, x, zero)
        }
        (_, DType::Bool) if is_int(from) => {
            let zero = o.i32(0);
            o.compare_int(IntCC::NotEqual, x, zero)
        }
        (_, DType::F32) if is_int(from) => o.float_from_int(x),
        (DType::F32, _) if is_int(to) => {
            let value = o.int_from_float(x);
            match to.int_range().filter(|_| to != DType::I32) {
                Some((low, high)) => {
                    let (low, high) = (o.i32(low as i32), o.i32(high as i32));
                    let value = o.extreme_int(true, value, low);
                    o.extreme_int(false, value, high)
                }
                None => value,
            }
        }
        _ if is_int(from) && is_int(to) => o.wrap(to, x),
        _ => return None,
    })
}

/// A function of integers, whose result has the dtype `to`.
fn binary_int(o: &mut Lanes, function: BinaryFn, to: DType, a: V, b: V) -> Option<V> {
    let value = match function {
        BinaryFn::Add => o.add(a, b),
        BinaryFn::Sub => o.sub(a, b),
        BinaryFn::Mul => o.mul(a, b),
        BinaryFn::Min => return Some(o.extreme_int(false, a, b)),
        BinaryFn::Max => return Some(o.extreme_int(true, a, b)),
        BinaryFn::And => return Some(o.and(a, b)),
        BinaryFn::Or => return Some(o.or(a, b)),
        BinaryFn::Xor => return Some(o.xor_ints(a, b)),
        BinaryFn::Eq => return Some(o.compare_int(IntCC::Equal, a, b)),
        BinaryFn::Lt => return Some(o.compare_int(IntCC::SignedLessThan, a, b)),
        BinaryFn::Le => return Some(o.compare_int(IntCC::SignedLessThanOrEqual, a, b)),
        BinaryFn::Div | BinaryFn::Rem | BinaryFn::Pow => return None,
    };
    Some(o.wrap(to, value))
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
