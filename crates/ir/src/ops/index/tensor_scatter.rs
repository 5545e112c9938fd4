//! `TensorScatter`: a cache with new entries written along its sequence axis.
//!
//! `y = past` and `y[b, i…, (write[b] + s), k…] = update[b, i…, s, k…]`, with `s` along `axis`. Without `write_indices`
//! all writes begin at 0. In the mode `circular` they wrap around at the end; in `linear` they must fit.
//!
//! **Shapes**: `past: [b, i…, n, k…]`, `update: [b, i…, s, k…]`, `write: [b]` → that of `past`.
//!
//! **Dtypes**: `past` all, strings too; `write_indices` i64.
//!
//! **Opsets**: 24.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__TensorScatter.html>

use super::check_ranks;
use super::update::{Reduction, write};
use crate::ops::elementwise::same_dtype;
use crate::ops::movement::element_count;
use crate::ops::util::{
    arity, expect_index_list, known_attrs, normalize_axis, optional, required, required_tensor,
};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::Tensor;

/// `TensorScatter`: operands past cache, update, optional write indices.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorScatter {
    /// The sequence axis; not the first.
    pub axis: i64,
    /// Writes wrap around at the end of the axis.
    pub circular: bool,
}

impl TensorScatter {
    fn sequence_axis(&self, rank: usize) -> Result<usize, OpError> {
        match normalize_axis(self.axis, rank)? {
            0 => Err(OpError::Attribute {
                name: "axis".to_owned(),
                value: self.axis.to_string(),
                reason: format!("it is the batch axis of an input of rank {rank}"),
            }),
            axis => Ok(axis),
        }
    }

    /// Where entry `step` of an update is written along the axis.
    fn along(&self, first: i64, step: usize, size: usize) -> Result<usize, OpError> {
        let wanted = first.checked_add(step as i64);
        let at = wanted.map(|at| if self.circular && size > 0 { at.rem_euclid(size as i64) } else { at });
        at.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < size).ok_or_else(|| {
            OpError::Value(format!(
                "entry {step} written from index {first} on does not fit an axis of {size}"
            ))
        })
    }
}

impl OpDef for TensorScatter {
    const NAMES: &'static [&'static str] = &["TensorScatter"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "mode"])?;
        let circular = match attrs.str("mode", "linear")?.as_str() {
            "linear" => false,
            "circular" => true,
            other => {
                return Err(OpError::Attribute {
                    name: "mode".to_owned(),
                    value: other.to_owned(),
                    reason: "expected linear or circular".to_owned(),
                });
            }
        };
        Ok(TensorScatter { axis: attrs.int("axis", -2)?, circular })
    }
    fn name(&self) -> &'static str {
        "TensorScatter"
    }
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("axis", Attr::Int(self.axis));
        if self.circular { attrs.with("mode", Attr::Str("circular".to_owned())) } else { attrs }
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 3)?;
        let (past, update) = (required(inputs, 0, "past_cache")?, required(inputs, 1, "update")?);
        same_dtype(1, update, past)?;
        check_ranks(past.rank(), update.rank())?;
        let axis = self.sequence_axis(past.rank())?;
        for (at, (a, b)) in past.shape().iter().zip(update.shape()).enumerate() {
            if at != axis {
                cx.require_equal(a, b)?;
            }
        }
        if let Some(first) = optional(inputs, 2) {
            expect_index_list(2, first)?;
            cx.require_equal(&first.shape()[0], &past.shape()[0])?;
        }
        Ok(vec![Fact::of_type(past.dtype(), past.shape())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (past, update) =
            (required_tensor(inputs, 0, "past_cache")?, required_tensor(inputs, 1, "update")?);
        let axis = self.sequence_axis(past.rank())?;
        let same = |shape: &[usize]| [&shape[..axis], &shape[axis + 1..]].concat();
        let batch = past.shape()[0];
        let first = optional(inputs, 2).map_or_else(|| vec![0; batch], Tensor::to_i64s);
        if past.rank() != update.rank() || same(past.shape()) != same(update.shape()) || first.len() != batch
        {
            return Err(OpError::Shape(format!(
                "update {:?} with {} write indices into a cache of shape {:?}",
                update.shape(),
                first.len(),
                past.shape()
            )));
        }
        if update.is_empty() {
            return Ok(vec![past.clone()]);
        }
        let (size, steps) = (past.shape()[axis], update.shape()[axis]);
        let (rows, block) =
            (element_count(&past.shape()[1..axis])?, element_count(&past.shape()[axis + 1..])?);
        let mut places = Vec::new();
        for (sample, &first) in first.iter().enumerate() {
            for row in 0..rows {
                for step in 0..steps {
                    places.push(((sample * rows + row) * size + self.along(first, step, size)?) * block);
                }
            }
        }
        Ok(vec![write(past, update, (&places, block), Reduction::None)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, list, plain, with};

    #[test]
    fn writes_from_an_index_on() {
        let past = Tensor::from_vec(&[2, 3, 1], vec![0u8; 6]);
        let update = Tensor::from_vec(&[2, 2, 1], vec![1u8, 2, 3, 4]);
        let check = |op: &crate::Op, first: &[i64], expected: [u8; 6]| {
            let y = eval(op, &[&past, &update, &list(first)]).unwrap();
            assert_eq!(y, Tensor::from_vec(&[2, 3, 1], expected.to_vec()));
        };
        check(&plain("TensorScatter"), &[0, 1], [1, 2, 0, 0, 3, 4]);
        let circular = with("TensorScatter", Attrs::new().with("mode", Attr::Str("circular".to_owned())));
        check(&circular, &[2, 1], [2, 0, 1, 0, 3, 4]);
        assert!(eval(&plain("TensorScatter"), &[&past, &update, &list(&[2, 0])]).is_err());
        assert!(eval(&plain("TensorScatter"), &[&past, &update, &list(&[i64::MAX, 0])]).is_err());
        let batch = with("TensorScatter", Attrs::new().with("axis", Attr::Int(0)));
        assert!(eval(&batch, &[&past, &update]).is_err());
    }
}
