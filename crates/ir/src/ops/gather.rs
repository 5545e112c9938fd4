//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// `Gather`: operands data, indices.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// Axis that is indexed.
    pub axis: i64,
}

impl OpDef for Gather {
    const NAMES: &'static [&'static str] = &["Gather"];
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
