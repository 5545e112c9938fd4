//! How far two tensors are apart.

use rabot_tensor::{DType, Tensor};
use serde::Serialize;

/// The distance of a tensor `a` from a reference `b` of the same dtype and shape.
///
/// Elements that are the same infinity, or both no number, count as equal and not as magnitudes. Where only one of
/// two elements is finite, the distance is infinite (`null` in JSON).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Number of elements.
    pub elements: usize,
    /// Elements whose values differ.
    pub differing: usize,
    /// max |a − b|.
    pub max_abs: f64,
    /// max |b| over finite elements.
    pub max_reference: f64,
    /// max |a − b| / max |b|; 0 where nothing differs.
    pub relative: f64,
    /// Root of the mean square of a − b.
    pub rms: f64,
    /// Signal to quantization noise, 10 · log10(Σb² / Σ(a − b)²), in dB; absent where nothing differs.
    pub sqnr_db: Option<f64>,
    /// Cosine of the angle between a and b as vectors, over elements that are finite in both; 1 where nothing differs,
    /// absent where one of them has no length.
    pub cosine: Option<f64>,
    /// Largest distance in units in the last place of the dtype, for floats; steps for integers.
    pub max_ulp: u64,
    /// Row-major index of the element that is furthest off.
    pub worst: Option<usize>,
}

impl Difference {
    /// Compares two tensors; `None` if dtype or shape differ.
    pub fn of(a: &Tensor, b: &Tensor) -> Option<Difference> {
        if a.dtype() != b.dtype() || a.shape() != b.shape() {
            return None;
        }
        if let (Some(left), Some(right)) = (a.strings(), b.strings()) {
            let differs = |at: &usize| left.get(*at) != right.get(*at);
            return Some(Self::counted((0..right.len()).filter(differs), right.len()));
        }
        if let (Some(a), Some(b)) = (a.parts(), b.parts()) {
            return Self::of(&a, &b);
        }
        let floats =
            (b.dtype() == DType::F32).then(|| a.to_slice::<f32>().ok().zip(b.to_slice::<f32>().ok()));
        if let Some((left, right)) = floats.flatten() {
            let widened = left.iter().zip(right.iter()).map(|(&x, &y)| (f64::from(x), f64::from(y)));
            return Some(Self::measured(b.dtype(), right.len(), widened));
        }
        let (left, right) = (a.to_f64s(), b.to_f64s());
        Some(Self::measured(b.dtype(), right.len(), left.into_iter().zip(right)))
    }

    /// Pairs of elements of `a` and `b`, in order.
    fn measured(dtype: DType, elements: usize, pairs: impl Iterator<Item = (f64, f64)>) -> Difference {
        let mut found = Self::counted(std::iter::empty(), elements);
        let mut sums = Sums::default();
        for (at, (x, y)) in pairs.enumerate() {
            if y.is_finite() {
                found.max_reference = found.max_reference.max(y.abs());
                sums.signal += y * y;
                if x.is_finite() {
                    sums.product += x * y;
                    sums.actual += x * x;
                    sums.expected += y * y;
                }
            }
            if x == y || (x.is_nan() && y.is_nan()) {
                continue;
            }
            let apart = if x.is_finite() && y.is_finite() { (x - y).abs() } else { f64::INFINITY };
            found.differing += 1;
            sums.noise += apart * apart;
            found.max_ulp = found.max_ulp.max(steps(dtype, x, y));
            if found.worst.is_none() || apart > found.max_abs {
                (found.max_abs, found.worst) = (apart, Some(at));
            }
        }
        found.finish(&sums);
        found
    }

    /// Elements that are only equal or not.
    fn counted(mut differing: impl Iterator<Item = usize>, elements: usize) -> Difference {
        let worst = differing.next();
        let differing = usize::from(worst.is_some()) + differing.count();
        let max_abs = if differing > 0 { f64::INFINITY } else { 0.0 };
        Difference {
            elements,
            differing,
            max_abs,
            max_reference: 0.0,
            relative: max_abs,
            rms: max_abs,
            sqnr_db: None,
            cosine: (differing == 0).then_some(1.0),
            max_ulp: if differing > 0 { u64::MAX } else { 0 },
            worst,
        }
    }

    fn finish(&mut self, sums: &Sums) {
        if self.differing == 0 {
            return;
        }
        self.relative =
            if self.max_reference > 0.0 { self.max_abs / self.max_reference } else { f64::INFINITY };
        self.rms = (sums.noise / self.elements.max(1) as f64).sqrt();
        self.sqnr_db = Some(10.0 * (sums.signal / sums.noise).log10()).filter(|db| db.is_finite());
        let cosine = sums.product / (sums.actual.sqrt() * sums.expected.sqrt());
        self.cosine = Some(cosine.clamp(-1.0, 1.0)).filter(|cosine| cosine.is_finite());
    }

