//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// Geometry of a sliding window, as `Conv` and the pools have it. Lists are per spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Extent of the window; empty if it is to be taken from the weights.
    pub kernel_shape: Vec<usize>,
    /// Steps; empty for all 1.
    pub strides: Vec<usize>,
    /// Distance of taps; empty for all 1.
    pub dilations: Vec<usize>,
    /// Padding before each axis, then after each; empty for none. Ignored unless `auto_pad` is `NOTSET`.
    pub pads: Vec<i64>,
    /// `NOTSET`, `VALID`, `SAME_UPPER` or `SAME_LOWER`.
    pub auto_pad: AutoPad,
}

/// How padding is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoPad {
    /// By the attribute `pads`.
    NotSet,
    /// None.
    Valid,
    /// So that output = ceil(input / stride); the odd one goes to the end.
    SameUpper,
    /// As `SameUpper`; the odd one goes to the start.
    SameLower,
}

/// `Conv`: operands X, W, optional B.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Geometry.
    pub window: Window,
    /// Number of groups.
    pub group: usize,
}

impl OpDef for Conv {
    const NAMES: &'static [&'static str] = &["Conv"];
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

/// `ConvTranspose`: operands X, W, optional B.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose {
    /// Geometry.
    pub window: Window,
    /// Number of groups.
    pub group: usize,
    /// Extra size at the end of each axis; empty for none.
    pub output_padding: Vec<usize>,
    /// Spatial shape asked for; empty for none.
    pub output_shape: Vec<usize>,
}

impl OpDef for ConvTranspose {
    const NAMES: &'static [&'static str] = &["ConvTranspose"];
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
