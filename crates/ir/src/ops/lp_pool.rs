//! `LpPool`: X `[N, C, d1, …]` → Y `[N, C, o1, …]`, y = (Σ |x|^p)^(1/p) over the elements under the window.
//!
//! Padding adds nothing.
//!
//! **Dtypes**: f16, bf16, f32, f64.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__LpPool.html>.
//! **Opsets**: 1 (p is a float), 2, 11, 18 (ceil_mode, dilations), 22 (bf16).

use super::dense::{filled, is_real, output_type};
use super::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use super::window::TapTable;
use super::{InferCx, OpDef, OpError, Window};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::Tensor;

/// `LpPool`.
#[derive(Clone, Debug, PartialEq)]
pub struct LpPool {
    /// Geometry.
    pub window: Window,
    /// Round the output size up.
    pub ceil_mode: bool,
    /// The exponent.
    pub p: i64,
}

impl OpDef for LpPool {
    const NAMES: &'static [&'static str] = &["LpPool"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[&Window::ATTRS[..], &["ceil_mode", "p"]].concat())?;
        let window = Window::from_attrs(attrs)?;
        if window.kernel_shape.is_empty() {
            return Err(OpError::MissingAttribute("kernel_shape".to_owned()));
        }
        let p = attrs.int("p", 2)?;
        if p < 1 {
            return Err(OpError::Attribute {
                name: "p".to_owned(),
                value: p.to_string(),
                reason: "expected at least 1".to_owned(),
            });
        }
        Ok(LpPool { window, ceil_mode: attrs.int("ceil_mode", 0)? != 0, p })
    }

    fn name(&self) -> &'static str {
        "LpPool"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().with("p", Attr::Int(self.p));
        self.window.write(&mut attrs);
        if self.ceil_mode {
            attrs.set("ceil_mode", Attr::Int(1));
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        let [batch, channels, spatial @ ..] = x.shape() else {
            return Err(OpError::Shape(format!("X is {}, expected batch, channels and spatial axes", x.ty)));
        };
        let mut shape = vec![batch.clone(), channels.clone()];
        shape.extend(self.window.geometry(spatial, &self.window.kernel_shape, self.ceil_mode)?.output);
        Ok(vec![Fact::of_type(x.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "X")?;
        let input = &x.shape()[2..];
        let dims: Vec<Dim> = input.iter().map(|&d| Dim::from(d)).collect();
        let geometry = self.window.geometry(&dims, &self.window.kernel_shape, self.ceil_mode)?;
        let table = TapTable::forward(&geometry, input)?;
        let plane: usize = input.iter().product();
        let p = self.p as f64;
        let (values, mut y) = (x.to_f64s(), filled(&shape, 0.0)?);
        for (channel, y) in y.chunks_exact_mut(table.positions.max(1)).enumerate() {
            let x = &values[channel * plane..][..plane];
            for (position, y) in y.iter_mut().enumerate() {
                let taken = table.row(position).iter().filter_map(|&offset| x.get(offset));
                let sum: f64 = taken.map(|x| libm::pow(x.abs(), p)).sum();
                *y = match self.p {
                    1 => sum,
                    2 => sum.sqrt(),
                    _ => libm::pow(sum, 1.0 / p),
                };
            }
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{f32s, ints, op, values};

    #[test]
    fn norms_of_what_is_under_the_window() {
        let x = f32s(&[1, 1, 4], &[3., -4., 1., 1.]);
        let attrs = |p| Attrs::new().with("kernel_shape", ints(&[2])).with("p", Attr::Int(p));
        assert_eq!(values(&op("LpPool", attrs(1)), &[&x]), [7., 5., 2.]);
        let padded = attrs(2).with("pads", ints(&[1, 0])).with("strides", ints(&[2]));
        let y = values(&op("LpPool", padded), &[&x]);
        assert_eq!((y[0], y[1]), (3., f64::from(17f32.sqrt())));
        let cubes = values(&op("LpPool", attrs(3)), &[&x]);
        assert!((cubes[0] - 91f64.cbrt()).abs() < 1e-6);
        assert!(LpPool::from_attrs("LpPool", &attrs(0)).is_err());
        assert!(LpPool::from_attrs("LpPool", &Attrs::new()).is_err());
    }
}
