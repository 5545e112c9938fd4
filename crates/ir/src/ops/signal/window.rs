//! `HannWindow`, `HammingWindow`, `BlackmanWindow`.

use super::{flag, integer, is_window_dtype, length, length_fact};
use crate::ops::dense::filled;
use crate::ops::util::{arity, dtype_attr, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// A window function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// 1/2 − 1/2 cos x.
    Hann,
    /// 25/46 − 21/46 cos x.
    Hamming,
    /// 0.42 − 1/2 cos x + 0.08 cos 2x.
    Blackman,
}

/// `HannWindow` and the others: operand the size, a scalar; gives the window at x = 2π n / N, where N is the size, or
/// one less if it is not periodic.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalWindow {
    /// Which one.
    pub kind: WindowKind,
    /// Without the last point, which is the first one of the next period.
    pub periodic: bool,
    /// Dtype of the result; for integers, fractions are cut off.
    pub dtype: DType,
}

impl OpDef for SignalWindow {
    const NAMES: &'static [&'static str] = &["HannWindow", "HammingWindow", "BlackmanWindow"];

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["output_datatype", "periodic"])?;
        let kind = match name {
            "HannWindow" => WindowKind::Hann,
            "HammingWindow" => WindowKind::Hamming,
            _ => WindowKind::Blackman,
        };
        let dtype = dtype_attr(attrs, "output_datatype")?.unwrap_or(DType::F32);
        expect_dtype(0, dtype, "a float or integer", is_window_dtype)?;
        Ok(SignalWindow { kind, periodic: flag(attrs, "periodic", true)?, dtype })
    }

    fn name(&self) -> &'static str {
        match self.kind {
            WindowKind::Hann => "HannWindow",
            WindowKind::Hamming => "HammingWindow",
            WindowKind::Blackman => "BlackmanWindow",
        }
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("output_datatype", Attr::Str(self.dtype.name().to_owned()))
            .with("periodic", Attr::Int(self.periodic.into()))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let size = length_fact(0, required(inputs, 0, "size")?)?.unwrap_or_else(|| cx.fresh());
        match size.as_const() {
            Some(size) if size < 0 => Err(OpError::Value(format!("a window of size {size}"))),
            _ => Ok(vec![Fact::of_type(self.dtype, vec![size])]),
        }
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let size = length("size", integer(0, required_tensor(inputs, 0, "size")?)?, 0)?;
        let period = if self.periodic { size } else { size.saturating_sub(1) };
        let mut values = filled(&[size], 1f64)?;
        // A single point that is not periodic is the middle of the window.
        if period > 0 {
            for (n, value) in values.iter_mut().enumerate() {
                let x = std::f64::consts::TAU * n as f64 / period as f64;
                *value = match self.kind {
                    WindowKind::Hann => 0.5 - 0.5 * libm::cos(x),
                    WindowKind::Hamming => 25.0 / 46.0 - 21.0 / 46.0 * libm::cos(x),
                    WindowKind::Blackman => 0.42 - 0.5 * libm::cos(x) + 0.08 * libm::cos(2.0 * x),
                };
            }
        }
        Ok(vec![Tensor::from_f64s(self.dtype, &[size], &values)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, plain, with};

    #[test]
    fn windows_are_symmetric_or_periodic() {
        let size = Tensor::scalar(4i64);
        let near = |name: &str, attrs: Attrs, wanted: &[f64]| {
            let got = eval(&with(name, attrs), &[&size]).unwrap().to_f64s();
            assert!(got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{name}: {got:?}");
        };
        let symmetric = Attrs::new().with("periodic", Attr::Int(0));
        near("HannWindow", Attrs::new(), &[0.0, 0.5, 1.0, 0.5]);
        near("HannWindow", symmetric.clone(), &[0.0, 0.75, 0.75, 0.0]);
        near("HammingWindow", Attrs::new(), &[4.0 / 46.0, 25.0 / 46.0, 1.0, 25.0 / 46.0]);
        near("BlackmanWindow", symmetric, &[0.0, 0.63, 0.63, 0.0]);
    }

    #[test]
    fn sizes() {
        assert_eq!(inferred(&plain("HannWindow"), &[&fact(DType::I64, &[])]), "f32[node.0]");
        assert!(eval(&plain("HannWindow"), &[&Tensor::scalar(-1i64)]).is_err());
        assert!(eval(&plain("HannWindow"), &[&Tensor::scalar(i64::MAX)]).is_err());
        assert_eq!(eval(&plain("HannWindow"), &[&Tensor::scalar(0i32)]).unwrap().len(), 0);
    }
}
