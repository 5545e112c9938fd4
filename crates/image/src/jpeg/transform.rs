//! The inverse cosine transform of libjpeg ("islow"): integers of 13 fractional bits, columns first.

/// Fractional bits of the factors.
const BITS: u32 = 13;
/// Fractional bits that are kept between columns and rows.
const KEPT: u32 = 2;

/// Eight values; `shift` fractional bits are rounded off.
fn line(x: [i32; 8], shift: u32) -> [i32; 8] {
    let x = x.map(i64::from);
    let shared = (x[2] + x[6]) * 4433;
    let (even2, even3) = (shared - x[6] * 15137, shared + x[2] * 6270);
    let (even0, even1) = ((x[0] + x[4]) << BITS, (x[0] - x[4]) << BITS);
    let (a, d, b, c) = (even0 + even3, even0 - even3, even1 + even2, even1 - even2);
    let turn = (x[7] + x[3] + x[5] + x[1]) * 9633;
    let (z1, z2) = ((x[7] + x[1]) * -7373, (x[5] + x[3]) * -20995);
    let (z3, z4) = ((x[7] + x[3]) * -16069 + turn, (x[5] + x[1]) * -3196 + turn);
    let odd0 = x[7] * 2446 + z1 + z3;
    let odd1 = x[5] * 16819 + z2 + z4;
    let odd2 = x[3] * 25172 + z2 + z3;
    let odd3 = x[1] * 12299 + z1 + z4;
    let sums = [a + odd3, b + odd2, c + odd1, d + odd0, d - odd0, c - odd1, b - odd2, a - odd3];
    sums.map(|sum| ((sum + (1 << (shift - 1))) >> shift) as i32)
}

/// Writes the samples of a block to rows that start at `at`, `stride` apart.
pub(super) fn inverse(block: &[i32; 64], samples: &mut [u8], at: usize, stride: usize) {
    let mut columns = [[0; 8]; 8];
    for (x, column) in columns.iter_mut().enumerate() {
        *column = line(std::array::from_fn(|y| block[8 * y + x]), BITS - KEPT);
    }
    for y in 0..8 {
        let row = line(columns.map(|column| column[y]), BITS + KEPT + 3);
        if let Some(places) = samples.get_mut(at + y * stride..at + y * stride + 8) {
            for (place, value) in places.iter_mut().zip(row) {
                *place = (value + 128).clamp(0, 255) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_and_a_cosine() {
        let mut block = [0; 64];
        block[0] = 80;
        let mut samples = [0; 64];
        inverse(&block, &mut samples, 0, 8);
        assert_eq!(samples, [138; 64]);
        block[1] = 100;
        inverse(&block, &mut samples, 0, 8);
        let wanted: [u8; 8] = std::array::from_fn(|x| {
            let angle = std::f64::consts::PI * (2.0 * x as f64 + 1.0) / 16.0;
            (138.0 + 100.0 / 32f64.sqrt() * angle.cos()).round() as u8
        });
        assert_eq!(samples[..8], wanted);
    }
}
