//! Random tensors: `RandomNormal`, `RandomUniform` and their `…Like` forms; `Multinomial`.
//!
//! - `RandomUniform`: u = low + (high − low) · unit, for a unit in [0, 1); rounding to the dtype may give `high`.
//! - `RandomNormal`: mean + scale · √(−2 ln(1 − u₁)) · cos(2π u₂) (Box–Muller) for two units.
//! - `…Like(input)`: of the shape, and without `dtype` of the dtype, of the operand; the contents are not read.
//! - `Multinomial(input [batch, classes])`: `sample_size` classes for each row of unnormalized log-probabilities.
//!
//! Every op has a `seed`: the same program on the same inputs always gives the same outputs. A node of a file without
//! one gets a seed made from its name by the importer, so two such nodes are independent of each other, and a node gives
//! the same numbers in every run. Element `i` is a function of seed and `i`: outputs of SplitMix64, one unit from each,
//! of which a float has the upper 53 bits.
//!
//! **Dtypes**: results f16, bf16, f32, f64; of `Multinomial` i32, i64.
//!
//! **Opsets**: 1 (7 for `Multinomial`), 22 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__RandomNormal.html>,
//! <https://onnx.ai/onnx/operators/onnx__RandomUniform.html>, <https://onnx.ai/onnx/operators/onnx__Multinomial.html>;
//! Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).

mod multinomial;

pub use multinomial::Multinomial;

use super::dense::{filled, is_real};
use super::util::{arity, dtype_attr, expect_dtype, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::text::SplitMix64;
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// How numbers are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// With this mean and standard deviation.
    Normal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        scale: f32,
    },
    /// Between these bounds.
    Uniform {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
}

/// Where the shape of the result comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Extent {
    /// It is given.
    Shape(Vec<i64>),
    /// It is that of the operand.
    Like,
}

/// `RandomNormal`, `RandomUniform`, `RandomNormalLike`, `RandomUniformLike`.
#[derive(Clone, Debug, PartialEq)]
pub struct Random {
    /// How numbers are distributed.
    pub distribution: Distribution,
    /// Dtype of the result; that of the operand if it is not given.
    pub dtype: Option<DType>,
    /// What the numbers are made of.
    pub seed: u64,
    /// Where the shape comes from.
    pub extent: Extent,
}

/// The seed: bits of the float that ONNX has, or an integer.
///
/// **Errors**: it is missing: whoever makes the op gives it one.
fn seed_of(attrs: &Attrs) -> Result<u64, OpError> {
    match attrs.get("seed") {
        Some(Attr::Int(seed)) => Ok(*seed as u64),
        Some(Attr::Float(seed)) => Ok(u64::from(seed.to_bits())),
        None => Err(OpError::MissingAttribute("seed".to_owned())),
        Some(other) => Err(OpError::Attribute {
            name: "seed".to_owned(),
            value: format!("{other:?}"),
            reason: "expected a number".to_owned(),
        }),
    }
}

/// A float attribute that must be finite.
fn finite(attrs: &Attrs, name: &str, default: f32) -> Result<f32, OpError> {
    let value = attrs.float(name, default)?;
    match value.is_finite() {
        true => Ok(value),
        false => Err(OpError::Attribute {
            name: name.to_owned(),
            value: value.to_string(),
            reason: "expected a finite number".to_owned(),
        }),
    }
}

impl Random {
    fn dtype_of(&self, input: Option<DType>) -> Result<DType, OpError> {
        let dtype = self.dtype.or(input).unwrap_or(DType::F32);
        match is_real(dtype) {
            true => Ok(dtype),
            false => {
                let text = format!("random numbers of dtype {dtype}; f16, bf16, f32 and f64 are possible");
                Err(OpError::Unsupported(text))
            }
        }
    }
}

