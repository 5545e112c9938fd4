//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariadicOp {
    /// `Max`.
    Max,
    /// `Min`.
    Min,
    /// `Sum`.
    Sum,
    /// `Mean`.
    Mean,
}

/// Elementwise over any number of operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Variadic {
    /// The function.
    pub op: VariadicOp,
}

impl OpDef for Variadic {
    const NAMES: &'static [&'static str] = &["Max", "Min", "Sum", "Mean"];
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
