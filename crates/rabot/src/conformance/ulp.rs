//! Distances in units in the last place.

use rabot_tensor::{DType, Tensor};

/// The largest distance of two elements at the same place, in steps from one number of the dtype to the next; `None`
/// unless both tensors are of one floating-point dtype (or complex, by parts), of one shape, and not empty.
///
/// Two NaN are at distance 0, a NaN and a number at the largest distance.
pub(super) fn max_ulp(a: &Tensor, b: &Tensor) -> Option<u64> {
    if let (Some(a), Some(b)) = (a.parts(), b.parts()) {
        return max_ulp(&a, &b);
    }
    if a.dtype() != b.dtype() || a.shape() != b.shape() || !a.dtype().is_float() {
        return None;
    }
    let (places_a, places_b) = (places(a), places(b));
    let values = a.to_f64s().into_iter().zip(b.to_f64s());
    let distances = values.zip(places_a.into_iter().zip(places_b));
    distances
        .map(|((x, y), (p, q))| match (x.is_nan(), y.is_nan()) {
            (true, true) => 0,
            (false, false) => p.abs_diff(q),
            _ => u64::MAX,
        })
        .max()
}

/// The place of each element among all numbers of its dtype; both zeros are at 0.
fn places(tensor: &Tensor) -> Vec<i64> {
    let dtype = tensor.dtype();
    let width = dtype.size_bytes().max(1);
    // Scales have no sign.
    let sign = if dtype == DType::F8E8M0 { 0 } else { 1u64 << (dtype.bits().max(1) - 1) };
    let place = |element: &[u8]| {
        let code = element.iter().rev().fold(0u64, |code, &byte| code << 8 | u64::from(byte));
        let size = (code & !sign) as i64;
        if code & sign == 0 { size } else { -size }
    };
    tensor.bytes().chunks_exact(width).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(dtype: DType, a: f64, b: f64) -> Option<u64> {
        max_ulp(&Tensor::from_f64s(dtype, &[1], &[a]), &Tensor::from_f64s(dtype, &[1], &[b]))
    }

    #[test]
    fn steps_between_numbers() {
        let next = f64::from(f32::from_bits(1.0f32.to_bits() + 1));
        assert_eq!(distance(DType::F32, 1.0, next), Some(1));
        assert_eq!(distance(DType::F32, 0.0, -0.0), Some(0));
        assert_eq!(
            distance(DType::F32, f64::from(f32::from_bits(1)), -f64::from(f32::from_bits(1))),
            Some(2)
        );
        assert_eq!(distance(DType::F32, f64::NAN, f64::NAN), Some(0));
        assert_eq!(distance(DType::F32, f64::NAN, 1.0), Some(u64::MAX));
        assert_eq!(distance(DType::F64, f64::INFINITY, f64::MAX), Some(1));
        assert_eq!(distance(DType::F16, 1.0, 1.0 + 1.0 / 512.0), Some(2));
        assert_eq!(distance(DType::F8E4M3FN, 1.0, 1.25), Some(2));
        assert_eq!(distance(DType::F4E2M1, -0.5, 0.5), Some(2));
        assert_eq!(distance(DType::F8E8M0, 1.0, 4.0), Some(2));
        assert_eq!(distance(DType::I32, 1.0, 2.0), None);
    }
}
