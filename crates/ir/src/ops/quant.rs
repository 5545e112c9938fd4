//! stub

use super::Window;
use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::DType;
use rabot_tensor::Tensor;

/// `QuantizeLinear`: operands x, y_scale, optional y_zero_point.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizeLinear {
    /// Axis of per-channel parameters.
    pub axis: i64,
    /// Elements that share parameters along the axis; 0 for none.
    pub block_size: usize,
    /// Whether 8-bit floats saturate.
    pub saturate: bool,
    /// Dtype of the result where there is no zero point; u8 if absent.
    pub output_dtype: Option<DType>,
}

impl OpDef for QuantizeLinear {
    const NAMES: &'static [&'static str] = &["QuantizeLinear"];
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

/// `DequantizeLinear`: operands x, x_scale, optional x_zero_point.
#[derive(Clone, Debug, PartialEq)]
pub struct DequantizeLinear {
    /// Axis of per-channel parameters.
    pub axis: i64,
    /// Elements that share parameters along the axis; 0 for none.
    pub block_size: usize,
}

impl OpDef for DequantizeLinear {
    const NAMES: &'static [&'static str] = &["DequantizeLinear"];
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

/// `QLinearConv`: operands x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, optional B (i32).
#[derive(Clone, Debug, PartialEq)]
pub struct QLinearConv {
    /// Geometry.
    pub window: Window,
    /// Number of groups.
    pub group: usize,
}

impl OpDef for QLinearConv {
    const NAMES: &'static [&'static str] = &["QLinearConv"];
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

/// `QLinearMatMul`: operands a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point, and rabot's optional bias (i32, per column).
#[derive(Clone, Debug, PartialEq)]
pub struct QLinearMatMul;

impl OpDef for QLinearMatMul {
    const NAMES: &'static [&'static str] = &["QLinearMatMul"];
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
