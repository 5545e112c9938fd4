//! `STFT`.

use super::fourier::transform;
use super::{flag, integer, length, length_fact};
use crate::ops::dense::{filled, is_real, same_dtype};
use crate::ops::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::Tensor;

/// `STFT`: operands signal `[batch, length, 1 or 2]`, `frame_step`, window (optional), `frame_length` (optional);
/// gives `[batch, frames, bins, 2]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stft {
    /// The first half of the spectrum only; the signal is real.
    pub onesided: bool,
}

impl Stft {
    fn check_parts(&self, parts: &Dim) -> Result<(), OpError> {
        if parts.as_const().is_some_and(|parts| parts != 1 && parts != 2) {
            return Err(OpError::Shape(format!("the last axis has length {parts}, expected 1 or 2")));
        }
        match self.onesided && parts.is(2) {
            true => Err(OpError::Unsupported("onesided = 1 with a complex signal".to_owned())),
            false => Ok(()),
        }
    }
}

impl OpDef for Stft {
    const NAMES: &'static [&'static str] = &["STFT"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["onesided"])?;
        Ok(Stft { onesided: flag(attrs, "onesided", true)? })
    }

    fn name(&self) -> &'static str {
        "STFT"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new().with("onesided", Attr::Int(self.onesided.into()))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 4)?;
        let signal = required(inputs, 0, "signal")?;
        expect_dtype(0, signal.dtype(), "f16, bf16, f32 or f64", is_real)?;
        let [batch, total, parts] = signal.shape() else {
            return Err(OpError::Shape(format!("signal is {}, expected [batch, length, parts]", signal.ty)));
        };
        self.check_parts(parts)?;
        let step = length_fact(1, required(inputs, 1, "frame_step")?)?.and_then(|step| step.as_const());
        let mut frame = None;
        if let Some(window) = optional(inputs, 2) {
            same_dtype(2, window.dtype(), signal.dtype())?;
            let [size] = window.shape() else {
                return Err(OpError::Shape(format!("window is {}, expected one axis", window.ty)));
            };
            frame = Some(size.clone());
        }
        if let Some(stated) = optional(inputs, 3) {
            frame = match (length_fact(3, stated)?, frame) {
                (Some(stated), Some(size)) => {
                    cx.require_equal(&stated, &size)?;
                    Some(size)
                }
                (stated, size) => size.or(stated),
            };
            if frame.is_none() {
                let shape = vec![batch.clone(), cx.fresh(), cx.fresh(), Dim::from(2)];
                return Ok(vec![Fact::of_type(signal.dtype(), shape)]);
            }
        }
        let frame = frame.unwrap_or_else(|| total.clone());
        let frames = match step {
            Some(step) if step > 0 => {
                (total.clone() - frame.clone()).floor_div(&Dim::from(step)) + Dim::from(1)
            }
            Some(step) => return Err(OpError::Value(format!("frame_step is {step}"))),
            None => cx.fresh(),
        };
        if frames.as_const().is_some_and(|frames| frames < 0) {
            return Err(OpError::Shape(format!("a signal of length {total} has no frame of length {frame}")));
        }
        let bins = if self.onesided { frame.floor_div(&Dim::from(2)) + Dim::from(1) } else { frame };
        Ok(vec![Fact::of_type(signal.dtype(), vec![batch.clone(), frames, bins, Dim::from(2)])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let signal = required_tensor(inputs, 0, "signal")?;
        let &[batch, total, parts] = signal.shape() else {
            return Err(OpError::Shape(format!(
                "signal has shape {:?}, expected three axes",
                signal.shape()
            )));
        };
        self.check_parts(&Dim::from(parts))?;
        let step = length("frame_step", integer(1, required_tensor(inputs, 1, "frame_step")?)?, 1)?;
        let window = optional(inputs, 2).map(Tensor::to_f64s);
        let frame = match optional(inputs, 3) {
            Some(stated) => length("frame_length", integer(3, stated)?, 0)?,
            None => window.as_ref().map_or(total, Vec::len),
        };
        if window.as_ref().is_some_and(|window| window.len() != frame) {
            return Err(OpError::Shape(format!("the window does not have frame_length {frame}")));
        }
        let rest = total.checked_sub(frame).ok_or_else(|| {
            OpError::Shape(format!("a signal of length {total} has no frame of length {frame}"))
        })?;
        let frames = rest / step + 1;
        let bins = if self.onesided { frame / 2 + 1 } else { frame };
        let shape = [batch, frames, bins, 2];
        let mut result = filled(&shape, 0f64)?;
        let mut line = filled(&[frame], (0.0, 0.0))?;
        let values = signal.to_f64s();
        for (at, spectrum) in result.chunks_mut((bins * 2).max(1)).enumerate() {
            let start = (at / frames) * total + at % frames * step;
            for (n, place) in line.iter_mut().enumerate() {
                let from = (start + n) * parts;
                let weight = window.as_ref().map_or(1.0, |window| window[n]);
                let imaginary = if parts == 2 { values[from + 1] } else { 0.0 };
                *place = (values[from] * weight, imaginary * weight);
            }
            transform(&mut line, false)?;
            for (pair, value) in spectrum.chunks_mut(2).zip(&line) {
                pair.copy_from_slice(&[value.0, value.1]);
            }
        }
        Ok(vec![Tensor::from_f64s(signal.dtype(), &shape, &result)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, plain, with};
    use rabot_tensor::DType;

    #[test]
    fn frames_are_windowed_and_transformed() {
        let signal = Tensor::from_vec(&[1, 6, 1], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let step = Tensor::scalar(2i64);
        let window = Tensor::from_vec(&[4], vec![1f32, 1.0, 1.0, 0.0]);
        let result = eval(&plain("STFT"), &[&signal, &step, &window]).unwrap();
        assert_eq!(result.shape(), [1, 2, 3, 2]);
        let values = result.to_f64s();
        // 1 + 2 + 3; 1 - 3 - 2i; 1 - 2 + 3; then 3 + 4 + 5, …
        assert_eq!(values, [6.0, 0.0, -2.0, -2.0, 2.0, 0.0, 12.0, 0.0, -2.0, -4.0, 4.0, 0.0]);
    }

    #[test]
    fn shapes_and_refusals() {
        let signal = fact(DType::F32, &["1", "n", "1"]);
        let step = Fact::of_constant(Tensor::scalar(160i64));
        let window = fact(DType::F32, &["400"]);
        assert_eq!(
            inferred(&plain("STFT"), &[&signal, &step, &window]),
            "f32[1,floordiv(n - 400, 160) + 1,201,2]"
        );
        let both = with("STFT", Attrs::new().with("onesided", Attr::Int(0)));
        assert_eq!(inferred(&both, &[&signal, &step]), "f32[1,1,n,2]");
        let none = Fact::of_constant(Tensor::scalar(0i64));
        assert!(inferred(&both, &[&signal, &none]).contains("frame_step"));
        let complex = fact(DType::F32, &["1", "n", "2"]);
        assert!(inferred(&plain("STFT"), &[&complex, &step]).contains("complex"));
        let short = Tensor::zeros(DType::F32, &[1, 2, 1]);
        let long = Tensor::zeros(DType::F32, &[4]);
        assert!(eval(&both, &[&short, &Tensor::scalar(1i64), &long]).is_err());
    }
}
