//! The random numbers of numpy's `RandomState`, which ONNX's reference implementation draws from.
//!
//! **Source**: M. Matsumoto, T. Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform pseudo-random
//! number generator", 1998; <https://numpy.org/doc/stable/reference/random/legacy.html>.

const SIZE: usize = 624;
const PERIOD: usize = 397;

/// A generator of 32-bit numbers: MT19937.
pub(super) struct Mersenne {
    state: [u32; SIZE],
    at: usize,
}

impl Mersenne {
    /// Started from a seed.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for index in 1..SIZE {
            let before = state[index - 1];
            state[index] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(index as u32);
        }
        Mersenne { state, at: SIZE }
    }

    fn refill(&mut self) {
        for index in 0..SIZE {
            let (this, next) = (self.state[index], self.state[(index + 1) % SIZE]);
            let joined = (this & 0x8000_0000) | (next & 0x7fff_ffff);
            let odd = if next & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + PERIOD) % SIZE] ^ (joined >> 1) ^ odd;
        }
        self.at = 0;
    }

    fn next(&mut self) -> u32 {
        if self.at == SIZE {
            self.refill();
        }
        let mut value = self.state[self.at];
        self.at += 1;
        value ^= value >> 11;
        value ^= (value << 7) & 0x9d2c_5680;
        value ^= (value << 15) & 0xefc6_0000;
        value ^ (value >> 18)
    }

    /// A number of 53 random bits, at least 0 and less than 1.
    pub(super) fn uniform(&mut self) -> f64 {
        let (high, low) = (f64::from(self.next() >> 5), f64::from(self.next() >> 6));
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::Mersenne;

    #[test]
    fn draws_what_numpy_draws() {
        // numpy.random.RandomState(0).uniform(size=3), and that of seed 42.
        let draw = |seed| {
            let mut numbers = Mersenne::new(seed);
            [numbers.uniform(), numbers.uniform(), numbers.uniform()]
        };
        assert_eq!(draw(0), [0.5488135039273248, 0.7151893663724195, 0.6027633760716439]);
        assert_eq!(draw(42), [0.3745401188473625, 0.9507143064099162, 0.7319939418114051]);
        let mut numbers = Mersenne::new(0);
        let later = (0..1000).map(|_| numbers.uniform()).last();
        assert_eq!(later, Some(LAST));
    }

    /// The thousandth number of seed 0.
    const LAST: f64 = 0.6771411441114241;
}
