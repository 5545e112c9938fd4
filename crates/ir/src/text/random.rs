//! Deterministic pseudo-random numbers and tensors: what `rand(seed, lo, hi)` means.

use rabot_tensor::{DType, Tensor};

/// A small generator whose numbers never change between versions, since golden files depend on them.
///
/// **Source**: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator started from a seed.
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `[lo, hi)`.
    pub fn uniform(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.unit()
    }

    /// Uniform among `0..count`; 0 if `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        // The bias of the modulo is below 2^-32 for any count that a test uses.
        (self.next_u64() % count.max(1) as u64) as usize
    }

    /// Uniform among `lo..=hi`.
    pub fn int(&mut self, lo: i64, hi: i64) -> i64 {
        let count = i128::from(hi) - i128::from(lo) + 1;
        (i128::from(lo) + i128::from(self.next_u64()).rem_euclid(count.max(1))) as i64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of the choices.
    ///
    /// **Panics** if there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// A tensor of uniform elements: floats in `[lo, hi)` before rounding, integers in `lo..=hi`, booleans by a coin.
///
/// **Errors**: the dtype has no arithmetic (strings, 8-bit floats), or the bounds are not an interval in it.
pub fn random_tensor(dtype: DType, shape: &[usize], seed: u64, lo: f64, hi: f64) -> Result<Tensor, String> {
    let mut rng = SplitMix64::new(seed);
    let len = shape.iter().product();
    if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
        return Err(format!("{lo} to {hi} is no interval"));
    }
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            let values: Vec<f64> = (0..len).map(|_| rng.uniform(lo, hi)).collect();
            Ok(Tensor::from_f64s(dtype, shape, &values))
        }
        DType::Bool => {
            let values: Vec<bool> = (0..len).map(|_| rng.next_u64() >> 63 == 1).collect();
            Ok(Tensor::from_bools(shape, &values))
        }
        _ => {
            let (min, max) = dtype.int_range().ok_or_else(|| format!("there is no random {dtype}"))?;
            let whole = |v: f64| v.fract() == 0.0 && (v as i128) >= min && (v as i128) <= max;
            // i64 holds the bounds of every integer type but the upper half of u64.
            if !whole(lo) || !whole(hi) || hi >= i64::MAX as f64 {
                return Err(format!("{lo} to {hi} are no bounds for {dtype}"));
            }
            let values: Vec<i64> = (0..len).map(|_| rng.int(lo as i64, hi as i64)).collect();
            Ok(Tensor::from_i64s(dtype, shape, &values))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_reference_implementation() {
        // First outputs of splitmix64.c (Vigna) for seed 1234567.
        let mut rng = SplitMix64::new(1234567);
        assert_eq!(rng.next_u64(), 6457827717110365317);
        assert_eq!(rng.next_u64(), 3203168211198807973);
    }

    #[test]
    fn bounds_hold() {
        let ints = random_tensor(DType::I8, &[1000], 1, -3.0, 4.0).unwrap().to_i64s();
        assert_eq!((ints.iter().min(), ints.iter().max()), (Some(&-3), Some(&4)));
        let floats = random_tensor(DType::F32, &[1000], 1, 0.5, 1.0).unwrap().to_f64s();
        assert!(floats.iter().all(|v| (0.5..=1.0).contains(v)));
        assert!(random_tensor(DType::U8, &[1], 1, -1.0, 4.0).is_err());
        assert!(random_tensor(DType::F32, &[1], 1, 2.0, 1.0).is_err());
    }
}
