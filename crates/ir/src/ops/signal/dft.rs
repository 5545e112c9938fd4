//! `DFT`.

use super::fourier::transform;
use super::{flag, integer, length, length_fact};
use crate::ops::dense::{filled, is_real};
use crate::ops::util::{
    arity, expect_dtype, known_attrs, normalize_axis, optional, required, required_tensor,
};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::Tensor;

/// `DFT`: operands input `[…, 1 or 2]`, `dft_length` (optional), `axis` (optional, −2), both scalars.
#[derive(Clone, Debug, PartialEq)]
pub struct Dft {
    /// From frequencies to a signal.
    pub inverse: bool,
    /// Half of the spectrum: of the result, or if inverse, of the operand, whose signal is real.
    pub onesided: bool,
}

impl Dft {
    /// From half a spectrum to a real signal.
    fn to_real(&self) -> bool {
        self.inverse && self.onesided
    }

    /// The axis counted from the front, which is not the last one.
    fn axis(given: i64, rank: usize) -> Result<usize, OpError> {
        let axis = normalize_axis(given, rank)?;
        match axis + 1 == rank {
            true => Err(OpError::Value(format!("axis {given} is that of real and imaginary parts"))),
            false => Ok(axis),
        }
    }

    fn check_parts(&self, parts: &Dim) -> Result<(), OpError> {
        if parts.as_const().is_some_and(|parts| parts != 1 && parts != 2) {
            return Err(OpError::Shape(format!("the last axis has length {parts}, expected 1 or 2")));
        }
        if self.onesided && !self.inverse && parts.is(2) {
            return Err(OpError::Unsupported("onesided = 1 with complex input".to_owned()));
        }
        Ok(())
    }
}

