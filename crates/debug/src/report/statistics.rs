//! The distribution of a tensor's elements.

use super::data::{Number, Statistics};
use rabot_tensor::{DType, Tensor};

const BINS: usize = 32;

/// Counts a tensor; `None` for text and complex numbers.
pub(super) fn statistics(tensor: &Tensor) -> Option<Statistics> {
    if tensor.dtype() == DType::String || tensor.dtype().is_complex() {
        return None;
    }
    if tensor.dtype() == DType::F32
        && let Ok(values) = tensor.to_slice::<f32>()
    {
        return Some(count(&|| values.iter().map(|&value| f64::from(value))));
    }
    let values = tensor.to_f64s();
    Some(count(&|| values.iter().copied()))
}

fn count<I: Iterator<Item = f64>>(values: &dyn Fn() -> I) -> Statistics {
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    let (mut zeros, mut nan, mut inf, mut finite) = (0u64, 0u64, 0u64, 0u64);
    let mut sum = 0.0;
    for value in values() {
        if value.is_nan() {
            nan += 1;
        } else if value.is_infinite() {
            inf += 1;
        } else {
            finite += 1;
            zeros += u64::from(value == 0.0);
            (min, max) = (min.min(value), max.max(value));
            sum += value;
        }
    }
    if finite == 0 {
        let none = Number(f64::NAN);
        return Statistics {
            min: none,
            max: none,
            mean: none,
            std: none,
            zeros,
            nan,
            inf,
            histogram: vec![],
        };
    }
    let mean = sum / finite as f64;
    let mut squares = 0.0;
    let mut histogram = vec![0u64; if max > min { BINS } else { 0 }];
    // Both ends are halved, so that their distance is finite.
    let scale = BINS as f64 / (max / 2.0 - min / 2.0) / 2.0;
    for value in values().filter(|value| value.is_finite()) {
        squares += (value - mean) * (value - mean);
        let bin = ((value - min) * scale) as usize;
        let last = histogram.len().saturating_sub(1);
        if let Some(count) = histogram.get_mut(bin.min(last)) {
            *count += 1;
        }
    }
    let std = (squares / finite as f64).sqrt();
    let [min, max, mean, std] = [min, max, mean, std].map(Number);
    Statistics { min, max, mean, std, zeros, nan, inf, histogram }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_values_are_counted_apart() {
        let values = vec![0.0f32, 1.0, 2.0, 3.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
        let found = statistics(&Tensor::from_vec(&[8], values)).unwrap();
        assert_eq!((found.zeros, found.nan, found.inf), (2, 1, 2));
        assert_eq!((found.min, found.max, found.mean), (Number(0.0), Number(3.0), Number(1.2)));
        assert_eq!(found.histogram.iter().sum::<u64>(), 5);
        assert_eq!((found.histogram[0], found.histogram[31]), (2, 1));
    }

    #[test]
    fn extremes_of_the_dtype_do_not_overflow() {
        let found = statistics(&Tensor::from_vec(&[2], vec![f64::MAX, -f64::MAX])).unwrap();
        assert_eq!((found.histogram[0], found.histogram[31]), (1, 1));
        let found = statistics(&Tensor::from_vec(&[2], vec![i64::MAX, i64::MIN])).unwrap();
        assert_eq!(found.histogram.iter().sum::<u64>(), 2);
        let empty = statistics(&Tensor::from_vec(&[0], Vec::<f32>::new())).unwrap();
        assert!(empty.min.0.is_nan() && empty.histogram.is_empty());
        assert!(statistics(&Tensor::from_strings(&[1], vec!["a".into()])).is_none());
    }
}
