//! Normalizations, in the form that inference needs.
//!
//! - `BatchNormalization`: X `[N, C, …]`, scale, B, mean, var `[C]` → y = (x − mean) / √(var + ε) · scale + B,
//!   per channel. `training_mode` must be 0; `momentum` has no meaning then.
//! - `LayerNormalization`: X normalized to mean 0 and variance 1 over the axes from `axis` on, times Scale,
//!   plus B; both broadcast to X. The optional outputs Mean and InvStdDev do not exist here.
//! - `RMSNormalization`: X / √(mean(X²) + ε) over the axes from `axis` on, times scale, which broadcasts to X. The
//!   result has the dtype of X here.
//! - `LRN`: X `[N, C, …]` → y = x / (bias + alpha / size · Σ x²)^beta, summed over the `size` channels around
//!   the element, ⌊(size − 1)/2⌋ of them before it.
//!
//! **Dtypes**: f16, bf16, f32, f64; parameters may have another one of these than X. Computed in f64 and
//! rounded once, whatever `stash_type` says.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>,
//! <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>,
//! <https://onnx.ai/onnx/operators/onnx__RMSNormalization.html>,
//! <https://onnx.ai/onnx/operators/onnx__LRN.html>.
//! **Opsets**: `BatchNormalization` 1, 6, 7, 9 (drop `spatial`), 14 (`training_mode`), 15 (mixed dtypes);
//! `LayerNormalization` 17; `RMSNormalization` 23; `LRN` 1, 13 (bf16).

use super::dense::{broadcast_strides, filled, is_real, output_type, require_broadcast_to, strided_offset};
use super::util::{arity, expect_dtype, known_attrs, normalize_axis, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::Tensor;

const FLOATS: &str = "f16, bf16, f32 or f64";

/// `BatchNormalization` in inference form: operands X, scale, B, mean, var.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Added to the variance.
    pub epsilon: f32,
}

const PARAMETERS: [&str; 4] = ["scale", "B", "mean", "var"];

