//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnaryOp {
    /// `Abs`.
    Abs,
    /// `Acos`.
    Acos,
    /// `Acosh`.
    Acosh,
    /// `Asin`.
    Asin,
    /// `Asinh`.
    Asinh,
    /// `Atan`.
    Atan,
    /// `Atanh`.
    Atanh,
    /// `BitwiseNot`.
    BitwiseNot,
    /// `Ceil`.
    Ceil,
    /// `Cos`.
    Cos,
    /// `Cosh`.
    Cosh,
    /// `Erf`.
    Erf,
    /// `Exp`.
    Exp,
    /// `Floor`.
    Floor,
    /// `HardSwish`.
    HardSwish,
    /// `IsNaN`.
    IsNaN,
    /// `Log`.
    Log,
    /// `Mish`.
    Mish,
    /// `Neg`.
    Neg,
    /// `Not`.
    Not,
    /// `Reciprocal`.
    Reciprocal,
    /// `Relu`.
    Relu,
    /// `Round`.
    Round,
    /// `Sigmoid`.
    Sigmoid,
    /// `Sign`.
    Sign,
    /// `Sin`.
    Sin,
    /// `Sinh`.
    Sinh,
    /// `Softplus`.
    Softplus,
    /// `Softsign`.
    Softsign,
    /// `Sqrt`.
    Sqrt,
    /// `Tan`.
    Tan,
    /// `Tanh`.
    Tanh,
    /// `Celu`.
    Celu {
        /// Attribute `alpha`.
        alpha: f32,
    },
    /// `Elu`.
    Elu {
        /// Attribute `alpha`.
        alpha: f32,
    },
    /// `HardSigmoid`.
    HardSigmoid {
        /// Attribute `alpha`.
        alpha: f32,
        /// Attribute `beta`.
        beta: f32,
    },
    /// `LeakyRelu`.
    LeakyRelu {
        /// Attribute `alpha`.
        alpha: f32,
    },
    /// `Selu`.
    Selu {
        /// Attribute `alpha`.
        alpha: f32,
        /// Attribute `gamma`.
        gamma: f32,
    },
    /// `ThresholdedRelu`.
    ThresholdedRelu {
        /// Attribute `alpha`.
        alpha: f32,
    },
    /// `Gelu`.
    Gelu {
        /// True for `approximate="tanh"`.
        tanh: bool,
    },
}

/// Elementwise function of one operand.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// The function.
    pub op: UnaryOp,
}

impl OpDef for Unary {
    const NAMES: &'static [&'static str] = &["Abs", "Relu"];
    fn from_attrs(_name: &str, _attrs: &Attrs) -> Result<Self, OpError> {
        unimplemented!()
    }
    fn name(&self) -> &'static str {
        unimplemented!()
    }
    fn attrs(&self) -> Attrs {
        unimplemented!()
    }
    fn infer(&self, _inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        unimplemented!()
    }
    fn eval(&self, _inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        unimplemented!()
    }
}
