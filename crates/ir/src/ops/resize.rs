//! stub

use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Fact};
use rabot_tensor::Tensor;

/// `Resize`: operands X, optional roi, optional scales, optional sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// nearest, linear or cubic.
    pub mode: String,
    /// Attribute `coordinate_transformation_mode`.
    pub coordinate_mode: String,
    /// Rounding of nearest.
    pub nearest_mode: String,
    /// Axes that scales or sizes name; all if absent.
    pub axes: Option<Vec<i64>>,
    /// Filter when shrinking.
    pub antialias: bool,
    /// Coefficient of cubic.
    pub cubic_coeff_a: f32,
    /// Weights outside are zero.
    pub exclude_outside: bool,
    /// Value outside with `tf_crop_and_resize`.
    pub extrapolation_value: f32,
    /// stretch, not_larger or not_smaller.
    pub keep_aspect_ratio_policy: String,
}

impl OpDef for Resize {
    const NAMES: &'static [&'static str] = &["Resize"];
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
