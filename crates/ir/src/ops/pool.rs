//! stub

use super::Window;
use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;
/// What pooling computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest element.
    Max,
    /// The mean.
    Average,
}

/// Pooling over a sliding window.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Max or average.
    pub kind: PoolKind,
    /// Geometry.
    pub window: Window,
    /// Round the output size up.
    pub ceil_mode: bool,
    /// Averages count padding.
    pub count_include_pad: bool,
    /// Order of the optional second output of MaxPool, the indices.
    pub storage_order: i64,
}

impl OpDef for Pool {
    const NAMES: &'static [&'static str] = &["MaxPool", "AveragePool"];
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

/// Pooling over all spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalPool {
    /// Max or average.
    pub kind: PoolKind,
}

impl OpDef for GlobalPool {
    const NAMES: &'static [&'static str] = &["GlobalMaxPool", "GlobalAveragePool"];
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