impl OpDef for BatchNormalization {
    const NAMES: &'static [&'static str] = &["BatchNormalization"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["epsilon", "momentum", "training_mode"])?;
        if attrs.int("training_mode", 0)? != 0 {
            return Err(OpError::Unsupported("training_mode = 1: rabot runs trained models".to_owned()));
        }
        attrs.float("momentum", 0.9)?;
        Ok(BatchNormalization { epsilon: attrs.float("epsilon", 1e-5)? })
    }

    fn name(&self) -> &'static str {
        "BatchNormalization"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().with("epsilon", Attr::Float(self.epsilon))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 5, 5)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), FLOATS, is_real)?;
        let channels = match x.shape() {
            [] => return Err(OpError::Shape("X is a scalar, expected channels".to_owned())),
            [_] => Dim::from(1),
            [_, channels, ..] => channels.clone(),
        };
        for (slot, name) in (1..).zip(PARAMETERS) {
            let parameter = required(inputs, slot, name)?;
            expect_dtype(slot, parameter.dtype(), FLOATS, is_real)?;
            let refused = || {
                OpError::Shape(format!(
                    "{name} is {}, expected one value for each of {channels} channels",
                    parameter.ty
                ))
            };
            let [dim] = parameter.shape() else { return Err(refused()) };
            cx.require_equal(dim, &channels).map_err(|_| refused())?;
        }
        Ok(vec![Fact::of_type(x.dtype(), x.shape())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let mut y = required_tensor(inputs, 0, "X")?.to_f64s();
        let parameter =
            |slot: usize| required_tensor(inputs, slot, PARAMETERS[slot - 1]).map(Tensor::to_f64s);
        let (scale, bias, mean, var) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
        let plane = shape.iter().skip(2).product::<usize>().max(1);
        for (row, y) in y.chunks_mut(plane).enumerate() {
            let c = row % scale.len();
            let factor = scale[c] / (var[c] + f64::from(self.epsilon)).sqrt();
            y.iter_mut().for_each(|y| *y = (*y - mean[c]) * factor + bias[c]);
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

/// `LayerNormalization`: operands X, Scale, optional B; or `RMSNormalization`: operands X, scale.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormalization {
    /// First normalized axis.
    pub axis: i64,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the mean is taken away: true for `LayerNormalization`, false for `RMSNormalization`.
    pub centered: bool,
}

impl OpDef for LayerNormalization {
    const NAMES: &'static [&'static str] = &["LayerNormalization", "RMSNormalization"];

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "epsilon", "stash_type"])?;
        let stash_type = attrs.int("stash_type", 1)?;
        if stash_type != 1 {
            return Err(OpError::Attribute {
                name: "stash_type".to_owned(),
                value: stash_type.to_string(),
                reason: "only 1 (f32) is supported".to_owned(),
            });
        }
        Ok(LayerNormalization {
            axis: attrs.int("axis", -1)?,
            epsilon: attrs.float("epsilon", 1e-5)?,
            centered: name == "LayerNormalization",
        })
    }

    fn name(&self) -> &'static str {
        if self.centered { "LayerNormalization" } else { "RMSNormalization" }
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis)).with("epsilon", Attr::Float(self.epsilon))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, if self.centered { 3 } else { 2 })?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), FLOATS, is_real)?;
        normalize_axis(self.axis, x.rank())?;
        let scale = required(inputs, 1, "Scale")?;
        for (slot, name, parameter) in [(1, "Scale", Some(scale)), (2, "B", optional(inputs, 2))] {
            let Some(parameter) = parameter else { continue };
            expect_dtype(slot, parameter.dtype(), FLOATS, is_real)?;
            require_broadcast_to(cx, name, parameter.shape(), x.shape())?;
        }
        Ok(vec![Fact::of_type(x.dtype(), x.shape())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let mut y = required_tensor(inputs, 0, "X")?.to_f64s();
        let axis = normalize_axis(self.axis, shape.len())?;
        let len = shape[axis..].iter().product::<usize>().max(1);
        for y in y.chunks_exact_mut(len) {
            let mean = if self.centered { y.iter().sum::<f64>() / len as f64 } else { 0.0 };
            let variance = y.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / len as f64;
            let deviation = (variance + f64::from(self.epsilon)).sqrt();
            y.iter_mut().for_each(|y| *y = (*y - mean) / deviation);
        }
        combine(&mut y, &shape, required_tensor(inputs, 1, "Scale")?, |y, scale| y * scale);
        if let Some(bias) = optional(inputs, 2) {
            combine(&mut y, &shape, bias, |y, bias| y + bias);
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

/// Combines every element with that of a parameter that broadcasts to the shape.
fn combine(y: &mut [f64], shape: &[usize], parameter: &Tensor, f: impl Fn(f64, f64) -> f64) {
    let (values, strides) = (parameter.to_f64s(), broadcast_strides(parameter.shape(), shape));
    for (index, y) in y.iter_mut().enumerate() {
        *y = f(*y, values[strided_offset(index, shape, &strides)]);
    }
}

/// `LRN`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lrn {
    /// Scale.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Offset.
    pub bias: f32,
    /// Channels summed.
    pub size: usize,
}

impl OpDef for Lrn {
    const NAMES: &'static [&'static str] = &["LRN"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["alpha", "beta", "bias", "size"])?;
        let size = attrs.required_int("size")?;
        let size = usize::try_from(size).ok().filter(|&s| s > 0).ok_or_else(|| OpError::Attribute {
            name: "size".to_owned(),
            value: size.to_string(),
            reason: "expected at least 1".to_owned(),
        })?;
        Ok(Lrn {
            alpha: attrs.float("alpha", 1e-4)?,
            beta: attrs.float("beta", 0.75)?,
            bias: attrs.float("bias", 1.0)?,
            size,
        })
    }

    fn name(&self) -> &'static str {
        "LRN"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("alpha", Attr::Float(self.alpha))
            .with("beta", Attr::Float(self.beta))
            .with("bias", Attr::Float(self.bias))
            .with("size", Attr::Int(self.size as i64))
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), FLOATS, is_real)?;
        if x.rank() < 2 {
            return Err(OpError::Shape(format!("X is {}, expected batch and channels", x.ty)));
        }
        Ok(vec![Fact::of_type(x.dtype(), x.shape())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "X")?.to_f64s();
        let (channels, plane) = (shape[1], shape[2..].iter().product::<usize>().max(1));
        let (before, after) = ((self.size - 1) / 2, self.size / 2);
        let factor = f64::from(self.alpha) / self.size as f64;
        let mut y = filled(&shape, 0.0)?;
        for (row, y) in y.chunks_exact_mut(plane).enumerate() {
            let (image, c) = (row / channels, row % channels);
            let last = c.saturating_add(after).min(channels - 1);
            for (at, y) in y.iter_mut().enumerate() {
                let x = |c: usize| x[(image * channels + c) * plane + at];
                let squares: f64 = (c.saturating_sub(before)..=last).map(|c| x(c) * x(c)).sum();
                let base = f64::from(self.bias) + factor * squares;
                *y = x(c) / libm::pow(base, f64::from(self.beta));
            }
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, f32s, num, op, shape, sym, values};

    #[test]
    fn batch_normalization_by_channel() {
        let op = op("BatchNormalization", Attrs::new().with("epsilon", Attr::Float(0.0)));
        let (scale, bias) = (f32s(&[2], &[1., 2.]), f32s(&[2], &[0., 10.]));
        let (mean, var) = (f32s(&[2], &[1., 3.]), f32s(&[2], &[1., 4.]));
        assert_eq!(values(&op, &[&counting(&[1, 2, 2]), &scale, &bias, &mean, &var]), [0., 1., 10., 11.]);
        assert!(eval(&op, &[&counting(&[1, 3, 2]), &scale, &bias, &mean, &var]).is_err());
        let c = vec![sym("c")];
        let inputs = [vec![sym("n"), num(4)], c.clone(), c.clone(), c.clone(), c];
        assert_eq!(shape(&op, &inputs).unwrap().1, vec![(sym("c"), num(4)); 4]);
        let training = Attrs::new().with("training_mode", Attr::Int(1));
        assert!(BatchNormalization::from_attrs("BatchNormalization", &training).is_err());
    }

    #[test]
    fn layer_normalization_over_trailing_axes() {
        let attrs = Attrs::new().with("axis", Attr::Int(1)).with("epsilon", Attr::Float(0.0));
        let x = f32s(&[2, 2, 1], &[1., 3., 10., 30.]);
        let (scale, bias) = (f32s(&[2, 1], &[1., 2.]), f32s(&[1], &[5.]));
        assert_eq!(values(&op("LayerNormalization", attrs.clone()), &[&x, &scale, &bias]), [4., 7., 4., 7.]);
        assert!(eval(&op("LayerNormalization", attrs), &[&x, &f32s(&[3, 1], &[0.; 3])]).is_err());
        let stash = Attrs::new().with("stash_type", Attr::Int(10));
        assert!(LayerNormalization::from_attrs("LayerNormalization", &stash).is_err());
    }

    #[test]
    fn rms_normalization_keeps_the_mean() {
        let attrs = Attrs::new().with("axis", Attr::Int(1)).with("epsilon", Attr::Float(0.0));
        let (x, scale) = (f32s(&[2, 2], &[1., 7., 2., 14.]), f32s(&[2], &[5., 10.]));
        let norm = op("RMSNormalization", attrs);
        assert_eq!(values(&norm, &[&x, &scale]), [1., 14., 1., 14.]);
        assert!(eval(&norm, &[&x, &scale, &scale]).is_err());
    }

    #[test]
    fn lrn_sums_around_the_channel() {
        let attrs = |size| {
            let attrs = Attrs::new().with("alpha", Attr::Float(size as f32)).with("beta", Attr::Float(1.0));
            attrs.with("bias", Attr::Float(0.0)).with("size", Attr::Int(size))
        };
        let x = f32s(&[1, 3, 1], &[1., 2., 4.]);
        let rounded = |v: [f64; 3]| v.map(|v| f64::from(v as f32)).to_vec();
        assert_eq!(values(&op("LRN", attrs(3)), &[&x]), rounded([1. / 5., 2. / 21., 4. / 20.]));
        // Even: the odd neighbour is the next channel.
        assert_eq!(values(&op("LRN", attrs(2)), &[&x]), rounded([1. / 5., 2. / 20., 4. / 16.]));
        assert!(Lrn::from_attrs("LRN", &Attrs::new()).is_err());
    }
}
