//! Ranges of values, as calibration inputs show them.

use rabot_ir::interp::{InterpError, Tensors, run_observed};
use rabot_ir::{Graph, Value};
use rabot_rewrite::PassError;
use rabot_tensor::Tensor;
use std::collections::HashMap;

/// The smallest and the largest element seen; 0 always counts as seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Range {
    /// Smallest, at most 0.
    pub low: f64,
    /// Largest, at least 0.
    pub high: f64,
    /// Elements that were infinite or no number.
    pub not_finite: usize,
}

/// Scale and zero point of an i8 tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parameters {
    /// Difference of neighbouring values.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero: i8,
}

impl Range {
    /// Widens the range to the elements of a tensor.
    pub fn see(&mut self, tensor: &Tensor) {
        for value in tensor.to_f64s() {
            if value.is_finite() {
                self.low = self.low.min(value);
                self.high = self.high.max(value);
            } else {
                self.not_finite += 1;
            }
        }
    }

    /// The range of both.
    pub fn join(self, other: Range) -> Range {
        Range {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
            not_finite: self.not_finite + other.not_finite,
        }
    }

    /// 256 steps from the lowest to the highest value, one of them exactly 0.
    pub(super) fn parameters(self) -> Parameters {
        let scale = ((self.high - self.low) / 255.0) as f32;
        // Nothing but zeros: any scale does.
        let scale = if scale.is_normal() { scale } else { 1.0 };
        let zero = (-128.0 - self.low / f64::from(scale)).round().clamp(-128.0, 127.0) as i8;
        Parameters { scale, zero }
    }
}

/// Evaluates the graph on the input sets, in order, until `samples` were seen, and widens the ranges to what the
/// values are there. A set counts as many samples as the first dim of its first input says.
///
/// **Errors**: inputs that are missing or of a wrong type, or an operator that fails.
pub(crate) fn observe(
    pass: &'static str,
    graph: &Graph,
    sets: &[Tensors],
    samples: usize,
    ranges: &mut HashMap<Value, Range>,
) -> Result<(), PassError> {
    let mut seen = 0;
    for set in sets {
        if seen >= samples {
            break;
        }
        // Labels and the like may lie beside the inputs.
        let known = |name: &str| graph.inputs().iter().any(|&id| &*graph.node(id).name == name);
        let inputs: Tensors =
            set.iter().filter(|(name, _)| known(name)).map(|(n, t)| (n.clone(), t.clone())).collect();
        run_observed(graph, &inputs, &mut |value, tensor| {
            if let Some(range) = ranges.get_mut(&value) {
                range.see(tensor);
            }
        })
        .map_err(|error| match error {
            InterpError::MissingInput { .. } | InterpError::InputType { .. } => {
                PassError::Calibration { pass, reason: error.to_string() }
            }
            error => PassError::Interp { pass, error: Box::new(error) },
        })?;
        let first = inputs.values().next().and_then(|tensor| tensor.shape().first().copied());
        seen += first.unwrap_or(1).max(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_ends_are_reached() {
        let of = |low, high| Range { low, high, not_finite: 0 }.parameters();
        assert_eq!(of(0.0, 2.55), Parameters { scale: 0.01, zero: -128 });
        assert_eq!(of(-2.55, 0.0), Parameters { scale: 0.01, zero: 127 });
        assert_eq!(of(-1.0, 1.55), Parameters { scale: 0.01, zero: -28 });
        assert_eq!(of(0.0, 0.0), Parameters { scale: 1.0, zero: -128 });
    }

    #[test]
    fn what_is_not_finite_does_not_widen() {
        let mut range = Range::default();
        range.see(&Tensor::from_vec(&[4], vec![f32::INFINITY, f32::NAN, -2.0, 1.0]));
        assert_eq!(range, Range { low: -2.0, high: 1.0, not_finite: 2 });
    }
}
