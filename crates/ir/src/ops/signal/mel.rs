//! `MelWeightMatrix`.

use super::{integer, is_window_dtype, length, length_fact};
use crate::ops::dense::{filled, is_real};
use crate::ops::util::{arity, dtype_attr, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `MelWeightMatrix`: scalar operands `num_mel_bins`, `dft_length`, `sample_rate`, `lower_edge_hertz`,
/// `upper_edge_hertz`; gives triangular filters `[dft_length / 2 + 1, num_mel_bins]`.
///
/// Edges are equally spaced on the scale 2595 · log₁₀(1 + f / 700), `num_mel_bins + 2` of them with a step of the
/// range over their number, as the reference implementation has it.
#[derive(Clone, Debug, PartialEq)]
pub struct MelWeightMatrix {
    /// Dtype of the result.
    pub dtype: DType,
}

const OPERANDS: [&str; 5] =
    ["num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz"];

fn mel(hertz: f64) -> f64 {
    2595.0 * libm::log10(1.0 + hertz / 700.0)
}

fn hertz(mel: f64) -> f64 {
    700.0 * (libm::pow(10.0, mel / 2595.0) - 1.0)
}

impl OpDef for MelWeightMatrix {
    const NAMES: &'static [&'static str] = &["MelWeightMatrix"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["output_datatype"])?;
        let dtype = dtype_attr(attrs, "output_datatype")?.unwrap_or(DType::F32);
        expect_dtype(0, dtype, "a float or integer", is_window_dtype)?;
        Ok(MelWeightMatrix { dtype })
    }

    fn name(&self) -> &'static str {
        "MelWeightMatrix"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().with("output_datatype", Attr::Str(self.dtype.name().to_owned()))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 5, 5)?;
        let mut sizes = Vec::new();
        for (slot, name) in OPERANDS.into_iter().enumerate() {
            let fact = required(inputs, slot, name)?;
            if slot < 3 {
                sizes.push(length_fact(slot, fact)?);
                continue;
            }
            expect_dtype(slot, fact.dtype(), "f16, bf16, f32 or f64", is_real)?;
            if !fact.ty.elements().is(1) {
                return Err(OpError::Shape(format!("{name} is {}, expected a scalar", fact.ty)));
            }
        }
        let size = |index: usize| sizes.get(index).cloned().flatten();
        let rows = size(1).map(|dft| dft.floor_div(&Dim::from(2)) + Dim::from(1));
        let (rows, bins) = (rows.unwrap_or_else(|| cx.fresh()), size(0).unwrap_or_else(|| cx.fresh()));
        if [&bins, &rows].iter().any(|dim| dim.as_const().is_some_and(|dim| dim < 0)) {
            return Err(OpError::Value(format!("filters of shape [{rows}, {bins}]")));
        }
        Ok(vec![Fact::of_type(self.dtype, vec![rows, bins])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let whole = |slot: usize, least| {
            let name = OPERANDS[slot];
            length(name, integer(slot, required_tensor(inputs, slot, name)?)?, least)
        };
        let (bins, dft, rate) = (whole(0, 0)?, whole(1, 0)?, whole(2, 1)?);
        let edge = |slot: usize| {
            let name = OPERANDS[slot];
            match required_tensor(inputs, slot, name)?.to_f64s().as_slice() {
                [value] if value.is_finite() && *value >= 0.0 => Ok(*value),
                other => Err(OpError::Value(format!("{name} is {other:?}, expected one frequency"))),
            }
        };
        let (low, high) = (mel(edge(3)?), mel(edge(4)?));
        let rows = dft / 2 + 1;
        let mut filters = filled(&[rows, bins], 0f64)?;
        let step = (high - low) / (bins as f64 + 2.0);
        let at = |index: usize| -> Result<usize, OpError> {
            let place = ((dft as f64 + 1.0) * hertz(index as f64 * step + low) / rate as f64).floor();
            // Casts of floats saturate; one that is out of range is refused below.
            match (place >= 0.0, place as usize) {
                (true, place) if place < rows => Ok(place),
                _ => Err(OpError::Value(format!(
                    "a filter has an edge at {place}, but the spectrum has {rows} bins: the upper edge is too high"
                ))),
            }
        };
        for bin in 0..bins {
            let (left, middle) = (at(bin)?, at(bin + 1)?);
            // The last bin of the spectrum may be the end of a filter, which is not part of it.
            let right = at(bin + 2)?;
            if left >= middle {
                filters[middle * bins + bin] = 1.0;
            } else {
                for place in left..=middle {
                    filters[place * bins + bin] = (place - left) as f64 / (middle - left) as f64;
                }
            }
            for place in middle..right {
                filters[place * bins + bin] = (right - place) as f64 / (right - middle) as f64;
            }
        }
        Ok(vec![Tensor::from_f64s(self.dtype, &[rows, bins], &filters)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, inferred, plain};

    fn operands(bins: i64, dft: i64, upper: f32) -> [Tensor; 5] {
        [
            Tensor::scalar(bins),
            Tensor::scalar(dft),
            Tensor::scalar(8192i64),
            Tensor::scalar(0f32),
            Tensor::scalar(upper),
        ]
    }

    #[test]
    fn filters_are_triangles() {
        let operands = operands(8, 16, 4096.0);
        let refs: Vec<&Tensor> = operands.iter().collect();
        let matrix = eval(&plain("MelWeightMatrix"), &refs).unwrap();
        assert_eq!(matrix.shape(), [9, 8]);
        let values = matrix.to_f64s();
        // From the example of the specification.
        assert_eq!(values[..8], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(values[8..16], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        let facts: Vec<Fact> = operands.iter().map(|t| Fact::of_constant(t.clone())).collect();
        assert_eq!(inferred(&plain("MelWeightMatrix"), &facts.iter().collect::<Vec<_>>()), "f32[9,8]");
    }

    #[test]
    fn edges_beyond_the_spectrum_are_refused() {
        let operands = operands(8, 16, 1e6);
        let refs: Vec<&Tensor> = operands.iter().collect();
        assert!(eval(&plain("MelWeightMatrix"), &refs).is_err());
    }
}
