//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// `MatMul` (numpy's rules).
#[derive(Clone, Debug, PartialEq)]
pub struct MatMul;

impl OpDef for MatMul {
    const NAMES: &'static [&'static str] = &["MatMul"];
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

/// `Gemm`: operands A, B, optional C.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of C.
    pub beta: f32,
    /// A is transposed.
    pub trans_a: bool,
    /// B is transposed.
    pub trans_b: bool,
}

impl OpDef for Gemm {
    const NAMES: &'static [&'static str] = &["Gemm"];
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