    /// No difference from a tensor of so many elements.
    pub(crate) fn none(elements: usize) -> Difference {
        Self::counted(std::iter::empty(), elements)
    }

    /// Tensors that cannot be compared: as far apart as can be.
    pub(crate) fn unlike(elements: usize) -> Difference {
        Self::counted(0..elements.max(1), elements)
    }

    /// True if no element differs.
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }
}

/// Sums of squares and products over the elements of two tensors.
#[derive(Default)]
struct Sums {
    /// Σb².
    signal: f64,
    /// Σ(a − b)².
    noise: f64,
    /// Σab, Σa² and Σb² where both are finite.
    product: f64,
    actual: f64,
    expected: f64,
}

/// Distance of two different values in steps of their dtype.
fn steps(dtype: DType, x: f64, y: f64) -> u64 {
    let key32 = |v: f64| {
        let bits = i64::from((v as f32).to_bits() as i32);
        if bits < 0 { i64::from(i32::MIN) - bits } else { bits }
    };
    if x.is_nan() || y.is_nan() {
        return u64::MAX;
    }
    match dtype {
        DType::F32 => key32(x).abs_diff(key32(y)),
        DType::F64 => {
            let key = |v: f64| {
                let bits = i128::from(v.to_bits() as i64);
                if bits < 0 { i128::from(i64::MIN) - bits } else { bits }
            };
            key(x).abs_diff(key(y)) as u64
        }
        // The low bits of an f32 that holds a narrower float are 0.
        DType::F16 => key32(x).abs_diff(key32(y)) >> 13,
        DType::BF16 => key32(x).abs_diff(key32(y)) >> 16,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F6E2M3 => key32(x).abs_diff(key32(y)) >> 20,
        DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F6E3M2 => key32(x).abs_diff(key32(y)) >> 21,
        DType::F4E2M1 => key32(x).abs_diff(key32(y)) >> 22,
        DType::F8E8M0 => key32(x).abs_diff(key32(y)) >> 23,
        // Complex numbers are compared by their parts.
        DType::String | DType::C64 | DType::C128 => u64::MAX,
        DType::I2 | DType::I4 | DType::I8 | DType::I16 | DType::I32 | DType::I64 => (x - y).abs() as u64,
        DType::U2 | DType::U4 | DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool => {
            (x - y).abs() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_distance_is_found_and_special_values_count() {
        let b = Tensor::from_vec(&[4], vec![1.0f32, -4.0, f32::INFINITY, f32::NAN]);
        let a = Tensor::from_vec(&[4], vec![1.0f32, -3.0, f32::INFINITY, f32::NAN]);
        let found = Difference::of(&a, &b).unwrap();
        assert_eq!((found.differing, found.max_abs, found.relative, found.worst), (1, 1.0, 0.25, Some(1)));
        assert!((found.sqnr_db.unwrap() - 10.0 * 17f64.log10()).abs() < 1e-12);
        assert_eq!(found.rms, 0.5);
        assert!((found.cosine.unwrap() - 13.0 / (10f64 * 17.0).sqrt()).abs() < 1e-12);
        let a = Tensor::from_vec(&[4], vec![1.0f32, -4.0, 5.0, f32::NAN]);
        assert_eq!(Difference::of(&a, &b).unwrap().max_abs, f64::INFINITY);
        assert!(Difference::of(&a, &Tensor::from_vec(&[2, 2], vec![0f32; 4])).is_none());
    }

    #[test]
    fn ulps_are_neighbours() {
        let of = |x: f32, y: f32| {
            let tensor = |v| Tensor::from_vec(&[1], vec![v]);
            Difference::of(&tensor(x), &tensor(y)).unwrap().max_ulp
        };
        assert_eq!(of(1.0, f32::from_bits(1.0f32.to_bits() + 3)), 3);
        assert_eq!(of(f32::from_bits(1), -f32::from_bits(1)), 2);
        assert_eq!(of(0.5, 0.5), 0);
        let half = |v: f64| Tensor::from_f64s(DType::F16, &[1], &[v]);
        assert_eq!(Difference::of(&half(1.0), &half(1.0 + 1.0 / 1024.0)).unwrap().max_ulp, 1);
    }

    #[test]
    fn strings_are_equal_or_not() {
        let strings = |last: &str| Tensor::from_strings(&[2], vec!["a".to_owned(), last.to_owned()]);
        assert!(Difference::of(&strings("b"), &strings("b")).unwrap().is_equal());
        assert_eq!(Difference::of(&strings("c"), &strings("b")).unwrap().worst, Some(1));
    }
}
