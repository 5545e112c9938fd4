//! Elementwise functions of any number of operands: `Max`, `Min`, `Sum`, `Mean`.
//!
//! `Max` and `Min` are NaN where an operand is, and order -0 below 0; `Sum` and `Mean` add in f64, first operand
//! first, and round once.
//!
//! **Shapes**: broadcast by numpy's rule. **Dtypes**: all operands the same; `Max`, `Min` any number, `Sum`, `Mean`
//! f16, bf16, f32, f64.
//!
//! **Opsets**: 1, 6, 8 (broadcasting), 12 (integers for `Max`, `Min`), 13 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Max.html> and the pages of the other ops.

use super::elementwise::{
    float_max, float_min, is_arithmetic_float, is_numeric, same_dtype, zip_floats, zip_ints,
};
use super::tracked::{broadcast_contents, maximum, minimum, with_elements};
use super::util::{expect_dtype, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Dim, Fact};
use rabot_tensor::Tensor;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariadicOp {
    /// `Max`.
    Max,
    /// `Min`.
    Min,
    /// `Sum`.
    Sum,
    /// `Mean`.
    Mean,
}

/// Elementwise over any number of operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Variadic {
    /// The function.
    pub op: VariadicOp,
}

impl Variadic {
    fn check_first(&self, first: rabot_tensor::DType) -> Result<(), OpError> {
        match self.op {
            VariadicOp::Max | VariadicOp::Min => expect_dtype(0, first, "a number", is_numeric),
            VariadicOp::Sum | VariadicOp::Mean => {
                expect_dtype(0, first, "f16, bf16, f32 or f64", is_arithmetic_float)
            }
        }
    }

    /// The function on dims, for `Max` and `Min`.
    fn on_dims(&self, contents: &[Vec<Dim>]) -> Option<Vec<Dim>> {
        let pick: fn(&Dim, &Dim) -> Dim = match self.op {
            VariadicOp::Max => maximum,
            VariadicOp::Min => minimum,
            VariadicOp::Sum | VariadicOp::Mean => return None,
        };
        let (first, rest) = contents.split_first()?;
        let mut result = first.clone();
        for operand in rest {
            result = result.iter().zip(operand).map(|(a, b)| pick(a, b)).collect();
        }
        Some(result)
    }

    fn pairwise(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        match (self.op, a.dtype().is_int()) {
            (VariadicOp::Max, true) => zip_ints(a, b, i128::max),
            (VariadicOp::Max, false) => zip_floats(a, b, float_max),
            (VariadicOp::Min, true) => zip_ints(a, b, i128::min),
            (VariadicOp::Min, false) => zip_floats(a, b, float_min),
            (VariadicOp::Sum | VariadicOp::Mean, _) => zip_floats(a, b, |x, y| x + y),
        }
    }
}

impl OpDef for Variadic {
    const NAMES: &'static [&'static str] = &["Max", "Min", "Sum", "Mean"];
    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        let op = match name {
            "Max" => VariadicOp::Max,
            "Min" => VariadicOp::Min,
            "Sum" => VariadicOp::Sum,
            "Mean" => VariadicOp::Mean,
            other => return Err(OpError::Unsupported(format!("the function `{other}`"))),
        };
        Ok(Variadic { op })
    }
    fn name(&self) -> &'static str {
        match self.op {
            VariadicOp::Max => "Max",
            VariadicOp::Min => "Min",
            VariadicOp::Sum => "Sum",
            VariadicOp::Mean => "Mean",
        }
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let first = required(inputs, 0, "data_0")?;
        self.check_first(first.dtype())?;
        let facts: Vec<&Fact> =
            (0..inputs.len()).map(|slot| required(inputs, slot, "data")).collect::<Result<_, _>>()?;
        for (slot, fact) in facts.iter().enumerate() {
            same_dtype(slot, fact, first)?;
        }
        let shape = cx.broadcast(&facts.iter().map(|f| f.shape()).collect::<Vec<_>>())?;
        let elements = broadcast_contents(&facts, &shape).and_then(|contents| self.on_dims(&contents));
        Ok(vec![with_elements(first.dtype(), shape, elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let first = required_tensor(inputs, 0, "data_0")?;
        self.check_first(first.dtype())?;
        let adds = matches!(self.op, VariadicOp::Sum | VariadicOp::Mean);
        // Sums are kept in f64 so that they are rounded once.
        let operand = |tensor: &Tensor| match adds {
            true => Tensor::from_vec(tensor.shape(), tensor.to_f64s()),
            false => tensor.clone(),
        };
        let mut result = operand(first);
        for slot in 1..inputs.len() {
            let tensor = required_tensor(inputs, slot, "data")?;
            let (actual, expected) = (tensor.dtype(), first.dtype());
            expect_dtype(slot, actual, &format!("{expected}, as input 0"), |d| d == expected)?;
            result = self.pairwise(&result, &operand(tensor))?;
        }
        if !adds {
            return Ok(vec![result]);
        }
        let count = if self.op == VariadicOp::Mean { inputs.len() as f64 } else { 1.0 };
        let values: Vec<f64> = result.to_f64s().into_iter().map(|v| v / count).collect();
        Ok(vec![Tensor::from_f64s(first.dtype(), result.shape(), &values)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, infer, plain};
    use super::*;
    use rabot_tensor::DType;

    #[test]
    fn extremes_keep_nan_and_broadcast() {
        let a = Tensor::from_vec(&[2, 1], vec![f32::NAN, 1.0]);
        let b = Tensor::from_vec(&[2], vec![0f32, 2.0]);
        let max = eval(&plain("Max"), &[&a, &b]).unwrap().to_f64s();
        assert!(max[0].is_nan() && max[1].is_nan());
        assert_eq!(max[2..], [1.0, 2.0]);
        let big = Tensor::from_vec(&[2], vec![u64::MAX, 1]);
        assert_eq!(
            eval(&plain("Min"), &[&big, &Tensor::scalar(2u64)]).unwrap(),
            Tensor::from_vec(&[2], vec![2u64, 1])
        );
    }

    #[test]
    fn sums_round_once() {
        let [one, small] = [1f32, 2f32.powi(-24)].map(Tensor::scalar);
        // Rounded after each addition, both halves of an ulp would be lost.
        let sum = eval(&plain("Sum"), &[&one, &small, &small]).unwrap();
        assert_eq!(sum, Tensor::scalar(1f32 + f32::EPSILON));
        let mean = eval(&plain("Mean"), &[&Tensor::scalar(1f32), &Tensor::scalar(2f32)]).unwrap();
        assert_eq!(mean, Tensor::scalar(1.5f32));
        assert!(infer(&plain("Sum"), &[&Fact::of_type(DType::I32, [])]).is_err());
    }

    #[test]
    fn contents_are_clamped() {
        let dims = Fact::of_elements(DType::I64, [], vec![Dim::symbol("n")]);
        let max = infer(&plain("Max"), &[&dims, &Fact::of_constant(Tensor::scalar(0i64))]).unwrap();
        assert_eq!(max[0].elements, Some(vec![Dim::symbol("n")]));
    }
}
