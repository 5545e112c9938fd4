//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// What `Pad` fills the border with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// A constant value.
    Constant,
    /// The mirror image, without the edge.
    Reflect,
    /// The edge.
    Edge,
    /// The other end.
    Wrap,
}

/// `Slice`: operands data, starts, ends, optional axes, optional steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice;

impl OpDef for Slice {
    const NAMES: &'static [&'static str] = &["Slice"];
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

/// `Split`: operands data, optional split (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Axis to split.
    pub axis: i64,
    /// Number of parts; equal ones (the last may be smaller) unless the operand `split` is given.
    pub num_outputs: usize,
}

impl OpDef for Split {
    const NAMES: &'static [&'static str] = &["Split"];
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

/// `Concat`.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    /// Axis to join.
    pub axis: i64,
}

impl OpDef for Concat {
    const NAMES: &'static [&'static str] = &["Concat"];
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

/// `Pad`: operands data, pads, optional value, optional axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// What fills the border.
    pub mode: PadMode,
}

impl OpDef for Pad {
    const NAMES: &'static [&'static str] = &["Pad"];
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
