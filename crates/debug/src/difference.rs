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
            return Some(Self::of_floats(&left, &right));
        }
        let (left, right) = (a.to_f64s(), b.to_f64s());
        let mut found = Self::counted(std::iter::empty(), right.len());
        let mut sums = Sums::default();
        found.add(&mut sums, b.dtype(), 0, left.into_iter().zip(right));
        found.finish(&sums);
        Some(found)
    }

    /// Tensors of f32, in blocks: those without infinities and NaN need no decision for an element.
    fn of_floats(left: &[f32], right: &[f32]) -> Difference {
        let mut found = Self::counted(std::iter::empty(), right.len());
        let mut sums = Sums::default();
        for (block, (left, right)) in left.chunks(BLOCK).zip(right.chunks(BLOCK)).enumerate() {
            if all_finite(left) && all_finite(right) {
                found.add_finite(&mut sums, block * BLOCK, left, right);
            } else {
                let widened = left.iter().zip(right).map(|(&x, &y)| (f64::from(x), f64::from(y)));
                found.add(&mut sums, DType::F32, block * BLOCK, widened);
            }
        }
        found.finish(&sums);
        found
    }

    /// Adds elements that are all finite, from index `start` on.
    fn add_finite(&mut self, sums: &mut Sums, start: usize, left: &[f32], right: &[f32]) {
        let mut lanes = Lanes::default();
        let (left_rows, left_rest) = left.as_chunks::<LANES>();
        let (right_rows, right_rest) = right.as_chunks::<LANES>();
        for (x, y) in left_rows.iter().zip(right_rows) {
            lanes.add(x, y);
        }
        let mut padded = [[0.0; LANES]; 2];
        for (row, rest) in padded.iter_mut().zip([left_rest, right_rest]) {
            row.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        }
        lanes.add(&padded[0], &padded[1]);
        let largest = |values: [f64; LANES]| values.into_iter().fold(0.0, f64::max);
        let most = largest(lanes.apart);
        self.max_reference = self.max_reference.max(largest(lanes.reference));
        self.max_ulp = lanes.ulp.into_iter().map(u64::from).fold(self.max_ulp, u64::max);
        self.differing += lanes.differing.iter().sum::<u32>() as usize;
        sums.add(&lanes);
        if most > self.max_abs {
            let apart = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).abs() == most;
            let worst = left.iter().zip(right).position(apart);
            (self.max_abs, self.worst) = (most, worst.map(|at| start + at));
        }
    }

    /// Adds pairs of elements of `a` and `b`, in order, from index `start` on.
    fn add(&mut self, sums: &mut Sums, dtype: DType, start: usize, pairs: impl Iterator<Item = (f64, f64)>) {
        let found = self;
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
                (found.max_abs, found.worst) = (apart, Some(start + at));
            }
        }
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

impl Sums {
    /// Adds elements that are finite in both.
    fn add(&mut self, lanes: &Lanes) {
        let sum = |values: &[f64; LANES]| values.iter().sum::<f64>();
        self.signal += sum(&lanes.expected);
        self.noise += sum(&lanes.noise);
        self.product += sum(&lanes.product);
        self.actual += sum(&lanes.actual);
        self.expected += sum(&lanes.expected);
    }
}

/// Elements of a block.
const BLOCK: usize = 1024;

/// Elements that are looked at side by side.
const LANES: usize = 8;

/// What the finite elements of a block add up to, for each place in a row of `LANES`.
#[derive(Default)]
struct Lanes {
    apart: [f64; LANES],
    reference: [f64; LANES],
    noise: [f64; LANES],
    product: [f64; LANES],
    actual: [f64; LANES],
    expected: [f64; LANES],
    ulp: [u32; LANES],
    differing: [u32; LANES],
}

impl Lanes {
    /// Adds a row. One loop for each sum and no branches, so that they become vector instructions.
    #[inline(always)]
    fn add(&mut self, left: &[f32; LANES], right: &[f32; LANES]) {
        let key = |v: f32| {
            let bits = v.to_bits() as i32;
            if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits }
        };
        for i in 0..LANES {
            let (a, b) = (key(left[i]), key(right[i]));
            let ulp = a.max(b).wrapping_sub(a.min(b)) as u32;
            self.ulp[i] = self.ulp[i].max(ulp);
            self.differing[i] += u32::from(ulp != 0);
        }
        let x = left.map(f64::from);
        let y = right.map(f64::from);
        let larger = |a: f64, b: f64| if a > b { a } else { b };
        for i in 0..LANES {
            let apart = (x[i] - y[i]).abs();
            self.apart[i] = larger(apart, self.apart[i]);
            self.reference[i] = larger(y[i].abs(), self.reference[i]);
            self.noise[i] += apart * apart;
        }
        for i in 0..LANES {
            self.product[i] += x[i] * y[i];
            self.actual[i] += x[i] * x[i];
            self.expected[i] += y[i] * y[i];
        }
    }
}

fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(true, |all, v| all & (v.to_bits() & EXPONENT != EXPONENT))
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
    fn blocks_add_up_to_what_elements_do() {
        let value = |at: usize, by: f32| ((at * 37 % 101) as f32 - 50.0) * by;
        let mut left: Vec<f32> = (0..3 * BLOCK + 5).map(|at| value(at, 0.25)).collect();
        let right: Vec<f32> = (0..3 * BLOCK + 5).map(|at| value(at, 0.250001)).collect();
        left[BLOCK + 7] += 3.0;
        let of = |n: usize| {
            let tensor = |v: &[f32]| Tensor::from_vec(&[n], v[..n].to_vec());
            let mut slow = Difference::counted(std::iter::empty(), n);
            let mut sums = Sums::default();
            let pairs = left[..n].iter().zip(&right[..n]).map(|(&x, &y)| (f64::from(x), f64::from(y)));
            slow.add(&mut sums, DType::F32, 0, pairs);
            slow.finish(&sums);
            (Difference::of(&tensor(&left), &tensor(&right)).unwrap(), slow)
        };
        for n in [0, 1, LANES, BLOCK - 1, BLOCK, 3 * BLOCK + 5] {
            let (fast, slow) = of(n);
            assert_eq!(
                (fast.differing, fast.max_ulp, fast.worst),
                (slow.differing, slow.max_ulp, slow.worst)
            );
            assert_eq!((fast.max_abs, fast.max_reference), (slow.max_abs, slow.max_reference));
            assert!((fast.rms - slow.rms).abs() <= 1e-12 * slow.rms, "{} {}", fast.rms, slow.rms);
            assert_eq!(fast.cosine.is_some(), slow.cosine.is_some());
        }
        assert_eq!(of(3 * BLOCK + 5).0.worst, Some(BLOCK + 7));
        let zeros = |v: f32| Tensor::from_vec(&[2], vec![v, v]);
        assert!(Difference::of(&zeros(0.0), &zeros(-0.0)).unwrap().is_equal());
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
