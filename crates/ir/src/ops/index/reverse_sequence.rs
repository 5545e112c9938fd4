//! `ReverseSequence`: for each sample of a batch, its first `lengths[b]` steps in reverse order; the others stay.
//!
//! **Shapes**: `x` of rank 2 or more, `lengths: [b]` → that of `x`. One of `batch_axis` and `time_axis` is 0, the other 1.
//!
//! **Dtypes**: `x` all, strings too; `lengths` i64.
//!
//! **Opsets**: 10; later ones add dtypes.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__ReverseSequence.html>

use super::take;
use crate::ops::movement::element_count;
use crate::ops::util::{arity, expect_index_list, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::Tensor;

/// `ReverseSequence`: operands input, lengths.
#[derive(Clone, Debug, PartialEq)]
pub struct ReverseSequence {
    /// Samples are along axis 0 and steps along axis 1; else the other way round.
    pub batch_first: bool,
}

fn refused_rank(rank: usize) -> OpError {
    OpError::Shape(format!("an input of rank {rank}, expected at least 2"))
}

impl OpDef for ReverseSequence {
    const NAMES: &'static [&'static str] = &["ReverseSequence"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["batch_axis", "time_axis"])?;
        match (attrs.int("batch_axis", 1)?, attrs.int("time_axis", 0)?) {
            (0, 1) => Ok(ReverseSequence { batch_first: true }),
            (1, 0) => Ok(ReverseSequence { batch_first: false }),
            (batch, time) => Err(OpError::Attribute {
                name: "batch_axis".to_owned(),
                value: batch.to_string(),
                reason: format!("with time_axis = {time}; one must be 0 and the other 1"),
            }),
        }
    }
    fn name(&self) -> &'static str {
        "ReverseSequence"
    }
    fn attrs(&self) -> Attrs {
        let batch = i64::from(!self.batch_first);
        Attrs::new().with("batch_axis", Attr::Int(batch)).with("time_axis", Attr::Int(1 - batch))
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (data, lengths) = (required(inputs, 0, "input")?, required(inputs, 1, "sequence_lens")?);
        expect_index_list(1, lengths)?;
        if data.rank() < 2 {
            return Err(refused_rank(data.rank()));
        }
        cx.require_equal(&lengths.shape()[0], &data.shape()[usize::from(!self.batch_first)])?;
        Ok(vec![Fact::of_type(data.dtype(), data.shape())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, lengths) =
            (required_tensor(inputs, 0, "input")?, required_tensor(inputs, 1, "sequence_lens")?);
        let [rows, columns, rest @ ..] = data.shape() else { return Err(refused_rank(data.rank())) };
        let (batch, steps) = if self.batch_first { (*rows, *columns) } else { (*columns, *rows) };
        let lengths: Option<Vec<usize>> =
            lengths.to_i64s().iter().map(|&n| usize::try_from(n).ok().filter(|&n| n <= steps)).collect();
        let lengths = lengths.filter(|lengths| lengths.len() == batch).ok_or_else(|| {
            OpError::Value(format!("expected {batch} lengths of sequences, each 0 to {steps}"))
        })?;
        let block = element_count(rest)?;
        let mut places = Vec::new();
        if !data.is_empty() {
            for row in 0..*rows {
                for column in 0..*columns {
                    let (sample, step) = if self.batch_first { (row, column) } else { (column, row) };
                    let length = lengths[sample];
                    let from = if step < length { length - 1 - step } else { step };
                    let at = if self.batch_first { row * columns + from } else { from * columns + column };
                    places.push(at * block);
                }
            }
        }
        Ok(vec![take(data, data.shape(), places, block)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, list, plain, with};

    #[test]
    fn reverses_the_start_of_each_sample() {
        let x = Tensor::from_vec(&[3, 2], (0..6).collect::<Vec<i8>>());
        let y = eval(&plain("ReverseSequence"), &[&x, &list(&[3, 2])]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[3, 2], vec![4i8, 3, 2, 1, 0, 5]));
        let attrs = Attrs::new().with("batch_axis", Attr::Int(0)).with("time_axis", Attr::Int(1));
        let rows = with("ReverseSequence", attrs);
        let y = eval(&rows, &[&x, &list(&[2, 0, 1])]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[3, 2], vec![1i8, 0, 2, 3, 4, 5]));
        assert!(eval(&rows, &[&x, &list(&[3, 0, 1])]).is_err());
        assert!(eval(&rows, &[&x, &list(&[1, -1, 1])]).is_err());
    }
}