impl OpDef for Random {
    const NAMES: &'static [&'static str] =
        &["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"];

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let normal = name.starts_with("RandomNormal");
        let like = name.ends_with("Like");
        let own = if normal { ["mean", "scale"] } else { ["low", "high"] };
        let shape: &[&str] = if like { &[] } else { &["shape"] };
        known_attrs(attrs, &[&own, shape, &["dtype", "seed"]].concat())?;
        let distribution = match normal {
            true => Distribution::Normal {
                mean: finite(attrs, "mean", 0.0)?,
                scale: finite(attrs, "scale", 1.0)?,
            },
            false => {
                Distribution::Uniform { low: finite(attrs, "low", 0.0)?, high: finite(attrs, "high", 1.0)? }
            }
        };
        let extent = match like {
            true => Extent::Like,
            false => {
                let shape = attrs.ints("shape")?;
                let shape = shape.ok_or_else(|| OpError::MissingAttribute("shape".to_owned()))?;
                if shape.iter().any(|&dim| dim < 0) {
                    return Err(OpError::Attribute {
                        name: "shape".to_owned(),
                        value: format!("{shape:?}"),
                        reason: "a dim is negative".to_owned(),
                    });
                }
                Extent::Shape(shape)
            }
        };
        Ok(Random { distribution, dtype: dtype_attr(attrs, "dtype")?, seed: seed_of(attrs)?, extent })
    }

    fn name(&self) -> &'static str {
        match (self.distribution, &self.extent) {
            (Distribution::Normal { .. }, Extent::Shape(_)) => "RandomNormal",
            (Distribution::Uniform { .. }, Extent::Shape(_)) => "RandomUniform",
            (Distribution::Normal { .. }, Extent::Like) => "RandomNormalLike",
            (Distribution::Uniform { .. }, Extent::Like) => "RandomUniformLike",
        }
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().with("seed", Attr::Int(self.seed as i64));
        if let Some(dtype) = self.dtype {
            attrs.set("dtype", Attr::Str(dtype.name().to_owned()));
        }
        if let Extent::Shape(shape) = &self.extent {
            attrs.set("shape", Attr::Ints(shape.clone()));
        }
        let (first, second) = match self.distribution {
            Distribution::Normal { mean, scale } => (("mean", mean), ("scale", scale)),
            Distribution::Uniform { low, high } => (("low", low), ("high", high)),
        };
        attrs.with(first.0, Attr::Float(first.1)).with(second.0, Attr::Float(second.1))
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let (dtype, shape): (_, Vec<Dim>) = match &self.extent {
            Extent::Like => {
                arity(inputs, 1, 1)?;
                let input = required(inputs, 0, "input")?;
                (self.dtype_of(Some(input.dtype()))?, input.shape().to_vec())
            }
            Extent::Shape(shape) => {
                arity(inputs, 0, 0)?;
                (self.dtype_of(None)?, shape.iter().map(|&dim| Dim::from(dim)).collect())
            }
        };
        Ok(vec![Fact::of_type(dtype, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = match &self.extent {
            Extent::Like => {
                let input = required_tensor(inputs, 0, "input")?;
                (self.dtype_of(Some(input.dtype()))?, input.shape().to_vec())
            }
            Extent::Shape(shape) => {
                let dims: Option<Vec<usize>> = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
                let dims = dims.ok_or_else(|| OpError::Value(format!("a dim of {shape:?} is negative")))?;
                (self.dtype_of(None)?, dims)
            }
        };
        let mut values = filled(&shape, 0f64)?;
        let mut random = SplitMix64::new(self.seed);
        for value in &mut values {
            *value = match self.distribution {
                Distribution::Uniform { low, high } => random.uniform(low.into(), high.into()),
                Distribution::Normal { mean, scale } => {
                    let (first, second) = (random.unit(), random.unit());
                    let radius = (-2.0 * libm::log(1.0 - first)).sqrt();
                    let turn = libm::cos(std::f64::consts::TAU * second);
                    f64::from(mean) + f64::from(scale) * radius * turn
                }
            };
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &values)])
    }
}

/// Dtypes of the results of `Multinomial`.
fn expect_index_dtype(dtype: DType) -> Result<(), OpError> {
    expect_dtype(0, dtype, "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, inferred, with};
    use super::*;

    fn seeded(seed: i64) -> Attrs {
        Attrs::new().with("seed", Attr::Int(seed))
    }

    #[test]
    fn moments_are_those_asked_for() {
        let shape = Attr::Ints(vec![100, 100]);
        let normal = seeded(3)
            .with("shape", shape.clone())
            .with("mean", Attr::Float(2.0))
            .with("scale", Attr::Float(3.0));
        let values = eval(&with("RandomNormal", normal), &[]).unwrap().to_f64s();
        let mean = values.iter().sum::<f64>() / 1e4;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 1e4;
        assert!((mean - 2.0).abs() < 0.1, "{mean}");
        assert!((variance.sqrt() - 3.0).abs() < 0.1, "{variance}");
        let uniform = seeded(3).with("shape", shape).with("low", Attr::Float(-1.0));
        let values = eval(&with("RandomUniform", uniform), &[]).unwrap().to_f64s();
        assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)));
        assert!(values.iter().sum::<f64>().abs() < 200.0);
    }

    #[test]
    fn seeds_tell_numbers_apart() {
        let like = |seed| {
            let op = with("RandomUniformLike", seeded(seed));
            eval(&op, &[&Tensor::zeros(DType::F64, &[3])]).unwrap()
        };
        assert_eq!(like(1), like(1));
        assert_ne!(like(1), like(2));
        assert_eq!(
            inferred(&with("RandomNormalLike", seeded(1)), &[&fact(DType::F16, &["n", "2"])]),
            "f16[n,2]"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |name: &str, attrs: Attrs| crate::Op::from_attrs(name, &attrs).unwrap().unwrap_err();
        refused("RandomNormalLike", Attrs::new());
        refused("RandomNormal", seeded(1));
        refused("RandomNormal", seeded(1).with("shape", Attr::Ints(vec![-1])));
        refused("RandomUniformLike", seeded(1).with("high", Attr::Float(f32::INFINITY)));
        let large = with("RandomUniform", seeded(1).with("shape", Attr::Ints(vec![i64::MAX, 8])));
        assert!(eval(&large, &[]).is_err());
    }
}
