//! Dropout: nothing but a copy when a model is run, and random zeros where it is to be trained.

use super::Row;
use super::emit::wrong;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::Attrs;
use rabot_tensor::{DType, Tensor};

pub(super) const TABLE: &[Row] = &[("", "Dropout", dropout)];

fn dropout(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    if draft.opset < 12 {
        return before_training(draft);
    }
    draft.check_attrs(&["seed"])?;
    draft.check_inputs(3)?;
    let data = draft.operand(0, "data")?;
    let is_zero = |slot: usize| {
        let zeros = |t: &Tensor| t.to_f64s().iter().all(|&v| v == 0.0);
        draft.fact(slot).map(|fact| fact.constant.as_ref().is_some_and(zeros))
    };
    // No training is the default; a ratio of 0 drops nothing.
    if is_zero(2).unwrap_or(true) || is_zero(1).unwrap_or(false) {
        draft.inputs.truncate(1);
        let mask = match draft.outputs > 1 {
            true => Some(draft.filled_like(data, Tensor::from_bools(&[1], &[true]))?),
            false => None,
        };
        return draft.finish_with(vec![Some(data), mask]);
    }
    draft.finish()
}

/// Before opset 12 only the attribute `is_test`, which is gone since 7, spoke of training; before 10 the mask had the
/// dtype of the data.
fn before_training(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(if draft.opset < 7 { &["is_test", "ratio"] } else { &["ratio"] })?;
    draft.check_inputs(1)?;
    let data = draft.operand(0, "data")?;
    let ratio = draft.attrs.float("ratio", 0.5).map_err(wrong)?;
    let dtype = draft.dtype_of(data);
    let trains = draft.opset < 7
        && draft.attrs.get("is_test").is_some()
        && draft.attrs.int("is_test", 0).map_err(wrong)? == 0;
    if trains && ratio != 0.0 {
        let ratio = draft.number(DType::F32, f64::from(ratio));
        let training = draft.constant("training_mode", Tensor::from_bools(&[], &[true]));
        let node =
            draft.before_all("Dropout", &Attrs::new(), vec![Some(data), Some(ratio), Some(training)])?;
        let value = |slot| rabot_ir::Value { node, slot };
        let mask = draft.cast(value(1), dtype)?;
        return draft.finish_with(vec![Some(value(0)), Some(mask)]);
    }
    let one = match draft.opset < 10 {
        true => Tensor::from_f64s(dtype, &[1], &[1.0]),
        false => Tensor::from_bools(&[1], &[true]),
    };
    let mask = match draft.outputs > 1 {
        true => Some(draft.filled_like(data, one)?),
        false => None,
    };
    draft.finish_with(vec![Some(data), mask])
}
