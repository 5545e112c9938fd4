//! `Softmax` and `LogSoftmax` along one axis.
//!
//! y = exp(x − max) / Σ exp(x − max), and its logarithm x − max − ln Σ exp(x − max); max and sum run along
//! `axis`. Shape stays.
//!
//! **Dtypes**: f16, bf16, f32, f64.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Softmax.html>,
//! <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>.
//! **Opsets**: 1, 11 (both flatten from `axis` on, default 1), 13 (one axis, default −1: the form here).

use super::dense::{filled, is_real, output_type};
use super::pool::larger;
use super::util::{arity, expect_dtype, known_attrs, normalize_axis, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
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

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis"])?;
        Ok(Softmax { axis: attrs.int("axis", -1)?, log: name == "LogSoftmax" })
    }

    fn name(&self) -> &'static str {
        if self.log { "LogSoftmax" } else { "Softmax" }
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "input")?;
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        normalize_axis(self.axis, x.rank())?;
        Ok(vec![Fact::of_type(x.dtype(), x.shape())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "input")?.to_f64s();
        let axis = normalize_axis(self.axis, shape.len())?;
        let inner: usize = shape[axis + 1..].iter().product();
        let len = shape[axis];
        let mut y = filled(&shape, 0.0)?;
        for line in 0..x.len() / len.max(1) {
            let first = line / inner * len * inner + line % inner;
            let at = |i: usize| first + i * inner;
            let max = (0..len).map(|i| x[at(i)]).fold(f64::NEG_INFINITY, larger);
            let sum: f64 = (0..len).map(|i| libm::exp(x[at(i)] - max)).sum();
            let log_sum = libm::log(sum);
            for i in 0..len {
                let shifted = x[at(i)] - max;
                y[at(i)] = if self.log { shifted - log_sum } else { libm::exp(shifted) / sum };
            }
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, f32s, op, values};

    #[test]
    fn sums_to_one_along_the_axis() {
        let y = values(&op("Softmax", Attrs::new().with("axis", Attr::Int(1))), &[&counting(&[2, 3, 2])]);
        for (outer, inner) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let line: Vec<f64> = (0..3).map(|i| y[outer * 6 + i * 2 + inner]).collect();
            assert!((line.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            // Steps of 2 along the axis.
            assert!((line[1] / line[0] - 2f64.exp()).abs() < 1e-4);
        }
    }

    #[test]
    fn large_and_infinite_values() {
        let x = f32s(&[3], &[1000., 1000., f32::NEG_INFINITY]);
        assert_eq!(values(&op("Softmax", Attrs::new()), &[&x]), [0.5, 0.5, 0.]);
        let log = values(&op("LogSoftmax", Attrs::new()), &[&x]);
        assert_eq!(log, [f64::from(-(2f64.ln()) as f32), f64::from(-(2f64.ln()) as f32), f64::NEG_INFINITY]);
    }

    #[test]
    fn empty_and_out_of_range() {
        assert_eq!(eval(&op("Softmax", Attrs::new()), &[&counting(&[2, 0])]).unwrap().shape(), [2, 0]);
        assert!(
            eval(&op("Softmax", Attrs::new().with("axis", Attr::Int(2))), &[&counting(&[2, 2])]).is_err()
        );
    }
}
