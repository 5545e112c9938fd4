//! The discrete Fourier transform of any length, in f64.
//!
//! Powers of two are transformed in place by halves; any other length is a convolution of such a length (Bluestein).
//!
//! **Source**: L. Bluestein, "A linear filtering approach to the computation of discrete Fourier transform", 1970.

use crate::ops::OpError;
use crate::ops::dense::filled;
use std::f64::consts::PI;

/// A complex number.
pub(super) type Complex = (f64, f64);

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

/// e^(−2πi · numerator / denominator).
fn root(numerator: usize, denominator: usize) -> Complex {
    let angle = -2.0 * PI * numerator as f64 / denominator as f64;
    (libm::cos(angle), libm::sin(angle))
}

/// Transforms in place: y_k = Σ x_n e^(∓2πi k n / N), with + and without a factor of 1/N if `inverse`.
///
/// **Errors**: memory does not suffice.
pub(super) fn transform(x: &mut [Complex], inverse: bool) -> Result<(), OpError> {
    if inverse {
        // The inverse is the conjugate of the transform of the conjugate.
        x.iter_mut().for_each(|value| value.1 = -value.1);
        transform(x, false)?;
        x.iter_mut().for_each(|value| value.1 = -value.1);
        return Ok(());
    }
    match x.len() {
        0 | 1 => Ok(()),
        len if len.is_power_of_two() => {
            let roots: Vec<Complex> = (0..len / 2).map(|k| root(k, len)).collect();
            halves(x, &roots);
            Ok(())
        }
        _ => convolved(x),
    }
}

/// A length that is a power of two. `roots` are the first half of the roots of unity of that order.
fn halves(x: &mut [Complex], roots: &[Complex]) {
    let len = x.len();
    let shift = len.leading_zeros() + 1;
    for index in 0..len {
        let other = index.reverse_bits().checked_shr(shift).unwrap_or(0);
        if index < other {
            x.swap(index, other);
        }
    }
    let mut half = 1;
    while half < len {
        let step = len / (2 * half);
        for block in x.chunks_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                let turned = times(*b, roots[k * step]);
                *b = (a.0 - turned.0, a.1 - turned.1);
                *a = (a.0 + turned.0, a.1 + turned.1);
            }
        }
        half *= 2;
    }
}

/// Any length: with k·n = (k² + n² − (k − n)²) / 2 the sum is a convolution with e^(πi m² / N).
fn convolved(x: &mut [Complex]) -> Result<(), OpError> {
    let len = x.len();
    let too_long = || OpError::Value(format!("a Fourier transform of {len} values"));
    let size = len.checked_mul(2).and_then(usize::checked_next_power_of_two).ok_or_else(too_long)?;
    // m² modulo 2N keeps the angle exact.
    let chirp: Vec<Complex> =
        (0..len).map(|m| root((m as u128 * m as u128 % (2 * len as u128)) as usize, 2 * len)).collect();
    let (mut signal, mut filter) = (filled(&[size], (0.0, 0.0))?, filled(&[size], (0.0, 0.0))?);
    for (index, (&value, &turn)) in x.iter().zip(&chirp).enumerate() {
        signal[index] = times(value, turn);
        let back = (turn.0, -turn.1);
        filter[index] = back;
        if index > 0 {
            filter[size - index] = back;
        }
    }
    transform(&mut signal, false)?;
    transform(&mut filter, false)?;
    for (value, &factor) in signal.iter_mut().zip(&filter) {
        *value = times(*value, factor);
    }
    transform(&mut signal, true)?;
    for (place, (value, &turn)) in x.iter_mut().zip(signal.iter().zip(&chirp)) {
        let value = times(*value, turn);
        *place = (value.0 / size as f64, value.1 / size as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lengths_are_those_of_the_definition() {
        for len in [1usize, 2, 3, 4, 5, 7, 8, 12, 16, 31, 100] {
            let x: Vec<Complex> =
                (0..len).map(|n| ((n as f64 * 0.7).sin(), (n as f64 * 1.3).cos())).collect();
            for inverse in [false, true] {
                let mut y = x.clone();
                transform(&mut y, inverse).unwrap();
                for (k, got) in y.iter().enumerate() {
                    let mut sum = (0.0, 0.0);
                    for (n, &value) in x.iter().enumerate() {
                        let turn = root(k * n % len, len);
                        let turned = times(value, if inverse { (turn.0, -turn.1) } else { turn });
                        sum = (sum.0 + turned.0, sum.1 + turned.1);
                    }
                    let off = (got.0 - sum.0).hypot(got.1 - sum.1);
                    assert!(off < 1e-12 * len as f64, "{len} {k} {inverse}: {off}");
                }
            }
        }
    }
}
