//! Signals: transforms of known length are matrix products, so that they run compiled.
//!
//! The matrix is what the transform makes of the unit vectors, in f64, rounded once. `STFT` with a constant window is a
//! convolution with one filter for each real and imaginary part, whose stride is the step between frames.

use super::Row;
use super::chain::Made;
use super::emit::{Size, working, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::ops::{Dft, Stft};
use rabot_ir::{Attr, Attrs, Op, Value};
use rabot_tensor::{DType, Tensor};

pub(super) const TABLE: &[Row] = &[
    ("", "DFT", dft),
    ("", "STFT", stft),
    ("", "HannWindow", constant),
    ("", "HammingWindow", constant),
    ("", "BlackmanWindow", constant),
    ("", "MelWeightMatrix", constant),
];

/// Most elements of a matrix that stands for a transform, and of a window that is made when importing.
const MOST_ELEMENTS: i64 = 1 << 20;

/// Windows and filters of constant sizes become constants, which `STFT` can then be made of.
fn constant(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let operands: Option<Vec<Tensor>> =
        (0..draft.inputs.len()).map(|slot| draft.fact(slot)?.constant.clone()).collect();
    let op = match Op::from_attrs(&draft.op, &draft.attrs) {
        Some(op) => op.map_err(wrong)?,
        None => return draft.finish(),
    };
    let Some(operands) = operands else { return draft.finish() };
    // The first two operands are the sizes.
    let sizes = operands.iter().take(2).flat_map(Tensor::to_i64s);
    let product = sizes.fold(1i64, |product, size| product.saturating_mul(size.max(1)));
    if product > MOST_ELEMENTS {
        return draft.finish();
    }
    let refs: Vec<Option<&Tensor>> = operands.iter().map(Some).collect();
    let made = op.eval(&refs).map_err(wrong)?.into_iter().next();
    let made = made.ok_or_else(|| Failure::unsupported("no result"))?;
    let value = draft.constant("window", made);
    draft.finish_with(vec![Some(value)])
}

/// The only integer of an operand; `Some(None)` if there is no such operand, `None` if it is not known.
fn known(draft: &Draft<'_>, slot: usize) -> Option<Option<i64>> {
    match draft.fact(slot) {
        None => Some(None),
        Some(fact) => match fact.ints()?.as_slice() {
            [value] => Some(Some(*value)),
            _ => None,
        },
    }
}

/// The unit vectors of signals `[length, parts]`.
fn units(length: i64, parts: i64) -> Tensor {
    let count = (length * parts).max(0) as usize;
    let mut values = vec![0f64; count * count];
    values.iter_mut().step_by(count + 1).for_each(|value| *value = 1.0);
    Tensor::from_vec(&[count, length as usize, parts as usize], values)
}

/// True if a matrix of so many elements may stand for a transform.
fn fits(factors: &[i64]) -> bool {
    let product = factors.iter().try_fold(1i64, |product, &factor| product.checked_mul(factor));
    factors.iter().all(|&factor| factor > 0) && product.is_some_and(|product| product <= MOST_ELEMENTS)
}

/// Before version 20 the axis was an attribute, 1 by default.
fn dft(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    if draft.opset < 20 {
        let axis = draft.int_attr("axis", 1)?;
        draft.attrs.remove("axis");
        draft.inputs.truncate(2);
        let axis = draft.integer(DType::I64, axis);
        draft.set_input(2, Some(axis));
    }
    draft.check_inputs(3)?;
    draft.check_attrs(&["inverse", "onesided"])?;
    let op = Dft { inverse: draft.flag("inverse", false)?, onesided: draft.flag("onesided", false)? };
    match dft_product(&mut draft, &op)? {
        Some(value) => draft.finish_with(vec![Some(value)]),
        None => draft.finish(),
    }
}

/// The transform as a matrix product, if its lengths are known and small.
fn dft_product(draft: &mut Draft<'_>, op: &Dft) -> Result<Option<Value>, Failure> {
    let input = draft.operand(0, "input")?;
    let rank = draft.rank_of(input)?;
    let (Some(stated), Some(axis)) = (known(draft, 1), known(draft, 2)) else { return Ok(None) };
    let axis = axis.unwrap_or(-2);
    let axis = usize::try_from(if axis < 0 { axis.saturating_add(rank as i64) } else { axis });
    let Ok(axis) = axis else { return Ok(None) };
    // What is out of range, the op itself refuses.
    if rank < 2 || axis + 1 >= rank {
        return Ok(None);
    }
    let lengths = (draft.known_length(input, axis), draft.known_length(input, rank - 1));
    let (Some(length), Some(parts @ 1..=2)) = lengths else { return Ok(None) };
    let most = stated.unwrap_or(2 * length).max(length);
    if (op.onesided && !op.inverse && parts == 2) || !fits(&[length, parts, most, 2]) {
        return Ok(None);
    }
    let units = units(length, parts);
    let stated = stated.map(Tensor::scalar);
    let node = Op::Dft(op.clone());
    let matrix = node.eval(&[Some(&units), stated.as_ref(), Some(&Tensor::scalar(1i64))]).map_err(wrong)?;
    let Some(matrix) = matrix.into_iter().next() else { return Ok(None) };
    let &[rows, to, to_parts] = matrix.shape() else { return Ok(None) };
    let last: Vec<i64> = (0..rank as i64).filter(|&a| a != axis as i64 && a + 1 != rank as i64).collect();
    let perm: Vec<i64> = last.iter().copied().chain([axis as i64, rank as i64 - 1]).collect();
    let (dtype, work) = (draft.dtype_of(input), working(draft.dtype_of(input)));
    let wide = draft.cast(input, work)?;
    let moved = in_order(draft, wide, &perm)?;
    let mut sizes: Vec<Size> = (0..rank - 2).map(|at| Size::Of(moved, at)).collect();
    sizes.push(Size::Is(rows as i64));
    let flat = draft.reshape(moved, &sizes)?;
    let weights = Tensor::from_f64s(work, &[rows, to * to_parts], &matrix.to_f64s());
    let weights = draft.constant("transform", weights);
    let product = draft.matmul(flat, weights)?;
    sizes.pop();
    sizes.extend([Size::Is(to as i64), Size::Is(to_parts as i64)]);
    let split = draft.reshape(product, &sizes)?;
    let mut back = vec![0; rank];
    for (at, &from) in perm.iter().enumerate() {
        back[from as usize] = at as i64;
    }
    let result = in_order(draft, split, &back)?;
    draft.cast(result, dtype).map(Some)
}

fn in_order(draft: &mut Draft<'_>, value: Value, perm: &[i64]) -> Made {
    match perm.iter().enumerate().all(|(at, &axis)| at as i64 == axis) {
        true => Ok(value),
        false => draft.transpose(value, perm),
    }
}

fn stft(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_inputs(4)?;
    draft.check_attrs(&["onesided"])?;
    let op = Stft { onesided: draft.flag("onesided", true)? };
    match stft_filters(&mut draft, &op)? {
        Some(value) => draft.finish_with(vec![Some(value)]),
        None => draft.finish(),
    }
}

/// The transform as a convolution, if window, step and lengths are known.
fn stft_filters(draft: &mut Draft<'_>, op: &Stft) -> Result<Option<Value>, Failure> {
    let signal = draft.operand(0, "signal")?;
    let (Some(Some(step)), Some(stated)) = (known(draft, 1), known(draft, 3)) else { return Ok(None) };
    let window = match draft.fact(2) {
        None => None,
        Some(fact) => match &fact.constant {
            Some(window) if window.rank() == 1 => Some(window.clone()),
            _ => return Ok(None),
        },
    };
    let lengths = (draft.rank_of(signal)?, draft.known_length(signal, 2));
    let (3, Some(parts @ 1..=2)) = lengths else { return Ok(None) };
    let of_window = window.as_ref().map(|window| window.len() as i64);
    let Some(frame) = stated.or(of_window).or(draft.known_length(signal, 1)) else { return Ok(None) };
    let differs = of_window.is_some_and(|length| length != frame);
    let too_long = draft.known_length(signal, 1).is_some_and(|length| length < frame);
    let complex = op.onesided && parts == 2;
    // What cannot be, the op itself refuses.
    if differs || too_long || complex || step < 1 || !fits(&[frame, parts, frame, 2]) {
        return Ok(None);
    }
    let units = units(frame, parts);
    let window = window.map(|window| Tensor::from_vec(&[window.len()], window.to_f64s()));
    let node = Op::Stft(op.clone());
    let filters = node.eval(&[Some(&units), Some(&Tensor::scalar(1i64)), window.as_ref()]).map_err(wrong)?;
    let Some(filters) = filters.into_iter().next() else { return Ok(None) };
    let &[rows, 1, bins, 2] = filters.shape() else { return Ok(None) };
    let (dtype, work) = (draft.dtype_of(signal), working(draft.dtype_of(signal)));
    let (values, parts) = (filters.to_f64s(), parts as usize);
    // From [sample, part] by [bin, part] to [bin and part] by [part, sample].
    let mut weights = vec![0f64; values.len()];
    for (row, made) in values.chunks(bins * 2).enumerate() {
        for (filter, &value) in made.iter().enumerate() {
            weights[(filter * parts + row % parts) * (rows / parts) + row / parts] = value;
        }
    }
    let weights = Tensor::from_f64s(work, &[bins * 2, parts, rows / parts], &weights);
    let weights = draft.constant("filters", weights);
    let wide = draft.cast(signal, work)?;
    let channels = draft.transpose(wide, &[0, 2, 1])?;
    let attrs = Attrs::new().with("strides", Attr::Ints(vec![step]));
    let frames = draft.node_with("Conv", &attrs, &[channels, weights])?;
    let frames = draft.transpose(frames, &[0, 2, 1])?;
    let sizes = [Size::Of(signal, 0), Size::Of(frames, 1), Size::Is(bins as i64), Size::Is(2)];
    let result = draft.reshape(frames, &sizes)?;
    draft.cast(result, dtype).map(Some)
}
