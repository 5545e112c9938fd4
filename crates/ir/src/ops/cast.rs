//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::DType;
use rabot_tensor::Tensor;

/// `Cast`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast {
    /// Dtype of the result.
    pub to: DType,
    /// Whether 8-bit floats saturate.
    pub saturate: bool,
}

impl OpDef for Cast {
    const NAMES: &'static [&'static str] = &["Cast"];
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
