//! Which operators bear 16 bits, and which constants.

use half::{bf16, f16};
use rabot_ir::Op;
use rabot_ir::ops::{BinaryOp, PoolKind, Reduction, UnaryOp};
use rabot_tensor::{DType, Tensor};

/// How an operator bears narrow operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Sums of products: most of the time and of the weights; sums are f32 inside.
    Contraction,
    /// Keeps the range of its operands, about: worth it between narrow values.
    Elementwise,
    /// Moves elements: exact, and worth it between narrow values.
    Move,
    /// Needs range or digits.
    Wide,
}

/// The class of an operator.
pub(super) fn class(op: &Op) -> Class {
    match op {
        Op::Conv(_) | Op::ConvTranspose(_) | Op::MatMul(_) | Op::Gemm(_) => Class::Contraction,
        Op::Unary(op) if bears(&op.op) => Class::Elementwise,
        Op::Binary(op) => match op.op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::PRelu => {
                Class::Elementwise
            }
            _ => Class::Wide,
        },
        Op::Where(_) | Op::Clip(_) => Class::Elementwise,
        Op::Identity(_) | Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => Class::Move,
        Op::Transpose(_) | Op::Slice(_) | Op::Split(_) | Op::Concat(_) | Op::Expand(_) | Op::Pad(_) => {
            Class::Move
        }
        Op::Gather(_) | Op::GatherElements(_) | Op::GatherNd(_) | Op::TensorScatter(_) => Class::Move,
        Op::ScatterElements(op) if op.reduction == Reduction::None => Class::Move,
        Op::ScatterNd(op) if op.reduction == Reduction::None => Class::Move,
        Op::Pool(op) if op.kind == PoolKind::Max => Class::Move,
        Op::GlobalPool(op) if op.kind == PoolKind::Max => Class::Move,
        _ => Class::Wide,
    }
}

/// True for functions whose slope is bounded: an error of the operand does not grow.
fn bears(op: &UnaryOp) -> bool {
    use UnaryOp::{
        Abs, Celu, Elu, Erf, Gelu, HardSigmoid, HardSwish, LeakyRelu, Mish, Neg, Relu, Selu, Sigmoid,
        Softplus, Softsign, Tanh, ThresholdedRelu,
    };
    matches!(
        op,
        Abs | Neg
            | Relu
            | LeakyRelu { .. }
            | ThresholdedRelu { .. }
            | Elu { .. }
            | Celu { .. }
            | Selu { .. }
            | Sigmoid
            | HardSigmoid { .. }
            | HardSwish
            | Softplus
            | Softsign
            | Tanh
            | Erf
            | Gelu { .. }
            | Mish
    )
}

/// The slots of an operator that take what it computes on, and so change their dtype with it.
pub(super) fn takes_data(op: &Op, slot: usize) -> bool {
    match op {
        // Counts, sizes and positions.
        Op::Reshape(_) | Op::Slice(_) | Op::Expand(_) | Op::Gather(_) | Op::Split(_) => slot == 0,
        Op::Pad(_) => matches!(slot, 0 | 2),
        _ => true,
    }
}

/// The largest finite number of a narrow type.
pub(super) fn largest(to: DType) -> f64 {
    if to == DType::F16 { f16::MAX.to_f64() } else { bf16::MAX.to_f64() }
}

/// Half the distance of 1 to the next number: what rounding a number that is not denormal moves it by at most.
fn unit_roundoff(to: DType) -> f64 {
    if to == DType::F16 { f16::EPSILON.to_f64() / 2.0 } else { bf16::EPSILON.to_f64() / 2.0 }
}

/// A constant in the narrow type.
///
/// **Errors**: why it cannot be: an element overflows, or together they lose more than roundings of numbers that are
/// not denormal do.
pub(super) fn narrowed(tensor: &Tensor, to: DType) -> Result<Tensor, String> {
    let Ok(wide) = tensor.to_slice::<f32>() else { return Err(format!("it is {}", tensor.dtype())) };
    let (mut squares, mut lost) = (0.0f64, 0.0f64);
    let mut bytes = Vec::with_capacity(wide.len() * 2);
    for &value in wide.iter() {
        let (code, back) = match to {
            DType::F16 => {
                let narrow = f16::from_f32(value);
                (narrow.to_le_bytes(), narrow.to_f32())
            }
            _ => {
                let narrow = bf16::from_f32(value);
                (narrow.to_le_bytes(), narrow.to_f32())
            }
        };
        bytes.extend_from_slice(&code);
        if !value.is_finite() {
            continue;
        }
        if !back.is_finite() {
            return Err(format!("{value:e} overflows {to}, whose largest number is {:.4e}", largest(to)));
        }
        squares += f64::from(value).powi(2);
        lost += (f64::from(value) - f64::from(back)).powi(2);
    }
    let loss = if lost > 0.0 { (lost / squares).sqrt() } else { 0.0 };
    if loss > unit_roundoff(to) {
        let most = unit_roundoff(to);
        return Err(format!(
            "{to} loses {loss:.1e} of it, more than rounding's {most:.1e}: it is denormal there"
        ));
    }
    Ok(Tensor::from_raw(to, tensor.shape(), bytes))
}
