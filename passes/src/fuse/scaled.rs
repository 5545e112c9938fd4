//! Weights times factors of their blocks: one pass over the bytes, on all cores where there is much to do.

use super::affine::is_finite;
use rabot_tensor::{DType, Tensor};
use std::thread;

/// Bytes of weights from which on threads are worth starting.
const LARGE: usize = 1 << 20;

/// The top bit of the sum is set exactly if all bits of the exponent are: for infinities and what is no number.
const EXPONENT_STEP: u32 = 1 << 23;

/// The weights with each of their consecutive blocks of `block` elements multiplied in f64 by its factor, and rounded
/// once to their dtype. Factors repeat. `None` if an element of the result is not finite.
pub(super) fn scaled(weights: &Tensor, block: usize, factors: &[f64]) -> Option<Tensor> {
    if weights.dtype() == DType::F32 {
        let bytes = scaled_f32s(weights.bytes(), block, factors)?;
        return Some(Tensor::from_raw(DType::F32, weights.shape(), bytes));
    }
    let values = weights.to_f64s().into_iter().enumerate();
    let values: Vec<f64> = values.map(|(at, v)| v * factors[at / block % factors.len()]).collect();
    let tensor = Tensor::from_f64s(weights.dtype(), weights.shape(), &values);
    is_finite(&tensor).then_some(tensor)
}

/// `scaled` of the bytes of f32 weights. They need not be aligned, as in the file of a model.
fn scaled_f32s(weights: &[u8], block: usize, factors: &[f64]) -> Option<Vec<u8>> {
    let mut target = vec![0; weights.len()];
    // Bytes that no thread divides: a block, or a row of blocks of one element.
    let unit = 4 * if block > 1 { block } else { factors.len().max(1) };
    let cores =
        if weights.len() < LARGE { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    let units = weights.len().div_ceil(unit).div_ceil(cores).max(1);
    let mut parts = weights.chunks(units * unit).zip(target.chunks_mut(units * unit)).enumerate();
    let work = |(at, (from, to)): (usize, (&[u8], &mut [u8]))| {
        scale_units(from, to, unit, block, factors, at * units)
    };
    let not_finite = thread::scope(|scope| {
        let first = parts.next();
        let others: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let here = first.is_some_and(work);
        let found = others.into_iter().map(|other| match other.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        found.fold(here, |any, one| any | one)
    });
    (!not_finite).then_some(target)
}

/// Scales consecutive units, of which the first is unit `first` of the weights; whether a result is not finite.
fn scale_units(from: &[u8], to: &mut [u8], unit: usize, block: usize, factors: &[f64], first: usize) -> bool {
    let mut flags = 0;
    for (at, (from, to)) in from.chunks(unit).zip(to.chunks_mut(unit)).enumerate() {
        flags |= match block {
            1 => scale_run(from, to, factors.iter().copied()),
            _ => scale_run(from, to, std::iter::repeat(factors[(first + at) % factors.len()])),
        };
    }
    flags >> 31 != 0
}

/// Scales the elements of `from`, each by its factor. The top bit of the result is set if one is not finite: bits that
/// are collected, not a test that ends the loop, so that it runs on vectors.
fn scale_run(from: &[u8], to: &mut [u8], factors: impl Iterator<Item = f64>) -> u32 {
    let mut flags = 0;
    let elements = from.as_chunks::<4>().0.iter().zip(to.as_chunks_mut::<4>().0);
    for ((from, to), factor) in elements.zip(factors) {
        let value = (f64::from(f32::from_ne_bytes(*from)) * factor) as f32;
        flags |= value.abs().to_bits() + EXPONENT_STEP;
        *to = value.to_ne_bytes();
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `scaled` says, element by element.
    fn expected(values: &[f32], block: usize, factors: &[f64]) -> Vec<f32> {
        let factor = |at: usize| factors[at / block % factors.len()];
        values.iter().enumerate().map(|(at, &v)| (f64::from(v) * factor(at)) as f32).collect()
    }

    #[test]
    fn threads_give_every_block_its_own_factor() {
        let values: Vec<f32> = (0..300 * 1013).map(|at| at as f32 * 0.37 - 5e4).collect();
        for (block, count) in [(1013, 300), (1, 1013), (1, 300), (300, 1013), (1013, 3), (1, 1)] {
            let factors: Vec<f64> = (0..count).map(|at| 1.0 / (at as f64 + 3.0)).collect();
            let result = scaled(&Tensor::from_vec(&[values.len()], values.clone()), block, &factors).unwrap();
            assert_eq!(&result.to_slice::<f32>().unwrap()[..], expected(&values, block, &factors), "{block}");
        }
    }

    #[test]
    fn any_element_that_is_not_finite_is_found() {
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e38] {
            for at in [0, 5, 299_999] {
                let mut values = vec![f32::MAX / 2.0; 300_000];
                assert!(scaled(&Tensor::from_vec(&[300_000], values.clone()), 1000, &[-2.0; 300]).is_some());
                values[at] = bad;
                assert_eq!(
                    scaled(&Tensor::from_vec(&[300_000], values), 1000, &[-2.0; 300]),
                    None,
                    "{bad} at {at}"
                );
            }
        }
    }

    #[test]
    fn no_weights_and_other_dtypes() {
        let none = Tensor::from_vec::<f32>(&[0, 4], vec![]);
        assert_eq!(scaled(&none, 4, &[]), Some(none));
        let halves = Tensor::from_f64s(DType::F16, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let doubled = Tensor::from_f64s(DType::F16, &[2, 2], &[2.0, 4.0, 9.0, 12.0]);
        assert_eq!(scaled(&halves, 2, &[2.0, 3.0]), Some(doubled));
    }
}
