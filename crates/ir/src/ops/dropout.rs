//! `Dropout`: data, optional ratio (scalar), optional training_mode (bool scalar) → data, mask (bool).
//!
//! When training, an element stays with a probability of 1 − ratio, and is then divided by that; the others are 0.
//! Else all stay as they are. The mask is true for those that stay. The ratio is 0.5 where it is absent.
//!
//! The numbers drawn are those of numpy's `RandomState(seed).uniform`, as in ONNX's reference implementation, so a
//! seed gives the same mask there and here. Without a seed it is 0: a program gives the same results whenever it runs.
//!
//! **Dtypes**: data and ratio any float, the ratio of another one than the data too.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Dropout.html>.
//! **Opsets**: 12, 13 (bf16), 22 (8-bit floats); before, there was nothing that could ask for training when running.

use super::dense::filled;
use super::mersenne::Mersenne;
use super::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// `Dropout`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Where the random numbers start.
    pub seed: i64,
}

impl OpDef for Dropout {
    const NAMES: &'static [&'static str] = &["Dropout"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["seed"])?;
        Ok(Dropout { seed: attrs.int("seed", 0)? })
    }

    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().with("seed", Attr::Int(self.seed))
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 3)?;
        let data = required(inputs, 0, "data")?;
        expect_dtype(0, data.dtype(), "a float", DType::is_float)?;
        if let Some(ratio) = optional(inputs, 1) {
            expect_dtype(1, ratio.dtype(), "a float", DType::is_float)?;
        }
        if let Some(training) = optional(inputs, 2) {
            expect_dtype(2, training.dtype(), "bool", |dtype| dtype == DType::Bool)?;
        }
        for (slot, name) in [(1, "ratio"), (2, "training_mode")] {
            let known = optional(inputs, slot).map(|fact| fact.shape().iter().product::<crate::Dim>());
            if known.and_then(|count| count.as_const()).is_some_and(|count| count != 1) {
                return Err(OpError::Shape(format!("{name} is not one value")));
            }
        }
        Ok(vec![Fact::of_type(data.dtype(), data.shape()), Fact::of_type(DType::Bool, data.shape())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = required_tensor(inputs, 0, "data")?;
        let one = |slot: usize, default: f64| match optional(inputs, slot) {
            None => Ok(default),
            Some(tensor) if tensor.len() == 1 => Ok(tensor.to_f64s().first().copied().unwrap_or(default)),
            Some(tensor) => {
                Err(OpError::Shape(format!("input {slot} is {:?}, not one value", tensor.shape())))
            }
        };
        let (ratio, training) = (one(1, 0.5)?, one(2, 0.0)? != 0.0);
        if !(0.0..1.0).contains(&ratio) {
            return Err(OpError::Value(format!("a ratio of {ratio}; expected at least 0 and less than 1")));
        }
        let mut mask = filled(data.shape(), true)?;
        if !training || ratio == 0.0 {
            return Ok(vec![data.clone(), Tensor::from_bools(data.shape(), &mask)]);
        }
        // numpy takes the low bits of a seed, too.
        let mut numbers = Mersenne::new(self.seed as u32);
        mask.iter_mut().for_each(|stays| *stays = numbers.uniform() >= ratio);
        let mut values = data.to_f64s();
        let scale = 1.0 / (1.0 - ratio);
        for (value, &stays) in values.iter_mut().zip(&mask) {
            *value = if stays { *value * scale } else { 0.0 };
        }
        let result = Tensor::from_f64s(data.dtype(), data.shape(), &values);
        Ok(vec![result, Tensor::from_bools(data.shape(), &mask)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, op};

    #[test]
    fn drops_where_numpy_does_and_keeps_the_mean() {
        let op = op("Dropout", Attrs::new().with("seed", Attr::Int(0)));
        // The first numbers of seed 0 are 0.549, 0.715, 0.603, 0.545, 0.424, 0.646, 0.438.
        let (x, yes) = (counting(&[7]), Tensor::from_bools(&[], &[true]));
        let ratio = Tensor::scalar(0.5f32);
        let outputs = op.eval(&[Some(&x), Some(&ratio), Some(&yes)]).unwrap();
        assert_eq!(outputs[0].to_f64s(), [2., 4., 6., 8., 0., 12., 0.]);
        assert_eq!(outputs[1], Tensor::from_bools(&[7], &[true, true, true, true, false, true, false]));
        let outputs = op.eval(&[Some(&x), Some(&ratio)]).unwrap();
        assert_eq!(outputs[0], x);
        assert!(op.eval(&[Some(&x), Some(&Tensor::scalar(1f32)), Some(&yes)]).is_err());
        assert!(op.eval(&[Some(&x), Some(&counting(&[2])), Some(&yes)]).is_err());
    }
}
