//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// `ReduceL1`.
    L1,
    /// `ReduceL2`.
    L2,
    /// `ReduceLogSum`.
    LogSum,
    /// `ReduceLogSumExp`.
    LogSumExp,
    /// `ReduceMax`.
    Max,
    /// `ReduceMean`.
    Mean,
    /// `ReduceMin`.
    Min,
    /// `ReduceProd`.
    Prod,
    /// `ReduceSum`.
    Sum,
    /// `ReduceSumSquare`.
    SumSquare,
}

/// Reduction: operands data, optional axes (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    /// The function.
    pub op: ReduceOp,
    /// Reduced axes stay as 1.
    pub keepdims: bool,
    /// No axes means no reduction, not all axes.
    pub noop_with_empty_axes: bool,
}

impl OpDef for Reduce {
    const NAMES: &'static [&'static str] = &["ReduceSum"];
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

/// Index of the extreme.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgReduce {
    /// `ArgMax`, else `ArgMin`.
    pub max: bool,
    /// Axis searched.
    pub axis: i64,
    /// The axis stays as 1.
    pub keepdims: bool,
    /// The last of equals, not the first.
    pub select_last_index: bool,
}

impl OpDef for ArgReduce {
    const NAMES: &'static [&'static str] = &["ArgMax", "ArgMin"];
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
