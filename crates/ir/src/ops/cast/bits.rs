//! `BitCast`: the same bits read as another dtype.
//!
//! **Shapes**: that of the operand. **Dtypes**: all but string, of the same number of bits. To `bool`, a byte that is
//! not 0 is true.
//!
//! **Opsets**: 26. **Source**: <https://onnx.ai/onnx/operators/onnx__BitCast.html>

use crate::ops::util::{arity, dtype_attr, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// `BitCast`.
#[derive(Clone, Debug, PartialEq)]
pub struct BitCast {
    /// Dtype of the result.
    pub to: DType,
}

impl BitCast {
    fn check(&self, from: DType) -> Result<(), OpError> {
        if from == DType::String || self.to == DType::String || from.bits() != self.to.bits() {
            let (bits, own) = (from.bits(), self.to.bits());
            let reason = format!("bits of {from} ({bits}) read as {} ({own}); they must be as many", self.to);
            return Err(OpError::Unsupported(reason));
        }
        Ok(())
    }
}

impl OpDef for BitCast {
    const NAMES: &'static [&'static str] = &["BitCast"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["to"])?;
        let to = dtype_attr(attrs, "to")?.ok_or_else(|| OpError::MissingAttribute("to".to_owned()))?;
        Ok(BitCast { to })
    }
    fn name(&self) -> &'static str {
        "BitCast"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("to", Attr::Str(self.to.name().to_owned()))
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "input")?;
        self.check(x.dtype())?;
        Ok(vec![Fact::of_type(self.to, x.shape().to_vec())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "input")?;
        self.check(x.dtype())?;
        let (from, to, shape) = (x.dtype(), self.to, x.shape());
        // Elements of less than 8 bits lie in a byte, signed ones extended.
        let result = match to {
            DType::Bool => Tensor::from_raw(to, shape, x.bytes().iter().map(|&b| u8::from(b != 0)).collect()),
            to if to.bits() < 8 && to.is_int() => Tensor::from_i64s(to, shape, &codes(x)),
            to if from.bits() < 8 => {
                let mask = (1i64 << from.bits()) - 1;
                Tensor::from_raw(to, shape, codes(x).into_iter().map(|code| (code & mask) as u8).collect())
            }
            to => x.with_dtype(to).map_err(|error| OpError::Value(error.to_string()))?,
        };
        Ok(vec![result])
    }
}

fn codes(x: &Tensor) -> Vec<i64> {
    x.bytes().iter().map(|&byte| i64::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, infer, with};

    #[test]
    fn bits_stay() {
        let to = |to| with("BitCast", BitCast { to }.attrs());
        let x = Tensor::from_vec(&[2], vec![1.0f32, -0.0]);
        let bits = eval(&to(DType::I32), &[&x]).unwrap();
        assert_eq!(bits, Tensor::from_vec(&[2], vec![0x3f80_0000i32, i32::MIN]));
        assert_eq!(eval(&to(DType::F32), &[&bits]).unwrap(), x);
        let x = Tensor::from_i64s(DType::I4, &[2], &[-1, 7]);
        let unsigned = eval(&to(DType::U4), &[&x]).unwrap();
        assert_eq!(unsigned.to_i64s(), [15, 7]);
        assert_eq!(eval(&to(DType::I4), &[&unsigned]).unwrap(), x);
        assert!(infer(&to(DType::F64), &[&Fact::of_type(DType::F32, [])]).is_err());
        assert!(infer(&to(DType::I8), &[&Fact::of_type(DType::I4, [])]).is_err());
    }
}
