//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// `Softmax`, `LogSoftmax`.
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax {
    /// Axis that sums to 1.
    pub axis: i64,
    /// `LogSoftmax`.
    pub log: bool,
}

impl OpDef for Softmax {
    const NAMES: &'static [&'static str] = &["Softmax", "LogSoftmax"];
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
