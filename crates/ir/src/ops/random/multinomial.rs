//! `Multinomial`.

use super::{expect_index_dtype, seed_of};
use crate::ops::dense::{filled, is_real};
use crate::ops::util::{arity, dtype_attr, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::text::SplitMix64;
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `Multinomial`: operand unnormalized log-probabilities `[batch, classes]`; gives `[batch, sample_size]` classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Multinomial {
    /// Dtype of the result.
    pub dtype: DType,
    /// Draws from each row.
    pub sample_size: i64,
    /// What the numbers are made of.
    pub seed: u64,
}

impl OpDef for Multinomial {
    const NAMES: &'static [&'static str] = &["Multinomial"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["dtype", "sample_size", "seed"])?;
        let sample_size = attrs.int("sample_size", 1)?;
        if sample_size < 0 {
            return Err(OpError::Attribute {
                name: "sample_size".to_owned(),
                value: sample_size.to_string(),
                reason: "it is negative".to_owned(),
            });
        }
        let dtype = dtype_attr(attrs, "dtype")?.unwrap_or(DType::I32);
        expect_index_dtype(dtype)?;
        Ok(Multinomial { dtype, sample_size, seed: seed_of(attrs)? })
    }

    fn name(&self) -> &'static str {
        "Multinomial"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("dtype", Attr::Str(self.dtype.name().to_owned()))
            .with("sample_size", Attr::Int(self.sample_size))
            .with("seed", Attr::Int(self.seed as i64))
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let input = required(inputs, 0, "input")?;
        expect_dtype(0, input.dtype(), "f16, bf16, f32 or f64", is_real)?;
        let [batch, _] = input.shape() else {
            return Err(OpError::Shape(format!("input is {}, expected [batch, classes]", input.ty)));
        };
        Ok(vec![Fact::of_type(self.dtype, vec![batch.clone(), Dim::from(self.sample_size)])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let input = required_tensor(inputs, 0, "input")?;
        let &[batch, classes] = input.shape() else {
            return Err(OpError::Shape(format!("input has shape {:?}, expected two dims", input.shape())));
        };
        let count = usize::try_from(self.sample_size).unwrap_or(usize::MAX);
        if batch > 0 && classes == 0 && count > 0 {
            return Err(OpError::Value("there are no classes to draw from".to_owned()));
        }
        let mut drawn = filled(&[batch, count], 0i64)?;
        let mut random = SplitMix64::new(self.seed);
        let logs = input.to_f64s();
        for (row, drawn) in logs.chunks(classes.max(1)).zip(drawn.chunks_mut(count.max(1))) {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut sum = 0.0;
            let upto: Vec<f64> = row
                .iter()
                .map(|&log| {
                    sum += libm::exp(log - largest);
                    sum
                })
                .collect();
            if !sum.is_finite() {
                return Err(OpError::Value("log-probabilities of a row have no finite sum".to_owned()));
            }
            for place in drawn {
                let at = random.unit() * sum;
                *place = upto.partition_point(|&upto| upto <= at).min(classes - 1) as i64;
            }
        }
        Ok(vec![Tensor::from_i64s(self.dtype, &[batch, count], &drawn)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, with};

    fn op() -> crate::Op {
        with("Multinomial", Attrs::new().with("seed", Attr::Int(1)).with("sample_size", Attr::Int(1000)))
    }

    #[test]
    fn classes_come_as_often_as_they_are_probable() {
        let logs = Tensor::from_vec(&[1, 3], vec![3f32.ln(), f32::NEG_INFINITY, 0.0]);
        let drawn = eval(&op(), &[&logs]).unwrap().to_i64s();
        let count = |class| drawn.iter().filter(|&&d| d == class).count();
        assert!((700..800).contains(&count(0)));
        assert_eq!(count(1), 0);
        assert_eq!(count(0) + count(2), 1000);
    }

    #[test]
    fn types_and_refusals() {
        assert_eq!(inferred(&op(), &[&fact(DType::F32, &["n", "k"])]), "i32[n,1000]");
        assert!(eval(&op(), &[&Tensor::zeros(DType::F32, &[1, 0])]).is_err());
        assert!(eval(&op(), &[&Tensor::from_vec(&[1, 1], vec![f32::NAN])]).is_err());
        assert!(inferred(&op(), &[&fact(DType::F32, &["n"])]).contains("[batch, classes]"));
    }
}
