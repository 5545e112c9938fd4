//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BinaryOp {
    /// `Add`.
    Add,
    /// `And`.
    And,
    /// `BitwiseAnd`.
    BitwiseAnd,
    /// `BitwiseOr`.
    BitwiseOr,
    /// `BitwiseXor`.
    BitwiseXor,
    /// `Div`.
    Div,
    /// `Equal`.
    Equal,
    /// `Greater`.
    Greater,
    /// `GreaterOrEqual`.
    GreaterOrEqual,
    /// `Less`.
    Less,
    /// `LessOrEqual`.
    LessOrEqual,
    /// `Mul`.
    Mul,
    /// `Or`.
    Or,
    /// `PRelu`.
    PRelu,
    /// `Pow`.
    Pow,
    /// `Sub`.
    Sub,
    /// `Xor`.
    Xor,
    /// `Mod`.
    Mod {
        /// C's `fmod` (sign of the dividend) instead of Python's `%`.
        fmod: bool,
    },
}

/// Elementwise function of two operands, with broadcasting.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The function.
    pub op: BinaryOp,
}

impl OpDef for Binary {
    const NAMES: &'static [&'static str] = &["Add"];
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