impl OpDef for Dft {
    const NAMES: &'static [&'static str] = &["DFT"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["inverse", "onesided"])?;
        Ok(Dft { inverse: flag(attrs, "inverse", false)?, onesided: flag(attrs, "onesided", false)? })
    }

    fn name(&self) -> &'static str {
        "DFT"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("inverse", Attr::Int(self.inverse.into()))
            .with("onesided", Attr::Int(self.onesided.into()))
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 3)?;
        let input = required(inputs, 0, "input")?;
        expect_dtype(0, input.dtype(), "f16, bf16, f32 or f64", is_real)?;
        let mut shape = input.shape().to_vec();
        let Some(parts) = shape.last_mut().filter(|_| input.rank() >= 2) else {
            return Err(OpError::Shape(format!("input is {}, expected at least two axes", input.ty)));
        };
        self.check_parts(parts)?;
        *parts = Dim::from(if self.to_real() { 1 } else { 2 });
        let stated = match optional(inputs, 1) {
            Some(fact) => Some(length_fact(1, fact)?),
            None => None,
        };
        let axis = match optional(inputs, 2) {
            Some(fact) => length_fact(2, fact)?.and_then(|axis| axis.as_const()),
            None => Some(-2),
        };
        let Some(axis) = axis else {
            let last = shape.len() - 1;
            shape[..last].iter_mut().for_each(|dim| *dim = cx.fresh());
            return Ok(vec![Fact::of_type(input.dtype(), shape)]);
        };
        let axis = Self::axis(axis, shape.len())?;
        let size = match stated {
            None if self.to_real() => Dim::from(2) * (shape[axis].clone() - Dim::from(1)),
            None => shape[axis].clone(),
            Some(Some(size)) => size,
            Some(None) => {
                shape[axis] = cx.fresh();
                return Ok(vec![Fact::of_type(input.dtype(), shape)]);
            }
        };
        shape[axis] = match self.onesided && !self.inverse {
            true => size.floor_div(&Dim::from(2)) + Dim::from(1),
            false => size,
        };
        if shape[axis].as_const().is_some_and(|size| size < 0) {
            return Err(OpError::Value(format!("a transform of length {}", shape[axis])));
        }
        Ok(vec![Fact::of_type(input.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let input = required_tensor(inputs, 0, "input")?;
        let rank = input.rank();
        if rank < 2 {
            return Err(OpError::Shape(format!("input has shape {:?}, expected two axes", input.shape())));
        }
        self.check_parts(&Dim::from(input.shape()[rank - 1]))?;
        let axis = optional(inputs, 2).map_or(Ok(-2), |tensor| integer(2, tensor))?;
        let axis = Self::axis(axis, rank)?;
        let from = input.shape()[axis];
        let size = match optional(inputs, 1) {
            Some(tensor) => length("dft_length", integer(1, tensor)?, 0)?,
            None if self.to_real() => 2 * from.saturating_sub(1),
            None => from,
        };
        let to = if self.onesided && !self.inverse { size / 2 + 1 } else { size };
        let (parts_in, parts_out) = (input.shape()[rank - 1], if self.to_real() { 1 } else { 2 });
        let mut shape = input.shape().to_vec();
        (shape[axis], shape[rank - 1]) = (to, parts_out);
        let mut result = filled(&shape, 0f64)?;
        let values = input.to_f64s();
        let outer: usize = shape[..axis].iter().product();
        let inner: usize = shape[axis + 1..rank - 1].iter().product();
        let mut line = filled(&[size], (0.0, 0.0))?;
        for row in 0..outer {
            for column in 0..inner {
                let read = |k: usize| {
                    let at = ((row * from + k) * inner + column) * parts_in;
                    (values[at], if parts_in == 2 { values[at + 1] } else { 0.0 })
                };
                self.load(&mut line, from, read);
                transform(&mut line, self.inverse)?;
                let factor = if self.inverse { 1.0 / size as f64 } else { 1.0 };
                for (k, value) in line.iter().enumerate().take(to) {
                    let at = ((row * to + k) * inner + column) * parts_out;
                    result[at] = value.0 * factor;
                    if parts_out == 2 {
                        result[at + 1] = value.1 * factor;
                    }
                }
            }
        }
        Ok(vec![Tensor::from_f64s(input.dtype(), &shape, &result)])
    }
}

impl Dft {
    /// Fills a line of the transform; what the operand does not have is 0, or the mirror of what it has.
    fn load(&self, line: &mut [(f64, f64)], from: usize, read: impl Fn(usize) -> (f64, f64)) {
        let size = line.len();
        for (k, place) in line.iter_mut().enumerate() {
            let mirrored = self.to_real() && 2 * k > size;
            let source = if mirrored { size - k } else { k };
            let (re, im) = if source < from { read(source) } else { (0.0, 0.0) };
            let sign = if mirrored { -1.0 } else { 1.0 };
            // The spectrum of a real signal is real at 0 and in the middle.
            let real = self.to_real() && (k == 0 || 2 * k == size);
            *place = (re, if real { 0.0 } else { sign * im });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, list, with};
    use rabot_tensor::DType;

    fn op(inverse: bool, onesided: bool) -> crate::Op {
        let attrs = Attrs::new()
            .with("inverse", Attr::Int(inverse.into()))
            .with("onesided", Attr::Int(onesided.into()));
        with("DFT", attrs)
    }

    #[test]
    fn there_and_back_is_the_same() {
        let x = Tensor::from_vec(&[1, 5, 1], vec![1f32, -2.0, 0.5, 3.0, 4.0]);
        let half = eval(&op(false, true), &[&x]).unwrap();
        assert_eq!(half.shape(), [1, 3, 2]);
        assert!((half.to_f64s()[0] - 6.5).abs() < 1e-6);
        let back = eval(&op(true, true), &[&half, &list(&[5])]).unwrap();
        assert_eq!(back.shape(), [1, 5, 1]);
        for (got, want) in back.to_f64s().iter().zip(x.to_f64s()) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        let full = eval(&op(false, false), &[&x, &list(&[8])]).unwrap();
        assert_eq!(eval(&op(true, false), &[&full]).unwrap().shape(), [1, 8, 2]);
    }

    #[test]
    fn shapes_and_refusals() {
        let x = fact(DType::F32, &["b", "n", "1"]);
        assert_eq!(inferred(&op(false, true), &[&x]), "f32[b,floordiv(n, 2) + 1,2]");
        assert_eq!(inferred(&op(true, true), &[&x]), "f32[b,2*n - 2,1]");
        let complex = fact(DType::F32, &["b", "n", "2"]);
        assert!(inferred(&op(false, true), &[&complex]).contains("complex"));
        let last = Fact::of_constant(Tensor::scalar(2i64));
        let length = fact(DType::I64, &[]);
        assert!(inferred(&op(false, false), &[&x, &length, &last]).contains("real and imaginary"));
        assert_eq!(inferred(&op(false, false), &[&x, &length]), "f32[b,node.0,2]");
        let huge = Tensor::scalar(i64::MAX);
        assert!(eval(&op(false, false), &[&Tensor::zeros(DType::F32, &[1, 2, 1]), &huge]).is_err());
    }
}
