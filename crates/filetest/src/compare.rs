//! Comparison of tensors.

use rabot_rewrite::Exactness;
use rabot_tensor::{DType, Tensor};

/// How `actual` differs from `expected` beyond what is allowed, in words; `None` if it does not.
///
/// NaN equals NaN. Anything but floats must be equal whatever is allowed, except under [`Exactness::Changes`], which
/// bounds no element and leaves only dtype and shape.
pub fn difference(expected: &Tensor, actual: &Tensor, allowed: Exactness) -> Option<String> {
    if expected.dtype() != actual.dtype() || expected.shape() != actual.shape() {
        let (e, a) = (expected.dtype(), actual.dtype());
        return Some(format!("got {a}{:?}, expected {e}{:?}", actual.shape(), expected.shape()));
    }
    if expected == actual || matches!(allowed, Exactness::Changes(_)) {
        return None;
    }
    if !expected.dtype().is_float() {
        return first_difference(expected, actual);
    }
    let (e, a) = (expected.to_f64s(), actual.to_f64s());
    let largest = e.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let worst = e
        .iter()
        .zip(&a)
        .enumerate()
        .map(|(index, (&e, &a))| (index, excess(e, a, largest, expected.dtype(), allowed)))
        .filter(|(_, excess)| *excess > 1.0)
        .max_by(|x, y| x.1.total_cmp(&y.1));
    worst.map(|(index, excess)| {
        let (a, e) = (a[index], e[index]);
        format!(
            "element {index} is {a:?}, expected {e:?}: {excess:.3} times what is allowed ({allowed}; largest {largest:?})"
        )
    })
}

fn first_difference(expected: &Tensor, actual: &Tensor) -> Option<String> {
    if let (Some(e), Some(a)) = (expected.strings(), actual.strings()) {
        let at = e.iter().zip(a).position(|(e, a)| e != a)?;
        return Some(format!("element {at} is {:?}, expected {:?}", a[at], e[at]));
    }
    let (e, a) = (expected.to_i64s(), actual.to_i64s());
    let at = e.iter().zip(&a).position(|(e, a)| e != a)?;
    let count = e.iter().zip(&a).filter(|(e, a)| e != a).count();
    Some(format!("element {at} is {}, expected {} ({count} of {} differ)", a[at], e[at], e.len()))
}

/// Difference of two elements as a multiple of what is allowed.
fn excess(expected: f64, actual: f64, largest: f64, dtype: DType, allowed: Exactness) -> f64 {
    let same = expected.to_bits() == actual.to_bits() || (expected.is_nan() && actual.is_nan());
    if same {
        return 0.0;
    }
    if !expected.is_finite() || !actual.is_finite() {
        return f64::INFINITY;
    }
    let bound = match allowed {
        Exactness::Bitwise => 0.0,
        Exactness::Ulp(count) => f64::from(count) * unit_in_last_place(expected, dtype),
        Exactness::Rel { rtol, atol } => atol + rtol * largest,
        Exactness::Changes(_) => f64::INFINITY,
    };
    let distance = (expected - actual).abs();
    if distance == 0.0 && allowed != Exactness::Bitwise {
        // Zeros of different sign.
        return 0.0;
    }
    if bound > 0.0 { distance / bound } else { f64::INFINITY }
}

/// Distance to the next value of the dtype.
fn unit_in_last_place(value: f64, dtype: DType) -> f64 {
    let (mantissa_bits, smallest_exponent) = match dtype {
        DType::F64 => (52, -1022),
        DType::F16 => (10, -14),
        DType::BF16 => (7, -126),
        _ => (23, -126),
    };
    let exponent = if value == 0.0 { smallest_exponent } else { value.abs().log2().floor() as i32 };
    f64::powi(2.0, exponent.max(smallest_exponent) - mantissa_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f32]) -> Tensor {
        Tensor::from_vec(&[values.len()], values.to_vec())
    }

    #[test]
    fn each_exactness_allows_what_it_says() {
        let one = floats(&[1.0, 0.0]);
        let next = floats(&[1.0 + f32::EPSILON, -0.0]);
        assert!(difference(&one, &next, Exactness::Bitwise).is_some());
        assert_eq!(difference(&one, &next, Exactness::Ulp(1)), None);
        let rel = |rtol| Exactness::Rel { rtol, atol: 0.0 };
        assert_eq!(difference(&one, &floats(&[1.0, 1e-6]), rel(1e-5)), None);
        assert!(difference(&one, &floats(&[1.0, 1e-6]), rel(1e-7)).is_some());
        assert_eq!(difference(&one, &floats(&[5.0, 5.0]), Exactness::Changes("accuracy")), None);
        assert!(difference(&one, &floats(&[5.0]), Exactness::Changes("accuracy")).is_some());
    }

    #[test]
    fn what_is_not_finite_must_be_the_same() {
        let rel = Exactness::Rel { rtol: 1.0, atol: 1.0 };
        assert_eq!(difference(&floats(&[f32::NAN]), &floats(&[-f32::NAN]), rel), None);
        assert!(difference(&floats(&[f32::INFINITY]), &floats(&[1.0]), rel).is_some());
        assert!(difference(&floats(&[1.0]), &floats(&[f32::NAN]), rel).is_some());
    }

    #[test]
    fn integers_must_be_equal() {
        let (a, b) = (Tensor::scalar(3i32), Tensor::scalar(4i32));
        let rel = Exactness::Rel { rtol: 1.0, atol: 9.0 };
        assert!(difference(&a, &b, rel).is_some());
        assert_eq!(difference(&a, &a, Exactness::Bitwise), None);
    }
}
